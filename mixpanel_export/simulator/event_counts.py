"""The Query API's endpoints for event counts. The form of responses without events is undocumented; see `Counting`."""

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from mixpanel_export.simulator.counts import Counts
from mixpanel_export.simulator.faults import Fault, FaultSelector, FixedResponse
from mixpanel_export.simulator.parse import Project, Query, Request, Rules, parse
from mixpanel_export.simulator.query_api import ROOTS, JSONResponse, failure, invalid
from mixpanel_export.simulator.reply import RequestLog
from mixpanel_export.simulator.zone import today

_EVENTS = frozenset(f"{root}/events{slash}" for root in ROOTS for slash in ("", "/"))
_NAMES = frozenset(f"{root}/events/names{slash}" for root in ROOTS for slash in ("", "/"))

_MAX_NAMES = 255  # the default of `limit` (docs: openapi/query.openapi.yaml)
_COMMON_NAMES_DAYS = 31  # the most common names are those of the last 31 days


@dataclass(slots=True)
class EventCounts:
    """The endpoints for event counts."""

    project: Project
    counts: Counts
    selector: FaultSelector
    now: Callable[[], datetime]
    rules: Rules
    faults: list[Fault] = field(default_factory=list)
    requests: list[RequestLog] = field(default_factory=list)

    def serves(self, request: Request) -> bool:
        """Return whether *request* is for one of these endpoints."""
        return request.path in _EVENTS | _NAMES and request.method == "GET"

    def is_counted(self, _: Request) -> bool:
        """Return True, because every request counts against the hourly limit."""
        return True

    def prepare(self, request: Request, log: RequestLog) -> FixedResponse | JSONResponse:
        """Return the counts or names that *request* asks for, or an error response."""
        query = self._query(request)
        if isinstance(query, FixedResponse):
            return query
        log.first, log.last = query.first, query.last
        fault = self.selector.for_days(self.faults, query.first, query.last, gzip=request.accepts_gzip)
        log.fault = fault.kind if fault else None

        def body() -> bytes:
            value = self._names(request, query) if request.path in _NAMES else self._values(request, query)
            return json.dumps(value, ensure_ascii=False).encode("utf-8", "surrogatepass")

        return failure(fault) or JSONResponse(body, fault)

    def _query(self, request: Request) -> Query | FixedResponse:
        """Return the requested days and names, or an error response."""
        params = request.params
        day = today(self.now(), self.counts.counting.timezone or self.counts.profile.timezone)
        if params.get("type", "general") not in {"general", "unique", "average"}:
            return invalid("invalid type")
        if not params.get("limit", "1").isdecimal():
            return invalid("invalid limit")
        if request.path in _NAMES:
            return Query(day - timedelta(days=_COMMON_NAMES_DAYS - 1), day)
        if params.get("unit", "day") != "day":
            return invalid("the simulator supports only the unit day")
        if "event" not in params:
            return invalid("missing required parameter: event")
        return parse(self.project, request, day, self.rules)

    def _values(self, request: Request, query: Query) -> object:
        """Return the counts of the requested names on the requested days."""
        kind, zeros = request.params.get("type", "general"), self.counts.counting.zeros
        names = list(dict.fromkeys(json.loads(request.params["event"])))
        days = list(query.days())
        users = {day: self.counts.users(day, self.now()) for day in days}
        counts_by_name = {
            name: {
                str(day): _number(kind, list(users[day].get(name, {}).values()))
                for day in days
                if zeros or name in users[day]
            }
            for name in names
        }
        values = {name: by_day for name, by_day in counts_by_name.items() if by_day}
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
