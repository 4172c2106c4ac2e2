"""Deletes people's data in one transaction: events, profiles, hidden duplicates, raw lines and rows of flat tables.

The transaction also updates the ledger. A checkpoint is written after the transaction. DuckDB marks rows as deleted, but
does not overwrite them, so their bytes may remain in the file.
"""

from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import duckdb

from mixpanel_export._database.catalog import IN_MAIN
from mixpanel_export._database.connection import (
    Connection,
    advice_on,
    connected_for_export,
    first_moment,
    last_moment,
    quoted,
    transaction,
)
from mixpanel_export._database.path import check_exists
from mixpanel_export._database.preflight import SHADOW
from mixpanel_export._database.schema import (
    check_ledger,
    columns_of,
    create_ledger,
    has_export_columns,
    name_in_database,
    table_exists,
)
from mixpanel_export._database.settings import with_enough_memory
from mixpanel_export._flat.flatten import refresh_flat_tables
from mixpanel_export._flat.state import flat_tables
from mixpanel_export._local.forget_profiles import forget_profiles, profile_table_names
from mixpanel_export._local.raw_lines import delete_matches, find_raw_lines
from mixpanel_export._suggestions import did_you_mean
from mixpanel_export.errors import ArgumentError, DatabaseError, TableFormatError, TableNotFoundError
from mixpanel_export.results import ForgetResult, ForgottenTable

PROPERTIES = {
    "user_id": "$user_id",
    "device_id": "$device_id",
    "before_identity": "$distinct_id_before_identity",
}
"""Properties besides `distinct_id` that the ids can be compared with, keyed by the names that *also* accepts."""

_NO_ROWS = "(SELECT 0 AS rowid, batch AS export_batch, * EXCLUDE (batch) FROM _export_duplicates WHERE false)"
_REMOVED = """
CREATE OR REPLACE TEMP TABLE _export_removed AS
SELECT rowid AS id, export_batch AS batch, event_name, event_time, distinct_id, insert_id,
    json_extract_string(properties, '$.time') AS time_text
FROM {rows} WHERE {match}
"""
# Hidden duplicates of removed rows are also deleted. Otherwise, they would become visible when the batch of the removed
# row is replaced.
_HIDDEN = """
CREATE OR REPLACE TEMP TABLE _export_hidden AS
WITH _hidden AS (
    SELECT _export_duplicates.rowid AS id, project, _export_duplicates.*
    FROM _export_duplicates JOIN _export_batches USING (batch) WHERE table_name = $table
), _winners AS (
    SELECT project, _export_removed.* FROM _export_removed JOIN _export_batches USING (batch)
    WHERE deduped AND insert_id <> ''
)
SELECT id, batch FROM _hidden WHERE {match}
UNION SELECT id, batch FROM _hidden SEMI JOIN _winners
    ON _hidden.project = _winners.project AND _hidden.insert_id = _winners.insert_id
    AND _hidden.event_name = _winners.event_name
    AND _hidden.event_time IS NOT DISTINCT FROM _winners.event_time
    AND _hidden.distinct_id IS NOT DISTINCT FROM _winners.distinct_id
    AND json_extract_string(_hidden.properties, '$.time') IS NOT DISTINCT FROM _winners.time_text
"""
_COUNTS = """
UPDATE _export_batches SET "rows" = "rows" - _removed, removed_duplicates = removed_duplicates - _hidden,
    rejects = rejects - _rejected, repaired = repaired - _repaired, revision = coalesce(revision, 0) + 1
FROM (
    SELECT batch AS _batch, count(*) FILTER (kind = 'row') AS _removed, count(*) FILTER (kind = 'hidden') AS _hidden,
        count(*) FILTER (kind = 'rejected') AS _rejected, count(*) FILTER (kind = 'repaired') AS _repaired
    FROM (
        SELECT batch, 'row' AS kind FROM _export_removed
        UNION ALL SELECT batch, 'hidden' FROM _export_hidden
        UNION ALL SELECT batch, kind FROM _export_lines
    ) GROUP BY batch
) WHERE batch = _batch
"""
# The batches that have strays and from which rows were removed.
_CHANGED = """
CREATE OR REPLACE TEMP TABLE _export_changed AS
SELECT batch, {first} AS first, {last} AS last FROM _export_batches
WHERE table_name = $table AND timezone = $zone AND outside_rows + timeless_rows > 0
    AND batch IN (SELECT batch FROM _export_removed UNION SELECT batch FROM _export_hidden)
"""
_STRAYS = """
CREATE OR REPLACE TEMP TABLE _export_remaining AS
SELECT batch, event_time, insert_id FROM (
    SELECT export_batch AS batch, event_time, insert_id FROM {rows}
    UNION ALL SELECT batch, event_time, insert_id FROM _export_duplicates
) JOIN _export_changed USING (batch) WHERE event_time IS NULL OR event_time NOT BETWEEN first AND last
"""
_STRAY_COUNTS = """
UPDATE _export_batches SET outside_rows = _outside, outside_first = _first, outside_last = _last, timeless_rows = _untimed
FROM (
    SELECT batch AS _batch, count(event_time) AS _outside, min(event_time) AS _first, max(event_time) AS _last,
        count(_export_remaining.batch) - count(event_time) AS _untimed
    FROM _export_changed LEFT JOIN _export_remaining USING (batch) GROUP BY batch
) WHERE batch = _batch
"""
_STRAY_KEYS = """
DELETE FROM _export_strays WHERE rowid IN (
    SELECT _keys.rowid FROM _export_strays AS _keys SEMI JOIN _export_changed USING (batch)
    ANTI JOIN _export_remaining ON _keys.batch = _export_remaining.batch
    AND _keys.event_time IS NOT DISTINCT FROM _export_remaining.event_time
    AND _keys.insert_id IS NOT DISTINCT FROM _export_remaining.insert_id
)
"""


def forget_people(
    path: Path, distinct_ids: Sequence[str], also: Iterable[str] = (), table: str | None = None
) -> ForgetResult:
    """Delete every event and profile whose `distinct_id` is in *distinct_ids*. Either everything is deleted or nothing is.

    *also* contains keys of `PROPERTIES`: these properties are also compared with the ids. If *table* is None, all exported
    tables are searched.

    Raises:
        ArgumentError: An id is empty or not a string, or *also* has an unknown key.
        DatabaseNotFoundError: There is no such file.
        DatabaseError: The file has no ledger, or cannot be opened or written.
        TableNotFoundError: The ledger has no such table.
        TableFormatError: A newer release of this program wrote the ledger, or the columns of a table were changed.
        ExportRunningError: This process is exporting into the file.
    """
    paths = _checked_paths(distinct_ids, also)
    check_exists(path)
    if path.stat().st_size == 0:
        raise _no_ledger(path)
    with connected_for_export(path) as connection:
        if not table_exists(connection, "_export_batches"):
            raise _no_ledger(path)
        check_ledger(connection)
        names = _tables(connection, table)
        remove = partial(_forget_in_transaction, connection, names, _match(paths), distinct_ids)
        with _errors(path, "cannot remove the rows ({}), so nothing was removed"):
            tables = with_enough_memory(connection, remove)
        with _errors(path, "the rows were removed, but DuckDB cannot write a checkpoint ({})"):
            connection.execute("CHECKPOINT")
        return ForgetResult(path, tables, _other_tables(connection) if table is None else ())


def count_people(
    connection: Connection, distinct_ids: Sequence[str], also: Iterable[str] = (), table: str | None = None
) -> tuple[int, int]:
    """Return the number of events and of profiles that `forget_people` finds. The connection may be read-only.

    Raises:
        ArgumentError, TableNotFoundError, TableFormatError: See `forget_people`.
    """
    match = _match(_checked_paths(distinct_ids, also))
    if not table_exists(connection, "_export_batches"):
        return 0, 0
    check_ledger(connection)
    names = _tables(connection, table)
    _create_ids(connection, distinct_ids)
    profile_names = set(profile_table_names(connection)).intersection(names)
    events = [_rows(connection, name) for name in names if name not in profile_names]
    profiles = [quoted(name) for name in profile_names if columns_of(connection, name)]
    return _count(connection, events, match), _count(connection, profiles, match)


def _count(connection: Connection, tables: Iterable[str], match: str) -> int:
    counts = (connection.execute(f"SELECT count(*) FROM {rows} WHERE {match}").fetchall() for rows in tables)
    return sum(number for ((number,),) in counts)


def _create_ids(connection: Connection, ids: Sequence[str]) -> None:
    connection.execute(
        "CREATE OR REPLACE TEMP TABLE _export_ids AS SELECT unnest(?::VARCHAR[]) AS id", [list(ids)]
    )


def _forget_in_transaction(
    connection: Connection, names: Sequence[str], match: str, ids: Sequence[str]
) -> tuple[ForgottenTable, ...]:
    """Delete the rows for which the SQL condition *match* is true from the tables *names*, and update their flat tables."""
    with transaction(connection):
        create_ledger(connection)
        _create_ids(connection, ids)
        profiles = set(profile_table_names(connection))
        tables = tuple(
            (forget_profiles if name in profiles else _forget)(connection, name, match, ids) for name in names
        )
        for name in names:
            refresh_flat_tables(connection, name)
    return tables


def _checked_paths(distinct_ids: Sequence[object], also: Iterable[str]) -> list[str]:
    """Return the JSON paths to compare. Error messages never contain an id."""
    if not distinct_ids:
        raise ArgumentError("distinct_ids", "must contain at least one id")
    for distinct_id in distinct_ids:
        if not isinstance(distinct_id, str) or not distinct_id:
            raise ArgumentError("distinct_ids", "must be non-empty strings")
        try:
            distinct_id.encode()
        except UnicodeEncodeError:
            raise ArgumentError("distinct_ids", "must be valid Unicode") from None
    names = dict.fromkeys(also)
    if not names.keys() <= PROPERTIES.keys():
        raise ArgumentError("also", f"must be one of {', '.join(PROPERTIES)}")
    return [f'$."{PROPERTIES[name]}"' for name in names]


def _no_ledger(path: Path) -> DatabaseError:
    return DatabaseError(
        f"{path} has no exported tables, so nothing was removed",
        advice="run `mpx upgrade` if mixpanel_data wrote the file, or choose another one",
        db_path=str(path),
    )


@contextmanager
def _errors(path: Path, message: str) -> Iterator[None]:
    """Convert DuckDB errors. *message* has a placeholder for the reason."""
    try:
        yield
    except duckdb.Error as error:
        reason = str(error).splitlines()[0]
        raise DatabaseError(
            message.format(reason),
            advice=f"{advice_on(reason)}, then try again",
            db_path=str(path),
        ) from error


def _tables(connection: Connection, table: str | None) -> list[str]:
    """Return all tables in the ledger or, if *table* is given, only that table and its unfinished replacement."""
    rows = connection.execute(
        "SELECT DISTINCT table_name FROM _export_batches ORDER BY table_name"
    ).fetchall()
    names = sorted({*(name for (name,) in rows), *profile_table_names(connection)})
    if table is None:
        return names
    own = name_in_database(connection, table)
    matches = [name for name in names if name in {own, SHADOW + own}]
    if not matches:
        exported = [name for name in names if not name.startswith(SHADOW)]
        choices = f"choose one of these: {', '.join(exported)}" if exported else "export into it first"
        raise TableNotFoundError(
            table, f"there is no exported table {table}", advice=did_you_mean(table, exported) + choices
        )
    return matches


def _match(paths: Sequence[str]) -> str:
    """Return the SQL condition for the rows to delete. *paths* contains constants of this module."""
    values = ["distinct_id", *(f"json_extract_string(properties, '{path}')" for path in paths)]
    return "(" + " OR ".join(f"{value} IN (FROM _export_ids)" for value in values) + ")"


def _forget(connection: Connection, table: str, match: str, ids: Collection[str]) -> ForgottenTable:
    """Delete the matching rows of one table, in the caller's transaction."""
    rows = _rows(connection, table)
    connection.execute(_REMOVED.format(rows=rows, match=match))
    connection.execute(_HIDDEN.format(match=match), {"table": table})
    find_raw_lines(connection, "_export_batches", table, ids)
    events = delete_matches(connection, rows, "_export_removed")
    hidden = delete_matches(connection, "_export_duplicates", "_export_hidden")
    raw = delete_matches(connection, "_export_rejects", "_export_lines")
    if events or hidden or raw:
        connection.execute(_COUNTS)
        _correct_strays(connection, table, rows)
    return ForgottenTable(table.removeprefix(SHADOW), events, hidden, raw, table.startswith(SHADOW))


def _rows(connection: Connection, table: str) -> str:
    """Return SQL for a table's rows, or for no rows if the table was dropped."""
    if has_export_columns(connection, table):
        return quoted(table)
    if columns_of(connection, table):
        name = table.removeprefix(SHADOW)
        raise TableFormatError(
            name,
            f"the columns of table {name} have been changed, so its rows cannot be searched and nothing was removed",
            advice="undo the change, or rename the table and delete from it in SQL",
        )
    return _NO_ROWS


def _correct_strays(connection: Connection, table: str, rows: str) -> None:
    """Count the strays of the changed batches again, and delete recorded strays that no longer have a row."""
    zones = connection.execute(
        "SELECT DISTINCT timezone FROM _export_batches WHERE table_name = ? AND outside_rows + timeless_rows > 0",
        [table],
    ).fetchall()
    for (zone,) in zones:
        days = {"first": first_moment("from_date", zone), "last": last_moment("to_date", zone)}
        connection.execute(_CHANGED.format(**days), {"table": table, "zone": zone})
        connection.execute(_STRAYS.format(rows=rows))
        connection.execute(_STRAY_KEYS)
        connection.execute(_STRAY_COUNTS)


def _other_tables(connection: Connection) -> tuple[str, ...]:
    """Return all other tables with a `distinct_id` column: the user's own tables, and tables of other programs.

    They include flat tables that the user has renamed, or whose events table no longer exists.
    """
    refreshed = [flat.name for flat in flat_tables(connection) if table_exists(connection, flat.source)]
    rows = connection.execute(
        "SELECT DISTINCT table_name FROM duckdb_columns() JOIN duckdb_tables() USING (database_name, schema_name, table_name) "
        f"WHERE column_name = 'distinct_id' AND {IN_MAIN} AND NOT starts_with(table_name, '_') "
        "AND table_name NOT IN (SELECT table_name FROM _export_batches) "
        "AND NOT list_contains(?::VARCHAR[], table_name) ORDER BY table_name",
        [[*refreshed, *profile_table_names(connection)]],
    ).fetchall()
    return tuple(name for (name,) in rows)
