"""The simulator's export endpoint: its rules over its transport, its framing over a real socket."""

import gzip
import json
import zlib
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, date, datetime
from typing import Any, Literal

import anyio
import httpx
import pytest

from mixpanel_export.simulator import Rules, Simulator
from mixpanel_export.simulator.faults import Answer
from mixpanel_export.simulator.query import Matter, Project, Query, Request, parse

pytestmark = pytest.mark.anyio

FIRST, LAST = date(2024, 3, 4), date(2024, 3, 6)
NOW = datetime(2024, 6, 1, 12, tzinfo=UTC)
ACCOUNT = ("demo.mp-service-account", "demo-secret")
DAYS = {"from_date": "2024-03-04", "to_date": "2024-03-06", "project_id": "12345"}
PATH = "/api/2.0/export"


def simulator(**options: Any) -> Simulator:
    """Return a small simulator without limits, unless *options* say otherwise."""
    defaults: dict[str, Any] = {
        "events_per_day": 40,
        "per_second": 0,
        "per_hour": 0,
        "concurrent": 0,
        "now": lambda: NOW,
    }
    return Simulator(**(defaults | options))


def client(of: Simulator, url: str | None = None, **options: Any) -> httpx.AsyncClient:
    """Return a client of *of*, over the socket at *url* or else over its transport."""
    transport = of.transport() if url is None else None
    options = {"auth": ACCOUNT} | options
    return httpx.AsyncClient(base_url=url or "http://simulator", transport=transport, **options)


@asynccontextmanager
async def both(of: Simulator) -> AsyncIterator[Sequence[httpx.AsyncClient]]:
    """Yield a client over a socket and one over the transport."""
    async with of.serve() as url, client(of, url) as socket, client(of) as transport:
        yield socket, transport


async def get(of: Simulator, **changes: str | None) -> httpx.Response:
    """Ask once over the transport, with the usual parameters but for *changes*; None leaves one out."""
    params = {name: value for name, value in (DAYS | changes).items() if value is not None}
    async with client(of) as http:
        return await http.get(PATH, params=params)


def lines_of(response: httpx.Response) -> list[bytes]:
    """Return the lines of a body that ends with a newline, sorted."""
    assert not response.content or response.content.endswith(b"\n")
    return sorted(response.content.split(b"\n")[:-1])


async def test_both_doors_serve_exactly_the_lines() -> None:
    """Over a socket and over the transport, with and without a slash, the lines are those of truth."""
    sim = simulator(events_per_day=600)
    expected = sorted(sim.lines(FIRST, LAST))
    async with both(sim) as doors:
        for door in doors:
            for path in (PATH, PATH + "/"):
                response = await door.get(path, params=DAYS)
                assert response.status_code == 200
                assert lines_of(response) == expected
                assert response.headers["transfer-encoding"] == "chunked"
                assert response.headers["content-type"] == "text/plain"


async def test_the_body_is_one_valid_gzip_member() -> None:
    """The standard library reads the compressed body to its end, and nothing follows it."""
    sim = simulator(events_per_day=600)
    async with both(sim) as doors:
        for door in doors:
            async with door.stream("GET", PATH, params=DAYS) as response:
                raw = b"".join([piece async for piece in response.aiter_raw()])
            member = zlib.decompressobj(wbits=31)
            plain = member.decompress(raw)
            assert member.eof
            assert not member.unused_data
            assert plain == gzip.decompress(raw)
            assert sorted(plain.split(b"\n")[:-1]) == sorted(sim.lines(FIRST, LAST))


@pytest.mark.parametrize("accept", ["identity", "", "br", "gzip;q=0"])
async def test_gzip_only_when_asked_for(accept: str) -> None:
    """A client that does not accept gzip gets the same lines plain."""
    sim = simulator()
    async with client(sim, headers={"accept-encoding": accept}) as http:
        response = await http.get(PATH, params=DAYS)
    assert "content-encoding" not in response.headers
    assert lines_of(response) == sorted(sim.lines(FIRST, LAST))


@pytest.mark.parametrize("events", [0, 1, 2])
async def test_gzip_only_over_1400_bytes(events: int) -> None:
    """Bodies up to 1400 bytes come plain, larger ones compressed."""
    sim = simulator(events_per_day=events, weekday_pattern=False, duplicates=0.0)
    response = await get(sim, to_date="2024-03-04")
    compressed = response.headers.get("content-encoding") == "gzip"
    assert compressed is (len(response.content) > 1400) is (events == 2)
    assert lines_of(response) == sorted(sim.lines(FIRST, FIRST))


@pytest.mark.parametrize("piece", [1, 7, 4096, 16 * 1024 * 1024])
async def test_pieces_have_the_size_set(piece: int) -> None:
    """The body is cut into pieces of any size without regard to lines."""
    sim = simulator(piece=piece, events_per_day=5)
    async with client(sim) as http, http.stream("GET", PATH, params=DAYS) as response:
        pieces = [part async for part in response.aiter_raw()]
    assert {len(part) for part in pieces[:-1]} <= {piece}
    assert 1 <= len(pieces[-1]) <= piece
    assert sorted(gzip.decompress(b"".join(pieces)).split(b"\n")[:-1]) == sorted(sim.lines(FIRST, LAST))


async def test_one_byte_pieces_cross_a_socket() -> None:
    """Chunks of one byte make the same body."""
    sim = simulator(piece=1, events_per_day=5)
    async with sim.serve() as url, client(sim, url) as http:
        response = await http.get(PATH, params=DAYS)
    assert lines_of(response) == sorted(sim.lines(FIRST, LAST))


def test_pieces_have_bounds() -> None:
    """A piece of no bytes or over 16 MB is refused."""
    for piece in (0, 16 * 1024 * 1024 + 1):
        with pytest.raises(ValueError, match="piece must be"):
            simulator(piece=piece)


@pytest.mark.parametrize("events, last", [(20, LAST), (2000, FIRST)])
async def test_row_order_differs_between_calls(events: int, last: date) -> None:
    """The days of a range, and the parts of a day, come in another order on another call."""
    sim = simulator(events_per_day=events)
    bodies = [(await get(sim, to_date=str(last))).content for _ in range(8)]
    assert len(set(bodies)) > 1
    assert {tuple(sorted(body.split(b"\n"))) for body in bodies} == {tuple(sorted(bodies[0].split(b"\n")))}


async def test_days_beyond_the_cache_are_served_all_the_same() -> None:
    """Days that do not fit into the cache, or push others out, are generated again."""
    for size in (0, 60_000):
        sim = simulator(events_per_day=300, cache_bytes=size)
        for _ in range(2):
            assert lines_of(await get(sim)) == sorted(sim.lines(FIRST, LAST))


async def test_prepared_days_are_served_as_they_are() -> None:
    """Preparing days changes nothing but the time it takes to serve them."""
    sim = simulator()
    sim.prepare(FIRST, LAST)
    assert lines_of(await get(sim)) == sorted(sim.lines(FIRST, LAST))


async def test_open_days_grow() -> None:
    """A day that is not over is served as far as it has arrived."""
    clock = [datetime(2024, 3, 4, 12, tzinfo=UTC)]
    sim = simulator(now=lambda: clock[0], events_per_day=300)
    early = await get(sim, to_date="2024-03-04")
    assert lines_of(early) == sorted(sim.lines(FIRST, FIRST))
    clock[0] = NOW
    late = await get(sim, to_date="2024-03-04")
    assert lines_of(late) == sorted(sim.lines(FIRST, FIRST))
    assert set(lines_of(early)) < set(lines_of(late))


async def test_empty_days_have_empty_bodies() -> None:
    """Days without events are answered with status 200 and nothing."""
    response = await get(simulator(), from_date="2022-03-04", to_date="2022-03-06")
    assert (response.status_code, response.content) == (200, b"")


async def test_event_filter() -> None:
    """`event` keeps the events with these names, whatever characters they are made of."""
    sim = simulator(events_per_day=300)
    names = ["Search 🔍", 'Clicked "Buy now"', "Two\nLines & More", "Café Visited"]
    response = await get(sim, event=json.dumps(names))
    assert lines_of(response) == sorted(sim.lines(FIRST, LAST, events=names))
    assert {json.loads(line)["event"] for line in lines_of(response)} == set(names)
    assert (await get(sim, event='["no such event"]')).content == b""


async def test_limit() -> None:
    """`limit` returns that many of the lines, or all where there are fewer."""
    sim = simulator()
    everything = sorted(sim.lines(FIRST, LAST))
    some = lines_of(await get(sim, limit="7"))
    assert len(some) == 7
    assert set(some) <= set(everything)
    assert lines_of(await get(sim, limit="100000")) == everything


@pytest.mark.parametrize("flag", ["true", "True", "1"])
async def test_time_in_ms(flag: str) -> None:
    """`time_in_ms` gives times in milliseconds and changes nothing else."""
    sim = simulator(odd=0.0)
    plain = {
        event["properties"]["$insert_id"]: event
        for event in map(json.loads, sim.lines(FIRST, LAST))
        if event["properties"].get("$insert_id")
    }
    events = [json.loads(line) for line in lines_of(await get(sim, time_in_ms=flag))]
    assert len(events) == len(list(sim.lines(FIRST, LAST)))
    for event in events:
        assert len(str(event["properties"]["time"])) == 13
    lone = next(event for event in events if event["properties"].get("$insert_id"))
    twin = plain[lone["properties"]["$insert_id"]]
    assert lone["properties"]["time"] // 1000 == twin["properties"]["time"]
    assert lone["properties"] | {"time": 0} == twin["properties"] | {"time": 0}


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
        ({"where": "properties["}, "invalid where: unexpected end"),
        ({"project_id": None}, "missing required parameter: project_id"),
    ],
)
async def test_mistakes_are_400(changes: dict[str, str | None], message: str) -> None:
    """A parameter that is missing, malformed or out of range is answered with a JSON error."""
    response = await get(simulator(), **changes)
    assert response.status_code == 400
    answer = response.json()
    assert message in answer["error"]
    assert answer["request"].startswith(PATH)


async def test_to_date_may_be_today_but_not_later() -> None:
    """Today in UTC is the last day that may be asked for."""
    assert (await get(simulator(), to_date="2024-06-01")).status_code == 200
    response = await get(simulator(), to_date="2024-06-02")
    assert (response.status_code, response.text) == (400, "to_date cannot be later than today")


@pytest.mark.parametrize("charset", ["text/plain; charset=utf-8", "application/json"])
async def test_the_content_type_of_events_is_a_switch(charset: str) -> None:
    """Events come with the content type set, on both ways, and are the same events."""
    sim = simulator(content_type=charset)
    async with both(sim) as doors:
        for door in doors:
            response = await door.get(PATH, params=DAYS)
            assert response.headers["content-type"] == charset
            assert lines_of(response) == sorted(sim.lines(FIRST, LAST))


async def test_a_limit_that_is_too_high_may_be_clamped() -> None:
    """With that rule, a `limit` over 100,000 means 100,000; without, and below 1, it is a mistake."""
    clamping = simulator(rules=Rules(over_limit="clamp"))
    for limit in ("100001", "9" * 18):
        assert lines_of(await get(clamping, limit=limit)) == sorted(clamping.lines(FIRST, LAST))
        assert (await get(simulator(), limit=limit)).status_code == 400
    assert (await get(clamping, limit="0")).status_code == 400


async def test_a_missing_project_may_be_401() -> None:
    """A service account that names no project is a mistake, or not let in."""
    for status in (400, 401):
        response = await get(simulator(rules=Rules(missing_project_id=status)), project_id=None)
        assert response.status_code == status
        assert "project_id" in response.json()["error"]


async def test_wrong_credentials_may_be_text() -> None:
    """Who is not let in is told so with status 401, or by text with 400 or even 200."""
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
    "about, changes, status",
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
async def test_every_refusal_can_be_worded(
    about: Matter, changes: dict[str, str | None], status: int
) -> None:
    """What a refusal says may be set for each thing it can be about, and its status stays."""
    rules = Rules(wording={about: "in other words"})
    response = await get(simulator(rules=rules, history_days=365), **changes)
    assert response.status_code == status
    assert "in other words" in response.text
    other = await get(simulator(rules=rules), **({"event": "x"} if about != "event" else {"limit": "x"}))
    assert "in other words" not in other.text


async def test_refusals_have_the_shape_set() -> None:
    """A refusal is plain text, or JSON with the text alone, with the request, or with a status."""
    for changes in ({"from_date": None}, {"to_date": "2024-06-02"}):
        said = {}
        for shape in ("text", "error", "status", "request", "seen"):
            response = await get(simulator(rules=Rules(shape=shape)), **changes)
            assert response.status_code == 400
            said[shape] = response.text
        text = said["text"]
        assert json.loads(said["error"]) == {"error": text}
        assert json.loads(said["status"]) == {"error": text, "status": "error"}
        request = json.loads(said["request"])
        assert (request["error"], request["request"].partition("?")[0]) == (text, PATH)
        assert said["seen"] == said["request" if "from_date" in changes else "text"]


async def test_a_long_request_may_be_414() -> None:
    """Requests longer than a bound are refused before anything looks at them, shorter ones are not."""
    sim = simulator(rules=Rules(longest_target=500), per_hour=1)
    async with both(sim) as doors:
        for door in doors:
            refused = await door.get(PATH, params=DAYS | {"bucket": "x" * 500}, auth=("x", "y"))
            assert (refused.status_code, refused.headers["content-type"]) == (414, "text/html")
    assert [log.status for log in sim.requests] == [414, 414]
    assert (await get(sim)).status_code == 200


async def test_today_is_the_callers() -> None:
    """Which day is the last that may be asked for is up to who asks for the parameters to be read."""
    project = Project("u", "s", "1")
    request = Request("GET", f"{PATH}?from_date=2024-03-04&to_date=2024-03-06", {})
    assert isinstance(parse(project, request, date(2024, 3, 6)), Query)
    refused = parse(project, request, date(2024, 3, 5))
    assert refused == Answer(400, "to_date cannot be later than today")


async def test_unknown_parameters_are_ignored() -> None:
    """Parameters that mean nothing here change nothing."""
    sim = simulator()
    response = await get(sim, bucket="x", workspace_id="7")
    assert lines_of(response) == sorted(sim.lines(FIRST, LAST))


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
    """Without the right user name and secret there is a JSON error and no event."""
    async with client(simulator(), auth=None, headers={"authorization": header}) as http:
        response = await http.get(PATH, params=DAYS)
    assert response.status_code == 401
    assert response.json()["error"] == "Invalid credentials"


async def test_plain_text_basic_is_accepted() -> None:
    """The user name and the secret may stand in the header without base64."""
    header = {"authorization": "Basic demo.mp-service-account:demo-secret"}
    async with client(simulator(), auth=None, headers=header) as http:
        assert (await http.get(PATH, params=DAYS)).status_code == 200


async def test_another_project_is_403() -> None:
    """The account has access to its own project only."""
    assert (await get(simulator(), project_id="999")).status_code == 403


async def test_legacy_secret_goes_without_project_id() -> None:
    """A project secret is a user name without password, and does not go with project_id."""
    sim = simulator(legacy_secret="old")
    days = {name: value for name, value in DAYS.items() if name != "project_id"}
    async with client(sim, auth=("old", "")) as http:
        assert (await http.get(PATH, params=days)).status_code == 200
        assert (await http.get(PATH, params=DAYS)).status_code == 400
    async with client(simulator(), auth=("old", "")) as http:
        assert (await http.get(PATH, params=days)).status_code == 401


async def test_history_limit_is_403() -> None:
    """A plan that reaches back so many days refuses older ones, and names the number."""
    sim = simulator(history_days=60)
    response = await get(sim)
    assert response.status_code == 403
    assert response.json()["error"] == "Date range exceeds 60 days into the past"
    assert (await get(sim, from_date="2024-04-02", to_date="2024-04-03")).status_code == 200


async def test_other_paths_and_methods_are_404() -> None:
    """There is nothing but the export endpoint, and only to GET."""
    sim = simulator()
    async with both(sim) as doors:
        for door in doors:
            assert (await door.get("/api/2.0/engage")).status_code == 404
            assert (await door.post(PATH, content=b"x=1")).status_code == 404
            assert (await door.head(PATH)).status_code == 404
    assert sim.requests == []


async def test_connections_are_kept_alive() -> None:
    """One connection carries several requests, errors and a body in the request included."""
    sim = simulator()
    limits = httpx.Limits(max_connections=1)
    async with sim.serve() as url, client(sim, url, limits=limits) as http:
        statuses = [
            (await http.get(PATH, params=DAYS | {"project_id": project})).status_code
            for project in ("12345", "9", "12345")
        ]
        used = (await http.post(PATH, content=b"x" * 100_000)).status_code
    assert [*statuses, used] == [200, 403, 200, 404]


async def test_requests_are_logged() -> None:
    """Each request leaves its days, status, size and whether it was finished."""
    sim = simulator()
    body = await get(sim)
    await get(sim, from_date="2024-03-06", to_date="2024-03-05")
    good, bad = sim.requests
    assert (good.first, good.last, good.status, good.fault, good.finished) == (FIRST, LAST, 200, None, True)
    assert good.bytes_sent == body.num_bytes_downloaded
    assert good.params == DAYS
    assert good.credentials
    assert (bad.first, bad.status, bad.finished) == (None, 400, True)
    assert bad.time >= good.time


async def test_a_client_that_goes_away_ends_its_request() -> None:
    """A request is over as soon as its client has closed the connection, even before an answer."""
    waiting = anyio.Event()

    async def forever(_: float) -> None:
        waiting.set()
        await anyio.sleep_forever()

    sim = simulator(first_byte=1.0, sleep=forever, concurrent=1)
    async with sim.serve() as url, client(sim, url) as http:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(lambda: http.get(PATH, params=DAYS))
            await waiting.wait()
            tasks.cancel_scope.cancel()
        with anyio.fail_after(20):
            while sim.in_progress:
                await anyio.lowlevel.checkpoint()
    assert not sim.requests[0].finished


async def test_an_unread_body_ends_with_its_response() -> None:
    """Over the transport, closing a response that was not read ends its request."""
    sim = simulator(piece=10)
    async with client(sim) as http, http.stream("GET", PATH, params=DAYS) as response:
        assert sim.in_progress == 1
        assert response.status_code == 200
    assert sim.in_progress == 0
    assert not sim.requests[0].finished


async def test_the_end_of_serving_ends_everything() -> None:
    """Leaving `serve` closes the port and breaks what is still in progress."""
    waiting = anyio.Event()

    async def forever(_: float) -> None:
        waiting.set()
        await anyio.sleep_forever()

    sim = simulator(first_byte=1.0, sleep=forever)
    errors = []

    async def ask(http: httpx.AsyncClient) -> None:
        try:
            await http.get(PATH, params=DAYS)
        except httpx.TransportError as error:
            errors.append(error)

    async with (
        client(sim, "http://127.0.0.1:1") as http,
        anyio.create_task_group() as tasks,
        sim.serve() as url,
    ):
        http.base_url = httpx.URL(url)
        tasks.start_soon(ask, http)
        await waiting.wait()
    assert len(errors) == 1
    async with client(sim, url) as http:
        with pytest.raises(httpx.ConnectError):
            await http.get(PATH, params=DAYS)


async def test_an_exception_leaves_serve_as_it_is() -> None:
    """The exception of the code inside `serve` is not wrapped in a group."""
    with pytest.raises(ZeroDivisionError):
        async with simulator().serve():
            raise ZeroDivisionError


async def test_the_transport_reports_the_sending_of_headers() -> None:
    """A trace callback hears of the headers before the request counts as arrived."""
    sim = simulator()
    heard: list[tuple[str, int]] = []

    async def trace(event: str, _: dict[str, Any]) -> None:
        heard.append((event, len(sim.requests)))

    async with client(sim) as http:
        await http.get(PATH, params=DAYS, extensions={"trace": trace})
    assert heard[0] == ("http11.send_request_headers.started", 0)


async def test_a_day_takes_its_time() -> None:
    """First byte and days take the seconds set, on the simulator's own clock."""
    clock = [0.0]

    async def sleep(seconds: float) -> None:
        clock[0] += seconds

    sim = simulator(
        first_byte=0.5, seconds_per_day=2.5, clock=lambda: clock[0], sleep=sleep, events_per_day=900
    )
    for number in (1, 2):  # generated, then from the cache
        assert lines_of(await get(sim)) == sorted(sim.lines(FIRST, LAST))
        assert clock[0] == pytest.approx(number * (0.5 + 3 * 2.5))


async def test_bandwidth_is_kept() -> None:
    """A body takes its compressed bytes divided by the bandwidth."""
    clock = [0.0]

    async def sleep(seconds: float) -> None:
        clock[0] += seconds

    sim = simulator(bandwidth=1000.0, clock=lambda: clock[0], sleep=sleep)
    await get(sim)
    assert clock[0] == pytest.approx(sim.requests[0].bytes_sent / 1000.0)
