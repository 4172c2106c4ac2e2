"""A thread-safe byte budget."""

from threading import Lock


class MemoryBudget:
    """A number of bytes from which several threads reserve shares."""

    def __init__(self, size: int) -> None:
        self._free = size
        self._lock = Lock()

    def reserve(self, size: int) -> bool:
        """Reserve *size* bytes if that many are free. Return whether they were reserved."""
        with self._lock:
            if size > self._free:
                return False
            self._free -= size
            return True

    def release(self, size: int) -> None:
        """Release *size* reserved bytes."""
        with self._lock:
            self._free += size
