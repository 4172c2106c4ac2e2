"""Files that are mount points of their own, which cannot be replaced by a rename."""

import os
import shutil
import stat
import subprocess
import sys
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path

import duckdb
import pytest
from shell import MPX, mpx
from support import held, query, truth

from mixpanel_export.simulator import Simulator

pytestmark = pytest.mark.skipif(
    sys.platform == "win32", reason="these are POSIX's kinds of files, owners and modes"
)

DAYS = ("--from", "2024-03-01", "--to", "2024-03-03")
ROOT = os.name == "posix" and os.geteuid() == 0


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


needs_mounts = pytest.mark.skipif(
    not ROOT or shutil.which("unshare") is None or shutil.which("mount") is None, reason="only root may mount"
)


def run_mounted(
    mounts: Mapping[Path, Path], *words: str, env: Mapping[str, str]
) -> "subprocess.CompletedProcess[str]":
    """Run `mpx` where each of *mounts* is a bind mount of a single file."""
    script = "".join(f"mount --bind '{source}' '{target}' && " for target, source in mounts.items())
    command = ["unshare", "-m", "sh", "-c", script + 'exec "$@"', "sh", *MPX, *words]
    return subprocess.run(command, env=env, capture_output=True, text=True, check=False)


@pytest.fixture
def mounted(tmp_path: Path) -> tuple[Path, Path]:
    """The path of a mount point, and the empty file of another folder that is to be mounted there."""
    target, source = tmp_path / "mounted", tmp_path / "outside" / "source"
    source.parent.mkdir()
    for path in (target, source):
        path.touch()
    return target, source


@needs_mounts
def test_a_database_may_be_a_mounted_file(
    mounted: tuple[Path, Path], env: Mapping[str, str], sim: Simulator
) -> None:
    """A single file may be mounted into a container; the rows are in the file outside."""
    target, source = mounted
    for how in ("--resume", "--replace"):
        done = run_mounted({target: source}, "export", *DAYS, "--db", str(target), how, env=env)
        assert (done.returncode, "Error" in done.stderr) == (0, False), done.stderr
    assert held(source) == truth(sim, last="2024-03-03")
    assert target.stat().st_size == 0


@needs_mounts
def test_a_configuration_may_be_a_mounted_file(mounted: tuple[Path, Path], env: Mapping[str, str]) -> None:
    """Accounts are added and removed in the file outside, which others cannot read."""
    target, source = mounted
    env = {**env, "MP_CONFIG_PATH": str(target)}
    add = ("accounts", "add", "main", "--username", "u", "--project-id", "1", "--no-test")
    assert run_mounted({target: source}, *add, env=env).returncode == 0
    text = source.read_text(encoding="utf-8")
    assert '[accounts.main]\nusername = "u"' in text
    assert mode_of(source) == 0o600
    assert run_mounted({target: source}, "accounts", "remove", "main", "--yes", env=env).returncode == 0
    assert "demo-secret" not in source.read_text(encoding="utf-8")


@needs_mounts
def test_a_parquet_file_may_be_a_mounted_file(
    mounted: tuple[Path, Path], db: Path, env: Mapping[str, str]
) -> None:
    """The new contents may be longer or shorter."""
    target, source = mounted
    query(db, "CREATE TABLE t AS SELECT x, hash(x) AS y FROM range(10000) r(x)")
    for limit in (10_000, 10):
        sql = f"FROM t LIMIT {limit}"
        assert run_mounted({target: source}, "query", sql, "--parquet", str(target), env=env).returncode == 0
        with closing(duckdb.connect()) as connection:
            assert connection.execute("SELECT count(*) FROM read_parquet(?)", [str(source)]).fetchall() == [
                (limit,)
            ]


@needs_mounts
def test_a_full_disk_leaves_a_mounted_file_as_it_was(
    mounted: tuple[Path, Path], db: Path, env: Mapping[str, str]
) -> None:
    """The space for longer contents is reserved before the first old byte is overwritten."""
    target, source = mounted
    query(db, "CREATE TABLE t AS SELECT x, hash(x) AS y FROM range(200000) r(x)")
    script = (
        f"mount -t tmpfs -o size=1m tmpfs '{source.parent}' && printf old > '{source}' && "
        f"mount --bind '{source}' '{target}' && ! \"$@\" && cat '{target}'"
    )
    words = ["query", "FROM t", "--parquet", str(target)]
    command = ["unshare", "-m", "sh", "-c", script, "sh", *MPX, *words]
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "old"), done.stderr
    assert "No space left on device" in done.stderr


def test_without_a_rename_the_file_is_written_in_place(
    db: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If the file cannot be renamed, it has the new content, and no temporary file is left."""

    def busy(*_: object) -> None:
        raise OSError(16, "Device or resource busy")

    query(db, "CREATE TABLE t AS SELECT 1 AS x")
    file = tmp_path / "out.parquet"
    file.write_bytes(b"x" * 100_000)
    monkeypatch.setattr(Path, "replace", busy)  # no other way to have a mount point without being root
    assert mpx("query", "FROM t", "--db", str(db), "--parquet", str(file)).exit_code == 0
    with closing(duckdb.connect()) as connection:
        assert connection.execute("FROM read_parquet(?)", [str(file)]).fetchall() == [(1,)]
    assert sorted(tmp_path.iterdir()) == sorted([db, file])
