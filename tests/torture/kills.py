"""Kills: exports in processes of their own that end in the middle, and what the file is then and afterwards.

POSIX only: SIGKILL, and children that are forked from a process which has the modules loaded. A killed step is
checked like any other, so each batch that the ledger names must be there, whole; then the same is asked for again
without faults, which must ask for no day that was complete and end with the truth.
"""

import sqlite3
import time
import warnings
from collections.abc import Iterator, Sequence
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
from mixpanel_export._endpoint import export_url
from mixpanel_export._quota.shared import SharedQuota, key_of
from mixpanel_export.simulator import Fault

from .child import ASYNCHRONOUS, POINTS, RETRY_WAIT, Job, Moment, Point, work
from .file import read
from .knobs import honest_cuts
from .model import Outcome, ViolationError, require
from .schedules import ACCOUNT, Run, Tally
from .world import Ask, Mode, World

_CREATION = "creating the file"
_SWAP = ("swapping", "dropping the old table", "renaming the shadow", "renaming the ledger rows")
_BROKEN = ("mending", "setting lines aside")
_FAILING = ("noting a failure", "following a failed attempt", "dropping a staged chunk", RETRY_WAIT)
_REFUSED = ("giving a place back", "pausing all processes")
_OFTEN = ("commit", "staging a start", "staging a block", "staging an end", "taking a place of the quota")
_POSSIBLE: tuple[Mode, ...] = ("replace", "append", "resume")
_TOGETHER = [  # imported once, before children are forked
    "mixpanel_export._export.engine",
    "anyio._backends._asyncio",
    "httpx",
    "duckdb",
    "sqlite3",
]
_IMPATIENT = Timeouts(connect=5.0, first_byte=1.0, idle=1.0)
_LONG = 60.0  # seconds after which an export that should have ended hangs


class KilledRun(Run):
    """A run whose exports may go over a socket, in children that are killed."""

    def __init__(self, draw: Random, folder: Path) -> None:
        super().__init__(draw, folder, plain=draw.random() < 0.5, heavy=draw.random() < 0.1)
        self.url = ""
        self._state = folder / "state"
        self._context = get_context("forkserver")
        self._context.set_forkserver_preload(_TOGETHER)

    def kill(self, ask: Ask, faults: Sequence[Fault], point: Point | None) -> bool:
        """Export as *ask* says in a child that ends at *point*, or is killed from here; whether it was."""
        self.world.sim.faults = list(faults)
        expected = self.model.expected(ask)
        slow = {**self.knobs, "_quota.retry._SHORTEST_PAUSE": 0.05}
        job = Job(
            ask,
            self.db,
            self.url,
            ACCOUNT,
            self.world.now,
            slow,
            self._state,
            _IMPATIENT if faults else None,
            point,
        )
        receive, send = self._context.Pipe(duplex=False)
        child = self._context.Process(target=work, args=(job, send))
        child.start()
        send.close()
        where = point.name if point else self._interfere(child)
        outcome, killed = _ended(child, receive)
        self._settle()
        self._count_faults()
        if killed:
            self.tally.kills[where] += 1
        else:
            self.tally.missed[where] += 1
            require(not self.staging(), "staging is left by an export that ended", self.staging())
        self._check_quota()
        self.model.after(ask, expected, outcome, read(self.db))
        self.tally.exports += 1
        return killed

    def _interfere(self, child: BaseProcess) -> str:
        """Kill the child at a change of the file or its log, or at any time; returns which."""
        if self.draw.random() < 0.25:
            child.join(self.draw.random())
            child.kill()
            return "any time"
        changes = self.draw.choice([1, 2, 3, 5, 8, 13, 20])
        delay = self.draw.choice([0.0, 0.0, 0.001, 0.01])
        seen = self._stamp()
        patience = time.monotonic() + _LONG
        while child.is_alive() and changes and time.monotonic() < patience:
            if seen != (seen := self._stamp()):
                changes -= 1
            time.sleep(0.0002)
        time.sleep(delay)
        child.kill()
        return "a change of the file"

    def _stamp(self) -> tuple[object, ...]:
        stamps: list[object] = []
        for path in (self.db, self.db.with_name(self.db.name + ".wal")):
            try:
                found = path.stat()
            except FileNotFoundError:
                stamps.append(None)
            else:
                stamps.append((found.st_size, found.st_mtime_ns))
        return tuple(stamps)

    def _settle(self) -> None:
        """Wait until the server has noticed that nobody listens any more."""
        seen = -1
        while self.world.sim.in_progress or seen != (seen := len(self.world.sim.requests)):
            time.sleep(0.02)

    def _check_quota(self) -> None:
        """Whatever happened to the writer of the quota file, others go on with it."""
        path = self._state / "quota.sqlite3"
        if not path.exists():
            return
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            key = key_of(export_url("us", self.url), ACCOUNT.project_id)
            view = SharedQuota(key, 50, 10_000, path=path).look()
        require(view.remaining, "the quota file says that nothing is left", view)
        with closing(sqlite3.connect(path)) as connection:
            state = connection.execute("PRAGMA integrity_check").fetchone()
        require(state == ("ok",), "the quota file is broken", state)


def _ended(child: BaseProcess, receive: Connection) -> tuple[Outcome, bool]:
    """Return how the child ended, and whether it was by a signal."""
    reply: Any = None
    try:
        if not receive.poll(_LONG):
            child.kill()
            raise ViolationError("an export hangs")
        reply = receive.recv()
    except EOFError:
        pass
    finally:
        receive.close()
    child.join(_LONG)
    code = child.exitcode
    child.close()
    if reply is None:
        require(code == -9, "an export died by itself", code)
        return Outcome(), True
    if isinstance(reply, tuple):
        kind, message = reply
        return Outcome(error=kind.__new__(kind, message)), code == -9
    return Outcome(result=reply), code == -9


def kills(seed: int) -> Tally:
    """Kill exports into the file of *seed* twice, and let it be completed."""
    draw = Random(seed)
    with TemporaryDirectory(prefix="torture-", ignore_cleanup_errors=True) as folder:
        tally = Tally()
        try:
            with _served(draw, Path(folder)) as run:
                tally = run.tally
                points = _points(draw, seed)
                if points[0] is None or points[0].name != _CREATION:
                    _begin(run)
                for point in points:
                    ask, faults = _planned(run, point)
                    killed = run.kill(ask, faults, point)
                    if killed and draw.random() < 0.7:
                        _again(run, ask)
                run.complete()
                if draw.random() < 0.3:
                    run.replace_all()
                tally.events = run.model.compared
        except Exception as error:  # noqa: BLE001 - whatever it is, the seed must be told
            tally.note(error, f"python -m tests.torture --seed {seed} --files 1")
        return tally


def _begin(run: Run) -> None:
    """Now and then, have something in the file before the first kill."""
    if run.draw.random() < 0.5:
        run.export(run.world.ask(mode="resume"))
        run.world.time_passes()


def _again(run: Run, ask: Ask) -> None:
    """Ask for the same once more: nothing that was complete is fetched, and nothing is missing then."""
    again = replace(ask, mode="replace" if ask.mode == "replace" else "resume")
    outcome = run.export(again)
    if not isinstance(outcome.error, SelectionError):
        require(outcome.result and not outcome.failed, "nothing went wrong, and it is not whole", again)


def _planned(run: Run, point: Point | None) -> tuple[Ask, list[Fault]]:
    """Return an export that has a chance to come to *point*, and what goes wrong with it."""
    name = point.name if point else ""
    mode: Mode | None = "replace" if name in _SWAP else None
    ask = run.world.ask(mode=mode)
    while (expected := run.model.expected(ask)).refusal or not expected.days:
        ask = run.world.ask(mode=mode or run.draw.choice(_POSSIBLE))
    return ask, _faults(run.world, name)


def _faults(world: World, name: str) -> list[Fault]:
    """Return faults that lead to the point *name*."""
    if name in _REFUSED:
        return [Fault("429", times=8, retry_after=0.01)]
    if name in _FAILING:
        return [Fault("terminated_early", times=8, position=0.9)]
    if name == "splitting a chunk":
        return [Fault("timeout_error", times=2)]
    if name in _BROKEN:
        return [Fault("garbage_line")]
    return [] if name in _SWAP else world.faults(world.draw.choice([0, 0, 1, 2]))


def _points(draw: Random, seed: int) -> list[Point | None]:
    """Return where the two exports of a file end: one by itself at a point, one, None, from outside.

    The points have their turns by the *seed*, and between them there are commits.
    """
    name = POINTS[seed // 2 % len(POINTS)] if seed % 2 else "commit"
    turn = draw.choice([1, 2, 2, 3, 3, 4, 6]) if name in _OFTEN else 1
    moments: tuple[Moment, ...] = ("before",) if name in ASYNCHRONOUS else ("before", "during", "after")
    point = Point(name, turn, draw.choice(moments), draw.choice([0.0, 0.001, 0.005, 0.02]))
    return [point, None] if name == _CREATION or draw.random() < 0.5 else [None, point]


@contextmanager
def _served(draw: Random, folder: Path) -> Iterator[KilledRun]:
    """Yield a run whose project is served on a loopback socket, by a thread of this process."""
    with honest_cuts(), start_blocking_portal() as portal:
        run = KilledRun(draw, folder)
        with portal.wrap_async_context_manager(run.world.sim.serve()) as run.url:
            yield run
