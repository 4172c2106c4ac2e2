"""Shared by the tests of the export endpoint: a small simulator, and requests over its socket or its transport."""

import ssl
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, date, datetime
from typing import Any

import httpx

from mixpanel_export.simulator import Simulator

FIRST, LAST = date(2024, 3, 4), date(2024, 3, 6)
NOW = datetime(2024, 6, 1, 12, tzinfo=UTC)
ACCOUNT = ("demo.mp-service-account", "demo-secret")
DAYS = {"from_date": "2024-03-04", "to_date": "2024-03-06", "project_id": "12345"}
PATH = "/api/2.0/export"
NO_CERTIFICATES = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
"""For clients without TLS, because loading the certificates takes 20 ms for each client."""


def simulator(**options: Any) -> Simulator:
    """Return a small simulator without limits, unless *options* override that."""
    defaults: dict[str, Any] = {
        "events_per_day": 40,
        "per_second": 0,
        "per_hour": 0,
        "concurrent": 0,
        "now": lambda: NOW,
    }
    return Simulator(**(defaults | options))


def client(sim: Simulator, url: str | None = None, **options: Any) -> httpx.AsyncClient:
    """Return a client of *sim*, over the socket at *url* or else over its transport."""
    transport = sim.transport() if url is None else None
    defaults: dict[str, Any] = {"auth": ACCOUNT, "verify": NO_CERTIFICATES}
    return httpx.AsyncClient(base_url=url or "http://simulator", transport=transport, **(defaults | options))


@asynccontextmanager
async def both(sim: Simulator) -> AsyncIterator[Sequence[httpx.AsyncClient]]:
    """Yield a client over a socket and a client over the transport."""
    async with sim.serve() as url, client(sim, url) as socket, client(sim) as transport:
        yield socket, transport


async def get(sim: Simulator, **changes: str | None) -> httpx.Response:
    """Send one request over the transport, with *changes* to the parameters; None omits a parameter."""
    params = {name: value for name, value in (DAYS | changes).items() if value is not None}
    async with client(sim) as http:
        return await http.get(PATH, params=params)


def lines_of(response: httpx.Response) -> list[bytes]:
    """Return the lines of a body that ends with a newline, sorted."""
    assert not response.content or response.content.endswith(b"\n")
    return sorted(response.content.split(b"\n")[:-1])
