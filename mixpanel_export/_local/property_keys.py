"""Finds unknown property keys in SQL that resemble existing keys. DuckDB returns NULL for unknown keys."""

import re
from collections.abc import Iterator
from dataclasses import dataclass

from mixpanel_export._database.connection import Connection, quoted
from mixpanel_export._database.schema import table_exists, table_names
from mixpanel_export._flat.layout import layout_of
from mixpanel_export._suggestions import closest

_WINDOWS = 10
_WINDOW_ROWS = 1_000  # reading ten windows from a table of two million events takes about 0.03 s

_TEXT = r"'((?:[^']|'')+)'"
_NAMES = re.compile(r'\bproperties\s*\.\s*(?:"((?:[^"]|"")+)"|([A-Za-z_]\w*)\b(?!\s*\())')
_TEXTS = re.compile(
    rf"\bproperties\s*(?:->>?|\[)\s*{_TEXT}|\bjson_\w+\s*\(\s*(?:\w+\.)?properties\s*,\s*{_TEXT}"
)
_PATH = re.compile(r'\$\.(?:"([^"]+)"|(\w+))')


@dataclass(frozen=True, slots=True)
class UnknownKey:
    """A key that does not occur in the sample of rows."""

    key: str
    similar: str
    """The most similar key in the sample."""
    sampled: int | None
    """The number of rows in the sample; None if all rows were read."""


def unknown_keys(connection: Connection, sql: str) -> list[UnknownKey]:
    """Return the unknown keys of `properties` in *sql* that resemble a known key.

    Known keys come from a sample of the events and profiles in the tables that occur in *sql*, and from flat tables.
    """
    keys = dict.fromkeys(_keys_in(sql))
    tables = list(_tables_in(connection, sql))
    if not (keys and tables):
        return []
    sizes = [_size(connection, name) for name in tables]
    known = {
        key for name, size in zip(tables, sizes, strict=True) for key in _known_keys(connection, name, size)
    }
    sample = _WINDOWS * _WINDOW_ROWS
    sampled = None if max(sizes) <= sample else sum(min(size, sample) for size in sizes)
    return [
        UnknownKey(key, similar, sampled)
        for key in keys
        if key not in known and (similar := closest(key, known))
    ]


def is_key(connection: Connection, sql: str, name: str) -> bool:
    """Whether *name* is a property of a table in *sql*. Rare properties of large tables may be unknown."""
    tables = list(_tables_in(connection, sql))
    return any(name in _known_keys(connection, table, _size(connection, table)) for table in tables)


def flat_column(connection: Connection, sql: str, key: str) -> tuple[str, str] | None:
    """Return a flat table of a table in *sql* and its column for *key*; None if there is none."""
    columns = (_flat_columns(connection, table, key) for table in _tables_in(connection, sql))
    return next((some[0] for some in columns if some), None)


def _flat_columns(connection: Connection, table: str, key: str) -> list[tuple[str, str]]:
    """Return the flat tables that have a column for *key*, and the column's name."""
    if not table_exists(connection, "_flat_columns"):
        return []
    return connection.execute(
        "SELECT flat_table, column_name FROM _flat_columns JOIN _flat_tables USING (flat_table) "
        "WHERE source_table = ? AND key = ? AND column_name IS NOT NULL",
        [table, key],
    ).fetchall()


def _tables_in(connection: Connection, sql: str) -> Iterator[str]:
    """Yield the tables of events and profiles whose names occur in *sql*."""
    for name in table_names(connection):
        if re.search(rf"\b{re.escape(name)}\b", sql, re.IGNORECASE) and layout_of(connection, name):
            yield name


def _keys_in(sql: str) -> Iterator[str]:
    """Yield the first key of each access to `properties`."""
    for match in _NAMES.finditer(sql):
        yield match[1].replace('""', '"') if match[1] else match[2]
    for match in _TEXTS.finditer(sql):
        text = (match[1] or match[2]).replace("''", "'")
        path = _PATH.match(text)
        if path:
            yield path[1] or path[2]
        elif not text.startswith(("$", "/")):  # neither a path nor a JSON pointer
            yield text


def _size(connection: Connection, table: str) -> int:
    """Return the table's number of rows, including deleted ones."""
    ((last,),) = connection.execute(f"SELECT max(rowid) FROM {quoted(table)}").fetchall()
    return 0 if last is None else int(last) + 1


def _known_keys(connection: Connection, table: str, size: int) -> set[str]:
    """Return the keys in a sample of the table's rows, and the keys of its flat tables."""
    starts = (
        (0,) if size <= _WINDOWS * _WINDOW_ROWS else (size * window // _WINDOWS for window in range(_WINDOWS))
    )
    rows = size if size <= _WINDOWS * _WINDOW_ROWS else _WINDOW_ROWS
    windows = " OR ".join(f"rowid BETWEEN {start} AND {start + rows - 1}" for start in starts)
    sql = f"SELECT DISTINCT unnest(json_keys(properties)) FROM {quoted(table)} WHERE {windows}"
    known = {key for (key,) in connection.execute(sql).fetchall()}
    if table_exists(connection, "_flat_columns"):
        columns = connection.execute(
            "SELECT key FROM _flat_columns JOIN _flat_tables USING (flat_table) WHERE source_table = ?",
            [table],
        )
        known.update(key for (key,) in columns.fetchall())
    return known
