"""The simulator's limits, on a clock that the test controls."""

from datetime import UTC, datetime
from typing import Any

import anyio
import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mixpanel_export.simulator import Fault, Rules, Simulator
from mixpanel_export.simulator.faults import Kind
from mixpanel_export.simulator.rate_limits import Limits

DAYS = {"from_date": "2024-03-04", "to_date": "2024-03-04", "project_id": "12345"}
NOW = datetime(2024, 6, 1, 12, tzinfo=UTC)


class Clock:
    """A clock that the test sets."""

    def __init__(self) -> None:
        self.time = 1000.0

    def __call__(self) -> float:
        return self.time


def simulator(clock: Clock, **options: Any) -> Simulator:
    return Simulator(events_per_day=3, clock=clock, now=lambda: NOW, **options)


async def send(sim: Simulator, times: int = 1, **changes: str) -> list[httpx.Response]:
    """Send *times* requests, one after the other, at the same time of the clock."""
    auth = ("demo.mp-service-account", "demo-secret")
    async with httpx.AsyncClient(transport=sim.transport(), base_url="http://simulator", auth=auth) as http:
        return [await http.get("/api/2.0/export", params=DAYS | changes) for _ in range(times)]


def statuses(responses: list[httpx.Response]) -> list[int]:
    return [response.status_code for response in responses]


@pytest.mark.anyio
async def test_three_requests_a_second() -> None:
    """The fourth request within a second is refused, and refused requests do not count."""
    clock = Clock()
    sim = simulator(clock)
    assert statuses(await send(sim, 5)) == [200, 200, 200, 429, 429]
    clock.time += 0.999
    refused = (await send(sim))[0]
    assert refused.status_code == 429
    assert refused.headers["retry-after"] == "1"
    assert "per second" in refused.json()["error"]
    clock.time += 0.001
    assert statuses(await send(sim, 4)) == [200, 200, 200, 429]


@pytest.mark.anyio
async def test_sixty_requests_in_a_rolling_hour() -> None:
    """The 61st request within an hour is refused until the first one is an hour old."""
    clock = Clock()
    sim = simulator(clock)
    for _ in range(60):
        assert statuses(await send(sim)) == [200]
        clock.time += 10
    refused = (await send(sim))[0]
    assert (refused.status_code, refused.headers["retry-after"]) == (429, "3000")
    assert "hour" in refused.json()["error"]
    clock.time += 3000
    assert statuses(await send(sim, 2)) == [200, 429]


@pytest.mark.anyio
async def test_concurrent_requests_are_limited() -> None:
    """A request above the concurrency limit is refused in Mixpanel's words, until another one has ended."""
    started, release = anyio.Event(), anyio.Event()

    async def wait(_: float) -> None:
        if sim.in_progress == 2:
            started.set()
        await release.wait()

    sim = simulator(Clock(), concurrent=2, per_second=0, first_byte=1.0, sleep=wait)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(send, sim)
        tasks.start_soon(send, sim)
        await started.wait()
        refused = (await send(sim))[0]
        release.set()
    assert refused.status_code == 429
    assert refused.json() == {"error": "too many export requests in progress for this project"}
    assert sim.max_concurrent == 2
    assert statuses(await send(sim)) == [200]


@pytest.mark.anyio
async def test_zero_switches_a_limit_off() -> None:
    """With all limits at 0 no request is refused."""
    sim = simulator(Clock(), per_second=0, per_hour=0, concurrent=0)
    assert set(statuses(await send(sim, 70))) == {200}


@pytest.mark.anyio
async def test_what_counts_against_the_hour() -> None:
    """Responses with status 401, 402 and 429 do not count, 400 and 500 do; the set is an option."""
    cases: list[tuple[Kind, bool]] = [
        ("401", False),
        ("402", False),
        ("429", False),
        ("400", True),
        ("500", True),
    ]
    for kind, counts in cases:
        sim = simulator(Clock(), per_second=0, per_hour=1, faults=[Fault(kind, times=1)])
        assert statuses(await send(sim, 2)) == [int(kind), 429 if counts else 200]
        sim = simulator(
            Clock(), per_second=0, per_hour=1, faults=[Fault(kind, times=1)], uncounted=frozenset({400, 500})
        )
        assert statuses(await send(sim, 2)) == [int(kind), 200 if counts else 429]


@pytest.mark.anyio
async def test_refused_requests_can_count() -> None:
    """If a 429 counts, a request sent too early prolongs the wait."""
    for uncounted, statuses_after in ((frozenset({429}), [200]), (frozenset[int](), [429])):
        clock = Clock()
        sim = simulator(clock, per_second=0, per_hour=1, uncounted=uncounted)
        assert statuses(await send(sim)) == [200]
        clock.time += 3000
        assert statuses(await send(sim)) == [429]
        clock.time += 600
        assert statuses(await send(sim)) == statuses_after


@pytest.mark.anyio
async def test_the_text_of_a_429_can_be_replaced() -> None:
    """`Rules.wording` replaces the text; the response is still a JSON error."""
    sim = simulator(Clock(), per_second=1, rules=Rules(wording={"quota": "slower, please"}))
    assert [response.text for response in await send(sim, 2)][1] == '{"error": "slower, please"}'


@pytest.mark.anyio
async def test_a_429_can_have_the_headers_of_the_query_api() -> None:
    """With that rule a 429 has the limits and what remains of them; no other response has these headers."""
    sim = simulator(Clock(), per_second=0, per_hour=2, rules=Rules(rate_limit_headers=True))
    served, _, refused = await send(sim, 3)
    assert "ratelimit" not in served.headers
    assert (
        refused.headers["ratelimit-policy"]
        == '"project";q=2;w=3600, "project-concurrency";q=100;qu="concurrent-requests"'
    )
    assert refused.headers["ratelimit"] == '"project";r=0;t=3600, "project-concurrency";r=100'
    assert "ratelimit" not in (await send(simulator(Clock(), per_second=1), 2))[1].headers


def test_the_headers_have_the_active_limits() -> None:
    """The headers leave out a limit that is switched off, and give the seconds to wait for one that is exhausted."""
    limits = Limits(Clock(), per_hour=0, concurrent=1)
    limits.begin()
    assert dict(limits.headers())["RateLimit"] == '"project-concurrency";r=0;t=1'
    limits = Limits(Clock(), per_hour=60, concurrent=0)
    limits.count_arrival()
    assert dict(limits.headers()) == {
        "RateLimit-Policy": '"project";q=60;w=3600',
        "RateLimit": '"project";r=59',
    }


@pytest.mark.anyio
async def test_forms_of_retry_after() -> None:
    """`Retry-After` is in seconds, a date, or absent."""
    dated = simulator(Clock(), per_second=1, limit_retry_after="date")
    assert (await send(dated, 2))[1].headers["retry-after"] == "Sat, 01 Jun 2024 12:00:01 GMT"
    faulty = simulator(Clock(), limit_retry_after="date", faults=[Fault("503", retry_after=90)])
    assert (await send(faulty))[0].headers["retry-after"] == "Sat, 01 Jun 2024 12:01:30 GMT"
    absent = simulator(Clock(), per_second=1, limit_retry_after="none")
    assert "retry-after" not in (await send(absent, 2))[1].headers


@given(gaps=st.lists(st.floats(0, 2), max_size=80), per_second=st.integers(1, 4), per_hour=st.integers(1, 30))
def test_no_window_exceeds_its_limit(gaps: list[float], per_second: int, per_hour: int) -> None:
    """For all arrivals, the admitted ones fit every window, and a request is refused only if it would not."""
    clock = Clock()
    limits = Limits(clock, per_second, per_hour, 0)
    admitted: list[float] = []
    for gap in gaps:
        clock.time += gap
        second = sum(time > clock.time - 1.0 for time in admitted)
        hour = sum(time > clock.time - 3600.0 for time in admitted)
        fits = second < per_second and hour < per_hour
        assert (limits.refusal() is None) is fits
        if fits:
            limits.count_arrival()
            admitted.append(clock.time)
