"""One attempt over HTTP: the request, the meaning of each response, and the names of failures."""

import gzip
import inspect
import json
from collections.abc import AsyncIterator
from datetime import UTC, date, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import anyio
import anyio.lowlevel
import httpx
import pytest
import respx
from support import ACCOUNT, NOW

from mixpanel_export._model import Chunk, Selection
from mixpanel_export._source.client import Route, as_api_errors, new_client
from mixpanel_export._source.parameters import RequestParameters, Timeouts
from mixpanel_export._source.request import fetch
from mixpanel_export._source.responses import error_from_response, parse_retry_after
from mixpanel_export.credentials import Credentials
from mixpanel_export.errors import (
    APIError,
    AuthenticationError,
    FutureDateError,
    LineTooLongError,
    NetworkError,
    QueryError,
    RateLimitError,
    ServerError,
    TruncatedError,
)

pytestmark = pytest.mark.anyio

URL = "https://data.mixpanel.com/api/2.0/export"
CHUNK = Chunk(date(2024, 3, 1), date(2024, 3, 3))
ALL = Selection("12345")
LINE = b'{"event":"e","properties":{}}\n'


class Asked:
    """What an attempt reported: how often it passed the gate, and the bytes it received."""

    def __init__(self) -> None:
        self.admitted = 0
        self.received = 0

    async def admit(self) -> None:
        self.admitted += 1

    def receive(self, size: int) -> None:
        self.received += size


async def fetched(parameters: RequestParameters, asked: Asked | None = None) -> bytes:
    """Return all lines of one attempt."""
    asked = asked or Asked()
    blocks = []
    async with new_client(parameters.url) as client:
        async for lines in fetch(client, parameters, CHUNK, admit=asked.admit, on_bytes=asked.receive):
            blocks.append(b"".join(lines))  # noqa: PERF401 - an async comprehension would hide the loop under test
    return b"".join(blocks)


async def pieces(*parts: bytes | Exception) -> AsyncIterator[bytes]:
    for part in parts:
        if isinstance(part, Exception):
            raise part
        yield part


@respx.mock
async def test_the_request_is_the_documented_one() -> None:
    """Days, filters and project are query parameters; the account is Basic authentication; gzip is requested."""
    route = respx.get(URL).mock(return_value=httpx.Response(200, stream=Streamed(LINE)))
    asked = Asked()
    parameters = RequestParameters(
        URL, ACCOUNT, Selection("12345", ('Sign "Up"', "Käse&co"), 'properties["a"] == 1'), limit=5
    )
    assert await fetched(parameters, asked) == LINE
    request = route.calls.last.request
    assert dict(request.url.params) == {
        "project_id": "12345",
        "from_date": "2024-03-01",
        "to_date": "2024-03-03",
        "event": '["Sign \\"Up\\"", "Käse&co"]',
        "where": 'properties["a"] == 1',
        "limit": "5",
    }
    assert request.headers["authorization"] == httpx.BasicAuth(*ACCOUNT.auth)._auth_header
    assert request.headers["accept-encoding"] == "gzip"
    assert (asked.admitted, asked.received) == (1, len(LINE))


@respx.mock
async def test_a_project_secret_sends_no_project() -> None:
    """With a legacy secret, the project is omitted, because the server rejects it."""
    route = respx.get(URL).mock(return_value=httpx.Response(200, stream=Streamed(LINE)))
    await fetched(RequestParameters(URL, Credentials(None, "legacy", "12345"), ALL))
    assert "project_id" not in route.calls.last.request.url.params


@respx.mock
async def test_credentials_follow_no_redirect() -> None:
    """A redirect is an error, and nothing is sent to its target."""
    elsewhere = respx.get("https://elsewhere.example/").mock(return_value=httpx.Response(200))
    respx.get(URL).mock(return_value=httpx.Response(302, headers={"location": "https://elsewhere.example/"}))
    with pytest.raises(QueryError, match="API URL"):
        await fetched(RequestParameters(URL, ACCOUNT, ALL))
    assert not elsewhere.called


@respx.mock
async def test_no_error_shows_the_secret() -> None:
    """If a server echoes the secret or the header, both are masked in the error."""
    header = httpx.BasicAuth(*ACCOUNT.auth)._auth_header
    respx.get(URL).mock(return_value=httpx.Response(500, text=f"you sent {ACCOUNT.secret!s:s} as {header}"))
    with pytest.raises(ServerError) as caught:
        await fetched(RequestParameters(URL, ACCOUNT, ALL))
    shown = str(caught.value) + repr(caught.value.to_dict())
    assert "you sent *** as Basic ***" in shown
    assert str.__str__(ACCOUNT.secret) not in shown


@respx.mock
async def test_an_error_shows_the_beginning_of_a_long_answer() -> None:
    """An error has at most 500 bytes of the response."""
    respx.get(URL).mock(return_value=httpx.Response(503, text="x" * 100_000))
    with pytest.raises(ServerError) as caught:
        await fetched(RequestParameters(URL, ACCOUNT, ALL))
    assert caught.value.response_body == "x" * 500


@respx.mock
async def test_an_error_that_repeats_a_long_request_is_understood() -> None:
    """An error text after a repetition of a long request is found and shown, without any part of the secret."""
    secret = f"{ACCOUNT.secret!s:s}"
    body = json.dumps(
        {"request": "x" * 476 + secret + "x" * 9000, "error": "to_date cannot be later than today"}
    )
    respx.get(URL).mock(return_value=httpx.Response(400, text=body))
    with pytest.raises(
        FutureDateError, match="Mixpanel responded with status 400: to_date cannot be later than today; use"
    ) as caught:
        await fetched(RequestParameters(URL, ACCOUNT, ALL))
    assert len(caught.value.response_body or "") == 500
    assert secret[:5] not in repr(caught.value.to_dict())


@respx.mock
async def test_a_connection_that_breaks_within_the_body_is_a_network_error() -> None:
    """The lines that arrived before are discarded."""
    broken = Streamed(LINE, httpx.ReadError("reset by peer"))
    respx.get(URL).mock(return_value=httpx.Response(200, stream=broken))
    with pytest.raises(NetworkError, match="reset by peer"):
        await fetched(RequestParameters(URL, ACCOUNT, ALL))


@respx.mock
async def test_a_body_that_is_not_whole_says_so() -> None:
    """The error quotes a last line that is not an event."""
    respx.get(URL).mock(return_value=httpx.Response(200, stream=Streamed(LINE, b"terminated early\n")))
    with pytest.raises(TruncatedError, match="2024-03-01 to 2024-03-03") as caught:
        await fetched(RequestParameters(URL, ACCOUNT, ALL))
    assert (caught.value.response_body or "").strip() == "terminated early"


async def test_silence_is_a_network_error() -> None:
    """A server that accepts a connection and sends nothing is given up after the timeout for the first byte."""
    listener = await anyio.create_tcp_listener(local_host="127.0.0.1")
    port = listener.extra(anyio.abc.SocketAttribute.local_port)

    async def say_nothing(stream: anyio.abc.SocketStream) -> None:
        async with stream:
            await anyio.sleep_forever()

    async with listener, anyio.create_task_group() as tasks:
        tasks.start_soon(listener.serve, say_nothing)
        parameters = RequestParameters(
            f"http://127.0.0.1:{port}", ACCOUNT, ALL, timeouts=Timeouts(first_byte=0.2)
        )
        with pytest.raises(NetworkError, match="sent no data"):
            await fetched(parameters)
        tasks.cancel_scope.cancel()


async def test_a_closed_port_is_a_network_error() -> None:
    """If no process listens, the error says that the connection could not be made."""
    async with await anyio.create_tcp_listener(local_host="127.0.0.1") as listener:
        port = listener.extra(anyio.abc.SocketAttribute.local_port)
    with pytest.raises(NetworkError, match="2024-03-01"):
        await fetched(RequestParameters(f"http://127.0.0.1:{port}", ACCOUNT, ALL))


@pytest.mark.parametrize(
    "status,body,error",
    [
        (401, "", AuthenticationError),
        (400, "Unable to authenticate request", AuthenticationError),
        (403, "Unable to authenticate request", AuthenticationError),
        (400, '{"error": "Timeout Error."}', ServerError),
        (400, " to_date cannot be later than today", FutureDateError),
        (400, '{"request": "/api", "error": "to_date cannot be later than today"}', FutureDateError),
        (400, "Error in from_date: invalid date, bad year", QueryError),
        (402, '{"error": "Your plan does not allow API calls."}', QueryError),
        (403, "Date range exceeds 365 days into the past", QueryError),
        (404, "", QueryError),
        (408, "", ServerError),
        (409, "", ServerError),
        (416, "", QueryError),
        (421, "", ServerError),
        (425, "", ServerError),
        (429, "", RateLimitError),
        (499, "", ServerError),
        (500, "error completing export request", ServerError),
        (502, "<html>", ServerError),
        (503, "upstream connect error", ServerError),
        (504, "", ServerError),
        (302, "", QueryError),
        (204, "", QueryError),
    ],
)
def test_what_an_answer_means(status: int, body: str, error: type[APIError]) -> None:
    """Each status and text has one error, which has the days, the status and the text."""
    meant = error_from_response(status, body, None, CHUNK, NOW)
    assert type(meant) is error
    assert (meant.status_code, meant.days) == (status, CHUNK)
    assert str(status) in meant.reason


@pytest.mark.parametrize(
    "status,body,argument,named",
    [
        (400, "to_date cannot be later than today", "to_date", "2024-03-02"),
        (403, '{"error": "Date range exceeds 90 days into the past"}', "from_date", "2024-03-03"),
        (403, "Date range exceeds 99999999999 days into the past", None, "role"),
        (403, "", None, "role"),
        (402, "", None, "plan"),
        (404, "", None, "API URL"),
        (302, "", None, "API URL"),
        (401, "", None, "region"),
        (400, "Unable to authenticate request", None, "region"),
        (429, "", None, "per_hour"),
        (429, "too many requests in progress", None, "max_workers"),
    ],
)
def test_an_error_says_what_to_do(status: int, body: str, argument: str | None, named: str) -> None:
    """The advice says what to check or change, and has the argument and the day if a day is the reason."""
    error = error_from_response(status, body, None, CHUNK, NOW)
    assert (error.argument, error.days) == (argument, CHUNK)
    assert named in (error.advice or "")


@respx.mock
@pytest.mark.parametrize(
    "body", ["Unable to authenticate request", '{"error": "Unable to authenticate request"}']
)
async def test_a_200_that_denies_is_an_authentication_error(body: str) -> None:
    """Rejected credentials are recognized by the body, alone or after blank lines, whatever the status."""
    respx.get(URL).mock(return_value=httpx.Response(200, stream=Streamed(f"\n{body}\n".encode())))
    with pytest.raises(AuthenticationError, match="region"):
        await fetched(RequestParameters(URL, ACCOUNT, ALL))


@respx.mock
async def test_a_cut_event_that_speaks_of_authentication_is_only_cut() -> None:
    """Text inside a line that was an event is not an error text of Mixpanel."""
    cut = LINE + b'{"event":"e","properties":{"text":"Unable to authenticate request'
    respx.get(URL).mock(return_value=httpx.Response(200, stream=Streamed(cut)))
    with pytest.raises(TruncatedError):
        await fetched(RequestParameters(URL, ACCOUNT, ALL))


@respx.mock
async def test_a_line_that_is_too_long_says_so() -> None:
    """The error has the days, the maximum, the start of the line and advice; the secret stays masked."""
    begun = f'{{"event":"Long {ACCOUNT.secret!s:s}","properties":{{"text":"'.encode()
    stream = Streamed(LINE, begun, *[b"x" * (8 << 20)] * 8)
    respx.get(URL).mock(return_value=httpx.Response(200, stream=stream))
    with pytest.raises(
        LineTooLongError, match=r"67108864 bytes.*leave the event of this line out of events"
    ) as caught:
        await fetched(RequestParameters(URL, ACCOUNT, ALL))
    assert "2024-03-01 to 2024-03-03" in str(caught.value)
    assert '{"event":"Long ***","properties"' in str(caught.value)
    assert len(caught.value.response_body or "") <= 500


@respx.mock
async def test_an_encoding_that_was_not_asked_for_says_whose_answer_it_was() -> None:
    """A response with another encoding is an error that names the days."""
    answer = httpx.Response(200, headers={"content-encoding": "br"}, stream=Streamed(LINE))
    respx.get(URL).mock(return_value=answer)
    with pytest.raises(TruncatedError, match=r"2024-03-01 to 2024-03-03.*'br'"):
        await fetched(RequestParameters(URL, ACCOUNT, ALL))


@respx.mock
@pytest.mark.parametrize("pieces", [1, 40])
async def test_decoding_leaves_the_event_loop_to_others(pieces: int) -> None:
    """Another task runs at least once for each block of a body, even if the whole body arrives at once."""
    body = LINE * (20 << 20 >> 5)
    wire = gzip.compress(body, 1)
    size = -(-len(wire) // pieces)
    stream = Streamed(*(wire[start : start + size] for start in range(0, len(wire), size)))
    respx.get(URL).mock(return_value=httpx.Response(200, headers={"content-encoding": "gzip"}, stream=stream))
    turns = 0

    async def others() -> None:
        nonlocal turns
        while True:
            turns += 1
            await anyio.lowlevel.checkpoint()

    blocks = []
    parameters = RequestParameters(URL, ACCOUNT, ALL)
    async with new_client(URL) as client, anyio.create_task_group() as tasks:
        tasks.start_soon(others)
        asked = Asked()
        before = 0
        async for lines in fetch(client, parameters, CHUNK, admit=asked.admit, on_bytes=asked.receive):
            assert turns > before
            before = turns
            blocks.append(b"".join(lines))
        tasks.cancel_scope.cancel()
    assert len(blocks) >= 5
    assert b"".join(blocks) == body


def test_retry_after_is_seconds_or_a_date() -> None:
    """Both forms of `Retry-After` become seconds from now; anything else is None."""
    soon = datetime.now(UTC) + timedelta(seconds=90)
    assert parse_retry_after("17") == 17
    assert parse_retry_after("1.5") == 1.5
    assert parse_retry_after(format_datetime(soon, usegmt=True)) == pytest.approx(90, abs=5)
    assert parse_retry_after("Wed, 21 Oct 2015 07:28:00 GMT") == 0
    assert [parse_retry_after(text) for text in (None, "", "soon", "-3")] == [None] * 4


def http_errors() -> list[type[Exception]]:
    """Return every error class of the HTTP library that a request can raise."""
    found = [value for _, value in inspect.getmembers(httpx, inspect.isclass)]
    return [
        error
        for error in found
        if issubclass(error, httpx.RequestError | httpx.StreamError | httpx.InvalidURL)
    ]


@pytest.mark.parametrize("error", http_errors(), ids=lambda error: error.__name__)
def test_every_error_of_the_http_library_is_translated(error: type[Exception]) -> None:
    """No exception class of the library leaves the module."""
    given: list[Any] = (
        []
        if error in {httpx.StreamConsumed, httpx.StreamClosed, httpx.ResponseNotRead, httpx.RequestNotRead}
        else ["text"]
    )
    with pytest.raises(APIError, match="2024-03-01"), as_api_errors(Route("example.com", 443), CHUNK):
        raise error(*given)


class Streamed(httpx.AsyncByteStream):
    """A body in pieces; an exception among them is raised in its place."""

    def __init__(self, *parts: bytes | Exception) -> None:
        self._parts = parts

    async def __aiter__(self) -> AsyncIterator[bytes]:
        async for piece in pieces(*self._parts):
            yield piece
