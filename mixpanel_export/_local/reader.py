"""Looking into a file that another process may be writing: its ledger, its rows, and what anybody asks of it.

The database is opened read-only, so DuckDB refuses what would change it. All that is ever written is a Parquet file.
"""

import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date
from functools import partial
from pathlib import Path
from typing import TypeVar

import duckdb

from mixpanel_export._concurrency import InterruptedCall, in_thread
from mixpanel_export._database.connection import connect, quoted
from mixpanel_export._database.coverage import Coverage, RowsPerDay, coverages
from mixpanel_export._database.ledger import read_batches
from mixpanel_export._database.preflight import SHADOW, Target
from mixpanel_export._database.schema import check_ledger, comment_of, has_batches, table_names
from mixpanel_export._files import replacing
from mixpanel_export._model import Batch
from mixpanel_export.errors import DatabaseError, DatabaseLockedError, DatabaseNotFoundError
from mixpanel_export.sync import run_sync

T = TypeVar("T")

Connection = duckdb.DuckDBPyConnection

_LOOK_EVERY = 0.2  # seconds between two looks at a file that another process holds
_QUARTER = "INTERVAL 15 MINUTE"  # of which the clocks of all zones have been multiples apart since 1972
_AT_ONCE = 20_000  # rows
_READING = frozenset(
    getattr(duckdb.StatementType, name)
    for name in ("SELECT", "EXPLAIN", "PRAGMA", "CALL", "SET", "LOAD", "MULTI", "ATTACH", "DETACH")
)


@dataclass(frozen=True, slots=True)
class Replacement:
    """A replacement of a table that has begun and is not in it yet; *kept* batches need not be fetched again."""

    target: Target
    kept: int


@dataclass(frozen=True, slots=True)
class Contents:
    """What exports have made of a file; *others* are the tables that no export made.

    *unknown* counts the rows of each table that no batch of the ledger has, where there are such rows.
    """

    coverages: tuple[Coverage, ...]
    replacements: tuple[Replacement, ...]
    others: tuple[str, ...]
    unknown: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Answer:
    """The rows that a statement has returned, as text, with names and DuckDB's types of the columns."""

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
    """Open the file read-only; where another process holds it, look again for *wait* seconds.

    *on_wait* is told once, when the waiting begins.

    Raises:
        DatabaseNotFoundError: there is no such file.
        DatabaseLockedError: another process holds it still.
        DatabaseError: it is no DuckDB database, or cannot be read.
    """
    if not path.exists():
        raise DatabaseNotFoundError(
            f"there is no database {path}",
            advice="export into it first, or choose another path",
            db_path=str(path),
        )
    with _opened(path, wait, on_wait, sleep, clock) as connection:
        try:
            yield connection
        except duckdb.Error as error:
            raise DatabaseError(
                f"reading from {path} failed: {' '.join(str(error).split())}",
                advice="check the query, the disk and the file",
                db_path=str(path),
            ) from error


def _opened(
    path: Path,
    wait: float,
    on_wait: Callable[[DatabaseLockedError], object],
    sleep: Callable[[float], None],
    clock: Callable[[], float],
) -> Connection:
    until, told = clock() + wait, False
    while True:
        try:
            return connect(path, read_only=True)
        except DatabaseLockedError as error:
            left = until - clock()
            if left <= 0:
                raise
            if not told:
                on_wait(error)
                told = True
            sleep(min(_LOOK_EVERY, left))


def contents(connection: Connection) -> Contents:
    """Return what the ledger and the tables say.

    Raises:
        TableFormatError: a newer release of this program wrote the ledger.
    """
    check_ledger(connection)
    rows = read_batches(connection)
    zones = {row.table: row.zone for row in rows}
    tables = table_names(connection)
    ours = [table for table in tables if table in zones and has_batches(connection, table)]
    counted = {table: _rows_per_day(connection, table, zones[table]) for table in ours}
    return Contents(
        coverages=coverages([row for row in rows if not row.table.startswith(SHADOW)], counted),
        replacements=tuple(_replacements(connection, tables, rows)),
        others=tuple(table for table in tables if table not in ours and not table.startswith("_")),
        unknown=dict(_unknown(rows, counted)),
    )


def ask(connection: Connection, sql: str, column: Callable[[str, str], str]) -> Answer | None:
    """Run *sql* and return the rows of its last statement; None where there is none.

    *column* returns the SQL that makes text of a column, from SQL of that column and its type.

    Raises:
        ValueError: in one line, what is wrong with the SQL.
    """
    with _explained():
        found = _attended(connection, partial(_relation, connection, sql))
        if found is None:
            return None
        names, types = tuple(found.columns), tuple(map(str, found.types))
        places = [f"c{number}" for number in range(len(names))]
        texts = ", ".join(column(place, kind) for place, kind in zip(places, types, strict=True))
        # Columns by place, as names may be there twice; a line for the SQL, which may end in a comment.
        as_text = f"SELECT {texts} FROM (\n{found.sql_query()}\n) AS r({', '.join(places)})"
        cursor = _attended(connection, partial(connection.execute, as_text))
    return Answer(names, types, _fetched(connection, cursor))


def write_parquet(connection: Connection, sql: str, path: Path) -> int:
    """Run *sql*, write the rows of its last statement into a Parquet file, and return their number.

    The file appears when it is complete. An earlier one is replaced; its mode, its owner and links to it stay.

    Raises:
        ValueError: as `ask`.
        OSError: the file cannot be written, or the query reads another file that cannot be read.
    """
    try:
        with replacing(path) as new:
            return _copy_to_parquet(connection, sql, new)
    except (duckdb.OperationalError, OSError) as error:
        reason = " ".join(str(getattr(error, "strerror", None) or error).split())
        raise OSError(f"no rows were written to {path}: {reason}; check the query and the path") from error


def _copy_to_parquet(connection: Connection, sql: str, path: Path) -> int:
    with _explained():
        relation = _attended(connection, partial(_relation, connection, sql))
        if relation is None:
            raise ValueError("SQL: there is no statement that has rows")
        literal = "'" + str(path).replace("'", "''") + "'"
        copy = f"COPY (\n{relation.sql_query()}\n) TO {literal} (FORMAT parquet, COMPRESSION zstd)"
        row = _attended(connection, lambda: connection.execute(copy).fetchone())
    return int(row[0]) if row else 0


def _relation(connection: Connection, sql: str) -> duckdb.DuckDBPyRelation | None:
    # The database is open for reading, but COPY and EXPORT write files, and an attached database may be changed.
    for statement in connection.extract_statements(sql):
        if statement.type not in _READING:
            raise ValueError(
                f"SQL: {statement.type.name} may write, and this is read-only; use DuckDB itself for it"
            )
    # A misspelt table must not become a variable of this program, nor results be drawn between bars.
    connection.execute("SET python_enable_replacements = false")
    connection.execute("SET enable_progress_bar = false")
    found: duckdb.DuckDBPyRelation | None = connection.sql(sql)
    return found


def _attended(connection: Connection, call: Callable[[], T]) -> T:
    """Make the call where Ctrl-C ends it: DuckDB by itself looks for that in some of its calls only."""

    def attended() -> T:
        try:
            return call()
        except duckdb.InterruptException as error:
            raise InterruptedCall from error

    return run_sync(in_thread, attended, connection.interrupt)


def _fetched(connection: Connection, cursor: Connection) -> Iterator[tuple[str | None, ...]]:
    while True:
        with _explained():
            rows = _attended(connection, partial(cursor.fetchmany, _AT_ONCE))
        if not rows:
            return
        yield from rows


@contextmanager
def _explained() -> Iterator[None]:
    """Turn DuckDB's errors about the SQL into one line."""
    try:
        yield
    except (duckdb.ProgrammingError, duckdb.DataError, duckdb.NotSupportedError) as error:
        text = str(error).partition("\n\n")[0]  # without the place, which takes lines to show
        raise ValueError(f"SQL: {' '.join(text.split())}") from error


def _rows_per_day(connection: Connection, table: str, zone: str) -> RowsPerDay:
    """Count the rows of each batch and day; days are those of *zone*, asked for once a quarter of an hour."""
    day = "quarter" if zone == "UTC" else "timezone(?, timezone('UTC', quarter))"
    found = connection.execute(
        f"SELECT export_batch, {day}::DATE, sum(n)::BIGINT FROM (SELECT export_batch, "
        f"time_bucket({_QUARTER}, event_time) AS quarter, count(*) AS n FROM {quoted(table)} GROUP BY ALL) GROUP BY ALL",
        [] if zone == "UTC" else [zone],
    ).fetchall()
    counted: dict[int, Counter[date | None]] = defaultdict(Counter)
    for batch, on, number in found:
        counted[batch][on if isinstance(on, date) else None] += number  # DuckDB's years go beyond Python's
    return dict(counted)


def _unknown(rows: Sequence[Batch], counted: Mapping[str, RowsPerDay]) -> Iterator[tuple[str, int]]:
    known = {(row.table, row.number) for row in rows if row.visible}
    for table, batches in counted.items():
        number = sum(sum(days.values()) for batch, days in batches.items() if (table, batch) not in known)
        if number and not table.startswith(SHADOW):
            yield table, number


def _replacements(
    connection: Connection, tables: Sequence[str], rows: Sequence[Batch]
) -> Iterator[Replacement]:
    """Yield what the tables that are being filled say they are for."""
    for shadow in tables:
        purpose = comment_of(connection, shadow) if shadow.startswith(SHADOW) else None
        if purpose is not None:
            kept = sum(row.table == shadow and row.visible for row in rows)
            yield Replacement(Target.from_fingerprint(shadow.removeprefix(SHADOW), purpose), kept)
