"""Checks that Mixpanel can be reached, and compares its clock with this machine's, without credentials or quota."""

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

_TIME_LIMIT = 20.0  # seconds; a slower connection is useless for an export
_DATE_STEP = 1.0  # seconds; the resolution of the `Date` header


@dataclass(frozen=True, slots=True)
class ServerProbe:
    """Facts about a reachable server, from its response."""

    server: str
    """Scheme, host and port."""
    status: int
    seconds: float
    """Seconds from the start of the connection to the response."""
    tls: str | None
    """The TLS version; None if TLS is not used."""
    proxy: str | None
    """Host and port of the proxy; None if no proxy is used."""
    ahead: float | None
    """The seconds by which this machine's clock is ahead of the server's; None if the server does not send the date."""
    uncertainty: float
    """The maximum error of `ahead`, in seconds."""


async def probe_server(
    url: str,
    *,
    transport: httpx.AsyncBaseTransport | None = None,
    now: Callable[[], datetime] = lambda: datetime.now(UTC),
    time_limit: float = _TIME_LIMIT,
) -> ServerProbe:
    """Send a `HEAD` request to the server in *url*, with the same proxy and certificates as an export.

    *now* is the clock to compare with the server's clock. It must return aware times.

    Raises:
        ConfigError: The environment's proxy or certificates cannot be used.
        APIError: There was no response within *time_limit* seconds. The error gives the reason.
    """
    parts = urlsplit(url)
    server = f"{parts.scheme}://{parts.netloc}"
    route = Route.to(server)
    sent: list[tuple[float, datetime]] = []

    async def trace(event: str, info: dict[str, Any]) -> None:
        route.observe(event, info)
        if event.endswith("send_request_headers.started"):
            sent.append((time.monotonic(), now()))

    start = time.monotonic(), now()
    with as_api_errors(route), anyio.fail_after(time_limit):
        async with new_client(server, transport) as client:
            request = client.build_request(
                "HEAD", server, headers={"Cache-Control": "no-cache"}, extensions={"trace": trace}
            )
            response = await client.send(request, stream=True)
            end = time.monotonic()
            tls = _tls(response)
            await response.aclose()
    request_time, request_date = sent[-1] if sent else start
    ahead, uncertainty = _clock_difference(response.headers.get("date"), request_date, end - request_time)
    return ServerProbe(server, response.status_code, end - start[0], tls, route.proxy, ahead, uncertainty)


def _tls(response: httpx.Response) -> str | None:
    stream = response.extensions.get("network_stream")
    ssl_object = stream.get_extra_info("ssl_object") if stream else None
    return str(ssl_object.version()) if ssl_object else None


def _clock_difference(date: str | None, request_date: datetime, seconds: float) -> tuple[float | None, float]:
    """Return the seconds by which this machine's clock is ahead of *date*, and the maximum error in seconds.

    *date* is the date in the response. *request_date* is when the request was sent, *seconds* before the response.
    """
    uncertainty = (seconds + _DATE_STEP) / 2
    try:
        moment = parsedate_to_datetime(date or "")
    except ValueError:
        return None, uncertainty
    server_time = moment.replace(tzinfo=moment.tzinfo or UTC).timestamp() + _DATE_STEP / 2
    return request_date.timestamp() + seconds / 2 - server_time, uncertainty
