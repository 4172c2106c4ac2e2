"""The async entry point: compares a table with Mixpanel's own counts."""

import math
import time
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import TypeVar

import httpx

from mixpanel_export._concurrency import entered_in_thread, in_task, in_thread
from mixpanel_export._database.connection import Connection
from mixpanel_export._model import Chunk
from mixpanel_export._quota.gate import Gate, gate_for
from mixpanel_export._quota.limits import Quota
from mixpanel_export._source.check import sends_events
from mixpanel_export._source.client import new_client
from mixpanel_export._source.event_counts import Counts, common_names, event_counts, name_groups
from mixpanel_export._source.query_api import QueryApi
from mixpanel_export._tracebacks import short_tracebacks_async
from mixpanel_export._verify.compare import (
    Difference,
    Evidence,
    differences,
    explain,
    failed_days,
    likely_offset,
)
from mixpanel_export._verify.job import Job, VerifyArguments, checked_job
from mixpanel_export._verify.scope import Scope, refetch_days, scope_of, skipped_days
from mixpanel_export._verify.table_counts import (
    Cell,
    TableCounts,
    TableCoverage,
    connect_read_only,
    read,
    read_counts,
    read_coverage,
    read_hours,
    read_mergeable,
)
from mixpanel_export.credentials import Credentials
from mixpanel_export.errors import AdvisoryWarning
from mixpanel_export.verification import CountDifference, VerifyResult

T = TypeVar("T")

_LONG_WAIT = 60.0  # seconds
_LONGEST_EXPORT = 100  # days in one request
_MARGIN = timedelta(days=1)


@short_tracebacks_async
async def verify_events(
    db: str | Path,
    table: str = "events",
    *,
    from_date: str | date | None = None,
    to_date: str | date | None = None,
    credentials: Credentials | None = None,
    reporting_timezone: str | None = None,
    tolerance: float = 0.0,
    ignore: Iterable[str] = (),
    retries: int = 5,
    max_wait: float = 86_400.0,
    api_url: str | None = None,
    per_hour: int | None = None,
    transport: httpx.AsyncBaseTransport | None = None,
    now: Callable[[], datetime] = lambda: datetime.now(UTC),
) -> VerifyResult:
    """Compare the rows of a table with Mixpanel's own counts, for each event name and day.

    The counts come from the Query API (`GET /api/query/events`, with `type=general` and `unit=day`), which has its own
    quota: 60 requests per hour, 5 at a time. One request covers up to 200 names. Another request asks for the most
    common names, to find events that are missing from the table altogether. An export request then shows whether
    Mixpanel exports these events. The table is not changed.

    Mixpanel documents these requests and responses. It also documents that reports count events with the same name,
    `distinct_id`, `time` and `$insert_id` once, and that its compaction keeps only one of the events that differ only in
    their time within a day. The time of the compaction is unknown. We infer that the Query API counts like reports, and
    that its days are in the project's reporting time zone.

    A difference can be explained by these rules, by an early export, by events without a time, or by the age of the day,
    because Mixpanel may change days over 30 days old. Explained differences are reported with an `Explanation`, and do not
    make their day fail.

    Args:
        db: The path of the DuckDB file.
        table: The table name. Its exports may select event names, but not use a filter.
        from_date: The first day, as in `export_events`. None means 30 days ago.
        to_date: The last day, inclusive. None means yesterday. Days that the table does not have are not compared.
        credentials: The credentials. None reads them from the environment or the configuration file.
        reporting_timezone: The IANA name of the time zone in the project's settings, in which Mixpanel counts days. None
            means the time zone of the table's days: `project_timezone`, or UTC. It does not change `event_time`.
        tolerance: The share of a day's events, from 0 to 1, that may differ without an explanation.
        ignore: Event names not to compare.
        retries: The maximum number of retries of a failed request.
        max_wait: The maximum total wait for the hourly quota, in seconds. A wait of over a minute causes a warning.
        api_url: The server, as in `export_events`.
        per_hour: The maximum number of queries per hour; 0 means no limit. None means `MPX_QUERY_PER_HOUR`, or 60.
        transport: Replaces the network, for tests.
        now: The clock that decides which days are over.

    Raises:
        ValueError: An argument is out of range, or the table has none of the days.
        ConfigError: The credentials, proxies or certificates cannot be used.
        DatabaseError, TableError: The file or the table cannot be read.
        SelectionError: The table was exported with a filter, or has no events of the project.
        RateLimitError: The quota would delay a request for longer than *max_wait*.
        APIError: A request failed.

    Example:
        result = await verify_events("events.duckdb")
        print(result.verified, result.unexplained)
    """
    arguments = VerifyArguments(
        db=db,
        table=table,
        from_date=from_date,
        to_date=to_date,
        credentials=credentials,
        reporting_timezone=reporting_timezone,
        tolerance=tolerance,
        ignore=ignore,
        retries=retries,
        max_wait=max_wait,
        api_url=api_url,
        per_hour=per_hour,
        now=now,
    )
    return await run_job(checked_job(arguments), transport)


async def run_job(job: Job, transport: httpx.AsyncBaseTransport | None = None) -> VerifyResult:
    """Run a verification in a separate task. The result and the errors are the same as for `verify_events`."""
    return await in_task(partial(_verify, job, transport))


@dataclass(frozen=True, slots=True)
class _Inputs:
    """The data that a verification compares."""

    job: Job
    table: TableCoverage
    scope: Scope
    counts: TableCounts
    events: Counts
    """Mixpanel's counts."""


async def _verify(job: Job, transport: httpx.AsyncBaseTransport | None) -> VerifyResult:
    started = time.monotonic()
    table = await _read(
        job, partial(read_coverage, table=job.arguments.table, project=job.credentials.project_id)
    )
    scope = scope_of(
        table.coverages, job.arguments.from_date, job.arguments.to_date, job.zone, job.arguments.now()
    )
    counts = await _read(job, partial(read_counts, table=table, days=scope.days, zone=scope.zone))
    async with new_client(job.parameters.url, transport) as client:
        purpose = f"verification of table {job.arguments.table} of {job.path.absolute()}"
        gate = gate_for(job.quota, job.parameters.url, job.credentials.project_id, job.pauses, purpose)
        api = QueryApi(
            client,
            job.parameters,
            gate,
            retries=job.arguments.retries,
            pauses=job.pauses,
            now=job.arguments.now,
        )
        await _warn_of_wait(gate)
        events = await _mixpanel_counts(job, api, scope, counts)
    inputs = _Inputs(job, table, scope, counts, events)
    reported = await _differences(inputs, transport)
    result = _result(inputs, reported)
    offset = await _likely_offset(inputs, reported)
    seconds = time.monotonic() - started
    return replace(result, utc_offset=offset, requests=api.requests, duration_seconds=seconds)


async def _warn_of_wait(gate: Gate) -> None:
    """Warn if the quota delays the first query by more than a minute, and the call waits for it."""
    await gate.refresh()
    state = gate.statistics()
    if _LONG_WAIT < state.next_slot_in <= state.max_wait_left:
        warnings.warn(
            AdvisoryWarning(
                f"the quota does not allow a query for another {math.ceil(state.next_slot_in / 60)} min",
                advice="wait, or lower $max_wait",
                argument="max_wait",
            ),
            stacklevel=2,
        )


async def _read(job: Job, call: Callable[[Connection], T]) -> T:
    """Return the result of *call*, which reads the file in a worker thread. The file is closed afterwards."""
    async with entered_in_thread(connect_read_only(job.path)) as connection:
        return await in_thread(partial(read, job.path, call, connection), connection.interrupt)


async def _mixpanel_counts(job: Job, api: QueryApi, scope: Scope, counts: TableCounts) -> Counts:
    """Return Mixpanel's counts of the names in the table, and of common names that the table lacks."""
    selected = {name for part in scope.parts for name in part.events or ()}
    names = {name for name in counts.names | selected if scope.includes(name)} - job.ignored
    events = await event_counts(api, sorted(names), scope.days)
    if any(part.events is None for part in scope.parts):
        others = set(await common_names(api, scope.days)) - names - job.ignored
        events |= await event_counts(api, sorted(others), scope.days)
    return events


async def _differences(inputs: _Inputs, transport: httpx.AsyncBaseTransport | None) -> list[CountDifference]:
    """Return the differences of the days that are reported, each with its explanation, in order."""
    job, scope, counts = inputs.job, inputs.scope, inputs.counts
    by_part = [differences(part, counts.rows, inputs.events, job.ignored) for part in scope.parts]
    all_differences = [each for part_differences in by_part for each in part_differences]
    mergeable: Mapping[Cell, int] = {}
    if any(each.surplus < 0 for each in all_differences):
        read_cells = partial(read_mergeable, table=inputs.table, days=scope.days, zone=scope.zone)
        mergeable = await _read(job, read_cells)
    hidden = await _hidden_names(inputs, all_differences, transport)
    evidence = Evidence(counts, mergeable, hidden)
    reported = [
        difference
        for part, part_differences in zip(scope.parts, by_part, strict=True)
        for difference in explain(part, part_differences, evidence)
    ]
    return sorted(reported, key=lambda difference: (difference.day, difference.event))


def _result(inputs: _Inputs, reported: Sequence[CountDifference]) -> VerifyResult:
    """Return the result. The offset, the number of requests and the duration are not filled in yet."""
    job, scope, counts, events = inputs.job, inputs.scope, inputs.counts, inputs.events
    compared = _reported_cells(scope, {*counts.rows, *events}, job.ignored)
    failed = failed_days(reported, {cell: events.get(cell, 0) for cell in compared}, job.arguments.tolerance)
    return VerifyResult(
        table=inputs.table.table,
        from_date=str(scope.requested.first),
        to_date=str(scope.requested.last),
        timezone=scope.zone,
        days=len(scope.reported),
        events=len({name for name, _ in compared}),
        table_rows=sum(counts.rows.get(cell, 0) for cell in compared),
        mixpanel_events=sum(events.get(cell, 0) for cell in compared),
        differences=tuple(reported),
        failed_days=tuple(map(str, failed)),
        skipped_date_ranges=_as_text(skipped_days(scope)),
        refetch_date_ranges=_as_text(refetch_days(scope, failed)),
        utc_offset=None,
        requests=0,
        duration_seconds=0.0,
    )


async def _hidden_names(
    inputs: _Inputs, all_differences: Sequence[Difference], transport: httpx.AsyncBaseTransport | None
) -> set[str]:
    """Return the names that Mixpanel counts but does not export."""
    job, reported = inputs.job, inputs.scope.reported
    missing = [
        each for each in all_differences if each.name not in inputs.counts.names and each.day.day in reported
    ]
    hidden: set[str] = set()
    for names in name_groups(sorted({each.name for each in missing})):
        days = [each.day.table_days for each in missing if each.name in names]
        last = max(chunk.last for chunk in days)
        first = max(min(chunk.first for chunk in days), last - timedelta(days=_LONGEST_EXPORT - 1))
        if not await sends_events(
            job.credentials,
            names,
            Chunk(first, last),
            Quota.resolved(max_wait=job.arguments.max_wait),
            retries=job.arguments.retries,
            api_url=job.arguments.api_url,
            transport=transport,
            now=job.arguments.now,
        ):
            hidden.update(names)
    return hidden


async def _likely_offset(inputs: _Inputs, reported: Sequence[CountDifference]) -> float | None:
    """Return the offset from UTC at which unexplained differences disappear, if there is one."""
    inner = inputs.scope.reported[1:-1]  # the table also has the days before and after these
    days = {str(day) for day in inner}
    unexplained = [each for each in reported if each.explanation is None and each.day in days]
    if not unexplained:
        return None
    names = {each.event for each in unexplained}
    around = Chunk(inner[0] - _MARGIN, inner[-1] + _MARGIN)
    hours = await _read(inputs.job, partial(read_hours, table=inputs.table, days=around, names=names))
    return likely_offset(hours, inputs.events, inner, sum(abs(each.difference) for each in unexplained))


def _reported_cells(scope: Scope, cells: Iterable[Cell], ignored: frozenset[str]) -> set[Cell]:
    return {
        (name, day)
        for part in scope.parts
        for name, day in cells
        if part.reports(day) and part.includes(name) and name not in ignored
    }


def _as_text(days: Iterable[Chunk]) -> tuple[tuple[str, str], ...]:
    return tuple((str(chunk.first), str(chunk.last)) for chunk in days)
