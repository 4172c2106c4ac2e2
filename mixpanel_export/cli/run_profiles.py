"""Runs one export of profiles, for `mpx profiles` and `mpx sync`."""

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any

import click

from mixpanel_export.cli import Interrupted
from mixpanel_export.cli.log import log_event, logs_json
from mixpanel_export.cli.open_database import explained
from mixpanel_export.cli.run_export import Output
from mixpanel_export.cli.watch import PageWatcher, ProgressWatcher
from mixpanel_export.errors import DatabaseLockedError

if TYPE_CHECKING:
    from mixpanel_export.profiles import ParallelProfileResult


def fetch_profiles(
    arguments: Mapping[str, Any],
    show: AbstractContextManager[tuple[PageWatcher, ProgressWatcher]],
    again: str,
) -> "ParallelProfileResult":
    """Call `export_profiles` with *arguments*. *again* is the command to run after an interruption.

    Raises:
        Interrupted: The user interrupted the export.
        MixpanelDataError: The export failed, and the table is unchanged.
    """
    from mixpanel_export._profiles.engine import export_profiles
    from mixpanel_export.sync import run_sync

    try:
        with show as (on_page, on_progress):
            return run_sync(export_profiles, **arguments, on_page=on_page, on_progress=on_progress)
    except DatabaseLockedError as error:
        raise explained(error, str(arguments["db"])) from error
    except KeyboardInterrupt as interrupt:
        message = f"Interrupted; table {arguments['table']} is unchanged. To start again: {again}"
        raise Interrupted(message) from interrupt


def print_profiles(result: "ParallelProfileResult", db: str, output: Output) -> None:
    """Print the summary, unless JSON is printed, and log the result."""
    log_profiles(result, output)
    if not (output.as_json or output.quiet):
        click.echo("\n".join([summary_line(result, db), *remarks(result)]))
    elif output.as_json and not output.quiet and not logs_json():
        for line in remarks(result):
            click.echo(line, err=True)


def log_profiles(result: "ParallelProfileResult", output: Output) -> None:
    """Log the result, if standard error is JSON."""
    if logs_json() and not output.quiet:
        names = ("profiles", "updated_rows", "duplicates", "short_pages", "rejects", "repaired", "restarts")
        more = {name: getattr(result, name) for name in names}
        log_event("result", type="profiles", **result.to_dict(), **more)


def summary_line(result: "ParallelProfileResult", db: str) -> str:
    """Return the summary of an export of profiles on one line."""
    pages = f"{result.successful_pages:,} page{'' if result.successful_pages == 1 else 's'}"
    updated = (
        f" ({result.total_rows:+,} rows, {result.updated_rows:,} updated)" if result.updated_rows else ""
    )
    return (
        f"{result.table} in {db}: {result.profiles:,} profiles from {pages}{updated} "
        f"in {result.duration_seconds:.1f} s"
    )


def remarks(result: "ParallelProfileResult") -> Iterator[str]:
    """Yield less common facts about an export; most exports have none."""
    for number, text in (
        (result.duplicates, "duplicates were removed, because the profiles were on several pages"),
        (result.short_pages, "pages were not full, but no profiles are missing"),
        (result.rejects, "entries are not profiles; see _export_rejects"),
        (result.repaired, "profiles were repaired; see _export_rejects for the original text"),
        (result.restarts, "times, the export started over from the first page"),
    ):
        if number:
            yield f"  {number:,} {text}"
