"""The table `_sync_changes`: for each day, the number of differences that a sync found.

If `kept` is true, the new response for the day was rejected, and the old events were kept. Such a row is deleted when
the day is next checked; other rows stay.
"""

from collections.abc import Iterable, Mapping
from datetime import date

from mixpanel_export._database.connection import Connection
from mixpanel_export._database.schema import table_exists
from mixpanel_export._model import Batch, Chunk, Selection
from mixpanel_export.changes import DayChange

_SAME_SELECTION = (
    """table_name = ? AND project = ? AND events IS NOT DISTINCT FROM ? AND "where" IS NOT DISTINCT FROM ?"""
)
_COUNTS = "old_rows, new_rows, added, removed, rekeyed, kept"


def write_changes(
    connection: Connection, table: str, selection: Selection, changes: Mapping[int, Iterable[DayChange]]
) -> None:
    """Add a row for each change. *changes* is keyed by the number of the new batch."""
    for batch, batch_changes in changes.items():
        for change in batch_changes:
            values = [
                change.old_rows,
                change.new_rows,
                change.added,
                change.removed,
                change.rekeyed,
                change.kept,
            ]
            connection.execute(
                f"INSERT INTO _sync_changes VALUES ({', '.join('?' * 13)})",
                [batch, *_key(table, selection), change.day, change.checked_at, *values],
            )


def clear_kept(connection: Connection, table: str, selection: Selection, days: Iterable[Chunk]) -> None:
    """Delete the `kept` rows for these days, because there is a new response for them."""
    for chunk in days:
        connection.execute(
            f"DELETE FROM _sync_changes WHERE kept AND {_SAME_SELECTION} AND day BETWEEN ? AND ?",
            [*_key(table, selection), chunk.first, chunk.last],
        )


def read_kept(
    connection: Connection, table: str, selection: Selection, batches: Iterable[Batch]
) -> dict[date, DayChange]:
    """Return the days whose new response was rejected. Days that a later batch has replaced are left out."""
    if not table_exists(connection, "_sync_changes"):
        return {}
    rows = connection.execute(
        f"SELECT batch, day, {_COUNTS}, checked_at FROM _sync_changes WHERE kept AND {_SAME_SELECTION} ORDER BY day, batch",
        _key(table, selection),
    ).fetchall()
    visible = [batch for batch in batches if batch.visible]
    return {
        day: DayChange(day, *counts)
        for number, day, *counts in rows
        if not any(batch.number > number and batch.days.overlaps(Chunk(day, day)) for batch in visible)
    }


def delete_changes(connection: Connection, table: str) -> None:
    """Delete the changes of the table, for all selections."""
    connection.execute("DELETE FROM _sync_changes WHERE table_name = ?", [table])


def _key(table: str, selection: Selection) -> list[str | None]:
    return [table, selection.project, selection.events_json, selection.where]
