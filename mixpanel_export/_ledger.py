"""The ledger: which batch delivered which days, and the checks that keep table and ledger one.

A row of an events table is visible if and only if the ledger row that its `export_batch` names is `complete`,
`open` or `limited`; both are committed in one transaction.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

import duckdb

from mixpanel_export._database import first_moment, last_moment, quoted, takes_zstd
from mixpanel_export._duplicates import DUPLICATES, Reach
from mixpanel_export._plan import Held, Status
from mixpanel_export._stream import Chunk
from mixpanel_export.errors import LedgerMismatchError, SelectionError, TableFormatError

SCHEMA = 1
"""Version of the tables below, kept as the comment of `_export_batches`."""

_TABLES = (
    """
CREATE SEQUENCE IF NOT EXISTS _export_batch_ids START {start};
CREATE TABLE IF NOT EXISTS _export_batches (
    batch INTEGER, table_name VARCHAR, project VARCHAR, events VARCHAR, "where" VARCHAR,
    from_date DATE, to_date DATE, status VARCHAR, "rows" BIGINT, removed_duplicates BIGINT, rejects BIGINT,
    repaired BIGINT, outside_rows BIGINT, outside_first TIMESTAMP, outside_last TIMESTAMP, timeless_rows BIGINT, bytes BIGINT,
    attempts INTEGER, started TIMESTAMP, finished TIMESTAMP, error VARCHAR, deduped BOOLEAN, timezone VARCHAR
);
CREATE TABLE IF NOT EXISTS _export_rejects (batch INTEGER, reason VARCHAR, line BLOB);
"""
    + DUPLICATES
)
_COLUMNS = {
    "event_name": "VARCHAR",
    "event_time": "TIMESTAMP",
    "distinct_id": "VARCHAR",
    "insert_id": "VARCHAR",
    "properties": "JSON",
    "export_batch": "INTEGER",
}
_METADATA = """
CREATE VIEW _metadata AS
WITH days AS (
    SELECT DISTINCT table_name, unnest(range(from_date::TIMESTAMP, to_date + INTERVAL 1 DAY, INTERVAL 1 DAY)) AS day
    FROM _export_batches WHERE status = 'complete'
), spans AS (
    SELECT table_name, min(day)::DATE AS from_date, max(day)::DATE AS to_date, count(*) AS held
    FROM days GROUP BY table_name
)
SELECT table_name, 'events' AS type, max(finished) AS fetched_at, any_value(spans.from_date) AS from_date,
       any_value(spans.to_date) AS to_date, sum("rows")::BIGINT AS row_count,
       any_value(date_diff('day', spans.from_date, spans.to_date) + 1 - held) AS missing_days
FROM _export_batches LEFT JOIN spans USING (table_name)
WHERE status <> 'failed' AND NOT starts_with(table_name, '_')
GROUP BY table_name
"""

_HERE = "schema_name = 'main' AND database_name = current_database()"  # not in what else may be attached


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
        found = self._connection.execute(
            'SELECT batch, from_date, to_date, status, "rows", project, events, "where" '
            "FROM _export_batches WHERE table_name = ? ORDER BY batch",
            [self._table],
        ).fetchall()
        return [
            Batch(batch, Chunk(first, last), status, rows, _selection(project, events, where))
            for batch, first, last, status, rows, project, events, where in found
        ]

    def mine(self) -> list[Batch]:
        """Return the ledger rows of this selection, oldest first."""
        return [batch for batch in self.batches() if batch.selection == self._selection]

    def check_selection(self, wanted: Chunk, *, limited: bool) -> None:
        """Refuse days that are held under a selection which may share events with this one.

        Raises:
            SelectionError: naming the batch and its selection.
        """
        for held in self.batches():
            if not held.visible or not held.chunk.overlaps(wanted):
                continue
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

    def reaches(self) -> list[Reach]:
        """Return the times that the project's deduplicated batches in the table have events of."""
        found = self._connection.execute(
            f"SELECT batch, {first_moment('from_date', self._zone)}, {last_moment('to_date', self._zone)}, "
            "outside_first, outside_last, timeless_rows FROM _export_batches "
            "WHERE table_name = ? AND project = ? AND status <> 'failed' AND deduped",
            [self._table, self._selection.project],
        ).fetchall()
        return [
            Reach(batch, (first, last), (early, late) if early else None, timeless > 0)
            for batch, first, last, early, late, timeless in found
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

    def superseded(self, chunk: Chunk, batch: int, *, visible: bool) -> list[int]:
        """Return older batches of this selection that lie within *chunk*; failed ones only unless *visible*."""
        return [
            held.batch
            for held in self.mine()
            if held.batch < batch and (visible or not held.visible) and chunk.covers(held.chunk)
        ]

    def forget(self, batches: Sequence[int]) -> None:
        """Remove the ledger rows of *batches*, their rejects, and what they lost to others."""
        for table in ("_export_batches", "_export_rejects", "_export_duplicates"):
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


def create_ledger(connection: duckdb.DuckDBPyConnection) -> None:
    """Create what is missing of the ledger.

    Raises:
        TableFormatError: a newer release of this program wrote the ledger.
    """
    comment = comment_of(connection, "_export_batches")
    if comment is not None:
        version = comment.removeprefix("mixpanel_export ledger ")
        if version != str(SCHEMA):
            raise TableFormatError(
                f"the ledger of this database has version {version}, and this release knows {SCHEMA}; update mpx-export",
                table_name="_export_batches",
            )
    connection.execute(_TABLES.format(start=_next_batch(connection)))
    connection.execute(f"COMMENT ON TABLE _export_batches IS 'mixpanel_export ledger {SCHEMA}'")
    if not table_exists(connection, "_metadata"):
        connection.execute(_METADATA)


def _next_batch(connection: duckdb.DuckDBPyConnection) -> int:
    """Return where the batch ids go on if somebody has dropped their sequence."""
    if not table_exists(connection, "_export_batches"):
        return 1
    found = connection.execute("SELECT coalesce(max(batch), 0) + 1 FROM _export_batches").fetchone()
    return int(found[0]) if found else 1


def table_exists(connection: duckdb.DuckDBPyConnection, table: str) -> bool:
    """Whether the main schema has a table or view of that name, in any case of letters."""
    found = connection.execute(
        f"SELECT count(*) FROM (SELECT table_name, schema_name, database_name FROM duckdb_tables() UNION ALL "
        f"SELECT view_name, schema_name, database_name FROM duckdb_views()) WHERE lower(table_name) = lower(?) AND {_HERE}",
        [table],
    ).fetchone()
    return bool(found and found[0])


def check_no_view(connection: duckdb.DuckDBPyConnection, table: str) -> None:
    """Refuse a name that is a view's.

    Raises:
        TableFormatError: saying so.
    """
    found = connection.execute(
        f"SELECT count(*) FROM duckdb_views() WHERE lower(view_name) = lower(?) AND {_HERE}",
        [table],
    ).fetchone()
    if found and found[0]:
        raise TableFormatError(f"{table} is a view; export into another table, or drop it", table_name=table)


def create_events_table(connection: duckdb.DuckDBPyConnection, table: str) -> None:
    """Create the events table if it is not there."""
    compressed = " USING COMPRESSION zstd" if takes_zstd(connection) else ""
    columns = ", ".join(
        f"{name} {kind}{compressed if name == 'properties' else ''}" for name, kind in _COLUMNS.items()
    )
    connection.execute(f"CREATE TABLE IF NOT EXISTS {quoted(table)} ({columns})")


def forget_foreign_metadata(connection: duckdb.DuckDBPyConnection, table: str) -> None:
    """Remove what mixpanel_data's own `_metadata` table, if the file has one, says of a table that is no more."""
    found = connection.execute(
        "SELECT count(*) FROM duckdb_columns() WHERE table_name = '_metadata' AND column_name = 'table_name' AND "
        f"{_HERE} AND table_name IN (SELECT table_name FROM duckdb_tables() WHERE {_HERE})"
    ).fetchone()
    if found and found[0]:
        connection.execute("DELETE FROM _metadata WHERE table_name = ?", [table])


def check_format(connection: duckdb.DuckDBPyConnection, table: str, *, replacing: bool = False) -> None:
    """Refuse a table that this program did not make; mixpanel_data's may be replaced.

    Raises:
        TableFormatError: saying whose the table looks like.
    """
    found = connection.execute(
        f"SELECT column_name, data_type FROM duckdb_columns() WHERE table_name = ? AND {_HERE} ORDER BY column_index",
        [table],
    ).fetchall()
    if found == list(_COLUMNS.items()):
        return
    names = {name for name, _ in found}
    if not {"event_name", "event_time", "distinct_id", "insert_id", "properties"} <= names:
        raise TableFormatError(
            f"table {table} has other columns than an export's; export into another table, or drop it",
            table_name=table,
        )
    if not replacing:
        raise TableFormatError(
            f"table {table} was made by mixpanel_data, so nothing can be added to it; export into another table, "
            "or replace it",
            table_name=table,
        )


def name_in_database(connection: duckdb.DuckDBPyConnection, table: str) -> str:
    """Return the table's name as the database spells it, since DuckDB does not tell cases apart."""
    found = connection.execute(
        f"SELECT table_name FROM duckdb_tables() WHERE lower(table_name) = lower(?) AND {_HERE}", [table]
    ).fetchone()
    return str(found[0]) if found else table


def comment_of(connection: duckdb.DuckDBPyConnection, table: str) -> str | None:
    """Return the comment of a table, None where it has none or is not there."""
    found = connection.execute(
        f"SELECT comment FROM duckdb_tables() WHERE table_name = ? AND {_HERE}", [table]
    ).fetchone()
    return found[0] if found else None


def _selection(project: str, events: str | None, where: str | None) -> Selection:
    return Selection(project, None if events is None else tuple(json.loads(events)), where)


def _naive(moment: datetime) -> datetime:
    return moment.astimezone(UTC).replace(tzinfo=None)
