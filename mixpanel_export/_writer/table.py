"""Staged chunks become committed batches.

What is on disk after a kill at any line: whole batches with their ledger rows, because both are committed in
one transaction, and perhaps a staging directory that the next export removes. `replace` fills a shadow table
under ledger rows of its own and swaps it in one transaction, so a reader sees the old table or the new one.

Only chunks that the examiner has found sound come together in a commit.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import duckdb

from mixpanel_export._concurrency import InterruptedCall
from mixpanel_export._database.connection import advice_on, identity, quoted, roll_back, transaction
from mixpanel_export._database.ledger import Entry, Ledger, Loaded
from mixpanel_export._database.preflight import Order, state_for
from mixpanel_export._database.schema import (
    create_events_table,
    create_ledger,
    forget_foreign_metadata,
    table_exists,
)
from mixpanel_export._database.settings import room_at_last, room_for_lines
from mixpanel_export._model import Chunk, ChunkFailed, Committed, Refused
from mixpanel_export._planning.planner import Held, Status, is_open
from mixpanel_export._timezones import in_zone
from mixpanel_export._writer.cross_batch import hide_across, make_up_for_timeless, note_timeless, restore
from mixpanel_export._writer.load import Ready, insert
from mixpanel_export._writer.repair import load_set_aside
from mixpanel_export._writer.staging import Buffers, Staged, Staging
from mixpanel_export._writer.validate import UNLOADABLE, Examiner, refused
from mixpanel_export.errors import DatabaseError


@dataclass(frozen=True, slots=True)
class Totals:
    """What an export did: rows by which the table grew, and duplicates kept out of it."""

    growth: int
    removed_duplicates: int


class Store:
    """One events table of one database, for one export."""

    def __init__(self, connection: duckdb.DuckDBPyConnection, path: Path, order: Order) -> None:
        """Check that the state of the table fits the order, and make ready what it needs, before any request.

        Raises:
            ValueError, TableError, SelectionError, LedgerMismatchError: As `state_for`; the file is as it was.
        """
        self._connection = connection
        self.path = path
        self._file = identity(path)
        self._order = order
        self._batches: dict[Chunk, int] = {}
        self._group: list[Ready] = []
        self._open = False  # whether a transaction has all of the group
        self._buffers = Buffers()
        self.examiner = Examiner(connection, order, self._translated)
        with self._translated(str(order.days)):
            state = state_for(connection, order)
            self.table, self._target, self.history = state.table, state.target, state.history
            self._ledger = Ledger(connection, self._target, order.selection, order.zone)
            self._prepare(anew=state.begin_anew)
            self._rows_before = self._count() if order.mode in {"append", "resume"} else 0

    def held(self) -> list[Held]:
        """Return what the ledger says of the selection's days, for the planner."""
        with self._translated(str(self._order.days)):
            return [batch.held for batch in self._ledger.mine()]

    def batches_for(self, chunks: Sequence[Chunk]) -> dict[Chunk, int]:
        """Give each chunk the id of its batch, rising with the date; returns the ids of all chunks so far."""
        with self._translated(str(self._order.days)):
            self._batches.update(zip(chunks, self._ledger.new_batches(len(chunks)), strict=True))
        return self._batches

    def insert(self, ready: Ready, staging: Staging) -> None:
        """Insert a chunk into the transaction that `commit` ends; the first one opens it.

        Once one of them cannot be inserted, `commit` will try each by itself.

        Raises:
            DatabaseError: DuckDB cannot write; `commit` is not to be called then.
            InterruptedCall: `interrupt` was called; the same holds.
        """
        if self._group and not self._open:
            self._group.append(ready)
            return
        room = room_for_lines(self._connection, ready.staged.longest)
        with self._writing([*self._group, ready], staging), room, self._all_or_none():
            self._group.append(ready)
            if not self._open:
                self._connection.begin()
                self._open = True
                self._create_target()
            insert(self._connection, self._target, ready, self._buffers)

    def commit(self, staging: Staging, now: Callable[[], datetime]) -> list[Committed | Refused]:
        """Commit the chunks that were inserted, with their ledger rows; what was staged of them is removed.

        If that cannot be, each is inserted and committed by itself. One that DuckDB does not take even then is
        answered by `Refused`.

        Raises:
            DatabaseError: DuckDB cannot write; what is committed of the chunks is what the ledger names, usually
                nothing.
            InterruptedCall: `interrupt` was called; the same holds.
        """
        with self._writing(self._group, staging):
            if self._open:
                longest = max(ready.staged.longest for ready in self._group)
                with room_for_lines(self._connection, longest), self._all_or_none():
                    committed = self._settled(self._group, now)
                    self._connection.commit()
            group, together = self._group, self._open
            self._group, self._open = [], False
            if not together:
                return [self._alone(ready, staging, now) for ready in group]
            for ready in group:
                _discard(ready, staging)
            return [*committed]

    def fail(self, failed: ChunkFailed, finished: datetime) -> None:
        """Write into the ledger that the chunk was given up, unless it was only a look, which nobody waits for."""
        if self._order.limited:
            return
        batch = self._batches[failed.chunk]
        entry = Entry(
            batch, failed.chunk, "failed", failed.requested_at, finished, failed.attempts, error=failed.error
        )
        with self._translated(str(failed.chunk)), transaction(self._connection):
            self._ledger.forget(self._ledger.superseded({batch: failed.chunk}, visible=False))
            self._ledger.write(entry, deduped=self._order.dedupe)

    def finish(self, *, whole: bool) -> Totals:
        """Swap a replaced table in if the export is *whole*; return what the export did to the table.

        A replacement that is not whole leaves the old table, and its shadow for the next attempt.
        """
        with self._translated(str(self._order.days)):
            counts = self._ledger.counts(list(self._batches.values()))
            removed = sum(duplicates for _, duplicates in counts.values())
            if self._target != self.table:
                if not whole:
                    return Totals(0, removed)
                self._swap()
            return Totals(self._count() - self._rows_before, removed)

    def interrupt(self) -> None:
        """Stop the statement of an insert or a commit that runs in another thread, if any."""
        self._connection.interrupt()

    def _prepare(self, *, anew: bool) -> None:
        with transaction(self._connection):
            create_ledger(self._connection)
            if anew:
                if self._target != self.table:
                    self._connection.execute(f"DROP TABLE IF EXISTS {quoted(self._target)}")
                # What failed before there was ever a table is still wanted by those who resume.
                if self._order.mode != "resume" or any(batch.visible for batch in self._ledger.batches()):
                    self._ledger.forget_all()
            else:
                make_up_for_timeless(self._connection, self._target)

    @contextmanager
    def _all_or_none(self) -> Iterator[None]:
        """Roll the open transaction back if the block fails; what speaks against a chunk is no error yet."""
        try:
            yield
        except UNLOADABLE:
            self._undo()
        except BaseException:
            self._group.clear()
            self._undo()
            raise

    def _undo(self) -> None:
        self._open = False
        roll_back(self._connection)

    def _alone(
        self, ready: Ready, staging: Staging, now: Callable[[], datetime], *, at_last: bool = False
    ) -> Committed | Refused:
        """Commit a chunk by itself, *at_last* with more memory."""
        room = room_at_last if at_last else room_for_lines
        try:
            with room(self._connection, ready.staged.longest), transaction(self._connection):
                self._create_target()
                insert(self._connection, self._target, ready, self._buffers)
                (committed,) = self._settled([ready], now)
        except UNLOADABLE as error:
            if at_last or not isinstance(error, duckdb.OutOfMemoryException):
                ready.found.discard()
                return refused(ready.staged, error, staging)
        else:
            _discard(ready, staging)
            return committed
        return self._alone(ready, staging, now, at_last=True)

    def _settled(self, group: Sequence[Ready], now: Callable[[], datetime]) -> list[Committed]:
        """Do what belongs to chunks that have just been inserted, in their transaction."""
        entries = [self._entry(ready.staged, ready.loaded, now()) for ready in group]
        superseded = self._supersede({entry.batch: entry.chunk for entry in entries})
        timeless = (entry.batch for entry in entries if entry.loaded.timeless_rows)
        note_timeless(self._connection, self._target, timeless)
        for ready, entry in zip(group, entries, strict=True):
            self._ledger.write(entry, deduped=self._order.dedupe)
            load_set_aside(self._connection, ready.staged)
        self._settle([entry.batch for entry in entries], superseded)
        counts = self._ledger.counts([entry.batch for entry in entries])
        return [
            Committed(entry.chunk, *counts[entry.batch], entry.rejects, entry.repaired) for entry in entries
        ]

    def _settle(self, new: Sequence[int], superseded: Sequence[int]) -> None:
        """Let every event that several batches have be shown once."""
        changed = list(new) if self._order.dedupe else []
        if superseded:
            changed += restore(self._connection, self._target, superseded)
        hide_across(self._connection, self._target, changed, self._ledger.reaches())

    def _create_target(self) -> None:
        create_events_table(self._connection, self._target)
        if self._target != self.table:
            purpose = self._order.purpose.replace("'", "''")
            self._connection.execute(f"COMMENT ON TABLE {quoted(self._target)} IS '{purpose}'")

    def _status(self, staged: Staged) -> Status:
        if self._order.limited:
            return "limited"
        return (
            "open"
            if is_open(staged.chunk.last, in_zone(staged.end.requested_at, self._order.zone))
            else "complete"
        )

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

    def _supersede(self, newer: Mapping[int, Chunk]) -> list[int]:
        older = self._ledger.superseded(newer, visible=True)
        if older:
            self._connection.execute(
                f"DELETE FROM {quoted(self._target)} WHERE export_batch IN (SELECT unnest(?))", [older]
            )
            self._ledger.forget(older)
        return older

    def _swap(self) -> None:
        old, new = quoted(self.table), quoted(self._target)
        with transaction(self._connection):
            create_events_table(self._connection, self._target)
            self._connection.execute(f"COMMENT ON TABLE {new} IS NULL")
            self._connection.execute(f"DROP TABLE IF EXISTS {old}")
            self._connection.execute(f"ALTER TABLE {new} RENAME TO {old}")
            Ledger(self._connection, self.table, self._order.selection, self._order.zone).forget_all()
            forget_foreign_metadata(self._connection, self.table)
            self._connection.execute(
                "UPDATE _export_batches SET table_name = ? WHERE table_name = ?", [self.table, self._target]
            )

    @contextmanager
    def _writing(self, group: Sequence[Ready], staging: Staging) -> Iterator[None]:
        """Turn what speaks against the database, or against the staged files, into one of our errors."""
        with self._translated(", ".join(str(ready.staged.chunk) for ready in group)), staging.writing():
            yield

    def _count(self) -> int:
        if not table_exists(self._connection, self.table):
            return 0
        found = self._connection.execute(f"SELECT count(*) FROM {quoted(self.table)}").fetchone()
        return int(found[0]) if found else 0

    @contextmanager
    def _translated(self, days: str) -> Iterator[None]:
        """Turn every error of DuckDB into one of ours, and notice where it has written to a file that is gone."""
        try:
            yield
        except duckdb.InterruptException as error:
            raise InterruptedCall from error
        except duckdb.Error as error:
            reason = str(error).splitlines()[0]
            advice = advice_on(reason) or "make room or free the file"
            raise DatabaseError(
                f"Write failed: {reason}; of {days} only what the ledger names was kept, so {advice}, then resume",
                db_path=str(self.path),
            ) from error
        if identity(self.path) != self._file:
            raise DatabaseError(
                f"{self.path} was moved, removed or replaced during an export into it, so nothing of {days} is in "
                "the file that is there now; put the other one back and resume, or export again",
                db_path=str(self.path),
            )


def _discard(ready: Ready, staging: Staging) -> None:
    staging.discard(ready.staged)
    ready.found.discard()
