"""What an export is asked to do, checked: the ground that a real run and a dry one stand on."""

import re
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path
from typing import get_args

from mixpanel_export._database.connection import database_path
from mixpanel_export._database.preflight import Mode, Target
from mixpanel_export._model import Batch, Selection
from mixpanel_export._planning.days import checked_days
from mixpanel_export._planning.planner import Plan, open_from, plan
from mixpanel_export._quota.gate import Gate, GateStatistics, gate_for
from mixpanel_export._quota.quota import Quota
from mixpanel_export._source.request import Query, Timeouts, checked_names, query_for
from mixpanel_export._timezones import checked_zone, in_zone
from mixpanel_export.credentials import Credentials, resolve_credentials

MANY_WORKERS = 20
"""More than this many requests at once is seldom faster under 3 per second, and is warned of once."""

_LONGEST_CHUNK = 100  # days, as many as mixpanel_data allows a request
_ANY_LENGTH = 1_000_000  # days: a chunk of no maximal length


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """An export whose arguments have been checked."""

    path: Path
    target: Target
    query: Query
    gate: Gate
    workers: int
    chunk_days: int | None
    retries: int
    now: Callable[[], datetime]

    async def plan(self, batches: Sequence[Batch], history: Sequence[Batch]) -> Plan:
        """Decide what to ask for, where the database has *batches* already, by what is left of the hour now.

        *history* are batches that the target does not go on from, but that tell how many events to expect.
        """
        await self.gate.refresh()
        return plan(
            self.target.days.first,
            self.target.days.last,
            batches=batches,
            history=history,
            trust=self.target.mode in {"resume", "replace"},
            chunk_days=self.chunk_days,
            workers=self.workers,
            requests=_planned_requests(self.gate.statistics(), self.target.days.days),
            open_from=open_from(in_zone(self.now(), self.target.zone)),
        )


def checked_job(
    from_date: str | date,
    to_date: str | date,
    *,
    db: str | Path,
    table: str,
    credentials: Credentials | None,
    events: Sequence[str] | None,
    where: str | None,
    limit: int | None,
    max_workers: int,
    chunk_days: int | None,
    one_request: bool,
    mode: Mode,
    dedupe: bool,
    retries: int,
    max_wait: float,
    api_url: str | None,
    per_second: int | None,
    per_hour: int | None,
    timeouts: Timeouts | None,
    project_timezone: str | None,
    now: Callable[[], datetime] = lambda: datetime.now(UTC),
) -> Job:
    """Return the job that these arguments of `export_events` ask for.

    Raises:
        ValueError, ConfigError: As `export_events`.
    """
    days = checked_days(from_date, to_date, now())
    if mode not in get_args(Mode):
        raise ValueError(f"mode must be one of {', '.join(get_args(Mode))}, got {mode!r}")
    if one_request or limit is not None:
        max_workers, chunk_days = 1, None
    _check(
        table,
        max_workers=max_workers,
        chunk_days=chunk_days,
        limit=limit,
        retries=retries,
        max_wait=max_wait,
    )
    names = checked_names(events)
    credentials = credentials or resolve_credentials()
    query = query_for(credentials, api_url, timeouts, events=names, where=where, limit=limit)
    return Job(
        path=database_path(db).absolute(),
        target=Target(
            table=table,
            selection=Selection(credentials.project_id, names, where),
            days=days,
            mode=mode,
            zone=checked_zone(project_timezone, credentials.project_timezone),
            zone_is_known=(project_timezone or credentials.project_timezone) is not None,
            dedupe=dedupe,
            limited=limit is not None,
        ),
        query=query,
        gate=gate_for(
            Quota.resolved(per_second, per_hour, max_wait=max_wait), query.url, credentials.project_id
        ),
        workers=max_workers,
        chunk_days=_ANY_LENGTH if one_request or limit is not None else chunk_days,
        retries=retries,
        now=now,
    )


def _check(
    table: str,
    *,
    max_workers: int,
    chunk_days: int | None,
    limit: int | None,
    retries: int,
    max_wait: float,
) -> None:
    if not re.fullmatch(r"[a-zA-Z0-9][a-zA-Z0-9_]*", table):
        raise ValueError(f"table {table!r} must consist of letters, digits and _, and not begin with _")
    if max_workers < 1:
        raise ValueError("max_workers must be positive")
    if max_workers > 100:
        raise ValueError(f"max_workers must be at most 100, Mixpanel's limit, got {max_workers}")
    if chunk_days is not None and not 1 <= chunk_days <= 100:
        raise ValueError(f"chunk_days must be between 1 and 100, got {chunk_days}")
    if limit is not None and not 1 <= limit <= 100_000:
        raise ValueError(f"limit must be between 1 and 100000, got {limit}")
    if retries < 0:
        raise ValueError(f"retries must be 0 or more, got {retries}")
    if not max_wait >= 0:
        raise ValueError(f"max_wait must be 0 or more seconds, got {max_wait}")
    if max_workers > MANY_WORKERS:
        warnings.warn(
            f"{max_workers} workers: beyond {MANY_WORKERS} Mixpanel's 3 requests a second decide, not the workers",
            stacklevel=4,
        )


def _planned_requests(gate: GateStatistics, days: int) -> int | None:
    """Return how many of the hour's requests a plan may spend: five of six, as the rest is for retries.

    Longer chunks are faster than waiting for the hour, up to a length at which they break too easily; then the plan
    counts on a whole hour, and on waiting for it.
    """
    if gate.remaining is None:
        return None
    left = _five_of_six(gate.remaining)
    return left if days <= left * _LONGEST_CHUNK else _five_of_six(gate.per_hour)


def _five_of_six(requests: int) -> int:
    return -(-requests * 5 // 6)
