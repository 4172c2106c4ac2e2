"""Calls the caller's callbacks while an export runs, one at a time."""

import inspect
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeVar

import anyio

from mixpanel_export._concurrency import CallbackError, call_back
from mixpanel_export._export.tracker import Tracker
from mixpanel_export._model import Chunk
from mixpanel_export._quota.gate import Gate, GateStatistics
from mixpanel_export._source.fetcher import ChunkStats
from mixpanel_export.results import BatchProgress, Progress

T = TypeVar("T")

_INTERVAL = 0.1  # minimum seconds between two calls of on_progress
_MIN_REPORTED_WAIT = 2.5  # seconds; shorter waits come from the per-second limit


@dataclass(frozen=True, slots=True)
class Callbacks:
    """The caller's callbacks; each may return an awaitable."""

    on_batch_complete: Callable[[BatchProgress], object] | None = None
    on_progress: Callable[[Progress], object] | None = None


class Reporter:
    """Calls the callbacks. If one raises an exception, the export fails with `CallbackError`, and no other is called.

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
        self._calling = anyio.Lock()
        self._raised = False

    async def report_batch(self, batch: Chunk) -> None:
        """Report a batch that is committed or has failed."""
        if self._callbacks.on_batch_complete is not None:
            await self._call(self._callbacks.on_batch_complete, self._tracker.progress(batch))

    async def report_progress(self) -> None:
        """Report each change in progress, until cancelled."""
        reported = None
        while self._callbacks.on_progress is not None:
            progress = self._progress()
            if progress != reported:
                await self._call(self._callbacks.on_progress, progress)
                reported = progress
            await anyio.sleep(_INTERVAL)

    async def report_end(self) -> None:
        """Report the final progress."""
        if self._callbacks.on_progress is not None:
            await self._call(self._callbacks.on_progress, self._progress())

    def _progress(self) -> Progress:
        chunks = self._stats.values()
        gate = self._gate.statistics()
        quota_opens_in = _quota_opens_in(gate)
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

    async def _call(self, callback: Callable[[T], object], value: T) -> None:
        async with self._calling:
            if self._raised:
                return  # the export is ending
            try:
                returned = call_back(callback, value)
                if inspect.isawaitable(returned):
                    await returned
            except anyio.get_cancelled_exc_class() as error:
                self._raised = True
                if anyio.get_current_task().has_pending_cancellation():
                    raise
                raise CallbackError(error) from error  # the callback awaited something that was cancelled
            except (Exception, KeyboardInterrupt, SystemExit) as error:
                self._raised = True
                raise CallbackError(error) from error


def _quota_opens_in(gate: GateStatistics) -> float | None:
    """Return the seconds until the quota allows the next request; None if the wait is too short to report."""
    if not gate.waiting or gate.next_slot_in <= _MIN_REPORTED_WAIT:
        return None
    return math.ceil(gate.next_slot_in)  # whole seconds, because each change is reported
