"""Flat tables that the user has changed, rows without properties, and views with a later start."""

from pathlib import Path
from random import Random

import duckdb
import pytest
from flats import equal, held, make_flat, sent, store
from support import export, query, simulator

from mixpanel_export import (
    ArgumentError,
    DatabaseError,
    TableExistsError,
    TableFormatError,
    Workspace,
    flatten_events,
)
from mixpanel_export._database.connection import connected_for_export

pytestmark = pytest.mark.anyio


def columns(db: duckdb.DuckDBPyConnection, view: str) -> list[str]:
    """Return the columns of a view, without those of the events table."""
    return [name for name, *_ in db.execute(f'DESCRIBE "{view}"').fetchall()][5:]


def test_rows_without_properties_stay() -> None:
    """A row whose properties are NULL is in the table, along with rows that are read in Python."""
    with duckdb.connect() as db:
        rows = ['{"a":1}', r'{"a":"\u0001","b":2}']
        store(db, 1, rows)
        db.execute("UPDATE events SET properties = NULL WHERE insert_id = '1-0'")
        make_flat(db)
        assert equal(held(db), sent({1: ["{}", rows[1]]}))


def test_views_that_begin_late_have_all_columns() -> None:
    """Views of an existing table have the columns of all batches, as if they had existed from the start."""
    with duckdb.connect() as db:
        store(db, 1, ['{"a":1}'])
        store(db, 2, ['{"b":1}'], event="Other")
        make_flat(db)
        assert make_flat(db, per_event=True).views == ("events_flat_event", "events_flat_other")
        store(db, 3, ['{"c":1}'])
        make_flat(db)
        assert columns(db, "events_flat_event") == ["a", "c"]


def test_a_view_that_the_user_dropped_returns_whole() -> None:
    """It has all columns of its event again, under its name, or under another if the user has taken the name."""
    with duckdb.connect() as db:
        store(db, 1, ['{"a":1}'])
        make_flat(db, per_event=True)
        db.execute("DROP VIEW events_flat_event")
        store(db, 2, ['{"b":1}'])
        assert make_flat(db).views == ("events_flat_event",)
        assert columns(db, "events_flat_event") == ["a", "b"]
        db.execute("DROP VIEW events_flat_event; CREATE VIEW events_flat_event AS SELECT 42 AS answer")
        assert make_flat(db).views == ("events_flat_event_2",)
        assert db.execute("FROM events_flat_event").fetchall() == [(42,)]
        make_flat(db, rebuild=True)
        assert db.execute("FROM events_flat_event").fetchall() == [(42,)]


def test_views_that_are_switched_off_are_dropped() -> None:
    """Otherwise, they would lack later columns; when enabled again, they are created for all rows."""
    with duckdb.connect() as db:
        store(db, 1, ['{"a":1}'])
        make_flat(db, per_event=True)
        assert make_flat(db, per_event=False).views == ()
        assert db.execute("SELECT count(*) FROM duckdb_views() WHERE view_name = 'events_flat_event'").fetchall() == [(0,)]  # fmt: skip
        store(db, 2, ['{"a":"x","b":1}'], event="Other")
        make_flat(db)
        assert make_flat(db, per_event=True).views == ("events_flat_event", "events_flat_other")
        assert columns(db, "events_flat_other") == ["a", "b"]


def test_a_flat_table_that_the_user_renamed_is_the_users_own() -> None:
    """It is not replaced; a new one is created under the old name."""
    with duckdb.connect() as db:
        store(db, 1, ['{"a":1}'])
        make_flat(db)
        db.execute("ALTER TABLE events_flat RENAME TO mine; UPDATE mine SET a = 42")
        for rebuild in (False, True):
            with pytest.raises(TableExistsError):
                make_flat(db, into="mine", rebuild=rebuild)
        make_flat(db)
        assert equal(held(db), sent({1: ['{"a":1}']}))
        assert db.execute("SELECT a FROM mine").fetchall() == [(42,)]


async def test_forgetting_names_flat_tables_that_it_cannot_refresh(db: Path) -> None:
    """A renamed flat table, and one whose events table is missing, are listed as tables that were not searched."""
    await export(simulator(), db, last="2024-03-01")
    with Workspace(path=db) as workspace:
        workspace.flatten(into="renamed")
        workspace.flatten()
        query(db, "ALTER TABLE renamed RENAME TO mine")
        assert workspace.forget("nobody").other_tables == ("mine",)
        query(db, "DROP TABLE events")
        assert workspace.forget("nobody").other_tables == ("events_flat", "mine")


async def test_forgetting_stops_at_a_changed_flat_table(db: Path) -> None:
    """Nothing is removed if a flat table cannot be updated."""
    await export(simulator(), db, last="2024-03-01")
    with Workspace(path=db) as workspace:
        workspace.flatten()
        ((person,),) = workspace.sql_rows("SELECT max(distinct_id) FROM events").rows
        query(db, 'ALTER TABLE events_flat RENAME "$os" TO os')
        before = query(db, "SELECT count(*) FROM events")
        with pytest.raises(TableFormatError):
            workspace.forget(person)
        assert query(db, "SELECT count(*) FROM events") == before
        workspace.flatten(rebuild=True)
        assert workspace.forget(person).total > 0


def test_long_texts_have_more_memory(db: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows with an average of 10 kB can be flattened with the least memory that can export them."""
    monkeypatch.setenv("MPX_MEMORY_LIMIT", "96MB")
    rows = [f'{{"text":"{"x" * 10_000}","number":{number}}}' for number in range(2048)]
    with duckdb.connect(str(db)) as connection:
        store(connection, 1, rows)
    with connected_for_export(db) as connection:
        assert make_flat(connection).rows == len(rows)
        assert connection.execute("SELECT sum(number), sum(strlen(text)) FROM events_flat").fetchall() == [
            (sum(range(2048)), 2048 * 10_000)
        ]


@pytest.mark.slow
def test_the_commit_of_many_columns_has_more_memory(db: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A table with 1,000 columns can be written with the memory limit of a machine with two cores."""
    monkeypatch.setenv("MPX_MEMORY_LIMIT", "360MB")
    draw = Random(1)
    texts = [f'"{draw.getrandbits(64):x}"' for _ in range(1_000)]
    with duckdb.connect(str(db)) as connection:
        for batch in range(1, 13):
            keys = [draw.sample(range(1_000), 40) for _ in range(5_000)]
            store(
                connection,
                batch,
                ["{" + ",".join(f'"{key}":{texts[key]}' for key in row) + "}" for row in keys],
            )
    with connected_for_export(db) as connection:
        result = make_flat(connection)
    assert (result.rows, result.columns, result.rest) == (60_000, 1_000, False)


def test_long_rows_that_are_read_in_python() -> None:
    """Many of them are read some megabytes at a time, and none is omitted."""
    with duckdb.connect() as db:
        rows = [f'{{"text":"\\u0001{"x" * 500_000}","number":{number}}}' for number in range(30)]
        store(db, 1, [*rows, *['{"text":"\\u0001"}'] * 5_000])
        make_flat(db)
        assert db.execute("SELECT sum(number), sum(strlen(text)), count(*) FROM events_flat").fetchall() == [
            (sum(range(30)), 30 * 500_001 + 5_000, 5_030)
        ]


def test_an_index_of_the_user_is_named_as_the_obstacle() -> None:
    """DuckDB cannot widen an indexed column; the table is unchanged, and can be updated once the index is dropped."""
    with duckdb.connect() as db:
        store(db, 1, ['{"a":1}'])
        make_flat(db)
        db.execute("CREATE INDEX mine ON events_flat (a)")
        store(db, 2, ['{"b":1}'])
        make_flat(db)
        store(db, 3, ['{"a":"x"}'])
        with pytest.raises(DatabaseError) as caught:
            make_flat(db)
        assert "drop the index" in str(caught.value)
        assert equal(held(db), sent({1: ['{"a":1}'], 2: ['{"b":1}']}))
        db.execute("DROP INDEX mine")
        make_flat(db)
        assert equal(held(db), sent({1: ['{"a":1}'], 2: ['{"b":1}'], 3: ['{"a":"x"}']}))


async def test_only_names_at_most_as_many_keys_as_columns(db: Path) -> None:
    """Otherwise some of the named keys would have no column."""
    await export(simulator(), db, last="2024-03-01")
    with pytest.raises(ArgumentError) as caught:
        await flatten_events(db, only=[f"key {number}" for number in range(1001)])
    assert caught.value.argument == "only"
