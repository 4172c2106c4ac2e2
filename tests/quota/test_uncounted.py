"""Requests that Mixpanel does not count: the pages of a session."""

import anyio
import anyio.lowlevel
import pytest
from gates import Clock, answered, gate_on

from mixpanel_export._quota.gate import Gate, MaxWaitExceeded, SlotExpired
from mixpanel_export._quota.limits import Quota
from mixpanel_export.errors import RateLimitError

pytestmark = pytest.mark.anyio


async def uncounted(gate: Gate, error: RateLimitError | None = None) -> None:
    """Send a request that is not counted."""
    async with gate.admission(counted=False) as admission:
        await admission.admit()
        if error is not None:
            raise error


async def test_uncounted_requests_need_no_quota() -> None:
    """They are admitted at once when the hour is used up, and leave the quota as it is, also after a 429."""
    clock = Clock()
    gate = gate_on(clock, per_second=0, per_hour=5)
    for _ in range(5):
        await answered(gate)
    before, statistics = clock(), gate.statistics()
    for _ in range(100):
        await uncounted(gate)
    assert clock() == before
    assert (gate.statistics().remaining, gate.statistics().requests) == (0, statistics.requests + 100)
    with pytest.raises(RateLimitError):
        await uncounted(gate, RateLimitError("too many", retry_after=5.0))
    assert gate.statistics().remaining == 0


async def test_uncounted_requests_wait_for_the_end_of_a_pause() -> None:
    """The wait is reported, and counts against the maximum."""
    clock = Clock()
    gate = gate_on(clock, max_wait=100.0)
    await gate.pause(60.0)
    before = clock()
    clock.stop()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(uncounted, gate)
        await anyio.wait_all_tasks_blocked()
        assert gate.statistics().reported_wait == 60
        clock.running.set()
    assert clock() == before + 60.0
    assert gate.statistics().reported_wait is None
    assert gate.statistics().max_wait_left == 40.0
    await gate.pause(60.0)
    with pytest.raises(MaxWaitExceeded):
        await uncounted(gate)


async def test_a_pause_may_begin_while_a_connection_opens() -> None:
    """A short one is waited for; for a long one, the connection is closed."""
    clock = Clock()
    gate = gate_on(clock)
    async with gate.admission(counted=False) as admission:
        await gate.pause(20.0)
        before = clock()
        await admission.admit()
        assert clock() == before + 20.0
    async with gate.admission(counted=False) as admission:
        await gate.pause(600.0)
        with pytest.raises(SlotExpired):
            await admission.admit()


async def test_all_requests_share_the_places() -> None:
    """At most as many are in progress at a time as the quota allows, counted or not."""
    gate = Gate(Quota(0, 0, concurrent=2))
    running, most = 0, 0

    async def request(counted: bool) -> None:
        nonlocal running, most
        async with gate.admission(counted=counted) as admission:
            await admission.admit()
            running += 1
            most = max(most, running)
            await anyio.lowlevel.checkpoint()
            running -= 1

    async with anyio.create_task_group() as tasks:
        for number in range(8):
            tasks.start_soon(request, number % 2 == 0)
    assert most == 2
