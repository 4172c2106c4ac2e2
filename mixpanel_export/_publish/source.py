"""The table that is published: its columns, and the version, content and rows of each part."""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from glob import escape
from pathlib import Path

from mixpanel_export._database.connection import Connection, first_row, quoted
from mixpanel_export._database.publications import Day
from mixpanel_export._database.schema import (
    EVENT_COLUMNS,
    PROFILE_COLUMNS,
    columns_of,
    has_export_columns,
    has_profile_columns,
    is_table,
    name_in_database,
    table_exists,
    table_names,
)
from mixpanel_export._flat.layout import PROFILES
from mixpanel_export._flat.state import FlatTable, flat_tables
from mixpanel_export._publish.parts import BY_DAY, WHOLE, Parts
from mixpanel_export._suggestions import did_you_mean
from mixpanel_export.errors import TableFormatError, TableNotFoundError

_BATCH = "export_batch"
_VERSIONS = """
SELECT day, sum(size)::BIGINT, md5(string_agg(concat_ws(':', {batch}, revision, size), ',' ORDER BY {batch}))
FROM (SELECT {day} AS day, {batch}, count(*) AS size FROM {table} GROUP BY ALL)
LEFT JOIN (SELECT batch AS {batch}, coalesce({revision}, 0) AS revision FROM {states}) USING ({batch})
GROUP BY day
"""
_NO_ROWS = "0"  # the content of a part without rows


@dataclass(frozen=True, slots=True)
class DayVersion:
    """The version of a part of the table. If two versions are equal, so are the rows."""

    rows: int
    version: str
    """A hash of the batches that have rows in this part: the number, the row count and the revision of each.

    Rows that an export adds have a new batch number. Every other change by this package raises the revision, or only
    deletes rows.
    """


@dataclass(frozen=True, slots=True)
class Source:
    """A table that can be published."""

    table: str
    columns: tuple[tuple[str, str], ...]
    """The name and type of each column that is published."""
    parts: Parts
    flat: FlatTable | None

    @property
    def schema(self) -> str:
        """The columns of the data set and the settings of a flat table, as JSON. If they change, every part is rewritten."""
        settings = [self.flat.only, self.flat.events] if self.flat else []
        return json.dumps([*map(list, self.columns), *settings], ensure_ascii=False)

    def versions(self, connection: Connection) -> dict[Day, DayVersion]:
        """Return the version of each part that has rows, or that always has a file."""
        if self.flat:
            states, name, revision = "_flat_batches", "flat_table", "revision"
        elif self.parts is WHOLE:
            states, name, revision = "_export_snapshots", "table_name", "0"  # rows are only added and deleted
        else:
            states, name, revision = "_export_batches", "table_name", "revision"
        query = _VERSIONS.format(
            day=self.parts.key,
            batch=_BATCH,
            table=quoted(self.table),
            revision=revision,
            states=f"{states} WHERE {name} = {_literal(self.table)}",
        )
        rows = connection.execute(query).fetchall()
        empty = dict.fromkeys(self.parts.always, DayVersion(0, ""))
        return empty | {day: DayVersion(count, version) for day, count, version in rows}

    def has_parts(self, connection: Connection) -> bool:
        """Whether each row belongs to a part."""
        query = f"SELECT 1 FROM {quoted(self.table)} WHERE {self.parts.outside} LIMIT 1"
        return first_row(connection, query) is None

    def contents(self, connection: Connection, days: Sequence[Day]) -> dict[Day, str]:
        """Return a hash of each part's rows. The order of the rows does not change the hash. *days* must be in order."""
        names = [name for name, _ in self.columns]
        rows = connection.execute(
            f"SELECT {self.parts.key}, {_content(names)} FROM {quoted(self.table)} "
            f"WHERE {self.parts.condition(days)} GROUP BY 1"
        ).fetchall()
        return dict.fromkeys(days, _NO_ROWS) | dict(rows)


def content_of_file(connection: Connection, columns: Iterable[str], file: Path) -> str:
    """Return the same hash as `Source.contents`, for the rows in a Parquet file."""
    row = first_row(
        connection,
        f"SELECT {_content(columns)} FROM read_parquet({_literal(escape(str(file)))}, hive_partitioning = false)",
    )
    return str(row[0]) if row else ""


def _content(columns: Iterable[str]) -> str:
    """Return SQL for the number of rows and the sum of their 64-bit hashes."""
    return f"concat_ws(':', count(*), sum(hash({', '.join(map(quoted, columns))})))"


def find_source(connection: Connection, table: str) -> Source:
    """Return the exported or flat table with this name.

    Raises:
        TableNotFoundError: There is no such table.
        TableFormatError: The table is neither an exported table nor a flat one.
    """
    name = name_in_database(connection, table)
    flats = {flat.name: flat for flat in flat_tables(connection)}
    if not table_exists(connection, name):
        names = list(_publishable(connection, flats))
        listed = f"choose one of these: {', '.join(names)}" if names else "export it first"
        raise TableNotFoundError(name, advice=did_you_mean(name, names) + listed)
    if not is_table(connection, name):
        raise TableFormatError(
            name,
            f"{name} is a view, and only tables can be published",
            advice="publish the table that the view reads",
        )
    if name in flats:
        return _flat_source(connection, flats[name])
    if has_export_columns(connection, name) and table_exists(connection, "_export_batches"):
        return Source(name, tuple(EVENT_COLUMNS.items()), BY_DAY, None)
    if has_profile_columns(connection, name) and table_exists(connection, "_export_snapshots"):
        return Source(name, _without_batch(PROFILE_COLUMNS.items()), WHOLE, None)
    raise TableFormatError(
        name,
        f"table {name} does not have the columns of an exported table",
        advice="run `mpx upgrade` if mixpanel_data wrote it",
    )


def _flat_source(connection: Connection, flat: FlatTable) -> Source:
    columns = columns_of(connection, flat.name)
    # A property may have the name of a column of events, so the first columns decide.
    has_profiles = columns[: len(PROFILES.columns)] == list(PROFILES.columns.items())
    return Source(flat.name, _without_batch(columns), WHOLE if has_profiles else BY_DAY, flat)


def _without_batch(columns: Iterable[tuple[str, str]]) -> tuple[tuple[str, str], ...]:
    return tuple((name, kind) for name, kind in columns if name != _BATCH)


def _publishable(connection: Connection, flats: Mapping[str, FlatTable]) -> Iterator[str]:
    for name in table_names(connection):
        exported = has_export_columns(connection, name) or has_profile_columns(connection, name)
        if not name.startswith("_") and (name in flats or exported):
            yield name


def _literal(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"
