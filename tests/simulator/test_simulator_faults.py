"""The simulator's faults, as a client without any protection of its own sees them."""

import gzip
import json
import zlib
from collections.abc import AsyncIterator
from datetime import UTC, date, datetime
from typing import Any, get_args

import anyio
import httpx
import pytest

from mixpanel_export.simulator import Fault, Simulator
from mixpanel_export.simulator.faults import BEFORE_HEAD, LINES, STATUS, WIRE, Kind

pytestmark = pytest.mark.anyio

DAY = date(2024, 3, 4)
NOW = datetime(2024, 6, 1, 12, tzinfo=UTC)
DAYS = {"from_date": "2024-03-04", "to_date": "2024-03-06", "project_id": "12345"}
ACCOUNT = ("demo.mp-service-account", "demo-secret")
PATH = "/api/2.0/export"


def simulator(*faults: Fault, **options: Any) -> Simulator:
    """Return a small simulator with *faults*, a few pieces to a body."""
    defaults: dict[str, Any] = {
        "events_per_day": 60,
        "piece": 5000,
        "per_second": 0,
        "per_hour": 0,
        "now": lambda: NOW,
    }
    return Simulator(faults=faults, **(defaults | options))


@pytest.fixture(params=["socket", "transport"])
def door(request: pytest.FixtureRequest) -> str:
    """Name the way to the simulator."""
    return str(request.param)


class Raw:
    """What came over the wire: a head, the bytes after it, and what ended them."""

    def __init__(self) -> None:
        self.response: httpx.Response | None = None
        self.data = b""
        self.error: httpx.TransportError | None = None

    @property
    def head(self) -> httpx.Response:
        assert self.response is not None
        return self.response

    @property
    def lines(self) -> list[bytes]:
        return zlib.decompressobj(wbits=31).decompress(self.data).split(b"\n")


async def fetch(sim: Simulator, door: str, **options: Any) -> Raw:
    """Ask once, and keep the bytes as they are sent."""
    if door == "transport":
        return await _fetch("http://simulator", sim.transport(), options)
    async with sim.serve() as url:
        return await _fetch(url, None, options)


async def _fetch(url: str, transport: httpx.AsyncBaseTransport | None, options: dict[str, Any]) -> Raw:
    raw = Raw()
    options = {"auth": ACCOUNT} | options
    async with httpx.AsyncClient(base_url=url, transport=transport, **options) as http:
        try:
            async with http.stream("GET", PATH, params=DAYS) as raw.response:
                async for piece in raw.head.aiter_raw():
                    raw.data += piece
        except httpx.TransportError as error:
            raw.error = error
    return raw


def good_lines(sim: Simulator) -> set[bytes]:
    return set(sim.lines(DAY, date(2024, 3, 6)))


def test_every_kind_has_a_place() -> None:
    """The names of kinds are exactly those that something happens for."""
    placed = {*STATUS, *LINES, *WIRE, *BEFORE_HEAD, "stall_before_head", "corrupt_crc", "two_members"}
    assert placed == set(get_args(Kind))


@pytest.mark.parametrize(
    "kind, status, text",
    [
        ("400", 400, '"error": "Bad request"'),
        ("401", 401, '"error": "Invalid credentials"'),
        ("402", 402, "Your plan does not allow API calls"),
        ("403", 403, "Date range exceeds 365 days"),
        ("404", 404, "Not found"),
        ("413", 413, "<html>"),
        ("414", 414, "<html>"),
        ("416", 416, "Range Not Satisfiable"),
        ("429", 429, "too many export requests in progress"),
        ("500", 500, "error completing export request"),
        ("502", 502, "<html>"),
        ("503", 503, "upstream connect error"),
        ("504", 504, "<html>"),
        ("auth_text_200", 200, "Unable to authenticate request"),
        ("auth_text_400", 400, "Unable to authenticate request"),
        ("timeout_error", 400, '"error": "Timeout Error."'),
    ],
)
async def test_statuses(kind: Kind, status: int, text: str, door: str) -> None:
    """A status fault answers with its status and the wording that was seen."""
    raw = await fetch(simulator(Fault(kind)), door)
    assert raw.head.status_code == status
    assert text in raw.data.decode()
    assert raw.error is None


async def test_status_and_text_can_be_replaced(door: str) -> None:
    """A fault may carry its own status and wording."""
    raw = await fetch(simulator(Fault("500", status=520, text="odd")), door)
    assert (raw.head.status_code, raw.data) == (520, b"odd")


async def test_retry_after(door: str) -> None:
    """429 and 503 name seconds, fractions too, or nothing where there is none; other statuses never do."""
    cases: list[tuple[Kind, float | None, str | None]] = [
        ("429", 7, "7"),
        ("503", 0.5, "0.5"),
        ("429", None, None),
        ("500", 7, None),
    ]
    for kind, given, seen in cases:
        raw = await fetch(simulator(Fault(kind, retry_after=given)), door)
        assert raw.head.headers.get("retry-after") == seen


@pytest.mark.parametrize("newline", [True, False])
async def test_an_error_may_be_the_whole_body_of_a_200(newline: bool, door: str) -> None:
    """At position 0 the body is nothing but a JSON error, plain and with status 200, with a newline or without."""
    fault = Fault("error_line", position=0.0, newline=newline, text='{"error": "Timeout Error."}')
    raw = await fetch(simulator(fault), door)
    assert raw.head.status_code == 200
    assert "content-encoding" not in raw.head.headers
    assert raw.data == b'{"error": "Timeout Error."}' + b"\n" * newline


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_a_redirect_leads_to_another_host(status: int, door: str) -> None:
    """A client that follows a redirect arrives there, and the log says whether it brought its credentials."""
    other = simulator()
    async with other.serve() as url:
        away = f"{url}{PATH}?from_date=2024-03-04&to_date=2024-03-04"
        sim = simulator(Fault("redirect", status=status, location=away))
        raw = await fetch(sim, door)
        assert (raw.head.status_code, raw.head.headers["location"], raw.data) == (status, away, b"")
        assert other.requests == []
        async with httpx.AsyncClient(follow_redirects=True, auth=ACCOUNT) as http, sim.serve() as first:
            followed = await http.get(first + PATH, params=DAYS)
            assert (followed.status_code, followed.url.host) == (401, "127.0.0.1")
            assert [log.credentials for log in (sim.requests[-1], *other.requests)] == [True, False]
            await http.get(away)
            assert other.requests[-1].credentials


async def test_a_redirect_may_respell_the_path(door: str) -> None:
    """Where it leads nowhere else, it leads to the path with a slash, or without, and the same parameters."""
    raw = await fetch(simulator(Fault("redirect")), door)
    location = httpx.URL(raw.head.headers["location"])
    assert (location.path, dict(location.params)) == (PATH + "/", DAYS)
    sim = simulator(Fault("redirect", times=2))
    async with httpx.AsyncClient(
        base_url="http://simulator", transport=sim.transport(), auth=ACCOUNT, follow_redirects=True
    ) as http:
        response = await http.get(PATH, params=DAYS)
    assert (response.status_code, response.url.path) == (200, PATH)
    assert len(sim.requests) == 3


@pytest.mark.parametrize(
    "options, message",
    [
        ({"probability": 1.1}, "probability must be between 0 and 1"),
        ({"position": -0.1}, "position must be between 0 and 1"),
        ({"position": float("nan")}, "position must be between 0 and 1"),
        ({"after": -1}, "after must not be negative"),
        ({"times": -1}, "times must not be negative"),
        ({"seconds": -0.5}, "seconds must not be negative"),
        ({"retry_after": -1.0}, "retry_after must not be negative"),
        ({"status": 100}, "status must be between 200 and 599"),
        ({"status": 600}, "status must be between 200 and 599"),
        ({"location": "http://x/\r\nA: b"}, "location must be a URL"),
        ({"location": "http://ü/"}, "location must be a URL"),
    ],
)
def test_what_no_fault_can_be(options: dict[str, Any], message: str) -> None:
    """Numbers out of range are refused when the fault is made, not when it hits."""
    with pytest.raises(ValueError, match=message):
        Fault("redirect", **options)


async def test_connections_that_break_before_the_head(door: str) -> None:
    """A reset is a read error, a close a protocol error."""
    assert type((await fetch(simulator(Fault("reset_before_head")), door)).error) is httpx.ReadError
    assert type((await fetch(simulator(Fault("close_before_head")), door)).error) is httpx.RemoteProtocolError


@pytest.mark.parametrize("position", [0.0, 0.5, 1.0])
async def test_connections_that_break_in_the_body(position: float, door: str) -> None:
    """The body is broken off at its position, after a head that said 200."""
    whole = len((await fetch(simulator(), door)).data)
    closed = await fetch(simulator(Fault("close", position=position)), door)
    assert closed.head.status_code == 200
    assert type(closed.error) is httpx.RemoteProtocolError
    assert len(closed.data) == int(whole * position)
    reset = await fetch(simulator(Fault("reset", position=position)), door)
    assert type(reset.error) is httpx.ReadError
    assert len(reset.data) <= int(whole * position)


@pytest.mark.parametrize(
    "kind, marker",
    [
        ("terminated_early", b"terminated early"),
        ("error_fragment", b'{"error":'),
        ("error_line", b'{"error": "Internal server error"}'),
    ],
)
@pytest.mark.parametrize("newline", [True, False])
async def test_markers_end_the_lines(kind: Kind, marker: bytes, newline: bool, door: str) -> None:
    """Half of the lines come, whole, then a last one that says so, in sound framing and gzip."""
    sim = simulator(Fault(kind, newline=newline))
    raw = await fetch(sim, door)
    assert gzip.decompress(raw.data).endswith(marker + b"\n" * newline)
    *rows, last = raw.lines[:-1] if newline else raw.lines
    assert last == marker
    assert set(rows) < good_lines(sim)
    assert 80 <= len(rows) <= 130


async def test_a_marker_may_be_everything(door: str) -> None:
    """At position 0 the marker is the whole body, too short for gzip; at 1 it follows all the lines."""
    raw = await fetch(
        simulator(Fault("terminated_early", position=0.0, text="export terminated early")), door
    )
    assert raw.data == b"export terminated early\n"
    assert "content-encoding" not in raw.head.headers
    sim = simulator(Fault("terminated_early", position=1.0))
    assert set((await fetch(sim, door)).lines[:-2]) == good_lines(sim)


async def test_a_cut_line(door: str) -> None:
    """The last line is cut, while framing and gzip are sound."""
    sim = simulator(Fault("cut_line"))
    raw = await fetch(sim, door)
    *rows, last = gzip.decompress(raw.data).split(b"\n")
    assert set(rows) < good_lines(sim)
    assert any(line.startswith(last) and line != last for line in good_lines(sim))


@pytest.mark.parametrize("position", [0.0, 0.3, 1.0])
async def test_a_garbage_line(position: float, door: str) -> None:
    """All lines come, and one between them that is no event."""
    sim = simulator(Fault("garbage_line", position=position))
    raw = await fetch(sim, door)
    lines = gzip.decompress(raw.data).split(b"\n")[:-1]
    assert set(lines) == good_lines(sim) | {b"this line is no event"}
    assert lines.count(b"this line is no event") == 1
    assert lines.index(b"this line is no event") == pytest.approx(position * (len(lines) - 1), abs=4)


async def test_blank_lines_line_ends_and_no_final_newline(door: str) -> None:
    """Harmless differences leave the same events."""
    kinds: tuple[Kind, ...] = ("blank_lines", "crlf", "no_final_newline")
    for kind in kinds:
        sim = simulator(Fault(kind))
        plain = gzip.decompress((await fetch(sim, door)).data)
        assert {line.rstrip(b"\r") for line in plain.split(b"\n")} - {b""} == good_lines(sim)
        assert (b"\n\n\r\n" in plain) is (kind == "blank_lines")
        assert (b"}\r\n" in plain) is (kind == "crlf")
        assert plain.endswith(b"}") is (kind == "no_final_newline")


async def test_truncated_gzip(door: str) -> None:
    """The compressed stream stops at its position, in sound framing."""
    whole = len((await fetch(simulator(), door)).data)
    raw = await fetch(simulator(Fault("truncated_gzip", position=0.9)), door)
    assert raw.error is None
    assert len(raw.data) == int(whole * 0.9)
    with pytest.raises(EOFError):
        gzip.decompress(raw.data)


async def test_corrupt_crc(door: str) -> None:
    """The lines are all there, the checksum is not theirs."""
    sim = simulator(Fault("corrupt_crc"))
    raw = await fetch(sim, door)
    assert set(zlib.decompressobj(wbits=-15).decompress(raw.data[10:]).split(b"\n")) - {b""} == good_lines(
        sim
    )
    with pytest.raises(gzip.BadGzipFile):
        gzip.decompress(raw.data)


async def test_trailing_garbage(door: str) -> None:
    """Bytes follow the gzip stream."""
    raw = await fetch(simulator(Fault("trailing_garbage")), door)
    member = zlib.decompressobj(wbits=31)
    member.decompress(raw.data)
    assert member.eof
    assert member.unused_data == b"\x00\x01 trailing garbage"


async def test_two_members(door: str) -> None:
    """Two gzip members follow one another, and both are needed for all the lines."""
    sim = simulator(Fault("two_members"))
    raw = await fetch(sim, door)
    member = zlib.decompressobj(wbits=31)
    first = member.decompress(raw.data)
    assert set(first.split(b"\n")) - {b""} < good_lines(sim)
    assert set(gzip.decompress(raw.data).split(b"\n")) - {b""} == good_lines(sim)


async def test_empty_body(door: str) -> None:
    """A body labelled gzip has no bytes at all."""
    raw = await fetch(simulator(Fault("empty_body")), door)
    assert (raw.head.headers["content-encoding"], raw.data) == ("gzip", b"")


async def test_gzip_faults_spare_plain_bodies(door: str) -> None:
    """A client that does not accept gzip is not hit by faults of gzip, but by those of lines."""
    fault = Fault("truncated_gzip")
    sim = simulator(fault, Fault("cut_line"))
    raw = await fetch(sim, door, headers={"accept-encoding": "identity"})
    assert sim.hits(fault) == 0
    assert sim.requests[0].fault == "cut_line"
    assert not raw.data.endswith(b"\n")


@pytest.mark.parametrize("kind", ["stall", "stall_before_head"])
async def test_a_stall_runs_into_the_read_timeout(kind: Kind, door: str) -> None:
    """While nothing is sent, a client's read timeout applies."""
    whole = len((await fetch(simulator(), door)).data)
    raw = await fetch(simulator(Fault(kind)), door, timeout=httpx.Timeout(20, read=0.3))
    assert type(raw.error) is httpx.ReadTimeout
    assert len(raw.data) == (int(whole * 0.5) if kind == "stall" else 0)


@pytest.mark.parametrize("kind", ["stall", "stall_before_head"])
async def test_a_stall_ends(kind: Kind, door: str) -> None:
    """After its seconds the answer goes on and is whole."""
    slept = []

    async def sleep(seconds: float) -> None:
        slept.append(seconds)

    sim = simulator(Fault(kind, seconds=1234.0), sleep=sleep)
    raw = await fetch(sim, door)
    assert set(gzip.decompress(raw.data).split(b"\n")) - {b""} == good_lines(sim)
    assert slept == [1234.0]


async def test_a_stall_can_be_cancelled(door: str) -> None:
    """A client that is cancelled during a stall leaves at once, and its request ends."""
    stalled = anyio.Event()

    async def forever(_: float) -> None:
        stalled.set()
        await anyio.sleep_forever()

    sim = simulator(Fault("stall_before_head"), sleep=forever)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(fetch, sim, door)
        await stalled.wait()
        assert sim.in_progress == 1
        tasks.cancel_scope.cancel()
    assert sim.in_progress == 0


async def _statuses(sim: Simulator, *days: tuple[str, str]) -> AsyncIterator[int]:
    async with httpx.AsyncClient(
        base_url="http://simulator", transport=sim.transport(), auth=ACCOUNT
    ) as http:
        for first, last in days:
            params = {"from_date": first, "to_date": last, "project_id": "12345"}
            yield (await http.get(PATH, params=params)).status_code


async def test_a_fault_concerns_days_that_overlap_its_own() -> None:
    """A request is hit where its days and the fault's have one in common."""
    sim = simulator(Fault("500", date(2024, 3, 4), date(2024, 3, 5)))
    asked = [
        ("2024-03-01", "2024-03-03"),
        ("2024-03-01", "2024-03-04"),
        ("2024-03-05", "2024-03-09"),
        ("2024-03-06", "2024-03-09"),
        ("2024-03-01", "2024-03-09"),
    ]
    assert [status async for status in _statuses(sim, *asked)] == [200, 500, 500, 200, 500]
    sim.faults = [Fault("500", first=date(2024, 3, 4))]
    assert [status async for status in _statuses(sim, *asked[:2])] == [200, 500]
    sim.faults = [Fault("500", last=date(2024, 3, 5))]
    assert [status async for status in _statuses(sim, *asked[2:4])] == [500, 200]


async def test_a_fault_counts_its_own_hits() -> None:
    """`after` and `times` count the requests a fault met and hit, whatever others did."""
    first, second = Fault("503", after=1, times=2), Fault("500", times=1)
    sim = simulator(first, second)
    asked = [("2024-03-04", "2024-03-04")] * 6
    assert [status async for status in _statuses(sim, *asked)] == [500, 503, 503, 200, 200, 200]
    assert (sim.hits(first), sim.hits(second)) == (2, 1)


async def test_equal_faults_count_apart() -> None:
    """Two faults of the same description are two faults."""
    sim = simulator(Fault("500", times=1), Fault("500", times=1))
    asked = [("2024-03-04", "2024-03-04")] * 3
    assert [status async for status in _statuses(sim, *asked)] == [500, 500, 200]


async def test_probability_is_seeded() -> None:
    """A fault of some probability hits about that share, and the same requests for the same seed."""
    asked = [("2024-03-04", "2024-03-04")] * 100
    runs = [
        [status async for status in _statuses(simulator(Fault("500", probability=0.3), seed=seed), *asked)]
        for seed in (1, 1, 2)
    ]
    assert runs[0] == runs[1] != runs[2]
    assert 15 <= runs[0].count(500) <= 45


async def test_faults_can_change_between_requests() -> None:
    """The list of faults may be changed in place."""
    sim = simulator()
    sim.faults.append(Fault("402"))
    assert [status async for status in _statuses(sim, ("2024-03-04", "2024-03-04"))] == [402]
    sim.faults.clear()
    assert [status async for status in _statuses(sim, ("2024-03-04", "2024-03-04"))] == [200]


async def test_faults_leave_truth_alone() -> None:
    """What an export should end up with does not depend on what goes wrong."""
    sim = simulator(Fault("garbage_line"), Fault("cut_line"))
    assert sim.truth(DAY, DAY) == simulator().truth(DAY, DAY)
    assert json.loads(next(iter(sim.lines(DAY, DAY))))["properties"]


@pytest.mark.parametrize("at", [-1, 0, 1])
async def test_a_cut_line_is_never_a_whole_one(at: int) -> None:
    """Wherever the cut falls, at the end of a line too, the last line of the body is broken."""
    first, last = date(2024, 3, 4), date(2024, 3, 6)
    whole = await fetch(simulator(), "transport")
    end = len(b"\n".join(whole.lines[:2])) + 1
    size = sum(len(line) + 1 for line in simulator().lines(first, last))
    cut = await fetch(simulator(Fault("cut_line", position=(end + at + 0.5) / size)), "transport")
    with pytest.raises(ValueError, match=r"Expecting|Unterminated|delimiter|column"):
        json.loads(cut.lines[-1])
    assert cut.lines[-1]
    assert cut.lines[:1] == whole.lines[:1]
