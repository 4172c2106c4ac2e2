"""Dates, ledger and quota → chunks. Pure: nothing here reads a clock, a file or a network.

What must hold for every plan: its chunks are disjoint and contain exactly the days to be fetched, and no edge
of a chunk lies inside a batch whose rows are in the table, because rows are replaced batch by batch. Subject
to that, chunks are even and come in whole waves of the workers, as the longest one decides when an export
ends, and they leave part of the hour's quota for retries. Even means days, and where earlier batches tell that
days are much unlike one another, it means the events that are expected.

Days are counted by their ordinals inside this module, so that a run of days is a `range`.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from itertools import pairwise

from mixpanel_export._model import Batch, Chunk
from mixpanel_export._planning.days import parse_day
from mixpanel_export._planning.weights import (
    Weights,
    cuts_by_weight,
    expected_weights,
    makespan,
    shares,
    weight,
)

_OPEN_DAYS = 2  # 48 hours after its end a day has most of the events that come late
_WEEK = 7  # days: a chunk has no more, as long as the quota allows
_CHUNKS_OF_A_WEEK = 6  # at most; a short export should not spend a tenth of the hour's quota
_WORTH_IT = 0.9  # of the time of even chunks: what is expected is not certain, so less is no reason to change


@dataclass(frozen=True, slots=True)
class Plan:
    """What to fetch.

    `chunks` are disjoint and in date order; `fetch_order` has them with the heaviest first, so that none of those is
    still running when all others are done. `added` are the runs of days among them that were not asked for,
    but belong to a batch that is to be replaced; `skipped` those that were asked for and are held for good.
    """

    chunks: tuple[Chunk, ...]
    fetch_order: tuple[Chunk, ...]
    added: tuple[Chunk, ...] = ()
    skipped: tuple[Chunk, ...] = ()


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
    batches: Sequence[Batch] = (),
    history: Sequence[Batch] = (),
    trust: bool,
    chunk_days: int | None = None,
    workers: int = 10,
    requests: int | None = 50,
    open_from: date,
) -> Plan:
    """Decide which days to fetch, from *first* to *last* inclusive, and in which chunks.

    *batches* is what the ledger says about this table and selection; its batches that have rows must not overlap
    one another. With *trust*, days whose newest batch is complete are left alone. Every batch with rows and a
    day to be fetched is fetched whole, inside one chunk, so the plan may reach beyond the days asked for.

    With *chunk_days*, each run of days is cut from its first day on, an edge moving later where it would cut a
    batch. Without, chunks are even and as many as fill whole waves of *workers* with at most a week each, or
    as the quota of *requests* (None: unlimited) allows; days from *open_from* on get chunks of their own.

    How many events a day will have is expected by what *batches* and *history*, further batches that bind nothing, tell
    of earlier ones. Where to cut by events is expected to save the workers a tenth of the time that even chunks take,
    chunks are even in events, and neither more nor longer than they would have been.

    Raises:
        ValueError: *chunk_days* is not positive.
    """
    asked = _days(first, last)
    wanted = set(asked) - (_vouched_for(batches) if trust else set())
    visible = [_days(row.days.first, row.days.last) for row in batches if row.status != "failed"]
    touched = [batch for batch in visible if not wanted.isdisjoint(batch)]
    wanted.update(*touched)
    bound = [batch for batch in touched if len(batch) > 1]  # no edge cuts a day
    weights = expected_weights(_told([*history, *batches]), wanted)
    if chunk_days is None:
        open_day = open_from.toordinal()
        parts = _cut(wanted, bound, open_day, workers=workers, requests=requests, weights=weights)
    else:
        parts = [part for run in _runs(wanted) for part in _cut_every(chunk_days, run, bound)]
    parts.sort(key=lambda part: part.start)
    return Plan(
        chunks=tuple(map(_chunk, parts)),
        fetch_order=tuple(map(_chunk, sorted(parts, key=lambda part: -weight(part, weights)))),
        added=tuple(map(_chunk, _runs(wanted.difference(asked)))),
        skipped=tuple(map(_chunk, _runs(set(asked) - wanted))),
    )


def split_in_two(chunk: Chunk, batches: Iterable[Batch]) -> tuple[Chunk, Chunk] | None:
    """Return the chunk in two pieces as even as can be; None where no edge inside it leaves batches with rows whole."""
    days = _days(chunk.first, chunk.last)
    bound = [_days(row.days.first, row.days.last) for row in batches if row.status != "failed"]
    edges = [edge for edge in range(days.start + 1, days.stop) if _cut_by(edge, bound) is None]
    if not edges:
        return None
    edge = min(edges, key=lambda edge: abs(2 * edge - days.start - days.stop))
    return _chunk(range(days.start, edge)), _chunk(range(edge, days.stop))


def _vouched_for(batches: Iterable[Batch]) -> set[int]:
    """Return the days whose newest ledger row is complete."""
    newest = {
        day: row.status
        for row in sorted(batches, key=lambda row: row.number)
        for day in _days(row.days.first, row.days.last)
    }
    return {day for day, status in newest.items() if status == "complete"}


def _told(history: Iterable[Batch]) -> Iterator[tuple[range, int]]:
    """Yield days and rows of the batches that tell how many events there are, oldest first."""
    for row in sorted(history, key=lambda row: row.number):
        if row.status in {"complete", "open"}:
            yield _days(row.days.first, row.days.last), row.rows


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


def _cut(
    wanted: set[int],
    bound: Sequence[range],
    open_day: int,
    *,
    workers: int,
    requests: int | None,
    weights: Weights | None,
) -> list[range]:
    """Cut the closed days of *wanted* evenly; open days, and batches with open days, stand alone."""
    open_batches = [batch for batch in bound if batch.stop > open_day]
    open_days = {day for day in wanted if day >= open_day}.difference(*open_batches)
    alone = open_batches + [range(day, day + 1) for day in open_days]
    runs = _runs(wanted.difference(*alone))
    lengths = [len(run) for run in runs]
    count = _even_count(lengths, alone, workers, requests)
    cut = list(zip(shares(lengths, lengths, count), runs, strict=True))
    even = [part for share, run in cut for part in _cut_into(share, run, bound)]
    if weights is None:
        return alone + even
    longest = max([_WEEK, *(-(-len(run) // share) for share, run in cut)])
    ways = [
        alone + [part for light in way for part in _no_longer_than(longest, light, bound)]
        for way in cuts_by_weight(runs, bound, weights, most=count)
    ]
    return _quickest(alone + even, ways, len(alone) + count, workers, weights)


def _quickest(
    even: list[range], ways: Iterable[list[range]], most: int, workers: int, weights: Weights
) -> list[range]:
    """Return the one of *ways* to cut that *workers* are quickest with, of *most* parts, or the *even* one."""

    def spent(way: Iterable[range]) -> float:
        return makespan(way, weights, workers)

    best = min((way for way in ways if len(way) <= most), key=spent, default=even)
    return best if spent(best) <= _WORTH_IT * spent(even) else even


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


def _no_longer_than(days: int, part: range, bound: Sequence[range]) -> Iterable[range]:
    return [part] if len(part) <= days else _cut_into(-(-len(part) // days), part, bound)


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
