"""`mpx verify`: compares a table with Mixpanel's own counts."""

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import click

from mixpanel_export.cli import complete, print_json
from mixpanel_export.cli.default_file import say_database
from mixpanel_export.cli.event_names import names_in
from mixpanel_export.cli.help import SectionedCommand
from mixpanel_export.cli.open_database import open_read_only
from mixpanel_export.cli.options import api_url_option, credential_options, db_option, option, query_options
from mixpanel_export.cli.refetch import doctor_command, refetch_commands, unknown_rows_line
from mixpanel_export.cli.report import aligned
from mixpanel_export.cli.watch import messages

if TYPE_CHECKING:
    from mixpanel_export.verification import CountDifference, VerifyResult

EXAMPLES = """\b
Examples:
  mpx verify
  mpx verify signups --from -90d --db app.duckdb
  mpx verify --reporting-timezone US/Pacific --tolerance 0.1%
  mpx verify --json | jq '.failed_days'

\b
Explanations of differences; an explained difference does not make its day fail:
  open        exported less than 48 hours after the day's end; more events have arrived since
  duplicates  Mixpanel counts exactly the duplicates that the export removed
  merged      the table has events that differ only in their time; Mixpanel merges them
  untimed     the table has the missing events, but without a time, so they are not counted on a day
  hidden      Mixpanel counts the event but does not export it
  old         the day is over 30 days old, so Mixpanel may have changed it; this explains
              nothing if rows of its batch were added or deleted by hand

\b
Exit codes:
  0  no day differs by more than the tolerance
  1  a day differs by more than the tolerance, or another error occurred
  2 to 5, 130  as in mpx export
"""

_MAX_DIFFERENCES = 20
_MAX_NAME = 40  # characters


def _parse_share(_ctx: click.Context, _option: click.Parameter, text: str) -> float:
    match = re.fullmatch(r"(\d+(?:\.\d+)?) ?(%?)", text.strip(), re.ASCII)
    share = float(match[1]) / (100 if match[2] else 1) if match else 2.0
    if share > 1:
        raise click.BadParameter(f"{text!r} is not a share; write it as 0.5% or 0.005")
    return share


def _parse_names(_ctx: click.Context, _option: click.Parameter, values: tuple[str, ...]) -> list[str]:
    return [name for value in values for name in names_in(value)]


@click.command(
    "verify", cls=SectionedCommand, short_help="Compare a table with Mixpanel's own counts.", epilog=EXAMPLES
)
@click.argument("table", default="events", shell_complete=complete.tables)
@option(
    "--from",
    "from_date",
    section="Days",
    metavar="DATE",
    show_default="30 days ago",
    help="First day, written as in mpx export.",
)
@option(
    "--to", "to_date", section="Days", metavar="DATE", show_default="yesterday", help="Last day, inclusive."
)
@option(
    "--reporting-timezone",
    section="Days",
    envvar="MPX_REPORTING_TIMEZONE",
    show_envvar=True,
    metavar="ZONE",
    show_default="the time zone of the table's days",
    help="Time zone in the project's settings, in which Mixpanel counts days.",
)
@option(
    "--tolerance",
    section="What",
    metavar="SHARE",
    default="0",
    callback=_parse_share,
    help="Share of a day's events that may differ without an explanation, such as 0.5%.",
)
@option(
    "--ignore",
    section="What",
    multiple=True,
    metavar="A,B",
    callback=_parse_names,
    help="Events not to compare; repeatable. Write names that contain commas as a JSON list.",
)
@query_options
@credential_options
@api_url_option
@db_option
@option("--json", "as_json", section="Output", is_flag=True, help="Print the result as JSON.")
@option("-q", "--quiet", section="Output", is_flag=True, help="Print nothing if no day fails.")
@click.pass_context
def command(
    ctx: click.Context,
    /,
    *,
    table: str,
    db: str,
    account: str | None,
    project_id: str | None,
    region: str | None,
    as_json: bool,
    quiet: bool,
    **arguments: Any,
) -> None:
    """Compare the rows of TABLE with Mixpanel's own counts, for each event name and day.

    The command prints the days that differ, and commands that export them again. Differences on days over 30 days old
    do not make the command fail, because Mixpanel may have changed these events since. The counts come from the Query
    API, which has its own quota (see mpx quota); one request covers 200 event names.
    """
    from mixpanel_export._verify.verify import verify_events
    from mixpanel_export.credentials import resolve_credentials
    from mixpanel_export.sync import run_sync

    with messages(quiet=quiet, verbose=False):
        if not quiet:
            say_database(ctx)
        credentials = resolve_credentials(account, project_id=project_id, region=region)
        result = run_sync(verify_events, db, table, credentials=credentials, **arguments)
    heading, commands = _repair(result, db, credentials.project_id)
    if as_json:
        print_json(result.to_dict() | {"commands": commands})
    elif not (quiet and result.verified):
        lines = [*_summary(result), *_differences(result), *_advice(result, heading, commands)]
        click.echo("\n".join(lines))
    ctx.exit(0 if result.verified else 1)


def _summary(result: "VerifyResult") -> list[str]:
    """Return lines with the compared days and events, and with the result."""
    days = f"{result.from_date} to {result.to_date}"
    rows = [
        ("table", result.table),
        ("days", f"{days}, in {result.timezone}: {result.days} compared"),
        (
            "events",
            f"{result.events:,} names: {result.table_rows:,} in the table, {result.mixpanel_events:,} at Mixpanel",
        ),
        ("verified", "yes" if result.verified else f"no, days that differ: {len(result.failed_days)}"),
    ]
    if result.skipped_date_ranges:
        skipped = ", ".join(_range(days) for days in result.skipped_date_ranges)
        rows.append(("not compared", f"{skipped} (the table does not have all events of these days)"))
    explained = Counter(each.explanation for each in result.differences if each.explanation is not None)
    if explained:
        rows.append(("explained", ", ".join(f"{count:,} {name}" for name, count in explained.most_common())))
    return aligned(rows)


def _differences(result: "VerifyResult") -> Iterator[str]:
    """Yield a table of the unexplained differences. If there are many, the table has only the largest."""
    unexplained = result.unexplained
    if not unexplained:
        return
    shown = sorted(unexplained, key=lambda each: -abs(each.difference))[:_MAX_DIFFERENCES]
    shown.sort(key=lambda each: (each.day, each.event))
    rows = [("day", "event", "table", "Mixpanel", "difference"), *map(_row, shown)]
    widths = [max(len(row[column]) for row in rows) for column in range(5)]
    yield ""
    for row in rows:
        names = f"{row[0]:<{widths[0]}}  {row[1]:<{widths[1]}}"
        yield names + "".join(f"  {row[column]:>{widths[column]}}" for column in (2, 3, 4))
    if len(shown) < len(unexplained):
        yield f"and {len(unexplained) - len(shown):,} smaller differences; --json prints all"


def _row(difference: "CountDifference") -> tuple[str, str, str, str, str]:
    name = " ".join(difference.event.split())
    name = name if len(name) <= _MAX_NAME else name[: _MAX_NAME - 1] + "…"
    return (
        difference.day,
        name,
        f"{difference.table_rows:,}",
        f"{difference.mixpanel_events:,}",
        f"{difference.difference:+,}",
    )


def _advice(result: "VerifyResult", heading: str, commands: Sequence[str]) -> Iterator[str]:
    """Yield advice on the days that failed. *heading* introduces the *commands*."""
    if result.utc_offset is not None:
        yield ""
        yield (
            f"Almost all differences disappear if the time zone is UTC{result.utc_offset:+g}. Pass the time zone in the "
            "project's settings as --reporting-timezone."
        )
    if commands:
        yield ""
        yield heading
        yield from (f"  {command}" for command in commands)
        if any(each.mixpanel_events > each.table_rows for each in result.unexplained):
            yield (
                "If people were deleted with mpx forget, but not in Mixpanel, an export restores their events."
            )


def _repair(result: "VerifyResult", db: str, project: str) -> tuple[str, list[str]]:
    """Return the commands that repair the days that failed, for each selection in the table, and a line before them."""
    from datetime import date

    from mixpanel_export._local.reader import read_contents
    from mixpanel_export._model import Chunk

    heading = "To fetch these days again:"
    if not result.refetch_date_ranges:
        return heading, []
    with open_read_only(db) as connection:
        contents = read_contents(connection)
    if result.table in contents.unknown:
        return unknown_rows_line(result.table, contents.unknown[result.table]), [doctor_command(db)]
    ranges = [
        Chunk(date.fromisoformat(first), date.fromisoformat(last))
        for first, last in result.refetch_date_ranges
    ]
    days = {day for each in ranges for day in each.dates}
    return heading, [
        command
        for coverage in contents.coverages
        if coverage.table == result.table and coverage.selection.project == project
        for command in refetch_commands(coverage, db, days)
    ]


def _range(days: tuple[str, str]) -> str:
    return days[0] if days[0] == days[1] else f"{days[0]} to {days[1]}"
