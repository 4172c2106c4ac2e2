"""The tables and views of a database file, and checks of their format.

To add a column to the ledger:

1. Append it to `_LEDGER_COLUMNS`, and raise `LEDGER_VERSION`. An older release then rejects files that have the column.
2. Add a field with a default to `_model.Batch`, and the column's name to `_COLUMNS` in `ledger.py`.
3. Set the field: for validated chunks in `_writer/validate.py` (`RowCounts` in `_writer/extract.py` has the row
   counts), at the commit in `_writer/batch_records.py`, for failed chunks in `_writer/table.py`, and for tables of
   mixpanel_data in `_local/upgrade.py`.

`create_ledger` adds the column to old files, in the transaction that starts the next export. Commands that only read
do not change a file. If a file lacks the column, or a row has NULL in it, the `Batch` has the field's default.
"""

from collections.abc import Mapping

from mixpanel_export._database.catalog import IN_MAIN, Catalog, read_catalog
from mixpanel_export._database.connection import Connection, first_row, quoted, supports_zstd
from mixpanel_export.errors import TableFormatError

LEDGER_VERSION = 5
"""The version of the ledger tables, stored in the comment on `_export_batches`.

Versions before 5 lack the number of the export, the options of the target days, some of the times, `_sync_changes` and
`_export_snapshots`. Version 2 has `_export_timeless` instead of `_export_strays`, and version 1 has neither.
"""

LEDGER_TABLES = ("_export_batches", "_export_rejects", "_export_duplicates", "_export_strays")
"""The tables whose rows belong to a batch and are deleted with it. The rows of `_sync_changes` outlive their batch."""

EVENT_COLUMNS = {
    "event_name": "VARCHAR",
    "event_time": "TIMESTAMP",
    "distinct_id": "VARCHAR",
    "insert_id": "VARCHAR",
    "properties": "JSON",
}
"""The name and type of each column with event data, in the same order as in mixpanel_data's tables."""

PROFILE_COLUMNS = {
    "distinct_id": "VARCHAR",
    "properties": "JSON",
    "last_seen": "TIMESTAMP",
    "export_batch": "INTEGER",
}
"""The name and type of each column of a table of profiles."""

_TABLE_COLUMNS = EVENT_COLUMNS | {"export_batch": "INTEGER"}
_LEDGER_COLUMNS = {
    "batch": "INTEGER",
    "table_name": "VARCHAR",
    "project": "VARCHAR",
    "events": "VARCHAR",
    "where": "VARCHAR",
    "from_date": "DATE",
    "to_date": "DATE",
    "status": "VARCHAR",
    "rows": "BIGINT",
    "removed_duplicates": "BIGINT",
    "rejects": "BIGINT",
    "repaired": "BIGINT",
    "outside_rows": "BIGINT",
    "outside_first": "TIMESTAMP",
    "outside_last": "TIMESTAMP",
    "timeless_rows": "BIGINT",
    "bytes": "BIGINT",
    "attempts": "INTEGER",
    "started": "TIMESTAMP",
    "finished": "TIMESTAMP",
    "error": "VARCHAR",
    "deduped": "BOOLEAN",
    "timezone": "VARCHAR",
    "revision": "INTEGER",
    "export": "INTEGER",
    "queued_at": "TIMESTAMP",
    "connecting_at": "TIMESTAMP",
    "connected_at": "TIMESTAMP",
    "first_byte_at": "TIMESTAMP",
    "received_at": "TIMESTAMP",
    "validated_at": "TIMESTAMP",
}
_TARGET_DAYS_COLUMNS = {
    name: _LEDGER_COLUMNS[name]
    for name in ("table_name", "project", "events", "where", "from_date", "to_date", "timezone", "deduped")
}
_CHANGES_COLUMNS = {
    "batch": "INTEGER",
    **{name: _LEDGER_COLUMNS[name] for name in ("table_name", "project", "events", "where")},
    "day": "DATE",
    "checked_at": "TIMESTAMP",
    **dict.fromkeys(("old_rows", "new_rows", "added", "removed", "rekeyed"), "BIGINT"),
    "kept": "BOOLEAN",
}
_SNAPSHOT_COLUMNS = {
    **{name: _LEDGER_COLUMNS[name] for name in ("batch", "table_name", "project")},
    **dict.fromkeys(("selection", "session", "status"), "VARCHAR"),
    **dict.fromkeys(("rows", "total", "pages", "duplicates", "short_pages", "rejects", "repaired"), "BIGINT"),
    **dict.fromkeys(("restarts", "requests", "bytes"), "BIGINT"),
    **{name: _LEDGER_COLUMNS[name] for name in ("started", "finished", "error")},
}
PROFILES = "_export_profiles"
"""The name that mixpanel_data's `_metadata` has in an upgraded file. This table lists the tables of profiles."""

_METADATA = """
WITH days AS (
    SELECT DISTINCT table_name, unnest(range(from_date::TIMESTAMP, to_date + INTERVAL 1 DAY, INTERVAL 1 DAY)) AS day
    FROM _export_batches WHERE status = 'complete'
), spans AS (
    SELECT table_name, min(day)::DATE AS from_date, max(day)::DATE AS to_date, count(*) AS complete
    FROM days GROUP BY table_name
), targets AS (
    SELECT table_name, min(from_date) AS first, max(to_date) AS last FROM _export_targets GROUP BY table_name
)
SELECT table_name, 'events' AS type, max(finished) AS fetched_at, any_value(spans.from_date) AS from_date,
       any_value(spans.to_date) AS to_date, sum("rows")::BIGINT AS row_count,
       any_value(date_diff('day', least(spans.from_date, first), greatest(spans.to_date, last)) + 1 - complete)
           AS missing_days
FROM _export_batches LEFT JOIN spans USING (table_name) LEFT JOIN targets USING (table_name)
WHERE status <> 'failed' AND NOT starts_with(table_name, '_')
GROUP BY table_name
UNION ALL BY NAME
SELECT table_name, 'profiles' AS type, max(finished) AS fetched_at, sum("rows")::BIGINT AS row_count
FROM _export_snapshots WHERE status = 'complete' GROUP BY table_name
"""
"""The view `_metadata`, without the rows of `PROFILES`."""


_LEDGER = {
    "_export_batches": _LEDGER_COLUMNS,
    "_export_rejects": {"batch": "INTEGER", "reason": "VARCHAR", "line": "BLOB"},
    "_export_duplicates": {"batch": "INTEGER", "lost_to": "INTEGER", **EVENT_COLUMNS},
    "_export_strays": {"batch": "INTEGER", "event_time": "TIMESTAMP", "insert_id": "VARCHAR"},
    "_export_targets": _TARGET_DAYS_COLUMNS,
    "_sync_changes": _CHANGES_COLUMNS,
    "_export_snapshots": _SNAPSHOT_COLUMNS,
}


def create_ledger(connection: Connection) -> None:
    """Create the missing ledger tables and columns, and drop the table that only older versions have.

    Call it in a transaction.
    """
    existing = _columns_by_table(connection)
    first = _next_batch(connection) if "_export_batches" in existing else 1
    connection.execute(f"CREATE SEQUENCE IF NOT EXISTS _export_batch_ids START {first}")
    for table, columns in _LEDGER.items():
        if table not in existing:
            connection.execute(f"CREATE TABLE {table} ({_definitions(columns)})")
            continue
        for name, kind in columns.items():
            if name not in existing[table]:
                connection.execute(f"ALTER TABLE {table} ADD COLUMN {_definitions({name: kind})}")
    connection.execute("DROP TABLE IF EXISTS _export_timeless")
    connection.execute(f"COMMENT ON TABLE _export_batches IS 'mixpanel_export ledger {LEDGER_VERSION}'")
    if "_metadata" not in existing or not is_table(connection, "_metadata"):
        profiles = f"UNION ALL BY NAME FROM {PROFILES}" if PROFILES in existing else ""
        connection.execute(f"CREATE OR REPLACE VIEW _metadata AS {_METADATA} {profiles}")


def _columns_by_table(connection: Connection) -> dict[str, set[str]]:
    """Return the names of the columns of each table and view."""
    columns: dict[str, set[str]] = {}
    query = f"SELECT table_name, column_name FROM duckdb_columns() WHERE {IN_MAIN}"
    for table, column in connection.execute(query).fetchall():
        columns.setdefault(table, set()).add(column)
    return columns


def check_ledger(connection: Connection) -> None:
    """Check the version of the ledger in the database. See `check_version`."""
    check_version(read_catalog(connection))


def check_version(catalog: Catalog) -> None:
    """Check that this release supports the ledger's version.

    Raises:
        TableFormatError: A newer release wrote the ledger.
    """
    comment = catalog.comments.get("_export_batches")
    if comment is not None:
        version = comment.removeprefix("mixpanel_export ledger ")
        if version not in map(str, range(1, LEDGER_VERSION + 1)):
            raise TableFormatError(
                "_export_batches",
                f"a newer release of mpx-export wrote this database (format {version}; this release reads up to {LEDGER_VERSION})",
                advice="update mpx-export",
            )


def is_table(connection: Connection, name: str) -> bool:
    """Whether *name* is a table rather than a view. `_metadata` may be mixpanel_data's table or this package's view."""
    return name in read_catalog(connection).comments


def _definitions(columns: Mapping[str, str]) -> str:
    return ", ".join(f"{quoted(name)} {kind}" for name, kind in columns.items())


def _next_batch(connection: Connection) -> int:
    """Return the first unused batch number. A new sequence starts with it."""
    row = first_row(connection, "SELECT coalesce(max(batch), 0) + 1 FROM _export_batches")
    return int(row[0]) if row else 1


def table_exists(connection: Connection, table: str) -> bool:
    """Whether there is a table or view with this name, in upper or lower case."""
    return read_catalog(connection).has(table)


def table_names(connection: Connection) -> list[str]:
    """Return the names of all tables, including the ledger's, in order."""
    return list(read_catalog(connection).comments)


def columns_of(connection: Connection, table: str) -> list[tuple[str, str]]:
    """Return the name and type of each column of a table, in the table's order."""
    return connection.execute(
        f"SELECT column_name, data_type FROM duckdb_columns() WHERE table_name = ? AND {IN_MAIN} ORDER BY column_index",
        [table],
    ).fetchall()


def check_no_view(connection: Connection, table: str) -> None:
    """Check that there is no view named *table*. See `Catalog.check_no_view`."""
    read_catalog(connection).check_no_view(table)


def create_events_table(connection: Connection, table: str) -> None:
    """Create the events table if it does not exist."""
    create_table(connection, table, _TABLE_COLUMNS)


def create_table(connection: Connection, table: str, columns: Mapping[str, str]) -> None:
    """Create a table, which must have a `properties` column, if it does not exist."""
    columns = dict(columns)
    if supports_zstd(connection):
        columns["properties"] += " USING COMPRESSION zstd"
    connection.execute(f"CREATE TABLE IF NOT EXISTS {quoted(table)} ({_definitions(columns)})")


def delete_foreign_metadata(connection: Connection, table: str) -> None:
    """Delete a dropped or replaced table's row from mixpanel_data's `_metadata`, if the file has that table."""
    for name in ("_metadata", PROFILES):
        if is_table(connection, name) and "table_name" in dict(columns_of(connection, name)):
            connection.execute(f"DELETE FROM {name} WHERE table_name = ?", [table])


def check_format(connection: Connection, table: str, *, replacing: bool = False) -> None:
    """Check that an export can add rows to the table, or replace it if *replacing* is true.

    Raises:
        TableFormatError: The table has different columns, a constraint or a unique index. A table that mixpanel_data
            created can only be replaced.
    """
    columns = columns_of(connection, table)
    types = dict(columns)
    if not EVENT_COLUMNS.keys() <= types.keys():
        raise TableFormatError(
            table,
            f"table {table} does not have the columns of an exported table",
            advice="export into another table, or drop it",
        )
    if replacing:
        return
    if "export_batch" not in types:
        raise TableFormatError(
            table,
            f"table {table} was created by mixpanel_data, so nothing can be added to it",
            advice="run `mpx upgrade` on the file, export into another table, or $replace it",
        )
    if change := _column_change(columns) or constraint_of(connection, table):
        raise TableFormatError(
            table,
            f"table {table} has been changed: it has {change}, so nothing can be added to it",
            advice="undo the change, export into another table, or $replace it",
        )


def _column_change(columns: list[tuple[str, str]]) -> str | None:
    """Describe how the columns differ from the columns of an exported table; None if they do not."""
    types = dict(columns)
    if others := sorted(types.keys() - _TABLE_COLUMNS.keys()):
        return f"an extra column, {others[0]}" if len(others) == 1 else f"extra columns, {', '.join(others)}"
    for name, kind in _TABLE_COLUMNS.items():
        if types[name] != kind:
            return f"{name} of type {types[name]} instead of {kind}"
    return None if columns == list(_TABLE_COLUMNS.items()) else "its columns in another order"


def constraint_of(connection: Connection, table: str) -> str | None:
    """Return a constraint or unique index that rows might violate; None if there is none."""
    # A list of constraints takes 5 ms, because DuckDB parses its own views for it. Most tables need no list.
    if not first_row(
        connection,
        f"SELECT 1 FROM duckdb_tables() WHERE table_name = ? AND {IN_MAIN} "
        "AND (index_count > 0 OR check_constraint_count > 0 OR contains(sql, 'NOT NULL'))",
        [table],
    ):
        return None
    row = first_row(
        connection,
        f"SELECT 'the unique index ' || index_name FROM duckdb_indexes() WHERE table_name = $1 AND is_unique AND {IN_MAIN} "
        "UNION ALL SELECT 'the constraint ' || constraint_text FROM duckdb_constraints() "
        f"WHERE table_name = $1 AND {IN_MAIN}",
        [table],
    )
    return str(row[0]) if row else None


def has_export_columns(connection: Connection, table: str) -> bool:
    """Whether the table has all columns of an export. A different table may have the name of an exported table."""
    return set(_TABLE_COLUMNS.items()) <= set(columns_of(connection, table))


def has_profile_columns(connection: Connection, table: str) -> bool:
    """Whether the table has exactly the columns of a table of profiles, in this order."""
    return columns_of(connection, table) == list(PROFILE_COLUMNS.items())


def name_in_database(connection: Connection, table: str) -> str:
    """Return the table's name as the database spells it, because DuckDB ignores case."""
    return read_catalog(connection).name_of(table)


def comment_of(connection: Connection, table: str) -> str | None:
    """Return the comment on a table; None if the table has none or does not exist."""
    return read_catalog(connection).comments.get(table)
