"""Opens a client for the requests for profiles."""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

import anyio
import httpx
from anyio import to_thread

from mixpanel_export._profiles.job import ProfileQuery
from mixpanel_export._source.client import new_client
from mixpanel_export._source.query_api import QueryApi


@asynccontextmanager
async def open_api(
    query: ProfileQuery, transport: httpx.AsyncBaseTransport | None
) -> AsyncIterator[QueryApi]:
    """Open a client for the requests of *query*."""
    # This runs in a thread, because loading the certificates takes about 0.1 s.
    client = await to_thread.run_sync(partial(new_client, query.parameters.url, transport))
    async with client:
        yield QueryApi(
            client,
            query.parameters,
            query.gate,
            retries=query.retries,
            pauses=query.pauses,
            now=query.now,
            workers=anyio.Semaphore(query.workers),
            threads=anyio.CapacityLimiter(os.cpu_count() or 1),
        )
