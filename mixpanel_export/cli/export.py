"""`mpx export`: the events of a range of days into a DuckDB file."""

import json
from dataclasses import dataclass
from typing import Any

import click

from mixpanel_export.cli import Interrupted
from mixpanel_export.cli.duration import parse_duration, parse_timeout
from mixpanel_export.cli.report import failure_lines, next_command, plan_lines, remarks, result_lines
from mixpanel_export.cli.watch import BatchWatcher, messages, watching
from mixpanel_export.errors import DateRangeTooLargeError, RateLimitError
from mixpanel_export.results import BatchProgress, ExportPlan, ParallelFetchResult

EXAMPLES = """\b
Examples:
  mpx export --from 2024-01-01 --to 2024-03-30 --parallel
  mpx export signups --from 2024-01-01 --to 2024-01-07 -e 'Sign Up,Log In' --db app.duckdb
  mpx export --from 2024-01-01 --to 2024-06-30 --parallel --resume
  mpx export --from 2023-01-01 --to 2024-12-31 --parallel --dry-run

\b
Credentials: MP_USERNAME, MP_SECRET, MP_PROJECT_ID and MP_REGION, or an account of ~/.mp/config.toml.
Exit codes: 0 ok, 1 failed batches or another error, 2 usage, 3 authentication,
4 table or account not found or exists, 5 the quota alone was the reason, 130 interrupted,
143 terminated.
"""


@dataclass(frozen=True, slots=True)
class Options:
    """What the user typed, or set in the environment."""

    table: str
    from_date: str
    to_date: str
    db: str
    account: str | None
    project_id: str | None
    region: str | None
    project_timezone: str | None
    events: list[str] | None
    where: str | None
    limit: int | None
    parallel: bool
    workers: int | None
    chunk_days: int | None
    append: bool
    replace: bool
    resume: bool
    retries: int
    max_wait: float
    first_byte_timeout: float
    idle_timeout: float
    per_second: int | None
    per_hour: int | None
    api_url: str | None
    http2: bool
    no_dedupe: bool
    dry_run: bool
    as_json: bool
    quiet: bool
    no_progress: bool
    verbose: bool


def parse_events(_ctx: click.Context, _option: click.Parameter, values: tuple[str, ...]) -> list[str] | None:
    """Return the event names of every `--events`, in order, each once; None where there is none."""
    if not values:
        return None
    names = [name for value in values for name in _names(value)]
    if not names:
        raise click.BadParameter("it names no event; leave it out to export all events.")
    return list(dict.fromkeys(names))


def _names(value: str) -> list[str]:
    if not value.lstrip().startswith("["):
        return [name.strip() for name in value.split(",") if name.strip()]
    try:
        names = json.loads(value)
    except ValueError as error:
        raise click.BadParameter(f"{value} is no JSON list ({error}).") from error
    if not all(isinstance(name, str) and name for name in names):
        raise click.BadParameter(f"{value} is no JSON list of event names.")
    return list(names)


@click.command("export", short_help="Export events into a DuckDB file.", epilog=EXAMPLES)
@click.argument("table", default="events")
@click.option("--from", "from_date", required=True, metavar="DATE", help="First day, YYYY-MM-DD, inclusive.")
@click.option("--to", "to_date", required=True, metavar="DATE", help="Last day, YYYY-MM-DD, inclusive.")
@click.option("--db", envvar="MPX_DB", default="mixpanel.duckdb", metavar="PATH", help="DuckDB file; MPX_DB.")
@click.option(
    "-a",
    "--account",
    envvar="MP_ACCOUNT",
    metavar="NAME",
    help="Account in the configuration file; MP_ACCOUNT.",
)
@click.option("--project-id", metavar="ID", help="Project to export, instead of the configured one.")
@click.option("--region", metavar="NAME", help="us, eu or in, instead of the configured one.")
@click.option(
    "--project-timezone",
    metavar="ZONE",
    help="Zone of a project whose times are local, such as US/Pacific, instead of the configured one.",
)
@click.option(
    "-e",
    "--events",
    multiple=True,
    callback=parse_events,
    metavar="A,B",
    help="Only these events; may be repeated. Names with commas as a JSON list: '[\"a,b\"]'.",
)
@click.option(
    "-w", "--where", metavar="EXPR", help="Only events for which Mixpanel finds this expression true."
)
@click.option(
    "-l",
    "--limit",
    type=click.IntRange(1, 100_000),
    metavar="N",
    help="At most this many events; one request.",
)
@click.option("-p", "--parallel", is_flag=True, help="Several requests at a time.")
@click.option(
    "--workers",
    type=click.IntRange(1, 100),
    metavar="N",
    show_default="10",
    help="Requests at a time; needs --parallel.",
)
@click.option(
    "--chunk-days",
    type=click.IntRange(1, 100),
    metavar="N",
    show_default="planned for the range and the quota",
    help="Days a request; needs --parallel.",
)
@click.option("--append", is_flag=True, help="Add to an existing table; days it has are fetched again.")
@click.option(
    "--replace", is_flag=True, help="Put these days in the place of the whole table, when all are here."
)
@click.option("--resume", is_flag=True, help="Fetch only the days that the table has not, or not for good.")
@click.option(
    "--retries",
    type=click.IntRange(0),
    default=5,
    metavar="N",
    help="How often a request may fail and be made again.",
)
@click.option(
    "--max-wait",
    callback=parse_duration,
    default="24h",
    metavar="DURATION",
    help="How long to wait for the hour's quota in all, such as 90s, 30m or 2h; 0 = not at all.",
)
@click.option(
    "--first-byte-timeout",
    callback=parse_timeout,
    default="30m",
    metavar="DURATION",
    help="How long an answer may take to begin; large ones take minutes.",
)
@click.option(
    "--idle-timeout",
    callback=parse_timeout,
    default="5m",
    metavar="DURATION",
    help="How long an answer may pause.",
)
@click.option(
    "--per-second",
    type=click.IntRange(0),
    envvar="MPX_PER_SECOND",
    metavar="N",
    show_default="3",
    help="Requests a second the project allows; 0 = unlimited; MPX_PER_SECOND.",
)
@click.option(
    "--per-hour",
    type=click.IntRange(0),
    envvar="MPX_PER_HOUR",
    metavar="N",
    show_default="60",
    help="Requests an hour the project allows; 0 = unlimited; MPX_PER_HOUR.",
)
@click.option(
    "--api-url", envvar="MPX_API_URL", metavar="URL", help="Another server than Mixpanel; MPX_API_URL."
)
@click.option("--http2", is_flag=True, help="Let the server choose HTTP/2.")
@click.option("--no-dedupe", is_flag=True, help="Keep events that were delivered twice.")
@click.option(
    "--dry-run", is_flag=True, help="Show what would be asked for and how long it would take; do nothing."
)
@click.option("--json", "as_json", is_flag=True, help="The result as JSON on standard output.")
@click.option("-q", "--quiet", is_flag=True, help="Nothing on standard error but errors.")
@click.option("--no-progress", is_flag=True, help="Neither bars nor a line for each batch.")
@click.option("-v", "--verbose", is_flag=True, help="Log what happens to standard error, instead of bars.")
@click.pass_context
def command(ctx: click.Context, /, **given: Any) -> None:
    """Export the events of some days into TABLE (default: events) of a DuckDB file.

    A table holds whole batches only, whenever this is interrupted; the same command with --resume goes on.
    """
    options = Options(**given)
    _check(options)
    with messages(quiet=options.quiet, verbose=options.verbose):
        if options.dry_run:
            _print_plan(options, _plan(options))
            return
        result, fetched = _export(ctx, options)
    _print_result(options, result, fetched)
    if result.has_failures:
        _print_failures(ctx, options, result)
        ctx.exit(5 if all(isinstance(error, RateLimitError) for error in result.errors) else 1)


def _check(options: Options) -> None:
    if options.append + options.replace + options.resume > 1:
        raise click.UsageError("--append, --replace and --resume exclude each other; choose one.")
    if options.parallel and options.limit is not None:
        raise click.UsageError("--limit holds for one request; leave --parallel or --limit out.")
    if not options.parallel and (options.workers or options.chunk_days):
        raise click.UsageError("--workers and --chunk-days shape a parallel export; add --parallel.")


def _export(ctx: click.Context, options: Options) -> tuple[ParallelFetchResult, int]:
    """Export, and return how many rows the batches brought besides the result."""
    from mixpanel_export._engine import export_events
    from mixpanel_export.sync import run_sync

    wanted = _wanted(options)
    shown = not (options.quiet or options.no_progress)
    try:
        with watching(options.table, shown=shown, bars=not options.verbose, forecast=not options.quiet) as (
            say,
            draw,
        ):
            counted = _Counted(say)
            result = run_sync(
                export_events, **wanted, on_batch_complete=counted, on_progress=draw, http2=options.http2
            )
    except KeyboardInterrupt as interrupt:
        go_on = next_command(ctx, [(options.from_date, options.to_date)])
        raise Interrupted(f"Interrupted; complete batches are kept. To go on: {go_on}") from interrupt
    return result, counted.rows


def _plan(options: Options) -> ExportPlan:
    from mixpanel_export._dry_run import plan_export
    from mixpanel_export._job import checked_job
    from mixpanel_export.sync import run_sync

    return run_sync(plan_export, checked_job(**_wanted(options)))


def _wanted(options: Options) -> dict[str, Any]:
    """Return the arguments that say what to export: the same for a real run and a dry one."""
    from mixpanel_export._arguments import mode_of
    from mixpanel_export._fetch import Timeouts
    from mixpanel_export.credentials import resolve_credentials

    if not options.parallel:
        _check_one_request(options)
    return {
        "from_date": options.from_date,
        "to_date": options.to_date,
        "db": options.db,
        "table": options.table,
        "credentials": resolve_credentials(
            options.account, project_id=options.project_id, region=options.region
        ),
        "events": options.events,
        "where": options.where,
        "limit": options.limit,
        "max_workers": options.workers or 10,
        "chunk_days": options.chunk_days,
        "one_request": not options.parallel,
        "mode": mode_of(append=options.append, replace=options.replace, resume=options.resume),
        "dedupe": not options.no_dedupe,
        "retries": options.retries,
        "max_wait": options.max_wait,
        "timeouts": Timeouts(first_byte=options.first_byte_timeout, idle=options.idle_timeout),
        "api_url": options.api_url,
        "project_timezone": options.project_timezone,
        "per_second": options.per_second,
        "per_hour": options.per_hour,
    }


class _Counted:
    """Counts the rows of the batches that it hands on."""

    def __init__(self, then: BatchWatcher) -> None:
        self._then = then
        self.rows = 0

    def __call__(self, batch: BatchProgress) -> None:
        self.rows += batch.rows
        self._then(batch)


def _check_one_request(options: Options) -> None:
    """Refuse more days than one request may ask for, and suggest more requests for many."""
    from mixpanel_export._arguments import days_of_one_request

    try:
        days = days_of_one_request(options.from_date, options.to_date)
    except DateRangeTooLargeError as error:
        raise click.UsageError(
            f"{error.days_requested} days are too many for one request, which may ask for {error.max_days}; "
            + ("add --parallel." if options.limit is None else "--limit holds for one request.")
        ) from error
    if days > 7 and options.limit is None and not options.quiet:
        click.echo(f"{days} days in one request; --parallel makes several at a time.", err=True)


def _print_result(options: Options, result: ParallelFetchResult, fetched: int) -> None:
    if not options.as_json:
        replaced = fetched - result.total_rows if options.append or options.resume else 0
        click.echo("\n".join(result_lines(result, options.db, replaced)))
        return
    click.echo(json.dumps(result.to_dict(), indent=2))
    if not options.quiet:
        for name, value in remarks(result):
            click.echo(f"{name}: {value}", err=True)


def _print_plan(options: Options, plan: ExportPlan) -> None:
    if options.as_json:
        click.echo(json.dumps(plan.to_dict(), indent=2))
    else:
        click.echo("\n".join(plan_lines(plan, options.db, options.max_wait)))
    if not options.quiet:
        click.echo("Dry run: nothing was requested, and no file was changed.", err=True)


def _print_failures(ctx: click.Context, options: Options, result: ParallelFetchResult) -> None:
    go_on = next_command(ctx, result.failed_date_ranges)
    click.echo("\n".join(failure_lines(result, go_on, replacing=options.replace)), err=True)
