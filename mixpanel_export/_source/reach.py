"""Whether Mixpanel can be reached, and how its clock differs from ours. Sends no credentials and uses no quota."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import urlsplit

import anyio
import httpx

from mixpanel_export._source.client import Route, as_api_errors, new_client

_TIME_LIMIT = 20.0  # seconds; a connection that takes longer is of no use for an export
_DATE_STEP = 1.0  # seconds; the resolution of the header


@dataclass(frozen=True, slots=True)
class Reached:
    """A server that answered."""

    server: str
    """Scheme, host and port."""
    status: int
    seconds: float
    """Seconds until it answered, including the connection."""
    tls: str | None
    """The TLS version; None without TLS."""
    proxy: str | None
    """Host and port of the proxy; None without a proxy."""
    ahead: float | None
    """By how many seconds this machine's clock is ahead of the server's; None if the server sends no date."""
    doubt: float
    """Seconds by which `ahead` may be wrong, in either direction."""


async def reach(
    url: str,
    *,
    transport: httpx.AsyncBaseTransport | None = None,
    now: Callable[[], datetime] = lambda: datetime.now(UTC),
    time_limit: float = _TIME_LIMIT,
) -> Reached:
    """Request the head of the front page of *url*'s server, with the proxy and certificates that an export uses.

    *now* (aware) is the clock to compare.

    Raises:
        ConfigError: The environment's proxy or certificates cannot be used.
        APIError: No response within *time_limit* seconds; gives the reason.
    """
    parts = urlsplit(url)
    server = f"{parts.scheme}://{parts.netloc}"
    route = Route.to(server)
    sent: list[tuple[float, datetime]] = []

    async def trace(event: str, info: dict[str, Any]) -> None:
        route.follow(event, info)
        if event.endswith("send_request_headers.started"):
            sent.append((time.monotonic(), now()))

    began = time.monotonic(), now()
    with as_api_errors(route), anyio.fail_after(time_limit):
        async with new_client(server, transport) as client:
            request = client.build_request(
                "HEAD", server, headers={"Cache-Control": "no-cache"}, extensions={"trace": trace}
            )
            response = await client.send(request, stream=True)
            answered = time.monotonic()
            tls = _tls(response)
            await response.aclose()
    requested, wall = sent[-1] if sent else began
    ahead, doubt = _ahead(response.headers.get("date"), wall, answered - requested)
    return Reached(server, response.status_code, answered - began[0], tls, route.proxy, ahead, doubt)


def _tls(response: httpx.Response) -> str | None:
    stream = response.extensions.get("network_stream")
    secured = stream.get_extra_info("ssl_object") if stream else None
    return str(secured.version()) if secured else None


def _ahead(date: str | None, requested: datetime, took: float) -> tuple[float | None, float]:
    """Compare our clock at *requested*, *took* seconds before the response, with the response's date."""
    doubt = (took + _DATE_STEP) / 2
    try:
        moment = parsedate_to_datetime(date or "")
    except ValueError:
        return None, doubt
    theirs = moment.replace(tzinfo=moment.tzinfo or UTC).timestamp() + _DATE_STEP / 2
    return requested.timestamp() + took / 2 - theirs, doubt
