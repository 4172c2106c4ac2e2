"""The writing side of an export: tasks that stage, validate and commit chunks.

::

    items ──▶ stage ──segments──▶ validate ──ready──▶ commit

Segments are extracted while the rest of their chunk is still arriving (see `validation`). Validation and insertion
overlap: the first ready chunk opens a group and starts its INSERT statement. Chunks that become ready while the
statement runs join the group, until it is too large or too old, or no chunk is left. Then the group is committed.

A channel ends when its last sender closes it, so these tasks end one after another. Channels are closed without an
await, because a cancellation during the await would hide the original error.
"""

import logging
import math
import warnings
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import partial

import anyio
from anyio import to_thread
from anyio.abc import ObjectSendStream, TaskGroup
from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream

from mixpanel_export._concurrency import in_thread
from mixpanel_export._database.settings import USUAL_LINE
from mixpanel_export._export.tracker import Tracker
from mixpanel_export._export.tuning import Tuning
from mixpanel_export._export.validation import Validation, ValidationResult
from mixpanel_export._model import (
    Block,
    Chunk,
    ChunkEnd,
    ChunkFailed,
    ChunkSplit,
    ChunkStart,
    Committed,
    Item,
    Split,
    Verdict,
)
from mixpanel_export._timezones import naive_utc
from mixpanel_export._writer.destination import ChunkWriter, Destination
from mixpanel_export._writer.group import Group
from mixpanel_export._writer.load import ValidatedChunk
from mixpanel_export._writer.staging import Segment, StagedChunk, Staging
from mixpanel_export._writer.validate import ClockCheck, Validator
from mixpanel_export.errors import AdvisoryWarning

_log = logging.getLogger("mixpanel_export")

_MAX_WAITS = 4  # a group is committed after this many times `group_wait`


class _ExportAccepted:
    """Sent once, when lines or a complete response show that Mixpanel has accepted the account and the selection."""


Ready = ValidatedChunk | ChunkFailed | ChunkSplit | _ExportAccepted


@dataclass(slots=True)
class _Reply:
    """The verdict on a chunk. The task that submitted the chunk waits until it has arrived."""

    empty_response: bool
    """Whether the chunk's days were requested twice and both responses were empty."""
    arrived: anyio.Event = field(default_factory=anyio.Event)
    verdict: Verdict | None = None


class _Backlog:
    """Counts the bytes in complete, uncommitted chunks. *on_wait* is called before each wait for a commit."""

    def __init__(self, max_size: int, on_wait: Callable[[], None]) -> None:
        self._max_size = max_size
        self._on_wait = on_wait
        self._sizes: dict[Chunk, int] = {}
        self._total = 0
        self._removed = anyio.Event()
        self.has_waiter = False
        """Whether staging is waiting for a commit. If it is, no group should wait for more chunks."""

    async def add(self, chunk: StagedChunk) -> None:
        """Count a complete chunk. First, wait until the total is within the limit."""
        while self._total > self._max_size:
            await self._wait()
        self._sizes[chunk.chunk] = chunk.size
        self._total += chunk.size

    async def wait_for_removal(self) -> bool:
        """Wait until a chunk is removed. Return False, without waiting, if there is no chunk."""
        if not self._sizes:
            return False
        await self._wait()
        return True

    def remove(self, chunk: Chunk) -> None:
        """Stop counting a chunk that is committed or discarded."""
        self._total -= self._sizes.pop(
            chunk
        )  # use the size that was added; a repair may have changed the chunk since
        self._removed.set()
        self._removed = anyio.Event()

    async def _wait(self) -> None:
        self.has_waiter = True
        self._on_wait()
        await self._removed.wait()
        self.has_waiter = False


class WriteTasks:
    """The tasks that move items from the stream to the destination."""

    def __init__(
        self,
        destination: Destination,
        writer: ChunkWriter,
        staging: Staging,
        validators: Sequence[Validator],
        *,
        clock: ClockCheck,
        tracker: Tracker,
        now: Callable[[], datetime],
        tuning: Tuning,
    ) -> None:
        self._destination = destination
        self._writer = writer
        self._staging = staging
        self._validators = validators
        self._clock = clock
        self._tracker = tracker
        self._tuning = tuning
        self._now = now
        self._replies: dict[Chunk, _Reply] = {}
        self._backlog = _Backlog(tuning.backlog, self._commit_now)
        self._warned_about_local_times = False
        self._group: Group | None = None
        self._growing = anyio.CancelScope()
        self._ready_rows = 0  # rows of valid chunks that are not committed

    def start(self, tasks: TaskGroup, items: MemoryObjectReceiveStream[Item]) -> None:
        """Start the tasks. The tasks end when all senders of *items* are closed and all chunks are committed."""
        # The backlog limits the number of chunks in this channel.
        ready_sender, ready_receiver = anyio.create_memory_object_stream[Ready](math.inf)
        validation = Validation(self._answer_unless_valid)
        validation.start(tasks, self._validators, ready_sender)
        tasks.start_soon(self._stage, items, validation, ready_sender)
        tasks.start_soon(self._commit, ready_receiver)

    async def submit(
        self,
        item: ChunkEnd | ChunkFailed | ChunkSplit,
        send: ObjectSendStream[Item],
        *,
        empty_response: bool = False,
    ) -> Verdict | None:
        """Send the last item of a chunk and return the verdict. By then, the tracker has recorded the commit, if any."""
        reply = self._replies[item.chunk] = _Reply(empty_response)
        await send.send(item)
        await reply.arrived.wait()
        return reply.verdict

    def reconsider(self) -> None:
        """Check again whether the open group may grow. Call this when a chunk is postponed."""
        self._growing.cancel()

    def _commit_now(self) -> None:
        """Close the open group, so that it is committed without waiting for more chunks."""
        if self._group is not None:
            self._group.close()
            self.reconsider()

    async def _stage(
        self,
        items: MemoryObjectReceiveStream[Item],
        validation: Validation,
        ready_sender: MemoryObjectSendStream[Ready],
    ) -> None:
        is_accepted = False
        with items, ready_sender, closing(validation):
            async for item in items:
                if isinstance(item, Block | ChunkEnd) and not is_accepted:
                    is_accepted = True
                    await ready_sender.send(_ExportAccepted())
                match item:
                    case ChunkStart():
                        await validation.abandon(item.chunk)
                        await to_thread.run_sync(self._staging.start, item)
                    case Block():
                        segment, free_disk = await to_thread.run_sync(self._add_block, item)
                        if segment is not None:
                            validation.add(item.chunk, segment)
                        if free_disk < self._tuning.disk_floor:
                            await self._wait_for_disk()
                    case ChunkEnd():
                        staged = await to_thread.run_sync(self._staging.end, item)
                        await self._backlog.add(staged)
                        validation.end(staged)
                    case ChunkFailed() | ChunkSplit():
                        await validation.abandon(item.chunk)
                        await to_thread.run_sync(self._staging.drop, item.chunk)
                        await ready_sender.send(item)

    def _answer_unless_valid(self, staged: StagedChunk, validated: ValidationResult) -> ValidatedChunk | None:
        """Return the chunk if it is valid. Otherwise, send its verdict."""
        self._warn_about_local_times()
        if isinstance(validated, ValidatedChunk):
            self._ready_rows += validated.batch.rows
            batch = replace(validated.batch, validated_at=naive_utc(self._now()))
            return replace(validated, batch=batch)
        self._backlog.remove(staged.chunk)
        self._answer(validated)
        return None

    def _add_block(self, block: Block) -> tuple[Segment | None, int]:
        """Stage a block. Return the segment that it completes, if any, and the free disk space."""
        # Doing both in one call saves a thread switch.
        return self._staging.add(block), self._staging.free_disk()

    async def _wait_for_disk(self) -> None:
        """Wait for commits while the disk is nearly full. If there is no chunk to commit, return at once."""
        while await to_thread.run_sync(self._staging.free_disk) < self._tuning.disk_floor:
            if not await self._backlog.wait_for_removal():
                return

    async def _commit(self, ready_receiver: MemoryObjectReceiveStream[Ready]) -> None:
        with ready_receiver:
            next_item: Ready | None = None
            while True:
                try:
                    item = next_item or await ready_receiver.receive()
                except anyio.EndOfStream:
                    return
                next_item = None
                if isinstance(item, ValidatedChunk):
                    next_item = await self._commit_group(
                        self._new_group(item, ready_receiver), ready_receiver
                    )
                else:
                    await self._record(item)

    def _new_group(self, chunk: ValidatedChunk, ready_receiver: MemoryObjectReceiveStream[Ready]) -> Group:
        everything_is_ready = (
            ready_receiver.statistics().current_buffer_used + 1 >= self._tracker.active_count
        )
        return Group(
            chunk,
            open_for=_MAX_WAITS * self._tuning.group_wait,
            remaining_rows=self._ready_rows if everything_is_ready else None,
        )

    async def _commit_group(
        self, group: Group, ready_receiver: MemoryObjectReceiveStream[Ready]
    ) -> Ready | None:
        """Commit a group, which may grow while it is being loaded. Return the item that ended its growth, if any."""
        self._group = group
        next_item: Ready | None = None

        async def grow() -> None:
            nonlocal next_item
            try:
                with anyio.move_on_after(_MAX_WAITS * self._tuning.group_wait):
                    while self._may_grow(group):
                        with (
                            anyio.move_on_after(self._tuning.group_wait) as wait,
                            anyio.CancelScope() as self._growing,
                        ):
                            next_item = await ready_receiver.receive()
                        if wait.cancelled_caught:
                            return
                        if next_item is None:
                            continue  # woken by `reconsider`
                        if not isinstance(next_item, ValidatedChunk) or next_item.longest > USUAL_LINE:
                            return
                        if not group.add(next_item):
                            return
                        next_item = None
            finally:
                group.close()

        def interrupt() -> None:
            group.close()
            self._destination.interrupt()

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(grow)
            verdicts = await in_thread(partial(self._writer.commit, group), interrupt)
        for verdict in verdicts:
            self._answer(verdict)
        for chunk in group.chunks:
            self._backlog.remove(chunk.staged.chunk)
            self._ready_rows -= chunk.batch.rows
        return next_item

    def _may_grow(self, group: Group) -> bool:
        """Whether more chunks may join the group. A large group does not grow, because its commit would be too late."""
        return (
            group.is_open
            and not self._backlog.has_waiter
            and len(group.chunks) < self._tracker.active_count
            and group.size < self._tuning.group_size
            and group.rows < self._tuning.group_rows * len(self._validators)
            and group.longest <= USUAL_LINE
        )

    async def _record(self, item: ChunkFailed | ChunkSplit | _ExportAccepted) -> None:
        interrupt = self._destination.interrupt
        if isinstance(item, _ExportAccepted):
            await in_thread(self._destination.record_target, interrupt)
        elif isinstance(item, ChunkFailed):
            for verdict in await in_thread(partial(self._writer.fail, item), interrupt):
                self._answer(verdict)
        else:
            number = partial(self._destination.allocate_batch_numbers, len(item.pieces))
            numbers = await in_thread(number, interrupt)
            self._answer(Split(item.chunk, tuple(numbers)))

    def _answer(self, verdict: Verdict) -> None:
        _log.info("%s", verdict)
        reply = self._replies.pop(verdict.chunk)
        if isinstance(verdict, Committed):
            # Record the commit immediately, because the next group must not wait for a chunk that has a verdict.
            self._tracker.record_commit(verdict, empty_response=reply.empty_response)
        reply.verdict = verdict
        reply.arrived.set()

    def _warn_about_local_times(self) -> None:
        """Warn, once, if event times look local rather than UTC."""
        offset = self._clock.offset
        if offset is not None and not self._warned_about_local_times:
            self._warned_about_local_times = True
            warnings.warn(
                AdvisoryWarning(
                    f"the times of most events look local, {offset:+g} hours from UTC",
                    advice="if the project was created before 2023, pass its time zone, such as US/Pacific, as "
                    "$project_timezone, and $replace the table",
                    argument="project_timezone",
                ),
                stacklevel=2,
            )
