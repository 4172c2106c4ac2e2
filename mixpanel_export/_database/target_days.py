"""The target days of a table and selection: all days that exports have requested, fetched or not.

A target day without a batch is missing, even if an export was interrupted before it recorded anything about that day.
Exports add target days. They remove only days that the project's plan does not include.
"""

from datetime import date

from mixpanel_export._database.connection import Connection
from mixpanel_export._database.schema import table_exists
from mixpanel_export._model import Chunk, Selection

_SAME = (
    """table_name = ? AND project = ? AND events IS NOT DISTINCT FROM ? AND "where" IS NOT DISTINCT FROM ?"""
)


def read_target_days(connection: Connection) -> dict[tuple[str, Selection], Chunk]:
    """Return the target days for each table and selection that has any."""
    if not table_exists(connection, "_export_targets"):
        return {}
    rows = connection.execute(
        'SELECT table_name, project, events, "where", from_date, to_date FROM _export_targets'
    ).fetchall()
    return {
        (table, Selection.from_ledger(project, events, where)): Chunk(first, last)
        for table, project, events, where, first, last in rows
    }


def widen_target_days(connection: Connection, table: str, selection: Selection, days: Chunk) -> None:
    """Add *days* to the target days, together with any days in between."""
    current = read_target_days(connection).get((table, selection), days)
    set_target_days(
        connection, table, selection, Chunk(min(current.first, days.first), max(current.last, days.last))
    )


def trim_target_days(connection: Connection, table: str, selection: Selection, first: date) -> None:
    """Remove the days before *first* from the target days."""
    current = read_target_days(connection).get((table, selection))
    if current and current.first < first:
        set_target_days(
            connection, table, selection, Chunk(first, current.last) if first <= current.last else None
        )


def set_target_days(connection: Connection, table: str, selection: Selection, days: Chunk | None) -> None:
    """Replace the target days with *days*; None removes them."""
    key = [table, selection.project, selection.events_json, selection.where]
    connection.execute(f"DELETE FROM _export_targets WHERE {_SAME}", key)
    if days is not None:
        connection.execute(
            "INSERT INTO _export_targets VALUES (?, ?, ?, ?, ?, ?)", [*key, days.first, days.last]
        )


def delete_target_days(connection: Connection, table: str) -> None:
    """Remove the target days of the table, for all selections."""
    connection.execute("DELETE FROM _export_targets WHERE table_name = ?", [table])


def move_target_days(connection: Connection, old: str, new: str) -> None:
    """Move the target days of the table *old* to the table *new*."""
    connection.execute("UPDATE _export_targets SET table_name = ? WHERE table_name = ?", [new, old])
