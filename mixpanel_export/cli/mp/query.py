"""`mpx mp query`: mixpanel_data's `mp query`, for SQL."""

from functools import partial
from pathlib import Path

import click

from mixpanel_export._config.environment import decoded
from mixpanel_export.cli.mp.common import Group, db_option, workspace_of
from mixpanel_export.cli.mp.output import format_options, print_result
from mixpanel_export.cli.options import option
from mixpanel_export.errors import ArgumentError, DatabaseNotFoundError

EXAMPLES = """\b
Examples:
  mpx mp query sql "SELECT event_name, count(*) AS n FROM events GROUP BY ALL" --format table
  mpx mp query sql "SELECT count(*) FROM events" --scalar
  mpx mp query sql --file report.sql --format csv
"""


@click.group(
    "query",
    cls=Group,
    short_help="Query the database.",
    epilog='\b\nExample:\n  mpx mp query sql "SELECT count(*) FROM events" --scalar\n',
)
def query() -> None:
    """Query the database."""


@query.command("sql", short_help="Run an SQL query.", epilog=EXAMPLES)
@click.argument("statement", metavar="[SQL]", required=False)
@option("-F", "--file", type=click.Path(path_type=Path), metavar="FILE", help="Read the SQL from a file.")
@option("-s", "--scalar", is_flag=True, help="Print the first value of the first row.")
@db_option
@format_options
@click.pass_context
def sql(
    ctx: click.Context,
    /,
    *,
    statement: str | None,
    file: Path | None,
    scalar: bool,
    style: str,
    jq: str | None,
) -> None:
    """Run SQL on the database, which is opened read-only, and print the rows."""
    from mixpanel_export._local.reader import interruptible

    text = statement if file is None else _content(file)
    if text is None:
        raise ArgumentError("file", "or a query is required")
    with workspace_of(ctx) as workspace:
        if not scalar:
            result = interruptible(workspace.connection, partial(workspace.sql_rows, text))
            print_result(result.to_dicts(), style, jq)
            return
        value = interruptible(workspace.connection, partial(workspace.sql_scalar, text))
    print_result({"value": value}, style, jq)


def _content(file: Path) -> str:
    if not file.is_file():
        raise DatabaseNotFoundError(str(file), f"there is no file {file}", advice="choose another one")
    return decoded(file.read_bytes())
