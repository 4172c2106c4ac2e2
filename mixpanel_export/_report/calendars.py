"""The calendar of a table's days. Pure functions."""

from collections import Counter
from collections.abc import Sequence
from itertools import pairwise

from mixpanel_export._database.coverage import Coverage, Failure
from mixpanel_export._model import Selection
from mixpanel_export._report.model import SILENT, STATUSES, Calendar, CalendarDay, FailedDays
from mixpanel_export._report.personal import failure_reason

MAX_DAYS = 3_660
"""The maximum number of days in a calendar."""

_MAX_FAILURES = 50


def calendar_of(coverage: Coverage, *, examples: bool) -> Calendar:
    """Return the calendar of one table and selection."""
    silent = {day for days in coverage.empty_responses for day in days.dates}
    days = [
        CalendarDay(day.day, SILENT if day.day in silent else day.status, day.rows) for day in coverage.days
    ]
    counts = Counter(day.status for day in days)
    return Calendar(
        selection=_words(coverage.selection, examples=examples),
        days=tuple(days[-MAX_DAYS:]),
        counts=tuple((status, counts[status]) for status in STATUSES if counts[status]),
        failures=_failures(coverage.failures, examples=examples),
        earlier_days=max(0, len(days) - MAX_DAYS),
    )


def _words(selection: Selection, *, examples: bool) -> str:
    """Describe the selection. A filter is mentioned but not shown, because it may contain personal data."""
    if examples or selection.where is None:
        return str(selection)
    return f"{Selection(selection.project, selection.events)} with a filter"


def _failures(failures: Sequence[Failure], *, examples: bool) -> tuple[FailedDays, ...]:
    """Return the newest failures, newest first. Failures on adjacent days with the same reason are merged."""
    rows: list[FailedDays] = []
    for failure in failures:
        reason = failure_reason(failure.error, examples=examples) or ""
        rows.append(FailedDays(failure.days.first, failure.days.last, reason))
    merged = rows[:1]
    for before, row in pairwise(rows):
        if before.reason == row.reason and (row.first - before.last).days == 1:
            merged[-1] = FailedDays(merged[-1].first, row.last, row.reason)
        else:
            merged.append(row)
    return tuple(reversed(merged[-_MAX_FAILURES:]))
