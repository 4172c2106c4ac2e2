"""Loads groups of chunks, each chunk by itself where its group fails, and answers each with a verdict. No SQL."""

from collections.abc import Callable
from datetime import datetime
from typing import Protocol

from mixpanel_export._model import ChunkFailed, Committed, Refused
from mixpanel_export._writer.group import Group
from mixpanel_export._writer.load import UnloadableError, ValidatedChunk
from mixpanel_export._writer.staging import Staging


class Destination(Protocol):
    """Where validated chunks are loaded; `EventsTable` is the one there is."""

    def load(
        self, group: Group, now: Callable[[], datetime], /, *, last_try: bool = False
    ) -> list[Committed]:
        """Load all chunks of the group, or none and raise `UnloadableError`."""

    def fail(self, failed: ChunkFailed, finished: datetime, /) -> None:
        """Record that a chunk was given up."""


class Writer:
    """Loads groups of chunks into a destination, and removes their staged files."""

    def __init__(self, destination: Destination, staging: Staging, now: Callable[[], datetime]) -> None:
        self._destination = destination
        self._staging = staging
        self._now = now

    def commit(self, group: Group) -> list[Committed | Refused]:
        """Load the chunks together; where that fails, each by itself. Return a verdict for each.

        Raises:
            DatabaseError: The destination cannot be written. Chunks that were loaded before are in the ledger.
            InterruptedCall: The same, after an interrupt.
        """
        with self._staging.writing():
            try:
                committed = self._destination.load(group, self._now)
            except UnloadableError as error:
                group.wait_until_closed()
                if len(group.chunks) > 1:
                    return [verdict for chunk in group.chunks for verdict in self.commit(Group(chunk))]
                return [self._last_try(group, error)]
            for chunk in group.chunks:
                self._discard(chunk)
            return [*committed]

    def fail(self, failed: ChunkFailed) -> None:
        """Record that a chunk was given up."""
        self._destination.fail(failed, self._now())

    def _last_try(self, group: Group, error: UnloadableError) -> Committed | Refused:
        (chunk,) = group.chunks
        try:
            if not error.out_of_memory:
                raise error
            (committed,) = self._destination.load(group, self._now, last_try=True)
        except UnloadableError as last_error:
            return Refused(chunk.batch.days, last_error.reason)
        else:
            return committed
        finally:
            self._discard(chunk)

    def _discard(self, chunk: ValidatedChunk) -> None:
        self._staging.discard(chunk.staged)
        chunk.columns.discard()
