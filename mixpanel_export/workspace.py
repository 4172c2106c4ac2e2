"""The blocking door: mixpanel_data's Workspace over the async engine."""

from collections.abc import Callable, Iterator
from dataclasses import replace as changed
from datetime import UTC, date, datetime
from functools import cached_property, partial
from importlib.util import find_spec
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, Required, Self, TypedDict, Unpack, overload

import duckdb

from mixpanel_export._arguments import MAX_DAYS, check, days_of_one_request, mode_of, result_of_one_request
from mixpanel_export._database import connect, quoted
from mixpanel_export._engine import download_events, export_events
from mixpanel_export._event import streamed
from mixpanel_export._fetch import Timeouts
from mixpanel_export._schema import table_exists
from mixpanel_export._zone import checked_zone
from mixpanel_export.credentials import Credentials, checked_project_id, resolve_credentials
from mixpanel_export.errors import ConfigError, DatabaseError, DatabaseNotFoundError
from mixpanel_export.progress import Watcher, draw
from mixpanel_export.results import (
    BatchProgress,
    FetchResult,
    ParallelFetchResult,
    Progress,
    SQLResult,
    TableInfo,
)
from mixpanel_export.sync import run_sync

if TYPE_CHECKING:
    import pandas as pd


class _FetchOptions(TypedDict, total=False):
    """What the overloads of `fetch_events` have in common."""

    from_date: Required[str | date]
    to_date: Required[str | date]
    events: list[str] | None
    where: str | None
    progress: bool
    append: bool
    batch_size: int
    max_workers: int | None
    on_batch_complete: Callable[[BatchProgress], object] | None
    chunk_days: int | None
    resume: bool
    replace: bool
    dedupe: bool
    retries: int
    on_progress: Callable[[Progress], object] | None
    max_wait: float


class Workspace:
    """A DuckDB file, and the Mixpanel project that events are fetched from.

    *path* None is mixpanel_data's file, `~/.mp/data/{project_id}.db`. Credentials are looked for when they are
    first needed, as `resolve_credentials` says, unless *credentials* are given; *project_id* and *region*
    override them, as *project_timezone* does the zone of a project whose `time` is local; *http2* lets the server
    choose HTTP/2, and *timeouts* bounds the silence of a connection (all three: see `export_events`).
    The file is opened, and created, when it is first needed, and stays open until `close()`; other processes
    cannot open it meanwhile. With *read_only* they may read it too, and nothing can be fetched. One thread at a
    time may use a workspace.
    """

    def __init__(
        self,
        account: str | None = None,
        project_id: str | None = None,
        region: str | None = None,
        path: str | Path | None = None,
        read_only: bool = False,
        *,
        credentials: Credentials | None = None,
        api_url: str | None = None,
        project_timezone: str | None = None,
        http2: bool = False,
        timeouts: Timeouts | None = None,
    ) -> None:
        self._account = account
        self._project_id = project_id
        self._region = region
        self._path = path
        self._read_only = read_only
        self._given = credentials
        self._api_url = api_url
        self._project_timezone = project_timezone
        self._http2 = http2
        self._timeouts = timeouts
        self._connection: duckdb.DuckDBPyConnection | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the database file. Using the workspace again opens it again."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    @property
    def db_path(self) -> Path:
        """Where the database is, whether or not it exists yet."""
        if self._path is not None:
            return Path(self._path).expanduser()
        project_id = checked_project_id(self._project_id or self._credentials.project_id)
        if not project_id:
            raise ConfigError("the default file is named after the project; set MP_PROJECT_ID or pass path")
        return Path.home() / ".mp" / "data" / f"{project_id}.db"

    @property
    def connection(self) -> duckdb.DuckDBPyConnection:
        """DuckDB's own connection. What a transaction left open here has changed may keep a fetch from committing.

        Raises `DatabaseError` or one of its kinds where the file cannot be opened.
        """
        if self._connection is None:
            self._connection = _read_only(self.db_path) if self._read_only else connect(self._writable_path())
        return self._connection

    @overload
    def fetch_events(
        self,
        name: str = ...,
        *,
        limit: int | None = ...,
        parallel: Literal[False] = ...,
        **options: Unpack[_FetchOptions],
    ) -> FetchResult: ...
    @overload
    def fetch_events(
        self, name: str = ..., *, limit: None = ..., parallel: Literal[True], **options: Unpack[_FetchOptions]
    ) -> ParallelFetchResult: ...
    @overload
    def fetch_events(
        self, name: str = ..., *, limit: int | None = ..., parallel: bool, **options: Unpack[_FetchOptions]
    ) -> FetchResult | ParallelFetchResult: ...
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
        retries: int = 5,
        on_progress: Callable[[Progress], object] | None = None,
        max_wait: float = 86_400.0,
    ) -> FetchResult | ParallelFetchResult:
        """Fetch the events of the days from *from_date* to *to_date*, both inclusive, into table *name*.

        With *parallel* the range is cut into batches of *chunk_days* (None: planned from the range, the workers
        and the quota), up to *max_workers* (None: 10) are fetched at once, and a batch that fails is reported in
        the result while the others go on. Without, one request asks for the whole range and what makes it fail
        is raised. *append*, *replace* and *resume* say what to do where the table exists; none of them: that it
        must not. *limit* caps the events of one request. *batch_size* is mixpanel_data's; it changes nothing.

        A request that fails is made again up to *retries* times; *max_wait* seconds in all may be spent on waiting
        for the hour's quota.

        Raises:
            ValueError: an argument is out of range.
            DateRangeTooLargeError: over 100 days without *parallel*.
            MixpanelDataError: nothing can be fetched, or not into this table; its kinds say why.
        """
        check("batch_size", batch_size, 100, 100_000)
        check("limit", limit, 1, 100_000)
        check("max_workers", max_workers, 1, 100)
        check("chunk_days", chunk_days, 1, MAX_DAYS)
        if parallel and limit is not None:
            raise ValueError(
                "limit cannot be used with parallel, because it caps each request, not the export"
            )
        mode = mode_of(append=append, replace=replace, resume=resume)
        if not parallel:
            days_of_one_request(from_date, to_date)
        with draw(enabled=progress, title=name) as watch:
            result = run_sync(
                export_events,
                from_date,
                to_date,
                credentials=self._credentials,
                db=self._writable_path(),
                table=name,
                events=events,
                where=where,
                limit=limit,
                max_workers=10 if max_workers is None else max_workers,
                chunk_days=chunk_days,
                one_request=not parallel,
                mode=mode,
                dedupe=dedupe,
                retries=retries,
                max_wait=max_wait,
                on_batch_complete=on_batch_complete,
                on_progress=_both(watch, on_progress),
                api_url=self._api_url,
                project_timezone=self._project_timezone,
                http2=self._http2,
                timeouts=self._timeouts,
            )
        return result if parallel else result_of_one_request(result, from_date, to_date)

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

        Yields Mixpanel's own objects if *raw*, else dictionaries with the keys event_name, event_time (aware, in
        UTC, or None), distinct_id, insert_id and properties, with the values that a table would have. Duplicates
        stay. Nothing is yielded before one request has brought the whole range, proven complete, into an unnamed
        temporary file. Lines that are no events are left out, and one warning counts them. *retries* and *max_wait*
        are those of `fetch_events`.

        Raises:
            ValueError: an argument is out of range.
            DateRangeTooLargeError: over 100 days.
            MixpanelDataError: nothing can be fetched; its kinds say why.
        """
        check("limit", limit, 1, 100_000)
        days_of_one_request(from_date, to_date)
        zone = checked_zone(self._project_timezone, self._credentials.project_timezone)
        download = partial(
            download_events,
            from_date,
            to_date,
            credentials=self._credentials,
            events=events,
            where=where,
            limit=limit,
            retries=retries,
            max_wait=max_wait,
            api_url=self._api_url,
            timeouts=self._timeouts,
            http2=self._http2,
        )
        return streamed(lambda file: run_sync(download, file), raw=raw, zone=zone)

    def sql(self, query: str) -> "pd.DataFrame":
        """Run *query* and return its rows as a pandas DataFrame; `ImportError` without pandas."""
        if find_spec("pandas") is None:
            raise ImportError(
                "DataFrames need pandas, the extra of mpx-export[pandas]: pip install pandas; or use sql_rows"
            )
        return self.connection.execute(query).df()

    def sql_scalar(self, query: str) -> Any:
        """Run *query* and return the first value of its first row, None where it has no row."""
        row = self.connection.execute(query).fetchone()
        return row[0] if row else None

    def sql_rows(self, query: str) -> SQLResult:
        """Run *query* and return its rows as tuples, with the names of the columns."""
        cursor = self.connection.execute(query)
        columns = tuple(column[0] for column in cursor.description or ())
        return SQLResult(columns, cursor.fetchall())

    def tables(self) -> list[TableInfo]:
        """Return the tables of the database by name, without those that begin with an underscore."""
        found = self.connection.execute(
            "SELECT table_name FROM duckdb_tables() WHERE database_name = current_database() AND "
            "schema_name = 'main' AND NOT internal AND NOT starts_with(table_name, '_') ORDER BY table_name"
        ).fetchall()
        fetched = self._fetched()
        return [
            TableInfo(name, kind, self.sql_scalar(f"SELECT count(*) FROM {quoted(name)}"), at)
            for name, kind, at in ((name, *fetched.get(name, (None, None))) for (name,) in found)
        ]

    @cached_property
    def _credentials(self) -> Credentials:
        if self._given is None:
            return resolve_credentials(self._account, project_id=self._project_id, region=self._region)
        given = self._given
        return changed(
            given, project_id=self._project_id or given.project_id, region=self._region or given.region
        )

    def _fetched(self) -> dict[str, tuple[str, datetime]]:
        """Return kind and time of the last fetch of each table, from mixpanel_data's `_metadata` and our ledger."""
        sources = {
            "_metadata": "SELECT table_name, type, fetched_at FROM _metadata",
            "_export_batches": "SELECT table_name, 'events', max(finished) FROM _export_batches "
            "WHERE status <> 'failed' GROUP BY table_name",
        }
        rows = [
            row
            for table, sql in sources.items()
            if table_exists(self.connection, table)
            for row in self.connection.execute(sql).fetchall()
        ]
        return {name: (kind, at.replace(tzinfo=UTC)) for name, kind, at in rows if at}

    def _writable_path(self) -> Path:
        path = self.db_path
        if self._read_only:
            raise DatabaseError(
                f"{path} is opened read-only; use a Workspace without read_only to fetch", db_path=str(path)
            )
        if self._path is None:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        return path


def _read_only(path: Path) -> duckdb.DuckDBPyConnection:
    if not path.exists():
        raise DatabaseNotFoundError(
            f"there is no database {path}; fetch events into it first, or choose another path",
            db_path=str(path),
        )
    return connect(path, read_only=True)


def _both(watch: Watcher, also: Callable[[Progress], object] | None) -> Callable[[Progress], object]:
    def tell(progress: Progress) -> object:
        watch(progress)
        return also(progress) if also else None

    return tell
