"""The gate: every request waits here until the quota allows it.

Mixpanel allows a project 3 export requests per second and 60 per rolling hour (openapi/export.openapi.yaml), and 60
queries per hour, 5 of them at a time (openapi/query.openapi.yaml). Each of these quotas has its own gate. The planner
limits the number of requests in a plan. The gate enforces the quota for all requests, including retries. A *slot* is
the time from which the quota allows the next request.

A cancelled caller never consumes quota, because there is no await between recording a request and returning to its
caller.
"""

import math
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager, nullcontext, suppress
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import anyio
from anyio import to_thread

from mixpanel_export._quota.limits import Quota
from mixpanel_export._quota.retry_policy import DEFAULT_PAUSES, Pauses, pause_after_refusal
from mixpanel_export._quota.shared import QuotaState, SharedQuota, key_of
from mixpanel_export._quota.statuses import UNCOUNTED
from mixpanel_export._quota.windows import HOUR, SECOND, Window, time_for, wait_needed
from mixpanel_export.errors import APIError, RateLimitError

_CONNECT_AHEAD = 2.0  # a caller may connect this many seconds before its slot
_LONGEST_SLEEP = 10.0  # seconds; then the gate checks again, because a refund may allow a request earlier
_MAX_IDLE = 30.0  # seconds that an open connection may wait for admission
_MIN_REPORTED_WAIT = 2.5  # seconds; shorter waits come from the per-second limit


class MaxWaitExceeded(Exception):  # noqa: N818 - callers translate it
    """The quota requires a wait of *seconds*, which is longer than `max_wait` allows."""

    def __init__(self, seconds: float) -> None:
        super().__init__(f"the quota allows the next request in {seconds:.0f} s")
        self.seconds = seconds


class SlotExpired(Exception):  # noqa: N818 - callers try again
    """Admission would take too long for an open connection. Close the connection, and request admission again."""


class Ticket(NamedTuple):
    """Identifies an admitted request, so that it can be refunded."""

    time: float
    """When the request was admitted, on the gate's clock."""
    shared: str | None = None
    """The request's ticket in the shared quota, if there is one."""
    counted: bool = True
    """Whether the request counts against the hourly limit."""


class Admission:
    """Permission to connect, yielded by `Gate.admission`. `ticket` is None until the request is admitted."""

    def __init__(self, admit: Callable[["Admission"], Awaitable[None]]) -> None:
        self._admit = admit
        self.ticket: Ticket | None = None

    async def admit(self) -> None:
        """Wait until the quota allows the request, then record it.

        Call it when the connection is open, immediately before the request is sent.

        Raises:
            SlotExpired: The wait would be too long for an open connection.
            MaxWaitExceeded: The wait would be longer than `max_wait` allows.
        """
        await self._admit(self)


@dataclass(frozen=True, slots=True)
class GateStatistics:
    """A gate's counters at one moment."""

    requests: int
    """Requests that this gate has admitted, including requests that Mixpanel rejected."""
    per_hour: int
    """The limit per hour; 0 if unlimited."""
    remaining: int | None
    """Requests that the quota still allows in this rolling hour, for all processes combined; None if unlimited."""
    next_slot_in: float
    """Seconds until the next request can be admitted."""
    waiting: bool
    """Whether a caller is waiting for admission."""
    max_wait_left: float
    """The seconds of `max_wait` that are left."""

    @property
    def reported_wait(self) -> int | None:
        """Whole seconds until the next request, for users; None if no caller is waiting or the wait is short."""
        if not self.waiting or self.next_slot_in <= _MIN_REPORTED_WAIT:
            return None
        return math.ceil(self.next_slot_in)


class Gate:
    """Admits requests in the order in which they arrive and no faster than the quota allows.

    If *shared* is given, requests from other processes also count. *clock* and *sleep* work in seconds.
    """

    def __init__(
        self,
        quota: Quota,
        *,
        shared: SharedQuota | None = None,
        pauses: Pauses = DEFAULT_PAUSES,
        clock: Callable[[], float] = anyio.current_time,
        sleep: Callable[[float], Awaitable[None]] = anyio.sleep,
    ) -> None:
        self._second = Window(quota.per_second, SECOND)
        self._hour = Window(quota.per_hour, HOUR)
        self._max_wait_left = quota.max_wait
        self._shared = shared
        self._pauses = pauses
        self._clock = clock
        self._sleep = sleep
        # Request times, oldest first: all requests in the last second, and the counted requests in the last hour.
        self._sent: deque[float] = deque(maxlen=quota.per_second)
        self._counted: deque[float] = deque(maxlen=quota.per_hour)
        self._requests = 0
        # Callers that may connect but have not been admitted yet, each with the time from which it could connect. Each
        # will use a slot.
        self._connecting: dict[Admission, float] = {}
        self._paused_until = -math.inf
        self._refusals = 0  # in a row; 429s for requests that were in flight together count once
        self._last_refusal = -math.inf
        # Waiting time before this moment has already been deducted from max_wait.
        self._waited_until = -math.inf
        self._in_progress = anyio.Semaphore(quota.concurrent) if quota.concurrent else nullcontext()
        self._connect_lock = anyio.Lock()
        self._admit_lock = anyio.Lock()
        # The number of callers that wait for the end of a pause, and whose requests are not counted.
        self._paused_callers = 0

    async def refresh(self) -> None:
        """Read other processes' requests and pauses."""
        if self._shared is not None:
            await self._update(self._shared.read)

    def statistics(self) -> GateStatistics:
        """Return the current counters."""
        return GateStatistics(
            requests=self._requests,
            per_hour=self._hour.quota,
            remaining=self._remaining(),
            next_slot_in=self._pause_left() if self._paused_callers else self._wait(),
            waiting=self._connect_lock.locked() or self._admit_lock.locked() or self._paused_callers > 0,
            max_wait_left=self._max_wait_left,
        )

    def time_for(self, requests: int) -> float:
        """Return the seconds until the hourly quota allows the last of *requests* more requests."""
        if not self._hour.quota:
            return 0.0
        return max(self._pause_left(), time_for(requests, [self._hour], self._counted, self._clock()))

    @asynccontextmanager
    async def admission(self, *, counted: bool = True) -> AsyncGenerator[Admission]:
        """Wait until the caller may connect. If the block raises an `APIError`, update the quota accordingly.

        The caller may connect about two seconds before its slot, and not earlier, because an open connection should not
        idle for minutes. Only one caller may connect for each slot. If the quota limits concurrent requests, the caller
        also waits until fewer than that many blocks are running.

        A block that ends before its request is admitted consumes no quota. After a `RateLimitError`, all requests
        pause for a while. A request that failed with a status in `UNCOUNTED` no longer counts against the hourly
        limit.

        *counted* is false for a request that Mixpanel does not count against its limits per second and per hour. This
        request waits only for the end of a pause and for the limit on concurrent requests.

        Raises:
            MaxWaitExceeded: The wait would be longer than `max_wait` allows.
        """
        admission = Admission(self._admit if counted else self._admit_uncounted)
        async with self._in_progress:
            await (self._wait_to_connect(admission) if counted else self._wait_for_pause())
            try:
                yield admission
            except APIError as error:
                if admission.ticket is not None:
                    await self._settle(admission.ticket, error)
                raise
            finally:
                self._connecting.pop(admission, None)
        # A success resets the count of 429s, unless another request got one while this one was in flight.
        if admission.ticket is not None and admission.ticket.time >= self._last_refusal:
            self._refusals = 0

    async def _admit(self, admission: Admission) -> None:
        async with self._admit_lock:
            while True:
                while (wait := self._wait()) > 0:
                    await self._sleep_connected(wait)
                if self._shared is None:
                    now = self._clock()
                    self._sent.append(now)
                    self._counted.append(now)
                    return self._record(admission, Ticket(now))
                state = await self._update(self._shared.take_slot)
                if state.ticket is not None:
                    return self._record(admission, Ticket(self._clock(), state.ticket))
                await self._sleep_connected(state.wait)

    async def _admit_uncounted(self, admission: Admission) -> None:
        while (wait := self._pause_left()) > 0:
            await self._sleep_connected(wait)
        self._record(admission, Ticket(self._clock(), counted=False))

    async def _wait_for_pause(self) -> None:
        await self.refresh()
        self._paused_callers += 1
        try:
            while (wait := self._pause_left()) > 0:
                await self._sleep_counted(wait)
                await self.refresh()
        finally:
            self._paused_callers -= 1

    async def pause(self, seconds: float) -> None:
        """Admit no request for the next *seconds*. If pauses overlap, the longest applies."""
        self._paused_until = max(self._paused_until, self._clock() + seconds)
        if self._shared is not None:
            await self._update(partial(self._shared.pause, seconds))

    async def _wait_to_connect(self, admission: Admission) -> None:
        async with self._connect_lock:
            await self.refresh()
            while (wait := self._wait_until_connect()) > 0:
                await self._sleep_counted(wait)
                await self.refresh()
            self._connecting[admission] = self._clock()

    def _wait_until_connect(self) -> float:
        """Return the seconds until the next caller may connect."""
        return max(self._pause_left(), self._hour_wait(self._expected_callers()) - _CONNECT_AHEAD)

    def _expected_callers(self) -> int:
        """Return how many callers are connecting and will soon use a slot."""
        oldest = self._clock() - _MAX_IDLE
        return sum(since > oldest for since in self._connecting.values())

    def _record(self, admission: Admission, ticket: Ticket) -> None:
        self._requests += 1
        self._connecting.pop(admission, None)
        admission.ticket = ticket

    async def _sleep_connected(self, seconds: float) -> None:
        """Sleep for up to *seconds* while the caller's connection is open."""
        if seconds > _MAX_IDLE:
            raise SlotExpired
        is_short = not (self._pause_left() or self._hour_wait())  # only the limit per second causes the wait
        await (self._sleep(seconds) if is_short else self._sleep_counted(seconds))

    async def _sleep_counted(self, seconds: float) -> None:
        """Sleep for up to *seconds* and deduct the time from `max_wait`.

        Time during which several callers sleep is deducted once.
        """
        if seconds > self._max_wait_left:
            raise MaxWaitExceeded(seconds)
        start = max(self._clock(), self._waited_until)
        await self._sleep(min(seconds, _LONGEST_SLEEP))
        now = self._clock()
        self._max_wait_left -= max(0.0, now - max(start, self._waited_until))
        self._waited_until = now

    async def _settle(self, ticket: Ticket, error: APIError) -> None:
        if isinstance(error, RateLimitError):
            # The pause comes before the refund, because the refund may admit other callers.
            await self.pause(self._refusal_pause(ticket, error.retry_after))
        if ticket.counted and (isinstance(error, RateLimitError) or error.status_code in UNCOUNTED):
            await self._refund(ticket)

    def _refusal_pause(self, ticket: Ticket, retry_after: float | None) -> float:
        """Return the seconds for which all requests pause after a 429.

        Requests that were in flight at the last 429 may also get a 429. These 429s do not double the pause again.
        """
        if ticket.time >= self._last_refusal:
            self._refusals += 1
        self._last_refusal = self._clock()
        return pause_after_refusal(retry_after, self._refusals, pauses=self._pauses)

    async def _refund(self, ticket: Ticket) -> None:
        """Stop counting a request against the hourly limit.

        The request still counts against the per-second limit, because it reached Mixpanel.
        """
        if self._shared is not None and ticket.shared is not None:
            await self._update(partial(self._shared.refund, ticket.shared))
        else:
            with suppress(ValueError):  # the request is older than an hour
                self._counted.remove(ticket.time)

    async def _update(self, call: Callable[[], QuotaState]) -> QuotaState:
        """Run *call* in a worker thread, and use its result as the new state of the quota of all processes."""
        with anyio.CancelScope(shield=True):  # a recorded request must not be lost
            state = await to_thread.run_sync(call)
        now = self._clock()
        self._sent = deque((now - age for age in state.sent), maxlen=self._second.quota)
        self._counted = deque((now - age for age in state.counted), maxlen=self._hour.quota)
        self._paused_until = max(self._paused_until, now + state.pause)
        return state

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
        """Return the seconds until the hourly limit allows one more request after *expected* others."""
        if not self._hour.quota:
            return 0.0
        window = self._hour._replace(quota=max(1, self._hour.quota - expected))
        return wait_needed([window], self._counted, self._clock())


def gate_for(
    quota: Quota, url: str, project_id: str, pauses: Pauses = DEFAULT_PAUSES, purpose: str = ""
) -> Gate:
    """Return the gate for the project's requests to *url*. All processes share the quota of this gate.

    *purpose* says what the requests are for, such as `export into events of app.duckdb`.
    """
    if not (quota.per_second or quota.per_hour):
        return Gate(quota, pauses=pauses)
    key = key_of(url, project_id, quota.api)
    shared = SharedQuota(key, quota.per_second, quota.per_hour, purpose=purpose)
    return Gate(quota, shared=shared, pauses=pauses)
