"""When may we ask, when again: Mixpanel's quota as arithmetic, and the gate that waits by it.

Mixpanel allows a project 3 export requests a second and 60 a rolling hour (openapi/export.openapi.yaml), and
counts them as they *arrive*. What was sent evenly arrives unevenly, so each window is taken a little longer
here than it is there: three requests sent within a second must not become four received within one. The hour
is what decides how long a long backfill takes, and a plan that ignores it cannot be saved at the gate; the
gate only makes sure that no plan, and no retry, breaks the rules.

Waiting never holds a promise to a cancelled caller: a request is recorded in the same step, without an await
between, in which its caller is admitted.
"""

import random
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from typing import NamedTuple

import anyio

from mixpanel_export.errors import (
    MixpanelDataError,
    NetworkError,
    RateLimitError,
    ServerError,
    TruncatedError,
)

SECOND = 1.0 + 0.1
"""Mixpanel's second, in seconds; the margin is for requests that travel at different speeds."""

HOUR = 3600.0 + 5.0
"""Mixpanel's hour, in seconds; the margin is larger because being wrong costs up to an hour."""

_LONGEST_PAUSE = 60.0  # seconds; beyond it a retry costs less than the waiting
_SHORTEST_PAUSE = 0.25  # seconds; full jitter may draw nothing, and a retry should not be immediate
_RETRY_AFTER_SPREAD = 1.0  # seconds; a server that told all of us the same second should not meet all in it

_LEAD = 2.0  # seconds before its admission in which a caller may connect
_GLANCE = 10.0  # seconds; the longest single sleep, as a refund may free a place earlier than it seemed
_CALL_LASTS = 30.0  # seconds; who was called to connect and has not asked for admission by then has failed


class Window(NamedTuple):
    """At most *quota* requests within any *seconds*."""

    quota: int
    seconds: float


def wait_needed(windows: Sequence[Window], past: Sequence[float], now: float) -> float:
    """Return the seconds until one more request fits into every window; *past* is oldest first."""
    waits = [past[-window.quota] + window.seconds - now for window in windows if len(past) >= window.quota]
    return max([0.0, *waits])


def pause_before_retry(
    error: MixpanelDataError, attempt: int, *, retries: int, draw: Callable[[], float] = random.random
) -> float | None:
    """Return the seconds to wait before trying again, None when that cannot help or *retries* are used up.

    *attempt* counts the attempts that failed so far, so at most *retries* + 1 are made. A spent quota is
    nobody's failure, so callers count 429s apart: for them *attempt* is the number of 429s, and the other
    failures have a budget of their own. `Retry-After` is honoured whatever its length. *draw* returns a number
    from 0 up to 1.
    """
    if attempt > retries:
        return None
    match error:
        case RateLimitError(retry_after=None):
            return _ceiling(attempt) * (0.5 + draw() / 2)
        case RateLimitError(retry_after=float() | int() as seconds):
            return max(0.0, seconds) + draw() * _RETRY_AFTER_SPREAD
        case NetworkError() | ServerError() | TruncatedError():
            return max(_SHORTEST_PAUSE, _ceiling(attempt - 1) * draw())
        case _:
            return None


def _ceiling(doublings: int) -> float:
    """Return 1 second doubled that often, within bounds."""
    return min(_LONGEST_PAUSE, 2.0 ** min(doublings, 6))  # 2**6 is above the bound; 2**1024 is no float


class Gate:
    """Admit requests no faster than the quota allows, first come, first served.

    *per_second* and *per_hour* are requests as Mixpanel counts them, 0 where there is no limit.

    Raises:
        ValueError: A limit is negative.
    """

    def __init__(
        self,
        per_second: int = 3,
        per_hour: int = 60,
        *,
        clock: Callable[[], float] = anyio.current_time,
        sleep: Callable[[float], Awaitable[None]] = anyio.sleep,
    ) -> None:
        for name, limit in (("per_second", per_second), ("per_hour", per_hour)):
            if limit < 0:
                raise ValueError(f"{name} must be 0 (unlimited) or more, got {limit}")
        self.requests = 0
        self._clock = clock
        self._sleep = sleep
        self._second = Window(per_second, SECOND)
        self._hour = Window(per_hour, HOUR)
        self._sent: deque[float] = deque(maxlen=per_second)
        self._counted: deque[float] = deque(maxlen=per_hour)
        self._called: deque[float] = deque()
        self._paused_until = float("-inf")
        self._turn = anyio.Lock()
        self._call_turn = anyio.Lock()

    async def approach(self) -> None:
        """Wait until the next admission is about two seconds away and no pause holds.

        Called before connecting, so that no open connection idles for minutes. A place in the hour that comes
        free calls up one caller, not all of them.
        """
        async with self._call_turn:
            while (away := max(self._pause_left, self._hour_wait(self._expected()) - _LEAD)) > 0:
                await self._sleep(min(away, _GLANCE))
            self._called.append(self._clock())

    async def admit(self) -> float:
        """Wait until a request fits into every window and no pause holds, and record it.

        Returns its time, the ticket for `refund`. A caller that is cancelled while waiting takes no place.
        """
        async with self._turn:
            while (wait := self.wait) > 0:
                await self._sleep(min(wait, _GLANCE))
            return self._record(self._clock())

    def _record(self, now: float) -> float:
        self.requests += 1
        self._sent.append(now)
        self._counted.append(now)
        if self._called:
            self._called.popleft()
        return now

    def refund(self, ticket: float) -> None:
        """Give a request back to the hour: the server did not count it (401, 402 and 429).

        The second keeps it, as the request did arrive.
        """
        with suppress(ValueError):  # it has left the window already
            self._counted.remove(ticket)

    def pause(self, seconds: float) -> None:
        """Admit nobody before *seconds* from now; the longest pause wins."""
        self._paused_until = max(self._paused_until, self._clock() + seconds)

    @property
    def remaining(self) -> int | None:
        """How many requests the rolling hour still allows now; None if unlimited."""
        if not self._hour.quota:
            return None
        since = self._clock() - self._hour.seconds
        return self._hour.quota - sum(counted > since for counted in self._counted)

    @property
    def wait(self) -> float:
        """The seconds until the next admission would be possible."""
        second = wait_needed([self._second], self._sent, self._clock()) if self._second.quota else 0.0
        return max(self._pause_left, second, self._hour_wait(ahead=0))

    @property
    def _pause_left(self) -> float:
        return max(0.0, self._paused_until - self._clock())

    def _hour_wait(self, ahead: int) -> float:
        """Return the seconds until a request fits into the hour after *ahead* others."""
        if not self._hour.quota:
            return 0.0
        window = self._hour._replace(quota=max(1, self._hour.quota - ahead))
        return wait_needed([window], self._counted, self._clock())

    def _expected(self) -> int:
        """Return how many callers were called to connect and are yet to be admitted."""
        while self._called and self._called[0] <= self._clock() - _CALL_LASTS:
            self._called.popleft()
        return len(self._called)
