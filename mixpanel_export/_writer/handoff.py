"""Passes chunks from the thread that commits them to the thread that consumes them, one at a time."""

from threading import Condition

from mixpanel_export._concurrency import InterruptedCall
from mixpanel_export._writer.load import ValidatedChunk

_POLL_INTERVAL = 0.5  # seconds; some systems deliver Ctrl-C to a waiting thread only between two waits


class Handoff:
    """Holds one chunk. The committing thread waits until the consumer has released the chunk."""

    def __init__(self) -> None:
        self._changed = Condition()
        self._chunk: ValidatedChunk | None = None
        self._is_taken = False
        self._is_interrupted = False
        self._has_ended = False

    def offer(self, chunk: ValidatedChunk) -> None:
        """Wait until the consumer has taken the chunk and released it.

        Raises:
            InterruptedCall: `interrupt` was called before the consumer took the chunk.
        """
        with self._changed:
            self._chunk = chunk
            self._changed.notify_all()
            while self._chunk is not None:
                if self._is_interrupted and not self._is_taken:
                    self._chunk = None
                    raise InterruptedCall
                self._changed.wait()

    def interrupt(self) -> None:
        """Withdraw the chunk, unless it is taken. A taken chunk stays readable until the consumer releases it."""
        with self._changed:
            self._is_interrupted = True
            self._changed.notify_all()

    def end(self) -> None:
        """Declare that no more chunks will be offered."""
        with self._changed:
            self._has_ended = True
            self._changed.notify_all()

    def take(self) -> ValidatedChunk | None:
        """Release the previous chunk, and wait for the next one. Return None if there are no more."""
        self.release()
        with self._changed:
            while not self._has_ended and (self._chunk is None or self._is_interrupted):
                self._changed.wait(_POLL_INTERVAL)
            self._is_taken = self._chunk is not None
            return self._chunk

    def release(self) -> None:
        """Release the current chunk, if any. Its files are then removed."""
        with self._changed:
            if self._is_taken:
                self._chunk, self._is_taken = None, False
                self._changed.notify_all()
