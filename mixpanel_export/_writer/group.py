"""The chunks of one transaction."""

from collections.abc import Iterator
from itertools import count
from threading import Condition
from time import monotonic

from mixpanel_export._writer.load import ValidatedChunk


class Group:
    """Chunks that are loaded in one transaction.

    A group may grow while its first chunks are loaded. Iteration over an open group waits for further chunks.

    The group is open until `close`, for *open_for* seconds at most. The limit prevents a deadlock: a callback may block
    the event loop with a statement that waits for the load of the group, and only the event loop calls `close`.
    """

    def __init__(
        self, chunk: ValidatedChunk, *, open_for: float = 0.0, on_all_processors: bool = False
    ) -> None:
        self.chunks = [chunk]
        self.on_all_processors = on_all_processors
        """Whether the load may use all processors, because no other task of the export needs one."""
        self.rows = chunk.batch.rows
        """The rows to be inserted."""
        self.size = chunk.staged.size
        """The bytes of the staged lines."""
        self.longest = chunk.longest
        """The bytes of the longest line."""
        self.is_open = open_for > 0
        """Whether chunks may be added."""
        self._end = monotonic() + open_for
        self._changed = Condition()

    def add(self, chunk: ValidatedChunk) -> bool:
        """Add a chunk if the group is open. Return whether it was added."""
        with self._changed:
            if not self.is_open:  # the iterator may have reached the end
                return False
            self.chunks.append(chunk)
            self.rows += chunk.batch.rows
            self.size += chunk.staged.size
            self.longest = max(self.longest, chunk.longest)
            self._changed.notify_all()
            return True

    def close(self) -> None:
        """Declare that no chunk will be added."""
        with self._changed:
            self.is_open = False
            self._changed.notify_all()

    def wait_until_closed(self) -> None:
        """Wait for the end of the group."""
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
        """Wait for a change, or for the end of the time."""
        if not self._changed.wait(max(0.0, self._end - monotonic())):
            self.is_open = False
