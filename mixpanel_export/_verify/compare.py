"""Finds the differences between the counts of a table and Mixpanel's counts, and explains them. Pure functions.

Mixpanel documents (docs: reference/event-deduplication.md) that its reports count events with the same name,
distinct_id, time and `$insert_id` once. It also documents that its compaction keeps only one of the events with the same
name, distinct_id, day and `$insert_id`. The compaction may run hours or weeks later, or not at all. We infer that the
Query API counts events the way reports do. If it counts duplicates instead, the surplus of a batch must equal the number
of duplicates that the export removed.
"""

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta

from mixpanel_export._model import Batch
from mixpanel_export._verify.scope import ComparedDay, Part
from mixpanel_export._verify.table_counts import Cell, TableCounts
from mixpanel_export.verification import CountDifference, Explanation

_OFFSETS = range(-12, 15)  # hours from UTC
_REMAINING_SHARE = 0.1  # the share of the differences that may remain under the likely offset


@dataclass(frozen=True, slots=True)
class Difference:
    """An event name and a day whose counts differ."""

    name: str
    day: ComparedDay
    rows: int
    events: int

    @property
    def surplus(self) -> int:
        """The number of events that Mixpanel counts, minus the number of rows in the table."""
        return self.events - self.rows

    @property
    def cell(self) -> Cell:
        """The event name and the day."""
        return self.name, self.day.day


@dataclass(frozen=True, slots=True)
class Evidence:
    """The facts that may explain differences."""

    table: TableCounts
    mergeable: Mapping[Cell, int]
    """The number of rows that compaction would remove, by name and day."""
    hidden: Collection[str]
    """The names that Mixpanel counts but does not export."""


def differences(
    part: Part, rows: Mapping[Cell, int], events: Mapping[Cell, int], ignored: Collection[str] = ()
) -> list[Difference]:
    """Return the differences of a part in order, including those on days that are not reported."""
    names = sorted({name for name, _ in (*rows, *events) if part.includes(name)} - set(ignored))
    return [
        Difference(name, part.days[day], rows.get((name, day), 0), events.get((name, day), 0))
        for day in sorted(part.days)
        for name in names
        if rows.get((name, day), 0) != events.get((name, day), 0)
    ]


def explain(
    part: Part, part_differences: Sequence[Difference], evidence: Evidence
) -> Iterator[CountDifference]:
    """Yield the differences of the days that are reported, each with its explanation."""
    duplicates = set(_duplicates(part, part_differences, evidence))
    untimed = set(_untimed(part_differences, evidence.table))
    for difference in part_differences:
        if part.reports(difference.day.day):
            explanation = _explanation(difference, evidence)
            if explanation is None and difference.cell in untimed:
                explanation = "untimed"
            elif explanation is None and difference.cell in duplicates:
                explanation = "duplicates"
            old = difference.day.old and evidence.table.changed.isdisjoint(difference.day.batches)
            yield CountDifference(
                difference.name,
                str(difference.day.day),
                difference.rows,
                difference.events,
                explanation or ("old" if old else None),
            )


def _explanation(difference: Difference, evidence: Evidence) -> Explanation | None:
    """Return the explanation of a difference, or None if it depends on other differences or there is none."""
    day, surplus = difference.day, difference.surplus
    if surplus > 0 and difference.name in evidence.hidden:
        return "hidden"
    if not evidence.table.changed.isdisjoint(day.batches):
        return None
    if surplus > 0 and day.open:
        return "open"
    return "merged" if 0 < -surplus <= evidence.mergeable.get(difference.cell, 0) else None


def _duplicates(part: Part, part_differences: Iterable[Difference], evidence: Evidence) -> Iterator[Cell]:
    """Yield the differences of days whose surplus is consistent with the number of removed duplicates.

    The surplus and this number need not be equal, because some removed rows belong to other days. A newer version of a row
    may be in another batch, for example if the same event was sent with two different days. The time of a row may also lie
    outside its batch's days. In addition, rows without a time may be part of the surplus.
    """
    by_day: defaultdict[date, list[Difference]] = defaultdict(list)
    for difference in part_differences:
        if difference.name not in evidence.hidden:
            by_day[difference.day.day].append(difference)
    for days in _groups(part):
        numbers = {number for day in days for number in day.batches} & part.batches.keys()
        if not (_have_whole_batches(part, days) and numbers.isdisjoint(evidence.table.changed)):
            continue
        group = [difference for day in days for difference in by_day[day.day]]
        surplus = sum(difference.surplus for difference in group)
        bounds = [_duplicate_bounds(part.batches[number], evidence.table) for number in numbers]
        min_surplus, max_surplus = sum(low for low, _ in bounds), sum(high for _, high in bounds)
        if min_surplus <= surplus <= max_surplus and all(each.surplus > 0 for each in group):
            yield from (difference.cell for difference in group)


def _duplicate_bounds(batch: Batch, table: TableCounts) -> tuple[int, int]:
    """Return the smallest and the largest surplus that a batch's days can have if Mixpanel counts duplicates."""
    untimed = sum(count for (_, number), count in table.untimed.items() if number == batch.number)
    elsewhere = table.hidden.get(batch.number, 0) + batch.stray_rows
    return batch.removed_duplicates - elsewhere, batch.removed_duplicates + untimed


def _groups(part: Part) -> Iterator[list[ComparedDay]]:
    """Yield the days of the part in groups. Two groups never have a batch in common."""
    group: list[ComparedDay] = []
    batches: set[int] = set()
    for _, day in sorted(part.days.items()):
        if group and batches.isdisjoint(day.batches):
            yield group
            group, batches = [], set()
        group.append(day)
        batches |= day.batches
    if group:
        yield group


def _have_whole_batches(part: Part, days: Sequence[ComparedDay]) -> bool:
    """Whether *days* contain all days of their batches."""
    touched = {each for day in days for each in day.table_days.dates}
    numbers = {number for day in days for number in day.batches} & part.batches.keys()
    return all(touched.issuperset(part.batches[number].days.dates) for number in numbers)


def _untimed(part_differences: Iterable[Difference], table: TableCounts) -> Iterator[Cell]:
    """Yield the differences that rows without a time explain.

    If an event name has enough rows without a time in a set of batches, they explain all its differences in these batches.
    An event without a time may be in two batches. The table shows the row of one batch, but Mixpanel may count the event on
    a day of the other batch. For this reason, hidden rows count too.
    """
    by_batches: defaultdict[tuple[str, frozenset[int]], list[Difference]] = defaultdict(list)
    for difference in part_differences:
        if difference.surplus > 0:
            by_batches[difference.name, difference.day.batches].append(difference)
    for (name, batches), group in by_batches.items():
        rows = sum(table.untimed.get((name, number), 0) for number in batches - table.changed)
        rows += _untimed_elsewhere(name, batches, table)
        if sum(difference.surplus for difference in group) <= rows:
            yield from (difference.cell for difference in group)


def _untimed_elsewhere(name: str, batches: frozenset[int], table: TableCounts) -> int:
    """Return the number of events without a time that *batches* received, but whose visible row is in another batch."""
    return sum(
        count
        for (its_name, number, newer), count in table.hidden_untimed.items()
        if its_name == name and number in batches - table.changed and newer not in batches | table.changed
    )


def failed_days(
    reported: Iterable[CountDifference], events: Mapping[Cell, int], tolerance: float
) -> list[date]:
    """Return the days whose unexplained differences exceed *tolerance*, a share of Mixpanel's events on the day."""
    wrong: Counter[date] = Counter()
    for difference in reported:
        if difference.explanation is None:
            wrong[date.fromisoformat(difference.day)] += abs(difference.difference)
    total: Counter[date] = Counter()
    for (_, day), count in events.items():
        total[day] += count
    return sorted(day for day, count in wrong.items() if count > tolerance * total[day])


def likely_offset(
    hours: Mapping[str, Mapping[datetime, int]],
    events: Mapping[Cell, int],
    days: Sequence[date],
    current: int,
) -> float | None:
    """Return the offset from UTC, in hours, at which the table agrees with Mixpanel on *days*; None if there is none.

    *hours* has the number of rows by name and hour in UTC. It includes the day before and the day after *days*. *current*
    is the number of events by which the counts of these names differ in the current zone.
    """
    wrong = {offset: _disagreement(hours, events, days, offset) for offset in _OFFSETS}
    best = min(wrong, key=lambda offset: (wrong[offset], abs(offset)))
    return float(best) if wrong[best] <= _REMAINING_SHARE * current else None


def _disagreement(
    hours: Mapping[str, Mapping[datetime, int]],
    events: Mapping[Cell, int],
    days: Sequence[date],
    offset: int,
) -> int:
    chosen = set(days)
    rows: Counter[Cell] = Counter()
    for name, counts in hours.items():
        for hour, count in counts.items():
            day = (hour + timedelta(hours=offset)).date()
            if day in chosen:
                rows[name, day] += count
    return sum(abs(events.get((name, day), 0) - rows[name, day]) for name in hours for day in chosen)
