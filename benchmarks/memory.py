"""Measures memory and throughput of exports of different sizes. Neither should depend on the size.

The exports have default settings without client-side limits, and a new file. They have 0.25, 1 and 4 million events over
90 days, and 2 million events of one day, which is one request. One more export of 4 million events has
`MPX_PROCESS_MEMORY=400MB`. Sizes apply at `--scale 1`.
"""

import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from datetime import date
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
    day,
    equals,
    export,
    new_folder,
    options,
    serve,
    spread,
)
from _report import COLOURS, Bar, line, markdown, plain, publish

from mixpanel_export._database.settings import memory_limit

if TYPE_CHECKING:
    from matplotlib.figure import Figure

DAYS = 90
SIZES = (0.25, 1.0, 4.0)  # millions of events over DAYS days
ONE_DAY = 2.0  # millions of events of one day

PROCESS_MEMORY = "400MB"

LARGEST = Bar(
    "memory: peak RSS at 4 million events, without DuckDB's memory limit", 250, at_most=True, unit="MB"
)
LIMITED = Bar(
    f"memory: peak RSS at 4 million events with MPX_PROCESS_MEMORY={PROCESS_MEMORY}",
    400,
    at_most=True,
    unit="MB",
)
GROWN = Bar("memory: peak RSS at 4 million events ÷ that at 1 million", 1.1, at_most=True)


@dataclass(frozen=True, slots=True)
class Size:
    """An export of *days* days with *lines* lines in total. *memory* limits the memory of its process."""

    name: str
    url: str
    days: int
    lines: int
    proof: Proof
    memory: str | None = None

    def run(self, within: Path | None) -> Cost:
        """Export into a new file, check it, and remove it."""
        with new_folder(within) as folder:
            db = folder / "export.duckdb"
            cost = cost_of(_limited_export, self.memory, self.url, FIRST, day(self.days - 1), db)
            self.proof.of(db)
        return cost


def _limited_export(memory: str | None, url: str, first: date, last: date, db: Path) -> None:
    if memory:
        os.environ["MPX_PROCESS_MEMORY"] = memory
    export(url, first, last, db)


def sizes(stack: ExitStack, scale: float) -> Iterator[Size]:
    """Yield the exports, each with its own server."""
    for millions, days in [*((size, DAYS) for size in SIZES), (ONE_DAY, 1)]:
        settings = {
            "events_per_day": round(millions * scale * 1e6 / days),
            "weekday_pattern": False,
            "odd": ODD,
        }
        url, truth = stack.enter_context(
            serve(FIRST, day(days - 1), cache_bytes=1 << 34, concurrent=0, **settings, **UNLIMITED)
        )
        name = f"{round(millions * scale * 1e6):,}, {f'{days} days' if days > 1 else 'one day'}"
        size = Size(name, url, days, truth.rows, Proof(name, equals(truth)))
        yield size
        if millions == max(SIZES):
            name = f"{name}, {PROCESS_MEMORY}"
            yield replace(size, name=name, proof=Proof(name, equals(truth)), memory=PROCESS_MEMORY)


def table(exports: Sequence[Size], results: Sequence[Sequence[Cost]]) -> str:
    """Return the figures as a Markdown table: median (minimum to maximum)."""
    rows = [
        [
            size.name,
            f"{size.lines:,}",
            spread([cost.peak / 1e6 for cost in costs], digits=0),
            spread([cost.wall for cost in costs]),
            spread([cost.cpu for cost in costs]),
            spread([size.lines / cost.wall for cost in costs], digits=0),
        ]
        for size, costs in zip(exports, results, strict=True)
    ]
    return markdown(["events", "lines sent", "peak RSS MB", "wall s", "CPU s", "lines a second"], rows)


def bar_values(results: Sequence[Sequence[Cost]]) -> list[tuple[Bar, list[float]]]:
    """Return the values of each bar; ratios are by round."""
    _, million, four, limited, _ = results
    return [
        (LARGEST, [(cost.peak - memory_limit()) / 1e6 for cost in four]),
        (LIMITED, [cost.peak / 1e6 for cost in limited]),
        (GROWN, [large.peak / max(small.peak, 1) for small, large in zip(million, four, strict=True)]),
    ]


def draw(exports: Sequence[Size], results: Sequence[Sequence[Cost]], figure: "Figure") -> None:
    """Draw throughput and memory over the size of the export."""
    speed, memory = figure.subplots(1, 2)
    millions = [size.lines / 1e6 for size in exports]
    for axes, unit, figures in (
        (
            speed,
            "thousand events a second",
            [
                [size.lines / cost.wall / 1e3 for cost in costs]
                for size, costs in zip(exports, results, strict=True)
            ],
        ),
        (memory, "peak resident memory, MB", [[cost.peak / 1e6 for cost in costs] for costs in results]),
    ):
        line(axes, millions[:3], figures[:3], f"{DAYS} days, 10 workers")
        line(axes, millions[3:4], figures[3:4], f"{PROCESS_MEMORY} for the process", COLOURS[2])
        line(axes, millions[4:], figures[4:], "one day in one request", COLOURS[1])
        axes.set_xlabel("million events in the export")
        axes.set_ylabel(unit)
        axes.set_xlim(0, max(millions) * 1.06)
        axes.set_ylim(0, max(map(max, figures)) * 1.25)
        plain(axes)
    limit = memory_limit() / 1e6 + LARGEST.limit
    memory.axhline(
        limit, color="#b03030", linestyle="--", linewidth=1, label=f"bar at --scale 1: {limit:.0f} MB"
    )
    memory.set_ylim(0, max(limit, *(cost.peak / 1e6 for costs in results for cost in costs)) * 1.25)
    speed.set_title("throughput", fontsize=10)
    memory.set_title("memory", fontsize=10)
    for axes in (speed, memory):
        axes.legend(loc="lower right", fontsize=9, frameon=False)


def main() -> None:
    """Measure, check, and publish a table and a plot."""
    arguments = options("--scale", "--rounds", "--folder", "--results", description=__doc__, rounds=3)
    with ExitStack() as stack:
        exports = list(sizes(stack, arguments.scale))
        results = alternate(exports, arguments.rounds, lambda size: size.run(arguments.folder))
    publish(
        "memory",
        "Memory and throughput against the size of an export",
        arguments,
        [table(exports, results)],
        bars=bar_values(results),
        draw=partial(draw, exports, results),
    )


if __name__ == "__main__":
    main()
