"""Staged chunks become committed batches.

What is on disk after a kill at any line: whole batches with their ledger rows, because both are committed in
one transaction, and perhaps a staging directory that the next export removes. `replace` fills a shadow table
under ledger rows of its own and swaps it in one transaction, so a reader sees the old table or the new one.

A chunk with lines that are not of Mixpanel's shape, or that DuckDB refuses, makes its group roll back; it is
then mended line by line, or sent back to be fetched again, and the rest of the group goes again.
"""

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Literal, cast

import duckdb

from mixpanel_export._database import quoted, room_for_lines, transaction
from mixpanel_export._ledger import (
    Entry,
    Ledger,
    Loaded,
    Selection,
    Status,
    check_format,
    check_no_view,
    create_events_table,
    create_ledger,
    forget_foreign_metadata,
    table_exists,
)
from mixpanel_export._load import LoadError, OddLinesError, load, load_set_aside, mend
from mixpanel_export._plan import Held, is_open
from mixpanel_export._staging import Staged, Staging
from mixpanel_export._stream import Chunk, ChunkFailed, Committed, Rejected, Verdict
from mixpanel_export.errors import DatabaseError, LedgerMismatchError, TableExistsError, TableNotFoundError

Mode = Literal["create", "append", "replace", "resume"]

_SHADOW = "_export_replace_"


class Store:
    """One events table of one database, for one export."""

    def __init__(
        self,
        connection: duckdb.DuckDBPyConnection,
        path: Path,
        *,
        table: str,
        selection: Selection,
        wanted: Chunk,
        mode: Mode,
        dedupe: bool = True,
        limited: bool = False,
    ) -> None:
        """Check that the table's state fits the mode, before any request.

        Raises:
            TableExistsError, TableNotFoundError, TableFormatError, SelectionError, LedgerMismatchError: see there.
        """
        self._connection = connection
        self._path = path
        self._batches: dict[Chunk, int] = {}
        self._wanted = wanted
        self._selection = selection
        self._dedupe = dedupe
        self._limited = limited
        self.table = _name_in_database(connection, table)
        if mode in {"append", "resume"} and table_exists(connection, self.table):
            check_format(connection, self.table)
        with _translated(path, str(wanted)), transaction(connection):
            create_ledger(connection)
        self._target = _SHADOW + self.table if mode == "replace" else self.table
        self._ledger = Ledger(connection, self._target, selection)
        self._prepare(mode)
        self._rows_before = self._count() if mode in {"append", "resume"} else 0

    def held(self) -> list[Held]:
        """Return what the ledger says of the selection's days, for the planner."""
        return [batch.held for batch in self._ledger.mine()]

    def batches_for(self, chunks: Sequence[Chunk]) -> dict[Chunk, int]:
        """Give each chunk the id of its batch, rising with the date."""
        self._batches = dict(zip(chunks, self._ledger.new_batches(len(chunks)), strict=True))
        return self._batches

    def commit(
        self, group: Sequence[Staged], staging: Staging, finished: Callable[[], datetime]
    ) -> list[Verdict]:
        """Load the chunks of *group* and commit them with their ledger rows in one transaction.

        A chunk with lines that are no events is left out and answered by `Rejected`, unless it says that such
        lines are final. The staged files are removed.

        Raises:
            DatabaseError: DuckDB cannot write; nothing of the group is committed.
            InterruptedCommit: `interrupt` was called; nothing of the group is committed.
        """
        days = ", ".join(str(staged.chunk) for staged in group)
        longest = max((staged.longest for staged in group), default=0)
        with _translated(self._path, days), room_for_lines(self._connection, longest):
            entries, rejected = self._commit_mended(group, staging, finished)
        committed = [
            Committed(
                entry.chunk, entry.loaded.rows, entry.loaded.removed_duplicates, entry.rejects, entry.repaired
            )
            for entry in entries
        ]
        return [*committed, *rejected]

    def fail(self, failed: ChunkFailed, finished: datetime) -> None:
        """Write into the ledger that the chunk was given up."""
        batch = self._batches[failed.chunk]
        entry = Entry(
            batch, failed.chunk, "failed", failed.requested_at, finished, failed.attempts, error=failed.error
        )
        with _translated(self._path, str(failed.chunk)), transaction(self._connection):
            self._ledger.forget(self._ledger.superseded(failed.chunk, batch, visible=False))
            self._ledger.write(entry, deduped=self._dedupe)

    def finish(self, *, whole: bool) -> int:
        """Swap a replaced table in if the export is *whole*; return the growth of the table.

        A replacement that is not whole leaves the old table, and its shadow for the next attempt.
        """
        if self._target != self.table:
            if not whole:
                return 0
            with _translated(self._path, str(self._wanted)):
                self._swap()
        return self._count() - self._rows_before

    def interrupt(self) -> None:
        """Stop the statement that runs in another thread, if any."""
        self._connection.interrupt()

    def _prepare(self, mode: Mode) -> None:
        there = table_exists(self._connection, self._target)
        if mode == "replace":
            check_no_view(self._connection, self.table)
            self._prepare_shadow(there=there)
        elif there:
            self._check(mode)
        elif mode == "append":
            raise TableNotFoundError(
                f"table {self.table} does not exist, so nothing can be appended; leave out append to create it",
                table_name=self.table,
            )
        else:
            with transaction(self._connection):
                self._ledger.forget_all()

    def _check(self, mode: Mode) -> None:
        if mode == "create":
            raise TableExistsError(
                f"table {self.table} already exists; use resume to complete it, append to add days, or replace",
                table_name=self.table,
            )
        self._ledger.check_selection(self._wanted, limited=self._limited)
        if mode == "resume":
            self._ledger.check_rows(self._wanted)

    def _prepare_shadow(self, *, there: bool) -> None:
        if there and self._shadow_fits():
            return
        with transaction(self._connection):
            self._connection.execute(f"DROP TABLE IF EXISTS {quoted(self._target)}")
            self._ledger.forget_all()

    def _shadow_fits(self) -> bool:
        found = self._connection.execute(
            "SELECT comment FROM duckdb_tables() WHERE table_name = ?", [self._target]
        ).fetchone()
        if found is None or found[0] != self._purpose():
            return False
        try:
            self._ledger.check_rows(self._wanted)
        except LedgerMismatchError:
            return False
        return True

    def _purpose(self) -> str:
        """What a shadow table is being filled for: only the same export goes on with it."""
        asked = [str(self._wanted.first), str(self._wanted.last), self._selection.project]
        return json.dumps(
            [*asked, self._selection.events_json, self._selection.where, self._dedupe, self._limited]
        )

    def _commit_mended(
        self, group: Sequence[Staged], staging: Staging, finished: Callable[[], datetime]
    ) -> tuple[list[Entry], list[Rejected]]:
        """Commit the group; where lines are odd, mend their chunks, leave out what is rejected, and go again."""
        rejected: list[Rejected] = []
        while True:
            try:
                entries = self._commit(group, finished)
            except OddLinesError as odd:
                mended = [
                    mend(self._connection, staged, staging) if staged.batch in odd.batches else staged
                    for staged in group
                ]
                group = [staged for staged in mended if staged.keep_rejects or not staged.rejects]
                for staged in mended:
                    if staged not in group:
                        rejected.append(Rejected(staged.chunk, staged.rejects))
                        staging.discard(staged)
            else:
                for staged in group:
                    staging.discard(staged)
                return entries, rejected

    def _commit(self, group: Sequence[Staged], finished: Callable[[], datetime]) -> list[Entry]:
        if not group:
            return []
        with transaction(self._connection):
            self._create_target()
            loaded = load(self._connection, self._target, group, dedupe=self._dedupe)
            entries = [
                self._entry(staged, loaded.get(staged.batch, Loaded()), finished()) for staged in group
            ]
            for staged, entry in zip(group, entries, strict=True):
                self._supersede(entry)
                self._ledger.write(entry, deduped=self._dedupe)
                load_set_aside(self._connection, staged)
        return entries

    def _create_target(self) -> None:
        create_events_table(self._connection, self._target)
        if self._target != self.table:
            purpose = self._purpose().replace("'", "''")
            self._connection.execute(f"COMMENT ON TABLE {quoted(self._target)} IS '{purpose}'")

    def _status(self, staged: Staged) -> Status:
        if self._limited:
            return "limited"
        return "open" if is_open(staged.chunk.last, staged.end.requested_at) else "complete"

    def _entry(self, staged: Staged, loaded: Loaded, finished: datetime) -> Entry:
        return Entry(
            batch=staged.batch,
            chunk=staged.chunk,
            status=self._status(staged),
            started=staged.end.requested_at,
            finished=finished,
            attempts=staged.end.attempts,
            bytes_read=staged.end.bytes_read,
            loaded=loaded,
            rejects=staged.rejects,
            repaired=staged.repaired,
        )

    def _supersede(self, entry: Entry) -> None:
        older = self._ledger.superseded(entry.chunk, entry.batch, visible=True)
        if older:
            self._connection.execute(
                f"DELETE FROM {quoted(self._target)} WHERE export_batch IN (SELECT unnest(?))", [older]
            )
            self._ledger.forget(older)

    def _swap(self) -> None:
        old, new = quoted(self.table), quoted(self._target)
        with transaction(self._connection):
            create_events_table(self._connection, self._target)
            self._connection.execute(f"COMMENT ON TABLE {new} IS NULL")
            self._connection.execute(f"DROP TABLE IF EXISTS {old}")
            self._connection.execute(f"ALTER TABLE {new} RENAME TO {old}")
            Ledger(self._connection, self.table, self._selection).forget_all()
            forget_foreign_metadata(self._connection, self.table)
            self._connection.execute(
                "UPDATE _export_batches SET table_name = ? WHERE table_name = ?", [self.table, self._target]
            )

    def _count(self) -> int:
        if not table_exists(self._connection, self.table):
            return 0
        found = self._connection.execute(f"SELECT count(*) FROM {quoted(self.table)}").fetchone()
        return int(found[0]) if found else 0


class InterruptedCommit(Exception):  # noqa: N818 - it is a stop that was asked for
    """A commit was interrupted and rolled back."""


@contextmanager
def _translated(path: Path, days: str) -> Iterator[None]:
    """Turn every error of DuckDB into one of ours."""
    try:
        yield
    except duckdb.InterruptException as error:
        raise InterruptedCommit from error
    except (duckdb.Error, LoadError) as error:
        reason = str(error).splitlines()[0]
        raise DatabaseError(
            f"Write failed: {reason}; nothing of {days} was kept, so make room or free the file, then resume",
            db_path=str(path),
        ) from error


def _name_in_database(connection: duckdb.DuckDBPyConnection, table: str) -> str:
    """Return the table's name as the database spells it, since DuckDB does not tell cases apart."""
    found = connection.execute(
        "SELECT table_name FROM duckdb_tables() WHERE lower(table_name) = lower(?) AND schema_name = 'main'",
        [table],
    ).fetchone()
    return cast("str", found[0]) if found else table
