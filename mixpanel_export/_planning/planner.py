"""Plans the chunks of an export from dates, ledger rows and the quota. Pure functions.

Every plan follows two rules:

- Chunks do not overlap, and together they contain exactly the days to fetch.
- A batch with rows in the table is not divided between chunks, because only whole batches are replaced.

Within these rules, all chunks have the same number of days, because the longest chunk determines the duration of an
export. If possible, the number of chunks is a multiple of the number of workers, and part of the hourly quota is left
for retries. If the sizes of more than a week of days are unknown, there are at least two chunks for each worker: the
workers with small chunks then take more of the others. If earlier batches show that the sizes of days vary widely,
chunks have the same expected number of events instead.

In this module, a day is an ordinal (`date.toordinal`), a run of consecutive days is a `range`, and a boundary between
two days is the ordinal of the later day.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from itertools import chain, pairwise

from mixpanel_export._model import Batch, Chunk
from mixpanel_export._planning.days import parse_day
from mixpanel_export._planning.durations import expected_seconds
from mixpanel_export._planning.weights import (
    Weights,
    even_by_weight,
    expected_weights,
    makespan,
    shares,
    weight,
)
from mixpanel_export.errors import ArgumentError

_OPEN_DAYS = 2  # a day stays open this long after its end, because most late events arrive within 48 hours
_WEEK = 7  # days; the longest chunk, unless the quota requires longer ones
_WEEKEND = (6, 0)  # Saturday and Sunday: an ordinal modulo 7 is the weekday, and Monday is 1
_CHUNKS_PER_WORKER = 2  # at least, if the sizes of days are unknown
_MAX_CHUNKS_PER_SHORT_EXPORT = 6  # an export of up to a week uses at most a tenth of the hourly quota
_SHORT_SECONDS = 10.0  # if one request should be faster than this, several are not worth the extra quota
_MANY_DAYS = 30  # with at least this many days, several requests are always planned
# More chunks, or chunks of equal weight, are used only if they should save at least 10 % of the time, because weights are
# only estimates.
_MAX_TIME_RATIO = 0.9


@dataclass(frozen=True, slots=True)
class Plan:
    """The chunks of an export."""

    chunks: tuple[Chunk, ...]
    """All chunks, in date order."""
    fetch_order: tuple[Chunk, ...]
    """The same chunks, the largest first, so that a large chunk does not run alone at the end.

    If sizes are unknown, the longest chunks come first. Among equally long ones, those with the fewest weekend days come
    first, because weekends are quiet in most projects. Then the newest come first, because most projects grow. If the
    caller chose the length of chunks, weekends do not matter.
    """
    added: tuple[Chunk, ...] = ()
    """Days that the caller did not request. They belong to batches that the export replaces."""
    skipped: tuple[Chunk, ...] = ()
    """Requested days that are already complete in the table."""
    one_request_seconds: float | None = None
    """The expected duration of one request for all days, in seconds.

    This is None, unless the plan has few requests because this duration is short.
    """
    future: tuple[Chunk, ...] = ()
    """Chunks whose days have not begun in any time zone. These chunks fail without a request."""


def split_date_range(from_date: str, to_date: str, chunk_days: int = 7) -> list[tuple[str, str]]:
    """Divide the days from *from_date* to *to_date*, both inclusive, into chunks of *chunk_days* days.

    Returns the first and last day of each chunk. Only the last chunk may be shorter.

    Raises:
        ArgumentError: A date is not `YYYY-MM-DD`, *to_date* is before *from_date*, or *chunk_days* is not positive.
    """
    first, last = parse_day(from_date, "from_date"), parse_day(to_date, "to_date")
    if first > last:
        raise ArgumentError("from_date", f"must not be after to_date, got {from_date} and {to_date}")
    chunks = map(_chunk, _fixed_parts(chunk_days, _days(first, last), indivisible=()))
    return [(chunk.first.isoformat(), chunk.last.isoformat()) for chunk in chunks]


def first_open_day(now: datetime) -> date:
    """Return the first day that is still open at *now*. A day is open until 48 hours after its end.

    *now* must be aware, and in the project's time zone.
    """
    return now.date() - timedelta(days=_OPEN_DAYS)


def is_open(last: date, requested_at: datetime) -> bool:
    """Whether a batch whose last day is *last* was requested less than 48 hours after the end of that day.

    *requested_at* must be aware, and in the project's time zone.
    """
    return last >= first_open_day(requested_at)


def plan(
    first: date,
    last: date,
    *,
    batches: Sequence[Batch] = (),
    history: Sequence[Batch] = (),
    skip_complete: bool,
    chunk_days: int | None = None,
    workers: int = 10,
    requests: int | None = 50,
    first_open_day: date,
) -> Plan:
    """Decide which days from *first* to *last*, both inclusive, to fetch, and divide them into chunks.

    *batches* contains the ledger rows of this table and selection. Visible batches must not overlap. A visible batch
    with a day to fetch is fetched as a whole, inside one chunk, so the plan may add days that were not requested. If
    *skip_complete* is true, days whose newest batch is complete are not fetched.

    If *chunk_days* is given, chunks have that many days; a chunk that would end inside a batch ends with the batch.
    Otherwise, chunks have equal lengths of at most a week, and their number is a multiple of *workers*. More than a week
    of days is divided into at least two chunks for each worker. If that would exceed *requests* (None means no limit),
    there are fewer, longer chunks. From *first_open_day* on, each day is a separate chunk.

    The number of events on each day is estimated from *batches* and from *history*, which contains additional ledger
    rows. If *history* contains every day to fetch, one chunk for each worker is enough, unless two are expected to save
    at least a tenth of the time. Chunks with equal expected numbers of events are used if they are expected to save
    another tenth. These plans never have more chunks than the plan without ledger rows, nor a longer chunk than a week or
    the chunks of that plan.

    Each run of days is one chunk if there is a quota, there are fewer than 30 days, and one request for all of them is
    expected to take under 10 seconds. More requests would hardly save time, and would use quota that larger exports
    need.

    Raises:
        ArgumentError: *chunk_days* is not positive.
    """
    requested = _days(first, last)
    to_fetch = set(requested) - (_complete_days(batches) if skip_complete else set())
    visible = [_days(batch.days.first, batch.days.last) for batch in batches if batch.visible]
    replaced = [days for days in visible if not to_fetch.isdisjoint(days)]
    to_fetch.update(*replaced)
    indivisible = [days for days in replaced if len(days) > 1]  # a batch of one day cannot be divided
    weights = expected_weights(_row_counts([*history, *batches]), to_fetch)
    seconds = None
    if chunk_days is None and requests is not None and len(to_fetch) < _MANY_DAYS:
        seconds = expected_seconds(len(to_fetch), [*history, *batches])
    is_short = seconds is not None and seconds < _SHORT_SECONDS
    if chunk_days is None:
        open_day = first_open_day.toordinal()
        parts = _even_parts(
            to_fetch,
            indivisible,
            open_day,
            workers=workers,
            requests=1 if is_short else requests,
            weights=weights,
            are_known=to_fetch.issubset(chain.from_iterable(days for days, _ in _row_counts(history))),
        )
    else:
        parts = [part for run in _runs(to_fetch) for part in _fixed_parts(chunk_days, run, indivisible)]
    parts.sort(key=lambda part: part.start)
    # Chunks of a fixed length may take several hours. Then the days that are still missing should be consecutive.
    weekends_last = chunk_days is None
    return Plan(
        chunks=tuple(map(_chunk, parts)),
        fetch_order=tuple(
            map(_chunk, sorted(parts, key=lambda part: _priority(part, weights, weekends_last=weekends_last)))
        ),
        added=tuple(map(_chunk, _runs(to_fetch.difference(requested)))),
        skipped=tuple(map(_chunk, _runs(set(requested) - to_fetch))),
        one_request_seconds=seconds if is_short else None,
    )


def split_in_two(chunk: Chunk, batches: Iterable[Batch]) -> tuple[Chunk, Chunk] | None:
    """Return two halves of *chunk*, as equal as possible; None if every boundary would divide a visible batch."""
    days = _days(chunk.first, chunk.last)
    indivisible = [_days(batch.days.first, batch.days.last) for batch in batches if batch.visible]
    boundaries = [
        day for day in range(days.start + 1, days.stop) if _batch_divided_at(day, indivisible) is None
    ]
    if not boundaries:
        return None
    boundary = min(boundaries, key=lambda day: abs(2 * day - days.start - days.stop))
    return _chunk(range(days.start, boundary)), _chunk(range(boundary, days.stop))


def _complete_days(batches: Iterable[Batch]) -> set[int]:
    """Return the days whose newest ledger row is complete."""
    newest = {
        day: batch.status
        for batch in sorted(batches, key=lambda batch: batch.number)
        for day in _days(batch.days.first, batch.days.last)
    }
    return {day for day, status in newest.items() if status == "complete"}


def _row_counts(batches: Iterable[Batch]) -> Iterator[tuple[range, int]]:
    """Yield the days and the row count of each complete or open batch, oldest first."""
    for batch in sorted(batches, key=lambda batch: batch.number):
        if batch.status in {"complete", "open"}:
            yield _days(batch.days.first, batch.days.last), batch.rows


def _fixed_parts(days: int, run: range, indivisible: Sequence[range]) -> Iterator[range]:
    """Divide *run* into parts of length *days*. A boundary inside a batch moves to the end of the batch."""
    if days < 1:
        raise ArgumentError("chunk_days", f"must be positive, got {days}")
    start = run.start
    while start < run.stop:
        boundary = min(start + days, run.stop)
        batch = _batch_divided_at(boundary, indivisible)
        stop = batch.stop if batch else boundary
        yield range(start, stop)
        start = stop


def _even_parts(
    to_fetch: set[int],
    indivisible: Sequence[range],
    open_day: int,
    *,
    workers: int,
    requests: int | None,
    weights: Weights | None,
    are_known: bool,
) -> list[range]:
    """Divide the days before *open_day* evenly.

    Each day from *open_day* on is a separate part. If a batch contains one of these days, the batch is the part.
    *are_known* is true if no weight is extrapolated from other days, and no batch is replaced.
    """
    open_batches = [batch for batch in indivisible if batch.stop > open_day]
    open_days = {day for day in to_fetch if day >= open_day}.difference(*open_batches)
    separate = open_batches + [range(day, day + 1) for day in open_days]
    runs = _runs(to_fetch.difference(*separate))
    few, many = (_even_count(runs, separate, workers, requests, each) for each in (1, _CHUNKS_PER_WORKER))
    even = separate + _divide_evenly(many, runs, indivisible)
    if weights is None:
        return even
    max_parts = len(separate) + many
    if are_known:
        fewer = separate + _divide_evenly(few, runs, indivisible)
        even = _fastest(fewer, [even], max_parts, workers, weights)
    longest = max([_WEEK, *map(len, _divide_evenly(many, runs, ()))])
    alternatives = [
        separate + [piece for part in parts for piece in _limit_length(longest, part, indivisible)]
        for parts in even_by_weight(runs, indivisible, weights, max_parts=many)
    ]
    return _fastest(even, alternatives, max_parts, workers, weights)


def _fastest(
    even: list[range], alternatives: Iterable[list[range]], max_parts: int, workers: int, weights: Weights
) -> list[range]:
    """Return the fastest of *alternatives* with at most *max_parts* parts; *even* if none of them saves much time."""

    def time(parts: Iterable[range]) -> float:
        return makespan(parts, weights, workers)

    best = min((parts for parts in alternatives if len(parts) <= max_parts), key=time, default=even)
    return best if time(best) <= _MAX_TIME_RATIO * time(even) else even


def _even_count(
    runs: Sequence[range],
    separate: Sequence[range],
    workers: int,
    requests: int | None,
    chunks_per_worker: int,
) -> int:
    """Return the number of chunks for *runs*.

    The number is a multiple of *workers* if the quota allows that. For more than a week of days, it is at least
    *chunks_per_worker* for each of them. *separate* contains the plan's other chunks, which have open days.
    """
    days = sum(map(len, runs))
    weeks = sum(-(-len(run) // _WEEK) for run in runs)
    count = max(-(-weeks // workers), chunks_per_worker if days > _WEEK else 1) * workers
    if requests is not None:
        budget = max(1, requests - len(separate))
        if count > budget:
            count = budget - budget % workers or budget
    if days <= _WEEK:
        all_in_a_week = days + sum(map(len, separate)) <= _WEEK
        count = min(count, _MAX_CHUNKS_PER_SHORT_EXPORT - (len(separate) if all_in_a_week else 0))
    return min(count, days)


def _divide_evenly(count: int, runs: Sequence[range], indivisible: Sequence[range]) -> list[range]:
    """Divide *runs* into about *count* parts of equal length. Each run is at least one part."""
    lengths = [len(run) for run in runs]
    divided = zip(shares(lengths, lengths, count), runs, strict=True)
    return [part for share, run in divided for part in _divide(share, run, indivisible)]


def _limit_length(days: int, part: range, indivisible: Sequence[range]) -> Iterable[range]:
    """Divide *part* if it is longer than *days*."""
    return [part] if len(part) <= days else _divide(-(-len(part) // days), part, indivisible)


def _divide(count: int, run: range, indivisible: Sequence[range]) -> Iterator[range]:
    """Divide *run* into at most *count* even parts. A boundary inside a batch moves to the nearer end of the batch."""
    even = (run.start + len(run) * part // count for part in range(count + 1))
    boundaries = sorted({_outside_batches(indivisible, boundary) for boundary in even})
    return (range(start, stop) for start, stop in pairwise(boundaries))


def _outside_batches(indivisible: Sequence[range], boundary: int) -> int:
    """Return *boundary*, moved to the nearer end of the batch that it would divide."""
    batch = _batch_divided_at(boundary, indivisible)
    if batch is None:
        return boundary
    return batch.start if boundary - batch.start < batch.stop - boundary else batch.stop


def _batch_divided_at(boundary: int, indivisible: Sequence[range]) -> range | None:
    """Return the batch that *boundary* would divide; None if there is none."""
    return next((batch for batch in indivisible if batch.start < boundary < batch.stop), None)


def _priority(part: range, weights: Weights | None, *, weekends_last: bool) -> tuple[float, int, int]:
    """Return the sort key of `Plan.fetch_order`."""
    weekend_days = sum(day % 7 in _WEEKEND for day in part) if weekends_last else 0
    return -weight(part, weights), weekend_days, -part.start


def _days(first: date, last: date) -> range:
    return range(first.toordinal(), last.toordinal() + 1)


def _runs(days: Iterable[int]) -> list[range]:
    """Group *days* into runs of consecutive days, in order."""
    runs: list[range] = []
    for day in sorted(days):
        if runs and runs[-1].stop == day:
            runs[-1] = range(runs[-1].start, day + 1)
        else:
            runs.append(range(day, day + 1))
    return runs


def _chunk(days: range) -> Chunk:
    return Chunk(date.fromordinal(days.start), date.fromordinal(days.stop - 1))
