"""`mpx mp fetch profiles`: mixpanel_data's `mp fetch profiles`."""

import json
import sys
from typing import TYPE_CHECKING, Any

import click

from mixpanel_export.cli.event_names import names_in
from mixpanel_export.cli.mp.common import db_option, settings_of, workspace_of
from mixpanel_export.cli.mp.output import check_jq, format_options, plain_text, print_result
from mixpanel_export.cli.options import option
from mixpanel_export.cli.watch import messages, watching_pages
from mixpanel_export.errors import ArgumentError

if TYPE_CHECKING:
    from mixpanel_export.profiles import ParallelProfileResult
    from mixpanel_export.results import FetchResult

EXAMPLES = """\b
Examples:
  mpx mp fetch profiles --parallel
  mpx mp fetch profiles premium --where 'properties["plan"] == "premium"' --output-properties '$email,plan'
  mpx mp fetch profiles --cohort 12345 --stdout
"""

_FILTERS = (
    "where", "cohort_id", "output_properties", "distinct_id", "distinct_ids", "group_id", "behaviors",
    "as_of_timestamp", "include_all_users",
)  # fmt: skip


def _parse_properties(_ctx: click.Context, _option: click.Parameter, value: str | None) -> list[str] | None:
    return None if value is None else names_in(value)


def _parse_behaviors(_ctx: click.Context, _option: click.Parameter, value: str | None) -> Any:
    try:
        behaviors = None if value is None else json.loads(value)
    except ValueError as error:
        raise ArgumentError("behaviors", f"must be a JSON list ({error})") from error
    if not (behaviors is None or isinstance(behaviors, list)):
        raise ArgumentError("behaviors", "must be a JSON list")
    return behaviors


@click.command("profiles", short_help="Fetch profiles into a table, or stream them.", epilog=EXAMPLES)
@click.argument("name", default="profiles")
@option("-w", "--where", metavar="EXPR", help="Only profiles that match this expression.")
@option("-c", "--cohort", "--cohort-id", "cohort_id", metavar="ID", help="Only members of this cohort.")
@option("-o", "--output-properties", metavar="A,B", callback=_parse_properties, help="Only these properties.")
@option("--distinct-id", metavar="ID", help="Only this profile.")
@option("--distinct-ids", metavar="ID", multiple=True, help="Only these profiles; repeatable.")
@option("-g", "--group-id", metavar="ID", help="Group profiles of this group type.")
@option("--behaviors", metavar="JSON", callback=_parse_behaviors, help="Only users with these events.")
@option("--as-of-timestamp", type=int, metavar="SECONDS", help="Time for --behaviors, in seconds since 1970.")
@option("--include-all-users", is_flag=True, help="Also fetch members of the cohort without a profile.")
@option("--replace", is_flag=True, help="Replace the table, atomically.")
@option("--append", is_flag=True, help="Add profiles to the table, and replace profiles that it already has.")
@option("--no-progress", is_flag=True, help="Do not show the progress.")
@option("-p", "--parallel", is_flag=True, help="Send several requests at a time.")
@option(
    "--workers", type=click.IntRange(1), metavar="N", show_default="5", help="Requests at a time, up to 5."
)
@option("--stdout", is_flag=True, help="Print the profiles as lines of JSON, and store nothing.")
@option("--raw", is_flag=True, help="With --stdout, print the objects as Mixpanel sends them.")
@option("--batch-size", type=click.IntRange(100, 100_000), metavar="N", help="Has no effect.")
@db_option
@format_options
@click.pass_context
def profiles(ctx: click.Context, /, *, name: str, style: str, jq: str | None, **options: Any) -> None:
    """Fetch user profiles into the table NAME (default: profiles), or print them with --stdout.

    The result is printed in the chosen format. If a page fails, the table is unchanged.
    """
    if options["replace"] and options["append"]:
        raise ArgumentError("append", "cannot be used with --replace", advice="choose one")
    if options["raw"] and not options["stdout"]:
        raise ArgumentError("raw", "needs --stdout")
    check_jq(style, jq)
    settings = settings_of(ctx)
    filters = {key: options[key] for key in _FILTERS} | {
        "distinct_ids": list(options["distinct_ids"]) or None
    }
    with messages(quiet=settings.quiet, verbose=settings.verbose):
        if options["stdout"]:
            _stream(ctx, filters, raw=options["raw"])
            return
        result = _fetch(ctx, name, filters, options)
    print_result(result.to_dict(), style, jq)


def _fetch(
    ctx: click.Context, name: str, filters: dict[str, Any], options: dict[str, Any]
) -> "FetchResult | ParallelProfileResult":
    settings = settings_of(ctx)
    shown = not (settings.quiet or options["no_progress"])
    show = watching_pages(name, shown=shown, bars=not settings.verbose, forecast=not settings.quiet)
    with workspace_of(ctx, read_only=False) as workspace, show as (on_page, on_progress):
        result: FetchResult | ParallelProfileResult = workspace.fetch_profiles(
            name,
            **filters,
            append=options["append"],
            replace=options["replace"],
            parallel=options["parallel"],
            max_workers=options["workers"],
            progress=False,
            on_page_complete=on_page,
            on_progress=on_progress,
        )
    return result


def _stream(ctx: click.Context, filters: dict[str, Any], *, raw: bool) -> None:
    from mixpanel_export.workspace import Workspace

    count = 0
    workspace = Workspace(settings_of(ctx).account)
    for profile in workspace.stream_profiles(**filters, raw=raw):
        sys.stdout.write(json.dumps(profile, default=plain_text) + "\n")
        count += 1
    if not settings_of(ctx).quiet:
        click.echo(f"Streamed {count} profiles.", err=True)
