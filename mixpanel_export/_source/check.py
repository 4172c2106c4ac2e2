"""Checks credentials with the cheapest request that proves them valid."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import httpx

from mixpanel_export._concurrency import in_task
from mixpanel_export._model import Chunk, Lines, Selection
from mixpanel_export._quota.gate import gate_for
from mixpanel_export._quota.limits import Quota
from mixpanel_export._source.client import new_client
from mixpanel_export._source.fetcher import Fetcher
from mixpanel_export._source.parameters import Timeouts, parameters_for
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

    If the call returns, the credentials are valid. It makes one attempt and does not wait for the quota. It uses one
    request of the hourly quota, or none if Mixpanel rejects the credentials.

    Raises:
        AuthenticationError: Mixpanel does not accept the credentials.
        RateLimitError: The hourly quota allows no request, so the credentials cannot be checked now.
        APIError: No connection, no permission for the project, or no usable response.
        ConfigError: The environment's proxy or certificates cannot be used.
    """
    # Yesterday in UTC has begun in every time zone.
    yesterday = now().astimezone(UTC).date() - timedelta(days=1)
    parameters = parameters_for(
        credentials, Selection(credentials.project_id), limit=limit, api_url=api_url, timeouts=_TIMEOUTS
    )
    sink = _Lines()

    async def check() -> None:
        async with new_client(parameters.url, transport) as client:
            gate = gate_for(Quota.resolved(max_wait=0.0), parameters.url, credentials.project_id)
            fetcher = Fetcher(client, parameters, gate, workers=1, retries=0, now=now)
            await fetcher.fetch(Chunk(yesterday, yesterday), sink)

    try:
        await in_task(check)
    except RateLimitError as error:
        raise _cannot_check_now(error) from error
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
