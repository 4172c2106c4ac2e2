"""No plan and no retry exceeds Mixpanel's quota, and a request consumes exactly what Mixpanel counts."""

from contextlib import suppress

import anyio
import pytest
from examples import examples
from gates import UNCOUNTED, Clock, admitted, answered, failed, full_hour, gate_on, left
from hypothesis import given
from hypothesis import strategies as st

from mixpanel_export._quota.gate import Gate
from mixpanel_export._quota.limits import Quota
from mixpanel_export._quota.windows import HOUR, SECOND
from mixpanel_export.errors import APIError, NetworkError, QueryError, RateLimitError, ServerError

pytestmark = pytest.mark.anyio


# The windows


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_a_gate_created_outside_a_loop_works_inside_one(backend: str) -> None:
    """A gate needs no event loop to be created, and by default uses the clock of the loop."""
    gate = Gate(Quota())

    async def two_requests() -> None:
        await answered(gate)
        before = anyio.current_time()
        assert await answered(gate) >= before
        statistics = gate.statistics()
        assert (statistics.remaining, statistics.requests, statistics.per_hour) == (58, 2, 60)

    anyio.run(two_requests, backend=backend)


async def test_two_hours_of_quota() -> None:
    """Of 180 requests, 60 are sent at 3 a second, the next 60 an hour later, and the rest an hour after that."""
    clock = Clock(0.0)
    gate = gate_on(clock)
    times = [await answered(gate) for _ in range(180)]
    ramp = [i // 3 * SECOND for i in range(60)]
    assert times == pytest.approx([hour * HOUR + second for hour in range(3) for second in ramp])
    assert gate.statistics().requests == 180
    assert max(clock.slept) == 10.0


steps = st.lists(
    st.one_of(
        st.just(("succeed", 0.0)),
        st.just(("refund", 0.0)),
        st.tuples(st.just("pass"), st.floats(0, 3 * HOUR) | st.floats(0, 2)),
        st.tuples(st.just("pause"), st.floats(0, 100)),
    ),
    max_size=30,
)


@examples(core=15, full=100)
@given(steps=steps, per_second=st.integers(0, 3), per_hour=st.integers(0, 5))
async def test_admissions_fit_every_window(
    steps: list[tuple[str, float]], per_second: int, per_hour: int
) -> None:
    """No second and no hour ever has more requests than allowed, pauses are kept, and no wait is longer than needed."""
    clock = Clock()
    gate = gate_on(clock, per_second, per_hour)
    sent: list[float] = []
    counted: list[float] = []
    paused_until = 0.0
    for step, amount in [*steps, *[("succeed", 0.0)] * 8]:
        match step:
            case "pass":
                clock.now += amount
            case "pause":
                await gate.pause(amount)
                paused_until = max(paused_until, clock.now + amount)
            case _:
                expected = clock.now + gate.statistics().next_slot_in
                if step == "refund":
                    await failed(gate, UNCOUNTED)
                else:
                    await answered(gate)
                assert clock.now == pytest.approx(expected)
                assert clock.now >= paused_until
                assert not per_second or sum(time + SECOND > clock.now for time in sent) < per_second
                assert not per_hour or sum(time + HOUR > clock.now for time in counted) < per_hour
                sent.append(clock.now)
                counted += [clock.now] if step == "succeed" else []
    assert gate.statistics().requests == len(sent)


async def test_the_remaining_quota_is_that_of_the_rolling_hour() -> None:
    """A request counts exactly until its hour is over."""
    clock = Clock(0.0)
    gate = gate_on(clock, 0, 2)
    await answered(gate)
    clock.now = 100.0
    await answered(gate)
    assert left(gate) == (0, HOUR - 100)
    clock.now = HOUR - 1
    assert left(gate) == (0, 1.0)
    clock.now = HOUR
    assert left(gate) == (1, 0.0)
    clock.now = HOUR + 100
    assert left(gate) == (2, 0.0)


async def test_without_limits_no_caller_waits() -> None:
    """Zero means unlimited: no waits, no remaining number, and a refund changes nothing. Pauses still apply."""
    clock = Clock()
    gate = gate_on(clock, 0, 0)
    for _ in range(100):
        await answered(gate)
        await failed(gate, UNCOUNTED)
    assert (clock.slept, left(gate), gate.time_for(100)) == ([], (None, 0.0), 0.0)
    await gate.pause(5.0)
    assert await answered(gate) == 1005.0


# Who is admitted, and what a request consumes


async def queue_up(
    clock: Clock, gate: Gate, scopes: list[anyio.CancelScope], admitted_callers: list[int]
) -> None:
    """Let callers request admission one after another while the clock does not advance."""

    async def call(caller: int) -> None:
        with scopes[caller]:
            await answered(gate)
            admitted_callers.append(caller)

    clock.stop()
    async with anyio.create_task_group() as tasks:
        for caller in range(len(scopes)):
            tasks.start_soon(call, caller)
            await anyio.wait_all_tasks_blocked()
        assert admitted_callers == []
        for scope in scopes:
            if scope.deadline == float("-inf"):
                scope.cancel()
        await anyio.wait_all_tasks_blocked()
        clock.running.set()


@pytest.mark.parametrize("paused", [True, False])
async def test_first_come_first_served(paused: bool) -> None:
    """Many callers at once are admitted in the order of their arrival, before and after they connect."""
    clock = Clock()
    gate = gate_on(clock, 1)
    await (gate.pause(1.0) if paused else answered(gate))
    order: list[int] = []
    await queue_up(clock, gate, [anyio.CancelScope() for _ in range(20)], order)
    assert order == list(range(20))


@pytest.mark.parametrize("paused", [True, False])
@pytest.mark.parametrize("leaving", [0, 1, 2], ids=["head", "middle", "tail"])
async def test_a_cancelled_caller_consumes_no_quota(leaving: int, paused: bool) -> None:
    """Whichever caller in the queue is cancelled, the others are admitted as if it had never arrived."""
    clock = Clock()
    gate = gate_on(clock, 1, 60)
    await answered(gate)
    if paused:
        await gate.pause(1.0)
    order: list[int] = []
    scopes = [anyio.CancelScope() for _ in range(3)]
    scopes[leaving].deadline = float("-inf")
    await queue_up(clock, gate, scopes, order)
    assert order == [caller for caller in range(3) if caller != leaving]
    assert (gate.statistics().requests, gate.statistics().remaining) == (3, 57)
    assert clock.now == pytest.approx(1000.0 + 2 * SECOND)


async def test_a_caller_that_is_never_admitted_consumes_nothing() -> None:
    """A connection that fails before the request is sent does not change the hour, for the next caller too."""
    clock = Clock(0.0)
    gate = await full_hour(clock, [0.0, 600.0])
    for _ in range(3):
        with pytest.raises(NetworkError):
            async with gate.admission():
                raise NetworkError("no connection")
    assert clock.now == pytest.approx(HOUR - 2)
    assert gate.statistics().requests == 2
    assert await answered(gate) == pytest.approx(HOUR)


async def test_a_refund_returns_a_request_to_the_hour_and_not_to_the_second() -> None:
    """A request that Mixpanel did not count frees a slot of the hour, but not of the second."""
    clock = Clock()
    gate = gate_on(clock, 2, 2)
    await answered(gate)
    await failed(gate, UNCOUNTED)
    assert left(gate) == pytest.approx((1, SECOND))
    await answered(gate)
    assert gate.statistics().remaining == 0


@pytest.mark.parametrize(
    "error, remaining",
    [
        (QueryError("x", status_code=401), 60),
        (QueryError("x", status_code=402), 60),
        (RateLimitError("x", retry_after=0.0), 60),
        (QueryError("x", status_code=400), 59),
        (ServerError("x", status_code=503), 59),
        (NetworkError("x", mid_answer=True), 59),
    ],
)
async def test_only_what_mixpanel_does_not_count_is_refunded(error: APIError, remaining: int) -> None:
    """401, 402 and 429 return the request to the hour; every other failure uses it."""
    gate = gate_on(Clock())
    await failed(gate, error)
    assert gate.statistics().remaining == remaining


async def test_a_waiting_caller_notices_a_refund() -> None:
    """A caller that expects to wait an hour is admitted within seconds of a refund."""
    clock = Clock()
    gate = gate_on(clock, 3, 1)
    sent = anyio.Event()
    release = anyio.Event()

    async def refused() -> None:
        with suppress(QueryError):
            async with admitted(gate):
                sent.set()
                await release.wait()
                raise UNCOUNTED

    clock.stop()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(refused)
        await sent.wait()
        tasks.start_soon(answered, gate)
        await anyio.wait_all_tasks_blocked()
        release.set()
        await anyio.wait_all_tasks_blocked()
        clock.running.set()
    assert clock.now == 1010.0
    assert clock.slept == [10.0]
