"""The API's endpoints, independent of sockets. They convert a request to a response or a broken connection."""

import json
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from email.utils import format_datetime
from math import ceil

from mixpanel_export.simulator.body import BodyMaker, Source
from mixpanel_export.simulator.faults import BEFORE_HEAD, STATUS, Fault, FaultSelector, FixedResponse
from mixpanel_export.simulator.parse import (
    DEFAULT_RULES,
    PATHS,
    Project,
    Query,
    Request,
    Rules,
    denial,
    parse,
)
from mixpanel_export.simulator.query_api import QueryApi
from mixpanel_export.simulator.rate_limits import LimitExceeded, Limits
from mixpanel_export.simulator.reply import (
    RequestLog,
    Response,
    RetryAfter,
    logged,
    plain,
    responding,
)
from mixpanel_export.simulator.zone import today


@dataclass(frozen=True, slots=True)
class Replies:
    """Options for response details that Mixpanel does not document; see `Simulator`."""

    first_byte: float
    retry_after: RetryAfter
    uncounted: frozenset[int]
    content_type: str


@dataclass(slots=True)
class Api:
    """The export endpoint of one project. It passes other requests on to the Query API."""

    project: Project
    source: Source
    limits: Limits
    faults: list[Fault]
    selector: FaultSelector
    now: Callable[[], datetime]
    replies: Replies
    queries: QueryApi
    rules: Rules = DEFAULT_RULES
    requests: list[RequestLog] = field(default_factory=list)

    @asynccontextmanager
    async def exchange(self, request: Request) -> AsyncIterator[Response]:
        """Respond to *request*. The request is in progress until the context exits.

        Raises:
            ConnectionResetFault: The connection must be reset. Reading the body can also raise this.
            ConnectionClosedFault: The connection must be closed. Reading the body can also raise this.
        """
        if self.queries.serves(request):
            async with self.queries.exchange(request) as response:
                yield response
            return
        if request.path not in PATHS or request.method != "GET":
            async with aclosing(plain("Not found")) as pieces:
                yield Response(404, (("Content-Type", "text/plain"),), pieces)
            return
        log = RequestLog(len(self.requests) + 1, self.limits.clock(), request.params)
        log.credentials = "authorization" in request.headers
        self.requests.append(log)

        async def answer(query: tuple[Query, Fault | None], stack: AsyncExitStack) -> Response:
            return await self._events(request, *query, log, stack)

        async with responding(self._decide(request, log), log, self.limits, answer) as response:
            yield response

    def _decide(self, request: Request, log: RequestLog) -> FixedResponse | tuple[Query, Fault | None]:
        """Decide how to respond. Count the request against the limits if its status counts."""
        longest = self.rules.longest_target
        if longest is not None and len(request.target) > longest:
            log.status = 414  # sent by a proxy in front of the API, so the request does not count
            return STATUS["414"]
        if denied := denial(self.project, request, self.rules):
            return self._counted(denied, log)
        if refusal := self.limits.refusal():
            return self._counted(self._over_limit(refusal), log)
        query = parse(self.project, request, today(self.now(), self.source.profile.timezone), self.rules)
        if isinstance(query, FixedResponse):
            return self._counted(query, log)
        log.first, log.last = query.first, query.last
        fault = self.selector.for_days(self.faults, query.first, query.last, gzip=request.accepts_gzip)
        log.fault = fault.kind if fault else None
        if fault and fault.kind in STATUS:
            return self._counted(self._failure(fault, request), log)
        self.limits.count_arrival()
        return query, fault

    def _counted(self, response: FixedResponse, log: RequestLog) -> FixedResponse:
        if response.status not in self.replies.uncounted:
            self.limits.count_arrival()
        log.status = response.status
        return response

    def _over_limit(self, refusal: LimitExceeded) -> FixedResponse:
        text = json.dumps({"error": self.rules.wording.get("quota", refusal.error)})
        headers = self.limits.headers() if self.rules.rate_limit_headers else ()
        return FixedResponse(429, text, "application/json", self._retry_after(refusal.retry_after), headers)

    def _failure(self, fault: Fault, request: Request) -> FixedResponse:
        default = STATUS[fault.kind]
        return replace(
            default,
            status=fault.status or default.status,
            body=default.body if fault.text is None else fault.text,
            content_type=self.replies.content_type if fault.kind == "empty_200" else default.content_type,
            retry_after=self._retry_after(fault.retry_after) if fault.kind in {"429", "503"} else None,
            headers=(("Location", fault.location or request.with_other_slash),)
            if fault.kind == "redirect"
            else (),
        )

    def _retry_after(self, seconds: float | None) -> str | None:
        if seconds is None or self.replies.retry_after == "none":
            return None
        if self.replies.retry_after == "date":
            return format_datetime(self.now() + timedelta(seconds=ceil(seconds)), usegmt=True)
        return f"{seconds:g}"

    async def _events(
        self, request: Request, query: Query, fault: Fault | None, log: RequestLog, stack: AsyncExitStack
    ) -> Response:
        await self._before_head(fault)
        maker = BodyMaker(self.source, query, fault, self.now(), log.number, stack)
        body = await maker.body(accepts_gzip=request.accepts_gzip)
        log.status = 200
        pieces = logged(body.pieces, log)
        stack.push_async_callback(pieces.aclose)
        encoding = (("Content-Encoding", "gzip"),) if body.gzip else ()
        return Response(200, (("Content-Type", self.replies.content_type), *encoding), pieces)

    async def _before_head(self, fault: Fault | None) -> None:
        if self.replies.first_byte:
            await self.source.pace.sleep(self.replies.first_byte)
        if fault and fault.kind in BEFORE_HEAD:
            raise BEFORE_HEAD[fault.kind]
        if fault and fault.kind == "stall_before_head":
            await self.source.pace.sleep(fault.seconds)
