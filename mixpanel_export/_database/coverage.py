"""What a ledger makes of each day: the calendar of a table, and what is left to fetch. Pure.

For each day the newest ledger row of the table and the selection decides, as it does for `resume`.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from functools import cached_property

from mixpanel_export._model import Batch, Chunk, Selection

MISSING = "missing"
"""The status of a day between others that no batch has."""

TO_FETCH = frozenset({"failed", "open", MISSING})
"""The statuses of days that `resume` fetches to make an export whole.

What was limited on purpose, or comes from another program, is left as it is.
"""

_A_LOOK = "limited"  # fetched to look at, perhaps far from all other days

RowsPerDay = Mapping[int, Mapping[date | None, int]]
"""For each batch how many rows the table holds of each day; None stands for rows without a time."""


@dataclass(frozen=True, slots=True)
class Day:
    """A day of the calendar, and how many rows the table has of it."""

    day: date
    status: str
    rows: int = 0


@dataclass(frozen=True, slots=True)
class Failure:
    """Days that follow each other and failed for one reason."""

    days: Chunk
    error: str


@dataclass(frozen=True, slots=True)
class Mismatch:
    """A batch of which the table holds another number of rows than the ledger says."""

    batch: int
    days: Chunk
    there: int
    noted: int


@dataclass(frozen=True)
class Coverage:
    """What one table has of one selection.

    *rows* are the ledger's, *counted* are the table's own, None where there is no such table. Days that another
    program brought are *elsewhere*: they are not missing here. Days *taken* have rows of a selection that may share
    events with this one, so no export may put its own beside them.
    """

    table: str
    selection: Selection
    rows: tuple[Batch, ...]
    counted: RowsPerDay | None
    elsewhere: frozenset[date] = frozenset()
    taken: frozenset[date] = frozenset()

    @cached_property
    def days(self) -> tuple[Day, ...]:
        """Every day that a batch has or that is missing between such days, in order."""
        newest = self._by_day
        known = [day for day, row in newest.items() if row.status != _A_LOOK]
        every = set(newest)
        if known:
            every.update(set(Chunk(min(known), max(known)).dates) - self.elsewhere)
        rows = self._rows_of
        return tuple(
            Day(day, newest[day].status if day in newest else MISSING, rows[day]) for day in sorted(every)
        )

    @cached_property
    def statuses(self) -> Counter[str]:
        """How many days have which status."""
        return Counter(day.status for day in self.days)

    @property
    def failures(self) -> tuple[Failure, ...]:
        """The failed days with the reason, those that follow each other with the same reason as one.

        The reasons as noted name the days, too.
        """
        found: list[Failure] = []
        for day, row in sorted(self._by_day.items()):
            if row.visible:
                continue
            error = (row.error or "no reason noted").replace(f" for {row.days}", "")
            last = found[-1] if found else None
            if last and last.error == error and last.days.last + timedelta(days=1) == day:
                found[-1] = Failure(Chunk(last.days.first, day), error)
            else:
                found.append(Failure(Chunk(day, day), error))
        return tuple(found)

    @property
    def to_fetch(self) -> tuple[Chunk, ...]:
        """The ranges to ask `resume` for, each of which begins and ends with a day to be fetched.

        None holds a day that is taken, or to be left as it is; days that are complete may be among them.
        """
        return tuple(_ranges(self.days, self.taken))

    @property
    def mismatches(self) -> tuple[Mismatch, ...]:
        """The batches of which rows were deleted or added by hand; for what was imported nothing vouches."""
        if self.counted is None:
            return ()
        return tuple(
            Mismatch(row.number, row.days, there, row.rows)
            for row in self.rows
            if row.status not in {"failed", "imported"} and (there := self._there(row)) != row.rows
        )

    @property
    def total_rows(self) -> int:
        """Rows of the selection in the table."""
        return sum(map(self._there, self.rows))

    @property
    def outside_rows(self) -> int:
        """Rows whose time is on none of the days, or that have no time."""
        return self.total_rows - sum(day.rows for day in self.days)

    @property
    def last_export(self) -> datetime | None:
        """When the last batch was decided."""
        return max((row.finished for row in self.rows if row.finished), default=None)

    @property
    def newest(self) -> Batch:
        """The row that was written last."""
        return max(self.rows, key=lambda row: row.number)

    def asked_last(self, days: Chunk) -> Batch:
        """The row written last of those that have one of *days*, or of all: it tells how these days are asked for."""
        theirs = (row for row in self.rows if row.days.overlaps(days))
        return max(theirs, key=lambda row: row.number, default=self.newest)

    @property
    def dropped(self) -> bool:
        """Whether the table is gone that the ledger says had rows, so that nothing is held."""
        return self.counted is None and any(row.visible for row in self.rows)

    @property
    def whole(self) -> bool:
        """Whether no day is to be fetched, and the table has the rows that the ledger says; a dropped one has none."""
        return self.dropped or not (TO_FETCH & self.statuses.keys() or self.mismatches)

    @cached_property
    def _by_day(self) -> dict[date, Batch]:
        in_turn = sorted(self.rows, key=lambda row: row.number)
        return {day: row for row in in_turn for day in row.days.dates}

    @cached_property
    def _rows_of(self) -> Counter[date | None]:
        total: Counter[date | None] = Counter()
        for row in self.rows:
            total.update((self.counted or {}).get(row.number, {}))
        return total

    def _there(self, row: Batch) -> int:
        return sum((self.counted or {}).get(row.number, {}).values())


def coverages(rows: Iterable[Batch], counted: Mapping[str, RowsPerDay]) -> tuple[Coverage, ...]:
    """Return what each table has of each selection, in order of the tables and of the first batches.

    *counted* has the rows of the tables that are there.
    """
    found: dict[tuple[str, Selection], list[Batch]] = {}
    for row in sorted(rows, key=lambda row: (row.table, row.number)):
        found.setdefault((row.table, row.selection), []).append(row)
    return tuple(
        Coverage(
            table,
            selection,
            tuple(theirs),
            counted.get(table),
            _days_of(row for row in _in_table(found, table) if row.status == "imported"),
            _days_of(row for row in _in_table(found, table) if _may_share(row, selection)),
        )
        for (table, selection), theirs in found.items()
    )


def _in_table(found: Mapping[tuple[str, Selection], Sequence[Batch]], table: str) -> Iterator[Batch]:
    return (row for (name, _), rows in found.items() if name == table for row in rows)


def _may_share(row: Batch, selection: Selection) -> bool:
    """Whether *selection* is refused on the days of the row, as the ledger refuses it."""
    return row.visible and row.selection != selection and not row.selection.excludes(selection)


def _days_of(rows: Iterable[Batch]) -> frozenset[date]:
    return frozenset(day for row in rows for day in row.days.dates)


def _ranges(days: Sequence[Day], taken: frozenset[date]) -> Iterator[Chunk]:
    """Cut at days that are taken or left as they are, and where days are far apart; trim what needs no fetching."""
    wanted: list[date] = []
    before: date | None = None
    for day in days:
        apart = before is not None and day.day - before > timedelta(days=1)
        stays = day.day in taken or day.status not in TO_FETCH | {"complete"}
        if wanted and (apart or stays):
            yield Chunk(wanted[0], wanted[-1])
            wanted = []
        if day.status in TO_FETCH and not stays:
            wanted.append(day.day)
        before = day.day
    if wanted:
        yield Chunk(wanted[0], wanted[-1])
