"""The retry policy: after a failed attempt, whether to retry, split or give up the chunk. Pure functions.

| an attempt failed with | next step |
|---|---|
| 429 | all requests pause for `Retry-After`, or for 1 minute, doubled after each consecutive 429, up to `max_wait` |
| no connection, a server error (5xx, 408, 409, 421, 425, 499), an incomplete body | retry after a random delay of up to 1, 2, 4 … 60 s, or after `Retry-After` if that is longer (at most an hour); up to `retries` times |
| a second broken or timed-out response | split the batch in two; if it cannot be split, retry |
| 400 `Timeout Error.` or a line over 64 MiB | split the batch in two immediately; if it cannot be split, a 400 is retried, and a long line fails its day |
| anything else | give up, because a retry would fail again |

The server needs less time for a smaller chunk, and less data is lost if its response breaks off. After enough splits,
only the day that causes the failure fails.
"""

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from mixpanel_export._quota.statuses import TIMEOUTS, TOO_LARGE
from mixpanel_export.errors import (
    LineTooLongError,
    MixpanelDataError,
    NetworkError,
    ServerError,
    TruncatedError,
)

_LONGEST_REFUSAL = 3600.0  # seconds; after an hour, the whole quota is available again
_LONGEST_RETRY_AFTER = 3600.0  # seconds; the maximum wait for the `Retry-After` of a server error
_SPREAD = 0.1  # random extension of the pause after a 429, as a fraction, so that clients do not all return together
_MAX_INTERRUPTIONS = 2  # after this many, the chunk is considered too large and is split

Draw = Callable[[], float]
"""Returns a random number from 0 to 1."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pauses:
    """Pauses in seconds. Only tests set them. Users cannot, because shorter pauses would burden the server."""

    shortest: float = 0.25
    """The shortest pause before a retry; the random part may be 0."""
    longest: float = 60.0
    """The longest pause before a retry, unless the server asks for a longer one."""
    refusal: float = 60.0
    """The first pause after a 429 without `Retry-After`."""
    spread: float = 1.0
    """The maximum random extension of the pause after a 429. If a tenth of the pause is longer, that is the maximum."""


DEFAULT_PAUSES = Pauses()
"""The pauses that every export uses."""


@dataclass(frozen=True, slots=True)
class Wait:
    """Try again in *seconds*."""

    seconds: float


Step = Wait | Literal["split", "give up"]


@dataclass(frozen=True, slots=True)
class History:
    """A chunk's failed attempts so far. A 429 does not count."""

    failures: int = 0
    interruptions: int = 0
    """Failures that may have occurred because the chunk is too large."""
    last: MixpanelDataError | None = None
    """The error from the last failed attempt."""

    def after(self, error: MixpanelDataError) -> "History":
        """Return the history extended by a failed attempt that raised *error*."""
        return History(self.failures + 1, self.interruptions + _may_be_too_large(error), error)


def next_step(
    history: History,
    *,
    retries: int,
    splittable: bool,
    pauses: Pauses = DEFAULT_PAUSES,
    draw: Draw = random.random,
) -> Step:
    """Return the next step after the last failure. The same chunk is retried at most *retries* times."""
    error = history.last
    if splittable and (history.interruptions >= _MAX_INTERRUPTIONS or _is_due_to_size(error)):
        return "split"
    if not isinstance(error, NetworkError | ServerError | TruncatedError) or history.failures > retries:
        return "give up"
    pause = _doubled(1.0, history.failures - 1, pauses.longest) * draw()
    retry_after = error.retry_after or 0.0 if isinstance(error, ServerError) else 0.0
    return Wait(max(pauses.shortest, pause, min(retry_after, _LONGEST_RETRY_AFTER)))


def pause_after_refusal(
    retry_after: float | None,
    refusals: int,
    *,
    pauses: Pauses = DEFAULT_PAUSES,
    draw: Draw = random.random,
) -> float:
    """Return the pause in seconds for all requests after a 429. *refusals* is the number of 429s in a row.

    The pause is at least *retry_after*, the value of `Retry-After`. It grows with the number of 429s in a row.
    """
    if retry_after is None:
        pause = _doubled(pauses.refusal, refusals - 1, _LONGEST_REFUSAL)
    else:
        pause = max(retry_after, _doubled(1.0, refusals - 2, pauses.refusal) if refusals > 1 else 0.0)
    return pause + draw() * max(pauses.spread, _SPREAD * pause)


def _may_be_too_large(error: MixpanelDataError) -> bool:
    match error:
        case TruncatedError():
            return True
        case NetworkError(mid_answer=mid_answer):
            return mid_answer
        case ServerError(status_code=status):
            return status in TIMEOUTS
        case _:
            return False


def _is_due_to_size(error: MixpanelDataError | None) -> bool:
    """Whether the size of the chunk or of a line caused the error, so that a split helps.

    After a split, a line that is too long fails only its own piece.
    """
    return isinstance(error, LineTooLongError) or (
        isinstance(error, ServerError) and error.status_code in TOO_LARGE
    )


def _doubled(first: float, times: int, maximum: float) -> float:
    return min(maximum, first * 2.0 ** min(times, 12))  # 2**12 exceeds every maximum; 2**1024 would overflow
