"""When may we ask: Mixpanel's quota as arithmetic, and the gate that waits by it.

Mixpanel allows a project 3 export requests a second and 60 a rolling hour (openapi/export.openapi.yaml), and
counts them as they *arrive*. What was sent evenly arrives unevenly, so each window is taken a little longer
here than it is there: three requests sent within a second must not become four received within one. The hour
is what decides how long a long backfill takes, and a plan that ignores it cannot be saved at the gate; the
gate only makes sure that no plan, and no retry, breaks the rules.

Waiting never holds a promise to a cancelled caller: a request is recorded in the same step, without an await
between, in which its caller is admitted.
"""

import math
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from functools import partial
from typing import NamedTuple, Protocol

import anyio
from anyio import to_thread

from mixpanel_export._quota.retry import pause_after_refusal

SECOND = 1.0 + 0.1
"""Mixpanel's second, in seconds; the margin is for requests that travel at different speeds."""

HOUR = 3600.0 + 5.0
"""Mixpanel's hour, in seconds; the margin is larger because being wrong costs up to an hour."""

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


def time_for(requests: int, windows: Sequence[Window], past: Sequence[float], now: float) -> float:
    """Return the seconds until the last of *requests* more fits into every window; *past* is oldest first."""
    times, at = list(past), now
    for _ in range(requests):
        at += wait_needed(windows, times, at)
        times.append(at)
    return at - now


class OutOfPatienceError(Exception):
    """The quota would hold the caller up for *seconds*, which is longer than it is willing to wait."""

    def __init__(self, seconds: float) -> None:
        super().__init__(f"the quota opens in {seconds:.0f} s")
        self.seconds = seconds


class CalledTooEarlyError(Exception):
    """The place that the caller connected for is gone; it should let its connection go and approach again."""


class SharedView(Protocol):
    """What all processes together have asked for, as of now: ages in seconds, oldest first."""

    @property
    def sent(self) -> Sequence[float]:
        """The ages of all requests of the last hour."""

    @property
    def counted(self) -> Sequence[float]:
        """The ages of those that count for the hour."""

    @property
    def pause(self) -> float:
        """The seconds for which nobody should ask."""

    @property
    def wait(self) -> float:
        """The seconds until the next request would be possible."""

    @property
    def ticket(self) -> str | None:
        """The place that was taken, if one was asked for and there was one."""


class Shared(Protocol):
    """A quota that several processes share. Its methods block."""

    def take(self) -> SharedView:
        """Take a place if there is one now."""

    def look(self) -> SharedView:
        """Take nothing."""

    def refund(self, ticket: str) -> SharedView:
        """Give a place back to the hour."""

    def pause(self, seconds: float) -> SharedView:
        """Let nobody ask for a while."""


class Ticket(NamedTuple):
    """An admission: its time on the gate's clock, and the place in the shared quota, if there is one."""

    time: float
    shared: str | None = None


class Gate:
    """Admit requests no faster than the quota allows, first come, first served.

    *per_second* and *per_hour* are requests as Mixpanel counts them, 0 where there is no limit. With *shared*
    the requests of other processes count too. All callers together wait at most *max_wait* seconds for the
    hour's quota, or because Mixpanel said so.

    Raises:
        ValueError: A limit is negative.
    """

    def __init__(
        self,
        per_second: int = 3,
        per_hour: int = 60,
        *,
        shared: Shared | None = None,
        max_wait: float = math.inf,
        clock: Callable[[], float] = anyio.current_time,
        sleep: Callable[[float], Awaitable[None]] = anyio.sleep,
    ) -> None:
        for name, limit in (("per_second", per_second), ("per_hour", per_hour)):
            if limit < 0:
                raise ValueError(f"{name} must be 0 (unlimited) or more, got {limit}")
        self.requests = 0
        self._clock = clock
        self._sleep = sleep
        self._shared = shared
        self._second = Window(per_second, SECOND)
        self._hour = Window(per_hour, HOUR)
        self._sent: deque[float] = deque(maxlen=per_second)
        self._counted: deque[float] = deque(maxlen=per_hour)
        self._called: deque[float] = deque()
        self._paused_until = float("-inf")
        self._refusals = 0
        self._refused_at = float("-inf")
        self._patience = max_wait
        self._waited_until = float("-inf")
        self._turn = anyio.Lock()
        self._call_turn = anyio.Lock()

    async def look(self) -> None:
        """Learn what other processes have asked for."""
        if self._shared is not None:
            await self._learn(self._shared.look)

    async def approach(self) -> float:
        """Wait until the next admission is about two seconds away and no pause holds; returns the time of the call.

        Called before connecting, so that no open connection idles for minutes. A place in the hour that comes
        free calls up one caller, not all of them.

        Raises:
            OutOfPatienceError: `max_wait` does not suffice.
        """
        async with self._call_turn:
            await self.look()
            while (away := max(self._pause_left, self._hour_wait(self._expected()) - _LEAD)) > 0:
                await self._hold(away)
                await self.look()
            self._called.append(called := self._clock())
            return called

    def withdraw(self, called: float) -> None:
        """Expect the caller that was called then no more, as its connection failed."""
        with suppress(ValueError):
            self._called.remove(called)

    async def admit(self) -> Ticket:
        """Wait until a request fits into every window and no pause holds, and record it.

        A caller that is cancelled while waiting takes no place.

        Raises:
            CalledTooEarlyError: It would take longer than a connection should idle.
            OutOfPatienceError: `max_wait` does not suffice.
        """
        async with self._turn:
            while True:
                while (wait := self.wait) > 0:
                    await self._idle(wait)
                if self._shared is None:
                    self._sent.append(now := self._clock())
                    self._counted.append(now)
                    return self._admitted(Ticket(now))
                view = await self._learn(self._shared.take)
                if view.ticket is not None:
                    return self._admitted(Ticket(self._clock(), view.ticket))
                await self._idle(view.wait)

    async def _idle(self, seconds: float) -> None:
        """Sleep a part of *seconds* with a connection open."""
        if seconds > _CALL_LASTS:
            raise CalledTooEarlyError
        keeps_pace = not (self._pause_left or self._hour_wait(ahead=0))
        await (self._sleep(seconds) if keeps_pace else self._hold(seconds))

    async def _hold(self, seconds: float) -> None:
        """Sleep a part of *seconds*, and count it against the patience, however many callers wait."""
        if seconds > self._patience:
            raise OutOfPatienceError(seconds)
        began = max(self._clock(), self._waited_until)
        await self._sleep(min(seconds, _GLANCE))
        now = self._clock()
        self._patience -= max(0.0, now - max(began, self._waited_until))
        self._waited_until = now

    def _admitted(self, ticket: Ticket) -> Ticket:
        self.requests += 1
        if self._called:
            self._called.popleft()
        return ticket

    async def _learn(self, ask: Callable[[], SharedView]) -> SharedView:
        """Call *ask* in a worker thread and take over what it says of other processes' requests."""
        with anyio.CancelScope(shield=True):  # a place that is taken must not be forgotten
            view = await to_thread.run_sync(ask)
        now = self._clock()
        self._sent = deque((now - age for age in view.sent), maxlen=self._second.quota)
        self._counted = deque((now - age for age in view.counted), maxlen=self._hour.quota)
        self._paused_until = max(self._paused_until, now + view.pause)
        return view

    async def refund(self, ticket: Ticket) -> None:
        """Give a request back to the hour: the server did not count it (401, 402 and 429).

        The second keeps it, as the request did arrive.
        """
        if self._shared is not None and ticket.shared is not None:
            await self._learn(partial(self._shared.refund, ticket.shared))
            return
        with suppress(ValueError):  # it has left the window already
            self._counted.remove(ticket.time)

    async def refused(self, ticket: Ticket, retry_after: float | None) -> float:
        """Let nobody ask for a while after a 429, and return for how long, in seconds.

        Requests that were on their way when one was refused tell nothing new, so refusals of requests admitted
        before the last refusal do not double the pause.
        """
        if ticket.time >= self._refused_at:
            self._refusals += 1
        self._refused_at = self._clock()
        pause = pause_after_refusal(retry_after, self._refusals)
        await self.pause(pause)  # before anything that takes time, in which others might be admitted
        await self.refund(ticket)
        return pause

    def accepted(self, ticket: Ticket) -> None:
        """A request was answered, so the next refusal is the first again, unless one came while it was on its way."""
        if ticket.time >= self._refused_at:
            self._refusals = 0

    async def pause(self, seconds: float) -> None:
        """Admit nobody before *seconds* from now; the longest pause wins."""
        self._paused_until = max(self._paused_until, self._clock() + seconds)
        if self._shared is not None:
            await self._learn(partial(self._shared.pause, seconds))

    @property
    def wanted(self) -> bool:
        """Whether anybody waits to be admitted."""
        return self._call_turn.locked() or self._turn.locked()

    @property
    def patience(self) -> float:
        """How many seconds of `max_wait` are left."""
        return self._patience

    @property
    def quota(self) -> int:
        """How many requests an hour allows; 0 if unlimited."""
        return self._hour.quota

    @property
    def remaining(self) -> int | None:
        """How many requests the rolling hour still allows now; None if unlimited."""
        if not self._hour.quota:
            return None
        since = self._clock() - self._hour.seconds
        return self._hour.quota - sum(counted > since for counted in self._counted)

    def time_for(self, requests: int) -> float:
        """Return the seconds that the hour's quota needs to admit so many more *requests*."""
        if not self._hour.quota:
            return 0.0
        return max(self._pause_left, time_for(requests, [self._hour], self._counted, self._clock()))

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
