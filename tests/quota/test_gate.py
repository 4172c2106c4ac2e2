"""No plan and no retry breaks Mixpanel's quota, and nobody waits longer than the quota demands."""

from collections.abc import Iterator, Sequence
from contextlib import suppress

import anyio
import anyio.lowlevel
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mixpanel_export._quota.gate import (
    HOUR,
    SECOND,
    CalledTooEarlyError,
    Gate,
    OutOfPatienceError,
    Ticket,
    Window,
    time_for,
    wait_needed,
)
from mixpanel_export._quota.shared import Request, View

in_both_loops = pytest.mark.anyio


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
        """Let nobody wake up until `running` is set again."""
        self.running = anyio.Event()


def gate_on(clock: Clock, per_second: int = 3, per_hour: int = 60) -> Gate:
    """Return a gate that lives on *clock*."""
    return Gate(per_second, per_hour, clock=clock, sleep=clock.sleep)


async def admitted(gate: Gate) -> Ticket:
    """Approach and ask, as often as it takes."""
    while True:
        await gate.approach()
        with suppress(CalledTooEarlyError):
            return await gate.admit()


def fits(window: Window, times: list[int], at: int) -> bool:
    """Whether a request *at* finds a place in *window*, counted one by one."""
    return sum(at - window.seconds < time <= at for time in times) < window.quota


windows = st.lists(st.builds(Window, st.integers(1, 4), st.integers(1, 30)), max_size=3)


@given(windows=windows, past=st.lists(st.integers(0, 60), max_size=12).map(sorted), since=st.integers(0, 40))
def test_the_wait_needed_is_the_shortest_that_fits(
    windows: list[Window], past: list[int], since: int
) -> None:
    """After the wait the request fits into every window, and a moment earlier it does not."""
    now = (past[-1] if past else 0) + since
    wait = int(wait_needed(windows, past, now))
    assert all(fits(window, past, now + wait) for window in windows)
    assert not wait or not all(fits(window, past, now + wait - 1) for window in windows)


def test_the_longest_window_decides() -> None:
    """Of several windows the one that is full for longest is waited for."""
    assert wait_needed([Window(1, 1.0), Window(2, 10.0)], [2.0, 5.0], 5.5) == 6.5
    assert wait_needed([Window(1, 1.0), Window(3, 10.0)], [2.0, 5.0], 5.5) == 0.5
    assert wait_needed([], [5.0], 5.0) == 0.0


@pytest.mark.parametrize("limits, name", [((-1, 60), "per_second"), ((3, -1), "per_hour")])
def test_negative_limits_are_refused(limits: tuple[int, int], name: str) -> None:
    """A limit below zero is a mistake, told before anything is asked."""
    with pytest.raises(ValueError, match=rf"^{name} must be 0 \(unlimited\) or more, got -1$"):
        Gate(*limits)


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_a_gate_made_outside_a_loop_works_inside_one(backend: str) -> None:
    """A gate needs no event loop to be made, and by default lives on the loop's own clock."""
    gate = Gate()

    async def two_requests() -> None:
        await gate.approach()
        await gate.admit()
        before = anyio.current_time()
        assert (await gate.admit()).time >= before
        assert (gate.remaining, gate.requests) == (58, 2)

    anyio.run(two_requests, backend=backend)


@in_both_loops
async def test_two_hours_of_quota() -> None:
    """Of 180 requests 60 go at 3 a second, the next 60 an hour later, and the rest an hour after that."""
    clock = Clock(0.0)
    gate = gate_on(clock)
    times = [(await admitted(gate)).time for _ in range(180)]
    ramp = [i // 3 * SECOND for i in range(60)]
    assert times == pytest.approx([hour * HOUR + second for hour in range(3) for second in ramp])
    assert gate.requests == 180
    assert max(clock.slept) == 10.0


@in_both_loops
async def test_by_default_the_quota_is_mixpanels() -> None:
    """A gate that is told nothing admits three requests a second and sixty an hour."""
    clock = Clock()
    gate = Gate(clock=clock, sleep=clock.sleep)
    for _ in range(3):
        assert await gate.admit() == Ticket(1000.0)
    assert gate.wait == pytest.approx(SECOND)
    assert gate.remaining == 57


def test_the_windows_are_longer_than_mixpanels_but_not_much() -> None:
    """The margins are what keeps arrivals within the quota, and cost less than a tenth of the speed."""
    assert 1.05 <= SECOND <= 1.1
    assert 3601 <= HOUR <= 3610


steps = st.lists(
    st.one_of(
        st.just(("admit", 0.0)),
        st.tuples(st.just("pass"), st.floats(0, 3 * HOUR) | st.floats(0, 2)),
        st.tuples(st.just("pause"), st.floats(0, 100)),
        st.tuples(st.just("refund"), st.floats(0, 1, exclude_max=True)),
    ),
    max_size=30,
)


@in_both_loops
@settings(deadline=None, max_examples=60)
@given(steps=steps, per_second=st.integers(0, 3), per_hour=st.integers(0, 5))
async def test_admissions_fit_every_window(
    steps: list[tuple[str, float]], per_second: int, per_hour: int
) -> None:
    """Whatever happens in between, no second and no hour holds more requests than allowed, and pauses hold."""
    clock = Clock()
    gate = gate_on(clock, per_second, per_hour)
    sent: list[float] = []
    counted: list[Ticket] = []
    paused_until = 0.0
    for what, amount in [*steps, *[("admit", 0.0)] * 8]:
        match what:
            case "admit":
                expected = clock.now + gate.wait
                ticket = await admitted(gate)
                assert ticket.time == clock.now == pytest.approx(expected)
                assert ticket.time >= paused_until
                assert not per_second or sum(time + SECOND > ticket.time for time in sent) < per_second
                assert not per_hour or sum(one.time + HOUR > ticket.time for one in counted) < per_hour
                sent.append(ticket.time)
                counted.append(ticket)
            case "pass":
                clock.now += amount
            case "pause":
                await gate.pause(amount)
                paused_until = max(paused_until, clock.now + amount)
            case _ if counted:
                await gate.refund(counted.pop(int(amount * len(counted))))
    assert gate.requests == len(sent)


@in_both_loops
async def test_a_refund_gives_back_to_the_hour_and_not_to_the_second() -> None:
    """A request that the server did not count frees a place in the hour, while the second remembers it."""
    clock = Clock()
    gate = gate_on(clock, 2, 3)
    tickets = [await gate.admit() for _ in range(3)]
    assert gate.remaining == 0
    assert gate.wait == pytest.approx(HOUR - SECOND)
    await gate.refund(tickets[2])
    assert (gate.remaining, gate.requests) == (1, 3)
    await gate.admit()
    assert clock.now == tickets[2].time
    await gate.refund(tickets[0])
    await gate.refund(tickets[1])
    assert gate.wait == pytest.approx(SECOND)
    await gate.refund(tickets[1])
    await gate.refund(Ticket(12345.0))
    assert gate.remaining == 2


@in_both_loops
async def test_a_refund_is_noticed_by_who_is_waiting() -> None:
    """A caller that expects to wait an hour is admitted within seconds of a refund."""
    clock = Clock()
    gate = gate_on(clock, 3, 1)
    ticket = await gate.admit()
    clock.stop()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(admitted, gate)
        await anyio.wait_all_tasks_blocked()
        await gate.refund(ticket)
        clock.running.set()
    assert clock.now == ticket.time + 10.0
    assert clock.slept == [10.0]


@in_both_loops
async def test_the_remaining_quota_is_that_of_the_rolling_hour() -> None:
    """A request counts until its hour is over, to the moment."""
    clock = Clock(0.0)
    gate = gate_on(clock, 0, 2)
    await gate.admit()
    clock.now = 100.0
    await gate.admit()
    assert (gate.remaining, gate.wait) == (0, HOUR - 100)
    clock.now = HOUR - 1
    assert (gate.remaining, gate.wait) == (0, 1.0)
    clock.now = HOUR
    assert (gate.remaining, gate.wait) == (1, 0.0)
    clock.now = HOUR + 100
    assert (gate.remaining, gate.wait) == (2, 0.0)


@in_both_loops
async def test_without_limits_nobody_waits() -> None:
    """Zero means unlimited: no waiting, no remainder, and a refund changes nothing."""
    clock = Clock()
    gate = gate_on(clock, 0, 0)
    for _ in range(200):
        await gate.approach()
        await gate.refund(await gate.admit())
    assert (clock.slept, gate.remaining, gate.wait, gate.requests) == ([], None, 0.0, 200)
    await gate.pause(5.0)
    await gate.admit()
    assert clock.now == 1005.0


@in_both_loops
async def test_the_longest_pause_wins() -> None:
    """A shorter pause does not end a longer one, also for a caller who waits already."""
    clock = Clock()
    gate = gate_on(clock)
    await gate.pause(10.0)
    await gate.pause(3.0)
    assert gate.wait == 10.0
    clock.stop()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(gate.admit)
        await anyio.wait_all_tasks_blocked()
        await gate.pause(30.0)
        clock.running.set()
    assert clock.now == 1030.0
    assert gate.requests == 1


async def queue_up(gate: Gate, callers: int, admitted: list[int]) -> None:
    """Let *callers* ask one after another while nobody can be admitted, then let time run."""
    clock = gate._clock
    assert isinstance(clock, Clock)

    async def ask(caller: int) -> None:
        await gate.admit()
        admitted.append(caller)

    clock.stop()
    async with anyio.create_task_group() as tasks:
        for caller in range(callers):
            tasks.start_soon(ask, caller)
            await anyio.wait_all_tasks_blocked()
        assert admitted == []
        clock.running.set()


@in_both_loops
async def test_first_come_first_served() -> None:
    """Many callers at once are admitted in the order in which they asked."""
    gate = gate_on(Clock())
    await gate.pause(1.0)
    admitted: list[int] = []
    await queue_up(gate, 20, admitted)
    assert admitted == list(range(20))
    assert gate.requests == 20


@in_both_loops
@pytest.mark.parametrize("leaving", [0, 1, 2], ids=["head", "middle", "tail"])
async def test_a_cancelled_caller_takes_no_place(leaving: int) -> None:
    """Whoever of the queue gives up, the others are admitted as if it had never asked."""
    clock = Clock()
    gate = gate_on(clock, 1, 60)
    await gate.admit()
    scopes = [anyio.CancelScope() for _ in range(3)]
    admitted: list[int] = []

    async def ask(caller: int) -> None:
        with scopes[caller]:
            await gate.admit()
            admitted.append(caller)

    clock.stop()
    async with anyio.create_task_group() as tasks:
        for caller in range(3):
            tasks.start_soon(ask, caller)
            await anyio.wait_all_tasks_blocked()
        scopes[leaving].cancel()
        await anyio.wait_all_tasks_blocked()
        clock.running.set()
    assert admitted == [caller for caller in range(3) if caller != leaving]
    assert (gate.requests, gate.remaining) == (3, 57)
    assert clock.now == pytest.approx(1000.0 + 2 * SECOND)


def full_hour(clock: Clock, gaps: Iterator[float]) -> Gate:
    """Return a gate whose hour is full of requests with *gaps* between them."""
    times = [clock.now + gap for gap in gaps]
    gate = gate_on(clock, 3, len(times))
    gate._counted.extend(times)
    clock.now = times[-1]
    return gate


@in_both_loops
async def test_a_caller_connects_two_seconds_ahead() -> None:
    """Where the hour is full, a caller is called to connect two seconds before its place comes free."""
    clock = Clock(0.0)
    gate = full_hour(clock, iter([0.0, 100.0]))
    await gate.approach()
    assert clock.now == pytest.approx(HOUR - 2)
    assert (await gate.admit()).time == pytest.approx(HOUR)


@in_both_loops
async def test_nobody_connects_during_a_pause() -> None:
    """A pause holds callers back to its end, as nobody knows what the server does then."""
    clock = Clock()
    gate = gate_on(clock)
    await gate.pause(25.0)
    await gate.approach()
    assert clock.now == 1025.0
    assert clock.slept == [10.0, 10.0, 5.0]
    await gate.pause(0.5)
    await gate.approach()
    assert clock.now == 1025.5


@in_both_loops
async def test_a_gate_is_wanted_while_somebody_waits() -> None:
    """A full hour holds nobody up before somebody asks, nor after the last was let in."""
    clock = Clock(0.0)
    gate = full_hour(clock, iter([0.0, 100.0]))
    clock.stop()
    wanted = [gate.wanted]
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(gate.approach)
        await anyio.wait_all_tasks_blocked()
        wanted.append(gate.wanted)
        clock.running.set()
    assert [*wanted, gate.wanted] == [False, True, False]


@in_both_loops
async def test_one_free_place_calls_up_one_caller() -> None:
    """A second caller is called when the second place comes near, whether or not the first has been admitted."""
    clock = Clock(0.0)
    gate = full_hour(clock, iter([0.0, 10.0, 20.0]))
    await gate.approach()
    assert clock.now == pytest.approx(HOUR - 2)
    await gate.approach()
    assert clock.now == pytest.approx(HOUR + 10 - 2)
    await gate.admit()
    await gate.approach()
    assert clock.now == pytest.approx(HOUR + 20 - 2)
    await gate.admit()
    await gate.admit()
    assert clock.now == pytest.approx(HOUR + 20)


@in_both_loops
@pytest.mark.parametrize("wait,idles", [(29.0, True), (31.0, False)])
async def test_no_connection_idles_for_long(wait: float, idles: bool) -> None:
    """Who was called too early, since a pause came or others were faster, is told to come again."""
    clock = Clock()
    gate = gate_on(clock)
    await gate.approach()
    await gate.pause(wait)
    if idles:
        assert (await gate.admit()).time == 1000.0 + wait
    else:
        with pytest.raises(CalledTooEarlyError):
            await gate.admit()
        assert (gate.requests, gate.remaining) == (0, 60)


@in_both_loops
async def test_patience_is_shared_and_ends() -> None:
    """All waits together last no longer than `max_wait`, however many wait at once; the pace is no wait."""
    clock = Clock()
    gate = Gate(3, 60, max_wait=100.0, clock=clock, sleep=clock.sleep)
    await gate.pause(60.0)
    async with anyio.create_task_group() as tasks:
        for _ in range(10):
            tasks.start_soon(admitted, gate)
    assert gate.requests == 10
    assert clock.now == pytest.approx(1060.0 + 3 * SECOND)
    await gate.pause(41.0)
    with pytest.raises(OutOfPatienceError, match="41 s") as raised:
        await gate.approach()
    assert raised.value.seconds == 41.0
    with pytest.raises(CalledTooEarlyError):
        await gate.admit()
    clock.now += 5.0
    assert (await admitted(gate)).time == clock.now == pytest.approx(1060.0 + 3 * SECOND + 41.0)


@in_both_loops
async def test_without_patience_the_pace_still_holds() -> None:
    """`max_wait` of 0 fails at a full hour, and not at a full second."""
    clock = Clock()
    gate = Gate(1, 2, max_wait=0.0, clock=clock, sleep=clock.sleep)
    await admitted(gate)
    await admitted(gate)
    assert clock.now == pytest.approx(1000.0 + SECOND)
    with pytest.raises(OutOfPatienceError):
        await admitted(gate)


@in_both_loops
async def test_refusals_of_one_wave_count_once() -> None:
    """Requests refused while they were on their way pause everybody once; a later one doubles; success begins anew."""
    clock = Clock()
    gate = Gate(0, 0, clock=clock, sleep=clock.sleep)
    wave = [await gate.admit() for _ in range(5)]
    clock.now += 1.0
    pauses = [await gate.refused(ticket, None) for ticket in wave]
    assert all(60.0 <= pause <= 66.0 for pause in pauses)
    ticket = await admitted(gate)
    assert 120.0 <= await gate.refused(ticket, None) <= 132.0
    ticket = await admitted(gate)
    gate.accepted(ticket)
    assert 60.0 <= await gate.refused(ticket, None) <= 66.0


@in_both_loops
async def test_a_refusal_gives_the_request_back() -> None:
    """What Mixpanel refused it did not count, and it decides when to come again."""
    clock = Clock()
    gate = gate_on(clock)
    assert 7.0 <= await gate.refused(await gate.admit(), 7.0) <= 8.0
    assert gate.remaining == 60
    assert 7.0 <= gate.wait <= 8.0


@pytest.mark.parametrize(
    "requests,seconds", [(0, 0.0), (2, 0.0), (3, HOUR), (5, HOUR), (6, 2 * HOUR), (9, 3 * HOUR)]
)
def test_the_time_that_requests_need(requests: int, seconds: float) -> None:
    """Requests beyond what is left of the hour wait for it, and the next ones for another."""
    assert time_for(requests, [Window(3, HOUR)], [5.0], 5.0) == pytest.approx(seconds)


class Others:
    """A shared quota in which other processes have sent what a test says."""

    def __init__(self, sent: Sequence[float] = (), pause: float = 0.0, free: bool = True) -> None:
        self.ages = list(sent)
        self.pauses = [pause]
        self.free = free
        self.refunded: list[str] = []

    def _view(self, ticket: str | None = None) -> View:
        requests = tuple(Request(age, None, counted=True) for age in self.ages)
        return View(requests, max(self.pauses), Window(3, SECOND), Window(60, HOUR), ticket)

    def take(self) -> View:
        if not self.free:
            self.free = True
            return self._view()
        self.ages.append(0.0)
        return self._view("ticket")

    def look(self) -> View:
        return self._view()

    def refund(self, ticket: str) -> View:
        self.refunded.append(ticket)
        self.ages.pop()
        return self._view()

    def pause(self, seconds: float) -> View:
        self.pauses.append(seconds)
        return self._view()


@in_both_loops
async def test_other_processes_requests_count() -> None:
    """What others have sent is known after a look, and places are taken where all of them see it."""
    clock, others = Clock(), Others([50.0] * 57)
    gate = Gate(3, 60, shared=others, clock=clock, sleep=clock.sleep)
    assert gate.remaining == 60
    await gate.look()
    assert (gate.remaining, gate.requests) == (3, 0)
    assert gate.time_for(4) == pytest.approx(HOUR - 50)
    ticket = await admitted(gate)
    assert (ticket, gate.remaining, gate.requests) == (Ticket(1000.0, "ticket"), 2, 1)
    await gate.refund(ticket)
    assert (others.refunded, gate.remaining) == (["ticket"], 3)


@in_both_loops
async def test_other_processes_pauses_hold() -> None:
    """A pause is everybody's, whoever was refused."""
    clock, others = Clock(), Others(pause=20.0)
    gate = Gate(3, 60, shared=others, clock=clock, sleep=clock.sleep)
    await gate.look()
    assert gate.wait == 20.0
    await gate.pause(25.0)
    assert others.pauses == [20.0, 25.0]


@in_both_loops
async def test_a_place_that_another_process_took_is_waited_for() -> None:
    """Where the shared quota says no, the gate asks again after the wait that it names."""
    clock, others = Clock(), Others([0.0, 0.0, 0.0], free=False)
    gate = Gate(3, 60, shared=others, clock=clock, sleep=clock.sleep)
    await gate.admit()
    assert sum(clock.slept) >= SECOND


@in_both_loops
async def test_who_never_came_is_forgotten() -> None:
    """A caller whose connection failed holds its place for half a minute, not for good."""
    clock = Clock(0.0)
    gate = full_hour(clock, iter([0.0, 600.0]))
    await gate.approach()
    await gate.approach()
    assert clock.now == pytest.approx(HOUR - 2 + 30)
    assert gate._expected() == 1
    await gate.admit()
    assert gate._expected() == 0


@in_both_loops
async def test_more_callers_than_the_hour_holds_are_still_called() -> None:
    """With a quota of one, each caller is called when the last request leaves the hour."""
    clock = Clock(0.0)
    gate = full_hour(clock, iter([0.0]))
    await gate.approach()
    await gate.approach()
    assert clock.now == pytest.approx(HOUR - 2)


@in_both_loops
async def test_a_cancelled_approach_calls_nobody() -> None:
    """A caller that gives up while it waits to be called leaves no trace."""
    clock = Clock(0.0)
    gate = full_hour(clock, iter([0.0, 1.0]))
    clock.stop()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(gate.approach)
        await anyio.wait_all_tasks_blocked()
        tasks.cancel_scope.cancel()
    clock.running.set()
    assert gate._expected() == 0
    await gate.approach()
    assert clock.now == pytest.approx(HOUR - 2)
