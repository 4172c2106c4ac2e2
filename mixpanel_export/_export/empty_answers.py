"""Decides which silent answers are asked for again. Pure.

A *silent* answer has status 200 and no body. It may mean a day without events, or a server that failed before the first
byte; nothing tells the two apart. So every silent chunk is asked for once more, after all other chunks. Neighbouring silent
chunks share one request. Days that are silent twice are believed to be empty.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from mixpanel_export._model import Chunk

MOST_REQUESTS = 5
"""Requests for silent days in one export whose project has an hourly quota."""

_USUAL_DAYS = 100  # of one request; longer ones are made only where there would be too many requests

Run = tuple[Chunk, ...]
"""Silent chunks that follow each other day by day, in order."""


@dataclass(frozen=True, slots=True)
class SecondRequests:
    """The `runs` that are asked for, one request each, and the `skipped` chunks for which no request is left."""

    runs: tuple[Run, ...]
    skipped: tuple[Chunk, ...]


def second_requests(silent: Sequence[Chunk], most: int | None = MOST_REQUESTS) -> SecondRequests:
    """Return how to ask again for the *silent* chunks, which are sorted and disjoint, in at most *most* requests.

    Each run of neighbouring chunks is one request, or several of about 100 days. Where that would be too many requests, runs
    are not cut, and the longest runs come first.
    """
    silent_runs = runs(silent)
    parts = [part for run in silent_runs for part in _cut(run)]
    if most is None or len(parts) <= most:
        return SecondRequests(tuple(parts), ())
    by_length = sorted(silent_runs, key=_days, reverse=True)
    skipped = [chunk for run in by_length[most:] for chunk in run]
    return SecondRequests(tuple(by_length[:most]), tuple(sorted(skipped)))


def runs(chunks: Sequence[Chunk]) -> list[Run]:
    """Return sorted chunks as runs without a day between."""
    edges = [0, *(place for place, (one, next_) in enumerate(pairwise(chunks), 1) if not one.borders(next_))]
    return [tuple(chunks[start:stop]) for start, stop in pairwise([*edges, len(chunks)]) if start < stop]


def _cut(run: Run) -> list[Run]:
    """Cut a run into parts of at most `_USUAL_DAYS` days, but never a chunk."""
    parts: list[list[Chunk]] = []
    for chunk in run:
        if parts and _days((*parts[-1], chunk)) <= _USUAL_DAYS:
            parts[-1].append(chunk)
        else:
            parts.append([chunk])
    return [tuple(part) for part in parts]


def _days(run: Sequence[Chunk]) -> int:
    return Chunk(run[0].first, run[-1].last).length
