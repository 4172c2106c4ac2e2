"""Dates, ledger and quota → chunks. Pure: nothing here reads a clock, a file or a network.

For every plan, the chunks are disjoint and contain exactly the days to fetch, and no edge of a chunk lies inside a batch
whose rows are in the table, because rows are replaced batch by batch. Within these rules chunks are even, they fill whole
waves of the workers, because the longest chunk decides when an export ends, and they leave a part of the hour's quota for
retries. Even means even in days. Where earlier batches show that days differ much, it means even in expected events.

Inside this module days are ordinals, so a run of days is a `range`.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from itertools import pairwise

from mixpanel_export._model import Batch, Chunk
from mixpanel_export._planning.days import parse_day
from mixpanel_export._planning.weights import (
    Weights,
    even_by_weight,
    expected_weights,
    makespan,
    shares,
    weight,
)
from mixpanel_export.errors import ArgumentError

_OPEN_DAYS = 2  # 48 hours after its end a day has most of the events that arrive late
_WEEK = 7  # days: no chunk is longer, as long as the quota allows
_MAX_CHUNKS_OF_A_WEEK = 6  # a short export should not spend more than a tenth of the hour's quota
_WORTHWHILE = 0.9  # of the time of even chunks; expected events are uncertain, so a smaller gain is none


@dataclass(frozen=True, slots=True)
class Plan:
    """What to fetch."""

    chunks: tuple[Chunk, ...]
    """Disjoint chunks, in order of date."""
    fetch_order: tuple[Chunk, ...]
    """The chunks to fetch, the heaviest first, so that none of them runs alone at the end."""
    added: tuple[Chunk, ...] = ()
    """Runs of days that were not requested, but belong to a batch that is to be replaced."""
    skipped: tuple[Chunk, ...] = ()
    """Runs of requested days that the table has complete."""
    future: tuple[Chunk, ...] = ()
    """Chunks whose days have begun in no time zone; they are reported as failed without a request."""


def split_date_range(from_date: str, to_date: str, chunk_days: int = 7) -> list[tuple[str, str]]:
    """Divide the days from *from_date* to *to_date*, both inclusive, into chunks of *chunk_days* days.

    The chunks are contiguous and inclusive, from the first day on; the last one may be shorter.

    Raises:
        ArgumentError: A date is not `YYYY-MM-DD`, the range is reversed, or *chunk_days* is not positive.
    """
    first, last = parse_day(from_date, "from_date"), parse_day(to_date, "to_date")
    if first > last:
        raise ArgumentError("from_date", f"must not be after to_date, got {from_date} and {to_date}")
    chunks = map(_chunk, _fixed_parts(chunk_days, _days(first, last), whole=()))
    return [(chunk.first.isoformat(), chunk.last.isoformat()) for chunk in chunks]


def open_from(now: datetime) -> date:
    """Return the first day that is open at *now*: a day is open until 48 hours after its end.

    *now* must be aware, and in the project's zone.
    """
    return now.date() - timedelta(days=_OPEN_DAYS)


def is_open(last: date, requested_at: datetime) -> bool:
    """Whether a batch that ends with *last* was requested before that day had been over for 48 hours.

    *requested_at* must be aware, and in the project's zone.
    """
    return last >= open_from(requested_at)


def plan(
    first: date,
    last: date,
    *,
    batches: Sequence[Batch] = (),
    history: Sequence[Batch] = (),
    trust: bool,
    chunk_days: int | None = None,
    workers: int = 10,
    requests: int | None = 50,
    open_from: date,
) -> Plan:
    """Decide which of the days from *first* to *last*, both inclusive, to fetch, and in which chunks.

    *batches* are the ledger rows of this table and selection; those that have rows must not overlap. With *trust*, days
    whose newest batch is complete are skipped. A batch that has rows, and a day to fetch, is fetched whole, inside one
    chunk, so the plan may add days that were not requested.

    With *chunk_days*, each run of days is divided from its first day on, and an edge that would divide a batch moves later.
    Without, there are as many even chunks as fill whole waves of *workers* with at most a week each, or as the quota of
    *requests* (None: unlimited) allows. Days from *open_from* on have chunks of their own.

    The events of a day are estimated from *batches* and *history*, which are further ledger rows. Where chunks that are
    even in events are expected to save the workers a tenth of the time, they are chosen. They are neither more nor longer
    than chunks that are even in days.

    Raises:
        ArgumentError: *chunk_days* is not positive.
    """
    requested = _days(first, last)
    to_fetch = set(requested) - (_complete_days(batches) if trust else set())
    visible = [_days(batch.days.first, batch.days.last) for batch in batches if batch.visible]
    replaced = [days for days in visible if not to_fetch.isdisjoint(days)]
    to_fetch.update(*replaced)
    whole = [days for days in replaced if len(days) > 1]  # no edge divides a day
    weights = expected_weights(_row_counts([*history, *batches]), to_fetch)
    if chunk_days is None:
        open_day = open_from.toordinal()
        parts = _even_parts(to_fetch, whole, open_day, workers=workers, requests=requests, weights=weights)
    else:
        parts = [part for run in _runs(to_fetch) for part in _fixed_parts(chunk_days, run, whole)]
    parts.sort(key=lambda part: part.start)
    return Plan(
        chunks=tuple(map(_chunk, parts)),
        fetch_order=tuple(map(_chunk, sorted(parts, key=lambda part: -weight(part, weights)))),
        added=tuple(map(_chunk, _runs(to_fetch.difference(requested)))),
        skipped=tuple(map(_chunk, _runs(set(requested) - to_fetch))),
    )


def split_in_two(chunk: Chunk, batches: Iterable[Batch]) -> tuple[Chunk, Chunk] | None:
    """Return the chunk in two pieces, as even as possible; None if every edge would divide a batch that has rows."""
    days = _days(chunk.first, chunk.last)
    whole = [_days(batch.days.first, batch.days.last) for batch in batches if batch.visible]
    edges = [edge for edge in range(days.start + 1, days.stop) if _divided_by(edge, whole) is None]
    if not edges:
        return None
    edge = min(edges, key=lambda edge: abs(2 * edge - days.start - days.stop))
    return _chunk(range(days.start, edge)), _chunk(range(edge, days.stop))


def _complete_days(batches: Iterable[Batch]) -> set[int]:
    """Return the days whose newest ledger row is complete."""
    newest = {
        day: batch.status
        for batch in sorted(batches, key=lambda batch: batch.number)
        for day in _days(batch.days.first, batch.days.last)
    }
    return {day for day, status in newest.items() if status == "complete"}


def _row_counts(batches: Iterable[Batch]) -> Iterator[tuple[range, int]]:
    """Yield days and rows of the batches that say how many events there are, oldest first."""
    for batch in sorted(batches, key=lambda batch: batch.number):
        if batch.status in {"complete", "open"}:
            yield _days(batch.days.first, batch.days.last), batch.rows


def _fixed_parts(days: int, run: range, whole: Sequence[range]) -> Iterator[range]:
    """Divide *run* from its first day on; an edge inside a batch moves to the batch's end."""
    if days < 1:
        raise ArgumentError("chunk_days", f"must be positive, got {days}")
    start = run.start
    while start < run.stop:
        edge = min(start + days, run.stop)
        batch = _divided_by(edge, whole)
        stop = batch.stop if batch else edge
        yield range(start, stop)
        start = stop


def _even_parts(
    to_fetch: set[int],
    whole: Sequence[range],
    open_day: int,
    *,
    workers: int,
    requests: int | None,
    weights: Weights | None,
) -> list[range]:
    """Divide the closed days evenly; open days, and batches with open days, are parts of their own."""
    open_batches = [batch for batch in whole if batch.stop > open_day]
    open_days = {day for day in to_fetch if day >= open_day}.difference(*open_batches)
    separate = open_batches + [range(day, day + 1) for day in open_days]
    runs = _runs(to_fetch.difference(*separate))
    lengths = [len(run) for run in runs]
    count = _even_count(lengths, separate, workers, requests)
    divided = list(zip(shares(lengths, lengths, count), runs, strict=True))
    even = [part for share, run in divided for part in _divide(share, run, whole)]
    if weights is None:
        return separate + even
    longest = max([_WEEK, *(-(-len(run) // share) for share, run in divided)])
    alternatives = [
        separate + [part for light in parts for part in _no_longer_than(longest, light, whole)]
        for parts in even_by_weight(runs, whole, weights, most=count)
    ]
    return _quickest(separate + even, alternatives, len(separate) + count, workers, weights)


def _quickest(
    even: list[range], alternatives: Iterable[list[range]], most: int, workers: int, weights: Weights
) -> list[range]:
    """Return the alternative that takes the least time, with at most *most* parts, or *even* if the gain is small."""

    def time(parts: Iterable[range]) -> float:
        return makespan(parts, weights, workers)

    best = min((parts for parts in alternatives if len(parts) <= most), key=time, default=even)
    return best if time(best) <= _WORTHWHILE * time(even) else even


def _even_count(lengths: Sequence[int], separate: Sequence[range], workers: int, requests: int | None) -> int:
    """Return the number of chunks for runs of *lengths* closed days: whole waves, within the quota.

    *separate* are the chunks of open days.
    """
    days = sum(lengths)
    weeks = sum(-(-length // _WEEK) for length in lengths)
    count = -(-weeks // workers) * workers
    if requests is not None:
        budget = max(1, requests - len(separate))
        if count > budget:
            count = budget - budget % workers or budget
    if days <= _WEEK:
        all_in_a_week = days + sum(map(len, separate)) <= _WEEK
        count = min(count, _MAX_CHUNKS_OF_A_WEEK - (len(separate) if all_in_a_week else 0))
    return min(count, days)


def _no_longer_than(days: int, part: range, whole: Sequence[range]) -> Iterable[range]:
    return [part] if len(part) <= days else _divide(-(-len(part) // days), part, whole)


def _divide(count: int, run: range, whole: Sequence[range]) -> Iterator[range]:
    """Divide *run* into *count* even parts; an edge inside a batch moves to its nearer end, so parts may merge."""
    even = (run.start + len(run) * part // count for part in range(count + 1))
    edges = sorted({_moved_out_of(whole, edge) for edge in even})
    return (range(start, stop) for start, stop in pairwise(edges))


def _moved_out_of(whole: Sequence[range], edge: int) -> int:
    batch = _divided_by(edge, whole)
    if batch is None:
        return edge
    return batch.start if edge - batch.start < batch.stop - edge else batch.stop


def _divided_by(edge: int, whole: Sequence[range]) -> range | None:
    """Return the batch that an edge before day *edge* would divide."""
    return next((batch for batch in whole if batch.start < edge < batch.stop), None)


def _days(first: date, last: date) -> range:
    return range(first.toordinal(), last.toordinal() + 1)


def _runs(days: Iterable[int]) -> list[range]:
    """Return *days* as runs without gaps, in order."""
    runs: list[range] = []
    for day in sorted(days):
        if runs and runs[-1].stop == day:
            runs[-1] = range(runs[-1].start, day + 1)
        else:
            runs.append(range(day, day + 1))
    return runs


def _chunk(days: range) -> Chunk:
    return Chunk(date.fromordinal(days.start), date.fromordinal(days.stop - 1))
