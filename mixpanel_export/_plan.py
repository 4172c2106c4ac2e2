"""Dates, ledger and quota → chunks. Pure: nothing here reads a clock, a file or a network.

What must hold for every plan: its chunks are disjoint and contain exactly the days to be fetched, and no edge
of a chunk lies inside a batch whose rows are in the table, because rows are replaced batch by batch. Subject
to that, chunks are even and come in whole waves of the workers, as the longest one decides when an export
ends, and they leave part of the hour's quota for retries.

Days are counted by their ordinals inside this module, so that a run of days is a `range`.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from itertools import pairwise
from typing import Literal

from mixpanel_export._stream import Chunk

_DAY = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")  # date.fromisoformat alone also takes weeks and no hyphens

_OPEN_DAYS = 2  # 48 hours after its end a day has most of the events that come late
_WEEK = 7  # days: a chunk has no more, as long as the quota allows
_CHUNKS_OF_A_WEEK = 6  # at most; a short export should not spend a tenth of the hour's quota


Status = Literal["complete", "open", "limited", "failed", "imported"]  # the last: by mixpanel_data


@dataclass(frozen=True, slots=True)
class Held:
    """What a ledger row says about its days: all statuses but `failed` may have rows in the table."""

    batch: int
    first: date
    last: date
    status: Status
    rows: int = 0


@dataclass(frozen=True, slots=True)
class Plan:
    """What to fetch.

    `chunks` are disjoint and in date order; `added` are the runs of days among them that were not asked for,
    but belong to a batch that is to be replaced; `skipped` those that were asked for and are held for good.
    """

    chunks: tuple[Chunk, ...]
    added: tuple[Chunk, ...] = ()
    skipped: tuple[Chunk, ...] = ()


def parse_day(text: str | date, name: str) -> date:
    """Return the day that *text* writes as `YYYY-MM-DD`; *name* is the argument that an error names.

    Raises:
        ValueError: It is written otherwise, or there is no such day.
    """
    match text:
        case str() if _DAY.fullmatch(text):
            try:
                return date.fromisoformat(text)
            except ValueError as error:
                raise ValueError(f"{name} must be a day that exists, got {text!r}") from error
        case date() if not isinstance(text, datetime):
            return text
    raise ValueError(f"{name} must be YYYY-MM-DD, got {str(text)!r}")


def split_date_range(from_date: str, to_date: str, chunk_days: int = 7) -> list[tuple[str, str]]:
    """Cut the days from *from_date* to *to_date*, both inclusive, into chunks of *chunk_days* days.

    The chunks are contiguous and inclusive, from the first day on; the last one may be shorter.

    Raises:
        ValueError: A date is not `YYYY-MM-DD`, the range is reversed, or *chunk_days* is not positive.
    """
    first, last = parse_day(from_date, "from_date"), parse_day(to_date, "to_date")
    if first > last:
        raise ValueError(f"from_date must not be after to_date, got {from_date} and {to_date}")
    chunks = map(_chunk, _cut_every(chunk_days, _days(first, last), bound=()))
    return [(chunk.first.isoformat(), chunk.last.isoformat()) for chunk in chunks]


def open_from(now: datetime) -> date:
    """Return the first day that is open at *now*: by the clock that *now* shows it has not been over for 48 hours.

    So *now* must be aware, and in the project's zone.
    """
    return now.date() - timedelta(days=_OPEN_DAYS)


def is_open(last: date, requested_at: datetime) -> bool:
    """Whether a batch that ends with *last* was requested before that day had been over for 48 hours.

    *requested_at* is aware and in the project's zone, as for `open_from`.
    """
    return last >= open_from(requested_at)


def plan(
    first: date,
    last: date,
    *,
    held: Sequence[Held] = (),
    trust: bool,
    chunk_days: int | None = None,
    workers: int = 10,
    requests: int | None = 50,
    open_from: date,
) -> Plan:
    """Decide which days to fetch, from *first* to *last* inclusive, and in which chunks.

    *held* is what the ledger says about this table and selection; its batches that have rows must not overlap
    one another. With *trust*, days whose newest batch is complete are left alone. Every batch with rows and a
    day to be fetched is fetched whole, inside one chunk, so the plan may reach beyond the days asked for.

    With *chunk_days*, each run of days is cut from its first day on, an edge moving later where it would cut a
    batch. Without, chunks are even and as many as fill whole waves of *workers* with at most a week each, or
    as the quota of *requests* (None: unlimited) allows; days from *open_from* on get chunks of their own.

    Raises:
        ValueError: *chunk_days* is not positive.
    """
    asked = _days(first, last)
    wanted = set(asked) - (_vouched_for(held) if trust else set())
    visible = [_days(row.first, row.last) for row in held if row.status != "failed"]
    bound = [batch for batch in visible if not wanted.isdisjoint(batch)]
    wanted.update(*bound)
    if chunk_days is None:
        parts = _cut_evenly(wanted, bound, open_from.toordinal(), workers, requests)
    else:
        parts = [part for run in _runs(wanted) for part in _cut_every(chunk_days, run, bound)]
    return Plan(
        chunks=tuple(sorted(map(_chunk, parts))),
        added=tuple(map(_chunk, _runs(wanted.difference(asked)))),
        skipped=tuple(map(_chunk, _runs(set(asked) - wanted))),
    )


def fetch_order(chunks: Sequence[Chunk]) -> list[Chunk]:
    """Return *chunks* with the longest first, so that none of them is still running when all others are done."""
    return sorted(chunks, key=lambda chunk: (-chunk.days, chunk))


def halves(chunk: Chunk, held: Iterable[Held]) -> tuple[Chunk, Chunk] | None:
    """Return the chunk in two pieces as even as can be; None where no edge inside it leaves batches with rows whole."""
    days = _days(chunk.first, chunk.last)
    bound = [_days(row.first, row.last) for row in held if row.status != "failed"]
    edges = [edge for edge in range(days.start + 1, days.stop) if _cut_by(edge, bound) is None]
    if not edges:
        return None
    edge = min(edges, key=lambda edge: abs(2 * edge - days.start - days.stop))
    return _chunk(range(days.start, edge)), _chunk(range(edge, days.stop))


def _vouched_for(held: Iterable[Held]) -> set[int]:
    """Return the days whose newest ledger row is complete."""
    newest = {
        day: row.status
        for row in sorted(held, key=lambda row: row.batch)
        for day in _days(row.first, row.last)
    }
    return {day for day, status in newest.items() if status == "complete"}


def _cut_every(days: int, run: range, bound: Sequence[range]) -> Iterator[range]:
    """Cut *run* from its first day on; an edge inside a batch moves to the batch's end."""
    if days < 1:
        raise ValueError(f"chunk_days must be positive, got {days}")
    start = run.start
    while start < run.stop:
        edge = min(start + days, run.stop)
        batch = _cut_by(edge, bound)
        stop = batch.stop if batch else edge
        yield range(start, stop)
        start = stop


def _cut_evenly(
    wanted: set[int], bound: Sequence[range], open_day: int, workers: int, requests: int | None
) -> list[range]:
    """Cut the closed days of *wanted* into even chunks; open days, and batches with open days, stand alone."""
    open_batches = [batch for batch in bound if batch.stop > open_day]
    open_days = {day for day in wanted if day >= open_day}.difference(*open_batches)
    alone = open_batches + [range(day, day + 1) for day in open_days]
    runs = _runs(wanted.difference(*alone))
    lengths = [len(run) for run in runs]
    shares = _shares(lengths, _even_count(lengths, alone, workers, requests))
    return alone + [
        part for run, share in zip(runs, shares, strict=True) for part in _cut_into(share, run, bound)
    ]


def _even_count(lengths: Sequence[int], alone: Sequence[range], workers: int, requests: int | None) -> int:
    """Return into how many chunks to cut runs of *lengths* closed days: whole waves, within the quota.

    *alone* are the chunks that are fetched beside them.
    """
    days = sum(lengths)
    weeks = sum(-(-length // _WEEK) for length in lengths)
    count = -(-weeks // workers) * workers
    if requests is not None:
        budget = max(1, requests - len(alone))
        if count > budget:
            count = budget - budget % workers or budget
    if days <= _WEEK:
        all_in_a_week = days + sum(map(len, alone)) <= _WEEK
        count = min(count, _CHUNKS_OF_A_WEEK - (len(alone) if all_in_a_week else 0))
    return min(count, days)


def _shares(lengths: Sequence[int], count: int) -> list[int]:
    """Share *count* chunks among runs of days so that the longest chunk is short; every run gets one at least."""
    shares = [1] * len(lengths)
    for _ in range(count - len(lengths)):
        longest = max(range(len(lengths)), key=lambda run: lengths[run] / shares[run])
        shares[longest] += 1
    return shares


def _cut_into(count: int, run: range, bound: Sequence[range]) -> Iterator[range]:
    """Cut *run* into *count* even parts; an edge inside a batch moves to its nearer end, so parts may merge."""
    even = (run.start + len(run) * part // count for part in range(count + 1))
    edges = sorted({_clear_of(bound, edge) for edge in even})
    return (range(start, stop) for start, stop in pairwise(edges))


def _clear_of(bound: Sequence[range], edge: int) -> int:
    batch = _cut_by(edge, bound)
    if batch is None:
        return edge
    return batch.start if edge - batch.start < batch.stop - edge else batch.stop


def _cut_by(edge: int, bound: Sequence[range]) -> range | None:
    """Return the batch that an edge before day *edge* would cut."""
    return next((batch for batch in bound if batch.start < edge < batch.stop), None)


def _days(first: date, last: date) -> range:
    return range(first.toordinal(), last.toordinal() + 1)


def _runs(days: Iterable[int]) -> list[range]:
    """Return *days* as runs without holes, in order."""
    runs: list[range] = []
    for day in sorted(days):
        if runs and runs[-1].stop == day:
            runs[-1] = range(runs[-1].start, day + 1)
        else:
            runs.append(range(day, day + 1))
    return runs


def _chunk(days: range) -> Chunk:
    return Chunk(date.fromordinal(days.start), date.fromordinal(days.stop - 1))
