"""Lists, describes and drops the tables of a database.

Tables whose names begin with an underscore are internal. They are not listed and cannot be dropped here. A table counts as
exported if the ledger or mixpanel_data's `_metadata` lists it. All other tables are the user's own.
"""

from collections.abc import Sequence
from datetime import UTC, datetime

import duckdb

from mixpanel_export._database.catalog import IN_MAIN
from mixpanel_export._database.connection import first_row, quoted, transaction
from mixpanel_export._database.ledger import delete_from_ledger
from mixpanel_export._database.preflight import SHADOW
from mixpanel_export._database.schema import (
    comment_of,
    delete_foreign_metadata,
    name_in_database,
    table_exists,
    table_names,
)
from mixpanel_export._flat.state import COMMENT, drop_flat_tables
from mixpanel_export._suggestions import did_you_mean
from mixpanel_export.errors import ArgumentError, TableFormatError, TableNotFoundError
from mixpanel_export.inspection import ColumnInfo, TableInfo, TableSchema

_LAST_EXPORTS = {
    "_metadata": "SELECT table_name, type, fetched_at FROM _metadata",
    "_export_batches": "SELECT table_name, 'events', max(finished) FROM _export_batches "
    "WHERE status <> 'failed' GROUP BY table_name",
    "_export_snapshots": "SELECT table_name, 'profiles', max(finished) FROM _export_snapshots "
    "WHERE status = 'complete' GROUP BY table_name",
}
_COLUMN = {"events": "event_name", "profiles": "last_seen"}
"""For each type of table, a column by which its tables are recognized."""


def tables_of(connection: duckdb.DuckDBPyConnection, *, own: bool = False) -> list[TableInfo]:
    """Return the exported tables, sorted by name. If *own* is true, also return the user's own tables."""
    exported = _exported(connection)
    names = [name for name in _visible(connection) if own or name in exported]
    return [
        TableInfo(name, kind, _count(connection, name), at)
        for name, kind, at in ((name, *exported.get(name, (None, None))) for name in names)
    ]


def resolve_table(connection: duckdb.DuckDBPyConnection, table: str) -> str:
    """Return the name of a table or view as the database spells it. Raises `TableNotFoundError`."""
    row = first_row(
        connection,
        f"SELECT name FROM (SELECT table_name AS name FROM duckdb_tables() WHERE {IN_MAIN} UNION ALL "
        f"SELECT view_name FROM duckdb_views() WHERE {IN_MAIN}) WHERE lower(name) = lower(?)",
        [table],
    )
    if row is None:
        raise _not_found(connection, table)
    return str(row[0])


def schema_of(connection: duckdb.DuckDBPyConnection, table: str) -> TableSchema:
    """Return the columns of a table or view. Raises `TableNotFoundError`."""
    name = resolve_table(connection, table)
    columns = connection.execute(
        'SELECT name, type, NOT "notnull", pk FROM pragma_table_info(?) ORDER BY cid', [quoted(name)]
    ).fetchall()
    return TableSchema(name, [ColumnInfo(*column) for column in columns])


def drop_tables(connection: duckdb.DuckDBPyConnection, names: Sequence[str], *, own: bool) -> None:
    """Drop tables and their ledger entries in one transaction: all of them, or none.

    A table's flat tables are dropped with it, and so are the rows of an interrupted `replace`. Only exported and flat
    tables can be dropped, unless *own* is true.

    Raises:
        ArgumentError: A name belongs to an internal table.
        TableNotFoundError: There is no such table.
        TableFormatError: A table was not exported, or a newer release of this program wrote the ledger.
    """
    with transaction(connection):
        for table in dict.fromkeys(_droppable(connection, name, own=own) for name in names):
            drop_flat_tables(connection, table)
            for name in (table, SHADOW + table):
                connection.execute(f"DROP TABLE IF EXISTS {quoted(name)}")
                delete_from_ledger(connection, name)
            delete_foreign_metadata(connection, table)


def _droppable(connection: duckdb.DuckDBPyConnection, name: str, *, own: bool) -> str:
    if name.startswith("_"):
        raise ArgumentError(
            "names", f"must not begin with _, which is reserved for internal tables, got {name}"
        )
    row = first_row(
        connection,
        f"SELECT table_name FROM duckdb_tables() WHERE lower(table_name) IN (lower(?), lower(?)) AND {IN_MAIN}",
        [name, SHADOW + name],
    )
    if row is None:
        raise _not_found(connection, name)
    table = name_in_database(connection, str(row[0]).removeprefix(SHADOW))
    known = own or table in _exported(connection) or comment_of(connection, table) == COMMENT
    if not known and table_exists(connection, table):
        raise TableFormatError(
            table,
            f"table {table} was not exported, so nothing was dropped",
            advice="pass $force to drop it anyway",
            argument="force",
        )
    return table


def _not_found(connection: duckdb.DuckDBPyConnection, table: str) -> TableNotFoundError:
    names = _visible(connection)
    choices = f"choose one of the file's tables: {', '.join(names)}" if names else "the file has no tables"
    return TableNotFoundError(table, advice=did_you_mean(table, names) + choices)


def _visible(connection: duckdb.DuckDBPyConnection) -> list[str]:
    return [name for name in table_names(connection) if not name.startswith("_")]


def _count(connection: duckdb.DuckDBPyConnection, table: str) -> int:
    row = first_row(connection, f"SELECT count(*) FROM {quoted(table)}")
    return int(row[0]) if row else 0


def _exported(connection: duckdb.DuckDBPyConnection) -> dict[str, tuple[str, datetime]]:
    """Return the type of each exported table, and the time of its last export.

    The sources are the ledger and mixpanel_data's `_metadata`. The result may include dropped tables.
    """
    rows = [
        row
        for source, sql in _LAST_EXPORTS.items()
        if table_exists(connection, source)
        for row in connection.execute(sql).fetchall()
    ]
    # One of the user's own tables may have the name of an exported table that was dropped.
    columns = set(
        connection.execute(f"SELECT table_name, column_name FROM duckdb_columns() WHERE {IN_MAIN}").fetchall()
    )
    return {
        name: (kind, at.replace(tzinfo=UTC))
        for name, kind, at in rows
        if at and (name, _COLUMN.get(kind)) in columns
    }
