"""The base class of `Workspace`, with its file, credentials, `verify`, `publish`, `copy`, and methods for profiles."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace as changed
from datetime import date
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, Unpack, overload

from mixpanel_export._compat import (
    FetchProfileOptions,
    check,
    default_path,
    profile_filters,
    profile_mode_of,
    sequential_profile_result,
)
from mixpanel_export._config.config_file import chosen_database
from mixpanel_export._database.path import check_exists, database_path
from mixpanel_export._local.file import LocalDatabase
from mixpanel_export._profiles.engine import export_profiles
from mixpanel_export._profiles.job import MAX_WORKERS, ProfileArguments, checked_query
from mixpanel_export._profiles.stream import fetch_pages, iter_profiles
from mixpanel_export._publish.publish import publish_table
from mixpanel_export._publish.read_copy import copy_database
from mixpanel_export._source.engage import Session
from mixpanel_export._source.parameters import Timeouts
from mixpanel_export._source.profile_page import ProfilePage
from mixpanel_export._timezones import checked_zone
from mixpanel_export._tracebacks import short_tracebacks
from mixpanel_export._verify.verify import verify_events
from mixpanel_export.credentials import Credentials, checked_project_id, resolve_credentials
from mixpanel_export.errors import ConfigError
from mixpanel_export.profiles import ParallelProfileResult, ProfileProgress
from mixpanel_export.progress import combined, draw, draw_days
from mixpanel_export.publication import CopyResult, PublishResult
from mixpanel_export.results import FetchResult, Progress
from mixpanel_export.sync import run_sync
from mixpanel_export.verification import VerifyResult


class Project(LocalDatabase):
    """A database file, and the settings for fetching events into it. `Workspace` documents the settings."""

    def __init__(  # noqa: PLR0917 - the order is the same as in mixpanel_data
        self,
        account: str | None = None,
        project_id: str | None = None,
        region: str | None = None,
        path: str | Path | None = None,
        read_only: bool = False,
        workspace_id: int | None = None,  # noqa: ARG002 - an argument of mixpanel_data
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
        self._fixed_credentials = credentials
        self._api_url = api_url
        self._project_timezone = project_timezone
        self._http2 = http2
        self._timeouts = timeouts
        self._only_opened = False

    @property
    def db_path(self) -> Path:
        """The path of the database file, which may not exist yet."""
        chosen = chosen_database() if self._path is None else self._path
        if chosen is not None:
            return database_path(chosen)
        return default_path(checked_project_id(self._project_id or self._credentials.project_id))

    @short_tracebacks
    def verify(
        self,
        name: str = "events",
        *,
        from_date: str | date | None = None,
        to_date: str | date | None = None,
        reporting_timezone: str | None = None,
        tolerance: float = 0.0,
        ignore: Iterable[str] = (),
        retries: int = 5,
        max_wait: float = 86_400.0,
    ) -> VerifyResult:
        """Compare table *name* with Mixpanel's own counts, for each event and day, as `verify_events` does.

        Raises:
            ArgumentError: An argument is out of range, or the table has none of the days; this is a `ValueError`.
            MixpanelDataError: The table cannot be verified, or a request failed; the subclass says why.

        Example:
            result = workspace.verify(reporting_timezone="US/Pacific")
            print(result.verified, result.failed_days, result.unexplained)
        """
        return run_sync(
            verify_events,
            self.db_path,
            name,
            from_date=from_date,
            to_date=to_date,
            credentials=self._credentials,
            reporting_timezone=reporting_timezone,
            tolerance=tolerance,
            ignore=ignore,
            retries=retries,
            max_wait=max_wait,
            api_url=self._api_url,
        )

    @overload
    def fetch_profiles(
        self, name: str = ..., *, parallel: Literal[False] = ..., **options: Unpack[FetchProfileOptions]
    ) -> FetchResult: ...
    @overload
    def fetch_profiles(
        self, name: str = ..., *, parallel: Literal[True], **options: Unpack[FetchProfileOptions]
    ) -> ParallelProfileResult: ...
    @overload
    def fetch_profiles(
        self, name: str = ..., *, parallel: bool, **options: Unpack[FetchProfileOptions]
    ) -> FetchResult | ParallelProfileResult: ...
    @short_tracebacks
    def fetch_profiles(
        self,
        name: str = "profiles",
        *,
        where: str | None = None,
        cohort_id: str | None = None,
        output_properties: list[str] | None = None,
        progress: bool = True,
        append: bool = False,
        batch_size: int = 1000,
        distinct_id: str | None = None,
        distinct_ids: list[str] | None = None,
        group_id: str | None = None,
        behaviors: list[dict[str, Any]] | None = None,
        as_of_timestamp: int | None = None,
        include_all_users: bool = False,
        parallel: bool = False,
        max_workers: int | None = None,
        on_page_complete: Callable[[ProfileProgress], object] | None = None,
        replace: bool = False,
        allow_empty: bool = False,
        retries: int = 5,
        on_progress: Callable[[Progress], object] | None = None,
        max_wait: float = 86_400.0,
        flatten: bool = False,
        wait: float = 0.0,
    ) -> FetchResult | ParallelProfileResult:
        """Fetch all user profiles that the arguments select into table *name*. See `export_profiles`.

        The table must not exist, unless *append* or *replace* is true. *append* also replaces the rows of profiles that
        are already in the table. If *parallel* is true, up to *max_workers* pages (None: 5, the maximum) are fetched at
        a time; otherwise, one page is fetched at a time. In both cases, if a page fails, its error is raised, and the
        table is unchanged. *group_id* selects group profiles. *include_all_users* also selects members of the cohort
        *cohort_id* that have no profile. An empty list or string selects all profiles, like None. *batch_size* has no
        effect. See `fetch_events` for the other arguments.

        Raises:
            ArgumentError: An argument is out of range; this is a `ValueError`.
            SnapshotError: The profiles changed during each attempt to fetch them.
            MixpanelDataError: The export cannot start, or a page failed; the subclass says why.

        Example:
            result = workspace.fetch_profiles(parallel=True)
            print(result.total_rows)
        """
        check("batch_size", batch_size, 100, 100_000)
        check("max_workers", max_workers, 1)
        filters = profile_filters(
            where=where,
            cohort_id=cohort_id,
            output_properties=output_properties,
            distinct_id=distinct_id,
            distinct_ids=distinct_ids,
            group_id=group_id,
            behaviors=behaviors,
            as_of_timestamp=as_of_timestamp,
            include_all_users=include_all_users,
        )
        workers = (max_workers or MAX_WORKERS) if parallel else 1
        with draw(enabled=progress, title=name, unit="pages") as watch:
            result = run_sync(
                export_profiles,
                db=self._writable_path("fetch"),
                table=name,
                credentials=self._credentials,
                mode=profile_mode_of(append=append, replace=replace),
                allow_empty=allow_empty,
                max_workers=workers,
                retries=retries,
                max_wait=max_wait,
                on_page=on_page_complete,
                on_progress=combined(watch, on_progress),
                api_url=self._api_url,
                timeouts=self._timeouts,
                flatten=flatten,
                wait=wait,
                **filters,
            )
        return result if parallel else sequential_profile_result(result)

    @short_tracebacks
    def stream_profiles(
        self,
        *,
        where: str | None = None,
        cohort_id: str | None = None,
        output_properties: list[str] | None = None,
        raw: bool = False,
        distinct_id: str | None = None,
        distinct_ids: list[str] | None = None,
        group_id: str | None = None,
        behaviors: list[dict[str, Any]] | None = None,
        as_of_timestamp: int | None = None,
        include_all_users: bool = False,
        retries: int = 5,
        max_wait: float = 86_400.0,
    ) -> Iterator[dict[str, Any]]:
        """Yield user profiles without storing them. See `fetch_profiles` for the arguments.

        If *raw* is true, each profile is Mixpanel's object, with $distinct_id and $properties. Otherwise, it is a
        dictionary with distinct_id, last_seen (aware, in UTC, or None) and properties, as in a table.

        Pages are requested when they are needed, up to five at a time. If Mixpanel drops the session, the pages that
        were already yielded are fetched again, and the stream continues only if they are unchanged. A profile on two
        pages is yielded twice. At the end, the number of distinct profiles must equal the total that Mixpanel reported.
        An error may therefore be raised after many profiles have been yielded.

        Raises:
            ArgumentError: An argument is out of range; this is a `ValueError`.
            SnapshotError: The profiles changed, so the yielded profiles are not a complete set.
            MixpanelDataError: A page failed; the subclass says why.
        """
        arguments = ProfileArguments(
            credentials=self._credentials,
            retries=retries,
            max_wait=max_wait,
            api_url=self._api_url,
            timeouts=self._timeouts,
            **profile_filters(
                where=where,
                cohort_id=cohort_id,
                output_properties=output_properties,
                distinct_id=distinct_id,
                distinct_ids=distinct_ids,
                group_id=group_id,
                behaviors=behaviors,
                as_of_timestamp=as_of_timestamp,
                include_all_users=include_all_users,
            ),
        )
        query = checked_query(arguments)

        def fetch(session: Session | None, numbers: range) -> list[ProfilePage]:
            return run_sync(fetch_pages, query, session, numbers)

        return iter_profiles(short_tracebacks(fetch), raw=raw, at_once=query.workers)

    @short_tracebacks
    def publish(
        self,
        destination: str | Path,
        table: str | None = None,
        *,
        format: str | None = None,  # noqa: A002 - the name of the option
        flat: bool = False,
        overwrite: bool = False,
        verify: bool = False,
        endpoint: str | None = None,
        allow_http: bool = False,
        prune_after: float = 604_800.0,
        progress: bool = True,
        wait: float = 0.0,
    ) -> PublishResult:
        """Update the data set at *destination* so that it equals a table, and show a progress bar. See `publish_table`.

        Raises:
            ArgumentError: An argument is invalid, or differs from the earlier publication; this is a `ValueError`.
            MixpanelDataError: The table cannot be published; the subclass says why.

        Example:
            print(workspace.publish("lake/events").written_days)
        """
        check_exists(self.db_path)
        with draw_days(enabled=progress) as watch:
            return run_sync(
                publish_table,
                self._writable_path("publish"),
                destination,
                table,
                format=format,
                flat=flat,
                overwrite=overwrite,
                verify=verify,
                endpoint=endpoint,
                allow_http=allow_http,
                prune_after=prune_after,
                on_progress=watch,
                wait=wait,
            )

    @short_tracebacks
    def copy(self, destination: str | Path, *, wait: float = 0.0) -> CopyResult:
        """Copy the database to the file *destination*, so that dashboards can read the copy. See `copy_database`.

        Raises:
            ArgumentError: *destination* is the database itself, or its name does not end with `.duckdb`.
            MixpanelDataError: The copy cannot be written; the subclass says why.

        Example:
            workspace.copy("dashboard.duckdb")
        """
        check_exists(self.db_path)
        return run_sync(copy_database, self._writable_path("copy it"), destination, wait=wait)

    def _credentials_or_none(self) -> Credentials | None:
        """Return the credentials; None if there are none, or if the file may belong to another project."""
        try:
            return None if self._only_opened else self._credentials
        except ConfigError:
            return None

    @property
    def _zone(self) -> str:
        return checked_zone(self._project_timezone, self._credentials.project_timezone)

    @cached_property
    def _credentials(self) -> Credentials:
        fixed = self._fixed_credentials
        if fixed is None:
            return resolve_credentials(self._account, project_id=self._project_id, region=self._region)
        return changed(
            fixed, project_id=self._project_id or fixed.project_id, region=self._region or fixed.region
        )
