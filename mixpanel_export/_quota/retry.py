"""After a failed attempt: wait and try again, split the chunk, or give up. Pure; the only place that decides it.

| the attempt failed with | then |
|---|---|
| 429 | everybody waits: `Retry-After`, else a minute, doubling; bounded by `max_wait` alone |
| no connection, 5xx, a body that is not whole | again, after a random part of 1, 2, 4 … 60 s (at least `Retry-After`, an hour at most), up to `retries` times |
| a break or silence in mid-answer, for the second time | two pieces, where the chunk can be split; else as above |
| 400 `Timeout Error.` | two pieces at once, where the chunk can be split; else as above |
| anything else | give up: it would fail again |

A smaller chunk asks less of the server and loses less when it breaks; one bad day costs itself alone.
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
"""Seconds: after an hour the whole quota is there again, so no pause of our own choice is longer."""

_LONGEST_ASKED = 3600.0  # seconds that a server which failed may name; it does not know better for longer
LONGEST_PAUSE = 60.0
"""Seconds: beyond them a retry costs less than the waiting, so a longer pause is only ever one that the server named."""

_SHORTEST_PAUSE = 0.25  # seconds; full jitter may draw nothing, and a retry should not be immediate
_REFUSAL_PAUSE = 60.0  # seconds after a 429 that names none
_SPREAD = 0.1  # of a refusal's pause, at least a second: clients told the same should not return at once
_BREAKS = 2  # so many of them speak against the size of the chunk
_TIMEOUTS = frozenset({400, 408, 504})  # statuses of a ServerError that tell that the server's time was up

Draw = Callable[[], float]
"""Returns a random number from 0 up to 1."""


@dataclass(frozen=True, slots=True)
class Wait:
    """Try again in *seconds*."""

    seconds: float


Step = Wait | Literal["split", "give up"]


@dataclass(frozen=True, slots=True)
class History:
    """How a chunk's attempts failed so far, refusals for the quota aside; *breaks* are those its size may explain."""

    failures: int = 0
    breaks: int = 0
    last: MixpanelDataError | None = None

    def after(self, error: MixpanelDataError) -> "History":
        """Return the history with one more failed attempt."""
        return History(self.failures + 1, self.breaks + _may_be_too_large(error), error)


def next_step(history: History, *, retries: int, splittable: bool, draw: Draw = random.random) -> Step:
    """Decide what follows the last failure; at most *retries* of them are answered by waiting."""
    error = history.last
    if splittable and (history.breaks >= _BREAKS or _timed_out_itself(error)):
        return "split"
    if not isinstance(error, NetworkError | ServerError | TruncatedError) or history.failures > retries:
        return "give up"
    pause = _doubled(1.0, history.failures - 1, LONGEST_PAUSE) * draw()
    asked = error.retry_after or 0.0 if isinstance(error, ServerError) else 0.0
    return Wait(max(_SHORTEST_PAUSE, pause, min(asked, _LONGEST_ASKED)))


def pause_after_refusal(retry_after: float | None, refusals: int, *, draw: Draw = random.random) -> float:
    """Return the seconds for which nobody should ask, after the last of so many 429s in a row, 1 or more.

    `Retry-After` is kept whatever its length; one that turns out to be too short is doubled up to a minute.
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


def _timed_out_itself(error: MixpanelDataError | None) -> bool:
    """Whether the server said that the range is too much for it, which it does with status 400."""
    return isinstance(error, ServerError) and error.status_code == 400


def _doubled(first: float, times: int, most: float) -> float:
    return min(most, first * 2.0 ** min(times, 12))  # 2**12 is above every bound; 2**1024 is no float
