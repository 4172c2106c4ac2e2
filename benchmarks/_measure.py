"""Shared by the benchmarks: runs a server and each measured run in separate processes, and checks the results."""

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
SPAWN = get_context("spawn")  # the peak of a forked process would include the parent's memory
UNLIMITED: dict[str, Any] = {"per_second": 0, "per_hour": 0}
ODD = (
    0.002  # share of events with an unusual time or id, so that the exporter's slower paths are measured too
)
RESULTS = Path(__file__).parent / "results"

_OPTIONS: dict[str, dict[str, Any]] = {
    "--scale": {"type": float, "default": 0.25, "metavar": "X", "help": "size; 1 is a million events"},
    "--rounds": {"type": int, "metavar": "N", "help": "number of rounds after the warm-up"},
    "--folder": {
        "type": Path,
        "metavar": "PATH",
        "help": "folder for temporary databases; default: the system's",
    },
    "--results": {"type": Path, "default": RESULTS, "metavar": "PATH", "help": "folder for tables and plots"},
}


@dataclass(frozen=True, slots=True)
class Cost:
    """The cost of one run: wall seconds, CPU seconds with those of child processes, and peak resident bytes (0 if unknown)."""

    wall: float
    cpu: float
    peak: int


def day(number: int) -> date:
    """Return the day *number* days after the first one."""
    return FIRST + timedelta(number)


def options(*names: str, description: str | None, rounds: int) -> argparse.Namespace:
    """Parse the command line with the options *names*; *rounds* is the default of `--rounds`.

    The attribute `about` of the result is one line about machine, date and size. It is printed now, so that it has the
    load before the benchmark.
    """
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    for name in names:
        parser.add_argument(name, **_OPTIONS[name])
    parser.set_defaults(rounds=rounds)
    arguments = parser.parse_args()
    arguments.about = f"{machine()}; scale {arguments.scale:g}, rounds {arguments.rounds}"
    print(f"{arguments.about}\n", flush=True)
    return arguments


def export(url: str, first: date, last: date, db: Path, **settings: Any) -> ParallelFetchResult:
    """Export the days without client-side limits; *settings* are arguments of `export_events`.

    Raises:
        RuntimeError: Batches have failed.
    """
    keywords: dict[str, Any] = {"db": db, "credentials": ACCOUNT, "api_url": url} | UNLIMITED | settings
    result = anyio.run(partial(export_events, first, last, **keywords))
    if result.failed_batches:
        raise RuntimeError(f"{result.failed_date_ranges} are missing: {result.errors}")
    return result


def alternate(ways: Sequence[W], rounds: int, run: Callable[[W], T]) -> list[list[T]]:
    """Run each way once in every round, in alternating order, and return the results of each way by round.

    An additional first round is a warm-up, and its results are discarded.
    """
    results: list[list[T]] = [[] for _ in ways]
    for round_number in range(rounds + 1):
        order = list(enumerate(ways))
        for index, way in reversed(order) if round_number % 2 else order:
            result = run(way)
            if round_number:
                results[index].append(result)
    return results


@dataclass(slots=True)
class Proof:
    """Checks the tables of several runs: the first one in full, the others by a hash that must equal the first one's.

    *check* reads a whole table and returns what is wrong with it, or None. If correct tables can differ, set *alike* to
    False; then each table is checked in full.
    """

    name: str
    check: Callable[[Path], str | None]
    alike: bool = True
    correct: tuple[int, int] | None = None

    def of(self, db: Path) -> None:
        """Check the table `events` of a database.

        Raises:
            SystemExit: The table is wrong.
        """
        if (self.correct is None or not self.alike) and (problem := self.check(db)):
            raise SystemExit(f"{self.name}: {problem}")
        actual = in_own_process(rows_and_hash, db)
        if self.correct is None or not self.alike:
            self.correct = actual
        if actual != self.correct:
            raise SystemExit(
                f"{self.name}: rows and hash are {actual}, and were {self.correct} in the first run"
            )


def equals(truth: Truth) -> Callable[[Path], str | None]:
    """Return a check that a table has exactly the simulator's rows, in all columns and bytes."""

    def check(db: Path) -> str | None:
        actual, correct = in_own_process(rows_and_checksum, db), (truth.distinct, truth.checksum)
        return None if actual == correct else f"rows and checksum are {actual}, and should be {correct}"

    return check


def has_rows(rows: int) -> Callable[[Path], str | None]:
    """Return a check that a table has this number of rows."""

    def check(db: Path) -> str | None:
        actual = in_own_process(row_count, db)
        return None if actual == rows else f"there are {actual} rows, and should be {rows}"

    return check


@contextmanager
def new_folder(within: Path | None) -> Iterator[Path]:
    """Yield a new folder, which is removed with its content."""
    with tempfile.TemporaryDirectory(dir=within) as folder:
        yield Path(folder)


def cost_of(work: Callable[P, object], *args: P.args, **kwargs: P.kwargs) -> Cost:
    """Call *work* in a new process and return its cost. The times do not include the start of the process."""
    return measure(work, *args, **kwargs)[1]


def measure(work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> tuple[T, Cost]:
    """Call *work* in a new process, and return its result and its cost."""
    return in_own_process(_with_cost, partial(work, *args, **kwargs))


def in_own_process(work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Call *work* in a new process, and return its result."""
    with ProcessPoolExecutor(1, mp_context=SPAWN) as pool:
        return pool.submit(work, *args, **kwargs).result()


@contextmanager
def serve(first: date, last: date, **settings: Any) -> Iterator[tuple[str, Truth]]:
    """Serve a simulator with *settings* from another process; yield its URL and the truth about the days.

    The days are generated and compressed in advance, so that a request needs little CPU time in the server.
    """
    with serve_days(first, last, **settings) as (url, by_day):
        yield url, sum(by_day.values(), Truth())


@contextmanager
def serve_days(first: date, last: date, **settings: Any) -> Iterator[tuple[str, dict[date, Truth]]]:
    """Like `serve`, but yield the URL and the truth about each day."""
    with serve_prepared(partial(truths, first, last), **settings) as url_and_truths:
        yield url_and_truths


@contextmanager
def serve_prepared(prepare: Callable[[Simulator], T], **settings: Any) -> Iterator[tuple[str, T]]:
    """Serve a simulator with *settings* from another process; yield its URL and the result of *prepare* there."""
    here, there = SPAWN.Pipe()
    server = SPAWN.Process(target=_serve, args=(there, prepare, settings), daemon=True)
    server.start()
    there.close()
    try:
        yield here.recv()
    finally:
        server.terminate()
        server.join()


def rows_and_checksum(db: Path) -> tuple[int, int]:
    """Return the number of rows in the table `events`, and their checksum, in constant memory."""
    with duckdb.connect(str(db), read_only=True) as connection:
        connection.execute("SET enable_progress_bar = false")
        rows = connection.execute(
            "SELECT event_name, event_time, distinct_id, insert_id, properties FROM events"
        )
        total = checksum(chain.from_iterable(iter(lambda: rows.fetchmany(10_000), [])))
    return row_count(db), total


def rows_and_hash(db: Path) -> tuple[int, int]:
    """Return the number of rows in the table `events`, and the sum of their hashes, which does not depend on the order."""
    with duckdb.connect(str(db), read_only=True) as connection:
        connection.execute("SET enable_progress_bar = false")
        [row] = connection.execute(
            "SELECT count(*), sum(hash(event_name, event_time, distinct_id, insert_id, properties)) FROM events"
        ).fetchall()
    return row[0], int(row[1] or 0)


def row_count(db: Path) -> int:
    """Return the number of rows in the table `events`."""
    with duckdb.connect(str(db), read_only=True) as connection:
        connection.execute("SET enable_progress_bar = false")
        row = connection.execute("SELECT count(*) FROM events").fetchone()
    return row[0] if row else 0


def machine() -> str:
    """Return one line about date, machine and versions."""
    return (
        f"{datetime.now(UTC):%Y-%m-%d}, {platform.system()} {platform.machine()}, {os.cpu_count()} cores, "
        f"load {_load()}, Python {platform.python_version()}, DuckDB {duckdb.__version__}"
    )


def spread(values: Sequence[float], digits: int = 2) -> str:
    """Return the median of *values* and, in brackets, the minimum and the maximum."""
    return f"{median(values):,.{digits}f} ({min(values):,.{digits}f} to {max(values):,.{digits}f})"


def _with_cost(work: Callable[[], T]) -> tuple[T, Cost]:
    if sys.platform != "win32":
        os.sync()  # otherwise, commits would also wait for earlier writes to the disk
    wall, cpu = time.perf_counter(), _cpu()
    result = work()
    return result, Cost(time.perf_counter() - wall, _cpu() - cpu, _peak())


def _cpu() -> float:
    """Return the CPU seconds of this process and of those it has waited for."""
    times = os.times()
    return time.process_time() + times.children_user + times.children_system


def _peak() -> int:
    if sys.platform == "win32":
        return 0
    status = Path("/proc/self/status")
    if status.exists():  # on Linux, ru_maxrss includes the memory of the parent process
        lines = status.read_text("ascii").splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:")) * 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024  # kilobytes on other systems


def _load() -> str:
    return f"{os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else "unknown"


def _serve(ready: Connection, prepare: Callable[[Simulator], object], settings: dict[str, Any]) -> None:
    async def run() -> None:
        simulator = Simulator(**settings)
        prepared = prepare(simulator)
        async with simulator.serve() as url:
            ready.send((url, prepared))
            await anyio.sleep_forever()

    anyio.run(run)
