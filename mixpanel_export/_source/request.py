"""Sends one HTTP request for a chunk. Retries and the quota are handled elsewhere.

Every failure raises one of this package's errors.
"""

from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import aclosing, asynccontextmanager, contextmanager, suppress
from datetime import UTC, datetime
from time import monotonic
from typing import Any

import anyio
import httpx
from anyio import to_thread

from mixpanel_export._model import Chunk, Lines
from mixpanel_export._quota.statuses import UNCOUNTED
from mixpanel_export._source.client import Route, as_api_errors
from mixpanel_export._source.decoder import BodyDecoder, gunzip_for
from mixpanel_export._source.parameters import RequestParameters
from mixpanel_export._source.responses import add_request, error_from_body, error_from_response, redacted
from mixpanel_export.credentials import format_problem
from mixpanel_export.errors import APIError, LineTooLongError, TruncatedError

_WIRE_BATCH = 256 << 10  # bytes that a worker thread decodes per call; each switch between threads costs time
# The worker thread returns after this many bytes of lines, because a few compressed bytes can expand to many lines.
_LINES_BATCH = 2 << 20
# Maximum number of bytes to read from an error body. The body may repeat the request before it gives the reason.
_MAX_ERROR_BODY = 64 << 10
_HEADERS = {"Accept": "text/plain", "Accept-Encoding": "gzip"}


async def fetch(
    client: httpx.AsyncClient,
    parameters: RequestParameters,
    chunk: Chunk,
    *,
    admit: Callable[[], Awaitable[None]],
    on_bytes: Callable[[int], None],
    threads: anyio.CapacityLimiter | None = None,
    now: Callable[[], datetime] = lambda: datetime.now(UTC),
) -> AsyncGenerator[Lines]:
    """Request *chunk* once, and yield its lines block by block.

    *admit* is awaited once, after the connection is opened and before the request is sent. *on_bytes* is called with
    the size of each piece from the wire. *threads* limits the number of decoding threads. *now* returns the current
    time as an aware datetime. The time is used only to report the first day of the plan's history. The response is
    complete only if the iterator ends without an error.

    Raises:
        APIError: The attempt failed. Discard the lines that were yielded.
    """
    route = Route.to(parameters.url)
    with _adding_request_to_errors(parameters, chunk), as_api_errors(route, chunk):
        request = client.build_request(
            "GET", parameters.url, params=parameters.for_days(chunk), headers=_HEADERS
        )
        response = await send_request(client, parameters, request, admit, route)
        route.response_started = True
        try:
            if response.status_code != httpx.codes.OK:
                raise await read_error(response, parameters, chunk, now())
            async with aclosing(_body(response, parameters, chunk, on_bytes, threads)) as blocks:
                async for block in blocks:
                    yield block
        finally:
            with anyio.CancelScope(shield=True):
                await response.aclose()


@contextmanager
def _adding_request_to_errors(parameters: RequestParameters, chunk: Chunk) -> Iterator[None]:
    """Add the request to errors raised in the block. The credentials are in a header, not in the parameters."""
    try:
        yield
    except APIError as error:
        add_request(error, "GET", parameters.url, parameters.for_days(chunk))
        raise


async def send_request(
    client: httpx.AsyncClient,
    parameters: RequestParameters,
    request: httpx.Request,
    admit: Callable[[], Awaitable[None]],
    route: Route,
) -> httpx.Response:
    """Send *request*, and return its response, which the caller must read and close. See `fetch` for *admit*."""
    admitted = False
    with anyio.fail_after(None) as first_byte:

        async def admit_once() -> None:
            nonlocal admitted
            if not admitted:
                admitted = True
                await admit()
                first_byte.deadline = anyio.current_time() + parameters.timeouts.first_byte

        async def trace(event: str, info: dict[str, Any]) -> None:
            route.observe(event, info)
            # Mixpanel counts a request when it arrives, so it is admitted after the connection has been opened.
            if event.endswith("send_request_headers.started") and info["request"].method != b"CONNECT":
                await admit_once()

        request.extensions |= {
            "trace": trace,
            "timeout": httpx.Timeout(
                parameters.timeouts.idle, connect=parameters.timeouts.connect, read=None, pool=None
            ).as_dict(),
        }
        response = await client.send(request, auth=parameters.credentials.auth, stream=True)
    await admit_once()  # a transport without connections sends no trace events
    return response


async def _body(
    response: httpx.Response,
    parameters: RequestParameters,
    chunk: Chunk,
    on_bytes: Callable[[int], None],
    threads: anyio.CapacityLimiter | None,
) -> AsyncGenerator[Lines]:
    """Yield the lines of a body. Worker threads decode the body, and the event loop only passes references."""
    with _converting_body_errors(parameters, chunk):
        decoder = BodyDecoder(response.headers.get("content-encoding"))
    async with closing_pieces(response.aiter_raw()) as pieces:
        while wire := await read_pieces(pieces, parameters.timeouts.idle, on_bytes):
            blocks = _decode(decoder, wire)
            while True:
                with _converting_body_errors(parameters, chunk):
                    lines = await to_thread.run_sync(_next_batch, blocks, limiter=threads)
                if lines:
                    yield lines
                if sum(map(len, lines)) < _LINES_BATCH:
                    break
    with _converting_body_errors(parameters, chunk):
        rest = await to_thread.run_sync(decoder.close, limiter=threads)
    for lines in rest:
        yield lines


async def read_pieces(
    pieces: AsyncIterator[bytes], idle: float, on_bytes: Callable[[int], None]
) -> list[bytes]:
    """Read pieces from the wire, about `_WIRE_BATCH` bytes in total. Return an empty list at the end of the body.

    Raises:
        TimeoutError: Nothing arrived for *idle* seconds. The error may be late by up to a quarter of this time.
    """
    wire: list[bytes] = []
    size = 0
    renewal = monotonic() + idle / 4
    with anyio.fail_after(idle * 1.25) as silence:
        while size < _WIRE_BATCH and (piece := await anext(pieces, None)) is not None:
            if monotonic() > renewal:  # each renewal sets a timer
                silence.deadline = anyio.current_time() + idle * 1.25
                renewal = monotonic() + idle / 4
            on_bytes(len(piece))
            wire.append(piece)
            size += len(piece)
    return wire


def _decode(decoder: BodyDecoder, wire: Sequence[bytes]) -> Iterator[Lines]:
    # Decoding one large piece takes the GIL less often than decoding many small pieces. The pieces are joined in this
    # generator, because a worker thread runs it.
    yield from decoder.feed(b"".join(wire))


def _next_batch(blocks: Iterator[Lines]) -> Lines:
    """Join the next blocks into one block of at least `_LINES_BATCH` bytes. Only the last block may be smaller."""
    lines: list[bytes | memoryview] = []
    size = 0
    for block in blocks:
        lines += block
        size += sum(map(len, block))
        if size >= _LINES_BATCH:
            break
    return tuple(lines)


@contextmanager
def _converting_body_errors(parameters: RequestParameters, chunk: Chunk) -> Iterator[None]:
    """Add the chunk's days to errors about incomplete bodies, and mask the secret."""
    try:
        yield
    except (LineTooLongError, TruncatedError) as error:
        # The frames of the original error contain lines of the response, which a traceback with locals would show.
        raise error_from_body(error, parameters.credentials, chunk) from error.with_traceback(None)


async def read_error(
    response: httpx.Response, parameters: RequestParameters, chunk: Chunk | None, now: datetime
) -> APIError:
    """Read the start of a response with a status other than 200, and return its error."""
    body = bytearray()
    try:
        with anyio.fail_after(parameters.timeouts.idle):
            async with closing_pieces(response.aiter_raw()) as pieces:
                await _read_start(pieces, response.headers.get("content-encoding"), body)
    except (TimeoutError, httpx.HTTPError):
        if response.status_code not in UNCOUNTED:
            raise
    text = redacted(body[:_MAX_ERROR_BODY].decode("utf-8", "replace"), parameters.credentials)
    hint = format_problem(parameters.credentials)
    retry_after = response.headers.get("retry-after")
    return error_from_response(response.status_code, text, retry_after, chunk, now, hint=hint)


async def _read_start(pieces: AsyncIterator[bytes], content_encoding: str | None, body: bytearray) -> None:
    """Append the start of a response to *body*, as far as it can be read.

    httpx's own decoding is not used, because it accepts any encoding that the server chooses. It also decompresses each
    piece completely, so a thousand bytes could become a million.
    """
    with suppress(TruncatedError):
        gunzip = gunzip_for(content_encoding)
        async for wire in pieces:
            for plain in gunzip.feed(wire) if gunzip else (wire,):
                body += plain
                if len(body) >= _MAX_ERROR_BODY:
                    return


@asynccontextmanager
async def closing_pieces(pieces: AsyncIterator[bytes]) -> AsyncGenerator[AsyncIterator[bytes]]:
    """Close *pieces* at the end of the block.

    httpx's iterators are nested generators. If only the outer generator were closed, the garbage collector would have
    to close the inner ones. A cancelled read closes all of them.
    """
    try:
        yield pieces
    finally:
        with anyio.CancelScope(shield=True) as scope, suppress(httpx.HTTPError):
            scope.cancel()
            async for _ in pieces:
                pass
