"""Extracts the segments of arriving chunks and validates each chunk once all its segments are extracted.

Each validator works on one segment at a time. Chunks that started earlier take priority, so that they can be committed
while others are still arriving.
"""

import math
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from heapq import heappop, heappush
from itertools import count

import anyio
from anyio.abc import TaskGroup
from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream

from mixpanel_export._concurrency import in_thread
from mixpanel_export._model import Chunk, Malformed, Unloadable
from mixpanel_export._writer.extract import ExtractedSegment
from mixpanel_export._writer.load import ValidatedChunk
from mixpanel_export._writer.staging import Segment, StagedChunk
from mixpanel_export._writer.validate import Validator, discard

ValidationResult = ValidatedChunk | Malformed | Unloadable


@dataclass(slots=True, eq=False)
class _Attempt:
    """The segments of one attempt to fetch a chunk."""

    chunk: Chunk
    number: int
    results: list[ExtractedSegment | Unloadable | None] = field(default_factory=list)
    """The result of each segment; None until the segment is extracted."""
    staged: StagedChunk | None = None
    """The complete chunk; None while the chunk is arriving."""
    running: int = 0
    """The number of segments that are being extracted now."""
    is_abandoned: bool = False
    stopped: anyio.Event = field(default_factory=anyio.Event)

    @property
    def extracted(self) -> list[ExtractedSegment | Unloadable]:
        """The results so far."""
        return [result for result in self.results if result is not None]


class Validation:
    """The segments of incomplete chunks, and the tasks that extract them.

    *on_validated* is called with each complete chunk and the result of its validation. It returns the validated chunk if
    the chunk is to be loaded.
    """

    def __init__(
        self, on_validated: Callable[[StagedChunk, ValidationResult], ValidatedChunk | None]
    ) -> None:
        self._on_validated = on_validated
        self._attempts: dict[Chunk, _Attempt] = {}
        self._numbers = count()
        self._queue: list[tuple[int, int, _Attempt, Segment | None]] = []
        self._added, self._additions = anyio.create_memory_object_stream[None](math.inf)

    def start(
        self, tasks: TaskGroup, validators: Sequence[Validator], ready: MemoryObjectSendStream[ValidatedChunk]
    ) -> None:
        """Start tasks that send chunks to *ready*. The tasks end after `close`, when every complete chunk is validated."""
        for validator in validators:
            tasks.start_soon(self._work, validator, self._additions.clone(), ready.clone())
        self._additions.close()

    def add(self, chunk: Chunk, segment: Segment) -> None:
        """Extract the next segment of a chunk. The chunk may still be incomplete."""
        attempt = self._attempt(chunk)
        self._enqueue(attempt, segment)
        attempt.results.append(None)

    def end(self, staged: StagedChunk) -> None:
        """Extract the remaining segments of a complete chunk and validate the chunk."""
        attempt = self._attempt(staged.chunk)
        for segment in staged.segments[len(attempt.results) :]:
            self.add(staged.chunk, segment)
        attempt.staged = staged
        self._enqueue(attempt, None)

    async def abandon(self, chunk: Chunk) -> None:
        """Discard the segments of an incomplete chunk. When this method returns, no validator is reading the chunk's file."""
        attempt = self._attempts.pop(chunk, None)
        if attempt is not None:
            attempt.is_abandoned = True
            if attempt.running:
                await attempt.stopped.wait()
            discard(attempt.extracted)

    def close(self) -> None:
        """Declare that no more segments will be added."""
        self._added.close()

    def _attempt(self, chunk: Chunk) -> _Attempt:
        if chunk not in self._attempts:
            self._attempts[chunk] = _Attempt(chunk, next(self._numbers))
        return self._attempts[chunk]

    def _enqueue(self, attempt: _Attempt, segment: Segment | None) -> None:
        heappush(self._queue, (attempt.number, len(attempt.results), attempt, segment))
        # If the validators have ended because of an error, the caller's next await raises the error or is cancelled.
        with suppress(anyio.BrokenResourceError):
            self._added.send_nowait(None)

    async def _work(
        self,
        validator: Validator,
        additions: MemoryObjectReceiveStream[None],
        ready: MemoryObjectSendStream[ValidatedChunk],
    ) -> None:
        with additions, ready:
            async for _ in additions:
                _, index, attempt, segment = heappop(self._queue)
                if segment is not None and not attempt.is_abandoned:
                    await self._extract(validator, attempt, index, segment)
                chunk = await self._validate_if_complete(validator, attempt)
                if chunk is not None:
                    await ready.send(chunk)

    async def _extract(self, validator: Validator, attempt: _Attempt, index: int, segment: Segment) -> None:
        attempt.running += 1
        try:
            extract = partial(validator.extract, segment, attempt.chunk)
            attempt.results[index] = await in_thread(extract, validator.interrupt)
        finally:
            attempt.running -= 1
            if attempt.is_abandoned and not attempt.running:
                attempt.stopped.set()

    async def _validate_if_complete(self, validator: Validator, attempt: _Attempt) -> ValidatedChunk | None:
        staged = attempt.staged
        if staged is None or attempt is not self._attempts.get(staged.chunk):
            return None
        results = attempt.extracted
        if len(results) < len(attempt.results):
            return None
        del self._attempts[staged.chunk]
        validated = await in_thread(partial(validator.validate, staged, results), validator.interrupt)
        return self._on_validated(staged, validated)
