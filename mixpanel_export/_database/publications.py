"""The state of publications, in the tables `_publications` and `_published_days`.

A publication is a data set, stored outside the DuckDB file, that is kept in step with a table. It is identified by its
destination, a folder or a URL.
"""

from collections.abc import Iterable, Mapping
from dataclasses import astuple, dataclass
from datetime import date, datetime

from mixpanel_export._database.connection import Connection, transaction
from mixpanel_export._database.schema import table_exists

_TABLES = {
    "_publications": 'destination VARCHAR, table_name VARCHAR, format VARCHAR, "schema" VARCHAR, published_at TIMESTAMP, '
    "owner VARCHAR",
    "_published_days": 'destination VARCHAR, "day" DATE, version VARCHAR, "rows" BIGINT, content VARCHAR, file VARCHAR, '
    "size BIGINT, stamp VARCHAR",
}

Day = date | None
"""A UTC day of `event_time`; None for rows without a time, and for all rows of a table without days."""


@dataclass(frozen=True, slots=True)
class Publication:
    """A data set and the table it is a copy of."""

    destination: str
    table: str
    format: str
    schema: str
    """The columns of the data set, and the settings that its rows depend on, as JSON."""
    published_at: datetime | None = None
    """When the data set last matched the table, in naive UTC; None if it has never matched the table."""
    owner: str | None = None
    """The random id of this publication, which its files have as well."""


@dataclass(frozen=True, slots=True)
class PublishedDay:
    """A part of a data set, as it was last written."""

    version: str
    """The version of this day in the table; see `_publish/source.py`."""
    rows: int
    content_hash: str
    """A hash of the rows that does not depend on their order."""
    file: str
    """The path of the file, relative to the destination."""
    size: int
    """In bytes."""
    stamp: str
    """A string that changes if another program writes to the file."""


def create_publications(connection: Connection) -> None:
    """Create the tables that are missing."""
    for table, columns in _TABLES.items():
        connection.execute(f"CREATE TABLE IF NOT EXISTS {table} ({columns})")
    connection.execute("ALTER TABLE _publications ADD COLUMN IF NOT EXISTS owner VARCHAR")


def read_publications(connection: Connection) -> list[Publication]:
    """Return all publications of the database, ordered by destination."""
    if not table_exists(connection, "_publications"):
        return []
    # The column `owner` may be missing.
    rows = connection.execute("FROM _publications ORDER BY destination").fetchall()
    return [Publication(*row) for row in rows]


def read_days(connection: Connection, destination: str) -> dict[Day, PublishedDay]:
    """Return the published days of a destination."""
    if not table_exists(connection, "_published_days"):
        return {}
    rows = connection.execute(
        'SELECT day, version, "rows", content, file, size, stamp FROM _published_days WHERE destination = ?',
        [destination],
    ).fetchall()
    return {day: PublishedDay(*values) for day, *values in rows}


def start_publication(connection: Connection, publication: Publication, *, keep_days: bool) -> None:
    """Store the publication before its first file is written.

    If *keep_days* is false, the stored days are deleted, so that every day is written again.
    """
    with transaction(connection):
        connection.execute("DELETE FROM _publications WHERE destination = ?", [publication.destination])
        connection.execute(
            "INSERT INTO _publications VALUES (?, ?, ?, ?, ?, ?)",
            astuple(publication),
        )
        if not keep_days:
            connection.execute("DELETE FROM _published_days WHERE destination = ?", [publication.destination])


def record_days(
    connection: Connection,
    destination: str,
    written: Mapping[Day, PublishedDay],
    removed: Iterable[Day] = (),
    *,
    published_at: datetime | None = None,
) -> None:
    """Replace the stored state of each day in *written*, and delete the state of each day in *removed*.

    *published_at* is the time at which the data set matches the table; None if it does not.
    """
    with transaction(connection):
        for day in (*written, *removed):
            connection.execute(
                "DELETE FROM _published_days WHERE destination = ? AND day IS NOT DISTINCT FROM ?",
                [destination, day],
            )
        for day, state in written.items():
            connection.execute(
                "INSERT INTO _published_days VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                [
                    destination,
                    day,
                    state.version,
                    state.rows,
                    state.content_hash,
                    state.file,
                    state.size,
                    state.stamp,
                ],
            )
        if published_at is not None:
            connection.execute(
                "UPDATE _publications SET published_at = ? WHERE destination = ?", [published_at, destination]
            )
