"""One chunk, as many attempts as it takes: the limiter, the gate, the pause, and when to give up."""

import logging
from collections.abc import Callable
from contextlib import aclosing
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

import anyio
import httpx

from mixpanel_export._fetch import Query, fetch
from mixpanel_export._limits import Gate, pause_before_retry
from mixpanel_export._stream import Chunk
from mixpanel_export.errors import (
    APIError,
    AuthenticationError,
    FutureDateError,
    MixpanelDataError,
    QueryError,
    RateLimitError,
)

_log = logging.getLogger("mixpanel_export")


class Sink(Protocol):
    """Where the lines of one chunk go."""

    async def restart(self) -> None:
        """Begin from nothing; called before each attempt."""

    async def block(self, lines: bytes) -> None:
        """Take whole lines."""


@dataclass(slots=True)
class ChunkStats:
    """What one chunk has cost so far; `rows` and `silent` are of the attempt that runs or succeeded.

    `silent` says that not a byte has come: an answer without a body, which nothing proves whole.
    """

    requested_at: datetime
    attempts: int = 0
    bytes_read: int = 0
    rows: int = 0
    silent: bool = True
    waiting_for: str | None = None


class Fetcher:
    """Fetches chunks with patience, all under one limiter and one gate."""

    def __init__(
        self,
        client: httpx.AsyncClient,
        query: Query,
        gate: Gate,
        *,
        workers: int,
        retries: int,
        now: Callable[[], datetime],
    ) -> None:
        self._client = client
        self._query = query
        self._gate = gate
        self._limiter = anyio.CapacityLimiter(workers)
        self._retries = retries
        self._now = now
        self.stats: dict[Chunk, ChunkStats] = {}

    async def fetch(self, chunk: Chunk, sink: Sink) -> ChunkStats:
        """Bring the whole chunk into *sink*, restarting it as often as it takes.

        Raises:
            APIError: The attempts are spent, or trying again cannot help (see `is_final`).
        """
        stats = self.stats.setdefault(chunk, ChunkStats(self._now()))
        failures = refused = 0
        while True:
            try:
                async with self._limiter:
                    await self._attempt(chunk, stats, sink)
            except APIError as error:
                limited = isinstance(error, RateLimitError)
                refused, failures = refused + limited, failures + (not limited)
                pause = pause_before_retry(error, refused if limited else failures, retries=self._retries)
                if pause is None:
                    raise
                _log.info("%s; again in %.1f s", error, pause)
                await self._wait(stats, pause, error)
            else:
                return stats

    async def _attempt(self, chunk: Chunk, stats: ChunkStats, sink: Sink) -> None:
        ticket: float | None = None

        async def admit() -> None:
            nonlocal ticket
            ticket = await self._gate.admit()
            stats.requested_at = self._now()
            stats.attempts += 1
            _log.debug("%s: attempt %d", chunk, stats.attempts)

        def received(size: int) -> None:
            stats.bytes_read += size
            stats.silent = False

        await self._gate.approach()
        await sink.restart()
        stats.rows, stats.silent = 0, True
        try:
            async with aclosing(
                fetch(self._client, self._query, chunk, admit=admit, received=received, now=self._now)
            ) as blocks:
                async for block in blocks:
                    stats.rows += block.count(b"\n")
                    await sink.block(block)
        except (AuthenticationError, RateLimitError):
            if ticket is not None:
                self._gate.refund(ticket)
            raise

    async def _wait(self, stats: ChunkStats, pause: float, error: APIError) -> None:
        if isinstance(error, RateLimitError):
            self._gate.pause(pause)  # the quota is the project's, so every fetcher waits
            return
        stats.waiting_for = f"a new attempt after: {error}"
        await anyio.sleep(pause)
        stats.waiting_for = None


def is_final(error: MixpanelDataError) -> bool:
    """Whether the error concerns the whole export, so that no other chunk can succeed either."""
    return isinstance(error, AuthenticationError | QueryError) and not isinstance(error, FutureDateError)
