"""Functions that compute statistics of tables. They do not change the database."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import Any

import duckdb

from mixpanel_export._database.connection import quoted
from mixpanel_export._local.reader import interruptible
from mixpanel_export._local.tables import schema_of
from mixpanel_export.errors import QueryError
from mixpanel_export.inspection import (
    ColumnStatsResult,
    ColumnSummary,
    EventBreakdownResult,
    EventStats,
    SummaryResult,
)

_NUMBERS = {
    "TINYINT", "SMALLINT", "INTEGER", "BIGINT", "HUGEINT", "UTINYINT", "USMALLINT", "UINTEGER", "UBIGINT",
    "UHUGEINT", "FLOAT", "DOUBLE", "DECIMAL",
}  # fmt: skip


@contextmanager
def query_errors() -> Iterator[None]:
    """Convert DuckDB errors to `QueryError`. DuckDB's message, which can have several lines, is kept."""
    try:
        yield
    except duckdb.Error as error:
        raise QueryError(f"the query failed: {error}", status_code=0) from error


def summary_of(connection: duckdb.DuckDBPyConnection, table: str) -> SummaryResult:
    """Return DuckDB's summary of each column. Raises `TableNotFoundError`."""
    name = schema_of(connection, table).table_name
    rows = _rows(
        connection,
        "SELECT column_name, column_type, min, max, approx_unique, TRY_CAST(avg AS DOUBLE), TRY_CAST(std AS DOUBLE), "
        f"q25, q50, q75, count, null_percentage::DOUBLE FROM (SUMMARIZE {quoted(name)})",
    )
    columns = [ColumnSummary(*row) for row in rows]
    return SummaryResult(name, columns[0].count, columns)


def breakdown_of(connection: duckdb.DuckDBPyConnection, table: str) -> EventBreakdownResult:
    """Return statistics of a table's events for each event name.

    Raises:
        TableNotFoundError: There is no such table.
        QueryError: The table does not contain events.
    """
    name = _table_with(connection, table, "event_name", "event_time", "distinct_id")
    counts = "count(*), count(DISTINCT distinct_id), min(event_time), max(event_time)"
    total = _rows(connection, f"SELECT {counts} FROM {quoted(name)}")[0]
    rows = _rows(
        connection,
        f"SELECT event_name, {counts}, round(100.0 * count(*) / sum(count(*)) OVER (), 2)::DOUBLE "
        f"FROM {quoted(name)} GROUP BY event_name ORDER BY count(*) DESC, event_name",
    )
    events, users, first, last = total
    never = datetime.min  # noqa: DTZ901 - naive, as event_time is
    span = (first or never, last or never)
    return EventBreakdownResult(name, events, users, span, [EventStats(*row) for row in rows])


def property_keys_of(connection: duckdb.DuckDBPyConnection, table: str, event: str | None) -> list[str]:
    """Return the sorted keys of `properties` in all events, or in all events named *event*.

    Raises:
        TableNotFoundError: There is no such table.
        QueryError: The table does not contain events.
    """
    columns = ["properties"] if event is None else ["properties", "event_name"]
    name = _table_with(connection, table, *columns)
    condition = "" if event is None else " WHERE event_name = ?"
    rows = _rows(
        connection,
        f"SELECT DISTINCT unnest(json_keys(properties)) FROM {quoted(name)}{condition}",
        [] if event is None else [event],
    )
    return sorted(key for (key,) in rows)


def stats_of(connection: duckdb.DuckDBPyConnection, table: str, column: str, top_n: int) -> ColumnStatsResult:
    """Return statistics of *column*, a column or an SQL expression.

    Raises:
        TableNotFoundError: There is no such table.
        QueryError: *column* is invalid.
    """
    name = schema_of(connection, table).table_name
    values = f"(SELECT ({column}) AS value FROM {quoted(name)})"
    with query_errors():
        dtype = _rows(connection, f"DESCRIBE FROM {values}")[0][1]
        numbers = "value::DOUBLE" if dtype.partition("(")[0] in _NUMBERS else "NULL::DOUBLE"
        aggregates = ", ".join(f"{function}({numbers})" for function in ("min", "max", "avg", "stddev"))
        count, nulls, unique, *spread = _rows(
            connection,
            "SELECT count(value), count(*) - count(value), least(approx_count_distinct(value), count(value)), "
            f"{aggregates} FROM {values}",
        )[0]
        top = _rows(
            connection,
            f"SELECT value, count(*) FROM {values} WHERE value IS NOT NULL GROUP BY value "
            "ORDER BY count(*) DESC, value LIMIT ?",
            [top_n],
        )
    return ColumnStatsResult(
        name, column, dtype, count, nulls, _percent(nulls, count + nulls), unique, _percent(unique, count), top, *spread
    )  # fmt: skip


def _rows(
    connection: duckdb.DuckDBPyConnection, sql: str, parameters: Sequence[object] = ()
) -> list[tuple[Any, ...]]:
    """Return all rows of a query that Ctrl-C can interrupt."""
    return interruptible(connection, lambda: connection.execute(sql, parameters).fetchall())


def _table_with(connection: duckdb.DuckDBPyConnection, table: str, *columns: str) -> str:
    schema = schema_of(connection, table)
    missing = set(columns) - {column.name for column in schema.columns}
    if missing:
        raise QueryError(
            f"table {schema.table_name} has no column {' or '.join(sorted(missing))}, so it does not contain events",
            advice="choose a table with events",
            status_code=0,
        )
    return schema.table_name


def _percent(part: int, whole: int) -> float:
    return round(100 * part / whole, 2) if whole else 0.0
