"""The endpoints of the Query API for event counts, without sockets.

Their limits are 60 requests per rolling hour and 5 at a time (docs: reference/rate-limits.mdx). Refusals have the text
and the headers that were observed. Responses without events are not documented; see `Counting`.
"""

import gzip
import json
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

from mixpanel_export.simulator.counts import Counts
from mixpanel_export.simulator.fault_stages import LINES, WIRE
from mixpanel_export.simulator.faults import BEFORE_HEAD, STATUS, Fault, FaultSelector, FixedResponse
from mixpanel_export.simulator.parse import Project, Query, Request, Rules, denial, parse
from mixpanel_export.simulator.rate_limits import Limits, Refusal
from mixpanel_export.simulator.reply import RequestLog, Response, logged, plain, response_headers
from mixpanel_export.simulator.zone import today

_ROOTS = ("/api/query", "/api/2.0")
EVENTS = frozenset(f"{root}/events{slash}" for root in _ROOTS for slash in ("", "/"))
NAMES = frozenset(f"{root}/events/names{slash}" for root in _ROOTS for slash in ("", "/"))
PATHS = EVENTS | NAMES

_MAX_NAMES = 255  # the default of `limit` (docs: openapi/query.openapi.yaml)
_COMMON_NAMES_DAYS = 31  # the days in which the most common names are counted
_CONCURRENCY_PAUSE = 10  # seconds in `Retry-After`, as observed
_GZIP_OVER = 1400
_HELP = (
    " For more information, please consult our documentation at https://help.mixpanel.com/hc/en-us/articles/"
    "115004602563-Rate-Limits-for-Export-API-Endpoints"
)


@dataclass(slots=True)
class QueryApi:
    """The endpoints of one project."""

    project: Project
    counts: Counts
    limits: Limits
    selector: FaultSelector
    now: Callable[[], datetime]
    sleep: Callable[[float], Awaitable[None]]
    uncounted: frozenset[int]
    rules: Rules
    faults: list[Fault] = field(default_factory=list)
    requests: list[RequestLog] = field(default_factory=list)

    @asynccontextmanager
    async def exchange(self, request: Request) -> AsyncIterator[Response]:
        """Respond to *request*, whose path is in `PATHS`. The request is in progress until the context exits.

        Raises:
            ConnectionResetFault: The connection must be reset; reading the body may raise this too.
            ConnectionClosedFault: The connection must be closed; reading the body may raise this too.
        """
        log = RequestLog(len(self.requests) + 1, self.limits.clock(), request.params)
        log.credentials = "authorization" in request.headers
        self.requests.append(log)
        decision = self._decide(request, log)
        if isinstance(decision, FixedResponse):
            async with aclosing(logged(plain(decision.body), log)) as pieces:
                yield Response(decision.status, response_headers(decision), pieces)
            return
        self.limits.begin()
        try:
            async with AsyncExitStack() as stack:
                yield await self._answer(request, *decision, log, stack)
        finally:
            self.limits.end()

    def _decide(self, request: Request, log: RequestLog) -> FixedResponse | tuple[Query, Fault | None]:
        """Decide how to respond. Count the request against the limits if its status counts."""
        if denied := denial(self.project, request, self.rules):
            return self._counted(denied, log)
        if refusal := self.limits.refusal():
            return self._counted(self._over_limit(refusal), log)
        query = self._query(request)
        if isinstance(query, FixedResponse):
            return self._counted(query, log)
        log.first, log.last = query.first, query.last
        fault = self.selector.select(self.faults, query.first, query.last, gzip=request.accepts_gzip)
        log.fault = fault.kind if fault else None
        if fault and fault.kind in STATUS:
            response = STATUS[fault.kind]
            retry_after = None if fault.retry_after is None else f"{fault.retry_after:g}"
            response = replace(
                response,
                status=fault.status or response.status,
                body=response.body if fault.text is None else fault.text,
                retry_after=retry_after if fault.kind in {"429", "503"} else None,
            )
            return self._counted(response, log)
        self.limits.count_arrival()
        return query, fault

    def _query(self, request: Request) -> Query | FixedResponse:
        """Return the requested days and names, or a refusal."""
        params = request.params
        day = today(self.now(), self.counts.counting.timezone or self.counts.profile.timezone)
        if params.get("type", "general") not in {"general", "unique", "average"}:
            return _invalid("invalid type")
        if not params.get("limit", "1").isdecimal():
            return _invalid("invalid limit")
        if request.path in NAMES:
            return Query(day - timedelta(days=_COMMON_NAMES_DAYS - 1), day)
        if params.get("unit", "day") != "day":
            return _invalid("the simulator supports only the unit day")
        if "event" not in params:
            return _invalid("missing required parameter: event")
        return parse(self.project, request, day, self.rules)

    def _counted(self, response: FixedResponse, log: RequestLog) -> FixedResponse:
        if response.status not in self.uncounted:
            self.limits.count_arrival()
        log.status = response.status
        return response

    def _over_limit(self, refusal: Refusal) -> FixedResponse:
        limits, concurrent = self.limits, refusal.concurrent
        reason = (
            f"concurrency limit ({limits.in_progress + 1}/{limits.concurrent} queries running concurrently)."
            if concurrent
            else f"rate limit ({limits.used + 1}/{limits.per_hour} queries running in the last hour).{_HELP}"
        )
        text = f"Query rate limit exceeded for project_id: {self.project.project_id}. This request exceeded the {reason}"
        return FixedResponse(
            429,
            json.dumps({"error": text}),
            "application/json",
            str(_CONCURRENCY_PAUSE) if concurrent else None,
            limits.headers(_CONCURRENCY_PAUSE),
        )

    async def _answer(
        self, request: Request, query: Query, fault: Fault | None, log: RequestLog, stack: AsyncExitStack
    ) -> Response:
        if fault and fault.kind in BEFORE_HEAD:
            raise BEFORE_HEAD[fault.kind]
        if fault and fault.kind == "stall_before_head":
            await self.sleep(fault.seconds)
        value = self._names(request, query) if request.path in NAMES else self._values(request, query)
        body = json.dumps(value, ensure_ascii=False).encode("utf-8", "surrogatepass")
        body = await self._text(body, fault)
        compressed = request.accepts_gzip and len(body) > _GZIP_OVER
        wire = gzip.compress(body, mtime=0) if compressed else body
        log.status = 200
        pieces = logged(self._pieces(wire, fault), log)
        stack.push_async_callback(pieces.aclose)
        encoding = (("Content-Encoding", "gzip"),) if compressed else ()
        return Response(200, (("Content-Type", "application/json"), *encoding), pieces)

    async def _pieces(self, wire: bytes, fault: Fault | None) -> AsyncGenerator[bytes, None]:
        """Yield the body with the fault's changes on the wire."""
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
        """Return the body with the fault's changes to its text."""
        if fault is None or fault.kind not in LINES:
            return body
        async with (
            aclosing(plain(body)) as whole,
            aclosing(LINES[fault.kind](whole, len(body), fault, self.sleep)) as pieces,
        ):
            return b"".join([piece async for piece in pieces])

    def _values(self, request: Request, query: Query) -> object:
        """Return the counts of the requested names on the requested days."""
        kind, zeros = request.params.get("type", "general"), self.counts.counting.zeros
        names = list(dict.fromkeys(json.loads(request.params["event"])))
        days = list(query.days())
        users = {day: self.counts.users(day, self.now()) for day in days}
        counted = {
            name: {
                str(day): _number(kind, list(users[day].get(name, {}).values()))
                for day in days
                if zeros or name in users[day]
            }
            for name in names
        }
        values = {name: by_day for name, by_day in counted.items() if by_day}
        return {"data": {"series": [str(day) for day in days], "values": values}, "legend_size": len(values)}

    def _names(self, request: Request, query: Query) -> list[str]:
        """Return the most common names, in descending order of their counts."""
        totals: dict[str, int] = {}
        for day in query.days():
            for name, users in self.counts.users(day, self.now()).items():
                totals[name] = totals.get(name, 0) + users.total()
        limit = int(request.params.get("limit", _MAX_NAMES))
        return sorted(totals, key=lambda name: (-totals[name], name))[:limit]


def _number(kind: str, events_of_users: list[int]) -> float:
    match kind:
        case "unique":
            return len(events_of_users)
        case "average":
            return sum(events_of_users) / max(1, len(events_of_users))
        case _:
            return sum(events_of_users)


def _invalid(text: str) -> FixedResponse:
    return FixedResponse(400, json.dumps({"error": text}), "application/json")
