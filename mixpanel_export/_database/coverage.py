"""Determines the status of each day of a table, and the days that are left to fetch. Pure functions.

Among the batches of the same table and selection, the newest batch that includes a day determines its status. `resume`
uses the same rule. If the row count of a batch differs from the ledger, all its days are changed, because the ledger does
not count rows by day.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from functools import cached_property
from types import MappingProxyType

from mixpanel_export._database.target_days import LoadOptions, Target
from mixpanel_export._model import Batch, Chunk, Selection

MISSING = "missing"
"""The status of a day that has no batch, but is a target day or lies between days with batches."""

CHANGED = "changed"
"""The status of the days of a batch with rows that were added or deleted by hand. `resume` rejects these days."""

TO_FETCH = frozenset({"failed", "open", MISSING})
"""The statuses of days that `resume` fetches. It does not fetch changed, limited or imported days."""

RowsPerDay = Mapping[int, Mapping[date | None, int]]
"""The number of rows in the table, keyed by batch and day. The day None stands for rows without a time."""


@dataclass(frozen=True, slots=True)
class Day:
    """A day, its status, and the number of its rows in the table."""

    day: date
    status: str
    rows: int = 0


@dataclass(frozen=True, slots=True)
class Failure:
    """Consecutive days that failed for the same reason."""

    days: Chunk
    error: str


@dataclass(frozen=True, slots=True)
class Mismatch:
    """A batch whose row counts in the table and in the ledger differ."""

    batch: int
    days: Chunk
    table_rows: int
    ledger_rows: int


@dataclass(frozen=True, slots=True)
class ChangedDays:
    """Consecutive days of batches whose row counts in the table and in the ledger differ."""

    days: Chunk
    batches: tuple[Mismatch, ...]

    def __str__(self) -> str:
        """Describe the difference."""
        before = sum(each.ledger_rows for each in self.batches)
        now = sum(each.table_rows for each in self.batches)
        if len(self.batches) == 1:
            return (
                f"batch {self.batches[0].batch} had {before:,} rows when it was exported, and now has {now:,}"
            )
        return (
            f"{len(self.batches)} batches had {before:,} rows when they were exported, and now have {now:,}"
        )


@dataclass(frozen=True)
class Coverage:
    """The days of one table and one selection."""

    table: str
    selection: Selection
    batches: tuple[Batch, ...]
    """The ledger rows of this table and selection; none if an export was interrupted before its first batch."""
    counts: RowsPerDay | None
    """The row counts in the table; None if the table does not exist."""
    target: Target | None = None
    """The target days: all days that exports have requested."""
    imported: frozenset[date] = frozenset()
    """Days whose rows mixpanel_data wrote. They are not missing."""
    blocked: frozenset[date] = frozenset()
    """Days that this selection may not fetch, because batches of other selections may contain the same events."""

    @cached_property
    def days(self) -> tuple[Day, ...]:
        """All days with a batch, and all missing days, in order."""
        newest, changed = self._by_day, self._changed
        expected = [day for day, row in newest.items() if row.status != "limited"]
        expected += [self.target.days.first, self.target.days.last] if self.target else []
        days = set(newest)
        if expected:
            days.update(set(Chunk(min(expected), max(expected)).dates) - self.imported)
        rows = self._rows_of

        def status(day: date) -> str:
            return CHANGED if day in changed else newest[day].status if day in newest else MISSING

        return tuple(Day(day, status(day), rows[day]) for day in sorted(days))

    @cached_property
    def statuses(self) -> Counter[str]:
        """The number of days with each status."""
        return Counter(day.status for day in self.days)

    @property
    def failures(self) -> tuple[Failure, ...]:
        """The days with the status `failed`, with their reasons. Consecutive days with the same reason are one failure."""
        failures: list[Failure] = []
        for day, row in sorted(self._by_day.items()):
            if row.visible or day in self._changed:
                continue
            error = row.error or "no reason recorded"
            last = failures[-1] if failures else None
            if last and last.error == error and last.days.last + timedelta(days=1) == day:
                failures[-1] = Failure(Chunk(last.days.first, day), error)
            else:
                failures.append(Failure(Chunk(day, day), error))
        return tuple(failures)

    @property
    def to_fetch(self) -> tuple[Chunk, ...]:
        """The ranges of days to export with `resume`. Each starts and ends with a day to fetch.

        A range may include complete days, but no changed, blocked, limited or imported days.
        """
        return tuple(_ranges(self.days, self.blocked))

    @property
    def empty_responses(self) -> tuple[Chunk, ...]:
        """The days that were requested twice, with two empty responses. They are treated as days without events."""
        return tuple(join_days(day for day, batch in self._by_day.items() if batch.empty_response))

    @cached_property
    def mismatches(self) -> tuple[Mismatch, ...]:
        """The batches whose row count was changed by hand. Imported batches are not compared."""
        if self.counts is None:
            return ()
        return tuple(
            Mismatch(row.number, row.days, rows, row.rows)
            for row in self.batches
            if row.status not in {"failed", "imported"} and (rows := self._table_rows(row)) != row.rows
        )

    @property
    def changed_days(self) -> tuple[ChangedDays, ...]:
        """The days with the status `changed`. To repair them, export them with `append`."""
        return tuple(
            ChangedDays(days, tuple(each for each in self.mismatches if each.days.overlaps(days)))
            for days in join_days(self._changed)
        )

    def with_whole_batches(self, days: Iterable[date]) -> tuple[Chunk, ...]:
        """Return *days* and the other days of their batches. An export of *days* with `append` fetches all of them."""
        requested = set(days)
        batches = [set(row.days.dates) for row in self.batches if row.visible]
        return tuple(
            join_days(requested.union(*(each for each in batches if not each.isdisjoint(requested))))
        )

    @property
    def total_rows(self) -> int:
        """The number of the selection's rows in the table."""
        return sum(map(self._table_rows, self.batches))

    @property
    def rows_without_day(self) -> int:
        """The number of rows without a time, or with a time outside these days."""
        return self.total_rows - sum(day.rows for day in self.days)

    @property
    def last_export(self) -> datetime | None:
        """When the last batch was committed or failed, in naive UTC."""
        return max((row.finished for row in self.batches if row.finished), default=None)

    @property
    def options(self) -> LoadOptions:
        """The options of the newest batch; if there are no batches, the options for the target days."""
        return self._options_of(self.batches)

    def options_for(self, days: Chunk) -> LoadOptions:
        """Return the options of the newest batch for *days*, or else of the newest batch for all days."""
        return self._options_of([row for row in self.batches if row.days.overlaps(days)] or self.batches)

    def _options_of(self, batches: Sequence[Batch]) -> LoadOptions:
        if batches:
            newest = max(batches, key=lambda row: row.number)
            return LoadOptions(newest.zone, newest.deduplicated)
        return (self.target and self.target.options) or LoadOptions()

    @property
    def dropped(self) -> bool:
        """Whether the ledger has batches of the table, but the table does not exist."""
        return self.counts is None and any(row.visible for row in self.batches)

    @property
    def is_complete(self) -> bool:
        """Whether no day is left to fetch, and the table and the ledger agree. True for a dropped table."""
        return self.dropped or not (TO_FETCH & self.statuses.keys() or self.mismatches)

    @cached_property
    def _changed(self) -> frozenset[date]:
        return frozenset(day for each in self.mismatches for day in each.days.dates)

    @cached_property
    def _by_day(self) -> dict[date, Batch]:
        by_age = sorted(self.batches, key=lambda batch: batch.number)
        return {day: batch for batch in by_age for day in batch.days.dates}

    @cached_property
    def _rows_of(self) -> Counter[date | None]:
        total: Counter[date | None] = Counter()
        for row in self.batches:
            total.update((self.counts or {}).get(row.number, {}))
        return total

    def _table_rows(self, batch: Batch) -> int:
        return sum((self.counts or {}).get(batch.number, {}).values())


def coverages(
    rows: Iterable[Batch],
    counts: Mapping[str, RowsPerDay],
    targets: Mapping[tuple[str, Selection], Target] = MappingProxyType({}),
) -> tuple[Coverage, ...]:
    """Return the coverage of each table and selection that has batches or a target, ordered by table and first batch.

    *rows* contains ledger rows. *counts* has the row counts of each existing table.
    """
    groups: dict[tuple[str, Selection], list[Batch]] = {}
    for row in sorted(rows, key=lambda row: (row.table, row.number)):
        groups.setdefault((row.table, row.selection), []).append(row)
    for key in targets:
        groups.setdefault(key, [])
    return tuple(
        Coverage(
            table,
            selection,
            tuple(batches),
            counts.get(table),
            targets.get((table, selection)),
            _days_of(row for row in _in_table(groups, table) if row.status == "imported"),
            _days_of(row for row in _in_table(groups, table) if _may_share(row, selection)),
        )
        for (table, selection), batches in sorted(groups.items(), key=lambda item: item[0][0])
    )


def _in_table(groups: Mapping[tuple[str, Selection], Sequence[Batch]], table: str) -> Iterator[Batch]:
    return (row for (name, _), rows in groups.items() if name == table for row in rows)


def _may_share(row: Batch, selection: Selection) -> bool:
    """Whether *row* may share events with *selection*, so that an export of its days would be rejected."""
    return row.visible and row.selection != selection and not row.selection.excludes(selection)


def _days_of(rows: Iterable[Batch]) -> frozenset[date]:
    return frozenset(day for row in rows for day in row.days.dates)


def join_days(days: Iterable[date]) -> Iterator[Chunk]:
    """Yield *days* as runs of consecutive days, in order."""
    first: date | None = None
    last: date | None = None
    for day in sorted(days):
        if first and last and day - last > timedelta(days=1):
            yield Chunk(first, last)
            first = None
        first, last = first or day, day
    if first and last:
        yield Chunk(first, last)


def _ranges(days: Sequence[Day], blocked: frozenset[date]) -> Iterator[Chunk]:
    """Yield the ranges of days to fetch. Ranges are separated by gaps, and by days that an export must not fetch."""
    to_fetch: list[date] = []
    previous: date | None = None
    for day in days:
        after_gap = previous is not None and day.day - previous > timedelta(days=1)
        excluded = day.day in blocked or day.status not in TO_FETCH | {"complete"}
        if to_fetch and (after_gap or excluded):
            yield Chunk(to_fetch[0], to_fetch[-1])
            to_fetch = []
        if day.status in TO_FETCH and not excluded:
            to_fetch.append(day.day)
        previous = day.day
    if to_fetch:
        yield Chunk(to_fetch[0], to_fetch[-1])
