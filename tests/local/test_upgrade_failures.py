"""Upgrades that are killed or refused leave the file as it was."""

import shutil
import subprocess
import sys
from pathlib import Path

import duckdb
import pytest
from examples import slow
from old_files import CLAIMED, imported, made, noons, rows
from support import query

from mixpanel_export import (
    DatabaseError,
    DatabaseLockedError,
    DatabaseNotFoundError,
    TableFormatError,
    upgrade_database,
)


@pytest.fixture
def old(tmp_path: Path) -> Path:
    """A file of mixpanel_data's with the events of nine days, and nothing else."""
    return made(tmp_path / "12345.db", noons("2024-03-01", 9))


# Runs an upgrade that ends, without cleaning up, before the statement of that number.
KILLED = """
import os, sys
from contextlib import contextmanager
from mixpanel_export._local import upgrade as _upgrade

class Dying:
    def __init__(self, connection, left):
        self.connection, self.left = connection, left

    def __getattr__(self, name):
        if name in {"execute", "begin", "commit"}:
            self.left -= 1
            if self.left < 0:
                os._exit(9)
        return getattr(self.connection, name)

original = _upgrade.connected_for_export

@contextmanager
def dying(path):
    with original(path) as connection:
        counted = Dying(connection, int(sys.argv[2]))
        yield counted
        print(int(sys.argv[2]) - counted.left)

_upgrade.connected_for_export = dying
_upgrade.upgrade_database(sys.argv[1])
"""


def upgraded_but_killed(db: Path, statements: int) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-c", KILLED, str(db), str(statements)]
    return subprocess.run(command, check=False, capture_output=True, text=True)


@pytest.mark.parametrize("part", [*slow([0.1, 0.4, 0.7]), 1.0])
def test_a_killed_upgrade_leaves_the_old_file(part: float, old: Path, tmp_path: Path) -> None:
    """Killed before any statement up to the commit, the upgrade changes nothing, and the next one completes."""
    whole = upgraded_but_killed(Path(shutil.copy(old, tmp_path / "copy.db")), 1_000_000)
    last = int(whole.stdout) - 1  # the commit
    before = rows(old)
    described = "SELECT sql FROM duckdb_tables() ORDER BY 1"
    tables = query(old, described)
    assert upgraded_but_killed(old, round(last * part)).returncode == 9
    assert rows(old) == before
    assert query(old, described) == tables
    assert query(old, "FROM _metadata")[0][0] == "events"
    assert upgrade_database(old).tables
    assert imported(old) == [(*CLAIMED, 9, 9)]


def test_what_cannot_be_written_leaves_the_old_file(old: Path) -> None:
    """A DuckDB error during the upgrade becomes an error that says that nothing was changed, which is true."""
    with duckdb.connect(str(old)) as connection:
        connection.execute("CREATE VIEW _export_rejects AS SELECT 1")
    before = rows(old), query(old, "SELECT sql FROM duckdb_tables() ORDER BY 1")
    with pytest.raises(DatabaseError, match="which is unchanged"):
        upgrade_database(old)
    assert (rows(old), query(old, "SELECT sql FROM duckdb_tables() ORDER BY 1")) == before


def test_a_table_that_others_refer_to_is_left_with_what_to_do(old: Path) -> None:
    """DuckDB cannot drop a table with a foreign key to it, and disk space would not help."""
    query(old, "CREATE TABLE mine (id VARCHAR REFERENCES events(insert_id))")
    before = rows(old)
    with pytest.raises(DatabaseError, match=r"unchanged: .*; drop the tables that refer to it"):
        upgrade_database(old)
    assert rows(old) == before


def test_a_newer_ledger_is_refused(old: Path) -> None:
    """A file that a newer release wrote is not changed."""
    upgrade_database(old)
    with duckdb.connect(str(old)) as connection:
        connection.execute("COMMENT ON TABLE _export_batches IS 'mixpanel_export ledger 999'")
    with pytest.raises(TableFormatError, match="update"):
        upgrade_database(old)


def test_a_file_of_another_kind_is_refused(tmp_path: Path) -> None:
    """Files that mixpanel_data did not create are named and unchanged: none, an empty one, text, a user's tables."""
    with pytest.raises(DatabaseNotFoundError, match=r"none\.db"):
        upgrade_database(tmp_path / "none.db")
    file = tmp_path / "x.db"
    file.touch()
    with pytest.raises(DatabaseError, match="not created by mixpanel_data"):
        upgrade_database(file)
    assert file.stat().st_size == 0
    file.write_text("text " * 5000, encoding="utf-8")
    with pytest.raises(DatabaseError, match="not a DuckDB database"):
        upgrade_database(file)
    file.unlink()
    with duckdb.connect(str(file)) as connection:
        connection.execute("CREATE TABLE events AS SELECT 1 AS n")
    with pytest.raises(DatabaseError, match="not created by mixpanel_data"):
        upgrade_database(file)
    assert query(file, "FROM events") == [(1,)]
    assert query(file, "SELECT table_name FROM duckdb_tables()") == [("events",)]
    assert sorted(tmp_path.iterdir()) == [file]


def test_a_file_in_use_is_refused(old: Path) -> None:
    """If another process has the file open, the error says so."""
    holder = (
        "import sys, duckdb\nwith duckdb.connect(sys.argv[1]):\n    print(flush=True)\n    sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", holder, str(old)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        with pytest.raises(DatabaseLockedError):
            upgrade_database(old)
        process.communicate()
