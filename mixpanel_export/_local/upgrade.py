"""Converts mixpanel_data's tables of events and profiles in one transaction. Every row is kept.

Each table is copied without its constraints, and then replaced with the copy. If anything fails, the file is unchanged.

The days in the old `_metadata` become batches with the status `imported`. Nothing proves that they are complete,
because mixpanel_data accepted truncated responses and recorded neither filters nor gaps. Interrupted mixpanel_data
exports left rows on other days. These days become separate imported batches. A table of profiles becomes one snapshot.
"""

from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import duckdb

from mixpanel_export._database.catalog import IN_MAIN
from mixpanel_export._database.connection import (
    Connection,
    advice_on,
    connected_for_export,
    quoted,
    transaction,
)
from mixpanel_export._database.coverage import join_days
from mixpanel_export._database.ledger import UNKNOWN_PROJECT, Ledger
from mixpanel_export._database.path import check_exists, database_path
from mixpanel_export._database.schema import (
    PROFILES,
    check_ledger,
    columns_of,
    create_events_table,
    create_ledger,
    delete_foreign_metadata,
    is_table,
    table_exists,
)
from mixpanel_export._local.upgrade_profiles import convert_profiles, old_profile_tables
from mixpanel_export._model import Batch, Chunk, Selection
from mixpanel_export._timezones import naive_utc
from mixpanel_export._tracebacks import short_tracebacks
from mixpanel_export.errors import DatabaseError
from mixpanel_export.inspection import UpgradedTable, UpgradeResult

_COLUMNS = [
    ("event_name", "VARCHAR"),
    ("event_time", "TIMESTAMP"),
    ("distinct_id", "VARCHAR"),
    ("insert_id", "VARCHAR"),
    ("properties", "JSON"),
]
_NEW = "_export_upgrade_"
_UNKNOWN = Selection(UNKNOWN_PROJECT)
_EAST, _WEST = 14, 12  # the largest offsets from UTC in hours


@dataclass(frozen=True, slots=True)
class _Metadata:
    """A table's row in the old `_metadata`. The days are in the project's time zone, which is not recorded."""

    fetched_at: datetime
    days: Chunk | None

    @property
    def day(self) -> str:
        """SQL for a row's day."""
        # Times that Python cannot represent, such as infinity, are treated as 1970-01-01.
        own = "CASE WHEN year(event_time) BETWEEN 1 AND 9999 THEN event_time::DATE ELSE DATE '1970-01-01' END"
        if self.days is None:
            return own
        first, last = f"DATE '{self.days.first}'", f"DATE '{self.days.last}'"
        return (
            f"CASE WHEN event_time >= {first}::TIMESTAMP - INTERVAL {_EAST} HOUR "
            f"AND event_time < ({last} + 1)::TIMESTAMP + INTERVAL {_WEST} HOUR "
            f"THEN greatest({first}, least({last}, event_time::DATE)) ELSE {own} END"
        )


@short_tracebacks
def upgrade_database(path: str | Path) -> UpgradeResult:
    """Convert mixpanel_data's tables of events and profiles in the file *path*, in one transaction. Every row is kept.

    The days of a converted table have the status `imported`. Other days can be appended, and `replace` fetches all days
    again. `properties` still lacks `time`, `distinct_id` and `$insert_id`, which mixpanel_data removed. The file grows by
    the size of the tables. `_metadata` becomes a view. A file without such tables is unchanged.

    Raises:
        DatabaseNotFoundError: There is no such file.
        DatabaseError: The file was not written by mixpanel_data, or cannot be opened or written. The file is unchanged.
        TableFormatError: A newer release of this program has exported into the file.
        ExportRunningError: This process is exporting into the file.
    """
    path = database_path(path)
    check_exists(path)
    if path.stat().st_size == 0:
        raise _no_upgrade_error(path)
    with connected_for_export(path) as connection:
        check_ledger(connection)
        try:
            tables, profiles = _tables(connection), old_profile_tables(connection)
            _check_copy_names(connection, path, [*tables, *profiles])
            if not (
                tables
                or profiles
                or table_exists(connection, "_export_batches")
                or table_exists(connection, "_metadata")
            ):
                raise _no_upgrade_error(path)
            converted = _convert_tables(connection, tables, profiles) if tables or profiles else ()
            return UpgradeResult(path, converted)
        except duckdb.Error as error:
            reason = str(error).splitlines()[0]
            raise DatabaseError(
                f"cannot upgrade {path}, which is unchanged: {reason}",
                advice=f"{advice_on(reason)}, then try again",
                db_path=str(path),
            ) from error


def _no_upgrade_error(path: Path) -> DatabaseError:
    return DatabaseError(
        f"{path} was not created by mixpanel_data, so there is nothing to upgrade",
        advice="choose a file such as ~/.mp/data/PROJECT.db",
        db_path=str(path),
    )


def _check_copy_names(connection: Connection, path: Path, tables: list[str]) -> None:
    """Check that no table already has the name of a copy."""
    for table in tables:
        if table_exists(connection, _NEW + table):
            raise DatabaseError(
                f"cannot upgrade {path}: the table {_NEW + table}, to which {table} would be copied, already exists",
                advice="rename or drop it, then try again",
                db_path=str(path),
            )


def _tables(connection: Connection) -> list[str]:
    """Return the sorted names of the tables that have the columns and key of mixpanel_data's events tables."""
    rows = connection.execute(
        "SELECT table_name FROM duckdb_constraints() WHERE constraint_type = 'PRIMARY KEY' "
        f"AND constraint_column_names = ['insert_id'] AND {IN_MAIN} ORDER BY table_name"
    ).fetchall()
    return [table for (table,) in rows if columns_of(connection, table) == _COLUMNS]


def _convert_tables(
    connection: Connection, tables: list[str], profiles: list[str]
) -> tuple[UpgradedTable, ...]:
    with transaction(connection):
        metadata = _read_metadata(connection)
        for table in (*tables, *profiles):
            delete_foreign_metadata(connection, table)
        _remove_old_metadata(connection)
        create_ledger(connection)
        unknown = _Metadata(datetime.now(UTC), None)
        return (
            *(_convert(connection, table, metadata.get(table, unknown)) for table in tables),
            *(
                convert_profiles(connection, table, _NEW + table, metadata.get(table, unknown).fetched_at)
                for table in profiles
            ),
        )


def _read_metadata(connection: Connection) -> dict[str, _Metadata]:
    if not table_exists(connection, "_metadata"):
        return {}
    rows = connection.execute("SELECT table_name, fetched_at, from_date, to_date FROM _metadata").fetchall()
    return {
        table: _Metadata(at.replace(tzinfo=UTC), Chunk(first, last) if first and last else None)
        for table, at, first, last in rows
    }


def _remove_old_metadata(connection: Connection) -> None:
    """Drop the old table `_metadata`, or rename it if it still lists other tables. A view with this name replaces it."""
    if is_table(connection, PROFILES) and not connection.execute(f"FROM {PROFILES} LIMIT 1").fetchall():
        connection.execute(f"DROP TABLE {PROFILES}")
    if not is_table(connection, "_metadata"):
        return
    if connection.execute("FROM _metadata LIMIT 1").fetchall():
        connection.execute(f"ALTER TABLE _metadata RENAME TO {PROFILES}")
    else:
        connection.execute("DROP TABLE _metadata")


def _convert(connection: Connection, table: str, metadata: _Metadata) -> UpgradedTable:
    counts = dict(
        connection.execute(f"SELECT {metadata.day}, count(*) FROM {quoted(table)} GROUP BY ALL").fetchall()
    )
    ledger = Ledger(connection, table, _UNKNOWN, "UTC")
    ledger.delete_all()
    ranges = list(join_days({*counts, *(metadata.days.dates if metadata.days else ())}))
    batches = dict(zip(ledger.allocate_batch_numbers(len(ranges)), ranges, strict=True))
    _copy(connection, table, metadata.day, batches)
    for batch, days in batches.items():
        rows = sum(counts.get(day, 0) for day in days.dates)
        ledger.write(
            [
                Batch(
                    number=batch,
                    days=days,
                    status="imported",
                    rows=rows,
                    selection=_UNKNOWN,
                    table=table,
                    deduplicated=False,
                    requested_at=naive_utc(metadata.fetched_at),
                    finished=naive_utc(metadata.fetched_at),
                )
            ]
        )
    date_ranges = tuple((str(days.first), str(days.last)) for days in ranges)
    return UpgradedTable(table, sum(counts.values()), date_ranges)


def _copy(connection: Connection, table: str, day: str, batches: dict[int, Chunk]) -> None:
    new = _NEW + table
    create_events_table(connection, new)
    # One row per day is used, because a join on ranges would sort the rows together with their properties.
    lookup = [(date, batch) for batch, days in batches.items() for date in days.dates]
    connection.execute(
        f"INSERT INTO {quoted(new)} SELECT event_name, event_time, distinct_id, insert_id, properties, _batch "
        f"FROM {quoted(table)} JOIN (SELECT unnest(?::DATE[]) AS _day, unnest(?::INTEGER[]) AS _batch) ON _day = {day}",
        [[date for date, _ in lookup], [batch for _, batch in lookup]],
    )
    connection.execute(f"DROP TABLE {quoted(table)}")
    connection.execute(f"ALTER TABLE {quoted(new)} RENAME TO {quoted(table)}")
