"""Downloads the lines of one request into a file, for `stream_events`."""

import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import IO

import httpx
from anyio import to_thread

from mixpanel_export._concurrency import in_task
from mixpanel_export._model import Chunk, Lines, Selection
from mixpanel_export._quota.gate import gate_for
from mixpanel_export._quota.limits import Quota
from mixpanel_export._source.client import new_client
from mixpanel_export._source.fetcher import Fetcher
from mixpanel_export._source.parameters import Timeouts, checked_names, parameters_for
from mixpanel_export.credentials import Credentials, resolve_credentials
from mixpanel_export.errors import AdvisoryWarning


async def download_events(
    days: Chunk,
    file: IO[bytes],
    *,
    credentials: Credentials | None = None,
    events: Iterable[str] | None = None,
    where: str | None = None,
    limit: int | None = None,
    retries: int = 5,
    max_wait: float = 86_400.0,
    api_url: str | None = None,
    timeouts: Timeouts | None = None,
    http2: bool = False,
    transport: httpx.AsyncBaseTransport | None = None,
    now: Callable[[], datetime] = lambda: datetime.now(UTC),
) -> None:
    """Request *days* once, and write the lines of the complete response to a seekable *file*.

    An empty response cannot be proven complete, so the days are requested again. A second empty response is accepted
    with a warning.

    Raises:
        ValueError, ConfigError: See `export_events`.
        APIError: All attempts failed, or another attempt cannot succeed.
    """
    names = checked_names(events)
    credentials = credentials or resolve_credentials()
    selection = Selection(credentials.project_id, names, where)
    parameters = parameters_for(credentials, selection, limit=limit, api_url=api_url, timeouts=timeouts)

    async def download() -> None:
        async with new_client(parameters.url, transport, http2=http2) as client:
            quota = Quota.resolved(max_wait=max_wait)
            gate = gate_for(quota, parameters.url, credentials.project_id, purpose="stream of events")
            fetcher = Fetcher(client, parameters, gate, workers=1, retries=retries, now=now)
            stats = await fetcher.fetch(days, _FileSink(file))
            if stats.empty_response:
                stats = await fetcher.fetch(days, _FileSink(file))
            if stats.empty_response:
                text = "treated as days without events, because both responses for these days were empty"
                warnings.warn(AdvisoryWarning(text, days=days), stacklevel=2)

    await in_task(download)


@dataclass(frozen=True, slots=True)
class _FileSink:
    file: IO[bytes]

    async def restart(self) -> None:
        self.file.seek(0)
        self.file.truncate()

    async def block(self, lines: Lines) -> None:
        await to_thread.run_sync(self.file.writelines, lines)
