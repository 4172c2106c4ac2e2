"""Removes values of events from a report without examples. Pure functions."""

from dataclasses import replace

from mixpanel_export._model import Batch, Selection

_MAX_TEXT = 300  # characters of properties, a raw line or a reason


def failure_reason(error: str | None, *, examples: bool) -> str | None:
    """Return the reason why a batch failed.

    An error may quote a response, a value or a filter, but only after its first colon. So if *examples* is false, the
    reason ends before this colon.
    """
    if error is None:
        return None
    text = " ".join(error.split())
    return shorten(text) if examples else shorten(text.partition(": ")[0])


def for_report(batch: Batch, *, examples: bool) -> Batch:
    """Return *batch*. If *examples* is false, remove its filter and the parts of its error that may quote data."""
    selection = batch.selection if examples else Selection(batch.selection.project)
    return replace(batch, error=failure_reason(batch.error, examples=examples), selection=selection)


def shorten(text: str) -> str:
    """Return *text*, cut off after `_MAX_TEXT` characters."""
    return text if len(text) <= _MAX_TEXT else text[: _MAX_TEXT - 1] + "…"
