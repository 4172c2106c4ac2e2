"""Reports the events that `mpx export --replace` removes without refetching their days. On a terminal, asks whether to continue."""

import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import click

from mixpanel_export.cli.log import logs_json, say
from mixpanel_export.cli.open_database import open_read_only
from mixpanel_export.cli.report import count_words

if TYPE_CHECKING:
    from mixpanel_export._local.replaced_days import RemovedDays
    from mixpanel_export._model import Chunk

_ADVICE = "To refetch only the requested days, use --append"
_MAX_RANGES = 3  # ranges of days in one line


def days_removed(arguments: Mapping[str, Any], requested: "Chunk") -> "RemovedDays":
    """Return the days that an export of the *requested* days removes. *arguments* are those of `export_events`."""
    from mixpanel_export._database.path import database_path, has_content
    from mixpanel_export._local.replaced_days import RemovedDays, removed_days
    from mixpanel_export._model import Selection
    from mixpanel_export._source.parameters import checked_names

    db, project = arguments["db"], arguments["credentials"].project_id
    if not has_content(database_path(db)):
        return RemovedDays()
    selection = Selection(project, checked_names(arguments["events"]), arguments["where"])
    with open_read_only(db) as connection:
        return removed_days(connection, arguments["table"], requested, selection)


def _removed_words(removed: "RemovedDays") -> str:
    """Return the number of days and events, and the days."""
    ranges = list(map(str, removed.ranges))
    more = f" and {len(ranges) - _MAX_RANGES} other ranges" if len(ranges) > _MAX_RANGES else ""
    return f"{count_words(removed.number, 'day')} with {removed.events:,} events ({', '.join(ranges[:_MAX_RANGES])}{more})"


def confirm_removal(removed: "RemovedDays", table: str, *, confirmed: bool, quiet: bool) -> None:
    """Report the days that will be removed. On a terminal, ask whether to continue, unless *confirmed* is true.

    Raises:
        Abort: The answer is no.
        UsageError: Nothing can be asked, and the table would have fewer days than before.
    """
    if not removed.number:
        return
    text = f"--replace removes {_removed_words(removed)} from table {table}, because they are not requested."
    if confirmed:
        if not quiet:
            say(f"Warning: {text}")
    elif not logs_json() and sys.stdin.isatty() and sys.stderr.isatty():
        say(f"{text} {_ADVICE}.")
        click.confirm("Remove them?", abort=True, err=True)
    elif removed.events and removed.fewer_days:
        raise click.UsageError(f"{text} {_ADVICE}; to remove them, add --yes")
    elif not quiet:
        say(f"Warning: {text} {_ADVICE}.")
