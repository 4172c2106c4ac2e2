"""Do the credentials work? The one request that is cheapest to make and proves it."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import httpx

from mixpanel_export._concurrency import in_task
from mixpanel_export._export.job import gate_for, query_for
from mixpanel_export._model import Chunk
from mixpanel_export._source.client import new_client
from mixpanel_export._source.fetcher import Fetcher
from mixpanel_export._source.request import Timeouts
from mixpanel_export.credentials import Credentials
from mixpanel_export.errors import RateLimitError

_PATIENCE = Timeouts(connect=15.0, first_byte=120.0, idle=30.0)  # one event is soon found, or nothing is


async def check_credentials(
    credentials: Credentials,
    *,
    api_url: str | None = None,
    transport: httpx.AsyncBaseTransport | None = None,
    now: Callable[[], datetime] = lambda: datetime.now(UTC),
) -> int:
    """Ask Mixpanel for one event of yesterday, and return how many came: 1, or 0 where that day has none.

    That the call returns is the proof. It takes one of the hour's requests if it succeeds and none if the
    credentials are refused (401, 402 and 429 are not counted), is made once, and does not wait for the quota.

    Raises:
        AuthenticationError: Mixpanel does not accept the credentials.
        RateLimitError: The hour has no request left, so nobody can tell now.
        APIError: No connection, no permission for the project, or no usable answer.
        ConfigError: The environment's proxies or certificates cannot be used.
    """
    # In no zone on earth has yesterday's day in UTC yet to begin.
    yesterday = now().astimezone(UTC).date() - timedelta(days=1)
    query = query_for(credentials, api_url, _PATIENCE, events=None, where=None, limit=1)
    found = _Counted()

    async def ask() -> None:
        async with new_client(transport) as client:
            gate = gate_for(query, None, None, max_wait=0.0)
            fetcher = Fetcher(client, query, gate, workers=1, retries=0, now=now)
            await fetcher.fetch(Chunk(yesterday, yesterday), found)

    try:
        await in_task(ask)
    except RateLimitError as error:
        raise _not_now(error) from error
    return found.events


def _not_now(error: RateLimitError) -> RateLimitError:
    minutes = max(1, round((error.retry_after or 0.0) / 60))
    return RateLimitError(
        f"whether the credentials work cannot be told now, as the quota leaves no request for another {minutes} min; "
        "try again then",
        status_code=error.status_code,
        response_body=error.response_body,
        retry_after=error.retry_after,
    )


class _Counted:
    """Counts events, and keeps none."""

    def __init__(self) -> None:
        self.events = 0

    async def restart(self) -> None:
        self.events = 0

    async def block(self, lines: bytes) -> None:
        self.events += lines.count(b"\n")
