"""What more processors are worth: `export_events` and a power user's script on 1, 2, 4, ... processors.

A and B are those of `engine.py`. The server keeps its processors; only the process that exports is bound to fewer. Linux only,
because other systems cannot bind a process. `MPX_THREADS` is left to the exporter, which counts the processors it may use.
"""

import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from _measure import (
    FIRST,
    ODD,
    UNLIMITED,
    Cost,
    Proof,
    alternate,
    cost_of,
    equals,
    has_rows,
    new_folder,
    options,
    serve_days,
    spread,
)
from _report import Bar, markdown, publish
from engine import DATABASE, DAYS, LAST, ours, power_user

from mixpanel_export.simulator import Truth

if TYPE_CHECKING:
    from matplotlib.figure import Figure

TWO_CORES = Bar("cores: A on 1 ÷ A on 2 processors, wall", 1.7, at_most=False)
EIGHT_CORES = Bar("cores: A on 2 ÷ A on 8 processors, wall", 2.5, at_most=False)


def bound(cores: Sequence[int], work: Callable[[Path], None], folder: Path) -> None:
    """Do the work on these processors only."""
    if sys.platform == "linux":
        os.sched_setaffinity(0, cores)
    work(folder)


@dataclass(frozen=True, slots=True)
class Way:
    """A way to load the events, on a number of processors."""

    name: str
    cores: tuple[int, ...]
    work: Callable[[Path], None]
    proof: Proof

    def run(self, within: Path | None) -> Cost:
        """Fill a new database in a new folder, check it, and remove it."""
        with new_folder(within) as folder:
            cost = cost_of(bound, self.cores, self.work, folder)
            self.proof.of(folder / DATABASE)
        return cost


def counts(available: int) -> list[int]:
    """Return the powers of two up to the number of processors."""
    return [1 << power for power in range(available.bit_length()) if 1 << power <= available]


def all_ways(url: str, truth: Truth, cores: Sequence[int]) -> list[Way]:
    """Return A and B for each number of processors."""
    export, script = Proof("A", equals(truth)), Proof("B", has_rows(truth.rows))
    return [
        Way(name, tuple(cores[:count]), partial(work, url), proof)
        for count in counts(len(cores))
        for name, work, proof in (("A: export_events", ours, export), ("B: power user", power_user, script))
    ]


def table(ways: Sequence[Way], results: Sequence[Sequence[Cost]]) -> str:
    """Return the figures as a Markdown table: median (least to greatest)."""
    rows = [
        [
            way.name,
            str(len(way.cores)),
            spread([cost.wall for cost in costs]),
            spread([cost.cpu for cost in costs]),
            spread([cost.peak / 1e6 for cost in costs], digits=0),
        ]
        for way, costs in zip(ways, results, strict=True)
    ]
    return markdown(["", "processors", "wall s", "CPU s", "peak RSS MB"], rows)


def bar_values(ways: Sequence[Way], results: Sequence[Sequence[Cost]]) -> list[tuple[Bar, list[float]]]:
    """Return the ratios of each bar for which there are enough processors, by round."""
    walls = {
        len(way.cores): [cost.wall for cost in costs]
        for way, costs in zip(ways, results, strict=True)
        if way.name.startswith("A")
    }
    return [
        (bar, [few / many for few, many in zip(walls[less], walls[more], strict=True)])
        for bar, less, more in ((TWO_CORES, 1, 2), (EIGHT_CORES, 2, 8))
        if more in walls
    ]


def draw(ways: Sequence[Way], results: Sequence[Sequence[Cost]], figure: "Figure") -> None:
    """Draw the events of a second over the number of processors."""
    axes = figure.subplots()
    for name in dict.fromkeys(way.name for way in ways):
        points = [
            (len(way.cores), min(cost.wall for cost in costs))
            for way, costs in zip(ways, results, strict=True)
            if way.name == name
        ]
        axes.plot(*zip(*points, strict=True), marker="o", label=name)
    axes.set_xlabel("processors")
    axes.set_ylabel("seconds, least of all rounds")
    axes.set_ylim(bottom=0)
    axes.legend()


def main() -> None:
    """Measure, check, and publish a table and a plot."""
    arguments = options("--scale", "--rounds", "--folder", "--results", description=__doc__, rounds=3)
    if sys.platform != "linux":
        raise SystemExit("Only Linux can bind a process to processors.")
    cores = sorted(os.sched_getaffinity(0))
    per_day = round(arguments.scale * 1_000_000 / DAYS)
    content = {"events_per_day": per_day, "odd": ODD, "cache_bytes": 1 << 34, "concurrent": 0}
    with serve_days(FIRST, LAST, **content, **UNLIMITED) as (url, by_day):
        truth = sum(by_day.values(), Truth())
        ways = all_ways(url, truth, cores)
        results = alternate(ways, arguments.rounds, lambda way: way.run(arguments.folder))
    publish(
        "cores",
        f"Processors: {truth.rows:,} events of {DAYS} days from a server without latency",
        arguments,
        [table(ways, results)],
        bars=bar_values(ways, results),
        draw=partial(draw, ways, results),
    )


if __name__ == "__main__":
    main()
