"""How the simulator responds: framing, compression, pace, connections, and the log of requests."""

import gzip
import zlib
from datetime import UTC, date, datetime, timedelta
from itertools import pairwise
from typing import Any

import anyio
import httpx
import pytest
from endpoint import DAYS, FIRST, LAST, NOW, PATH, both, client, get, lines_of, simulator

from mixpanel_export.simulator import Fault

pytestmark = pytest.mark.anyio

ONE_DAY = {"to_date": str(FIRST)}


# Bodies


async def test_socket_and_transport_serve_exactly_the_lines() -> None:
    """Over a socket and over the transport, with and without a slash, the body has exactly the simulator's lines."""
    sim = simulator(events_per_day=600)
    expected = sorted(sim.lines(FIRST, LAST))
    async with both(sim) as clients:
        for http in clients:
            for path in (PATH, PATH + "/"):
                response = await http.get(path, params=DAYS)
                assert (response.status_code, response.reason_phrase) == (200, "OK")
                assert lines_of(response) == expected
                assert response.headers["transfer-encoding"] == "chunked"
                assert response.headers["content-type"] == "text/plain"


async def test_the_body_is_one_valid_gzip_member() -> None:
    """The standard library reads the compressed body to its end, and nothing follows it."""
    sim = simulator(events_per_day=600)
    async with both(sim) as clients:
        for http in clients:
            async with http.stream("GET", PATH, params=DAYS) as response:
                raw = b"".join([piece async for piece in response.aiter_raw()])
            member = zlib.decompressobj(wbits=31)
            plain = member.decompress(raw)
            assert member.eof
            assert not member.unused_data
            assert plain == gzip.decompress(raw)
            assert sorted(plain.split(b"\n")[:-1]) == sorted(sim.lines(FIRST, LAST))


@pytest.mark.parametrize("accept", ["identity", "", "br", "gzip;q=0"])
async def test_gzip_only_if_accepted(accept: str) -> None:
    """A client that does not accept gzip gets the same lines uncompressed."""
    sim = simulator()
    async with client(sim, headers={"accept-encoding": accept}) as http:
        response = await http.get(PATH, params=DAYS)
    assert "content-encoding" not in response.headers
    assert lines_of(response) == sorted(sim.lines(FIRST, LAST))


@pytest.mark.parametrize("events", [0, 1, 2])
async def test_gzip_only_above_1400_bytes(events: int) -> None:
    """Bodies of up to 1400 bytes are uncompressed, larger ones compressed."""
    sim = simulator(events_per_day=events, weekday_pattern=False, duplicates=0.0)
    response = await get(sim, **ONE_DAY)
    compressed = response.headers.get("content-encoding") == "gzip"
    assert compressed is (len(response.content) > 1400) is (events == 2)
    assert lines_of(response) == sorted(sim.lines(FIRST, FIRST))


@pytest.mark.parametrize("size", [1, 100, 4099, 10**9])
async def test_gzip_members_end_anywhere(size: int) -> None:
    """Members of any size together make the body; small ones end inside lines and characters."""
    sim = simulator(gzip_member=size, gzip_over=0, events_per_day=30)
    raw = await raw_body(sim)
    members = []
    while raw:
        member = zlib.decompressobj(wbits=31)
        members.append(member.decompress(raw))
        assert member.eof
        raw = member.unused_data
    assert {len(member) for member in members[:-1]} <= {size}
    assert sorted(b"".join(members).split(b"\n")[:-1]) == sorted(sim.lines(FIRST, FIRST))
    if size <= 4099:
        assert len(members) >= 3
        assert not all(member.endswith(b"\n") for member in members)
    if size <= 100:
        assert any(0x80 <= following[0] < 0xC0 for _, following in pairwise(members))


@pytest.mark.parametrize("member", [None, 100])
async def test_an_empty_day_is_an_empty_body_or_gzip_of_nothing(member: int | None) -> None:
    """A day without events has status 200 and no bytes, or an empty gzip member if compression is forced."""
    response = await get(simulator(events_per_day=0, gzip_member=member), **ONE_DAY)
    assert (response.status_code, response.content) == (200, b"")
    assert "content-encoding" not in response.headers
    raw = await raw_body(simulator(events_per_day=0, gzip_over=-1, gzip_member=member))
    assert raw
    assert gzip.decompress(raw) == b""


async def raw_body(sim: Any) -> bytes:
    """Return the gzip body of one day as transferred."""
    async with client(sim) as http, http.stream("GET", PATH, params=DAYS | ONE_DAY) as response:
        assert response.headers["content-encoding"] == "gzip"
        return b"".join([piece async for piece in response.aiter_raw()])


@pytest.mark.parametrize("piece", [1, 7, 4096, 16 * 1024 * 1024])
async def test_pieces_have_the_configured_size(piece: int) -> None:
    """The body is cut into pieces of any size, without regard to lines."""
    sim = simulator(piece=piece, events_per_day=5)
    async with client(sim) as http, http.stream("GET", PATH, params=DAYS) as response:
        pieces = [part async for part in response.aiter_raw()]
    assert {len(part) for part in pieces[:-1]} <= {piece}
    assert 1 <= len(pieces[-1]) <= piece
    assert sorted(gzip.decompress(b"".join(pieces)).split(b"\n")[:-1]) == sorted(sim.lines(FIRST, LAST))


async def test_pieces_of_one_byte_pass_a_socket() -> None:
    """Chunks of one byte make the same body."""
    sim = simulator(piece=1, events_per_day=5)
    async with sim.serve() as url, client(sim, url) as http:
        response = await http.get(PATH, params=DAYS)
    assert lines_of(response) == sorted(sim.lines(FIRST, LAST))


@pytest.mark.parametrize("piece", [1, 16 * 1024 * 1024])
async def test_awkward_bodies_survive_every_piece_size(piece: int) -> None:
    """Pieces of one byte and of 16 MB transfer the same lines."""
    sim = simulator(piece=piece, awkward=1.0, rejects=0.1, events_per_day=50)
    assert lines_of(await get(sim)) == sorted(sim.lines(FIRST, LAST))


def test_the_piece_size_is_checked() -> None:
    """A piece size of 0 or above 16 MB is refused."""
    for piece in (0, 16 * 1024 * 1024 + 1):
        with pytest.raises(ValueError, match="piece must be"):
            simulator(piece=piece)


@pytest.mark.parametrize("events, last", [(20, LAST), (2000, FIRST)])
async def test_the_order_of_lines_differs_between_requests(events: int, last: date) -> None:
    """The days of a range, and the parts of a large day, have a different order in another response."""
    sim = simulator(events_per_day=events)
    bodies = [(await get(sim, to_date=str(last))).content for _ in range(8)]
    assert len(set(bodies)) > 1
    assert {tuple(sorted(body.split(b"\n"))) for body in bodies} == {tuple(sorted(bodies[0].split(b"\n")))}


async def test_shuffled_lines_have_a_new_order_in_every_response() -> None:
    """A shuffled simulator sends the same lines in a new order each time, even for a small day."""
    sim = simulator(shuffled=True, rejects=0.2)
    bodies = [(await get(sim, **ONE_DAY)).content for _ in range(4)]
    assert len(set(bodies)) == 4
    assert {tuple(sorted(body.split(b"\n")[:-1])) for body in bodies} == {
        tuple(sorted(sim.lines(FIRST, FIRST)))
    }


@pytest.mark.parametrize("content_type", ["text/plain; charset=utf-8", "application/json"])
async def test_the_content_type_of_events_is_an_option(content_type: str) -> None:
    """The content type is the configured one, and the events are the same."""
    sim = simulator(content_type=content_type)
    async with both(sim) as clients:
        for http in clients:
            response = await http.get(PATH, params=DAYS)
            assert response.headers["content-type"] == content_type
            assert lines_of(response) == sorted(sim.lines(FIRST, LAST))


# Cached and open days


async def test_days_beyond_the_cache_are_generated_again() -> None:
    """Days that do not fit into the cache, or evict others from it, are served correctly."""
    for size in (0, 60_000):
        sim = simulator(events_per_day=300, cache_bytes=size)
        for _ in range(2):
            assert lines_of(await get(sim)) == sorted(sim.lines(FIRST, LAST))


async def test_prepared_days_are_unchanged() -> None:
    """Preparing days changes nothing but the time to serve them."""
    sim = simulator()
    sim.prepare(FIRST, LAST)
    assert lines_of(await get(sim)) == sorted(sim.lines(FIRST, LAST))


async def test_open_days_grow() -> None:
    """A day that is not over is served as far as its events have arrived."""
    clock = [datetime(2024, 3, 4, 12, tzinfo=UTC)]
    sim = simulator(now=lambda: clock[0], events_per_day=300)
    early = await get(sim, **ONE_DAY)
    assert lines_of(early) == sorted(sim.lines(FIRST, FIRST))
    clock[0] = NOW
    late = await get(sim, **ONE_DAY)
    assert lines_of(late) == sorted(sim.lines(FIRST, FIRST))
    assert set(lines_of(early)) < set(lines_of(late))


# Pace, on the simulator's own clock


async def test_first_byte_and_days_take_their_time() -> None:
    """A response takes the configured seconds to its first byte and for each day."""
    clock = [0.0]

    async def sleep(seconds: float) -> None:
        clock[0] += seconds

    sim = simulator(
        first_byte=0.5, seconds_per_day=2.5, clock=lambda: clock[0], sleep=sleep, events_per_day=900
    )
    for number in (1, 2):  # generated, then from the cache
        assert lines_of(await get(sim)) == sorted(sim.lines(FIRST, LAST))
        assert clock[0] == pytest.approx(number * (0.5 + 3 * 2.5))


async def test_the_bandwidth_is_respected() -> None:
    """A body takes its compressed size divided by the bandwidth."""
    clock = [0.0]

    async def sleep(seconds: float) -> None:
        clock[0] += seconds

    sim = simulator(bandwidth=1000.0, clock=lambda: clock[0], sleep=sleep)
    await get(sim)
    assert clock[0] == pytest.approx(sim.requests[0].bytes_sent / 1000.0)


# Connections


async def test_other_paths_and_methods_are_404() -> None:
    """Only the documented paths exist, and exports have only GET; the status line has a reason phrase."""
    sim = simulator()
    async with both(sim) as clients:
        for http in clients:
            response = await http.get("/api/2.0/jql")
            assert (response.status_code, response.reason_phrase) == (404, "Not Found")
            assert (await http.post(PATH, content=b"x=1")).status_code == 404
            assert (await http.head(PATH)).status_code == 404
    assert sim.requests == []


async def test_an_unknown_status_has_no_reason_phrase() -> None:
    """A status that HTTP does not define is sent with an empty reason phrase."""
    async with both(simulator(faults=[Fault("500", status=520)])) as clients:
        for http in clients:
            response = await http.get(PATH, params=DAYS)
            assert (response.status_code, response.reason_phrase) == (520, "")


async def test_connections_are_kept_alive() -> None:
    """One connection carries several requests, after errors and request bodies too."""
    sim = simulator()
    limits = httpx.Limits(max_connections=1)
    async with sim.serve() as url, client(sim, url, limits=limits) as http:
        statuses = [
            (await http.get(PATH, params=DAYS | {"project_id": project})).status_code
            for project in ("12345", "9", "12345")
        ]
        last = (await http.post(PATH, content=b"x" * 100_000)).status_code
    assert [*statuses, last] == [200, 403, 200, 404]


async def test_a_disconnected_client_ends_its_request() -> None:
    """A request ends as soon as its client has closed the connection, even before the response."""
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


async def test_leaving_serve_closes_everything() -> None:
    """Leaving `serve` closes the port and breaks the requests in progress."""
    waiting = anyio.Event()

    async def forever(_: float) -> None:
        waiting.set()
        await anyio.sleep_forever()

    sim = simulator(first_byte=1.0, sleep=forever)
    errors = []

    async def request(http: httpx.AsyncClient) -> None:
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
        tasks.start_soon(request, http)
        await waiting.wait()
    assert len(errors) == 1
    async with client(sim, url) as http:
        with pytest.raises(httpx.ConnectError):
            await http.get(PATH, params=DAYS)


async def test_an_exception_leaves_serve_unwrapped() -> None:
    """An exception of the code inside `serve` is not wrapped in a group."""
    with pytest.raises(ZeroDivisionError):
        async with simulator().serve():
            raise ZeroDivisionError


async def test_the_transport_traces_the_sending_of_headers() -> None:
    """A trace callback is called before the request counts as arrived."""
    sim = simulator()
    calls: list[tuple[str, int]] = []

    async def trace(event: str, _: dict[str, Any]) -> None:
        calls.append((event, len(sim.requests)))

    async with client(sim) as http:
        await http.get(PATH, params=DAYS, extensions={"trace": trace})
    assert calls[0] == ("http11.send_request_headers.started", 0)


# The log


async def test_requests_are_logged() -> None:
    """The log has the days, status, size and completion of each request."""
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


async def test_requests_can_be_counted_by_day() -> None:
    """`requests_for` returns the requests for any of the days, and leaves out those without valid dates."""
    sim = simulator()
    second, third = FIRST + timedelta(days=1), LAST
    for first, last in ((FIRST, FIRST), (second, third), (FIRST, third), (third, third)):
        await get(sim, from_date=str(first), to_date=str(last))
    await get(sim, from_date="x")
    numbers = {day: [log.number for log in sim.requests_for(day)] for day in (FIRST, second, third)}
    assert numbers == {FIRST: [1, 3], second: [2, 3], third: [2, 3, 4]}
    assert [log.number for log in sim.requests_for(FIRST, second)] == [1, 2, 3]
    assert sim.requests_for(third + timedelta(days=1)) == []
