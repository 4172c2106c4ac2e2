"""Flat tables of exported events: which rows are read again, deletions, and tables that are not ours."""

import json
from pathlib import Path
from typing import Any

import duckdb
import pytest
from examples import slow
from flats import equal, held, make_flat, sent, store, types
from support import export, opened, query, simulator

from mixpanel_export import (
    ArgumentError,
    DatabaseNotFoundError,
    ExportRunningError,
    LedgerMismatchError,
    TableExistsError,
    TableFormatError,
    TableNotFoundError,
    Workspace,
    flatten_events,
)
from mixpanel_export._database.connection import connected_for_export

pytestmark = pytest.mark.anyio

DIFFICULT = {"odd": 0.1, "awkward": 0.1, "duplicates": 0.1, "leaks": 0.1}


def by_key(db: Path, table: str = "events_flat") -> list[dict[str, Any]]:
    """Return the rows of a flat table in any order, with values by key, as text; without values that are NULL."""
    with opened(db) as connection:
        names = dict(
            connection.execute(
                "SELECT column_name, key FROM _flat_columns WHERE flat_table = ?", [table]
            ).fetchall()
        )
        cursor = connection.execute(f'FROM "{table}"')
        columns = [name for name, *_ in cursor.description or ()]
        rows = [
            {
                names.get(name, f"column {name}"): str(value)
                for name, value in zip(columns, row, strict=True)
                if value is not None
            }
            for row in cursor.fetchall()
        ]
    return sorted(rows, key=lambda row: sorted(row.items()))


def is_up_to_date(db: Path) -> bool:
    """Whether the flat table equals one that is made from scratch, and has the rows of the events table."""
    with Workspace(path=db) as workspace:
        workspace.flatten(into="scratch")
    rows = by_key(db)
    return rows == by_key(db, "scratch") and query(db, "SELECT count(*) FROM events") == [(len(rows),)]


async def test_only_changed_batches_are_read(db: Path) -> None:
    """These are new and replaced batches, and batches whose duplicates have moved."""
    sim = simulator(**(DIFFICULT | {"leaks": 0.5}))
    await export(sim, db, last="2024-03-04", chunk_days=1)
    assert (await flatten_events(db)).batches_read == 4
    assert (await flatten_events(db)).batches_read == 0
    before = dict(query(db, "SELECT batch, revision FROM _export_batches"))
    await export(sim, db, "2024-03-04", "2024-03-05", chunk_days=1, mode="append")
    after = dict(query(db, "SELECT batch, revision FROM _export_batches"))
    changed = [batch for batch in after if batch not in before or after[batch] != before[batch]]
    assert 2 < len(changed) < len(after)
    assert (await flatten_events(db)).batches_read == len(changed)
    assert is_up_to_date(db)


async def test_a_replaced_table_is_read_whole(db: Path) -> None:
    """After `replace`, the flat table has the rows of the new events table only."""
    await export(simulator(), db, last="2024-03-03", chunk_days=1)
    await flatten_events(db)
    await export(simulator(seed=2), db, last="2024-03-02", mode="replace", chunk_days=1)
    result = await flatten_events(db)
    assert (result.batches_read, result.rows) == (2, *query(db, "SELECT count(*) FROM events")[0])
    assert is_up_to_date(db)


async def test_forgotten_persons_leave_flat_tables(db: Path) -> None:
    """Their rows are deleted in the same transaction, in every flat table; the others stay."""
    await export(simulator(**DIFFICULT), db, last="2024-03-03", chunk_days=1)
    with Workspace(path=db) as workspace:
        workspace.flatten()
        workspace.flatten(into="narrow", only=["$os"])
        ((person,),) = workspace.sql_rows("SELECT max(distinct_id) FROM events").rows
        flat_rows = [
            f"SELECT count(*) FROM {table} WHERE distinct_id = '{person}'"
            for table in ("events_flat", "narrow")
        ]
        assert [workspace.sql_rows(sql).rows != [(0,)] for sql in flat_rows] == [True, True]
        assert workspace.forget(person).other_tables == ()
        assert [workspace.sql_rows(sql).rows for sql in flat_rows] == [[(0,)], [(0,)]]
    assert is_up_to_date(db)
    assert (await flatten_events(db)).batches_read == 0


async def test_forgetting_leaves_later_batches_to_flatten(db: Path) -> None:
    """A batch that is not in the flat table yet is not read."""
    await export(simulator(), db, last="2024-03-01")
    await flatten_events(db)
    await export(simulator(), db, "2024-03-02", "2024-03-02", mode="append")
    with Workspace(path=db) as workspace:
        workspace.forget("nobody")
    assert query(db, "SELECT count(DISTINCT export_batch) FROM events_flat") == [(1,)]


@pytest.mark.parametrize("matches", [False, *slow([True])])
async def test_forgetting_never_empties_a_replaced_day(db: Path, *, matches: bool) -> None:
    """An outdated flat table is brought up to date, so it loses no other rows, whether or not the person has events."""
    await export(simulator(), db, last="2024-03-02", chunk_days=1)
    await flatten_events(db)
    await export(simulator(), db, "2024-03-02", "2024-03-02", mode="append")
    ((person,),) = query(db, "SELECT max(distinct_id) FROM events")
    with Workspace(path=db) as workspace:
        assert (workspace.forget(person if matches else "nobody").total > 0) is matches
    assert is_up_to_date(db)


async def test_dropping_the_events_drops_what_was_made_of_them(db: Path) -> None:
    """Flat tables and views are dropped with their events table; a flat table can also be dropped separately."""
    await export(simulator(), db, last="2024-03-02")
    with Workspace(path=db) as workspace:
        workspace.flatten(per_event=True, auto=True)
        workspace.flatten(into="wide")
        workspace.drop("WIDE")
        assert [table.name for table in workspace.tables(all=True)] == ["events", "events_flat"]
        workspace.drop("events")
        assert workspace.tables(all=True) == []
        assert workspace.sql_scalar("SELECT count(*) FROM duckdb_views() WHERE NOT internal AND view_name <> '_metadata'") == 0  # fmt: skip
        for state in ("_flat_tables", "_flat_columns", "_flat_batches", "_flat_views"):
            assert workspace.sql_scalar(f"SELECT count(*) FROM {state}") == 0


async def test_tables_of_the_user_stay(db: Path) -> None:
    """A table or view with the name is an error, and is not changed; so is a flat table of other events."""
    await export(simulator(), db, last="2024-03-02")
    await export(simulator(), db, last="2024-03-02", table="others")
    query(db, "CREATE TABLE events_flat AS SELECT 42 AS answer")
    query(db, "CREATE VIEW looking AS SELECT 43 AS answer")
    with pytest.raises(TableExistsError):
        await flatten_events(db)
    with pytest.raises(TableExistsError):
        await flatten_events(db, into="EVENTS_flat", rebuild=True)
    with pytest.raises(TableFormatError):
        await flatten_events(db, into="looking")
    with pytest.raises(TableExistsError):
        await flatten_events(db, into="events")
    assert query(db, "FROM events_flat") == [(42,)]
    await flatten_events(db, "others")
    with pytest.raises(TableExistsError):
        await flatten_events(db, into="others_flat")
    assert query(db, "SELECT count(*) FROM others_flat") == query(db, "SELECT count(*) FROM others")


async def test_what_cannot_be_flattened_is_an_error(db: Path) -> None:
    """No file, no table, other columns, rows that are not in the ledger, names that cannot be used."""
    with pytest.raises(DatabaseNotFoundError):
        await flatten_events(db)
    await export(simulator(), db, last="2024-03-02")
    query(db, "CREATE TABLE mine AS SELECT 1 AS one")
    for table, error in (("none", TableNotFoundError), ("mine", TableFormatError)):
        with pytest.raises(error):
            await flatten_events(db, table)
    wrong: dict[str, Any]
    for wrong in ({"into": "_mine"}, {"only": []}, {"only": "abc"}, {"events": [1]}):
        with pytest.raises(ArgumentError):
            await flatten_events(db, **wrong)
    query(db, "INSERT INTO events SELECT * REPLACE (1000 AS export_batch) FROM events LIMIT 1")
    with pytest.raises(LedgerMismatchError):
        await flatten_events(db)
    assert query(db, "SELECT count(*) FROM duckdb_tables() WHERE table_name = 'events_flat'") == [(0,)]


async def test_a_changed_flat_table_is_an_error(db: Path) -> None:
    """If its columns have been changed, it must be rebuilt."""
    await export(simulator(), db, last="2024-03-02")
    await flatten_events(db)
    query(db, 'ALTER TABLE events_flat DROP COLUMN "$os"')
    with pytest.raises(TableFormatError):
        await flatten_events(db)
    await flatten_events(db, rebuild=True)
    assert is_up_to_date(db)


async def test_settings_are_kept(db: Path) -> None:
    """Keys and events of the first call apply to later ones; others are an error without `rebuild`."""
    await export(simulator(), db, last="2024-03-02")
    result = await flatten_events(db, only=["$os", "missing"], events=["Sign Up"])
    assert result.new_columns == ("$os",)
    names = query(db, "SELECT DISTINCT event_name FROM events_flat")
    assert names == [("Sign Up",)]
    assert (await flatten_events(db)).batches_read == 0
    for wrong in ({"only": ["$os"]}, {"events": ["$identify"]}):
        with pytest.raises(ArgumentError):
            await flatten_events(db, **wrong)  # type: ignore[arg-type]
    result = await flatten_events(db, only=["$city"], rebuild=True)
    assert result.new_columns == ("$city",)
    assert query(db, "SELECT DISTINCT event_name FROM events_flat") == names


async def test_an_export_updates_flat_tables(db: Path) -> None:
    """With `flatten`, it creates one or updates all; without it, it updates those with the setting `auto`."""
    await export(simulator(), db, last="2024-03-01", flatten=True)
    rows = "SELECT count(DISTINCT export_batch) FROM events_flat"
    assert query(db, rows) == [(1,)]
    await export(simulator(), db, "2024-03-02", "2024-03-02", mode="append")
    assert query(db, rows) == [(1,)]
    await export(simulator(), db, "2024-03-03", "2024-03-03", mode="append", flatten=True)
    assert query(db, rows) == [(3,)]
    await flatten_events(db, auto=True)
    await export(simulator(), db, "2024-03-04", "2024-03-04", mode="append")
    assert query(db, rows) == [(4,)]
    assert is_up_to_date(db)


async def test_an_export_first_checks_whether_a_flat_table_can_be_made(db: Path) -> None:
    """If the user has a table with the name, there is an error before the first request."""
    query(db, "CREATE TABLE events_flat AS SELECT 42 AS answer")
    sim = simulator()
    with pytest.raises(TableExistsError):
        await export(sim, db, flatten=True)
    assert len(sim.requests) == 0
    assert query(db, "FROM events_flat") == [(42,)]


async def test_each_event_has_a_view(db: Path) -> None:
    """It has the rows and columns of the event; names are safe, and the user's own tables are not replaced."""
    await export(simulator(), db, last="2024-03-02")
    query(db, "CREATE TABLE events_flat_sign_up AS SELECT 42 AS answer")
    result = await flatten_events(db, per_event=True)
    views = dict(query(db, "SELECT view_name, event_name FROM _flat_views"))
    assert sorted(result.views) == sorted(views)
    assert views["events_flat_sign_up_2"] == "Sign Up"
    for view, event in views.items():
        counts = query(
            db, f"""SELECT count(*), bool_and(event_name = '{event.replace("'", "''")}') FROM "{view}" """
        )
        expected = query(
            db, f"""SELECT count(*) FROM events WHERE event_name = '{event.replace("'", "''")}'"""
        )
        assert counts == [(*expected[0], True)]
    columns = {
        name for (name,) in query(db, "SELECT column_name FROM (DESCRIBE events_flat_order_completed)")
    }
    assert "total" in columns
    assert "Experiments" not in columns
    assert query(db, "FROM events_flat_sign_up") == [(42,)]
    await export(simulator(seed=7, awkward=0.3), db, "2024-03-03", "2024-03-04", mode="append")
    result = await flatten_events(db)
    for view in result.views:
        query(db, f'SELECT count(*) FROM "{view}"')


async def test_an_export_and_a_flattening_exclude_each_other(db: Path) -> None:
    """In one process, the second call raises an error and changes nothing."""
    await export(simulator(), db, last="2024-03-02")
    with connected_for_export(db), pytest.raises(ExportRunningError):
        await flatten_events(db)


def test_odd_keys_have_columns() -> None:
    """The column's name is the key, with a number if the name is taken; `_empty` for the empty key."""
    with duckdb.connect() as db:
        keys = ["", "a", "A", "event_name", "Insert_ID", "_other", "_empty", 'x"y', "a\\u0000b"]
        row = (
            "{"
            + ",".join(
                f'"{key.replace(chr(34), chr(92) + chr(34))}":{place}' for place, key in enumerate(keys)
            )
            + "}"
        )
        store(db, 1, [row, '{"a":1}'])
        make_flat(db)
        assert list(types(db)) == ["a", "_empty", "A_2", "Insert_ID_2", "_empty_2", "_other_2", "a␀b", "event_name_2", 'x"y']  # fmt: skip
        assert equal(held(db), sent({1: [row, '{"a":1}']}))


def test_more_keys_than_columns() -> None:
    """The most frequent 1,000 keys have columns, the others are in `_other`, and the result reports it."""
    with duckdb.connect() as db:
        rows = [
            "{" + ",".join(f'"k{key}":{key}.50' for key in range(first, 1005)) + "}" for first in range(8)
        ]
        store(db, 1, rows)
        result = make_flat(db)
        assert (result.columns, result.rest) == (1000, True)
        assert "k0" not in types(db)
        assert equal(held(db), sent({1: rows}))
        store(db, 2, ['{"new":1,"k9":true}', '{"k1000":"x"}'])
        make_flat(db)
        assert equal(held(db), sent({1: rows, 2: ['{"new":1,"k9":true}', '{"k1000":"x"}']}))


def test_the_state_describes_the_columns() -> None:
    """Number of values, first and last batch, and which batches widened a type."""
    with duckdb.connect() as db:
        store(db, 1, ['{"a":1,"b":null}', '{"a":2}'])
        store(db, 2, ['{"a":0.5}'])
        make_flat(db)
        store(db, 3, ['{"a":7}'])
        store(db, 4, ['{"a":"x","b":1}'])
        result = make_flat(db)
        assert result.widened_columns == ("a",)
        columns = db.execute(
            "SELECT key, type, value_count, first_batch, last_batch, widened_by FROM _flat_columns ORDER BY key"
        )
        assert columns.fetchall() == [("a", "VARCHAR", 5, 1, 4, [4]), ("b", "BIGINT", 1, 4, 4, [])]


def test_the_result_can_be_printed() -> None:
    """As JSON, and as HTML in a notebook."""
    with duckdb.connect() as db:
        store(db, 1, ['{"a":1}'])
        result = make_flat(db)
        assert json.loads(json.dumps(result.to_dict()))["new_columns"] == ["a"]
        assert "events_flat" in result._repr_html_()
