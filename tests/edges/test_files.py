"""Files: a path is checked before anything is written to it, and an existing file is not damaged."""

import os
import socket
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from pathlib import Path

import anyio
import duckdb
import pytest
from shell import MPX, mpx, one_error, run_mpx
from support import export, query, simulator

from mixpanel_export import DatabaseError, Workspace, upgrade_database
from mixpanel_export.simulator import Simulator

pytestmark = pytest.mark.skipif(
    sys.platform == "win32", reason="these are POSIX's kinds of files, owners and modes"
)

DAYS = ("--from", "2024-03-01", "--to", "2024-03-03")
ROOT = os.name == "posix" and os.geteuid() == 0


def fifo(path: Path) -> None:
    os.mkfifo(path)


def unix_socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))


def folder(path: Path) -> None:
    path.mkdir()


def device(path: Path) -> None:
    if not ROOT:
        pytest.skip("only root makes devices")
    os.mknod(path, 0o666 | stat.S_IFCHR, os.makedev(1, 3))


KINDS = [fifo, unix_socket, folder, device]


@pytest.fixture(params=KINDS)
def thing(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Path]:
    """Something in the current folder that is not a regular file; the test fails if it is changed."""
    monkeypatch.chdir(tmp_path)
    path = Path("thing")
    request.param(path)
    before = path.stat()
    yield path
    after = path.stat()
    assert (after.st_ino, after.st_mode, after.st_rdev) == (before.st_ino, before.st_mode, before.st_rdev)
    assert list(Path().rglob("*")) == [path]


def test_an_export_leaves_what_is_no_file(thing: Path, env: Mapping[str, str], sim: Simulator) -> None:
    """A pipe, a socket, a folder or a device as --db is one error before any request."""
    assert "not a regular file" in one_error(mpx("export", *DAYS, "--db", str(thing)))
    assert not sim.requests


@pytest.mark.parametrize("words", [("query", "SELECT 1", "--db"), ("status",), ("retry",), ("upgrade",)])
def test_no_command_opens_what_is_no_file(
    words: tuple[str, ...], thing: Path, env: Mapping[str, str]
) -> None:
    """Reading is refused too; opening a pipe would block forever."""
    result = mpx(*words, str(thing))
    assert result.exit_code in {1, 2}
    error = one_error(result)
    assert "not a regular file" in error or "is a directory" in error


def test_parquet_leaves_what_is_no_file(thing: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    """--parquet must name a regular file, or a path that does not exist."""
    db = tmp_path_factory.mktemp("db") / "t.duckdb"
    query(db, "CREATE TABLE t AS SELECT 1 AS x")
    result = mpx("query", "FROM t", "--db", str(db), "--parquet", str(thing))
    assert result.exit_code in {1, 2}
    assert one_error(result)


def test_accounts_leave_what_is_no_file(thing: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The configuration must be a file; when it is read or written, the error says what is at its path."""
    monkeypatch.setenv("MP_CONFIG_PATH", str(thing))
    monkeypatch.setenv("MP_SECRET", "s")
    add = ("accounts", "add", "main", "--username", "u", "--project-id", "1", "--no-test")
    assert mpx(*add).exit_code == 3
    if not stat.S_ISCHR(thing.stat().st_mode):  # the null device is an empty configuration
        assert "thing is a" in one_error(mpx("accounts", "list"))


def test_the_quota_file_leaves_what_is_no_file(
    thing: Path, env: Mapping[str, str], tmp_path_factory: pytest.TempPathFactory
) -> None:
    """The export warns once, counts by itself and is exact."""
    if thing.is_dir():
        pytest.skip("tested with the quota file itself")
    state, db = tmp_path_factory.mktemp("state"), tmp_path_factory.mktemp("db") / "x.duckdb"
    (state / "quota.sqlite3").symlink_to(thing.absolute())
    result = mpx("export", *DAYS, "--db", str(db), env={"MPX_STATE_DIR": str(state), "MPX_PER_HOUR": "60"})
    assert result.exit_code == 0
    assert result.stderr.count("quota file") == 1


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="Linux has these links")
def test_a_pipe_behind_a_link_is_seen(env: Mapping[str, str], db: Path, tmp_path: Path) -> None:
    """`/dev/stdout` is such a link; `-` writes to standard output."""
    query(db, "CREATE TABLE t AS SELECT 1")
    link = tmp_path / "link"
    link.symlink_to("/proc/self/fd/1")
    for words in (["export", *DAYS, "--db"], ["query", "SELECT 1", "--parquet"]):
        refused = run_mpx(*words, str(link), env=env)
        assert refused.returncode == 1
        assert link.is_symlink()


@pytest.mark.parametrize("command", ["export", "query", "status", "upgrade", "retry", "demo"])
@pytest.mark.parametrize(
    "db",
    [
        ":memory:",
        ":memory:x",
        "md:x",
        "motherduck:x",
        "s3://bucket/x.duckdb",
        "http://host/x.duckdb",
        "https://host/x.duckdb",
        "gs://bucket/x",
        "file:///tmp/x.duckdb",
        "sqlite:x.db",
        "-",
    ],
)
def test_what_is_no_file_on_this_machine_is_one_error(
    command: str,
    db: str,
    env: Mapping[str, str],
    sim: Simulator,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The error says what the name means and what to use; nothing is created, loaded or requested."""
    monkeypatch.chdir(tmp_path)
    words = {
        "export": ["export", *DAYS, "--db", db],
        "query": ["query", "SELECT 1", "--db", db],
        "status": ["status", "--", db],
        "upgrade": ["upgrade", "--", db],
        "retry": ["retry", "--", db],
        "demo": ["demo", "--db", db],
    }
    result = mpx(*words[command])
    assert result.exit_code == 1
    assert "use a file on this machine" in one_error(result)
    assert not list(Path().iterdir())
    assert not sim.requests


@pytest.mark.parametrize("db", [":memory:", "md:x", "s3://bucket/x"])
def test_the_library_refuses_it_too(db: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The whole public interface refuses it."""
    monkeypatch.chdir(tmp_path)
    calls: list[Callable[[], object]] = [
        lambda: anyio.run(lambda: export(simulator(), Path(db))),
        lambda: Workspace(path=db).connection,
        lambda: Workspace.open(db),
        lambda: upgrade_database(db),
    ]
    for call in calls:
        with pytest.raises(DatabaseError):
            call()
    assert not list(Path().iterdir())


def test_parquet_to_standard_output(db: Path, tmp_path: Path) -> None:
    """`-` is standard output, which receives the file."""
    query(db, "CREATE TABLE t AS SELECT x FROM range(3) r(x)")
    file = tmp_path / "out.parquet"
    piped = subprocess.run(
        [*MPX, "query", "FROM t", "--db", str(db), "--parquet", "-"], capture_output=True, check=True
    )
    file.write_bytes(piped.stdout)
    with closing(duckdb.connect()) as connection:
        assert connection.execute("SELECT sum(x) FROM read_parquet(?)", [str(file)]).fetchall() == [(3,)]
    assert sorted(tmp_path.iterdir()) == sorted([db, file])
