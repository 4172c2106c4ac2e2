"""What a run consists of, how its tasks go through processes, and what is said of it in the end."""

import os
import platform
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from functools import partial
from itertools import count, islice
from multiprocessing import get_context
from typing import get_args

import click
import duckdb

from mixpanel_export.simulator.faults import Kind

from .child import POINTS
from .fuzz import decoding, writing
from .kills import kills as kills_into
from .schedules import Tally, schedule

POSIX = os.name == "posix"
"""Whether there are SIGKILL and fork, which kills need."""

_DECODED = 1000  # mutations that one task decodes


class Plan:
    """The tasks that make up a run: those of a fixed number first, then files for as long as kills are missing."""

    def __init__(
        self, seed: int, schedules: int, kills: int, files: int, mutations: int, written: int
    ) -> None:
        self._seed = seed
        self.kills = kills
        fixed = [partial(schedule, seed + number) for number in range(schedules)]
        fixed += [partial(writing, seed + number) for number in range(written)]
        fixed += [
            partial(decoding, seed + number, min(_DECODED, mutations - number * _DECODED))
            for number in range(-(-mutations // _DECODED))
        ]
        self._fixed = fixed
        self._files = files

    def tasks(self, done: Callable[[], Counter[str]]) -> Iterator[Callable[[], Tally]]:
        """Yield the tasks; those of kills come among the others, until *done* says that there are enough."""
        fixed = iter(self._fixed)
        share = max(1, len(self._fixed) // max(1, self.kills))
        for number in count():
            some = list(islice(fixed, share))
            yield from some
            if POSIX and (self.missing(done()) or number < self._files):
                yield partial(kills_into, self._seed + number)
            elif not some:
                return

    def missing(self, done: Counter[str]) -> str:
        """Say what *done* does not have yet: their number, and of many also each of the points."""
        if done.total() < self.kills:
            return f"only {done.total()} of {self.kills} kills"
        points = [point for point in POINTS if not done[point]] if self.kills >= 200 else []
        return f"no kill at: {', '.join(points)}" if points else ""


def run(plan: Plan, *, jobs: int, until: float, fail_fast: bool) -> Tally:
    """Run the tasks in *jobs* processes, none begun after *until* or Ctrl-C, and add up what they did."""
    tally = Tally()
    pending: set[Future[Tally]] = set()
    tasks = plan.tasks(lambda: tally.kills)
    stopped = False
    with ProcessPoolExecutor(jobs, mp_context=get_context("spawn")) as pool:
        while True:
            stopped = stopped or time.monotonic() > until or (fail_fast and bool(tally.failures))
            while not stopped and len(pending) < 2 * jobs and (task := next(tasks, None)):
                pending.add(pool.submit(task))
            if not pending:
                return tally
            try:
                done, pending = wait(pending, return_when=FIRST_COMPLETED)
            except KeyboardInterrupt:
                stopped = True
                continue
            for future in done:
                _add(tally, future)
            _tell(tally)


def _add(tally: Tally, future: Future[Tally]) -> None:
    error = future.exception()
    done = Tally(failures=[f"a process of the torture ended with {error!r}"]) if error else future.result()
    for failure in done.failures:
        click.echo(f"\nFAILED  {failure}", err=True)
    tally += done


def _tell(tally: Tally) -> None:
    """Say how far it has come: in place on a terminal, now and then in a log."""
    terminal = sys.stderr.isatty()
    if terminal or tally.exports % 100 < 4:
        done = f"{tally.schedules} schedules, {tally.kills.total()} kills, {tally.mutations} mutations"
        done += f", {len(tally.failures)} promises broken "
        click.echo(f"\r{done}" if terminal else done, err=True, nl=not terminal)


def summary(tally: Tally, seed: int, seconds: float) -> str:
    """Return what was done and found as two Markdown tables and two lines."""
    numbers = {
        "schedules": tally.schedules,
        "exports": tally.exports,
        "kills": tally.kills.total(),
        "of them at commits": tally.kills["commit"] + tally.kills["a change of the file"],
        "faults met": tally.faults.total(),
        "mutated bodies": tally.mutations,
        "events compared": tally.events,
        "events lost": tally.lost,
        "events doubled": tally.doubled,
        "promises broken": len(tally.failures),
        "seconds": round(seconds),
        "seed": seed,
    }
    table = "\n".join(f"| {name} | {number:,} |" for name, number in numbers.items())
    where = f"Python {platform.python_version()}, DuckDB {duckdb.__version__}, {platform.system()}"
    met = {kind: tally.faults[kind] for kind in get_args(Kind)}
    return "\n\n".join(
        [
            f"| torture | {where} |\n|---|---:|\n{table}",
            f"Kills by where: {_counted(dict(tally.kills.most_common()))}.",
            f"Faults by kind: {_counted(met)}.",
        ]
    )


def _counted(numbers: dict[str, int]) -> str:
    return ", ".join(f"{name} {number}" for name, number in numbers.items()) or "none"
