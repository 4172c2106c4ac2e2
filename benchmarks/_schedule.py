"""The best possible: how short an export could be for somebody who knew beforehand how long every day takes.

A schedule cuts the days into contiguous chunks of whole days, at most as many as the rules allow requests, and
gives them to workers. A request waits for the first byte and then takes as long as its days; no more requests
begin within a second than the rules allow, so the workers begin one after the other.

Which schedule is the shortest is a packing problem, so two things are computed. `bound` is proven: no schedule
is shorter. `found` is a schedule, so the best possible lies between them, but for a millisecond of rounding. For
days that are all equal they are the same, as far as the quota allows a request for each worker.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from heapq import heappop, heappush
from itertools import accumulate, pairwise


@dataclass(frozen=True, slots=True)
class Rules:
    """What a schedule must keep; `first_byte` in seconds a request."""

    first_byte: float = 0.5
    workers: int = 10
    requests: int = 50
    per_second: int = 3

    def starts(self) -> list[float]:
        """Return when each worker can begin its first request at the earliest."""
        return [float(worker // self.per_second) for worker in range(self.workers)]


def bound(days: Sequence[float], rules: Rules) -> float:
    """Return seconds below which no schedule of *days*, in seconds each, can be.

    Three claims that every schedule of that length would have to meet: the longest day fits beside one first
    byte; all days fit into what the workers have left after their starts and one first byte each; and the
    workers have room for so many days, even if each of them could have the shortest ones.
    """
    shortest = [0.0, *accumulate(sorted(days))]

    def possible(seconds: float) -> bool:
        rooms = [room for start in rules.starts() if (room := seconds - start - rules.first_byte) > 0]
        return (
            max(rooms, default=0.0) >= max(days)
            and sum(rooms) >= shortest[-1]
            and sum(bisect_right(shortest, room + 1e-9) - 1 for room in rooms) >= len(days)
        )

    return _least(possible, shortest[-1] + rules.first_byte)


def found(days: Sequence[float], rules: Rules) -> float:
    """Return the seconds of the shortest schedule that some simple ways to cut *days* come to."""
    cuts = [_by_size(days, chunks) for chunks in range(1, min(rules.requests, len(days)) + 1)]
    lengths = [makespan(sorted(cut, reverse=True), rules) for cut in cuts]
    filled = [_filled(days, rules), _filled(days[::-1], rules)]
    return min(lengths + filled)


def makespan(chunks: Iterable[float], rules: Rules) -> float:
    """Return when the last of *chunks*, in seconds without the first byte and in the order of fetching, is over."""
    free, begun, end = [0.0] * rules.workers, list[float](), 0.0
    for seconds in chunks:
        start = max(heappop(free), begun[-rules.per_second] + 1 if len(begun) >= rules.per_second else 0.0)
        begun.append(start)
        heappush(free, start + rules.first_byte + seconds)
        end = max(end, start + rules.first_byte + seconds)
    return end


def _least(possible: Callable[[float], bool], enough: float) -> float:
    """Return, to a millisecond, the least seconds that are *possible*, as all above them are."""
    impossible, enough = 0.0, enough + 60.0
    while enough - impossible > 0.001:
        middle = (impossible + enough) / 2
        if possible(middle):
            enough = middle
        else:
            impossible = middle
    return enough


def _filled(days: Sequence[float], rules: Rules) -> float:
    return _least(lambda limit: _fits(days, limit, rules), sum(days) + rules.first_byte)


def _fits(days: Sequence[float], limit: float, rules: Rules) -> bool:
    """Whether one chunk for each worker suffices, in the days' order, each as long as the limit leaves room for."""
    at, before = 0, [0.0, *accumulate(days)]
    for start in rules.starts()[: rules.requests]:
        at = max(at, bisect_right(before, before[at] + limit - start - rules.first_byte + 1e-9) - 1)
    return at == len(days)


def _by_size(days: Sequence[float], chunks: int) -> Iterator[float]:
    """Yield the seconds of about as many *chunks* that are as even as whole days allow."""
    before = [0.0, *accumulate(days)]
    edges = {_nearest(before, before[-1] * part / chunks) for part in range(chunks + 1)}
    return (before[stop] - before[start] for start, stop in pairwise(sorted(edges)))


def _nearest(before: Sequence[float], mark: float) -> int:
    at = min(bisect_left(before, mark), len(before) - 1)
    return at - 1 if at and mark - before[at - 1] < before[at] - mark else at
