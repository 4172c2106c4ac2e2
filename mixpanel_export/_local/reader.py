"""Reads a database file: its ledger, its rows, and query results.

The file is opened read-only, so DuckDB rejects changes. The only file that is ever written is a Parquet file.
"""

import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import TypeVar

import duckdb

from mixpanel_export._concurrency import InterruptedCall, in_thread
from mixpanel_export._database.catalog import read_catalog
from mixpanel_export._database.connection import connect, quoted
from mixpanel_export._database.coverage import Coverage, RowsPerDay, coverages
from mixpanel_export._database.ledger import read_batches
from mixpanel_export._database.path import check_not_empty
from mixpanel_export._database.preflight import SHADOW, ExportSpec
from mixpanel_export._database.profile_tables import ProfileTable, profile_tables
from mixpanel_export._database.schema import check_version, has_export_columns
from mixpanel_export._database.target_days import read_targets
from mixpanel_export._files import replacing
from mixpanel_export._flat.state import FlatTable, outdated_flat_tables
from mixpanel_export._model import Batch
from mixpanel_export.errors import DatabaseError, DatabaseLockedError
from mixpanel_export.sync import run_sync

T = TypeVar("T")

Connection = duckdb.DuckDBPyConnection
Parameters = Mapping[str, str]
"""The values of `$name` in a query."""

NO_PARAMETERS: Parameters = MappingProxyType({})

_RETRY_INTERVAL = 0.2  # seconds between attempts to open a file that another process holds
_QUARTER = "INTERVAL 15 MINUTE"  # since 1972, the offsets of all zones from UTC have been multiples of this
_FETCH_ROWS = 20_000
_READ_STATEMENTS = frozenset(
    getattr(duckdb.StatementType, name)
    for name in ("SELECT", "EXPLAIN", "PRAGMA", "CALL", "SET", "LOAD", "MULTI", "ATTACH", "DETACH")
)


@dataclass(frozen=True, slots=True)
class Replacement:
    """An unfinished replacement of a table."""

    spec: ExportSpec
    complete_batches: int
    """The number of batches that need not be fetched again."""


@dataclass(frozen=True, slots=True)
class Contents:
    """The tables of a file, according to the ledger."""

    coverages: tuple[Coverage, ...]
    replacements: tuple[Replacement, ...]
    profiles: tuple[ProfileTable, ...]
    others: tuple[str, ...]
    """Tables that were not exported."""
    unknown: Mapping[str, int]
    """The number of rows that do not belong to a batch, for each exported table that has such rows."""
    outdated_flat_tables: tuple[FlatTable, ...]
    """Flat tables in which batches of the source table are missing or outdated."""


@dataclass(frozen=True, slots=True)
class QueryResult:
    """A statement's rows as text, with the names and DuckDB types of the columns."""

    columns: tuple[str, ...]
    types: tuple[str, ...]
    rows: Iterator[tuple[str | None, ...]]


@contextmanager
def reading(
    path: Path,
    *,
    wait: float = 0.0,
    on_wait: Callable[[DatabaseLockedError], object] = lambda _: None,
    sleep: Callable[[float], None] = time.sleep,
    clock: Callable[[], float] = time.monotonic,
) -> Iterator[Connection]:
    """Open the file read-only. If another process holds it, retry for *wait* seconds.

    *on_wait* is called once, when the wait starts.

    Raises:
        DatabaseNotFoundError: There is no such file, or it is empty.
        DatabaseLockedError: Another process still holds the file.
        DatabaseError: The file is not a DuckDB database, or cannot be read.
    """
    check_not_empty(path)
    with _open(path, wait, on_wait, sleep, clock) as connection:
        try:
            yield connection
        except duckdb.Error as error:
            raise DatabaseError(
                f"reading from {path} failed: {' '.join(str(error).split())}",
                advice="check the query, the disk and the file",
                db_path=str(path),
            ) from error


def _open(
    path: Path,
    wait: float,
    on_wait: Callable[[DatabaseLockedError], object],
    sleep: Callable[[float], None],
    clock: Callable[[], float],
) -> Connection:
    deadline: float | None = None
    while True:
        try:
            return connect(path, read_only=True)
        except DatabaseLockedError as error:
            if deadline is None and wait > 0:
                on_wait(error)
            deadline = clock() + wait if deadline is None else deadline
            left = deadline - clock()
            if left <= 0:
                raise
            sleep(min(_RETRY_INTERVAL, left))


def read_contents(connection: Connection) -> Contents:
    """Return the file's contents. Raises `TableFormatError` if a newer release wrote the ledger."""
    catalog = read_catalog(connection)
    check_version(catalog)
    rows = read_batches(connection)
    zones = {row.table: row.zone for row in rows}
    tables = list(catalog.comments)
    ours = [table for table in tables if table in zones and has_export_columns(connection, table)]
    profiles = profile_tables(connection)
    exported = {*ours, *(table.name for table in profiles if table.rows is not None)}
    row_counts = {table: rows_per_day(connection, table, zones[table]) for table in ours}
    return Contents(
        coverages=coverages(
            [row for row in rows if not row.table.startswith(SHADOW)],
            row_counts,
            {
                key: target
                for key, target in read_targets(connection).items()
                if not key[0].startswith(SHADOW)
            },
        ),
        replacements=tuple(_replacements(catalog.comments, rows)),
        profiles=tuple(profiles),
        others=tuple(table for table in tables if table not in exported and not table.startswith("_")),
        unknown=dict(_unknown(rows, row_counts)),
        outdated_flat_tables=tuple(outdated_flat_tables(connection)),
    )


def run_query(
    connection: Connection,
    sql: str,
    column: Callable[[str, str], str],
    parameters: Parameters = NO_PARAMETERS,
) -> QueryResult | None:
    """Run *sql* and return the rows of its last statement, or None if that statement has no rows.

    *column* is called with SQL for a column and with the column's type, and returns SQL that converts the column to text.
    *parameters* contains the values of `$name` in the last statement.

    Raises:
        ValueError: The SQL is wrong; the message has one line.
    """
    with one_line_errors():
        relation = interruptible(connection, partial(relation_of, connection, sql, parameters))
        if relation is None:
            return None
        names, types = tuple(relation.columns), tuple(map(str, relation.types))
        places = [f"c{number}" for number in range(len(names))]
        texts = ", ".join(column(place, kind) for place, kind in zip(places, types, strict=True))
        # Columns are renamed, because names may repeat. The SQL gets its own lines, because it may end in a comment.
        as_text = f"SELECT {texts} FROM (\n{relation.sql_query()}\n) AS r({', '.join(places)})"
        cursor = interruptible(connection, partial(connection.execute, as_text, dict(parameters) or None))
    return QueryResult(names, types, _fetched(connection, cursor))


def write_parquet(
    connection: Connection, sql: str, path: Path, parameters: Parameters = NO_PARAMETERS
) -> int:
    """Run *sql*, write the rows of its last statement into a Parquet file, and return their number.

    The file appears once it is complete. An existing file is replaced, but its mode, owner and links are kept.

    Raises:
        ValueError: See `run_query`.
        OSError: The file cannot be written, or the query reads another file that cannot be read.
    """
    try:
        with replacing(path) as new:
            return _copy_to_parquet(connection, sql, new, parameters)
    except (duckdb.OperationalError, OSError) as error:
        reason = " ".join(str(getattr(error, "strerror", None) or error).split())
        raise OSError(f"no rows were written to {path}: {reason}; check the query and the path") from error


def _copy_to_parquet(connection: Connection, sql: str, path: Path, parameters: Parameters) -> int:
    with one_line_errors():
        relation = interruptible(connection, partial(relation_of, connection, sql, parameters))
        if relation is None:
            raise ValueError("SQL: no statement returns rows")
        literal = "'" + str(path).replace("'", "''") + "'"
        copy = f"COPY (\n{relation.sql_query()}\n) TO {literal} (FORMAT parquet, COMPRESSION zstd)"
        row = interruptible(connection, lambda: connection.execute(copy, dict(parameters) or None).fetchone())
    return int(row[0]) if row else 0


def relation_of(connection: Connection, sql: str, parameters: Parameters) -> duckdb.DuckDBPyRelation | None:
    """Run all statements in *sql* except the last, and return the last one as a relation; None if it has no rows.

    Raises:
        ValueError: A statement may write, or *parameters* do not match the last statement.
    """
    statements = connection.extract_statements(sql)
    # The database is read-only, but COPY and EXPORT write files, and attached databases can be changed.
    for statement in statements:
        if statement.type not in _READ_STATEMENTS:
            raise ValueError(
                f"SQL: {statement.type.name} may write, which is not allowed here; use DuckDB itself"
            )
    # A misspelled table name must not resolve to a variable in this program, and progress bars must not mix with the
    # result.
    connection.execute("SET python_enable_replacements = false")
    connection.execute("SET enable_progress_bar = false")
    if statements and statements[-1].named_parameters != parameters.keys():
        raise ValueError(_parameter_error(sorted(statements[-1].named_parameters), parameters))
    if parameters and statements:
        *others, last = statements
        for statement in others:
            connection.execute(statement)
        sql = last.query
    relation: duckdb.DuckDBPyRelation | None = connection.sql(sql, params=dict(parameters) or None)
    return relation


def _parameter_error(names: Sequence[str], parameters: Parameters) -> str:
    """Return the message if *names*, the parameters in a statement, and *parameters*, which have values, differ."""
    expected = ", ".join(f"${name}" for name in names) or "no parameters"
    text = f"SQL: the last statement has {expected}; pass a value for each with -p NAME=VALUE"
    keys = [f"${name}" for name in names if name.isidentifier()]
    if parameters or not keys:
        return text
    return f"""{text}, or write the property {keys[0]} as properties->>'$."{keys[0]}"'"""


def interruptible(connection: Connection, call: Callable[[], T]) -> T:
    """Run *call* so that Ctrl-C interrupts it. DuckDB itself supports this only for some calls."""

    def call_or_interrupted() -> T:
        try:
            return call()
        except duckdb.InterruptException as error:
            raise InterruptedCall from error

    return run_sync(in_thread, call_or_interrupted, connection.interrupt)


def _fetched(connection: Connection, cursor: Connection) -> Iterator[tuple[str | None, ...]]:
    while True:
        with one_line_errors():
            rows = interruptible(connection, partial(cursor.fetchmany, _FETCH_ROWS))
        if not rows:
            return
        yield from rows


@contextmanager
def one_line_errors() -> Iterator[None]:
    """Convert DuckDB errors about the SQL to a one-line `ValueError`."""
    try:
        yield
    except (duckdb.ProgrammingError, duckdb.DataError, duckdb.NotSupportedError) as error:
        text = str(error).partition("\n\n")[0]  # drops the excerpt from the SQL
        raise ValueError(f"SQL: {' '.join(text.split())}") from error


def rows_per_day(connection: Connection, table: str, zone: str) -> RowsPerDay:
    """Count the rows in each batch on each day in *zone*. To save time, each quarter of an hour is converted only once."""
    day = "quarter" if zone == "UTC" else "timezone(?, timezone('UTC', quarter))"
    sql = (
        f"SELECT export_batch, {day}::DATE, sum(n)::BIGINT FROM (SELECT export_batch, "
        f"time_bucket({_QUARTER}, event_time) AS quarter, count(*) AS n FROM {quoted(table)} GROUP BY ALL) GROUP BY ALL"
    )
    zones = [] if zone == "UTC" else [zone]
    rows = interruptible(connection, lambda: connection.execute(sql, zones).fetchall())
    row_counts: dict[int, Counter[date | None]] = defaultdict(Counter)
    for batch, on, number in rows:
        # For years that Python does not support, DuckDB does not return a `date`.
        row_counts[batch][on if isinstance(on, date) else None] += number
    return dict(row_counts)


def _unknown(rows: Sequence[Batch], row_counts: Mapping[str, RowsPerDay]) -> Iterator[tuple[str, int]]:
    visible = {(row.table, row.number) for row in rows if row.visible}
    for table, batches in row_counts.items():
        number = sum(sum(days.values()) for batch, days in batches.items() if (table, batch) not in visible)
        if number and not table.startswith(SHADOW):
            yield table, number


def _replacements(comments: Mapping[str, str | None], rows: Sequence[Batch]) -> Iterator[Replacement]:
    """Yield the unfinished replacements, which are recorded in the comments on their tables."""
    for shadow, fingerprint in comments.items():
        if shadow.startswith(SHADOW) and fingerprint is not None:
            complete = sum(row.table == shadow and row.visible for row in rows)
            yield Replacement(ExportSpec.from_fingerprint(shadow.removeprefix(SHADOW), fingerprint), complete)
