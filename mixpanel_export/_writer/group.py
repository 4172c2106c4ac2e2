"""The chunks of one transaction."""

from collections.abc import Iterator
from itertools import count
from threading import Condition
from time import monotonic

from mixpanel_export._writer.load import ValidatedChunk


class Group:
    """Chunks that are loaded in one transaction.

    A group may grow while its first chunks are being loaded. Iterating over an open group waits for more chunks.

    The group stays open until `close` is called, but not longer than *open_for* seconds. The limit prevents a deadlock: a
    callback may block the event loop with a statement that waits for the group to be loaded, and only the event loop
    calls `close`.
    """

    def __init__(
        self, chunk: ValidatedChunk, *, open_for: float = 0.0, remaining_rows: int | None = None
    ) -> None:
        self.chunks = [chunk]
        self.remaining_rows = remaining_rows
        """The number of rows that the export still has to insert, if no other task needs a processor; otherwise None."""
        self.rows = chunk.batch.rows
        """The number of rows to insert."""
        self.size = chunk.staged.size
        """The total size of the staged lines, in bytes."""
        self.longest = chunk.longest
        """The size of the longest line, in bytes."""
        self.is_open = open_for > 0
        """Whether chunks may be added."""
        self._end = monotonic() + open_for
        self._changed = Condition()

    def add(self, chunk: ValidatedChunk) -> bool:
        """Add a chunk if the group is open. Return whether it was added."""
        with self._changed:
            if not self.is_open:  # an iterator may already have reached the end
                return False
            self.chunks.append(chunk)
            self.rows += chunk.batch.rows
            self.size += chunk.staged.size
            self.longest = max(self.longest, chunk.longest)
            self._changed.notify_all()
            return True

    def close(self) -> None:
        """Declare that no more chunks will be added."""
        with self._changed:
            self.is_open = False
            self._changed.notify_all()

    def wait_until_closed(self) -> None:
        """Wait until the group is closed."""
        with self._changed:
            while self.is_open:
                self._wait()

    def __iter__(self) -> Iterator[ValidatedChunk]:
        for number in count():
            with self._changed:
                while number == len(self.chunks) and self.is_open:
                    self._wait()
                if number == len(self.chunks):
                    return
            yield self.chunks[number]

    def _wait(self) -> None:
        """Wait for a change, or until the time is up."""
        if not self._changed.wait(max(0.0, self._end - monotonic())):
            self.is_open = False
