"""`mpx upgrade`: take over a database that mixpanel_data made."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from mixpanel_export.cli import print_json

if TYPE_CHECKING:
    from mixpanel_export.inspection import UpgradedTable

EXAMPLES = """\b
Examples:
  mpx upgrade ~/.mp/data/12345.db
  mpx upgrade ~/.mp/data/12345.db --json
"""


@click.command("upgrade", short_help="Take over a database of mixpanel_data.", epilog=EXAMPLES)
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="The result as JSON.")
def command(*, file: Path, as_json: bool) -> None:
    """Make the events tables that mixpanel_data wrote into FILE ours, in one transaction that keeps every row.

    Whatever stops it leaves the file as it was; doing it again changes nothing. Tables of profiles, and your own,
    stay as they are. mixpanel_data did not notice truncated answers, so nothing proves that the days that a table
    has are complete: they count as imported. Other days can be appended; these can be had anew with
    mpx export --replace.
    """
    from mixpanel_export._local.upgrade import upgrade_database

    result = upgrade_database(file)
    if as_json:
        print_json(result.to_dict())
    elif result.tables:
        click.echo("\n".join(map(_line, result.tables)))
    else:
        click.echo(f"{result.path} has no events tables of mixpanel_data; nothing was changed")


def _line(table: "UpgradedTable") -> str:
    days = ", ".join(first if first == last else f"{first} to {last}" for first, last in table.date_ranges)
    return f"{table.name}: {table.row_count:,} rows upgraded, imported {days or 'no days'}"
