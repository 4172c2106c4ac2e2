"""Writes the ledger rows of inserted chunks, deletes the batches that they replace, and resolves duplicates."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime

from mixpanel_export._database.connection import Connection, quoted
from mixpanel_export._database.ledger import Ledger
from mixpanel_export._database.preflight import ExportSpec
from mixpanel_export._database.sync_changes import clear_kept, write_changes
from mixpanel_export._model import Batch, Chunk, Committed
from mixpanel_export._writer.changes import Comparison, compare
from mixpanel_export._writer.cross_batch import move_duplicates, record_strays, restore
from mixpanel_export._writer.load import ValidatedChunk
from mixpanel_export._writer.repair import load_rejects
from mixpanel_export.changes import DayChange


class BatchRecords:
    """The ledger rows of one export into *table*."""

    def __init__(self, connection: Connection, table: str, spec: ExportSpec, ledger: Ledger) -> None:
        self._connection = connection
        self._table = table
        self._spec = spec
        self._ledger = ledger

    def write(
        self, group: Sequence[ValidatedChunk], finished: datetime, export: int | None
    ) -> tuple[list[Committed], list[DayChange]]:
        """Write ledger rows for chunks that were just inserted, in the caller's transaction.

        If a chunk is rejected because too many events are missing, its rows are deleted again. *finished* is naive and in
        UTC. *export* is the number of the export's first batch. Returns a verdict on each chunk, and the days on which a
        sync found changes.
        """
        batches = [replace(chunk.batch, finished=finished, export=export) for chunk in group]
        compared = self._compare(batches, finished)
        losses = {number: comparison for number, comparison in compared.items() if comparison.rejected}
        accepted_chunks = [chunk for chunk in group if chunk.batch.number not in losses]
        rejected = [batch for batch in batches if batch.number in losses]
        self._reject(rejected)
        committed = self._record_accepted(
            accepted_chunks, [batch for batch in batches if batch not in rejected]
        )
        committed += [Committed(batch.days, losses[batch.number].old_rows) for batch in rejected]
        return committed, [change for comparison in compared.values() for change in comparison.days]

    def _record_accepted(self, group: Sequence[ValidatedChunk], batches: Sequence[Batch]) -> list[Committed]:
        superseded = self._supersede({batch.number: batch.days for batch in batches}) if batches else []
        self._ledger.write(batches)
        with_strays = [
            batch.number for batch in batches if batch.deduplicated and batch.stray_rows + batch.untimed_rows
        ]
        record_strays(self._connection, self._table, self._spec.zone, with_strays)
        for chunk in group:
            load_rejects(self._connection, chunk.staged)
        numbers = [batch.number for batch in batches]
        changed = list(numbers) if self._spec.dedupe else []
        if superseded:
            changed += restore(self._connection, self._table, superseded)
        project, zone = self._spec.selection.project, self._spec.zone
        move_duplicates(self._connection, self._table, project, zone, changed)
        counts = self._ledger.counts(numbers)
        return [
            Committed(batch.days, *counts[batch.number], batch.rejects, batch.repaired) for batch in batches
        ]

    def _compare(self, batches: Sequence[Batch], now: datetime) -> dict[int, Comparison]:
        """Compare new batches with the batches that they replace and record the changes."""
        if self._spec.accepted_losses is None:
            return {}
        compared = compare(
            self._connection,
            self._table,
            self._spec.zone,
            new=batches,
            old=self._ledger.for_selection(),
            accepted_losses=self._spec.accepted_losses,
            now=now,
        )
        clear_kept(self._connection, self._table, self._spec.selection, [batch.days for batch in batches])
        changes = {number: comparison.days for number, comparison in compared.items()}
        write_changes(self._connection, self._table, self._spec.selection, changes)
        return compared

    def _reject(self, batches: Sequence[Batch]) -> None:
        """Delete the rows of rejected batches, so that the old batches stay.

        Also delete the ledger rows of earlier failures for the same days.
        """
        if batches:
            numbers = [batch.number for batch in batches]
            self._connection.execute(
                f"DELETE FROM {quoted(self._table)} WHERE export_batch IN (SELECT unnest(?))", [numbers]
            )
            days = {batch.number: batch.days for batch in batches}
            self._ledger.delete(self._ledger.superseded(days, visible=False))

    def _supersede(self, newer: Mapping[int, Chunk]) -> list[int]:
        older = self._ledger.superseded(newer, visible=True)
        if older:
            self._connection.execute(
                f"DELETE FROM {quoted(self._table)} WHERE export_batch IN (SELECT unnest(?))", [older]
            )
            self._ledger.delete(older)
        return older
