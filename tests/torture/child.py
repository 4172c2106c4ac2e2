"""The process that is killed: an export, and a point at which it ends itself.

The exporter's code has no hooks for this. What it calls is wrapped here, in the child alone: the connections of
DuckDB and of SQLite, and methods of a few classes. A point is one of their calls, the *turn*-th of its kind, and
the process ends before it, while it runs, or after it.
"""

import os
import re
import shutil
import signal
import sqlite3
import threading
import warnings
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from functools import partial, wraps
from importlib import import_module
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Literal, Self

import anyio
import duckdb

from mixpanel_export import Credentials, MixpanelDataError, Timeouts, export_events

from .knobs import Knobs, turned
from .world import Ask

Moment = Literal["before", "during", "after"]

STATEMENTS = {
    "commit": "COMMIT",
    "begin": "BEGIN",
    "creating the file": r"ATTACH|DETACH",
    "creating the ledger": r"\s*CREATE SEQUENCE|COMMENT ON TABLE _export|\s*CREATE VIEW",
    "giving batch ids": r"SELECT nextval",
    "reading": r"PREPARE _export_statement AS\s+SELECT event_name",
    "finding duplicates": r"PREPARE _export_statement AS\s+SELECT number",
    "loading": r"PREPARE _export_statement AS\s+INSERT INTO",
    "hiding duplicates": r"INSERT INTO _export_duplicates",
    "superseding": r"DELETE FROM \".*unnest|DELETE FROM _export",
    "writing the ledger": r"INSERT INTO _export_batches",
    "setting lines aside": r"INSERT INTO _export_rejects",
    "dropping the old table": r"DROP TABLE",
    "renaming the shadow": r"ALTER TABLE",
    "renaming the ledger rows": r"UPDATE _export_batches SET table_name",
    "checkpoint": r"CHECKPOINT",
}
"""Points in DuckDB: the statement begins like this."""

CALLS = {
    "making the staging directory": "_writer.staging.Staging.__init__",
    "staging a start": "_writer.staging.Staging.start",
    "staging a block": "_writer.staging.Staging.add",
    "staging an end": "_writer.staging.Staging.end",
    "dropping a staged chunk": "_writer.staging.Staging.drop",
    "discarding a staged chunk": "_writer.staging.Staging.discard",
    "removing the staging": "_writer.staging.Staging.close",
    "mending": "_writer.staging.Staging.rewrite",
    "noting a failure": "_writer.table.EventsTable.fail",
    "swapping": "_writer.table.EventsTable._swap",
    "taking a place of the quota": "_quota.shared.SharedQuota.take",
    "giving a place back": "_quota.shared.SharedQuota.refund",
    "pausing all processes": "_quota.shared.SharedQuota.pause",
    "following a failed attempt": "_source.fetcher.Fetcher._follow",
    "splitting a chunk": "_export.fetching.Fetching._split",
}
"""Points in the exporter: this method is called."""

QUOTA_COMMIT = "committing the quota file"
HALF_REMOVED = "half-way through removing the staging"
RETRY_WAIT = "waiting for a retry"
POINTS = (*STATEMENTS, *CALLS, QUOTA_COMMIT, HALF_REMOVED, RETRY_WAIT)
ASYNCHRONOUS = frozenset(
    [
        HALF_REMOVED,
        RETRY_WAIT,
        *(name for name, path in CALLS.items() if path.startswith(("_source.fetcher", "_export.fetching"))),
    ]
)
"""Points that have no during and after."""


@dataclass(frozen=True, slots=True)
class Point:
    """Where to end: the *turn*-th time at the point *name*, `during` it after *delay* seconds."""

    name: str
    turn: int = 1
    moment: Moment = "before"
    delay: float = 0.0


@dataclass(frozen=True, slots=True)
class Job:
    """An export for a child."""

    ask: Ask
    db: Path
    url: str
    credentials: Credentials
    now: datetime
    knobs: Knobs
    state: Path
    timeouts: Timeouts | None = None
    point: Point | None = None


def work(job: Job, reply: Connection) -> None:
    """Export as *job* says; send the result, or kind and message of the error."""
    os.environ["MPX_STATE_DIR"] = str(job.state)
    if job.point:
        _lay(job.point)

    async def exported() -> object:
        try:
            return await export_events(
                job.ask.first,
                job.ask.last,
                db=job.db,
                credentials=job.credentials,
                api_url=job.url,
                per_second=50,
                per_hour=10_000,
                max_wait=5.0,
                timeouts=job.timeouts,
                now=lambda: job.now,
                **job.ask.arguments,
            )
        except MixpanelDataError as error:
            return type(error), str(error)

    with turned(job.knobs), warnings.catch_warnings():
        warnings.filterwarnings("error")
        warnings.filterwarnings(
            "ignore", "most events look|.*answered twice without a body|.*no event at all"
        )
        reply.send(anyio.run(exported))


class _Trigger:
    """Counts the calls of a point and ends the process at the right one."""

    def __init__(self, point: Point) -> None:
        self._point = point
        self._left = point.turn
        self._turn = threading.Lock()

    def around(self, call: Callable[[], Any]) -> Any:
        with self._turn:
            self._left -= 1
            here = self._left == 0
        if here and self._point.moment == "before":
            die()
        if here and self._point.moment == "during":
            threading.Timer(self._point.delay, die).start()
        result = call()
        if here and self._point.moment == "after":
            die()
        return result


def die() -> None:
    """End this process at once, as a power switch would."""
    os.kill(os.getpid(), signal.SIGKILL)


class _Watched:
    """A connection of DuckDB whose statements pass a trigger."""

    def __init__(self, connection: duckdb.DuckDBPyConnection, pattern: str, trigger: _Trigger) -> None:
        self._connection = connection
        self._pattern = re.compile(pattern, re.DOTALL)
        self._trigger = trigger

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.close()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._connection, name)

    def execute(self, statement: str, *parameters: Any) -> Any:
        return self._run(statement, partial(self._connection.execute, statement, *parameters))

    def cursor(self) -> "_Watched":
        return _Watched(self._connection.cursor(), self._pattern.pattern, self._trigger)

    def begin(self) -> Any:
        return self._run("BEGIN", self._connection.begin)

    def commit(self) -> Any:
        return self._run("COMMIT", self._connection.commit)

    def _run(self, statement: str, call: Callable[[], Any]) -> Any:
        return self._trigger.around(call) if self._pattern.match(statement) else call()


def _lay(point: Point) -> None:
    """Wrap what the point names."""
    trigger = _Trigger(point)
    if point.name in STATEMENTS:
        connect = duckdb.connect
        duckdb.connect = lambda *args, **options: _Watched(  # type: ignore[assignment] # looks like one
            connect(*args, **options), STATEMENTS[point.name], trigger
        )
    elif point.name in CALLS:
        _wrap(CALLS[point.name], trigger)
    elif point.name == QUOTA_COMMIT:
        _watch_sqlite(trigger)
    elif point.name == HALF_REMOVED:
        shutil.rmtree = _remove_half  # type: ignore[assignment] # called with a path alone, or to ignore errors
    else:
        _watch_waits(point)


def _wrap(path: str, trigger: _Trigger) -> None:
    module, owner, name = path.rsplit(".", 2)
    of = getattr(import_module(f"mixpanel_export.{module}"), owner)
    method = getattr(of, name)

    @wraps(method)
    def wrapped(*args: Any, **options: Any) -> Any:
        return trigger.around(partial(method, *args, **options))

    setattr(of, name, wrapped)


def _watch_sqlite(trigger: _Trigger) -> None:
    class Watched(sqlite3.Connection):
        def execute(self, statement: str, *parameters: Any) -> sqlite3.Cursor:
            call = partial(super().execute, statement, *parameters)
            found: sqlite3.Cursor = trigger.around(call) if statement == "COMMIT" else call()
            return found

    sqlite3.connect = partial(sqlite3.connect, factory=Watched)  # type: ignore[assignment] # as before


def _remove_half(path: Path, *, ignore_errors: bool = False) -> None:
    """Remove the first file, as `shutil.rmtree` would, and be gone."""
    with suppress(OSError, StopIteration):
        next(iter(sorted(path.iterdir()))).unlink()
    die()


def _watch_waits(point: Point) -> None:
    """End while the first wait that the policy decides is under way."""
    attempts: Any = import_module("mixpanel_export._source.fetcher")
    decide = attempts.next_step

    def decided(*args: Any, **options: Any) -> Any:
        step = decide(*args, **options)
        if isinstance(step, attempts.Wait):
            threading.Timer(point.delay, die).start()
            return attempts.Wait(point.delay + 5.0)
        return step

    attempts.next_step = decided
