"""The interfaces between the write tasks and the place that validated chunks go to: a table, or a caller's loop."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Protocol

from mixpanel_export._database.preflight import ExportSpec
from mixpanel_export._model import ChunkFailed, Verdict
from mixpanel_export._writer.group import Group


class Destination(Protocol):
    """Where the validated chunks of one export go. Its methods are called in worker threads."""

    @property
    def spec(self) -> ExportSpec:
        """The events to load."""

    @property
    def target_table(self) -> str:
        """The table that the chunks' ledger rows name."""

    def converting_errors(self, days: str | Callable[[], str]) -> AbstractContextManager[None]:
        """Convert DuckDB errors that are raised in the block to this package's errors, which name *days*."""

    def new_numbers(self, count: int) -> list[int]:
        """Return the numbers of *count* new batches, ascending."""

    def record_target(self) -> None:
        """Record that Mixpanel has accepted the account and the selection."""

    def interrupt(self) -> None:
        """Stop the call that is running in another thread, if any."""


class ChunkWriter(Protocol):
    """Writes the chunks of one export to its destination. Its methods are called in worker threads, one at a time."""

    def commit(self, group: Group) -> Sequence[Verdict]:
        """Write the chunks of a group. Return verdicts on them; a verdict may also come from a later call."""

    def fail(self, failed: ChunkFailed) -> Sequence[Verdict]:
        """Record that a chunk has failed, and return the verdicts."""
