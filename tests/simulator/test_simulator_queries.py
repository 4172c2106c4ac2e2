"""The event counts of the Query API, compared with the events themselves; its limits, refusals and failures."""

import json
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta
from typing import Any

import httpx
import pytest
from endpoint import FIRST, LAST, both, client, simulator

from mixpanel_export.simulator import Change, Counting, Fault, Simulator

PATH = "/api/query/events"
DAYS = {"from_date": str(FIRST), "to_date": str(LAST), "project_id": "12345"}
pytestmark = pytest.mark.anyio


async def get(sim: Simulator, names: Sequence[str], path: str = PATH, **changes: str) -> httpx.Response:
    """Send one request for the counts of *names* over the transport."""
    params = {"type": "general", "unit": "day", "event": json.dumps(names)} | DAYS | changes
    async with client(sim) as http:
        return await http.get(path, params=params)


async def counts(sim: Simulator, **changes: str) -> Counter[tuple[str, str]]:
    """Return the counts of all names with any events, by name and day."""
    names = sorted({name for day in days() for name in sim.counts(day)})
    response = await get(sim, names, **changes)
    assert response.status_code == 200
    values = response.json()["data"]["values"]
    return Counter({(name, day): n for name, by_day in values.items() for day, n in by_day.items()})


def days() -> list[date]:
    return [FIRST + timedelta(days=number) for number in range((LAST - FIRST).days + 1)]


def rows(sim: Simulator) -> Counter[tuple[str, str]]:
    """Return the number of rows of a correct table, by name and day."""
    return Counter((str(row[0]), str(row[1].date())) for row in sim.rows(FIRST, LAST) if row[1])


async def test_counts_are_those_of_the_events_without_duplicates() -> None:
    """By default an identity counts once, like a row in a correct table."""
    sim = simulator(events_per_day=200, duplicates=0.3)
    assert await counts(sim) == rows(sim)


async def test_an_answer_leaves_out_days_and_names_without_events() -> None:
    """The form is that of Mixpanel's example."""
    sim = simulator(events_per_day=lambda day: 40 if day == FIRST else 0)
    body = (await get(sim, ["Page View", "No Such Event"])).json()
    views = sum(row.event_name == "Page View" for row in sim.rows(FIRST, FIRST))
    assert body == {
        "data": {"series": [str(day) for day in days()], "values": {"Page View": {str(FIRST): views}}},
        "legend_size": 1,
    }
    sim = simulator(events_per_day=0, counting=Counting(zeros=True))
    body = (await get(sim, ["Page View"])).json()
    assert body["data"]["values"] == {"Page View": {str(day): 0 for day in days()}}


async def test_duplicates_count_by_three_rules() -> None:
    """Every line, every identity, or every identity and day."""
    lines, identical, compacted = [
        simulator(duplicates=0.5, counting=Counting(duplicates=rule))
        for rule in ("none", "identical", "compacted")
    ]
    totals = [(await counts(sim)).total() for sim in (lines, identical, compacted)]
    assert totals[0] == len(list(lines.lines(FIRST, LAST)))
    assert totals[0] > totals[1] > totals[2]


@pytest.mark.parametrize("zone", ["US/Pacific", "Asia/Kolkata"])
async def test_the_reporting_zone_moves_events_between_days(zone: str) -> None:
    """Its days begin at another time; on a single day without neighbours nothing is lost."""
    only = days()[1]
    sim = simulator(events_per_day=lambda day: 500 if day == only else 0, counting=Counting(timezone=zone))
    by_day = Counter(day for name, day in (await counts(sim)).elements())
    assert by_day.total() == sim.truth(only, only).distinct
    assert len(by_day) == 2


async def test_a_local_project_has_local_days() -> None:
    """Without a reporting zone, the days are those of the export."""
    sim = simulator(timezone="US/Pacific")
    assert (await counts(sim)).total() == sim.truth(FIRST, LAST).distinct


async def test_counts_have_a_delay_of_their_own() -> None:
    """Queries can run ahead of exports, and behind them."""

    def now() -> datetime:
        return datetime(2024, 3, 6, 12, tzinfo=UTC)

    ahead = simulator(now=now, visible_after=3600.0, late=0.5, counting=Counting(delay=0.0))
    behind = simulator(now=now, late=0.5, counting=Counting(delay=3600.0))
    assert (await counts(ahead)).total() > ahead.truth(FIRST, LAST).distinct
    assert (await counts(behind)).total() < behind.truth(FIRST, LAST).distinct


async def test_changes_are_counted() -> None:
    """Late and removed events change the counts at the same time as the export."""
    at = datetime(2024, 5, 1, tzinfo=UTC)
    for kind in ("late", "removed"):
        change = Change(kind, at, share=0.5)
        for moment in (at - timedelta(days=1), at + timedelta(days=1)):
            sim = simulator(changes=[change], now=lambda moment=moment: moment)
            assert await counts(sim) == rows(sim)


async def test_events_that_exports_hide_are_counted() -> None:
    """The export sends none of them, and no truth has them."""
    sim = simulator(events_per_day=300, not_exported=["Sign Up"])
    assert not any(row.event_name == "Sign Up" for row in sim.rows(FIRST, LAST))
    hidden = {cell for cell in await counts(sim) if cell[0] == "Sign Up"}
    assert len(hidden) == 3
    assert (await counts(sim)).total() > sim.truth(FIRST, LAST).distinct


async def test_users_and_averages() -> None:
    """`unique` counts users, and `average` is events per user."""
    sim = simulator(events_per_day=3000)
    general, users, average = [await counts(sim, type=kind) for kind in ("general", "unique", "average")]
    assert all(users[cell] <= general[cell] for cell in general)
    assert users.total() < general.total()
    assert all(average[cell] == pytest.approx(general[cell] / users[cell]) for cell in general)


async def test_the_most_common_names_of_31_days() -> None:
    """A list of names, the most common first, of the last 31 days only."""
    sim = simulator(now=lambda: datetime(2024, 3, 6, 12, tzinfo=UTC))
    async with client(sim) as http:
        names = (await http.get(f"{PATH}/names", params={"project_id": "12345"})).json()
        few = (await http.get(f"{PATH}/names", params={"project_id": "12345", "limit": "2"})).json()
    assert names[0] == "Page View"
    assert few == names[:2]
    assert len(names) == len(set(names)) >= 9
    assert len(sim.query_requests) == 2


@pytest.mark.parametrize("path", [PATH, f"{PATH}/", "/api/2.0/events", "/api/2.0/events/"])
async def test_all_paths_answer_over_both_transports(path: str) -> None:
    """The current and the older path, with and without a slash; compressed if that was asked for."""
    sim = simulator(events_per_day=400)
    names = sorted(sim.counts(FIRST))
    params = {"event": json.dumps(names)} | DAYS
    async with both(sim) as clients:
        answers = [await http.get(path, params=params) for http in clients]
    assert answers[0].json() == answers[1].json()
    assert [log.status for log in sim.query_requests] == [200, 200]
    assert not sim.requests  # the log of exports


@pytest.mark.parametrize(
    "changes, status",
    [
        ({"event": "Page View"}, 400),
        ({"unit": "week"}, 400),
        ({"type": "median"}, 400),
        ({"limit": "many"}, 400),
        ({"from_date": "2024-13-01"}, 400),
        ({"to_date": "2024-03-03"}, 400),
        ({"project_id": "1"}, 403),
    ],
)
async def test_invalid_requests_are_refused(changes: dict[str, str], status: int) -> None:
    """With a status and a reason in JSON."""
    response = await get(simulator(), ["Page View"], **changes)
    assert response.status_code == status
    assert response.json()["error"]


async def test_the_hour_has_60_queries() -> None:
    """The next one gets the observed text and headers, and does not count; exports are not affected."""
    sim = simulator(clock=lambda: 100.0, queries_per_hour=2)
    for _ in range(2):
        assert (await get(sim, ["Page View"])).status_code == 200
    for _ in range(2):
        response = await get(sim, ["Page View"])
        assert response.status_code == 429
        assert "(3/2 queries running in the last hour)" in response.json()["error"]
        assert response.headers["ratelimit"] == '"project";r=0;t=3600, "project-concurrency";r=5'
        assert "retry-after" not in response.headers
    async with client(sim) as http:
        assert (await http.get("/api/2.0/export", params=DAYS)).status_code == 200


async def test_5_queries_run_at_a_time() -> None:
    """One more is refused with the pause that was observed."""
    sim = simulator(queries_concurrent=1)
    async with client(sim) as http, http.stream("GET", PATH, params={"event": "[]"} | DAYS):
        response = await get(sim, ["Page View"])
    assert response.status_code == 429
    assert "(2/1 queries running concurrently)" in response.json()["error"]
    assert response.headers["retry-after"] == "10"
    assert response.headers["ratelimit"] == '"project";r=59, "project-concurrency";r=0;t=10'


@pytest.mark.parametrize(
    "kind, status", [("401", 401), ("402", 402), ("429", 429), ("500", 500), ("503", 503)]
)
async def test_statuses_can_be_simulated(kind: Any, status: int) -> None:
    """Each fault applies to queries only, as often as configured."""
    sim = simulator()
    sim.query_faults = [Fault(kind, times=1)]
    assert (await get(sim, ["Page View"])).status_code == status
    assert (await get(sim, ["Page View"])).status_code == 200
    assert [log.fault for log in sim.query_requests] == [kind, None]


async def test_an_answer_can_be_an_error_or_cut() -> None:
    """Status 200 with an error, and JSON that ends too early."""
    sim = simulator()
    sim.query_faults = [Fault("error_line", times=1), Fault("cut_line", times=1)]
    response = await get(sim, ["Page View"])
    assert (response.status_code, response.json()) == (200, {"error": "Internal server error"})
    response = await get(sim, ["Page View"])
    assert response.status_code == 200
    with pytest.raises(ValueError, match="line 1"):
        response.json()


@pytest.mark.parametrize("kind", ["reset", "close", "reset_before_head", "close_before_head"])
async def test_connections_can_break(kind: Any) -> None:
    """Over a socket and over the transport."""
    sim = simulator()
    sim.query_faults = [Fault(kind)]
    async with both(sim) as clients:
        for http in clients:
            with pytest.raises(httpx.TransportError):
                await http.get(PATH, params={"event": '["Page View"]'} | DAYS)
