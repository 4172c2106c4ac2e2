"""User profiles of the Query API, compared with the simulator's truth: sessions, selections, limits and failures."""

import json
from datetime import datetime
from typing import Any
from urllib.parse import urlencode

import pytest
from endpoint import FIRST, LAST, both, client
from profile_pages import PATH, PROJECT, UNCACHED, page, project, rows

from mixpanel_export.simulator import Cohort, Simulator

pytestmark = pytest.mark.anyio


async def session(sim: Simulator, **params: str) -> list[dict[str, Any]]:
    """Return the pages of one session, until one is not full."""
    pages = [rows(first := await page(sim, **params))]
    answer = first.json()
    while len(pages[-1]) == answer["page_size"]:
        following = {"page": str(len(pages)), "session_id": answer["session_id"]}
        pages.append(rows(await page(sim, **params, **following)))
    return pages


def parsed(truth: dict[str, str]) -> dict[str, Any]:
    return {key: json.loads(properties) for key, properties in truth.items()}


@pytest.mark.parametrize("profiles, sizes", [(0, [0]), (9, [9]), (10, [10, 0]), (25, [10, 10, 5])])
async def test_the_pages_of_a_session_are_the_truth(profiles: int, sizes: list[int]) -> None:
    """Each page but the last is full, a page beyond the end is empty, and no profile is on two pages."""
    sim = project(profiles)
    pages = await session(sim)
    assert [len(each) for each in pages] == sizes
    merged = {key: value for each in pages for key, value in each.items()}
    assert list(merged.items()) == list(parsed(sim.profile_truth()).items())
    assert len(merged) == profiles


async def test_requests_are_forms_json_or_urls_on_both_transports() -> None:
    """The parameters of the body go over those of the URL, and lists and numbers in JSON mean their text."""
    sim = project()
    ids = list(sim.profile_truth())[3:5]
    params = PROJECT | {"distinct_ids": json.dumps(ids)}
    values = {"project_id": 12345, "distinct_ids": ids, "where": None}
    answers = []
    async with both(sim) as clients:
        for http in clients:
            answers += [
                await http.get(PATH, params=params),
                await http.get("/api/2.0/engage", params=params),
                await http.post(
                    f"/api/2.0/engage/?{urlencode(PROJECT | {'distinct_ids': '[]'})}", data=params
                ),
                await http.post(f"{PATH}/", json=values),
            ]
    assert [list(rows(answer)) for answer in answers] == [ids] * 8


@pytest.mark.parametrize("totals, later", [("all", {"total", "page_size"}), ("first", set())])
async def test_later_pages_can_lack_the_total(totals: Any, later: set[str]) -> None:
    """The first page always has it; the page size is the request's if it has one."""
    sim = project(totals=totals)
    first = (await page(sim, page_size="7")).json()
    assert (first["page"], first["page_size"], first["total"], first["status"]) == (0, 7, 25, "ok")
    second = (await page(sim, page_size="7", page="1", session_id=first["session_id"])).json()
    assert second["page"] == 1
    assert len(second["results"]) == 7
    assert second.keys() & {"total", "page_size"} == later


async def test_profiles_belong_to_the_users_of_the_events() -> None:
    """Many events have a profile."""
    sim = project(2000, events_per_day=300)
    users = {row.distinct_id for row in sim.rows(FIRST, LAST)}
    assert len(users & sim.profile_truth().keys()) > 0.8 * len(users)


async def test_odd_and_awkward_profiles_are_sent_as_text() -> None:
    """Ids can be numbers; the truth has the text that was sent, except for lone surrogates."""
    sim = project(1000, 1000, odd=0.3, awkward=0.4)
    truth = sim.profile_truth()
    text = (await page(sim, page_size="1000")).text
    assert len(truth) == 1000
    sent = json.loads(text)["results"]
    assert [str(each["$distinct_id"]) for each in sent] == list(truth)
    assert any(isinstance(each["$distinct_id"], int) for each in sent)
    exact = [properties for properties in truth.values() if properties in text]
    assert 800 < len(exact) < 1000
    assert "1E5" in text
    assert rb"\ud83d" in text.encode()
    assert {type(row.last_seen) for row in sim.profile_rows()} == {type(None), datetime}
    assert all("$properties" in each for each in json.loads((await page(project())).text)["results"])


async def test_where_and_properties_select() -> None:
    """`where` reads the profile, and properties keep their order and text."""
    sim = project(300, 1000)
    where = 'properties["plan"] == "team" and user["$country_code"] == "DE"'
    matches = parsed(sim.profile_truth(where=where, properties=["plan", "$email"]))
    assert 5 < len(matches) < 100
    assert {frozenset(each) for each in matches.values()} == {frozenset({"plan", "$email"})}
    assert rows(await page(sim, where=where, output_properties='["plan","$email"]')) == matches
    one = list(sim.profile_truth())[7]
    assert list(rows(await page(sim, distinct_id=one))) == [one]
    assert list(rows(await page(sim, where=f'properties["$distinct_id"] == {json.dumps(one)}'))) == [one]


async def test_a_cohort_can_have_members_without_a_profile() -> None:
    """They are included unless the request says otherwise; another cohort does not exist."""
    sim = project(100, 1000, cohorts=(Cohort(7, 0.3, without_profile=4),))
    everybody = rows(await page(sim, filter_by_cohort='{"id":7}'))
    profiles = rows(await page(sim, filter_by_cohort='{"id":7}', include_all_users="false"))
    assert everybody == parsed(sim.profile_truth(cohort=7))
    assert profiles == parsed(sim.profile_truth(cohort=7, include_all_users=False))
    assert len(everybody) == len(profiles) + 4
    assert (await page(sim, filter_by_cohort='{"id":8}')).status_code == 400


async def test_groups_have_profiles_of_their_own() -> None:
    """Their type is a number of 19 digits, kept exactly."""
    group = "1234567890123456789"
    sim = project(5, groups={group: 3})
    async with client(sim) as http:
        answer = await http.post(PATH, json={"project_id": "12345", "data_group_id": int(group)})
    assert rows(answer) == parsed(sim.profile_truth(group=group))
    assert len(rows(answer)) == 3
    assert rows(await page(sim, data_group_id="1234567890123456788")) == {}


async def test_behaviors_need_a_time_beyond_the_first_page() -> None:
    """Otherwise the later pages are not cached."""
    sim = project(200)
    params = {
        "behaviors": json.dumps([{"window": "30d", "name": "b", "event_selectors": [{"event": "x"}]}]),
        "where": 'behaviors["b"] > 1',
    }
    first = await page(sim, **params)
    assert 40 < first.json()["total"] < 160
    later = {"page": "1", "session_id": first.json()["session_id"]}
    assert (await page(sim, **params, **later)).json()["error"] == UNCACHED
    assert len(rows(await page(sim, **params, as_of_timestamp="1700000000", **later))) == 10


@pytest.mark.parametrize(
    "params",
    [
        {"where": "properties["},
        {"page": "-1"},
        {"page_size": "0"},
        {"distinct_ids": "[1.5]"},
        {"distinct_ids": json.dumps(["x"] * 2001)},
        {"output_properties": "$email"},
        {"filter_by_cohort": "7"},
        {"include_all_users": "maybe"},
        {"as_of_timestamp": "today"},
        {"behaviors": "{}"},
        {"behaviors": '[{"name":"b"}]', "filter_by_cohort": '{"id":7}'},
        {"page": "1"},
        {"page": "1", "session_id": "unknown"},
    ],
)
async def test_invalid_requests_are_refused(params: dict[str, str]) -> None:
    """With status 400 and a reason in JSON."""
    response = await page(project(cohorts=(Cohort(7),)), **params)
    assert response.status_code == 400
    assert response.json()["error"]


async def test_a_session_is_for_one_selection_and_ends() -> None:
    """After its time, or for other parameters, its pages are not cached."""
    now = 0.0
    sim = project(session_seconds=60, clock=lambda: now)
    later = {"page": "1", "session_id": (await page(sim)).json()["session_id"]}
    assert (await page(sim, where='properties["plan"] == "team"', **later)).json()["error"] == UNCACHED
    now = 59.0
    assert len(rows(await page(sim, **later))) == 10
    now = 60.0
    assert (await page(sim, **later)).json()["error"] == UNCACHED


async def test_requests_with_a_session_do_not_count_for_the_hour() -> None:
    """Event counts and profiles share the hour; pages are served even when it is used up."""
    sim = project(queries_per_hour=2, clock=lambda: 100.0)
    later = {"page": "1", "session_id": (await page(sim)).json()["session_id"]}
    async with client(sim) as http:
        assert (await http.get("/api/query/events/names", params=PROJECT)).status_code == 200
    response = await page(sim)
    assert response.status_code == 429
    assert "(3/2 queries running in the last hour)" in response.json()["error"]
    assert response.json()["request"] == f"https://mixpanel.com{PATH}"
    assert response.headers["ratelimit"] == '"project";r=0;t=3600, "project-concurrency";r=5'
    assert [(await page(sim, **later)).status_code for _ in range(5)] == [200] * 5
    assert [log.status for log in sim.profile_requests] == [200, 429, *[200] * 5]
    assert len(sim.query_requests) == 1


async def test_pages_count_as_concurrent_requests() -> None:
    """One more is refused, with a session or without."""
    sim = project(queries_concurrent=1)
    later = {"page": "1", "session_id": (await page(sim)).json()["session_id"]}
    async with client(sim) as http, http.stream("POST", PATH, data=PROJECT | later):
        response = await page(sim, **later)
    assert response.status_code == 429
    assert "(2/1 queries running concurrently)" in response.json()["error"]
    assert response.headers["retry-after"] == "10"
    assert sim.max_concurrent_queries == 1


async def test_a_revision_changes_later_sessions() -> None:
    """Some profiles are new, changed or gone; a session that has started keeps its state."""
    sim = project(500, 250, odd=0.1, awkward=0.1)
    before = sim.profile_truth()
    later = {"page": "1", "session_id": (await page(sim)).json()["session_id"]}
    sim.profile_revision = 1
    assert list(rows(await page(sim, **later))) == list(before)[250:]
    after = sim.profile_truth()
    assert after.keys() - before.keys()
    assert before.keys() - after.keys()
    changed = [key for key in before.keys() & after.keys() if before[key] != after[key]]
    assert 20 < len(changed) < 100
    assert list(rows(await page(sim))) == list(after)[:250]
