"""mixpanel_data's blocking `Workspace`, on top of `export_events`."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import date
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal, Self, TypedDict, Unpack, overload

from mixpanel_export._compat import (
    MAX_DAYS,
    FetchOptions,
    NotImplementedHere,
    check,
    check_limit,
    check_one_request,
    filters_of,
    mode_of,
    resolved_days,
    result_of_one_request,
    stream_advice,
    stream_chunks,
    text_or_none,
)
from mixpanel_export._database.path import check_exists
from mixpanel_export._export.engine import export_events
from mixpanel_export._export.sync_events import sync_events
from mixpanel_export._local.file import size_and_creation_time
from mixpanel_export._project import Project
from mixpanel_export._source.check import check_credentials
from mixpanel_export._source.download import download_events
from mixpanel_export._source.parameters import Timeouts, checked_names
from mixpanel_export._source.records import iter_events
from mixpanel_export._tracebacks import short_tracebacks
from mixpanel_export.changes import SyncResult
from mixpanel_export.credentials import Credentials, account_used, resolve_credentials
from mixpanel_export.inspection import WorkspaceInfo
from mixpanel_export.progress import combined, draw
from mixpanel_export.results import BatchProgress, FetchResult, ParallelFetchResult, Progress
from mixpanel_export.sync import run_sync


class _Settings(TypedDict, total=False):
    """The constructor's arguments that mixpanel_data does not have."""

    credentials: Credentials | None
    api_url: str | None
    project_timezone: str | None
    http2: bool
    timeouts: Timeouts | None


class Workspace(Project, NotImplementedHere):
    """A DuckDB file, and the Mixpanel project whose events are loaded into it.

    If *path* is None, the file is `MPX_DB`, or else `db` under `[defaults]` in the configuration file. If neither is
    set, it is mixpanel_data's default, `~/.mp/data/{project_id}.db`. Other values under `[defaults]` only affect
    `mpx`. The file is opened on first use, and created if it is missing. It stays open until `close()`. Until then, no
    other process can open it. If *read_only* is true, other processes can read the file, but the workspace cannot
    fetch. Only one thread at a time may use a workspace.

    If *credentials* is None, `resolve_credentials` is called on first use. *project_id*, *region* and
    *project_timezone* override the credentials. *http2* and *timeouts* are passed to `export_events`. *workspace_id*
    has no effect.

    Example:
        with Workspace(path="events.duckdb") as workspace:
            workspace.fetch_events(from_date="2024-01-01", to_date="2024-01-31", parallel=True)
            print(workspace.sql_scalar("SELECT count(*) FROM events"))
    """

    @classmethod
    @short_tracebacks
    def open(cls, path: str | Path, *, read_only: bool = True) -> Self:
        """Open an existing database. Credentials are needed only to fetch.

        Raises:
            DatabaseNotFoundError: There is no such file; this is also a `FileNotFoundError`.
            DatabaseError: The file cannot be opened.
        """
        workspace = cls(path=path, read_only=read_only)
        check_exists(workspace.db_path)
        workspace._only_opened = True
        _ = workspace.connection
        return workspace

    @classmethod
    @contextmanager
    def ephemeral(
        cls,
        account: str | None = None,
        project_id: str | None = None,
        region: str | None = None,
        **settings: Unpack[_Settings],
    ) -> Iterator[Self]:
        """Yield a workspace with a temporary file (in `TMPDIR`), which is removed at the end of the block.

        Only the current user can read the file. *settings* are passed to the constructor.
        """
        with (
            TemporaryDirectory(prefix="mpx-", ignore_cleanup_errors=True) as folder,
            cls(account, project_id, region, Path(folder, "events.duckdb"), **settings) as workspace,
        ):
            yield workspace

    @classmethod
    @contextmanager
    def memory(
        cls,
        account: str | None = None,
        project_id: str | None = None,
        region: str | None = None,
        **settings: Unpack[_Settings],
    ) -> Iterator[Self]:
        """Do the same as `ephemeral`, because an in-memory database would limit the size of an export."""
        with cls.ephemeral(account, project_id, region, **settings) as workspace:
            yield workspace

    @staticmethod
    @short_tracebacks
    def test_credentials(account: str | None = None, *, api_url: str | None = None) -> dict[str, Any]:
        """Test the credentials that `resolve_credentials` returns by requesting one of yesterday's events.

        Returns success (True), account (None for the environment), project_id, region and events_found (1, or 0 if the
        day has no events). The test counts as one request against the hourly quota.

        Raises:
            ConfigError: There are no credentials, or no such account.
            AuthenticationError: Mixpanel does not accept the credentials.
            APIError: The test itself failed; the subclass says why.
        """
        credentials = resolve_credentials(account)
        events = len(run_sync(check_credentials, credentials, api_url=api_url))
        return {
            "success": True,
            "account": account_used(account),
            "project_id": credentials.project_id,
            "region": credentials.region,
            "events_found": events,
        }

    @overload
    def fetch_events(
        self,
        name: str = ...,
        *,
        limit: int | None = ...,
        parallel: Literal[False] = ...,
        **options: Unpack[FetchOptions],
    ) -> FetchResult: ...
    @overload
    def fetch_events(
        self, name: str = ..., *, limit: None = ..., parallel: Literal[True], **options: Unpack[FetchOptions]
    ) -> ParallelFetchResult: ...
    @overload
    def fetch_events(
        self, name: str = ..., *, limit: int | None = ..., parallel: bool, **options: Unpack[FetchOptions]
    ) -> FetchResult | ParallelFetchResult: ...
    @short_tracebacks
    def fetch_events(
        self,
        name: str = "events",
        *,
        from_date: str | date,
        to_date: str | date,
        events: list[str] | None = None,
        where: str | None = None,
        limit: int | None = None,
        progress: bool = True,
        append: bool = False,
        batch_size: int = 1000,
        parallel: bool = False,
        max_workers: int | None = None,
        on_batch_complete: Callable[[BatchProgress], object] | None = None,
        chunk_days: int | None = None,
        resume: bool = False,
        replace: bool = False,
        dedupe: bool = True,
        allow_empty: bool = False,
        retries: int = 5,
        on_progress: Callable[[Progress], object] | None = None,
        max_wait: float = 86_400.0,
        flatten: bool = False,
        wait: float = 0.0,
    ) -> FetchResult | ParallelFetchResult:
        """Fetch the events of the days from *from_date* to *to_date*, both inclusive, into table *name*.

        Dates have the same forms as in `export_events`. If *parallel* is true, the range is split into batches of
        *chunk_days* days (None: planned from the quota), and up to *max_workers* (None: 10) are fetched at a time. The
        result reports failed batches. If *parallel* is false, one request fetches all days. If it fails, its error is
        raised.

        The table must not exist, unless *append*, *replace* or *resume* is true. A table is not replaced with an empty
        one, unless *allow_empty* is true. An empty *events* list or *where* expression selects all events, like None.
        *limit* is the maximum number of events per request. A failed request is retried up to *retries* times. The call
        waits up to *max_wait* seconds in total for the hourly quota, and up to *wait* seconds while another export into
        the file is running. If *flatten* is true, all flat tables of the table are updated at the end, or one is
        created if there is none. Flat tables with the `auto` setting are always updated. *batch_size* has no effect.

        Raises:
            ArgumentError: An argument is out of range; this is a `ValueError`.
            DateRangeTooLargeError: The range is over 100 days, and *parallel* is false.
            MixpanelDataError: The export cannot start, or the only request failed; the subclass says why.
        """
        check("batch_size", batch_size, 100, 100_000)
        check("chunk_days", chunk_days, 1, MAX_DAYS)
        check_limit(limit, parallel=parallel)
        check("max_workers", max_workers, 1)
        events, where = filters_of(events, where)
        mode = mode_of(append=append, replace=replace, resume=resume)
        days = resolved_days(from_date, to_date, self._zone)
        if not parallel:
            check_one_request(days)
        with draw(enabled=progress, title=name) as watch:
            result = run_sync(
                export_events,
                days.first,
                days.last,
                credentials=self._credentials,
                db=self._writable_path("fetch"),
                table=name,
                events=events,
                where=where,
                limit=limit,
                max_workers=10 if max_workers is None else max_workers,
                chunk_days=chunk_days,
                one_request=not parallel,
                mode=mode,
                dedupe=dedupe,
                allow_empty=allow_empty,
                retries=retries,
                max_wait=max_wait,
                wait=wait,
                on_batch_complete=on_batch_complete,
                on_progress=combined(watch, on_progress),
                api_url=self._api_url,
                project_timezone=self._project_timezone,
                http2=self._http2,
                timeouts=self._timeouts,
                flatten=flatten,
            )
        return result if parallel else result_of_one_request(result, days)

    @short_tracebacks
    def sync(
        self,
        name: str = "events",
        *,
        since: str | date | None = None,
        lookback: int = 5,
        budget: int | None = None,
        accept_loss: bool = False,
        events: list[str] | None = None,
        where: str | None = None,
        flatten: bool = False,
        progress: bool = True,
        max_wait: float = 86_400.0,
        wait: float = 0.0,
    ) -> SyncResult:
        """Bring table *name* up to date through yesterday. Call this every night. See `sync_events`.

        The first sync needs the day *since*. If a later sync gets an earlier day, it adds the days in between. An empty
        *events* list or *where* expression selects all events, like None.

        Raises:
            ArgumentError: An argument is out of range; this is a `ValueError`.
            MixpanelDataError: The sync cannot start; the subclass says why. The result reports days that failed.

        Example:
            print(workspace.sync(since="2024-01-01").changes)
        """
        events, where = filters_of(events, where)
        with draw(enabled=progress, title=name) as watch:
            return run_sync(
                sync_events,
                self._writable_path("fetch"),
                name,
                since=since,
                lookback=lookback,
                budget=budget,
                accept_loss=accept_loss,
                credentials=self._credentials,
                events=events,
                where=where,
                max_wait=max_wait,
                on_progress=watch,
                api_url=self._api_url,
                project_timezone=self._project_timezone,
                http2=self._http2,
                timeouts=self._timeouts,
                flatten=flatten,
                wait=wait,
            )

    @short_tracebacks
    def stream_events(
        self,
        *,
        from_date: str | date,
        to_date: str | date,
        events: list[str] | None = None,
        where: str | None = None,
        limit: int | None = None,
        raw: bool = False,
        retries: int = 5,
        max_wait: float = 86_400.0,
    ) -> Iterator[dict[str, Any]]:
        """Yield the events of the days from *from_date* to *to_date*, both inclusive, without storing them.

        If *raw* is true, each event is Mixpanel's object. Otherwise, it is a dictionary with event_name, event_time
        (aware, in UTC, or None), distinct_id, insert_id and properties, as in a table. Duplicates are not removed.

        Each chunk of up to 100 days is one request, which is sent when its first event is needed. The response is
        downloaded into an unnamed temporary file, and its events are yielded once the response is proven complete. An
        error may therefore be raised after the events of earlier chunks have been yielded. Lines that are not events
        are skipped, and one warning gives their number. *limit* is the maximum number of events in total. *retries* and
        *max_wait* apply to each request.

        Raises:
            ArgumentError: An argument is out of range; this is a `ValueError`.
            MixpanelDataError: A request failed; the subclass says why.
        """
        check_limit(limit)
        chunks = stream_chunks(from_date, to_date, self._zone)
        download = partial(
            download_events,
            credentials=self._credentials,
            events=checked_names(events),
            where=text_or_none(where),
            retries=retries,
            max_wait=max_wait,
            api_url=self._api_url,
            timeouts=self._timeouts,
            http2=self._http2,
        )
        fetch = stream_advice()(lambda chunk, left, file: run_sync(download, chunk, file, limit=left))
        return iter_events(short_tracebacks(fetch), chunks, limit=limit, raw=raw, zone=self._zone)

    @short_tracebacks
    def info(self) -> WorkspaceInfo:
        """Return the database's path, size, age and tables, and the project."""
        tables = [table.name for table in self.tables()]
        size_mb, created_at = size_and_creation_time(self.db_path)
        credentials = self._credentials_or_none()
        return WorkspaceInfo(
            path=self.db_path,
            project_id=credentials.project_id if credentials else "unknown",
            region=credentials.region if credentials else "unknown",
            account=self._account,
            tables=tables,
            size_mb=size_mb,
            created_at=created_at,
        )
