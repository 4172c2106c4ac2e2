"""The ledger: which batch delivered which days, and the checks that keep table and ledger one.

A row of an events table is visible if and only if the ledger row that its `export_batch` names is `complete`,
`open` or `limited`; both are committed in one transaction.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

import duckdb

from mixpanel_export._database.connection import first_moment, last_moment, quoted
from mixpanel_export._database.schema import LEDGER_TABLES, check_ledger, create_ledger, table_exists
from mixpanel_export._model import Chunk
from mixpanel_export._planning.planner import Held, Status
from mixpanel_export._writer.cross_batch import Reach
from mixpanel_export.errors import LedgerMismatchError, SelectionError


@dataclass(frozen=True, slots=True)
class Selection:
    """Which events of which project are asked for; `events` sorted, None for all."""

    project: str
    events: tuple[str, ...] | None = None
    where: str | None = None

    def excludes(self, other: "Selection") -> bool:
        """Whether no event can be in both selections."""
        return (
            self.project == other.project
            and self.where == other.where
            and self.events is not None
            and other.events is not None
            and set(self.events).isdisjoint(other.events)
        )

    @property
    def events_json(self) -> str | None:
        """The event names as the ledger stores them."""
        return None if self.events is None else json.dumps(self.events, ensure_ascii=False)

    def __str__(self) -> str:
        names = "all events" if self.events is None else "events " + ", ".join(self.events)
        return f"{names} of project {self.project}" + (f" where {self.where}" if self.where else "")


@dataclass(frozen=True, slots=True)
class Batch:
    """A ledger row, as far as planning needs it."""

    batch: int
    chunk: Chunk
    status: Status
    rows: int
    selection: Selection

    @property
    def visible(self) -> bool:
        """Whether the batch's rows are in the table."""
        return self.status != "failed"

    @property
    def held(self) -> Held:
        """The batch as the planner knows it."""
        return Held(self.batch, self.chunk.first, self.chunk.last, self.status, self.rows)


@dataclass(frozen=True, slots=True)
class Loaded:
    """What the table holds of one batch; *outside* rows have a time outside the batch's days, *timeless* ones none."""

    rows: int = 0
    removed_duplicates: int = 0
    outside_rows: int = 0
    outside_first: datetime | None = None
    outside_last: datetime | None = None
    timeless_rows: int = 0


@dataclass(frozen=True, slots=True)
class Entry:
    """What a new ledger row says of a batch."""

    batch: int
    chunk: Chunk
    status: Status
    started: datetime
    finished: datetime
    attempts: int
    bytes_read: int = 0
    loaded: Loaded = Loaded()
    rejects: int = 0
    repaired: int = 0
    error: str | None = None


class Ledger:
    """The ledger rows of one events table, under one selection."""

    def __init__(
        self, connection: duckdb.DuckDBPyConnection, table: str, selection: Selection, zone: str
    ) -> None:
        self._connection = connection
        self._table = table
        self._selection = selection
        self._zone = zone

    def batches(self) -> list[Batch]:
        """Return every ledger row of the table, of all selections, oldest first."""
        if not self._exists():
            return []
        found = self._connection.execute(
            'SELECT batch, from_date, to_date, status, "rows", project, events, "where" '
            "FROM _export_batches WHERE table_name = ? ORDER BY batch",
            [self._table],
        ).fetchall()
        return [
            Batch(batch, Chunk(first, last), status, rows, selection_of(project, events, where))
            for batch, first, last, status, rows, project, events, where in found
        ]

    def mine(self) -> list[Batch]:
        """Return the ledger rows of this selection, oldest first."""
        return [batch for batch in self.batches() if batch.selection == self._selection]

    def check_selection(self, wanted: Chunk, *, limited: bool) -> None:
        """Refuse days that are held under a selection which may share events with this one, or under an unknown one.

        Raises:
            SelectionError: naming the days and their selection.
        """
        for held in self.batches():
            if not held.visible or not held.chunk.overlaps(wanted):
                continue
            if held.status == "imported":
                raise SelectionError(
                    f"table {self._table} holds {held.chunk} as imported from mixpanel_data, and nothing proves that "
                    "it is all of these days; replace the table, or export into another one"
                )
            if held.selection == self._selection:
                if limited and held.status != "limited":
                    raise SelectionError(
                        f"table {self._table} holds {held.chunk} without a limit, which a limited export would "
                        "replace by less; leave the limit out, or export into another table"
                    )
            elif not held.selection.excludes(self._selection):
                raise SelectionError(
                    f"table {self._table} holds {held.chunk} as {held.selection}, which may share events with "
                    f"{self._selection}; export into another table, or replace this one"
                )

    def check_zone(self) -> None:
        """Refuse a table whose times were converted from another zone.

        Raises:
            SelectionError: naming both zones.
        """
        if not self._exists():
            return
        found = self._connection.execute(
            "SELECT timezone, min(from_date), max(to_date) FROM _export_batches "
            "WHERE table_name = ? AND status <> 'failed' AND timezone <> ? GROUP BY timezone",
            [self._table, self._zone],
        ).fetchone()
        if found:
            zone, first, last = found
            raise SelectionError(
                f"table {self._table} holds {Chunk(first, last)} with times converted from {zone}, and this export "
                f"would convert from {self._zone}; pass project_timezone={zone!r}, or replace the table"
            )

    def _exists(self) -> bool:
        """Whether the database has a ledger; one that is only looked at is not given one."""
        return table_exists(self._connection, "_export_batches")

    def reaches(self) -> list[Reach]:
        """Return the times that the project's deduplicated batches in the table have events of."""
        found = self._connection.execute(
            f"SELECT batch, {first_moment('from_date', self._zone)}, {last_moment('to_date', self._zone)}, "
            "outside_first, outside_last FROM _export_batches "
            "WHERE table_name = ? AND project = ? AND status <> 'failed' AND deduped",
            [self._table, self._selection.project],
        ).fetchall()
        return [
            Reach(batch, (first, last), (early, late) if early else None)
            for batch, first, last, early, late in found
        ]

    def counts(self, batches: Sequence[int]) -> dict[int, tuple[int, int]]:
        """Return rows and removed duplicates of *batches*."""
        found = self._connection.execute(
            'SELECT batch, "rows", removed_duplicates FROM _export_batches WHERE batch IN (SELECT unnest(?))',
            [list(batches)],
        ).fetchall()
        return {batch: (rows, removed) for batch, rows, removed in found}

    def check_rows(self, wanted: Chunk, *, trust: bool) -> None:
        """Look for rows that no ledger row names; with *trust* compare those of *wanted*'s days with the ledger.

        Raises:
            LedgerMismatchError: naming the first batch that differs.
        """
        counted = self._connection.execute(
            f"SELECT export_batch, count(*) FROM {quoted(self._table)} GROUP BY export_batch"
        ).fetchall()
        there = dict(counted)
        known = {held.batch for held in self.batches() if held.visible}
        for batch in there.keys() - known:
            raise LedgerMismatchError(
                f"table {self._table} has {there[batch]} rows (export_batch {batch}) that the ledger does not know, so "
                "days may be there twice; delete these rows, or replace the table",
                batch=batch,
            )
        for held in self.mine() if trust else ():
            if held.visible and held.chunk.overlaps(wanted) and there.get(held.batch, 0) != held.rows:
                raise LedgerMismatchError(
                    f"table {self._table} has {there.get(held.batch, 0)} rows of batch {held.batch} ({held.chunk}) "
                    f"but the ledger says {held.rows}; fetch these days again with append, which replaces the batch",
                    batch=held.batch,
                )

    def write(self, entry: Entry, *, deduped: bool) -> None:
        """Add the ledger row of a batch."""
        values: dict[str, object] = {
            "batch": entry.batch,
            "table_name": self._table,
            "project": self._selection.project,
            "events": self._selection.events_json,
            "where": self._selection.where,
            "from_date": entry.chunk.first,
            "to_date": entry.chunk.last,
            "status": entry.status,
            "rows": entry.loaded.rows,
            "removed_duplicates": entry.loaded.removed_duplicates,
            "rejects": entry.rejects,
            "repaired": entry.repaired,
            "outside_rows": entry.loaded.outside_rows,
            "outside_first": entry.loaded.outside_first,
            "outside_last": entry.loaded.outside_last,
            "timeless_rows": entry.loaded.timeless_rows,
            "bytes": entry.bytes_read,
            "attempts": entry.attempts,
            "started": _naive(entry.started),
            "finished": _naive(entry.finished),
            "error": entry.error,
            "deduped": deduped,
            "timezone": self._zone,
        }
        columns = ", ".join(map(quoted, values))
        places = ", ".join("?" for _ in values)
        self._connection.execute(
            f"INSERT INTO _export_batches ({columns}) VALUES ({places})", list(values.values())
        )

    def superseded(self, newer: Mapping[int, Chunk], *, visible: bool) -> list[int]:
        """Return the batches of this selection that lie within a *newer* one; failed ones only unless *visible*."""
        return [
            held.batch
            for held in self.mine()
            if (visible or not held.visible)
            and any(held.batch < batch and chunk.covers(held.chunk) for batch, chunk in newer.items())
        ]

    def forget(self, batches: Sequence[int]) -> None:
        """Remove the ledger rows of *batches* and what is kept beside them."""
        for table in LEDGER_TABLES:
            self._connection.execute(
                f"DELETE FROM {table} WHERE batch IN (SELECT unnest(?))", [list(batches)]
            )

    def forget_all(self) -> None:
        """Remove all that is known of the table."""
        self.forget([held.batch for held in self.batches()])

    def new_batches(self, number: int) -> list[int]:
        """Return *number* batch ids, rising, greater than all before."""
        ids = self._connection.execute(
            "SELECT nextval('_export_batch_ids') FROM range(?)", [number]
        ).fetchall()
        return sorted(int(batch) for (batch,) in ids)


def forget_table(connection: duckdb.DuckDBPyConnection, table: str) -> None:
    """Remove all that is known of a table, if the database has a ledger.

    Raises:
        TableFormatError: a newer release of this program wrote it.
    """
    if table_exists(connection, "_export_batches"):
        check_ledger(connection)
        create_ledger(connection)
        Ledger(connection, table, Selection(""), "UTC").forget_all()


def selection_of(project: str, events: str | None, where: str | None) -> Selection:
    """Return a selection from the columns of the ledger."""
    return Selection(project, None if events is None else tuple(json.loads(events)), where)


def _naive(moment: datetime) -> datetime:
    return moment.astimezone(UTC).replace(tzinfo=None)
