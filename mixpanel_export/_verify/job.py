"""The arguments of a verification, checked."""

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
class Job:
    """A verification. The fields without a docstring are arguments of `verify_events`."""

    path: Path
    table: str
    credentials: Credentials
    parameters: RequestParameters
    """The URL of the Query API, the credentials and the timeouts."""
    from_date: str | date | None
    to_date: str | date | None
    zone: str | None
    """The reporting time zone; None for that of the table."""
    tolerance: float
    ignored: frozenset[str]
    retries: int
    max_wait: float
    api_url: str | None
    quota: Quota
    """The quota of the Query API."""
    now: Callable[[], datetime]
    pauses: Pauses = DEFAULT_PAUSES


def checked_job(
    db: str | Path,
    table: str = "events",
    *,
    from_date: str | date | None = None,
    to_date: str | date | None = None,
    credentials: Credentials | None = None,
    reporting_timezone: str | None = None,
    tolerance: float = 0.0,
    ignore: Iterable[str] = (),
    retries: int = 5,
    max_wait: float = 86_400.0,
    api_url: str | None = None,
    per_hour: int | None = None,
    now: Callable[[], datetime] = lambda: datetime.now(UTC),
) -> Job:
    """Check the arguments of `verify_events`. The errors are those that it raises before the first request."""
    path = database_path(db)
    check_exists(path)
    if not 0 <= tolerance <= 1:
        raise ArgumentError("tolerance", f"must be a share from 0 to 1, got {tolerance}")
    if isinstance(ignore, str):
        raise ArgumentError("ignore", f"must be a list of event names, got {ignore!r}")
    for name, value in (("retries", retries), ("max_wait", max_wait)):
        if value < 0:
            raise ArgumentError(name, f"must be 0 or more, got {value}")
    if credentials is None:
        credentials = resolve_credentials()
    url = query_url(credentials.region, api_url)
    selection = Selection(credentials.project_id)
    return Job(
        path=path,
        table=table,
        credentials=credentials,
        parameters=RequestParameters(url, credentials, selection, timeouts=_TIMEOUTS),
        from_date=from_date,
        to_date=to_date,
        zone=reporting_timezone and checked_zone(reporting_timezone, argument="reporting_timezone"),
        tolerance=tolerance,
        ignored=frozenset(ignore),
        retries=retries,
        max_wait=max_wait,
        api_url=api_url,
        quota=Quota.for_queries(per_hour, max_wait=max_wait),
        now=now,
    )
