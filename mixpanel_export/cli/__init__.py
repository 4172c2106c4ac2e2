"""`mpx`, the shell's door: words, pictures and exit codes for people.

A command parses, makes one call of the library and prints. What the library raises becomes one line on
standard error and an exit code here, and nowhere else. Each command is imported when it is asked for, and
imports what it needs when it runs, so `mpx --help` loads neither an HTTP client nor a database.
"""

import sys
from importlib import import_module
from io import TextIOWrapper
from typing import IO, Any, NoReturn

import click

from mixpanel_export import errors

COMMANDS = ("demo", "export", "simulate")

# The first line that fits counts.
EXIT_CODES: tuple[tuple[type[Exception], int], ...] = (
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


class Interrupted(click.ClickException):
    """Somebody pressed Ctrl-C; the message says how to go on."""

    exit_code = 130  # what shells report of a program that SIGINT ended

    def show(self, file: IO[Any] | None = None) -> None:
        click.echo(self.message, file=file, err=file is None)


def one_line(message: object) -> str:
    """Return *message* without line breaks."""
    return " ".join(line.strip() for line in str(message).splitlines())


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
        except click.UsageError as error:
            where = error.ctx.command_path if error.ctx else "mpx"
            message = one_line(error.format_message()).rstrip(".")
            raise click.UsageError(f"{message}. See '{where} --help'.") from error
        except BrokenPipeError:
            raise  # whoever read our output has gone; click ends quietly
        except (errors.MixpanelDataError, ValueError, OSError) as error:
            click.echo(f"Error: {one_line(error)}", err=True)
            ctx.exit(next(code for kind, code in EXIT_CODES if isinstance(error, kind)))
        except KeyboardInterrupt as interrupt:
            raise Interrupted("Interrupted.") from interrupt


@click.group(
    cls=Mpx,
    context_settings={"help_option_names": ["-h", "--help"], "show_default": True},
    epilog="Start with `mpx demo`: it needs no account.",
)
@click.version_option(package_name="mpx-export")
def cli() -> None:
    """Export a Mixpanel project's raw events into DuckDB: complete, exact, and as fast as the quota allows."""


def main() -> NoReturn:
    """Run `mpx`."""
    # A path or a name that the console's encoding lacks must not end an export whose rows are safe.
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    sys.exit(cli(prog_name="mpx"))
