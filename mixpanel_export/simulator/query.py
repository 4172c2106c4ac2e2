"""What a request asks for, and whether it may: pure rules from a request to a query or an answer."""

import base64
import binascii
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import date, timedelta
from typing import Literal, cast
from urllib.parse import parse_qsl, urlsplit

from mixpanel_export.simulator.faults import STATUS, Answer
from mixpanel_export.simulator.where import Predicate, WhereError, compiled

MAX_LIMIT = 100_000  # docs: openapi/export.openapi.yaml
PATHS = frozenset({"/api/2.0/export", "/api/2.0/export/"})


@dataclass(frozen=True, slots=True)
class Request:
    """A request as the API sees it; header names are lower case."""

    method: str
    target: str
    headers: Mapping[str, str] = field(repr=False)

    @property
    def path(self) -> str:
        """The path without the query string."""
        return urlsplit(self.target).path

    @property
    def respelled(self) -> str:
        """The target with a slash at the end of its path, or without one where it has it."""
        path = self.path.removesuffix("/") if self.path.endswith("/") else self.path + "/"
        return urlsplit(self.target)._replace(path=path).geturl()

    @property
    def params(self) -> dict[str, str]:
        """The query parameters; of repeated ones the last."""
        return dict(parse_qsl(urlsplit(self.target).query, keep_blank_values=True))

    @property
    def accepts_gzip(self) -> bool:
        """Whether `Accept-Encoding` names gzip."""
        offers = (offer.strip().lower() for offer in self.headers.get("accept-encoding", "").split(","))
        return any(re.fullmatch(r"gzip(;\s*q=(?!0(\.0*)?$).*)?", offer) for offer in offers)


@dataclass(frozen=True, slots=True)
class Project:
    """Who may ask, and for what: the credentials of one project and its plan.

    With *legacy_secret* the project also takes that secret as the user name, without `project_id`.
    *history_days* is how far back a plan reaches; None for no bound.
    """

    username: str
    secret: str = field(repr=False)
    project_id: str
    legacy_secret: str | None = field(default=None, repr=False)
    history_days: int | None = None


Shape = Literal["seen", "request", "error", "status", "text"]
Matter = Literal["from_date", "to_date", "event", "limit", "where", "project_id", "today", "history", "quota"]
"""What a refusal is about: a parameter, a last day after today, the plan's history, or a limit."""


@dataclass(frozen=True, slots=True)
class Rules:
    """How wrong requests are answered, where that is not published or was seen to vary.

    Args:
        wording: Texts in the place of the usual ones, by what the refusal is about.
        shape: "request" is JSON that repeats the request, "error" JSON with the text alone, "status" with
            `"status": "error"` too, "text" no JSON; "seen" is plain text for a last day after today, as it
            was seen, and "request" for all others.
        unauthenticated: How wrong credentials are answered.
        missing_project_id: The status where a service account does not name its project.
        over_limit: What becomes of a `limit` over 100,000: status 400, or as many events as allowed.
        longest_target: Requests with more characters in their path and query are answered with 414; None for
            no bound. A served simulator reads at most 16 KB of a request's head.
        rate_limit_headers: Whether an answer that names a limit has `RateLimit` and `RateLimit-Policy`.
    """

    wording: Mapping[Matter, str] = field(default_factory=dict)
    shape: Shape = "seen"
    unauthenticated: Literal["401", "auth_text_400", "auth_text_200"] = "401"
    missing_project_id: Literal[400, 401] = 400
    over_limit: Literal["refuse", "clamp"] = "refuse"
    longest_target: int | None = None
    rate_limit_headers: bool = False

    def refusal(self, request: Request, about: Matter, usual: str, status: int = 400) -> Answer:
        """Return the answer to *request* that says *usual*, or what *wording* has instead of it."""
        text = self.wording.get(about, usual)
        match self.shape:
            case "text":
                return Answer(status, text)
            case "seen" if about == "today":
                return Answer(status, text)
            case "error":
                shaped = {"error": text}
            case "status":
                shaped = {"error": text, "status": "error"}
            case _:
                shaped = {"request": request.target, "error": text}
        return Answer(status, json.dumps(shaped), "application/json")


USUAL = Rules()


@dataclass(frozen=True, slots=True)
class Query:
    """Days, both inclusive, and what of their events."""

    first: date
    last: date
    events: frozenset[str] | None = None
    limit: int | None = None
    in_ms: bool = False
    where: Predicate | None = None

    def days(self) -> Iterator[date]:
        """Each day, in order."""
        return (self.first + timedelta(days=i) for i in range((self.last - self.first).days + 1))


class _RefusedError(Exception):
    """The request is malformed: *about* what, and how."""

    def __init__(self, about: Matter, how: str, status: int = 400) -> None:
        super().__init__(about, how, status)
        self.about = about
        self.how = how
        self.status = status


def denial(project: Project, request: Request, rules: Rules = USUAL) -> Answer | None:
    """Say why the credentials do not allow the request, or None where they do."""
    username, secret = _credentials(request.headers.get("authorization", ""))
    asked = request.params.get("project_id")
    if project.legacy_secret is not None and (username, secret) == (project.legacy_secret, ""):
        unwanted = "project_id is not allowed with a project secret"
        return None if asked is None else rules.refusal(request, "project_id", unwanted)
    if (username, secret) != (project.username, project.secret):
        return STATUS[rules.unauthenticated]
    if asked is None:
        missing = "missing required parameter: project_id"
        return rules.refusal(request, "project_id", missing, rules.missing_project_id)
    if asked != project.project_id:
        return rules.refusal(request, "project_id", f"no access to project {asked}", 403)
    return None


def parse(project: Project, request: Request, today: date, rules: Rules = USUAL) -> Query | Answer:
    """Read the parameters; a mistake in them becomes the answer to give. *today* is the project's."""
    params = request.params
    try:
        first, last = _days(params)
        query = Query(
            first, last, _events(params), _limit(params, rules), _flag(params, "time_in_ms"), _where(params)
        )
        _check_bounds(project, query, today)
    except _RefusedError as mistake:
        return rules.refusal(request, mistake.about, mistake.how, mistake.status)
    return query


def _check_bounds(project: Project, query: Query, today: date) -> None:
    if query.last > today:
        raise _RefusedError("today", "to_date cannot be later than today")
    days = project.history_days
    if days is not None and query.first < today - timedelta(days=days):
        raise _RefusedError("history", f"Date range exceeds {days} days into the past", 403)


def _credentials(header: str) -> tuple[str, str]:
    """User name and password; the service also takes them in plain text, and a secret without its colon."""
    scheme, _, value = header.partition(" ")
    if scheme.lower() != "basic":
        return "", ""
    try:
        plain = base64.b64decode(value, validate=True).decode()
    except (binascii.Error, UnicodeDecodeError):
        plain = value
    username, _, secret = plain.partition(":")
    return username, secret


def _days(params: Mapping[str, str]) -> tuple[date, date]:
    first, last = _date(params, "from_date"), _date(params, "to_date")
    if last < first:
        raise _RefusedError("to_date", "to_date must not be before from_date")
    return first, last


def _date(params: Mapping[str, str], name: Literal["from_date", "to_date"]) -> date:
    given = params.get(name)
    if given is None:
        raise _RefusedError(name, f"missing required parameter: {name}")
    try:
        day = date.fromisoformat(given) if re.fullmatch(r"\d{4}-\d\d-\d\d", given) else None
    except ValueError:
        day = None
    if day is None:
        raise _RefusedError(name, f"Error in {name}: invalid date, expected yyyy-mm-dd")
    if day.year < 2000:
        raise _RefusedError(name, f"Error in {name}: invalid date, bad year")
    return day


def _events(params: Mapping[str, str]) -> frozenset[str] | None:
    if "event" not in params:
        return None
    try:
        names = json.loads(params["event"])
    except ValueError:
        names = None
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise _RefusedError("event", "event must be a JSON array of strings")
    return frozenset(cast("list[str]", names))


def _limit(params: Mapping[str, str], rules: Rules) -> int | None:
    if "limit" not in params:
        return None
    given = params["limit"]
    limit = int(given) if re.fullmatch(r"\d{1,18}", given, re.ASCII) else 0
    if rules.over_limit == "clamp":
        limit = min(limit, MAX_LIMIT)
    if not 1 <= limit <= MAX_LIMIT:
        raise _RefusedError("limit", f"limit must be between 1 and {MAX_LIMIT}")
    return limit


def _where(params: Mapping[str, str]) -> Predicate | None:
    if "where" not in params:
        return None
    try:
        return compiled(params["where"])
    except WhereError as error:
        raise _RefusedError("where", f"invalid where: {error}") from error


def _flag(params: Mapping[str, str], name: str) -> bool:
    return params.get(name, "").lower() in {"true", "1"}
