"""Shared by the tests of `mpx`: command lines in this process and in others, and an environment for exports."""

import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from itertools import takewhile
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import click
import duckdb
import pytest
from anyio.from_thread import start_blocking_portal
from click.testing import CliRunner, Result

from mixpanel_export.cli import cli
from mixpanel_export.simulator import Simulator

MPX = [sys.executable, "-c", "from mixpanel_export.cli import main; main()"]


@contextmanager
def served(sim: Simulator) -> Iterator[str]:
    """Serve *sim* on a socket from another thread, and yield the URL."""
    with start_blocking_portal() as portal, portal.wrap_async_context_manager(sim.serve()) as url:
        yield url


@contextmanager
def environment(sim: Simulator, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Mapping[str, str]]:
    """Yield an environment in which `mpx` exports from *sim* into `events.duckdb` in *folder*."""
    with served(sim) as url:
        settings = {
            "MPX_API_URL": url,
            "MP_USERNAME": "demo.mp-service-account",
            "MP_SECRET": "demo-secret",
            "MP_PROJECT_ID": "12345",
            "MP_CONFIG_PATH": str(folder / "config.toml"),
            "MPX_DB": str(folder / "events.duckdb"),
            "MPX_PER_SECOND": "0",
            "MPX_PER_HOUR": "0",
        }
        for name in ("MP_REGION", "MP_ACCOUNT", "MPX_PROJECT_TIMEZONE", "NO_COLOR"):
            monkeypatch.delenv(name, raising=False)
        for name, value in settings.items():
            monkeypatch.setenv(name, value)
        yield os.environ | settings


def mpx(*words: str, given: str | bytes | None = None, env: Mapping[str, str | None] | None = None) -> Result:
    """Run `mpx` in this process, with *given* on standard input; an exception fails the test.

    *env* overrides environment variables; None unsets one.
    """
    result = CliRunner().invoke(cli, words, prog_name="mpx", input=given, env=env)
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def have_export(db: Path, *words: str) -> None:
    """Write the file that `mpx export *words*` writes. The fixture `env` must be active, and its simulator without faults.

    Each process exports once and then copies the file, because an export takes 0.2 s of CPU time.
    """
    db.write_bytes(_exported_file(words))


@cache
def _exported_file(words: tuple[str, ...]) -> bytes:
    with TemporaryDirectory() as folder:
        db = Path(folder, "events.duckdb")
        assert mpx("export", *words, "--db", str(db)).exit_code == 0
        return db.read_bytes()


def run_mpx(*words: str, env: Mapping[str, str], **options: Any) -> "subprocess.CompletedProcess[bytes]":
    """Run `mpx` in another process; *options* are those of `subprocess.run`."""
    defaults: dict[str, Any] = {"capture_output": True, "timeout": 100}
    return subprocess.run([*MPX, *words], check=False, env=env, **(defaults | options))


def one_error(result: Result) -> str:
    """Return the error, which must be one line on standard error and nothing else."""
    lines = result.stderr.splitlines()
    assert len(lines) == 1, lines
    assert lines[0].startswith("Error: ")
    assert not result.stdout
    return lines[0]


@contextmanager
def held_by_another(db: Path) -> Iterator["subprocess.Popen[str]"]:
    """Open the file in another process, until a line arrives on its standard input."""
    duckdb.connect(str(db)).close()
    code = f"import duckdb; c = duckdb.connect({str(db)!r}); print('open', flush=True); input()"
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        try:
            yield process
        finally:
            if process.poll() is None:
                process.communicate("\n")


def commands(command: click.Command = cli, *path: str) -> Iterator[tuple[str, click.Command]]:
    """Yield every command with its name as typed, commands of groups included."""
    if path:
        yield " ".join(path), command
    if isinstance(command, click.Group):
        for name in command.list_commands(click.Context(command)):
            child = command.get_command(click.Context(command), name)
            assert child is not None
            yield from commands(child, *path, name)


ALL = dict(commands())


def words_of(line: str) -> list[str]:
    """Return the arguments that the program gets from a command line."""
    words = shlex.split(line, comments=True)
    return list(takewhile(lambda word: word not in {"|", "<", ">"}, words))[1:]


def parsed(words: list[str]) -> click.Command:
    """Return the command for *words* without running it; raise the usage error of `mpx`, if any."""
    command: click.Command = cli
    while isinstance(command, click.Group) and words and words != ["--help"]:
        name, *words = words
        child = command.get_command(click.Context(command), name)
        assert child is not None, name
        command = child
    if words != ["--help"] and not isinstance(command, click.Group):
        command.make_context(command.name, words)
    return command


WEEK = ["--from", "2024-03-01", "--to", "2024-03-07"]


NINE_DAYS = ["--from", "2024-03-01", "--to", "2024-03-09"]


def small_table(result: Result) -> dict[str, str]:
    """Return the lines of standard output by their labels."""
    return {line[:10].rstrip(): line[10:].strip() for line in result.stdout.splitlines()}


def typed(words: list[str], asked: Iterable[tuple[bytes, str]], exit_code: int = 0) -> str:
    """Run `mpx` on a terminal, where each prompt gets its answer, and return the terminal's text."""
    import pty  # noqa: PLC0415 - Windows has none

    terminal, end = pty.openpty()
    with subprocess.Popen(
        [*MPX, *words], stdin=end, stdout=end, stderr=end, start_new_session=True
    ) as process:
        os.close(end)
        try:
            shown = _dialog(terminal, asked)
        except BaseException:
            process.kill()  # it still waits for an answer
            raise
    os.close(terminal)
    assert process.returncode == exit_code
    return shown.decode()


def interrupted(script: str, words: Sequence[str]) -> tuple[int, bytes, bytes]:
    """Send SIGINT to a Python script once it has written HERE to stderr. Return its exit code and the rest of its output."""
    command = [sys.executable, "-c", script, *words]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stderr is not None
        assert process.stderr.read(4) == b"HERE"
        process.send_signal(signal.SIGINT)
        try:
            out, err = process.communicate(timeout=100)
        finally:
            process.kill()  # has no effect on a process that has ended
    return process.returncode, out, err.replace(b"HERE", b"")


def _dialog(terminal: int, asked: Iterable[tuple[bytes, str]]) -> bytes:
    shown = b""
    for prompt, answer in asked:
        answered = len(shown)
        while not shown[answered:].rstrip().endswith(prompt):
            shown += os.read(terminal, 1024)
        os.write(terminal, f"{answer}\n".encode())
    return shown + b"".join(_rest(terminal))


def _rest(terminal: int) -> Iterator[bytes]:
    try:
        while piece := os.read(terminal, 1024):
            yield piece
    except OSError:  # Linux says so of a terminal that nobody has open any more
        return
