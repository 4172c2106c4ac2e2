"""Processes: no home directory, closed streams, signals at awkward moments."""

import contextlib
import json
import os
import pty
import select
import signal
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import pytest
from examples import slow
from shell import MPX, run_mpx
from support import held, truth

from mixpanel_export.simulator import Fault, Simulator

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="POSIX's users, descriptors and signals")

DAYS = ("--from", "2024-03-01", "--to", "2024-03-03")
MODULE = [sys.executable, "-m", "mixpanel_export"]

# No home


STRANGER = """
import json, pwd, sys
def unknown(*_):
    raise KeyError("uid not found")
pwd.getpwuid = unknown
from mixpanel_export.cli import cli
for words in json.loads(sys.argv[1]):
    try:
        cli(words, prog_name="mpx")
    except SystemExit as end:
        print("ENDS WITH", end.code, file=sys.stderr, flush=True)
"""
"""Runs command lines of `mpx` as a user whom the system does not know."""
COMMANDS = {
    "export": ["export", *DAYS],
    "dry run": ["export", *DAYS, "--dry-run", "--resume"],
    "status": ["status"],
    "retry": ["retry"],
    "query": ["query", "SELECT 1"],
    "quota": ["quota"],
    "doctor": ["doctor"],
    "test": ["accounts", "test"],
    "demo": ["demo", "--db", "demo.duckdb", "--days", "2", "--events-per-day", "3"],
}


@pytest.mark.parametrize("home", [None, *slow([""])])
def test_a_user_without_a_home_needs_none(
    home: str | None, env: Mapping[str, str], sim: Simulator, db: Path, tmp_path: Path
) -> None:
    """With credentials in the environment, every command works; the quota is counted without its file."""
    names = ("HOME", "MP_CONFIG_PATH", "MPX_STATE_DIR", "XDG_STATE_HOME", "MPX_PER_HOUR")
    bare = {name: value for name, value in env.items() if name not in names}
    bare |= {} if home is None else {"HOME": home}
    said = run_as_a_stranger(COMMANDS.values(), bare, tmp_path)
    assert said.count("ENDS WITH 0\n") == len(COMMANDS), said
    assert "Traceback" not in said
    assert "AdvisoryWarning" not in said  # every command prints a warning on one line
    assert held(db) == truth(sim, last="2024-03-03")
    assert {path.name for path in tmp_path.iterdir()} == {"events.duckdb", "demo.duckdb"}


def run_as_a_stranger(commands: Iterable[Sequence[str]], env: Mapping[str, str], cwd: Path) -> str:
    """Return the commands' standard error, with a line for each exit code."""
    words = json.dumps([*commands])
    done = subprocess.run(
        [sys.executable, "-c", STRANGER, words], env=env, cwd=cwd, capture_output=True, text=True, check=True
    )
    return done.stderr


def test_what_needs_a_home_says_so(env: Mapping[str, str], tmp_path: Path) -> None:
    """Without credentials, or with a path that begins with ~, one error says what to do."""
    bare = {
        name: value
        for name, value in env.items()
        if name not in {"HOME", "MP_CONFIG_PATH", "MP_SECRET", "MP_USERNAME"}
    }
    commands = (["accounts", "list"], ["export", *DAYS], ["query", "SELECT 1", "--db", "~/x.duckdb"])
    for words in commands:
        error, end = run_as_a_stranger([words], bare, tmp_path).splitlines()
        assert error.startswith("Error: ")
        assert "home directory" in error
        assert end == "ENDS WITH 3"


# Streams


def redirected(redirection: str, *words: str, env: Mapping[str, str]) -> "subprocess.CompletedProcess[str]":
    command = ["sh", "-c", f'exec "$@" {redirection}', "sh", *MPX, *words]
    return subprocess.run(command, env=env, capture_output=True, text=True, check=False)


CLOSED = ["2>&-", ">&-", "<&-", ">&- 2>&-", "<&- >&- 2>&-", "2>/dev/full"]


@pytest.mark.parametrize("redirection", [CLOSED[4], *slow(sorted({*CLOSED} - {CLOSED[4]}))])
def test_closed_streams_change_nothing(
    redirection: str, env: Mapping[str, str], sim: Simulator, db: Path
) -> None:
    """The work is done, and the exit codes are correct; messages are not written into other files."""
    for words, code in (
        (["export", *DAYS, "--verbose"], 0),
        (["export", *DAYS], 4),
        (["export", *DAYS, "--no-such-option"], 2),
        (["query", "FROM events", "--json"], 0),
        (["query", "-"], 2),
    ):
        done = redirected(redirection, *words, env=env)
        assert done.returncode == code, (words, done)
        assert "Traceback" not in done.stdout + done.stderr
        if "2>" in redirection:
            assert done.stderr == ""
    assert held(db) == truth(sim, last="2024-03-03")


def test_a_reader_that_goes_does_not_stop_an_export(env: Mapping[str, str], sim: Simulator, db: Path) -> None:
    """Standard error is a pipe whose other end is closed before the first line."""
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(
        [*MPX, "export", *DAYS, "--parallel"], env=env, stderr=writer, stdout=subprocess.PIPE, check=False
    )
    os.close(writer)
    assert done.returncode == 0
    assert held(db) == truth(sim, last="2024-03-03")


def test_a_full_standard_output_is_an_error(env: Mapping[str, str], sim: Simulator, db: Path) -> None:
    """The output could not be written, so the exit code is not 0; the rows are in the table."""
    done = redirected(">/dev/full", "export", *DAYS, "--json", env=env)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith("Error: ")
    assert "Traceback" not in done.stderr
    assert held(db) == truth(sim, last="2024-03-03")


# Signals


def test_a_hangup_that_is_ignored_stays_ignored(env: Mapping[str, str], sim: Simulator, db: Path) -> None:
    """As under `nohup`, the export continues to its end."""
    sim.faults = [Fault("stall_before_head", seconds=1.5, times=1)]
    command = ["sh", "-c", 'trap "" HUP; exec "$@"', "sh", *MPX, "export", *DAYS, "--verbose"]
    with subprocess.Popen(command, env=env, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        while "attempt 1" not in process.stderr.readline():
            pass
        process.send_signal(signal.SIGHUP)
        process.communicate(timeout=60)
    assert process.returncode == 0
    assert held(db) == truth(sim, last="2024-03-03")


SLOW_IMPORT = """
import sys, time
print("HERE", file=sys.stderr, flush=True)
for _ in range(600):  # CPython handles a signal that arrives immediately before a sleep when the sleep ends
    time.sleep(0.1)
"""


@pytest.mark.parametrize("number", [signal.SIGINT, *slow([signal.SIGTERM, signal.SIGHUP])])
@pytest.mark.parametrize("module", ["click", "duckdb", "httpx"])
def test_a_signal_during_imports_is_one_line(
    module: str, number: signal.Signals, env: Mapping[str, str], tmp_path: Path
) -> None:
    """Whichever library is being imported, there is no traceback, and the exit code is that of a shell."""
    (tmp_path / "slow").mkdir()
    (tmp_path / "slow" / f"{module}.py").write_text(SLOW_IMPORT, encoding="utf-8")
    path = os.pathsep.join([str(tmp_path / "slow"), *filter(None, [env.get("PYTHONPATH")])])
    with subprocess.Popen(
        [*MODULE, "export", *DAYS], env={**env, "PYTHONPATH": path}, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stderr is not None
        assert process.stderr.readline() == "HERE\n"
        process.send_signal(number)
        _, said = process.communicate(timeout=60)
    assert process.returncode == 128 + number
    assert said == "Interrupted.\n"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_at_the_secret_prompt_is_one_line(
    number: signal.Signals, env: Mapping[str, str], tmp_path: Path
) -> None:
    """No account is added, and the terminal echoes input again."""
    config = tmp_path / "config.toml"
    bare = {name: value for name, value in env.items() if name != "MP_SECRET"}
    ours, theirs = pty.openpty()
    command = [*MODULE, "accounts", "add", "main", "--username", "u", "--project-id", "1", "--no-test"]
    with subprocess.Popen(
        command, env=bare, stdin=theirs, stdout=subprocess.PIPE, stderr=theirs, start_new_session=True
    ) as process:
        said = b""
        while b"Secret" not in said:
            said += os.read(ours, 1000)
        while process.poll() is None:
            process.send_signal(number)
            # CPython misses a signal that arrives immediately before the call of read(2), until the next one.
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(20)
    while select.select([ours], [], [], 0)[0]:
        said += os.read(ours, 1000)
    assert process.returncode == 128 + number
    assert said.decode().split() == ["Secret", "(not", "shown):", "Interrupted."]
    assert not config.exists()
    for descriptor in (ours, theirs):
        os.close(descriptor)


def test_no_is_no_interruption(env: Mapping[str, str], tmp_path: Path) -> None:
    """If the answer is no, or the input ends, the exit code is 1."""
    config = tmp_path / "config.toml"
    add = ("accounts", "add", "main", "--username", "u", "--project-id", "1", "--no-test")
    assert run_mpx(*add, env=env).returncode == 0
    before = config.read_bytes()
    for answer in (b"n\n", b"\x04"):
        ours, theirs = pty.openpty()
        with subprocess.Popen(
            [*MPX, "accounts", "remove", "main"], env=env, stdin=theirs, stdout=theirs, stderr=theirs
        ) as process:
            os.write(ours, answer)
            process.wait(60)
        assert process.returncode == 1
        assert config.read_bytes() == before
        for descriptor in (ours, theirs):
            os.close(descriptor)
