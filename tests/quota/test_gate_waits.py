"""When a request may be sent, and how long it waits: for the hour, after refusals, and for other processes."""

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import anyio
import anyio.lowlevel
import pytest
from gates import UNCOUNTED, Clock, admitted, answered, failed, full_hour, gate_on

from mixpanel_export._quota.clock import Moment
from mixpanel_export._quota.gate import Gate, MaxWaitExceeded, SlotExpired
from mixpanel_export._quota.shared import Key, SharedQuota
from mixpanel_export._quota.windows import HOUR, SECOND
from mixpanel_export.errors import RateLimitError

pytestmark = pytest.mark.anyio

KEY = Key("data.mixpanel.com", "12345")


# When a caller connects


async def test_a_caller_connects_two_seconds_ahead() -> None:
    """If the hour is full, a caller may connect two seconds before its slot."""
    clock = Clock(0.0)
    gate = await full_hour(clock, [0.0, 100.0])
    async with gate.admission() as admission:
        assert clock.now == pytest.approx(HOUR - 2)
        await admission.admit()
        assert clock.now == pytest.approx(HOUR)


async def test_no_caller_connects_during_a_pause() -> None:
    """A pause delays callers to its end, because the server's state is unknown then."""
    clock = Clock()
    gate = gate_on(clock)
    await gate.pause(25.0)
    async with gate.admission():
        assert clock.now == 1025.0
    assert clock.slept == [10.0, 10.0, 5.0]


async def test_the_longest_pause_wins() -> None:
    """A shorter pause does not end a longer one, also for a caller that is already waiting."""
    clock = Clock()
    gate = gate_on(clock)
    await gate.pause(10.0)
    await gate.pause(3.0)
    assert gate.statistics().next_slot_in == 10.0
    clock.stop()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(answered, gate)
        await anyio.wait_all_tasks_blocked()
        await gate.pause(30.0)
        clock.running.set()
    assert (clock.now, gate.statistics().requests) == (1030.0, 1)


async def test_one_free_slot_lets_one_caller_connect() -> None:
    """A second caller connects when the second slot is near, whether or not the first has been admitted."""
    clock = Clock(0.0)
    gate = await full_hour(clock, [0.0, 10.0, 20.0])
    async with gate.admission() as first:
        assert clock.now == pytest.approx(HOUR - 2)
        async with gate.admission() as second:
            assert clock.now == pytest.approx(HOUR + 10 - 2)
            await first.admit()
            async with gate.admission() as third:
                assert clock.now == pytest.approx(HOUR + 20 - 2)
                await second.admit()
                await third.admit()
    assert clock.now == pytest.approx(HOUR + 20)


async def test_more_callers_than_the_hour_holds_still_connect() -> None:
    """With a quota of one, each caller connects when the last request leaves the hour."""
    clock = Clock(0.0)
    gate = await full_hour(clock, [0.0])
    async with gate.admission(), gate.admission():
        assert clock.now == pytest.approx(HOUR - 2)


async def test_a_slow_connection_reserves_its_slot_for_half_a_minute() -> None:
    """A caller that connects and is not admitted delays later ones for 30 s, not forever."""
    clock = Clock(0.0)
    gate = await full_hour(clock, [0.0, 600.0])
    async with gate.admission(), gate.admission():
        assert clock.now == pytest.approx(HOUR - 2 + 30)


async def test_a_cancelled_caller_reserves_no_slot() -> None:
    """A caller that is cancelled while it waits to connect, or is connected, has no effect."""
    clock = Clock(0.0)
    gate = await full_hour(clock, [0.0, 600.0])
    clock.stop()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(answered, gate)
        await anyio.wait_all_tasks_blocked()
        tasks.cancel_scope.cancel()
    clock.running.set()
    with anyio.CancelScope() as scope:
        async with gate.admission():
            scope.cancel()
            await anyio.lowlevel.checkpoint()
    async with gate.admission():
        assert clock.now == pytest.approx(HOUR - 2)


@pytest.mark.parametrize("wait, idles", [(29.0, True), (31.0, False)])
async def test_no_connection_idles_for_long(wait: float, idles: bool) -> None:
    """A caller whose slot is lost, because of a pause or faster callers, has to start again."""
    clock = Clock()
    gate = gate_on(clock)
    async with gate.admission() as admission:
        await gate.pause(wait)
        if idles:
            await admission.admit()
            assert clock.now == 1000.0 + wait
        else:
            with pytest.raises(SlotExpired):
                await admission.admit()
            assert (gate.statistics().requests, gate.statistics().remaining) == (0, 60)


async def test_a_gate_is_waiting_while_a_caller_is() -> None:
    """A full hour delays nobody before a caller arrives, or after the last one was admitted."""
    clock = Clock(0.0)
    gate = await full_hour(clock, [0.0, 100.0])
    clock.stop()
    waiting = [gate.statistics().waiting]
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(answered, gate)
        await anyio.wait_all_tasks_blocked()
        waiting.append(gate.statistics().waiting)
        clock.running.set()
    assert [*waiting, gate.statistics().waiting] == [False, True, False]


# How long callers wait


async def test_max_wait_bounds_all_waits_together() -> None:
    """All waits together last at most `max_wait`, however many callers wait at once; the per-second limit does not count."""
    clock = Clock()
    gate = gate_on(clock, max_wait=100.0)
    await gate.pause(60.0)
    async with anyio.create_task_group() as tasks:
        for _ in range(10):
            tasks.start_soon(answered, gate)
    assert gate.statistics().requests == 10
    assert gate.statistics().max_wait_left == pytest.approx(40.0)
    assert clock.now == pytest.approx(1060.0 + 3 * SECOND)
    await gate.pause(41.0)
    with pytest.raises(MaxWaitExceeded) as raised:
        await answered(gate)
    assert raised.value.seconds == 41.0
    clock.now += 5.0
    assert await answered(gate) == pytest.approx(1060.0 + 3 * SECOND + 41.0)


async def test_without_any_wait_the_pace_still_holds() -> None:
    """A `max_wait` of 0 fails at a full hour, but not at a full second."""
    clock = Clock()
    gate = gate_on(clock, 1, 2, max_wait=0.0)
    await answered(gate)
    await answered(gate)
    assert clock.now == pytest.approx(1000.0 + SECOND)
    with pytest.raises(MaxWaitExceeded):
        await answered(gate)


# Refusals


async def refused_together(gate: Gate, clock: Clock, requests: int) -> None:
    """Send *requests* and let Mixpanel refuse all of them a second later."""
    async with anyio.create_task_group() as tasks:
        sent = [anyio.Event() for _ in range(requests)]
        answers = anyio.Event()

        async def refused(number: int) -> None:
            with suppress(RateLimitError):
                async with admitted(gate):
                    sent[number].set()
                    await answers.wait()
                    raise RateLimitError("refused")

        for number in range(requests):
            tasks.start_soon(refused, number)
        for each in sent:
            await each.wait()
        clock.now += 1.0
        answers.set()


async def test_refusals_of_one_wave_count_once() -> None:
    """Refusals of concurrent requests cause one pause; a later refusal doubles it; a success resets it."""
    clock = Clock()
    gate = gate_on(clock, 0, 0)
    await refused_together(gate, clock, 5)
    assert 60.0 <= gate.statistics().next_slot_in <= 66.0
    await refused_together(gate, clock, 1)
    assert 120.0 <= gate.statistics().next_slot_in <= 132.0
    await answered(gate)
    await refused_together(gate, clock, 1)
    assert 60.0 <= gate.statistics().next_slot_in <= 66.0


async def test_mixpanel_decides_when_to_return() -> None:
    """The pause is `Retry-After`, slightly extended."""
    gate = gate_on(Clock())
    await failed(gate, RateLimitError("refused", retry_after=7.0))
    assert 7.0 <= gate.statistics().next_slot_in <= 8.0


# Other processes


@pytest.fixture
def process(tmp_path: Path) -> Callable[[Clock], SharedQuota]:
    """Return a function that opens the quota file as one more process would."""

    def open_(clock: Clock) -> SharedQuota:
        return SharedQuota(
            KEY, 3, 60, path=tmp_path / "quota.sqlite3", clock=lambda: Moment("boot", clock.now, clock.now)
        )

    return open_


Process = Callable[[Clock], SharedQuota]


async def test_requests_of_other_processes_count(process: Process) -> None:
    """Other processes' requests are known after a refresh, and a refund applies to all."""
    clock = Clock()
    other, gate = process(clock), gate_on(clock, shared=process(clock))
    for _ in range(57):
        assert other.take_slot().ticket
        clock.now += SECOND
    assert gate.statistics().remaining == 60
    await gate.refresh()
    assert (gate.statistics().remaining, gate.statistics().requests) == (3, 0)
    assert gate.time_for(4) == pytest.approx(HOUR - 57 * SECOND)
    await answered(gate)
    assert other.read().remaining == 2
    await failed(gate, UNCOUNTED)
    assert other.read().remaining == gate.statistics().remaining == 2


async def test_the_second_of_other_processes_counts(process: Process) -> None:
    """After a refresh, the next slot is a second after the oldest of three requests, whichever process sent them."""
    clock = Clock()
    other, gate = process(clock), gate_on(clock, shared=process(clock))
    for _ in range(3):
        assert other.take_slot().ticket
    clock.now += 0.4
    await gate.refresh()
    assert gate.statistics().next_slot_in == pytest.approx(SECOND - 0.4)


async def test_pauses_of_other_processes_hold(process: Process) -> None:
    """A refusal pauses every process, whichever was refused."""
    clock = Clock()
    other, gate = process(clock), gate_on(clock, shared=process(clock))
    other.pause(20.0)
    await gate.refresh()
    assert gate.statistics().next_slot_in == pytest.approx(20.0)
    await gate.pause(25.0)
    assert other.read().pause == pytest.approx(25.0)


async def test_a_slot_that_another_process_took_is_waited_for(process: Process) -> None:
    """If another process was faster, the gate tries again after the wait that the file requires."""
    clock = Clock()
    other, gate = process(clock), gate_on(clock, shared=process(clock))
    async with gate.admission() as admission:
        for _ in range(3):
            assert other.take_slot().ticket
        await admission.admit()
        assert clock.now >= 1000.0 + SECOND
