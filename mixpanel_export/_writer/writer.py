"""Loads groups of chunks and returns a verdict on each chunk. If a group fails, its chunks are tried separately."""

from collections.abc import Callable
from datetime import datetime

from mixpanel_export._model import ChunkFailed, Committed, Failed, Unloadable
from mixpanel_export._writer.group import Group
from mixpanel_export._writer.load import UnloadableError, ValidatedChunk
from mixpanel_export._writer.staging import Staging
from mixpanel_export._writer.table import EventsTable


class Writer:
    """Loads groups of chunks into the table and removes their staged files."""

    def __init__(self, table: EventsTable, staging: Staging, now: Callable[[], datetime]) -> None:
        self._table = table
        self._staging = staging
        self._now = now

    def commit(self, group: Group) -> list[Committed | Unloadable]:
        """Load the chunks together, or each one separately if that fails. Return a verdict on each chunk.

        Raises:
            DatabaseError: DuckDB cannot write. Chunks that were already loaded are in the table and the ledger.
            InterruptedCall: `EventsTable.interrupt` was called. Chunks that were already loaded are in the table and
                the ledger.
        """
        with self._staging.writing():
            try:
                committed = self._table.load(group, self._now)
            except UnloadableError as error:
                group.wait_until_closed()
                if len(group.chunks) > 1:
                    return [verdict for chunk in group.chunks for verdict in self.commit(Group(chunk))]
                return [self._final_attempt(group, error)]
            for chunk in group.chunks:
                self._discard(chunk)
            return [*committed]

    def fail(self, failed: ChunkFailed) -> list[Failed]:
        """Record that a chunk was given up on, and return the verdict on it."""
        self._table.record_failure(failed, self._now())
        return [Failed(failed.chunk)]

    def _final_attempt(self, group: Group, error: UnloadableError) -> Committed | Unloadable:
        (chunk,) = group.chunks
        try:
            if error.needed_memory is None:
                raise error
            (committed,) = self._table.load(group, self._now, final_attempt=True)
        except UnloadableError as last_error:
            return Unloadable(chunk.batch.days, last_error.reason, last_error.needed_memory)
        else:
            return committed
        finally:
            self._discard(chunk)

    def _discard(self, chunk: ValidatedChunk) -> None:
        self._staging.discard(chunk.staged)
        chunk.discard_columns()
