"""Responses, and the log of requests. All endpoints use them."""

from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from dataclasses import dataclass
from datetime import date
from http.client import responses
from typing import Literal, TypeVar

from mixpanel_export.simulator.faults import FixedResponse
from mixpanel_export.simulator.rate_limits import Limits

Headers = tuple[tuple[str, str], ...]
RetryAfter = Literal["seconds", "date", "none"]
T = TypeVar("T")


@dataclass(slots=True)
class RequestLog:
    """One request and its outcome.

    Attributes:
        number: Position in the order of arrival, counting from 1.
        time: Arrival time on the simulator's clock.
        params: Parameters of the URL and the body.
        first: First day requested; None if the dates are invalid, or if the request was rejected before they were read.
        last: Last day requested; None in the same cases as *first*.
        status: Status of the response; None until the response head is sent.
        fault: Kind of the fault that applied, if any.
        bytes_sent: Body bytes sent so far, as transferred.
        finished: Whether the response ended as intended. A body that a fault shortens also ends as intended.
        credentials: Whether the request had credentials.
    """

    number: int
    time: float
    params: dict[str, str]
    first: date | None = None
    last: date | None = None
    status: int | None = None
    fault: str | None = None
    bytes_sent: int = 0
    finished: bool = False
    credentials: bool = False

    @property
    def empty_answer(self) -> bool:
        """Whether the response had status 200 and no body."""
        return self.status == 200 and self.finished and not self.bytes_sent

    def overlaps(self, first: date, last: date) -> bool:
        """Return whether the request was for any day from *first* to *last*."""
        return self.first is not None and self.last is not None and self.first <= last and self.last >= first


@dataclass(frozen=True, slots=True)
class Response:
    """A response. Reading its pieces may raise a fault that breaks the connection."""

    status: int
    headers: Headers
    pieces: AsyncGenerator[bytes, None]

    @property
    def reason(self) -> str:
        """The reason phrase of the status line; empty for a status that HTTP does not define."""
        return responses.get(self.status, "")


def response_headers(response: FixedResponse) -> Headers:
    """Return the headers of a response without events."""
    retry_after = () if response.retry_after is None else (("Retry-After", response.retry_after),)
    return (("Content-Type", response.content_type), *retry_after, *response.headers)


async def plain(body: str | bytes) -> AsyncGenerator[bytes, None]:
    """Yield a body as one piece."""
    yield body.encode() if isinstance(body, str) else body


async def logged(pieces: AsyncGenerator[bytes, None], log: RequestLog) -> AsyncGenerator[bytes, None]:
    """Yield *pieces*, and log the number of bytes sent."""
    async for piece in pieces:
        yield piece
        log.bytes_sent += len(piece)
    log.finished = True


@asynccontextmanager
async def responding(
    decision: FixedResponse | T,
    log: RequestLog,
    limits: Limits,
    respond: Callable[[T, AsyncExitStack], Awaitable[Response]],
) -> AsyncIterator[Response]:
    """Yield the response to a request: *decision* itself if it is a fixed response, else the result of *respond*.

    In the second case, the request is in progress until the context exits.
    """
    if isinstance(decision, FixedResponse):
        async with aclosing(logged(plain(decision.body), log)) as pieces:
            yield Response(decision.status, response_headers(decision), pieces)
        return
    limits.begin()
    try:
        async with AsyncExitStack() as stack:
            yield await respond(decision, stack)
    finally:
        limits.end()
