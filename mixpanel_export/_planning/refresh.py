"""Plans a sync: which days it fetches again, besides those that `resume` fetches. Pure functions.

Events arrive late, identity merges change the `distinct_id` of old events, and deletions remove events. So a sync
fetches days again although the table has them:

- the lookback: the last few days, in every sync;
- the sweep: each day of the last 30, about once a week. Each sync takes a seventh of these batches, those that were
  checked longest ago.

Days are fetched in the batches that the table has, because only whole batches are replaced. Days of the lookback that
the table lacks become batches of one day.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime, timedelta

from mixpanel_export._model import Batch, Chunk
from mixpanel_export._planning.planner import Plan, plan

SWEEP_DAYS = 30
"""The number of days, up to the last one, that the sweep covers."""

SWEEP_PERIOD = 7
"""The number of days in which the sweep fetches each of its batches once."""

_LEEWAY = timedelta(hours=12)  # the runs of two nights do not begin at the same second


@dataclass(frozen=True, slots=True, kw_only=True)
class Refresh:
    """How much a sync fetches again."""

    lookback: int = 5
    """The number of last days that every sync fetches."""
    budget: int | None = None
    """The number of requests up to which batches are fetched again; None for no limit.

    Missing, failed and open days are always fetched. Their requests count.
    """
    accepted: frozenset[date] = frozenset()
    """Days whose batches are fetched in any case."""


def plan_sync(
    days: Chunk,
    *,
    batches: Sequence[Batch],
    checked: Mapping[date, datetime],
    refresh: Refresh,
    now: datetime,
    first_open_day: date,
    workers: int = 10,
    requests: int | None = 50,
) -> Plan:
    """Decide which of *days* a sync fetches, and in which chunks.

    *batches*, *workers*, *requests* and *first_open_day* are as in `plan`. *checked* has the time of the last check of
    days whose new answer was refused, so that the old batch is still there. *now* and these times are naive and in UTC.
    """
    recent = days.last - timedelta(days=refresh.lookback - 1)
    base = plan(
        days.first,
        days.last,
        batches=batches,
        skip_complete=True,
        workers=workers,
        requests=requests,
        first_open_day=min(first_open_day, recent),
    )
    candidates = [
        batch
        for batch in batches
        if batch.visible
        and batch.days.overlaps(days)
        and not any(batch.days.overlaps(chunk) for chunk in base.chunks)
    ]
    candidates.sort(key=lambda batch: (timedelta.max - _age(batch, checked, now), batch.days))
    accepted = [batch for batch in candidates if not refresh.accepted.isdisjoint(batch.days.dates)]
    others = [batch for batch in candidates if batch not in accepted]
    due = [batch for batch in others if batch.days.last >= recent]
    due += _sweep([batch for batch in others if batch.days.last < recent], days.last, checked, now)
    if refresh.budget is not None:
        due = due[: max(0, refresh.budget - len(base.chunks) - len(accepted))]
    return _extended(base, days, accepted + due)


def _sweep(
    batches: Sequence[Batch], last: date, checked: Mapping[date, datetime], now: datetime
) -> list[Batch]:
    """Return the batches that the sweep fetches now. *batches* are ordered by their last check.

    These are the batches that were checked a week ago or earlier, but at least a seventh of all in a day.
    """
    first = last - timedelta(days=SWEEP_DAYS - 1)
    swept = [batch for batch in batches if batch.days.last >= first]
    ages = [_age(batch, checked, now) for batch in swept]
    overdue = sum(age > timedelta(days=SWEEP_PERIOD) - _LEEWAY for age in ages)
    share = -(-len(swept) // SWEEP_PERIOD) - sum(age < _LEEWAY for age in ages)
    return swept[: max(overdue, share)]


def _age(batch: Batch, checked: Mapping[date, datetime], now: datetime) -> timedelta:
    """Return how long ago the batch was last compared with Mixpanel; a check in the future, by a wrong clock, is none."""
    checks = [checked[day] for day in batch.days.dates if day in checked]
    if batch.requested_at is not None:
        checks.append(batch.requested_at)
    return min((now - check for check in checks if check <= now), default=timedelta.max)


def _extended(base: Plan, days: Chunk, batches: Sequence[Batch]) -> Plan:
    """Return the plan *base*, with a chunk for each of *batches*."""
    chunks = [batch.days for batch in batches]
    largest_first = sorted(batches, key=lambda batch: -batch.rows)
    outside = [
        Chunk(first, last)
        for chunk in chunks
        for first, last in (
            (chunk.first, min(chunk.last, days.first - timedelta(days=1))),
            (max(chunk.first, days.last + timedelta(days=1)), chunk.last),
        )
        if first <= last
    ]
    return replace(
        base,
        chunks=tuple(sorted([*base.chunks, *chunks])),
        fetch_order=(*base.fetch_order, *(batch.days for batch in largest_first)),
        added=tuple(sorted([*base.added, *outside])),
        skipped=tuple(_without(base.skipped, chunks)),
    )


def _without(spans: Sequence[Chunk], chunks: Collection[Chunk]) -> list[Chunk]:
    """Return the days of *spans* that are in none of *chunks*, as runs of consecutive days."""
    runs: list[Chunk] = []
    for day in (day for span in spans for day in span.dates):
        if any(chunk.first <= day <= chunk.last for chunk in chunks):
            continue
        if runs and runs[-1].borders(Chunk(day, day)):
            runs[-1] = Chunk(runs[-1].first, day)
        else:
            runs.append(Chunk(day, day))
    return runs
