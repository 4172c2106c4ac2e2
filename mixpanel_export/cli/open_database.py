"""Opens a database for reading."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from mixpanel_export.cli import program
from mixpanel_export.cli.duration import duration_words
from mixpanel_export.cli.log import say
from mixpanel_export.cli.report import quoted
from mixpanel_export.errors import ConfigError, DatabaseLockedError

if TYPE_CHECKING:
    from mixpanel_export._local.reader import Connection
    from mixpanel_export._quota.processes import Usage

_MIN_QUOTA_WAIT = 5.0  # seconds; a shorter wait for the quota is not mentioned
_MAX_AGE = 3_500.0  # seconds; older requests may be gone from the quota file, so an earlier start is unknown


@contextmanager
def open_read_only(db: str, wait: float | None = None) -> Iterator["Connection"]:
    """Open the file for reading. If another process holds it, retry for *wait* seconds.

    *wait* is None for commands without the `--wait` option.

    Raises:
        DatabaseLockedError: Another process still holds the file.
    """
    from mixpanel_export._database.path import database_path
    from mixpanel_export._local.reader import reading

    seconds = wait or 0.0

    def report(error: DatabaseLockedError) -> None:
        usage = _usage(error.holding_pid)
        say(f"{db} is in use by {_holder(error, usage)}; waiting up to {duration_words(seconds)}.")

    try:
        with reading(database_path(db), wait=seconds, on_wait=report) as connection:
            yield connection
    except DatabaseLockedError as error:
        raise explained(error, db, wait) from error


def explained(error: DatabaseLockedError, db: str, wait: float | None = None) -> DatabaseLockedError:
    """Return the error with facts about the process that holds the file, and with advice for the shell."""
    usage = _usage(error.holding_pid)
    after = f" after {duration_words(wait)}" if wait else ""
    return DatabaseLockedError(
        error.db_path,
        error.holding_pid,
        f"{db} is {'still ' if wait else ''}in use{after} by {_holder(error, usage)}",
        advice=f"{_advice(wait)}, or {_alternative(usage, db)}",
    )


def _usage(pid: int | None) -> "Usage | None":
    """Return the usage of the project that the process exports; None if that process does not seem to export."""
    from mixpanel_export._quota.limits import Quota
    from mixpanel_export._quota.processes import usages_of

    try:
        usages = usages_of(pid, Quota.resolved(None, None).per_hour) if pid else []
    except (ConfigError, ValueError):
        return None
    return max(usages, key=lambda usage: usage.wait, default=None)


def _holder(error: DatabaseLockedError, usage: "Usage | None") -> str:
    if usage is None:
        return f"process {error.holding_pid}" if error.holding_pid else "another process"
    since = "for about an hour or longer" if usage.first > _MAX_AGE else f"since {_clock(-usage.first)}"
    project = f"project {usage.project}" if usage.project else "a project"
    spent = f" and has no requests left until {_clock(usage.wait)}" if usage.wait > _MIN_QUOTA_WAIT else ""
    return f"process {error.holding_pid}, which has been exporting {project} {since}{spent}"


def _clock(seconds: float) -> str:
    """Return the local time *seconds* from now, to the minute."""
    return (datetime.now().astimezone() + timedelta(seconds=seconds)).strftime("%H:%M")


def _advice(wait: float | None) -> str:
    if wait is None:
        return "try again later"
    return "wait longer" if wait else "wait for it with --wait 10m"


def _alternative(usage: "Usage | None", db: str) -> str:
    if usage is None:
        return "close the file in that process"
    command = quoted([program(), "retry", db])
    return f"interrupt that export, which keeps its complete batches, and continue it with `{command}`"
