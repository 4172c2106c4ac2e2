"""Empty responses: each chunk is requested once more, together with its neighbours; two mean that it has no events."""

from collections.abc import Callable
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from examples import slow
from support import Body, export, held, ledger, query, simulator, truth

from mixpanel_export._export.empty_responses import MAX_REQUESTS
from mixpanel_export.errors import TruncatedError
from mixpanel_export.simulator import Fault, Simulator

pytestmark = pytest.mark.anyio

FIRST = date(2024, 3, 1)
Days = tuple[date, date]


def day(number: int) -> date:
    return FIRST + timedelta(days=number)


class _Silenced(httpx.AsyncBaseTransport):
    """Responds like *sim*, but without a body if *empty* is true for the request's days."""

    def __init__(self, sim: Simulator, empty: Callable[[Days, int], bool]) -> None:
        self._answers = sim.transport()
        self._empty = empty
        self.requests: list[Days] = []

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        params = request.url.params
        days = date.fromisoformat(params["from_date"]), date.fromisoformat(params["to_date"])
        self.requests.append(days)
        if self._empty(days, self.requests.count(days)):
            return httpx.Response(200, stream=Body([b""]))
        return await self._answers.handle_async_request(request)


def once(*numbers: int) -> Callable[[Days, int], bool]:
    """Make the first response for each of these single days empty."""
    days = {day(number) for number in numbers}
    return lambda asked, count: count == 1 and asked[0] == asked[1] and asked[0] in days


@pytest.mark.parametrize("number", [0, *slow([4, 8])])
async def test_a_day_that_was_silent_once_loses_nothing(db: Path, number: int) -> None:
    """The day is requested again, wherever it is, and its events arrive."""
    sim = simulator()
    transport = _Silenced(sim, once(number))
    result = await export(sim, db, chunk_days=1, transport=transport)
    assert transport.requests.count((day(number), day(number))) == 2
    assert len(transport.requests) == 10
    assert (held(db), result.empty_batches) == (truth(sim), 0)


@pytest.mark.parametrize("options", [{"one_request": True}, {"limit": 100_000}])
async def test_a_single_request_that_was_silent_once_loses_nothing(db: Path, options: dict[str, Any]) -> None:
    """A single request for the whole range is also repeated."""
    sim = simulator()
    transport = _Silenced(sim, lambda _, count: count == 1)
    await export(sim, db, transport=transport, **options)
    assert transport.requests == [(day(0), day(8))] * 2
    assert held(db) == truth(sim)


async def test_neighbours_that_were_silent_once_are_fetched_one_by_one(db: Path) -> None:
    """They are requested together; that response has a body, so each day is fetched again."""
    sim = simulator()
    transport = _Silenced(sim, once(2, 3, 4))
    await export(sim, db, chunk_days=1, transport=transport)
    assert transport.requests.count((day(2), day(4))) == 1
    assert len(transport.requests) == 9 + 1 + 3
    assert held(db) == truth(sim)


async def test_days_that_are_silent_twice_are_believed_and_reported(db: Path) -> None:
    """One warning names the days, the result counts the batches, and the ledger has them as complete."""
    sim = simulator()
    transport = _Silenced(sim, lambda asked, _: day(2) <= asked[0] <= asked[1] <= day(4))
    with pytest.warns(
        UserWarning, match="^2024-03-03 to 2024-03-05: treated as days without events"
    ) as caught:
        result = await export(sim, db, chunk_days=1, transport=transport)
    assert len(caught) == 1
    assert (result.empty_batches, result.successful_batches, result.failed_batches) == (3, 9, 0)
    assert len(transport.requests) == 9 + 1
    assert [row for row in ledger(db) if row[3] == 0] == [
        (day(number), day(number), "complete", 0) for number in (2, 3, 4)
    ]


async def test_an_empty_project_is_one_more_request(db: Path) -> None:
    """Days with empty responses are requested together and committed together."""
    sim = simulator(events_per_day=0)
    result = await export(sim, db, chunk_days=1)
    assert len(sim.requests) == 10
    assert (result.total_rows, result.empty_batches) == (0, 9)
    assert query(db, "SELECT count(DISTINCT finished) FROM _export_batches") == [(1,)]


async def test_days_for_which_no_request_is_left_have_failed(db: Path) -> None:
    """If there are more runs than second requests, the others fail and are not treated as empty; resume fetches them."""
    sim = simulator()
    numbers = [0, 2, 4, 6, 8, 10]
    transport = _Silenced(sim, lambda asked, _: asked[0] in {day(number) for number in numbers})
    last = str(day(11))
    result = await export(sim, db, last=last, chunk_days=1, transport=transport, per_hour=100, max_workers=12)
    assert len(transport.requests) == 12 + MAX_REQUESTS
    (failed,) = result.failed_date_ranges
    (error,) = result.errors
    assert isinstance(error, TruncatedError)
    assert failed[0] == failed[1]
    assert date.fromisoformat(failed[0]) in {day(number) for number in numbers}
    await export(sim, db, last=last, mode="resume")
    assert query(db, "SELECT count(*) FROM _export_batches WHERE status = 'complete'") == [(12,)]


async def test_a_second_request_that_fails_proves_nothing(db: Path) -> None:
    """If the second request for several days breaks, each of them is fetched separately."""
    sim = simulator(faults=[Fault("500", day(2), day(3), times=100)])
    silenced = _Silenced(sim, once(2, 3))
    result = await export(sim, db, chunk_days=1, retries=0, transport=silenced)
    assert {days[0] for days in result.failed_date_ranges} == {str(day(2)), str(day(3))}
    assert silenced.requests[9] == (day(2), day(3))
    assert sorted(silenced.requests[10:]) == [(day(2), day(2)), (day(3), day(3))]
