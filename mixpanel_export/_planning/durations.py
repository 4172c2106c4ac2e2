"""Predicts the duration of one request for all days from earlier batches. Pure functions."""

from collections.abc import Iterable

from mixpanel_export._model import Batch

_NEWEST = 10  # only the newest batches are used, because projects grow


def expected_seconds(days: int, batches: Iterable[Batch]) -> float | None:
    """Return an upper estimate, in seconds, for one request that covers this many *days*; None if there are no earlier batches.

    The estimate extrapolates the slowest of the newest batches, from its request to its commit. This time
    includes the latency of the request, so the estimate is more likely too long than too short.
    """
    timed = [
        (batch.number, (batch.finished - batch.requested_at).total_seconds() / batch.days.length)
        for batch in batches
        if batch.status in {"complete", "open"} and batch.finished and batch.requested_at
    ]
    newest = sorted(timed)[-_NEWEST:]
    return days * max(seconds for _, seconds in newest) if newest else None
