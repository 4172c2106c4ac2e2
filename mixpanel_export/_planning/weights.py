"""How many events will a day have? What earlier batches tell of it, and cuts of equal weight. Pure, as the planner is.

A weight is a number of events, of which only ratios matter. Days are ordinals and runs of days are ranges, as
inside the planner.
"""

from bisect import bisect, bisect_left
from collections.abc import Iterable, Iterator, Mapping, Sequence
from heapq import heapreplace
from itertools import accumulate, pairwise
from statistics import fmean, median

Weights = Mapping[int, float]

_EMPTY = 1 / 50  # of an average day: what a day costs that has no events
_CUTS = 200  # that are looked at, about, so that years without a quota are planned in no time
_NEAREST = 3  # days on either side that speak for an unknown one, so that the median outvotes an outlier


def expected_weights(told: Iterable[tuple[range, int]], days: Iterable[int]) -> dict[int, float] | None:
    """Return how much each of *days* is expected to weigh; None where nothing is known, or only empty days are.

    *told* are the days and rows of earlier batches, of which a later one knows better. A batch tells only the sum
    of its days, so they share it evenly. A day that none tells of weighs what the nearest ones do, in the median, so
    that one outlier does not come again every week: those of its weekday that a batch told alone, or else any.
    """
    known: dict[int, float] = {}
    alone: set[int] = set()
    for batch, rows in told:
        known.update(dict.fromkeys(batch, rows / len(batch)))
        if len(batch) == 1:
            alone.update(batch)
        else:
            alone.difference_update(batch)
    if not any(known.values()):
        return None
    weekdays = [sorted(day for day in alone if day % 7 == weekday) for weekday in range(7)]
    every = sorted(known)
    least = fmean(known.values()) * _EMPTY
    return {
        day: least + (known[day] if day in known else _near(day, weekdays[day % 7] or every, known))
        for day in days
    }


def _near(day: int, others: Sequence[int], known: Weights) -> float:
    at = bisect(others, day)
    return median(known[other] for other in others[max(0, at - _NEAREST) : at + _NEAREST])


def weight(days: range, weights: Weights | None) -> float:
    """Return what *days* weigh together; where nothing is known, how many they are."""
    return float(len(days)) if weights is None else sum(weights[day] for day in days)


def makespan(parts: Iterable[range], weights: Weights, workers: int) -> float:
    """Return how long so many *workers* take for *parts*, each of whom takes the heaviest that is left when it is free."""
    free = [0.0] * workers
    for part in sorted((weight(part, weights) for part in parts), reverse=True):
        heapreplace(free, free[0] + part)
    return max(free)


def shares(weights: Sequence[float], most: Sequence[int], count: int) -> list[int]:
    """Share *count* chunks among runs of such *weights* so that the heaviest chunk is light.

    Every run gets one at least, and none more than its *most*.
    """
    given = [1] * len(weights)
    for _ in range(count - len(weights)):
        growing = [run for run in range(len(weights)) if given[run] < most[run]]
        if not growing:
            break
        given[max(growing, key=lambda run: weights[run] / given[run])] += 1
    return given


def cuts_by_weight(
    runs: Sequence[range], bound: Sequence[range], weights: Weights, most: int
) -> Iterator[list[range]]:
    """Yield *runs* cut into up to *most* chunks, about as heavy as one another, that leave the *bound* days together.

    A day or a batch that is heavier than its share stands alone, so there may be fewer chunks.
    """
    inside = {day for batch in bound for day in batch[1:]}
    edges = [[edge for edge in [*run, run.stop] if edge not in inside] for run in runs]
    before = [
        list(accumulate((weight(range(*edge), weights) for edge in pairwise(line)), initial=0.0))
        for line in edges
    ]
    totals, pieces = [line[-1] for line in before], [len(line) - 1 for line in edges]
    for count in range(len(runs), most + 1, 1 + most // _CUTS):
        yield [
            range(*part)
            for line, marks, share in zip(edges, before, shares(totals, pieces, count), strict=True)
            for part in pairwise(_evenly(line, marks, share))
        ]


def _evenly(edges: Sequence[int], before: Sequence[float], count: int) -> list[int]:
    """Return of *edges*, with the weight *before* each, those nearest to even cuts into *count*."""
    marks = (before[-1] * part / count for part in range(count + 1))
    return sorted({edges[_nearest(before, mark)] for mark in marks})


def _nearest(values: Sequence[float], value: float) -> int:
    """Return where in the rising *values* the one nearest to *value* is."""
    at = min(bisect_left(values, value), len(values) - 1)
    return at - 1 if at and value - values[at - 1] < values[at] - value else at
