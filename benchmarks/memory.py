"""How much memory an export needs, and how quick it is, as the export grows: flat is right.

Default settings, client-side limits off, into a new file: 0.25, 1 and 4 million events over 90 days, and two
million events of one single day, which no request can cut. Sizes are those of `--scale 1`.
"""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from _measure import (
    FIRST,
    UNLIMITED,
    Cost,
    Proof,
    alternating,
    cost_of,
    day,
    exactly,
    export,
    new_folder,
    options,
    served,
    spread,
)
from _report import COLOURS, Bar, line, markdown, plain, publish

if TYPE_CHECKING:
    from matplotlib.figure import Figure

DAYS = 90
SIZES = (0.25, 1.0, 4.0)  # millions of events over DAYS days
ONE_DAY = 2.0  # millions of events of one day

LARGEST = Bar("memory: peak RSS at 4 million events", 450, at_most=True, unit="MB")
GROWN = Bar("memory: peak RSS at 4 million events ÷ that at 1 million", 1.1, at_most=True)


@dataclass(frozen=True, slots=True)
class Size:
    """An export of so many days, which together have so many lines."""

    name: str
    url: str
    days: int
    lines: int
    proof: Proof

    def run(self, within: Path | None) -> Cost:
        """Export into a new file, look at it, and remove it."""
        with new_folder(within) as folder:
            db = folder / "export.duckdb"
            cost = cost_of(export, self.url, FIRST, day(self.days - 1), db)
            self.proof.of(db)
        return cost


def sizes(stack: ExitStack, scale: float) -> Iterator[Size]:
    """Yield what is exported, each from a server of its own."""
    for millions, days in [*((size, DAYS) for size in SIZES), (ONE_DAY, 1)]:
        settings = {"events_per_day": round(millions * scale * 1e6 / days), "weekday_pattern": False}
        url, truth = stack.enter_context(
            served(FIRST, day(days - 1), cache_bytes=1 << 34, concurrent=0, **settings, **UNLIMITED)
        )
        name = f"{round(millions * scale * 1e6):,}, {f'{days} days' if days > 1 else 'one day'}"
        yield Size(name, url, days, truth.rows, Proof(name, exactly(truth)))


def table(exported: Sequence[Size], done: Sequence[Sequence[Cost]]) -> str:
    """Return the figures as a Markdown table: median (least to greatest)."""
    rows = [
        [
            size.name,
            f"{size.lines:,}",
            spread([cost.peak / 1e6 for cost in costs], digits=0),
            spread([cost.wall for cost in costs]),
            spread([cost.cpu for cost in costs]),
            spread([size.lines / cost.wall for cost in costs], digits=0),
        ]
        for size, costs in zip(exported, done, strict=True)
    ]
    return markdown(["events", "lines sent", "peak RSS MB", "wall s", "CPU s", "lines a second"], rows)


def reached(done: Sequence[Sequence[Cost]]) -> list[tuple[Bar, list[float]]]:
    """Return what there are bars for; the ratio is taken round by round."""
    _, million, four, _ = done
    return [
        (LARGEST, [cost.peak / 1e6 for cost in four]),
        (GROWN, [large.peak / max(small.peak, 1) for small, large in zip(million, four, strict=True)]),
    ]


def draw(exported: Sequence[Size], done: Sequence[Sequence[Cost]], figure: "Figure") -> None:
    """Draw throughput and memory over the size of the export."""
    speed, memory = figure.subplots(1, 2)
    millions = [size.lines / 1e6 for size in exported]
    for axes, unit, figures in (
        (
            speed,
            "thousand events a second",
            [
                [size.lines / cost.wall / 1e3 for cost in costs]
                for size, costs in zip(exported, done, strict=True)
            ],
        ),
        (memory, "peak resident memory, MB", [[cost.peak / 1e6 for cost in costs] for costs in done]),
    ):
        line(axes, millions[:3], figures[:3], f"{DAYS} days, 10 workers")
        line(axes, millions[3:], figures[3:], "one day, so one request", COLOURS[1])
        axes.set_xlabel("million events in the export")
        axes.set_ylabel(unit)
        axes.set_xlim(0, max(millions) * 1.06)
        axes.set_ylim(0, max(map(max, figures)) * 1.25)
        plain(axes)
    memory.axhline(
        LARGEST.limit, color="#b03030", linestyle="--", linewidth=1, label=f"bar at --scale 1: {LARGEST}"
    )
    memory.set_ylim(0, max(LARGEST.limit, *(cost.peak / 1e6 for costs in done for cost in costs)) * 1.25)
    speed.set_title("throughput", fontsize=10)
    memory.set_title("memory", fontsize=10)
    for axes in (speed, memory):
        axes.legend(loc="lower right", fontsize=9, frameon=False)


def main() -> None:
    """Measure, prove, and publish a table and a plot."""
    given = options("--scale", "--rounds", "--folder", "--results", description=__doc__, rounds=3)
    with ExitStack() as stack:
        exported = list(sizes(stack, given.scale))
        done = alternating(exported, given.rounds, lambda size: size.run(given.folder))
    publish(
        "memory",
        "Memory and throughput against the size of an export",
        given,
        [table(exported, done)],
        reached=reached(done),
        draw=partial(draw, exported, done),
    )


if __name__ == "__main__":
    main()
