"""The table that is published: its columns, and the version, content and rows of each day."""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from glob import escape
from pathlib import Path

from mixpanel_export._database.connection import Connection, first_row, quoted
from mixpanel_export._database.publications import Day
from mixpanel_export._database.schema import (
    EVENT_COLUMNS,
    columns_of,
    has_export_columns,
    has_profile_columns,
    is_table,
    name_in_database,
    table_exists,
    table_names,
)
from mixpanel_export._flat.state import FlatTable, flat_tables
from mixpanel_export._suggestions import did_you_mean
from mixpanel_export.errors import TableFormatError, TableNotFoundError

PARTITION = "date"
"""The column that readers take from the names of the folders."""

_BATCH = "export_batch"
_VERSIONS = """
SELECT day, sum(size)::BIGINT, md5(string_agg(concat_ws(':', {batch}, revision, size), ',' ORDER BY {batch}))
FROM (SELECT event_time::DATE AS day, {batch}, count(*) AS size FROM {table} GROUP BY ALL)
LEFT JOIN (SELECT batch AS {batch}, coalesce(revision, 0) AS revision FROM {states}) USING ({batch})
GROUP BY day
"""


@dataclass(frozen=True, slots=True)
class DayVersion:
    """The version of a day in the table. If two versions are equal, so are the rows."""

    rows: int
    version: str
    """A hash of the batches that have rows on this day: the number, the row count and the revision of each.

    Rows that an export adds have a new batch number. Every other change by this package raises the revision.
    """


@dataclass(frozen=True, slots=True)
class Source:
    """A table that can be published."""

    table: str
    columns: tuple[tuple[str, str], ...]
    """The name and type of each column that is published."""
    flat: FlatTable | None

    @property
    def schema(self) -> str:
        """The columns of the data set and the settings of a flat table, as JSON. If they change, every day is rewritten."""
        settings = [self.flat.only, self.flat.events] if self.flat else []
        return json.dumps([*map(list, self.columns), *settings], ensure_ascii=False)

    def versions(self, connection: Connection) -> dict[Day, DayVersion]:
        """Return the version of each day that has rows."""
        states = f"_export_batches WHERE table_name = {_literal(self.table)}"
        if self.flat:
            states = f"_flat_batches WHERE flat_table = {_literal(self.table)}"
        rows = connection.execute(
            _VERSIONS.format(table=quoted(self.table), batch=_BATCH, states=states)
        ).fetchall()
        return {day: DayVersion(count, version) for day, count, version in rows}

    def has_days(self, connection: Connection) -> bool:
        """Whether each time is NULL or in the years 1 to 9999. Exports never write other times, but a user's SQL can."""
        query = f"SELECT 1 FROM {quoted(self.table)} WHERE NOT ({_between(date.min, date.max)}) LIMIT 1"
        return first_row(connection, query) is None

    def contents(self, connection: Connection, days: Sequence[Day]) -> dict[Day, str]:
        """Return a hash of each day's rows. The order of the rows does not change the hash. *days* must be in order."""
        dates = [day for day in days if day is not None]
        times = ["event_time IS NULL"] if None in days else []
        if dates:
            listed = ", ".join(f"DATE '{day}'" for day in dates)
            # The range lets DuckDB skip row groups.
            times.append(f"({_between(dates[0], dates[-1])} AND event_time::DATE IN ({listed}))")
        names = [name for name, _ in self.columns]
        rows = connection.execute(
            f"SELECT event_time::DATE, {_content(names)} FROM {quoted(self.table)} WHERE {' OR '.join(times)} GROUP BY 1"
        ).fetchall()
        return dict(rows)


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
        TableFormatError: The table is neither an exported table of events nor a flat one.
    """
    name = name_in_database(connection, table)
    flats = {flat.name: flat for flat in flat_tables(connection)}
    if not table_exists(connection, name):
        names = list(_publishable(connection, flats))
        listed = f"choose one of these: {', '.join(names)}" if names else "export it first"
        raise TableNotFoundError(name, advice=did_you_mean(name, names) + listed)
    _check_kind(connection, name, flats[name].source if name in flats else name)
    if name in flats:
        columns = [column for column in columns_of(connection, name) if column[0] != _BATCH]
        return Source(name, tuple(columns), flats[name])
    if not has_export_columns(connection, name) or not table_exists(connection, "_export_batches"):
        raise TableFormatError(
            name,
            f"table {name} does not have the columns of an exported table",
            advice="run `mpx upgrade` if mixpanel_data wrote it",
        )
    return Source(name, tuple(EVENT_COLUMNS.items()), None)


def _check_kind(connection: Connection, name: str, source: str) -> None:
    """Check that *name* is a table, not a view, and that it contains events, not profiles.

    *source* is the table that a flat table was created from. For other tables, it equals *name*.
    """
    if not is_table(connection, name):
        raise TableFormatError(
            name,
            f"{name} is a view, and only tables can be published",
            advice="publish the table that the view reads",
        )
    if has_profile_columns(connection, source):
        raise TableFormatError(
            name, f"table {name} has profiles, which have no days", advice="publish a table of events"
        )


def _publishable(connection: Connection, flats: Mapping[str, FlatTable]) -> Iterator[str]:
    for name in table_names(connection):
        source = flats[name].source if name in flats else name
        if not name.startswith("_") and has_export_columns(connection, source):
            yield name


def on_day(day: Day) -> str:
    """Return an SQL condition for the rows of a day."""
    return "event_time IS NULL" if day is None else _between(day, day)


def _between(first: date, last: date) -> str:
    """Return an SQL condition for the times of some days. Unlike a cast to a date, it lets DuckDB skip row groups."""
    return f"event_time BETWEEN TIMESTAMP '{first}' AND TIMESTAMP '{last} 23:59:59.999999'"


def _literal(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"
