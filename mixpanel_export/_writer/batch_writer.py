"""The destination of `stream_batches`: it offers validated chunks to the consumer instead of loading them."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import date, timedelta
from itertools import count

import duckdb

from mixpanel_export._concurrency import InterruptedCall
from mixpanel_export._database.preflight import ExportSpec
from mixpanel_export._model import Chunk, ChunkFailed, Committed, Failed
from mixpanel_export._writer.group import Group
from mixpanel_export._writer.handoff import Handoff
from mixpanel_export._writer.load import ValidatedChunk
from mixpanel_export._writer.staging import Staging
from mixpanel_export.errors import DatabaseError


class BatchDestination:
    """A destination without a table. The spec's table is only a name."""

    def __init__(self, spec: ExportSpec, handoff: Handoff) -> None:
        self.spec = spec
        self.target_table = spec.table
        self._handoff = handoff
        self._numbers = count(1)

    @contextmanager
    def converting_errors(self, days: str | Callable[[], str]) -> Iterator[None]:
        """Convert DuckDB errors to errors with *days*."""
        try:
            yield
        except duckdb.InterruptException as error:
            raise InterruptedCall from error
        except duckdb.Error as error:
            raise DatabaseError(
                f"DuckDB cannot validate the events ({str(error).splitlines()[0]})",
                db_path=":memory:",
                days=days() if callable(days) else days,
                advice="request these days again",
            ) from error

    def allocate_batch_numbers(self, count: int) -> list[int]:
        """Return the numbers of *count* new batches, ascending."""
        return [next(self._numbers) for _ in range(count)]

    def record_target(self) -> None:
        """Do nothing: there is no ledger."""

    def interrupt(self) -> None:
        """Withdraw the chunk that waits for the consumer, if any."""
        self._handoff.interrupt()


class BatchWriter:
    """Offers chunks to the consumer, and removes their files.

    Chunks are offered as they arrive or, if *in_order* is true, in date order, starting with the chunk of *first_day*.
    """

    def __init__(self, handoff: Handoff, staging: Staging, first_day: date, *, in_order: bool) -> None:
        self._handoff = handoff
        self._staging = staging
        self._next_day = first_day
        self._in_order = in_order
        self._waiting: dict[
            date, ValidatedChunk | Chunk
        ] = {}  # keyed by first day; a plain `Chunk` is one that failed

    def commit(self, group: Group) -> list[Committed]:
        """Offer the chunks of a group to the consumer. Return verdicts on the chunks that the consumer has released.

        Raises:
            InterruptedCall: The stream is ending.
        """
        if not self._in_order:
            return [self._offer(chunk) for chunk in group]
        self._waiting.update((chunk.batch.days.first, chunk) for chunk in group)
        return self._offer_in_order()

    def fail(self, failed: ChunkFailed) -> list[Failed | Committed]:
        """Return the verdict on a chunk that was given up on, and the verdicts on chunks that had to wait for it."""
        if not self._in_order:
            return [Failed(failed.chunk)]
        self._waiting[failed.chunk.first] = failed.chunk
        return [Failed(failed.chunk), *self._offer_in_order()]

    def _offer_in_order(self) -> list[Committed]:
        verdicts = []
        while (item := self._waiting.pop(self._next_day, None)) is not None:
            days = item if isinstance(item, Chunk) else item.batch.days
            if isinstance(item, ValidatedChunk):
                verdicts.append(self._offer(item))
            self._next_day = days.last + timedelta(days=1)
        return verdicts

    def _offer(self, chunk: ValidatedChunk) -> Committed:
        try:
            self._handoff.offer(chunk)
        finally:
            self._staging.discard(chunk.staged)
            chunk.discard_columns()
        batch = chunk.batch
        return Committed(batch.days, batch.rows, batch.removed_duplicates, batch.rejects, batch.repaired)
