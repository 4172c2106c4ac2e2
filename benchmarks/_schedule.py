"""Computes bounds of the optimum: the shortest possible export if the duration of each day were known in advance.

A schedule divides the days into contiguous chunks of whole days, at most as many as the rules allow requests, and assigns
them to workers. A request waits for the first byte, and then takes the sum of the durations of its days. The rules limit how
many requests start within a second, so the workers do not all start at once.

Finding the shortest schedule is a packing problem, so only bounds are computed. No schedule is shorter than `lower_bound`.
`best_known` is the duration of an actual schedule. The optimum lies between the two, up to a millisecond of rounding. If all
days have equal durations and the quota allows a request for each worker, both are the same.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from heapq import heappop, heappush
from itertools import accumulate, pairwise


@dataclass(frozen=True, slots=True)
class Rules:
    """The limits of a schedule. `first_byte` is the time to the first byte of each response, in seconds."""

    first_byte: float = 0.5
    workers: int = 10
    requests: int = 50
    per_second: int = 3

    def starts(self) -> list[float]:
        """Return the earliest start of the first request of each worker."""
        return [float(worker // self.per_second) for worker in range(self.workers)]


def lower_bound(days: Sequence[float], rules: Rules) -> float:
    """Return a lower bound for the duration of a schedule in seconds. *days* are the durations of the days.

    A possible duration meets three conditions. The longest day fits into the time of one worker. All days together fit into
    the time that all workers have after their start and one first byte each. And the number of days fits, if each worker
    takes only the shortest days.
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
    """Return the duration in seconds of the shortest schedule among several simple divisions of *days*."""
    splits = [_even_split(days, chunks) for chunks in range(1, min(rules.requests, len(days)) + 1)]
    makespans = [makespan(sorted(split, reverse=True), rules) for split in splits]
    one_chunk_each = [_one_chunk_each(days, rules), _one_chunk_each(days[::-1], rules)]
    return min(makespans + one_chunk_each)


def makespan(chunks: Iterable[float], rules: Rules) -> float:
    """Return when the last of *chunks* ends. They are durations in seconds without the first byte, in fetch order."""
    free, starts, end = [0.0] * rules.workers, list[float](), 0.0
    for seconds in chunks:
        start = max(heappop(free), starts[-rules.per_second] + 1 if len(starts) >= rules.per_second else 0.0)
        starts.append(start)
        heappush(free, start + rules.first_byte + seconds)
        end = max(end, start + rules.first_byte + seconds)
    return end


def _least(possible: Callable[[float], bool], enough: float) -> float:
    """Return the shortest *possible* duration, up to a millisecond. *enough*, and all longer ones, must be possible."""
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
    """Return whether all days fit into *limit* seconds with one chunk for each worker, in the order of the days."""
    done, cumulative = 0, [0.0, *accumulate(days)]
    for start in rules.starts()[: rules.requests]:
        end = cumulative[done] + limit - start - rules.first_byte + 1e-9
        done = max(done, bisect_right(cumulative, end) - 1)
    return done == len(days)


def _even_split(days: Sequence[float], chunks: int) -> Iterator[float]:
    """Yield the durations of about *chunks* chunks, as equal as whole days allow."""
    cumulative = [0.0, *accumulate(days)]
    boundaries = {_nearest(cumulative, cumulative[-1] * part / chunks) for part in range(chunks + 1)}
    return (cumulative[stop] - cumulative[start] for start, stop in pairwise(sorted(boundaries)))


def _nearest(values: Sequence[float], value: float) -> int:
    index = min(bisect_left(values, value), len(values) - 1)
    return index - 1 if index and value - values[index - 1] < values[index] - value else index
