"""Sends requests to Mixpanel's Query API, which returns JSON. They are retried like exports, but use another quota."""

import json
import logging
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Literal, TypeVar

import anyio
import httpx
from anyio import to_thread

from mixpanel_export._model import Chunk
from mixpanel_export._quota.gate import Admission, Gate, MaxWaitExceeded, SlotExpired
from mixpanel_export._quota.retry_policy import DEFAULT_PAUSES, History, Pauses, Wait, next_step
from mixpanel_export._source.client import Route, as_api_errors
from mixpanel_export._source.decoder import gunzip_for
from mixpanel_export._source.fetcher import max_wait_error
from mixpanel_export._source.parameters import RequestParameters
from mixpanel_export._source.request import closing_pieces, read_error, read_pieces, send_request
from mixpanel_export._source.responses import add_request, error_in_success, redacted
from mixpanel_export.credentials import format_problem
from mixpanel_export.errors import APIError, RateLimitError, TruncatedError

T = TypeVar("T")

_log = logging.getLogger("mixpanel_export")

_HEADERS = {"Accept": "application/json", "Accept-Encoding": "gzip"}
_MAX_BODY = 64 << 20  # bytes
_HOURLY_QUOTA_ERROR = "in the last hour"  # part of Mixpanel's error message if the hourly quota is used up

Method = Literal["GET", "POST"]


@dataclass(frozen=True, slots=True)
class Query:
    """One request to the Query API."""

    path: str
    params: Mapping[str, str]
    """The parameters. A GET request has them in the URL, and a POST request in a form."""
    method: Method = "GET"
    counted: bool = True
    """Whether Mixpanel counts the request against the hourly quota."""
    days: Chunk | None = None
    """The days for error messages, if there are any."""
    personal: bool = False
    """Whether the response has personal data, so that errors do not quote it."""


@dataclass(slots=True)
class QueryApi:
    """The Query API of one project."""

    client: httpx.AsyncClient
    parameters: RequestParameters
    """The base URL, the credentials and the timeouts."""
    gate: Gate
    retries: int = 5
    pauses: Pauses = DEFAULT_PAUSES
    now: Callable[[], datetime] = field(default=lambda: datetime.now(UTC))
    workers: AbstractAsyncContextManager[object] = field(default_factory=nullcontext)
    """A limit on simultaneous requests, in addition to the limit of the gate."""
    threads: anyio.CapacityLimiter | None = None
    """A limit on the threads that parse responses."""
    requests: int = 0
    """The number of requests sent, including those that failed."""
    failures: int = 0
    """The number of failed attempts, not counting 429 responses."""
    bytes_read: int = 0
    """Bytes received on the wire."""
    waiting_for: str | None = None
    """The reason for the current wait between two attempts; None if there is no wait."""

    async def get(self, path: str, params: Mapping[str, str], days: Chunk) -> Any:
        """Request *path*, and return the JSON value of the response. *days* is used only in error messages.

        Raises:
            APIError: See `send`.
        """
        return await self.send(Query(path, params, days=days), _json_value)

    async def send(self, query: Query, parse: Callable[[bytes], T]) -> T:
        """Send *query*, and return the result of *parse*, which is called with the body in a worker thread.

        *parse* raises a ValueError if the body does not have the documented form. The query is then repeated, as after
        other failures.

        Raises:
            APIError: All attempts failed, another attempt cannot succeed, or the wait for the quota would exceed
                `max_wait`.
        """
        history = History()
        while True:
            try:
                async with self.workers, self.gate.admission(counted=query.counted) as admission:
                    pieces, encoding = await self._attempt(query, admission)
                return await self._parse(query, pieces, encoding, parse)
            except RateLimitError as error:  # the gate already pauses all callers
                _log.info("%s", error)
            except APIError as error:
                history = history.after(error)
                self.failures += 1
                await self._pause(error, history)
            except SlotExpired:
                continue
            except MaxWaitExceeded as error:
                raise max_wait_error(query.days, error) from error

    async def _pause(self, error: APIError, history: History) -> None:
        """Wait before the next attempt, or raise *error* if there is no next attempt."""
        step = next_step(history, retries=self.retries, splittable=False, pauses=self.pauses)
        longest = max(self.pauses.longest, self.gate.statistics().max_wait_left)
        if not isinstance(step, Wait) or step.seconds > longest:
            raise error
        _log.info("%s; next attempt in %.1f s", error.text(advice=False), step.seconds)
        self.waiting_for = f"a retry ({error.text(days=False, advice=False)})"
        await anyio.sleep(step.seconds)
        self.waiting_for = None

    async def _attempt(self, query: Query, admission: Admission) -> tuple[list[bytes], str | None]:
        """Return the pieces of the body and their encoding. If the response is an error, raise the error."""

        async def admit() -> None:
            await admission.admit()
            self.requests += 1

        route = Route.to(self._url(query))
        with self._adding_request(query), as_api_errors(route, query.days):
            response = await send_request(self.client, self.parameters, self._request(query), admit, route)
            route.response_started = True
            try:
                if response.status_code != httpx.codes.OK:
                    raise await self._error(response, query)
                return await self._pieces(response), response.headers.get("content-encoding")
            finally:
                with anyio.CancelScope(shield=True):
                    await response.aclose()

    def _url(self, query: Query) -> str:
        return self.parameters.url + query.path

    def _request(self, query: Query) -> httpx.Request:
        identity = self.parameters.credentials.params
        if query.method == "GET":
            return self.client.build_request(
                "GET", self._url(query), params={**identity, **query.params}, headers=_HEADERS
            )
        request = self.client.build_request(
            "POST", self._url(query), params=identity, data=query.params, headers=_HEADERS
        )
        request.stream = _FormBody(request.content)
        return request

    @contextmanager
    def _adding_request(self, query: Query) -> Iterator[None]:
        """Add the request to errors raised in the block. The credentials are in a header, not in the parameters."""
        try:
            yield
        except APIError as error:
            identity, url = self.parameters.credentials.params, self._url(query)
            if query.method == "GET":
                add_request(error, "GET", url, {**identity, **query.params})
            else:
                add_request(error, "POST", url, identity, query.params)
            raise

    async def _error(self, response: httpx.Response, query: Query) -> APIError:
        """Return the error of a response with a status other than 200."""
        error = await read_error(response, self.parameters, query.days, self.now())
        if isinstance(error, RateLimitError) and _HOURLY_QUOTA_ERROR in str(error):
            error.retry_after = None  # the header says a whole hour, but requests become available one by one
        return error

    async def _pieces(self, response: httpx.Response) -> list[bytes]:
        """Read the body without decoding it."""
        body: list[bytes] = []
        size = 0
        async with closing_pieces(response.aiter_raw()) as pieces:
            while wire := await read_pieces(pieces, self.parameters.timeouts.idle, lambda _: None):
                body += wire
                size += sum(map(len, wire))
                self.bytes_read += sum(map(len, wire))
                if size > _MAX_BODY:
                    break  # `_decode_body` reports the error
        return body

    async def _parse(
        self, query: Query, pieces: Sequence[bytes], encoding: str | None, parse: Callable[[bytes], T]
    ) -> T:
        """Decode and parse a body in a worker thread. If the body has an error instead of a value, raise the error."""

        def run() -> T:
            body = b""
            try:
                body = _decode_body(pieces, encoding)
                return parse(body)
            except TruncatedError as error:
                raise TruncatedError(
                    error.reason, days=query.days, advice="try again later", status_code=httpx.codes.OK
                ) from error.with_traceback(None)
            except ValueError as error:
                text = redacted(body.decode("utf-8", "replace"), self.parameters.credentials)
                hint = format_problem(self.parameters.credentials)
                raise error_in_success(
                    text, query.days, str(error), hint=hint, personal=query.personal
                ) from None

        with self._adding_request(query):
            return await to_thread.run_sync(run, limiter=self.threads)


class _FormBody(httpx.AsyncByteStream):
    """The body of a form.

    httpx's own stream is an async generator. If the connection breaks before the body is sent, trio warns about it.
    """

    def __init__(self, content: bytes) -> None:
        self._content = content

    def __aiter__(self) -> AsyncIterator[bytes]:
        return _SinglePiece(self._content)


class _SinglePiece:
    def __init__(self, content: bytes) -> None:
        self._left = [content]

    def __aiter__(self) -> "_SinglePiece":
        return self

    async def __anext__(self) -> bytes:
        if not self._left:
            raise StopAsyncIteration
        return self._left.pop()


def _decode_body(pieces: Sequence[bytes], encoding: str | None) -> bytes:
    """Join and decompress the pieces of a body.

    Raises:
        TruncatedError: The body is incomplete or too large, or the encoding is unknown.
    """
    gunzip = gunzip_for(encoding)
    if gunzip is None:
        body = b"".join(pieces)
        _check_size(len(body))
        return body
    parts: list[bytes] = []
    size = 0
    for plain in (plain for piece in pieces for plain in gunzip.feed(piece)):
        parts.append(plain)
        size += len(plain)
        _check_size(size)
    gunzip.close()
    return b"".join(parts)


def _check_size(size: int) -> None:
    if size > _MAX_BODY:
        raise TruncatedError(f"the response is larger than the maximum of {_MAX_BODY} bytes")


def _json_value(body: bytes) -> Any:
    """Parse a response that has a value.

    Raises:
        ValueError: The body is not JSON, or is an error.
    """
    try:
        value = json.loads(body)
    except (ValueError, RecursionError):
        value = None
    if isinstance(value, list) or (isinstance(value, dict) and not isinstance(value.get("error"), str)):
        return value
    raise ValueError("the response is not complete JSON")
