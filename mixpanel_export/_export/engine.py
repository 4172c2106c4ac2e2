"""The async entry point. It checks the arguments, opens the database, plans the requests and runs the export."""

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, date, datetime
from functools import partial
from pathlib import Path

import httpx
from anyio import to_thread

from mixpanel_export._concurrency import in_task, in_thread, started_in_thread
from mixpanel_export._database.connection import Connection
from mixpanel_export._database.preflight import Mode
from mixpanel_export._database.waiting import connected_when_free
from mixpanel_export._export.callbacks import Callbacks
from mixpanel_export._export.emptiness import warn_of_emptiness
from mixpanel_export._export.job import ExportArguments, Job, checked_job
from mixpanel_export._export.tracker import Tracker
from mixpanel_export._export.transfer import transfer
from mixpanel_export._flat.flatten import check_flat_name, flatten_after_export
from mixpanel_export._planning.planner import Plan
from mixpanel_export._source.client import new_client
from mixpanel_export._source.parameters import Timeouts
from mixpanel_export._tracebacks import short_tracebacks_async
from mixpanel_export._writer.table import EventsTable
from mixpanel_export._writer.writer import Writer
from mixpanel_export.changes import DayChange
from mixpanel_export.credentials import Credentials
from mixpanel_export.errors import QueryError
from mixpanel_export.results import BatchProgress, ParallelFetchResult, Progress


@short_tracebacks_async
async def export_events(
    from_date: str | date,
    to_date: str | date,
    *,
    db: str | Path,
    table: str = "events",
    credentials: Credentials | None = None,
    events: Iterable[str] | None = None,
    where: str | None = None,
    limit: int | None = None,
    max_workers: int = 10,
    chunk_days: int | None = None,
    one_request: bool = False,
    mode: Mode = "create",
    dedupe: bool = True,
    allow_empty: bool = False,
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
) -> ParallelFetchResult:
    """Export the raw events of the days from *from_date* to *to_date* into a table of the DuckDB file *db*.

    The days are fetched in batches. A batch is in the table completely or not at all. The result lists the failed days
    and their errors. After a failure or an interruption, the mode `resume` fetches the missing days.

    Args:
        from_date: The first day: a date, or text such as `2024-01-31`, `today`, `yesterday`, `-30d`, `2w`, `2024-01` or
            `last-month`. Relative days are days in UTC, or in *project_timezone*.
        to_date: The last day, inclusive, in the same forms.
        db: The path of the DuckDB file. It is created if it does not exist.
        table: The table name.
        credentials: The credentials. None reads them from the environment or the configuration file.
        events: The event names to export. None exports all events.
        where: Mixpanel's filter expression.
        limit: The maximum number of events to fetch, in one request. Days fetched with a limit are never considered
            fully exported.
        max_workers: The maximum number of simultaneous requests.
        chunk_days: The number of days per request. None plans the requests from the quota.
        one_request: Whether to fetch all days in one request. In `resume` mode, each run of missing days is one
            request. A `limit` implies it.
        mode: `create` requires that the table does not exist. `append` adds days; days that the table already has
            are fetched again and replaced. `resume` fetches days that are missing, failed or not final. `replace` replaces
            the whole table at the end.
        dedupe: Whether to remove duplicates. Among events with the same name, `distinct_id`, `time` and `$insert_id`,
            the one that Mixpanel processed last is kept.
        allow_empty: Whether `replace` may put an empty table in place of one that has rows.
        retries: The maximum number of retries of a failed request. If the response for some days breaks off twice, these
            days are fetched in smaller pieces.
        max_wait: The maximum total wait for the hourly quota, in seconds. Days not fetched by then are recorded as
            failed.
        on_batch_complete: Called for each batch once it is committed or has failed.
        on_progress: Called whenever the progress changes.
        api_url: The server, as `https://HOST[:PORT]`. None means `MPX_API_URL`, or the server for the credentials'
            region.
        per_second: The maximum number of requests per second; 0 means no limit. None means `MPX_PER_SECOND`, or
            Mixpanel's limit of 3.
        per_hour: The maximum number of requests per hour; 0 means no limit. None means `MPX_PER_HOUR`, or Mixpanel's
            limit of 60. All exports that the user runs on this machine share the limits per second and per hour.
        timeouts: How long a request may go without progress.
        project_timezone: The IANA name of the project's zone, such as `US/Pacific`. Set it for a project that was created
            before 2023, because its times are local. Times that are numbers, or text without an offset, are then converted
            to UTC, and a day is over when it is over in that zone. If a local time occurs twice or never, the later of
            the two possible times is used. `properties` keeps the original time. None takes the zone from the
            credentials; "UTC" means no conversion.
        http2: Whether the server may choose HTTP/2. Each request still has its own connection.
        flatten: Whether to update the table's flat tables at the end, or to create one if there is none. See
            `flatten_events`. Flat tables with the `auto` setting are updated by every export.
        wait: The maximum wait, in seconds, while another export into the file is running or another process has it open.
        transport: Replaces the network, for tests.
        now: The clock that decides which days are over.

    Callbacks are called one at a time in this event loop. If one returns an awaitable, it is awaited. If one raises an
    exception, the export stops, complete batches are kept, and the exception is raised here.

    The settings for proxies and certificates are read from `HTTPS_PROXY`, `ALL_PROXY`, `NO_PROXY`, `SSL_CERT_FILE` and
    `SSL_CERT_DIR`.

    Raises:
        ValueError: An argument is out of range. No request was sent.
        ConfigError: The credentials, proxies or certificates cannot be used. No request was sent.
        DatabaseError, ExportRunningError, LedgerMismatchError, SelectionError, TableError: The file or the table does
            not allow the export. No request was sent (unless the disk filled up during the export).
        AuthenticationError, QueryError: Mixpanel rejects the whole export. Complete batches are kept.
    """
    arguments = ExportArguments(
        from_date=from_date,
        to_date=to_date,
        db=db,
        table=table,
        credentials=credentials,
        events=events,
        where=where,
        limit=limit,
        max_workers=max_workers,
        chunk_days=chunk_days,
        one_request=one_request,
        mode=mode,
        dedupe=dedupe,
        allow_empty=allow_empty,
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
    callbacks = Callbacks(on_batch_complete, on_progress)
    return await run_job(checked_job(arguments), callbacks, http2=http2, transport=transport)


async def run_job(
    job: Job,
    callbacks: Callbacks,
    *,
    http2: bool = False,
    transport: httpx.AsyncBaseTransport | None = None,
) -> ParallelFetchResult:
    """Run a job in a separate task. The result and the errors are the same as for `export_events`."""
    return (await run(job, callbacks, http2=http2, transport=transport)).result


@dataclass(frozen=True, slots=True)
class Outcome:
    """The result of a job, its plan, and the changes that were found."""

    result: ParallelFetchResult
    job: Job
    """The job as completed by `prepare`."""
    planned: Plan
    changes: tuple[DayChange, ...]
    """The differences between new batches and the batches in the table, if they were compared."""
    kept: tuple[DayChange, ...]
    """The days whose new response was rejected, now or in an earlier sync."""


async def run(
    job: Job,
    callbacks: Callbacks,
    *,
    http2: bool = False,
    transport: httpx.AsyncBaseTransport | None = None,
    prepare: Callable[[Job, Connection], Job] | None = None,
) -> Outcome:
    """Run a job in a separate task. *prepare* fills in settings from the database file."""
    return await in_task(partial(_run, job, callbacks, prepare, http2=http2, transport=transport))


async def _run(
    job: Job,
    callbacks: Callbacks,
    prepare: Callable[[Job, Connection], Job] | None,
    *,
    http2: bool,
    transport: httpx.AsyncBaseTransport | None,
) -> Outcome:
    started = time.monotonic()
    # Loading the HTTP library and the certificates takes about 0.1 s. The file is opened meanwhile.
    wait_for_client = started_in_thread(partial(new_client, job.parameters.url, transport, http2=http2))
    async with connected_when_free(job.path, job.wait) as connection:
        if prepare is not None:
            job = await in_thread(partial(prepare, job, connection), connection.interrupt)
        table = await to_thread.run_sync(EventsTable, connection, job.path, job.spec)
        if job.flatten:
            await in_thread(partial(check_flat_name, connection, job.path, table.name), table.interrupt)
        planned = await job.plan(table.batches, table.history)
        tracker = Tracker(planned)
        client = await to_thread.run_sync(wait_for_client)
        try:
            await transfer(
                job,
                client,
                callbacks,
                destination=table,
                writer=lambda staging: Writer(table, staging, job.now),
                batches=table.batches,
                planned=planned,
                tracker=tracker,
            )
        except QueryError as error:
            if error.first_day is not None:
                await in_thread(partial(table.trim_target_days, error.first_day), table.interrupt)
            raise
        finish = partial(table.finish, complete=not tracker.errors, allow_empty=job.allow_empty)
        totals = await in_thread(finish, table.interrupt)
        warn_of_emptiness(job, tracker, known=table.batches if job.sync else ())
        flatten = partial(flatten_after_export, connection, job.path, table.name, always=job.flatten)
        await in_thread(flatten, table.interrupt)
        result = tracker.result(
            table.name,
            totals.growth,
            totals.removed_duplicates,
            seconds=time.monotonic() - started,
            finished_at=job.now(),
        )
        kept = await in_thread(table.kept_days, table.interrupt) if job.sync else ()
        return Outcome(result, job, planned, tuple(table.changes), tuple(kept))
