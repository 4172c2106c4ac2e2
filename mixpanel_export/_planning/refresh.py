"""Plans a sync: the days that it refetches, in addition to the days that `resume` fetches. Pure functions.

Events arrive late, identity merges change the `distinct_id` of old events, and deletions remove events. So a sync
refetches days that are already in the table:

- The lookback refetches the last few days in every sync.
- The sweep refetches each of the last 30 days about once a week. Each sync refetches one seventh of the batches in this
  range, starting with the batches that were checked longest ago.

Whole batches are refetched, because only whole batches can be replaced. Days of the lookback that are missing from the
table become batches of one day. Earlier missing days are planned as for an export: if the project is small, one request
fetches all of them.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime, timedelta

from mixpanel_export._model import Batch, Chunk
from mixpanel_export._planning.planner import Plan, plan

SWEEP_DAYS = 30
"""The sweep covers this many days, up to the last day."""

SWEEP_PERIOD = 7
"""The sweep refetches each of its batches once in this many days."""

_LEEWAY = timedelta(hours=12)  # nightly syncs do not start at exactly the same time


@dataclass(frozen=True, slots=True, kw_only=True)
class Refresh:
    """The settings that determine the days that a sync refetches."""

    lookback: int = 5
    """The number of most recent days that every sync refetches."""
    budget: int | None = None
    """The maximum number of requests for refetching batches. None means no limit.

    Missing, failed and open days are always fetched, and their requests count against the budget.
    """
    accepted: frozenset[date] = frozenset()
    """Days whose batches are always refetched."""


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
    """Decide which of *days* a sync fetches, and divide them into chunks.

    See `plan` for *batches*, *workers*, *requests* and *first_open_day*. *checked* contains the days whose new response
    was rejected, each with the time of the last check. The table still has the old batches of these days. *now* and the
    times in *checked* are naive and in UTC.
    """
    recent = days.last - timedelta(days=refresh.lookback - 1)
    first_single_day = max(recent, days.last - timedelta(days=SWEEP_DAYS - 1))
    base = plan(
        days.first,
        days.last,
        batches=batches,
        skip_complete=True,
        workers=workers,
        requests=requests,
        first_open_day=min(first_open_day, first_single_day),
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
    """Return the batches that the sweep refetches now. *batches* is sorted by the time of the last check, oldest first.

    The result contains all batches that were checked a week ago or earlier. Each day, the sweep refetches at least one
    seventh of its batches.
    """
    first = last - timedelta(days=SWEEP_DAYS - 1)
    swept = [batch for batch in batches if batch.days.last >= first]
    ages = [_age(batch, checked, now) for batch in swept]
    overdue = sum(age > timedelta(days=SWEEP_PERIOD) - _LEEWAY for age in ages)
    share = -(-len(swept) // SWEEP_PERIOD) - sum(age < _LEEWAY for age in ages)
    return swept[: max(overdue, share)]


def _age(batch: Batch, checked: Mapping[date, datetime], now: datetime) -> timedelta:
    """Return the time since the batch was last compared with Mixpanel.

    Checks in the future are ignored, because they come from a wrong clock.
    """
    checks = [checked[day] for day in batch.days.dates if day in checked]
    if batch.requested_at is not None:
        checks.append(batch.requested_at)
    return min((now - check for check in checks if check <= now), default=timedelta.max)


def _extended(base: Plan, days: Chunk, batches: Sequence[Batch]) -> Plan:
    """Return *base* plus a chunk for each of *batches*."""
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
    """Return the days of *spans* that are not in any of *chunks*, as runs of consecutive days."""
    runs: list[Chunk] = []
    for day in (day for span in spans for day in span.dates):
        if any(chunk.first <= day <= chunk.last for chunk in chunks):
            continue
        if runs and runs[-1].borders(Chunk(day, day)):
            runs[-1] = Chunk(runs[-1].first, day)
        else:
            runs.append(Chunk(day, day))
    return runs
