"""`mpx mp inspect`: mixpanel_data's `mp inspect`, for the database and its tables."""

from collections.abc import Callable
from functools import wraps
from typing import Any

import click

from mixpanel_export.cli.mp.common import Group, db_option, workspace_of
from mixpanel_export.cli.mp.output import format_options, print_result
from mixpanel_export.cli.options import option

_EXAMPLE = "\b\nExample:\n  mpx mp inspect {}\n"


@click.group(
    "inspect",
    cls=Group,
    short_help="Inspect the database and its tables.",
    epilog=_EXAMPLE.format("breakdown -t events --format table"),
)
def inspect() -> None:
    """Inspect the database and its tables."""


def _command(name: str, short_help: str, example: str) -> Callable[[Callable[..., None]], click.Command]:
    """Return a decorator that adds a command with the output format options."""

    def decorate(function: Callable[..., None]) -> click.Command:
        add = inspect.command(name, short_help=short_help, epilog=_EXAMPLE.format(example))
        return add(click.pass_context(db_option(format_options(function))))

    return decorate


def _table(function: Callable[..., None]) -> Callable[..., None]:
    """Add an option and an argument for the table's name, because the documentation of `mp` uses both."""

    @wraps(function)
    def with_table(ctx: click.Context, /, *, table: str | None, argument: str | None, **options: Any) -> None:
        if (table is None) == (argument is None):
            raise click.UsageError("specify one table, such as -t events", ctx)
        function(ctx, table=table or argument, **options)

    with_option = option("-t", "--table", metavar="NAME", help="Table to use.")(with_table)
    return click.argument("argument", metavar="[TABLE]", required=False)(with_option)


@_command("info", "Print file, project and tables.", "info")
def info(ctx: click.Context, /, *, style: str, jq: str | None) -> None:
    """Print the database's file, size and tables, and the project, region and account."""
    with workspace_of(ctx) as workspace:
        print_result(workspace.info().to_dict(), style, jq)


@_command("tables", "List the exported tables.", "tables --format table")
def tables(ctx: click.Context, /, *, style: str, jq: str | None) -> None:
    """List the exported tables with their rows and the time of the last export."""
    with workspace_of(ctx) as workspace:
        print_result([table.to_dict() for table in workspace.tables()], style, jq)


@_command("schema", "List the columns of a table.", "schema -t events")
@_table
@option("--sample", is_flag=True, help="Has no effect.")
def schema(ctx: click.Context, /, *, table: str, sample: bool, style: str, jq: str | None) -> None:  # noqa: ARG001 - an option of mixpanel_data
    """List the columns of a table with their types."""
    with workspace_of(ctx) as workspace:
        description = workspace.table_schema(table)
    columns = [
        {"name": column.name, "type": column.type, "nullable": column.nullable}
        for column in description.columns
    ]
    print_result({"table": description.table_name, "columns": columns}, style, jq)


@_command("sample", "Print random rows of a table.", "sample -t events -n 5")
@_table
@option("-n", "--rows", type=click.IntRange(1), default=10, metavar="N", help="Number of rows.")
def sample(ctx: click.Context, /, *, table: str, rows: int, style: str, jq: str | None) -> None:
    """Print random rows of a table."""
    from mixpanel_export._database.connection import quoted

    with workspace_of(ctx) as workspace:
        name = quoted(workspace.table_schema(table).table_name)
        result = workspace.sql_rows(f"SELECT * FROM {name} USING SAMPLE reservoir({rows} ROWS)")
    print_result(result.to_dicts(), style, jq)


@_command("summarize", "Summarize the columns of a table.", "summarize -t events")
@_table
def summarize(ctx: click.Context, /, *, table: str, style: str, jq: str | None) -> None:
    """Print each column's minimum, maximum, counts and quartiles."""
    with workspace_of(ctx) as workspace:
        print_result(workspace.summarize(table).to_dict(), style, jq)


@_command("breakdown", "Count the events of a table by name.", "breakdown -t events")
@_table
def breakdown(ctx: click.Context, /, *, table: str, style: str, jq: str | None) -> None:
    """Print the number of events, the number of users, and the first and last time for each event name."""
    with workspace_of(ctx) as workspace:
        print_result(workspace.event_breakdown(table).to_dict(), style, jq)


@_command("keys", "List the keys of properties.", 'keys -t events -e "Sign Up"')
@_table
@option("-e", "--event", metavar="NAME", help="Only events with this name.")
def keys(ctx: click.Context, /, *, table: str, event: str | None, style: str, jq: str | None) -> None:
    """List the keys of the `properties` column."""
    with workspace_of(ctx) as workspace:
        print_result(workspace.property_keys(table, event=event), style, jq)


@_command("column", "Print statistics of a column.", "column -t events -c event_name --top 5")
@_table
@option("-c", "--column", required=True, metavar="SQL", help="Column or SQL expression.")
@option("--top", type=click.IntRange(1), default=10, metavar="N", help="Number of frequent values.")
def column(ctx: click.Context, /, *, table: str, column: str, top: int, style: str, jq: str | None) -> None:
    """Print counts, frequent values and numeric statistics of a column or an SQL expression."""
    with workspace_of(ctx) as workspace:
        print_result(workspace.column_stats(table, column, top_n=top).to_dict(), style, jq)


@_command("drop", "Drop a table.", "drop -t events --force")
@_table
@option(
    "--force", is_flag=True, help="Do not ask for confirmation, and also drop tables that were not exported."
)
def drop(ctx: click.Context, /, *, table: str, force: bool, style: str, jq: str | None) -> None:
    """Drop a table and its ledger entries."""
    _confirm(ctx, f"Drop table '{table}'?", force=force)
    with workspace_of(ctx, read_only=False) as workspace:
        workspace.drop(table, force=force)
    print_result({"dropped": table}, style, jq)


@_command("drop-all", "Drop all exported tables.", "drop-all --type events --force")
@option("-t", "--type", "kind", type=click.Choice(["events", "profiles"]), help="Only tables of this type.")
@option("--force", is_flag=True, help="Do not ask for confirmation.")
def drop_all(ctx: click.Context, /, *, kind: Any, force: bool, style: str, jq: str | None) -> None:
    """Drop all exported tables. Your own tables are not dropped."""
    with workspace_of(ctx, read_only=False) as workspace:
        count = sum(kind in {None, table.type} for table in workspace.tables())
        _confirm(ctx, f"Drop all {count} tables{f' of type {kind!r}' if kind else ''}?", force=force)
        workspace.drop_all(kind)
    print_result({"dropped_count": count} | ({"type_filter": kind} if kind else {}), style, jq)


def _confirm(ctx: click.Context, question: str, *, force: bool) -> None:
    if not force and not click.confirm(question, err=True):
        click.echo("Cancelled", err=True)
        ctx.exit(2)
