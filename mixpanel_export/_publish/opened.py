"""Opens the database of a publication."""

from contextlib import AsyncExitStack
from pathlib import Path

import anyio

from mixpanel_export._concurrency import entered_in_thread
from mixpanel_export._database.connection import Connection, connected_for_export
from mixpanel_export.errors import DatabaseLockedError, ExportRunningError

_RETRY_INTERVAL = 0.2  # seconds between attempts to open a file that another process holds


async def opened(stack: AsyncExitStack, path: Path, wait: float) -> Connection:
    """Open the file. While another export or process uses it, keep retrying for up to *wait* seconds."""
    end = anyio.current_time() + wait
    while True:
        try:
            return await stack.enter_async_context(entered_in_thread(connected_for_export(path)))
        except (ExportRunningError, DatabaseLockedError):
            left = end - anyio.current_time()
            if left <= 0:
                raise
            await anyio.sleep(min(_RETRY_INTERVAL, left))
