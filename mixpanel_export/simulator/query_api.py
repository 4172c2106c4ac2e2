"""The Query API, independent of sockets: its limits, error responses and JSON responses. Each endpoint has its own module.

The limits are 60 requests per rolling hour and 5 at a time (docs: reference/rate-limits.mdx). The text and the headers of
error responses are those that were observed.
"""

import json
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from dataclasses import dataclass, replace
from typing import Protocol

from isal import igzip

from mixpanel_export.simulator.fault_stages import LINES, WIRE
from mixpanel_export.simulator.faults import BEFORE_HEAD, STATUS, Fault, FixedResponse
from mixpanel_export.simulator.parse import Project, Request, Rules, denial
from mixpanel_export.simulator.rate_limits import LimitExceeded, Limits
from mixpanel_export.simulator.reply import RequestLog, Response, logged, plain, responding

ROOTS = ("/api/query", "/api/2.0")

_CONCURRENCY_PAUSE = 10  # seconds in `Retry-After`, as observed
_GZIP_OVER = 1400
_HELP = (
    " For more information, please consult our documentation at https://help.mixpanel.com/hc/en-us/articles/"
    "115004602563-Rate-Limits-for-Export-API-Endpoints"
)


@dataclass(frozen=True, slots=True)
class JSONResponse:
    """A response with status 200: a function that returns its JSON text, and the fault that changes it.

    The server waits for *seconds* before it sends the response.
    """

    body: Callable[[], bytes]
    fault: Fault | None = None
    seconds: float = 0.0


class Endpoint(Protocol):
    """An endpoint of the Query API, which serves one or more paths."""

    requests: list[RequestLog]

    def serves(self, request: Request) -> bool:
        """Return whether *request* is for this endpoint."""

    def is_counted(self, request: Request) -> bool:
        """Return whether *request* counts against the hourly limit."""

    def prepare(self, request: Request, log: RequestLog) -> FixedResponse | JSONResponse:
        """Return the response to *request*, or an error response. The limits have been checked before."""


@dataclass(slots=True)
class QueryApi:
    """The Query API of one project. All endpoints share the limits."""

    project: Project
    endpoints: Sequence[Endpoint]
    limits: Limits
    sleep: Callable[[float], Awaitable[None]]
    uncounted: frozenset[int]
    rules: Rules

    def serves(self, request: Request) -> bool:
        """Return whether an endpoint serves *request*."""
        return any(endpoint.serves(request) for endpoint in self.endpoints)

    @asynccontextmanager
    async def exchange(self, request: Request) -> AsyncIterator[Response]:
        """Respond to *request*, which one of the endpoints must serve. It is in progress until the context exits.

        Raises:
            ConnectionResetFault: The connection must be reset. Reading the body can also raise this.
            ConnectionClosedFault: The connection must be closed. Reading the body can also raise this.
        """
        endpoint = next(endpoint for endpoint in self.endpoints if endpoint.serves(request))
        log = RequestLog(len(endpoint.requests) + 1, self.limits.clock(), request.params)
        log.credentials = "authorization" in request.headers
        endpoint.requests.append(log)

        async def answer(answer: JSONResponse, stack: AsyncExitStack) -> Response:
            return await self._send(answer, log, stack, accepts_gzip=request.accepts_gzip)

        async with responding(self._decide(endpoint, request, log), log, self.limits, answer) as response:
            yield response

    def _decide(self, endpoint: Endpoint, request: Request, log: RequestLog) -> FixedResponse | JSONResponse:
        """Decide how to respond. Count the request against the limits if its status counts."""
        counted = endpoint.is_counted(request)
        if (refused := denial(self.project, request, self.rules)) is not None:
            decision: FixedResponse | JSONResponse = refused
        elif refusal := self.limits.refusal(counted=counted):
            decision = self._over_limit(request, refusal)
        else:
            decision = endpoint.prepare(request, log)
        if isinstance(decision, FixedResponse):
            log.status = decision.status
        if counted and log.status not in self.uncounted:
            self.limits.count_arrival()
        return decision

    def _over_limit(self, request: Request, refusal: LimitExceeded) -> FixedResponse:
        limits, concurrent = self.limits, refusal.concurrent
        reason = (
            f"concurrency limit ({limits.in_progress + 1}/{limits.concurrent} queries running concurrently)."
            if concurrent
            else f"rate limit ({limits.used + 1}/{limits.per_hour} queries running in the last hour).{_HELP}"
        )
        text = f"Query rate limit exceeded for project_id: {self.project.project_id}. This request exceeded the {reason}"
        url = {} if concurrent else {"request": f"https://mixpanel.com{request.target}"}
        return FixedResponse(
            429,
            json.dumps(url | {"error": text}),
            "application/json",
            str(_CONCURRENCY_PAUSE) if concurrent else None,
            limits.headers(_CONCURRENCY_PAUSE),
        )

    async def _send(
        self, answer: JSONResponse, log: RequestLog, stack: AsyncExitStack, *, accepts_gzip: bool
    ) -> Response:
        fault = answer.fault
        if fault and fault.kind in BEFORE_HEAD:
            raise BEFORE_HEAD[fault.kind]
        if fault and fault.kind == "stall_before_head":
            await self.sleep(fault.seconds)
        if answer.seconds:
            await self.sleep(answer.seconds)
        body = await self._text(answer.body(), fault)
        compressed = accepts_gzip and len(body) > _GZIP_OVER
        wire = igzip.compress(body, mtime=0) if compressed else body
        log.status = 200
        pieces = logged(self._pieces(wire, fault), log)
        stack.push_async_callback(pieces.aclose)
        encoding = (("Content-Encoding", "gzip"),) if compressed else ()
        return Response(200, (("Content-Type", "application/json"), *encoding), pieces)

    async def _pieces(self, wire: bytes, fault: Fault | None) -> AsyncGenerator[bytes, None]:
        """Yield the body's bytes, changed by the fault if it is a fault in bytes."""
        if fault is None or fault.kind not in WIRE:
            yield wire
            return
        async with (
            aclosing(plain(wire)) as whole,
            aclosing(WIRE[fault.kind](whole, len(wire), fault, self.sleep)) as pieces,
        ):
            async for piece in pieces:
                yield piece

    async def _text(self, body: bytes, fault: Fault | None) -> bytes:
        """Return the body's text, changed by the fault if it is a fault in lines."""
        if fault is None or fault.kind not in LINES:
            return body
        async with (
            aclosing(plain(body)) as whole,
            aclosing(LINES[fault.kind](whole, len(body), fault, self.sleep)) as pieces,
        ):
            return b"".join([piece async for piece in pieces])


def failure(fault: Fault | None) -> FixedResponse | None:
    """Return the response of a fault that replaces the whole response; None for any other fault."""
    if fault is None or fault.kind not in STATUS:
        return None
    response = STATUS[fault.kind]
    retry_after = None if fault.retry_after is None else f"{fault.retry_after:g}"
    return replace(
        response,
        status=fault.status or response.status,
        body=response.body if fault.text is None else fault.text,
        retry_after=retry_after if fault.kind in {"429", "503"} else None,
    )


def invalid(text: str) -> FixedResponse:
    """Return the error response to an invalid request."""
    return FixedResponse(400, json.dumps({"error": text}), "application/json")
