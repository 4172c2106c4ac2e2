"""The simulator's `where` in requests: matching events are in the answers, and refused expressions are errors."""

import json
from datetime import date
from itertools import chain

import httpx
import pytest
from support import simulator

from mixpanel_export.simulator import Rules, Simulator, checksum
from mixpanel_export.simulator.where import GRAMMAR

FIRST, LAST = date(2024, 3, 4), date(2024, 3, 6)


async def get(sim: Simulator, where: str, **params: str) -> httpx.Response:
    """Send one request over the transport."""
    days = {"from_date": str(FIRST), "to_date": str(LAST), "project_id": "12345"}
    auth = ("demo.mp-service-account", "demo-secret")
    async with httpx.AsyncClient(base_url="http://simulator", transport=sim.transport(), auth=auth) as http:
        return await http.get("/api/2.0/export", params=days | {"where": where} | params)


def lines(response: httpx.Response) -> list[bytes]:
    """Return the lines of a body, sorted."""
    assert response.status_code == 200, response.text
    return sorted(response.content.split(b"\n")[:-1])


@pytest.mark.anyio
async def test_an_answer_has_the_matching_events() -> None:
    """A response has the lines that match the expression, like the truth, and does not depend on earlier requests."""
    sim = simulator(events_per_day=300)
    sim.prepare(FIRST, LAST)
    every = sorted(sim.lines(FIRST, LAST))
    teams = [line for line in every if json.loads(line)["properties"].get("plan") == "team"]
    assert 0 < len(teams) < len(every)
    where = 'properties["plan"] == "team"'
    for _ in range(2):
        assert lines(await get(sim, where)) == teams == sorted(sim.lines(FIRST, LAST, where=where))
        assert lines(await get(sim, "true")) == every
        assert lines(await get(sim, "false")) == []
    truth = sim.truth(FIRST, LAST, where=where)
    assert truth.rows == len(teams)
    assert truth.checksum == checksum(sim.rows(FIRST, LAST, where=where)) != sim.truth(FIRST, LAST).checksum


@pytest.mark.anyio
async def test_where_combines_with_the_other_parameters() -> None:
    """`event`, `limit` and `time_in_ms` apply to the events that match."""
    sim = simulator(events_per_day=300)
    where, names = 'properties["plan"] == "team"', ["Page View"]
    both = sorted(sim.lines(FIRST, LAST, events=names, where=where))
    assert lines(await get(sim, where, event=json.dumps(names))) == both
    assert set(both) < set(sim.lines(FIRST, LAST, where=where))
    assert len(lines(await get(sim, where, limit="5"))) == 5
    in_ms = lines(await get(sim, f'{where} and event["$time"] < datetime("2024-03-05")', time_in_ms="true"))
    assert {len(str(json.loads(line)["properties"]["time"])) for line in in_ms} >= {13}


@pytest.mark.anyio
async def test_times_partition_a_day() -> None:
    """Every event is before a moment, or not before it, or has no time."""
    sim = simulator(events_per_day=300, odd=0.01)
    noon = 'datetime("2024-03-05T12:00:00")'
    parts = [f'event["$time"] < {noon}', f'properties["$time"] >= {noon}', 'not defined(event["$time"])']
    answers = [lines(await get(sim, part)) for part in parts]
    assert all(answers)
    assert sorted(chain(*answers)) == sorted(sim.lines(FIRST, LAST))


@pytest.mark.anyio
@pytest.mark.parametrize("where", ["", "properties[", "(" * 2000])
async def test_a_refused_expression_is_400(where: str) -> None:
    """A refusal is a JSON error that names the simulator's limit, or has the text from `Rules.wording`."""
    refused = await get(simulator(), where)
    assert refused.status_code == 400
    assert refused.json()["error"].startswith("invalid where: ")
    assert refused.json()["error"].endswith(GRAMMAR)
    other = await get(simulator(rules=Rules(wording={"where": "no such selector"})), where)
    assert other.json()["error"] == "no such selector"


def test_truth_refuses_an_invalid_expression() -> None:
    """`Simulator.truth` raises ValueError."""
    with pytest.raises(ValueError, match="unexpected end"):
        simulator().truth(FIRST, LAST, where="properties[")
