"""The ledger: which batch delivered which days, and the checks that table and ledger agree.

A row of an events table is visible if and only if the ledger row that its `export_batch` names is `complete`,
`open` or `limited`; both are committed in one transaction.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from mixpanel_export._database.connection import Connection, quoted
from mixpanel_export._database.schema import LEDGER_TABLES, check_ledger, create_ledger, table_exists
from mixpanel_export._database.targets import forget_targets
from mixpanel_export._model import Batch, Chunk, Selection
from mixpanel_export.errors import LedgerMismatchError, SelectionError


class Ledger:
    """The ledger rows of one events table, under one selection."""

    def __init__(self, connection: Connection, table: str, selection: Selection, zone: str) -> None:
        self._connection = connection
        self._table = table
        self._selection = selection
        self._zone = zone

    def batches(self) -> list[Batch]:
        """Return every ledger row of the table, of all selections, oldest first."""
        return read_batches(self._connection, self._table)

    def for_selection(self) -> list[Batch]:
        """Return the ledger rows of this selection, oldest first."""
        return [batch for batch in self.batches() if batch.selection == self._selection]

    def check_selection(self, days: Chunk, *, limited: bool) -> None:
        """Refuse days that the table holds under another selection which may share events, or as imported.

        Raises:
            SelectionError: Names the days and their selection.
        """
        for batch in self.batches():
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
                        "by fewer events",
                        days=batch.days,
                        argument="limit",
                        advice="leave out $limit, or export into another table",
                    )
            elif not batch.selection.excludes(self._selection):
                raise SelectionError(
                    f"table {self._table} has {batch.selection}, which may share events with {self._selection}",
                    days=batch.days,
                    advice="export into another table, or $replace this one",
                )

    def check_zone(self) -> None:
        """Refuse a table whose times were converted from another zone.

        Raises:
            SelectionError: Names both zones.
        """
        others = [batch for batch in self.batches() if batch.visible and batch.zone != self._zone]
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

    def check_rows(self, days: Chunk, *, trust: bool) -> None:
        """Refuse rows that no ledger row names; with *trust*, compare the rows of *days* with the ledger.

        Raises:
            LedgerMismatchError: Names the first batch that differs.
        """
        counts = dict(
            self._connection.execute(
                f"SELECT export_batch, count(*) FROM {quoted(self._table)} GROUP BY export_batch"
            ).fetchall()
        )
        known = {batch.number for batch in self.batches() if batch.visible}
        for number in counts.keys() - known:
            raise LedgerMismatchError(
                f"table {self._table} has {counts[number]} rows (export_batch {number}) that the ledger does not know, so "
                "days may be there twice",
                batch=number,
                advice="delete these rows, or $replace the table",
            )
        for batch in self.for_selection() if trust else ():
            rows = counts.get(batch.number, 0)
            if batch.visible and batch.days.overlaps(days) and rows != batch.rows:
                raise LedgerMismatchError(
                    f"table {self._table} has {rows:,} rows of batch {batch.number} but the ledger says {batch.rows:,}",
                    batch=batch.number,
                    days=batch.days,
                    advice="export these days again with $append, which replaces the batch",
                )

    def counts(self, numbers: Sequence[int]) -> dict[int, tuple[int, int]]:
        """Return rows and removed duplicates of the batches *numbers*."""
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
            places = ", ".join("?" for _ in row)
            self._connection.execute(
                f"INSERT INTO _export_batches ({columns}) VALUES ({places})", list(row.values())
            )

    def superseded(self, newer: Mapping[int, Chunk], *, visible: bool) -> list[int]:
        """Return the batches of this selection that lie within a *newer* one; failed ones only unless *visible*."""
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

    def forget(self, numbers: Sequence[int]) -> None:
        """Remove every row that the ledger tables have of the batches *numbers*."""
        for table in LEDGER_TABLES:
            self._connection.execute(
                f"DELETE FROM {table} WHERE batch IN (SELECT unnest(?))", [list(numbers)]
            )

    def forget_all(self) -> None:
        """Remove every row that the ledger tables have of the table."""
        self.forget([batch.number for batch in self.batches()])
        forget_targets(self._connection, self._table)

    def new_numbers(self, count: int) -> list[int]:
        """Return *count* batch numbers, rising, greater than all before."""
        rows = self._connection.execute(
            "SELECT nextval('_export_batch_ids') FROM range(?)", [count]
        ).fetchall()
        return sorted(int(number) for (number,) in rows)


def read_batches(connection: Connection, table: str | None = None) -> list[Batch]:
    """Return the ledger rows of *table*, or of all tables, oldest first; none where the file has no ledger."""
    if not table_exists(connection, "_export_batches"):
        return []
    cursor = connection.execute(
        "FROM _export_batches WHERE table_name = coalesce(?, table_name) ORDER BY batch", [table]
    )
    names = [name for name, *_ in cursor.description or ()]
    return [_from_row(dict(zip(names, row, strict=True))) for row in cursor.fetchall()]


def forget_table(connection: Connection, table: str) -> None:
    """Remove every row that the ledger has of a table, if the database has a ledger.

    Raises:
        TableFormatError: A newer release of this program wrote the ledger.
    """
    if table_exists(connection, "_export_batches"):
        check_ledger(connection)
        create_ledger(connection)
        Ledger(connection, table, Selection(""), "UTC").forget_all()


def _to_row(batch: Batch) -> dict[str, object]:
    return {
        "batch": batch.number,
        "table_name": batch.table,
        "project": batch.selection.project,
        "events": batch.selection.events_json,
        "where": batch.selection.where,
        "from_date": batch.days.first,
        "to_date": batch.days.last,
        "status": batch.status,
        "rows": batch.rows,
        "removed_duplicates": batch.removed_duplicates,
        "rejects": batch.rejects,
        "repaired": batch.repaired,
        "outside_rows": batch.stray_rows,
        "outside_first": batch.stray_first,
        "outside_last": batch.stray_last,
        "timeless_rows": batch.untimed_rows,
        "bytes": batch.bytes_read,
        "attempts": batch.attempts,
        "started": batch.requested_at,
        "finished": batch.finished,
        "error": batch.error,
        "deduped": batch.deduplicated,
        "timezone": batch.zone,
    }


def _from_row(values: Mapping[str, Any]) -> Batch:
    return Batch(
        number=values["batch"],
        table=values["table_name"],
        selection=Selection.from_ledger(values["project"], values["events"], values["where"]),
        days=Chunk(values["from_date"], values["to_date"]),
        status=values["status"],
        rows=values["rows"],
        removed_duplicates=values["removed_duplicates"],
        rejects=values["rejects"],
        repaired=values["repaired"],
        stray_rows=values["outside_rows"],
        stray_first=values["outside_first"],
        stray_last=values["outside_last"],
        untimed_rows=values["timeless_rows"],
        bytes_read=values["bytes"],
        attempts=values["attempts"],
        requested_at=values["started"],
        finished=values["finished"],
        error=values["error"],
        deduplicated=values["deduped"],
        zone=values["timezone"],
    )
