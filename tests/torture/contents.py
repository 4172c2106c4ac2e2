"""The contents of a database file, read over a separate connection."""

import json
from collections import Counter, defaultdict
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import NamedTuple

import duckdb

from mixpanel_export._database.schema import LEDGER_TABLES
from mixpanel_export._local.reader import read_contents
from mixpanel_export.simulator import Row

from .flat import SUFFIX
from .people import TABLE as PEOPLE
from .project import Selection

_COLUMNS = "event_name, event_time, distinct_id, insert_id, properties"
_OTHER_TABLES = frozenset({*LEDGER_TABLES, "_export_targets", "_sync_changes", "_export_snapshots", PEOPLE})


class Entry(NamedTuple):
    """A row of the ledger."""

    batch: int
    table: str
    first: date
    last: date
    status: str
    rows: int
    removed: int
    rejects: int
    repaired: int
    selection: Selection
    dedupe: bool


@dataclass(frozen=True, slots=True)
class Contents:
    """The contents of a file.

    Attributes:
        ledger: The rows of the ledger by batch.
        tables: The rows of each table by batch.
        duplicates: The rows of `_export_duplicates` by batch.
        winners: The batches that the rows of `_export_duplicates` lost to.
        rejects: The number of lines in `_export_rejects` by batch and reason.
        targets: The first and last target day by table and selection.
        missing: The missing days that the status of the file reports, by table and selection.
    """

    ledger: Mapping[int, Entry] = field(default_factory=dict)
    tables: Mapping[str, Mapping[int, Counter[Row]]] = field(default_factory=dict)
    duplicates: Mapping[int, Counter[Row]] = field(default_factory=dict)
    winners: frozenset[int] = frozenset()
    rejects: Mapping[tuple[int, str], int] = field(default_factory=dict)
    targets: Mapping[tuple[str, Selection], tuple[date, date]] = field(default_factory=dict)
    missing: Mapping[tuple[str, Selection], set[date]] = field(default_factory=dict)

    def has(self, person: str) -> bool:
        """Return whether a row has the `distinct_id` *person*."""
        batches = [self.duplicates, *self.tables.values()]
        return any(row.distinct_id == person for batch in batches for rows in batch.values() for row in rows)


def read(db: Path) -> Contents:
    """Return the contents of a file; empty if there is no file, or no export has started in it."""
    if not db.exists() or not db.stat().st_size:
        return Contents()
    with closing(duckdb.connect(str(db))) as connection:
        names = {name for (name,) in connection.execute("SELECT table_name FROM duckdb_tables()").fetchall()}
        if "_export_batches" not in names:
            return Contents()
        winners = connection.execute("SELECT lost_to FROM _export_duplicates").fetchall()
        return Contents(
            _ledger(connection),
            {name: _by_batch(connection, name, "export_batch") for name in names if _has_events(name)},
            _by_batch(connection, "_export_duplicates", "batch"),
            frozenset(batch for (batch,) in winners),
            _rejects(connection),
            _targets(connection),
            _missing(connection),
        )


def _has_events(table: str) -> bool:
    return table not in _OTHER_TABLES and not table.startswith("_flat_") and not table.endswith(SUFFIX)


def _ledger(connection: duckdb.DuckDBPyConnection) -> dict[int, Entry]:
    rows = connection.execute(
        'SELECT batch, table_name, from_date, to_date, status, "rows", removed_duplicates, rejects, repaired, '
        'events, "where", deduped FROM _export_batches'
    ).fetchall()
    entries = [Entry._make([*row, _selection(events, where), dedupe]) for *row, events, where, dedupe in rows]
    ledger = {entry.batch: entry for entry in entries}
    if len(ledger) != len(entries):
        raise AssertionError("two ledger rows have the same batch")
    return ledger


def _by_batch(connection: duckdb.DuckDBPyConnection, table: str, column: str) -> dict[int, Counter[Row]]:
    rows: dict[int, Counter[Row]] = defaultdict(Counter)
    for batch, *row in connection.execute(f'SELECT {column}, {_COLUMNS} FROM "{table}"').fetchall():
        rows[batch][Row(*row)] += 1
    return dict(rows)


def _rejects(connection: duckdb.DuckDBPyConnection) -> dict[tuple[int, str], int]:
    rows = connection.execute("SELECT batch, reason, count(*) FROM _export_rejects GROUP BY ALL").fetchall()
    return {(batch, reason): number for batch, reason, number in rows}


def _targets(connection: duckdb.DuckDBPyConnection) -> dict[tuple[str, Selection], tuple[date, date]]:
    rows = connection.execute(
        'SELECT table_name, events, "where", from_date, to_date FROM _export_targets'
    ).fetchall()
    targets = {
        (table, _selection(events, where)): (first, last) for table, events, where, first, last in rows
    }
    if len(targets) != len(rows):
        raise AssertionError("two rows have the target days of the same table and selection")
    return targets


def _missing(connection: duckdb.DuckDBPyConnection) -> dict[tuple[str, Selection], set[date]]:
    return {
        (coverage.table, (coverage.selection.events, coverage.selection.where)): {
            day.day for day in coverage.days if day.status == "missing"
        }
        for coverage in read_contents(connection).coverages
    }


def _selection(events: str | None, where: str | None) -> Selection:
    return None if events is None else tuple(json.loads(events)), where
