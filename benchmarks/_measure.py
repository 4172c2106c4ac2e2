"""What the benchmarks share: a server and each run in processes of their own, what a run costs, what it stored."""

import os
import platform
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, date, datetime
from functools import partial
from itertools import chain
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from statistics import median
from typing import Any, ParamSpec, TypeVar

import anyio
import duckdb

from mixpanel_export.simulator import Simulator, Truth, checksum

if sys.platform != "win32":
    import resource

P = ParamSpec("P")
T = TypeVar("T")

SPAWN = get_context("spawn")  # a forked process would share the parent's memory, and its peak


@dataclass(frozen=True, slots=True)
class Cost:
    """What one run took: seconds by the clock and of all cores, peak of resident bytes (0 where not told)."""

    wall: float
    cpu: float
    peak: int


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
    with serving(partial(_prepared, first, last), **settings) as (url, truth):
        yield url, truth


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
    return f"{median(values):.{digits}f} ({min(values):.{digits}f} to {max(values):.{digits}f})"


def _measured(work: Callable[[], T]) -> tuple[T, Cost]:
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


def _prepared(first: date, last: date, simulator: Simulator) -> Truth:
    simulator.prepare(first, last)
    return simulator.truth(first, last)


def _serve(ready: Connection, prepare: Callable[[Simulator], object], settings: dict[str, Any]) -> None:
    async def serve() -> None:
        simulator = Simulator(**settings)
        prepared = prepare(simulator)
        async with simulator.serve() as url:
            ready.send((url, prepared))
            await anyio.sleep_forever()

    anyio.run(serve)
