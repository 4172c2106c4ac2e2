"""One attempt at one chunk over HTTP. Knows HTTP, not patience.

Every failure leaves as one of our own errors; what they mean for the export is decided elsewhere.
"""

import base64
import json
import re
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import (
    AbstractAsyncContextManager,
    aclosing,
    asynccontextmanager,
    contextmanager,
    nullcontext,
    suppress,
)
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import Any

import anyio
import httpx

from mixpanel_export._model import Chunk
from mixpanel_export._source.client import Route, as_api_errors
from mixpanel_export._source.decoder import BodyDecoder, gunzip_for
from mixpanel_export.credentials import Credentials
from mixpanel_export.errors import (
    APIError,
    AuthenticationError,
    FutureDateError,
    LineTooLongError,
    QueryError,
    RateLimitError,
    ServerError,
    TruncatedError,
)

_READ, _SHOWN = (
    64 << 10,
    500,
)  # bytes of an error body that are looked at, as it may repeat the request, and shown
_CLEAR = frozenset({401, 402, 429})  # statuses that mean what they mean, should the body break
Turn = Callable[[], AbstractAsyncContextManager[None]]
_HEADERS = {"Accept": "text/plain", "Accept-Encoding": "gzip"}
_AUTH_TEXT = "Unable to authenticate request"  # seen as 400 and, now and then, as 200
_TIMEOUT_TEXT = "Timeout Error"  # of the server itself, which it reports as a bad request
_FUTURE_TEXT = "to_date cannot be later than today"
_HISTORY_TEXT = re.compile(r"Date range exceeds (\d{1,5}) days into the past")  # the limit of the plan


@dataclass(frozen=True, slots=True)
class Timeouts:
    """Seconds without progress before an attempt is given up; large exports may take minutes to begin."""

    connect: float = 30.0
    first_byte: float = 1800.0
    idle: float = 300.0


@dataclass(frozen=True, slots=True)
class Query:
    """What all requests of an export have in common."""

    url: str
    credentials: Credentials
    events: Sequence[str] | None = None
    where: str | None = None
    limit: int | None = None
    timeouts: Timeouts = Timeouts()

    def params(self, chunk: Chunk) -> dict[str, str]:
        """Return the query parameters for the days of *chunk*."""
        params = dict(self.credentials.params)
        params |= {"from_date": str(chunk.first), "to_date": str(chunk.last)}
        if self.events is not None:
            params["event"] = json.dumps(list(self.events), ensure_ascii=False)
        if self.where is not None:
            params["where"] = self.where
        if self.limit is not None:
            params["limit"] = str(self.limit)
        return params


async def fetch(
    client: httpx.AsyncClient,
    query: Query,
    chunk: Chunk,
    *,
    admit: Callable[[], Awaitable[None]],
    received: Callable[[int], None],
    turn: Turn = nullcontext,
    now: Callable[[], datetime] = lambda: datetime.now(UTC),
) -> AsyncGenerator[bytes]:
    """Ask for *chunk* once and yield its blocks of whole lines.

    *admit* is awaited once, when the connection stands and before the request is sent; *received* is told
    the bytes of each piece from the wire; each is decoded, and what it gives yielded, in a *turn*; *now* (aware)
    says which days a limited history has. Only when the iterator ends by itself was the body whole.

    Raises:
        APIError: The attempt failed; what was yielded is void.
    """
    route = Route.to(query.url)
    with as_api_errors(chunk, route):
        request = client.build_request("GET", query.url, params=query.params(chunk), headers=_HEADERS)
        response = await _send(client, query, request, admit, route)
        route.answered = True
        try:
            if response.status_code != httpx.codes.OK:
                raise await _refusal(response, query, chunk, now())
            async with aclosing(_body(response, query, chunk, received, turn)) as blocks:
                async for block in blocks:
                    yield block
        finally:
            with anyio.CancelScope(shield=True):
                await response.aclose()


async def _send(
    client: httpx.AsyncClient,
    query: Query,
    request: httpx.Request,
    admit: Callable[[], Awaitable[None]],
    route: Route,
) -> httpx.Response:
    admitted = False
    with anyio.fail_after(None) as answer:

        async def admit_once() -> None:
            nonlocal admitted
            if not admitted:
                admitted = True
                await admit()
                answer.deadline = anyio.current_time() + query.timeouts.first_byte

        async def trace(event: str, info: dict[str, Any]) -> None:
            route.follow(event, info)
            # The server counts arrivals, so the gate stands between the connection and the request line.
            if event.endswith("send_request_headers.started") and info["request"].method != b"CONNECT":
                await admit_once()

        request.extensions |= {
            "trace": trace,
            "timeout": httpx.Timeout(
                query.timeouts.idle, connect=query.timeouts.connect, read=None, pool=None
            ).as_dict(),
        }
        response = await client.send(request, auth=query.credentials.auth, stream=True)
    await admit_once()  # a transport without connections does not trace
    return response


async def _body(
    response: httpx.Response,
    query: Query,
    chunk: Chunk,
    received: Callable[[int], None],
    turn: Turn,
) -> AsyncGenerator[bytes]:
    with _naming(query, chunk):
        decoder = BodyDecoder(response.headers.get("content-encoding"))
    async with _abandoned(response.aiter_raw()) as pieces:
        while True:
            with anyio.fail_after(query.timeouts.idle):
                wire = await anext(pieces, None)
            if wire is None:
                break
            received(len(wire))
            async with turn():
                with _naming(query, chunk):
                    for block in decoder.feed(wire):
                        yield block
    with _naming(query, chunk):
        for block in decoder.close():
            yield block


@contextmanager
def _naming(query: Query, chunk: Chunk) -> Iterator[None]:
    """Let a body that is not whole say whose it was."""
    try:
        yield
    except (LineTooLongError, TruncatedError) as error:
        # Its frames hold lines of the answer, which a traceback with local variables would show.
        raise _not_whole(error, query, chunk) from error.with_traceback(None)


async def _refusal(response: httpx.Response, query: Query, chunk: Chunk, now: datetime) -> APIError:
    body = bytearray()
    try:
        with anyio.fail_after(query.timeouts.idle):
            async with _abandoned(response.aiter_raw()) as pieces:
                await _read_beginning(pieces, response.headers.get("content-encoding"), body)
    except (TimeoutError, httpx.HTTPError):
        if response.status_code not in _CLEAR:
            raise
    text = _redacted(body[:_READ].decode("utf-8", "replace"), query.credentials)
    return refusal(response.status_code, text, response.headers.get("retry-after"), chunk, now)


async def _read_beginning(
    pieces: AsyncIterator[bytes], content_encoding: str | None, body: bytearray
) -> None:
    """Append the beginning of an answer to *body*, as far as it can be read.

    The HTTP library would undo as many encodings as the server names, and inflate each piece in one go, which
    makes a thousand times a thousand bytes of one.
    """
    with suppress(TruncatedError):
        gunzip = gunzip_for(content_encoding)
        async for wire in pieces:
            for plain in gunzip.feed(wire) if gunzip else (wire,):
                body += plain
                if len(body) >= _READ:
                    return


@asynccontextmanager
async def _abandoned(pieces: AsyncIterator[bytes]) -> AsyncGenerator[AsyncIterator[bytes]]:
    """End *pieces* with the context, however far it got.

    The library's iterators are generators inside generators, and closing the outer one leaves the inner ones
    to the garbage collector. A cancelled read ends them all.
    """
    try:
        yield pieces
    finally:
        with anyio.CancelScope(shield=True) as scope, suppress(httpx.HTTPError):
            scope.cancel()
            async for _ in pieces:
                pass


def refusal(status: int, body: str, retry_after: str | None, chunk: Chunk, now: datetime) -> APIError:
    """Return the error that an answer other than 200, given at *now* (aware), means."""
    shown = body.encode()[:_SHOWN].decode("utf-8", "ignore")
    reason = _reason(body)
    said = f"Mixpanel answered {status} for {chunk}: {reason[:_SHOWN] or 'no text'}"
    if status == httpx.codes.UNAUTHORIZED or _AUTH_TEXT in reason:
        return _not_authenticated(status, shown, chunk)
    if status == httpx.codes.TOO_MANY_REQUESTS:
        return RateLimitError(
            f"{said}; {_slower(reason)}",
            response_body=shown,
            retry_after=seconds_of(retry_after),
        )
    if (
        status >= httpx.codes.INTERNAL_SERVER_ERROR
        or status == httpx.codes.REQUEST_TIMEOUT
        or _TIMEOUT_TEXT in reason
    ):
        return ServerError(
            f"{said}; try again later",
            status_code=status,
            response_body=shown,
            retry_after=seconds_of(retry_after),
        )
    if _FUTURE_TEXT in reason:
        advice = f"use {chunk.last - timedelta(days=1)} as to_date until {chunk.last} has begun in the project's time zone"
        return FutureDateError(f"{said}; {advice}", status_code=status, response_body=shown)
    advice = _first_day(reason, now) or _advice(status)
    return QueryError(f"{said}; {advice}", status_code=status, response_body=shown)


def seconds_of(retry_after: str | None) -> float | None:
    """Return the seconds that a `Retry-After` header means, given as a number or as an HTTP date."""
    if not retry_after:
        return None
    if re.fullmatch(r"\d+(\.\d+)?", retry_after.strip()):
        return float(retry_after)
    try:
        moment = parsedate_to_datetime(retry_after)
    except ValueError:
        return None
    return max(0.0, (moment.replace(tzinfo=moment.tzinfo or UTC) - datetime.now(UTC)).total_seconds())


def _slower(reason: str) -> str:
    if "in progress" in reason:
        return "other exports of the project are running, so wait for them or lower max_workers"
    return "the project's quota is spent, so wait or lower per_second and per_hour"


def _first_day(reason: str, now: datetime) -> str | None:
    """Say with which day to begin, where the answer is that the plan's history does not go back that far."""
    if not (limit := _HISTORY_TEXT.search(reason)):
        return None
    first = now.astimezone(UTC).date() - timedelta(days=int(limit[1]))
    return f"the plan's limit is {limit[1]} days, so use {first} or a later day as from_date"


def _advice(status: int) -> str:
    match status:
        case 402:
            return "the plan does not allow this call or a bill is due, so look at the plan"
        case 403:
            return "the account may not read this project, or not these days; check its role and the plan"
        case 404:
            return "check the region and the API URL"
        case _ if httpx.codes.is_redirect(status):
            return "credentials are not sent on to another address, so check the API URL"
        case _:
            return "check the dates, the event names and the where expression"


def _not_authenticated(status: int, body: str, chunk: Chunk) -> AuthenticationError:
    return AuthenticationError(
        f"Mixpanel does not accept the credentials for {chunk} (status {status}); check user name, secret and "
        "project, and that the project's region is the one asked (us, eu or in)",
        status_code=status,
        response_body=body,
    )


def _not_whole(error: LineTooLongError | TruncatedError, query: Query, chunk: Chunk) -> APIError:
    body = _redacted(error.response_body or "", query.credentials)
    if _reason(body).startswith(_AUTH_TEXT):
        return _not_authenticated(httpx.codes.OK, body, chunk)
    shown = f"{error}: {body.strip()[:80]}" if body.strip() else str(error)
    if isinstance(error, LineTooLongError):
        said = f"the answer for {chunk} cannot be taken ({shown})"
        advice = "select events without this one, or fetch the days around it"
    else:
        said, advice = f"the answer for {chunk} is not whole ({shown})", "fetch these days again"
    return type(error)(
        f"{said}; nothing of it was kept, so {advice}", status_code=httpx.codes.OK, response_body=body
    )


def _reason(body: str) -> str:
    """Return what an answer that is no event says: the text of an error object, or all of it."""
    with suppress(ValueError, RecursionError):
        said = json.loads(body)
        if isinstance(said, dict) and isinstance(said.get("error"), str):
            return str(said["error"]).strip()
    return body.strip()


def _redacted(text: str, credentials: Credentials) -> str:
    user, password = credentials.auth
    token = base64.b64encode(f"{user}:{password}".encode()).decode()
    for hidden in (str(credentials.secret), token):
        text = text.replace(hidden, "***")
    return text
