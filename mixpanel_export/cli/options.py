"""Options that several commands have."""

from collections.abc import Callable
from typing import Any

import click

from mixpanel_export.cli import complete
from mixpanel_export.cli.duration import parse_duration, parse_timeout
from mixpanel_export.cli.log import log_format_option

Command = Callable[..., Any]

DEFAULT_DB = "mixpanel.duckdb"

db_argument = click.argument("db", envvar="MPX_DB", default=DEFAULT_DB, shell_complete=complete.files)
db_option = click.option(
    "--db",
    envvar="MPX_DB",
    default=DEFAULT_DB,
    metavar="PATH",
    shell_complete=complete.files,
    help="DuckDB file; MPX_DB.",
)
table_option = click.option(
    "--table", metavar="NAME", show_default="all", shell_complete=complete.tables, help="Only this table."
)
wait_option = click.option(
    "--wait",
    callback=parse_duration,
    default="0",
    metavar="DURATION",
    help="How long to wait for a file that another process holds, such as 30s or 10m.",
)
account_option = click.option(
    "-a",
    "--account",
    envvar="MP_ACCOUNT",
    metavar="NAME",
    shell_complete=complete.accounts,
    help="Account in the configuration file; MP_ACCOUNT.",
)
region_option = click.option("--region", metavar="NAME", help="us, eu or in, instead of the configured one.")
api_url_option = click.option(
    "--api-url", envvar="MPX_API_URL", metavar="URL", help="Another server than Mixpanel; MPX_API_URL."
)
per_hour_option = click.option(
    "--per-hour",
    type=click.IntRange(0),
    envvar="MPX_PER_HOUR",
    default=60,
    metavar="N",
    help="Requests an hour the project allows; 0 = unlimited; MPX_PER_HOUR.",
)

_WHO = (
    account_option,
    click.option("--project-id", metavar="ID", help="Project to export, instead of the configured one."),
    region_option,
)
_REQUESTS = (
    click.option(
        "--retries",
        type=click.IntRange(0),
        default=5,
        metavar="N",
        help="How often a request may fail and be made again.",
    ),
    click.option(
        "--max-wait",
        callback=parse_duration,
        default="24h",
        metavar="DURATION",
        help="How long to wait for the hour's quota in all, such as 90s, 30m or 2h; 0 = not at all.",
    ),
    click.option(
        "--first-byte-timeout",
        callback=parse_timeout,
        default="30m",
        metavar="DURATION",
        help="How long an answer may take to begin; large ones take minutes.",
    ),
    click.option(
        "--idle-timeout",
        callback=parse_timeout,
        default="5m",
        metavar="DURATION",
        help="How long an answer may pause.",
    ),
    click.option(
        "--per-second",
        type=click.IntRange(0),
        envvar="MPX_PER_SECOND",
        default=3,
        metavar="N",
        help="Requests a second the project allows; 0 = unlimited; MPX_PER_SECOND.",
    ),
    per_hour_option,
    api_url_option,
    click.option("--http2", is_flag=True, help="Let the server choose HTTP/2."),
)
_OUTPUT = (
    click.option("-q", "--quiet", is_flag=True, help="Nothing at all but what --json asks for, and errors."),
    click.option("--no-progress", is_flag=True, help="Neither bars nor a line for each batch."),
    click.option(
        "-v", "--verbose", is_flag=True, help="Log what happens to standard error, instead of bars."
    ),
    log_format_option,
)


def who_options(command: Command) -> Command:
    """Add the options that say whose events are fetched."""
    return _with(_WHO, command)


def request_options(command: Command) -> Command:
    """Add the options that say how patient the requests are, and to whom they go."""
    return _with(_REQUESTS, command)


def output_options(command: Command) -> Command:
    """Add the options that say what an export shows while it runs."""
    return _with(_OUTPUT, command)


def _with(options: tuple[Callable[[Command], Command], ...], command: Command) -> Command:
    for option in reversed(options):
        command = option(command)
    return command
