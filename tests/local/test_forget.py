"""People are deleted from every exported table, and the ledger matches the remaining rows."""

import json
from collections import Counter
from contextlib import closing
from pathlib import Path
from tempfile import TemporaryDirectory

import duckdb
import forgetting
import pytest
from examples import examples, slow
from forgetting import FIRST, ID, LAST, forget, line, load
from hypothesis import given
from hypothesis import strategies as st
from old_files import FIVE, made, noons
from support import export, held, query, simulator

from mixpanel_export import (
    DatabaseError,
    ForgetResult,
    ForgottenTable,
    TableNotFoundError,
    run_sync,
    upgrade_database,
)
from mixpanel_export.results import BatchProgress

days = forgetting.days
full = forgetting.full

FAR = 1_600_000_000  # before all days


def counts(result: ForgetResult) -> tuple[int, int, int]:
    """Return the counts of the only table."""
    (table,) = result.tables
    return table.events, table.hidden_rows, table.raw_lines


STRAYS = """
SELECT DISTINCT batch, event_time, insert_id FROM (
    SELECT export_batch AS batch, event_time, insert_id FROM events
    UNION ALL SELECT batch, event_time, insert_id FROM _export_duplicates
) JOIN _export_batches USING (batch)
WHERE event_time IS NULL OR event_time::DATE NOT BETWEEN from_date AND to_date ORDER BY ALL
"""
"""The keys of all rows outside the days of their batch, visible or hidden."""


def check_ledger(db: Path, table: str = "events") -> None:
    """The ledger counts the rows that the tables have, and the stray ones among them."""
    expected = query(
        db,
        f"""
        WITH stored AS (
            SELECT export_batch AS batch, event_time, true AS visible FROM "{table}"
            UNION ALL SELECT batch, event_time, false FROM _export_duplicates
        ), lines AS (SELECT batch, reason FROM _export_rejects)
        SELECT batch, count(*) FILTER (visible), count(*) FILTER (event_time::DATE NOT BETWEEN from_date AND to_date),
            min(event_time) FILTER (event_time::DATE NOT BETWEEN from_date AND to_date),
            max(event_time) FILTER (event_time::DATE NOT BETWEEN from_date AND to_date),
            count(*) FILTER (visible IS NOT NULL AND event_time IS NULL),
            (SELECT count(*) FROM lines WHERE lines.batch = b.batch AND reason = 'rejected'),
            (SELECT count(*) FROM lines WHERE lines.batch = b.batch AND reason = 'repaired')
        FROM _export_batches AS b LEFT JOIN stored USING (batch) WHERE table_name = '{table}' GROUP BY batch ORDER BY batch
        """,
    )
    columns = "batch, rows, outside_rows, outside_first, outside_last, timeless_rows, rejects, repaired"
    assert (
        query(db, f"SELECT {columns} FROM _export_batches WHERE table_name = '{table}' ORDER BY batch")
        == expected
    )


PERSONS = st.sampled_from([ID, "zebra-9f3", "x", "ü\"\\'"])


EVENTS = st.lists(
    st.builds(
        lambda number, day, person, user: line(number, day, person, **({"$user_id": user} if user else {})),
        st.integers(0, 3),
        st.sampled_from([FIRST, LAST, "2020-01-01", None]),
        PERSONS,
        st.none() | PERSONS,
    ),
    max_size=8,
)


@given(
    days=st.fixed_dictionaries({FIRST: EVENTS, LAST: EVENTS}),
    ids=st.sets(PERSONS, min_size=1),
    user=st.booleans(),
)
@examples(core=3, full=30)
def test_the_table_is_the_table_without_the_persons(
    days: dict[str, list[bytes]], ids: set[str], user: bool
) -> None:
    """For any events, the other rows are unchanged, the ledger matches, and `resume` requests nothing."""
    with TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        db = Path(folder, "events.duckdb")
        load(db, days)
        before = Counter(query(db, f"SELECT {FIVE}, export_batch FROM events"))
        rest = Counter(
            {
                row: number
                for row, number in before.items()
                if row[2] not in ids and not (user and json.loads(row[4]).get("$user_id") in ids)
            }
        )
        result = forget(db, *ids, also=["user_id"] if user else [])
        assert counts(result)[0] == (before - rest).total()
        assert Counter(query(db, f"SELECT {FIVE}, export_batch FROM events")) == rest
        check_ledger(db)
        assert query(db, "SELECT DISTINCT * FROM _export_strays ORDER BY ALL") == query(db, STRAYS)
        assert load(db, days) == []
        assert forget(db, *ids, also=["user_id"] if user else []).total == 0


def test_hidden_rows_and_raw_lines_go_too(full: Path) -> None:
    """Duplicates of the events, their keys, and raw lines with the id, escaped or not, are deleted; others stay."""
    assert query(full, "SELECT count(*) FROM _export_duplicates") == [(2,)]
    result = forget(full, ID)
    assert counts(result) == (4, 2, 3)
    assert query(full, "SELECT reason, decode(line) FROM _export_rejects ORDER BY line DESC") == [
        ("rejected", '{"event":"e","properties":{"distinct_id":"zebra-9f312"'),
        ("rejected", "no event"),
    ]
    assert query(full, "SELECT count(*) FROM _export_duplicates UNION ALL SELECT count(*) FROM _export_strays") == [
        (0,), (1,),
    ]  # fmt: skip
    assert query(full, "SELECT distinct_id, count(*) FROM events GROUP BY ALL ORDER BY ALL") == [
        ("nobody", 3),
        ("other", 3),
    ]
    assert query(
        full, "SELECT sum(outside_rows), sum(timeless_rows), sum(removed_duplicates) FROM _export_batches"
    ) == [(1, 0, 0)]
    check_ledger(full)


def test_resume_requests_nothing_and_append_brings_the_person_back(
    full: Path, days: dict[str, list[bytes]]
) -> None:
    """Afterwards the ledger matches the table; events that Mixpanel still has return when their days are fetched again."""
    before = held(full)
    forget(full, ID)
    assert load(full, days) == []
    assert {FIRST, LAST} <= set(load(full, days, mode="append"))
    assert held(full) == before


def test_a_hidden_row_with_the_identity_of_a_removed_one_goes_too(db: Path) -> None:
    """Otherwise the person's event would become visible when the winner's batch is replaced."""
    loser = line(1, LAST, "d", mp_processing_time_ms=1)
    winner = line(1, LAST, "d", mp_processing_time_ms=2, **{"$user_id": ID})
    load(db, {FIRST: [loser, line(8, FIRST, "other")], LAST: [winner, line(9, LAST, "other")]})
    assert counts(forget(db, ID)) == (0, 0, 0)
    assert counts(forget(db, ID, also=["device_id", "user_id"])) == (1, 1, 0)
    check_ledger(db)
    load(db, {FIRST: [line(8, FIRST, "other")], LAST: [line(9, LAST, "other")]}, mode="append")
    assert query(db, "SELECT count(*) FROM events WHERE distinct_id = 'd'") == [(0,)]


@pytest.mark.parametrize(
    "name, key",
    [
        ("user_id", "$user_id"),
        *slow([("device_id", "$device_id"), ("before_identity", "$distinct_id_before_identity")]),
    ],
)
def test_further_properties_are_compared_on_demand(db: Path, name: str, key: str) -> None:
    """Each name selects one property."""
    load(db, {FIRST: [line(1, person="a", **{key: ID}), line(2, person="b")]})
    others = {"user_id", "device_id", "before_identity"} - {name}
    assert forget(db, ID, also=others).total == 0
    assert counts(forget(db, ID, also=[name])) == (1, 0, 0)


class StopError(Exception):
    """Ends an export."""


def test_every_table_and_an_unfinished_replacement_are_searched(
    db: Path, days: dict[str, list[bytes]]
) -> None:
    """All exported tables are searched, or only the given one; other tables are listed and unchanged."""

    def stop(_: BatchProgress) -> None:
        raise StopError

    load(db, days)
    load(db, days, table="More")
    with pytest.raises(StopError):
        load(db, days, mode="replace", max_workers=1, on_batch_complete=stop)
    with closing(duckdb.connect(str(db))) as connection:
        connection.execute("CREATE TABLE mine AS SELECT distinct_id FROM events")
        connection.execute("CREATE VIEW seen AS SELECT distinct_id FROM events")
    assert [table.table for table in forget(db, ID, table="more").tables] == ["More"]
    result = forget(db, ID)
    assert [(table.table, table.replacement, table.events > 0) for table in result.tables] == [
        ("More", False, False), ("events", True, True), ("events", False, True),
    ]  # fmt: skip
    assert result.other_tables == ("mine",)
    check_ledger(db, "_export_replace_events")
    assert FIRST not in load(db, days, mode="replace")  # its batch is in the replacement
    with pytest.raises(TableNotFoundError):
        forget(db, ID, table="mine")


def test_a_table_that_was_dropped_by_hand_leaves_nothing_of_the_person(full: Path) -> None:
    """The ledger tables are searched although the table does not exist."""
    with closing(duckdb.connect(str(full))) as connection:
        connection.execute("DROP TABLE events")
    assert counts(forget(full, ID)) == (0, 2, 3)
    assert query(full, "SELECT count(*) FROM _export_duplicates") == [(0,)]


def test_imported_tables_are_searched(tmp_path: Path) -> None:
    """A file of mixpanel_data can be used once it is upgraded."""
    old = made(tmp_path / "old.db", noons(FIRST, 9))
    with pytest.raises(DatabaseError, match="mpx upgrade"):
        forget(old, "u1")
    upgrade_database(old)
    expected = query(old, "SELECT count(*) FROM events WHERE distinct_id <> 'u1'")
    assert counts(forget(old, "u1"))[0] == 9 - expected[0][0] > 0
    assert (
        query(old, "SELECT sum(rows) FROM _export_batches")
        == expected
        == query(old, "SELECT count(*) FROM events")
    )


def test_an_id_is_never_sql(full: Path) -> None:
    """Quotes and wildcards have no meaning."""
    before = held(full)
    assert forget(full, "' OR true --", '" OR 1=1', "%", ".*", "zebra-....").total == 0
    assert held(full) == before


def test_the_bytes_are_in_the_file_until_it_is_copied(db: Path, tmp_path: Path) -> None:
    """After deletion and a checkpoint, the file still has bytes of the id; a copy has none, and can be exported into."""
    sim = simulator(events_per_day=500)
    run_sync(export, sim, db, FIRST, LAST, chunk_days=1)
    with closing(duckdb.connect(str(db))) as connection:
        connection.execute(
            "UPDATE events SET distinct_id = ? WHERE insert_id IN (SELECT insert_id FROM events WHERE insert_id <> '' LIMIT 9)",
            [ID],
        )
    assert ID.encode() in db.read_bytes()
    assert forget(db, ID).total == 9
    assert not db.with_name(f"{db.name}.wal").exists()
    assert ID.encode() in db.read_bytes()
    copy = tmp_path / "copy.duckdb"
    with closing(duckdb.connect(str(db))) as connection:
        connection.execute(f"ATTACH '{copy}' AS fresh; COPY FROM DATABASE {db.stem} TO fresh")
    assert ID.encode() not in copy.read_bytes()
    assert held(copy) == held(db)
    resumed = run_sync(export, sim, copy, FIRST, LAST, mode="resume")
    assert resumed.successful_batches == 0
    run_sync(export, sim, copy, FIRST, LAST, mode="append")
    assert query(copy, "SELECT count(*) = count(DISTINCT batch) FROM _export_batches") == [(True,)]


def test_the_result_can_be_written_as_json(full: Path) -> None:
    """`to_dict` has the path, each table and the tables that were not searched."""
    result = forget(full, ID)
    assert result.tables == (ForgottenTable("events", 4, 2, 3),)
    assert json.loads(json.dumps(result.to_dict())) == {
        "path": str(full),
        "tables": [
            {
                "table": "events",
                "events": 4,
                "hidden_rows": 2,
                "raw_lines": 3,
                "replacement": False,
                "type": "events",
            }
        ],
        "other_tables": [],
    }
