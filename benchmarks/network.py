"""Compares exports with one request and with ten workers with the optimum, if network and quota limit the speed.

A response starts after 0.5 s and 0.05 s for each of its days. The bandwidth of a connection is limited, so that an average
day takes 2.5 or 10 s. The simulator enforces Mixpanel's limits of 3 requests per second and 60 per hour. Exports have 30, 90
or 365 days. They are run with one request; with default settings, so ten workers, into a new file; and with `replace` into
the same table, when the ledger has the number of events of each batch. The days have equal sizes, or one day has 30 % of all
events, or weekends are quiet and the project grows.

The optimum is the shortest schedule of contiguous chunks of whole days within the same limits and with at most 50 requests,
if the duration of each day were known. If only bounds of the optimum are known, ratios are relative to the lower bound. The
exporter runs unchanged on a virtual clock. One export over a socket in real time verifies the clock.
"""

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from functools import partial
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any, Literal

import anyio
import trio
from _measure import (
    ACCOUNT,
    FIRST,
    RESULTS,
    cost_of,
    day,
    export,
    in_own_process,
    machine,
    new_folder,
    rows_and_checksum,
    serve,
    spread,
)
from _report import COLOURS, Bar, markdown, plain, publish
from _schedule import Rules, best_known, lower_bound
from _virtual import SlowStart, virtual_clock

from mixpanel_export import export_events
from mixpanel_export.simulator import Simulator, Truth

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from trio.testing import MockClock

Shape = Literal["even", "skewed", "office"]

DAYS = (30, 90, 365)
TRANSFERS = (2.5, 10.0)  # seconds for an average day on one connection
SHAPES: dict[Shape, str] = {
    "even": "equal days",
    "skewed": "one day has 30 %",
    "office": "quiet weekends, growth",
}
PER_DAY = 0.05  # additional seconds to the first byte for each day
RULES = Rules()
EVENTS = 14_600  # of all days together; the bandwidth decides the duration, not the number of events
NOW = datetime(2026, 1, 1, tzinfo=UTC)  # when all days are final
HOUR = 4000.0  # seconds after which the whole quota is available again
LIMITS: dict[str, Any] = {"per_second": 3, "per_hour": 60}

FRESH = [
    Bar(f"network: {days} days, no ledger ÷ optimum", limit, at_most=True)
    for days, limit in zip(DAYS, (1.25, 1.15, 1.15), strict=True)
]
KNOWN = Bar("network: with a ledger ÷ optimum", 1.1, at_most=True)
SKEWED = Bar("network: skewed, with a ledger ÷ optimum", 1.15, at_most=True)
OFFICE = Bar("network: quiet weekends and growth, no ledger ÷ optimum", 1.25, at_most=True)
PARALLEL = Bar("network: one request ÷ 10 workers, 90 and 365 days of 10 s", 9, at_most=False)


@dataclass(frozen=True, slots=True)
class Project:
    """The days of a project, their sizes, and the speed of the connection."""

    days: int
    transfer: float
    shape: Shape

    @property
    def last(self) -> date:
        """The last day."""
        return day(self.days - 1)

    def events_on(self, when: date) -> int:
        """Return the number of events of a day."""
        number = (when - FIRST).days
        if self.shape == "skewed":
            share = 0.3 if number == self.days * 3 // 5 else 0.7 / (self.days - 1)
            return round(EVENTS * share)
        if self.shape == "office":
            growth = 2 / 3 * (1 + number / self.days)
            return round(EVENTS / self.days * growth * (0.3 if when.weekday() >= 5 else 1.28))
        return round(EVENTS / self.days)

    def simulator(self, **options: Any) -> Simulator:
        """Return a simulator with these days, without limits unless *options* override that."""
        defaults: dict[str, Any] = {
            "per_second": 0,
            "per_hour": 0,
            "now": lambda: NOW,
            "events_per_day": self.events_on,
        }
        return Simulator(**(defaults | options))


@dataclass(frozen=True, slots=True)
class Durations:
    """The durations of a project's exports in seconds, and bounds of the optimum.

    Attributes:
        project: The project.
        one_request: With one request.
        fresh: With ten workers, into a new file.
        again: With ten workers, as a replacement of that table, whose sizes are in the ledger.
        lower: A lower bound: no schedule is shorter.
        upper: The duration of the shortest known schedule.
    """

    project: Project
    one_request: float
    fresh: float
    again: float
    lower: float
    upper: float


def seconds_of(project: Project) -> tuple[float, list[float]]:
    """Return the bandwidth of a connection in bytes per second, and the duration of each day in seconds."""
    simulator = project.simulator()
    simulator.prepare(FIRST, project.last)
    cache = simulator._source.cache  # noqa: SLF001 - the compressed bytes of each day, without the gzip header
    sizes = [sum(len(part.data) for part in cache.get(day(number)) or ()) for number in range(project.days)]
    bandwidth = sum(sizes) / (project.transfer * project.days)
    return bandwidth, [PER_DAY + size / bandwidth for size in sizes]


def measure(project: Project, within: Path | None) -> Durations:
    """Export the days in three ways, one after the other, each with the whole quota."""
    bandwidth, seconds = seconds_of(project)
    with new_folder(within) as folder, virtual_clock(folder) as clock:
        simulator = project.simulator(
            first_byte=RULES.first_byte, bandwidth=bandwidth, clock=clock.current_time, piece=4096, **LIMITS
        )
        run = partial(_duration, project, simulator, clock)
        one_request = run(folder / "one.duckdb", one_request=True)
        fresh, again = (run(folder / "ten.duckdb", mode=mode) for mode in ("create", "replace"))
    return Durations(
        project, one_request, fresh, again, lower_bound(seconds, RULES), best_known(seconds, RULES)
    )


def _duration(project: Project, simulator: Simulator, clock: "MockClock", db: Path, **options: Any) -> float:
    """Export on the virtual clock with the whole quota, and return the seconds.

    Raises:
        SystemExit: The table does not have exactly the simulator's events.
    """

    async def run() -> float:
        await anyio.sleep(HOUR)
        started = clock.current_time()
        await export_events(
            FIRST, project.last, db=db, credentials=ACCOUNT, api_url="http://127.0.0.1", now=lambda: NOW,
            transport=SlowStart(simulator.transport(), PER_DAY), **(LIMITS | options),
        )  # fmt: skip
        return clock.current_time() - started

    seconds = trio.run(run, clock=clock)
    _check(db, simulator.truth(FIRST, project.last))
    return seconds


def _check(db: Path, truth: Truth) -> None:
    if rows_and_checksum(db) != (truth.distinct, truth.checksum):
        raise SystemExit(f"{db.name} does not have exactly the simulator's events")


def in_real_time(days: int, within: Path | None) -> list[float]:
    """Export equal days of 2.5 s over a socket, into a new file and then with `replace`; return the seconds of both."""
    network: dict[str, Any] = {"first_byte": RULES.first_byte, "seconds_per_day": TRANSFERS[0] + PER_DAY}
    last = day(days - 1)
    with (
        serve(FIRST, last, events_per_day=EVENTS // days, **network, **LIMITS) as (url, truth),
        new_folder(within) as folder,
    ):
        db = folder / "export.duckdb"
        costs = []
        for mode in ("create", "replace"):
            costs.append(cost_of(export, url, FIRST, last, db, mode=mode, **LIMITS))
            _check(db, truth)
    return [cost.wall for cost in costs]


def table(durations: Sequence[Durations]) -> str:
    """Return the seconds and the ratios as a Markdown table."""
    header = [
        "days", "s a day", "sizes", "one request s", "10 workers s", "speed-up", "optimum s", "÷ optimum",
        "with a ledger s", "÷ optimum",
    ]  # fmt: skip
    return markdown(header, (_row(each) for each in durations))


def _row(each: Durations) -> list[str]:
    project, exact = each.project, each.upper < each.lower * 1.005
    return [
        str(project.days),
        f"{project.transfer:g}",
        SHAPES[project.shape],
        f"{each.one_request:,.1f}",
        f"{each.fresh:,.1f}",
        f"{each.one_request / each.fresh:.2f}",
        f"{each.lower:,.1f}" + ("" if exact else f" to {each.upper:,.1f}"),
        f"{each.fresh / each.lower:.3f}",
        f"{each.again:,.1f}",
        f"{each.again / each.lower:.3f}",
    ]


def real_table(days: int, real: Sequence[Sequence[float]], virtual: Durations) -> str:
    """Return a table of the seconds in real time and on the virtual clock."""
    rows = [
        [name, spread(seconds), f"{clock:.2f}", f"{median(seconds) / clock:.3f}"]
        for name, seconds, clock in zip(
            ("into a new file", "with a ledger"),
            zip(*real, strict=True),
            (virtual.fresh, virtual.again),
            strict=True,
        )
    ]
    return markdown(
        [f"{days} days, 2.5 s a day", "over a socket, s", "on the virtual clock, s", "ratio"], rows
    )


def bar_values(durations: Sequence[Durations]) -> Iterator[tuple[Bar, list[float]]]:
    """Yield each bar with its worst ratio, or with 0 if none of its exports was run."""
    even, skewed, office = (
        [each for each in durations if each.project.shape == shape] for shape in ("even", "skewed", "office")
    )
    long = [each for each in even if each.project.days >= 90 and each.project.transfer == 10]
    for days, bar in zip(DAYS, FRESH, strict=True):
        yield bar, [max((each.fresh / each.lower for each in even if each.project.days == days), default=0)]
    yield KNOWN, [max((each.again / each.lower for each in even), default=0)]
    yield SKEWED, [max((each.again / each.lower for each in skewed), default=0)]
    yield OFFICE, [max((each.fresh / each.lower for each in office), default=0)]
    yield PARALLEL, [min((each.one_request / each.fresh for each in long), default=0)]


def draw(durations: Sequence[Durations], figure: "Figure") -> None:
    """Draw how much longer the exports take than the optimum, with a panel for each kind of project."""
    panels = figure.subplots(1, len(SHAPES), sharey=True)
    for shape, axes in zip(SHAPES, panels, strict=True):
        _panel(axes, SHAPES[shape], [each for each in durations if each.project.shape == shape])
    slowest = max(_longer(seconds, each) for each in durations for seconds in (each.fresh, each.again))
    panels[0].set_ylim(0, slowest * 1.3)
    panels[0].set_ylabel("% longer than the optimum, at most")
    panels[0].legend(loc="upper left", fontsize=9, frameon=False)


def _longer(seconds: float, durations: Durations) -> float:
    return 100 * (seconds / durations.lower - 1)


def _panel(axes: "Axes", title: str, durations: Sequence[Durations]) -> None:
    for label, colour, offset, values in (
        ("10 workers, no ledger", COLOURS[0], -0.2, [_longer(each.fresh, each) for each in durations]),
        ("10 workers, with a ledger", COLOURS[1], 0.2, [_longer(each.again, each) for each in durations]),
    ):
        bars = axes.bar(
            [index + offset for index in range(len(durations))], values, 0.38, color=colour, label=label
        )
        axes.bar_label(bars, fmt="%.0f", fontsize=8, padding=1)
    labels = [f"{each.project.days} days\n{each.project.transfer:g} s" for each in durations]
    axes.set_xticks(range(len(durations)), labels, fontsize=7)
    axes.set_title(title, fontsize=10)
    plain(axes, "y")


def options() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--days",
        type=int,
        nargs="+",
        choices=DAYS,
        default=DAYS,
        metavar="N",
        help="days to export, of 30, 90, 365",
    )
    parser.add_argument(
        "--real", type=int, default=30, metavar="N", help="days of the export in real time; 0 to skip it"
    )
    parser.add_argument("--rounds", type=int, default=1, metavar="N", help="number of rounds in real time")
    parser.add_argument("--scale", type=float, help="ignored: the number of events does not matter here")
    parser.add_argument(
        "--folder", type=Path, metavar="PATH", help="folder for temporary databases; default: the system's"
    )
    parser.add_argument(
        "--results", type=Path, default=RESULTS, metavar="PATH", help="folder for tables and plots"
    )
    arguments = parser.parse_args()
    arguments.scale = 1.0
    arguments.about = f"{machine()}; seconds on a virtual clock; every table compared with the truth"
    print(f"{arguments.about}\n", flush=True)
    return arguments


def main() -> None:
    """Export in all ways, and publish tables and a plot."""
    arguments = options()
    projects = [
        Project(days, transfer, shape)
        for shape in SHAPES
        for days in arguments.days
        for transfer in TRANSFERS
    ]
    durations = [in_own_process(measure, project, arguments.folder) for project in projects]
    tables = [table(durations)]
    if arguments.real:
        real = [in_real_time(arguments.real, arguments.folder) for _ in range(arguments.rounds)]
        tables.append(
            real_table(
                arguments.real, real, measure(Project(arguments.real, TRANSFERS[0], "even"), arguments.folder)
            )
        )
    publish(
        "network",
        "Ten workers compared with one request and with the optimum",
        arguments,
        tables,
        bars=[(bar, values) for bar, values in bar_values(durations) if values != [0]],
        draw=partial(draw, durations),
    )


if __name__ == "__main__":
    main()
