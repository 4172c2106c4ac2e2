"""The ledger of profiles, which has one row for each export of profiles, and the checks before an export.

The profiles of an export and its ledger row are committed in one transaction. If an export fails, the table is
unchanged.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from mixpanel_export._database.connection import Connection, quoted
from mixpanel_export._database.schema import (
    PROFILE_COLUMNS,
    check_ledger,
    check_no_view,
    columns_of,
    constraint_of,
    has_profile_columns,
    name_in_database,
    table_exists,
    table_names,
)
from mixpanel_export._suggestions import did_you_mean
from mixpanel_export.errors import SelectionError, TableExistsError, TableFormatError, TableNotFoundError

ProfileMode = Literal["create", "replace", "append"]
SnapshotStatus = Literal["complete", "replaced", "failed"]
"""The status of a snapshot.

- `complete`: its profiles are in the table, except for those that a later `append` updated.
- `replaced`: a later snapshot replaced the table.
- `failed`: none of its profiles were stored.
"""

_COLUMNS = {
    "number": "batch",
    "table": "table_name",
    "project": "project",
    "selection": "selection",
    "session": "session",
    "status": "status",
    "rows": "rows",
    "total": "total",
    "pages": "pages",
    "duplicates": "duplicates",
    "short_pages": "short_pages",
    "rejects": "rejects",
    "repaired": "repaired",
    "restarts": "restarts",
    "requests": "requests",
    "bytes_read": "bytes",
    "started": "started",
    "finished": "finished",
    "error": "error",
}
"""The column for each field of `Snapshot`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """One row of the ledger of profiles. Times are in naive UTC."""

    number: int
    """The `export_batch` of the rows."""
    table: str
    project: str
    selection: str
    """The parameters that selected the profiles, as a JSON object."""
    status: SnapshotStatus
    started: datetime
    finished: datetime
    session: str | None = None
    rows: int = 0
    """The rows of the snapshot that are in the table."""
    total: int | None = None
    """The number of profiles that Mixpanel reported; None if no page arrived."""
    pages: int = 0
    duplicates: int = 0
    short_pages: int = 0
    rejects: int = 0
    repaired: int = 0
    restarts: int = 0
    requests: int = 0
    bytes_read: int = 0
    error: str | None = None


def read_snapshots(connection: Connection, table: str | None = None) -> list[Snapshot]:
    """Return the snapshots of *table*, or of all tables, oldest first; none if there is no such ledger."""
    if not table_exists(connection, "_export_snapshots"):
        return []
    cursor = connection.execute(
        "FROM _export_snapshots WHERE table_name = coalesce(?, table_name) ORDER BY batch", [table]
    )
    names = [name for name, *_ in cursor.description or ()]
    return [_from_row(dict(zip(names, row, strict=True))) for row in cursor.fetchall()]


def write_snapshot(connection: Connection, snapshot: Snapshot) -> None:
    """Add a row for the snapshot."""
    columns = ", ".join(map(quoted, _COLUMNS.values()))
    placeholders = ", ".join("?" for _ in _COLUMNS)
    connection.execute(
        f"INSERT INTO _export_snapshots ({columns}) VALUES ({placeholders})",
        [getattr(snapshot, name) for name in _COLUMNS],
    )


def mark_replaced(connection: Connection, table: str) -> None:
    """Give the table's complete snapshots the status `replaced`, and delete their rejects."""
    connection.execute(
        "DELETE FROM _export_rejects WHERE batch IN (SELECT batch FROM _export_snapshots WHERE table_name = ?)",
        [table],
    )
    connection.execute(
        """UPDATE _export_snapshots SET status = 'replaced', "rows" = 0 WHERE table_name = ? AND status = 'complete'""",
        [table],
    )


def update_snapshot_rows(connection: Connection, table: str) -> None:
    """Count the rows of the table's complete snapshots again, after rows were deleted."""
    connection.execute(
        """UPDATE _export_snapshots SET "rows" = coalesce(_count, 0) FROM (
            SELECT batch AS _batch, _count FROM _export_snapshots LEFT JOIN (
                SELECT export_batch AS _number, count(*) AS _count FROM """
        + quoted(table)
        + """ GROUP BY export_batch
            ) ON batch = _number WHERE table_name = ? AND status = 'complete'
        ) WHERE batch = _batch""",
        [table],
    )


def delete_snapshots(connection: Connection, table: str) -> None:
    """Delete all rows about the table, and the rejects of its snapshots."""
    mark_replaced(connection, table)
    connection.execute("DELETE FROM _export_snapshots WHERE table_name = ?", [table])


def check_before_snapshot(connection: Connection, table: str, mode: ProfileMode, project: str) -> str:
    """Check that the table allows an export of profiles, and return its name as the database spells it.

    Raises:
        TableExistsError, TableNotFoundError, TableFormatError: The table cannot be used in this mode.
        SelectionError: Profiles of another project would be added to the table.
    """
    table = name_in_database(connection, table)
    exists = table_exists(connection, table)
    if mode == "create" and exists:
        raise TableExistsError(
            table,
            f"table {table} already exists",
            advice="use $append to update it, use $replace to replace it, or export into another table"
            if has_profile_columns(connection, table)
            else "export into another table, or drop it",
        )
    check_no_view(connection, table)
    check_ledger(connection)
    if exists:
        _check_format(connection, table, mode)
    elif mode == "append":
        names = [name for name in table_names(connection) if has_profile_columns(connection, name)]
        raise TableNotFoundError(
            table,
            f"table {table} does not exist, so nothing can be appended",
            argument="append",
            advice=f"{did_you_mean(table, names)}leave out $append to create it",
        )
    if mode == "append":
        _check_project(connection, table, project)
    return table


def _check_format(connection: Connection, table: str, mode: ProfileMode) -> None:
    columns = dict(columns_of(connection, table))
    required = set(PROFILE_COLUMNS) - {"export_batch"}
    if not required <= columns.keys() or "event_name" in columns:
        raise TableFormatError(
            table,
            f"table {table} does not have the columns of a table of profiles",
            advice="export into another table, or drop it",
        )
    if mode == "append" and (constraint_of(connection, table) or not has_profile_columns(connection, table)):
        raise TableFormatError(
            table,
            f"table {table} was created or changed by another program, so nothing can be added to it",
            advice="export into another table, or $replace it",
        )


def _check_project(connection: Connection, table: str, project: str) -> None:
    for snapshot in read_snapshots(connection, table):
        if snapshot.status == "complete" and snapshot.project != project:
            raise SelectionError(
                f"table {table} has profiles of project {snapshot.project}, not of project {project}",
                advice="export into another table, or $replace this one",
            )


def _from_row(row: Mapping[str, Any]) -> Snapshot:
    values = {field: row[column] for field, column in _COLUMNS.items() if row.get(column) is not None}
    return Snapshot(**values)
