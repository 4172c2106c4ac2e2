"""A table is dropped together with everything recorded about it, or not at all."""

from datetime import datetime
from pathlib import Path

import databases
import pytest
from old_files import made_with_people
from support import export, held, ledger, query, simulator, truth

from mixpanel_export import (
    BatchProgress,
    DatabaseError,
    ExportRunningError,
    TableFormatError,
    TableInfo,
    TableNotFoundError,
    Workspace,
    run_sync,
)
from mixpanel_export._database.schema import LEDGER_TABLES
from mixpanel_export.simulator import Fault, Simulator

db = databases.db
workspace = databases.workspace


# Dropping


_files: dict[tuple[str, ...], bytes] = {}
"""The contents of the files of `exported`, by their tables."""


def exported(db: Path, *tables: str) -> Simulator:
    """Make a file with these tables, and return their project. Later files with the same tables are copies."""
    if tables in _files:
        db.write_bytes(_files[tables])
    else:
        for table in tables:
            run_sync(export, simulator(), db, table=table)
        _files[tables] = db.read_bytes()
    return simulator()


def books(db: Path) -> list[tuple[int, ...]]:
    """Return how many rows each of the ledger's tables has."""
    return query(db, "SELECT " + ", ".join(f"(SELECT count(*) FROM {table})" for table in LEDGER_TABLES))


def test_dropping_takes_the_books_along(tmp_path: Path) -> None:
    """The table's rows, ledger rows, rejects, hidden duplicates and strays are deleted, those of another table stay."""
    db = tmp_path / "x.duckdb"
    sim = exported(db, "events", "others")
    for number, table in enumerate(("events", "others")):
        batch = f"(SELECT min(batch) FROM _export_batches WHERE table_name = '{table}')"
        query(db, f"INSERT INTO _export_rejects SELECT {batch}, 'no event', 'x{number}'::BLOB")
        query(db, f"INSERT INTO _export_duplicates (batch, lost_to) SELECT {batch}, {batch}")
    ((batches, *_, timeless),) = books(db)
    assert timeless
    with Workspace(path=db) as workspace:
        workspace.drop("EVENTS")
        assert [table.name for table in workspace.tables()] == ["others"]
    assert books(db) == [(batches // 2, 1, 1, timeless // 2)]
    assert query(db, "SELECT DISTINCT table_name FROM _export_batches") == [("others",)]
    assert query(db, "SELECT table_name FROM _metadata") == [("others",)]
    assert held(db, "others") == truth(sim)


def test_a_table_of_an_older_release_can_be_dropped_and_one_of_a_newer_cannot(tmp_path: Path) -> None:
    """A drop handles everything that an older ledger records about the table, but not what a newer ledger may have."""
    db = tmp_path / "x.duckdb"
    exported(db, "events", "others")
    query(db, "DROP TABLE _export_strays")
    query(db, "COMMENT ON TABLE _export_batches IS 'mixpanel_export ledger 1'")
    with Workspace(path=db) as workspace:
        workspace.drop("events")
        query(db, "COMMENT ON TABLE _export_batches IS 'mixpanel_export ledger 99'")
        with pytest.raises(TableFormatError, match="update mpx-export"):
            workspace.drop("others")
        assert [table.name for table in workspace.tables()] == ["others"]


def test_after_a_drop_resume_starts_from_nothing(tmp_path: Path) -> None:
    """For exports, a dropped table does not exist: resume fetches all of it, and create creates it."""
    db = tmp_path / "x.duckdb"
    sim = exported(db, "events")
    for number, mode in enumerate(("resume", "create"), 1):
        with Workspace(path=db) as workspace:
            workspace.drop("events")
        run_sync(export, sim, db, mode=mode)
        assert len(sim.requests) == 3 * number
        assert held(db) == truth(sim)


def test_dropping_takes_along_what_a_replace_has_left(tmp_path: Path) -> None:
    """An interrupted replacement is dropped with its table, or alone if there is no table."""
    db = tmp_path / "x.duckdb"
    fault = Fault("500", first=datetime(2024, 3, 9).date(), last=datetime(2024, 3, 9).date())
    for there in (True, False):
        sim = simulator()
        if there:
            run_sync(export, sim, db)
        sim.faults = [fault]
        run_sync(export, sim, db, mode="replace", retries=0)
        shadow = "SELECT count(*) FROM duckdb_tables() WHERE table_name = '_export_replace_events'"
        assert query(db, shadow) == [(1,)]
        with Workspace(path=db) as workspace:
            workspace.drop("events")
        assert query(db, shadow) == [(0,)]
        assert books(db) == [(0, 0, 0, 0)]


def test_dropping_is_all_or_nothing(workspace: Workspace) -> None:
    """If one of the tables cannot be dropped, none is; a table named twice is dropped once."""
    with pytest.raises(TableNotFoundError):
        workspace.drop("events", "and mine", "nothing", force=True)
    assert [table.name for table in workspace.tables(all=True)] == ["and mine", "events"]
    workspace.drop("events", "Events", "and mine", force=True)
    assert workspace.tables(all=True) == []
    workspace.drop()


def test_the_books_cannot_be_dropped(tmp_path: Path) -> None:
    """Tables whose names begin with an underscore are internal, so they are neither listed nor dropped."""
    db = tmp_path / "x.duckdb"
    exported(db, "events")
    with Workspace(path=db) as workspace:
        for name in ("_export_batches", "_metadata", "_nothing"):
            with pytest.raises(ValueError, match="begin with _"):
                workspace.drop("events", name)
        assert [table.name for table in workspace.tables()] == ["events"]
    assert len(ledger(db)) > 0


def test_a_view_is_no_table_to_drop(workspace: Workspace) -> None:
    """`drop` drops tables only."""
    with pytest.raises(TableNotFoundError):
        workspace.drop("seen")
    assert workspace.sql_scalar("SELECT count(*) FROM seen") == 5


def test_a_transaction_of_the_users_is_left_alone(workspace: Workspace) -> None:
    """A drop during the user's own open transaction succeeds, or changes nothing and says so."""
    connection = workspace.connection
    connection.execute("BEGIN; CREATE TABLE uncommitted AS SELECT 1 AS n")
    workspace.drop("and mine", force=True)
    connection.execute("COMMIT")
    assert [table.name for table in workspace.tables(all=True)] == ["events", "uncommitted"]
    connection.execute("BEGIN; ALTER TABLE events ADD COLUMN more INTEGER")
    with pytest.raises(DatabaseError, match=r"cannot drop events.*nothing was dropped"):
        workspace.drop("events", force=True)
    connection.execute("COMMIT")
    assert len(workspace.table_schema("events").columns) == 7


def test_nothing_is_dropped_during_an_export(tmp_path: Path) -> None:
    """A callback that drops the table of its own export gets an error, and the export fetches all events."""
    db = tmp_path / "x.duckdb"
    sim = simulator()
    refused: list[str] = []

    def drop(_: BatchProgress) -> None:
        with pytest.raises(ExportRunningError) as caught, Workspace(path=db) as workspace:
            workspace.drop("events")
        refused.append(caught.value.code)

    run_sync(export, sim, db, on_batch_complete=drop)
    assert set(refused) == {"EXPORT_RUNNING"}
    assert held(db) == truth(sim)


def test_drop_all_takes_what_was_fetched(tmp_path: Path) -> None:
    """`drop_all` drops exported tables, or those of one type, and keeps the user's own."""
    db = tmp_path / "x.duckdb"
    exported(db, "one", "two")
    with Workspace(path=db) as workspace:
        workspace.connection.execute("CREATE TABLE mine AS SELECT 1 AS n")
        workspace.drop_all(type="profiles")
        assert [table.name for table in workspace.tables()] == ["one", "two"]
        workspace.drop_all("events")
        assert workspace.tables() == []
        workspace.drop_all()
        assert [table.to_dict() for table in workspace.tables(all=True)] == [
            {"name": "mine", "type": None, "row_count": 1, "fetched_at": None}
        ]


def test_a_table_that_took_the_name_of_a_fetched_one_is_the_users(tmp_path: Path) -> None:
    """The name is still in the ledger, but the table is the user's, so `drop_all` keeps it."""
    db = tmp_path / "x.duckdb"
    exported(db, "one", "two")
    query(db, "DROP TABLE one; CREATE TABLE one AS SELECT 42 AS n")
    with Workspace(path=db) as workspace:
        workspace.drop_all()
        assert workspace.tables(all=True) == [TableInfo("one", None, 1, None)]


@pytest.mark.usefixtures("account_in_environment")
def test_dropping_what_is_listed_leaves_tables_of_the_user(tmp_path: Path) -> None:
    """`tables` lists only exported tables, and `drop` refuses others unless *force* is true."""
    db = tmp_path / "x.duckdb"
    exported(db, "events")
    query(db, "CREATE TABLE mine AS FROM events")
    with Workspace(path=db) as workspace:
        assert workspace.info().tables == ["events"]
        with pytest.raises(TableFormatError) as caught:
            workspace.drop("events", "MINE")
        assert (caught.value.table_name, caught.value.argument) == ("mine", "force")
        for table in workspace.tables():
            workspace.drop(table.name)
        assert [table.name for table in workspace.tables(all=True)] == ["mine"]
        workspace.drop("mine", force=True)
        assert workspace.tables(all=True) == []


def test_tables_of_mixpanel_data_are_dropped_with_what_it_says_of_them(tmp_path: Path) -> None:
    """In a file of mixpanel_data, its own list of tables no longer has the dropped ones."""
    db = made_with_people(tmp_path / "x.duckdb")
    with Workspace(path=db) as workspace:
        workspace.drop_all("profiles")
        assert workspace.tables() == []
        assert workspace.sql_scalar("SELECT count(*) FROM _metadata") == 0
