"""Reading a database: unchanged, as soon as it is free, and with errors that name the problem."""

import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, date, datetime
from pathlib import Path

import duckdb
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from shell import held_by_another
from support import export, query, simulator

from mixpanel_export._database.connection import connected_for_export
from mixpanel_export._database.ledger import Ledger
from mixpanel_export._database.schema import create_ledger
from mixpanel_export._local.reader import (
    interruptible,
    read_contents,
    reading,
    rows_per_day,
    run_query,
    write_parquet,
)
from mixpanel_export._model import Batch, Chunk, Selection
from mixpanel_export._timezones import in_zone
from mixpanel_export.errors import DatabaseError, DatabaseLockedError, DatabaseNotFoundError, TableFormatError

DAY = date(2024, 3, 1)
ZONES = ["UTC", "US/Pacific", "Asia/Kathmandu", "Australia/Lord_Howe", "America/St_Johns"]


@pytest.fixture
def db(tmp_path: Path) -> Path:
    return tmp_path / "events.duckdb"


def as_text(column: str, kind: str) -> str:
    return f"{column}::VARCHAR"


def test_a_file_that_becomes_free_is_opened(db: Path) -> None:
    """A reader is told once whom it waits for, and reads as soon as the other process has closed the file."""
    told: list[DatabaseLockedError] = []
    looks = 0

    def sleep(_: float) -> None:
        nonlocal looks
        looks += 1
        if looks == 2:
            holder.communicate("\n")

    with held_by_another(db) as holder:
        waiting = reading(db, wait=60, on_wait=told.append, sleep=sleep, clock=lambda: 0.0)
        with waiting as connection:
            assert connection.execute("SELECT 1").fetchall() == [(1,)]
    assert [error.holding_pid for error in told] == [holder.pid]
    assert looks == 2


def test_a_wait_ends_with_its_time(db: Path) -> None:
    """The last attempt is at the end of the time, not earlier, and the error names the process."""
    now = 0.0

    def sleep(seconds: float) -> None:
        nonlocal now
        now += seconds

    with (
        held_by_another(db) as holder,
        pytest.raises(DatabaseLockedError) as caught,
        reading(db, wait=0.5, sleep=sleep, clock=lambda: now),
    ):
        pytest.fail("the file is in use")
    assert caught.value.holding_pid == holder.pid
    assert now == pytest.approx(0.5)


def test_readers_share_a_file(db: Path) -> None:
    """Two readers do not wait for each other."""
    duckdb.connect(str(db)).close()
    with reading(db), reading(db) as connection:
        assert run_query(connection, "SELECT 1", as_text) is not None


def test_a_file_that_is_not_there_is_not_made(db: Path) -> None:
    """The error names the path, and no file is created."""
    with pytest.raises(DatabaseNotFoundError, match="there is no database"), reading(db, wait=60):
        pytest.fail("there is no file")
    assert not db.exists()


def test_a_file_whose_writer_was_killed_can_be_looked_into(db: Path) -> None:
    """Committed rows that are only in DuckDB's log are visible, and the file is unchanged."""
    code = (
        f"import duckdb, os; c = duckdb.connect({str(db)!r}); c.execute('SET checkpoint_threshold = \\'1GB\\'');"
        "c.execute('CREATE TABLE t AS SELECT 1 AS x'); os.kill(os.getpid(), 9) if hasattr(os, 'fork') else os._exit(9)"
    )
    subprocess.run([sys.executable, "-c", code], check=False)
    before = db.read_bytes()
    with reading(db) as connection:
        answer = run_query(connection, "SELECT x FROM t", as_text)
        assert answer is not None
        assert list(answer.rows) == [("1",)]
    assert db.read_bytes() == before


# What people ask


@pytest.mark.parametrize(
    "sql",
    ["DELETE FROM t", "CREATE TABLE u (x INTEGER)", "DROP TABLE t", "UPDATE t SET x = 2", "INSERT INTO t VALUES (3)",
     "COPY t TO 'out.csv'", "EXPORT DATABASE 'out'", "ATTACH ':memory:' AS m; CREATE TABLE m.u AS SELECT 1; SELECT 1",
     "PREPARE p AS COPY t TO 'out.csv'; EXECUTE p"],
)  # fmt: skip
def test_nothing_can_be_changed(db: Path, sql: str) -> None:
    """DuckDB's error has one line, and the file is unchanged."""
    query(db, "CREATE TABLE t AS SELECT 1 AS x")
    before = db.read_bytes()
    with pytest.raises(ValueError, match="SQL: ") as caught, reading(db) as connection:
        run_query(connection, sql, as_text)
    assert "\n" not in str(caught.value)
    assert db.read_bytes() == before


@pytest.mark.parametrize(
    "sql, says",
    [
        ("SELEC 1", "SQL: Parser Error: syntax error"),
        ("SELECT x FROM nope", "SQL: Catalog Error: Table with name nope does not exist!"),
        ("SELECT\n y\nFROM t", 'SQL: Binder Error: Referenced column "y" not found'),
        ("SELECT CAST('a' || x AS INTEGER) FROM t", "SQL: Conversion Error"),
        ("SELECT * FROM t WHERE x = ?", "SQL: the last statement has $1; pass a value"),
        ("SELECT $city FROM t", "SQL: the last statement has $city; pass a value"),
        ("FROM connection", "SQL: Catalog Error: Table with name connection does not exist!"),
    ],
)
def test_wrong_sql_is_one_line(db: Path, sql: str, says: str) -> None:
    """The error may occur before or at the first row; no variable of this program is used as a table."""
    query(db, "CREATE TABLE t AS SELECT 1 AS x")
    with pytest.raises(ValueError, match="SQL: ") as caught, reading(db) as connection:
        answer = run_query(connection, sql, as_text)
        list(answer.rows if answer else ())
    assert str(caught.value).startswith(says)
    assert "\n" not in str(caught.value)


def test_what_is_not_the_sqls_fault_names_the_file(db: Path) -> None:
    """Another file that cannot be read causes a different kind of error."""
    duckdb.connect(str(db)).close()
    with pytest.raises(DatabaseError, match=r"reading from .* failed: IO Error"), reading(db) as connection:
        run_query(connection, "FROM 'nope.parquet'", as_text)


@pytest.mark.parametrize(
    "sql, columns, rows",
    [
        ("SELECT 1 AS a, 2 AS a, NULL AS b", ("a", "a", "b"), [("1", "2", None)]),
        ("SELECT 1 AS a; SELECT 2 AS b;", ("b",), [("2",)]),
        ("VALUES (1), (2)", ("col0",), [("1",), ("2",)]),
        ("FROM range(3) AS t(x) ORDER BY x DESC -- a comment", ("x",), [("2",), ("1",), ("0",)]),
        ("SELECT 1 AS x WHERE false", ("x",), []),
        ("SHOW TABLES", ("name",), [("t",)]),
        ("SELECT column_name FROM (DESCRIBE t)", ("column_name",), [("x",)]),
        ("SELECT 'a;b' AS a ; ", ("a",), [("a;b",)]),
        ("WITH w AS (SELECT 1 AS x) FROM w", ("x",), [("1",)]),
        ("PIVOT t ON x USING count(*)", ("1",), [("1",)]),
        ("SELECT count(*) FROM range(12000)", ("count_star()",), [("12000",)]),
    ],
)
def test_any_statement_with_rows_can_be_asked(
    db: Path, sql: str, columns: tuple[str, ...], rows: list[tuple[str | None, ...]]
) -> None:
    """The rows are those of the last statement, in its order, whatever its columns are named."""
    query(db, "CREATE TABLE t AS SELECT 1 AS x")
    with reading(db) as connection:
        answer = run_query(connection, sql, as_text)
        assert answer is not None
        assert (answer.columns, list(answer.rows)) == (columns, rows)
        assert run_query(connection, "-- nothing", as_text) is None


def test_all_rows_come_however_many(db: Path) -> None:
    """They are fetched in pieces, and none is lost in between."""
    duckdb.connect(str(db)).close()
    with reading(db) as connection:
        answer = run_query(connection, "FROM range(12345) AS t(x) ORDER BY x", as_text)
        assert answer is not None
        assert [int(x or 0) for (x,) in answer.rows] == list(range(12345))


def test_parquet_is_there_when_it_is_whole(db: Path, tmp_path: Path) -> None:
    """It has the rows and their types, replaces an earlier file, and an error leaves that unchanged."""
    query(db, "CREATE TABLE t AS SELECT 1 AS x, '{\"a\":1E5}'::JSON AS j")
    file = tmp_path / "it's.parquet"
    file.write_text("old")
    with reading(db) as connection:
        with pytest.raises(ValueError, match="SQL: Conversion Error"):
            write_parquet(connection, "SELECT CAST('a' || x AS INTEGER) FROM t", file)
        with pytest.raises(OSError, match=r"no rows were written to .*it's\.parquet: IO Error"):
            write_parquet(connection, "FROM 'nope.parquet'", file)
        with pytest.raises(ValueError, match="no statement"):
            write_parquet(connection, "--", file)
        assert file.read_text() == "old"
        assert write_parquet(connection, "FROM t -- all of it", file) == 1
    with duckdb.connect() as connection:
        rows = connection.execute("FROM read_parquet(?)", [str(file)]).fetchall()
    assert rows == [(1, '{"a":1E5}')]
    assert sorted(path.name for path in tmp_path.iterdir()) == [db.name, file.name]


def test_ctrl_c_ends_a_long_query(db: Path) -> None:
    """The query ends long before its result, whether or not DuckDB has started it."""
    duckdb.connect(str(db)).close()
    with reading(db) as connection:

        def call() -> None:
            os.kill(os.getpid(), signal.SIGINT)
            connection.execute(
                "SELECT count(*) FROM range(4000000000000) AS r(x) WHERE hash(x) = 1"
            ).fetchall()

        with pytest.raises(KeyboardInterrupt):
            interruptible(connection, call)


# What exports left


def test_a_table_that_has_taken_the_name_of_an_exports_is_another(db: Path) -> None:
    """The exported table was dropped, so the new table is the user's."""
    with connected_for_export(db) as connection:
        create_ledger(connection)
        Ledger(connection, "events", Selection("1"), "UTC").write(
            [Batch(1, Chunk(DAY, DAY), "complete", selection=Selection("1"), table="events", attempts=1)]
        )
        connection.execute("CREATE TABLE events AS SELECT 1 AS x")
    with reading(db) as connection:
        found = read_contents(connection)
    assert [known.dropped for known in found.coverages] == [True]
    assert found.others == ("events",)


@pytest.mark.anyio
async def test_the_contents_are_the_ledgers(db: Path) -> None:
    """Tables, selections, an unfinished replacement and tables that were not exported are distinguished."""
    sim = simulator()
    await export(sim, db, last="2024-03-03")
    await export(sim, db, first="2024-03-06", last="2024-03-07", mode="append")
    await export(sim, db, table="some", events=["B", "A"], where='properties["x"] == 1')
    query(db, "CREATE TABLE other AS SELECT 1 AS x; CREATE TABLE _hidden AS SELECT 1 AS x")
    with reading(db) as connection:
        found = read_contents(connection)
    whole, some = found.coverages
    assert whole.statuses == {"complete": 5, "missing": 2}
    assert whole.total_rows == query(db, "SELECT count(*) FROM events")[0][0]
    assert whole.mismatches == ()
    assert (some.table, some.selection.events, some.selection.where) == (
        "some", ("A", "B"), 'properties["x"] == 1',
    )  # fmt: skip
    assert found.others == ("other",)
    assert found.replacements == ()


def test_a_newer_ledger_is_refused(db: Path) -> None:
    """Its meaning is unknown."""
    query(
        db,
        "CREATE TABLE _export_batches (x INTEGER); COMMENT ON TABLE _export_batches IS 'mixpanel_export ledger 99'",
    )
    with pytest.raises(TableFormatError, match="99"), reading(db) as connection:
        read_contents(connection)


def test_a_file_without_exports_has_other_tables_only(db: Path) -> None:
    """It need not have a ledger."""
    query(db, "CREATE TABLE other AS SELECT 1 AS x")
    with reading(db) as connection:
        found = read_contents(connection)
    assert (found.coverages, found.replacements, found.others) == ((), (), ("other",))


@pytest.fixture(scope="module")
def memory() -> Iterator[duckdb.DuckDBPyConnection]:
    with duckdb.connect() as connection:
        yield connection


@given(
    st.lists(st.datetimes(datetime(1972, 2, 1), datetime(2030, 1, 1)) | st.none(), min_size=1, max_size=20),
    st.sampled_from(ZONES),
)
@settings(max_examples=50)
def test_rows_belong_to_the_day_that_clocks_of_the_zone_show(
    memory: duckdb.DuckDBPyConnection, times: list[datetime | None], zone: str
) -> None:
    """Rows counted by quarter of an hour equal those counted one by one, in any zone."""
    memory.execute("CREATE OR REPLACE TABLE t (event_time TIMESTAMP, export_batch INTEGER)")
    memory.executemany("INSERT INTO t VALUES (?, 1)", [[time] for time in times])
    shown = Counter(time and in_zone(time.replace(tzinfo=UTC), zone).date() for time in times)
    assert rows_per_day(memory, "t", zone) == {1: shown}


@pytest.mark.parametrize(
    "time, zone, day",
    [
        ("1969-12-30 23:59:59", "UTC", date(1969, 12, 30)),
        ("0001-01-01 00:00:00", "UTC", date(1, 1, 1)),
        ("0001-01-01 00:00:00", "US/Pacific", None),
        ("9999-12-31 23:59:00", "Asia/Tokyo", None),
        ("290000-01-01 00:00:00", "UTC", None),
    ],
)
def test_times_far_away_are_counted(
    memory: duckdb.DuckDBPyConnection, time: str, zone: str, day: date | None
) -> None:
    """Days before 1970 are also rounded down, and a day outside Python's range is None, not an error."""
    memory.execute(f"CREATE OR REPLACE TABLE t AS SELECT TIMESTAMP '{time}' AS event_time, 1 AS export_batch")
    assert rows_per_day(memory, "t", zone) == {1: {day: 1}}
