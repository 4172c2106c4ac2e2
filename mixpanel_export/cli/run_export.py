"""Runs one export, for `mpx export`, `mpx retry` and `mpx demo`."""

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click

from mixpanel_export.cli import Interrupted, in_options
from mixpanel_export.cli.log import log_event, logs_json, say
from mixpanel_export.cli.open_database import explained
from mixpanel_export.cli.report import failure_line, failure_lines, remarks, result_lines, selection_advice
from mixpanel_export.cli.status_json import flatten_command
from mixpanel_export.cli.watch import BatchWatcher, watching
from mixpanel_export.errors import DatabaseError, DatabaseLockedError, RateLimitError, SelectionError
from mixpanel_export.results import BatchProgress, ParallelFetchResult

if TYPE_CHECKING:
    from mixpanel_export._local.replaced_days import RemovedDays


@dataclass(frozen=True, slots=True)
class Output:
    """The options that control an export's output."""

    as_json: bool
    quiet: bool
    no_progress: bool
    verbose: bool


@dataclass(frozen=True, slots=True)
class FinishedExport:
    """An export's result, and the number of rows in its batches."""

    result: ParallelFetchResult
    rows: int


def fetch(
    arguments: Mapping[str, Any], output: Output, *, http2: bool, next_command: Callable[[], str]
) -> FinishedExport:
    """Call `export_events` with *arguments*. *next_command* returns the command that continues after an interruption."""
    from mixpanel_export._export.engine import export_events
    from mixpanel_export.sync import run_sync

    shown = not (output.quiet or output.no_progress)
    show = watching(arguments["table"], shown=shown, bars=not output.verbose, forecast=not output.quiet)
    try:
        with show as (on_batch, on_progress):
            counter = _RowCounter(on_batch)
            result = run_sync(
                export_events,
                **arguments,
                on_batch_complete=counter,
                on_progress=on_progress,
                http2=http2,
            )
    except DatabaseLockedError as error:
        raise explained(error, str(arguments["db"])) from error
    except KeyboardInterrupt as interrupt:
        message = f"Interrupted; complete batches are kept. To continue: {next_command()}"
        raise Interrupted(message) from interrupt
    return FinishedExport(result, counter.rows)


def request_arguments(
    *,
    retries: int,
    max_wait: float,
    first_byte_timeout: float,
    idle_timeout: float,
    per_second: int,
    per_hour: int,
    api_url: str | None,
) -> dict[str, Any]:
    """Return the arguments of `export_events` that correspond to the request options."""
    from mixpanel_export._source.parameters import Timeouts

    return {
        "retries": retries,
        "max_wait": max_wait,
        "timeouts": Timeouts(first_byte=first_byte_timeout, idle=idle_timeout),
        "api_url": api_url,
        "per_second": per_second,
        "per_hour": per_hour,
    }


@contextmanager
def options_in_advice(events: Sequence[str] | None, where: str | None) -> Iterator[None]:
    """Add the options of the table's selection to the advice of a `SelectionError`.

    *events* and *where* have the values of this command's options.
    """
    try:
        yield
    except SelectionError as error:
        words = selection_advice(error, events, where)
        if words is None:
            raise
        rest = error.advice.template if error.advice else ""
        raise SelectionError(
            error.reason, error.code, error.details, advice=f"{words} to continue it, {rest}", days=error.days
        ) from error


def print_result(
    finished: FinishedExport, db: str, output: Output, *, adds: bool, removed: "RemovedDays | None" = None
) -> None:
    """Print the summary, unless JSON is printed.

    *adds* is true if the table may have had rows before. *removed* contains the days that a replacement removes.
    """
    result = finished.result
    if not (output.as_json or output.quiet):
        rows = result_lines(result, db, finished.rows - result.total_rows if adds else 0, removed)
        click.echo("\n".join(rows))
    if output.as_json and not output.quiet and not logs_json():
        for name, value in remarks(result):
            click.echo(f"{name}: {value}", err=True)


def print_failures(
    result: ParallelFetchResult, command: str, output: Output, *, replacing: bool = False
) -> None:
    """Print failures and the *command* that fetches the failed days to standard error. If quiet, print one line."""
    if output.quiet and not result.has_failures:
        return
    if logs_json():
        log_result(result, command)
    elif output.quiet:
        click.echo(f"Error: {failure_line(result, command)}", err=True)
    elif result.has_failures:
        click.echo("\n".join(failure_lines(result, command, replacing=replacing)), err=True)


def say_outdated(db: str, output: Output) -> None:
    """On a terminal, print the command for each flat table that is out of date."""
    from mixpanel_export._database.path import database_path
    from mixpanel_export._flat.state import outdated_flat_tables
    from mixpanel_export._local.reader import reading

    if output.quiet or output.as_json or not sys.stdout.isatty():
        return
    # The export has finished, so it is not an error if another process has opened the file.
    with suppress(DatabaseError), reading(database_path(db)) as connection:
        for flat in outdated_flat_tables(connection):
            say(f"{flat.name} is out of date. To update it: {flatten_command(flat, db)}")


def exit_code(results: list[ParallelFetchResult]) -> int:
    """Return 0 if nothing failed, 5 if the quota was used up and nothing else failed, else 1."""
    failed = [error for result in results for error in result.errors]
    if not any(result.has_failures for result in results):
        return 0
    return 5 if all(isinstance(error, RateLimitError) for error in failed) else 1


def log_result(result: ParallelFetchResult, command: str = "") -> None:
    """Log the result, with the *command* that fetches the failed days."""
    log_event(
        "result",
        **result.to_dict(),
        removed_duplicates=result.removed_duplicates,
        rejects=result.rejects,
        repaired=result.repaired,
        added_date_ranges=[list(days) for days in result.added_date_ranges],
        errors=[error.to_dict() | {"message": in_options(error)} for error in result.errors],
        command=command if result.has_failures else None,
    )


class _RowCounter:
    """A callback that counts the rows of batches, and passes each batch on to another callback."""

    def __init__(self, callback: BatchWatcher) -> None:
        self._callback = callback
        self.rows = 0

    def __call__(self, batch: BatchProgress) -> None:
        self.rows += batch.rows
        self._callback(batch)
