"""Removes values of events from a report without examples. Pure functions."""

_MAX_TEXT = 300  # characters of properties, a raw line or a reason


def reason_of(error: str | None, *, examples: bool) -> str | None:
    """Return why a batch failed.

    An error may quote a response, a value or a filter, but only after its first colon. So if *examples* is false, the
    reason ends there.
    """
    if error is None:
        return None
    text = " ".join(error.split())
    return shortened(text) if examples else shortened(text.partition(": ")[0])


def shortened(text: str) -> str:
    """Return *text*, cut off after `_MAX_TEXT` characters."""
    return text if len(text) <= _MAX_TEXT else text[: _MAX_TEXT - 1] + "…"
