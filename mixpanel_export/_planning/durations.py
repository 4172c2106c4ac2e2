"""Uses earlier batches to predict how long one request for all days takes. Pure functions."""

from collections.abc import Iterable

from mixpanel_export._model import Batch

_NEWEST_BATCHES = 10  # older batches are not used, because projects grow


def expected_seconds(days: int, batches: Iterable[Batch]) -> float | None:
    """Return the expected maximum duration of one request, in seconds; None if there are no earlier batches.

    *days* is the number of days that the request covers. The estimate extrapolates the time that the slowest of the
    newest batches took from its request to its commit. This time includes the latency of the request, so the estimate
    is more likely too long than too short.
    """
    timed = [
        (batch.number, (batch.finished - batch.requested_at).total_seconds() / batch.days.length)
        for batch in batches
        if batch.status in {"complete", "open"} and batch.finished and batch.requested_at
    ]
    newest = sorted(timed)[-_NEWEST_BATCHES:]
    return days * max(seconds for _, seconds in newest) if newest else None
