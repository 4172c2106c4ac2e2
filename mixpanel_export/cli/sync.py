"""`mpx sync`: brings tables up to date. It is meant to run every night."""

import sys
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from mixpanel_export.cli import Interrupted, complete, print_json
from mixpanel_export.cli.event_names import parse_events
from mixpanel_export.cli.help import SectionedCommand
from mixpanel_export.cli.known_events import check_event_names
from mixpanel_export.cli.log import log_event, logs_json, say
from mixpanel_export.cli.options import (
    allow_new_events_option,
    credential_options,
    db_option,
    option,
    output_options,
    publish_option,
    request_options,
    wait_option,
    workers_option,
)
from mixpanel_export.cli.publish import publish_after_export
from mixpanel_export.cli.report import kept_line, sync_command, sync_line
from mixpanel_export.cli.run_export import Output, exit_code, print_failures, request_arguments, say_outdated
from mixpanel_export.cli.sync_profiles import (
    STOPS_PROFILES,
    report_failure,
    reported_profiles,
    sync_profiles,
)
from mixpanel_export.cli.sync_tasks import SyncTask, check_sections, tasks_of_sections, tasks_of_table
from mixpanel_export.cli.watch import messages, watching
from mixpanel_export.errors import MixpanelDataError

if TYPE_CHECKING:
    from datetime import date

    from mixpanel_export.changes import SyncResult
    from mixpanel_export.credentials import Credentials

EXAMPLES = """\b
Examples:
  mpx sync --since 2024-01-01        # the first time
  mpx sync                           # every night
  mpx sync --init                    # asks questions, and writes a section [sync.NAME] of the configuration file
  mpx sync --profiles                # also replaces the `profiles` table with the current profiles

\b
A line for crontab:  0 6 * * *  cd /srv/events && /full/path/to/mpx sync
cron does not use your shell's variables, so store the credentials with mpx accounts add.

The keys of a section are named like the options: account, project_id, region, db, table, events, where, since, lookback,
budget, flatten, publish, profiles (true, or the name of a table) and publish_profiles. If no section is given, all
selections in the table are synced; --events and --where choose one. To remove the others, replace the table with mpx
export --replace.

On success, only a summary is printed, and only on a terminal. The table _sync_changes lists the changes by day.

\b
Exit codes are the same as for mpx export, and:
  1  a day failed, or lost over half of its events; the old events are then kept (see --accept-loss)
  6  another process is using the file; use --wait to wait for it
"""


@click.command(
    "sync",
    cls=SectionedCommand,
    short_help="Bring tables up to date, for example every night.",
    epilog=EXAMPLES,
)
@click.argument("names", metavar="[NAME]...", nargs=-1)
@option("--all", "everything", section="What", is_flag=True, help="Sync every section [sync.NAME].")
@option(
    "--init",
    is_flag=True,
    section="What",
    help="Ask for the table and its days, and write a section [sync.NAME].",
)
@option(
    "--since",
    section="Days",
    metavar="DATE",
    help="First day, such as 2024-01-31 or -90d; required only for the first sync of a table. Later, an earlier DATE adds "
    "days.",
)
@option(
    "--lookback",
    section="Days",
    type=click.IntRange(0, 36_525),
    metavar="DAYS",
    show_default="5",
    help="Number of recent days to refetch, because events can arrive late.",
)
@option(
    "--budget",
    section="Days",
    type=click.IntRange(0),
    metavar="N",
    show_default="a third of --per-hour",
    help="Maximum number of requests for refetching days; each of the last 30 days is refetched about once a week.",
)
@option(
    "--accept-loss",
    section="Days",
    is_flag=True,
    help="Replace the old events even if a new response has fewer than half as many.",
)
@option(
    "--table",
    section="What",
    metavar="NAME",
    default="events",
    shell_complete=complete.tables,
    help="Table to bring up to date.",
)
@option(
    "-e",
    "--events",
    section="What",
    multiple=True,
    callback=parse_events,
    metavar="A,B",
    help="Sync only these events; repeatable. The option is needed only for the first sync.",
)
@allow_new_events_option
@option(
    "-w",
    "--where",
    section="What",
    metavar="EXPR",
    help="Sync only events that match this Mixpanel expression.",
)
@option(
    "--flatten/--no-flatten",
    section="What",
    setting="flatten",
    default=False,
    show_default=False,
    help="After the sync, update the flat tables, or create one. Flat tables created with mpx flatten --auto are always updated.",
)
@option(
    "--profiles",
    section="What",
    is_flag=True,
    help="After the events, also replace the `profiles` table with the current profiles.",
)
@option(
    "--project-timezone",
    section="What",
    metavar="ZONE",
    help="Time zone of a project with local times, such as US/Pacific. It overrides the account's time zone.",
)
@workers_option
@credential_options
@request_options
@db_option
@publish_option
@option(
    "--publish-profiles",
    section="Output",
    metavar="DEST",
    shell_complete=complete.files,
    help="After the profiles, bring their data set at DEST up to date.",
)
@wait_option
@option("--json", "as_json", section="Output", is_flag=True, help="Print the results as a JSON list.")
@output_options
@click.pass_context
def command(
    ctx: click.Context,
    /,
    *,
    names: tuple[str, ...],
    everything: bool,
    init: bool,
    accept_loss: bool,
    wait: float,
    as_json: bool,
    quiet: bool,
    no_progress: bool,
    verbose: bool,
    **options: Any,
) -> None:
    """Bring a table up to date, through yesterday. Each NAME is a section of the configuration file with a table to sync.

    The command fetches days that are missing, failed or open. It also refetches the most recent days and some of the last 30
    days, because events can arrive late, change or be deleted. Whole batches are refetched and replaced.
    """
    if init:
        from mixpanel_export.cli.sync_setup import add_section

        add_section(names)
        return
    check_sections(ctx, names, everything=everything)
    output = Output(as_json, quiet, no_progress, verbose)
    with messages(quiet=quiet, verbose=verbose):
        tasks = _tasks(names, everything, options)
        run = partial(_sync, ctx, output=output, wait=wait, accept_loss=accept_loss, options=options)
        outcomes = [run(task) for task in tasks]
        if as_json:
            print_json([result for results, _ in outcomes for result in results])
    ctx.exit(next((code for _, code in outcomes if code), 0))


def _tasks(names: tuple[str, ...], everything: bool, options: dict[str, Any]) -> list[SyncTask]:
    task = SyncTask(
        db=options["db"],
        table=options["table"],
        account=options["account"],
        project_id=options["project_id"],
        region=options["region"],
        events=None if options["events"] is None else tuple(options["events"]),
        where=options["where"],
        since=options["since"],
        lookback=options["lookback"],
        budget=options["budget"],
        flatten=options["flatten"],
        publish=options["publish"],
        publish_profiles=options["publish_profiles"],
        profiles="profiles" if options["profiles"] else None,
        zone=options["project_timezone"],
    )
    return tasks_of_sections(names, task) if names or everything else [task]


def _sync(
    ctx: click.Context,
    task: SyncTask,
    *,
    output: Output,
    wait: float,
    accept_loss: bool,
    options: dict[str, Any],
) -> tuple[list[dict[str, object]], int]:
    """Run a task. Return its results for JSON and its exit code. An error does not stop the other tasks.

    If the events fail, the profiles are still exported, unless the same error would stop them.
    """
    from mixpanel_export.credentials import resolve_credentials

    results: list[SyncResult] = []
    try:
        credentials = resolve_credentials(task.account, project_id=task.project_id, region=task.region)
        # A section defines its selection. Without a section, the selections come from the ledger.
        tasks = [task] if task.name else tasks_of_table(task, credentials, wait)
        if task.events and not (task.name or options["allow_new_events"]):
            project = credentials.project_id
            check_event_names(task.events, task.db, project, quiet=output.quiet, action="Sync", wait=wait)
        for each in tasks:
            arguments = {"credentials": credentials, "accept_loss": accept_loss, "wait": wait, **options}
            since = _typed_since(ctx, each, credentials)  # before the sync, which may last past midnight
            result = _fetch(ctx, each, output, arguments)
            results.append(result)
            if not output.quiet:
                _say_ignored(since, result)
            _print_result(ctx, result, output, each)
    except (MixpanelDataError, ValueError, OSError) as error:
        code = report_failure(ctx, error, task.name)
        if isinstance(error, STOPS_PROFILES):
            return [result.to_dict() for result in results], code
    else:
        unpublished = publish_after_export(ctx, task.db, task.publish, task.table, output)
        code = exit_code([result.export for result in results]) or unpublished
        code = code or int(any(result.kept for result in results))
    profiles = partial(sync_profiles, ctx, task, output, credentials=credentials, wait=wait, options=options)
    more, failed = reported_profiles(ctx, task, output, profiles)
    say_outdated(task.db, output)
    return [*(result.to_dict() for result in results), *more], code or failed


def _typed_since(ctx: click.Context, task: SyncTask, credentials: "Credentials") -> "date | None":
    """Return the day of `--since`; None if it was not typed.

    Raises:
        ArgumentError: The value is not a day.
    """
    from mixpanel_export._planning.days import resolve_day
    from mixpanel_export._timezones import checked_zone, in_zone

    if task.since is None or ctx.get_parameter_source("since") is not ParameterSource.COMMANDLINE:
        return None
    zone = checked_zone(task.zone, credentials.project_timezone)
    return resolve_day(task.since, "since", in_zone(datetime.now(UTC), zone).date())


def _say_ignored(since: "date | None", result: "SyncResult") -> None:
    """Print that `--since` had no effect, if it is after the table's first day."""
    first, last = result.days
    if since is None or str(since) <= first:
        return
    text = f"--since had no effect: table {result.table} starts on {first}"
    if str(since) <= last:
        text += f"; to change that: mpx status --set-target {since}..{last}"
    say(text)


def _fetch(ctx: click.Context, task: SyncTask, output: Output, arguments: dict[str, Any]) -> "SyncResult":
    from mixpanel_export._export.sync_events import sync_events
    from mixpanel_export.sync import run_sync

    names = ("retries", "max_wait", "first_byte_timeout", "idle_timeout", "per_second", "per_hour", "api_url")
    shown = not (output.quiet or output.no_progress) and (sys.stderr.isatty() or logs_json())
    show = watching(task.title, shown=shown, bars=not output.verbose, forecast=not output.quiet)
    try:
        with show as (on_batch, on_progress):
            return run_sync(
                sync_events,
                task.db,
                task.table,
                since=task.since,
                lookback=5 if task.lookback is None else task.lookback,
                budget=task.budget,
                accept_loss=arguments["accept_loss"],
                credentials=arguments["credentials"],
                events=task.events,
                where=task.where,
                dedupe=task.deduped,
                flatten=task.flatten,
                project_timezone=task.zone,
                max_workers=arguments["workers"] or 10,
                http2=arguments["http2"],
                wait=arguments["wait"],
                on_batch_complete=on_batch,
                on_progress=on_progress,
                **request_arguments(**{name: arguments[name] for name in names}),
            )
    except KeyboardInterrupt as interrupt:
        again = sync_command(ctx)
        raise Interrupted(f"Interrupted; complete batches are kept. To continue: {again}") from interrupt


def _print_result(ctx: click.Context, result: "SyncResult", output: Output, task: SyncTask) -> None:
    if logs_json() and not output.quiet:
        log_event("sync", section=task.name, **result.to_dict())
    elif not (output.as_json or output.quiet) and sys.stdout.isatty():
        click.echo(sync_line(result, task.title))
    if result.has_failures:
        print_failures(result.export, sync_command(ctx), output)
    for change in result.kept:
        text = kept_line(change, task.title, sync_command(ctx, "--accept-loss"))
        if logs_json():
            log_event("kept", section=task.name, message=text, **change.to_dict())
        else:
            click.echo(f"Error: {text}", err=True)
