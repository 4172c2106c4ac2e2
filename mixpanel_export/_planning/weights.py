"""Expected events of each day, estimated from earlier batches, and parts of equal weight. Pure, as the planner is.

A weight is a number of events; only ratios matter. Days are ordinals and runs of days are ranges, as in the planner.
"""

from bisect import bisect, bisect_left
from collections.abc import Iterable, Iterator, Mapping, Sequence
from heapq import heapreplace
from itertools import accumulate, pairwise
from statistics import fmean, median

Weights = Mapping[int, float]

_EMPTY = 1 / 50  # of an average day: the cost of a day without events
_MAX_ALTERNATIVES = 200  # about; years without a quota should be planned quickly
_NEAREST = 3  # days on either side that estimate an unknown one, so that the median ignores an outlier


def expected_weights(row_counts: Iterable[tuple[range, int]], days: Iterable[int]) -> dict[int, float] | None:
    """Return the expected weight of each of *days*; None if nothing is known, or only days without events are.

    *row_counts* are the days and rows of earlier batches, oldest first; a later one replaces an earlier one. Only the sum
    of a batch's days is known, so each has an equal share. A day that no batch covers weighs the median of the nearest
    days, so that one outlier does not recur every week: those of its weekday that were batches of their own, or else any.
    """
    known: dict[int, float] = {}
    single: set[int] = set()
    for batch, rows in row_counts:
        known.update(dict.fromkeys(batch, rows / len(batch)))
        if len(batch) == 1:
            single.update(batch)
        else:
            single.difference_update(batch)
    if not any(known.values()):
        return None
    weekdays = [sorted(day for day in single if day % 7 == weekday) for weekday in range(7)]
    every = sorted(known)
    least = fmean(known.values()) * _EMPTY
    return {
        day: least + (known[day] if day in known else _estimate(day, weekdays[day % 7] or every, known))
        for day in days
    }


def _estimate(day: int, others: Sequence[int], known: Weights) -> float:
    at = bisect(others, day)
    return median(known[other] for other in others[max(0, at - _NEAREST) : at + _NEAREST])


def weight(days: range, weights: Weights | None) -> float:
    """Return the weight of *days* together; if nothing is known, their number."""
    return float(len(days)) if weights is None else sum(weights[day] for day in days)


def makespan(parts: Iterable[range], weights: Weights, workers: int) -> float:
    """Return the time that *workers* need for *parts* if each idle worker takes the heaviest part that is left."""
    free = [0.0] * workers
    for part in sorted((weight(part, weights) for part in parts), reverse=True):
        heapreplace(free, free[0] + part)
    return max(free)


def shares(weights: Sequence[float], most: Sequence[int], count: int) -> list[int]:
    """Distribute *count* chunks among runs of these *weights* so that the heaviest chunk is as light as possible.

    Every run has at least one, and none more than its *most*.
    """
    chunks = [1] * len(weights)
    for _ in range(count - len(weights)):
        growing = [run for run in range(len(weights)) if chunks[run] < most[run]]
        if not growing:
            break
        chunks[max(growing, key=lambda run: weights[run] / chunks[run])] += 1
    return chunks


def even_by_weight(
    runs: Sequence[range], whole: Sequence[range], weights: Weights, most: int
) -> Iterator[list[range]]:
    """Yield *runs* divided into up to *most* parts of about equal weight; no edge divides a range of *whole*.

    A day or a batch that is heavier than its share is a part of its own, so there may be fewer parts.
    """
    inside = {day for batch in whole for day in batch[1:]}
    edges = [[edge for edge in [*run, run.stop] if edge not in inside] for run in runs]
    before = [
        list(accumulate((weight(range(*edge), weights) for edge in pairwise(line)), initial=0.0))
        for line in edges
    ]
    totals, pieces = [line[-1] for line in before], [len(line) - 1 for line in edges]
    for count in range(len(runs), most + 1, 1 + most // _MAX_ALTERNATIVES):
        yield [
            range(*part)
            for line, marks, share in zip(edges, before, shares(totals, pieces, count), strict=True)
            for part in pairwise(_even_edges(line, marks, share))
        ]


def _even_edges(edges: Sequence[int], before: Sequence[float], count: int) -> list[int]:
    """Return those of *edges*, with the weight *before* each, that divide the weight into *count* parts most evenly."""
    marks = (before[-1] * part / count for part in range(count + 1))
    return sorted({edges[_nearest(before, mark)] for mark in marks})


def _nearest(values: Sequence[float], value: float) -> int:
    """Return the index of the one of the ascending *values* that is nearest to *value*."""
    at = min(bisect_left(values, value), len(values) - 1)
    return at - 1 if at and value - values[at - 1] < values[at] - value else at
