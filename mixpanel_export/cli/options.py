"""Options that several commands share."""

from collections.abc import Callable
from functools import partial
from typing import Any

import click

from mixpanel_export.cli import complete
from mixpanel_export.cli.duration import parse_duration, parse_timeout
from mixpanel_export.cli.help import NAMED_DB, DatabaseArgument, Option
from mixpanel_export.cli.log import log_format_option

Command = Callable[..., Any]

option = partial(click.option, cls=Option)


def _store_named_db(ctx: click.Context, _option: click.Parameter, value: str | None) -> None:
    ctx.meta[NAMED_DB] = value


_db_argument = click.argument(
    "db",
    cls=DatabaseArgument,
    envvar="MPX_DB",
    setting="db",
    default=complete.DEFAULT_DB,
    shell_complete=complete.files,
)
named_db_option = option(
    "--db",
    "named_db",
    metavar="PATH",
    is_eager=True,
    expose_value=False,
    callback=_store_named_db,
    shell_complete=complete.files,
    help="DuckDB file, instead of the argument.",
)
db_option = option(
    "--db",
    section="Output",
    envvar="MPX_DB",
    show_envvar=True,
    setting="db",
    default=complete.DEFAULT_DB,
    metavar="PATH",
    shell_complete=complete.files,
    help="DuckDB file.",
)
table_option = option(
    "--table",
    section="What",
    metavar="NAME",
    show_default="all",
    shell_complete=complete.tables,
    help="Use only this table.",
)
wait_option = option(
    "--wait",
    callback=parse_duration,
    default="0",
    metavar="DURATION",
    help="Longest wait for a file that another process holds, such as 30s or 10m.",
)
publish_option = option(
    "--publish",
    section="Output",
    metavar="DEST",
    shell_complete=complete.files,
    help="Afterwards, update the data set at DEST; see mpx publish.",
)
account_option = option(
    "-a",
    "--account",
    section="Connection",
    envvar="MP_ACCOUNT",
    show_envvar=True,
    metavar="NAME",
    shell_complete=complete.accounts,
    help="Account in the configuration file.",
)
region_option = option(
    "--region", section="Connection", metavar="NAME", help="us, eu or in, instead of the account's region."
)
api_url_option = option(
    "--api-url",
    section="Connection",
    envvar="MPX_API_URL",
    show_envvar=True,
    metavar="URL",
    help="Server to use instead of Mixpanel.",
)
per_hour_option = option(
    "--per-hour",
    section="How fast",
    type=click.IntRange(0),
    envvar="MPX_PER_HOUR",
    show_envvar=True,
    default=60,
    metavar="N",
    help="Requests per hour that the project allows; 0 = unlimited.",
)
allow_new_events_option = option(
    "--allow-new-events",
    section="What",
    is_flag=True,
    help="Do not ask about names in --events that are not in the file but resemble other names.",
)
workers_option = option(
    "--workers",
    section="How fast",
    setting="workers",
    type=click.IntRange(1, 100),
    metavar="N",
    show_default="10",
    help="Requests at a time.",
)
chunk_days_option = option(
    "--chunk-days",
    section="How fast",
    type=click.IntRange(1, 100),
    metavar="N",
    show_default="planned from range and quota",
    help="Days per request.",
)

_CREDENTIALS = (
    account_option,
    option(
        "--project-id",
        section="Connection",
        metavar="ID",
        help="Project to export, instead of the account's project.",
    ),
    region_option,
)
_RETRIES = option(
    "--retries",
    section="How fast",
    type=click.IntRange(0),
    default=5,
    metavar="N",
    help="Maximum number of retries of a failed request.",
)
_REQUESTS = (
    per_hour_option,
    option(
        "--per-second",
        section="How fast",
        type=click.IntRange(0),
        envvar="MPX_PER_SECOND",
        show_envvar=True,
        default=3,
        metavar="N",
        help="Requests per second that the project allows; 0 = unlimited.",
    ),
    option(
        "--max-wait",
        section="How fast",
        callback=parse_duration,
        default="24h",
        metavar="DURATION",
        help="Longest total wait for the hourly quota, such as 90s, 30m or 2h; 0 = do not wait.",
    ),
    _RETRIES,
    option(
        "--first-byte-timeout",
        section="Connection",
        callback=parse_timeout,
        default="30m",
        metavar="DURATION",
        help="Longest wait for the first byte of a response; large exports take minutes.",
    ),
    option(
        "--idle-timeout",
        section="Connection",
        callback=parse_timeout,
        default="5m",
        metavar="DURATION",
        help="Longest pause within a response.",
    ),
    api_url_option,
    option("--http2", section="Connection", is_flag=True, help="Allow HTTP/2."),
)
_QUERIES = (
    option(
        "--per-hour",
        section="How fast",
        type=click.IntRange(0),
        envvar="MPX_QUERY_PER_HOUR",
        show_envvar=True,
        default=60,
        metavar="N",
        help="Queries per hour that the project allows; 0 = unlimited.",
    ),
    option(
        "--max-wait",
        section="How fast",
        callback=parse_duration,
        default="24h",
        metavar="DURATION",
        help="Longest total wait for the hourly quota of queries.",
    ),
    _RETRIES,
)
_OUTPUT = (
    option(
        "-q",
        "--quiet",
        section="Output",
        is_flag=True,
        help="Print only errors, and the result if --json is given.",
    ),
    option("--no-progress", section="Output", is_flag=True, help="Hide the bars and the line per batch."),
    option(
        "-v",
        "--verbose",
        section="Output",
        is_flag=True,
        help="Write a log to standard error instead of drawing bars.",
    ),
    log_format_option,
)


def db_argument(command: Command) -> Command:
    """Add the argument DB, and the option `--db`, which sets the same file."""
    return _db_argument(named_db_option(command))


def credential_options(command: Command) -> Command:
    """Add the options that select account, project and region."""
    return _with(_CREDENTIALS, command)


def request_options(command: Command) -> Command:
    """Add the options for quota, retries, timeouts and server."""
    return _with(_REQUESTS, command)


def query_options(command: Command) -> Command:
    """Add the options for the quota of the Query API."""
    return _with(_QUERIES, command)


def output_options(command: Command) -> Command:
    """Add the options that control an export's output while it runs."""
    return _with(_OUTPUT, command)


def _with(options: tuple[Callable[[Command], Command], ...], command: Command) -> Command:
    for option in reversed(options):
        command = option(command)
    return command
