"""The tasks of a run, their execution in several processes, and the summary."""

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

from mixpanel_export.simulator.faults import Kind, PageKind

from .child import POINTS
from .fuzz import decode_mutations, export_mutation
from .kills import kills as kills_into
from .schedules import Tally, schedule

POSIX = os.name == "posix"
"""Whether SIGKILL and fork are available, which kills need."""

_MUTATIONS_A_TASK = 1000


class Plan:
    """The tasks of a run: a fixed number of them, and files to kill exports into until there are enough kills."""

    def __init__(
        self, seed: int, schedules: int, kills: int, files: int, mutations: int, written: int
    ) -> None:
        self._seed = seed
        self.kills = kills
        fixed = [partial(schedule, seed + number) for number in range(schedules)]
        fixed += [partial(export_mutation, seed + number) for number in range(written)]
        fixed += [
            partial(
                decode_mutations,
                seed + number,
                min(_MUTATIONS_A_TASK, mutations - number * _MUTATIONS_A_TASK),
            )
            for number in range(-(-mutations // _MUTATIONS_A_TASK))
        ]
        self._fixed = fixed
        self._files = files

    def tasks(self, done: Callable[[], Counter[str]]) -> Iterator[Callable[[], Tally]]:
        """Yield the tasks, kills among the others, until *done* returns enough kills."""
        fixed = iter(self._fixed)
        share = max(1, len(self._fixed) // max(1, self.kills))
        for number in count():
            tasks = list(islice(fixed, share))
            yield from tasks
            if POSIX and (self.missing(done()) or number < self._files):
                yield partial(kills_into, self._seed + number)
            elif not tasks:
                return

    def missing(self, done: Counter[str]) -> str:
        """Return what is missing in *done*: kills, or with a large number of kills also points; empty if nothing is."""
        if done.total() < self.kills:
            return f"only {done.total()} of {self.kills} kills"
        points = [point for point in POINTS if not done[point]] if self.kills >= 200 else []
        return f"no kill at: {', '.join(points)}" if points else ""


def run(plan: Plan, *, jobs: int, until: float, fail_fast: bool) -> Tally:
    """Run the tasks in *jobs* processes, and return the sum of their tallies; no task starts after *until* or Ctrl-C."""
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
            _report_progress(tally)


def _add(tally: Tally, future: Future[Tally]) -> None:
    error = future.exception()
    result = Tally(failures=[f"a process of the torture ended with {error!r}"]) if error else future.result()
    for failure in result.failures:
        click.echo(f"\nFAILED  {failure}", err=True)
    tally += result


def _report_progress(tally: Tally) -> None:
    """Print the progress: in place on a terminal, now and then in a log."""
    terminal = sys.stderr.isatty()
    if terminal or tally.exports % 100 < 4:
        progress = f"{tally.schedules} schedules, {tally.kills.total()} kills, {tally.mutations} mutations"
        progress += f", {len(tally.failures)} violations "
        click.echo(f"\r{progress}" if terminal else progress, err=True, nl=not terminal)


def summary(tally: Tally, seed: int, seconds: float) -> str:
    """Return the counts as a Markdown table and two lines."""
    numbers = {
        "schedules": tally.schedules,
        "exports": tally.exports,
        "kills": tally.kills.total(),
        "of these: at commits": tally.kills["commit"] + tally.kills["a change of the file"],
        "exports of profiles": tally.snapshots,
        "persons forgotten": tally.forgotten,
        "faults": tally.faults.total(),
        "mutated bodies": tally.mutations,
        "events compared": tally.events,
        "events lost": tally.lost,
        "events doubled": tally.doubled,
        "violations": len(tally.failures),
        "seconds": round(seconds),
        "seed": seed,
    }
    table = "\n".join(f"| {name} | {number:,} |" for name, number in numbers.items())
    versions = f"Python {platform.python_version()}, DuckDB {duckdb.__version__}, {platform.system()}"
    faults = {kind: tally.faults[kind] for kind in (*get_args(Kind), *get_args(PageKind))}
    unreached = {point: tries for point, tries in tally.missed.items() if not tally.kills[point]}
    return "\n\n".join(
        [
            f"| torture | {versions} |\n|---|---:|\n{table}",
            f"Kills by point: {_listed(dict(tally.kills.most_common()))}.",
            f"Points that were not reached, with the number of tries: {_listed(unreached)}.",
            f"Faults by kind: {_listed(faults)}.",
        ]
    )


def _listed(numbers: dict[str, int]) -> str:
    return ", ".join(f"{name} {number}" for name, number in numbers.items()) or "none"
