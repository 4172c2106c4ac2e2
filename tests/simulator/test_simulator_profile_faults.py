"""The failures of profile pages: each changes what its name says, and nothing else."""

from typing import Any

import httpx
import pytest
from endpoint import both
from profile_pages import PATH, PROJECT, UNCACHED, page, project, rows

from mixpanel_export.simulator import Fault, Simulator
from mixpanel_export.simulator.fault_file import read_faults

pytestmark = pytest.mark.anyio


async def pages(sim: Simulator, count: int = 3) -> list[list[str]]:
    """Return the ids on each page of one session."""
    first = await page(sim)
    session = {"session_id": first.json()["session_id"]}
    later = [await page(sim, page=str(number), **session) for number in range(1, count)]
    return [list(rows(response)) for response in (first, *later)]


def expected(sim: Simulator, *slices: tuple[int, int]) -> list[list[str]]:
    ids = list(sim.profile_truth())
    return [ids[first:last] for first, last in slices]


@pytest.mark.parametrize(
    "kind, slices",
    [
        ("short_page", [(0, 10), (10, 15), (20, 25)]),
        ("page_again", [(0, 10), (0, 10), (20, 25)]),
        ("profile_repeated", [(0, 10), (9, 19), (19, 25)]),
        ("profile_skipped", [(0, 10), (11, 21), (21, 25)]),
    ],
)
async def test_a_page_has_other_profiles(kind: Any, slices: list[tuple[int, int]]) -> None:
    """With the last two, the following pages move too; the next session is whole."""
    fault = Fault(kind, pages=(1,), times=1)
    sim = project(profile_faults=[fault])
    assert await pages(sim) == expected(sim, *slices)
    assert await pages(sim) == expected(sim, (0, 10), (10, 20), (20, 25))
    assert sim.hits(fault) == 1
    assert [log.fault for log in sim.profile_requests] == [None, kind, None, None, None, None]


@pytest.mark.parametrize("number, other", [(0, 1), (2, 1)])
async def test_a_wrong_page_says_its_number(number: int, other: int) -> None:
    """It is the page before, or the second instead of the first."""
    sim = project()
    session = (await page(sim)).json()["session_id"]
    sim.profile_faults = [Fault("wrong_page", pages=(number,))]
    answer = (await page(sim, page=str(number), session_id=session)).json()
    assert answer["page"] == other
    assert [str(each["$distinct_id"]) for each in answer["results"]] == expected(sim, (10, 20))[0]


@pytest.mark.parametrize("kind, total", [("total_too_low", 24), ("total_too_high", 26)])
async def test_a_total_differs_by_one(kind: Any, total: int) -> None:
    """The profiles do not."""
    sim = project(profile_faults=[Fault(kind, times=1)])
    totals = [(await page(sim)).json()["total"] for _ in range(2)]
    assert totals == [total, 25]


@pytest.mark.parametrize("status", [None, 200])
async def test_a_session_is_evicted(status: int | None) -> None:
    """All its pages are gone, also for requests after the fault; a request without a session is not affected."""
    sim = project(profile_faults=[Fault("session_evicted", times=1, status=status)])
    later = {"page": "1", "session_id": (await page(sim)).json()["session_id"]}
    first, second = await page(sim, **later), await page(sim, **later)
    assert (first.status_code, second.status_code) == (status or 400, 400)
    assert first.json()["error"] == second.json()["error"] == UNCACHED
    assert len(await pages(sim)) == 3


@pytest.mark.parametrize("kind, status", [("402", 402), ("429", 429), ("500", 500), ("503", 503)])
async def test_statuses_apply_to_pages(kind: Any, status: int) -> None:
    """As often as configured, for each page separately."""
    sim = project(profile_faults=[Fault(kind, pages=(0, 1), times=1)])
    assert (await page(sim)).status_code == status
    later = {"page": "1", "session_id": (await page(sim)).json()["session_id"]}
    assert (await page(sim, **later)).status_code == status
    assert (await page(sim, **later)).status_code == 200


async def test_a_page_can_be_an_error_or_cut() -> None:
    """Status 200 with an error, and JSON that ends too early."""
    sim = project(profile_faults=[Fault("error_line", times=1), Fault("cut_line", times=1)])
    assert (await page(sim)).json() == {"error": "Internal server error"}
    with pytest.raises(ValueError, match="line 1"):
        (await page(sim)).json()


@pytest.mark.parametrize("kind", ["reset", "close", "reset_before_head", "close_before_head"])
async def test_connections_break(kind: Any) -> None:
    """Over a socket and over the transport."""
    sim = project(profile_faults=[Fault(kind)])
    async with both(sim) as clients:
        for http in clients:
            with pytest.raises(httpx.TransportError):
                await http.post(PATH, data=PROJECT)


def test_a_fault_file_has_faults_of_profiles() -> None:
    """Each kind of table is a list of its own."""
    text = """
        [[fault]]
        kind = "503"
        [[profile_fault]]
        kind = "session_evicted"
        pages = [1, 2]
        [[query_fault]]
        kind = "500"
    """
    assert read_faults(text) == [Fault("503")]
    assert read_faults(text, "profile_fault") == [Fault("session_evicted", pages=(1, 2))]
    assert read_faults(text, "query_fault") == [Fault("500")]
