"""Checks the arguments of a verification and converts them into a job."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path

from mixpanel_export._config.endpoint import query_url
from mixpanel_export._database.path import check_exists, database_path
from mixpanel_export._model import Selection
from mixpanel_export._quota.limits import Quota
from mixpanel_export._quota.retry_policy import DEFAULT_PAUSES, Pauses
from mixpanel_export._source.parameters import RequestParameters, Timeouts
from mixpanel_export._timezones import checked_zone
from mixpanel_export.credentials import Credentials, resolve_credentials
from mixpanel_export.errors import ArgumentError

_TIMEOUTS = Timeouts(first_byte=300.0, idle=60.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifyArguments:
    """The arguments of `verify_events` that describe a verification, as the caller passed them."""

    db: str | Path
    table: str = "events"
    from_date: str | date | None = None
    to_date: str | date | None = None
    credentials: Credentials | None = None
    reporting_timezone: str | None = None
    tolerance: float = 0.0
    ignore: Iterable[str] = ()
    retries: int = 5
    max_wait: float = 86_400.0
    api_url: str | None = None
    per_hour: int | None = None
    now: Callable[[], datetime] = lambda: datetime.now(UTC)

    def check(self) -> None:
        """Check the ranges of the arguments.

        Raises:
            ArgumentError: An argument is out of range.
        """
        if not 0 <= self.tolerance <= 1:
            raise ArgumentError("tolerance", f"must be a share from 0 to 1, got {self.tolerance}")
        if isinstance(self.ignore, str):
            raise ArgumentError("ignore", f"must be a list of event names, got {self.ignore!r}")
        for name, value in (("retries", self.retries), ("max_wait", self.max_wait)):
            if value < 0:
                raise ArgumentError(name, f"must be 0 or more, got {value}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """The settings of a verification, after all checks."""

    arguments: VerifyArguments
    path: Path
    parameters: RequestParameters
    """The URL of the Query API, the credentials and the timeouts."""
    zone: str | None
    """The reporting time zone; None means the zone of the table's days."""
    ignored: frozenset[str]
    """The event names that are not compared."""
    quota: Quota
    """The quota of the Query API."""
    pauses: Pauses = DEFAULT_PAUSES

    @property
    def credentials(self) -> Credentials:
        """The credentials for all requests."""
        return self.parameters.credentials


def checked_job(arguments: VerifyArguments) -> Job:
    """Return the job that the arguments describe.

    Raises:
        ValueError, ConfigError, DatabaseError: See `verify_events`.
    """
    path = database_path(arguments.db)
    check_exists(path)
    arguments.check()
    credentials = arguments.credentials or resolve_credentials()
    url = query_url(credentials.region, arguments.api_url)
    zone = arguments.reporting_timezone
    return Job(
        arguments=arguments,
        path=path,
        parameters=RequestParameters(url, credentials, Selection(credentials.project_id), timeouts=_TIMEOUTS),
        zone=zone and checked_zone(zone, argument="reporting_timezone"),
        ignored=frozenset(arguments.ignore),
        quota=Quota.for_queries(arguments.per_hour, max_wait=arguments.max_wait),
    )
