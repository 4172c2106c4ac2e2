"""Decides which days and event names of a table are compared. Pure functions.

Mixpanel counts events per day in the project's reporting time zone. If the table's days are in another zone, each of
Mixpanel's days overlaps two days of the table.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta

from mixpanel_export._database.coverage import MISSING, Coverage, join_days
from mixpanel_export._model import Batch, Chunk
from mixpanel_export._planning.days import checked_days
from mixpanel_export._planning.planner import is_open
from mixpanel_export._timezones import in_zone, to_utc
from mixpanel_export.errors import ArgumentError, SelectionError

OLD_AFTER = 30
"""A number of days. Mixpanel may change older days, so their differences are treated as explained."""

_USUAL_DAYS = 30
_NOT_COMPARED = frozenset({"limited", "none"})  # "none": the table does not have the day


@dataclass(frozen=True, slots=True)
class ComparedDay:
    """A day in the reporting time zone."""

    day: date
    table_days: Chunk
    """The days of the table that this day overlaps."""
    batches: frozenset[int]
    """The batches of these days of the table."""
    open: bool
    """Whether one of these days of the table was open when it was exported."""
    old: bool
    """Whether the day is older than `OLD_AFTER`."""


@dataclass(frozen=True, slots=True)
class Part:
    """The days and names of one selection that are compared."""

    events: frozenset[str] | None
    """The names; None for all."""
    days: Mapping[date, ComparedDay]
    requested: Chunk
    """The days to report. `days` also contains the other days of their batches, because duplicates are counted by batch."""
    batches: Mapping[int, Batch]

    def includes(self, name: str) -> bool:
        """Whether events of this name are compared."""
        return self.events is None or name in self.events

    def reports(self, day: date) -> bool:
        """Whether differences of the day are reported."""
        return day in self.days and self.requested.first <= day <= self.requested.last


@dataclass(frozen=True, slots=True)
class Scope:
    """The days and names of a table that are compared."""

    requested: Chunk
    zone: str
    """The reporting time zone."""
    parts: tuple[Part, ...]

    @property
    def reported(self) -> list[date]:
        """The days that are compared and reported, in order."""
        return sorted({day for part in self.parts for day in part.days if part.reports(day)})

    @property
    def days(self) -> Chunk:
        """The days whose counts are needed."""
        return Chunk(min(min(part.days) for part in self.parts), max(max(part.days) for part in self.parts))

    def includes(self, name: str) -> bool:
        """Whether events of this name are compared."""
        return any(part.includes(name) for part in self.parts)


def scope_of(
    coverages: Sequence[Coverage],
    from_date: str | date | None,
    to_date: str | date | None,
    zone: str | None,
    now: datetime,
) -> Scope:
    """Return the scope of a verification. *coverages* has one item for each selection of the table.

    *from_date* and *to_date* are the same as in `verify_events`. If *zone* is None, it is the zone of the table's days.

    Raises:
        ArgumentError: A day is invalid, or the table has none of the days.
        SelectionError: A selection has a filter.
    """
    zone = zone or coverages[-1].options.zone
    today = in_zone(now, zone).date()
    first = today - timedelta(days=_USUAL_DAYS) if from_date is None else from_date
    requested = checked_days(first, "yesterday" if to_date is None else to_date, today)
    parts = []
    for coverage in coverages:
        part = _part(coverage, requested, zone, today)
        if part.days:
            _check_no_filter(coverage, requested)
            parts.append(part)
    if not parts:
        days = [day.day for coverage in coverages for day in coverage.days]
        raise ArgumentError(
            "from_date",
            f"must be within the table's days, {Chunk(min(days), max(days))}; {requested} is not",
            advice="pass $from_date and $to_date",
        )
    return Scope(requested, zone, tuple(parts))


def skipped_days(scope: Scope) -> list[Chunk]:
    """Return the requested days that are not compared."""
    return list(join_days(set(scope.requested.dates) - set(scope.reported)))


def refetch_days(scope: Scope, failed: Collection[date]) -> list[Chunk]:
    """Return the days to export again: the days of the table that the *failed* days overlap."""
    touched = [part.days[day].table_days for part in scope.parts for day in failed if day in part.days]
    return list(join_days({day for days in touched for day in days.dates}))


def table_days(day: date, zone: str, table_zone: str) -> Chunk:
    """Return the days in *table_zone* that *day*, in *zone*, overlaps."""
    if zone == table_zone:
        return Chunk(day, day)
    start = to_utc(_midnight(day), zone)
    end = to_utc(_midnight(day + timedelta(days=1)), zone) - timedelta(microseconds=1)
    return Chunk(in_zone(start, table_zone).date(), in_zone(end, table_zone).date())


def _check_no_filter(coverage: Coverage, requested: Chunk) -> None:
    if coverage.selection.where is not None:
        raise SelectionError(
            f"table {coverage.table} was exported with the filter {coverage.selection.where}, which Mixpanel's counts "
            "do not support",
            days=requested,
            advice="verify a table without a filter",
        )


def _part(coverage: Coverage, requested: Chunk, zone: str, today: date) -> Part:
    batches: dict[date, Batch] = {}
    for batch in sorted(coverage.batches, key=lambda batch: batch.number):
        batches.update(dict.fromkeys(batch.days.dates, batch))
    statuses = {day.day: day.status for day in coverage.days}

    def compared_days(days: Iterable[date]) -> dict[date, ComparedDay]:
        result = {}
        for day in days:
            overlap = table_days(day, zone, coverage.options.zone)
            if _NOT_COMPARED.isdisjoint(statuses.get(each, "none") for each in overlap.dates):
                day_batches = [batches[each] for each in overlap.dates if statuses[each] != MISSING]
                numbers = frozenset(batch.number for batch in day_batches)
                open_ = any(_was_open(overlap.last, batch) for batch in day_batches)
                result[day] = ComparedDay(day, overlap, numbers, open_, (today - day).days > OLD_AFTER)
        return result

    days = compared_days(requested.dates)
    visible = {batch.number: batch for batch in coverage.batches if batch.visible}
    numbers = {number for day in days.values() for number in day.batches} & visible.keys()
    days |= compared_days({day for number in numbers for day in visible[number].days.dates} - days.keys())
    events = coverage.selection.events
    return Part(None if events is None else frozenset(events), days, requested, visible)


def _was_open(day: date, batch: Batch) -> bool:
    """Whether the day was open when the batch was requested. An open batch may also have closed days."""
    if batch.status != "open" or batch.requested_at is None:
        return batch.status == "open"
    return is_open(day, in_zone(batch.requested_at.replace(tzinfo=UTC), batch.zone))


def _midnight(day: date) -> datetime:
    return datetime(day.year, day.month, day.day)  # noqa: DTZ001 - a local time
