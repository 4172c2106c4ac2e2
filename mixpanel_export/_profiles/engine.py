"""The async entry point for profiles. It checks the arguments, opens the database and runs the export."""

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import httpx

from mixpanel_export._concurrency import in_task, in_thread, raise_first_error
from mixpanel_export._database.connection import Connection
from mixpanel_export._database.snapshots import ProfileMode, Snapshot
from mixpanel_export._database.waiting import connected_when_free
from mixpanel_export._flat.flatten import check_flat_name, flatten_after_export
from mixpanel_export._profiles.api import open_api
from mixpanel_export._profiles.job import ProfileArguments, ProfileJob, checked_job
from mixpanel_export._profiles.reports import ProfileCallbacks, ProfileReporter
from mixpanel_export._profiles.snapshot import (
    MAX_RESTARTS,
    PageFailedError,
    Pages,
    RestartError,
    SnapshotState,
    incomplete_error,
    open_session,
)
from mixpanel_export._profiles.table import MismatchError, ProfilesTable, Totals
from mixpanel_export._source.parameters import Timeouts
from mixpanel_export._source.profile_page import ProfilePage
from mixpanel_export._source.query_api import QueryApi
from mixpanel_export._timezones import naive_utc
from mixpanel_export._tracebacks import short_tracebacks_async
from mixpanel_export.credentials import Credentials
from mixpanel_export.errors import MixpanelDataError, SnapshotError
from mixpanel_export.profiles import ParallelProfileResult, ProfileProgress
from mixpanel_export.results import Progress


@short_tracebacks_async
async def export_profiles(
    *,
    db: str | Path,
    table: str = "profiles",
    credentials: Credentials | None = None,
    where: str | None = None,
    cohort: int | str | None = None,
    properties: Iterable[str] | None = None,
    distinct_ids: Iterable[str] | None = None,
    group: str | int | None = None,
    include_all_users: bool | None = None,
    behaviors: Sequence[Mapping[str, Any]] | None = None,
    as_of_timestamp: int | None = None,
    mode: ProfileMode = "create",
    allow_empty: bool = False,
    max_workers: int = 5,
    retries: int = 5,
    max_wait: float = 86_400.0,
    on_page: Callable[[ProfileProgress], object] | None = None,
    on_progress: Callable[[Progress], object] | None = None,
    api_url: str | None = None,
    per_hour: int | None = None,
    timeouts: Timeouts | None = None,
    flatten: bool = False,
    wait: float = 0.0,
    transport: httpx.AsyncBaseTransport | None = None,
    now: Callable[[], datetime] = lambda: datetime.now(UTC),
) -> ParallelProfileResult:
    """Export user profiles into a table of the DuckDB file *db*. Either all of them are stored, or none.

    The profiles are fetched in pages of 1,000, up to five at a time. The table is changed in one transaction, once every
    page of one session has arrived and the number of different profiles is the total that Mixpanel reported. If Mixpanel
    drops the session, or the pages contradict each other, the export starts again from page 0, at most three times.

    The table has the columns distinct_id, properties (the JSON text as Mixpanel sent it), last_seen (`$last_seen`, or
    NULL) and export_batch. Each distinct_id occurs once.

    Args:
        db: The path of the DuckDB file. It is created if it does not exist.
        table: The table name.
        credentials: The credentials. None reads them from the environment or the configuration file.
        where: Mixpanel's filter expression, such as `properties["$last_seen"] >= "2026-01-01T00:00:00"`.
        cohort: The number of a cohort. Only its members are exported.
        properties: The names of the properties to export. None exports all. If `$last_seen` is not exported, the column
            last_seen is NULL.
        distinct_ids: The profiles to export, at most 2,000.
        group: The id of a group type. Its group profiles are exported instead of user profiles.
        include_all_users: Whether to include members of the *cohort* who do not have a profile. None means Mixpanel's
            default, which is true.
        behaviors: Mixpanel's filter by events. It cannot be used with *cohort*.
        as_of_timestamp: The time for *behaviors*, in seconds since 1970.
        mode: `create` requires that the table does not exist. `replace` replaces the whole table. `append` adds profiles,
            and replaces the rows of profiles that are already in the table.
        allow_empty: Whether `replace` may put an empty table in place of one that has rows.
        max_workers: The maximum number of simultaneous requests; more than 5 has no effect.
        retries: The maximum number of retries of a failed request.
        max_wait: The maximum total wait for the quota, in seconds.
        on_page: Called for each page that arrives, and for a page that fails.
        on_progress: Called whenever the progress changes. Its batches are pages.
        api_url: The server, as in `export_events`.
        per_hour: The maximum number of queries per hour; 0 means no limit. None means `MPX_QUERY_PER_HOUR`, or
            Mixpanel's limit of 60. An export counts as one query, and each restart counts as another. Event counts
            (`verify_events`) share this quota.
        timeouts: How long a request may go without progress.
        flatten: Whether to update the table's flat tables at the end, or to create one. See `flatten_events`.
        wait: The maximum wait, in seconds, while another export into the file is running or another process has it open.
        transport: Replaces the network, for tests.
        now: The clock for the times in the ledger.

    Callbacks are called one at a time in this event loop. If one returns an awaitable, it is awaited. If one raises an
    exception, the export stops, the table is unchanged, and the exception is raised here.

    Raises:
        ValueError: An argument is out of range. No request was sent.
        ConfigError: The credentials, proxies or certificates cannot be used. No request was sent.
        DatabaseError, ExportRunningError, SelectionError, TableError: The file or the table does not allow the export.
        SnapshotError: In every attempt, Mixpanel dropped the session or sent contradictory pages. The table is unchanged.
        APIError: A page could not be fetched. The table is unchanged.

    Example:
        result = await export_profiles(db="mixpanel.duckdb", mode="replace")
        print(result.total_rows, result.duplicates)
    """
    arguments = ProfileArguments(
        credentials=credentials,
        where=where,
        cohort=cohort,
        properties=properties,
        distinct_ids=distinct_ids,
        group=group,
        include_all_users=include_all_users,
        behaviors=behaviors,
        as_of_timestamp=as_of_timestamp,
        max_workers=max_workers,
        retries=retries,
        max_wait=max_wait,
        api_url=api_url,
        per_hour=per_hour,
        timeouts=timeouts,
        now=now,
    )
    job = checked_job(
        arguments,
        db=db,
        table=table,
        mode=mode,
        allow_empty=allow_empty,
        flatten=flatten,
        wait=wait,
    )
    return await run_job(job, ProfileCallbacks(on_page, on_progress), transport=transport)


async def run_job(
    job: ProfileJob, callbacks: ProfileCallbacks, *, transport: httpx.AsyncBaseTransport | None = None
) -> ParallelProfileResult:
    """Run a job in a separate task. The result and the errors are the same as for `export_profiles`."""
    return await in_task(partial(_run, job, callbacks, transport))


async def _run(
    job: ProfileJob, callbacks: ProfileCallbacks, transport: httpx.AsyncBaseTransport | None
) -> ParallelProfileResult:
    started = time.monotonic()
    async with connected_when_free(job.path, job.wait) as connection:
        table = await in_thread(partial(_table, job, connection), connection.interrupt)
        if job.flatten:
            await in_thread(partial(check_flat_name, connection, job.path, table.name), table.interrupt)
        async with open_api(job.query, transport) as api:
            run = _Run(job, table, api, ProfileReporter(callbacks, api))
            with raise_first_error():
                async with anyio.create_task_group() as reporting:
                    reporting.start_soon(run.reporter.report_progress)
                    result = await run.export()
                    reporting.cancel_scope.cancel()
            await run.reporter.report_end()
        flatten = partial(flatten_after_export, connection, job.path, table.name, always=job.flatten)
        await in_thread(flatten, table.interrupt)
        return replace(result, duration_seconds=time.monotonic() - started)


def _table(job: ProfileJob, connection: Connection) -> ProfilesTable:
    project = job.query.selection.project
    return ProfilesTable(connection, job.path, job.table, job.mode, project, allow_empty=job.allow_empty)


class _Run:
    """One export, with its attempts."""

    def __init__(
        self, job: ProfileJob, table: ProfilesTable, api: QueryApi, reporter: ProfileReporter
    ) -> None:
        self._job = job
        self._table = table
        self._api = api
        self.reporter = reporter
        self._started = job.query.now()
        self._pages = Pages(api, job.query.selection, job.query.workers)
        self._state: SnapshotState | None = None

    async def export(self) -> ParallelProfileResult:
        """Return the result of the first attempt that succeeds.

        Raises:
            SnapshotError: All attempts failed.
            APIError: A page could not be fetched.
        """
        reasons: list[str] = []
        try:
            while True:
                try:
                    return await self._attempt(restarts=len(reasons))
                except (RestartError, MismatchError) as error:
                    reasons.append(str(error))
                    if len(reasons) > MAX_RESTARTS:
                        raise incomplete_error(reasons) from error
        except PageFailedError as failure:
            await self.reporter.report_failure(failure)
            await self._record_failure(failure.error, len(reasons))
            raise failure.error from failure.error.__cause__
        except SnapshotError as error:
            await self._record_failure(error, MAX_RESTARTS)
            raise

    async def _attempt(self, *, restarts: int) -> ParallelProfileResult:
        self._state = None
        self.reporter.restart(None)
        first, state = await open_session(self._pages)
        self._state = state
        self.reporter.restart(state)
        await self._in_thread(self._table.begin)
        await self._pages.fetch(first, state, self._store)
        snapshot = self._snapshot(restarts)
        totals = await in_thread(partial(self._table.finish, snapshot), self._table.interrupt)
        return self._result(snapshot, state, totals)

    async def _store(self, number: int, page: ProfilePage) -> None:
        if page.entries:
            await self._in_thread(partial(self._table.add, number, page))
        await self.reporter.report_page(number, page)

    async def _in_thread(self, call: Callable[[], None]) -> None:
        await in_thread(call, self._table.interrupt)

    async def _record_failure(self, error: MixpanelDataError, restarts: int) -> None:
        snapshot = replace(self._snapshot(restarts), status="failed", error=str(error))
        await self._in_thread(partial(self._table.record_failure, snapshot))

    def _snapshot(self, restarts: int) -> Snapshot:
        """Return the ledger row of the current attempt."""
        query, state = self._job.query, self._state
        snapshot = Snapshot(
            number=self._table.number,
            table=self._table.name,
            project=query.selection.project,
            selection=str(query.selection),
            status="complete",
            started=naive_utc(self._started),
            finished=naive_utc(query.now()),
            restarts=restarts,
            requests=self._api.requests,
            bytes_read=self._api.bytes_read,
        )
        if state is None:
            return snapshot
        return replace(
            snapshot,
            session=state.session.id,
            total=state.session.total,
            pages=state.pages,
            short_pages=state.short_pages,
            rejects=state.rejects,
            repaired=state.repaired,
        )

    def _result(self, snapshot: Snapshot, state: SnapshotState, totals: Totals) -> ParallelProfileResult:
        return ParallelProfileResult(
            table=self._table.name,
            total_rows=totals.growth,
            successful_pages=state.pages,
            failed_pages=0,
            failed_page_indices=(),
            duration_seconds=0.0,
            fetched_at=snapshot.finished.replace(tzinfo=UTC),
            profiles=state.session.total,
            updated_rows=totals.updated,
            duplicates=totals.duplicates,
            short_pages=snapshot.short_pages,
            rejects=snapshot.rejects,
            repaired=snapshot.repaired,
            restarts=snapshot.restarts,
            requests=snapshot.requests,
            bytes_read=snapshot.bytes_read,
        )
