"""`mpx flatten`: creates a table with one typed column for each property."""

from typing import TYPE_CHECKING

import click

from mixpanel_export.cli import complete, print_json
from mixpanel_export.cli.default_file import say_database
from mixpanel_export.cli.event_names import names_in
from mixpanel_export.cli.options import db_option, option

if TYPE_CHECKING:
    from mixpanel_export.results import FlattenResult

EXAMPLES = """\b
Examples:
  mpx flatten
  mpx flatten events --into wide --only '$browser,$city,plan'
  mpx flatten --per-event --auto
  mpx flatten profiles
  mpx query 'SELECT "$browser", count(*) FROM events_flat GROUP BY ALL'
"""

_MAX_NAMES = 20  # names on one line


def parse_names(_ctx: click.Context, _option: click.Parameter, values: tuple[str, ...]) -> list[str] | None:
    """Return the names from all occurrences of an option; None if there are none."""
    names = [name for value in values for name in names_in(value)]
    if values and not names:
        raise click.BadParameter("the list is empty; leave the option out to use all")
    return names or None


@click.command("flatten", short_help="Create a table with a typed column for each property.", epilog=EXAMPLES)
@click.argument("table", default="events", shell_complete=complete.tables)
@option("--into", section="What", metavar="NAME", show_default="TABLE_flat", help="Name of the flat table.")
@option(
    "--only",
    section="What",
    multiple=True,
    callback=parse_names,
    metavar="KEYS",
    help="Create columns only for these properties, separated by commas or as a JSON list.",
)
@option(
    "--event",
    "--events",
    "events",
    section="What",
    multiple=True,
    callback=parse_names,
    metavar="NAMES",
    help="Use only these events, separated by commas or as a JSON list.",
)
@option(
    "--per-event/--no-per-event",
    section="What",
    default=None,
    help="Also create a view for each event name, with the columns that it uses.",
)
@option(
    "--auto/--no-auto",
    section="What",
    default=None,
    help="Update the flat table at the end of each export into TABLE.",
)
@option("--rebuild", section="What", is_flag=True, help="Rebuild the table, with the narrowest types.")
@db_option
@option("--json", "as_json", section="Output", is_flag=True, help="Print the result as JSON.")
@click.pass_context
def command(
    ctx: click.Context,
    *,
    table: str,
    into: str | None,
    only: list[str] | None,
    events: list[str] | None,
    per_event: bool | None,
    auto: bool | None,
    rebuild: bool,
    db: str,
    as_json: bool,
) -> None:
    """Create or update a table with one typed column for each property of the events or profiles in TABLE.

    A column is named after its property. DuckDB ignores case, so if two names differ only in case, the second one gets a
    number: Email, then email_2. A column has the narrowest type that holds every value unchanged: BOOLEAN, BIGINT, DOUBLE,
    TIMESTAMP, JSON or VARCHAR. The table _flat_columns describes the columns.

    Later runs read only new and changed batches. They add columns and widen types, but never remove or rename a column.
    They keep the options of the first run; to change --only or --event, add --rebuild.

    The run is one transaction. If it is interrupted, the flat table is unchanged.
    """
    from mixpanel_export._flat.flatten import flatten_events
    from mixpanel_export.sync import run_sync

    say_database(ctx)
    result = run_sync(
        flatten_events,
        db,
        table,
        into=into,
        only=only,
        events=events,
        per_event=per_event,
        auto=auto,
        rebuild=rebuild,
    )
    if as_json:
        print_json(result.to_dict())
    else:
        click.echo("\n".join(flat_lines(result)))


def flat_lines(result: "FlattenResult") -> list[str]:
    """Return a short summary of the result."""
    read = f"{_count(result.batches_read, 'batch', 'batches')} read" if result.batches_read else "up to date"
    rows = _count(result.rows, "row", "rows")
    lines = [f"{result.table}: {rows}, {_count(result.columns, 'property', 'properties')}, {read}"]
    if len(result.new_columns) < result.columns:
        lines += _name_list("New columns", result.new_columns)
    lines += _name_list("Wider columns", result.widened_columns)
    lines += _name_list("Views", result.views)
    if result.rest:
        lines.append(
            f"{result.table} has columns for the most frequent properties; the others are in _other."
        )
    return lines


def _count(number: int, noun: str, nouns: str) -> str:
    return f"{number:,} {noun if number == 1 else nouns}"


def _name_list(title: str, names: tuple[str, ...]) -> list[str]:
    more = f" and {len(names) - _MAX_NAMES:,} more" if len(names) > _MAX_NAMES else ""
    return [f"{title}: {', '.join(names[:_MAX_NAMES])}{more}"] if names else []
