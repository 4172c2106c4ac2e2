"""The requests of a verification to the Query API: their number, retries, errors, and the quota."""

import json
from pathlib import Path
from typing import Any

import httpx
import pytest
from examples import slow
from hypothesis import given
from hypothesis import strategies as st
from projects import change, exported, exported_project, project, verified
from support import Body

from mixpanel_export import errors
from mixpanel_export._quota.shared import Key, SharedQuota
from mixpanel_export._source.event_counts import name_groups
from mixpanel_export.credentials import Credentials
from mixpanel_export.simulator import Fault

pytestmark = pytest.mark.anyio

KINDS: list[Any] = [
    "429",
    "error_line",
    "reset",
    "empty_200",
    *slow(
        ["500", "cut_line", "502", "503", "504", "timeout_error", "error_fragment", "garbage_line", "close"]
    ),
    *slow(["reset_before_head", "close_before_head", "truncated_gzip"]),
]


@pytest.mark.parametrize("kind", KINDS)
async def test_a_request_that_fails_is_repeated(kind: Any, db: Path) -> None:
    """After each kind of failure, the result is the same as without failures."""
    sim = await exported_project(db)
    sim.query_faults = [Fault(kind, times=2)]
    result = await verified(sim, db)
    assert result.verified
    assert result.differences == ()
    assert result.requests == len(sim.query_requests) == 4


@pytest.mark.parametrize(
    "kind, error",
    [
        ("auth_text_200", errors.AuthenticationError),
        ("402", errors.QueryError),
        ("cut_line", errors.TruncatedError),
        *slow([("500", errors.ServerError), ("reset", errors.NetworkError)]),
        *slow([("401", errors.AuthenticationError), ("auth_text_400", errors.AuthenticationError)]),
        *slow([("403", errors.QueryError), ("404", errors.QueryError), ("error_line", errors.ServerError)]),
    ],
)
async def test_a_failure_that_stays_is_an_error(kind: Any, error: type[errors.APIError], db: Path) -> None:
    """Its class is that of an export's error, and it has the request without credentials."""
    sim = await exported_project(db)
    sim.query_faults = [Fault(kind)]
    with pytest.raises(error) as caught:
        await verified(sim, db, retries=1)
    assert caught.value.request_url == "http://127.0.0.1/api/query/events"
    assert caught.value.request_params is not None
    assert caught.value.request_params["type"] == "general"
    assert "demo-secret" not in repr(vars(caught.value))
    final = {errors.AuthenticationError, errors.QueryError}
    assert len(sim.query_requests) == (1 if error in final else 2)


async def test_a_wrong_secret_is_an_authentication_error(db: Path) -> None:
    """The error has the same class as in an export."""
    sim = await exported_project(db)
    with pytest.raises(errors.AuthenticationError):
        await verified(sim, db, credentials=Credentials("other", "wrong-secret", "12345"))


@pytest.mark.parametrize(
    "answer",
    [
        {"data": {"values": []}},
        {"data": {"values": {"Page View": {"someday": 3}}}},
        {"data": {"values": {"Page View": {"2024-05-03": 3.5}}}},
        *slow([[], {"data": {}}, {"computed_at": "2024-05-03"}, {"data": {"values": {"Page View": 3}}}]),
        *slow({"data": {"values": {"Page View": {"2024-05-03": number}}}} for number in ("3", True)),
    ],
)
async def test_an_answer_of_another_form_is_an_error(answer: object, db: Path) -> None:
    """Responses of another form are errors; no number is guessed."""
    await exported_project(db)

    def handle(_: httpx.Request) -> httpx.Response:
        return httpx.Response(200, stream=Body([json.dumps(answer).encode()]))

    with pytest.raises(errors.TruncatedError):
        await verified(project(), db, transport=httpx.MockTransport(handle))


async def test_an_answer_is_read_with_all_forms_of_numbers_and_days(db: Path) -> None:
    """Whole numbers may be written as decimals, and days may have a time."""
    sim = project(events_per_day=30)
    await exported(sim, db)
    whole = sim.transport()

    async def handle(request: httpx.Request) -> httpx.Response:
        answer = await whole.handle_async_request(request)
        await answer.aread()
        body = answer.json()
        if isinstance(body, dict):
            for name, counts in body["data"]["values"].items():
                body["data"]["values"][name] = {f"{day} 00:00:00": float(n) for day, n in counts.items()}
        return httpx.Response(200, stream=Body([json.dumps(body).encode()]))

    assert (await verified(sim, db, transport=httpx.MockTransport(handle))).differences == ()


@given(st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=60), unique=True, max_size=500))
def test_names_are_requested_in_few_groups(names: list[str]) -> None:
    """Each name is in one group, in order, and no group is longer than a request may be."""
    groups = list(name_groups(names))
    assert [name for group in groups for name in group] == names
    assert all(len(group) <= 200 and sum(len(name.encode()) for name in group) <= 4000 for group in groups)
    if names:
        assert len(groups) <= 1 + sum(len(name.encode()) for name in names) / 2000 + len(names) / 100


def test_a_name_that_is_too_long_has_a_group_of_its_own() -> None:
    """A very long name is sent; the server decides whether to accept it."""
    assert list(name_groups(["a", "b" * 5000, "c"])) == [["a"], ["b" * 5000], ["c"]]


async def test_many_names_need_few_requests_5_at_a_time(db: Path) -> None:
    """A thousand names take five requests, and a sixth asks for the names of the last month."""
    sim = project(queries_concurrent=5)
    await exported(sim, db)

    change(db, "UPDATE events SET event_name = event_name || (rowid % 200)::VARCHAR")
    result = await verified(sim, db)
    assert not result.verified
    names = {name for log in sim.query_requests for name in json.loads(log.params.get("event", "[]"))}
    assert len(names) > 500
    assert len(sim.query_requests) <= len(names) // 200 + 4
    assert {log.status for log in sim.query_requests} == {200}


async def test_a_spent_quota_is_waited_for_or_refused(db: Path) -> None:
    """If `max_wait` is short, a verification ends before it sends a request that the quota does not allow."""
    sim = await exported_project(db)
    with pytest.raises(errors.RateLimitError) as caught:
        await verified(sim, db, per_hour=1, max_wait=10.0)
    assert caught.value.argument == "max_wait"
    assert caught.value.retry_after == pytest.approx(3600, abs=60)
    assert len(sim.query_requests) == 1


async def test_a_long_wait_is_a_warning(db: Path) -> None:
    """Here a warning is an error, so the wait does not begin."""
    sim = await exported_project(db)
    quota = SharedQuota(Key("127.0.0.1", "12345", "query"), 0, 1)
    assert quota.take_slot().ticket
    with pytest.raises(errors.AdvisoryWarning) as caught:
        await verified(sim, db, per_hour=1)
    assert caught.value.argument == "max_wait"
    assert not sim.query_requests


async def test_exports_and_queries_use_separate_quotas(db: Path) -> None:
    """A verification uses the exports' quota only if events may be hidden."""
    sim = await exported_project(db)
    before = len(sim.requests)
    await verified(sim, db)
    assert len(sim.requests) == before


async def test_another_machine_may_use_up_the_quota(db: Path) -> None:
    """After a refusal, the request waits; the refusal does not count as a failed attempt."""
    sim = await exported_project(db)
    sim.query_faults = [Fault("429", times=8, retry_after=None)]
    result = await verified(sim, db, retries=0)
    assert result.verified
    assert result.requests == 10
