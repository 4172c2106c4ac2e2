"""Databases as mixpanel_data wrote them."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb
from support import query

EVENTS = (
    'CREATE TABLE "{}" (event_name VARCHAR NOT NULL, event_time TIMESTAMP NOT NULL, distinct_id VARCHAR NOT NULL, '
    "insert_id VARCHAR PRIMARY KEY, properties JSON)"
)
METADATA = """
CREATE TABLE IF NOT EXISTS _metadata (table_name VARCHAR PRIMARY KEY, type VARCHAR NOT NULL,
    fetched_at TIMESTAMP NOT NULL, from_date DATE, to_date DATE, row_count INTEGER NOT NULL)
"""
FETCHED = "2024-04-05 06:07:08"
FIVE = "event_name, event_time, distinct_id, insert_id, properties"
CLAIMED = ("2024-03-01", "2024-03-09")


def made(
    db: Path, times: Sequence[datetime], *, table: str = "events", claim: tuple[str, str] | None = CLAIMED
) -> Path:
    """Write a table as mixpanel_data did, with an event at each of *times*."""
    with duckdb.connect(str(db)) as connection:
        connection.execute(EVENTS.format(table))
        connection.execute(METADATA)
        texts = ['{"n": 1E5, "text":"ü"}', '{"text":"\\u00fc", "n":1}']
        connection.execute(
            f"INSERT INTO \"{table}\" SELECT 'Sign up', time, 'u' || i % 7, 'id' || i, (?::VARCHAR[])[i % 2 + 1]::JSON "
            "FROM (SELECT unnest(?::TIMESTAMP[]) AS time, generate_subscripts(?::TIMESTAMP[], 1) AS i)",
            [texts, list(times), list(times)],
        )
        if claim:
            connection.execute(
                "INSERT INTO _metadata VALUES (?, 'events', ?, ?, ?, 0)", [table, FETCHED, *claim]
            )
    return db


def noons(first: str, days: int) -> list[datetime]:
    return [datetime.fromisoformat(f"{first}T12:00") + timedelta(days=day) for day in range(days)]


def made_with_people(path: Path) -> Path:
    """Create a file with an empty table of profiles, as mixpanel_data has it, and return its path."""
    with duckdb.connect(str(path)) as connection:
        connection.execute(METADATA)
        connection.execute(
            "CREATE TABLE people (distinct_id VARCHAR PRIMARY KEY, properties JSON, last_seen TIMESTAMP);"
            "INSERT INTO _metadata VALUES ('people', 'profiles', '2026-01-02 03:04:05', NULL, NULL, 0)"
        )
    return path


def rows(db: Path, table: str = "events") -> list[tuple[Any, ...]]:
    return query(db, f'SELECT {FIVE} FROM "{table}" ORDER BY insert_id')


def imported(db: Path) -> list[tuple[Any, ...]]:
    """Return the imported batches in the ledger, and the number of rows of each in the table."""
    return query(
        db,
        "SELECT from_date::VARCHAR, to_date::VARCHAR, rows, (SELECT count(*) FROM events WHERE export_batch = batch) "
        "FROM _export_batches WHERE status = 'imported' AND table_name = 'events' ORDER BY from_date",
    )
