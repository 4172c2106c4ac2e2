"""Days by number, ledger rows over them, and plans for them."""

from collections.abc import Iterable
from datetime import date, timedelta
from functools import partial

from mixpanel_export._model import Batch, Chunk
from mixpanel_export._planning.planner import Plan, plan

DAY = timedelta(days=1)
START = date(2024, 1, 1)
NEVER = date(2999, 1, 1)


def day(number: int) -> date:
    """Return the day that is *number* days after the first one of these tests."""
    return START + number * DAY


def days_of(chunks: Iterable[Chunk]) -> list[int]:
    """Return the days of *chunks* by number, in the chunks' order."""
    return [(chunk.first - START).days + extra for chunk in chunks for extra in range(chunk.length)]


def sizes(chunks: Iterable[Chunk]) -> list[int]:
    """Return the chunks' lengths in days."""
    return [chunk.length for chunk in chunks]


def spans(chunks: Iterable[Chunk]) -> list[tuple[int, int]]:
    """Return the chunks' first and last days by number."""
    return [((chunk.first - START).days, (chunk.last - START).days) for chunk in chunks]


def held(batch: int, first: int, last: int, status: str = "complete", rows: int = 0) -> Batch:
    """Return a ledger row over days by number."""
    assert status in {"complete", "open", "limited", "failed"}
    return Batch(batch, Chunk(day(first), day(last)), status, rows)  # type: ignore[arg-type] # asserted above


def daily(rows: Iterable[int]) -> list[Batch]:
    """Return the ledger of an export that fetched every day separately."""
    return [held(number, number, number, rows=each) for number, each in enumerate(rows)]


def fresh(
    days: int, *, workers: int = 10, requests: int | None = 50, open_days: int = 0
) -> tuple[Chunk, ...]:
    """Plan *days* days that are not in the table; the last *open_days* are open."""
    return plan(
        START,
        day(days - 1),
        skip_complete=True,
        workers=workers,
        requests=requests,
        first_open_day=day(days - open_days),
    ).chunks


def with_batches(
    *rows: Batch,
    skip_complete: bool,
    first: int = 0,
    last: int = 29,
    chunk_days: int | None = None,
    workers: int = 10,
    requests: int | None = 50,
) -> Plan:
    """Plan the days from *first* to *last* of a table that has the batches *rows*."""
    return plan(
        day(first),
        day(last),
        batches=rows,
        skip_complete=skip_complete,
        chunk_days=chunk_days,
        workers=workers,
        requests=requests,
        first_open_day=NEVER,
    )


resumed = partial(with_batches, skip_complete=True)
appended = partial(with_batches, skip_complete=False)
