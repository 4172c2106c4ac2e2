"""One export while it runs: chunks are fetched in parallel and written by one task.

Who owns what: each fetch task holds a clone of the sending end and closes it; the writer task holds the
receiving end, so the stream ends when the last fetch task does. Staging runs in the order of the stream. Beside
it complete chunks are examined, one at a time, in a worker thread, and beside that the sound ones are inserted, and
committed in groups, in another. A fetch task waits for the writer's verdict without a place in the limiter.

What cancellation may interrupt: anything. A statement that runs is interrupted and its transaction rolls
back; the thread is waited for, so nothing is left behind.
"""

import logging
import warnings
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial

import anyio
from anyio import to_thread
from anyio.abc import ObjectReceiveStream, ObjectSendStream
from anyio.lowlevel import checkpoint

from mixpanel_export._concurrency import Bell, first_error_alone, in_thread
from mixpanel_export._database.settings import ROW_GROUP
from mixpanel_export._export.callbacks import Callbacks, Reports
from mixpanel_export._export.empty_answers import SecondLook
from mixpanel_export._export.tracker import Outcome
from mixpanel_export._model import (
    Block,
    Chunk,
    ChunkEnd,
    ChunkFailed,
    ChunkSplit,
    ChunkStart,
    Committed,
    Item,
    Refused,
    Rejected,
    Verdict,
)
from mixpanel_export._planning.planner import Held, Plan, halves
from mixpanel_export._quota.gate import Gate
from mixpanel_export._source.fetcher import ChunkStats, ChunkTooLargeError, Fetcher, is_final
from mixpanel_export._writer.load import Ready
from mixpanel_export._writer.staging import Staged, Staging
from mixpanel_export._writer.table import Store, Totals
from mixpanel_export.errors import APIError, DatabaseError, MixpanelDataError
from mixpanel_export.results import ParallelFetchResult

_log = logging.getLogger("mixpanel_export")

_GROUP_ROWS, _GROUP_BYTES = 4 * ROW_GROUP, 384 << 20  # rows, or staged bytes, that are enough for a commit
_WAITING_BYTES = 384 << 20  # complete chunks beyond this make the stream wait until some are inserted
_LINGER = 0.5  # seconds that a commit waits for another chunk
_LONGEST_LINGER = 4.0  # seconds in which it takes chunks in


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
        held: Sequence[Held],
        now: Callable[[], datetime],
        callbacks: Callbacks,
    ) -> None:
        self._planned = planned
        self._store = store
        self._staging = staging
        self._fetcher = fetcher
        self._now = now
        self._staged: deque[Staged] = deque()
        self._ready: deque[Ready] = deque()
        self._examined_all = False
        self._dropped: deque[ChunkFailed | ChunkSplit] = deque()
        self._received_all = False
        self._bell = Bell()
        self._replies: dict[Chunk, _Reply] = {}
        self._held = held
        self._outcome = Outcome(planned, held)
        self._second_look = SecondLook(self._outcome, fetcher, self._bell)
        self._reports = Reports(callbacks, self._outcome, fetcher.stats, gate)
        self._undecided = len(planned.chunks)
        self._warned = False

    async def run(self) -> None:
        """Fetch and commit every chunk of the plan."""
        with first_error_alone():
            async with anyio.create_task_group() as reporting:
                reporting.start_soon(self._reports.keep_coming)
                await self._move()
                reporting.cancel_scope.cancel()
            await self._reports.send_last()

    async def _move(self) -> None:
        send, receive = anyio.create_memory_object_stream[Item](max_buffer_size=4)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._write, receive)
            async with send:
                for chunk in self._planned.fetch_order:
                    tasks.start_soon(self._fetch, chunk, send.clone())
                    await checkpoint()  # trio begins what is started at one moment in any order

    async def _fetch(self, batch: Chunk, send: ObjectSendStream[Item]) -> None:
        async with send:
            await self._bring(batch, send)
        await self._reports.tell_of(batch)

    async def _bring(self, chunk: Chunk, send: ObjectSendStream[Item]) -> None:
        """Fetch and commit the chunk, in pieces where that helps; the books then say what became of it."""
        try:
            await self._fetch_until_committed(chunk, send)
        except ChunkTooLargeError:
            async with anyio.create_task_group() as tasks:
                for piece in await self._split(chunk, send):
                    tasks.start_soon(self._bring, piece, send)
        except (APIError, DatabaseError) as error:
            if is_final(error):
                raise
            await self._give_up(chunk, error, send)

    async def _fetch_until_committed(self, chunk: Chunk, send: ObjectSendStream[Item]) -> None:
        verdict: Verdict | None = None
        while not isinstance(verdict, Committed):
            if isinstance(verdict, Refused):
                raise DatabaseError(verdict.reason, db_path=str(self._store.path))
            again = isinstance(verdict, Rejected)
            stats = await self._fetch_whole(chunk, _StreamSink(chunk, send, keep_rejects=again))
            end = ChunkEnd(chunk, stats.requested_at, stats.attempts, stats.bytes_read, stats.rows)
            verdict = await self._hand_over(end, send)
        self._outcome.commit(verdict)
        self._bell.ring()

    async def _fetch_whole(self, chunk: Chunk, sink: _StreamSink) -> ChunkStats:
        """Fetch the chunk, and once more where its answer is too empty to be believed."""
        splittable = halves(chunk, self._held) is not None
        stats = await self._fetcher.fetch(chunk, sink, splittable=splittable)
        if await self._second_look.wanted(chunk, stats):
            _log.info("%s: fetched once more, as it came empty where there should be events", chunk)
            stats = await self._fetcher.fetch(chunk, sink, splittable=splittable)
        return stats

    async def _split(self, chunk: Chunk, send: ObjectSendStream[Item]) -> tuple[Chunk, ...]:
        pieces = halves(chunk, self._held) or ()
        self._undecided += len(pieces)
        await self._hand_over(ChunkSplit(chunk, pieces), send)
        self._outcome.split(chunk, pieces)
        return pieces

    async def _give_up(self, chunk: Chunk, error: MixpanelDataError, send: ObjectSendStream[Item]) -> None:
        stats = self._fetcher.stats[chunk]
        stats.rows = 0
        await self._hand_over(
            ChunkFailed(chunk, stats.requested_at, stats.attempts, error.text(days=False)), send
        )
        self._outcome.fail(chunk, error)
        self._bell.ring()

    async def _hand_over(
        self, item: ChunkEnd | ChunkFailed | ChunkSplit, send: ObjectSendStream[Item]
    ) -> Verdict | None:
        reply = self._replies[item.chunk] = _Reply()
        await send.send(item)
        await reply.arrived.wait()
        return reply.verdict

    async def _write(self, receive: ObjectReceiveStream[Item]) -> None:
        async with receive, anyio.create_task_group() as tasks:
            tasks.start_soon(self._examine_staged)
            tasks.start_soon(self._commit_ready)
            async for item in receive:
                await self._stage(item)
            self._received_all = True
            self._bell.ring()

    async def _stage(self, item: Item) -> None:
        match item:
            case ChunkStart():
                await to_thread.run_sync(self._staging.start, item)
            case Block():
                if not self._staging.keep(item):
                    await to_thread.run_sync(self._staging.add, item)
            case ChunkEnd():
                self._staged.append(await to_thread.run_sync(self._staging.end, item))
                self._bell.ring()
            case ChunkFailed() | ChunkSplit():
                await to_thread.run_sync(self._staging.drop, item.chunk)
                self._dropped.append(item)
                self._bell.ring()
        while self._waiting_bytes() > _WAITING_BYTES:
            await self._bell.wait()

    def _waiting_bytes(self) -> int:
        waiting = (*self._staged, *(ready.staged for ready in self._ready))
        return sum(staged.size for staged in waiting)

    async def _examine_staged(self) -> None:
        while await self._anything_staged():
            examine = partial(self._store.examiner.examine, self._staged.popleft(), self._staging)
            examined = await in_thread(examine, self._store.examiner.interrupt)
            if isinstance(examined, Ready):
                self._ready.append(examined)
                self._bell.ring()
            else:
                self._answer(examined.chunk, examined)
            self._warn_of_skew()
        self._examined_all = True
        self._bell.ring()

    async def _anything_staged(self) -> bool:
        while not self._staged:
            if self._received_all:
                return False
            await self._bell.wait()
        return True

    async def _commit_ready(self) -> None:
        while await self._anything_ready():
            while self._dropped:
                dropped = self._dropped.popleft()
                await in_thread(partial(self._note, dropped), self._store.interrupt)
                self._answer(dropped.chunk, None)
            if self._ready:
                await self._insert_ready()
                commit = partial(self._store.commit, self._staging, self._now)
                for verdict in await in_thread(commit, self._store.interrupt):
                    self._answer(verdict.chunk, verdict)

    async def _insert_ready(self) -> None:
        """Insert what is ready, and what becomes ready meanwhile, until it is enough for a commit, or others take long."""
        chunks = rows = size = 0
        at_last = anyio.current_time() + _LONGEST_LINGER
        while self._ready:
            ready = self._ready.popleft()
            self._bell.ring()
            await in_thread(partial(self._store.insert, ready, self._staging), self._store.interrupt)
            chunks, rows, size = chunks + 1, rows + ready.loaded.rows, size + ready.staged.size
            now = anyio.current_time()
            if rows >= _GROUP_ROWS or size >= _GROUP_BYTES or now >= at_last:
                return
            with anyio.CancelScope(deadline=min(at_last, now + _LINGER)):
                while not self._ready and chunks < self._undecided and not self._dropped:
                    await self._bell.wait()
            if self._dropped:
                return

    def _note(self, dropped: ChunkFailed | ChunkSplit) -> None:
        """Let the ledger know what will not come; runs in a worker thread."""
        match dropped:
            case ChunkFailed():
                self._store.fail(dropped, self._now())
            case ChunkSplit():
                self._store.batches_for(dropped.pieces)

    async def _anything_ready(self) -> bool:
        while not self._ready and not self._dropped:
            if self._examined_all:
                return False
            await self._bell.wait()
        return True

    def _answer(self, chunk: Chunk, verdict: Verdict | None) -> None:
        _log.info("%s: %s", chunk, _in_words(verdict))
        if not isinstance(verdict, Rejected | Refused):  # something else will follow
            self._undecided -= 1
        reply = self._replies.pop(chunk)
        reply.verdict = verdict
        reply.arrived.set()
        self._bell.ring()

    def _warn_of_skew(self) -> None:
        """Tell, once, that the times of events look like local ones."""
        if self._store.examiner.offset is not None and not self._warned:
            self._warned = True
            warnings.warn(
                f"most events look {self._store.examiner.offset:+g} hours off UTC, as in projects created before 2023, whose "
                "times are local; if this is one, pass project_timezone (such as US/Pacific) and replace the table",
                stacklevel=2,
            )

    def result(self, table: str, totals: Totals, seconds: float) -> ParallelFetchResult:
        """Return what the export did."""
        return self._outcome.result(
            table, totals.growth, totals.removed_duplicates, seconds=seconds, now=self._now()
        )

    @property
    def whole(self) -> bool:
        """Whether no chunk was given up."""
        return not self._outcome.errors


def _in_words(verdict: Verdict | None) -> str:
    match verdict:
        case Committed():
            return f"{verdict.rows} rows committed, {verdict.removed_duplicates} duplicates removed"
        case Rejected():
            return f"fetched once more, as {verdict.lines} of its lines are no events"
        case Refused():
            return verdict.reason
        case None:
            return "given up, or split"
