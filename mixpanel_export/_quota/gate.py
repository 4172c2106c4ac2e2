"""The gate: admits requests no faster than the quota allows, and never more than it allows.

Mixpanel allows a project 3 export requests a second and 60 a rolling hour (openapi/export.openapi.yaml). The hour
decides how long a long backfill takes, so the plan knows the quota too; the gate makes sure that no plan and no retry
exceeds it.

A cancelled caller never consumes quota: a request is recorded in the same step, without an await in between, in which
its caller is admitted.
"""

import math
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import anyio
from anyio import to_thread

from mixpanel_export._quota.quota import Quota
from mixpanel_export._quota.retry import pause_after_refusal
from mixpanel_export._quota.shared import SharedQuota, View, key_of
from mixpanel_export._quota.windows import HOUR, SECOND, Window, time_for, wait_needed
from mixpanel_export.errors import APIError, RateLimitError

_LEAD = 2.0  # seconds before its slot in which a caller may connect
_LONGEST_SLEEP = 10.0  # seconds; a refund may free a slot earlier than expected
_SLOT_EXPIRES = 30.0  # seconds in which a caller that may connect must be admitted
_UNCOUNTED = frozenset({401, 402, 429})  # statuses that Mixpanel does not count against the hour


class MaxWaitExceeded(Exception):  # noqa: N818 - callers end or report an export by it; it is no fault
    """The quota would delay the caller by *seconds*, longer than `max_wait` allows."""

    def __init__(self, seconds: float) -> None:
        super().__init__(f"the quota allows the next request in {seconds:.0f} s")
        self.seconds = seconds


class SlotExpired(Exception):  # noqa: N818 - callers start over; it is no fault
    """The slot that the caller connected for is gone; close the connection and request admission again."""


class Ticket(NamedTuple):
    """A recorded request: its *time* on the gate's clock, and its id in the *shared* quota, if there is one."""

    time: float
    shared: str | None = None


class Admission:
    """A caller that may connect, from `Gate.admission`; `ticket` is None until it is admitted."""

    def __init__(self, admit: Callable[["Admission"], Awaitable[None]]) -> None:
        self._admit = admit
        self.ticket: Ticket | None = None

    async def admit(self) -> None:
        """Wait until a request fits into every window and no pause holds, and record the request.

        Call it when the connection is open, immediately before the request is sent.

        Raises:
            SlotExpired: It would take longer than a connection should idle.
            MaxWaitExceeded: `max_wait` does not suffice.
        """
        await self._admit(self)


@dataclass(frozen=True, slots=True)
class GateStatistics:
    """What a gate has counted, at one moment."""

    requests: int
    """Requests admitted by this gate, including those that Mixpanel refused."""
    per_hour: int
    """Requests that an hour allows; 0 if unlimited."""
    remaining: int | None
    """Requests that the rolling hour still allows, all known processes counted; None if unlimited."""
    next_slot_in: float
    """Seconds until the next request can be admitted."""
    waiting: bool
    """Whether a caller is waiting for admission."""
    max_wait_left: float
    """Seconds of `max_wait` that are left."""


class Gate:
    """Admits requests no faster than the quota allows, first come, first served.

    With *shared*, the requests of other processes count too. *clock* and *sleep* are in seconds.
    """

    def __init__(
        self,
        quota: Quota,
        *,
        shared: SharedQuota | None = None,
        clock: Callable[[], float] = anyio.current_time,
        sleep: Callable[[float], Awaitable[None]] = anyio.sleep,
    ) -> None:
        self._second = Window(quota.per_second, SECOND)
        self._hour = Window(quota.per_hour, HOUR)
        self._max_wait_left = quota.max_wait
        self._shared = shared
        self._clock = clock
        self._sleep = sleep
        # Times of requests, oldest first: all of the last second, and those that count for the last hour.
        self._sent: deque[float] = deque(maxlen=quota.per_second)
        self._counted: deque[float] = deque(maxlen=quota.per_hour)
        self._requests = 0
        # When each caller that may connect was told so. It will take a slot, so the next caller must not count on it.
        self._connecting: dict[Admission, float] = {}
        self._paused_until = -math.inf
        self._refusals = 0  # waves of refusals in a row
        self._last_refusal = -math.inf
        self._waited_until = -math.inf  # waits until then are counted against max_wait
        self._connect_turn = anyio.Lock()
        self._admit_turn = anyio.Lock()

    async def refresh(self) -> None:
        """Learn the requests and pauses of other processes."""
        if self._shared is not None:
            await self._update(self._shared.look)

    def statistics(self) -> GateStatistics:
        """Return what the gate has counted so far."""
        return GateStatistics(
            requests=self._requests,
            per_hour=self._hour.quota,
            remaining=self._remaining(),
            next_slot_in=self._wait(),
            waiting=self._connect_turn.locked() or self._admit_turn.locked(),
            max_wait_left=self._max_wait_left,
        )

    def time_for(self, requests: int) -> float:
        """Return the seconds until the hour's quota has admitted so many more *requests*."""
        if not self._hour.quota:
            return 0.0
        return max(self._pause_left(), time_for(requests, [self._hour], self._counted, self._clock()))

    @asynccontextmanager
    async def admission(self) -> AsyncGenerator[Admission]:
        """Wait until connecting makes sense, and settle the request by how the block ends.

        Entering waits until the next slot is about two seconds away and no pause holds, so that no open connection
        idles for minutes. A slot that comes free lets one caller connect, not all of them. On leaving, a caller that
        was not admitted has consumed nothing. After a `RateLimitError` nobody is admitted for a while, and the
        request is returned to the hour; so is one that failed with a status which Mixpanel does not count (401, 402).

        Raises:
            MaxWaitExceeded: `max_wait` does not suffice.
        """
        admission = Admission(self._admit)
        await self._wait_to_connect(admission)
        try:
            yield admission
        except APIError as error:
            if admission.ticket is not None:
                await self._settle(admission.ticket, error)
            raise
        finally:
            self._connecting.pop(admission, None)
        # An answer ends a row of refusals, unless one came while this request was under way.
        if admission.ticket is not None and admission.ticket.time >= self._last_refusal:
            self._refusals = 0

    async def _admit(self, admission: Admission) -> None:
        async with self._admit_turn:
            while True:
                while (wait := self._wait()) > 0:
                    await self._idle(wait)
                if self._shared is None:
                    now = self._clock()
                    self._sent.append(now)
                    self._counted.append(now)
                    return self._record(admission, Ticket(now))
                view = await self._update(self._shared.take)
                if view.ticket is not None:
                    return self._record(admission, Ticket(self._clock(), view.ticket))
                await self._idle(view.wait)

    async def pause(self, seconds: float) -> None:
        """Admit nobody before *seconds* from now; the longest pause wins."""
        self._paused_until = max(self._paused_until, self._clock() + seconds)
        if self._shared is not None:
            await self._update(partial(self._shared.pause, seconds))

    async def _wait_to_connect(self, admission: Admission) -> None:
        async with self._connect_turn:
            await self.refresh()
            while (wait := max(self._pause_left(), self._hour_wait(self._expected()) - _LEAD)) > 0:
                await self._hold(wait)
                await self.refresh()
            self._connecting[admission] = self._clock()

    def _expected(self) -> int:
        """Return how many callers may connect and are expected to take a slot."""
        oldest = self._clock() - _SLOT_EXPIRES
        return sum(since > oldest for since in self._connecting.values())

    def _record(self, admission: Admission, ticket: Ticket) -> None:
        self._requests += 1
        self._connecting.pop(admission, None)
        admission.ticket = ticket

    async def _idle(self, seconds: float) -> None:
        """Sleep a part of *seconds* with a connection open."""
        if seconds > _SLOT_EXPIRES:
            raise SlotExpired
        only_the_second = not (self._pause_left() or self._hour_wait())
        await (self._sleep(seconds) if only_the_second else self._hold(seconds))

    async def _hold(self, seconds: float) -> None:
        """Sleep a part of *seconds*, and count it against `max_wait` once, however many callers wait."""
        if seconds > self._max_wait_left:
            raise MaxWaitExceeded(seconds)
        began = max(self._clock(), self._waited_until)
        await self._sleep(min(seconds, _LONGEST_SLEEP))
        now = self._clock()
        self._max_wait_left -= max(0.0, now - max(began, self._waited_until))
        self._waited_until = now

    async def _settle(self, ticket: Ticket, error: APIError) -> None:
        if isinstance(error, RateLimitError):
            # First, because others might be admitted while the request is returned.
            await self.pause(self._refusal_pause(ticket, error.retry_after))
        if isinstance(error, RateLimitError) or error.status_code in _UNCOUNTED:
            await self._refund(ticket)

    def _refusal_pause(self, ticket: Ticket, retry_after: float | None) -> float:
        """Return the seconds of the pause after a refusal.

        Refusals of requests that were under way at the last refusal tell nothing new, so they do not double it.
        """
        if ticket.time >= self._last_refusal:
            self._refusals += 1
        self._last_refusal = self._clock()
        return pause_after_refusal(retry_after, self._refusals)

    async def _refund(self, ticket: Ticket) -> None:
        """Return a request to the hour. It stays in the second, because it did arrive."""
        if self._shared is not None and ticket.shared is not None:
            await self._update(partial(self._shared.refund, ticket.shared))
        else:
            with suppress(ValueError):  # it has left the window
                self._counted.remove(ticket.time)

    async def _update(self, call: Callable[[], View]) -> View:
        """Run *call* in a worker thread, and adopt what it returns about all processes."""
        with anyio.CancelScope(shield=True):  # a ticket that is taken must not be lost
            view = await to_thread.run_sync(call)
        now = self._clock()
        self._sent = deque((now - age for age in view.sent), maxlen=self._second.quota)
        self._counted = deque((now - age for age in view.counted), maxlen=self._hour.quota)
        self._paused_until = max(self._paused_until, now + view.pause)
        return view

    def _remaining(self) -> int | None:
        if not self._hour.quota:
            return None
        since = self._clock() - self._hour.seconds
        return self._hour.quota - sum(counted > since for counted in self._counted)

    def _wait(self) -> float:
        """Return the seconds until the next request can be admitted."""
        second = wait_needed([self._second], self._sent, self._clock())
        return max(self._pause_left(), second, self._hour_wait())

    def _pause_left(self) -> float:
        return max(0.0, self._paused_until - self._clock())

    def _hour_wait(self, expected: int = 0) -> float:
        """Return the seconds until a request fits into the hour after *expected* others."""
        if not self._hour.quota:
            return 0.0
        window = self._hour._replace(quota=max(1, self._hour.quota - expected))
        return wait_needed([window], self._counted, self._clock())


def gate_for(quota: Quota, url: str, project_id: str) -> Gate:
    """Return the gate for a project under the *url* of its export endpoint, shared with all other processes."""
    if not (quota.per_second or quota.per_hour):
        return Gate(quota)
    return Gate(quota, shared=SharedQuota(key_of(url, project_id), quota.per_second, quota.per_hour))
