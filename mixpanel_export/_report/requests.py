"""The requests of the last export, the requests and bytes on each day, and the ledger. Pure functions of ledger rows."""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from datetime import date, datetime

from mixpanel_export._model import Batch
from mixpanel_export._report.model import Phase, Timeline, TimelineRow, Usage

PHASES = ("quota wait", "connection", "first byte", "transfer", "validation", "commit")
"""The phases of a request, in order."""

_MAX_ROWS = 60  # of a timeline
_MAX_BATCHES = 200  # of the ledger


def timeline_of(batches: Sequence[Batch]) -> Timeline:
    """Return the timeline of the last export. Batches from older releases do not have times."""
    last = max((batch.export for batch in batches if batch.export is not None), default=None)
    rows = sorted(
        ((batch.queued_at, batch) for batch in batches if batch.export == last and batch.queued_at),
        key=lambda row: (row[0], row[1].number),
    )
    if last is None or not rows:
        return Timeline((), 0, None, 0.0)
    started_at = rows[0][0]
    ends = [batch.finished for _, batch in rows if batch.finished]
    return Timeline(
        rows=tuple(TimelineRow(batch, tuple(_phases(batch, started_at))) for _, batch in rows[:_MAX_ROWS]),
        others=max(0, len(rows) - _MAX_ROWS),
        started_at=started_at,
        seconds=(max(ends, default=started_at) - started_at).total_seconds(),
    )


def _phases(batch: Batch, started_at: datetime) -> Iterator[Phase]:
    """Yield the phases of a batch's last request. The phase in which the request failed ends when the batch ends."""
    steps = (
        ("quota wait", batch.queued_at, batch.connecting_at),
        ("connection", batch.connecting_at, batch.connected_at),
        ("quota wait", batch.connected_at, batch.requested_at),
        ("first byte", batch.requested_at, batch.first_byte_at),
        ("transfer", batch.first_byte_at, batch.received_at),
        ("validation", batch.received_at, batch.validated_at),
        ("commit", batch.validated_at, batch.finished),
    )
    for name, begin, end in steps:
        phase_end = end or batch.finished
        if begin and phase_end and phase_end >= begin:
            yield Phase(name, (begin - started_at).total_seconds(), (phase_end - started_at).total_seconds())
        if not end:
            return


def usage_of(batches: Sequence[Batch]) -> tuple[Usage, ...]:
    """Return the requests and bytes of each UTC day. A batch counts on the day on which its last request was sent."""
    requests: defaultdict[date, int] = defaultdict(int)
    sizes: defaultdict[date, int] = defaultdict(int)
    for batch in batches:
        if batch.requested_at:
            requests[batch.requested_at.date()] += batch.attempts
            sizes[batch.requested_at.date()] += batch.bytes_read
    return tuple(Usage(day, requests[day], sizes[day]) for day in sorted(requests))


def ledger_of(batches: Sequence[Batch]) -> tuple[Batch, ...]:
    """Return the newest batches, newest first."""
    return tuple(sorted(batches, key=lambda batch: batch.number, reverse=True)[:_MAX_BATCHES])
