"""One request tells whether credentials work; it counts towards the quota, and nothing more is used."""

from datetime import UTC, datetime
from typing import Any

import httpx
import pytest
from support import ACCOUNT, NOW, Body, simulator

from mixpanel_export._quota.shared import Key, SharedQuota
from mixpanel_export._source.check import check_credentials
from mixpanel_export.credentials import Credentials
from mixpanel_export.errors import (
    AuthenticationError,
    MixpanelDataError,
    NetworkError,
    QueryError,
    RateLimitError,
    ServerError,
)
from mixpanel_export.simulator import Fault, Simulator

pytestmark = pytest.mark.anyio

WRONG = Credentials("demo.mp-service-account", "wr0ng", "12345")
ELSEWHERE = Credentials("demo.mp-service-account", "demo-secret", "99")


async def check(sim: Simulator, credentials: Credentials = ACCOUNT, **options: Any) -> int:
    usual: dict[str, Any] = {
        "api_url": "http://127.0.0.1",
        "transport": sim.transport(),
        "now": lambda: NOW,
    }
    return len(await check_credentials(credentials, **(usual | options)))


def used() -> int:
    """Return the number of requests in the quota file."""
    return len(SharedQuota(Key("127.0.0.1", "12345")).read().counted)


@pytest.mark.parametrize("events, found", [(40, 1), (0, 0)])
async def test_good_credentials_cost_one_request_for_one_event(events: int, found: int) -> None:
    """One request for one event of yesterday; a day without events is equally conclusive."""
    sim = simulator(events_per_day=events)
    assert await check(sim) == found
    (request,) = sim.requests
    assert request.params == {
        "project_id": "12345",
        "from_date": "2024-05-31",
        "to_date": "2024-05-31",
        "limit": "1",
    }
    assert used() == 1


@pytest.mark.parametrize(
    "moment", [datetime(2024, 6, 1, 0, 5, tzinfo=UTC), datetime(2024, 6, 1, 23, 55, tzinfo=UTC)]
)
@pytest.mark.parametrize("zone", ["Pacific/Kiritimati", "Pacific/Pago_Pago"])
async def test_the_day_has_begun_everywhere(zone: str, moment: datetime) -> None:
    """No project is asked for a day that has not begun there, in any time zone and at any hour."""
    sim = simulator(timezone=zone, now=lambda: moment)
    assert await check(sim, now=lambda: moment) == 1


@pytest.mark.parametrize(
    "credentials, faults, error",
    [
        (WRONG, [], AuthenticationError),
        (ACCOUNT, [Fault("auth_text_400")], AuthenticationError),
        (ACCOUNT, [Fault("auth_text_200")], AuthenticationError),
        (ELSEWHERE, [], QueryError),
        (ACCOUNT, [Fault("402")], QueryError),
        (ACCOUNT, [Fault("503")], ServerError),
        (ACCOUNT, [Fault("reset_before_head")], NetworkError),
    ],
)
async def test_what_is_not_proven_is_an_error(
    credentials: Credentials, faults: list[Fault], error: type[MixpanelDataError]
) -> None:
    """Every other response raises an error immediately, after one request."""
    sim = simulator(faults=faults)
    with pytest.raises(error):
        await check(sim, credentials)
    assert len(sim.requests) == 1


async def test_refused_credentials_cost_nothing_of_the_hour() -> None:
    """Mixpanel does not count requests that it rejects with 401, and neither does this package."""
    with pytest.raises(AuthenticationError):
        await check(simulator(), WRONG)
    assert used() == 0


async def test_a_spent_hour_is_said_at_once() -> None:
    """If the hour is used up, the check does not wait, and no request is sent."""
    quota = SharedQuota(Key("127.0.0.1", "12345"), 0, 0)
    for _ in range(60):
        assert quota.take_slot().ticket
    sim = simulator()
    with pytest.raises(RateLimitError, match="another 60 min; try again then"):
        await check(sim)
    assert not sim.requests


async def test_a_refusal_for_the_quota_is_not_waited_for() -> None:
    """A 429 tells nothing about credentials, and is not retried."""
    sim = simulator(faults=[Fault("429", retry_after=900)])
    with pytest.raises(RateLimitError, match=r"cannot be checked.*another \d+ min; try"):
        await check(sim)
    assert len(sim.requests) == 1


async def test_a_project_secret_is_checked_without_a_project() -> None:
    """A legacy secret identifies its project itself."""
    sim = simulator(legacy_secret="old")
    assert await check(sim, Credentials(None, "old", "12345")) == 1
    assert "project_id" not in sim.requests[0].params


async def test_an_answer_that_is_cut_proves_nothing() -> None:
    """A 200 whose body is incomplete is an error, as in an export."""

    def handle(_: httpx.Request) -> httpx.Response:
        return httpx.Response(200, stream=Body([b'{"event":"A","prop']))

    with pytest.raises(MixpanelDataError, match="not an event"):
        await check(simulator(), transport=httpx.MockTransport(handle))
