"""`mpx upgrade`: convert a database that mixpanel_data wrote."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from mixpanel_export.cli import print_json
from mixpanel_export.cli.help import DatabaseArgument
from mixpanel_export.cli.options import named_db_option

if TYPE_CHECKING:
    from mixpanel_export.inspection import UpgradedTable

EXAMPLES = """\b
Examples:
  mpx upgrade ~/.mp/data/12345.db
  mpx upgrade ~/.mp/data/12345.db --json
"""


@click.command("upgrade", short_help="Convert a database that mixpanel_data wrote.", epilog=EXAMPLES)
@click.argument("file", cls=DatabaseArgument, type=click.Path(dir_okay=False, path_type=Path))
@named_db_option
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
def command(*, file: Path, as_json: bool) -> None:
    """Convert mixpanel_data's tables of events and profiles in FILE. Every row is kept.

    The conversion is one transaction: if anything fails, the file is unchanged. Your own tables are not changed. A second
    run has no effect.

    The converted days have the status imported. They may be incomplete, because mixpanel_data did not detect truncated
    responses. To add other days, use mpx export --append. To fetch all days again, use mpx export --replace. To fetch
    the profiles again, use mpx profiles --replace.
    """
    from mixpanel_export._local.upgrade import upgrade_database

    result = upgrade_database(file)
    if as_json:
        print_json(result.to_dict())
    elif result.tables:
        click.echo("\n".join(map(_line, result.tables)))
    else:
        click.echo(f"{result.path} has no tables of mixpanel_data. Nothing was changed.")


def _line(table: "UpgradedTable") -> str:
    if table.type == "profiles":
        return f"{table.name}: {table.row_count:,} profiles upgraded"
    days = ", ".join(first if first == last else f"{first} to {last}" for first, last in table.date_ranges)
    return f"{table.name}: {table.row_count:,} rows upgraded, imported {days or 'no days'}"
