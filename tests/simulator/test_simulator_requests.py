"""Which requests the simulator's export endpoint accepts or refuses, and which events it selects."""

import json
from datetime import date
from typing import Literal

import pytest
from endpoint import DAYS, FIRST, LAST, PATH, both, client, get, lines_of, simulator

from mixpanel_export.simulator import Rules
from mixpanel_export.simulator.faults import FixedResponse
from mixpanel_export.simulator.parse import Project, Query, Request, Subject, parse

pytestmark = pytest.mark.anyio


async def test_event_filter() -> None:
    """`event` selects the events with these names, whatever characters the names contain."""
    sim = simulator(events_per_day=300)
    names = ["Search 🔍", 'Clicked "Buy now"', "Two\nLines & More", "Café Visited"]
    response = await get(sim, event=json.dumps(names))
    assert lines_of(response) == sorted(sim.lines(FIRST, LAST, events=names))
    assert {json.loads(line)["event"] for line in lines_of(response)} == set(names)
    assert (await get(sim, event='["no such event"]')).content == b""


async def test_limit() -> None:
    """`limit` returns that many lines, or all if there are fewer."""
    sim = simulator()
    everything = sorted(sim.lines(FIRST, LAST))
    limited = lines_of(await get(sim, limit="7"))
    assert len(limited) == 7
    assert set(limited) <= set(everything)
    assert lines_of(await get(sim, limit="100000")) == everything


@pytest.mark.parametrize("flag", ["true", "True", "1"])
async def test_time_in_ms(flag: str) -> None:
    """`time_in_ms` returns times in milliseconds and changes nothing else."""
    sim = simulator()
    in_seconds = {
        event["properties"]["$insert_id"]: event
        for event in map(json.loads, sim.lines(FIRST, LAST))
        if event["properties"].get("$insert_id")
    }
    events = [json.loads(line) for line in lines_of(await get(sim, time_in_ms=flag))]
    assert len(events) == len(list(sim.lines(FIRST, LAST)))
    for event in events:
        assert len(str(event["properties"]["time"])) == 13
    event = next(event for event in events if event["properties"].get("$insert_id"))
    same = in_seconds[event["properties"]["$insert_id"]]
    assert event["properties"]["time"] // 1000 == same["properties"]["time"]
    assert event["properties"] | {"time": 0} == same["properties"] | {"time": 0}


async def test_unknown_parameters_are_ignored() -> None:
    """Unknown parameters change nothing."""
    sim = simulator()
    response = await get(sim, bucket="x", workspace_id="7")
    assert lines_of(response) == sorted(sim.lines(FIRST, LAST))


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"from_date": None}, "missing required parameter: from_date"),
        ({"to_date": None}, "missing required parameter: to_date"),
        ({"from_date": "20240304"}, "Error in from_date: invalid date"),
        ({"to_date": "2024-02-30"}, "Error in to_date: invalid date"),
        ({"from_date": "1999-12-31"}, "bad year"),
        ({"from_date": "2024-03-07"}, "to_date must not be before from_date"),
        ({"event": "Page View"}, "event must be a JSON array"),
        ({"event": '{"a": 1}'}, "event must be a JSON array"),
        ({"event": "[1]"}, "event must be a JSON array"),
        ({"limit": "0"}, "limit must be"),
        ({"limit": "100001"}, "limit must be"),
        ({"limit": "many"}, "limit must be"),
        ({"where": "properties["}, "invalid where: unexpected end; this simulator reads only the grammar of"),
        ({"project_id": None}, "missing required parameter: project_id"),
    ],
)
async def test_invalid_parameters_are_400(changes: dict[str, str | None], message: str) -> None:
    """A missing, malformed or out-of-range parameter is refused with a JSON error that repeats the request."""
    response = await get(simulator(), **changes)
    assert response.status_code == 400
    error = response.json()
    assert message in error["error"]
    assert error["request"].startswith(PATH)


async def test_to_date_may_be_today_but_not_later() -> None:
    """Today in UTC is the last day that can be requested."""
    assert (await get(simulator(), to_date="2024-06-01")).status_code == 200
    response = await get(simulator(), to_date="2024-06-02")
    assert (response.status_code, response.text) == (400, "to_date cannot be later than today")


async def test_today_is_a_parameter_of_parsing() -> None:
    """`parse` takes the last permitted day from its caller."""
    project = Project("u", "s", "1")
    request = Request("GET", f"{PATH}?from_date=2024-03-04&to_date=2024-03-06", {})
    assert isinstance(parse(project, request, date(2024, 3, 6)), Query)
    refused = parse(project, request, date(2024, 3, 5))
    assert refused == FixedResponse(400, "to_date cannot be later than today")


async def test_the_history_limit_is_403() -> None:
    """Days before the plan's history are refused, with the number of days in the message."""
    sim = simulator(history_days=60)
    response = await get(sim)
    assert response.status_code == 403
    assert response.json()["error"] == "Date range exceeds 60 days into the past"
    assert (await get(sim, from_date="2024-04-02", to_date="2024-04-03")).status_code == 200


# Credentials


@pytest.mark.parametrize(
    "header",
    [
        "",
        "Bearer x",
        "Basic !",
        "Basic ZGVtbzpkZW1v",
        "Basic /////w==",
        "Basic demo.mp-service-account:wrong",
    ],
)
async def test_wrong_credentials_are_401(header: str) -> None:
    """Wrong or missing credentials get a JSON error and no events."""
    async with client(simulator(), auth=None, headers={"authorization": header}) as http:
        response = await http.get(PATH, params=DAYS)
    assert response.status_code == 401
    assert response.json()["error"] == "Invalid credentials"


async def test_plain_text_credentials_are_accepted() -> None:
    """The header may contain user name and secret without base64."""
    header = {"authorization": "Basic demo.mp-service-account:demo-secret"}
    async with client(simulator(), auth=None, headers=header) as http:
        assert (await http.get(PATH, params=DAYS)).status_code == 200


async def test_another_project_is_403() -> None:
    """The account has access to its own project only."""
    assert (await get(simulator(), project_id="999")).status_code == 403


async def test_a_legacy_secret_excludes_project_id() -> None:
    """A project secret is a user name without a password, and is refused together with project_id."""
    sim = simulator(legacy_secret="old")
    days = {name: value for name, value in DAYS.items() if name != "project_id"}
    async with client(sim, auth=("old", "")) as http:
        assert (await http.get(PATH, params=days)).status_code == 200
        assert (await http.get(PATH, params=DAYS)).status_code == 400
    async with client(simulator(), auth=("old", "")) as http:
        assert (await http.get(PATH, params=days)).status_code == 401


# Rules, for what Mixpanel does not document


async def test_a_limit_above_the_maximum_can_be_clamped() -> None:
    """With that rule a `limit` above 100,000 counts as 100,000; otherwise, and below 1, it is refused."""
    clamping = simulator(rules=Rules(over_limit="clamp"))
    for limit in ("100001", "9" * 18):
        assert lines_of(await get(clamping, limit=limit)) == sorted(clamping.lines(FIRST, LAST))
        assert (await get(simulator(), limit=limit)).status_code == 400
    assert (await get(clamping, limit="0")).status_code == 400


async def test_a_missing_project_can_be_401() -> None:
    """A service account without project_id gets status 400 or 401."""
    for status in (400, 401):
        response = await get(simulator(rules=Rules(missing_project_id=status)), project_id=None)
        assert response.status_code == status
        assert "project_id" in response.json()["error"]


async def test_wrong_credentials_can_be_plain_text() -> None:
    """Wrong credentials can get plain text with status 400 or even 200."""
    text = "Unable to authenticate request"
    cases: list[tuple[Literal["auth_text_400", "auth_text_200"], int]] = [
        ("auth_text_400", 400),
        ("auth_text_200", 200),
    ]
    for kind, status in cases:
        sim = simulator(rules=Rules(unauthenticated=kind))
        async with client(sim, auth=("x", "y")) as http:
            response = await http.get(PATH, params=DAYS)
        assert (response.status_code, response.text) == (status, text)
        assert (await get(sim)).status_code == 200


@pytest.mark.parametrize(
    "subject, changes, status",
    [
        ("from_date", {"from_date": "x"}, 400),
        ("to_date", {"to_date": "2024-03-01"}, 400),
        ("today", {"to_date": "2024-06-02"}, 400),
        ("history", {"from_date": "2020-01-01"}, 403),
        ("event", {"event": "x"}, 400),
        ("limit", {"limit": "x"}, 400),
        ("where", {"where": "x"}, 400),
        ("project_id", {"project_id": None}, 400),
        ("project_id", {"project_id": "9"}, 403),
    ],
)
async def test_the_text_of_every_refusal_can_be_replaced(
    subject: Subject, changes: dict[str, str | None], status: int
) -> None:
    """`Rules.wording` replaces the text for one subject; the status and the other texts are unchanged."""
    rules = Rules(wording={subject: "in other words"})
    response = await get(simulator(rules=rules, history_days=365), **changes)
    assert response.status_code == status
    assert "in other words" in response.text
    other = await get(simulator(rules=rules), **({"event": "x"} if subject != "event" else {"limit": "x"}))
    assert "in other words" not in other.text


async def test_refusals_have_the_configured_shape() -> None:
    """A refusal is plain text, or JSON with the text alone, with the request, or with a status."""
    for changes in ({"from_date": None}, {"to_date": "2024-06-02"}):
        bodies = {}
        for shape in ("text", "error", "status", "request", "seen"):
            response = await get(simulator(rules=Rules(shape=shape)), **changes)
            assert response.status_code == 400
            bodies[shape] = response.text
        text = bodies["text"]
        assert json.loads(bodies["error"]) == {"error": text}
        assert json.loads(bodies["status"]) == {"error": text, "status": "error"}
        request = json.loads(bodies["request"])
        assert (request["error"], request["request"].partition("?")[0]) == (text, PATH)
        assert bodies["seen"] == bodies["request" if "from_date" in changes else "text"]


async def test_a_long_request_can_be_414() -> None:
    """A request above the maximum length is refused before its credentials are read, and does not count."""
    sim = simulator(rules=Rules(longest_target=500), per_hour=1)
    async with both(sim) as clients:
        for http in clients:
            refused = await http.get(PATH, params=DAYS | {"bucket": "x" * 500}, auth=("x", "y"))
            assert (refused.status_code, refused.headers["content-type"]) == (414, "text/html")
    assert [log.status for log in sim.requests] == [414, 414]
    assert (await get(sim)).status_code == 200
