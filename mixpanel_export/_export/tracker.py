"""What becomes of the plan's batches: the books of one export, and what callers are told from them.

A batch is one chunk, or several pieces once its chunk was split; it is decided with its last piece.
"""

from collections.abc import Iterable
from datetime import datetime

from mixpanel_export._model import Chunk, Committed
from mixpanel_export._planning.planner import Held, Plan
from mixpanel_export.errors import MixpanelDataError
from mixpanel_export.results import BatchProgress, ParallelFetchResult


class Outcome:
    """Which chunks are committed, and which failed and why."""

    def __init__(self, planned: Plan, held: Iterable[Held]) -> None:
        self._planned = planned
        self._pieces = {batch: [batch] for batch in planned.chunks}
        self._with_events = {Chunk(row.first, row.last) for row in held if row.rows}
        self._committed: dict[Chunk, Committed] = {}
        self.errors: dict[Chunk, MixpanelDataError] = {}

    def split(self, chunk: Chunk, pieces: Iterable[Chunk]) -> None:
        """Put *pieces* in the place of a chunk."""
        for parts in self._pieces.values():
            if chunk in parts:
                at = parts.index(chunk)
                parts[at : at + 1] = pieces

    def commit(self, verdict: Committed) -> None:
        """Note that a chunk's rows are in the table."""
        self._committed[verdict.chunk] = verdict
        if verdict.rows:
            self._with_events.add(verdict.chunk)

    def fail(self, chunk: Chunk, error: MixpanelDataError) -> None:
        """Note that a chunk was given up."""
        self.errors[chunk] = error

    @property
    def batches(self) -> int:
        """How many batches the plan has."""
        return len(self._pieces)

    @property
    def pending(self) -> list[Chunk]:
        """The chunks, pieces one by one, that are neither committed nor given up."""
        decided = self._committed.keys() | self.errors.keys()
        return [piece for pieces in self._pieces.values() for piece in pieces if piece not in decided]

    @property
    def undecided(self) -> int:
        """How many chunks are neither committed nor given up."""
        return len(self.pending)

    @property
    def batches_done(self) -> int:
        """How many batches are committed whole."""
        return sum(all(piece in self._committed for piece in pieces) for pieces in self._pieces.values())

    @property
    def batches_failed(self) -> int:
        """How many batches have a piece that was given up."""
        return sum(any(piece in self.errors for piece in pieces) for pieces in self._pieces.values())

    def has_events_in(self, chunk: Chunk) -> bool:
        """Whether the table has, or had when the export began, events of the chunk's days."""
        return any(days.overlaps(chunk) for days in self._with_events)

    def has_events_around(self, chunk: Chunk) -> bool:
        """Whether days before the chunk and days after it have events."""
        before = any(days.last < chunk.first for days in self._with_events)
        return before and any(days.first > chunk.last for days in self._with_events)

    def progress(self, batch: Chunk) -> BatchProgress:
        """Return what callers are told of a batch that is decided."""
        pieces = self._pieces[batch]
        errors = tuple(self.errors[piece] for piece in pieces if piece in self.errors)
        return BatchProgress(
            from_date=str(batch.first),
            to_date=str(batch.last),
            batch_index=self._planned.chunks.index(batch),
            total_batches=len(self._planned.chunks),
            rows=sum(self._committed[piece].rows for piece in pieces if piece in self._committed),
            success=not errors,
            errors=errors,
        )

    def result(
        self, table: str, growth: int, removed_duplicates: int, *, seconds: float, now: datetime
    ) -> ParallelFetchResult:
        """Return what the export did."""
        failed = sorted(self.errors)
        done = self._committed.values()
        return ParallelFetchResult(
            table=table,
            total_rows=growth,
            successful_batches=self.batches_done,
            failed_batches=self.batches_failed,
            failed_date_ranges=tuple((str(chunk.first), str(chunk.last)) for chunk in failed),
            duration_seconds=seconds,
            fetched_at=now,
            added_date_ranges=tuple((str(days.first), str(days.last)) for days in self._planned.added),
            errors=tuple(self.errors[chunk] for chunk in failed),
            removed_duplicates=removed_duplicates,
            rejects=sum(batch.rejects for batch in done),
            repaired=sum(batch.repaired for batch in done),
        )
