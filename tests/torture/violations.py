"""The error of the torture: a guarantee of the exporter was broken."""


class ViolationError(Exception):
    """A guarantee was broken; *lost* and *doubled* count the affected events, if any."""

    def __init__(self, message: str, *, lost: int = 0, doubled: int = 0) -> None:
        super().__init__(message)
        self.lost = lost
        self.doubled = doubled


def require(condition: object, message: str, *details: object) -> None:
    """Raise `ViolationError` unless *condition* is true."""
    if not condition:
        raise ViolationError(message + "".join(f"; {detail}" for detail in details))
