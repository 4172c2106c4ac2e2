"""Calls the user's callbacks, one at a time, while an export runs."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from mixpanel_export._concurrency import SerialCalls
from mixpanel_export._export.tracker import Tracker
from mixpanel_export._model import Chunk
from mixpanel_export._quota.gate import Gate
from mixpanel_export._source.fetcher import ChunkStats
from mixpanel_export.results import BatchProgress, Progress


@dataclass(frozen=True, slots=True)
class Callbacks:
    """The user's callbacks; each may return an awaitable."""

    on_batch_complete: Callable[[BatchProgress], object] | None = None
    on_progress: Callable[[Progress], object] | None = None


class Reporter:
    """Calls the callbacks. If one raises an exception, the export fails with `CallbackError`, and no more are called.

    *staged_lines* returns the number of staged lines, which users see as rows while the export runs.
    """

    def __init__(
        self,
        callbacks: Callbacks,
        tracker: Tracker,
        stats: Mapping[Chunk, ChunkStats],
        gate: Gate,
        staged_lines: Callable[[], int],
    ) -> None:
        self._callbacks = callbacks
        self._tracker = tracker
        self._stats = stats
        self._gate = gate
        self._staged_lines = staged_lines
        self._calls = SerialCalls()

    async def report_batch(self, batch: Chunk) -> None:
        """Report a batch that is committed or has failed."""
        if self._callbacks.on_batch_complete is not None:
            await self._calls.call(self._callbacks.on_batch_complete, self._tracker.progress(batch))

    async def report_progress(self) -> None:
        """Report the progress whenever it changes, until cancelled."""
        if self._callbacks.on_progress is not None:
            await self._calls.call_on_change(self._callbacks.on_progress, self._progress)

    async def report_end(self) -> None:
        """Report the final progress."""
        if self._callbacks.on_progress is not None:
            await self._calls.call(self._callbacks.on_progress, self._progress())

    def _progress(self) -> Progress:
        chunks = self._stats.values()
        gate = self._gate.statistics()
        quota_opens_in = gate.reported_wait
        return Progress(
            batches=self._tracker.batches,
            batches_done=self._tracker.batches_done,
            batches_failed=self._tracker.batches_failed,
            rows=self._staged_lines(),
            bytes_read=sum(chunk.bytes_read for chunk in chunks),
            requests=gate.requests,
            retries=sum(max(0, chunk.attempts - 1) for chunk in chunks),
            quota_left=gate.remaining,
            quota_wait=math.ceil(self._gate.time_for(self._unrequested)),
            waiting_for=self._waiting_for() if quota_opens_in is None else "the quota",
            waiting_seconds=quota_opens_in,
        )

    @property
    def _unrequested(self) -> int:
        """The number of pending chunks that have not been requested yet."""
        requested = {chunk for chunk, stats in self._stats.items() if stats.attempts}
        return sum(chunk not in requested for chunk in self._tracker.pending)

    def _waiting_for(self) -> str | None:
        return next((chunk.waiting_for for chunk in self._stats.values() if chunk.waiting_for), None)
