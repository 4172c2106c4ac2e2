"""`mpx export --stdout`: write events to standard output instead of a DuckDB file."""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, BinaryIO, NoReturn, cast

import click
from click.core import ParameterSource

from mixpanel_export.cli import Interrupted, option_of
from mixpanel_export.cli.date_range import chosen_days
from mixpanel_export.cli.export_arguments import credentials_of, export_arguments
from mixpanel_export.cli.export_options import Options
from mixpanel_export.cli.log import say
from mixpanel_export.cli.options import option
from mixpanel_export.cli.report import next_streams
from mixpanel_export.cli.run_export import Output, exit_code, print_failures
from mixpanel_export.cli.stdout import binary_stdout
from mixpanel_export.cli.watch import watching
from mixpanel_export.errors import MixpanelDataError

if TYPE_CHECKING:
    from mixpanel_export._model import Chunk
    from mixpanel_export.batches import BatchStream
    from mixpanel_export.credentials import Credentials
    from mixpanel_export.results import ParallelFetchResult

# These options, and the argument TABLE, only make sense with a table.
_TABLE_OPTIONS = (
    "db", "mode", "append", "replace", "resume", "yes", "allow_empty", "allow_new_events", "flatten", "dry_run", "as_json",
)  # fmt: skip
# The arguments that both `export_events` and `stream_batches` have.
_ARGUMENTS = (
    "from_date", "to_date", "credentials", "events", "where", "limit", "max_workers", "chunk_days", "one_request",
    "dedupe", "project_timezone", "retries", "max_wait", "timeouts", "api_url", "per_second", "per_hour",
)  # fmt: skip


def stdout_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add `--stdout` and `--ordered`."""
    command = option(
        "--ordered", section="Output", is_flag=True, help="With --stdout, write the days in order."
    )(command)
    return option(
        "--stdout",
        section="Output",
        is_flag=True,
        help="Write the events to standard output, one JSON object per line, exactly as Mixpanel sends them. A batch is "
        "written once it is complete; duplicates in different batches are not removed. If the process is killed, it leaves "
        "a folder mpx-* with events in the system's temporary folder; delete it.",
    )(command)


def print_events(ctx: click.Context, options: Options, output: Output) -> NoReturn:
    """Write the events to standard output. Then exit.

    Raises:
        UsageError: An option needs a table.
        MixpanelDataError: See `stream_batches`.
    """
    from mixpanel_export.batches import stream_batches

    _check(ctx)
    if not (options.from_date or options.days):
        _no_first_day()
    credentials = credentials_of(options)
    days = _days(options, credentials)
    values = export_arguments(options, credentials, days)
    shown = not (output.quiet or output.no_progress)
    show = watching("events", shown=shown, bars=not output.verbose, forecast=not output.quiet)
    with show as (on_batch, on_progress):
        stream = stream_batches(
            **{name: values[name] for name in _ARGUMENTS},
            ordered=options.ordered,
            http2=options.http2,
            on_batch_complete=on_batch,
            on_progress=on_progress,
        )
        result = _write(ctx, stream)
    if not output.quiet:
        duplicates = (
            f"; {result.removed_duplicates:,} duplicates removed" if result.removed_duplicates else ""
        )
        say(f"Wrote {result.total_rows:,} events{duplicates}.")
    if result.has_failures:
        print_failures(result, next_streams(ctx, result.failed_date_ranges), output)
    ctx.exit(exit_code([result]))


def _write(ctx: click.Context, stream: "BatchStream") -> "ParallelFetchResult":
    """Write all batches. Return the result, which lists the failed days."""
    rows = 0
    try:
        with binary_stdout(ctx) as stdout, stream as batches:
            for batch in batches:
                batch.write_to(cast("BinaryIO", stdout))
                stdout.flush()
                rows += batch.rows
    except KeyboardInterrupt as interrupt:
        raise Interrupted(f"Interrupted after {rows:,} events in complete batches.") from interrupt
    except MixpanelDataError:
        if stream.result is None:
            raise
    if stream.result is None:
        raise RuntimeError("the stream ended without a result; please report this")
    return stream.result


def _check(ctx: click.Context) -> None:
    typed = [
        name
        for name in ("table", *_TABLE_OPTIONS)
        if ctx.get_parameter_source(name) is ParameterSource.COMMANDLINE
    ]
    if typed:
        name = "TABLE" if typed[0] == "table" else "--json" if typed[0] == "as_json" else option_of(typed[0])
        raise click.UsageError(f"--stdout does not write a table; leave out {name}")


def _days(options: Options, credentials: "Credentials") -> "Chunk":
    from mixpanel_export._timezones import checked_zone, in_zone

    zone = checked_zone(options.project_timezone, credentials.project_timezone)
    today = in_zone(datetime.now(UTC), zone).date()
    days = chosen_days(options.from_date, options.to_date, options.days, today, _no_first_day)
    return days or _no_first_day()


def _no_first_day() -> NoReturn:
    raise click.UsageError(
        "--stdout needs a first day, because it does not use a table; pass --from or --days"
    )
