"""The export endpoint: from a request to a response or a broken connection, without sockets."""

import json
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import date, datetime, timedelta
from email.utils import format_datetime
from math import ceil
from typing import Literal

from mixpanel_export.simulator.body import BodyMaker, Source
from mixpanel_export.simulator.faults import BEFORE_HEAD, STATUS, Answer, Fault, FaultLog
from mixpanel_export.simulator.limits import Limits, Refusal
from mixpanel_export.simulator.query import PATHS, USUAL, Project, Query, Request, Rules, denial, parse
from mixpanel_export.simulator.zone import today

Headers = tuple[tuple[str, str], ...]
RetryAfter = Literal["seconds", "date", "none"]


@dataclass(slots=True)
class RequestLog:
    """What became of one export request.

    `number` counts from 1; `time` is the moment of its arrival on the limits' clock; `first` and `last` are
    None where the dates could not be read or were not looked at; `status` is None until a head was sent;
    `finished` says that the whole body went out, as far as the simulator meant to send it; `credentials` says
    that it came with any.
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


@dataclass(frozen=True, slots=True)
class Response:
    """A head, and a body in pieces; reading the body may raise what breaks the connection."""

    status: int
    headers: Headers
    pieces: AsyncGenerator[bytes, None]


@dataclass(frozen=True, slots=True)
class Replies:
    """How answers look where Mixpanel's own behaviour is not published; see `Simulator`."""

    first_byte: float
    retry_after: RetryAfter
    uncounted: frozenset[int]
    content_type: str


@dataclass(slots=True)
class Api:
    """One project's export endpoint."""

    project: Project
    source: Source
    limits: Limits
    faults: list[Fault]
    hits: FaultLog
    now: Callable[[], datetime]
    replies: Replies
    rules: Rules = USUAL
    requests: list[RequestLog] = field(default_factory=list)

    @asynccontextmanager
    async def exchange(self, request: Request) -> AsyncIterator[Response]:
        """Answer *request*; it is in progress until the context ends.

        Raises:
            ConnectionResetFault: The connection is to be reset; reading the body may raise it too.
            ConnectionClosedFault: The same, but closed.
        """
        if request.path not in PATHS or request.method != "GET":
            async with aclosing(_text("Not found")) as pieces:
                yield Response(404, (("Content-Type", "text/plain"),), pieces)
            return
        log = RequestLog(len(self.requests) + 1, self.limits.clock(), request.params)
        log.credentials = "authorization" in request.headers
        self.requests.append(log)
        decided = self._decide(request, log)
        if isinstance(decided, Answer):
            async with aclosing(_logged(_text(decided.body), log)) as pieces:
                yield Response(decided.status, _headers(decided), pieces)
            return
        self.limits.begin()
        try:
            async with AsyncExitStack() as stack:
                yield await self._events(request, *decided, log, stack)
        finally:
            self.limits.end()

    def _decide(self, request: Request, log: RequestLog) -> Answer | tuple[Query, Fault | None]:
        """Work out what to answer; everything that counts against a limit is counted here."""
        longest = self.rules.longest_target
        if longest is not None and len(request.target) > longest:
            log.status = 414  # said by whatever stands before the API, so that nothing counts it
            return STATUS["414"]
        if denied := denial(self.project, request, self.rules):
            return self._counted(denied, log)
        if refusal := self.limits.refusal():
            return self._counted(self._over(refusal), log)
        query = parse(self.project, request, today(self.now(), self.source.profile.timezone), self.rules)
        if isinstance(query, Answer):
            return self._counted(query, log)
        log.first, log.last = query.first, query.last
        fault = self.hits.choose(self.faults, query.first, query.last, gzip=request.accepts_gzip)
        log.fault = fault.kind if fault else None
        if fault and fault.kind in STATUS:
            return self._counted(self._failure(fault, request), log)
        self.limits.arrived()
        return query, fault

    def _counted(self, answer: Answer, log: RequestLog) -> Answer:
        if answer.status not in self.replies.uncounted:
            self.limits.arrived()
        log.status = answer.status
        return answer

    def _over(self, refusal: Refusal) -> Answer:
        text = json.dumps({"error": self.rules.wording.get("quota", refusal.error)})
        headers = self.limits.headers() if self.rules.rate_limit_headers else ()
        return Answer(429, text, "application/json", self._retry_after(refusal.retry_after), headers)

    def _failure(self, fault: Fault, request: Request) -> Answer:
        usual = STATUS[fault.kind]
        return replace(
            usual,
            status=fault.status or usual.status,
            body=usual.body if fault.text is None else fault.text,
            retry_after=self._retry_after(fault.retry_after) if fault.kind in {"429", "503"} else None,
            headers=(("Location", fault.location or request.respelled),) if fault.kind == "redirect" else (),
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
        pieces = _logged(body.pieces, log)
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


def _headers(answer: Answer) -> Headers:
    after = () if answer.retry_after is None else (("Retry-After", answer.retry_after),)
    return (("Content-Type", answer.content_type), *after, *answer.headers)


async def _text(body: str) -> AsyncGenerator[bytes, None]:
    yield body.encode()


async def _logged(pieces: AsyncGenerator[bytes, None], log: RequestLog) -> AsyncGenerator[bytes, None]:
    async for piece in pieces:
        yield piece
        log.bytes_sent += len(piece)
    log.finished = True
