"""The expected result of exporting a span of days, and the differences between it and a database file."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import duckdb
from _measure import in_own_process, row_count, rows_and_checksum

from mixpanel_export import ParallelFetchResult
from mixpanel_export.simulator import Simulator, Truth
from mixpanel_export.simulator.days import records
from mixpanel_export.simulator.events import line

Span = tuple[date, date]
Rejects = Counter[tuple[str, bytes]]
"""Lines of `_export_rejects` with their reason."""


@dataclass(frozen=True, slots=True)
class Expected:
    """The expected result for a span of days: the truth, the rejects, and the size of all lines in bytes."""

    truth: Truth
    rejects: Rejects
    size: int


def prepare(spans: Sequence[Span], simulator: Simulator) -> list[Expected]:
    """Prepare all days of *spans*, and return the expected result of each span. The first span contains the others."""
    simulator.prepare(*spans[0])
    by_day = {day: _rejects_and_size(simulator, day) for day in _days(spans[0])}
    return [
        Expected(
            simulator.truth(*span),
            sum((by_day[day][0] for day in _days(span)), Counter()),
            sum(by_day[day][1] for day in _days(span)),
        )
        for span in spans
    ]


def _rejects_and_size(simulator: Simulator, day: date) -> tuple[Rejects, int]:
    """Return the lines of *day* that belong in `_export_rejects`, and the size of all its lines."""
    rejects: Rejects = Counter()
    size = 0
    for record in records(simulator.profile, day):
        *rejected, event = line(record).split(b"\n")
        size += sum(map(len, rejected)) + len(event) + len(rejected) + 1
        rejects.update(("rejected", each) for each in rejected)
        if record[6] is not None and record[6].repaired:
            rejects["repaired", event] += 1
    return rejects, size


def _days(span: Span) -> Iterator[date]:
    first, last = span
    return (first + timedelta(number) for number in range((last - first).days + 1))


def differences(
    db: Path, expected: Expected, result: ParallelFetchResult, *, rows_before: int | None, full: bool
) -> Iterator[str]:
    """Yield a description of each difference between the file and *expected*; *full* compares every row.

    *rows_before* is the number of rows in the file before the export of *result*, or None if the file is new.
    """
    truth = expected.truth
    facts: list[tuple[str, object, object]] = [
        ("rows in the table", row_count(db), truth.distinct),
        ("rows added to the table", result.total_rows, truth.distinct - (rows_before or 0)),
        *zip(
            ("rows in the ledger", "its removed duplicates", "its rejects", "its repaired lines"),
            _ledger(db),
            (truth.distinct, truth.duplicates, truth.rejects, truth.repaired),
            strict=True,
        ),
    ]
    if rows_before is None:
        returned = (result.removed_duplicates, result.rejects, result.repaired)
        sent = (truth.duplicates, truth.rejects, truth.repaired)
        facts.append(("duplicates, rejects and repaired lines of the result", returned, sent))
    if full:
        actual = in_own_process(rows_and_checksum, db)
        facts.append(("rows and checksum of all columns", actual, (truth.distinct, truth.checksum)))
    yield from (
        f"{name}: {actual}, and should be {correct}" for name, actual, correct in facts if actual != correct
    )
    yield from _rejects_differ(_rejects(db), expected.rejects)


def _ledger(db: Path) -> tuple[int, ...]:
    [sums] = query(
        db, 'SELECT sum("rows"), sum(removed_duplicates), sum(rejects), sum(repaired) FROM _export_batches'
    )
    return tuple(map(int, sums))


def _rejects(db: Path) -> Rejects:
    return Counter((reason, line) for reason, line in query(db, "SELECT reason, line FROM _export_rejects"))


def _rejects_differ(actual: Rejects, sent: Rejects) -> Iterator[str]:
    for what, lines in (("missing from", sent - actual), ("too many in", actual - sent)):
        for (reason, each), times in lines.items():
            yield f"{what} _export_rejects, {times} times as {reason}: {each[:200]!r}"


def query(db: Path, sql: str) -> list[tuple[Any, ...]]:
    """Return the rows of a query of *db*."""
    with duckdb.connect(str(db), read_only=True) as connection:
        return connection.execute(sql).fetchall()
