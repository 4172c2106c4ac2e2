"""Removes values of events from a report without examples. Pure functions."""

_SHOWN = 300  # maximum characters of properties, a raw line or a reason


def reason_of(error: str | None, *, examples: bool) -> str | None:
    """Return why a batch failed.

    An error may quote a response, a value or a filter, but only after its first colon. So if *examples* is false, the
    reason ends there.
    """
    if error is None:
        return None
    text = " ".join(error.split())
    return beginning(text) if examples else beginning(text.partition(": ")[0])


def beginning(text: str) -> str:
    """Return the start of *text*."""
    return text if len(text) <= _SHOWN else text[: _SHOWN - 1] + "…"
