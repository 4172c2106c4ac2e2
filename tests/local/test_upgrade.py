"""Databases of mixpanel_data are upgraded: with every row and all that is known about them, or not at all."""

import json
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory

import duckdb
import pytest
from click.testing import CliRunner, Result
from examples import examples, slow
from hypothesis import given
from hypothesis import strategies as st
from old_files import CLAIMED, EVENTS, FETCHED, FIVE, METADATA, imported, made, noons, rows
from support import export, held, ledger, query, simulator, truth

from mixpanel_export import (
    DatabaseError,
    SelectionError,
    TableExistsError,
    TableFormatError,
    UpgradedTable,
    Workspace,
    upgrade_database,
)
from mixpanel_export.cli import cli
from mixpanel_export.simulator import checksum

SIX = ["event_name", "event_time", "distinct_id", "insert_id", "properties", "export_batch"]


PROFILES = """
CREATE TABLE people (distinct_id VARCHAR PRIMARY KEY, properties JSON, last_seen TIMESTAMP);
INSERT INTO people VALUES ('u1', '{"$city": "Nürnberg"}', '2024-03-02');
INSERT INTO _metadata VALUES ('people', 'profiles', '2024-04-05 06:07:08', NULL, NULL, 1);
"""


@pytest.fixture
def old(tmp_path: Path) -> Path:
    """A file of mixpanel_data's with the events of nine days, and nothing else."""
    return made(tmp_path / "12345.db", noons("2024-03-01", 9))


def test_every_row_is_kept_as_it_was(old: Path) -> None:
    """The five columns are unchanged, the sixth has the imported batch, and the primary key is removed."""
    before = rows(old)
    result = upgrade_database(old)
    assert result.tables == (UpgradedTable("events", 9, (CLAIMED,)),)
    assert rows(old) == before
    schema = Workspace.open(old).table_schema("events")
    assert [column.name for column in schema.columns] == SIX
    assert not any(column.primary_key for column in schema.columns)
    assert imported(old) == [(*CLAIMED, 9, 9)]


def test_the_upgraded_table_is_listed_as_fetched(old: Path) -> None:
    """It is a table of events with mixpanel_data's time of the fetch, and `_metadata` is the view that exports maintain."""
    upgrade_database(old)
    with Workspace.open(old) as workspace:
        (table,) = workspace.tables()
        assert (table.name, table.type, table.row_count) == ("events", "events", 9)
        assert table.fetched_at == datetime.fromisoformat(FETCHED).replace(tzinfo=UTC)
        seen = workspace.sql_rows("SELECT table_name, from_date, row_count, missing_days FROM _metadata").rows
    assert seen == [("events", None, 9, None)]


def test_everything_else_in_the_file_stays(old: Path) -> None:
    """The user's own tables and views are unchanged."""
    with duckdb.connect(str(old)) as connection:
        connection.execute(
            f"CREATE TABLE copied AS SELECT {FIVE} FROM events; CREATE VIEW seen AS SELECT * FROM events"
        )
        connection.execute("CREATE TABLE keyed (insert_id VARCHAR PRIMARY KEY)")
    kept = [
        "SELECT sql FROM duckdb_tables() WHERE table_name IN ('copied', 'keyed') ORDER BY 1",
        "FROM copied ORDER BY insert_id",
        "SELECT count(*) FROM seen",
    ]
    before = [query(old, sql) for sql in kept]
    assert [table.name for table in upgrade_database(old).tables] == ["events"]
    assert [query(old, sql) for sql in kept] == before


def test_profiles_are_upgraded(tmp_path: Path) -> None:
    """Every profile is kept with the text of its properties, and the table can be flattened, updated and replaced."""
    old = made(tmp_path / "12345.db", noons("2024-03-01", 1))
    query(old, PROFILES)
    before = query(old, "FROM people")
    assert upgrade_database(old).tables[1] == UpgradedTable("people", 1, (), type="profiles")
    assert query(old, "SELECT * EXCLUDE (export_batch) FROM people") == before
    with Workspace.open(old, read_only=False) as workspace:
        (table,) = [table for table in workspace.tables() if table.type == "profiles"]
        assert table.fetched_at == datetime(2024, 4, 5, 6, 7, 8, tzinfo=UTC)
        assert not any(column.primary_key for column in workspace.table_schema("people").columns)
        assert workspace.flatten("people").rows == 1
        assert workspace.forget("u1", table="people").total == 1
    assert upgrade_database(old).tables == ()


def test_profiles_that_an_earlier_release_left_are_upgraded(tmp_path: Path) -> None:
    """It renamed `_metadata`, which still has the time of the fetch."""
    old = made(tmp_path / "12345.db", noons("2024-03-01", 1))
    upgrade_database(old)
    with duckdb.connect(str(old)) as connection:
        connection.execute(METADATA.replace("_metadata", "_export_profiles"))
        connection.execute(PROFILES.replace("INSERT INTO _metadata", "INSERT INTO _export_profiles"))
        connection.execute("DROP VIEW _metadata; CREATE VIEW _metadata AS FROM _export_profiles")
    assert [table.name for table in upgrade_database(old).tables] == ["people"]
    assert query(old, "SELECT table_name, type, row_count FROM _metadata ORDER BY 1") == [
        ("events", "events", 1),
        ("people", "profiles", 1),
    ]
    assert query(old, "SELECT finished FROM _export_snapshots") == [(datetime(2024, 4, 5, 6, 7, 8),)]
    assert query(old, "SELECT count(*) FROM duckdb_tables() WHERE table_name = '_export_profiles'") == [(0,)]


@pytest.mark.anyio
async def test_metadata_keeps_the_rows_of_events_beside_profiles(old: Path) -> None:
    """In an upgraded file, `_metadata` has tables of events and profiles, follows exports, and omits dropped tables."""
    query(old, PROFILES)
    upgrade_database(old)
    rows = "SELECT table_name, type, row_count FROM _metadata ORDER BY 1"
    assert query(old, rows) == [("events", "events", 9), ("people", "profiles", 1)]
    result = await export(simulator(), old, "2024-03-10", "2024-03-12", mode="append")
    assert query(old, rows) == [("events", "events", 9 + result.total_rows), ("people", "profiles", 1)]
    with Workspace(path=old) as workspace:
        assert [table.name for table in workspace.tables()] == ["events", "people"]
        workspace.drop("people")
    assert [name for name, *_ in query(old, rows)] == ["events"]
    assert upgrade_database(old).tables == ()


def test_all_tables_go_together(old: Path) -> None:
    """Several tables of events are upgraded together, each with separate batches."""
    made(old, noons("2024-02-01", 3), table="february", claim=("2024-02-01", "2024-02-03"))
    result = upgrade_database(old)
    assert [(table.name, table.row_count) for table in result.tables] == [("events", 9), ("february", 3)]
    batches = query(
        old, "SELECT DISTINCT export_batch FROM events UNION ALL SELECT DISTINCT export_batch FROM february"
    )
    assert len(set(batches)) == 2


def test_upgrading_twice_changes_nothing(old: Path) -> None:
    """The second call has nothing to do, and says so."""
    upgrade_database(old)
    everything = rows(old), ledger(old, "*")
    assert upgrade_database(str(old)).tables == ()
    assert (rows(old), ledger(old, "*")) == everything


def test_a_table_that_mixpanel_data_makes_afterwards_is_upgraded_too(old: Path) -> None:
    """A new table is found along with upgraded tables and the view that replaced `_metadata`."""
    upgrade_database(old)
    with duckdb.connect(str(old)) as connection:
        connection.execute(EVENTS.format("later"))
    assert [table.name for table in upgrade_database(old).tables] == ["later"]
    assert query(old, "SELECT table_name, row_count FROM _metadata") == [("events", 9)]


def test_without_claims_the_days_of_the_rows_are_imported(tmp_path: Path) -> None:
    """A table that is not in `_metadata`, for example after an interrupted fetch, gets the days of its rows."""
    times = [*noons("2024-03-01", 2), *noons("2024-03-05", 1)]
    old = made(tmp_path / "x.db", times, claim=None)
    (table,) = upgrade_database(old).tables
    assert table.date_ranges == (("2024-03-01", "2024-03-02"), ("2024-03-05", "2024-03-05"))
    assert imported(old) == [("2024-03-01", "2024-03-02", 2, 2), ("2024-03-05", "2024-03-05", 1, 1)]


def test_an_empty_table_has_no_days_but_those_claimed(tmp_path: Path) -> None:
    """Without rows and recorded days, nothing is imported; recorded days are, even without rows."""
    nothing = made(tmp_path / "nothing.db", [], claim=None)
    assert upgrade_database(nothing).tables == (UpgradedTable("events", 0, ()),)
    claimed = made(tmp_path / "claimed.db", [])
    assert upgrade_database(claimed).tables == (UpgradedTable("events", 0, (CLAIMED,)),)


def test_rows_at_the_ends_of_time_are_kept(tmp_path: Path) -> None:
    """Infinity and years outside Python's range are kept, and counted on the first day of 1970."""
    db = made(tmp_path / "old.db", noons("2024-03-01", 2))
    odd = ["infinity", "-infinity", "0044-03-15 (BC) 12:00:00", "294246-01-01 00:00:00"]
    with duckdb.connect(str(db)) as connection:
        connection.execute(
            "INSERT INTO events SELECT 'Odd', time::TIMESTAMP, 'u', 'odd' || time, '{}' FROM (SELECT unnest(?) AS time)",
            [odd],
        )
    sql = "SELECT insert_id, event_time::VARCHAR FROM events ORDER BY ALL"
    before = query(db, sql)
    (table,) = upgrade_database(db).tables
    assert query(db, sql) == before
    assert table.row_count == len(before)
    assert table.date_ranges[0] == ("1970-01-01", "1970-01-01")


def test_a_table_of_the_user_is_not_mixed_in(old: Path) -> None:
    """If a table has the name that the rows would be copied to, the upgrade is refused, and nothing changes."""
    query(old, "CREATE TABLE _export_upgrade_events AS SELECT *, 1 AS export_batch FROM events")
    before = rows(old)
    with pytest.raises(DatabaseError, match="_export_upgrade_events"):
        upgrade_database(old)
    assert rows(old) == before


def test_rows_on_unclaimed_days_are_batches_of_their_own(tmp_path: Path) -> None:
    """Rows outside the recorded days are imported too, so their days are not fetched again."""
    west = datetime(2024, 3, 10, 11, 59)
    east = datetime(2024, 2, 29, 10)
    odd = datetime(1970, 1, 1)
    times = [*noons("2024-03-01", 9), west, east, datetime(2024, 3, 20, 5), odd]
    old = made(tmp_path / "x.db", times)
    upgrade_database(old)
    assert imported(old) == [
        ("1970-01-01", "1970-01-01", 1, 1),
        (*CLAIMED, 11, 11),
        ("2024-03-20", "2024-03-20", 1, 1),
    ]


@given(
    hours=st.lists(st.integers(0, 24 * 20), max_size=30),
    claim=st.none() | st.tuples(st.integers(0, 20), st.integers(0, 20)).map(sorted),
)
@examples(core=5, full=40)
def test_every_row_is_in_an_imported_batch_near_its_day(hours: list[int], claim: list[int] | None) -> None:
    """For all rows and recorded days, the batches are disjoint and contain every recorded day and every row."""
    start = datetime(2024, 3, 1)
    claimed = claim and tuple(str((start + timedelta(days=day)).date()) for day in claim)
    with TemporaryDirectory() as folder:
        old = made(
            Path(folder, "x.db"),
            [start + timedelta(hours=hour) for hour in hours],
            claim=(claimed[0], claimed[1]) if claimed else None,
        )
        before = rows(old)
        (table,) = upgrade_database(old).tables
        assert rows(old) == before
        placed = query(
            old,
            "SELECT batch, from_date, to_date, event_time FROM events JOIN _export_batches ON export_batch = batch",
        )
        batches = query(old, "SELECT from_date, to_date, rows FROM _export_batches ORDER BY from_date")
    assert len(placed) == len(hours) == table.row_count == sum(count for _, _, count in batches)
    for _, first, last, time in placed:
        assert first - timedelta(days=1) <= time.date() <= last + timedelta(days=1)
    days = [first + timedelta(days=n) for first, last, _ in batches for n in range((last - first).days + 1)]
    assert len(days) == len(set(days))
    if claimed:
        assert date.fromisoformat(claimed[0]) in days
        assert date.fromisoformat(claimed[1]) in days


@pytest.mark.anyio
@pytest.mark.parametrize("mode", ["append", "resume"])
@pytest.mark.parametrize(
    "days",
    [
        ("2024-03-09", "2024-03-10"),
        *slow([(("2024-03-01", "2024-03-09"),), (("2024-02-28", "2024-03-01"),)]),
    ],
)
async def test_imported_days_prove_nothing(mode: str, days: tuple[str, str], old: Path) -> None:
    """Fetching imported days requires replace; otherwise, there is an error before any request, and nothing changes."""
    upgrade_database(old)
    before = rows(old), ledger(old, "*")
    sim = simulator()
    with pytest.raises(SelectionError, match=r"from mixpanel_data.*replace"):
        await export(sim, old, *days, mode=mode)
    assert not sim.requests
    assert (rows(old), ledger(old, "*")) == before


@pytest.mark.anyio
@pytest.mark.parametrize("mode", ["append", "resume"])
async def test_other_days_can_be_added(mode: str, old: Path) -> None:
    """Other days are fetched into the table as usual, once."""
    upgrade_database(old)
    before = rows(old)
    sim = simulator()
    await export(sim, old, "2024-03-10", "2024-03-12", mode=mode)
    fetched = len(sim.requests)
    result = await export(sim, old, "2024-03-10", "2024-03-12", mode="resume")
    assert (result.successful_batches, len(sim.requests)) == (0, fetched)
    imports = "SELECT batch FROM _export_batches WHERE status = 'imported'"
    theirs = f"SELECT {FIVE} FROM events WHERE export_batch IN ({imports}) ORDER BY insert_id"
    assert query(old, theirs) == before
    ours = query(old, f"SELECT {FIVE} FROM events WHERE export_batch NOT IN ({imports})")
    assert checksum(ours) == truth(sim, "2024-03-10", "2024-03-12")


@pytest.mark.anyio
async def test_replace_brings_the_proven_days(old: Path) -> None:
    """Replacing the table replaces the imported rows with Mixpanel's, and the ledger omits them."""
    upgrade_database(old)
    sim = simulator()
    await export(sim, old, mode="replace")
    assert held(old) == truth(sim)
    assert {status for (status,) in ledger(old, "status")} == {"complete"}


@pytest.mark.anyio
async def test_times_of_a_legacy_project_are_not_mixed(old: Path) -> None:
    """mixpanel_data treated local times as UTC, so days with converted times are not added to them."""
    upgrade_database(old)
    with pytest.raises(SelectionError, match="US/Pacific"):
        await export(
            simulator(), old, "2024-03-20", "2024-03-21", mode="append", project_timezone="US/Pacific"
        )


@pytest.mark.anyio
@pytest.mark.parametrize("mode", ["append", "resume", "create"])
async def test_before_the_upgrade_the_error_names_it(mode: str, old: Path) -> None:
    """The error of an export into mixpanel_data's table names the command to run."""
    with pytest.raises(TableExistsError if mode == "create" else TableFormatError, match="mpx upgrade"):
        await export(simulator(), old, mode=mode)


def test_a_file_of_an_older_format_stays_one(tmp_path: Path) -> None:
    """If the file's storage version has no zstd, it keeps its version, so the DuckDB that wrote it can still read it."""
    old = tmp_path / "x.db"
    with duckdb.connect() as connection:
        connection.execute(f"ATTACH '{old}' AS made (STORAGE_VERSION 'v1.0.0')")
    made(old, noons("2024-03-01", 9))
    upgrade_database(old)
    version = (
        "SELECT tags['storage_version'] FROM duckdb_databases() WHERE database_name = current_database()"
    )
    assert query(old, version)[0][0].startswith("v1.0.0")
    assert imported(old) == [(*CLAIMED, 9, 9)]


def mpx(*words: str) -> Result:
    return CliRunner().invoke(cli, ["upgrade", *words], prog_name="mpx")


def test_the_command_says_what_it_did(old: Path) -> None:
    """`mpx upgrade` prints each table with its rows and days; a second call prints that there is nothing to do."""
    done = mpx(str(old))
    assert (done.exit_code, done.stderr) == (0, "")
    assert done.stdout == "events: 9 rows upgraded, imported 2024-03-01 to 2024-03-09\n"
    again = mpx(str(old))
    assert (again.exit_code, again.stderr) == (0, "")
    assert again.stdout == f"{old} has no tables of mixpanel_data. Nothing was changed.\n"


def test_the_command_speaks_json(old: Path) -> None:
    """With --json the result is one object."""
    done = mpx(str(old), "--json")
    assert json.loads(done.stdout) == {
        "path": str(old),
        "tables": [{"name": "events", "row_count": 9, "date_ranges": [list(CLAIMED)], "type": "events"}],
    }


def test_the_command_fails_in_one_line(tmp_path: Path) -> None:
    """A missing file is exit code 4, a file of another kind 1, each with one line."""
    missing = mpx(str(tmp_path / "none.db"))
    assert (missing.exit_code, missing.stderr.count("\n")) == (4, 1)
    (tmp_path / "x.db").touch()
    foreign = mpx(str(tmp_path / "x.db"))
    assert (foreign.exit_code, foreign.stderr.count("\n")) == (1, 1)
    assert "not created by mixpanel_data" in foreign.stderr
