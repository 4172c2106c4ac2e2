"""Which days and event names of a table are compared. Pure functions.

Mixpanel counts by days in the project's reporting time zone. If the table's days are in another zone, such a day touches
two days of the table.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta

from mixpanel_export._database.coverage import MISSING, Coverage, join_days
from mixpanel_export._model import Batch, Chunk
from mixpanel_export._planning.days import checked_days
from mixpanel_export._timezones import in_zone, to_utc
from mixpanel_export.errors import ArgumentError, SelectionError

OLD_AFTER = 30
"""Days after which Mixpanel may have changed a day, so that differences count as explained."""

_USUAL_DAYS = 30
_NOT_COMPARED = frozenset({"limited", "none"})  # "none": the table does not have the day


@dataclass(frozen=True, slots=True)
class ComparedDay:
    """A day in the reporting time zone."""

    day: date
    table_days: Chunk
    """The days of the table that it touches."""
    batches: frozenset[int]
    """The batches that have those days."""
    open: bool
    old: bool


@dataclass(frozen=True, slots=True)
class Part:
    """What is compared of one selection."""

    events: frozenset[str] | None
    """The names; None for all."""
    days: Mapping[date, ComparedDay]
    requested: Chunk
    """The days to report. `days` also has the other days of their batches, to compare numbers of duplicates."""
    batches: Mapping[int, Batch]

    def includes(self, name: str) -> bool:
        """Whether events of this name are compared."""
        return self.events is None or name in self.events

    def reports(self, day: date) -> bool:
        """Whether differences of the day are reported."""
        return day in self.days and self.requested.first <= day <= self.requested.last


@dataclass(frozen=True, slots=True)
class Scope:
    """What is compared of a table."""

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
    """Return what is compared of a table, given the coverages of its selections. The other arguments are as in `Job`.

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
            f"must reach days that the table has ({Chunk(min(days), max(days))}), and {requested} has none of them",
            advice="pass $from_date and $to_date",
        )
    return Scope(requested, zone, tuple(parts))


def skipped_days(scope: Scope) -> list[Chunk]:
    """Return the requested days that are not compared."""
    return list(join_days(set(scope.requested.dates) - set(scope.reported)))


def refetch_days(scope: Scope, failed: Collection[date]) -> list[Chunk]:
    """Return the days to export again: those of the table that the *failed* days touch."""
    touched = [part.days[day].table_days for part in scope.parts for day in failed if day in part.days]
    return list(join_days({day for days in touched for day in days.dates}))


def table_days(day: date, zone: str, table_zone: str) -> Chunk:
    """Return the days in *table_zone* that *day*, in *zone*, touches."""
    if zone == table_zone:
        return Chunk(day, day)
    begins = to_utc(_midnight(day), zone)
    ends = to_utc(_midnight(day + timedelta(days=1)), zone) - timedelta(microseconds=1)
    return Chunk(in_zone(begins, table_zone).date(), in_zone(ends, table_zone).date())


def _check_no_filter(coverage: Coverage, requested: Chunk) -> None:
    if coverage.selection.where is not None:
        raise SelectionError(
            f"table {coverage.table} was exported with the filter {coverage.selection.where}, and Mixpanel counts "
            "events without a filter only",
            days=requested,
            advice="verify a table without a filter",
        )


def _part(coverage: Coverage, requested: Chunk, zone: str, today: date) -> Part:
    statuses = {day.day: day.status for day in coverage.days}
    table_zone = coverage.options.zone
    numbers: dict[date, int] = {}
    for batch in sorted(coverage.batches, key=lambda batch: batch.number):
        numbers.update(dict.fromkeys(batch.days.dates, batch.number))

    def compared(day: date) -> ComparedDay | None:
        touched = table_days(day, zone, table_zone)
        states = [statuses.get(each, "none") for each in touched.dates]
        if _NOT_COMPARED.intersection(states):
            return None
        batches = frozenset(numbers[each] for each in touched.dates if statuses[each] != MISSING)
        return ComparedDay(day, touched, batches, "open" in states, (today - day).days > OLD_AFTER)

    batches = {batch.number: batch for batch in coverage.batches if batch.visible}
    found = [compared(day) for day in requested.dates]
    days = {day.day: day for day in found if day is not None}
    for number in {number for day in days.values() for number in day.batches if number in batches}:
        for each in batches[number].days.dates:
            if each not in days and (more := compared(each)) is not None:
                days[each] = more
    events = coverage.selection.events
    return Part(None if events is None else frozenset(events), days, requested, batches)


def _midnight(day: date) -> datetime:
    return datetime(day.year, day.month, day.day)  # noqa: DTZ001 - a local time
