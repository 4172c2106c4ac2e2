"""Reads published data sets, and publishes in the tests."""

from collections import Counter
from pathlib import Path
from typing import Any

import duckdb
from support import COLUMNS, query

from mixpanel_export import PublishResult, run_sync
from mixpanel_export._publish.publish import publish_table

NO_DAY = "__HIVE_DEFAULT_PARTITION__"
Row = tuple[Any, ...]


def publish(db: Path, destination: Path | str, table: str | None = None, **options: Any) -> PublishResult:
    """Publish, and return the result."""
    return run_sync(publish_table, db, destination, table, **options)


def data_set(folder: Path) -> Counter[Row]:
    """Return the rows of all Parquet files, the last column being the day from the folder's name."""
    if not list(folder.glob("*/*.parquet")):
        return Counter()
    files = str(folder / "*" / "*.parquet").replace("'", "''")
    with duckdb.connect() as connection:
        rows = connection.execute(
            f"SELECT * FROM read_parquet('{files}', hive_partitioning = true, union_by_name = false)"
        ).fetchall()
    return Counter(rows)


def table_rows(db: Path, table: str = "events", columns: str = COLUMNS) -> Counter[Row]:
    """Return the rows that a data set of the table must have."""
    return Counter(query(db, f"SELECT {columns}, event_time::DATE FROM {table}"))


def by_day(rows: Counter[Row]) -> dict[str, Counter[Row]]:
    """Return the rows by their last column, with the names of days in results."""
    days: dict[str, Counter[Row]] = {}
    for row, count in rows.items():
        days.setdefault(NO_DAY if row[-1] is None else str(row[-1]), Counter())[row] += count
    return days
