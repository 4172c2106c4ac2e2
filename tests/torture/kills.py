"""Kills: exports in child processes that end in the middle, and the file then and after a second export.

POSIX only: SIGKILL, and children forked from a process that has loaded the modules. A killed step is checked like every other
step: each batch in the ledger must be complete. The same export then runs again without faults; it must not request days that
were complete, and must end with the truth.
"""

import sqlite3
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import replace
from multiprocessing import get_context
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory
from typing import Any

from anyio.from_thread import start_blocking_portal

from mixpanel_export import SelectionError, Timeouts
from mixpanel_export._config.endpoint import export_url
from mixpanel_export._quota.shared import SharedQuota, key_of
from mixpanel_export.simulator import Fault

from .child import (
    ASYNCHRONOUS,
    FLATTEN_STATEMENTS,
    FORGET_STATEMENTS,
    POINTS,
    PROFILE_STATEMENTS,
    RETRY_WAIT,
    ChildExport,
    ChildProfiles,
    Moment,
    Point,
    export_profiles,
    flatten,
    forget,
    work,
)
from .contents import read
from .flat import check_flat_tables
from .project import SHADOW, Export, Mode, Project
from .schedules import ACCOUNT, Run, Tally
from .state import Outcome
from .violations import ViolationError, require

_CREATION = "create the file"
_SWAP = (
    "swap",
    "drop the old table",
    "rename the shadow table",
    "rename the ledger rows",
    "move the target days",
)
_REPAIR = ("repair", "write rejects")
_FAILURE = ("record a failure", "handle a failed attempt", "drop a staged chunk", RETRY_WAIT)
_REFUSAL = ("refund to the quota", "pause all processes")
_FREQUENT = (
    "commit",
    "profiles: commit",
    "profiles: stage a page",
    "stage a start",
    "stage a block",
    "stage an end",
    "take from the quota",
)
_ALWAYS_POSSIBLE: tuple[Mode, ...] = ("replace", "append", "resume")
_PRELOADED = [  # modules imported once, before children are forked
    "mixpanel_export._export.engine",
    "anyio._backends._asyncio",
    "httpx",
    "duckdb",
    "sqlite3",
]
_SHORT_TIMEOUTS = Timeouts(connect=5.0, first_byte=1.0, idle=1.0)
_MAX_SECONDS = 60.0  # an export that takes longer hangs


class KilledRun(Run):
    """A run whose exports can go over a socket, in child processes that are killed."""

    def __init__(self, draw: Random, folder: Path) -> None:
        super().__init__(draw, folder, stable=draw.random() < 0.5, heavy=draw.random() < 0.1)
        self.url = ""
        self._state = folder / "state"
        self._context = get_context("forkserver")
        self._context.set_forkserver_preload(_PRELOADED)

    def kill(self, task: Export, faults: Sequence[Fault], point: Point | None) -> bool:
        """Export in a child that dies at *point*, or is killed from outside; return whether it was killed."""
        self.project.sim.faults = list(faults)
        expected = self.model.expected(task)
        job = ChildExport(
            task,
            self.db,
            self.url,
            ACCOUNT,
            self.project.now,
            self.settings.with_pause(0.05),
            self._state,
            _SHORT_TIMEOUTS if faults else None,
            point,
        )
        child, receive = self._start(work, job)
        where = point.name if point else self._kill_from_outside(child)
        outcome, killed = _end_of(child, receive)
        self._wait_for_server()
        self._count_faults()
        if killed:
            self.tally.kills[where] += 1
        else:
            self.tally.missed[where] += 1
            require(not self.staging(), "an export that ended has left its staging behind", self.staging())
        self._check_quota()
        self.model.check_step(task, expected, outcome, read(self.db))
        self.tally.exports += 1
        return killed

    def kill_forget(self, person: str, point: Point) -> None:
        """Forget *person* in a child that dies at *point*; all events of the person must be gone then, or none."""
        child, receive = self._start(forget, self.db, person, point)
        removed, killed = _reply_of(child, receive)
        (self.tally.kills if killed else self.tally.missed)[point.name] += 1
        contents = read(self.db)
        if contents.has(person):
            require(killed and removed is None, "a person was forgotten, and has events", person)
        else:
            expected = self.model.forget(person)
            require(
                removed in {None, expected}, "`forget` reports another number of events", removed, expected
            )
        self.model.check_unchanged(contents)

    def kill_flatten(self, table: str, point: Point) -> None:
        """Update the flat table of *table* in a child that dies at *point*; then complete the update and check it."""
        child, receive = self._start(flatten, self.db, table, point)
        _, killed = _reply_of(child, receive)
        (self.tally.kills if killed else self.tally.missed)[point.name] += 1
        self.model.check_unchanged(read(self.db))
        check_flat_tables(self.db, auto=self.draw.random() < 0.5)

    def kill_people(self, point: Point) -> None:
        """Export profiles in a child that dies at *point*; then complete the export."""
        task = self.people.task()
        if point.name == "profiles: delete the updated rows" and task.mode == "replace":
            task = replace(task, mode="append")
        self.project.sim.profile_faults = []
        job = ChildProfiles(task, self.db, self.url, ACCOUNT, self.project.now, self._state, point)
        child, receive = self._start(export_profiles, job)
        rows, killed = _reply_of(child, receive)
        (self.tally.kills if killed else self.tally.missed)[point.name] += 1
        if rows is None:
            self.people.check_killed(task, self.db)
        else:
            self.people.check_step(task, None, 0, self.db)
        self.model.check_unchanged(read(self.db))
        self.export_people(faulty=False)

    def _start(self, work: Callable[..., None], *arguments: object) -> tuple[BaseProcess, Connection]:
        """Start *work* in a child, and return the child and what it sends."""
        receive, send = self._context.Pipe(duplex=False)
        child = self._context.Process(target=work, args=(*arguments, send))
        child.start()
        send.close()
        return child, receive

    def _kill_from_outside(self, child: BaseProcess) -> str:
        """Kill the child at a change of the file or its log, or at any time; return which."""
        if self.draw.random() < 0.25:
            child.join(self.draw.random())
            child.kill()
            return "any time"
        changes = self.draw.choice([1, 2, 3, 5, 8, 13, 20])
        delay = self.draw.choice([0.0, 0.0, 0.001, 0.01])
        state = self._file_state()
        deadline = time.monotonic() + _MAX_SECONDS
        while child.is_alive() and changes and time.monotonic() < deadline:
            if state != (state := self._file_state()):
                changes -= 1
            time.sleep(0.0002)
        time.sleep(delay)
        child.kill()
        return "a change of the file"

    def _file_state(self) -> tuple[object, ...]:
        state: list[object] = []
        for path in (self.db, self.db.with_name(self.db.name + ".wal")):
            try:
                status = path.stat()
            except FileNotFoundError:
                state.append(None)
            else:
                state.append((status.st_size, status.st_mtime_ns))
        return tuple(state)

    def _wait_for_server(self) -> None:
        """Wait until the server has noticed that the client is gone."""
        number = -1
        while self.project.sim.in_progress or number != (number := len(self.project.sim.requests)):
            time.sleep(0.02)

    def _check_quota(self) -> None:
        """Check that other processes can use the quota file, whatever happened to its writer."""
        path = self._state / "quota.sqlite3"
        if not path.exists():
            return
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            key = key_of(export_url("us", self.url), ACCOUNT.project_id)
            view = SharedQuota(key, 50, 10_000, path=path).read()
        require(view.remaining, "nothing remains by the quota file", view)
        with closing(sqlite3.connect(path)) as connection:
            state = connection.execute("PRAGMA integrity_check").fetchone()
        require(state == ("ok",), "the quota file is damaged", state)


def _end_of(child: BaseProcess, receive: Connection) -> tuple[Outcome, bool]:
    """Return the outcome of the child's export, and whether a signal ended the child."""
    reply, killed = _reply_of(child, receive)
    if isinstance(reply, tuple):
        error, message = reply
        return Outcome(error=error, message=message), killed
    return Outcome(result=reply), killed


def _reply_of(child: BaseProcess, receive: Connection) -> tuple[Any, bool]:
    """Return what the child sends, None if it is killed before, and whether a signal ended the child."""
    reply: Any = None
    try:
        if not receive.poll(_MAX_SECONDS):
            child.kill()
            raise ViolationError("an export hangs")
        reply = receive.recv()
    except EOFError:
        pass
    finally:
        receive.close()
    child.join(_MAX_SECONDS)
    code = child.exitcode
    child.close()
    if reply is None:
        require(code == -9, "a child died without a kill", code)
    return reply, code == -9


def kills(seed: int) -> Tally:
    """Kill two exports into the file of *seed*, and complete it."""
    draw = Random(seed)
    with TemporaryDirectory(prefix="torture-", ignore_cleanup_errors=True) as folder:
        tally = Tally()
        try:
            with _served(draw, Path(folder)) as run:
                tally = run.tally
                points = _points(draw, seed)
                _prepare(run, points[0])
                for point in points:
                    if point and point.name in FORGET_STATEMENTS:
                        _kill_forget(run, point)
                        continue
                    if point and point.name in FLATTEN_STATEMENTS:
                        _kill_flatten(run, point)
                        continue
                    if point and point.name in PROFILE_STATEMENTS:
                        run.kill_people(point)
                        continue
                    task, faults = _task(run, point)
                    killed = run.kill(task, faults, point)
                    if killed and draw.random() < 0.7:
                        _repeat(run, task)
                    if draw.random() < 0.3:
                        run.forget_someone()
                run.complete()
                if draw.random() < 0.3:
                    run.replace_all()
                tally.events = run.model.compared
        except Exception as error:  # noqa: BLE001 - every failure is reported with its seed
            tally.add_failure(error, f"python -m tests.torture --seed {seed} --files 1")
        return tally


def _kill_forget(run: KilledRun, point: Point) -> None:
    """Kill a child that forgets a person, if there are events with an id, and forget the person again."""
    person = run.person()
    if person is None:
        run.tally.missed[point.name] += 1
        return
    run.kill_forget(person, point)
    run.forget(person)


def _kill_flatten(run: KilledRun, point: Point) -> None:
    """Kill a child that updates a flat table, if there is a table, and complete the update."""
    tables = [table for table in sorted(run.model.tables()) if table in read(run.db).tables]
    tables = [table for table in tables if not table.startswith(SHADOW)]
    if tables:
        run.kill_flatten(run.draw.choice(tables), point)
    else:
        run.tally.missed[point.name] += 1


def _prepare(run: Run, point: Point | None) -> None:
    """In half of the cases, and if *point* needs it, fill the file before the first kill."""
    name = point.name if point else ""
    if (
        name in FORGET_STATEMENTS
        or name in FLATTEN_STATEMENTS
        or name in PROFILE_STATEMENTS
        or (name != _CREATION and run.draw.random() < 0.5)
    ):
        run.export(run.project.export(mode="resume"))
        if name in PROFILE_STATEMENTS:
            run.export_people(faulty=False)
        run.project.advance()


def _repeat(run: Run, task: Export) -> None:
    """Export the same again: complete days are not requested, and nothing is missing afterwards."""
    again = replace(task, mode="replace" if task.mode == "replace" else "resume")
    outcome = run.export(again)
    if outcome.error is not SelectionError:
        require(outcome.result and not outcome.failed, "incomplete although nothing failed", again)


def _task(run: Run, point: Point | None) -> tuple[Export, list[Fault]]:
    """Return an export that can reach *point*, and its faults."""
    name = point.name if point else ""
    mode: Mode | None = "replace" if name in _SWAP else None
    task = run.project.export(mode=mode)
    while (expected := run.model.expected(task)).refusal or not expected.days:
        task = run.project.export(mode=mode or run.draw.choice(_ALWAYS_POSSIBLE))
    return task, _faults(run.project, name)


def _faults(project: Project, name: str) -> list[Fault]:
    """Return faults that lead to the point *name*."""
    if name in _REFUSAL:
        return [Fault("429", times=8, retry_after=0.01)]
    if name in _FAILURE:
        return [Fault("terminated_early", times=8, position=0.9)]
    if name == "split a chunk":
        return [Fault("timeout_error", times=2)]
    if name in _REPAIR:
        return [Fault("garbage_line")]
    return [] if name in _SWAP else project.faults(project.draw.choice([0, 0, 1, 2]))


def _points(draw: Random, seed: int) -> list[Point | None]:
    """Return the points of the two exports into a file; None kills from outside.

    The points rotate with *seed*, alternating with commits.
    """
    name = POINTS[seed // 2 % len(POINTS)] if seed % 2 else "commit"
    turn = draw.choice([1, 2, 2, 3, 3, 4, 6]) if name in _FREQUENT else 1
    moments: tuple[Moment, ...] = ("before",) if name in ASYNCHRONOUS else ("before", "during", "after")
    point = Point(name, turn, draw.choice(moments), draw.choice([0.0, 0.001, 0.005, 0.02]))
    return [point, None] if name == _CREATION or draw.random() < 0.5 else [None, point]


@contextmanager
def _served(draw: Random, folder: Path) -> Iterator[KilledRun]:
    """Yield a run whose project is served on a loopback socket, by a thread of this process."""
    with start_blocking_portal() as portal:
        run = KilledRun(draw, folder)
        with portal.wrap_async_context_manager(run.project.sim.serve()) as run.url:
            yield run
