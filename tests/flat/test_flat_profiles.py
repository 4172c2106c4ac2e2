"""Flat tables of profiles: they have the profiles of the last snapshot, with one typed column for each property."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import duckdb
import pytest
from flats import make_flat

from mixpanel_export import ArgumentError, TableFormatError
from mixpanel_export._database.connection import Connection
from mixpanel_export._database.schema import PROFILE_COLUMNS
from mixpanel_export._flat.state import outdated_flat_tables
from mixpanel_export._local.tables import drop_tables

FIRST = {
    "ann": '{"$email":"ann@example.com","$last_seen":"2024-03-01T10:00:00","age":41,"Plan":"free","distinct_id":"x"}',
    "bob": '{"age":7,"tags":["a"],"price":1.50}',
}
SECOND = {
    "ann": '{"$email":"ann@example.com","age":41.5,"plan":"pro","text":"say \\"x\\": 1.50"}',
    "eve": '{"$last_seen":"yesterday"}',
    "bob": "{}",
}


def snapshot(connection: Connection, number: int, profiles: Mapping[str, str]) -> None:
    """Replace the table with a snapshot."""
    columns = ", ".join(f"{name} {kind}" for name, kind in PROFILE_COLUMNS.items())
    connection.execute(f"CREATE OR REPLACE TABLE profiles ({columns})")
    connection.execute(
        "INSERT INTO profiles SELECT id, text, TRY_CAST(json_extract_string(text, '$.\"$last_seen\"') AS TIMESTAMP), ? "
        "FROM (SELECT unnest(?::VARCHAR[]) AS id, unnest(?::VARCHAR[]) AS text)",
        [number, list(profiles), list(profiles.values())],
    )


def rows_of(connection: Connection) -> dict[str, dict[str, Any]]:
    """Return the flat table's values by person, without NULL."""
    cursor = connection.execute("FROM profiles_flat")
    names = [name for name, *_ in cursor.description or ()]
    rows = [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]
    return {
        row.pop("distinct_id"): {name: value for name, value in row.items() if value is not None}
        for row in rows
    }


def test_a_flat_table_follows_the_snapshots() -> None:
    """It has the last snapshot, whose new keys have columns and whose values widen types; nothing else is read again."""
    with duckdb.connect() as db:
        snapshot(db, 1, FIRST)
        assert make_flat(db, source="Profiles").table == "profiles_flat"
        assert rows_of(db)["bob"] == {"export_batch": 1, "age": 7, "tags": '["a"]', "price": 1.5}
        assert {name: kind for name, kind, *_ in db.execute("DESCRIBE profiles_flat").fetchall()} == {
            "distinct_id": "VARCHAR",
            "last_seen": "TIMESTAMP",
            "export_batch": "INTEGER",
            "$email": "VARCHAR",
            "$last_seen": "TIMESTAMP",
            "Plan": "VARCHAR",
            "age": "BIGINT",
            "distinct_id_2": "VARCHAR",
            "price": "DOUBLE",
            "tags": "JSON",
        }
        assert not outdated_flat_tables(db)
        snapshot(db, 2, SECOND)
        assert [flat.name for flat in outdated_flat_tables(db)] == ["profiles_flat"]
        result = make_flat(db, source="profiles")
        assert (result.rows, result.batches_read) == (3, 1)
        assert (set(result.new_columns), set(result.widened_columns)) == (
            {"plan_2", "text"},
            {"age", "$last_seen"},
        )
        assert rows_of(db) == {
            "ann": {
                "export_batch": 2, "$email": "ann@example.com", "age": 41.5, "plan_2": "pro", "text": 'say "x": 1.50',
            },
            "eve": {"export_batch": 2, "$last_seen": "yesterday"},
            "bob": {"export_batch": 2},
        }  # fmt: skip
        assert make_flat(db, source="profiles").batches_read == 0
        db.execute("DELETE FROM profiles WHERE distinct_id = 'eve'")
        assert make_flat(db, source="profiles").rows == 2


def test_profiles_have_no_event_names() -> None:
    """Settings about events are an error, and a table with other columns cannot be flattened."""
    with duckdb.connect() as db:
        snapshot(db, 1, FIRST)
        for setting in ({"events": ("View",)}, {"per_event": True}):
            with pytest.raises(ArgumentError):
                make_flat(db, source="profiles", **setting)
        db.execute("ALTER TABLE profiles ADD COLUMN mine INTEGER")
        with pytest.raises(TableFormatError):
            make_flat(db, source="profiles")


def test_a_flat_table_can_be_dropped(tmp_path: Path) -> None:
    """It is dropped like a flat table of events, and its state with it."""
    with duckdb.connect(str(tmp_path / "x.duckdb")) as db:
        snapshot(db, 1, FIRST)
        make_flat(db, source="profiles", only=("age",))
        drop_tables(db, ["profiles_flat"], own=False)
        assert db.execute("SELECT table_name FROM duckdb_tables() WHERE NOT starts_with(table_name, '_')").fetchall() == [("profiles",)]  # fmt: skip
        assert db.execute("SELECT count(*) FROM _flat_columns").fetchall() == [(0,)]
