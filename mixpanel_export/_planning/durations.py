"""Predicts from earlier batches how long one request for all days takes. Pure functions."""

from collections.abc import Iterable

from mixpanel_export._model import Batch

_NEWEST = 10  # batches that count, because projects grow


def expected_seconds(days: int, batches: Iterable[Batch]) -> float | None:
    """Return how many seconds one request for *days* days takes at most, or None if no earlier batch tells.

    The slowest of the newest batches counts, from its request to its commit. So its latency counts for each of its days,
    and the prediction is too long rather than too short.
    """
    timed = [
        (batch.number, (batch.finished - batch.requested_at).total_seconds() / batch.days.length)
        for batch in batches
        if batch.status in {"complete", "open"} and batch.finished and batch.requested_at
    ]
    newest = sorted(timed)[-_NEWEST:]
    return days * max(seconds for _, seconds in newest) if newest else None
