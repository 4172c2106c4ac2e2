"""The fetching side of an export: one task for each chunk, from the first request to the chunk's verdict."""

import logging
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import anyio
from anyio.abc import ObjectSendStream
from anyio.lowlevel import checkpoint

from mixpanel_export._export.callbacks import Reporter
from mixpanel_export._export.empty_responses import MAX_REQUESTS, Run, second_requests
from mixpanel_export._export.tracker import Tracker
from mixpanel_export._export.write_tasks import WriteTasks
from mixpanel_export._model import (
    Batch,
    Block,
    Chunk,
    ChunkEnd,
    ChunkFailed,
    ChunkSplit,
    ChunkStart,
    Committed,
    Item,
    Lines,
    Malformed,
    Split,
    Unloadable,
    Verdict,
)
from mixpanel_export._planning.planner import Plan, split_in_two
from mixpanel_export._source.fetcher import ChunkStats, ChunkTooLargeError, Fetcher, is_final
from mixpanel_export.errors import APIError, DatabaseError, FutureDateError, MixpanelDataError, TruncatedError

_log = logging.getLogger("mixpanel_export")


@dataclass(frozen=True, slots=True)
class _StreamSink:
    start: ChunkStart
    send: ObjectSendStream[Item]

    async def restart(self) -> None:
        await self.send.send(self.start)

    async def block(self, lines: Lines) -> None:
        await self.send.send(Block(self.start.chunk, lines))


class _Discard:
    async def restart(self) -> None:
        pass

    async def block(self, lines: Lines) -> None:
        pass


class FetchTasks:
    """The tasks that fetch the chunks of a plan.

    *numbers* maps each planned chunk to its batch number. *batches* contains the selection's ledger rows. If *hourly_quota*
    is true, at most `MAX_REQUESTS` requests are used to request empty chunks again.

    If *max_chunks* is given, no more than that many chunks are requested or wait for their verdict at a time. If *in_order*
    is true, the destination takes chunks in date order. The chunks are then requested in that order, and an empty chunk is
    requested again as soon as later chunks wait for it.
    """

    def __init__(
        self,
        planned: Plan,
        fetcher: Fetcher,
        write_tasks: WriteTasks,
        tracker: Tracker,
        reporter: Reporter,
        *,
        numbers: Mapping[Chunk, int],
        batches: Sequence[Batch],
        path: Path,
        hourly_quota: bool,
        max_chunks: int | None = None,
        in_order: bool = False,
    ) -> None:
        self._planned = planned
        self._fetcher = fetcher
        self._write_tasks = write_tasks
        self._tracker = tracker
        self._reporter = reporter
        self._numbers = dict(numbers)
        self._batches = batches
        self._path = path
        self._second_requests = MAX_REQUESTS if hourly_quota else None
        self._slots = nullcontext() if max_chunks is None else anyio.Semaphore(max_chunks)
        self._in_order = in_order
        self._submitted = 0  # chunks that wait for their verdict
        self._changed = anyio.Event()

    async def run(self, send: ObjectSendStream[Item]) -> None:
        """Fetch and commit every chunk of the plan. At the end, request chunks again if their responses were empty."""
        planned = self._planned
        async with anyio.create_task_group() as tasks:
            if self._in_order:
                tasks.start_soon(self._request_empty_in_order, send)
            for chunk in sorted(planned.fetch_order) if self._in_order else planned.fetch_order:
                tasks.start_soon(self._export_in_slot, chunk, send)
                await checkpoint()  # trio starts simultaneous tasks in any order
            for chunk in planned.future:
                tasks.start_soon(self._give_up, chunk, _future_error(chunk), send)
        await self._request_empty(self._tracker.resume(), send)

    async def _request_empty_in_order(self, send: ObjectSendStream[Item]) -> None:
        """Request empty chunks again whenever they delay later chunks, until every chunk is decided."""
        while self._tracker.pending:
            is_delayed = self._submitted or not self._tracker.active_count
            if is_delayed and self._tracker.starts_with_postponed:
                await self._request_empty(self._tracker.resume_first(), send)
            else:
                await self._changed.wait()

    async def _request_empty(self, empty: Sequence[Chunk], send: ObjectSendStream[Item]) -> None:
        requests = second_requests(empty, self._second_requests)
        if self._second_requests is not None:
            self._second_requests -= len(requests.runs)
        async with anyio.create_task_group() as tasks:
            for run in requests.runs:
                tasks.start_soon(self._request_empty_again, run, send)
            for chunk in requests.skipped:
                tasks.start_soon(self._skip_empty, chunk, send)

    async def _export_in_slot(self, chunk: Chunk, send: ObjectSendStream[Item]) -> None:
        async with self._slots:
            await self._export(chunk, send)
        self._notify()

    def _notify(self) -> None:
        """Wake `_request_empty_in_order`."""
        self._changed.set()
        self._changed = anyio.Event()

    async def _export(self, chunk: Chunk, send: ObjectSendStream[Item], *, again: bool = False) -> None:
        """Fetch and commit the chunk, in pieces if it is too large. *again* is true if an earlier response was empty."""
        try:
            await self._fetch_until_committed(chunk, send, again=again)
        except ChunkTooLargeError:
            async with anyio.create_task_group() as tasks:
                for piece in await self._split(chunk, send):
                    tasks.start_soon(partial(self._export, again=again), piece, send)
        except (APIError, DatabaseError) as error:
            if is_final(error):
                raise
            await self._give_up(chunk, error, send)

    async def _fetch_until_committed(
        self, chunk: Chunk, send: ObjectSendStream[Item], *, again: bool
    ) -> None:
        splittable = split_in_two(chunk, self._batches) is not None
        keep_rejects = False
        while True:
            sink = _StreamSink(ChunkStart(chunk, self._numbers[chunk], keep_rejects), send)
            stats = await self._fetcher.fetch(chunk, sink, splittable=splittable)
            if stats.empty_response and not again:
                _log.info("%s: empty response; requesting the chunk again after the other chunks", chunk)
                self._tracker.postpone(chunk)
                self._write_tasks.reconsider()
                return
            match await self._finish_chunk(chunk, stats, send):
                case Malformed():
                    keep_rejects = True
                case Unloadable(_, reason, needed_memory):
                    advice = "$resume to try these days again"
                    if needed_memory is not None:
                        megabytes = round(needed_memory / 1e6)
                        advice = f"set MPX_MEMORY_LIMIT={megabytes}MB, then $resume to try these days again"
                    raise DatabaseError(reason, db_path=str(self._path), days=chunk, advice=advice)
                case _:
                    return

    async def _finish_chunk(
        self, chunk: Chunk, stats: ChunkStats, send: ObjectSendStream[Item]
    ) -> Verdict | None:
        """Submit the complete chunk and return the verdict on it."""
        end = ChunkEnd(chunk, stats.requested_at, stats.attempts, stats.bytes_read, stats.size, stats.times)
        self._submitted += 1
        self._notify()
        verdict = await self._write_tasks.submit(end, send, empty_response=stats.empty_response)
        self._submitted -= 1
        if isinstance(verdict, Committed):
            await self._report(chunk)
        return verdict

    async def _split(self, chunk: Chunk, send: ObjectSendStream[Item]) -> tuple[Chunk, ...]:
        pieces = split_in_two(chunk, self._batches) or ()
        verdict = await self._write_tasks.submit(ChunkSplit(chunk, pieces), send)
        if isinstance(verdict, Split):
            self._numbers.update(zip(pieces, verdict.batches, strict=True))
        self._tracker.record_split(chunk, pieces)
        return pieces

    async def _give_up(self, chunk: Chunk, error: MixpanelDataError, send: ObjectSendStream[Item]) -> None:
        stats = self._fetcher.stats_of(chunk)
        stats.size = 0
        failed = ChunkFailed(
            chunk,
            self._numbers[chunk],
            stats.requested_at,
            stats.attempts,
            stats.bytes_read,
            error.text(days=False),
            stats.times,
        )
        await self._write_tasks.submit(failed, send)
        self._tracker.record_failure(chunk, error)
        await self._report(chunk)

    async def _report(self, chunk: Chunk) -> None:
        batch = self._tracker.take_decided_batch(chunk)
        if batch is not None:
            await self._reporter.report_batch(batch)

    async def _request_empty_again(self, run: Run, send: ObjectSendStream[Item]) -> None:
        """Request a run of empty chunks again. Several chunks share one request.

        If the shared request fails or its response has events, each chunk is requested separately.
        """
        is_empty = len(run) > 1 and await self._request_all_at_once(Chunk(run[0].first, run[-1].last))
        async with anyio.create_task_group() as tasks:
            for chunk in run:
                if is_empty:
                    tasks.start_soon(self._commit_empty, chunk, send)
                else:
                    tasks.start_soon(partial(self._export, again=True), chunk, send)

    async def _request_all_at_once(self, days: Chunk) -> bool:
        """Request the *days* of a run in one request and return whether the response is empty again."""
        _log.info("%s: requesting these days again in one request, because their responses were empty", days)
        try:
            stats = await self._fetcher.fetch(days, _Discard())
        except APIError as error:
            if is_final(error):
                raise
            return False
        stats.size = 0
        return stats.empty_response

    async def _commit_empty(self, chunk: Chunk, send: ObjectSendStream[Item]) -> None:
        await send.send(ChunkStart(chunk, self._numbers[chunk]))
        await self._finish_chunk(chunk, self._fetcher.stats[chunk], send)

    async def _skip_empty(self, chunk: Chunk, send: ObjectSendStream[Item]) -> None:
        error = TruncatedError(
            "the response was empty, so the days may or may not have events, and all "
            f"{MAX_REQUESTS} requests for a second check were used for longer runs of empty days",
            days=chunk,
            advice="$resume to request them again",
            status_code=200,
        )
        await self._give_up(chunk, error, send)


def _future_error(chunk: Chunk) -> FutureDateError:
    return FutureDateError(
        "these days are in the future",
        days=chunk,
        advice="$resume when they have begun in the project's time zone",
    )
