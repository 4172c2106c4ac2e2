"""The DuckDB destination of profiles: stages the pages of a snapshot, and replaces or updates the table with them.

A snapshot is one transaction, from its first page to its ledger row. If the process is killed, or the snapshot fails, the
file is unchanged.
"""

from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

from mixpanel_export._database.connection import Connection, begin, quoted, roll_back, transaction
from mixpanel_export._database.ledger import Ledger, read_batches
from mixpanel_export._database.schema import (
    PROFILE_COLUMNS,
    create_ledger,
    create_table,
    delete_foreign_metadata,
    table_exists,
)
from mixpanel_export._database.snapshots import (
    ProfileMode,
    Snapshot,
    check_before_snapshot,
    mark_replaced,
    update_snapshot_rows,
    write_snapshot,
)
from mixpanel_export._database.write_errors import WriteTexts, WrittenFile
from mixpanel_export._model import Selection
from mixpanel_export._source.profile_page import ProfilePage
from mixpanel_export.errors import TableError

T = TypeVar("T")

_STAGING = "_export_pages"
_COLUMNS = ", ".join(PROFILE_COLUMNS)
_INSERT = f"""
INSERT INTO {_STAGING} SELECT id, text::JSON, seen, $batch, $position + row_number() OVER () FROM (
    SELECT unnest($ids::VARCHAR[]) AS id, unnest($properties::VARCHAR[]) AS text, unnest($last_seen::TIMESTAMP[]) AS seen
)
"""
# Positions of profiles that are also on a later page, or later on the same page.
_SUPERSEDED = f"""
SELECT position FROM {_STAGING} JOIN (
    SELECT distinct_id, max(position) AS last FROM {_STAGING} GROUP BY distinct_id HAVING count(*) > 1
) USING (distinct_id) WHERE position < last
"""
_PAGE_POSITIONS = 1 << 32  # more than the number of profiles on a page
_TEXTS = WriteTexts(
    state="it is unchanged",
    retry="export the profiles again",
    lost="the profiles were not written",
    put_back="put the original file back, or export the profiles again",
)


class MismatchError(Exception):
    """The number of profiles on all pages differs from the total."""

    def __init__(self, profiles: int, total: int) -> None:
        super().__init__(f"the pages have {profiles:,} different profiles, but Mixpanel reported {total:,}")


@dataclass(frozen=True, slots=True)
class Totals:
    """The changes to the table."""

    growth: int
    updated: int
    duplicates: int


class ProfilesTable:
    """A table of profiles, and the transaction in which one export fills it."""

    def __init__(
        self,
        connection: Connection,
        path: Path,
        name: str,
        mode: ProfileMode,
        project: str,
        *,
        allow_empty: bool,
    ) -> None:
        """Check that the table allows the export, and prepare the ledger.

        Raises:
            TableError, SelectionError: See `check_before_snapshot`. The file is unchanged.
        """
        self._connection = connection
        self._mode = mode
        self._allow_empty = allow_empty
        self._file = WrittenFile(path, _TEXTS)
        self.number = 0
        """The `export_batch` of the snapshot's rows."""
        with self._converting_errors():
            self.name = check_before_snapshot(connection, name, mode, project)
            with transaction(connection):
                create_ledger(connection)
                ((self.number,),) = connection.execute("SELECT nextval('_export_batch_ids')").fetchall()

    def begin(self) -> None:
        """Start a snapshot. Discard the pages of an earlier attempt."""
        self.roll_back()
        with self._converting_errors():
            begin(self._connection)
            self._connection.execute(f"DROP TABLE IF EXISTS {_STAGING}")
            create_table(self._connection, _STAGING, PROFILE_COLUMNS | {"position": "BIGINT"})

    def add(self, number: int, page: ProfilePage) -> None:
        """Stage a page."""
        with self._converting_errors():
            self._connection.execute(
                _INSERT,
                {
                    "ids": page.ids,
                    "properties": page.properties,
                    "last_seen": page.last_seen,
                    "batch": self.number,
                    "position": number * _PAGE_POSITIONS,
                },
            )
            for reason, texts in (("rejected", page.rejects), ("repaired", page.originals)):
                if texts:
                    lines = [text.encode("utf-8", "surrogateescape") for text in texts]
                    self._connection.execute(
                        "INSERT INTO _export_rejects SELECT ?, ?, unnest(?::BLOB[])",
                        [self.number, reason, lines],
                    )

    def finish(self, snapshot: Snapshot) -> Totals:
        """Replace or update the table, and write the ledger row, in the transaction that `begin` started.

        Raises:
            MismatchError: The number of profiles differs from `snapshot.total`.
            TableError: The snapshot is empty, the table has rows, and `allow_empty` is false.
        """
        with self._converting_errors():
            ((entries, distinct),) = self._connection.execute(
                f"SELECT count(*), count(DISTINCT distinct_id) FROM {_STAGING}"
            ).fetchall()
            total = snapshot.total or 0
            if distinct + snapshot.rejects != total:
                raise MismatchError(distinct + snapshot.rejects, total)
            before = self._count()
            updated = self._update() if self._mode == "append" else self._replace(before, distinct, entries)
            duplicates = entries - distinct
            write_snapshot(
                self._connection, replace(snapshot, table=self.name, rows=distinct, duplicates=duplicates)
            )
            if self._mode == "append":
                update_snapshot_rows(self._connection, self.name)
                growth = self._count() - before
            else:
                growth = distinct
            self._connection.commit()
            return Totals(growth, updated, duplicates)

    def record_failure(self, snapshot: Snapshot) -> None:
        """Discard the snapshot, and record that it failed."""
        self.roll_back()
        with self._converting_errors(), transaction(self._connection):
            write_snapshot(self._connection, replace(snapshot, table=self.name))

    def roll_back(self) -> None:
        """Discard the snapshot."""
        roll_back(self._connection)

    def interrupt(self) -> None:
        """Stop the statement that runs in another thread, if any."""
        self._connection.interrupt()

    def _converting_errors(self) -> AbstractContextManager[None]:
        return self._file.converting_errors()

    def _replace(self, before: int, distinct: int, entries: int) -> int:
        """Replace the table with the staged profiles. Return the number of updated rows, which is 0."""
        if before and not distinct and not self._allow_empty:
            raise TableError(
                self.name,
                f"the replacement has no profiles, so table {self.name} keeps its {before:,} rows",
                argument="allow_empty",
                advice="check the project and the selection, or pass $allow_empty",
            )
        name = quoted(self.name)
        self._connection.execute(f"DROP TABLE IF EXISTS {name}")
        if read_batches(
            self._connection, self.name
        ):  # the user dropped a table of events with this name in SQL
            Ledger(self._connection, self.name, Selection(""), "UTC").delete_all()
        mark_replaced(self._connection, self.name)
        delete_foreign_metadata(self._connection, self.name)
        if distinct == entries:
            self._connection.execute(f"ALTER TABLE {_STAGING} DROP COLUMN position")
            self._connection.execute(f"ALTER TABLE {_STAGING} RENAME TO {name}")
        else:
            create_table(self._connection, self.name, PROFILE_COLUMNS)
            self._insert_staged()
        return 0

    def _update(self) -> int:
        """Update the table with the staged profiles, and return how many of them were already in it."""
        ((updated,),) = self._connection.execute(
            f"DELETE FROM {quoted(self.name)} WHERE distinct_id IN (SELECT distinct_id FROM {_STAGING})"
        ).fetchall()
        self._insert_staged()
        return int(updated)

    def _insert_staged(self) -> None:
        self._connection.execute(
            f"INSERT INTO {quoted(self.name)} SELECT {_COLUMNS} FROM {_STAGING} WHERE position NOT IN ({_SUPERSEDED})"
        )
        self._connection.execute(f"DROP TABLE {_STAGING}")

    def _count(self) -> int:
        if not table_exists(self._connection, self.name):
            return 0
        ((rows,),) = self._connection.execute(f"SELECT count(*) FROM {quoted(self.name)}").fetchall()
        return int(rows)
