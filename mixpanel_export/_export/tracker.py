"""Tracks the state of an export's chunks and computes the progress and the result.

A chunk is decided when it is committed or given up on. A chunk with an empty response is postponed until it is requested
again. Here, a batch is a planned chunk, or all pieces of a planned chunk that was split. A batch is decided when all its
pieces are decided.
"""

from collections.abc import Iterable
from datetime import datetime
from itertools import takewhile

from mixpanel_export._model import Chunk, Committed
from mixpanel_export._planning.planner import Plan
from mixpanel_export.errors import MixpanelDataError
from mixpanel_export.results import BatchProgress, ParallelFetchResult


class Tracker:
    """The state of every chunk of one export."""

    def __init__(self, planned: Plan) -> None:
        self._planned = planned
        self._index = {batch: index for index, batch in enumerate(planned.chunks)}
        self._batch_of = {batch: batch for batch in planned.chunks}
        self._pieces = {batch: {batch} for batch in planned.chunks}
        self._committed: dict[Chunk, Committed] = {}
        self._pending = set(planned.chunks)
        self._failed_batches: set[Chunk] = set()
        self._empty_batches: set[Chunk] = set()
        self._reported: set[Chunk] = set()
        self.postponed: set[Chunk] = set()
        """Chunks with an empty response, which will be requested again."""
        self.errors: dict[Chunk, MixpanelDataError] = {}
        """The error of each chunk that was given up on."""

    def record_split(self, chunk: Chunk, pieces: Iterable[Chunk]) -> None:
        """Replace a chunk with its *pieces*."""
        batch = self._batch_of.pop(chunk)
        self._pieces[batch].remove(chunk)
        self._pending.remove(chunk)
        for piece in pieces:
            self._batch_of[piece] = batch
            self._pieces[batch].add(piece)
            self._pending.add(piece)

    def record_commit(self, verdict: Committed, *, empty_response: bool) -> None:
        """Record that a chunk's rows are in the table.

        *empty_response* is true if the chunk's days were requested twice and both responses were empty.
        """
        self._committed[verdict.chunk] = verdict
        if empty_response:
            self._empty_batches.add(self._batch_of[verdict.chunk])
        self._decide(verdict.chunk)

    def record_failure(self, chunk: Chunk, error: MixpanelDataError) -> None:
        """Record that a chunk was given up on."""
        self.errors[chunk] = error
        self._failed_batches.add(self._batch_of[chunk])
        self._decide(chunk)

    def postpone(self, chunk: Chunk) -> None:
        """Record that a chunk's response was empty."""
        self.postponed.add(chunk)

    def resume(self) -> list[Chunk]:
        """Return the postponed chunks in date order. They are no longer postponed."""
        chunks = sorted(self.postponed)
        self.postponed.clear()
        return chunks

    def resume_first(self) -> list[Chunk]:
        """Like `resume`, but only for postponed chunks that precede every pending chunk that is not postponed."""
        chunks = list(takewhile(self.postponed.__contains__, sorted(self._pending)))
        self.postponed.difference_update(chunks)
        return chunks

    @property
    def starts_with_postponed(self) -> bool:
        """Whether the first pending chunk is postponed."""
        return min(self._pending, default=None) in self.postponed

    @property
    def active_count(self) -> int:
        """The number of pending chunks that are not postponed."""
        return len(self._pending) - len(self.postponed)

    @property
    def pending(self) -> frozenset[Chunk]:
        """The chunks that are neither committed nor given up on."""
        return frozenset(self._pending)

    @property
    def batches(self) -> int:
        """The number of batches in the plan."""
        return len(self._pieces)

    @property
    def batches_done(self) -> int:
        """The number of batches that are completely committed."""
        open_batches = {self._batch_of[chunk] for chunk in self._pending}
        return len(self._pieces) - len(open_batches | self._failed_batches)

    @property
    def batches_failed(self) -> int:
        """The number of batches with a piece that was given up on."""
        return len(self._failed_batches)

    @property
    def rows(self) -> int:
        """The number of rows in the committed chunks."""
        return sum(verdict.rows for verdict in self._committed.values())

    @property
    def removed_duplicates(self) -> int:
        """The number of duplicates that were removed within the committed chunks."""
        return sum(verdict.removed_duplicates for verdict in self._committed.values())

    @property
    def empty_batches(self) -> list[Chunk]:
        """The batches with a chunk that had two empty responses, in date order."""
        return sorted(self._empty_batches)

    def take_decided_batch(self, chunk: Chunk) -> Chunk | None:
        """Return the chunk's batch if it is decided and has not been returned before; else None.

        Several pieces of a batch may be decided before their fetch tasks continue. Each of these tasks then sees a decided
        batch, but only one of them may report it.
        """
        batch = self._batch_of[chunk]
        if batch in self._reported or not self._pieces[batch].isdisjoint(self._pending):
            return None
        self._reported.add(batch)
        return batch

    def progress(self, batch: Chunk) -> BatchProgress:
        """Return the progress report for a decided batch."""
        pieces = sorted(self._pieces[batch])
        errors = tuple(self.errors[piece] for piece in pieces if piece in self.errors)
        return BatchProgress(
            from_date=str(batch.first),
            to_date=str(batch.last),
            batch_index=self._index[batch],
            total_batches=len(self._index),
            rows=sum(self._committed[piece].rows for piece in pieces if piece in self._committed),
            success=not errors,
            errors=errors,
        )

    def result(
        self, table: str, rows_added: int, removed_duplicates: int, *, seconds: float, finished_at: datetime
    ) -> ParallelFetchResult:
        """Return the result of the export."""
        failed = sorted(self.errors)
        committed = self._committed.values()
        return ParallelFetchResult(
            table=table,
            total_rows=rows_added,
            successful_batches=self.batches_done,
            failed_batches=self.batches_failed,
            failed_date_ranges=tuple((str(chunk.first), str(chunk.last)) for chunk in failed),
            duration_seconds=seconds,
            fetched_at=finished_at,
            added_date_ranges=tuple((str(days.first), str(days.last)) for days in self._planned.added),
            errors=tuple(self.errors[chunk] for chunk in failed),
            removed_duplicates=removed_duplicates,
            rejects=sum(verdict.rejects for verdict in committed),
            repaired=sum(verdict.repaired for verdict in committed),
            empty_batches=len(self._empty_batches),
        )

    def _decide(self, chunk: Chunk) -> None:
        self._pending.remove(chunk)
