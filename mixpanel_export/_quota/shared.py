"""A project's quota: the requests that all of a user's processes on this machine have sent.

Mixpanel counts all of a project's requests to an API together, so concurrent processes must also count them together.
Each API has a table in the quota file, and each request is a row. Another table has the purposes of the requests. One
transaction reads the rows, applies the limits, and either adds a row or returns the necessary wait. Rows contain hosts,
project ids and process ids, but no secrets.

Each process remembers its own requests and adds any that are missing from the file. If the file cannot be used, the
process warns once and counts only its own requests. The process adds these requests when the file can be used again.
"""

import os
import sqlite3
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from secrets import token_hex
from threading import Lock
from typing import Literal, NamedTuple, TypeVar
from urllib.parse import urlsplit

from mixpanel_export._quota.clock import Clock, Moment, system_clock
from mixpanel_export._quota.file import QuotaFile, quota_file
from mixpanel_export._quota.limits import Api
from mixpanel_export._quota.windows import HOUR, SECOND, Window, wait_needed

T = TypeVar("T")

SHARED_SECOND = SECOND + 0.3
"""The window for the per-second limit, in seconds, while several processes send requests.

It is longer than `SECOND`, because the travel times of several processes vary more.
"""

_ACTIVE = 10.0  # seconds; a process that sent a request this recently is expected to send more
_MAX_STEP_BACK = 5.0  # seconds; rows may be this far in the future after a user has set the clock back
_MIN_EXTRA_WAIT = 1e-6  # seconds added to each wait, so that a rounding error does not cause another wait

_TABLES: dict[Api, str] = {"export": "entries", "query": "query_entries"}
_SCHEMA = """CREATE TABLE IF NOT EXISTS {table} (
    id TEXT PRIMARY KEY, host TEXT NOT NULL, project TEXT NOT NULL, kind TEXT NOT NULL, pid INTEGER NOT NULL,
    boot TEXT, elapsed REAL NOT NULL, wall REAL NOT NULL) WITHOUT ROWID"""
# The purpose has its own table, because earlier releases write rows of eight values into the others.
_PURPOSES = "CREATE TABLE IF NOT EXISTS purposes (id TEXT PRIMARY KEY, purpose TEXT NOT NULL) WITHOUT ROWID"
_WRITE_PURPOSE = "INSERT OR IGNORE INTO purposes VALUES (?, ?)"
# Adds or updates a request. A refund may not have reached the file, and the wall clock may have changed.
_WRITE = """INSERT INTO {table} VALUES (?, ?, ?, ?, ?, ?, ?, ?)
    ON CONFLICT (id) DO UPDATE SET kind = excluded.kind, wall = excluded.wall
    WHERE kind <> excluded.kind OR abs(wall - excluded.wall) > 1"""
# If the boot has no id, the column is NULL, and the comparison is false.
_AGE = "CASE WHEN boot = :boot THEN :elapsed - elapsed ELSE :wall - wall END"
_VALID = f"""CASE kind WHEN 'pause' THEN {_AGE} BETWEEN -:lifetime AND 0
    ELSE {_AGE} BETWEEN -:step_back AND :lifetime END"""
_EXPIRE = (
    f"DELETE FROM purposes WHERE id IN (SELECT id FROM {{table}} WHERE NOT {_VALID})",
    f"DELETE FROM {{table}} WHERE NOT {_VALID}",
)
_READ = f"""SELECT kind, CASE WHEN boot = :boot THEN pid END, {_AGE} AS age, coalesce(purpose, '')
    FROM {{table}} LEFT JOIN purposes USING (id)
    WHERE host = :host AND project = :project AND {_VALID} ORDER BY age DESC"""


class Key(NamedTuple):
    """A project's id, a host and an API. Each key has its own quota. The id is empty if the credentials have none."""

    host: str
    project: str
    api: Api = "export"


def key_of(url: str, project_id: str, api: Api = "export") -> Key:
    """Return the key of a project's requests to *url*, an endpoint of *api*."""
    return Key(urlsplit(url).netloc.lower(), project_id, api)


class Request(NamedTuple):
    """A request sent in the last hour."""

    age: float
    """Seconds since the request."""
    pid: int | None
    """The process that sent the request; None if the machine has been restarted since then."""
    counted: bool
    """Whether the request counts against the hourly limit."""
    purpose: str = ""
    """The reason for the request; empty if the process did not record it."""


@dataclass(frozen=True, slots=True)
class QuotaState:
    """The state of a project's quota at one moment."""

    requests: tuple[Request, ...]
    """The requests in the last hour, oldest first. Refunded requests count only against the per-second limit."""
    pause: float
    """The seconds for which no process should send a request."""
    second: Window
    hour: Window
    ticket: str | None = None
    """The id of the request that `take_slot` recorded, for `refund`; None if it recorded no request."""

    @property
    def sent(self) -> tuple[float, ...]:
        """The ages of all requests, in seconds, oldest first."""
        return tuple(request.age for request in self.requests)

    @property
    def counted(self) -> tuple[float, ...]:
        """The ages of the requests that count against the hourly limit, in seconds, oldest first."""
        return tuple(request.age for request in self.requests if request.counted)

    @property
    def remaining(self) -> int | None:
        """How many more requests the hourly limit allows now; None if unlimited."""
        return max(0, self.hour.quota - len(self.counted)) if self.hour.quota else None

    @property
    def wait(self) -> float:
        """Seconds until the next request is allowed."""
        wait = max(self.pause, _wait(self.second, self.sent), _wait(self.hour, self.counted))
        return wait and wait + _MIN_EXTRA_WAIT

    @property
    def seconds_until_free(self) -> tuple[float, ...]:
        """Seconds until each used slot of the hourly limit is free again, soonest first. A pause may last longer."""
        # A process with a higher limit may have sent more requests than this process's limit allows.
        excess = max(0, len(self.counted) - self.hour.quota)
        return tuple(self.hour.seconds - age for age in self.counted[excess:]) if self.hour.quota else ()


def _wait(window: Window, ages: Sequence[float]) -> float:
    return wait_needed([window], [-age for age in ages], 0.0)


_Kind = Literal["counted", "refunded", "pause"]


class _Entry(NamedTuple):
    """A row in the file: a request with its time, or a pause with its end."""

    id: str
    host: str
    project: str
    kind: _Kind
    pid: int
    boot: str | None
    elapsed: float
    wall: float


class SharedQuota:
    """A project's quota, shared by all processes. The methods block and are thread-safe.

    *per_second* and *per_hour* set the limits; 0 means no limit. Each process applies its own limits to the requests of
    all processes. *second*, *shared_second* and *hour* set the window lengths in seconds. *timeout* is the maximum wait
    for the lock, in seconds. *purpose* is the reason for the requests, which `mpx quota` shows. If the file cannot be
    used, calls do not fail, and there is one warning for each *file*.
    """

    def __init__(
        self,
        key: Key,
        per_second: int = 3,
        per_hour: int = 60,
        *,
        path: Path | None = None,
        clock: Clock | None = None,
        second: float = SECOND,
        shared_second: float = SHARED_SECOND,
        hour: float = HOUR,
        timeout: float = 2.0,
        file: QuotaFile | None = None,
        purpose: str = "",
    ) -> None:
        self._file = file or QuotaFile(path or quota_file(), timeout)
        self._key = key
        self._purpose = purpose
        self._clock = clock or system_clock()
        self._second = Window(per_second, second)
        self._shared_second = Window(per_second, shared_second)
        self._hour = Window(per_hour, hour)
        self._lifetime = max(hour, HOUR)
        self._own_entries: dict[str, _Entry] = {}
        self._lock = Lock()

    def take_slot(self) -> QuotaState:
        """Record a request if the limits allow one now. The state then has a ticket; otherwise `wait` is positive."""
        with self._lock:
            state, entry = self._run(self._take_slot)
            if entry is not None:
                self._own_entries[entry.id] = entry
            return state

    def read(self) -> QuotaState:
        """Return the state of the quota. Nothing is recorded, created or written."""
        with self._lock:
            return self._run(self._state, writing=False)

    def refund(self, ticket: str) -> QuotaState:
        """Stop counting a request against the hourly limit, because the server did not count it.

        The request still counts against the per-second limit, because it arrived. A ticket older than an hour has no
        effect.
        """
        with self._lock:
            if ticket in self._own_entries:
                self._own_entries[ticket] = self._own_entries[ticket]._replace(kind="refunded")
            return self._run(self._state)

    def pause(self, seconds: float) -> QuotaState:
        """Stop requests from all processes for *seconds*, at most an hour. If pauses overlap, the longest applies."""
        with self._lock:
            entry = self._entry("pause", self._clock(), min(seconds, self._hour.seconds))
            self._own_entries[entry.id] = entry
            return self._run(self._state)

    def _take_slot(self, connection: sqlite3.Connection, now: Moment) -> tuple[QuotaState, _Entry | None]:
        state = self._state(connection, now)
        if state.wait > 0:
            return state, None
        entry = self._entry("counted", now)
        self._write(connection, [entry])
        requests = (*state.requests, Request(0.0, entry.pid, counted=True, purpose=self._purpose))
        return replace(state, requests=requests, ticket=entry.id), entry

    def _state(self, connection: sqlite3.Connection, now: Moment) -> QuotaState:
        rows = connection.execute(self._sql(_READ), self._parameters(now)).fetchall()
        requests = tuple(
            Request(max(0.0, age), pid, kind == "counted", purpose)
            for kind, pid, age, purpose in rows
            if kind != "pause" and age < self._hour.seconds
        )
        pause = max((-age for kind, _, age, _ in rows if kind == "pause"), default=0.0)
        shared = any(request.age < _ACTIVE and request.pid != os.getpid() for request in requests)
        return QuotaState(requests, pause, self._shared_second if shared else self._second, self._hour)

    def _entry(self, kind: _Kind, now: Moment, ahead: float = 0.0) -> _Entry:
        elapsed, wall = now.elapsed + ahead, now.wall + ahead
        return _Entry(
            token_hex(8), self._key.host, self._key.project, kind, os.getpid(), now.boot, elapsed, wall
        )

    def _parameters(self, now: Moment) -> dict[str, object]:
        return {
            **self._key._asdict(),
            **now._asdict(),
            "lifetime": self._lifetime,
            "step_back": _MAX_STEP_BACK,
        }

    def _sql(self, statement: str) -> str:
        return statement.format(table=_TABLES[self._key.api])

    def _run(self, work: Callable[[sqlite3.Connection, Moment], T], *, writing: bool = True) -> T:
        return self._file.run(partial(self._in_transaction, work), writing=writing)

    def _in_transaction(
        self,
        work: Callable[[sqlite3.Connection, Moment], T],
        connection: sqlite3.Connection,
        writing: bool,
    ) -> T:
        connection.execute("PRAGMA synchronous = OFF")
        connection.execute("BEGIN IMMEDIATE" if writing else "BEGIN")
        connection.execute(self._sql(_SCHEMA))
        connection.execute(_PURPOSES)
        now = self._clock()  # read while holding the lock, so that transaction times are in order
        if writing:
            self._write(connection, self._unexpired_entries(now))
            for statement in _EXPIRE:
                connection.execute(self._sql(statement), self._parameters(now))
        result = work(connection, now)
        connection.execute("COMMIT")
        return result

    def _write(self, connection: sqlite3.Connection, entries: Collection[_Entry]) -> None:
        connection.executemany(self._sql(_WRITE), entries)
        if self._purpose:
            connection.executemany(_WRITE_PURPOSE, [(entry.id, self._purpose) for entry in entries])

    def _unexpired_entries(self, now: Moment) -> Collection[_Entry]:
        """Return this process's entries that have not expired, with their wall times corrected.

        Within a process, the elapsed time is reliable even if the boot has no id.
        """
        for entry in list(self._own_entries.values()):
            age = now.elapsed - entry.elapsed
            if age > (0.0 if entry.kind == "pause" else self._lifetime):
                del self._own_entries[entry.id]
            else:
                self._own_entries[entry.id] = entry._replace(wall=now.wall - age)
        return self._own_entries.values()
