"""`mpx forget`: delete people's events and profiles."""

import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING

import click

from mixpanel_export.cli import print_json
from mixpanel_export.cli.default_file import say_database
from mixpanel_export.cli.open_database import open_read_only
from mixpanel_export.cli.options import db_option, option, table_option
from mixpanel_export.cli.report import count_words
from mixpanel_export.cli.status_json import publish_command

if TYPE_CHECKING:
    from mixpanel_export.results import ForgetResult

ALSO = ("user_id", "device_id", "before_identity")

EXAMPLES = """\b
Examples:
  mpx forget user-1
  mpx forget user-1 '$device:4711' --also user_id --also device_id --db app.duckdb
  mpx forget user-1 --json | jq '.tables[].events'

Exit code 0 means that the tables have no events or profiles of these people, even if they had none before.
"""

_NOTES = """\
Delete these people in Mixpanel too. Until Mixpanel has deleted them, an export that refetches their days or profiles restores them.
Queries no longer find the deleted rows, but their bytes can stay in the file. A copy made with COPY FROM DATABASE does not contain these bytes."""


@click.command("forget", short_help="Delete people's events and profiles.", epilog=EXAMPLES)
@click.argument("distinct_ids", metavar="DISTINCT_ID...", nargs=-1, required=True)
@option(
    "--also",
    multiple=True,
    type=click.Choice(ALSO),
    help="Property to compare besides distinct_id: $user_id, $device_id or $distinct_id_before_identity. Repeatable.",
)
@db_option
@table_option
@option(
    "--yes", is_flag=True, help="Do not ask before the deletion. Without a terminal, the command never asks."
)
@option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
@click.pass_context
def command(
    ctx: click.Context,
    *,
    distinct_ids: tuple[str, ...],
    also: tuple[str, ...],
    db: str,
    table: str | None,
    yes: bool,
    as_json: bool,
) -> None:
    """Delete every event and profile whose distinct_id is DISTINCT_ID from all exported tables, in one transaction.

    The command also deletes hidden duplicates, and rejected or repaired lines in which the id occurs. Flat tables are
    updated. mpx export --resume does not refetch the days of deleted events. Your own tables are not searched. A data set
    that mpx publish has written contains the people until you publish to it again.

    Delete the person in Mixpanel first. If an export refetches the person's days or profile before Mixpanel has deleted the
    person, the events and the profile are restored. Then run mpx forget again.

    DuckDB marks deleted rows, but does not overwrite them immediately. Queries no longer find the rows, but anyone who
    reads the file byte by byte can. A copy of the database in a new file (ATTACH, then COPY FROM DATABASE) does not
    contain them.
    """
    from mixpanel_export._database.path import database_path
    from mixpanel_export._local.forget import forget_people

    if not yes and sys.stdin.isatty() and sys.stderr.isatty():
        _confirm(db, distinct_ids, also, table)
    result = forget_people(database_path(db), distinct_ids, also, table)
    if as_json:
        print_json(result.to_dict())
        return
    say_database(ctx)
    click.echo("\n".join(_summary_lines(result)))
    click.echo("\n".join([_NOTES, *_data_sets(db)]), err=True)


def _confirm(db: str, distinct_ids: tuple[str, ...], also: tuple[str, ...], table: str | None) -> None:
    """Ask whether to delete the events and profiles, if there are any. Raises `click.Abort` if the answer is no."""
    from mixpanel_export._local.forget import count_people

    with open_read_only(db) as connection:
        events, profiles = count_people(connection, distinct_ids, also, table)
    if events or profiles:
        rows = f"{count_words(events, 'event')} and {count_words(profiles, 'profile')}"
        people = "this person" if len(set(distinct_ids)) == 1 else "these people"
        click.confirm(f"Delete {rows} of {people}?", abort=True, err=True)


def _data_sets(db: str) -> Iterator[str]:
    """Yield a note and a command for each data set that may still have the rows."""
    from mixpanel_export._publish.status import publication_states

    with open_read_only(db) as connection:
        outdated = [state.publication for state in publication_states(connection) if state.behind]
    for publication in outdated:
        yield f"{publication.destination} may still have the deleted rows. To remove them:"
        yield f"  {publish_command(publication.destination, db)}"


def _summary_lines(result: "ForgetResult") -> list[str]:
    rows = [("table", "rows", "hidden rows", "raw lines")]
    rows += [
        (
            table.table + (" (unfinished replacement)" if table.replacement else ""),
            f"{table.events:,}",
            f"{table.hidden_rows:,}",
            f"{table.raw_lines:,}",
        )
        for table in result.tables
    ]
    width = max(len(row[0]) for row in rows)
    lines = [f"{name:<{width}}" + "".join(f"{number:>13}" for number in numbers) for name, *numbers in rows]
    if not result.total:
        lines.append(f"{result.path} has no events or profiles of these people, so nothing was removed.")
    if result.other_tables:
        lines.append(f"Not searched, because mpx did not export them: {', '.join(result.other_tables)}")
    return lines
