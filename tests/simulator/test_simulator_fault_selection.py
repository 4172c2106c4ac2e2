"""Which requests a fault of the simulator applies to."""

from collections.abc import AsyncIterator
from datetime import date

import pytest
from endpoint import PATH, client, simulator

from mixpanel_export.simulator import Fault, Simulator

pytestmark = pytest.mark.anyio


async def statuses(sim: Simulator, *days: tuple[str, str]) -> AsyncIterator[int]:
    """Request the ranges of *days* in order, and yield the statuses."""
    async with client(sim) as http:
        for first, last in days:
            params = {"from_date": first, "to_date": last, "project_id": "12345"}
            yield (await http.get(PATH, params=params)).status_code


async def test_a_fault_applies_to_overlapping_days() -> None:
    """A fault applies to a request if they have a day in common."""
    sim = simulator(faults=[Fault("500", date(2024, 3, 4), date(2024, 3, 5))])
    days = [
        ("2024-03-01", "2024-03-03"),
        ("2024-03-01", "2024-03-04"),
        ("2024-03-05", "2024-03-09"),
        ("2024-03-06", "2024-03-09"),
        ("2024-03-01", "2024-03-09"),
    ]
    assert [status async for status in statuses(sim, *days)] == [200, 500, 500, 200, 500]
    sim.faults = [Fault("500", first=date(2024, 3, 4))]
    assert [status async for status in statuses(sim, *days[:2])] == [200, 500]
    sim.faults = [Fault("500", last=date(2024, 3, 5))]
    assert [status async for status in statuses(sim, *days[2:4])] == [500, 200]


async def test_faults_are_counted_separately() -> None:
    """`after` and `times` count the requests that one fault matched and made fail, independent of other faults."""
    first, second = Fault("503", after=1, times=2), Fault("500", times=1)
    sim = simulator(faults=[first, second])
    days = [("2024-03-04", "2024-03-04")] * 6
    assert [status async for status in statuses(sim, *days)] == [500, 503, 503, 200, 200, 200]
    assert (sim.hits(first), sim.hits(second)) == (2, 1)


async def test_equal_faults_are_counted_separately() -> None:
    """Two equal faults are two faults."""
    sim = simulator(faults=[Fault("500", times=1), Fault("500", times=1)])
    days = [("2024-03-04", "2024-03-04")] * 3
    assert [status async for status in statuses(sim, *days)] == [500, 500, 200]


async def test_probability_is_seeded() -> None:
    """A fault with a probability applies to about that share of requests, the same ones for the same seed."""
    days = [("2024-03-04", "2024-03-04")] * 100
    runs = [
        [
            status
            async for status in statuses(simulator(faults=[Fault("500", probability=0.3)], seed=seed), *days)
        ]
        for seed in (1, 1, 2)
    ]
    assert runs[0] == runs[1] != runs[2]
    assert 15 <= runs[0].count(500) <= 45


async def test_faults_can_change_between_requests() -> None:
    """The list of faults can be changed in place."""
    sim = simulator()
    sim.faults.append(Fault("402"))
    assert [status async for status in statuses(sim, ("2024-03-04", "2024-03-04"))] == [402]
    sim.faults.clear()
    assert [status async for status in statuses(sim, ("2024-03-04", "2024-03-04"))] == [200]


@pytest.mark.parametrize(
    "days, times, requests, silent",
    [
        pytest.param([4], 2, [(4, 4)] * 3, [True, True, False], id="one day, twice"),
        pytest.param([4], 1, [(5, 5), (4, 4), (4, 5)], [False, True, False], id="a single day among others"),
        pytest.param([4, 5, 6], 1, [(4, 6), (4, 6)], [True, False], id="a range in one request"),
        pytest.param([4, 6], 1, [(4, 6), (4, 6)], [True, False], id="the edges, in one request of the range"),
        pytest.param(
            [4, 6],
            1,
            [(4, 4), (5, 5), (6, 6), (4, 6)],
            [True, False, True, False],
            id="the edges, each alone",
        ),
        pytest.param(
            [4, 5], 1, [(4, 4), (5, 5), (4, 5)], [True, True, False], id="neighbours, then together"
        ),
        pytest.param(
            [4, 5], 1, [(4, 4), (4, 5), (5, 5)], [True, True, False], id="one, then both, then the other"
        ),
    ],
)
async def test_the_first_requests_for_each_day_are_silent(
    days: list[int], times: int, requests: list[tuple[int, int]], silent: list[bool]
) -> None:
    """A fault with `days` counts for each day, so each gets the configured number of empty responses, in any requests."""
    fault = Fault("empty_200", days=tuple(date(2024, 3, day) for day in days), times=times)
    sim = simulator(faults=[fault])
    ranges = [(str(date(2024, 3, first)), str(date(2024, 3, last))) for first, last in requests]
    assert {status async for status in statuses(sim, *ranges)} == {200}
    assert [log.empty_answer for log in sim.requests] == silent
    assert sim.hits(fault) == sum(silent)


async def test_a_fault_with_days_spares_the_first_requests_for_each_day() -> None:
    """With `days`, `after` also counts for each day."""
    sim = simulator(faults=[Fault("500", days=(date(2024, 3, 4), date(2024, 3, 5)), after=1)])
    days = [("2024-03-04", "2024-03-04"), ("2024-03-05", "2024-03-05"), ("2024-03-06", "2024-03-06")]
    assert [status async for status in statuses(sim, *days, *days)] == [200, 200, 200, 500, 500, 200]
