"""The async door: arguments checked, database opened, plan made, then everything set running."""

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AsyncExitStack, closing, contextmanager
from datetime import UTC, date, datetime
from functools import partial
from pathlib import Path

import httpx
from anyio import to_thread

from mixpanel_export._concurrency import entered_in_thread, in_task, in_thread
from mixpanel_export._database.connection import connected_for_export
from mixpanel_export._database.preflight import Mode
from mixpanel_export._database.settings import thread_count
from mixpanel_export._export.callbacks import Callbacks, Reporter
from mixpanel_export._export.emptiness import warn_of_emptiness
from mixpanel_export._export.fetch_tasks import FetchTasks
from mixpanel_export._export.job import ExportArguments, Job, checked_job
from mixpanel_export._export.pipeline import run_pipeline
from mixpanel_export._export.tracker import Tracker
from mixpanel_export._export.write_tasks import WriteTasks
from mixpanel_export._model import Batch
from mixpanel_export._planning.planner import Plan
from mixpanel_export._source.client import new_client
from mixpanel_export._source.fetcher import Fetcher
from mixpanel_export._source.parameters import Timeouts
from mixpanel_export._tracebacks import short_tracebacks_async
from mixpanel_export._writer.staging import Staging
from mixpanel_export._writer.table import EventsTable
from mixpanel_export._writer.validate import ClockCheck, validators_for
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
    transport: httpx.AsyncBaseTransport | None = None,
    now: Callable[[], datetime] = lambda: datetime.now(UTC),
) -> ParallelFetchResult:
    """Export the raw events of *from_date* to *to_date*, both inclusive, into a table of the DuckDB file *db*.

    Dates are dates, or text: `2024-01-31`, `today`, `yesterday`, `-30d`, `2w`, `2024-01`, `last-month`. They are days of
    UTC, or of *project_timezone*.

    The days are fetched in parallel, at most *max_workers* requests at a time, and never faster than the
    project's quota: *per_second* and *per_hour* (3 and 60, or `MPX_PER_SECOND` and `MPX_PER_HOUR`; 0 for no
    limit), which all exports of this user and machine share. At most *max_wait* seconds in all are spent on
    waiting for the hour's quota; what is not fetched then has failed. *chunk_days* None plans the requests by
    the quota; a number cuts fixed chunks.

    *one_request* asks for all days at once (with `resume`, for each run of missing days, one after the other);
    `limit` implies it.

    *mode* `create` wants no such table, `append` adds days or fetches them again, `resume` fetches what is
    missing, failed or was not final, `replace` swaps the whole table at the end, though never for no event at all unless
    *allow_empty*. *events* and *where* select
    events; *limit* fetches at most that many, in one request, and such days never count as held.

    A batch is visible in the table if and only if it is whole; what failed of it leaves nothing there. Days that
    break twice are fetched in smaller pieces. What failed is in the result, after *retries* further attempts.
    With *dedupe*, of events with the same name, `distinct_id`, `time` and `$insert_id` the one processed last is
    kept.

    *project_timezone* (an IANA name such as `US/Pacific`; None: the one of the credentials) is the zone of a
    project created before 2023, whose `time` is the local clock: numbers, and text without an offset, become
    UTC by it, and days are over when they are over there. A local time that comes twice a year, or never, is
    the later of its two readings. `properties` keeps what was sent. "UTC" leaves times as they are.

    *timeouts* bounds the silence of a connection. With *http2* the server may choose HTTP/2; each request still
    has a connection of its own. Proxies and certificates are those of `HTTPS_PROXY`, `ALL_PROXY`, `NO_PROXY`,
    `SSL_CERT_FILE` and `SSL_CERT_DIR`. *transport* replaces the network, for tests; *now* is the clock that says
    which days are over.

    *on_batch_complete* and *on_progress* are called one at a time in this event loop; an awaitable that they
    return is awaited. If one raises, the export stops, keeps what is committed, and the exception leaves here.

    Raises:
        ValueError: An argument is out of range. Nothing was requested.
        ConfigError: No usable credentials, or proxies or certificates of the environment. Nothing was requested.
        DatabaseError, ExportRunningError, LedgerMismatchError, SelectionError, TableError: The file or the
            table does not fit. Nothing was requested, unless the disk filled up later.
        AuthenticationError, QueryError: Mixpanel refuses the export as a whole; committed batches are kept.
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
        retries=retries,
        max_wait=max_wait,
        api_url=api_url,
        per_second=per_second,
        per_hour=per_hour,
        timeouts=timeouts,
        project_timezone=project_timezone,
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
    """Run a job, in a task of its own; as `export_events`."""
    return await in_task(partial(_run, job, callbacks, http2=http2, transport=transport))


async def _run(
    job: Job, callbacks: Callbacks, *, http2: bool, transport: httpx.AsyncBaseTransport | None
) -> ParallelFetchResult:
    started = time.monotonic()
    async with entered_in_thread(connected_for_export(job.path)) as connection:
        table = await to_thread.run_sync(EventsTable, connection, job.path, job.spec)
        batches = await in_thread(table.batches, table.interrupt)
        planned = await job.plan(batches, table.history)
        tracker = Tracker(planned)
        client = new_client(job.parameters.url, transport, http2=http2)
        try:
            await _transfer(
                job, client, callbacks, table=table, batches=batches, planned=planned, tracker=tracker
            )
        except QueryError as error:
            if error.first_day is not None:
                await in_thread(partial(table.trim_target_days, error.first_day), table.interrupt)
            raise
        finish = partial(table.finish, whole=not tracker.errors, allow_empty=job.allow_empty)
        totals = await in_thread(finish, table.interrupt)
        warn_of_emptiness(job, tracker)
        return tracker.result(
            table.name,
            totals.growth,
            totals.removed_duplicates,
            seconds=time.monotonic() - started,
            now=job.now(),
        )


async def _transfer(
    job: Job,
    client: httpx.AsyncClient,
    callbacks: Callbacks,
    *,
    table: EventsTable,
    batches: Sequence[Batch],
    planned: Plan,
    tracker: Tracker,
) -> None:
    """Fetch the planned chunks into the table."""
    numbers = await in_thread(partial(table.new_numbers, len(planned.chunks)), table.interrupt)
    clock = ClockCheck(enabled=not job.spec.zone_is_known)
    async with client, AsyncExitStack() as stack:
        staging = await stack.enter_async_context(entered_in_thread(_staging(job)))
        validators = await stack.enter_async_context(
            entered_in_thread(validators_for(table, staging, clock, thread_count()))
        )
        fetcher = Fetcher(
            client,
            job.parameters,
            job.gate,
            workers=job.workers,
            retries=job.retries,
            pauses=job.tuning.pauses,
            now=job.now,
        )
        reporter = Reporter(callbacks, tracker, fetcher.stats, job.gate, lambda: staging.lines)
        writing = WriteTasks(
            table, staging, validators, clock=clock, tracker=tracker, now=job.now, tuning=job.tuning
        )
        fetching = FetchTasks(
            planned,
            fetcher,
            writing,
            tracker,
            reporter,
            numbers=dict(zip(planned.chunks, numbers, strict=True)),
            batches=batches,
            path=job.path,
            hourly_quota=bool(job.gate.statistics().per_hour),
        )
        await run_pipeline(fetching, writing, reporter)


@contextmanager
def _staging(job: Job) -> Iterator[Staging]:
    tuning = job.tuning
    staging = Staging(
        job.path,
        budget=tuning.plain_budget,
        part_size=tuning.part_size,
        segment_size=tuning.segment_size,
        columns_memory=tuning.columns_memory,
    )
    with closing(staging):
        yield staging
