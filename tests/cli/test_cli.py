"""`mpx` as a whole: exit codes, help, names, and interrupted processes."""

import re
import shlex
import signal
import subprocess
import sys
from collections.abc import Mapping
from datetime import date
from pathlib import Path

import click
import pytest
from click.testing import CliRunner
from shell import MPX, NINE_DAYS, WEEK, mpx, one_error
from support import held, truth

from mixpanel_export import errors
from mixpanel_export.cli import COMMANDS, Mpx, cli, program
from mixpanel_export.simulator import Fault, Simulator

# The group


@pytest.mark.parametrize(
    "error, code",
    [
        (errors.MixpanelDataError("x"), 1),
        (errors.ServerError("x"), 1),
        (errors.LedgerMismatchError("x", batch=1), 1),
        (errors.DatabaseLockedError("x", 1), 1),
        (OSError("x"), 1),
        (ValueError("x"), 2),
        (errors.AuthenticationError("x"), 3),
        (errors.ConfigError("x"), 3),
        (errors.AccountExistsError("a"), 4),
        (errors.AccountNotFoundError("a"), 4),
        (errors.TableExistsError("t"), 4),
        (errors.TableNotFoundError("t"), 4),
        (errors.DatabaseNotFoundError("x"), 4),
        (errors.RateLimitError("x"), 5),
        (KeyboardInterrupt(), 130),
    ],
)
def test_errors_become_exit_codes_in_one_place(error: BaseException, code: int) -> None:
    """Each kind of error has its exit code, and never prints a traceback."""

    def fails() -> None:
        raise error

    class Failing(Mpx):
        def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command:  # noqa: ARG002 - click's
            return click.Command(cmd_name, callback=fails)

    result = CliRunner().invoke(Failing("mpx"), ["any"])
    assert result.exit_code == code
    assert isinstance(result.exception, SystemExit)
    assert result.stderr.strip() == ("Interrupted." if code == 130 else f"Error: {error}")


def test_help_is_quick() -> None:
    """The help of any command loads neither an HTTP client, a database, progress bars nor the simulator."""
    code = (
        "import sys\n"
        "from mixpanel_export.cli import cli\n"
        f"for words in {[[], *([name] for name in COMMANDS)]}:\n"
        "    try: cli([*words, '--help'], prog_name='mpx')\n"
        "    except SystemExit: pass\n"
        "    heavy = {'httpx', 'duckdb', 'tqdm', 'anyio', 'mixpanel_export.simulator'} & set(sys.modules)\n"
        "    if heavy: sys.exit(f'the help of {words} imported {heavy}')\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("Usage: mpx") == 1 + len(COMMANDS)


@pytest.mark.parametrize("name", COMMANDS)
def test_every_option_has_help_and_every_command_an_example(name: str) -> None:
    """The options can be used without reading the source."""
    command = cli.get_command(click.Context(cli), name)
    assert command is not None
    assert all(option.help for option in command.params if isinstance(option, click.Option))
    assert f"  mpx {name}" in (command.epilog or "")


def test_an_unknown_command_is_one_line() -> None:
    """A typing error does not print a page of help."""
    result = mpx("exprot")
    assert result.exit_code == 2
    assert "exprot" in one_error(result)


def test_the_version_is_the_distributions() -> None:
    """`--version` prints the release."""
    assert re.search(r"\d+\.\d+\.\d+", mpx("--version").stdout)


def test_the_program_is_named_as_it_can_be_typed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`mpx` if the shell finds this program; otherwise its path, relative if it is below the current folder."""
    script = tmp_path / "venv" / "bin" / "mpx"
    script.parent.mkdir(parents=True)
    script.touch(mode=0o755)
    found: str | None = None
    monkeypatch.setattr("shutil.which", lambda _: found)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", [str(script)])
    relative = str(Path("venv", "bin", "mpx"))
    assert program() == relative
    monkeypatch.setattr(sys, "argv", [relative])
    assert program() == relative
    found = str(tmp_path / "another" / "mpx")
    assert program() == relative
    found = str(script)
    assert program() == "mpx"


# Processes


def test_ctrl_c_keeps_whole_batches_and_says_how_to_go_on(
    sim: Simulator, env: Mapping[str, str], db: Path
) -> None:
    """Exit code 130, one line without a traceback, and its command completes the table."""
    sim.faults = [Fault("stall", first=date(2024, 3, 4), last=date(2024, 3, 4))]
    words = ["export", *NINE_DAYS, "-p", "--chunk-days", "3"]
    with subprocess.Popen([*MPX, *words], env=env, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        first = process.stderr.readline()  # one batch is in the table, another will never be
        process.send_signal(signal.SIGINT)
        rest = process.stderr.read().splitlines()
    assert process.returncode == 130
    assert "Batch" in first
    assert "Traceback" not in rest
    last = rest[-1]
    assert last.startswith("Interrupted; complete batches are kept. To continue: mpx export events ")
    sim.faults = []
    done = len(sim.requests)
    assert mpx(*shlex.split(last.partition("To continue: ")[2])[1:]).exit_code == 0
    assert len(sim.requests) < done + 3
    assert held(db) == truth(sim)


def test_a_reader_that_goes_away_is_no_traceback(env: Mapping[str, str]) -> None:
    """`mpx export | head -0` ends quietly."""
    with subprocess.Popen(
        [*MPX, "export", *WEEK], env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert "Traceback" not in process.stderr.read()
    assert process.returncode == 1


@pytest.mark.parametrize("ending", ["SystemExit(130)", "KeyboardInterrupt()"])
def test_an_interrupted_command_ends_whatever_threads_are_left(ending: str) -> None:
    """Pressing Ctrl-C again may leave threads that never end; the process does not wait for them."""
    code = f"""
import threading
from mixpanel_export import cli
def interrupted(prog_name):
    print("said", flush=False)
    raise {ending}
cli.cli = interrupted
threading.Thread(target=threading.Event().wait).start()
cli.main()
"""
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, timeout=100, check=False)
    assert (ended.returncode, ended.stdout.strip()) == (130, b"said")
