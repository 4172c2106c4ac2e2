"""`mpx retry`: fetch every day that the ledger does not record as complete."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click

from mixpanel_export._suggestions import did_you_mean
from mixpanel_export.cli import print_json, program
from mixpanel_export.cli.default_file import mention_other_default
from mixpanel_export.cli.help import SectionedCommand
from mixpanel_export.cli.log import say
from mixpanel_export.cli.open_database import open_read_only
from mixpanel_export.cli.options import (
    chunk_days_option,
    credential_options,
    db_argument,
    option,
    output_options,
    request_options,
    table_option,
    workers_option,
)
from mixpanel_export.cli.refetch import doctor_command, refetch_command, unknown_rows_line
from mixpanel_export.cli.report import quoted, retry_command
from mixpanel_export.cli.run_export import (
    FinishedExport,
    Output,
    exit_code,
    fetch,
    print_failures,
    print_result,
    request_arguments,
    say_outdated,
)
from mixpanel_export.cli.watch import messages
from mixpanel_export.errors import ConfigError, TableNotFoundError

if TYPE_CHECKING:
    from mixpanel_export._local.reader import Contents
    from mixpanel_export._model import Chunk, Selection
    from mixpanel_export.credentials import Credentials

EXAMPLES = """\b
Examples:
  mpx retry
  mpx retry app.duckdb --table signups --max-wait 2h
  mpx retry app.duckdb --quiet              # for cron: silent unless something fails

`mpx status` shows the days that would be fetched. Days that were exported with --limit, or imported from another
program, are not fetched again. If rows were added or deleted by hand, the command leaves their days, prints a command that
fetches them again, and exits with 1. Otherwise, exit codes are the same as for `mpx export`; if there is nothing to fetch,
the exit code is 0.
"""


@dataclass(frozen=True, slots=True)
class Task:
    """Days to export with `resume`, for one table and selection. `resume` skips complete days."""

    table: str
    days: "Chunk"
    selection: "Selection"
    zone: str
    deduped: bool


@click.command(
    "retry",
    cls=SectionedCommand,
    short_help="Fetch days that are missing, failed or not final.",
    epilog=EXAMPLES,
)
@db_argument
@table_option
@workers_option
@chunk_days_option
@credential_options
@request_options
@option(
    "--json",
    "as_json",
    section="Output",
    is_flag=True,
    help="Print the results as a JSON list to standard output.",
)
@output_options
@click.pass_context
def command(
    ctx: click.Context,
    /,
    *,
    db: str,
    table: str | None,
    as_json: bool,
    quiet: bool,
    no_progress: bool,
    verbose: bool,
    **requests: Any,
) -> None:
    """Fetch every failed, open or missing day of the tables in DB (default: MPX_DB, [defaults] db, mixpanel.duckdb).

    The file records the table, the selection and the time zone of each day. mpx status --help explains the statuses.
    """
    from mixpanel_export._local.reader import read_contents

    output = Output(as_json, quiet, no_progress, verbose)
    with messages(quiet=quiet, verbose=verbose):
        if not quiet:
            mention_other_default(ctx)
        with open_read_only(db) as connection:
            contents = read_contents(connection)
        tasks = list(tasks_of(contents, table))
        arguments = _arguments(tasks, db, **requests)
        exports = [_fetch(ctx, each, output, http2=requests["http2"]) for each in arguments]
        if as_json:
            print_json([finished.result.to_dict() for finished in exports])
        changed = list(_changed_lines(contents, table, db))
        if changed:
            say("\n".join(changed))
        elif not (tasks or quiet):
            say(_why_nothing(contents, table, db))
        say_outdated(db, output)
    ctx.exit(exit_code([finished.result for finished in exports]) or (1 if changed else 0))


def _changed_lines(contents: "Contents", table: str | None, db: str) -> Iterator[str]:
    """Yield the days that `resume` rejects because their rows were changed by hand, each with the command that fetches them."""
    for coverage in contents.coverages:
        if table in {None, coverage.table} and coverage.table not in contents.unknown:
            for changed in coverage.changed_days:
                yield f"{changed.days}: {changed}; to fetch these days again:"
                yield f"  {refetch_command(coverage, db, changed.days)}"


def _why_nothing(contents: "Contents", table: str | None, db: str) -> str:
    """Return why there is nothing to fetch."""
    selected = [coverage for coverage in contents.coverages if table in {None, coverage.table}]
    if not selected:
        first = quoted([program(), "export", "--from", "DATE", "--db", db])
        return (
            f"Nothing to fetch: {db} has no exported events yet. If the first export was interrupted, run its command "
            f"again. To export: {first}"
        )
    for name, number in contents.unknown.items():
        if table in {None, name}:
            return f"{unknown_rows_line(name, number)}\n  {doctor_command(db)}"
    if not all(coverage.is_complete for coverage in selected):
        return f"Nothing can be fetched, but {db} is incomplete; see mpx status."
    if any(table in {None, replacement.spec.table} for replacement in contents.replacements):
        return (
            f"Nothing to fetch, but a replacement in {db} is incomplete; mpx status shows how to continue it."
        )
    return f"Nothing to fetch: {db} is complete."


def tasks_of(contents: "Contents", table: str | None = None) -> Iterator[Task]:
    """Yield tasks for the days to fetch of *table*, or of all tables if it is None. Dropped tables are skipped.

    Raises:
        TableNotFoundError: The ledger does not have the table.
    """
    if table is not None and not any(coverage.table == table for coverage in contents.coverages):
        raise TableNotFoundError(
            table,
            f"there is no exported table {table}",
            advice=did_you_mean(table, (coverage.table for coverage in contents.coverages))
            + "`mpx status` lists its tables",
        )
    for coverage in contents.coverages:
        if table in {None, coverage.table} and not coverage.dropped:
            for days in coverage.to_fetch:
                options = coverage.options_for(days)
                yield Task(coverage.table, days, coverage.selection, options.zone, options.deduplicated)


def _arguments(
    tasks: Sequence[Task],
    db: str,
    *,
    account: str | None,
    project_id: str | None,
    region: str | None,
    workers: int | None,
    chunk_days: int | None,
    http2: bool,  # noqa: ARG001 - passed to `fetch` by the caller
    **requests: Any,
) -> list[dict[str, Any]]:
    """Check all tasks. Return the arguments of `export_events` for each of them."""
    from mixpanel_export.credentials import resolve_credentials

    if not tasks:
        return []
    credentials = resolve_credentials(account, project_id=project_id, region=region)
    for task in tasks:
        _check_project(task, credentials)
    common = {
        "db": db,
        "credentials": credentials,
        "max_workers": workers or 10,
        "chunk_days": chunk_days,
        "mode": "resume",
        **request_arguments(**requests),
    }
    return [
        {
            "from_date": task.days.first,
            "to_date": task.days.last,
            "table": task.table,
            "events": task.selection.events,
            "where": task.selection.where,
            "dedupe": task.deduped,
            "project_timezone": task.zone,
            **common,
        }
        for task in tasks
    ]


def _fetch(ctx: click.Context, arguments: dict[str, Any], output: Output, *, http2: bool) -> FinishedExport:
    again = retry_command(ctx)
    finished = fetch(arguments, output, http2=http2, next_command=lambda: again)
    print_result(finished, ctx.params["db"], output, adds=True)
    print_failures(finished.result, again, output)
    return finished


def _check_project(task: Task, credentials: "Credentials") -> None:
    if task.selection.project != credentials.project_id:
        raise ConfigError(
            f"table {task.table} holds events of {_project_words(task.selection.project)}, but the credentials are for "
            f"{_project_words(credentials.project_id)}",
            advice="choose other credentials with --account or --project-id, or another table with --table",
            days=task.days,
        )


def _project_words(project: str) -> str:
    return f"project {project}" if project else "the project of a project secret"
