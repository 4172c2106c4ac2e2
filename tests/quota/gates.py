"""A gate on a clock that only sleeping advances, and requests that pass it."""

from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager, suppress

import anyio
import anyio.lowlevel
import pytest

from mixpanel_export._quota.gate import Gate, SlotExpired, Ticket
from mixpanel_export._quota.limits import Quota
from mixpanel_export._quota.shared import SharedQuota
from mixpanel_export.errors import APIError, QueryError

UNCOUNTED = QueryError("not counted", status_code=402)


class Clock:
    """Time that passes only in `sleep`, and only while `running` is set."""

    def __init__(self, now: float = 1000.0) -> None:
        self.now = now
        self.slept: list[float] = []
        self.running = anyio.Event()
        self.running.set()

    def __call__(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        """Let *seconds* pass."""
        self.slept.append(seconds)
        until = self.now + seconds
        await anyio.lowlevel.checkpoint()
        await self.running.wait()
        self.now = max(self.now, until)

    def stop(self) -> None:
        """Let no sleep end until `running` is set again."""
        self.running = anyio.Event()


def gate_on(
    clock: Clock,
    per_second: int = 3,
    per_hour: int = 60,
    max_wait: float = float("inf"),
    shared: SharedQuota | None = None,
) -> Gate:
    """Return a gate that uses *clock*."""
    return Gate(Quota(per_second, per_hour, max_wait), shared=shared, clock=clock, sleep=clock.sleep)


@asynccontextmanager
async def admitted(gate: Gate) -> AsyncIterator[Ticket]:
    """Connect and be admitted in one attempt; the block is the request."""
    async with gate.admission() as admission:
        await admission.admit()
        assert admission.ticket is not None
        yield admission.ticket


async def answered(gate: Gate) -> float:
    """Make a request that succeeds, with as many attempts as it takes, and return when it was sent."""
    while True:
        with suppress(SlotExpired):
            async with admitted(gate) as ticket:
                return ticket.time


async def failed(gate: Gate, error: APIError) -> None:
    """Make a request that fails with *error*."""
    with pytest.raises(type(error)):
        async with admitted(gate):
            raise error


def left(gate: Gate) -> tuple[int | None, float]:
    """Return what remains of the hour, and the seconds until the next slot."""
    statistics = gate.statistics()
    return statistics.remaining, statistics.next_slot_in


async def full_hour(clock: Clock, ages: Iterable[float]) -> Gate:
    """Return a gate whose hour is full of requests sent at *ages* seconds, the last of which is now."""
    times = list(ages)
    gate = gate_on(clock, 0, len(times))
    for time in times:
        clock.now = time
        await answered(gate)
    clock.slept.clear()
    return gate
