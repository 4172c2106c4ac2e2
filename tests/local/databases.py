"""A small database of events, and a workspace on it."""

from pathlib import Path
from typing import Any

import duckdb
import pytest

from mixpanel_export import (
    Workspace,
)

ROWS = """
CREATE TABLE events (
    event_name VARCHAR, event_time TIMESTAMP, distinct_id VARCHAR, insert_id VARCHAR, properties JSON, export_batch INTEGER);
INSERT INTO events VALUES
    ('View', '2024-03-01 10:00', 'u1', 'a', '{"$city": "Köln", "n": 1, "plan": "free"}', 1),
    ('View', '2024-03-02 11:00', 'u2', 'b', '{"n": 2.5, "plan": "pro"}', 1),
    ('View', NULL, 'u1', 'c', '{"n": null, "plan": "free"}', 1),
    ('Sign up', '2024-02-28 09:00', NULL, 'd', '{"plan": null, "zip": "x"}', 1),
    ('Odd', NULL, 'u3', 'e', '{}', 1);
CREATE TABLE "and mine" (id INTEGER PRIMARY KEY, price DECIMAL(9, 2) NOT NULL);
CREATE VIEW seen AS SELECT event_name FROM events;
"""


@pytest.fixture
def db(tmp_path: Path) -> Path:
    path = tmp_path / "events.duckdb"
    with duckdb.connect(str(path)) as connection:
        connection.execute(ROWS)
    return path


@pytest.fixture
def workspace(db: Path) -> Any:
    with Workspace(path=db) as workspace:
        yield workspace
