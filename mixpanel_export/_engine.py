"""The async door: arguments checked, database opened, plan made, then everything set running."""

import os
import re
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import BinaryIO, TypeVar, get_args

import httpx
from anyio import to_thread

from mixpanel_export._attempts import Fetcher
from mixpanel_export._connections import new_client
from mixpanel_export._database import Connection, connected_for_export
from mixpanel_export._fetch import Query, Timeouts
from mixpanel_export._ledger import Selection
from mixpanel_export._limits import Gate
from mixpanel_export._plan import Held, Plan, open_from, parse_day, plan
from mixpanel_export._quota import SharedQuota, key_of
from mixpanel_export._reports import Callbacks
from mixpanel_export._run import Running
from mixpanel_export._staging import staging_for
from mixpanel_export._store import Mode, Store
from mixpanel_export._stream import Chunk
from mixpanel_export._tasks import entered_in_thread, in_task, in_thread
from mixpanel_export._zone import checked_zone, in_zone
from mixpanel_export.credentials import Credentials, export_url, resolve_credentials
from mixpanel_export.errors import ConfigError
from mixpanel_export.results import BatchProgress, ParallelFetchResult, Progress

T = TypeVar("T")

_ANY_LENGTH = 1_000_000  # days: a chunk of no maximal length

MANY_WORKERS = 20
"""More than this many requests at once is seldom faster under 3 per second, and is warned of once."""


async def export_events(
    from_date: str | date,
    to_date: str | date,
    *,
    db: str | Path,
    table: str = "events",
    credentials: Credentials | None = None,
    events: Sequence[str] | None = None,
    where: str | None = None,
    limit: int | None = None,
    max_workers: int = 10,
    chunk_days: int | None = None,
    one_request: bool = False,
    mode: Mode = "create",
    dedupe: bool = True,
    retries: int = 5,
    max_wait: float = 86_400.0,
    on_batch_complete: Callable[[BatchProgress], object] | None = None,
    on_progress: Callable[[Progress], object] | None = None,
    api_url: str | None = None,
    per_second: int | None = None,
    per_hour: int | None = None,
    timeouts: Timeouts | None = None,
    project_timezone: str | None = None,
    http2: bool = False,
    transport: httpx.AsyncBaseTransport | None = None,
    now: Callable[[], datetime] = lambda: datetime.now(UTC),
) -> ParallelFetchResult:
    """Export the raw events of *from_date* to *to_date*, both inclusive, into a table of the DuckDB file *db*.

    The days are fetched in parallel, at most *max_workers* requests at a time, and never faster than the
    project's quota: *per_second* and *per_hour* (3 and 60, or `MPX_PER_SECOND` and `MPX_PER_HOUR`; 0 for no
    limit), which all exports of this user and machine share. At most *max_wait* seconds in all are spent on
    waiting for the hour's quota; what is not fetched then has failed. *chunk_days* None plans the requests by
    the quota; a number cuts fixed chunks.

    *one_request* asks for all days at once (with `resume`, for each run of missing days, one after the other);
    `limit` implies it.

    *mode* `create` wants no such table, `append` adds days or fetches them again, `resume` fetches what is
    missing, failed or was not final, `replace` swaps the whole table at the end. *events* and *where* select
    events; *limit* fetches at most that many, in one request, and such days never count as held.

    A batch is visible in the table if and only if it is whole; what failed of it leaves nothing there. Days that
    break twice are fetched in smaller pieces. What failed is in the result, after *retries* further attempts. With *dedupe*, of events with the same
    name, `distinct_id`, `time` and `$insert_id` the one processed last is kept.

    *project_timezone* (an IANA name such as `US/Pacific`; None: the one of the credentials) is the zone of a
    project created before 2023, whose `time` is the local clock: numbers, and text without an offset, become
    UTC by it, and days are over when they are over there. A local time that comes twice a year, or never, is
    the later of its two readings. `properties` keeps what was sent. "UTC" leaves times as they are.

    *timeouts* bounds the silence of a connection. With *http2* the server may choose HTTP/2; each request still
    has a connection of its own. Proxies and certificates are those of `HTTPS_PROXY`, `ALL_PROXY`, `NO_PROXY`,
    `SSL_CERT_FILE` and `SSL_CERT_DIR`. *transport* replaces the network, for tests; *now* is the clock that says
    which days are over.

    *on_batch_complete* and *on_progress* are called one at a time in this event loop; an awaitable that they
    return is awaited. If one raises, the export stops, keeps what is committed, and the exception leaves here.

    Raises:
        ValueError: An argument is out of range. Nothing was requested.
        ConfigError: No usable credentials, or proxies or certificates of the environment. Nothing was requested.
        DatabaseError, ExportRunningError, LedgerMismatchError, SelectionError, TableError: The file or the
            table does not fit. Nothing was requested, unless the disk filled up later.
        AuthenticationError, QueryError: Mixpanel refuses the export as a whole; committed batches are kept.
    """
    wanted = _days(from_date, to_date, now())
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
    names = _event_names(events)
    credentials = credentials or resolve_credentials()
    zone = checked_zone(project_timezone, credentials.project_timezone)
    query = _query(credentials, api_url, timeouts, events=names, where=where, limit=limit)
    job = _Job(
        path=_absolute(db),
        table=table,
        mode=mode,
        dedupe=dedupe,
        wanted=wanted,
        selection=Selection(credentials.project_id, names, where),
        zone=zone,
        query=query,
        gate=_gate(query, per_second, per_hour, max_wait),
        workers=max_workers,
        chunk_days=_ANY_LENGTH if one_request or limit is not None else chunk_days,
        retries=retries,
        http2=http2,
        transport=transport,
        callbacks=Callbacks(on_batch_complete, on_progress),
        now=now,
    )
    return await in_task(job.run)


async def download_events(
    from_date: str | date,
    to_date: str | date,
    file: BinaryIO,
    *,
    credentials: Credentials | None = None,
    events: Sequence[str] | None = None,
    where: str | None = None,
    limit: int | None = None,
    retries: int = 5,
    max_wait: float = 86_400.0,
    api_url: str | None = None,
    timeouts: Timeouts | None = None,
    http2: bool = False,
    transport: httpx.AsyncBaseTransport | None = None,
    now: Callable[[], datetime] = lambda: datetime.now(UTC),
) -> None:
    """Write the lines of one request for the days, proven whole, to a seekable *file*.

    Raises:
        ValueError, ConfigError: As `export_events`.
        APIError: The attempts are spent, or trying again cannot help.
    """
    chunk = _days(from_date, to_date, now())
    names = _event_names(events)
    credentials = credentials or resolve_credentials()
    query = _query(credentials, api_url, timeouts, events=names, where=where, limit=limit)

    async def download() -> None:
        async with new_client(transport, http2=http2) as client:
            fetcher = Fetcher(
                client, query, _gate(query, None, None, max_wait), workers=1, retries=retries, now=now
            )
            await fetcher.fetch(chunk, _FileSink(file))

    await in_task(download)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Job:
    """An export whose arguments have been checked."""

    path: Path
    table: str
    mode: Mode
    dedupe: bool
    wanted: Chunk
    selection: Selection
    zone: str
    query: Query
    gate: Gate
    workers: int
    chunk_days: int | None
    retries: int
    http2: bool
    transport: httpx.AsyncBaseTransport | None
    callbacks: Callbacks
    now: Callable[[], datetime]

    async def run(self) -> ParallelFetchResult:
        started = time.monotonic()
        async with entered_in_thread(connected_for_export(self.path)) as connection:
            store = await to_thread.run_sync(self._store, connection)
            held = await in_thread(store.held, store.interrupt)
            await self.gate.look()
            planned = self._plan(held)
            batches = await in_thread(partial(store.batches_for, planned.chunks), store.interrupt)
            async with (
                new_client(self.transport, http2=self.http2) as client,
                entered_in_thread(staging_for(self.path, batches)) as staging,
            ):
                fetcher = Fetcher(
                    client, self.query, self.gate, workers=self.workers, retries=self.retries, now=self.now
                )
                running = Running(
                    planned,
                    store,
                    staging,
                    fetcher,
                    self.gate,
                    held=held,
                    now=self.now,
                    callbacks=self.callbacks,
                )
                await running.run()
            totals = await in_thread(partial(store.finish, whole=running.whole), store.interrupt)
            return running.result(store.table, totals, time.monotonic() - started)

    def _store(self, connection: Connection) -> Store:
        return Store(
            connection,
            self.path,
            table=self.table,
            selection=self.selection,
            wanted=self.wanted,
            mode=self.mode,
            zone=self.zone,
            dedupe=self.dedupe,
            limited=self.query.limit is not None,
        )

    def _plan(self, held: Sequence[Held]) -> Plan:
        return plan(
            self.wanted.first,
            self.wanted.last,
            held=held,
            trust=self.mode in {"resume", "replace"},
            chunk_days=self.chunk_days,
            workers=self.workers,
            requests=_planned_requests(self.gate),
            open_from=open_from(in_zone(self.now(), self.zone)),
        )


@dataclass(frozen=True, slots=True)
class _FileSink:
    file: BinaryIO

    async def restart(self) -> None:
        self.file.seek(0)
        self.file.truncate()

    async def block(self, lines: bytes) -> None:
        await to_thread.run_sync(self.file.write, lines)


def _absolute(db: str | Path) -> Path:
    return Path(db).expanduser().absolute()


def _days(from_date: str | date, to_date: str | date, now: datetime) -> Chunk:
    first, last = parse_day(from_date, "from_date"), parse_day(to_date, "to_date")
    if last < first:
        raise ValueError(f"to_date {last} is before from_date {first}; swap them")
    latest = (now.astimezone(UTC) + timedelta(hours=14)).date()
    if last > latest:
        raise ValueError(f"to_date {last} is in the future; the latest day anywhere on earth is {latest}")
    return Chunk(first, last)


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
            stacklevel=3,
        )


def _event_names(events: Sequence[str] | None) -> tuple[str, ...] | None:
    if events is None:
        return None
    if isinstance(events, str) or not events or not all(isinstance(name, str) for name in events):
        raise ValueError(f"events must be a list of at least one event name, got {events!r}")
    try:
        "".join(events).encode()
    except UnicodeEncodeError as error:
        raise ValueError(f"events has a name that is no text Mixpanel could send: {events!r}") from error
    return tuple(sorted(set(events)))


def _query(
    credentials: Credentials,
    api_url: str | None,
    timeouts: Timeouts | None,
    *,
    events: tuple[str, ...] | None,
    where: str | None,
    limit: int | None,
) -> Query:
    url = export_url(credentials.region, api_url)
    return Query(url, credentials, events, where, limit, timeouts or Timeouts())


def _gate(query: Query, per_second: int | None, per_hour: int | None, max_wait: float) -> Gate:
    limits = _quota(per_second, "MPX_PER_SECOND", 3), _quota(per_hour, "MPX_PER_HOUR", 60)
    key = key_of(query.url, query.credentials.project_id)
    return Gate(*limits, shared=SharedQuota(key, *limits) if any(limits) else None, max_wait=max_wait)


def _quota(given: int | None, variable: str, usual: int) -> int:
    if given is not None:
        return given
    text = os.environ.get(variable, str(usual))
    if not text.isdecimal():
        raise ConfigError(f"{variable} must be a whole number, 0 for no limit, got {text!r}")
    return int(text)


def _planned_requests(gate: Gate) -> int | None:
    """Return how many of the hour's requests a plan may spend: five of six, as the rest is for retries."""
    return None if gate.remaining is None else max(1, gate.remaining * 5 // 6)
