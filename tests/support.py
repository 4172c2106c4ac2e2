"""Shared by the tests: a small simulator, exports over its transport, and the contents of the file."""

from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import closing, contextmanager
from datetime import UTC, date, datetime
from functools import cache
from pathlib import Path
from threading import RLock
from typing import Any

import duckdb
import httpx

from mixpanel_export._database.connection import quoted
from mixpanel_export._export.callbacks import Callbacks
from mixpanel_export._export.engine import run_job
from mixpanel_export._export.job import ExportArguments, checked_job
from mixpanel_export._export.tuning import Tuning
from mixpanel_export._quota.retry_policy import Pauses
from mixpanel_export.credentials import Credentials
from mixpanel_export.results import BatchProgress, ParallelFetchResult, Progress
from mixpanel_export.simulator import Simulator, checksum

ACCOUNT = Credentials("demo.mp-service-account", "demo-secret", "12345")
NOW = datetime(2024, 6, 1, 12, tzinfo=UTC)
RETRY_AT_ONCE = Pauses(shortest=0.0, longest=0.0, refusal=0.0, spread=0.0)
TUNING = Tuning(pauses=RETRY_AT_ONCE)
NINE_DAYS = "2024-03-01", "2024-03-09"
COLUMNS = "event_name, event_time, distinct_id, insert_id, properties"
_attaching = RLock()


def simulator(**options: Any) -> Simulator:
    """Return a small simulator without limits at a fixed time; *options* override the defaults.

    Unlike the simulator's own defaults, some events have an unusual or missing time or id.
    """
    defaults: dict[str, Any] = {
        "events_per_day": 40,
        "odd": 0.002,
        "per_second": 0,
        "per_hour": 0,
        "now": lambda: NOW,
    }
    return Simulator(**(defaults | options))


async def export(
    sim: Simulator,
    db: Path,
    first: str | date = NINE_DAYS[0],
    last: str | date = NINE_DAYS[1],
    **options: Any,
) -> ParallelFetchResult:
    """Export from *sim* over its transport; *options* are those of `export_from`.

    The nine days without *first* and *last* are three chunks by default, since each chunk takes 10 ms of CPU time.
    """
    if (first, last) == NINE_DAYS:
        options.setdefault("chunk_days", 3)
    return await export_from(options.pop("transport", sim.transport()), db, first, last, **options)


async def export_from(
    transport: httpx.AsyncBaseTransport | None,
    db: Path,
    first: str | date,
    last: str | date,
    *,
    on_batch_complete: Callable[[BatchProgress], object] | None = None,
    on_progress: Callable[[Progress], object] | None = None,
    http2: bool = False,
    tuning: Tuning = TUNING,
    **options: Any,
) -> ParallelFetchResult:
    """Export over *transport* without limits and without pauses before retries; *options* override the defaults."""
    defaults: dict[str, Any] = {
        "credentials": ACCOUNT,
        "api_url": "http://127.0.0.1",
        "per_second": 0,
        "per_hour": 0,
        "now": lambda: NOW,
    }
    arguments = ExportArguments(from_date=first, to_date=last, db=db, **(defaults | options))
    callbacks = Callbacks(on_batch_complete, on_progress)
    return await run_job(checked_job(arguments, tuning), callbacks, http2=http2, transport=transport)


@cache
def _running() -> duckdb.DuckDBPyConnection:
    """Return a DuckDB for all tests of this process. It has no threads, because some tests fork."""
    return duckdb.connect(config={"threads": 1})


@contextmanager
def opened(db: Path) -> Iterator[duckdb.DuckDBPyConnection]:
    """Open a file by attaching it, because starting another DuckDB takes 20 ms of CPU time. Close it at the end."""
    path = str(db.absolute()).replace("'", "''")
    name = quoted(db.stem)
    with _attaching, _running().cursor() as connection:
        connection.execute(f"ATTACH '{path}' AS {name}; USE {name}")
        try:
            yield connection
        finally:
            connection.execute(f"USE memory; DETACH {name}")


def query(db: Path, sql: str) -> list[tuple[Any, ...]]:
    """Return the rows of a query."""
    try:
        with opened(db) as connection:
            return connection.execute(sql).fetchall()
    except duckdb.ResourceInUseException:  # this process has the file open
        with closing(duckdb.connect(str(db))) as connection:
            return connection.execute(sql).fetchall()


def held(db: Path, table: str = "events") -> int:
    """Return the checksum of the rows of a table, over all columns and the text of the properties."""
    return checksum(query(db, f'SELECT {COLUMNS} FROM "{table}"'))


def truth(sim: Simulator, first: str = "2024-03-01", last: str = "2024-03-09", **options: Any) -> int:
    """Return the checksum of a correct export of these days."""
    return sim.truth(date.fromisoformat(first), date.fromisoformat(last), **options).checksum


def ledger(db: Path, columns: str = "from_date, to_date, status, rows") -> list[tuple[Any, ...]]:
    """Return columns of the ledger, in the order of days and batches."""
    return query(db, f"SELECT {columns} FROM _export_batches ORDER BY from_date, batch")


class Body(httpx.AsyncByteStream):
    """A response body in pieces."""

    def __init__(self, pieces: Iterable[bytes]) -> None:
        self._pieces = pieces

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for piece in self._pieces:
            yield piece


def answering(body: Callable[[httpx.Request], bytes]) -> httpx.MockTransport:
    """Return a transport that responds to each request with status 200 and the bytes that *body* returns."""

    def handle(request: httpx.Request) -> httpx.Response:
        return httpx.Response(200, stream=Body([body(request)]))

    return httpx.MockTransport(handle)
