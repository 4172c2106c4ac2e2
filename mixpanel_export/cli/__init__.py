"""The command line, `mpx`.

A command parses its arguments, calls the library and prints the result. Only this module turns the library's errors into
one line on standard error and an exit code. A command module is imported when the command is used, and imports its
dependencies when the command runs, so `mpx --help` loads neither an HTTP client nor a database.
"""

import json
import os
import shutil
import sys
from importlib import import_module
from pathlib import Path
from typing import IO, Any, NoReturn

import click

from mixpanel_export import errors
from mixpanel_export._error_base import Problem
from mixpanel_export._process import (
    Signals,
    discard_failed_output,
    drop_empty_variables,
    open_standard_streams,
    print_interrupted,
)
from mixpanel_export._suggestions import closest
from mixpanel_export.cli.help import WIDTH
from mixpanel_export.cli.log import log_event, logs_json

COMMANDS = (
    "accounts",
    "demo",
    "doctor",
    "export",
    "flatten",
    "forget",
    "mp",
    "profiles",
    "publish",
    "query",
    "quota",
    "report",
    "retry",
    "simulate",
    "status",
    "sync",
    "upgrade",
    "verify",
)

_MODULES = {"report": "report_page"}  # `cli.report` formats the messages about an export

# The first matching class decides.
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

_OPTIONS = {
    "from_date": "--from",
    "to_date": "--to",
    "max_workers": "--workers",
    "path": "--db",
    "distinct_ids": "DISTINCT_ID",
    "destination": "DEST",
}


class Interrupted(click.ClickException):
    """The command was interrupted by Ctrl-C, SIGTERM or SIGHUP. The message says how to continue."""

    exit_code = 130  # the exit code that shells report for SIGINT

    def show(self, file: IO[Any] | None = None) -> None:
        click.echo(self.message, file=file, err=file is None)


def one_line(message: object) -> str:
    """Return *message* without line breaks."""
    return " ".join(line.strip() for line in str(message).splitlines())


def print_json(value: object) -> None:
    """Print one JSON value on standard output."""
    click.echo(json.dumps(value, indent=2))


def option_of(argument: str) -> str:
    """Return the `mpx` option that corresponds to a Python *argument*."""
    return _OPTIONS.get(argument, "--" + argument.replace("_", "-"))


def in_options(problem: BaseException, *, days: bool = True) -> str:
    """Return an error or a warning on one line, with option names instead of Python argument names."""
    text = problem.text(days=days, name=option_of) if isinstance(problem, Problem) else str(problem)
    return one_line(text)


def program() -> str:
    """Return the command that runs this program: `mpx`, or the program's path if the shell would run a different `mpx`."""
    script = Path(sys.argv[0])
    on_path = shutil.which("mpx")
    if script.stem != "mpx" or (on_path and _program_file(Path(on_path)) == _program_file(script)):
        return "mpx"
    folder = Path.cwd()
    return str(script.relative_to(folder) if script.is_relative_to(folder) else script)


def _program_file(path: Path) -> Path:
    return path.resolve().with_suffix("")  # drops .exe on Windows, which some launchers omit


class SuggestingGroup(click.Group):
    """A command group that suggests a command when an unknown one is typed."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        name = args[0]
        if not name.startswith("-") and self.get_command(ctx, name) is None and not ctx.resilient_parsing:
            match = closest(name, self.list_commands(ctx))
            ctx.fail(f"No such command {name!r}." + (f" Did you mean {match!r}?" if match else ""))
        return super().resolve_command(ctx, args)


class Mpx(SuggestingGroup):
    """The command group. It imports commands on demand and reports errors on one line."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002 - click's signature
        if cmd_name not in COMMANDS:
            return None
        module = _MODULES.get(cmd_name, cmd_name)
        command: click.Command = import_module(f"mixpanel_export.cli.{module}").command
        return command

    def invoke(self, ctx: click.Context) -> object:
        try:
            return super().invoke(ctx)
        except click.exceptions.NoArgsIsHelpError:
            raise  # click shows the group's help if no command is given
        except click.UsageError as error:
            where = error.ctx.command_path if error.ctx else "mpx"
            text = one_line(error.format_message()).rstrip(".")
            message = f"{text}{'' if text.endswith('?') else '.'} See '{where} --help'."
            if logs_json(ctx):
                log_event("error", code="USAGE", message=message)
                ctx.exit(error.exit_code)
            raise click.UsageError(message) from error
        except BrokenPipeError:
            raise  # click exits quietly if the reader has closed the pipe
        except (errors.MixpanelDataError, ValueError, OSError) as error:
            report_error(ctx, error)
            ctx.exit(exit_code_of(error))
        except (KeyboardInterrupt, Interrupted, RuntimeError) as interrupt:  # click.Abort is a RuntimeError
            if not _is_interrupt(interrupt):
                raise
            ending = interrupt if isinstance(interrupt, Interrupted) else Interrupted("Interrupted.")
            if logs_json(ctx):
                log_event("error", code="INTERRUPTED", message=ending.message)
                ctx.exit(ending.exit_code)
            if ending is interrupt:
                raise
            raise ending from interrupt


def _is_interrupt(error: BaseException) -> bool:
    """Whether Ctrl-C caused *error*. The other causes are a bug and the answer "no" to a question."""
    if isinstance(error, click.Abort):
        return isinstance(error.__context__, KeyboardInterrupt)
    # After Ctrl-C, a running DuckDB statement raises a RuntimeError with this message.
    return not isinstance(error, RuntimeError) or str(error) == "Query interrupted"


def exit_code_of(error: Exception) -> int:
    """Return the exit code of a command that ends with *error*."""
    return next(code for kind, code in EXIT_CODES if isinstance(error, kind))


def report_error(ctx: click.Context, error: Exception, title: str | None = None) -> None:
    """Print an error on one line, or log it as JSON. The message begins with *title*."""
    message = f"{title}: {in_options(error)}" if title else in_options(error)
    if logs_json(ctx):
        code = error.code if isinstance(error, errors.MixpanelDataError) else _kind(error)
        log_event("error", code=code, message=message)
    else:
        click.echo(f"Error: {message}", err=True)


def _kind(error: Exception) -> str:
    return ValueError.__name__ if isinstance(error, errors.ArgumentError) else type(error).__name__


@click.group(
    cls=Mpx,
    context_settings={
        "help_option_names": ["-h", "--help"],
        "show_default": True,
        "max_content_width": WIDTH,
    },
    epilog="Start with `mpx demo`, which works without an account. Then run `mpx accounts add` and `mpx export --from yesterday`. "
    "Run `mpx sync` every night.",
)
@click.version_option(package_name="mpx-export")
@click.pass_context
def cli(ctx: click.Context) -> None:
    """Export a Mixpanel project's raw events into DuckDB: complete, exact, and as fast as the quota allows."""
    if os.environ.get("NO_COLOR"):
        ctx.color = False  # commands inherit it


def main(signals: Signals | None = None) -> NoReturn:
    """Run `mpx`. *signals* contains the signal handlers, if they are already installed."""
    if signals is None:
        open_standard_streams()
        drop_empty_variables()
        signals = Signals()
        signals.listen()
    signals.end_import()
    try:
        sys.exit(cli(prog_name="mpx"))
    except KeyboardInterrupt:
        print_interrupted()
        signals.end()
    except SystemExit as ending:
        if ending.code == Interrupted.exit_code:
            signals.end()
        discard_failed_output()
        raise
