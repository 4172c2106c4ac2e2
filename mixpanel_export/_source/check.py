"""Requests a few events, to check the credentials, or whether Mixpanel exports certain events."""

from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from functools import partial

import httpx

from mixpanel_export._concurrency import in_task
from mixpanel_export._model import Chunk, Lines, Selection
from mixpanel_export._quota.gate import gate_for
from mixpanel_export._quota.limits import Quota
from mixpanel_export._source.client import new_client
from mixpanel_export._source.fetcher import Fetcher
from mixpanel_export._source.parameters import RequestParameters, Timeouts, parameters_for
from mixpanel_export.credentials import Credentials
from mixpanel_export.errors import RateLimitError

_TIMEOUTS = Timeouts(connect=15.0, first_byte=120.0, idle=30.0)  # the response has one event


async def check_credentials(
    credentials: Credentials,
    *,
    limit: int = 1,
    api_url: str | None = None,
    transport: httpx.AsyncBaseTransport | None = None,
    now: Callable[[], datetime] = lambda: datetime.now(UTC),
) -> list[bytes]:
    """Request at most *limit* of yesterday's events, and return their lines; none if that day has no events.

    If the call returns, the credentials are valid. The call makes one attempt and does not wait for the quota. It uses
    one request of the hourly quota, or none if Mixpanel rejects the credentials.

    Raises:
        AuthenticationError: Mixpanel does not accept the credentials.
        RateLimitError: The hourly quota allows no request, so the credentials cannot be checked now.
        APIError: There was no connection, no permission for the project, or no usable response.
        ConfigError: The environment's proxy or certificates cannot be used.
    """
    # Yesterday in UTC has begun in every time zone.
    yesterday = now().astimezone(UTC).date() - timedelta(days=1)
    parameters = parameters_for(
        credentials, Selection(credentials.project_id), limit=limit, api_url=api_url, timeouts=_TIMEOUTS
    )
    quota = Quota.resolved(max_wait=0.0)
    fetch = partial(
        _request_lines,
        parameters,
        Chunk(yesterday, yesterday),
        quota,
        retries=0,
        transport=transport,
        now=now,
    )
    try:
        return await in_task(fetch)
    except RateLimitError as error:
        raise _cannot_check_now(error) from error


async def sends_events(
    credentials: Credentials,
    names: Sequence[str],
    days: Chunk,
    quota: Quota,
    *,
    retries: int,
    api_url: str | None = None,
    transport: httpx.AsyncBaseTransport | None = None,
    now: Callable[[], datetime],
) -> bool:
    """Whether an export of *days* has any events with these *names*. After an empty response, the request is repeated.

    Raises:
        APIError: The request failed.
        ArgumentError: The names do not fit into a request.
    """
    selection = Selection(credentials.project_id, tuple(sorted(names)))
    parameters = parameters_for(credentials, selection, limit=1, api_url=api_url)
    for _ in range(2):
        if await _request_lines(parameters, days, quota, retries=retries, transport=transport, now=now):
            return True
    return False


async def _request_lines(
    parameters: RequestParameters,
    days: Chunk,
    quota: Quota,
    *,
    retries: int,
    transport: httpx.AsyncBaseTransport | None,
    now: Callable[[], datetime],
) -> list[bytes]:
    """Request events and return their lines. The `limit` in *parameters* is small."""
    sink = _Lines()
    async with new_client(parameters.url, transport) as client:
        gate = gate_for(quota, parameters.url, parameters.credentials.project_id, purpose="test request")
        await Fetcher(client, parameters, gate, workers=1, retries=retries, now=now).fetch(days, sink)
    return sink.content.split(b"\n")[:-1]


def _cannot_check_now(error: RateLimitError) -> RateLimitError:
    minutes = max(1, round((error.retry_after or 0.0) / 60))
    return RateLimitError(
        f"the credentials cannot be checked, because the quota allows no request for another {minutes} min",
        advice="try again then",
        status_code=error.status_code,
        response_body=error.response_body,
        retry_after=error.retry_after,
    )


class _Lines:
    """A sink that collects the response's few lines."""

    def __init__(self) -> None:
        self.content = b""

    async def restart(self) -> None:
        self.content = b""

    async def block(self, lines: Lines) -> None:
        self.content += b"".join(lines)
