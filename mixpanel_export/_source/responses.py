"""Converts failed and incomplete responses into errors, each with a reason and advice."""

import base64
import json
import re
from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, date, datetime, timedelta
from email.utils import parsedate_to_datetime

import httpx

from mixpanel_export._model import Chunk
from mixpanel_export._quota.statuses import SERVER_ERRORS
from mixpanel_export.credentials import Credentials, format_problem
from mixpanel_export.errors import (
    APIError,
    AuthenticationError,
    FutureDateError,
    LineTooLongError,
    QueryError,
    RateLimitError,
    ServerError,
    TruncatedError,
)

LIST_ADVICE = (
    "fetch a few $events at a time and $append them to the same table, or leave out $events and select in SQL"
)
"""Advice on too many event names for one request."""

_MAX_BODY = 500  # bytes of a body in an error
_EXCERPT = 80  # characters of an incomplete body in a message
_AUTHENTICATION = "Unable to authenticate request"  # sent with status 400, and sometimes with 200
_TIMEOUT = "Timeout Error"  # Mixpanel reports its own time-out with status 400
_FUTURE = "to_date cannot be later than today"
_EVICTED = "uncached query"  # part of the error if a session's pages are no longer cached
_HISTORY = re.compile(r"Date range exceeds (\d{1,5}) days into the past")  # the plan's limit


def add_request(
    error: APIError,
    method: str,
    url: str,
    params: Mapping[str, object],
    body: Mapping[str, object] | None = None,
) -> None:
    """Add the request to the attributes and the details of *error*. The arguments must not contain credentials."""
    error.request_method, error.request_url, error.request_params = method, url, params
    error.request_body = body
    error.details |= {"request_method": method, "request_url": url, "request_params": dict(params)}
    if body is not None:
        error.details["request_body"] = dict(body)


class SessionEvictedError(QueryError):
    """Mixpanel no longer has the pages of the session. Callers start again from page 0."""


def error_from_response(
    status: int,
    body: str,
    retry_after: str | None,
    chunk: Chunk | None,
    now: datetime,
    *,
    hint: str | None = None,
) -> APIError:
    """Return the error for a response with a status other than 200 that arrived at *now*, which must be aware.

    *hint* describes what looks wrong with the credentials, if anything.
    """
    excerpt = body.encode()[:_MAX_BODY].decode("utf-8", "ignore")
    message = _message(body)
    reason = f"Mixpanel responded with status {status}: {message[:_MAX_BODY] or '(empty)'}"
    if status == httpx.codes.UNAUTHORIZED or _AUTHENTICATION in message:
        return _not_authenticated(status, excerpt, chunk, hint)
    if status == httpx.codes.TOO_MANY_REQUESTS:
        return RateLimitError(
            reason,
            days=chunk,
            advice=_rate_limit_advice(message),
            response_body=excerpt,
            retry_after=parse_retry_after(retry_after),
        )
    if status in SERVER_ERRORS or _TIMEOUT in message:
        return ServerError(
            reason,
            days=chunk,
            advice="try again later",
            status_code=status,
            response_body=excerpt,
            retry_after=parse_retry_after(retry_after),
        )
    if _EVICTED in message:
        return SessionEvictedError(reason, status_code=status, response_body=excerpt)
    if _FUTURE in message and chunk is not None:
        return FutureDateError(
            reason,
            days=chunk,
            advice=f"use {chunk.last - timedelta(days=1)} as $to_date until {chunk.last} has begun in the project's "
            "time zone",
            argument="to_date",
            status_code=status,
            response_body=excerpt,
        )
    first = _first_day(message, now)
    return QueryError(
        reason,
        days=chunk,
        advice=_history_advice(first) if first else _query_advice(status, days=chunk is not None),
        argument="from_date" if first else None,
        first_day=first,
        status_code=status,
        response_body=excerpt,
    )


def error_from_body(
    error: LineTooLongError | TruncatedError, credentials: Credentials, chunk: Chunk
) -> APIError:
    """Return the error for an incomplete response with status 200. *error* is the decoder's error."""
    body = redacted(error.response_body or "", credentials)
    if _message(body).startswith(_AUTHENTICATION):
        return _not_authenticated(httpx.codes.OK, body, chunk, format_problem(credentials))
    excerpt = body.strip()[:_EXCERPT]
    return type(error)(
        f"{error.reason}: {excerpt}" if excerpt else error.reason,
        days=chunk,
        advice="nothing of the response was stored, so "
        + (
            "leave the event of this line out of $events, or fetch only the other days"
            if isinstance(error, LineTooLongError)
            else "fetch these days again"
        ),
        status_code=httpx.codes.OK,
        response_body=body,
    )


def error_in_success(
    text: str, days: Chunk | None, reason: str, *, hint: str | None = None, personal: bool = False
) -> APIError:
    """Return the error for a response of the Query API that has status 200 but no value.

    *reason* is reported if the response does not contain an error message. See `error_from_response` for *hint*. If the
    response may have *personal* data, the error does not quote JSON from the response.
    """
    excerpt = text.encode()[:_MAX_BODY].decode("utf-8", "ignore")
    message = _message(text)
    if personal and message == text.strip() and message.startswith("{"):
        return TruncatedError(reason, days=days, advice="try again later", status_code=httpx.codes.OK)
    if _AUTHENTICATION in message:
        return _not_authenticated(httpx.codes.OK, excerpt, days, hint)
    if _EVICTED in message:
        return SessionEvictedError(message[:_MAX_BODY], status_code=httpx.codes.OK, response_body=excerpt)
    if message == text.strip():
        return TruncatedError(
            f"{reason}: {excerpt[:_EXCERPT] or '(empty)'}",
            days=days,
            advice="try again later",
            status_code=httpx.codes.OK,
            response_body=excerpt,
        )
    return ServerError(
        f"Mixpanel responded with status 200 and the error: {message[:_MAX_BODY]}",
        days=days,
        advice="try again later",
        status_code=httpx.codes.OK,
        response_body=excerpt,
    )


def parse_retry_after(value: str | None) -> float | None:
    """Return the seconds in a `Retry-After` header, which is a number or an HTTP date; None for any other value."""
    if not value:
        return None
    if re.fullmatch(r"\d+(\.\d+)?", value.strip()):
        return float(value)
    try:
        moment = parsedate_to_datetime(value)
    except ValueError:
        return None
    return max(0.0, (moment.replace(tzinfo=moment.tzinfo or UTC) - datetime.now(UTC)).total_seconds())


def redacted(text: str, credentials: Credentials) -> str:
    """Mask the secret in *text*, and the header value that contains the secret."""
    user, password = credentials.auth
    token = base64.b64encode(f"{user}:{password}".encode()).decode()
    for secret in (str(credentials.secret), token):
        text = text.replace(secret, "***")
    return text


def _not_authenticated(status: int, body: str, chunk: Chunk | None, hint: str | None) -> AuthenticationError:
    return AuthenticationError(
        f"Mixpanel does not accept the credentials (status {status})",
        days=chunk,
        advice=f"{hint}, so copy it again"
        if hint
        else "check the user name, the secret, the project and its $region (us, eu or in)",
        status_code=status,
        response_body=body,
    )


def _rate_limit_advice(message: str) -> str:
    if "in progress" in message or "concurrency limit" in message:
        return "wait for the project's other exports, or lower $max_workers"
    return "the project's quota is used up, so wait, or lower $per_second and $per_hour"


def _first_day(message: str, now: datetime) -> date | None:
    """Return the first day of the plan's history; None if *message* is not about days before that day."""
    limit = _HISTORY.search(message)
    return now.astimezone(UTC).date() - timedelta(days=int(limit[1])) if limit else None


def _history_advice(first: date) -> str:
    return f"the plan's history starts on {first}, so use that day or a later one as $from_date"


def _query_advice(status: int, *, days: bool) -> str:
    match status:
        case 402:
            return (
                f"check the plan: it does not include {'exports' if days else 'queries'}, or a payment is due"
            )
        case 403:
            return "check the account's role in the project, and the days that the plan includes"
        case 404:
            return "check the $region and the API URL"
        case 413 | 414:
            return f"shorten $where or the list of $events: {LIST_ADVICE}"
        case _ if httpx.codes.is_redirect(status):
            return "check the API URL; credentials are not sent to another address"
        case _:
            return "check the dates, $events and $where" if days else "check $where and the other arguments"


def _message(body: str) -> str:
    """Return the message from a body that is a JSON error object; otherwise, return the whole body."""
    with suppress(ValueError, RecursionError):
        value = json.loads(body)
        if isinstance(value, dict) and isinstance(value.get("error"), str):
            return str(value["error"]).strip()
    return body.strip()
