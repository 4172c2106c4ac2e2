"""What the tests of `mpx` share: a shell that exports from a simulator."""

import os
import shlex
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from itertools import takewhile
from pathlib import Path
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
    """Serve *sim* on a socket from a thread of its own, and yield the URL."""
    with start_blocking_portal() as portal, portal.wrap_async_context_manager(sim.serve()) as url:
        yield url


@contextmanager
def environment(sim: Simulator, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Mapping[str, str]]:
    """An environment in which `mpx` exports from *sim* into `events.duckdb` in *folder*."""
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


def mpx(*words: str, given: str | bytes | None = None) -> Result:
    """Run `mpx` in this process, with *given* on standard input; a traceback is a failure of the test."""
    result = CliRunner().invoke(cli, words, prog_name="mpx", input=given)
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def run_mpx(*words: str, env: Mapping[str, str], **options: Any) -> "subprocess.CompletedProcess[bytes]":
    """Run `mpx` in a process of its own; *options* are those of `subprocess.run`."""
    usual: dict[str, Any] = {"capture_output": True, "timeout": 100}
    return subprocess.run([*MPX, *words], check=False, env=env, **(usual | options))


def one_error(result: Result) -> str:
    """Return the one line on standard error that an error must be."""
    lines = result.stderr.splitlines()
    assert len(lines) == 1, lines
    assert lines[0].startswith("Error: ")
    assert not result.stdout
    return lines[0]


@contextmanager
def held_by_another(db: Path) -> Iterator["subprocess.Popen[str]"]:
    """Let another process hold the file, until its standard input has a line."""
    duckdb.connect(str(db)).close()
    code = f"import duckdb; c = duckdb.connect({str(db)!r}); print('open', flush=True); input()"
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout is not None
        holder.stdout.readline()
        try:
            yield holder
        finally:
            if holder.poll() is None:
                holder.communicate("\n")


def commands(command: click.Command = cli, *path: str) -> Iterator[tuple[str, click.Command]]:
    """Yield every command with what is typed for it, those of groups included."""
    if path:
        yield " ".join(path), command
    if isinstance(command, click.Group):
        for name in command.list_commands(click.Context(command)):
            found = command.get_command(click.Context(command), name)
            assert found is not None
            yield from commands(found, *path, name)


ALL = dict(commands())


def words_of(line: str) -> list[str]:
    """Return the words that the program itself gets of a line for the shell."""
    words = shlex.split(line, comments=True)
    return list(takewhile(lambda word: word not in {"|", "<", ">"}, words))[1:]


def parsed(words: list[str]) -> click.Command:
    """Return the command that takes *words*, which is not run; raises what `mpx` would say of them."""
    command: click.Command = cli
    while isinstance(command, click.Group) and words:
        name, *words = words
        found = command.get_command(click.Context(command), name)
        assert found is not None, name
        command = found
    if words != ["--help"] and not isinstance(command, click.Group):
        command.make_context(command.name, words)
    return command
