"""Fetches chunks. Limits the number of workers, waits for the quota, and retries failed attempts."""

import logging
import math
import os
from collections.abc import Callable
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Protocol

import anyio
import httpx

from mixpanel_export._model import Chunk, Lines, RequestTimes
from mixpanel_export._quota.gate import Gate, MaxWaitExceeded, SlotExpired
from mixpanel_export._quota.retry_policy import DEFAULT_PAUSES, History, Pauses, Wait, next_step
from mixpanel_export._source.parameters import RequestParameters
from mixpanel_export._source.request import fetch
from mixpanel_export._timezones import naive_utc
from mixpanel_export.errors import (
    APIError,
    AuthenticationError,
    FutureDateError,
    MixpanelDataError,
    QueryError,
    RateLimitError,
)

_log = logging.getLogger("mixpanel_export")

_LONG_WAIT = 120  # seconds; longer waits are shown in minutes
_MIN_REMAINING = 5  # requests that must be left this hour before a chunk may be split


class Sink(Protocol):
    """Receives the lines of one chunk."""

    async def restart(self) -> None:
        """Discard all lines. This is called before each attempt."""

    async def block(self, lines: Lines) -> None:
        """Receive whole lines."""


class ChunkTooLargeError(Exception):
    """The chunk should be fetched in two pieces."""


@dataclass(slots=True)
class ChunkStats:
    """The counters of a chunk, over all attempts so far."""

    requested_at: datetime
    """When the last request was sent."""
    attempts: int = 0
    bytes_read: int = 0
    """Bytes received on the wire."""
    size: int = 0
    """Bytes of lines in the latest attempt."""
    empty_response: bool = True
    """Whether the latest attempt received no bytes. An empty response cannot be proven complete."""
    waiting_for: str | None = None
    """The reason for the wait between two attempts; None if the chunk is not waiting."""
    times: RequestTimes = field(default_factory=RequestTimes)
    """The times of the last attempt."""


class Fetcher:
    """Fetches chunks and retries them according to the retry policy. All chunks share a worker limit and a gate."""

    def __init__(
        self,
        client: httpx.AsyncClient,
        parameters: RequestParameters,
        gate: Gate,
        *,
        workers: int,
        retries: int,
        pauses: Pauses = DEFAULT_PAUSES,
        now: Callable[[], datetime],
    ) -> None:
        self._client = client
        self._parameters = parameters
        self._gate = gate
        self._limiter = anyio.CapacityLimiter(workers)
        self._threads = anyio.CapacityLimiter(os.cpu_count() or 1)  # more threads than cores do not help
        self._retries = retries
        self._pauses = pauses
        self._now = now
        self.stats: dict[Chunk, ChunkStats] = {}

    def stats_of(self, chunk: Chunk) -> ChunkStats:
        """Return the chunk's counters."""
        return self.stats.setdefault(chunk, ChunkStats(self._now()))

    async def fetch(self, chunk: Chunk, sink: Sink, *, splittable: bool = False) -> ChunkStats:
        """Fetch the whole chunk into *sink*. The sink is restarted before each attempt.

        Raises:
            APIError: All attempts failed, another attempt cannot succeed, or the wait for the quota would exceed
                `max_wait`.
            ChunkTooLargeError: The chunk is *splittable*, and its pieces are more likely to succeed.
        """
        stats = self.stats_of(chunk)
        history = History()
        while True:
            try:
                async with self._limiter:
                    await self._attempt(chunk, stats, sink)
            except RateLimitError as error:  # the gate already pauses all callers
                _log.info("%s", error)
            except APIError as error:
                history = history.after(error)
                await self._handle_failure(error, history, stats, splittable=splittable)
            except SlotExpired:
                continue
            except MaxWaitExceeded as error:
                raise max_wait_error(chunk, error) from error
            else:
                return stats

    async def _handle_failure(
        self, error: APIError, history: History, stats: ChunkStats, *, splittable: bool
    ) -> None:
        """Wait, split the chunk or give up after a failed attempt, according to the retry policy."""
        step = next_step(
            history,
            retries=self._retries,
            splittable=splittable and self._may_split,
            pauses=self._pauses,
        )
        match step:
            case Wait(seconds) if seconds > max(self._pauses.longest, self._gate.statistics().max_wait_left):
                raise error  # the server requested the pause, so it is treated like a wait for the quota
            case Wait(seconds):
                _log.info("%s; next attempt in %.1f s", error.text(advice=False), seconds)
                stats.waiting_for = f"a retry ({error.text(days=False, advice=False)})"
                await anyio.sleep(seconds)
                stats.waiting_for = None
            case "split":
                _log.info("%s; splitting the chunk in two", error.text(advice=False))
                stats.size = 0
                raise ChunkTooLargeError from error
            case "give up":
                raise error

    @property
    def _may_split(self) -> bool:
        """Whether a chunk may be split: there is no `limit`, and enough requests are left this hour.

        With a `limit`, each piece would return up to that many events.
        """
        remaining = self._gate.statistics().remaining
        return self._parameters.limit is None and (remaining is None or remaining >= _MIN_REMAINING)

    async def _attempt(self, chunk: Chunk, stats: ChunkStats, sink: Sink) -> None:
        def on_bytes(size: int) -> None:
            if stats.empty_response:
                stats.times = replace(stats.times, first_byte_at=self._naive_now())
            stats.bytes_read += size
            stats.empty_response = False

        stats.times = RequestTimes(queued_at=self._naive_now())
        async with self._gate.admission() as admission:
            stats.times = replace(stats.times, connecting_at=self._naive_now())

            async def admit() -> None:
                stats.times = replace(stats.times, connected_at=self._naive_now())
                await admission.admit()
                stats.requested_at = self._now()
                stats.attempts += 1
                _log.debug("%s: attempt %d", chunk, stats.attempts)

            await sink.restart()
            stats.size, stats.empty_response = 0, True
            response = fetch(
                self._client,
                self._parameters,
                chunk,
                admit=admit,
                on_bytes=on_bytes,
                threads=self._threads,
                now=self._now,
            )
            async with aclosing(response) as blocks:
                async for lines in blocks:
                    stats.size += sum(map(len, lines))
                    await sink.block(lines)
            stats.times = replace(stats.times, received_at=self._naive_now())

    def _naive_now(self) -> datetime:
        return naive_utc(self._now())


def is_final(error: MixpanelDataError) -> bool:
    """Whether the error affects the whole export, so that no other chunk can succeed either."""
    return isinstance(error, AuthenticationError | QueryError) and not isinstance(error, FutureDateError)


def max_wait_error(chunk: Chunk | None, error: MaxWaitExceeded) -> RateLimitError:
    """Return the error for a request that the quota would delay too long."""
    seconds = math.ceil(error.seconds)
    wait = f"{seconds} s" if seconds < _LONG_WAIT else f"{seconds / 60:.0f} min"
    return RateLimitError(
        f"the quota allows no request for another {wait}, which exceeds the maximum wait",
        days=chunk,
        advice="try again later, or raise $max_wait",
        argument="max_wait",
        status_code=None,
        retry_after=error.seconds,
    )
