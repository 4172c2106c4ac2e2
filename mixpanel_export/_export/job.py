"""Checks the arguments of an export and converts them into a job, for a real run or a dry run."""

import re
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import get_args

from mixpanel_export._database.path import database_path
from mixpanel_export._database.preflight import ExportSpec, Mode
from mixpanel_export._export.tuning import DEFAULT_TUNING, Tuning
from mixpanel_export._model import Batch, Chunk, Selection
from mixpanel_export._planning.days import check_has_begun, checked_days, latest_day
from mixpanel_export._planning.planner import Plan, first_open_day, plan
from mixpanel_export._planning.refresh import Refresh, plan_sync
from mixpanel_export._quota.gate import Gate, GateStatistics, gate_for
from mixpanel_export._quota.limits import Quota
from mixpanel_export._source.parameters import RequestParameters, Timeouts, checked_names, parameters_for
from mixpanel_export._timezones import checked_zone, in_zone, naive_utc
from mixpanel_export.credentials import Credentials, resolve_credentials
from mixpanel_export.errors import AdvisoryWarning, ArgumentError

MANY_WORKERS = 20
"""More workers than this cause a warning, because they rarely help at 3 requests per second."""

_MAX_WORKERS = 100  # Mixpanel responds to more simultaneous requests with 429
_LONGEST_CHUNK = 100  # maximum days in one request, as in mixpanel_data
_ANY_LENGTH = 1_000_000  # days in a chunk if its length is not limited


@dataclass(frozen=True, slots=True, kw_only=True)
class SyncSettings:
    """The settings for the days that a sync fetches again."""

    refresh: Refresh
    checked: Mapping[date, datetime]
    """For each day whose new response was rejected, the time of the last check, in naive UTC."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """The settings of an export, after all checks."""

    path: Path
    spec: ExportSpec
    parameters: RequestParameters
    gate: Gate
    workers: int
    chunk_days: int | None
    retries: int
    allow_empty: bool
    """Whether an empty table may replace one that has rows."""
    flatten: bool
    """Whether to update all flat tables, not only those with the `auto` setting, and to create one if there is none."""
    now: Callable[[], datetime]
    tuning: Tuning
    wait: float = 0.0
    """How long to wait, in seconds, for another export into the file or for another process that has it open."""
    sync: SyncSettings | None = None
    """The settings of a sync; None for other exports."""

    async def plan(self, batches: Sequence[Batch], history: Sequence[Batch]) -> Plan:
        """Plan the requests within the remaining quota.

        *batches* contains the selection's ledger rows. *history* contains the ledger rows of a table that will be replaced;
        they are used only to estimate the number of events.
        """
        await self.gate.refresh()
        if self.sync is not None:
            return self._plan_sync(self.sync, batches)
        latest = latest_day(self.now())
        days = self.spec.days
        planned = plan(
            days.first,
            min(days.last, latest),
            batches=batches,
            history=history,
            skip_complete=self.spec.mode in {"resume", "replace"},
            chunk_days=self.chunk_days,
            workers=self.workers,
            requests=_planned_requests(self.gate.statistics(), self.spec.days.length),
            first_open_day=first_open_day(in_zone(self.now(), self.spec.zone)),
        )
        if days.last <= latest:
            return planned
        future = Chunk(latest + timedelta(days=1), days.last)
        return replace(planned, chunks=(*planned.chunks, future), future=(future,))

    def _plan_sync(self, sync: SyncSettings, batches: Sequence[Batch]) -> Plan:
        return plan_sync(
            self.spec.days,
            batches=batches,
            checked=sync.checked,
            refresh=sync.refresh,
            now=naive_utc(self.now()),
            first_open_day=first_open_day(in_zone(self.now(), self.spec.zone)),
            workers=self.workers,
            requests=_planned_requests(self.gate.statistics(), self.spec.days.length),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportArguments:
    """The arguments of `export_events` that describe an export, as the caller passed them."""

    from_date: str | date
    to_date: str | date
    db: str | Path
    table: str = "events"
    credentials: Credentials | None = None
    events: Iterable[str] | None = None
    where: str | None = None
    limit: int | None = None
    max_workers: int = 10
    chunk_days: int | None = None
    one_request: bool = False
    mode: Mode = "create"
    dedupe: bool = True
    allow_empty: bool = False
    flatten: bool = False
    retries: int = 5
    max_wait: float = 86_400.0
    api_url: str | None = None
    per_second: int | None = None
    per_hour: int | None = None
    timeouts: Timeouts | None = None
    project_timezone: str | None = None
    wait: float = 0.0
    now: Callable[[], datetime] = lambda: datetime.now(UTC)

    @property
    def is_single_request(self) -> bool:
        """Whether the export uses one request for all its days."""
        return self.one_request or self.limit is not None

    def check(self) -> None:
        """Check the ranges of the arguments.

        Raises:
            ArgumentError: An argument is out of range.
        """
        if self.mode not in get_args(Mode):
            raise ArgumentError("mode", f"must be one of {', '.join(get_args(Mode))}, got {self.mode!r}")
        if not re.fullmatch(r"[a-zA-Z0-9][a-zA-Z0-9_]*", self.table):
            raise ArgumentError(
                "table", f"{self.table!r} must consist of letters, digits and _, and not begin with _"
            )
        if self.limit is not None and not 1 <= self.limit <= 100_000:
            raise ArgumentError("limit", f"must be between 1 and 100000, got {self.limit}")
        if self.where is not None and not self.where.strip():
            raise ArgumentError("where", "must not be empty", advice="leave it out to export all events")
        if self.retries < 0:
            raise ArgumentError("retries", f"must be 0 or more, got {self.retries}")
        for name, seconds in (("max_wait", self.max_wait), ("wait", self.wait)):
            if not seconds >= 0:
                raise ArgumentError(name, f"must be at least 0 (seconds), got {seconds}")
        if not self.is_single_request:
            self._check_parallel()

    def _check_parallel(self) -> None:
        if self.max_workers < 1:
            raise ArgumentError("max_workers", "must be positive")
        if self.chunk_days is not None and not 1 <= self.chunk_days <= 100:
            raise ArgumentError("chunk_days", f"must be between 1 and 100, got {self.chunk_days}")
        if self.max_workers > MANY_WORKERS:
            used = f"; only {_MAX_WORKERS} are used" if self.max_workers > _MAX_WORKERS else ""
            warnings.warn(
                AdvisoryWarning(
                    f"{self.max_workers} workers are no faster than {MANY_WORKERS}, because Mixpanel allows 3 requests per "
                    f"second{used}",
                    advice="lower $max_workers",
                    argument="max_workers",
                ),
                stacklevel=5,
            )


def checked_job(
    arguments: ExportArguments, tuning: Tuning = DEFAULT_TUNING, *, purpose: str | None = None
) -> Job:
    """Return the job that the arguments describe. `mpx quota` shows *purpose*; the default names the table and the file.

    Raises:
        ValueError, ConfigError: See `export_events`.
    """
    arguments.check()
    names = checked_names(arguments.events)
    credentials = arguments.credentials or resolve_credentials()
    zone = checked_zone(arguments.project_timezone, credentials.project_timezone)
    days = checked_days(arguments.from_date, arguments.to_date, in_zone(arguments.now(), zone).date())
    check_has_begun(days.first, "from_date", arguments.now())
    selection = Selection(credentials.project_id, names, arguments.where)
    parameters = parameters_for(
        credentials,
        selection,
        limit=arguments.limit,
        api_url=arguments.api_url,
        timeouts=arguments.timeouts,
    )
    path = database_path(arguments.db).absolute()
    quota = Quota.resolved(arguments.per_second, arguments.per_hour, max_wait=arguments.max_wait)
    return Job(
        path=path,
        spec=ExportSpec(
            table=arguments.table,
            selection=selection,
            days=days,
            mode=arguments.mode,
            zone=zone,
            zone_is_known=(arguments.project_timezone or credentials.project_timezone) is not None,
            dedupe=arguments.dedupe,
            limited=arguments.limit is not None,
        ),
        parameters=parameters,
        gate=gate_for(
            quota,
            parameters.url,
            credentials.project_id,
            tuning.pauses,
            purpose or f"export into table {arguments.table} of {path}",
        ),
        workers=1 if arguments.is_single_request else min(arguments.max_workers, _MAX_WORKERS),
        chunk_days=_ANY_LENGTH if arguments.is_single_request else arguments.chunk_days,
        retries=arguments.retries,
        allow_empty=arguments.allow_empty,
        flatten=arguments.flatten,
        now=arguments.now,
        tuning=tuning,
        wait=arguments.wait,
    )


def _planned_requests(gate: GateStatistics, days: int) -> int | None:
    """Return the number of requests that a plan may use: five sixths of the remaining requests.

    The rest are reserved for retries. Fetching long chunks is faster than waiting for the quota, but responses for more
    than `_LONGEST_CHUNK` days break off too often. If the remaining requests would force such chunks, the plan uses
    five sixths of a full hour's requests, and the export waits for the quota.
    """
    if gate.remaining is None:
        return None
    left = _five_sixths(gate.remaining)
    return left if days <= left * _LONGEST_CHUNK else _five_sixths(gate.per_hour)


def _five_sixths(requests: int) -> int:
    return -(-requests * 5 // 6)
