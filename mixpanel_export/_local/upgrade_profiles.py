"""Converts mixpanel_data's tables of profiles, in the caller's transaction."""

from datetime import datetime

from mixpanel_export._database.catalog import IN_MAIN
from mixpanel_export._database.connection import Connection, quoted
from mixpanel_export._database.ledger import UNKNOWN_PROJECT
from mixpanel_export._database.schema import PROFILE_COLUMNS, columns_of, create_table
from mixpanel_export._database.snapshots import Snapshot, write_snapshot
from mixpanel_export._timezones import naive_utc
from mixpanel_export.inspection import UpgradedTable

_COLUMNS = [item for item in PROFILE_COLUMNS.items() if item[0] != "export_batch"]


def old_profile_tables(connection: Connection) -> list[str]:
    """Return the sorted names of the tables that have the columns and key of mixpanel_data's tables of profiles."""
    rows = connection.execute(
        "SELECT table_name FROM duckdb_constraints() WHERE constraint_type = 'PRIMARY KEY' "
        f"AND constraint_column_names = ['distinct_id'] AND {IN_MAIN} ORDER BY table_name"
    ).fetchall()
    return [table for (table,) in rows if columns_of(connection, table) == _COLUMNS]


def convert_profiles(connection: Connection, table: str, copy: str, fetched_at: datetime) -> UpgradedTable:
    """Copy a table to the new table *copy*, replace the table with the copy, and record the profiles as one snapshot."""
    ((number,),) = connection.execute("SELECT nextval('_export_batch_ids')").fetchall()
    create_table(connection, copy, PROFILE_COLUMNS)
    ((rows,),) = connection.execute(
        f"INSERT INTO {quoted(copy)} SELECT distinct_id, properties, last_seen, ? FROM {quoted(table)}",
        [number],
    ).fetchall()
    connection.execute(f"DROP TABLE {quoted(table)}")
    connection.execute(f"ALTER TABLE {quoted(copy)} RENAME TO {quoted(table)}")
    at = naive_utc(fetched_at)
    write_snapshot(
        connection,
        Snapshot(
            number=number,
            table=table,
            project=UNKNOWN_PROJECT,
            selection="{}",
            status="complete",
            started=at,
            finished=at,
            rows=rows,
        ),
    )
    return UpgradedTable(table, rows, (), type="profiles")
