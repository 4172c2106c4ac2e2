"""`mpx mp fetch`: mixpanel_data's `mp fetch`."""

import json
from typing import Any

import click

from mixpanel_export.cli.event_names import parse_events
from mixpanel_export.cli.mp.common import Group, db_option, settings_of, workspace_of
from mixpanel_export.cli.mp.output import check_jq, format_options, plain_text, print_result
from mixpanel_export.cli.options import option
from mixpanel_export.cli.stdout import binary_stdout
from mixpanel_export.cli.watch import messages, watching
from mixpanel_export.errors import ArgumentError
from mixpanel_export.results import FetchResult, ParallelFetchResult

EXAMPLES = """\b
Examples:
  mpx mp fetch events --from 2024-01-01 --to 2024-03-30 --parallel
  mpx mp fetch events signups --from 2024-01-01 --to 2024-01-31 --events "Sign Up"
  mpx mp fetch events --from 2024-01-01 --to 2024-01-31 --stdout --raw
"""


@click.group(
    "fetch",
    cls=Group,
    short_help="Fetch events or profiles from Mixpanel.",
    epilog="\b\nExample:\n  mpx mp fetch events --from 2024-01-01 --to 2024-01-31\n",
)
def fetch() -> None:
    """Fetch events or profiles from Mixpanel."""


@fetch.command("events", short_help="Fetch events into a table, or stream them.", epilog=EXAMPLES)
@click.argument("name", default="events")
@option("--from", "from_date", metavar="DATE", help="First day.")
@option("--to", "to_date", metavar="DATE", help="Last day.")
@option("-e", "--events", multiple=True, callback=parse_events, metavar="A,B", help="Only these events.")
@option("-w", "--where", metavar="EXPR", help="Only events that match this expression.")
@option("-l", "--limit", type=click.IntRange(1, 100_000), metavar="N", help="At most N events.")
@option("--replace", is_flag=True, help="Replace the table, atomically.")
@option("--append", is_flag=True, help="Add days to the table.")
@option("--no-progress", is_flag=True, help="Do not show the progress.")
@option("-p", "--parallel", is_flag=True, help="Send several requests at a time.")
@option("--workers", type=click.IntRange(1), metavar="N", show_default="10", help="Requests at a time.")
@option(
    "--chunk-days", type=click.IntRange(1, 100), metavar="N", show_default="planned", help="Days per request."
)
@option("--stdout", is_flag=True, help="Print the events as lines of JSON, and store nothing.")
@option("--raw", is_flag=True, help="With --stdout, print the objects as Mixpanel sends them.")
@option("--batch-size", type=click.IntRange(100, 100_000), metavar="N", help="Has no effect.")
@db_option
@format_options
@click.pass_context
def events(ctx: click.Context, /, *, name: str, style: str, jq: str | None, **options: Any) -> None:
    """Fetch the events of a range of days into the table NAME (default: events), or print them with --stdout.

    The result is printed in the chosen format. --stdout prints events only once their response is proven complete.
    """
    _check(options)
    check_jq(style, jq)
    settings = settings_of(ctx)
    with messages(quiet=settings.quiet, verbose=settings.verbose):
        if options["stdout"]:
            _stream(ctx, options)
            return
        result = _fetch(ctx, name, options)
    print_result(result.to_dict(), style, jq)
    ctx.exit(1 if isinstance(result, ParallelFetchResult) and result.has_failures else 0)


def _check(options: dict[str, Any]) -> None:
    for name in ("from_date", "to_date"):
        if not options[name]:
            raise ArgumentError(name, "is missing")
    if options["replace"] and options["append"]:
        raise ArgumentError("append", "cannot be used with --replace", advice="choose one")
    if options["raw"] and not options["stdout"]:
        raise ArgumentError("raw", "needs --stdout")


def _fetch(ctx: click.Context, name: str, options: dict[str, Any]) -> FetchResult | ParallelFetchResult:
    settings = settings_of(ctx)
    shown = not (settings.quiet or options["no_progress"])
    with (
        workspace_of(ctx, read_only=False) as workspace,
        watching(name, shown=shown, bars=not settings.verbose, forecast=not settings.quiet) as (
            on_batch,
            on_progress,
        ),
    ):
        result: FetchResult | ParallelFetchResult = workspace.fetch_events(
            name,
            **_filters(options),
            append=options["append"],
            replace=options["replace"],
            parallel=options["parallel"],
            max_workers=options["workers"],
            chunk_days=options["chunk_days"],
            progress=False,
            on_batch_complete=on_batch,
            on_progress=on_progress,
        )
    return result


def _stream(ctx: click.Context, options: dict[str, Any]) -> None:
    from mixpanel_export.workspace import Workspace

    count = 0
    workspace = Workspace(settings_of(ctx).account)
    with binary_stdout(ctx) as stdout:
        for event in workspace.stream_events(**_filters(options), raw=options["raw"]):
            stdout.write(json.dumps(event, default=plain_text).encode() + b"\n")
            count += 1
    if not settings_of(ctx).quiet:
        click.echo(f"Streamed {count} events.", err=True)


def _filters(options: dict[str, Any]) -> dict[str, Any]:
    return {name: options[name] for name in ("from_date", "to_date", "events", "where", "limit")}
