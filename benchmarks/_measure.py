"""What the benchmarks share: a server and each run in processes of their own, what a run costs, what it stored."""

import argparse
import os
import platform
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from functools import partial
from itertools import chain
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from statistics import median
from typing import Any, ParamSpec, TypeVar

import anyio
import duckdb
from _days import truths

from mixpanel_export import Credentials, ParallelFetchResult, export_events
from mixpanel_export.simulator import Simulator, Truth, checksum

if sys.platform != "win32":
    import resource

P = ParamSpec("P")
T = TypeVar("T")
W = TypeVar("W")

ACCOUNT = Credentials("demo.mp-service-account", "demo-secret", "12345")
FIRST = date(2024, 1, 1)
SPAWN = get_context("spawn")  # a forked process would share the parent's memory, and its peak
UNLIMITED: dict[str, Any] = {"per_second": 0, "per_hour": 0}
RESULTS = Path(__file__).parent / "results"

_OPTIONS: dict[str, dict[str, Any]] = {
    "--scale": {"type": float, "default": 0.25, "metavar": "X", "help": "1 is a million events a size"},
    "--rounds": {"type": int, "metavar": "N", "help": "after the warm-up"},
    "--folder": {
        "type": Path,
        "metavar": "PATH",
        "help": "where databases go meanwhile; default: the system's",
    },
    "--results": {"type": Path, "default": RESULTS, "metavar": "PATH", "help": "where tables and plots go"},
}


@dataclass(frozen=True, slots=True)
class Cost:
    """What one run took: seconds by the clock and of all cores, peak of resident bytes (0 where not told)."""

    wall: float
    cpu: float
    peak: int


def day(number: int) -> date:
    """Return the day that comes *number* days after the first one."""
    return FIRST + timedelta(number)


def options(*names: str, description: str | None, rounds: int) -> argparse.Namespace:
    """Return what the command line says of the options of these *names*; *rounds* unless it says otherwise.

    Its `about` is the line that says where, when and how much is measured; it is printed now, before the load is ours.
    """
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    for name in names:
        parser.add_argument(name, **_OPTIONS[name])
    parser.set_defaults(rounds=rounds)
    given = parser.parse_args()
    given.about = f"{machine()}; scale {given.scale:g}, rounds {given.rounds}"
    print(f"{given.about}\n", flush=True)
    return given


def export(url: str, first: date, last: date, db: Path, **settings: Any) -> ParallelFetchResult:
    """Export the days with default settings but for *settings*, and without the client's limits.

    Raises:
        RuntimeError: days are missing.
    """
    given: dict[str, Any] = {"db": db, "credentials": ACCOUNT, "api_url": url} | UNLIMITED | settings
    result = anyio.run(partial(export_events, first, last, **given))
    if result.failed_batches:
        raise RuntimeError(f"{result.failed_date_ranges} are missing: {result.errors}")
    return result


def alternating(ways: Sequence[W], rounds: int, run: Callable[[W], T]) -> list[list[T]]:
    """Run all *ways*, forwards and backwards in turn, *rounds* times after one round that does not count.

    Returned are, for each way, its results in the order of the rounds.
    """
    done: list[list[T]] = [[] for _ in ways]
    for turn in range(rounds + 1):
        order = list(enumerate(ways))
        for place, way in reversed(order) if turn % 2 else order:
            result = run(way)
            if turn:
                done[place].append(result)
    return done


@dataclass(slots=True)
class Proof:
    """Proves that tables have all they should: the first by *check*, the others by a hash that is the first one's.

    *check* reads the whole table, and returns what is wrong with it, or nothing. Where tables may differ and be
    right, as not *alike*, each is checked.
    """

    name: str
    check: Callable[[Path], str | None]
    alike: bool = True
    right: tuple[int, int] | None = None

    def of(self, db: Path) -> None:
        """Look at the table `events` of a database.

        Raises:
            SystemExit: it is not as it should be.
        """
        if (self.right is None or not self.alike) and (wrong := self.check(db)):
            raise SystemExit(f"{self.name}: {wrong}")
        found = in_own_process(hashed, db)
        if self.right is None or not self.alike:
            self.right = found
        if found != self.right:
            raise SystemExit(f"{self.name}: rows and hash are {found}, and were {self.right} the first time")


def exactly(truth: Truth) -> Callable[[Path], str | None]:
    """Return a check that a table has exactly the rows that the simulator says, in all columns and bytes."""

    def check(db: Path) -> str | None:
        found, right = in_own_process(stored, db), (truth.distinct, truth.checksum)
        return None if found == right else f"rows and checksum are {found}, and should be {right}"

    return check


def as_many(rows: int) -> Callable[[Path], str | None]:
    """Return a check that a table has so many rows."""

    def check(db: Path) -> str | None:
        found = in_own_process(counted, db)
        return None if found == rows else f"there are {found} rows, and should be {rows}"

    return check


@contextmanager
def new_folder(within: Path | None) -> Iterator[Path]:
    """Yield a new folder, which is removed with all that is in it."""
    with tempfile.TemporaryDirectory(dir=within) as folder:
        yield Path(folder)


def cost_of(work: Callable[P, object], *args: P.args, **kwargs: P.kwargs) -> Cost:
    """Call *work* in a new process and return its cost; what the process imports first is not in the times."""
    return measured(work, *args, **kwargs)[1]


def measured(work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> tuple[T, Cost]:
    """Call *work* in a new process, as `cost_of` does, and return what it returned too."""
    return in_own_process(_measured, partial(work, *args, **kwargs))


def in_own_process(work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Call *work* in a new process, which ends with it."""
    with ProcessPoolExecutor(1, mp_context=SPAWN) as pool:
        return pool.submit(work, *args, **kwargs).result()


@contextmanager
def served(first: date, last: date, **settings: Any) -> Iterator[tuple[str, Truth]]:
    """Serve a simulator of these *settings* from another process; yields its URL and the truth of the days.

    The days are made and compressed before, so that a request costs the server little.
    """
    with served_days(first, last, **settings) as (url, told):
        yield url, sum(told.values(), Truth())


@contextmanager
def served_days(first: date, last: date, **settings: Any) -> Iterator[tuple[str, dict[date, Truth]]]:
    """Serve as `served` does; yields the URL and the truth of each day."""
    with serving(partial(truths, first, last), **settings) as told:
        yield told


@contextmanager
def serving(prepare: Callable[[Simulator], T], **settings: Any) -> Iterator[tuple[str, T]]:
    """Serve a simulator of these *settings* from another process; yields its URL and what *prepare* returned there."""
    here, there = SPAWN.Pipe()
    server = SPAWN.Process(target=_serve, args=(there, prepare, settings), daemon=True)
    server.start()
    there.close()
    try:
        yield here.recv()
    finally:
        server.terminate()
        server.join()


def stored(db: Path) -> tuple[int, int]:
    """Return how many rows the table `events` has and their checksum, in constant memory."""
    with duckdb.connect(str(db), read_only=True) as connection:
        connection.execute("SET enable_progress_bar = false")
        rows = connection.execute(
            "SELECT event_name, event_time, distinct_id, insert_id, properties FROM events"
        )
        total = checksum(chain.from_iterable(iter(lambda: rows.fetchmany(10_000), [])))
    return counted(db), total


def hashed(db: Path) -> tuple[int, int]:
    """Return how many rows the table `events` has and a sum of DuckDB's hashes of them, whatever their order."""
    with duckdb.connect(str(db), read_only=True) as connection:
        connection.execute("SET enable_progress_bar = false")
        [found] = connection.execute(
            "SELECT count(*), sum(hash(event_name, event_time, distinct_id, insert_id, properties)) FROM events"
        ).fetchall()
    return found[0], int(found[1] or 0)


def counted(db: Path) -> int:
    """Return how many rows the table `events` has."""
    with duckdb.connect(str(db), read_only=True) as connection:
        connection.execute("SET enable_progress_bar = false")
        found = connection.execute("SELECT count(*) FROM events").fetchone()
    return found[0] if found else 0


def machine() -> str:
    """Return one line that says where and when the figures came about."""
    return (
        f"{datetime.now(UTC):%Y-%m-%d}, {platform.system()} {platform.machine()}, {os.cpu_count()} cores, "
        f"load {_load()}, Python {platform.python_version()}, DuckDB {duckdb.__version__}"
    )


def spread(values: Sequence[float], digits: int = 2) -> str:
    """Return the median of *values* and, in brackets, the least and the greatest."""
    return f"{median(values):,.{digits}f} ({min(values):,.{digits}f} to {max(values):,.{digits}f})"


def _measured(work: Callable[[], T]) -> tuple[T, Cost]:
    if sys.platform != "win32":
        os.sync()  # a commit waits for the disk, and would wait for what was written before as well
    wall, cpu = time.perf_counter(), time.process_time()
    result = work()
    return result, Cost(time.perf_counter() - wall, time.process_time() - cpu, _peak())


def _peak() -> int:
    if sys.platform == "win32":
        return 0
    status = Path("/proc/self/status")
    if status.exists():  # Linux, whose ru_maxrss begins with what the parent had when it started the process
        lines = status.read_text("ascii").splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:")) * 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024  # kilobytes elsewhere


def _load() -> str:
    return f"{os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else "not told"


def _serve(ready: Connection, prepare: Callable[[Simulator], object], settings: dict[str, Any]) -> None:
    async def serve() -> None:
        simulator = Simulator(**settings)
        prepared = prepare(simulator)
        async with simulator.serve() as url:
            ready.send((url, prepared))
            await anyio.sleep_forever()

    anyio.run(serve)
