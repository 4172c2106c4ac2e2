"""`mpx`, the shell's door: words, pictures and exit codes for people.

A command parses, asks the library and prints. What the library raises becomes one line on
standard error and an exit code here, and nowhere else. Each command is imported when it is asked for, and
imports what it needs when it runs, so `mpx --help` loads neither an HTTP client nor a database.
"""

import json
import os
import re
import shutil
import signal
import sys
from contextlib import suppress
from importlib import import_module
from io import TextIOWrapper
from pathlib import Path
from types import FrameType
from typing import IO, Any, NoReturn

import click

from mixpanel_export import errors
from mixpanel_export._advice import Problem
from mixpanel_export.cli.help import WIDTH
from mixpanel_export.cli.log import log_event, logs_json

COMMANDS = (
    "accounts",
    "demo",
    "doctor",
    "export",
    "query",
    "quota",
    "retry",
    "simulate",
    "status",
    "upgrade",
)

# The first line that fits counts.
EXIT_CODES: tuple[tuple[type[Exception], int], ...] = (
    (errors.AccountExistsError, 4),
    (errors.AccountNotFoundError, 4),
    (errors.DatabaseNotFoundError, 4),
    (errors.TableExistsError, 4),
    (errors.TableNotFoundError, 4),
    (errors.AuthenticationError, 3),
    (errors.ConfigError, 3),
    (errors.RateLimitError, 5),
    (errors.DateRangeTooLargeError, 2),
    (ValueError, 2),
    (Exception, 1),
)

_OPTIONS = {"from_date": "--from", "to_date": "--to", "max_workers": "--workers"}

_OLD_OPTIONS = {
    "from_date": "--from",
    "to_date": "--to",
    "max_workers": "--workers",
    "chunk_days": "--chunk-days",
    "per_second": "--per-second",
    "per_hour": "--per-hour",
    "max_wait": "--max-wait",
    "project_timezone must": "--project-timezone must",
    "parallel=True": "--parallel",
    # The modes are plain words elsewhere: only these phrases of the library mean the arguments.
    "use resume to": "use --resume to",
    "append to add days": "--append to add days",
    "to add days, or replace": "to add days, or --replace",
    "with append": "with --append",
    "leave out append": "leave out --append",
}


class Interrupted(click.ClickException):
    """Somebody pressed Ctrl-C, or sent SIGTERM; the message says how to go on."""

    exit_code = 130  # what shells report of a program that SIGINT ended

    def show(self, file: IO[Any] | None = None) -> None:
        click.echo(self.message, file=file, err=file is None)


def one_line(message: object) -> str:
    """Return *message* without line breaks."""
    return " ".join(line.strip() for line in str(message).splitlines())


def print_json(value: object) -> None:
    """Print one JSON value on standard output."""
    click.echo(json.dumps(value, indent=2))


def option_of(argument: str) -> str:
    """Return the option of `mpx` that stands for a Python *argument*."""
    return _OPTIONS.get(argument, "--" + argument.replace("_", "-"))


def in_options(problem: BaseException, *, days: bool = True) -> str:
    """Return an error or a warning on one line, with options in the place of Python's arguments."""
    if isinstance(problem, Problem) and (problem.advice or problem.argument):
        return one_line(problem.text(days=days, name=option_of))
    return one_line(_old_options(str(problem)))


def _old_options(message: str) -> str:
    for argument, option in _OLD_OPTIONS.items():
        message = re.sub(rf"(?<![\w-]){argument}\b", option, message)
    return message


def program() -> str:
    """Return what to type for this program: `mpx`, or the path it was called by where `mpx` is not it."""
    called = Path(sys.argv[0])
    found = shutil.which("mpx")
    if called.stem != "mpx" or (found and _program_file(Path(found)) == _program_file(called)):
        return "mpx"
    here = Path.cwd()
    return str(called.relative_to(here) if called.is_relative_to(here) else called)


def _program_file(path: Path) -> Path:
    return path.resolve().with_suffix("")  # Windows adds .exe, which not every launcher says


class Mpx(click.Group):
    """A group that imports a command when it is asked for, and reports errors in one line."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002 - click's signature
        if cmd_name not in COMMANDS:
            return None
        command: click.Command = import_module(f"mixpanel_export.cli.{cmd_name}").command
        return command

    def invoke(self, ctx: click.Context) -> object:
        try:
            return super().invoke(ctx)
        except click.exceptions.NoArgsIsHelpError:
            raise  # a group by itself: the help is the answer
        except click.UsageError as error:
            where = error.ctx.command_path if error.ctx else "mpx"
            message = f"{one_line(error.format_message()).rstrip('.')}. See '{where} --help'."
            if logs_json(ctx):
                log_event("error", code="USAGE", message=message)
                ctx.exit(error.exit_code)
            raise click.UsageError(message) from error
        except BrokenPipeError:
            raise  # whoever read our output has gone; click ends quietly
        except (errors.MixpanelDataError, ValueError, OSError) as error:
            _report(ctx, error, in_options(error))
            ctx.exit(next(code for kind, code in EXIT_CODES if isinstance(error, kind)))
        except (KeyboardInterrupt, Interrupted) as interrupt:
            ending = interrupt if isinstance(interrupt, Interrupted) else Interrupted("Interrupted.")
            if logs_json(ctx):
                log_event("error", code="INTERRUPTED", message=ending.message)
                ctx.exit(ending.exit_code)
            if ending is interrupt:
                raise
            raise ending from interrupt


def _report(ctx: click.Context, error: Exception, message: str) -> None:
    if logs_json(ctx):
        code = error.code if isinstance(error, errors.MixpanelDataError) else type(error).__name__
        log_event("error", code=code, message=message)
    else:
        click.echo(f"Error: {message}", err=True)


@click.group(
    cls=Mpx,
    context_settings={
        "help_option_names": ["-h", "--help"],
        "show_default": True,
        "max_content_width": WIDTH,
    },
    epilog="Start with `mpx demo`: it needs no account.",
)
@click.version_option(package_name="mpx-export")
@click.pass_context
def cli(ctx: click.Context) -> None:
    """Export a Mixpanel project's raw events into DuckDB: complete, exact, and as fast as the quota allows."""
    if os.environ.get("NO_COLOR"):
        ctx.color = False  # for its commands, too


def main() -> NoReturn:
    """Run `mpx`."""
    # A path or a name that the console's encoding lacks must not end an export whose rows are safe.
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    stop = _Stop()
    stop.listen()
    try:
        sys.exit(cli(prog_name="mpx"))
    except KeyboardInterrupt:
        stop.end()
    except SystemExit as ending:
        if ending.code == Interrupted.exit_code:
            stop.end()
        raise


class _Stop:
    """What Ctrl-C and SIGTERM do: the first of them ends the command in good order, the next one at once.

    At once means that a commit which runs dies with the process, as in a power cut, which the file stands.
    """

    def __init__(self) -> None:
        self._asked = False
        self._exit_code = Interrupted.exit_code

    def listen(self) -> None:
        """Handle the signals that were not switched off, as `nohup` and a shell's `&` do."""
        for name in ("SIGINT", "SIGTERM", "SIGBREAK"):  # the last is Windows', for Ctrl-Break
            number = getattr(signal, name, None)
            if number is not None and signal.getsignal(number) is not signal.SIG_IGN:
                signal.signal(number, self._handle)

    def _handle(self, number: int, _frame: FrameType | None) -> None:
        if self._asked:
            os._exit(self._exit_code)
        self._asked = True
        if number == signal.SIGTERM:
            self._exit_code = 128 + number  # what shells report of a program that it ended
        raise KeyboardInterrupt

    def end(self) -> NoReturn:
        """End without waiting for threads that a program which was broken off may have left."""
        for stream in (sys.stdout, sys.stderr):
            with suppress(OSError):
                stream.flush()
        os._exit(self._exit_code)
