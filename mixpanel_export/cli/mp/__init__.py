"""`mpx mp`: runs command lines written for mixpanel_data's `mp`.

Options, results and exit codes are the same as for `mp`. A command without a counterpart prints an alternative.
"""

from dataclasses import replace

import click

from mixpanel_export import errors
from mixpanel_export._error_base import Problem
from mixpanel_export.cli import one_line
from mixpanel_export.cli.mp.common import Group, db_option, option_in_mp, settings_of
from mixpanel_export.cli.mp.fetch import fetch
from mixpanel_export.cli.mp.fetch_profiles import profiles
from mixpanel_export.cli.mp.inspect import inspect
from mixpanel_export.cli.mp.query import query
from mixpanel_export.cli.options import option

EXAMPLES = """\b
Write mpx mp instead of mp:
  mp fetch events      exports events; with --stdout [--raw] it prints them
  mp fetch profiles    exports profiles; with --stdout [--raw] it prints them
  mp query sql         runs SQL
  mp inspect           info, tables, schema, sample, summarize, breakdown, keys, column, drop, drop-all
  mp auth              use mpx accounts: list, add, remove, default, test
  other commands       use other Mixpanel APIs, which mpx does not support; each prints an alternative

\b
Examples:
  mpx mp fetch events --from 2024-01-01 --to 2024-01-31 --parallel
  mpx mp inspect breakdown -t events --format table

\b
Exit codes, which differ from other mpx commands:
  0    success
  1    a batch failed, or another error occurred
  2    authentication failed, a prompt was declined, or an option is unknown
  3    an argument or SQL is wrong
  4    a table, account or file does not exist
  5    the quota is used up
  130  interrupted
"""

# The first matching class decides.
EXIT_CODES: tuple[tuple[type[Exception], int], ...] = (
    (errors.AuthenticationError, 2),
    (errors.AccountNotFoundError, 4),
    (errors.DatabaseNotFoundError, 4),
    (errors.TableNotFoundError, 4),
    (errors.RateLimitError, 5),
    (errors.ConfigError, 1),
    (errors.DateRangeTooLargeError, 3),
    (errors.QueryError, 3),
    (ValueError, 3),
    (Exception, 1),
)


class Mp(Group):
    """The command group `mp`, which has its own exit codes."""

    def invoke(self, ctx: click.Context) -> object:
        try:
            return super().invoke(ctx)
        except BrokenPipeError:
            raise
        except (errors.MixpanelDataError, ValueError, OSError) as error:
            text = error.text(name=option_in_mp) if isinstance(error, Problem) else str(error)
            click.echo(f"Error: {one_line(text)}", err=True)
            ctx.exit(next(code for kind, code in EXIT_CODES if isinstance(error, kind)))


@click.group("mp", cls=Mp, short_help="Run a command line written for mixpanel_data's mp.", epilog=EXAMPLES)
@option("-a", "--account", envvar="MP_ACCOUNT", metavar="NAME", help="Account to use.")
@db_option
@option("--workspace-id", type=int, metavar="ID", help="Has no effect.")
@option("-q", "--quiet", is_flag=True, help="Print only results and errors.")
@option("-v", "--verbose", is_flag=True, help="Write a log to standard error.")
@click.version_option(package_name="mpx-export")
@click.pass_context
def command(
    ctx: click.Context,
    /,
    *,
    account: str | None,
    workspace_id: int | None,  # noqa: ARG001 - an option of mixpanel_data
    quiet: bool,
    verbose: bool,
) -> None:
    """Run a command line written for mixpanel_data's `mp`."""
    ctx.obj = replace(settings_of(ctx), account=account, quiet=quiet, verbose=verbose)


fetch.add_command(profiles)
command.add_command(fetch)
command.add_command(query)
command.add_command(inspect)
