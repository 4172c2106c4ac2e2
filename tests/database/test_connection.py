"""The DuckDB file: how it is created, opened and shared, and the errors."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import duckdb
import pytest
from support import query

from mixpanel_export._database.connection import (
    check_zone,
    connect,
    connected_for_export,
    quoted,
    supports_zstd,
    transaction,
)
from mixpanel_export._database.path import STORAGE_VERSION, create_database
from mixpanel_export.errors import DatabaseError, DatabaseLockedError, ExportRunningError


@pytest.fixture
def db(tmp_path: Path) -> Path:
    return tmp_path / 'it\'s a "test".duckdb'


@contextmanager
def held_elsewhere(db: Path) -> Iterator[int]:
    """Hold the file in another process; yields its id."""
    code = "import duckdb, sys; c = duckdb.connect(sys.argv[1]); print('held', flush=True); input()"
    with subprocess.Popen(
        [sys.executable, "-c", code, str(db)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline().strip() == b"held"
        yield process.pid
        process.communicate(b"\n")


def test_a_new_file_has_the_oldest_storage_version_with_zstd(db: Path) -> None:
    """Files are created for every DuckDB from 1.2 on, whatever characters their names have."""
    with closing(connect(db)) as connection:
        assert supports_zstd(connection)
    assert query(
        db, "SELECT tags['storage_version'] FROM duckdb_databases() WHERE database_name = current_database()"
    ) == [("v1.2.0+",)]


def test_a_new_file_is_the_one_that_duckdb_writes(db: Path, tmp_path: Path) -> None:
    """DuckDB creates the same file, except for the release that wrote it and the checksum of that block."""
    create_database(db)
    with duckdb.connect() as outside:
        outside.execute(f"ATTACH '{tmp_path}/made' AS made (STORAGE_VERSION '{STORAGE_VERSION}')")
    made, copied = (tmp_path / "made").read_bytes(), db.read_bytes()
    checksum, release = slice(8), slice(52, 116)
    assert copied[release].replace(b"\0", b"") == b"v1.2.05f5512b827"
    same = bytearray(made)
    same[checksum], same[release] = copied[checksum], copied[release]
    assert bytes(same) == copied


def test_an_older_file_is_known_to_lack_zstd(db: Path) -> None:
    """A file with an older storage version is not used for what it cannot store."""
    with duckdb.connect() as outside:
        name = str(db).replace("'", "''")
        outside.execute(f"ATTACH '{name}' AS old (STORAGE_VERSION 'v1.0.0')")
    with closing(connect(db)) as connection:
        assert not supports_zstd(connection)


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    """The folder is not created silently."""
    with pytest.raises(DatabaseError, match=r"folder .*nowhere.* does not exist"):
        connect(tmp_path / "nowhere" / "x.duckdb")


def test_a_file_that_is_no_database_is_left_alone(db: Path) -> None:
    """The error says so, and the file is unchanged."""
    db.write_text("hello" * 1000)
    with pytest.raises(DatabaseError, match="is not a DuckDB database") as caught:
        connect(db)
    assert (caught.value.db_path, db.read_text()) == (str(db), "hello" * 1000)


def test_a_folder_is_no_database(tmp_path: Path) -> None:
    """The error says so."""
    with pytest.raises(DatabaseError, match=r"is a directory, not a regular file"):
        connect(tmp_path)


def test_the_process_that_holds_the_file_is_named(db: Path) -> None:
    """The error about a locked file names the process."""
    with held_elsewhere(db) as pid, pytest.raises(DatabaseLockedError, match=f"process {pid}") as caught:
        connect(db)
    assert caught.value.holding_pid == pid


def test_a_read_only_connection_of_this_process_is_named(db: Path) -> None:
    """DuckDB cannot open a file twice in different modes, and the error says what to close."""
    connect(db).close()
    with closing(connect(db, read_only=True)), pytest.raises(DatabaseError, match="close that connection"):
        connect(db)


def test_one_export_at_a_time_in_a_process(db: Path) -> None:
    """A second export into the same file is refused, by any path to it, and allowed afterwards."""
    with (
        connected_for_export(db),
        pytest.raises(ExportRunningError, match="already running"),
        connected_for_export(db.parent / ".." / db.parent.name / db.name),
    ):
        pass
    with connected_for_export(db):
        pass


LOOK_UPS = """
import sys
from pathlib import Path
from random import Random

from mixpanel_export._database.connection import connected_for_export, transaction

draw, number = Random(1), 0
with connected_for_export(Path(sys.argv[1])) as connection:
    connection.execute("CREATE TABLE rows_of_batches (number BIGINT, text VARCHAR, batch INTEGER)")
    for batch in range(100):
        with transaction(connection):
            for count in draw.choices([1, 5, 50, 300, 1000], k=draw.choice([1, 2, 3, 6])):
                connection.execute(
                    f"INSERT INTO rows_of_batches SELECT i, 'text ' || i, {batch} FROM range({number}, {number + count}) _(i)"
                )
                number += count
            if draw.random() < 0.5:
                connection.execute(f"DELETE FROM rows_of_batches WHERE batch < {batch - 2}")
            if draw.random() < 0.5:
                connection.execute(f"DELETE FROM rows_of_batches WHERE batch = {batch - 1} AND number % 5 = 0")
            connection.execute(
                "CREATE OR REPLACE TEMP TABLE wanted AS SELECT rowid AS id, text FROM rows_of_batches "
                f"WHERE batch >= {batch - 1} AND hash(number) % 3 = 0"
            )
            found = connection.execute(
                "SELECT count(*) FILTER (rows_of_batches.text = wanted.text), (SELECT count(*) FROM wanted) "
                "FROM rows_of_batches JOIN wanted ON rows_of_batches.rowid = id"
            ).fetchone()
        if found[0] != found[1]:
            sys.exit(f"{found[0]} of {found[1]} rows of batch {batch} were found")
"""


def test_rows_are_found_by_their_ids(db: Path) -> None:
    """Rows that an export finds by `rowid` are the intended ones, whatever its transaction wrote before."""
    # In a process of its own, as DuckDB may crash instead of finding wrong rows.
    looked_up = subprocess.run(
        [sys.executable, "-c", LOOK_UPS, str(db)], capture_output=True, text=True, check=False
    )
    assert (looked_up.returncode, looked_up.stderr) == (0, "")


def test_who_creates_the_file_too_late_leaves_it_alone(db: Path) -> None:
    """If two processes find no file, the slower one does not delete the file that the faster one writes."""
    with connected_for_export(db) as connection:
        connection.execute("CREATE TABLE t AS SELECT 1 AS n")
        before = db.stat().st_ino
        create_database(db)
        assert db.stat().st_ino == before
    assert query(db, "FROM t") == [(1,)]
    assert [file.name for file in db.parent.iterdir()] == [db.name]


@pytest.mark.parametrize("links", [True, False])
def test_a_file_is_created_whole_where_there_is_none(
    links: bool, db: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An empty file is also replaced, at the end of a link, and on a disk without hard links."""
    if not links:
        monkeypatch.setattr(os, "link", refusing)
    link = db.with_name("link.duckdb")
    link.symlink_to(db)
    for _ in range(2):
        with closing(connect(link)) as connection:
            assert supports_zstd(connection)
            assert "v1.2.0" in str(connection.execute("SELECT tags FROM duckdb_databases()").fetchall())
        assert link.is_symlink()
        db.write_bytes(b"")


def refusing(*_: object) -> None:
    raise PermissionError(1, "Operation not permitted")


def test_a_transaction_that_fails_leaves_nothing(db: Path) -> None:
    """The block is rolled back whatever it raised, even if DuckDB has already ended the transaction."""
    with closing(connect(db)) as connection:
        connection.execute("CREATE TABLE t (i INTEGER)")
        for error in (KeyboardInterrupt, LookupError):
            with pytest.raises(error), transaction(connection):
                connection.execute("INSERT INTO t VALUES (1)")
                raise error
        with pytest.raises(LookupError), transaction(connection):
            connection.execute("INSERT INTO t VALUES (1)")
            connection.execute("ROLLBACK")
            raise LookupError
        with transaction(connection):
            connection.execute("INSERT INTO t VALUES (2)")
        assert connection.execute("FROM t").fetchall() == [(2,)]


def test_identifiers_are_quoted() -> None:
    """A name cannot end the identifier."""
    assert quoted('a"; DROP TABLE x; --') == '"a""; DROP TABLE x; --"'


def test_an_application_that_forbids_files_is_told_before_anything_is_asked(db: Path) -> None:
    """Without access to files, staged lines could not be loaded, so the export fails before any request."""
    with closing(connect(db)) as own:
        own.execute("SET enable_external_access = false")
        with pytest.raises(DatabaseError, match="enable_external_access"), connected_for_export(db):
            pass


def test_a_locked_configuration_is_one_of_our_errors(db: Path) -> None:
    """If the application forbids settings, the export raises an error instead of running with other settings."""
    with closing(connect(db)) as own:
        own.execute("SET lock_configuration = true")
        with (
            pytest.raises(DatabaseError, match=r"lock_configuration on.*close that"),
            connected_for_export(db),
        ):
            pass
    with connected_for_export(db):
        pass


def test_an_empty_file_is_a_new_database(db: Path) -> None:
    """An empty file from tempfile can be used."""
    db.touch()
    connect(db).close()
    assert query(db, "SELECT 1") == [(1,)]


def test_a_zone_that_duckdb_does_not_know_is_refused(db: Path) -> None:
    """The check names the zone, and accepts every name that DuckDB can convert."""
    with connected_for_export(db) as connection:
        check_zone(connection, "UTC")
        check_zone(connection, "US/Pacific")
        with pytest.raises(ValueError, match="project_timezone Mars/Olympus"):
            check_zone(connection, "Mars/Olympus")
