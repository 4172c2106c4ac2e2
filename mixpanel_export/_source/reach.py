"""Can Mixpanel be reached, and does its clock agree with ours? A question without credentials, which no quota counts."""

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

_PATIENCE = 20.0  # seconds, in which every connection that can be used for an export stands
_DATE_STEP = 1.0  # seconds; the header names whole ones


@dataclass(frozen=True, slots=True)
class Reached:
    """What was learned of a server that answered, with whatever *status*.

    *seconds* passed until then, connecting included. *tls* names the protocol, None without; *proxy* is host
    and port. *ahead* says by how many seconds this machine's clock is ahead of the server's, give or take *doubt*;
    None where the server tells no time.
    """

    server: str
    status: int
    seconds: float
    tls: str | None
    proxy: str | None
    ahead: float | None
    doubt: float


async def reach(
    url: str,
    *,
    transport: httpx.AsyncBaseTransport | None = None,
    now: Callable[[], datetime] = lambda: datetime.now(UTC),
    patience: float = _PATIENCE,
) -> Reached:
    """Ask the server of *url* for its front page's head, by the way that an export takes, proxies and CAs included.

    *now* (aware) is the clock to compare.

    Raises:
        ConfigError: The environment's proxies or certificates cannot be used.
        APIError: No answer within *patience* seconds; says why.
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
    with as_api_errors("a test", route), anyio.fail_after(patience):
        async with new_client(transport) as client:
            request = client.build_request(
                "HEAD", server, headers={"Cache-Control": "no-cache"}, extensions={"trace": trace}
            )
            response = await client.send(request, stream=True)
            answered = time.monotonic()
            tls = _tls(response)
            await response.aclose()
    asked, wall = sent[-1] if sent else began
    ahead, doubt = _ahead(response.headers.get("date"), wall, answered - asked)
    return Reached(server, response.status_code, answered - began[0], tls, route.proxy, ahead, doubt)


def _tls(response: httpx.Response) -> str | None:
    stream = response.extensions.get("network_stream")
    secured = stream.get_extra_info("ssl_object") if stream else None
    return str(secured.version()) if secured else None


def _ahead(date: str | None, asked: datetime, took: float) -> tuple[float | None, float]:
    """Compare the clock when the request was sent, *took* seconds before its answer, with the answer's date."""
    doubt = (took + _DATE_STEP) / 2
    try:
        said = parsedate_to_datetime(date or "")
    except ValueError:
        return None, doubt
    theirs = said.replace(tzinfo=said.tzinfo or UTC).timestamp() + _DATE_STEP / 2
    return asked.timestamp() + took / 2 - theirs, doubt
