"""Decides which chunks with an empty response are requested again. Pure functions.

An *empty response* has status 200 and no body. It may mean that the days have no events, or that the server failed
before the first byte. The two cases cannot be distinguished, so every chunk with an empty response is requested again,
after all other chunks. Adjacent chunks share one request. Days with two empty responses are treated as days without
events.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from mixpanel_export._model import Chunk

MAX_REQUESTS = 5
"""The maximum number of second requests in an export with an hourly quota."""

_USUAL_DAYS = 100  # maximum days in a second request, unless that would take too many requests

Run = tuple[Chunk, ...]
"""Adjacent chunks with empty responses, in date order."""


@dataclass(frozen=True, slots=True)
class SecondRequests:
    """The `runs` that are requested again, one request each, and the `skipped` chunks that cannot be requested again."""

    runs: tuple[Run, ...]
    skipped: tuple[Chunk, ...]


def second_requests(empty: Sequence[Chunk], max_requests: int | None = MAX_REQUESTS) -> SecondRequests:
    """Plan how to request the chunks with *empty* responses again, in at most *max_requests* requests.

    *empty* is sorted and disjoint. Each run of adjacent chunks is one request, or several of about 100 days each. If
    that takes too many requests, runs are not divided, and only the longest runs are requested.
    """
    empty_runs = runs(empty)
    parts = [part for run in empty_runs for part in _divide(run)]
    if max_requests is None or len(parts) <= max_requests:
        return SecondRequests(tuple(parts), ())
    by_length = sorted(empty_runs, key=_days, reverse=True)
    skipped = [chunk for run in by_length[max_requests:] for chunk in run]
    return SecondRequests(tuple(by_length[:max_requests]), tuple(sorted(skipped)))


def runs(chunks: Sequence[Chunk]) -> list[Run]:
    """Group sorted chunks into runs of consecutive days."""
    edges = [0, *(index for index, (one, next_) in enumerate(pairwise(chunks), 1) if not one.borders(next_))]
    return [tuple(chunks[start:stop]) for start, stop in pairwise([*edges, len(chunks)]) if start < stop]


def _divide(run: Run) -> list[Run]:
    """Divide a run into parts of at most `_USUAL_DAYS` days. Chunks are not divided."""
    parts: list[list[Chunk]] = []
    for chunk in run:
        if parts and _days((*parts[-1], chunk)) <= _USUAL_DAYS:
            parts[-1].append(chunk)
        else:
            parts.append([chunk])
    return [tuple(part) for part in parts]


def _days(run: Sequence[Chunk]) -> int:
    return Chunk(run[0].first, run[-1].last).length
