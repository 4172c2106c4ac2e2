"""The chunks of one transaction."""

from collections.abc import Iterator
from itertools import count
from threading import Condition

from mixpanel_export._writer.load import ValidatedChunk


class Group:
    """Chunks that are loaded in one transaction.

    A group may grow while its first chunks are loaded: whoever iterates over an open group waits for further chunks.
    """

    def __init__(self, chunk: ValidatedChunk, *, is_open: bool = False) -> None:
        self.chunks = [chunk]
        self.rows = chunk.batch.rows
        """The rows to be inserted."""
        self.size = chunk.staged.size
        """The bytes of the staged lines."""
        self.longest = chunk.longest
        """The bytes of the longest line."""
        self.is_open = is_open
        """Whether chunks may be added."""
        self._changed = Condition()

    def add(self, chunk: ValidatedChunk) -> bool:
        """Add a chunk if the group is open; return whether it was."""
        with self._changed:
            if not self._is_open:  # whoever iterates may have reached the end
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
        """Wait for `close`."""
        with self._changed:
            self._changed.wait_for(lambda: not self.is_open)

    def __iter__(self) -> Iterator[ValidatedChunk]:
        for number in count():
            with self._changed:
                while number == len(self.chunks) and self.is_open:
                    self._changed.wait()
                if number == len(self.chunks):
                    return
            yield self.chunks[number]
