"""Databases that mixpanel_data made become ours: every row, in one transaction.

Each table of events is copied without its constraints, then swapped by drop and rename; whatever stops that leaves
the file as it was. What the old `_metadata` claims is noted in the ledger as `imported`: mixpanel_data wrote neither
filters nor gaps down, and took truncated answers for whole, so nothing is proven by it. Rows on other days than it
claims, as batches that broke off have left them, are imported batches of their own. Tables of profiles stay.
"""

from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import duckdb

from mixpanel_export._database.connection import (
    advice_on,
    connected_for_export,
    database_path,
    quoted,
    transaction,
)
from mixpanel_export._database.coverage import join_days
from mixpanel_export._database.ledger import Ledger
from mixpanel_export._database.schema import (
    IN_MAIN,
    check_ledger,
    columns_of,
    create_events_table,
    create_ledger,
    forget_foreign_metadata,
    table_exists,
)
from mixpanel_export._local.file import check_there
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
_UNKNOWN = Selection("(unknown)")  # which project it was is not in the file
_EAST, _WEST = 14, 12  # hours by which the clocks of the world differ from UTC


@dataclass(frozen=True, slots=True)
class _Claim:
    """What `_metadata` says of a table; its days are those of the project's zone, which it does not tell."""

    fetched_at: datetime
    days: Chunk | None

    @property
    def day(self) -> str:
        """SQL for the day that a row counts for."""
        # What is on none of Python's days, as infinity, must have one all the same.
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
    """Make the events tables of mixpanel_data in the file *path* ours, in one transaction that keeps every row.

    `properties` stays as mixpanel_data left it, without `time`, `distinct_id` and `$insert_id`. The days that a table
    had count as `imported`: to fetch them again, replace the table; other days can be appended. The file grows by as
    much as the tables take. One that is upgraded already is left alone.

    Raises:
        DatabaseNotFoundError: There is no such file.
        DatabaseError: It is not mixpanel_data's, or cannot be opened or written; it is as it was.
        TableFormatError: A newer release of this program has exported into it.
        ExportRunningError: This process is exporting into it.
    """
    path = database_path(path)
    check_there(path)
    if path.stat().st_size == 0:
        raise _foreign(path)
    with connected_for_export(path) as connection:
        check_ledger(connection)
        try:
            tables = _tables(connection)
            _check_free(connection, path, tables)
            if not (
                tables or table_exists(connection, "_export_batches") or table_exists(connection, "_metadata")
            ):
                raise _foreign(path)
            return UpgradeResult(path, _upgraded(connection, tables) if tables else ())
        except duckdb.Error as error:
            reason = str(error).splitlines()[0]
            advice = advice_on(reason) or "make room or free the file"
            raise DatabaseError(
                f"cannot upgrade {path}: {reason}; it is as it was, so {advice}, then try again",
                db_path=str(path),
            ) from error


def _foreign(path: Path) -> DatabaseError:
    return DatabaseError(
        f"{path} was not made by mixpanel_data, so there is nothing to upgrade in it; name a file such as "
        "~/.mp/data/PROJECT.db",
        db_path=str(path),
    )


def _check_free(connection: duckdb.DuckDBPyConnection, path: Path, tables: list[str]) -> None:
    for table in tables:
        if table_exists(connection, _NEW + table):
            raise DatabaseError(
                f"cannot upgrade {path}: there is a {_NEW + table} in it already, the name that table {table} would be "
                "copied to; rename or drop that one, then try again",
                db_path=str(path),
            )


def _tables(connection: duckdb.DuckDBPyConnection) -> list[str]:
    """Return the tables of events that are mixpanel_data's by their columns and key, by name."""
    keyed = connection.execute(
        "SELECT table_name FROM duckdb_constraints() WHERE constraint_type = 'PRIMARY KEY' "
        f"AND constraint_column_names = ['insert_id'] AND {IN_MAIN} ORDER BY table_name"
    ).fetchall()
    return [table for (table,) in keyed if columns_of(connection, table) == _COLUMNS]


def _upgraded(connection: duckdb.DuckDBPyConnection, tables: list[str]) -> tuple[UpgradedTable, ...]:
    with transaction(connection):
        claims = _claims(connection)
        for table in tables:
            forget_foreign_metadata(connection, table)
        _drop_empty_metadata(connection)
        create_ledger(connection)
        nothing = _Claim(datetime.now(UTC), None)
        return tuple(_upgrade(connection, table, claims.get(table, nothing)) for table in tables)


def _claims(connection: duckdb.DuckDBPyConnection) -> dict[str, _Claim]:
    if not table_exists(connection, "_metadata"):
        return {}
    found = connection.execute("SELECT table_name, fetched_at, from_date, to_date FROM _metadata").fetchall()
    return {
        table: _Claim(at.replace(tzinfo=UTC), Chunk(first, last) if first and last else None)
        for table, at, first, last in found
    }


def _drop_empty_metadata(connection: duckdb.DuckDBPyConnection) -> None:
    """Make room for the view of that name, unless the table still speaks of profiles."""
    is_table = connection.execute(
        f"SELECT 1 FROM duckdb_tables() WHERE table_name = '_metadata' AND {IN_MAIN}"
    ).fetchone()
    if is_table and not connection.execute("FROM _metadata LIMIT 1").fetchall():
        connection.execute("DROP TABLE _metadata")


def _upgrade(connection: duckdb.DuckDBPyConnection, table: str, claim: _Claim) -> UpgradedTable:
    counted = dict(
        connection.execute(f"SELECT {claim.day}, count(*) FROM {quoted(table)} GROUP BY ALL").fetchall()
    )
    ledger = Ledger(connection, table, _UNKNOWN, "UTC")
    ledger.forget_all()
    runs = list(join_days({*counted, *(claim.days.dates if claim.days else ())}))
    batches = dict(zip(ledger.new_numbers(len(runs)), runs, strict=True))
    _copy(connection, table, claim.day, batches)
    for batch, days in batches.items():
        rows = sum(counted.get(day, 0) for day in days.dates)
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
                    requested_at=naive_utc(claim.fetched_at),
                    finished=naive_utc(claim.fetched_at),
                )
            ]
        )
    ranges = tuple((str(days.first), str(days.last)) for days in runs)
    return UpgradedTable(table, sum(counted.values()), ranges)


def _copy(connection: duckdb.DuckDBPyConnection, table: str, day: str, batches: dict[int, Chunk]) -> None:
    new = _NEW + table
    create_events_table(connection, new)
    # Days are looked up one by one, as a join by ranges of them would sort the rows with their properties.
    which = [(one, batch) for batch, days in batches.items() for one in days.dates]
    connection.execute(
        f"INSERT INTO {quoted(new)} SELECT event_name, event_time, distinct_id, insert_id, properties, _batch "
        f"FROM {quoted(table)} JOIN (SELECT unnest(?::DATE[]) AS _day, unnest(?::INTEGER[]) AS _batch) ON _day = {day}",
        [[one for one, _ in which], [batch for _, batch in which]],
    )
    connection.execute(f"DROP TABLE {quoted(table)}")
    connection.execute(f"ALTER TABLE {quoted(new)} RENAME TO {quoted(table)}")
