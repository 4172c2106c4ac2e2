"""The properties of events, with the number and the types of their values.

A flat table has this information for every event. If there is none, only a sample of the events is counted, because
the text of each event must be parsed.
"""

from mixpanel_export._database.connection import Connection, quoted
from mixpanel_export._flat.state import FlatTable, flat_tables
from mixpanel_export._report.model import Properties, Property

SAMPLE = 20_000
"""The approximate size of the sample, in events. Smaller tables are counted completely."""

_MAX_PROPERTIES = 150  # the maximum number of properties to show

_TYPES = {
    "BOOLEAN": "boolean",
    "UBIGINT": "integer",
    "BIGINT": "integer",
    "HUGEINT": "integer",
    "DOUBLE": "number",
    "VARCHAR": "text",
    "ARRAY": "list",
    "OBJECT": "object",
}
"""The words for DuckDB's JSON types, as `json_each` returns them."""


def read_properties(connection: Connection, table: str, events: int) -> Properties:
    """Return the properties of a table. *events* is its number of events."""
    flat = _best(flat_tables(connection, table))
    return _from_flat(connection, flat, events) if flat else _from_sample(connection, table, events)


def _best(tables: list[FlatTable]) -> FlatTable | None:
    """Return the most complete flat table, preferably one with all properties and all events."""
    return min(tables, key=_restrictions, default=None)


def _restrictions(flat: FlatTable) -> int:
    return (flat.only is not None) + (flat.events is not None)


def _from_flat(connection: Connection, flat: FlatTable, total: int) -> Properties:
    ((events,),) = connection.execute(f"SELECT count(*) FROM {quoted(flat.name)}").fetchall()
    rows = connection.execute(
        "SELECT key, type, value_count, count(*) OVER () FROM _flat_columns WHERE flat_table = ? "
        f"ORDER BY value_count DESC, key LIMIT {_MAX_PROPERTIES}",
        [flat.name],
    ).fetchall()
    return Properties(
        rows=tuple(Property(key, kind, values, _share(values, events)) for key, kind, values, _ in rows),
        others=rows[0][3] - len(rows) if rows else 0,
        events=events,
        flat_table=flat.name,
        is_restricted=_restrictions(flat) > 0,
        total_events=total,
    )


def _from_sample(connection: Connection, table: str, total: int) -> Properties:
    every = -(-total // SAMPLE) or 1
    sample = f"(SELECT rowid, properties FROM {quoted(table)} WHERE rowid % {every} = 0)"
    ((events,),) = connection.execute(f"SELECT count(*) FROM {sample}").fetchall()
    rows = connection.execute(
        "SELECT key, list_sort(list_distinct(list(type) FILTER (type <> 'NULL'))), count(DISTINCT events.rowid) FILTER (type <> 'NULL') AS n, "
        f"count(*) OVER () FROM {sample} AS events, json_each(events.properties) GROUP BY key ORDER BY n DESC, key LIMIT {_MAX_PROPERTIES}"
    ).fetchall()
    return Properties(
        rows=tuple(
            Property(key, _type_words(types), values, _share(values, events))
            for key, types, values, _ in rows
        ),
        others=rows[0][3] - len(rows) if rows else 0,
        events=events,
        flat_table=None,
        total_events=total,
    )


def _type_words(types: list[str] | None) -> str:
    """Return the names of JSON types, such as `integer or text`."""
    names = dict.fromkeys(_TYPES.get(name, name.lower()) for name in types or [])
    return " or ".join(names) or "null"


def _share(values: int, events: int) -> float:
    return values / events if events else 0.0
