"""The writing side of an export: tasks that stage, validate and commit chunks.

::

    items ──▶ stage ──staged──▶ validate ──ready──▶ commit

A channel ends when its last sender closes it, so these tasks end one after the other.
"""

import logging
import math
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial

import anyio
from anyio import to_thread
from anyio.abc import ObjectReceiveStream, ObjectSendStream, TaskGroup

from mixpanel_export._concurrency import in_thread
from mixpanel_export._export.tracker import Tracker
from mixpanel_export._export.tuning import Tuning
from mixpanel_export._model import (
    Block,
    Chunk,
    ChunkEnd,
    ChunkFailed,
    ChunkSplit,
    ChunkStart,
    Failed,
    Item,
    Split,
    Verdict,
)
from mixpanel_export._writer.load import ValidatedChunk
from mixpanel_export._writer.staging import StagedChunk, Staging
from mixpanel_export._writer.table import EventsTable
from mixpanel_export._writer.validate import ClockCheck, Validator
from mixpanel_export._writer.writer import Writer
from mixpanel_export.errors import AdvisoryWarning

_log = logging.getLogger("mixpanel_export")

Ready = ValidatedChunk | ChunkFailed | ChunkSplit


@dataclass(slots=True)
class _Reply:
    """Where the sender of a chunk waits for the verdict on it."""

    arrived: anyio.Event = field(default_factory=anyio.Event)
    verdict: Verdict | None = None


class _Backlog:
    """Bytes of complete chunks that are not committed yet."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._size = 0
        self._removed = anyio.Event()

    async def add(self, size: int) -> None:
        """Count a complete chunk; wait first while there are too many bytes."""
        while self._size > self._most:
            await self._removed.wait()
        self._size += size

    async def shrink(self) -> bool:
        """Wait until a chunk is removed; return whether there was one to wait for."""
        if not self._size:
            return False
        await self._removed.wait()
        return True

    def remove(self, size: int) -> None:
        """Discount a chunk that is committed or discarded."""
        self._size -= size
        self._removed.set()
        self._removed = anyio.Event()


class Writing:
    """The tasks between the stream of items and the table."""

    def __init__(
        self,
        table: EventsTable,
        staging: Staging,
        validators: Sequence[Validator],
        *,
        clock: ClockCheck,
        tracker: Tracker,
        now: Callable[[], datetime],
        tuning: Tuning,
    ) -> None:
        self._table = table
        self._staging = staging
        self._validators = validators
        self._clock = clock
        self._tracker = tracker
        self._tuning = tuning
        self._writer = Writer(table, staging, now)
        self._replies: dict[Chunk, _Reply] = {}
        self._backlog = _Backlog(tuning.backlog)
        self._warned_of_clock = False

    def start(self, tasks: TaskGroup, items: ObjectReceiveStream[Item]) -> None:
        """Start the tasks; they end when every sender of *items* has closed it and all chunks are committed."""
        # The backlog bounds what waits in these two channels.
        staged_in, staged = anyio.create_memory_object_stream[StagedChunk](math.inf)
        ready_in, ready = anyio.create_memory_object_stream[Ready](math.inf)
        for validator in self._validators:
            tasks.start_soon(self._validate, validator, staged.clone(), ready_in.clone())
        staged.close()
        tasks.start_soon(self._stage, items, staged_in, ready_in)
        tasks.start_soon(self._commit, ready)

    async def submit(
        self, item: ChunkEnd | ChunkFailed | ChunkSplit, send: ObjectSendStream[Item]
    ) -> Verdict | None:
        """Send the last item of a chunk, and wait for the verdict on it."""
        reply = self._replies[item.chunk] = _Reply()
        await send.send(item)
        await reply.arrived.wait()
        return reply.verdict

    async def _stage(
        self,
        items: ObjectReceiveStream[Item],
        staged: ObjectSendStream[StagedChunk],
        ready: ObjectSendStream[Ready],
    ) -> None:
        async with items, staged, ready:
            async for item in items:
                match item:
                    case ChunkStart():
                        await to_thread.run_sync(self._staging.start, item)
                    case Block():
                        if await to_thread.run_sync(self._add_block, item) < self._tuning.disk_floor:
                            await self._wait_for_disk()
                    case ChunkEnd():
                        chunk = await to_thread.run_sync(self._staging.end, item)
                        await self._backlog.add(chunk.size)
                        await staged.send(chunk)
                    case ChunkFailed() | ChunkSplit():
                        await to_thread.run_sync(self._staging.drop, item.chunk)
                        await ready.send(item)

    def _add_block(self, block: Block) -> int:
        """Stage a block, and return the free disk; in one call, because each costs a change of thread."""
        self._staging.add(block)
        return self._staging.free_disk()

    async def _wait_for_disk(self) -> None:
        """Wait for commits while the disk is nearly full; if none is due, the next write decides whether it is full."""
        while await to_thread.run_sync(self._staging.free_disk) < self._tuning.disk_floor:
            if not await self._backlog.shrink():
                return

    async def _validate(
        self,
        validator: Validator,
        staged: ObjectReceiveStream[StagedChunk],
        ready: ObjectSendStream[Ready],
    ) -> None:
        async with staged, ready:
            async for chunk in staged:
                validated = await in_thread(partial(validator.validate, chunk), validator.interrupt)
                self._warn_of_clock()
                if isinstance(validated, ValidatedChunk):
                    await ready.send(validated)
                else:
                    self._backlog.remove(chunk.size)
                    self._answer(validated)

    async def _commit(self, ready: ObjectReceiveStream[Ready]) -> None:
        async with ready:
            async for item in ready:
                next_item: Ready | None = item
                if isinstance(item, ValidatedChunk):
                    group, next_item = await self._gather(item, ready)
                    await self._commit_group(group)
                if isinstance(next_item, ChunkFailed | ChunkSplit):
                    await self._record(next_item)

    async def _gather(
        self, first: ValidatedChunk, ready: ObjectReceiveStream[Ready]
    ) -> tuple[list[ValidatedChunk], ChunkFailed | ChunkSplit | None]:
        """Return the next group, and the item that ended it if that is no chunk."""
        group = [first]
        with anyio.move_on_after(self._tuning.group_wait):
            while not self._is_full(group) and len(group) < self._tracker.undecided:
                item = await ready.receive()
                if not isinstance(item, ValidatedChunk):
                    return group, item
                group.append(item)
        return group, None

    def _is_full(self, group: Sequence[ValidatedChunk]) -> bool:
        """Whether a commit of the group is large enough; further chunks wait for the next one."""
        rows = sum(chunk.batch.rows for chunk in group)
        size = sum(chunk.staged.size for chunk in group)
        return rows >= self._tuning.group_rows or size >= self._tuning.group_size

    async def _commit_group(self, group: Sequence[ValidatedChunk]) -> None:
        commit = partial(self._writer.commit, group)
        for verdict in await in_thread(commit, self._table.interrupt):
            self._answer(verdict)
        for chunk in group:
            self._backlog.remove(chunk.staged.size)

    async def _record(self, item: ChunkFailed | ChunkSplit) -> None:
        if isinstance(item, ChunkFailed):
            await in_thread(partial(self._writer.fail, item), self._table.interrupt)
            self._answer(Failed(item.chunk))
        else:
            number = partial(self._table.new_numbers, len(item.pieces))
            numbers = await in_thread(number, self._table.interrupt)
            self._answer(Split(item.chunk, tuple(numbers)))

    def _answer(self, verdict: Verdict) -> None:
        _log.info("%s", verdict)
        reply = self._replies.pop(verdict.chunk)
        reply.verdict = verdict
        reply.arrived.set()

    def _warn_of_clock(self) -> None:
        """Report, once, that the times of events look local."""
        offset = self._clock.offset
        if offset is not None and not self._warned_of_clock:
            self._warned_of_clock = True
            warnings.warn(
                AdvisoryWarning(
                    f"the times of most events look {offset:+g} hours off UTC",
                    advice="if the project was created before 2023, its times are local: pass its time zone, such as "
                    "US/Pacific, as $project_timezone, and $replace the table",
                    argument="project_timezone",
                ),
                stacklevel=2,
            )
