"""What a database file holds, read over a connection of its own."""

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
from mixpanel_export.simulator import Row

from .world import Selection

_COLUMNS = "event_name, event_time, distinct_id, insert_id, properties"
_OWN = frozenset(LEDGER_TABLES)


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
class File:
    """The ledger, the rows of each table by batch, and what is kept beside them, by batch too."""

    ledger: Mapping[int, Entry] = field(default_factory=dict)
    tables: Mapping[str, Mapping[int, Counter[Row]]] = field(default_factory=dict)
    hidden: Mapping[int, Counter[Row]] = field(default_factory=dict)
    lost_to: frozenset[int] = frozenset()
    set_aside: Mapping[tuple[int, str], int] = field(default_factory=dict)


def read(db: Path) -> File:
    """Return what the file holds; nothing where there is none, or no export has begun in it."""
    if not db.exists() or not db.stat().st_size:
        return File()
    with closing(duckdb.connect(str(db))) as connection:
        found = connection.execute("SELECT table_name FROM duckdb_tables()").fetchall()
        names = {name for (name,) in found}
        if "_export_batches" not in names:
            return File()
        return File(
            _ledger(connection),
            {name: _by_batch(connection, name, "export_batch") for name in names - _OWN},
            _by_batch(connection, "_export_duplicates", "batch"),
            frozenset(
                batch for (batch,) in connection.execute("SELECT lost_to FROM _export_duplicates").fetchall()
            ),
            _set_aside(connection),
        )


def _ledger(connection: duckdb.DuckDBPyConnection) -> dict[int, Entry]:
    found = connection.execute(
        'SELECT batch, table_name, from_date, to_date, status, "rows", removed_duplicates, rejects, repaired, '
        'events, "where", deduped FROM _export_batches'
    ).fetchall()
    entries = [
        Entry._make([*row, (None if events is None else tuple(json.loads(events)), where), dedupe])
        for *row, events, where, dedupe in found
    ]
    ledger = {entry.batch: entry for entry in entries}
    if len(ledger) != len(entries):
        raise AssertionError("two ledger rows have the same batch")
    return ledger


def _by_batch(connection: duckdb.DuckDBPyConnection, table: str, batch: str) -> dict[int, Counter[Row]]:
    rows: dict[int, Counter[Row]] = defaultdict(Counter)
    for number, *row in connection.execute(f'SELECT {batch}, {_COLUMNS} FROM "{table}"').fetchall():
        rows[number][Row(*row)] += 1
    return dict(rows)


def _set_aside(connection: duckdb.DuckDBPyConnection) -> dict[tuple[int, str], int]:
    found = connection.execute("SELECT batch, reason, count(*) FROM _export_rejects GROUP BY ALL").fetchall()
    return {(batch, reason): number for batch, reason, number in found}
