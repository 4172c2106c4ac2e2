"""Converts a request's credentials and parameters to a query or an error response. All functions are pure."""

import base64
import binascii
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import date, timedelta
from typing import Literal, cast
from urllib.parse import parse_qsl, urlsplit

from mixpanel_export.simulator.faults import STATUS, FixedResponse
from mixpanel_export.simulator.where import GRAMMAR, Predicate, WhereError, compiled

MAX_LIMIT = 100_000  # docs: openapi/export.openapi.yaml
PATHS = frozenset({"/api/2.0/export", "/api/2.0/export/"})


@dataclass(frozen=True, slots=True)
class Request:
    """A request to the API. Header names are in lower case."""

    method: str
    target: str
    headers: Mapping[str, str] = field(repr=False)
    body: bytes = field(default=b"", repr=False)

    @property
    def path(self) -> str:
        """The path without the query string."""
        return urlsplit(self.target).path

    @property
    def with_other_slash(self) -> str:
        """The target with a slash added to the path, or with the path's final slash removed."""
        path = self.path.removesuffix("/") if self.path.endswith("/") else self.path + "/"
        return urlsplit(self.target)._replace(path=path).geturl()

    @property
    def params(self) -> dict[str, str]:
        """The parameters of the URL and the body. If a key is repeated, the last value wins. The body takes precedence."""
        return _form(urlsplit(self.target).query) | _body_params(self.body)

    @property
    def accepts_gzip(self) -> bool:
        """Whether `Accept-Encoding` allows gzip."""
        codings = (coding.strip().lower() for coding in self.headers.get("accept-encoding", "").split(","))
        return any(re.fullmatch(r"gzip(;\s*q=(?!0(\.0*)?$).*)?", coding) for coding in codings)


@dataclass(frozen=True, slots=True)
class Project:
    """A project's credentials, and the number of days of history that its plan allows.

    If *legacy_secret* is given, the project also accepts it as a user name, without `project_id`. If *history_days* is
    None, there is no limit.
    """

    username: str
    secret: str = field(repr=False)
    project_id: str
    legacy_secret: str | None = field(default=None, repr=False)
    history_days: int | None = None


Shape = Literal["seen", "request", "error", "status", "text"]
Subject = Literal[
    "from_date", "to_date", "event", "limit", "where", "project_id", "today", "history", "quota"
]
"""The subject of an error response: a parameter, a day in the future, the plan's history, or the quota."""


@dataclass(frozen=True, slots=True)
class Rules:
    """The responses to invalid requests, where Mixpanel's behaviour is undocumented or varies.

    Args:
        wording: Error messages that replace the usual ones, keyed by subject.
        shape: "request" is JSON with the request and the text, "error" is JSON with the text, "status" is JSON with the
            text and `"status": "error"`, "text" is plain text. "seen" is the observed behaviour: plain text if a day
            is in the future, otherwise "request".
        unauthenticated: Response to wrong credentials.
        missing_project_id: Status if a service account sends no project id.
        over_limit: The response to a `limit` above 100,000. "refuse" is status 400; with "clamp", the limit is 100,000.
        longest_target: Maximum length of the path and query, in characters. Longer requests get status 414. None for
            no maximum. The server reads at most 16 KB of a request's head.
        rate_limit_headers: Whether a 429 response has the headers `RateLimit` and `RateLimit-Policy`.
    """

    wording: Mapping[Subject, str] = field(default_factory=dict)
    shape: Shape = "seen"
    unauthenticated: Literal["401", "auth_text_400", "auth_text_200"] = "401"
    missing_project_id: Literal[400, 401] = 400
    over_limit: Literal["refuse", "clamp"] = "refuse"
    longest_target: int | None = None
    rate_limit_headers: bool = False

    def refusal(self, request: Request, subject: Subject, text: str, status: int = 400) -> FixedResponse:
        """Return an error response with *text*, or with its replacement in *wording*."""
        text = self.wording.get(subject, text)
        match self.shape:
            case "text":
                return FixedResponse(status, text)
            case "seen" if subject == "today":
                return FixedResponse(status, text)
            case "error":
                body = {"error": text}
            case "status":
                body = {"error": text, "status": "error"}
            case _:
                body = {"request": request.target, "error": text}
        return FixedResponse(status, json.dumps(body), "application/json")


DEFAULT_RULES = Rules()


@dataclass(frozen=True, slots=True)
class Query:
    """The requested days, from *first* to *last*, both inclusive, and the requested events."""

    first: date
    last: date
    events: frozenset[str] | None = None
    limit: int | None = None
    in_ms: bool = False
    where: Predicate | None = None

    def days(self) -> Iterator[date]:
        """Yield each day, in order."""
        return (self.first + timedelta(days=i) for i in range((self.last - self.first).days + 1))


class _InvalidError(Exception):
    """The request is invalid. The error response has the *subject*, the *text* and the *status*."""

    def __init__(self, subject: Subject, text: str, status: int = 400) -> None:
        super().__init__(subject, text, status)
        self.subject = subject
        self.text = text
        self.status = status


def denial(project: Project, request: Request, rules: Rules = DEFAULT_RULES) -> FixedResponse | None:
    """Return an error response if the credentials do not allow the request, else None."""
    username, secret = _credentials(request.headers.get("authorization", ""))
    project_id = request.params.get("project_id")
    if project.legacy_secret is not None and (username, secret) == (project.legacy_secret, ""):
        text = "project_id is not allowed with a project secret"
        return None if project_id is None else rules.refusal(request, "project_id", text)
    if (username, secret) != (project.username, project.secret):
        return STATUS[rules.unauthenticated]
    if project_id is None:
        text = "missing required parameter: project_id"
        return rules.refusal(request, "project_id", text, rules.missing_project_id)
    if project_id != project.project_id:
        return rules.refusal(request, "project_id", f"no access to project {project_id}", 403)
    return None


def parse(
    project: Project, request: Request, today: date, rules: Rules = DEFAULT_RULES
) -> Query | FixedResponse:
    """Return the query of *request*, or an error response if it is invalid. *today* is the date in the project's zone."""
    params = request.params
    try:
        first, last = _days(params)
        query = Query(
            first, last, _events(params), _limit(params, rules), _flag(params, "time_in_ms"), _where(params)
        )
        _check_bounds(project, query, today)
    except _InvalidError as error:
        return rules.refusal(request, error.subject, error.text, error.status)
    return query


def _form(text: str) -> dict[str, str]:
    return dict(parse_qsl(text, keep_blank_values=True))


def _body_params(body: bytes) -> dict[str, str]:
    """Return the parameters of a body, which is a JSON object or a form. Values that are not strings are kept as JSON text."""
    text = body.decode("utf-8", "replace")
    try:
        values = json.loads(text)
    except ValueError:
        return _form(text)
    if not isinstance(values, dict):
        return {}
    return {
        key: value if isinstance(value, str) else json.dumps(value)
        for key, value in values.items()
        if value is not None
    }


def _check_bounds(project: Project, query: Query, today: date) -> None:
    if query.last > today:
        raise _InvalidError("today", "to_date cannot be later than today")
    days = project.history_days
    if days is not None and query.first < today - timedelta(days=days):
        raise _InvalidError("history", f"Date range exceeds {days} days into the past", 403)


def _credentials(header: str) -> tuple[str, str]:
    """Return the user name and password. Like Mixpanel, accept them without base64, and a secret without a colon."""
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
        raise _InvalidError("to_date", "to_date must not be before from_date")
    return first, last


def _date(params: Mapping[str, str], name: Literal["from_date", "to_date"]) -> date:
    text = params.get(name)
    if text is None:
        raise _InvalidError(name, f"missing required parameter: {name}")
    try:
        day = date.fromisoformat(text) if re.fullmatch(r"\d{4}-\d\d-\d\d", text) else None
    except ValueError:
        day = None
    if day is None:
        raise _InvalidError(name, f"Error in {name}: invalid date, expected yyyy-mm-dd")
    if day.year < 2000:
        raise _InvalidError(name, f"Error in {name}: invalid date, bad year")
    return day


def _events(params: Mapping[str, str]) -> frozenset[str] | None:
    if "event" not in params:
        return None
    try:
        names = json.loads(params["event"])
    except ValueError:
        names = None
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise _InvalidError("event", "event must be a JSON array of strings")
    return frozenset(cast("list[str]", names))


def _limit(params: Mapping[str, str], rules: Rules) -> int | None:
    if "limit" not in params:
        return None
    text = params["limit"]
    limit = int(text) if re.fullmatch(r"\d{1,18}", text, re.ASCII) else 0
    if rules.over_limit == "clamp":
        limit = min(limit, MAX_LIMIT)
    if not 1 <= limit <= MAX_LIMIT:
        raise _InvalidError("limit", f"limit must be between 1 and {MAX_LIMIT}")
    return limit


def _where(params: Mapping[str, str]) -> Predicate | None:
    if "where" not in params:
        return None
    try:
        return compiled(params["where"])
    except WhereError as error:
        raise _InvalidError("where", f"invalid where: {error}; {GRAMMAR}") from error


def _flag(params: Mapping[str, str], name: str) -> bool:
    return params.get(name, "").lower() in {"true", "1"}
