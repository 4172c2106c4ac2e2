"""Opens the database file for an export, and waits while another export or process uses it."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import anyio

from mixpanel_export._concurrency import entered_in_thread
from mixpanel_export._database.connection import Connection, connected_for_export
from mixpanel_export.errors import DatabaseLockedError, ExportRunningError

_RETRY_INTERVAL = 0.2  # seconds between attempts to open a file that is in use


@asynccontextmanager
async def connected_when_free(path: Path, wait: float) -> AsyncIterator[Connection]:
    """Open the file as `connected_for_export` does. While the file is in use, try again for up to *wait* seconds."""
    end = anyio.current_time() + wait
    async with AsyncExitStack() as stack:
        while True:
            try:
                connection = await stack.enter_async_context(entered_in_thread(connected_for_export(path)))
                break
            except (ExportRunningError, DatabaseLockedError):
                left = end - anyio.current_time()
                if left <= 0:
                    raise
                await anyio.sleep(min(_RETRY_INTERVAL, left))
        yield connection
