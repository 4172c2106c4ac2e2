"""Windows and macOS, as far as another system can simulate them: files, locks, clocks, signals, memory."""

import ctypes
import errno
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import anyio
import duckdb
import pytest
from examples import slow
from support import RETRY_AT_ONCE, export, held, simulator, truth

from mixpanel_export import DatabaseLockedError, Workspace
from mixpanel_export._config.environment import home
from mixpanel_export._database import machine
from mixpanel_export._database.settings import memory_limit
from mixpanel_export._export.tuning import Tuning
from mixpanel_export._files import fill, replacing
from mixpanel_export._quota.clock import system_clock
from mixpanel_export.cli.report import quoted
from mixpanel_export.simulator import Fault

# Many staged files: small segments, whose columns go to files.
MANY_FILES = Tuning(pauses=RETRY_AT_ONCE, segment_size=4096, columns_memory=0)

System = Callable[[str], None]


@pytest.fixture
def system(monkeypatch: pytest.MonkeyPatch) -> System:
    """Return a function that simulates another system for the package."""
    return partial(monkeypatch.setattr, sys, "platform")


# Files in use


def is_open(path: str) -> bool:
    """Whether this process has the file open or mapped."""
    targets = set()
    for descriptor in list(Path("/proc/self/fd").iterdir()):
        try:
            targets.add(str(descriptor.readlink()))
        except FileNotFoundError:  # closed in the meantime
            continue
    return path in targets or f" {path}\n" in Path("/proc/self/maps").read_text(encoding="utf-8")


def refuse(monkeypatch: pytest.MonkeyPatch, in_use: Callable[[str], bool]) -> list[str]:
    """Let the system refuse to remove or replace files in use, and return the names of those that it refused."""
    refused: list[str] = []

    def refusing(function: Callable[..., None]) -> Callable[..., None]:
        def call(*paths: str, dir_fd: int | None = None, **options: Any) -> None:
            folder = Path() if dir_fd is None else Path(f"/proc/self/fd/{dir_fd}").readlink()
            for path in paths:
                if in_use(os.path.realpath(folder / path)):
                    refused.append(Path(path).name)
                    raise PermissionError(errno.EACCES, "used by another process", path)
            function(*paths, **options, **({} if dir_fd is None else {"dir_fd": dir_fd}))

        return call

    for name in ("unlink", "rename", "replace"):
        monkeypatch.setattr(os, name, refusing(getattr(os, name)))
    return refused


@pytest.mark.skipif(sys.platform != "linux", reason="/proc lists the open and mapped files")
@pytest.mark.parametrize(
    "fault", [Fault("cut_line", times=2, position=0.7), *slow([None, Fault("error_line", times=2)])]
)
def test_no_open_file_is_removed(fault: Fault | None, db: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Windows would refuse to remove it, also if it is mapped."""
    sim = simulator(events_per_day=200, faults=[fault] if fault else [])
    refused = refuse(monkeypatch, is_open)
    anyio.run(partial(export, sim, db, chunk_days=3, tuning=MANY_FILES))
    assert held(db) == truth(sim)
    assert refused == []
    assert list(db.parent.iterdir()) == [db]


def test_a_file_that_a_scanner_holds_is_removed_later(db: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A virus scanner opens each new file briefly; the export is exact, and leaves nothing."""
    seen: set[str] = set()

    def first_time(path: str) -> bool:
        if path in seen or not path.endswith((".ndjson", ".arrows")):
            return False
        seen.add(path)
        return True

    sim = simulator(events_per_day=200)
    refused = refuse(monkeypatch, first_time)
    anyio.run(partial(export, sim, db, chunk_days=3, tuning=MANY_FILES))
    assert held(db) == truth(sim)
    assert {Path(name).suffix for name in refused} == {".ndjson", ".arrows"}
    assert list(db.parent.iterdir()) == [db]


def test_a_file_that_another_program_has_open_is_overwritten(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Windows cannot replace an open file, so the contents are copied into it."""
    target = tmp_path / "config.toml"
    target.write_text("a much longer text than the new one", encoding="utf-8")
    inode = target.stat().st_ino
    refused = refuse(monkeypatch, lambda path: path == str(target))
    with replacing(target, private=True) as new:
        new.write_text("new", encoding="utf-8")
    assert refused
    assert (target.read_text(encoding="utf-8"), target.stat().st_ino) == ("new", inode)
    assert list(tmp_path.iterdir()) == [target]


@pytest.mark.parametrize(
    "text",
    [
        'Cannot open file "x": The process cannot access the file because it is being used by another process.',
        'Cannot open file "x": Der Prozess kann nicht auf die Datei zugreifen, da sie von einem anderen Prozess verwendet wird.\nFile is already open in \nC:\\py.exe (PID 3528)',
        "File is already open in \nC:\\py.exe (PID 3528)",
    ],
)
def test_a_locked_file_is_recognized_in_every_language(
    text: str, db: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Windows reports in the user's language that a file is in use."""
    duckdb.connect(str(db)).close()

    def refused(*_: object, **__: object) -> None:
        raise duckdb.IOException(f"IO Error: {text}")

    monkeypatch.setattr(duckdb, "connect", refused)
    with pytest.raises(DatabaseLockedError) as caught:
        Workspace.open(db)
    assert caught.value.holding_pid == (3528 if "PID" in text else None)


def test_an_empty_file_is_filled_without_a_lock(db: Path, system: System) -> None:
    """Windows has no `fcntl`, and refuses to open a database that is in use."""
    db.touch()
    system("win32")
    assert fill(db, b"content")
    assert not fill(db, b"other")
    assert db.read_bytes() == b"content"


# The machine


def test_an_empty_home_means_nothing_on_windows(
    tmp_path: Path, system: System, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The home directory is in `USERPROFILE`; the password database does not exist."""
    monkeypatch.setenv("HOME", "")
    monkeypatch.setattr(Path, "home", lambda: tmp_path)
    assert home() != tmp_path
    system("win32")
    assert home() == tmp_path


def test_processors_are_counted_without_an_affinity(monkeypatch: pytest.MonkeyPatch) -> None:
    """Windows and macOS have no processor affinity."""
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 1)
    assert machine.processors() == 1
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    assert machine.processors() == 1


@pytest.mark.parametrize("gib", [0, 1, 64])
def test_windows_reports_its_memory(gib: int, system: System, monkeypatch: pytest.MonkeyPatch) -> None:
    """DuckDB gets a share of it; if the call fails, DuckDB gets an amount for a small machine."""

    def fill_in(pointer: Any) -> int:
        status = pointer._obj
        assert status.size == ctypes.sizeof(status) == 64
        status.physical = gib << 30
        return int(gib > 0)

    kernel = SimpleNamespace(GlobalMemoryStatusEx=fill_in)
    monkeypatch.setattr(ctypes, "windll", SimpleNamespace(kernel32=kernel), raising=False)
    monkeypatch.setattr(machine, "_CGROUP", Path("no-such-folder"))  # Windows has no control groups
    system("win32")
    assert machine.memory_sizes() == ([gib << 30] if gib else [])
    assert memory_limit() >= 96_000_000


def test_windows_names_its_boot_in_the_registry(system: System, monkeypatch: pytest.MonkeyPatch) -> None:
    """All processes use the same clock; without the entry, there is no id."""
    winreg: Any = SimpleNamespace(
        HKEY_LOCAL_MACHINE=0,
        OpenKey=lambda _root, _path: nullcontext(),
        QueryValueEx=lambda _key, name: (7, 4) if name == "BootId" else None,
    )
    monkeypatch.setitem(sys.modules, "winreg", winreg)
    system("win32")
    first, second = system_clock(), system_clock()
    assert first().boot == "7"
    assert first().elapsed <= second().elapsed <= first().elapsed

    def absent(*_: object) -> None:
        raise FileNotFoundError

    winreg.QueryValueEx = absent
    assert system_clock()().boot is None


@pytest.mark.parametrize("fails", [False, True])
def test_macos_names_its_boot_in_a_system_setting(
    fails: bool, system: System, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If the setting cannot be read, there is no id."""

    def sysctlbyname(name: bytes, text: Any, size: Any, *_: object) -> int:
        assert name == b"kern.bootsessionuuid"
        assert size._obj.value == len(text)
        text.value = b"5A0D"
        return -int(fails)

    monkeypatch.setattr(ctypes, "CDLL", lambda _: SimpleNamespace(sysctlbyname=sysctlbyname))
    system("darwin")
    assert system_clock()().boot == (None if fails else "5A0D")


def test_command_lines_are_quoted_for_the_shell_of_windows(system: System) -> None:
    """`cmd` does not support single quotes."""
    words = ["mpx", "export", "--db", r"C:\My Data\events.duckdb"]
    assert quoted(words) == r"mpx export --db 'C:\My Data\events.duckdb'"
    system("win32")
    assert quoted(words) == r'mpx export --db "C:\My Data\events.duckdb"'


# Signals

# Windows has Ctrl-Break, whose place SIGUSR1 takes here, and no SIGHUP.
ON_WINDOWS = """
import os, signal
signal.SIGBREAK = signal.SIGUSR1
del signal.SIGHUP
from mixpanel_export.__main__ import main
"""
TOO_EARLY = """
class Import:
    def find_spec(self, name, path, target=None):
        if name == "mixpanel_export.cli":
            os.kill(os.getpid(), signal.SIGBREAK)
import sys
sys.meta_path.insert(0, Import())
"""
posix = pytest.mark.skipif(sys.platform == "win32", reason="a signal of POSIX takes the place of Ctrl-Break")


@posix
def test_ctrl_break_stops_a_command(tmp_path: Path) -> None:
    """Ctrl-Break has the same effect as Ctrl-C."""
    command = [sys.executable, "-c", f"{ON_WINDOWS}main()", "simulate", "--port", "0"]
    with subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        process.send_signal(signal.SIGUSR1)
        _, errors = process.communicate(timeout=100)
    assert (process.returncode, errors.splitlines()[-1:]) == (0, [b"Stopped."])


@posix
def test_ctrl_break_ends_a_program_that_is_starting() -> None:
    """The exit code is that of the signal, as in a shell."""
    command = [sys.executable, "-c", f"{ON_WINDOWS}{TOO_EARLY}main()", "quota"]
    done = subprocess.run(command, capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (128 + signal.SIGUSR1, b"Interrupted.\n")
