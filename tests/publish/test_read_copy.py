"""Read copies: complete, swapped at once, and without deleted rows."""

from contextlib import closing
from pathlib import Path

import duckdb
import pytest
from shell import mpx, one_error
from support import export, held, query, simulator

from mixpanel_export import ArgumentError, PublishError, Workspace, copy_database, run_sync


@pytest.fixture
def exported(db: Path) -> Path:
    run_sync(export, simulator(), db, "2024-03-01", "2024-03-03")
    with Workspace(path=db) as workspace:
        workspace.flatten(per_event=True)
    return db


def test_a_copy_has_all_tables_and_views(exported: Path, tmp_path: Path) -> None:
    """The copy has the rows, views and comments. `mpx status` and the next export can use it."""
    copy = tmp_path / "copy.duckdb"
    result = run_sync(copy_database, exported, copy)
    assert (result.destination, result.tables, result.bytes_written) == (str(copy), 2, copy.stat().st_size)
    objects = (
        "SELECT table_name, comment FROM duckdb_tables() UNION ALL SELECT view_name, comment FROM duckdb_views() "
        "WHERE NOT internal ORDER BY ALL"
    )
    assert query(copy, objects) == query(exported, objects)
    assert held(copy) == held(exported)
    run_sync(export, simulator(), copy, "2024-03-04", "2024-03-04", mode="append", flatten=True)


def test_a_reader_keeps_the_old_copy(exported: Path, tmp_path: Path) -> None:
    """An open copy is replaced, and its reader still sees the old rows. People who were forgotten are not in the new one."""
    copy = tmp_path / "copy.duckdb"
    with Workspace(path=exported) as workspace:
        workspace.copy(copy)
        ((person,),) = query(exported, "SELECT any_value(distinct_id) FROM events")
        rows = query(copy, "SELECT count(*) FROM events")
        with closing(duckdb.connect(str(copy), read_only=True)) as reader:
            workspace.forget(person)
            workspace.copy(copy)
            assert reader.execute("SELECT count(*) FROM events").fetchall() == rows
    assert query(copy, f"SELECT count(*) FROM events WHERE distinct_id = '{person}'") == [(0,)]
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".mpx")]


def test_wrong_files_are_rejected(exported: Path, tmp_path: Path) -> None:
    """The database itself, a file with another ending, and a copy that another program changes are errors."""
    for destination in (exported, tmp_path / "copy.db"):
        with pytest.raises(ArgumentError):
            run_sync(copy_database, exported, destination)
    (tmp_path / "copy.duckdb.wal").touch()
    with pytest.raises(PublishError):
        run_sync(copy_database, exported, tmp_path / "copy.duckdb")


def test_the_command_copies(exported: Path, tmp_path: Path) -> None:
    """`mpx publish FILE.duckdb` prints the size. A folder that does not exist is an error on one line."""
    copy = tmp_path / "copy.duckdb"
    result = mpx("publish", str(copy), "--db", str(exported))
    assert (result.exit_code, str(copy) in result.stdout) == (0, True)
    assert held(copy) == held(exported)
    failed = mpx("publish", str(tmp_path / "none" / "copy.duckdb"), "--db", str(exported))
    assert failed.exit_code == 1
    assert one_error(failed)
