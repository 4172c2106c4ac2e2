"""The optimum: the shortest possible export if the duration of every day were known in advance.

A schedule splits the days into contiguous chunks of whole days and assigns them to workers, with at most as many chunks as
the rules allow requests. A request waits for the first byte and then takes as long as its days. The rules limit the
requests that start within a second, so the workers start one after the other.

To find the shortest schedule is a packing problem, so two values are computed. No schedule is shorter than `lower_bound`,
which is proven. `best_known` is the duration of an actual schedule, so the optimum is between the two, up to a millisecond
of rounding. For days of equal duration both are the same if the quota allows a request for each worker.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from heapq import heappop, heappush
from itertools import accumulate, pairwise


@dataclass(frozen=True, slots=True)
class Rules:
    """The limits of a schedule; `first_byte` is in seconds for each request."""

    first_byte: float = 0.5
    workers: int = 10
    requests: int = 50
    per_second: int = 3

    def starts(self) -> list[float]:
        """Return the earliest start of the first request of each worker."""
        return [float(worker // self.per_second) for worker in range(self.workers)]


def lower_bound(days: Sequence[float], rules: Rules) -> float:
    """Return a duration in seconds that no schedule of *days*, in seconds each, can be shorter than.

    Every schedule of a duration meets three conditions: the longest day fits after one first byte; all days fit into
    the time that remains to the workers after their start and one first byte each; and the number of days fits, even if
    each worker could take the shortest days.
    """
    shortest = [0.0, *accumulate(sorted(days))]

    def possible(seconds: float) -> bool:
        remaining = [left for start in rules.starts() if (left := seconds - start - rules.first_byte) > 0]
        return (
            max(remaining, default=0.0) >= max(days)
            and sum(remaining) >= shortest[-1]
            and sum(bisect_right(shortest, left + 1e-9) - 1 for left in remaining) >= len(days)
        )

    return _least(possible, shortest[-1] + rules.first_byte)


def best_known(days: Sequence[float], rules: Rules) -> float:
    """Return the duration in seconds of the shortest schedule among some simple ways to split *days*."""
    splits = [_even_split(days, chunks) for chunks in range(1, min(rules.requests, len(days)) + 1)]
    makespans = [makespan(sorted(split, reverse=True), rules) for split in splits]
    one_chunk_each = [_one_chunk_each(days, rules), _one_chunk_each(days[::-1], rules)]
    return min(makespans + one_chunk_each)


def makespan(chunks: Iterable[float], rules: Rules) -> float:
    """Return when the last of *chunks* ends; they are in seconds without the first byte, in the order of fetching."""
    free, starts, end = [0.0] * rules.workers, list[float](), 0.0
    for seconds in chunks:
        start = max(heappop(free), starts[-rules.per_second] + 1 if len(starts) >= rules.per_second else 0.0)
        starts.append(start)
        heappush(free, start + rules.first_byte + seconds)
        end = max(end, start + rules.first_byte + seconds)
    return end


def _least(possible: Callable[[float], bool], enough: float) -> float:
    """Return the shortest *possible* duration, to a millisecond; *enough* and every longer one must be possible."""
    impossible, enough = 0.0, enough + 60.0
    while enough - impossible > 0.001:
        middle = (impossible + enough) / 2
        if possible(middle):
            enough = middle
        else:
            impossible = middle
    return enough


def _one_chunk_each(days: Sequence[float], rules: Rules) -> float:
    return _least(lambda limit: _fits(days, limit, rules), sum(days) + rules.first_byte)


def _fits(days: Sequence[float], limit: float, rules: Rules) -> bool:
    """Return whether one chunk for each worker suffices, in the order of the days, within *limit* seconds."""
    at, before = 0, [0.0, *accumulate(days)]
    for start in rules.starts()[: rules.requests]:
        at = max(at, bisect_right(before, before[at] + limit - start - rules.first_byte + 1e-9) - 1)
    return at == len(days)


def _even_split(days: Sequence[float], chunks: int) -> Iterator[float]:
    """Yield the seconds of about this number of *chunks*, as even as whole days allow."""
    before = [0.0, *accumulate(days)]
    edges = {_nearest(before, before[-1] * part / chunks) for part in range(chunks + 1)}
    return (before[stop] - before[start] for start, stop in pairwise(sorted(edges)))


def _nearest(before: Sequence[float], mark: float) -> int:
    at = min(bisect_left(before, mark), len(before) - 1)
    return at - 1 if at and mark - before[at - 1] < before[at] - mark else at
