"""Databases with events that tests choose, and a model of the rows that a flat table of them must have."""

import json
from collections.abc import Iterable, Mapping
from datetime import date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

from mixpanel_export._database.connection import Connection, quoted
from mixpanel_export._database.ledger import Ledger
from mixpanel_export._database.schema import create_events_table, create_ledger
from mixpanel_export._flat.flatten import Request, flatten
from mixpanel_export._model import Batch, Chunk, Selection
from mixpanel_export.results import FlattenResult

SELECTION = Selection("1")
Rows = dict[str, dict[str, Any]]
"""The values by key of each row, by its `insert_id`. `null` is left out."""


class Number(str):
    """The text of a number in JSON."""

    __slots__ = ()


def store(connection: Connection, batch: int, properties: Iterable[str], *, event: str = "Event") -> None:
    """Add a batch whose events have these *properties*, JSON texts. Each `insert_id` contains the batch and the position."""
    rows = list(properties)
    day = Chunk(date(2024, 1, 1), date(2024, 1, 1))
    ids = [f"{batch}-{place}" for place in range(len(rows))]
    create_ledger(connection)
    create_events_table(connection, "events")
    connection.execute(
        "INSERT INTO events SELECT ?, NULL, 'person', unnest(?::VARCHAR[]), unnest(?::VARCHAR[]), ?",
        [event, ids, rows, batch],
    )
    Ledger(connection, "events", SELECTION, "UTC").write(
        [Batch(batch, day, "complete", rows=len(rows), selection=SELECTION, table="events")]
    )


def remove(connection: Connection, batch: int) -> None:
    """Remove a batch, as an export does that replaces it."""
    connection.execute("DELETE FROM events WHERE export_batch = ?", [batch])
    Ledger(connection, "events", SELECTION, "UTC").delete([batch])


def make_flat(connection: Connection, **settings: Any) -> FlattenResult:
    """Make or update the flat table."""
    return flatten(connection, Path(), Request(**settings))


def types(connection: Connection, table: str = "events_flat") -> dict[str, str]:
    """Return the type of each column, without those of the events table."""
    rows = connection.execute(
        "SELECT column_name, data_type FROM duckdb_columns() WHERE table_name = ? ORDER BY column_index",
        [table],
    ).fetchall()
    return dict(rows[5:])


def held(connection: Connection, table: str = "events_flat") -> Rows:
    """Return what a flat table holds, with the values of `_other`."""
    names = dict(
        connection.execute(
            "SELECT column_name, key FROM _flat_columns WHERE flat_table = ?", [table]
        ).fetchall()
    )
    cursor = connection.execute(
        f"SELECT * EXCLUDE (event_name, event_time, distinct_id, export_batch) FROM {quoted(table)}"
    )
    columns = [name for name, *_ in cursor.description or ()]
    rows: Rows = {}
    for insert_id, *values in cursor.fetchall():
        row = dict(zip(columns[1:], values, strict=True))
        other = parsed(row.pop("_other", None) or "{}")
        assert insert_id not in rows
        rows[insert_id] = {names[name]: value for name, value in row.items() if value is not None} | other
    return rows


def sent(batches: Mapping[int, Iterable[str]]) -> Rows:
    """Return what a flat table of these batches must hold."""
    return {
        f"{batch}-{place}": parsed(text)
        for batch, texts in batches.items()
        for place, text in enumerate(texts)
    }


def parsed(text: str) -> dict[str, Any]:
    """Return the values of a JSON object, of equal keys the first, without `null`."""
    pairs = _load(text)
    values: dict[str, Any] = {}
    for key, value in pairs:
        values.setdefault(key, value)
    return {key: value for key, value in values.items() if value is not None}


def equal(rows: Rows, wanted: Rows) -> bool:
    """Whether the rows of a flat table have the values that were sent."""
    return rows.keys() == wanted.keys() and all(
        row.keys() == wanted[name].keys() and all(_equal(row[key], wanted[name][key]) for key in row)
        for name, row in rows.items()
    )


def _equal(value: Any, wanted: Any) -> bool:
    match wanted:
        case Number():
            if isinstance(value, float):
                return Decimal(repr(value)) == Decimal(wanted)
            if isinstance(value, int) and not isinstance(value, bool):
                return str(value) == wanted
            return bool(value == wanted)
        case bool():
            return value is wanted or value == json.dumps(wanted)
        case str():
            return (value.isoformat() if isinstance(value, datetime) else value) == wanted
        case _:
            nested = _load(value) if isinstance(value, str) and not isinstance(value, Number) else value
            return bool(_numbers_as_decimals(nested) == _numbers_as_decimals(wanted))


def _numbers_as_decimals(value: Any) -> Any:
    match value:
        case Number():
            return ("number", Decimal(value))
        case list() | tuple():
            return [_numbers_as_decimals(item) for item in value]
        case _:
            return value


def _load(text: str) -> Any:
    return json.loads(text, parse_float=Number, parse_int=Number, object_pairs_hook=_Pairs)


class _Pairs(list[tuple[str, Any]]):
    """The members of an object, in order, with repeated keys."""
