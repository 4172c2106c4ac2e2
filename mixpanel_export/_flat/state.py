"""The state of each flat table, in the tables `_flat_tables`, `_flat_columns`, `_flat_batches` and `_flat_views`."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from mixpanel_export._database.catalog import IN_MAIN
from mixpanel_export._database.connection import Connection, quoted
from mixpanel_export._database.ledger import read_batches
from mixpanel_export._database.schema import comment_of, table_exists
from mixpanel_export._flat.columns import BatchState, Column
from mixpanel_export._flat.kinds import Kind
from mixpanel_export._flat.layout import PROFILES, layout_of

COMMENT = "flat table of mixpanel_export"
"""The comment on every flat table and view of this package. A table without it is the user's own."""

_TABLES = {
    "_flat_tables": "flat_table VARCHAR, source_table VARCHAR, only_keys VARCHAR, only_events VARCHAR, "
    "per_event BOOLEAN, auto BOOLEAN",
    "_flat_columns": "flat_table VARCHAR, key VARCHAR, column_name VARCHAR, type VARCHAR, value_count BIGINT, "
    "first_batch INTEGER, last_batch INTEGER, widened_by INTEGER[], kinds INTEGER, position INTEGER",
    "_flat_batches": "flat_table VARCHAR, batch INTEGER, revision INTEGER, source_rows BIGINT",
    "_flat_views": "flat_table VARCHAR, event_name VARCHAR, view_name VARCHAR",
}


@dataclass(frozen=True, slots=True)
class FlatTable:
    """A flat table and its settings."""

    name: str
    source: str
    """The table of events or profiles."""
    only: tuple[str, ...] | None = None
    """The keys that may become columns; None for all."""
    events: tuple[str, ...] | None = None
    """The event names that the flat table includes; None for all."""
    per_event: bool = False
    """Whether each event name has a view."""
    auto: bool = False
    """Whether each export into the source table updates the flat table."""


def create_state(connection: Connection) -> None:
    """Create the tables that do not exist yet."""
    for table, columns in _TABLES.items():
        connection.execute(f"CREATE TABLE IF NOT EXISTS {table} ({columns})")


def flat_tables(connection: Connection, source: str | None = None) -> list[FlatTable]:
    """Return the flat tables of the table *source*, or all flat tables, ordered by name."""
    if not table_exists(connection, "_flat_tables"):
        return []
    rows = connection.execute(
        "SELECT flat_table, source_table, only_keys, only_events, per_event, auto FROM _flat_tables "
        "WHERE lower(source_table) = lower(coalesce(?, source_table)) ORDER BY flat_table",
        [source],
    ).fetchall()
    return [
        FlatTable(name, table, _names(only), _names(events), per_event, auto)
        for name, table, only, events, per_event, auto in rows
        if comment_of(connection, name) == COMMENT
    ]


def outdated_flat_tables(connection: Connection) -> list[FlatTable]:
    """Return the flat tables that an update would change. For events, only the ledger is read."""
    return [
        flat
        for flat in flat_tables(connection)
        if table_exists(connection, flat.source) and _is_outdated(connection, flat)
    ]


def _is_outdated(connection: Connection, flat: FlatTable) -> bool:
    states = read_batch_states(connection, flat.name)
    if layout_of(connection, flat.source) is PROFILES:
        return PROFILES.batch_states(connection, flat.source) != states
    before = {batch: state.revision for batch, state in states.items()}
    now = {
        batch.number: batch.revision
        for batch in read_batches(connection, flat.source)
        if batch.visible and (batch.rows or batch.number in before)
    }
    return now != before


def write_table(connection: Connection, flat: FlatTable) -> None:
    """Store the settings of a flat table."""
    connection.execute("DELETE FROM _flat_tables WHERE flat_table = ?", [flat.name])
    connection.execute(
        "INSERT INTO _flat_tables VALUES (?, ?, ?, ?, ?, ?)",
        [flat.name, flat.source, _json(flat.only), _json(flat.events), flat.per_event, flat.auto],
    )


def read_columns(connection: Connection, flat: str) -> list[Column]:
    """Return the property columns of a flat table, in the order in which they were added."""
    rows = connection.execute(
        "SELECT key, column_name, kinds, value_count, first_batch, last_batch, widened_by FROM _flat_columns "
        "WHERE flat_table = ? ORDER BY position",
        [flat],
    ).fetchall()
    return [
        Column(key, name, Kind(kinds), values, first, last, tuple(widened))
        for key, name, kinds, values, first, last, widened in rows
    ]


def write_columns(connection: Connection, flat: str, columns: Sequence[Column]) -> None:
    """Replace the stored state of the columns."""
    connection.execute("DELETE FROM _flat_columns WHERE flat_table = ?", [flat])
    rows = [
        (
            column.key,
            column.name,
            column.type,
            column.values,
            column.first_batch,
            column.last_batch,
            list(column.widened_by),
            int(column.kinds),
            position,
        )
        for position, column in enumerate(columns)
    ]
    kinds = (
        "VARCHAR",
        "VARCHAR",
        "VARCHAR",
        "BIGINT",
        "INTEGER",
        "INTEGER",
        "INTEGER[]",
        "INTEGER",
        "INTEGER",
    )
    items = ", ".join(f"unnest(?::{kind}[])" for kind in kinds)
    values = [[row[index] for row in rows] for index in range(len(kinds))]
    connection.execute(f"INSERT INTO _flat_columns SELECT ?, {items}", [flat, *values])


def read_batch_states(connection: Connection, flat: str) -> dict[int, BatchState]:
    """Return the state that each batch had when it was read into the flat table."""
    rows = connection.execute(
        "SELECT batch, revision, source_rows FROM _flat_batches WHERE flat_table = ?", [flat]
    ).fetchall()
    return {batch: BatchState(revision, count) for batch, revision, count in rows}


def write_batch_states(
    connection: Connection, flat: str, removed: Iterable[int], states: Mapping[int, BatchState]
) -> None:
    """Delete the states of the batches in *removed* and replace the states of the batches in *states*."""
    connection.execute(
        "DELETE FROM _flat_batches WHERE flat_table = ? AND batch IN (SELECT unnest(?::INTEGER[]))",
        [flat, [*removed, *states]],
    )
    connection.execute(
        "INSERT INTO _flat_batches SELECT ?, unnest(?::INTEGER[]), unnest(?::INTEGER[]), unnest(?::BIGINT[])",
        [
            flat,
            list(states),
            [state.revision for state in states.values()],
            [state.source_rows for state in states.values()],
        ],
    )


def drop_flat_tables(connection: Connection, table: str) -> None:
    """Drop the flat tables of the source table *table*, or the flat table *table* itself, with their views and state."""
    for flat in flat_tables(connection):
        if table.lower() in {flat.name.lower(), flat.source.lower()}:
            drop_flat_table(connection, flat.name)


def drop_flat_table(connection: Connection, flat: str) -> None:
    """Drop a flat table, its views, and its state. Call it in a transaction."""
    drop_views(connection, flat)
    connection.execute(f"DROP TABLE IF EXISTS {quoted(flat)}")
    for table in _TABLES:
        connection.execute(f"DELETE FROM {table} WHERE flat_table = ?", [flat])


def drop_views(connection: Connection, flat: str) -> None:
    """Drop the views of a flat table. The user's own views with the same names are kept."""
    for view in read_views(connection, flat).values():
        if is_our_view(connection, view):
            connection.execute(f"DROP VIEW {quoted(view)}")
    write_views(connection, flat, {})


def read_views(connection: Connection, flat: str) -> dict[str, str]:
    """Return the view name for each event name."""
    rows = connection.execute(
        "SELECT event_name, view_name FROM _flat_views WHERE flat_table = ? ORDER BY event_name", [flat]
    ).fetchall()
    return dict(rows)


def write_views(connection: Connection, flat: str, views: Mapping[str, str]) -> None:
    """Replace the stored names of the views."""
    connection.execute("DELETE FROM _flat_views WHERE flat_table = ?", [flat])
    connection.execute(
        "INSERT INTO _flat_views SELECT ?, unnest(?::VARCHAR[]), unnest(?::VARCHAR[])",
        [flat, list(views.keys()), list(views.values())],
    )


def is_our_view(connection: Connection, view: str) -> bool:
    """Whether there is a view with this name and this package's comment."""
    rows = connection.execute(
        f"SELECT comment FROM duckdb_views() WHERE view_name = ? AND {IN_MAIN}", [view]
    ).fetchall()
    return rows == [(COMMENT,)]


def _json(names: tuple[str, ...] | None) -> str | None:
    return None if names is None else json.dumps(names, ensure_ascii=False)


def _names(text: str | None) -> tuple[str, ...] | None:
    return None if text is None else tuple(json.loads(text))
