"""Reports the days that `mpx export --replace` removes without fetching them again, and asks before it does."""

import sys
from typing import TYPE_CHECKING

import click

from mixpanel_export.cli.log import logs_json, say
from mixpanel_export.cli.open_database import open_read_only
from mixpanel_export.cli.report import count_words

if TYPE_CHECKING:
    from mixpanel_export._local.replaced_days import RemovedDays
    from mixpanel_export._model import Chunk

_MAX_RANGES = 3  # ranges of days in one line


def days_removed(db: str, table: str, requested: "Chunk") -> "RemovedDays":
    """Return the days of *table* that a replacement with the *requested* days removes."""
    from mixpanel_export._database.path import database_path, has_content
    from mixpanel_export._local.replaced_days import RemovedDays, removed_days

    if not has_content(database_path(db)):
        return RemovedDays()
    with open_read_only(db) as connection:
        return removed_days(connection, table, requested)


def _words(removed: "RemovedDays") -> str:
    """Return the number of days and events, and the days."""
    ranges = list(map(str, removed.ranges))
    more = f" and {len(ranges) - _MAX_RANGES} other ranges" if len(ranges) > _MAX_RANGES else ""
    return f"{count_words(removed.number, 'day')} with {removed.events:,} events ({', '.join(ranges[:_MAX_RANGES])}{more})"


def confirm_removal(removed: "RemovedDays", table: str, *, confirmed: bool, quiet: bool) -> None:
    """Report the days that are removed. On a terminal, ask whether to continue, unless it is *confirmed*.

    Raises:
        Abort: The answer is no.
    """
    if not removed.number:
        return
    text = f"--replace removes all other days of {table}: {_words(removed)}."
    asks = not (confirmed or logs_json()) and sys.stdin.isatty() and sys.stderr.isatty()
    if asks:
        say(f"{text} To refetch only the requested days, use --append.")
        click.confirm("Remove the other days?", abort=True, err=True)
    elif not quiet:
        say(f"Warning: {text} To refetch only the requested days, use --append.")
