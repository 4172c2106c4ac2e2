"""Checks the arguments of an export of profiles and converts them into a job."""

import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, get_args

from mixpanel_export._config.endpoint import query_url
from mixpanel_export._database.path import database_path
from mixpanel_export._database.snapshots import ProfileMode
from mixpanel_export._model import Selection
from mixpanel_export._quota.gate import Gate, gate_for
from mixpanel_export._quota.limits import Quota
from mixpanel_export._quota.retry_policy import DEFAULT_PAUSES, Pauses
from mixpanel_export._source.engage import ProfileSelection
from mixpanel_export._source.parameters import RequestParameters, Timeouts
from mixpanel_export.credentials import Credentials, resolve_credentials
from mixpanel_export.errors import ArgumentError

MAX_WORKERS = 5
"""Mixpanel allows 5 queries at a time."""

_MAX_IDS = 2000  # in one request, as in mixpanel_data
_TIMEOUTS = Timeouts(first_byte=300.0, idle=60.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class ProfileQuery:
    """The settings of the requests for profiles, after all checks."""

    selection: ProfileSelection
    parameters: RequestParameters
    gate: Gate
    workers: int
    retries: int
    pauses: Pauses
    now: Callable[[], datetime]


@dataclass(frozen=True, slots=True, kw_only=True)
class ProfileJob:
    """The settings of an export of profiles, after all checks."""

    query: ProfileQuery
    path: Path
    table: str
    mode: ProfileMode
    allow_empty: bool
    flatten: bool
    wait: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ProfileArguments:
    """The arguments of `export_profiles` that concern the requests, as the caller passed them."""

    credentials: Credentials | None = None
    where: str | None = None
    cohort: int | str | None = None
    properties: Iterable[str] | None = None
    distinct_ids: Iterable[str] | None = None
    group: str | int | None = None
    include_all_users: bool | None = None
    behaviors: Sequence[Mapping[str, Any]] | None = None
    as_of_timestamp: int | None = None
    max_workers: int = MAX_WORKERS
    retries: int = 5
    max_wait: float = 86_400.0
    api_url: str | None = None
    per_hour: int | None = None
    timeouts: Timeouts | None = None
    now: Callable[[], datetime] = lambda: datetime.now(UTC)


def checked_query(
    arguments: ProfileArguments, pauses: Pauses = DEFAULT_PAUSES, purpose: str = "stream of profiles"
) -> ProfileQuery:
    """Return the requests that the arguments describe. `mpx quota` shows *purpose*.

    Raises:
        ValueError, ConfigError: See `export_profiles`.
    """
    if arguments.max_workers < 1:
        raise ArgumentError("max_workers", "must be positive")
    if arguments.retries < 0:
        raise ArgumentError("retries", f"must be 0 or more, got {arguments.retries}")
    check_seconds("max_wait", arguments.max_wait)
    credentials = arguments.credentials or resolve_credentials()
    selection = _selection(arguments, credentials.project_id)
    url = query_url(credentials.region, arguments.api_url)
    quota = Quota.for_queries(arguments.per_hour, max_wait=arguments.max_wait)
    return ProfileQuery(
        selection=selection,
        parameters=RequestParameters(
            url, credentials, Selection(credentials.project_id), timeouts=arguments.timeouts or _TIMEOUTS
        ),
        gate=gate_for(quota, url, credentials.project_id, pauses, purpose),
        workers=min(arguments.max_workers, MAX_WORKERS),
        retries=arguments.retries,
        pauses=pauses,
        now=arguments.now,
    )


def checked_job(
    arguments: ProfileArguments,
    *,
    db: str | Path,
    table: str = "profiles",
    mode: ProfileMode = "create",
    allow_empty: bool = False,
    flatten: bool = False,
    wait: float = 0.0,
    pauses: Pauses = DEFAULT_PAUSES,
) -> ProfileJob:
    """Return the job that the arguments describe.

    Raises:
        ValueError, ConfigError: See `export_profiles`.
    """
    if mode not in get_args(ProfileMode):
        raise ArgumentError("mode", f"must be one of {', '.join(get_args(ProfileMode))}, got {mode!r}")
    if not re.fullmatch(r"[a-zA-Z0-9][a-zA-Z0-9_]*", table):
        raise ArgumentError("table", f"{table!r} must consist of letters, digits and _, and not begin with _")
    check_seconds("wait", wait)
    path = database_path(db).absolute()
    return ProfileJob(
        query=checked_query(arguments, pauses, f"export into table {table} of {path}"),
        path=path,
        table=table,
        mode=mode,
        allow_empty=allow_empty,
        flatten=flatten,
        wait=wait,
    )


def check_seconds(name: str, seconds: float) -> None:
    """Check a time in seconds.

    Raises:
        ArgumentError: *seconds* is negative or not a number.
    """
    if not seconds >= 0:
        raise ArgumentError(name, f"must be at least 0 (seconds), got {seconds}")


def _selection(arguments: ProfileArguments, project: str) -> ProfileSelection:
    where = arguments.where
    if where is not None and not where.strip():
        raise ArgumentError("where", "must not be empty", advice="leave it out to export all profiles")
    if arguments.include_all_users is not None and arguments.cohort is None:
        raise ArgumentError("include_all_users", "can only be used with a cohort")
    if arguments.behaviors is not None and arguments.cohort is not None:
        raise ArgumentError("behaviors", "cannot be used with a cohort")
    selection = ProfileSelection(
        project=project,
        where=where,
        cohort=_cohort(arguments.cohort),
        properties=_strings("properties", arguments.properties),
        distinct_ids=_strings("distinct_ids", arguments.distinct_ids),
        group=None if arguments.group is None else str(arguments.group),
        include_all_users=arguments.include_all_users,
        behaviors=None if arguments.behaviors is None else json.dumps(list(arguments.behaviors)),
        as_of_timestamp=arguments.as_of_timestamp,
    )
    if selection.distinct_ids is not None and len(selection.distinct_ids) > _MAX_IDS:
        raise ArgumentError("distinct_ids", f"must have at most {_MAX_IDS:,} ids")
    try:
        str(selection).encode()
    except UnicodeEncodeError as error:
        raise ArgumentError("where", "or another string cannot be encoded as UTF-8") from error
    return selection


def _cohort(cohort: int | str | None) -> int | None:
    if cohort is None or isinstance(cohort, int):
        return cohort
    if not re.fullmatch("[0-9]{1,18}", cohort):
        raise ArgumentError("cohort", f"must be the number of a cohort, got {cohort!r}")
    return int(cohort)


def _strings(argument: str, values: Iterable[str] | None) -> tuple[str, ...] | None:
    """Return the values without duplicates, in the same order. An iterator is consumed."""
    if values is None:
        return None
    if isinstance(values, str | bytes) or not isinstance(values, Iterable):
        raise ArgumentError(argument, f"must be a list of strings, got {values!r}")
    items = list(values)
    if not items or not all(isinstance(item, str) for item in items):
        raise ArgumentError(argument, f"must be a list of at least one string, got {items!r}")
    return tuple(dict.fromkeys(items))
