"""Modes and owners of files: existing files keep theirs, and missing permissions are errors."""

import os
import stat
import subprocess
import sys
from collections.abc import Mapping
from functools import partial
from pathlib import Path

import anyio
import pytest
from examples import slow
from shell import mpx, one_error, run_mpx
from support import export, held, query, truth

from mixpanel_export import upgrade_database
from mixpanel_export.simulator import Simulator

pytestmark = pytest.mark.skipif(
    sys.platform == "win32", reason="these are POSIX's kinds of files, owners and modes"
)

DAYS = ("--from", "2024-03-01", "--to", "2024-03-03")
ROOT = os.name == "posix" and os.geteuid() == 0


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.mark.parametrize("mode", [*slow([0o600, 0o666]), 0o640])
def test_an_existing_file_keeps_its_mode_and_owner(mode: int, db: Path, sim: Simulator) -> None:
    """An empty file, as created by mktemp, stays the same file through creation, replacement and resumption."""
    db.touch()
    db.chmod(mode)
    if ROOT:
        os.chown(db, 12345, 54321)
    before = db.stat()
    for how in ("create", "replace", "resume"):
        anyio.run(partial(export, sim, db, mode=how))
        after = db.stat()
        assert (after.st_ino, after.st_mode, after.st_uid, after.st_gid) == (
            before.st_ino,
            before.st_mode,
            before.st_uid,
            before.st_gid,
        )
    assert held(db) == truth(sim)


def test_an_upgrade_keeps_mode_and_owner(db: Path) -> None:
    """The file of mixpanel_data is changed in place."""
    query(
        db,
        "CREATE TABLE events (event_name VARCHAR NOT NULL, event_time TIMESTAMP NOT NULL, distinct_id VARCHAR NOT NULL, "
        "insert_id VARCHAR PRIMARY KEY, properties JSON)",
    )
    db.chmod(0o600)
    before = db.stat()
    upgrade_database(db)
    after = db.stat()
    assert (after.st_ino, after.st_mode) == (before.st_ino, before.st_mode)


@pytest.mark.parametrize("umask, mode", [*slow([(0o022, 0o644), (0o077, 0o600)]), (0o002, 0o664)])
def test_a_new_file_has_the_mode_of_the_umask(
    umask: int, mode: int, env: Mapping[str, str], tmp_path: Path
) -> None:
    """Databases and Parquet files have the mode of the umask; staged files are readable only by the owner."""
    db, file = tmp_path / "new.duckdb", tmp_path / "new.parquet"
    assert run_mpx("export", *DAYS, "--db", str(db), env=env, umask=umask).returncode == 0
    done = run_mpx("query", "FROM events", "--db", str(db), "--parquet", str(file), env=env, umask=umask)
    assert done.returncode == 0
    assert (mode_of(db), mode_of(file)) == (mode, mode)


WATCHED = """
import os, stat, sys
from pathlib import Path
from mixpanel_export.cli import main
folder, names = Path(sys.argv.pop(1)), set()
def look(event, _):
    if event == "open":
        for path in folder.rglob("*"):
            try:
                private = all(stat.S_IMODE(part.stat().st_mode) & 0o077 == 0 for part in {path, path.parent} - {folder})
            except FileNotFoundError:
                continue
            if not private and path.parent == folder and path.is_file():
                names.add(path.name)
sys.addaudithook(look)
try:
    main()
finally:
    print(sorted(names), file=sys.stderr)
"""


def test_nothing_beside_a_private_database_can_be_read_by_others(
    env: Mapping[str, str], tmp_path: Path
) -> None:
    """While an export into a file of mode 0600 runs, its log and its staging are also private."""
    db = tmp_path / "private" / "events.duckdb"
    db.parent.mkdir()
    db.touch(0o600)
    command = [sys.executable, "-c", WATCHED, str(db.parent), "export", *DAYS, "--db", str(db), "-q"]
    watched = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    assert watched.returncode == 0
    assert watched.stderr == "[]\n"
    assert [path.name for path in db.parent.iterdir()] == ["events.duckdb"]


@pytest.mark.parametrize("mode", [0o600, 0o640])
def test_parquet_keeps_link_mode_and_owner(mode: int, db: Path, tmp_path: Path) -> None:
    """The target of the link is replaced; the link stays."""
    query(db, "CREATE TABLE t AS SELECT 1 AS x")
    (tmp_path / "far").mkdir()
    file, link = tmp_path / "far" / "out.parquet", tmp_path / "link.parquet"
    file.write_text("old", encoding="utf-8")
    file.chmod(mode)
    if ROOT:
        os.chown(file, 12345, 54321)
    before = file.stat()
    link.symlink_to(file)
    assert mpx("query", "FROM t", "--db", str(db), "--parquet", str(link)).exit_code == 0
    after = file.stat()
    assert link.is_symlink()
    assert (after.st_mode, after.st_uid, after.st_gid) == (before.st_mode, before.st_uid, before.st_gid)
    assert file.read_bytes().startswith(b"PAR1")
    assert list(file.parent.iterdir()) == [file]


def test_a_failed_query_leaves_the_old_parquet_file(db: Path, tmp_path: Path) -> None:
    """Its contents are unchanged, and no temporary file is left."""
    query(db, "CREATE TABLE t AS SELECT 1 AS x")
    file = tmp_path / "out.parquet"
    file.write_text("old", encoding="utf-8")
    assert mpx(
        "query", "SELECT CAST('a' || x AS INTEGER) FROM t", "--db", str(db), "--parquet", str(file)
    ).exit_code
    assert file.read_text(encoding="utf-8") == "old"
    assert sorted(tmp_path.iterdir()) == sorted([db, file])


# What this user may not


@pytest.mark.skipif(ROOT, reason="root may everything")
def test_a_folder_that_cannot_be_written_is_one_error(
    env: Mapping[str, str], sim: Simulator, tmp_path: Path
) -> None:
    """The error comes before any request, even if the empty file itself is writable; it stays empty."""
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "empty.duckdb").touch()
    folder.chmod(0o555)
    for name in ("empty.duckdb", "none.duckdb"):
        assert "may not" in one_error(mpx("export", *DAYS, "--db", str(folder / name)))
    assert (folder / "empty.duckdb").stat().st_size == 0
    assert not sim.requests
    folder.chmod(0o755)


@pytest.mark.skipif(ROOT, reason="root may everything")
def test_files_are_written_in_a_folder_that_cannot_be(
    db: Path, tmp_path: Path, env: Mapping[str, str]
) -> None:
    """A configuration and a Parquet file that exist are written in place."""
    folder = tmp_path / "folder"
    folder.mkdir()
    config, parquet = folder / "config.toml", folder / "x.parquet"
    config.touch(0o644)
    parquet.touch()
    folder.chmod(0o555)
    query(db, "CREATE TABLE t AS SELECT 1 AS x")
    assert mpx("query", "FROM t", "--db", str(db), "--parquet", str(parquet)).exit_code == 0
    assert parquet.read_bytes().startswith(b"PAR1")
    add = ("accounts", "add", "main", "--username", "u", "--project-id", "1", "--no-test")
    assert run_mpx(*add, env={**env, "MP_CONFIG_PATH": str(config)}).returncode == 0
    assert "[accounts.main]" in config.read_text(encoding="utf-8")
    assert mode_of(config) == 0o600
    folder.chmod(0o755)


@pytest.mark.skipif(ROOT, reason="root may everything")
def test_what_cannot_be_read_is_one_error(env: Mapping[str, str], db: Path, tmp_path: Path) -> None:
    """The error says that the permission is missing, and the doctor finds it."""
    config, folder = tmp_path / "secret.toml", tmp_path / "folder"
    config.touch(0o200)
    folder.mkdir(mode=0o600)
    done = run_mpx("accounts", "list", env={**env, "MP_CONFIG_PATH": str(config)})
    assert (done.returncode, b"Permission denied" in done.stderr) == (3, True)
    for words in (["status"], ["query", "SELECT 1", "--db"], ["export", *DAYS, "--db"]):
        assert "Permission denied" in one_error(mpx(*words, str(folder / "x.duckdb")))
    assert "Permission denied" in mpx("doctor", "--offline", str(folder / "x.duckdb")).stdout
