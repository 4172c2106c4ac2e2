"""The DuckDB destination: loads validated chunks into one events table.

If the process is killed, the file contains only complete batches with their ledger rows, because both are committed in
one transaction. `replace` fills a shadow table that has its own ledger rows. One transaction then replaces the old table
with it, so a reader sees either the old table or the new table.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import asdict, dataclass
from datetime import date, datetime
from pathlib import Path

import duckdb

from mixpanel_export._database.catalog import read_catalog
from mixpanel_export._database.connection import Connection, quoted, transaction
from mixpanel_export._database.coverage import join_days
from mixpanel_export._database.ledger import Ledger
from mixpanel_export._database.preflight import ExportSpec, State, check_before_export
from mixpanel_export._database.schema import (
    create_events_table,
    create_ledger,
    delete_foreign_metadata,
)
from mixpanel_export._database.settings import lacks_memory, maximum_memory, memory_for_lines, more_threads
from mixpanel_export._database.sync_changes import read_kept
from mixpanel_export._database.target_days import (
    LoadOptions,
    Target,
    is_target,
    move_target_days,
    trim_target_days,
    widen_target_days,
)
from mixpanel_export._database.write_errors import Days, WriteTexts, WrittenFile
from mixpanel_export._model import Batch, ChunkFailed, Committed
from mixpanel_export._timezones import naive_utc
from mixpanel_export._writer.batch_records import BatchRecords
from mixpanel_export._writer.cross_batch import record_missing_strays
from mixpanel_export._writer.group import Group
from mixpanel_export._writer.load import UNLOADABLE, UnloadableError, insert
from mixpanel_export.changes import DayChange
from mixpanel_export.errors import TableError

_TEXTS = WriteTexts(
    state="it contains only the batches that were committed before",
    retry="$resume",
    lost="these days were not written",
    put_back="put the original file back and $resume, or export again",
)


@dataclass(frozen=True, slots=True)
class Totals:
    """An export's changes to its table."""

    growth: int
    """The number of rows by which the table grew. With `replace`, the number of rows in the new table."""
    removed_duplicates: int


class EventsTable:
    """An events table that one export fills."""

    def __init__(self, connection: Connection, path: Path, spec: ExportSpec) -> None:
        """Check that the table allows the export, and prepare the ledger.

        Raises:
            ValueError, TableError, SelectionError, LedgerMismatchError: See `check_before_export`. The file is unchanged.
        """
        self.connection = connection
        self.path = path
        self.spec = spec
        self._file = WrittenFile(path, _TEXTS)
        self._numbers: list[int] = []
        self.changes: list[DayChange] = []
        """The differences between fetched batches and the batches in the table, if they are compared."""
        with self.converting_errors(str(spec.days)):
            state = check_before_export(connection, spec)
            self.name, self.target_table = state.table, state.target_table
            self.batches, self.history = state.batches, state.history
            self._is_created = not state.starts_empty
            """Whether the target table exists."""
            self._rows_before = state.rows if spec.mode in {"append", "resume"} else 0
            self._ledger = Ledger(connection, self.target_table, spec.selection, spec.zone)
            self._records = BatchRecords(connection, self.target_table, spec, self._ledger)
            self._prepare(state)

    def kept_days(self) -> list[DayChange]:
        """Return the days whose new response was rejected, in order."""
        with self.converting_errors(str(self.spec.days)):
            selection, batches = self.spec.selection, self._ledger.for_selection()
            return list(read_kept(self.connection, self.target_table, selection, batches).values())

    def allocate_batch_numbers(self, count: int) -> list[int]:
        """Return the numbers of *count* new batches, ascending."""
        with self.converting_errors(str(self.spec.days)):
            numbers = self._ledger.allocate_batch_numbers(count)
        self._numbers += numbers
        return numbers

    def load(
        self, group: Group, now: Callable[[], datetime], *, final_attempt: bool = False
    ) -> list[Committed]:
        """Load the chunks and their ledger rows in one transaction. If *final_attempt* is true, the load may use more memory.

        Chunks that are added to the group meanwhile are also loaded.

        Raises:
            UnloadableError: DuckDB cannot load one of the chunks.
            DatabaseError: DuckDB cannot write. None of the group's rows are in the table.
            InterruptedCall: `interrupt` was called. None of the group's rows are in the table.
        """
        memory = maximum_memory if final_attempt else memory_for_lines
        threads = (
            nullcontext()
            if group.remaining_rows is None
            else more_threads(self.connection, group.remaining_rows)
        )

        def days() -> str:
            return ", ".join(
                map(str, join_days(day for chunk in group.chunks for day in chunk.batch.days.dates))
            )

        with (
            self.converting_errors(days),
            threads,
            memory(self.connection, group.longest),
        ):
            try:
                with transaction(self.connection):
                    self._create_target_table()
                    insert(self.connection, self.target_table, group)
                    committed, changes = self._records.write(group.chunks, naive_utc(now()), self._export)
            except (*UNLOADABLE, duckdb.TransactionException) as error:
                if isinstance(error, duckdb.TransactionException) and not lacks_memory(error):
                    raise
                raise UnloadableError(error, group.size) from error
            self._is_created = True
            self.changes += changes
            if final_attempt:
                self._checkpoint()
            return committed

    def _checkpoint(self) -> None:
        """Write a checkpoint while there is enough memory for it.

        A later checkpoint could fail, and DuckDB would then close the database.
        """
        with suppress(duckdb.TransactionException):  # another connection of the application may be writing
            self.connection.execute("CHECKPOINT")

    def record_failure(self, failed: ChunkFailed, finished: datetime) -> None:
        """Record the failure in the ledger.

        If the export has a `limit`, nothing is recorded, because its days are never considered exported.
        """
        if self.spec.limited:
            return
        batch = Batch(
            number=failed.batch,
            days=failed.chunk,
            status="failed",
            selection=self.spec.selection,
            table=self.target_table,
            zone=self.spec.zone,
            deduplicated=self.spec.dedupe,
            bytes_read=failed.bytes_read,
            attempts=failed.attempts,
            requested_at=naive_utc(failed.requested_at),
            finished=naive_utc(finished),
            error=failed.error,
            export=self._export,
            **asdict(failed.times),
        )
        with self.converting_errors(str(failed.chunk)), transaction(self.connection):
            self._ledger.delete(self._ledger.superseded({batch.number: batch.days}, visible=False))
            self._ledger.write([batch])
            self._record_target()

    def finish(self, *, complete: bool, allow_empty: bool = False) -> Totals:
        """Replace the old table with the shadow table if the export is *complete*. Return the changes to the table.

        If the export is not complete, the old table is unchanged, and the shadow table is kept for the next attempt.

        Raises:
            TableError: The replacement has no rows, the old table has some, and *allow_empty* is false.
        """
        with self.converting_errors(str(self.spec.days)):
            counts = self._ledger.counts(self._numbers)
            removed = sum(duplicates for _, duplicates in counts.values())
            if self.target_table != self.name:
                if not complete:
                    return Totals(0, removed)
                if not allow_empty:
                    self._check_not_emptied()
                self._swap()
            rows = self._count(self.name) if self._is_created else 0
            return Totals(rows - self._rows_before, removed)

    def record_target(self) -> None:
        """Add the requested days to the target days. Call this when Mixpanel has accepted the account and the selection.

        If the export has a `limit`, nothing is recorded, because its days are never considered exported.
        """
        with self.converting_errors(str(self.spec.days)):
            known = is_target(self.connection, self.target_table, self.spec.selection, self._target)
            if not (known or self.spec.limited):
                with transaction(self.connection):
                    self._record_target()

    def trim_target_days(self, first: date) -> None:
        """Remove the days before *first* from the target days, because the project's plan does not include them."""
        with self.converting_errors(str(self.spec.days)), transaction(self.connection):
            trim_target_days(self.connection, self.target_table, self.spec.selection, first)

    def interrupt(self) -> None:
        """Stop the statement that runs in another thread, if any."""
        self.connection.interrupt()

    def converting_errors(self, days: Days) -> AbstractContextManager[None]:
        """Convert DuckDB errors, and raise an error if the file was moved or replaced. The errors contain *days*."""
        return self._file.converting_errors(days)

    @property
    def _export(self) -> int | None:
        """The number of this export's first batch."""
        return self._numbers[0] if self._numbers else None

    def _prepare(self, state: State) -> None:
        with transaction(self.connection):
            create_ledger(self.connection)
            if state.ledger_is_obsolete:
                self._ledger.delete_all()
            if not state.starts_empty:
                record_missing_strays(self.connection, self.target_table, self.spec.zone)
            elif self.target_table != self.name:
                self.connection.execute(f"DROP TABLE IF EXISTS {quoted(self.target_table)}")

    def _record_target(self) -> None:
        """Add the requested days to the target days, unless the export has a `limit`."""
        if not self.spec.limited:
            widen_target_days(self.connection, self.target_table, self.spec.selection, self._target)

    @property
    def _target(self) -> Target:
        return Target(self.spec.days, LoadOptions(self.spec.zone, self.spec.dedupe))

    def _create_target_table(self) -> None:
        if self._is_created:
            return
        create_events_table(self.connection, self.target_table)
        if self.target_table != self.name:
            fingerprint = self.spec.fingerprint.replace("'", "''")
            self.connection.execute(f"COMMENT ON TABLE {quoted(self.target_table)} IS '{fingerprint}'")

    def _swap(self) -> None:
        old, new = quoted(self.name), quoted(self.target_table)
        with transaction(self.connection):
            create_events_table(self.connection, self.target_table)
            self.connection.execute(f"COMMENT ON TABLE {new} IS NULL")
            self.connection.execute(f"DROP TABLE IF EXISTS {old}")
            self.connection.execute(f"ALTER TABLE {new} RENAME TO {old}")
            Ledger(self.connection, self.name, self.spec.selection, self.spec.zone).delete_all()
            delete_foreign_metadata(self.connection, self.name)
            self.connection.execute(
                "UPDATE _export_batches SET table_name = ? WHERE table_name = ?",
                [self.name, self.target_table],
            )
            move_target_days(self.connection, self.target_table, self.name)
        self._is_created = True

    def _check_not_emptied(self) -> None:
        catalog = read_catalog(self.connection)
        old_rows = self._count(self.name) if catalog.has(self.name) else 0
        if old_rows and not (self._is_created and self._count(self.target_table)):
            raise TableError(
                self.name,
                f"the replacement has no events, so table {self.name} keeps its {old_rows:,} rows",
                days=self.spec.days,
                argument="allow_empty",
                advice="check $events, $where and the project, or pass $allow_empty",
            )

    def _count(self, table: str) -> int:
        ((rows,),) = self.connection.execute(f"SELECT count(*) FROM {quoted(table)}").fetchall()
        return int(rows)
