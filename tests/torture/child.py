"""The process that is killed: an export, and a point at which it kills itself.

The exporter has no hooks for this. The child wraps what the exporter calls: the connections of DuckDB and SQLite, and methods
of a few classes. A point is the *turn*-th call of its kind, and the process ends before, during or after this call.
"""

import os
import re
import shutil
import signal
import sqlite3
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from functools import partial, wraps
from importlib import import_module
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Literal, Self

import anyio
import duckdb

from mixpanel_export import Credentials, MixpanelDataError, Timeouts, Workspace

from .people import ProfileExport, export_people
from .project import Export
from .schedules import EXPECTED_WARNINGS
from .settings import Settings, export

Moment = Literal["before", "during", "after"]

STATEMENTS = {
    "commit": "COMMIT",
    "begin": "BEGIN",
    "create the ledger": r"\s*CREATE SEQUENCE|COMMENT ON TABLE _export|\s*CREATE VIEW",
    "assign batch ids": r"SELECT nextval",
    "extract": "EXECUTE _export_extraction",
    "find duplicates": "EXECUTE _export_comparison",
    "load": r"INSERT INTO \".* FROM _export_rows",
    "move duplicates": r"\s*INSERT INTO _export_duplicates",
    "supersede": r"DELETE FROM \".*unnest|DELETE FROM _export",
    "write the ledger": r"INSERT INTO _export_batches",
    "write rejects": r"INSERT INTO _export_rejects",
    "write the target days": r"INSERT INTO _export_targets",
    "move the target days": r"UPDATE _export_targets",
    "drop the old table": r"DROP TABLE",
    "rename the shadow table": r"ALTER TABLE",
    "rename the ledger rows": r"UPDATE _export_batches SET table_name",
    "checkpoint": r"CHECKPOINT",
}
"""Points of an export in DuckDB, by a pattern for the start of the statement."""

FORGET_STATEMENTS = {
    "forget: find events": r"\s*CREATE OR REPLACE TEMP TABLE _export_removed",
    "forget: find hidden rows": r"\s*CREATE OR REPLACE TEMP TABLE _export_hidden",
    "forget: find raw lines": r"CREATE OR REPLACE TEMP TABLE _export_lines",
    "forget: delete events": r"DELETE FROM .* WHERE rowid IN \(SELECT id FROM _export_removed",
    "forget: change the ledger": r"\s*UPDATE _export_batches",
    "forget: commit": "COMMIT",
    "forget: checkpoint": "CHECKPOINT",
}
"""Points of `Workspace.forget` in DuckDB, by a pattern for the start of the statement."""

FLATTEN_STATEMENTS = {
    "flatten: find types": r"SELECT NULL AS g",
    "flatten: create the table": r"CREATE TABLE \"",
    "flatten: insert": r"INSERT INTO \"\w+\" \(event_name",
    "flatten: write the columns": r"INSERT INTO _flat_columns",
    "flatten: write the batches": r"INSERT INTO _flat_batches",
    "flatten: commit": "COMMIT",
    "flatten: checkpoint": "CHECKPOINT",
}
"""Points of `Workspace.flatten` in DuckDB, by a pattern for the start of the statement."""

PROFILE_STATEMENTS = {
    "profiles: begin": "BEGIN",
    "profiles: assign a number": r"SELECT nextval",
    "profiles: stage a page": r"\s*INSERT INTO _export_pages",
    "profiles: drop the old table": r"DROP TABLE IF EXISTS \"",
    "profiles: delete the updated rows": r"DELETE FROM \".* WHERE distinct_id IN",
    "profiles: rename the staged pages": r"ALTER TABLE _export_pages RENAME",
    "profiles: insert the staged pages": r"INSERT INTO \".* SELECT",
    "profiles: mark the old snapshots": r"UPDATE _export_snapshots",
    "profiles: write the ledger": r"INSERT INTO _export_snapshots",
    "profiles: commit": "COMMIT",
    "profiles: checkpoint": "CHECKPOINT",
}
"""Points of an export of profiles in DuckDB, by a pattern for the start of the statement."""

CALLS = {
    "create the file": "_database.path._move_into_place",
    "create the staging directory": "_writer.staging.Staging.__init__",
    "stage a start": "_writer.staging.Staging.start",
    "stage a block": "_writer.staging.Staging.add",
    "stage an end": "_writer.staging.Staging.end",
    "drop a staged chunk": "_writer.staging.Staging.drop",
    "discard a staged chunk": "_writer.staging.Staging.discard",
    "remove the staging": "_writer.staging.Staging.close",
    "extract a segment": "_writer.validate.Validator.extract",
    "validate a chunk": "_writer.validate.Validator.validate",
    "repair": "_writer.staging.Staging.rewrite",
    "record a failure": "_writer.table.EventsTable.record_failure",
    "swap": "_writer.table.EventsTable._swap",
    "add to a group while it is loaded": "_writer.group.Group.add",
    "close a group while it is loaded": "_writer.group.Group.close",
    "write the ledger of a loaded group": "_writer.batch_records.BatchRecords.write",
    "take from the quota": "_quota.shared.SharedQuota.take_slot",
    "refund to the quota": "_quota.shared.SharedQuota.refund",
    "pause all processes": "_quota.shared.SharedQuota.pause",
    "handle a failed attempt": "_source.fetcher.Fetcher._handle_failure",
    "split a chunk": "_export.fetch_tasks.FetchTasks._split",
}
"""Points in the exporter, by the method that is called."""

QUOTA_COMMIT = "commit the quota file"
HALF_REMOVED = "half-way through removing the staging"
RETRY_WAIT = "wait for a retry"
POINTS = (
    *STATEMENTS,
    *FORGET_STATEMENTS,
    *FLATTEN_STATEMENTS,
    *PROFILE_STATEMENTS,
    *CALLS,
    QUOTA_COMMIT,
    HALF_REMOVED,
    RETRY_WAIT,
)
ASYNCHRONOUS = frozenset(
    [
        HALF_REMOVED,
        RETRY_WAIT,
        *(
            name
            for name, path in CALLS.items()
            if path.startswith(("_source.fetcher", "_export.fetch_tasks"))
        ),
    ]
)
"""Points without a "during" and "after"."""


@dataclass(frozen=True, slots=True)
class Point:
    """The *turn*-th time at the point *name*; "during" it after *delay* seconds."""

    name: str
    turn: int = 1
    moment: Moment = "before"
    delay: float = 0.0


@dataclass(frozen=True, slots=True)
class ChildExport:
    """An export for a child process."""

    task: Export
    db: Path
    url: str
    credentials: Credentials
    now: datetime
    settings: Settings
    state: Path
    timeouts: Timeouts | None = None
    point: Point | None = None


def forget(db: Path, person: str, point: Point, reply: Connection) -> None:
    """Forget *person*, killed at *point*; send the number of deleted rows."""
    _arm(point)
    with Workspace(path=db) as workspace:
        result = workspace.forget(person)
    reply.send(sum(table.events + table.hidden_rows for table in result.tables))


def flatten(db: Path, table: str, point: Point, reply: Connection) -> None:
    """Update the flat table of *table*, killed at *point*; send its number of rows."""
    _arm(point)
    with Workspace(path=db) as workspace:
        result = workspace.flatten(table)
    reply.send(result.rows)


@dataclass(frozen=True, slots=True)
class ChildProfiles:
    """An export of profiles for a child process."""

    task: ProfileExport
    db: Path
    url: str
    credentials: Credentials
    now: datetime
    state: Path
    point: Point


def export_profiles(job: ChildProfiles, reply: Connection) -> None:
    """Run *job*, killed at its point; send the number of rows."""
    os.environ["MPX_STATE_DIR"] = str(job.state)
    _arm(job.point)
    result = anyio.run(lambda: export_people(job.task, job.db, job.credentials, job.now, url=job.url))
    reply.send(result.total_rows)


def work(job: ChildExport, reply: Connection) -> None:
    """Run *job*; send the result, or class and message of the error."""
    os.environ["MPX_STATE_DIR"] = str(job.state)
    if job.point:
        _arm(job.point)

    async def outcome() -> object:
        try:
            return await export(
                job.settings,
                db=job.db,
                credentials=job.credentials,
                api_url=job.url,
                per_second=50,
                per_hour=10_000,
                max_wait=5.0,
                timeouts=job.timeouts,
                now=lambda: job.now,
                **job.task.arguments,
            )
        except MixpanelDataError as error:
            return type(error), str(error)

    with warnings.catch_warnings():
        warnings.filterwarnings("error")
        warnings.filterwarnings("ignore", EXPECTED_WARNINGS)
        reply.send(anyio.run(outcome))


class _Trigger:
    """Counts the calls of a point, and kills the process at the right one."""

    def __init__(self, point: Point) -> None:
        self._point = point
        self._remaining = point.turn
        self._lock = threading.Lock()

    def around(self, call: Callable[[], Any]) -> Any:
        """Make the call, and kill the process if it is the right one."""
        with self._lock:
            self._remaining -= 1
            here = self._remaining == 0
        if here and self._point.moment == "before":
            die()
        if here and self._point.moment == "during":
            threading.Timer(self._point.delay, die).start()
        result = call()
        if here and self._point.moment == "after":
            die()
        return result


def die() -> None:
    """End this process at once, like a power failure."""
    os.kill(os.getpid(), signal.SIGKILL)


class _TriggeringConnection:
    """A DuckDB connection whose statements pass a trigger."""

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
        if statement.startswith("PREPARE"):
            # DuckDB looks for the variable in the frame that calls it.
            _export_rows = sys._getframe(1).f_locals["_export_rows"]
            return self._connection.execute(statement)
        return self._run(statement, partial(self._connection.execute, statement, *parameters))

    def sql(self, statement: str) -> Any:
        return self._run(statement, partial(self._connection.sql, statement))

    def cursor(self) -> "_TriggeringConnection":
        return _TriggeringConnection(self._connection.cursor(), self._pattern.pattern, self._trigger)

    def begin(self) -> Any:
        return self._run("BEGIN", self._connection.begin)

    def commit(self) -> Any:
        return self._run("COMMIT", self._connection.commit)

    def _run(self, statement: str, call: Callable[[], Any]) -> Any:
        return self._trigger.around(call) if self._pattern.match(statement) else call()


class _RecordingConnection(_TriggeringConnection):
    """A DuckDB connection that records its statements."""

    def __init__(self, connection: duckdb.DuckDBPyConnection, statements: list[str]) -> None:
        self._connection = connection
        self._statements = statements

    def cursor(self) -> "_RecordingConnection":
        return _RecordingConnection(self._connection.cursor(), self._statements)

    def _run(self, statement: str, call: Callable[[], Any]) -> Any:
        self._statements.append(statement)
        return call()


@contextmanager
def recorded_statements() -> Iterator[list[str]]:
    """Yield a list of the statements that this process runs in DuckDB."""
    statements: list[str] = []
    connect = duckdb.connect
    duckdb.connect = lambda *args, **options: _RecordingConnection(  # type: ignore[assignment] # same interface
        connect(*args, **options), statements
    )
    try:
        yield statements
    finally:
        duckdb.connect = connect


def _arm(point: Point) -> None:
    """Wrap what the point names."""
    trigger = _Trigger(point)
    pattern = (STATEMENTS | FORGET_STATEMENTS | FLATTEN_STATEMENTS | PROFILE_STATEMENTS).get(point.name)
    if pattern is not None:
        connect = duckdb.connect
        duckdb.connect = lambda *args, **options: _TriggeringConnection(  # type: ignore[assignment] # same interface
            connect(*args, **options), pattern, trigger
        )
    elif point.name in CALLS:
        _wrap(CALLS[point.name], trigger)
    elif point.name == QUOTA_COMMIT:
        _arm_sqlite(trigger)
    elif point.name == HALF_REMOVED:
        shutil.rmtree = _remove_half  # type: ignore[assignment] # it is an object with attributes
    else:
        _arm_waits(point)


def _wrap(path: str, trigger: _Trigger) -> None:
    module, owner, name = path.rsplit(".", 2)
    cls = getattr(import_module(f"mixpanel_export.{module}"), owner)
    method = getattr(cls, name)

    @wraps(method)
    def wrapped(*args: Any, **options: Any) -> Any:
        return trigger.around(partial(method, *args, **options))

    setattr(cls, name, wrapped)


def _arm_sqlite(trigger: _Trigger) -> None:
    class TriggeringConnection(sqlite3.Connection):
        def execute(self, statement: str, *parameters: Any) -> sqlite3.Cursor:
            call = partial(super().execute, statement, *parameters)
            cursor: sqlite3.Cursor = trigger.around(call) if statement == "COMMIT" else call()
            return cursor

    sqlite3.connect = partial(sqlite3.connect, factory=TriggeringConnection)  # type: ignore[assignment] # as above


_remove_tree = shutil.rmtree


def _remove_half(path: str | Path, *args: Any, **options: Any) -> None:
    """Remove the first file of a staging directory, as `shutil.rmtree` would, and die; remove other folders whole."""
    if ".export-" not in str(path):
        _remove_tree(path, *args, **options)
        return
    with suppress(OSError, StopIteration):
        next(iter(sorted(Path(path).iterdir()))).unlink()
    die()


def _arm_waits(point: Point) -> None:
    """Die during the first wait that the retry policy decides."""
    fetcher: Any = import_module("mixpanel_export._source.fetcher")
    next_step = fetcher.next_step

    def next_step_and_die(*args: Any, **options: Any) -> Any:
        step = next_step(*args, **options)
        if isinstance(step, fetcher.Wait):
            threading.Timer(point.delay, die).start()
            return fetcher.Wait(point.delay + 5.0)
        return step

    fetcher.next_step = next_step_and_die
