"""The file and the project of a `Workspace`."""

from dataclasses import replace as changed
from functools import cached_property
from pathlib import Path

from mixpanel_export._compat import default_path
from mixpanel_export._config.config_file import chosen_database
from mixpanel_export._database.path import database_path
from mixpanel_export._local.file import LocalDatabase
from mixpanel_export._source.parameters import Timeouts
from mixpanel_export._timezones import checked_zone
from mixpanel_export.credentials import Credentials, checked_project_id, resolve_credentials
from mixpanel_export.errors import ConfigError


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
