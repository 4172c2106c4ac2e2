"""Estimates the number of events per day from earlier batches, and divides days into parts of equal weight.

A day's weight is its expected number of events. Only the ratios of weights matter. As in the planner, days are
ordinals, and runs of days are ranges. All functions are pure.
"""

from bisect import bisect, bisect_left
from collections.abc import Iterable, Iterator, Mapping, Sequence
from heapq import heapreplace
from itertools import accumulate, pairwise
from statistics import fmean, median

Weights = Mapping[int, float]

_EMPTY_DAY = 1 / 50  # the cost of a day without events, as a fraction of the cost of an average day
_MAX_ALTERNATIVES = 200  # approximate; limits the time needed to plan many years without a quota
_NEIGHBOURS = 3  # an unknown day gets the median of this many known days on either side


def expected_weights(row_counts: Iterable[tuple[range, int]], days: Iterable[int]) -> dict[int, float] | None:
    """Return the expected weight of each of *days*; None if no earlier batch has events.

    *row_counts* contains the days and the row count of each earlier batch, oldest first. A later batch replaces an
    earlier one. Only the total of a batch is known, so each of its days gets an equal share.

    If a day is in no batch, its weight is estimated from days with the same weekday that were batches of one day. If
    there are none, all known days are used. The weight is the median of the nearest of these days, so that one outlier
    does not affect it.
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
    all_known = sorted(known)
    minimum = fmean(known.values()) * _EMPTY_DAY
    return {
        day: minimum + (known[day] if day in known else _estimate(day, weekdays[day % 7] or all_known, known))
        for day in days
    }


def _estimate(day: int, others: Sequence[int], known: Weights) -> float:
    index = bisect(others, day)
    return median(known[other] for other in others[max(0, index - _NEIGHBOURS) : index + _NEIGHBOURS])


def weight(days: range, weights: Weights | None) -> float:
    """Return the total weight of *days*, or their number if *weights* is None."""
    return float(len(days)) if weights is None else sum(weights[day] for day in days)


def makespan(parts: Iterable[range], weights: Weights, workers: int) -> float:
    """Return the time that *workers* need for *parts* if each idle worker takes the heaviest remaining part."""
    free = [0.0] * workers
    for part in sorted((weight(part, weights) for part in parts), reverse=True):
        heapreplace(free, free[0] + part)
    return max(free)


def shares(weights: Sequence[float], maximums: Sequence[int], count: int) -> list[int]:
    """Return how many of *count* chunks each run gets, so that the heaviest chunk is as light as possible.

    *weights* has the weight of each run. Each run gets at least one chunk, and at most its number in *maximums*.
    """
    chunks = [1] * len(weights)
    for _ in range(count - len(weights)):
        divisible = [run for run in range(len(weights)) if chunks[run] < maximums[run]]
        if not divisible:
            break
        chunks[max(divisible, key=lambda run: weights[run] / chunks[run])] += 1
    return chunks


def even_by_weight(
    runs: Sequence[range], indivisible: Sequence[range], weights: Weights, max_parts: int
) -> Iterator[list[range]]:
    """Yield divisions of *runs* into parts of about equal weight. The number of parts increases up to *max_parts*.

    No boundary divides a range in *indivisible*. A division may have fewer parts than intended, because a single day
    or batch may be heavier than the share of one part.
    """
    inside = {day for batch in indivisible for day in batch[1:]}
    boundaries = [[day for day in [*run, run.stop] if day not in inside] for run in runs]
    cumulative = [
        list(accumulate((weight(range(*part), weights) for part in pairwise(in_run)), initial=0.0))
        for in_run in boundaries
    ]
    totals, maximums = [sums[-1] for sums in cumulative], [len(in_run) - 1 for in_run in boundaries]
    for count in range(len(runs), max_parts + 1, 1 + max_parts // _MAX_ALTERNATIVES):
        yield [
            range(*part)
            for in_run, sums, share in zip(
                boundaries, cumulative, shares(totals, maximums, count), strict=True
            )
            for part in pairwise(_even_boundaries(in_run, sums, share))
        ]


def _even_boundaries(boundaries: Sequence[int], cumulative: Sequence[float], count: int) -> list[int]:
    """Return the *boundaries* that divide a run into *count* parts most evenly.

    *cumulative* has the total weight of the days before each boundary.
    """
    ideal = (cumulative[-1] * part / count for part in range(count + 1))
    return sorted({boundaries[_nearest(cumulative, total)] for total in ideal})


def _nearest(values: Sequence[float], value: float) -> int:
    """Return the index of the value nearest to *value*; *values* is in ascending order."""
    index = min(bisect_left(values, value), len(values) - 1)
    return index - 1 if index and value - values[index - 1] < values[index] - value else index
