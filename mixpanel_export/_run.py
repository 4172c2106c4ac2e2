"""One export while it runs: chunks are fetched in parallel and written by one task.

Who owns what: each fetch task holds a clone of the sending end and closes it; the writer task holds the
receiving end, so the stream ends when the last fetch task does. Staging runs in the order of the stream.
Commits run beside it, one at a time, in a worker thread; only they touch the database. A fetch task waits for
the writer's verdict without a place in the limiter.

What cancellation may interrupt: anything. A statement that runs is interrupted and its transaction rolls
back; the thread is waited for, so nothing is left behind.
"""

import inspect
import logging
import warnings
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from typing import TypeVar

import anyio
from anyio import to_thread
from anyio.abc import ObjectReceiveStream, ObjectSendStream

from mixpanel_export._attempts import ChunkStats, Fetcher, is_final
from mixpanel_export._limits import Gate
from mixpanel_export._plan import Plan, fetch_order
from mixpanel_export._staging import Staged, Staging
from mixpanel_export._store import Store, Totals
from mixpanel_export._stream import (
    Block,
    Chunk,
    ChunkEnd,
    ChunkFailed,
    ChunkStart,
    Committed,
    Item,
    Refused,
    Rejected,
    Verdict,
)
from mixpanel_export._tasks import CallbackError, first_error_alone, in_thread
from mixpanel_export.errors import APIError, DatabaseError, MixpanelDataError
from mixpanel_export.results import BatchProgress, ParallelFetchResult, Progress

T = TypeVar("T")

_log = logging.getLogger("mixpanel_export")

_ROW_GROUP = 122_880  # DuckDB's; a commit of less compresses worse
_GROUP_BYTES = 256 << 20  # staged bytes that one commit takes at the most, to bound its memory
_WAITING_BYTES = 512 << 20  # complete chunks beyond this make the stream wait for the commit
_LINGER = 0.5  # seconds that a small complete chunk waits for company
_REPORT_EVERY = 0.1  # seconds between two calls of on_progress
_PACE = 2.5  # seconds; so few requests may begin in a second that shorter pauses are no news
_LONG_WAIT = 120  # seconds; longer ones are told in minutes


@dataclass(frozen=True, slots=True)
class Callbacks:
    """What the caller wants to be told; each may return an awaitable."""

    on_batch_complete: Callable[[BatchProgress], object] | None = None
    on_progress: Callable[[Progress], object] | None = None


@dataclass(frozen=True, slots=True)
class _StreamSink:
    chunk: Chunk
    send: ObjectSendStream[Item]
    keep_rejects: bool

    async def restart(self) -> None:
        await self.send.send(ChunkStart(self.chunk, self.keep_rejects))

    async def block(self, lines: bytes) -> None:
        await self.send.send(Block(self.chunk, lines))


@dataclass(slots=True)
class _Reply:
    """Where a fetch task waits for what became of its chunk; None means that its failure is in the ledger."""

    arrived: anyio.Event = field(default_factory=anyio.Event)
    verdict: Verdict | None = None


class Running:
    """One run: the stream, the two sides of it, and the totals."""

    def __init__(
        self,
        planned: Plan,
        store: Store,
        staging: Staging,
        fetcher: Fetcher,
        gate: Gate,
        *,
        with_events: Iterable[Chunk],
        now: Callable[[], datetime],
        callbacks: Callbacks,
    ) -> None:
        self._planned = planned
        self._store = store
        self._staging = staging
        self._fetcher = fetcher
        self._gate = gate
        self._now = now
        self._on_batch_complete = callbacks.on_batch_complete
        self._on_progress = callbacks.on_progress
        self._calling_back = anyio.Lock()
        self._staged: deque[Staged] = deque()
        self._failed: deque[ChunkFailed] = deque()
        self._received_all = False
        self._changed = anyio.Event()
        self._replies: dict[Chunk, _Reply] = {}
        self._undecided = len(planned.chunks)
        self._with_events = set(with_events)
        self._silent: set[Chunk] = set()
        self._warned = False
        self._committed: dict[Chunk, Committed] = {}
        self.errors: dict[Chunk, MixpanelDataError] = {}

    async def run(self) -> None:
        """Fetch and commit every chunk of the plan."""
        with first_error_alone():
            async with anyio.create_task_group() as reporting:
                if self._on_progress is not None:
                    reporting.start_soon(self._report, self._on_progress)
                await self._move()
                reporting.cancel_scope.cancel()
            if self._on_progress is not None:
                await self._call_back(self._on_progress, self._progress())

    async def _move(self) -> None:
        send, receive = anyio.create_memory_object_stream[Item](max_buffer_size=4)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._write, receive)
            async with send:
                for chunk in fetch_order(self._planned.chunks):
                    tasks.start_soon(self._fetch, chunk, send.clone())

    async def _fetch(self, chunk: Chunk, send: ObjectSendStream[Item]) -> None:
        async with send:
            try:
                await self._fetch_until_committed(chunk, send)
            except (APIError, DatabaseError) as error:
                if is_final(error):
                    raise
                await self._give_up(chunk, error, send)
        await self._tell(chunk)

    async def _fetch_until_committed(self, chunk: Chunk, send: ObjectSendStream[Item]) -> None:
        verdict: Verdict | None = None
        while not isinstance(verdict, Committed):
            if isinstance(verdict, Refused):
                raise DatabaseError(verdict.reason, db_path=str(self._store.path))
            again = isinstance(verdict, Rejected)
            stats = await self._fetch_whole(chunk, _StreamSink(chunk, send, keep_rejects=again))
            end = ChunkEnd(chunk, stats.requested_at, stats.attempts, stats.bytes_read, stats.rows)
            verdict = await self._hand_over(end, send)
        self._committed[chunk] = verdict
        if verdict.rows:
            self._with_events.add(chunk)
        self._wake()

    async def _fetch_whole(self, chunk: Chunk, sink: _StreamSink) -> ChunkStats:
        """Fetch the chunk; where days around it have events, an answer without a body is not believed at once."""
        stats = await self._fetcher.fetch(chunk, sink)
        if stats.silent and await self._lies_between_events(chunk):
            _log.info("%s: fetched once more, as it came empty between days with events", chunk)
            stats = await self._fetcher.fetch(chunk, sink)
        return stats

    async def _lies_between_events(self, chunk: Chunk) -> bool:
        """Whether days before and days after the chunk have events, as soon as that is known."""
        self._silent.add(chunk)
        self._wake()
        try:
            while len(self._committed) + len(self.errors) + len(self._silent) < len(self._planned.chunks):
                if self._has_events_around(chunk):
                    break
                await self._changed.wait()
            return self._has_events_around(chunk)
        finally:
            self._silent.remove(chunk)

    def _has_events_around(self, chunk: Chunk) -> bool:
        before = any(days.last < chunk.first for days in self._with_events)
        return before and any(days.first > chunk.last for days in self._with_events)

    async def _give_up(self, chunk: Chunk, error: MixpanelDataError, send: ObjectSendStream[Item]) -> None:
        stats = self._fetcher.stats[chunk]
        stats.rows = 0
        await self._hand_over(ChunkFailed(chunk, stats.requested_at, stats.attempts, str(error)), send)
        self.errors[chunk] = error
        self._wake()

    async def _hand_over(self, item: ChunkEnd | ChunkFailed, send: ObjectSendStream[Item]) -> Verdict | None:
        reply = self._replies[item.chunk] = _Reply()
        await send.send(item)
        await reply.arrived.wait()
        return reply.verdict

    async def _tell(self, chunk: Chunk) -> None:
        if self._on_batch_complete is None:
            return
        error = self.errors.get(chunk)
        batch = BatchProgress(
            from_date=str(chunk.first),
            to_date=str(chunk.last),
            batch_index=self._planned.chunks.index(chunk),
            total_batches=len(self._planned.chunks),
            rows=0 if error else self._committed[chunk].rows,
            success=error is None,
            error=str(error) if error else None,
        )
        await self._call_back(self._on_batch_complete, batch)

    async def _write(self, receive: ObjectReceiveStream[Item]) -> None:
        async with receive, anyio.create_task_group() as tasks:
            tasks.start_soon(self._commit_ready)
            async for item in receive:
                await self._stage(item)
            self._received_all = True
            self._wake()

    async def _stage(self, item: Item) -> None:
        match item:
            case ChunkStart():
                await to_thread.run_sync(self._staging.start, item)
            case Block():
                await to_thread.run_sync(self._staging.add, item)
            case ChunkEnd():
                self._staged.append(await to_thread.run_sync(self._staging.end, item))
                self._wake()
            case ChunkFailed():
                await to_thread.run_sync(self._staging.drop, item.chunk)
                self._failed.append(item)
                self._wake()
        while sum(staged.size for staged in self._staged) > _WAITING_BYTES:
            await self._changed.wait()

    def _wake(self) -> None:
        self._changed.set()
        self._changed = anyio.Event()

    async def _commit_ready(self) -> None:
        while await self._anything_ready():
            while self._failed:
                failed = self._failed.popleft()
                await in_thread(partial(self._store.fail, failed, self._now()), self._store.interrupt)
                self._answer(failed.chunk, None)
            group = self._next_group()
            if group:
                commit = partial(self._store.commit, group, self._staging, self._now)
                for verdict in await in_thread(commit, self._store.interrupt):
                    self._answer(verdict.chunk, verdict)
                self._warn_of_skew()

    async def _anything_ready(self) -> bool:
        """Wait for decided chunks, and a little for company, so that one commit carries a row group."""
        while not self._staged and not self._failed:
            if self._received_all:
                return False
            await self._changed.wait()
        with anyio.move_on_after(_LINGER):
            while self._worth_waiting():
                await self._changed.wait()
        return True

    def _worth_waiting(self) -> bool:
        others_to_come = len(self._staged) + len(self._failed) < self._undecided
        return others_to_come and sum(staged.lines for staged in self._staged) < _ROW_GROUP

    def _next_group(self) -> list[Staged]:
        """Take as many chunks as one commit should carry, at least one if there is one."""
        group: list[Staged] = []
        size = 0
        while self._staged and (not group or size + self._staged[0].size <= _GROUP_BYTES):
            group.append(self._staged.popleft())
            size += group[-1].size
        return group

    def _answer(self, chunk: Chunk, verdict: Verdict | None) -> None:
        _log.info("%s: %s", chunk, _in_words(verdict))
        if not isinstance(verdict, Rejected):
            self._undecided -= 1
        reply = self._replies.pop(chunk)
        reply.verdict = verdict
        reply.arrived.set()
        self._wake()

    def _warn_of_skew(self) -> None:
        """Tell, once, that the times of events look like local ones."""
        if self._store.skew and not self._warned:
            self._warned = True
            hours = -self._store.skew / 3600
            warnings.warn(
                f"most events look {hours:+g} hours off UTC, as in projects created before 2023, whose times are "
                "local; if this is one, pass project_timezone (such as US/Pacific) and replace the table",
                stacklevel=2,
            )

    async def _report(self, on_progress: Callable[[Progress], object]) -> None:
        shown = None
        while True:
            progress = self._progress()
            if progress != shown:
                await self._call_back(on_progress, progress)
                shown = progress
            await anyio.sleep(_REPORT_EVERY)

    def _progress(self) -> Progress:
        chunks = self._fetcher.stats.values()
        return Progress(
            batches=len(self._planned.chunks),
            batches_done=len(self._committed),
            batches_failed=len(self.errors),
            rows=sum(chunk.rows for chunk in chunks),
            bytes_read=sum(chunk.bytes_read for chunk in chunks),
            requests=self._gate.requests,
            retries=sum(max(0, chunk.attempts - 1) for chunk in chunks),
            quota_left=self._gate.remaining,
            waiting_for=self._waiting_for(chunks),
        )

    def _waiting_for(self, chunks: Iterable[ChunkStats]) -> str | None:
        wait = self._gate.wait if self._undecided else 0
        if wait > _PACE:
            return f"the quota, {wait:.0f} s" if wait < _LONG_WAIT else f"the quota, {wait / 60:.0f} min"
        return next((chunk.waiting_for for chunk in chunks if chunk.waiting_for), None)

    async def _call_back(self, callback: Callable[[T], object], value: T) -> None:
        async with self._calling_back:
            try:
                returned = callback(value)
                if inspect.isawaitable(returned):
                    await returned
            except anyio.get_cancelled_exc_class() as error:
                if anyio.get_current_task().has_pending_cancellation():
                    raise
                raise CallbackError(error) from error  # something that the callback waited for was cancelled
            except (Exception, KeyboardInterrupt, SystemExit) as error:
                raise CallbackError(error) from error

    def result(self, table: str, totals: Totals, seconds: float) -> ParallelFetchResult:
        """Return what the export did."""
        failed = sorted(self.errors)
        done = self._committed.values()
        return ParallelFetchResult(
            table=table,
            total_rows=totals.growth,
            successful_batches=len(done),
            failed_batches=len(failed),
            failed_date_ranges=tuple((str(chunk.first), str(chunk.last)) for chunk in failed),
            duration_seconds=seconds,
            fetched_at=self._now(),
            added_date_ranges=tuple((str(days.first), str(days.last)) for days in self._planned.added),
            errors=tuple(self.errors[chunk] for chunk in failed),
            removed_duplicates=totals.removed_duplicates,
            rejects=sum(batch.rejects for batch in done),
            repaired=sum(batch.repaired for batch in done),
        )


def _in_words(verdict: Verdict | None) -> str:
    match verdict:
        case Committed():
            return f"{verdict.rows} rows committed, {verdict.removed_duplicates} duplicates removed"
        case Rejected():
            return f"fetched once more, as {verdict.lines} of its lines are no events"
        case Refused():
            return verdict.reason
        case None:
            return "given up"
