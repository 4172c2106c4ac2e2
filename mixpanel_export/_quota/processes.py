"""Finds the projects that a process is exporting, according to the quota file."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from mixpanel_export._quota.clock import system_clock
from mixpanel_export._quota.file import quota_file
from mixpanel_export._quota.shared import Key, SharedQuota

_KEYS = "SELECT DISTINCT host, project FROM entries WHERE pid = ? AND boot = ?"


@dataclass(frozen=True, slots=True)
class Usage:
    """A process's requests for a project in the last hour."""

    project: str
    """The project id; empty if the credentials have none."""
    first: float
    """Seconds since the first of these requests."""
    wait: float
    """Seconds until the project's quota allows another request."""


def usages_of(pid: int, per_hour: int, path: Path | None = None) -> list[Usage]:
    """Return the usage of each project for which the process has sent a request in the last hour.

    *per_hour* is the hourly limit. Nothing is written. If the quota file cannot be read, the list is empty.
    """
    file = path or quota_file()
    try:
        return list(_usages(pid, per_hour, file)) if file.exists() else []
    except (sqlite3.Error, OSError):
        return []


def _usages(pid: int, per_hour: int, file: Path) -> Iterator[Usage]:
    clock = system_clock()
    with closing(sqlite3.connect(f"{file.absolute().as_uri()}?mode=ro", uri=True)) as connection:
        keys = connection.execute(_KEYS, [pid, clock().boot]).fetchall()
    for key in keys:
        state = SharedQuota(Key(*key), 0, per_hour, path=file, clock=clock).read()
        ages = [request.age for request in state.requests if request.pid == pid]
        if ages:
            yield Usage(key[1], max(ages), state.wait)
