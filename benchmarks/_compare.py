"""What a simulator tells of days, and in what the file that they were exported into differs from it."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import duckdb
from _measure import counted, in_own_process, stored

from mixpanel_export import ParallelFetchResult
from mixpanel_export.simulator import Simulator, Truth
from mixpanel_export.simulator.days import records
from mixpanel_export.simulator.events import line

Span = tuple[date, date]


@dataclass(frozen=True, slots=True)
class Told:
    """What a simulator tells of a span of days: `aside` are the lines that belong beside the table, by reason."""

    truth: Truth
    aside: Counter[tuple[str, bytes]]
    size: int


def tell(spans: Sequence[Span], simulator: Simulator) -> list[Told]:
    """Prepare the days of *spans*, the first of which has all of them, and tell what each span must become."""
    simulator.prepare(*spans[0])
    beside = {day: _beside(simulator, day) for day in _days(spans[0])}
    return [
        Told(
            simulator.truth(*span),
            sum((beside[day][0] for day in _days(span)), Counter()),
            sum(beside[day][1] for day in _days(span)),
        )
        for span in spans
    ]


def _beside(simulator: Simulator, day: date) -> tuple[Counter[tuple[str, bytes]], int]:
    """Return the lines that an export of *day* must set aside, and the size of all its lines."""
    aside: Counter[tuple[str, bytes]] = Counter()
    size = 0
    for record in records(simulator.profile, day):
        *rejected, event = line(record).split(b"\n")
        size += sum(map(len, rejected)) + len(event) + len(rejected) + 1
        aside.update(("rejected", each) for each in rejected)
        if record[6] is not None and record[6].repaired:
            aside["repaired", event] += 1
    return aside, size


def _days(span: Span) -> Iterator[date]:
    first, last = span
    return (first + timedelta(number) for number in range((last - first).days + 1))


def differences(
    db: Path, told: Told, result: ParallelFetchResult, *, before: int | None, thorough: bool
) -> Iterator[str]:
    """Yield what is not as the simulator has it, in words; only *thorough* reads every row.

    *before* is how many rows were in the file before the export of *result*; None where there was no file.
    """
    truth = told.truth
    facts: list[tuple[str, object, object]] = [
        ("rows in the table", counted(db), truth.distinct),
        ("rows that the table grew by", result.total_rows, truth.distinct - (before or 0)),
        *zip(
            ("rows by the ledger", "its removed duplicates", "its rejects", "its repaired lines"),
            _ledger(db),
            (truth.distinct, truth.duplicates, truth.rejects, truth.repaired),
            strict=True,
        ),
    ]
    if before is None:
        returned = (result.removed_duplicates, result.rejects, result.repaired)
        sent = (truth.duplicates, truth.rejects, truth.repaired)
        facts.append(("duplicates, rejects and repaired lines of the result", returned, sent))
    if thorough:
        found = in_own_process(stored, db)
        facts.append(("rows and checksum of all columns", found, (truth.distinct, truth.checksum)))
    yield from (
        f"{name}: {found}, and should be {expected}" for name, found, expected in facts if found != expected
    )
    yield from _aside_differs(_aside(db), told.aside)


def _ledger(db: Path) -> tuple[int, ...]:
    [sums] = query(
        db, 'SELECT sum("rows"), sum(removed_duplicates), sum(rejects), sum(repaired) FROM _export_batches'
    )
    return tuple(map(int, sums))


def _aside(db: Path) -> Counter[tuple[str, bytes]]:
    return Counter((reason, line) for reason, line in query(db, "SELECT reason, line FROM _export_rejects"))


def _aside_differs(found: Counter[tuple[str, bytes]], sent: Counter[tuple[str, bytes]]) -> Iterator[str]:
    for what, lines in (("missing from", sent - found), ("too much in", found - sent)):
        for (reason, each), times in lines.items():
            yield f"{what} _export_rejects, {times} times as {reason}: {each[:200]!r}"


def query(db: Path, sql: str) -> list[tuple[Any, ...]]:
    """Return the rows of a query of *db*."""
    with duckdb.connect(str(db), read_only=True) as connection:
        return connection.execute(sql).fetchall()
