"""`mpx status`: shows the days in a file, the missing days, and the commands that fetch the missing days."""

import sys
import textwrap
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from shutil import get_terminal_size
from typing import TYPE_CHECKING

import click

from mixpanel_export._suggestions import did_you_mean
from mixpanel_export.cli import one_line, print_json, program
from mixpanel_export.cli.calendar import Signs, calendar_lines, signs_for
from mixpanel_export.cli.default_file import mention_other_default
from mixpanel_export.cli.open_database import open_read_only
from mixpanel_export.cli.options import db_argument, option, table_option, wait_option
from mixpanel_export.cli.refetch import command_for, doctor_command, refetch_command, unknown_rows_line
from mixpanel_export.cli.report import quoted
from mixpanel_export.cli.status_json import (
    command_for_rest,
    continue_command,
    flatten_command,
    publish_command,
    status_as_dict,
)
from mixpanel_export.cli.status_profiles import export_again_command, profile_facts

if TYPE_CHECKING:
    from mixpanel_export._database.coverage import Coverage
    from mixpanel_export._database.profile_tables import ProfileTable
    from mixpanel_export._local.reader import Contents
    from mixpanel_export._model import Chunk
    from mixpanel_export._publish.status import PublicationState

EXAMPLES = """\b
Examples:
  mpx status
  mpx status app.duckdb --wait 10m
  mpx status app.duckdb --json | jq '.tables[].failures[].command' -r

\b
Statuses of a day:
  complete  exported, and final
  open      exported less than 48 hours after its end, so events may still arrive;
            or in the same batch as an open day, because whole batches are refetched
  failed    the export failed
  missing   not exported yet, although it is a target day or lies between exported days
  changed   rows of its batch were added or deleted by hand after the export
  limited   exported with --limit, so it may be incomplete
  imported  written by another program

The command does not send requests.
"""

_MAX_FAILURES = 8
_MAX_RANGES = 10
_MAX_TARGET_DAYS = 36_525  # a mistyped year must not draw a calendar of thousands of years


@click.command("status", short_help="Show which days a file holds and which are missing.", epilog=EXAMPLES)
@db_argument
@table_option
@option("--json", "as_json", is_flag=True, help="Print JSON, with the rows of each day.")
@option(
    "--set-target",
    metavar="FROM..TO",
    help="First set the target days of the tables. A target day is missing until it is exported.",
)
@wait_option
@click.pass_context
def command(
    ctx: click.Context, *, db: str, table: str | None, as_json: bool, set_target: str | None, wait: float
) -> None:
    """Show the days and rows of each exported table in DB (default: MPX_DB, [defaults] db, mixpanel.duckdb).

    The command prints a calendar with row counts as bars, the time of the last export, and the numbers of rejected and
    repaired lines. For each failure, it prints the command that fetches the days again.
    """
    from mixpanel_export._local.reader import read_contents
    from mixpanel_export._publish.status import publication_states

    mention_other_default(ctx)
    if set_target is not None:
        _set_target(db, table, set_target, wait)
    with open_read_only(db, wait) as connection:
        contents = read_contents(connection)
        publications = publication_states(connection)
    selected = [coverage for coverage in contents.coverages if table in {None, coverage.table}]
    profiles = [each for each in contents.profiles if table in {None, each.name}]
    if table is not None and not (selected or profiles):
        _raise_not_found(table, contents)
    if as_json:
        print_json(status_as_dict(db, selected, profiles, contents, publications))
        return
    signs = signs_for(sys.stdout.encoding)
    width = get_terminal_size().columns
    lines = [f"database  {db}", ""] + [
        line for coverage in selected for line in [*_section(coverage, contents, db, signs, width), ""]
    ]
    lines += [line for each in profiles for line in [*_profile_section(each, db, width), ""]]
    lines += _published(publications, db)
    lines += _footer(selected, contents, db)
    click.echo("\n".join(lines).rstrip("\n"))


def _set_target(db: str, table: str | None, text: str, wait: float) -> None:
    from mixpanel_export._database.path import database_path
    from mixpanel_export._local.set_target import change_target_days

    days = _target_days(text)
    with open_read_only(db, wait):
        pass  # only waits until the file is free
    change_target_days(database_path(db), days, table)


def _target_days(text: str) -> "Chunk":
    """Parse a range of days such as `2024-01-01..2024-12-30`. Raises `click.BadParameter` if it is invalid."""
    from mixpanel_export._planning.days import checked_days
    from mixpanel_export.errors import ArgumentError

    first, separator, last = text.partition("..")
    try:
        days = checked_days(first, last, datetime.now(UTC).date()) if separator else None
    except ArgumentError:
        days = None
    if days is None or days.length > _MAX_TARGET_DAYS:
        raise click.BadParameter(
            "must be two days in order, at most 100 years apart, such as 2024-01-01..2024-12-30",
            param_hint="--set-target",
        )
    return days


def _raise_not_found(table: str, contents: "Contents") -> None:
    from mixpanel_export.errors import TableNotFoundError

    raise TableNotFoundError(
        table,
        f"there is no exported table {table}",
        advice=did_you_mean(
            table,
            [coverage.table for coverage in contents.coverages] + [each.name for each in contents.profiles],
        )
        + "leave out --table to see all tables",
    )


def _section(coverage: "Coverage", contents: "Contents", db: str, signs: Signs, width: int) -> Iterator[str]:
    yield from _fact_lines(list(_facts(coverage)), width)
    yield ""
    if coverage.dropped:
        return
    yield from calendar_lines(coverage, signs, width)
    yield from _failures(coverage, db, width)
    if coverage.table not in contents.unknown:  # an export is rejected until these rows are deleted
        yield from _changed_days(coverage, db, width)


def _profile_section(table: "ProfileTable", db: str, width: int) -> Iterator[str]:
    yield from _fact_lines(list(profile_facts(table, _ago(table.last.finished) if table.last else "")), width)
    command = export_again_command(table, db)
    if command and (table.failure or table.row_count_difference):
        yield "To export these profiles again:"
        yield f"  {command}"


def _fact_lines(rows: Sequence[tuple[str, str]], width: int) -> Iterator[str]:
    indent = max(len(name) for name, _ in rows) + 2
    for name, value in rows:
        yield from _wrapped(f"{name:<{indent}}{value}", width, " " * indent)


def _wrapped(text: str, width: int, indent: str = "") -> list[str]:
    """Wrap text to the terminal's width. Commands are not wrapped, so that they can be copied."""
    return textwrap.wrap(
        text, max(width, 40), subsequent_indent=indent, break_on_hyphens=False, break_long_words=False
    )


def _facts(coverage: "Coverage") -> Iterator[tuple[str, str]]:
    yield "table", coverage.table
    zone = "" if coverage.options.zone == "UTC" else f", days of {coverage.options.zone}"
    yield "selection", f"{coverage.selection}{zone}"
    yield "days", f"{coverage.days[0].day} to {coverage.days[-1].day}"
    if coverage.dropped:
        yield "dropped", "the table does not exist, so the file has none of these days"
    yield "rows", f"{coverage.total_rows:,}" + _without_day(coverage)
    if coverage.last_export:
        yield "last export", f"{coverage.last_export:%Y-%m-%d %H:%M} UTC, {_ago(coverage.last_export)}"
    for name, number, where in (
        ("duplicates", sum(row.removed_duplicates for row in coverage.batches), "removed"),
        (
            "rejects",
            sum(row.rejects for row in coverage.batches),
            "lines that are not events; see _export_rejects",
        ),
        (
            "repaired",
            sum(row.repaired for row in coverage.batches),
            "events; see _export_rejects for the original lines",
        ),
    ):
        if number:
            yield name, f"{number:,} {where}"
    if not coverage.dropped:
        yield from _days_to_fetch(coverage)
    if coverage.empty_responses:
        yield (
            "empty",
            f"{', '.join(map(str, coverage.empty_responses))} (treated as days without events, after two empty responses)",
        )


def _days_to_fetch(coverage: "Coverage") -> Iterator[tuple[str, str]]:
    """For each status of days that must still be fetched, yield the number of days and the first ranges."""
    from mixpanel_export._database.coverage import join_days

    for status in ("changed", "missing", "failed", "open"):
        number = coverage.statuses[status]
        if number:
            ranges = list(join_days(day.day for day in coverage.days if day.status == status))
            more = len(ranges) - _MAX_RANGES
            rest = (
                f", and {more} more {'ranges' if more > 1 else 'range'}; --json prints all"
                if more > 0
                else ""
            )
            days = ", ".join(map(str, ranges[:_MAX_RANGES]))
            yield (
                status,
                f"{number:,} {'days' if number > 1 else 'day'}: {days}{rest}{_remark(coverage, status)}",
            )


def _remark(coverage: "Coverage", status: str) -> str:
    if status == "open" and _shares_batch(coverage):
        return "; all days of a batch are refetched"
    old = sum(day.rows > 0 for day in coverage.days if day.status == "failed") if status == "failed" else 0
    return (
        f"; {old:,} of them still {'has' if old == 1 else 'have'} earlier events in the table" if old else ""
    )


def _shares_batch(coverage: "Coverage") -> bool:
    """Whether an open batch has several days. `resume` refetches whole batches, so all days of the batch count as open."""
    return any(batch.status == "open" and batch.days.length > 1 for batch in coverage.batches)


def _without_day(coverage: "Coverage") -> str:
    number = coverage.rows_without_day
    return f", {number:,} of them without a time or with a time outside these days" if number else ""


def _ago(moment: datetime) -> str:
    minutes = max(0, int((datetime.now(UTC) - moment.replace(tzinfo=UTC)).total_seconds() / 60))
    for size, name in ((1440, "day"), (60, "hour"), (1, "minute")):
        number = minutes // size
        if number:
            return f"{number} {name}{'s' if number > 1 else ''} ago"
    return "just now"


def _failures(coverage: "Coverage", db: str, width: int) -> Iterator[str]:
    """Yield the first failures, each with the command that fetches its days again."""
    failures = coverage.failures
    if failures:
        yield ""
    for failure in failures[:_MAX_FAILURES]:
        yield from _wrapped(f"{failure.days} failed: {one_line(failure.error)}", width)
        yield f"  {command_for(coverage, db, failure.days)}"
    if len(failures) > _MAX_FAILURES:
        yield f"and {len(failures) - _MAX_FAILURES} more; --json prints all"


def _changed_days(coverage: "Coverage", db: str, width: int) -> Iterator[str]:
    """Yield the days with rows that were changed by hand, and the commands that fetch them again."""
    for changed in coverage.changed_days:
        yield ""
        yield from _wrapped(f"{changed.days}: {changed}; to fetch these days again:", width)
        yield f"  {refetch_command(coverage, db, changed.days)}"


def _published(publications: "list[PublicationState]", db: str) -> Iterator[str]:
    """Yield the data sets to which tables are published, and a command for each data set that is out of date."""
    for state in publications:
        publication = state.publication
        when = f", {_ago(publication.published_at)}" if publication.published_at else ", incomplete"
        if state.by_day:
            words = f": {state.days:,} days" + (f", {state.behind:,} behind" if state.behind else "")
        else:
            words = ", but has changed since" if state.behind else ""
        yield f"{publication.table} is published to {publication.destination}{words}{when}"
        if state.behind or not publication.published_at:
            yield f"  {publish_command(publication.destination, db)}"


def _footer(selected: "list[Coverage]", contents: "Contents", db: str) -> Iterator[str]:
    """Yield facts about the whole file, and the next command to run."""
    for table, number in contents.unknown.items():
        yield unknown_rows_line(table, number)
        yield f"  {doctor_command(db)}"
    for replacement in contents.replacements:
        kept = replacement.complete_batches
        yield f"The replacement of {replacement.spec.table} is incomplete; {kept} {'batch is' if kept == 1 else 'batches are'} kept. To continue:"
        yield f"  {continue_command(replacement, db)}"
    for flat in contents.outdated_flat_tables:
        yield f"The flat table {flat.name} is out of date. To update it:"
        yield f"  {flatten_command(flat, db)}"
    if contents.others:
        yield f"Other tables: {', '.join(contents.others)}"
    if not (contents.coverages or contents.profiles):
        first = quoted([program(), "export", "--from", "DATE", "--to", "DATE", "--db", db])
        yield f"{db} has no exported events yet. To export: {first}"
    elif contents.coverages:
        yield f"To see charts: {quoted([program(), 'report', db])}"
    retry = command_for_rest(selected, contents, db)
    if retry:
        yield "To fetch failed, missing and open days:"
        yield f"  {retry}"
