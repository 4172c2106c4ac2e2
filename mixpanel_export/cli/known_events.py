"""Asks about event names that are probably mistyped.

Mixpanel accepts any name. A mistyped name would waste requests, and its days would be recorded as complete. So the user
must confirm a name that resembles an event of the project, but does not occur in days that were exported completely.
"""

import sys
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

import click

from mixpanel_export._suggestions import closest
from mixpanel_export.cli.log import say
from mixpanel_export.cli.open_database import open_read_only

if TYPE_CHECKING:
    from mixpanel_export._database.connection import Connection
    from mixpanel_export._model import Batch


def check_event_names(
    events: Sequence[str],
    db: str,
    project: str,
    *,
    quiet: bool,
    action: str = "Export",
    wait: float | None = None,
) -> None:
    """Check for names in *events* that are not in the file but resemble the name of an event in the file.

    Such a name is probably mistyped if the file has complete days with all events. The user must then confirm the name on
    the terminal, unless an earlier export used it. If the file has only selected events, a suggestion is printed, unless
    *quiet* is true. Only events with rows are suggested, because an earlier mistyped name may have left an empty table.

    *action* is the command's verb in the question and the error. *wait* is the number of seconds to wait for a file that
    another process uses.

    Raises:
        UsageError: A name needs confirmation, but there is no terminal, or *quiet* is true.
        Abort: The user does not confirm a name.
    """
    in_tables, in_selections, has_complete_days = _known_names(db, project, wait)
    for name in events:
        match = None if name in in_tables | in_selections else closest(name, in_tables)
        if match is None:
            continue
        doubt = f"{db} has no event {name!r}{' on its complete days' if has_complete_days else ''}; did you mean {match!r}?"
        if not has_complete_days:
            if not quiet:
                say(doubt)
        elif not quiet and sys.stdin.isatty() and sys.stderr.isatty():
            click.confirm(f"{doubt} {action} {name!r} anyway?", abort=True, err=True)
        else:
            raise click.UsageError(f"{doubt} To {action.lower()} {name!r} anyway, add --allow-new-events")


def _known_names(db: str, project: str, wait: float | None) -> tuple[set[str], set[str], bool]:
    """Return the event names in the project's tables, the names in its selections, and whether some days are complete.

    A day is complete here if all its events were exported. If there are complete days, only their event names are returned.
    """
    from mixpanel_export._database.ledger import read_batches
    from mixpanel_export._database.path import database_path, has_content
    from mixpanel_export._database.target_days import read_targets

    if not has_content(database_path(db)):
        return set(), set(), False
    with open_read_only(db, wait) as connection:
        batches = [batch for batch in read_batches(connection) if batch.selection.project == project]
        whole = [batch for batch in batches if _has_all_events(batch)]
        selections = {batch.selection for batch in batches}
        selections.update(
            selection for _, selection in read_targets(connection) if selection.project == project
        )
        requested = {name for selection in selections for name in selection.events or ()}
        return set(_names_in(connection, whole or batches)), requested, bool(whole)


def _has_all_events(batch: "Batch") -> bool:
    return batch.status == "complete" and batch.selection.events is None and batch.selection.where is None


def _names_in(connection: "Connection", batches: "Iterable[Batch]") -> Iterator[str]:
    from mixpanel_export._database.connection import quoted
    from mixpanel_export._database.schema import has_export_columns

    numbers: dict[str, list[int]] = {}
    for batch in batches:
        numbers.setdefault(batch.table, []).append(batch.number)
    for table, batch_numbers in numbers.items():
        if has_export_columns(connection, table):
            sql = f"SELECT DISTINCT event_name FROM {quoted(table)} WHERE export_batch IN (SELECT unnest(?))"
            yield from (name for (name,) in connection.execute(sql, [batch_numbers]).fetchall() if name)
