"""Exports the profiles of an `mpx sync` task, after its events."""

import sys
from typing import TYPE_CHECKING, Any

import click

from mixpanel_export.cli import exit_code_of, report_error
from mixpanel_export.cli.log import logs_json
from mixpanel_export.cli.open_database import open_read_only
from mixpanel_export.cli.publish import publish_after_export
from mixpanel_export.cli.report import sync_command
from mixpanel_export.cli.run_export import Output
from mixpanel_export.cli.run_profiles import fetch_profiles, log_profiles, summary_line
from mixpanel_export.cli.watch import watching_pages
from mixpanel_export.errors import (
    AuthenticationError,
    ConfigError,
    DatabaseError,
    DatabaseLockedError,
    ExportRunningError,
    MixpanelDataError,
    NetworkError,
    RateLimitError,
    SelectionError,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from mixpanel_export._database.snapshots import Snapshot
    from mixpanel_export.cli.sync_tasks import SyncTask
    from mixpanel_export.credentials import Credentials
    from mixpanel_export.profiles import ParallelProfileResult

IN_USE = 6
"""The exit code if another process is using the file."""

STOPS_PROFILES = (
    AuthenticationError,
    ConfigError,
    DatabaseError,
    ExportRunningError,
    NetworkError,
    OSError,
    RateLimitError,
    ValueError,
)
"""Errors of the events after which the profiles are not exported, because they would fail, too, or the usage is wrong."""


def report_failure(ctx: click.Context, error: Exception, title: str | None) -> int:
    """Print an error. Return its exit code."""
    report_error(ctx, error, title)
    in_use = isinstance(error, DatabaseLockedError | ExportRunningError)
    return IN_USE if in_use else exit_code_of(error)


def reported_profiles(
    ctx: click.Context, task: "SyncTask", output: Output, export: "Callable[[str], ParallelProfileResult]"
) -> tuple[list[dict[str, object]], int]:
    """Export and publish the task's profiles, if any. Return the results for JSON and the exit code.

    If the export fails, its error is printed.
    """
    if task.profiles is None:
        return [], 0
    try:
        result = export(task.profiles)
    except (MixpanelDataError, ValueError, OSError) as error:
        return [], report_failure(ctx, error, f"{task.title}: profiles")
    code = publish_after_export(ctx, task.db, task.publish_profiles, result.table, output)
    return [{"type": "profiles", **result.to_dict()}], code


def sync_profiles(
    ctx: click.Context,
    task: "SyncTask",
    output: Output,
    table: str,
    *,
    credentials: "Credentials",
    wait: float,
    options: dict[str, Any],
) -> "ParallelProfileResult":
    """Replace the profiles in *table* with the current profiles of the same selection. Return the result.

    Raises:
        Interrupted: The user interrupted the export.
        MixpanelDataError: The export failed, and the table is unchanged.
    """
    shown = not (output.quiet or output.no_progress) and (sys.stderr.isatty() or logs_json())
    show = watching_pages(table, shown=shown, bars=not output.verbose, forecast=not output.quiet)
    arguments = {
        "db": task.db,
        "table": table,
        "credentials": credentials,
        "flatten": task.flatten,
        "wait": wait,
        **{name: options[name] for name in ("retries", "max_wait", "api_url")},
        **selection_of_table(task.db, table, credentials.project_id, wait),
    }
    result = fetch_profiles(arguments, show, sync_command(ctx))
    log_profiles(result, output)
    if not (output.as_json or output.quiet or logs_json()) and sys.stdout.isatty():
        click.echo(summary_line(result, task.db))
    return result


def selection_of_table(db: str, table: str, project: str, wait: float) -> dict[str, Any]:
    """Return the arguments that export the profiles of *table* again. If it does not exist, all profiles are exported.

    Raises:
        SelectionError: The table has profiles of another project or of several selections, or all selected people were
            forgotten.
    """
    from dataclasses import asdict

    from mixpanel_export._database.path import database_path, has_content
    from mixpanel_export._database.profile_tables import StoredSelection, profile_tables

    if not has_content(database_path(db)):
        return {"mode": "create"}
    with open_read_only(db, wait) as connection:
        tables = {each.name.lower(): each for each in profile_tables(connection)}
    existing = tables.get(table.lower())
    if existing is None or existing.rows is None or existing.last is None:
        return {"mode": "create"}
    _check_selection(table, existing.snapshots, project)
    return {"mode": "replace", **asdict(StoredSelection.parsed(existing.last.selection))}


def _check_selection(table: str, snapshots: "tuple[Snapshot, ...]", project: str) -> None:
    from mixpanel_export._database.ledger import UNKNOWN_PROJECT
    from mixpanel_export._database.profile_tables import StoredSelection

    others = {each.project for each in snapshots} - {project}
    if UNKNOWN_PROJECT in others:
        reason = f"table {table} has profiles that mixpanel_data exported, with an unknown selection"
    elif others:
        reason = (
            f"table {table} has profiles of project {', '.join(sorted(others))}, not of project {project}"
        )
    elif len({each.selection for each in snapshots}) > 1:
        reason = f"table {table} has profiles of several selections, so a sync cannot replace it"
    elif StoredSelection.parsed(snapshots[-1].selection).distinct_ids == ():
        raise SelectionError(
            f"all people in the selection of table {table} were forgotten, so there are no profiles to export",
            advice=f"select other people with `mpx profiles {table} --replace --id ID`, or sync without profiles",
        )
    else:
        return
    advice = f"replace it once with `mpx profiles {table} --replace`, or choose another table"
    raise SelectionError(reason, advice=advice)
