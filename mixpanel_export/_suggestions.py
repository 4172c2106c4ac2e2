"""Suggests a similar name for an unknown name."""

from collections.abc import Iterable


def closest(name: str, names: Iterable[str]) -> str | None:
    """Return the entry of *names* most similar to *name*, ignoring case; None if no entry is similar."""
    from difflib import get_close_matches  # noqa: PLC0415 - only after a mistake

    by_text = {known.casefold(): known for known in names}
    matches = get_close_matches(name.casefold(), by_text, n=1, cutoff=0.7)
    return by_text[matches[0]] if matches else None


def did_you_mean(name: str, names: Iterable[str]) -> str:
    """Return a suggestion for *name*, to be followed by other advice; empty if no name is similar."""
    match = closest(name, names)
    return f"did you mean {match!r}? Otherwise " if match else ""
