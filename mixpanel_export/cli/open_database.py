"""Opens a database for reading."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from mixpanel_export.cli.duration import duration_words
from mixpanel_export.cli.log import say
from mixpanel_export.errors import DatabaseLockedError

if TYPE_CHECKING:
    from mixpanel_export._local.reader import Connection


@contextmanager
def open_read_only(db: str, wait: float | None = None) -> Iterator["Connection"]:
    """Open the file for reading. If another process holds it, retry for *wait* seconds.

    *wait* is None for commands without the option --wait.

    Raises:
        DatabaseLockedError: Another process still holds the file.
    """
    from mixpanel_export._database.path import database_path
    from mixpanel_export._local.reader import reading

    seconds = wait or 0.0

    def report(error: DatabaseLockedError) -> None:
        say(f"{db} is in use by {_holder(error)}; waiting up to {duration_words(seconds)}.")

    try:
        with reading(database_path(db), wait=seconds, on_wait=report) as connection:
            yield connection
    except DatabaseLockedError as error:
        still, after = (" still", f" after {duration_words(wait)}") if wait else ("", "")
        raise DatabaseLockedError(
            error.db_path,
            error.holding_pid,
            f"{db} is{still} in use by {_holder(error)}{after}",
            advice=f"{_advice(wait)}, or close the file in that process",
        ) from error


def _holder(error: DatabaseLockedError) -> str:
    return f"process {error.holding_pid}" if error.holding_pid else "another process"


def _advice(wait: float | None) -> str:
    if wait is None:
        return "try again later"
    return "wait longer" if wait else "wait for it with --wait 10m"
