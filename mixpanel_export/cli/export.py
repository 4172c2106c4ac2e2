"""`mpx export`: export the events of a range of days into a DuckDB file."""

from collections.abc import Callable
from dataclasses import replace as with_changes
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from mixpanel_export.cli import complete, print_json
from mixpanel_export.cli.date_range import RangeOptions, days_to_export
from mixpanel_export.cli.default_file import mention_other_default, other_default_file
from mixpanel_export.cli.event_names import parse_events
from mixpanel_export.cli.export_arguments import credentials_of, export_arguments
from mixpanel_export.cli.export_options import Options, export_options
from mixpanel_export.cli.export_stdout import print_events, stdout_options
from mixpanel_export.cli.help import SectionedCommand
from mixpanel_export.cli.known_events import check_event_names
from mixpanel_export.cli.log import say
from mixpanel_export.cli.options import (
    allow_new_events_option,
    chunk_days_option,
    credential_options,
    db_option,
    option,
    output_options,
    publish_option,
    request_options,
    workers_option,
)
from mixpanel_export.cli.publish import publish_after_export
from mixpanel_export.cli.replace import confirm_removal, days_removed
from mixpanel_export.cli.report import next_command, plan_lines
from mixpanel_export.cli.run_export import (
    Output,
    exit_code,
    fetch,
    options_in_advice,
    print_failures,
    print_result,
    say_outdated,
)
from mixpanel_export.cli.watch import messages
from mixpanel_export.results import ExportPlan

if TYPE_CHECKING:
    from mixpanel_export._local.replaced_days import RemovedDays

EXAMPLES = """\b
Examples:
  mpx export --from 2024-01-01 --to 2024-03-30 --parallel
  mpx export signups --from 2024-01-01 --to 2024-01-07 -e 'Sign Up,Log In' --db app.duckdb
  mpx export --from 2023-01 --to last-month --parallel --dry-run
  mpx export --days 30 --parallel --resume
  mpx export --from 2024-03-05 --to 2024-03-05 --append   # refetches one day, with the other days of its batch
  mpx export --parallel --resume --quiet     # for cron: fetches the missing days
  mpx export --from 2024-01 --to 2024-03 --parallel --stdout | gzip > events.ndjson.gz

Credentials come from MP_USERNAME, MP_SECRET, MP_PROJECT_ID and MP_REGION, or from an account in ~/.mp/config.toml.
Default values of options come from [defaults] in that file, such as parallel = true, workers = 10, mode = "resume",
flatten = true and db = "events.duckdb".

\b
Exit codes:
  0    success
  1    a batch failed, or another error occurred
  2    wrong usage
  3    authentication or configuration failed, or an optional library is not installed
  4    a table, account or file already exists or does not exist
  5    batches failed, all of them because the quota was used up
  129  the terminal hung up
  130  interrupted
  143  terminated
"""


@click.command(
    "export", cls=SectionedCommand, short_help="Export events into a DuckDB file.", epilog=EXAMPLES
)
@click.argument("table", default="events", shell_complete=complete.tables)
@option(
    "--from",
    "from_date",
    section="Days",
    metavar="DATE",
    show_default="the first missing day",
    help="First day: 2024-01-31, today, yesterday, -30d (days ago), 2w (weeks ago), 2024-01 or last-month.",
)
@option(
    "--to",
    "to_date",
    section="Days",
    metavar="DATE",
    show_default="yesterday",
    help="Last day, inclusive. Days are in UTC, or in --project-timezone.",
)
@option(
    "--days",
    section="Days",
    type=click.IntRange(1, 36_525),
    metavar="N",
    help="The last N days up to --to, instead of --from.",
)
@option(
    "--resume",
    section="Days",
    is_flag=True,
    help="Fetch only the days that are missing, failed or not final.",
)
@option(
    "--append",
    section="Days",
    is_flag=True,
    help="Add days to an existing table; refetch days that it already has, in whole batches.",
)
@option(
    "--replace",
    section="Days",
    is_flag=True,
    help="Replace the whole table, atomically, once every day has arrived. This removes all other days, and the earlier "
    "--events and --where. To refetch only some days, use --append.",
)
@option(
    "--yes",
    section="Days",
    is_flag=True,
    help="Remove days that --replace does not request, without a question. Without a terminal, this is required if "
    "the table has more days than are requested.",
)
@option(
    "--mode",
    section="Days",
    type=click.Choice(["create", "append", "resume"]),
    envvar="MPX_MODE",
    show_envvar=True,
    setting="mode",
    default="create",
    help="Mode if --resume, --append and --replace are not given; create requires that TABLE does not exist.",
)
@option(
    "-e",
    "--events",
    section="What",
    multiple=True,
    callback=parse_events,
    metavar="A,B",
    help="Export only these events; repeatable. Write names with commas as a JSON list: '[\"a,b\"]'.",
)
@allow_new_events_option
@option(
    "-w",
    "--where",
    section="What",
    metavar="EXPR",
    help="Export only events that match this Mixpanel expression.",
)
@option(
    "-l",
    "--limit",
    section="What",
    type=click.IntRange(1, 100_000),
    metavar="N",
    help="Export at most N events, with one request.",
)
@option("--no-dedupe", section="What", is_flag=True, help="Keep duplicate events.")
@option(
    "--allow-empty",
    section="What",
    is_flag=True,
    help="Allow --replace to replace the table with an empty one.",
)
@option(
    "--flatten/--no-flatten",
    section="What",
    setting="flatten",
    default=False,
    show_default=False,
    help="After the export, update the flat tables, or create one; see mpx flatten.",
)
@option(
    "--project-timezone",
    section="What",
    metavar="ZONE",
    help="Time zone of a project with local times, such as US/Pacific. It overrides the account's time zone.",
)
@option(
    "-p",
    "--parallel/--no-parallel",
    section="How fast",
    envvar="MPX_PARALLEL",
    show_envvar=True,
    setting="parallel",
    default=False,
    show_default=False,
    help="Send several requests at a time; required by --workers and --chunk-days.",
)
@workers_option
@chunk_days_option
@credential_options
@request_options
@db_option
@publish_option
@option(
    "--dry-run",
    section="Output",
    is_flag=True,
    help="Print the planned requests and the estimated wait. Nothing is requested or changed.",
)
@stdout_options
@option(
    "--json", "as_json", section="Output", is_flag=True, help="Print the result as JSON to standard output."
)
@output_options
@click.pass_context
def command(ctx: click.Context, /, **_: Any) -> None:
    """Export the events of a range of days into TABLE (default: events) of a DuckDB file.

    The table holds complete batches only, even after an interruption. To continue, run the same command with --resume.
    """
    options = export_options(ctx)
    output = Output(options.as_json, options.quiet, options.no_progress, options.verbose)
    with messages(quiet=options.quiet, verbose=options.verbose):
        if options.stdout:
            print_events(ctx, options, output)
        if not options.quiet:
            mention_other_default(ctx)
        credentials = credentials_of(options)
        days = days_to_export(_range_options(options, partial(other_default_file, ctx)), credentials)
        if days is None:
            if not options.quiet:
                say(
                    f"Nothing to fetch: {options.table} in {options.db} already has every day up to {options.to_date or 'yesterday'}."
                )
            return
        if options.events and not options.allow_new_events:
            check_event_names(
                options.events,
                options.db,
                credentials.project_id,
                quiet=options.quiet,
            )
        arguments = export_arguments(options, credentials, days)
        requested = str(days.first), str(days.last)
        removed = days_removed(arguments, days) if options.replace else None
        with options_in_advice(options.events, options.where):
            if options.dry_run:
                _print_plan(options, _plan(arguments), removed)
                return
            if removed:
                confirm_removal(removed, options.table, confirmed=options.yes, quiet=options.quiet)
            finished = fetch(
                arguments, output, http2=options.http2, next_command=lambda: next_command(ctx, requested)
            )
        result = finished.result
        if options.as_json:
            print_json(result.to_dict())
        print_result(finished, options.db, output, adds=options.append or options.resume, removed=removed)
        again = next_command(ctx, requested, result.failed_date_ranges) if result.has_failures else ""
        print_failures(result, again, output, replacing=options.replace)
        say_outdated(options.db, output)
        unpublished = publish_after_export(ctx, options.db, options.publish, options.table, output)
    ctx.exit(exit_code([result]) or unpublished)


def _range_options(options: Options, other_file: Callable[[], Path | None]) -> RangeOptions:
    return RangeOptions(
        options.from_date,
        options.to_date,
        options.days,
        options.db,
        options.table,
        options.events,
        options.where,
        options.project_timezone,
        may_ask=not options.quiet,
        other_file=other_file,
    )


def _plan(arguments: dict[str, Any]) -> ExportPlan:
    from mixpanel_export._export.dry_run import plan_export
    from mixpanel_export._export.job import ExportArguments, checked_job
    from mixpanel_export.sync import run_sync

    return run_sync(plan_export, checked_job(ExportArguments(**arguments)))


def _print_plan(options: Options, plan: ExportPlan, removed: "RemovedDays | None") -> None:
    if removed:
        plan = with_changes(plan, removed_days=removed.number, removed_events=removed.events)
    if options.as_json:
        print_json(plan.to_dict())
    else:
        click.echo("\n".join(plan_lines(plan, options.db, options.max_wait)))
    if not options.quiet:
        say("Dry run: nothing was requested, and no file was changed.")
