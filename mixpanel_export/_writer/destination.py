"""The interfaces that the write tasks use for a destination, which is a table or a caller's loop."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Protocol

from mixpanel_export._database.preflight import ExportSpec
from mixpanel_export._model import ChunkFailed, Verdict
from mixpanel_export._writer.group import Group


class Destination(Protocol):
    """The destination of one export's validated chunks. Its methods are called in worker threads."""

    @property
    def spec(self) -> ExportSpec:
        """The events to load."""

    @property
    def target_table(self) -> str:
        """The table name in the ledger rows of the chunks."""

    def converting_errors(self, days: str | Callable[[], str]) -> AbstractContextManager[None]:
        """Convert DuckDB errors that are raised in the block to errors of this package. The errors contain *days*."""

    def allocate_batch_numbers(self, count: int) -> list[int]:
        """Return the numbers of *count* new batches, ascending."""

    def record_target(self) -> None:
        """Record that Mixpanel has accepted the account and the selection."""

    def interrupt(self) -> None:
        """Stop the call that is running in another thread, if any."""


class ChunkWriter(Protocol):
    """Writes the chunks of one export to its destination. Its methods are called in worker threads, one at a time."""

    def commit(self, group: Group) -> Sequence[Verdict]:
        """Write the chunks of a group and return verdicts. The verdict on a chunk may also come from a later call."""

    def fail(self, failed: ChunkFailed) -> Sequence[Verdict]:
        """Record that a chunk has failed, and return the verdicts."""
