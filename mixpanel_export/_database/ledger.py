"""The ledger: one row for each batch, and checks that the table and the ledger agree.

The rows of a batch and its ledger row are committed in one transaction. A batch that failed has no rows in the table.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from mixpanel_export._database.connection import Connection, quoted
from mixpanel_export._database.schema import LEDGER_TABLES, check_ledger, create_ledger, table_exists
from mixpanel_export._database.snapshots import delete_snapshots
from mixpanel_export._database.sync_changes import delete_changes
from mixpanel_export._database.target_days import delete_target_days
from mixpanel_export._model import Batch, Chunk, Selection
from mixpanel_export.errors import LedgerMismatchError, SelectionError

UNKNOWN_PROJECT = "(unknown)"
"""The project of batches that mixpanel_data wrote, because its files do not contain the project id."""

_COLUMNS = {
    "number": "batch",
    "table": "table_name",
    "status": "status",
    "rows": "rows",
    "removed_duplicates": "removed_duplicates",
    "rejects": "rejects",
    "repaired": "repaired",
    "stray_rows": "outside_rows",
    "stray_first": "outside_first",
    "stray_last": "outside_last",
    "untimed_rows": "timeless_rows",
    "bytes_read": "bytes",
    "attempts": "attempts",
    "requested_at": "started",
    "finished": "finished",
    "error": "error",
    "deduplicated": "deduped",
    "zone": "timezone",
    "revision": "revision",
    "export": "export",
    "queued_at": "queued_at",
    "connecting_at": "connecting_at",
    "connected_at": "connected_at",
    "first_byte_at": "first_byte_at",
    "received_at": "received_at",
    "validated_at": "validated_at",
}
"""The ledger column for each field of `Batch`, except `selection` and `days`, which have several columns each."""


class Ledger:
    """The ledger rows of one events table. Most methods use only the rows of one selection."""

    def __init__(self, connection: Connection, table: str, selection: Selection, zone: str) -> None:
        self._connection = connection
        self._table = table
        self._selection = selection
        self._zone = zone

    def batches(self) -> list[Batch]:
        """Return all ledger rows of the table, for all selections, oldest first. The database must have a ledger."""
        return _read_batches(self._connection, self._table)

    def for_selection(self) -> list[Batch]:
        """Return the ledger rows of this selection, oldest first. The database must have a ledger."""
        return self.of_selection(self.batches())

    def of_selection(self, batches: Iterable[Batch]) -> list[Batch]:
        """Return those of *batches* that have this selection."""
        return [batch for batch in batches if batch.selection == self._selection]

    def check_selection(self, batches: Iterable[Batch], days: Chunk, *, limited: bool) -> None:
        """Check that an export of *days* does not conflict with the table's *batches*.

        Raises:
            SelectionError: The table has imported days, days with another selection that may share events with this
                one, or days without a limit although this export is *limited*.
        """
        for batch in batches:
            if not batch.visible or not batch.days.overlaps(days):
                continue
            if batch.status == "imported":
                raise SelectionError(
                    f"table {self._table} has these days from mixpanel_data, and nothing proves that they are complete",
                    days=batch.days,
                    advice="$replace the table, or export into another one",
                )
            if batch.selection == self._selection:
                if limited and batch.status != "limited":
                    raise SelectionError(
                        f"table {self._table} has these days without a limit, and a limited export would replace them "
                        "with fewer events",
                        days=batch.days,
                        argument="limit",
                        advice="leave out $limit, or export into another table",
                    )
            elif not batch.selection.excludes(self._selection):
                raise SelectionError(
                    f"table {self._table} has {batch.selection}, which may share events with {self._selection}",
                    details={"table_events": batch.selection.names, "table_where": batch.selection.where},
                    days=batch.days,
                    advice="export into another table, or $replace this one, which removes its days and selections",
                )

    def check_zone(self, batches: Iterable[Batch]) -> None:
        """Check that the times of the table's *batches* were converted from the same zone.

        Raises:
            SelectionError: The times were converted from another zone.
        """
        others = [batch for batch in batches if batch.visible and batch.zone != self._zone]
        if others:
            zone = others[0].zone
            days = Chunk(
                min(batch.days.first for batch in others if batch.zone == zone),
                max(batch.days.last for batch in others if batch.zone == zone),
            )
            raise SelectionError(
                f"table {self._table} has times converted from {zone}, and this export would convert from {self._zone}",
                days=days,
                argument="project_timezone",
                advice=f"pass {zone} as $project_timezone, or $replace the table",
            )

    def check_rows(self, batches: Sequence[Batch], days: Chunk, *, compare_counts: bool) -> int:
        """Check that each row of the table belongs to one of its *batches*. Return the number of rows.

        If *compare_counts* is true, also check the row count of each batch of this selection that overlaps *days*.

        Raises:
            LedgerMismatchError: A batch differs. The error reports the first batch that differs.
        """
        counts = check_batches(self._connection, self._table, batches)
        for batch in self.of_selection(batches) if compare_counts else ():
            rows = counts.get(batch.number, 0)
            if batch.visible and batch.days.overlaps(days) and rows != batch.rows:
                raise LedgerMismatchError(
                    f"table {self._table} has {rows:,} rows of batch {batch.number}, but the batch had {batch.rows:,} when it was exported",
                    batch=batch.number,
                    days=batch.days,
                    advice="export these days again with $append, which replaces the batch; `mpx status` prints the command",
                )
        return sum(counts.values())

    def counts(self, numbers: Sequence[int]) -> dict[int, tuple[int, int]]:
        """Return the row count and the number of removed duplicates for each batch in *numbers*."""
        rows = self._connection.execute(
            'SELECT batch, "rows", removed_duplicates FROM _export_batches WHERE batch IN (SELECT unnest(?))',
            [list(numbers)],
        ).fetchall()
        return {number: (count, removed) for number, count, removed in rows}

    def write(self, batches: Iterable[Batch]) -> None:
        """Add a row for each batch."""
        for batch in batches:
            row = _to_row(batch)
            columns = ", ".join(map(quoted, row))
            placeholders = ", ".join("?" for _ in row)
            self._connection.execute(
                f"INSERT INTO _export_batches ({columns}) VALUES ({placeholders})", list(row.values())
            )

    def superseded(self, newer: Mapping[int, Chunk], *, visible: bool) -> list[int]:
        """Return the numbers of this selection's older batches whose days all belong to one of the *newer* batches.

        If *visible* is false, return only failed batches.
        """
        days = newer.values()
        rows = self._connection.execute(
            "SELECT DISTINCT batch FROM _export_batches "
            "JOIN (SELECT unnest(?) AS newer, unnest(?) AS first, unnest(?) AS last) "
            "ON batch < newer AND from_date >= first AND to_date <= last "
            "WHERE table_name = ? AND project = ? AND events IS NOT DISTINCT FROM ? "
            """AND "where" IS NOT DISTINCT FROM ? AND (? OR status = 'failed')""",
            [
                list(newer),
                [chunk.first for chunk in days],
                [chunk.last for chunk in days],
                self._table,
                self._selection.project,
                self._selection.events_json,
                self._selection.where,
                visible,
            ],
        ).fetchall()
        return sorted(number for (number,) in rows)

    def delete(self, numbers: Sequence[int]) -> None:
        """Delete all rows about the batches in *numbers* from the ledger tables."""
        for table in LEDGER_TABLES:
            self._connection.execute(
                f"DELETE FROM {table} WHERE batch IN (SELECT unnest(?))", [list(numbers)]
            )

    def delete_all(self) -> None:
        """Delete all rows about the table from the ledger tables."""
        self.delete([batch.number for batch in self.batches()])
        delete_target_days(self._connection, self._table)
        delete_changes(self._connection, self._table)
        delete_snapshots(self._connection, self._table)

    def allocate_batch_numbers(self, count: int) -> list[int]:
        """Return *count* new batch numbers, in ascending order. They are greater than all earlier numbers."""
        rows = self._connection.execute(
            "SELECT nextval('_export_batch_ids') FROM range(?)", [count]
        ).fetchall()
        return sorted(int(number) for (number,) in rows)


def read_batches(connection: Connection, table: str | None = None) -> list[Batch]:
    """Return the ledger rows of *table*, or of all tables, oldest first; none if there is no ledger."""
    return _read_batches(connection, table) if table_exists(connection, "_export_batches") else []


def _read_batches(connection: Connection, table: str | None) -> list[Batch]:
    cursor = connection.execute(
        "FROM _export_batches WHERE table_name = coalesce(?, table_name) ORDER BY batch", [table]
    )
    names = [name for name, *_ in cursor.description or ()]
    return [_from_row(dict(zip(names, row, strict=True))) for row in cursor.fetchall()]


def check_batches(connection: Connection, table: str, batches: Iterable[Batch]) -> dict[int, int]:
    """Check that each row of the table belongs to one of its *batches*. Return the number of rows of each batch.

    Raises:
        LedgerMismatchError: The table has rows of a batch that is not in the ledger. The error reports one such batch.
    """
    counts = dict(
        connection.execute(
            f"SELECT export_batch, count(*) FROM {quoted(table)} GROUP BY export_batch"
        ).fetchall()
    )
    known = {batch.number for batch in batches if batch.visible}
    for number in counts.keys() - known:
        raise LedgerMismatchError(
            f"table {table} has {counts[number]:,} rows that do not belong to an export (export_batch {number}), so some "
            "days may be duplicated",
            batch=number,
            advice="delete these rows, or $replace the table",
        )
    return counts


def delete_from_ledger(connection: Connection, table: str) -> None:
    """Delete all rows about a table from the ledger, if the database has one.

    Raises:
        TableFormatError: A newer release wrote the ledger.
    """
    if table_exists(connection, "_export_batches"):
        check_ledger(connection)
        create_ledger(connection)
        Ledger(connection, table, Selection(""), "UTC").delete_all()


def _to_row(batch: Batch) -> dict[str, object]:
    return {
        "project": batch.selection.project,
        "events": batch.selection.events_json,
        "where": batch.selection.where,
        "from_date": batch.days.first,
        "to_date": batch.days.last,
        **{column: getattr(batch, field) for field, column in _COLUMNS.items()},
    }


def _from_row(row: Mapping[str, Any]) -> Batch:
    values = {field: row[column] for field, column in _COLUMNS.items() if row.get(column) is not None}
    return Batch(
        selection=Selection.from_ledger(row["project"], row["events"], row["where"]),
        days=Chunk(row["from_date"], row["to_date"]),
        **values,
    )
