"""Predicts from earlier batches how long one request for all days takes. Pure functions."""

from collections.abc import Iterable

from mixpanel_export._model import Batch

_NEWEST = 10  # newest batches that are used, because projects grow


def expected_seconds(days: int, batches: Iterable[Batch]) -> float | None:
    """Return an upper estimate of the seconds that one request for *days* days takes; None without earlier batches.

    It extrapolates the slowest of the newest batches, from its request to its commit. The latency of that batch is
    extrapolated too, so the estimate is too long rather than too short.
    """
    timed = [
        (batch.number, (batch.finished - batch.requested_at).total_seconds() / batch.days.length)
        for batch in batches
        if batch.status in {"complete", "open"} and batch.finished and batch.requested_at
    ]
    newest = sorted(timed)[-_NEWEST:]
    return days * max(seconds for _, seconds in newest) if newest else None
