"""Decides which days of a data set are written again. Pure functions."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from mixpanel_export._database.publications import Day, PublishedDay
from mixpanel_export._publish.source import DayVersion

_GROUP_ROWS = 250_000  # about two row groups of DuckDB
_GROUP_DAYS = 32


@dataclass(frozen=True, slots=True)
class StoredFile:
    """A file at the destination."""

    size: int
    """In bytes."""
    stamp: str
    """A string that changes if the file is written again."""


@dataclass(frozen=True, slots=True)
class Plan:
    """The work of one publication."""

    changed: tuple[Day, ...]
    """The days that are missing from the data set, or whose version there differs from the table's, in order."""
    intact: frozenset[Day]
    """The changed days whose file was not modified after its publication. The file stays if its rows prove to be the same."""
    removed: tuple[Day, ...]
    """The published days that the table no longer has."""


def plan(
    table: Mapping[Day, DayVersion], published: Mapping[Day, PublishedDay], files: Mapping[str, StoredFile]
) -> Plan:
    """Compare the table with the recorded state of the data set, and that state with the files at the destination."""
    intact = {
        day
        for day, state in published.items()
        if day in table and files.get(state.file) == StoredFile(state.size, state.stamp)
    }
    current = {day for day in intact if published[day].version == table[day].version}
    return Plan(
        changed=tuple(sorted(table.keys() - current, key=_order)),
        intact=frozenset(intact - current),
        removed=tuple(sorted(published.keys() - table.keys(), key=_order)),
    )


def groups(days: Iterable[Day], table: Mapping[Day, DayVersion]) -> Iterator[tuple[Day, ...]]:
    """Yield the days in groups. Each group is read with one query, so it contains a few large days or many small ones."""
    group: list[Day] = []
    rows = 0
    for day in days:
        group.append(day)
        rows += table[day].rows
        if rows >= _GROUP_ROWS or len(group) >= _GROUP_DAYS:
            yield tuple(group)
            group, rows = [], 0
    if group:
        yield tuple(group)


def days_behind(table: Mapping[Day, DayVersion], published: Mapping[Day, PublishedDay]) -> int:
    """Return how many days of the data set differ from the table. Files at the destination are not examined."""
    days = table.keys() | published.keys()
    same = {day for day in table.keys() & published.keys() if table[day].version == published[day].version}
    return len(days - same)


def _order(day: Day) -> str:
    return str(day or "")
