"""`mpx profiles`: export user or group profiles into a table."""

from typing import TYPE_CHECKING, Any

import click

from mixpanel_export.cli import complete, print_json
from mixpanel_export.cli.default_file import mention_other_default
from mixpanel_export.cli.flatten import parse_names
from mixpanel_export.cli.help import SectionedCommand
from mixpanel_export.cli.options import (
    api_url_option,
    credential_options,
    db_option,
    option,
    output_options,
    publish_option,
    query_options,
    wait_option,
)
from mixpanel_export.cli.publish import publish_after_export
from mixpanel_export.cli.report import profiles_command
from mixpanel_export.cli.run_export import Output, say_outdated
from mixpanel_export.cli.run_profiles import fetch_profiles, print_profiles
from mixpanel_export.cli.watch import messages, watching_pages

if TYPE_CHECKING:
    from mixpanel_export.credentials import Credentials

EXAMPLES = """\b
Examples:
  mpx profiles
  mpx profiles --replace --flatten
  mpx profiles seen --where 'properties["$last_seen"] >= "2024-01-01T00:00:00"' --properties '$email,$city,plan'
  mpx profiles members --cohort 4711 --db app.duckdb
  mpx profiles companies --group 8842763128917389742
  mpx profiles --replace --quiet     # for cron

\b
Exit codes:
  0    success
  1    the export failed, and the table is unchanged; or only --publish failed
  2    wrong usage
  3    authentication or configuration failed
  4    a table, account or file already exists or does not exist
  5    the quota is used up
  129  the terminal hung up
  130  interrupted
  143  terminated
"""


def _parse_ids(_ctx: click.Context, _option: click.Parameter, ids: tuple[str, ...]) -> tuple[str, ...]:
    if not all(ids):
        raise click.BadParameter("an id is empty")
    return ids


@click.command(
    "profiles", cls=SectionedCommand, short_help="Export profiles into a DuckDB file.", epilog=EXAMPLES
)
@click.argument("table", default="profiles", shell_complete=complete.tables)
@option(
    "--replace",
    section="What",
    is_flag=True,
    help="Replace the table, atomically, once all profiles have arrived.",
)
@option(
    "--append",
    section="What",
    is_flag=True,
    help="Add profiles to an existing table, and replace profiles that it already has. Profiles deleted in Mixpanel stay.",
)
@option(
    "-w",
    "--where",
    section="What",
    metavar="EXPR",
    help="Export only profiles that match this Mixpanel expression.",
)
@option("--cohort", section="What", metavar="ID", help="Export only the members of this cohort.")
@option(
    "--include-all-users/--no-include-all-users",
    section="What",
    default=None,
    help="With --cohort: also export members without a profile, which is Mixpanel's default.",
)
@option(
    "--properties",
    section="What",
    multiple=True,
    callback=parse_names,
    metavar="A,B",
    help="Export only these properties, separated by commas or as a JSON list.",
)
@option(
    "--id",
    "--distinct-id",
    "distinct_ids",
    section="What",
    multiple=True,
    callback=_parse_ids,
    metavar="ID",
    help="Export only the profile with this distinct_id; repeatable.",
)
@option(
    "--group",
    "--group-id",
    "group",
    section="What",
    metavar="ID",
    help="Export the profiles of this group type (data_group_id).",
)
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
    "--workers",
    section="How fast",
    type=click.IntRange(1, 5),
    default=5,
    metavar="N",
    help="Requests at a time.",
)
@query_options
@credential_options
@api_url_option
@db_option
@publish_option
@wait_option
@option(
    "--json", "as_json", section="Output", is_flag=True, help="Print the result as JSON to standard output."
)
@output_options
@click.pass_context
def command(
    ctx: click.Context,
    /,
    *,
    as_json: bool,
    quiet: bool,
    no_progress: bool,
    verbose: bool,
    **options: Any,
) -> None:
    """Export all profiles of a project into TABLE (default: profiles) of a DuckDB file.

    The table changes once, at the end. If the command fails or is interrupted, the table is unchanged. One request in the
    Query API's hourly quota is enough for any number of profiles, unless the export has to start over.
    """
    from mixpanel_export.credentials import resolve_credentials

    if options["append"] and options["replace"]:
        raise click.UsageError("--append and --replace cannot be combined; choose one")
    output = Output(as_json, quiet, no_progress, verbose)
    with messages(quiet=quiet, verbose=verbose):
        if not quiet:
            mention_other_default(ctx)
        credentials = resolve_credentials(
            options["account"], project_id=options["project_id"], region=options["region"]
        )
        shown = not (quiet or no_progress)
        show = watching_pages(options["table"], shown=shown, bars=not verbose, forecast=not quiet)
        result = fetch_profiles(_arguments(options, credentials), show, profiles_command(ctx))
        if as_json:
            print_json(result.to_dict())
        print_profiles(result, options["db"], output)
        code = publish_after_export(ctx, options["db"], options["publish"], result.table, output)
        say_outdated(options["db"], output)
    ctx.exit(code)


def _arguments(options: dict[str, Any], credentials: "Credentials") -> dict[str, Any]:
    """Return the arguments of `export_profiles`."""
    passed = (
        "db", "table", "where", "cohort", "properties", "group", "include_all_users", "allow_empty", "flatten", "wait",
        "retries", "max_wait", "per_hour", "api_url",
    )  # fmt: skip
    return {
        **{name: options[name] for name in passed},
        "credentials": credentials,
        "distinct_ids": options["distinct_ids"] or None,
        "mode": "append" if options["append"] else "replace" if options["replace"] else "create",
        "max_workers": options["workers"],
    }
