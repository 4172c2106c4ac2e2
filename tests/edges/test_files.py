"""Files: a path is checked before anything is written to it, and an existing file is not damaged."""

import os
import shutil
import socket
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from functools import partial
from pathlib import Path

import anyio
import duckdb
import pytest
from examples import slow
from shell import MPX, mpx, one_error, run_mpx
from support import export, held, query, simulator, truth

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
    """Something in the current folder that is no regular file; the test fails if it is another one afterwards."""
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
    """Reading is refused too; opening a pipe would wait for ever."""
    result = mpx(*words, str(thing))
    assert result.exit_code in {1, 2}
    error = one_error(result)
    assert "not a regular file" in error or "is a directory" in error


def test_parquet_leaves_what_is_no_file(thing: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    """--parquet names a file, or nothing that is there."""
    db = tmp_path_factory.mktemp("db") / "t.duckdb"
    query(db, "CREATE TABLE t AS SELECT 1 AS x")
    result = mpx("query", "FROM t", "--db", str(db), "--parquet", str(thing))
    assert result.exit_code in {1, 2}
    assert one_error(result)


def test_accounts_leave_what_is_no_file(thing: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The configuration file is a file; whether it is read or written, the error says what stands there."""
    monkeypatch.setenv("MP_CONFIG_PATH", str(thing))
    monkeypatch.setenv("MP_SECRET", "s")
    add = ("accounts", "add", "main", "--username", "u", "--project-id", "1", "--no-test")
    assert mpx(*add).exit_code == 3
    if not stat.S_ISCHR(thing.stat().st_mode):  # the null device is an empty configuration
        assert "thing is a" in one_error(mpx("accounts", "list"))


def test_the_quota_file_leaves_what_is_no_file(
    thing: Path, env: Mapping[str, str], tmp_path_factory: pytest.TempPathFactory
) -> None:
    """The export warns once, counts for itself and is exact."""
    if thing.is_dir():
        pytest.skip("tested with the quota file itself")
    state, db = tmp_path_factory.mktemp("state"), tmp_path_factory.mktemp("db") / "x.duckdb"
    (state / "quota.sqlite3").symlink_to(thing.absolute())
    result = mpx("export", *DAYS, "--db", str(db), env={"MPX_STATE_DIR": str(state), "MPX_PER_HOUR": "60"})
    assert result.exit_code == 0
    assert result.stderr.count("quota file") == 1


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="Linux has these links")
def test_a_pipe_behind_a_link_is_seen(env: Mapping[str, str], db: Path, tmp_path: Path) -> None:
    """As `/dev/stdout` is one; `-` is what writes there."""
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
    """It says what the name means and what to use; nothing is made, loaded or requested."""
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
    """By every door."""
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
    """`-` is standard output, and what arrives there is the file."""
    query(db, "CREATE TABLE t AS SELECT x FROM range(3) r(x)")
    file = tmp_path / "out.parquet"
    piped = subprocess.run(
        [*MPX, "query", "FROM t", "--db", str(db), "--parquet", "-"], capture_output=True, check=True
    )
    file.write_bytes(piped.stdout)
    with closing(duckdb.connect()) as connection:
        assert connection.execute("SELECT sum(x) FROM read_parquet(?)", [str(file)]).fetchall() == [(3,)]
    assert sorted(tmp_path.iterdir()) == sorted([db, file])


# Modes and owners


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.mark.parametrize("mode", [*slow([0o600, 0o666]), 0o640])
def test_an_existing_file_keeps_its_mode_and_owner(mode: int, db: Path, sim: Simulator) -> None:
    """An empty file, as mktemp makes it, stays the same one through creation, replacement and resumption."""
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
    """Databases and Parquet files get what the umask says; what is staged beside them is the owner's alone."""
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
    """While an export into a file of mode 0600 runs, its log and what is staged are private too."""
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
    """What the link leads to is replaced; the link stays one."""
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
    """With its content, and with nothing beside it."""
    query(db, "CREATE TABLE t AS SELECT 1 AS x")
    file = tmp_path / "out.parquet"
    file.write_text("old", encoding="utf-8")
    assert mpx(
        "query", "SELECT CAST('a' || x AS INTEGER) FROM t", "--db", str(db), "--parquet", str(file)
    ).exit_code
    assert file.read_text(encoding="utf-8") == "old"
    assert sorted(tmp_path.iterdir()) == sorted([db, file])


# Files that are mount points of their own


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
    """As in a container to which a single file is bound; the rows are in the file outside."""
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
    """A longer content and a shorter one."""
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
    """The room for a longer content is reserved before the first old byte is overwritten."""
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
    """Whatever keeps the rename from happening, the file has the new content, and nothing stays beside it."""

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


# What this user may not


@pytest.mark.skipif(ROOT, reason="root may everything")
def test_a_folder_that_cannot_be_written_is_one_error(
    env: Mapping[str, str], sim: Simulator, tmp_path: Path
) -> None:
    """Before any request, also if the empty file itself can be written; it stays empty."""
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
