"""Brings a table up to date. Fetches new days, and days that may have changed in Mixpanel."""

from collections.abc import Callable, Iterable
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from functools import partial
from pathlib import Path

import httpx

from mixpanel_export._database.connection import Connection
from mixpanel_export._database.ledger import read_batches
from mixpanel_export._database.path import has_content
from mixpanel_export._database.schema import check_ledger, name_in_database
from mixpanel_export._database.sync_changes import read_kept
from mixpanel_export._database.target_days import read_targets
from mixpanel_export._export.callbacks import Callbacks
from mixpanel_export._export.engine import Outcome, run
from mixpanel_export._export.job import ExportArguments, Job, SyncSettings, checked_job
from mixpanel_export._export.tuning import DEFAULT_TUNING, Tuning
from mixpanel_export._model import Batch, Chunk
from mixpanel_export._planning.days import resolve_day
from mixpanel_export._planning.refresh import Refresh
from mixpanel_export._source.parameters import Timeouts
from mixpanel_export._timezones import in_zone
from mixpanel_export._tracebacks import short_tracebacks_async
from mixpanel_export.changes import SyncResult
from mixpanel_export.credentials import Credentials
from mixpanel_export.errors import ArgumentError
from mixpanel_export.results import BatchProgress, Progress

_MAX_LOOKBACK = 36_525  # days
_BUDGET_DIVISOR = 3  # a sync uses at most a third of the hourly quota to refetch days


@short_tracebacks_async
async def sync_events(
    db: str | Path,
    table: str = "events",
    *,
    since: str | date | None = None,
    lookback: int = 5,
    budget: int | None = None,
    accept_loss: bool = False,
    credentials: Credentials | None = None,
    events: Iterable[str] | None = None,
    where: str | None = None,
    dedupe: bool = True,
    max_workers: int = 10,
    retries: int = 5,
    max_wait: float = 86_400.0,
    on_batch_complete: Callable[[BatchProgress], object] | None = None,
    on_progress: Callable[[Progress], object] | None = None,
    api_url: str | None = None,
    per_second: int | None = None,
    per_hour: int | None = None,
    timeouts: Timeouts | None = None,
    project_timezone: str | None = None,
    http2: bool = False,
    flatten: bool = False,
    wait: float = 0.0,
    transport: httpx.AsyncBaseTransport | None = None,
    now: Callable[[], datetime] = lambda: datetime.now(UTC),
) -> SyncResult:
    """Bring a table of the DuckDB file *db* up to date, through yesterday. Call it every night.

    A sync fetches days that are missing, failed or open. It also fetches the last *lookback* days, because events arrive
    late, and part of the last 30 days, so that each of these days is refetched about once a week. Whole batches are
    replaced. The result counts the events that were added, removed or re-keyed (moved to another `distinct_id`), and the
    `_sync_changes` table stores these counts.

    If a new response for a day has fewer than half as many events as the table has for that day, the old events are
    kept. The result reports the day in `kept`, in this sync and in each later one, until a new response has enough events
    or *accept_loss* is true.

    *since* is the first day, in the same forms as in `export_events`. It is required for a table without target days.
    Later syncs take the first day from the file. If *since* is before that day, the days in between are added
    to the table. A later *since* has no effect. The default *lookback* is 5 days, the longest delay that Mixpanel accepts from
    clients. The weekly refetch finds events that are imported later.

    *budget* is the maximum number of requests for refetching days. The default is a third of *per_hour*. Missing, failed
    and open days are always fetched, and their requests count against the budget. If *accept_loss* is true, the days in
    `kept` are refetched, and their events are replaced even if the new response has fewer. If another export or process is
    using the file, the sync waits for up to *wait* seconds. See `export_events` for the other arguments.

    Raises:
        ArgumentError: An argument is out of range, or *since* is missing. No request was sent.
        MixpanelDataError: See `export_events`.

    Example:
        result = await sync_events("events.duckdb", since="2024-01-01")
        print(result.added, result.removed, result.rekeyed, result.kept)
    """
    arguments = ExportArguments(
        from_date="yesterday",
        to_date="yesterday",
        db=db,
        table=table,
        credentials=credentials,
        events=events,
        where=where,
        max_workers=max_workers,
        mode="resume",
        dedupe=dedupe,
        flatten=flatten,
        retries=retries,
        max_wait=max_wait,
        api_url=api_url,
        per_second=per_second,
        per_hour=per_hour,
        timeouts=timeouts,
        project_timezone=project_timezone,
        wait=wait,
        now=now,
    )
    return await run_sync_job(
        arguments,
        Callbacks(on_batch_complete, on_progress),
        since=since,
        refresh=Refresh(lookback=lookback, budget=budget),
        accept_loss=accept_loss,
        http2=http2,
        transport=transport,
    )


async def run_sync_job(
    arguments: ExportArguments,
    callbacks: Callbacks,
    *,
    since: str | date | None,
    refresh: Refresh,
    accept_loss: bool = False,
    http2: bool = False,
    transport: httpx.AsyncBaseTransport | None = None,
    tuning: Tuning = DEFAULT_TUNING,
) -> SyncResult:
    """Run a sync. The days in *arguments* have no effect. Raises the same errors as `sync_events`."""
    if not 0 <= refresh.lookback <= _MAX_LOOKBACK:
        raise ArgumentError("lookback", f"must be between 0 and {_MAX_LOOKBACK} days, got {refresh.lookback}")
    if refresh.budget is not None and refresh.budget < 0:
        raise ArgumentError("budget", f"must be 0 or more, got {refresh.budget}")
    job = checked_job(arguments, tuning)
    per_hour = job.gate.statistics().per_hour
    if refresh.budget is None and per_hour:
        refresh = replace(refresh, budget=max(1, per_hour // _BUDGET_DIVISOR))
    if since is None and not has_content(job.path):
        raise _no_first_day(job)
    today = in_zone(job.now(), job.spec.zone).date()
    first = None if since is None else resolve_day(since, "since", today)
    prepare = partial(_complete_job, since=first, refresh=refresh, accept_loss=accept_loss)
    return _result(await run(job, callbacks, http2=http2, transport=transport, prepare=prepare))


def _complete_job(
    job: Job, connection: Connection, *, since: date | None, refresh: Refresh, accept_loss: bool
) -> Job:
    """Add settings from the file to the job: the range of days to sync, and the days whose latest response was rejected."""
    check_ledger(connection)
    table, selection = name_in_database(connection, job.spec.table), job.spec.selection
    batches = [batch for batch in read_batches(connection, table) if batch.selection == selection]
    target = read_targets(connection).get((table, selection))
    yesterday = in_zone(job.now(), job.spec.zone).date() - timedelta(days=1)
    recorded = target.days.first if target else _first_day(batches)
    first = min((day for day in (recorded, since) if day), default=None)
    if first is None:
        raise _no_first_day(job)
    if first > yesterday:
        raise ArgumentError(
            "since",
            f"{first} is after {yesterday} (yesterday), the last day that a sync fetches",
            advice="check the clock of this machine, or wait until the day is over",
        )
    kept = read_kept(connection, table, selection, batches)
    accepted = frozenset(kept) if accept_loss else frozenset[date]()
    checked = {day: change.checked_at for day, change in kept.items()}
    return replace(
        job,
        spec=replace(job.spec, days=Chunk(first, yesterday), accepted_losses=accepted),
        sync=SyncSettings(refresh=replace(refresh, accepted=accepted), checked=checked),
    )


def _no_first_day(job: Job) -> ArgumentError:
    return ArgumentError(
        "since",
        f"is required, because table {job.spec.table} has no exported days yet ({job.spec.selection})",
        advice="pass the first day to fetch, such as yesterday or 2024-01-31",
    )


def _first_day(batches: Iterable[Batch]) -> date | None:
    return min((batch.days.first for batch in batches if batch.status != "limited"), default=None)


def _result(outcome: Outcome) -> SyncResult:
    days = outcome.job.spec.days
    return SyncResult(
        table=outcome.result.table,
        days=(str(days.first), str(days.last)),
        fetched_days=sum(chunk.length for chunk in outcome.planned.chunks),
        requests=outcome.job.gate.statistics().requests,
        changes=tuple(sorted(outcome.changes, key=lambda change: change.day)),
        kept=outcome.kept,
        export=outcome.result,
    )
