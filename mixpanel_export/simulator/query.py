"""What a request asks for, and whether it may: pure rules from a request to a query or an answer."""

import base64
import binascii
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import date, timedelta
from typing import cast
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
    """The request is malformed; the argument says how."""


def denial(project: Project, request: Request) -> Answer | None:
    """Say why the credentials do not allow the request, or None where they do."""
    username, secret = _credentials(request.headers.get("authorization", ""))
    asked = request.params.get("project_id")
    if project.legacy_secret is not None and (username, secret) == (project.legacy_secret, ""):
        return None if asked is None else _error(request, "project_id is not allowed with a project secret")
    if (username, secret) != (project.username, project.secret):
        return STATUS["401"]
    if asked is None:
        return _error(request, "missing required parameter: project_id")
    if asked != project.project_id:
        return _error(request, f"no access to project {asked}", 403)
    return None


def parse(project: Project, request: Request, today: date) -> Query | Answer:
    """Read the parameters; a mistake in them becomes the answer to give."""
    params = request.params
    try:
        query = Query(
            *_days(params), _events(params), _limit(params), _flag(params, "time_in_ms"), _where(params)
        )
    except _RefusedError as mistake:
        return _error(request, str(mistake))
    if query.last > today:
        return Answer(400, "to_date cannot be later than today")
    if project.history_days is not None and query.first < today - timedelta(days=project.history_days):
        return _error(request, f"Date range exceeds {project.history_days} days into the past", 403)
    return query


def _error(request: Request, message: str, status: int = 400) -> Answer:
    return Answer(status, json.dumps({"request": request.target, "error": message}), "application/json")


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
        raise _RefusedError("to_date must not be before from_date")
    return first, last


def _date(params: Mapping[str, str], name: str) -> date:
    given = params.get(name)
    if given is None:
        raise _RefusedError(f"missing required parameter: {name}")
    try:
        day = date.fromisoformat(given) if re.fullmatch(r"\d{4}-\d\d-\d\d", given) else None
    except ValueError:
        day = None
    if day is None:
        raise _RefusedError(f"Error in {name}: invalid date, expected yyyy-mm-dd")
    if day.year < 2000:
        raise _RefusedError(f"Error in {name}: invalid date, bad year")
    return day


def _events(params: Mapping[str, str]) -> frozenset[str] | None:
    if "event" not in params:
        return None
    try:
        names = json.loads(params["event"])
    except ValueError:
        names = None
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise _RefusedError("event must be a JSON array of strings")
    return frozenset(cast("list[str]", names))


def _limit(params: Mapping[str, str]) -> int | None:
    if "limit" not in params:
        return None
    given = params["limit"]
    if not re.fullmatch(r"\d{1,9}", given) or not 1 <= int(given) <= MAX_LIMIT:
        raise _RefusedError(f"limit must be between 1 and {MAX_LIMIT}")
    return int(given)


def _where(params: Mapping[str, str]) -> Predicate | None:
    if "where" not in params:
        return None
    try:
        return compiled(params["where"])
    except WhereError as error:
        raise _RefusedError(f"invalid where: {error}") from error


def _flag(params: Mapping[str, str], name: str) -> bool:
    return params.get(name, "").lower() in {"true", "1"}
