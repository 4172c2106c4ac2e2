"""The base class of `Workspace`: its file, its credentials, `verify` and `publish`."""

from collections.abc import Iterable
from dataclasses import replace as changed
from datetime import date
from functools import cached_property
from pathlib import Path

from mixpanel_export._compat import default_path
from mixpanel_export._config.config_file import chosen_database
from mixpanel_export._database.path import check_exists, database_path
from mixpanel_export._local.file import LocalDatabase
from mixpanel_export._publish.publish import publish_table
from mixpanel_export._source.parameters import Timeouts
from mixpanel_export._timezones import checked_zone
from mixpanel_export._tracebacks import short_tracebacks
from mixpanel_export._verify.verify import verify_events
from mixpanel_export.credentials import Credentials, checked_project_id, resolve_credentials
from mixpanel_export.errors import ConfigError
from mixpanel_export.progress import draw_days
from mixpanel_export.publication import PublishResult
from mixpanel_export.sync import run_sync
from mixpanel_export.verification import VerifyResult


class Project(LocalDatabase):
    """A database file, and the settings for fetching events into it. `Workspace` describes them."""

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
            MixpanelDataError: The table cannot be verified, or a request failed; the subclass tells why.

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
        progress: bool = True,
        wait: float = 0.0,
    ) -> PublishResult:
        """Bring the data set at *destination* in step with a table, as `publish_table` does, with a progress bar.

        Raises:
            ArgumentError: An argument is invalid, or differs from the earlier publication; this is a `ValueError`.
            MixpanelDataError: The table cannot be published; the subclass tells why.

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
                on_progress=watch,
                wait=wait,
            )

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
