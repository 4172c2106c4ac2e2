"""Memory that several parts of an export share, counted by each as it takes and gives back."""

from threading import Lock


class Room:
    """So many bytes; threads may share them."""

    def __init__(self, size: int) -> None:
        self._left = size
        self._counting = Lock()

    def take(self, size: int) -> bool:
        """Take so many bytes, if they are there."""
        with self._counting:
            if size > self._left:
                return False
            self._left -= size
            return True

    def give_back(self, size: int) -> None:
        """Give back what was taken."""
        with self._counting:
            self._left += size
