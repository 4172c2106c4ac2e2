"""Deletes people's profiles, in the caller's transaction: rows, raw lines, and ids in the ledger."""

import json
from collections.abc import Collection

from mixpanel_export._database.connection import Connection, quoted
from mixpanel_export._database.schema import columns_of, has_profile_columns
from mixpanel_export._database.snapshots import read_snapshots, update_snapshot_rows
from mixpanel_export._local.raw_lines import delete_matches, find_raw_lines
from mixpanel_export.errors import TableFormatError
from mixpanel_export.results import ForgottenTable

_LINE_COUNTS = """
UPDATE _export_snapshots SET rejects = rejects - _rejected, repaired = repaired - _repaired
FROM (
    SELECT batch AS _batch, count(*) FILTER (kind = 'rejected') AS _rejected, count(*) FILTER (kind = 'repaired') AS _repaired
    FROM _export_lines GROUP BY batch
) WHERE batch = _batch
"""


def profile_table_names(connection: Connection) -> list[str]:
    """Return the tables of profiles that the ledger lists, sorted by name."""
    return sorted({snapshot.table for snapshot in read_snapshots(connection)})


def forget_profiles(connection: Connection, table: str, match: str, ids: Collection[str]) -> ForgottenTable:
    """Delete the rows that *match*, raw lines in which an id occurs, and the ids from the selections in the ledger.

    Raises:
        TableFormatError: The columns of the table were changed.
    """
    rows = _delete_rows(connection, table, match)
    find_raw_lines(connection, "_export_snapshots", table, ids)
    raw = delete_matches(connection, "_export_rejects", "_export_lines")
    connection.execute(_LINE_COUNTS)
    _forget_selections(connection, table, ids)
    return ForgottenTable(table, rows, 0, raw, type="profiles")


def _delete_rows(connection: Connection, table: str, match: str) -> int:
    if not columns_of(connection, table):
        return 0
    if not has_profile_columns(connection, table):
        raise TableFormatError(
            table,
            f"the columns of table {table} have been changed, so its rows cannot be searched and nothing was removed",
            advice="undo the change, or rename the table and delete from it in SQL",
        )
    ((rows,),) = connection.execute(f"DELETE FROM {quoted(table)} WHERE {match}").fetchall()
    update_snapshot_rows(connection, table)
    return int(rows)


def _forget_selections(connection: Connection, table: str, ids: Collection[str]) -> None:
    """Delete the ids from the lists of requested ids."""
    for snapshot in read_snapshots(connection, table):
        form = json.loads(snapshot.selection)
        requested = json.loads(form.get("distinct_ids", "[]"))
        rest = [each for each in requested if each not in ids]
        if rest != requested:
            form["distinct_ids"] = json.dumps(rest, ensure_ascii=False, separators=(",", ":"))
            text = json.dumps(form, ensure_ascii=False, separators=(",", ":"))
            connection.execute(
                "UPDATE _export_snapshots SET selection = ? WHERE batch = ?", [text, snapshot.number]
            )
