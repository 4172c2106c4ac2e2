"""The simulator's faults, as they arrive at a client without any protection."""

import gzip
import json
import zlib
from datetime import UTC, date, datetime
from typing import Any, get_args

import anyio
import httpx
import pytest
from endpoint import NO_CERTIFICATES
from examples import slow
from reference import event_in

from mixpanel_export.simulator import Fault, Simulator
from mixpanel_export.simulator.engage import PAGES
from mixpanel_export.simulator.fault_stages import LINES, WIRE
from mixpanel_export.simulator.faults import BEFORE_HEAD, STATUS, Kind, PageKind

pytestmark = pytest.mark.anyio

DAY = date(2024, 3, 4)
NOW = datetime(2024, 6, 1, 12, tzinfo=UTC)
DAYS = {"from_date": "2024-03-04", "to_date": "2024-03-06", "project_id": "12345"}
ACCOUNT = ("demo.mp-service-account", "demo-secret")
PATH = "/api/2.0/export"


def simulator(*faults: Fault, **options: Any) -> Simulator:
    """Return a small simulator with *faults* and several pieces to a body."""
    defaults: dict[str, Any] = {
        "events_per_day": 60,
        "piece": 5000,
        "per_second": 0,
        "per_hour": 0,
        "now": lambda: NOW,
    }
    return Simulator(faults=faults, **(defaults | options))


@pytest.fixture(params=["socket", "transport"])
def via(request: pytest.FixtureRequest) -> str:
    """How the simulator is reached."""
    return str(request.param)


class Raw:
    """What arrived: the head, the bytes of the body, and the error that ended them, if any."""

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


async def fetch(sim: Simulator, via: str, **options: Any) -> Raw:
    """Send one request, and return the bytes as transferred."""
    if via == "transport":
        return await _fetch("http://simulator", sim.transport(), options)
    async with sim.serve() as url:
        return await _fetch(url, None, options)


async def _fetch(url: str, transport: httpx.AsyncBaseTransport | None, options: dict[str, Any]) -> Raw:
    raw = Raw()
    defaults: dict[str, Any] = {"auth": ACCOUNT, "verify": NO_CERTIFICATES}
    async with httpx.AsyncClient(base_url=url, transport=transport, **(defaults | options)) as http:
        try:
            async with http.stream("GET", PATH, params=DAYS) as raw.response:
                async for piece in raw.head.aiter_raw():
                    raw.data += piece
        except httpx.TransportError as error:
            raw.error = error
    return raw


def events_of(sim: Simulator) -> set[bytes]:
    return set(sim.lines(DAY, date(2024, 3, 6)))


def test_every_kind_is_implemented() -> None:
    """Every kind is implemented, and every implementation has its kind."""
    implemented = {*STATUS, *LINES, *WIRE, *BEFORE_HEAD, "stall_before_head", "corrupt_crc", "two_members"}
    assert implemented | set(PAGES) == {*get_args(Kind), *get_args(PageKind)}


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
async def test_statuses(kind: Kind, status: int, text: str, via: str) -> None:
    """A status fault responds with its status and the observed text."""
    raw = await fetch(simulator(Fault(kind)), via)
    assert raw.head.status_code == status
    assert text in raw.data.decode()
    assert raw.error is None


async def test_status_and_text_can_be_replaced(via: str) -> None:
    """`Fault.status` and `Fault.text` replace those of the kind."""
    raw = await fetch(simulator(Fault("500", status=520, text="odd")), via)
    assert (raw.head.status_code, raw.data) == (520, b"odd")


async def test_retry_after(via: str) -> None:
    """A 429 and a 503 have `Retry-After` in seconds, also fractions, or none; other statuses never have it."""
    cases: list[tuple[Kind, float | None, str | None]] = [
        ("429", 7, "7"),
        ("503", 0.5, "0.5"),
        ("429", None, None),
        ("500", 7, None),
    ]
    for kind, seconds, header in cases:
        raw = await fetch(simulator(Fault(kind, retry_after=seconds)), via)
        assert raw.head.headers.get("retry-after") == header


@pytest.mark.parametrize("newline", [True, False])
async def test_an_error_can_be_the_whole_body_of_a_200(newline: bool, via: str) -> None:
    """At position 0 the body is a JSON error alone, uncompressed and with status 200, with or without a newline."""
    fault = Fault("error_line", position=0.0, newline=newline, text='{"error": "Timeout Error."}')
    raw = await fetch(simulator(fault), via)
    assert raw.head.status_code == 200
    assert "content-encoding" not in raw.head.headers
    assert raw.data == b'{"error": "Timeout Error."}' + b"\n" * newline


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_a_redirect_leads_to_another_host(status: int, via: str) -> None:
    """A client that follows a redirect arrives there, and the log shows whether it sent its credentials."""
    other = simulator()
    async with other.serve() as url:
        away = f"{url}{PATH}?from_date=2024-03-04&to_date=2024-03-04"
        sim = simulator(Fault("redirect", status=status, location=away))
        raw = await fetch(sim, via)
        assert (raw.head.status_code, raw.head.headers["location"], raw.data) == (status, away, b"")
        assert other.requests == []
        async with httpx.AsyncClient(follow_redirects=True, auth=ACCOUNT) as http, sim.serve() as first:
            followed = await http.get(first + PATH, params=DAYS)
            assert (followed.status_code, followed.url.host) == (401, "127.0.0.1")
            assert [log.credentials for log in (sim.requests[-1], *other.requests)] == [True, False]
            await http.get(away)
            assert other.requests[-1].credentials


async def test_a_redirect_leads_to_the_path_with_the_other_slash(via: str) -> None:
    """Without a location, a redirect adds or removes the slash of the path and keeps the parameters."""
    raw = await fetch(simulator(Fault("redirect")), via)
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
def test_the_fields_of_a_fault_are_checked(options: dict[str, Any], message: str) -> None:
    """Values out of range are refused when the fault is created, not when it applies."""
    with pytest.raises(ValueError, match=message):
        Fault("redirect", **options)


async def test_connections_that_break_before_the_head(via: str) -> None:
    """A reset is a read error, a close is a protocol error."""
    assert type((await fetch(simulator(Fault("reset_before_head")), via)).error) is httpx.ReadError
    assert type((await fetch(simulator(Fault("close_before_head")), via)).error) is httpx.RemoteProtocolError


@pytest.mark.parametrize("position", [0.0, 0.5, 1.0])
async def test_connections_that_break_in_the_body(position: float, via: str) -> None:
    """The connection breaks at the position, after a head with status 200."""
    whole = len((await fetch(simulator(), via)).data)
    closed = await fetch(simulator(Fault("close", position=position)), via)
    assert closed.head.status_code == 200
    assert type(closed.error) is httpx.RemoteProtocolError
    assert len(closed.data) == int(whole * position)
    reset = await fetch(simulator(Fault("reset", position=position)), via)
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
async def test_markers_end_the_lines(kind: Kind, marker: bytes, newline: bool, via: str) -> None:
    """Half of the lines arrive completely, then the marker as the last line, in valid framing and gzip."""
    sim = simulator(Fault(kind, newline=newline))
    raw = await fetch(sim, via)
    assert gzip.decompress(raw.data).endswith(marker + b"\n" * newline)
    *rows, last = raw.lines[:-1] if newline else raw.lines
    assert last == marker
    assert set(rows) < events_of(sim)
    assert 80 <= len(rows) <= 130


async def test_a_marker_can_be_the_whole_body(via: str) -> None:
    """At position 0 the marker is the whole body, too short for gzip; at position 1 it follows all lines."""
    raw = await fetch(simulator(Fault("terminated_early", position=0.0, text="export terminated early")), via)
    assert raw.data == b"export terminated early\n"
    assert "content-encoding" not in raw.head.headers
    sim = simulator(Fault("terminated_early", position=1.0))
    assert set((await fetch(sim, via)).lines[:-2]) == events_of(sim)


async def test_a_cut_line(via: str) -> None:
    """The last line is cut, while framing and gzip are valid."""
    sim = simulator(Fault("cut_line"))
    raw = await fetch(sim, via)
    *rows, last = gzip.decompress(raw.data).split(b"\n")
    assert set(rows) < events_of(sim)
    assert any(line.startswith(last) and line != last for line in events_of(sim))


@pytest.mark.parametrize("position", [0.0, 0.3, 1.0])
async def test_a_garbage_line(position: float, via: str) -> None:
    """All lines arrive, and one between them that is not an event."""
    sim = simulator(Fault("garbage_line", position=position))
    raw = await fetch(sim, via)
    lines = gzip.decompress(raw.data).split(b"\n")[:-1]
    assert set(lines) == events_of(sim) | {b"this line is no event"}
    assert lines.count(b"this line is no event") == 1
    assert lines.index(b"this line is no event") == pytest.approx(position * (len(lines) - 1), abs=4)


async def test_blank_lines_line_ends_and_no_final_newline(via: str) -> None:
    """Blank lines, CRLF and a missing final newline leave the events unchanged."""
    kinds: tuple[Kind, ...] = ("blank_lines", "crlf", "no_final_newline")
    for kind in kinds:
        sim = simulator(Fault(kind))
        plain = gzip.decompress((await fetch(sim, via)).data)
        assert {line.rstrip(b"\r") for line in plain.split(b"\n")} - {b""} == events_of(sim)
        assert (b"\n\n\r\n" in plain) is (kind == "blank_lines")
        assert (b"}\r\n" in plain) is (kind == "crlf")
        assert plain.endswith(b"}") is (kind == "no_final_newline")


async def test_truncated_gzip(via: str) -> None:
    """The compressed stream stops at the position, in valid framing."""
    whole = len((await fetch(simulator(), via)).data)
    raw = await fetch(simulator(Fault("truncated_gzip", position=0.9)), via)
    assert raw.error is None
    assert len(raw.data) == int(whole * 0.9)
    with pytest.raises(EOFError):
        gzip.decompress(raw.data)


async def test_corrupt_crc(via: str) -> None:
    """All lines arrive, but the checksum is wrong."""
    sim = simulator(Fault("corrupt_crc"))
    raw = await fetch(sim, via)
    assert set(zlib.decompressobj(wbits=-15).decompress(raw.data[10:]).split(b"\n")) - {b""} == events_of(sim)
    with pytest.raises(gzip.BadGzipFile):
        gzip.decompress(raw.data)


async def test_trailing_garbage(via: str) -> None:
    """Bytes follow the gzip stream."""
    raw = await fetch(simulator(Fault("trailing_garbage")), via)
    member = zlib.decompressobj(wbits=31)
    member.decompress(raw.data)
    assert member.eof
    assert member.unused_data == b"\x00\x01 trailing garbage"


async def test_two_members(via: str) -> None:
    """The body has two gzip members, and all lines need both."""
    sim = simulator(Fault("two_members"))
    raw = await fetch(sim, via)
    member = zlib.decompressobj(wbits=31)
    first = member.decompress(raw.data)
    assert set(first.split(b"\n")) - {b""} < events_of(sim)
    assert set(gzip.decompress(raw.data).split(b"\n")) - {b""} == events_of(sim)


async def test_empty_body(via: str) -> None:
    """A body labelled as gzip has no bytes."""
    raw = await fetch(simulator(Fault("empty_body")), via)
    assert (raw.head.headers["content-encoding"], raw.data) == ("gzip", b"")


@pytest.mark.parametrize("content_type", ["text/plain", "application/json"])
async def test_an_empty_200_has_neither_label_nor_body(content_type: str, via: str) -> None:
    """The response has status 200, the content type of events, no content encoding and no bytes."""
    sim = simulator(Fault("empty_200"), content_type=content_type)
    raw = await fetch(sim, via)
    assert (raw.head.status_code, raw.data, raw.error) == (200, b"", None)
    assert "content-encoding" not in raw.head.headers
    assert raw.head.headers["content-type"] == content_type
    assert sim.requests[0].empty_answer


async def test_an_empty_day_is_silent_like_an_empty_200(via: str) -> None:
    """A day without events and an empty 200 are indistinguishable for the client."""
    empty, silent = (
        await fetch(simulator(events_per_day=0), via),
        await fetch(simulator(Fault("empty_200")), via),
    )
    assert (empty.head.status_code, empty.head.headers, empty.data) == (200, silent.head.headers, silent.data)


async def test_gzip_faults_need_gzip(via: str) -> None:
    """Faults of gzip do not apply to a client that does not accept gzip; faults in lines do."""
    fault = Fault("truncated_gzip")
    sim = simulator(fault, Fault("cut_line"))
    raw = await fetch(sim, via, headers={"accept-encoding": "identity"})
    assert sim.hits(fault) == 0
    assert sim.requests[0].fault == "cut_line"
    assert not raw.data.endswith(b"\n")


@pytest.mark.parametrize("kind", ["stall", "stall_before_head"])
async def test_a_stall_runs_into_the_read_timeout(kind: Kind, via: str) -> None:
    """While nothing is sent, the client's read timeout applies."""
    whole = len((await fetch(simulator(), via)).data)
    raw = await fetch(simulator(Fault(kind)), via, timeout=httpx.Timeout(20, read=0.3))
    assert type(raw.error) is httpx.ReadTimeout
    assert len(raw.data) == (int(whole * 0.5) if kind == "stall" else 0)


@pytest.mark.parametrize("kind", ["stall", "stall_before_head"])
async def test_a_stall_ends(kind: Kind, via: str) -> None:
    """After the stall the response continues and is complete."""
    sleeps = []

    async def sleep(seconds: float) -> None:
        sleeps.append(seconds)

    sim = simulator(Fault(kind, seconds=1234.0), sleep=sleep)
    raw = await fetch(sim, via)
    assert set(gzip.decompress(raw.data).split(b"\n")) - {b""} == events_of(sim)
    assert sleeps == [1234.0]


async def test_a_stall_can_be_cancelled(via: str) -> None:
    """A client that is cancelled during a stall returns immediately, and its request ends."""
    stalled = anyio.Event()

    async def forever(_: float) -> None:
        stalled.set()
        await anyio.sleep_forever()

    sim = simulator(Fault("stall_before_head"), sleep=forever)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(fetch, sim, via)
        await stalled.wait()
        assert sim.in_progress == 1
        tasks.cancel_scope.cancel()
    assert sim.in_progress == 0


async def test_faults_do_not_change_the_truth() -> None:
    """The correct result of an export does not depend on faults."""
    sim = simulator(Fault("garbage_line"), Fault("cut_line"))
    assert sim.truth(DAY, DAY) == simulator().truth(DAY, DAY)
    assert json.loads(next(iter(sim.lines(DAY, DAY))))["properties"]


@pytest.mark.parametrize("at", [-1, 0, 1])
async def test_a_cut_at_the_end_of_a_line_is_moved(at: int) -> None:
    """Even if the position is at the end of a line, the last line of the body is incomplete."""
    first, last = date(2024, 3, 4), date(2024, 3, 6)
    whole = await fetch(simulator(), "transport")
    end = len(b"\n".join(whole.lines[:2])) + 1
    size = sum(len(line) + 1 for line in simulator().lines(first, last))
    cut = await fetch(simulator(Fault("cut_line", position=(end + at + 0.5) / size)), "transport")
    with pytest.raises(ValueError, match=r"Expecting|Unterminated|delimiter|column"):
        json.loads(cut.lines[-1])
    assert cut.lines[-1]
    assert cut.lines[:1] == whole.lines[:1]


@pytest.mark.parametrize("position", [0.0, 0.001, 0.5, 1.0, *slow(number / 40 for number in range(1, 40))])
async def test_the_last_line_of_a_cut_body_is_never_an_event(position: float) -> None:
    """Wherever the cut is, and whatever white space surrounds the lines, the body ends with part of a line."""
    sim = simulator(Fault("cut_line", position=position), awkward=1.0, events_per_day=200, gzip_over=10**9)
    *_, last = (await fetch(sim, "transport")).data.split(b"\n")
    assert last
    assert event_in(last) is None
