"""The retry policy: after a failed attempt wait and try again, split the chunk, or give up. Pure; decided nowhere else.

| an attempt failed with | next step |
|---|---|
| 429 | all requests wait: for `Retry-After`, else a minute, doubled each time; only `max_wait` is a limit |
| no connection, a server error (5xx, 408, 409, 421, 425, 499), an incomplete body | retry after a random part of 1, 2, 4 … 60 s (at least `Retry-After`, at most an hour), up to `retries` times |
| the second break or time-out within an answer | split the chunk in two; if that is impossible, retry |
| 400 `Timeout Error.` | split the chunk in two at once; if that is impossible, retry |
| anything else | give up: a retry would fail again |

A smaller chunk asks less of the server and loses less when it breaks, so one bad day costs only itself.
"""

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from mixpanel_export.errors import (
    MixpanelDataError,
    NetworkError,
    ServerError,
    TruncatedError,
)

LONGEST_REFUSAL = 3600.0
"""Seconds. After an hour the whole quota is available again, so only a server may ask for a longer pause."""

LONGEST_PAUSE = 60.0
"""Seconds. Beyond them a retry costs less than the wait, so only a server may ask for a longer pause."""

_LONGEST_RETRY_AFTER = 3600.0  # seconds that a failing server may ask for
_SHORTEST_PAUSE = 0.25  # seconds; full jitter may draw 0, and a retry should not be immediate
_REFUSAL_PAUSE = 60.0  # seconds after a 429 without `Retry-After`
_SPREAD = 0.1  # of a refusal's pause, at least a second, so that clients do not return all at once
_MAX_INTERRUPTIONS = 2  # then the chunk is assumed too large and is split
_TIMEOUTS = frozenset({400, 408, 504})  # statuses of a ServerError that mean a time-out of the server

Draw = Callable[[], float]
"""Returns a random number from 0 up to 1."""


@dataclass(frozen=True, slots=True)
class Wait:
    """Try again in *seconds*."""

    seconds: float


Step = Wait | Literal["split", "give up"]


@dataclass(frozen=True, slots=True)
class History:
    """A chunk's failed attempts so far, without refusals for the quota."""

    failures: int = 0
    interruptions: int = 0
    """Failures that the chunk's size may explain."""
    last: MixpanelDataError | None = None

    def after(self, error: MixpanelDataError) -> "History":
        """Return the history with one more failed attempt."""
        return History(self.failures + 1, self.interruptions + _may_be_too_large(error), error)


def next_step(history: History, *, retries: int, splittable: bool, draw: Draw = random.random) -> Step:
    """Decide what follows the last failure. At most *retries* failures lead to another attempt at the same chunk."""
    error = history.last
    if splittable and (history.interruptions >= _MAX_INTERRUPTIONS or _is_server_timeout(error)):
        return "split"
    if not isinstance(error, NetworkError | ServerError | TruncatedError) or history.failures > retries:
        return "give up"
    pause = _doubled(1.0, history.failures - 1, LONGEST_PAUSE) * draw()
    retry_after = error.retry_after or 0.0 if isinstance(error, ServerError) else 0.0
    return Wait(max(_SHORTEST_PAUSE, pause, min(retry_after, _LONGEST_RETRY_AFTER)))


def pause_after_refusal(retry_after: float | None, refusals: int, *, draw: Draw = random.random) -> float:
    """Return the seconds to pause all requests after a 429, the last of *refusals* in a row.

    `Retry-After` is honoured whatever its length. One that proves too short is doubled, up to a minute.
    """
    if retry_after is None:
        pause = _doubled(_REFUSAL_PAUSE, refusals - 1, LONGEST_REFUSAL)
    else:
        pause = max(retry_after, _doubled(1.0, refusals - 2, _REFUSAL_PAUSE) if refusals > 1 else 0.0)
    return pause + draw() * max(1.0, _SPREAD * pause)


def _may_be_too_large(error: MixpanelDataError) -> bool:
    match error:
        case TruncatedError():
            return True
        case NetworkError(mid_answer=mid_answer):
            return mid_answer
        case ServerError(status_code=status):
            return status in _TIMEOUTS
        case _:
            return False


def _is_server_timeout(error: MixpanelDataError | None) -> bool:
    """Whether the server reported that the range is too large for it, which it does with status 400."""
    return isinstance(error, ServerError) and error.status_code == 400


def _doubled(first: float, times: int, most: float) -> float:
    return min(most, first * 2.0 ** min(times, 12))  # 2**12 exceeds every bound, 2**1024 overflows
