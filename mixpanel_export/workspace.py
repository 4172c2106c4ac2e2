"""The blocking door: mixpanel_data's Workspace over the async engine."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace as changed
from datetime import date
from functools import cached_property, partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal, NoReturn, Self, TypedDict, Unpack, overload

from mixpanel_export._compat import (
    MAX_DAYS,
    FetchOptions,
    check,
    days_of_one_request,
    mode_of,
    result_of_one_request,
)
from mixpanel_export._database.connection import database_path
from mixpanel_export._environment import home
from mixpanel_export._export.engine import export_events
from mixpanel_export._local.file import LocalDatabase, check_there, size_and_birth
from mixpanel_export._source.check import check_credentials
from mixpanel_export._source.download import download_events
from mixpanel_export._source.records import streamed
from mixpanel_export._source.request import Timeouts
from mixpanel_export._timezones import checked_zone
from mixpanel_export.credentials import Credentials, account_used, checked_project_id, resolve_credentials
from mixpanel_export.errors import ArgumentError, ConfigError
from mixpanel_export.inspection import WorkspaceInfo
from mixpanel_export.progress import Watcher, draw
from mixpanel_export.results import BatchProgress, FetchResult, ParallelFetchResult, Progress
from mixpanel_export.sync import run_sync


class _Settings(TypedDict, total=False):
    """What the constructor takes besides mixpanel_data's arguments."""

    credentials: Credentials | None
    api_url: str | None
    project_timezone: str | None
    http2: bool
    timeouts: Timeouts | None


class Workspace(LocalDatabase):
    """A DuckDB file, and the Mixpanel project that events are fetched from.

    *path* None is mixpanel_data's file, `~/.mp/data/{project_id}.db`. Credentials are looked for when they are
    first needed, as `resolve_credentials` says, unless *credentials* are given; *project_id* and *region*
    override them, as *project_timezone* does the zone of a project whose `time` is local; *http2* lets the server
    choose HTTP/2, and *timeouts* bounds the silence of a connection (all three: see `export_events`).
    The file is opened, and created, when it is first needed, and stays open until `close()`; other processes
    cannot open it meanwhile. With *read_only* they may read it too, and nothing can be fetched. One thread at a
    time may use a workspace. *workspace_id* is mixpanel_data's; it changes nothing.
    """

    def __init__(  # noqa: PLR0917 - mixpanel_data's order
        self,
        account: str | None = None,
        project_id: str | None = None,
        region: str | None = None,
        path: str | Path | None = None,
        read_only: bool = False,
        workspace_id: int | None = None,  # noqa: ARG002 - mixpanel_data's
        *,
        credentials: Credentials | None = None,
        api_url: str | None = None,
        project_timezone: str | None = None,
        http2: bool = False,
        timeouts: Timeouts | None = None,
    ) -> None:
        super().__init__(read_only=read_only, folder_mode=0o700 if path is None else 0o777)
        self._account = account
        self._project_id = project_id
        self._region = region
        self._path = path
        self._given = credentials
        self._api_url = api_url
        self._project_timezone = project_timezone
        self._http2 = http2
        self._timeouts = timeouts
        self._only_opened = False

    @classmethod
    def open(cls, path: str | Path, *, read_only: bool = True) -> Self:
        """Open a database that is there; no credentials are needed, nor looked for before something is fetched.

        Raises:
            DatabaseNotFoundError: There is none; it is a `FileNotFoundError`, too.
            DatabaseError: It cannot be opened.
        """
        workspace = cls(path=path, read_only=read_only)
        check_there(workspace.db_path)
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
        """Give a workspace on a file in the system's folder for temporary ones (`TMPDIR`), removed in the end.

        Only this user can read it. *settings* are the arguments of that name of the constructor.
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
        """Give what `ephemeral` gives: a temporary file, since memory is bounded here at any size of an export."""
        with cls.ephemeral(account, project_id, region, **settings) as workspace:
            yield workspace

    @staticmethod
    def test_credentials(account: str | None = None, *, api_url: str | None = None) -> dict[str, Any]:
        """Ask Mixpanel for one event of yesterday with the credentials that `resolve_credentials` finds.

        Returns success (True), account (None: the environment's), project_id, region and events_found (1, or 0 where
        that day has none). It takes one of the hour's requests.

        Raises:
            ConfigError: There are no credentials, or no such account.
            AuthenticationError: Mixpanel does not accept them.
            APIError: Nobody can tell now; its kinds say why.
        """
        credentials = resolve_credentials(account)
        found = run_sync(check_credentials, credentials, api_url=api_url)
        return {
            "success": True,
            "account": account_used(account),
            "project_id": credentials.project_id,
            "region": credentials.region,
            "events_found": found,
        }

    @property
    def db_path(self) -> Path:
        """Where the database is, whether or not it exists yet."""
        if self._path is not None:
            return database_path(self._path)
        project_id = checked_project_id(self._project_id or self._credentials.project_id)
        if not project_id:
            raise ConfigError(
                "the default file is named after the project, and no project is configured",
                advice="set MP_PROJECT_ID, or pass $path",
                argument="path",
            )
        folder = home()
        if folder is None:
            raise ConfigError(
                "the default file is in the home directory, and there is none",
                advice="set HOME, or pass $path",
                argument="path",
            )
        return folder / ".mp" / "data" / f"{project_id}.db"

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
            raise ArgumentError(
                "limit", "cannot be used with parallel, as it caps each request, not the export"
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

    def info(self) -> WorkspaceInfo:
        """Return where the database is, how big, since when, what tables it has, and whose they are."""
        tables = [table.name for table in self.tables()]
        size_mb, created_at = size_and_birth(self.db_path)
        whose = self._known_credentials()
        return WorkspaceInfo(
            path=self.db_path,
            project_id=whose.project_id if whose else "unknown",
            region=whose.region if whose else "unknown",
            account=self._account,
            tables=tables,
            size_mb=size_mb,
            created_at=created_at,
        )

    def fetch_profiles(self, *_arguments: object, **_options: object) -> NoReturn:
        """Raise `NotImplementedError`: profiles are not exported."""
        raise NotImplementedError(
            "profiles are not exported; use Mixpanel's Engage API, or the package mixpanel-utils, for them"
        )

    @property
    def api(self) -> NoReturn:
        """Raise `NotImplementedError`: there is no client for the rest of Mixpanel's API."""
        raise NotImplementedError(
            "there is no client for Mixpanel's other APIs; use fetch_events or stream_events, or an HTTP client"
        )

    def _known_credentials(self) -> Credentials | None:
        """Return the credentials, None where there are none, or where the file may be another project's."""
        try:
            return None if self._only_opened else self._credentials
        except ConfigError:
            return None

    @cached_property
    def _credentials(self) -> Credentials:
        if self._given is None:
            return resolve_credentials(self._account, project_id=self._project_id, region=self._region)
        given = self._given
        return changed(
            given, project_id=self._project_id or given.project_id, region=self._region or given.region
        )


def _both(watch: Watcher, also: Callable[[Progress], object] | None) -> Callable[[Progress], object]:
    def tell(progress: Progress) -> object:
        watch(progress)
        return also(progress) if also else None

    return tell
