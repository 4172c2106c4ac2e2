"""The quota file: what all processes of one user on this machine have asked of a project.

Mixpanel counts a project's requests wherever they come from, so exports that run at the same time must count
together. Each request is a row of one SQLite file, and a place is taken in one transaction: it reads the rows,
applies the limits, and adds a row or says how long to wait. Rows hold hosts, project ids and process ids, and
nothing secret.

The file is opened for each call and closed after it, which costs half a millisecond and means that a file
that was deleted, replaced or inherited by a forked process is never written to by mistake. Nothing waits for
the disk, as a crash of the machine may cost the rows: SQLite's journal keeps the file whole when a process is
killed, and a file that a power cut broke is moved aside. Calls block, at most for the patience with other
processes' locks, so they belong into a worker thread.

Each process remembers what it sent itself, and writes it again where it is missing. So a file that cannot be
used only narrows the view to this process, with one warning, and nothing is forgotten when it comes back.
"""

import os
import sqlite3
import warnings
from collections.abc import Callable, Iterable, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from secrets import token_hex
from threading import Lock
from typing import Literal, NamedTuple, TypeVar
from urllib.parse import urlsplit

from platformdirs import user_state_path

from mixpanel_export._environment import expanded, variable
from mixpanel_export._files import file_to_write
from mixpanel_export._quota.clock import Clock, Moment, system_clock
from mixpanel_export._quota.gate import HOUR, SECOND, Window, wait_needed

T = TypeVar("T")

CROWDED_SECOND = SECOND + 0.3
"""Mixpanel's second in seconds, where other processes ask, too: requests of several travel less evenly."""

_COMPANY = 10.0  # seconds; whoever sent a request so recently is taken to be sending more
_IMPATIENCE = 0.1  # seconds for a lock, once one has outlasted the patience, as each request would be late
_STEP_BACK = 5.0  # seconds; a row that is so little in the future is recent, and the clock was corrected
_TICK = 1e-6  # seconds; waits are so much longer, that nobody be told afterwards to wait for a rounding error

_SCHEMA = """CREATE TABLE IF NOT EXISTS entries (
    id TEXT PRIMARY KEY, host TEXT NOT NULL, project TEXT NOT NULL, kind TEXT NOT NULL, pid INTEGER NOT NULL,
    boot TEXT, elapsed REAL NOT NULL, wall REAL NOT NULL) WITHOUT ROWID"""
# What this process sent, unless it is there as it is now: refunds may have missed the file, and clocks are set.
_REMEMBER = """INSERT INTO entries VALUES (?, ?, ?, ?, ?, ?, ?, ?)
    ON CONFLICT (id) DO UPDATE SET kind = excluded.kind, wall = excluded.wall
    WHERE kind <> excluded.kind OR abs(wall - excluded.wall) > 1"""
# Where the boot is not known it is NULL, which equals nothing.
_AGE = "CASE WHEN boot = :boot THEN :elapsed - elapsed ELSE :wall - wall END"
_VALID = f"""CASE kind WHEN 'pause' THEN {_AGE} BETWEEN -:kept AND 0
    ELSE {_AGE} BETWEEN -:step_back AND :kept END"""
_FORGET = f"DELETE FROM entries WHERE NOT {_VALID}"
_READ = f"""SELECT kind, CASE WHEN boot = :boot THEN pid END, {_AGE} AS age FROM entries
    WHERE host = :host AND project = :project AND {_VALID} ORDER BY age DESC"""


class Key(NamedTuple):
    """What shares a quota: a project on a host. An empty *project* stands for all project secrets without one."""

    host: str
    project: str


def key_of(url: str, project_id: str) -> Key:
    """Return the key of a project under the *url* of its export endpoint."""
    return Key(urlsplit(url).netloc.lower(), project_id)


def quota_file() -> Path:
    """Return the path of the quota file, in `MPX_STATE_DIR` or the platform's folder for state."""
    named = variable("MPX_STATE_DIR")
    folder = expanded(named).absolute() if named else user_state_path("mixpanel_export", appauthor=False)
    return folder / "quota.sqlite3"


class Request(NamedTuple):
    """A request of the last hour: *age* in seconds; *pid* None where the machine has been restarted since."""

    age: float
    pid: int | None
    counted: bool


@dataclass(frozen=True, slots=True)
class View:
    """What was known of a project's quota at one moment.

    `requests` are those of the last hour, oldest first; those given back count for the second only. `pause` is
    how many seconds nobody should ask, and `ticket` the place that was taken, for `SharedQuota.refund`.
    """

    requests: tuple[Request, ...]
    pause: float
    second: Window
    hour: Window
    ticket: str | None = None

    @property
    def sent(self) -> tuple[float, ...]:
        """The ages of all requests, in seconds, oldest first."""
        return tuple(request.age for request in self.requests)

    @property
    def counted(self) -> tuple[float, ...]:
        """The ages of the requests that count for the hour, in seconds, oldest first."""
        return tuple(request.age for request in self.requests if request.counted)

    @property
    def remaining(self) -> int | None:
        """How many requests the rolling hour still allows; None if unlimited."""
        return max(0, self.hour.quota - len(self.counted)) if self.hour.quota else None

    @property
    def wait(self) -> float:
        """The seconds until the next request would be possible."""
        wait = max(self.pause, _wait(self.second, self.sent), _wait(self.hour, self.counted))
        return wait and wait + _TICK

    @property
    def frees(self) -> tuple[float, ...]:
        """The seconds until each further place of the hour comes free, soonest first; a pause may last longer."""
        # With a lower limit than others have, more may have been sent than this one allows.
        beyond = max(0, len(self.counted) - self.hour.quota)
        return tuple(self.hour.seconds - age for age in self.counted[beyond:]) if self.hour.quota else ()


def _wait(window: Window, ages: Sequence[float]) -> float:
    return wait_needed([window], [-age for age in ages], 0.0) if window.quota else 0.0


_Kind = Literal["counted", "refunded", "pause"]


class _Entry(NamedTuple):
    """A row of the file: a request at its time, or a pause at its end."""

    id: str
    host: str
    project: str
    kind: _Kind
    pid: int
    boot: str | None
    elapsed: float
    wall: float


class SharedQuota:
    """The quota of one project, counted by all processes together. Its methods block, and may run in any thread.

    *per_second* and *per_hour* are requests as Mixpanel counts them, 0 where there is no limit; each process
    applies its own to the requests of all. *second*, *crowded_second* and *hour* are their lengths in seconds,
    *patience* how many seconds a call waits for other processes. A file that cannot be used is warned of once,
    and no call fails for it.
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
        crowded_second: float = CROWDED_SECOND,
        hour: float = HOUR,
        patience: float = 2.0,
    ) -> None:
        self._file = _File(path or quota_file(), patience)
        self._key = key
        self._clock = clock or system_clock()
        self._second = Window(per_second, second)
        self._crowded_second = Window(per_second, crowded_second)
        self._hour = Window(per_hour, hour)
        self._kept = max(hour, HOUR)
        self._own: dict[str, _Entry] = {}
        self._turn = Lock()

    def take(self) -> View:
        """Take a place now if the limits allow it; the view has a ticket then, and else a wait."""
        with self._turn:
            view, entry = self._run(self._take)
            if entry is not None:
                self._own[entry.id] = entry
            return view

    def look(self) -> View:
        """Return the view without taking a place; nothing is created or written."""
        with self._turn:
            return self._run(self._view, writing=False)

    def refund(self, ticket: str) -> View:
        """Give the place back to the hour: the server did not count the request (401, 402 and 429).

        The second keeps it, as the request did arrive. A ticket older than an hour changes nothing.
        """
        with self._turn:
            if ticket in self._own:
                self._own[ticket] = self._own[ticket]._replace(kind="refunded")
            return self._run(self._view)

    def pause(self, seconds: float) -> View:
        """Let no process ask before *seconds* from now, at most an hour; the longest pause wins."""
        with self._turn:
            entry = self._entry("pause", self._clock(), min(seconds, self._hour.seconds))
            self._own[entry.id] = entry
            return self._run(self._view)

    def _take(self, connection: sqlite3.Connection, now: Moment) -> tuple[View, _Entry | None]:
        view = self._view(connection, now)
        if view.wait > 0:
            return view, None
        entry = self._entry("counted", now)
        connection.execute(_REMEMBER, entry)
        requests = (*view.requests, Request(0.0, entry.pid, counted=True))
        return replace(view, requests=requests, ticket=entry.id), entry

    def _view(self, connection: sqlite3.Connection, now: Moment) -> View:
        rows = connection.execute(_READ, self._parameters(now)).fetchall()
        requests = tuple(
            Request(max(0.0, age), pid, kind == "counted")
            for kind, pid, age in rows
            if kind != "pause" and age < self._hour.seconds
        )
        pause = max((-age for kind, _, age in rows if kind == "pause"), default=0.0)
        crowded = any(request.age < _COMPANY and request.pid != os.getpid() for request in requests)
        return View(requests, pause, self._crowded_second if crowded else self._second, self._hour)

    def _entry(self, kind: _Kind, now: Moment, ahead: float = 0.0) -> _Entry:
        elapsed, wall = now.elapsed + ahead, now.wall + ahead
        return _Entry(token_hex(8), *self._key, kind, os.getpid(), now.boot, elapsed, wall)

    def _parameters(self, now: Moment) -> dict[str, object]:
        return {**self._key._asdict(), **now._asdict(), "kept": self._kept, "step_back": _STEP_BACK}

    def _run(self, work: Callable[[sqlite3.Connection, Moment], T], *, writing: bool = True) -> T:
        return self._file.run(partial(self._transacted, work), writing=writing)

    def _transacted(
        self,
        work: Callable[[sqlite3.Connection, Moment], T],
        connection: sqlite3.Connection,
        writing: bool,
    ) -> T:
        connection.execute("PRAGMA synchronous = OFF")
        connection.execute("BEGIN IMMEDIATE" if writing else "BEGIN")
        connection.execute(_SCHEMA)
        now = self._clock()  # under the lock, so that nobody who comes later reads an earlier time
        if writing:
            connection.executemany(_REMEMBER, self._remembered(now))
            connection.execute(_FORGET, self._parameters(now))
        done = work(connection, now)
        connection.execute("COMMIT")
        return done

    def _remembered(self, now: Moment) -> Iterable[_Entry]:
        """Return what this process sent and is not past, with times that a change of the clock cannot hurt.

        The machine's monotonic clock is good for as long as the process lives, whether or not the boot has a name.
        """
        for entry in list(self._own.values()):
            age = now.elapsed - entry.elapsed
            if age > (0.0 if entry.kind == "pause" else self._kept):
                del self._own[entry.id]
            else:
                self._own[entry.id] = entry._replace(wall=now.wall - age)
        return self._own.values()


class _File:
    """The quota file, and where it cannot be used an empty one in memory. Of its failures the first is told."""

    def __init__(self, path: Path, patience: float) -> None:
        self._path = path
        self._patience = self._usual_patience = patience
        self._seen = self._told = False

    def run(self, work: Callable[[sqlite3.Connection, bool], T], *, writing: bool) -> T:
        """Return what *work* returns of a connection, and whether it may write."""
        try:
            return self._in_file(work, writing=writing)
        except (sqlite3.Error, OSError) as error:
            failure = error
        if self._mended(failure):
            try:
                return self._in_file(work, writing=writing)
            except (sqlite3.Error, OSError) as error:
                failure = error
        self._tell(f"cannot be used ({failure})")
        return _in_memory(work)

    def _in_file(self, work: Callable[[sqlite3.Connection, bool], T], *, writing: bool) -> T:
        if not self._path.is_absolute():  # what the platform's folder is where nobody has a home
            raise FileNotFoundError("there is no home directory")
        file_to_write(self._path)
        there = self._path.exists()
        if not (there or writing):
            return _in_memory(work)
        if writing:
            self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with closing(sqlite3.connect(self._path, timeout=self._patience, isolation_level=None)) as connection:
            done = work(connection, writing)
        if self._seen and not there:
            self._tell("was deleted")
        self._seen = True
        self._patience = self._usual_patience
        return done

    def _mended(self, failure: Exception) -> bool:
        """Move a broken file aside; whether another try may do better, as only a lock is sure to be there yet."""
        match getattr(failure, "sqlite_errorcode", sqlite3.SQLITE_OK) & 0xFF:  # above that are details
            case sqlite3.SQLITE_BUSY:
                self._patience = min(self._patience, _IMPATIENCE)
                return False
            case sqlite3.SQLITE_CORRUPT | sqlite3.SQLITE_NOTADB:
                self._tell(f"was broken ({failure}) and is begun anew")
                with suppress(OSError):  # Windows keeps it while another process has it open
                    self._path.replace(self._path.with_suffix(".broken"))
        return True

    def _tell(self, what: str) -> None:
        if self._told:
            return
        self._told = True
        warnings.warn(
            f"the quota file {self._path} {what}; what other exports send may not be counted, "
            "so run one export of a project at a time",
            stacklevel=2,
        )


def _in_memory(work: Callable[[sqlite3.Connection, bool], T]) -> T:
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as connection:
        return work(connection, True)
