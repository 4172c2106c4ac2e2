"""Sequential against parallel, and both against the best possible, where the network and the quota decide.

The simulator waits 0.5 s and 0.05 s a day before the first byte, sends no faster than so many bytes a second on a
connection that an average day takes 2.5 or 10 s, and keeps Mixpanel's limits, 3 requests a second and 60 an hour.
Exported are 30, 90 and 365 days: with one request; with the default settings, ten workers, into a new file; and once
more in place of that table (`replace`), when the ledger tells how many events the days had. Days are all of one size,
or one of them has 30 % of all events, or they are as those of a product for offices, quiet at weekends and growing.

The best possible knows how long each day takes, and cuts whole days into contiguous chunks within the same limits,
at most 50 requests; where only bounds of it are known, ratios are with the lower one. All this happens on a clock
that leaps, with the engine as it is; one export over a socket in real time shows that the clock does not lie.
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
    served,
    spread,
    stored,
)
from _report import COLOURS, Bar, markdown, plain, publish
from _schedule import Rules, bound, found
from _virtual import Preparing, leaping

from mixpanel_export import export_events
from mixpanel_export.simulator import Simulator, Truth

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from trio.testing import MockClock

Shape = Literal["even", "skewed", "office"]

DAYS = (30, 90, 365)
TRANSFERS = (2.5, 10.0)  # seconds that an average day takes on one connection
SHAPES: dict[Shape, str] = {
    "even": "all days alike",
    "skewed": "one day has 30 %",
    "office": "quiet weekends, growing",
}
PER_DAY = 0.05  # seconds to the first byte
RULES = Rules()
EVENTS = 14_600  # of all days together; the network decides how long they take, not how many they are
NOW = datetime(2026, 1, 1, tzinfo=UTC)  # when all days are over
HOUR = 4000.0  # seconds after which the quota is whole again
LIMITS: dict[str, Any] = {"per_second": 3, "per_hour": 60}

FRESH = [
    Bar(f"network: {days} days, no ledger ÷ best possible", limit, at_most=True)
    for days, limit in zip(DAYS, (1.25, 1.15, 1.15), strict=True)
]
KNOWN = Bar("network: with a ledger ÷ best possible", 1.1, at_most=True)
SKEWED = Bar("network: skewed, with a ledger ÷ best possible", 1.15, at_most=True)
PARALLEL = Bar("network: one request ÷ 10 workers, 90 and 365 days of 10 s", 9, at_most=False)


@dataclass(frozen=True, slots=True)
class Project:
    """What there is to export, and how quickly it comes."""

    days: int
    transfer: float
    shape: Shape

    @property
    def last(self) -> date:
        """The last day."""
        return day(self.days - 1)

    def events_on(self, when: date) -> int:
        """Return how many events a day has."""
        number = (when - FIRST).days
        if self.shape == "skewed":
            share = 0.3 if number == self.days * 3 // 5 else 0.7 / (self.days - 1)
            return round(EVENTS * share)
        if self.shape == "office":
            growth = 2 / 3 * (1 + number / self.days)
            return round(EVENTS / self.days * growth * (0.3 if when.weekday() >= 5 else 1.28))
        return round(EVENTS / self.days)

    def simulator(self, **options: Any) -> Simulator:
        """Return a server of these days, without limits unless *options* say otherwise."""
        usual: dict[str, Any] = {
            "per_second": 0,
            "per_hour": 0,
            "now": lambda: NOW,
            "events_per_day": self.events_on,
        }
        return Simulator(**(usual | options))


@dataclass(frozen=True, slots=True)
class Measured:
    """Seconds that the exports of a project took, and what the shortest schedule takes: *least* at least, *known* at most."""

    project: Project
    one: float
    fresh: float
    again: float
    least: float
    known: float


def seconds_of(project: Project) -> tuple[float, list[float]]:
    """Return the bytes a second that a connection may have, and how long each day takes with them."""
    simulator = project.simulator()
    simulator.prepare(FIRST, project.last)
    kept = simulator._source.cache  # noqa: SLF001 - the bytes of a day without the frame that each answer has once
    sizes = [sum(len(part.data) for part in kept.get(day(number)) or ()) for number in range(project.days)]
    bandwidth = sum(sizes) / (project.transfer * project.days)
    return bandwidth, [PER_DAY + size / bandwidth for size in sizes]


def measured(project: Project, within: Path | None) -> Measured:
    """Export the days in three ways, one after the other, each with a whole quota."""
    bandwidth, seconds = seconds_of(project)
    with new_folder(within) as folder, leaping(folder) as clock:
        simulator = project.simulator(
            first_byte=RULES.first_byte, bandwidth=bandwidth, clock=clock.current_time, piece=4096, **LIMITS
        )
        run = partial(_exported, project, simulator, clock)
        one = run(folder / "one.duckdb", one_request=True)
        fresh, again = (run(folder / "ten.duckdb", mode=mode) for mode in ("create", "replace"))
    return Measured(project, one, fresh, again, bound(seconds, RULES), found(seconds, RULES))


def _exported(project: Project, simulator: Simulator, clock: "MockClock", db: Path, **options: Any) -> float:
    """Export on the clock, with a whole quota, and return how many seconds it took there.

    Raises:
        SystemExit: the table does not hold exactly the simulator's events.
    """

    async def exported() -> float:
        await anyio.sleep(HOUR)
        begun = clock.current_time()
        await export_events(
            FIRST, project.last, db=db, credentials=ACCOUNT, api_url="http://127.0.0.1", now=lambda: NOW,
            transport=Preparing(simulator.transport(), PER_DAY), **(LIMITS | options),
        )  # fmt: skip
        return clock.current_time() - begun

    seconds = trio.run(exported, clock=clock)
    _check(db, simulator.truth(FIRST, project.last))
    return seconds


def _check(db: Path, truth: Truth) -> None:
    if stored(db) != (truth.distinct, truth.checksum):
        raise SystemExit(f"{db.name} does not hold the simulator's events")


def in_real_time(days: int, within: Path | None) -> list[float]:
    """Export even days of 2.5 s over a socket, into a new file and in its place; return the seconds of both."""
    network: dict[str, Any] = {"first_byte": RULES.first_byte, "seconds_per_day": TRANSFERS[0] + PER_DAY}
    last = day(days - 1)
    with (
        served(FIRST, last, events_per_day=EVENTS // days, **network, **LIMITS) as (url, truth),
        new_folder(within) as folder,
    ):
        db = folder / "export.duckdb"
        costs = []
        for mode in ("create", "replace"):
            costs.append(cost_of(export, url, FIRST, last, db, mode=mode, **LIMITS))
            _check(db, truth)
    return [cost.wall for cost in costs]


def table(done: Sequence[Measured]) -> str:
    """Return the seconds and the ratios as a Markdown table."""
    header = [
        "days", "s a day", "sizes", "one request s", "10 workers s", "times as fast", "best possible s", "÷ best possible",
        "with a ledger s", "÷ best possible",
    ]  # fmt: skip
    return markdown(header, (_row(each) for each in done))


def _row(done: Measured) -> list[str]:
    project, sure = done.project, done.known < done.least * 1.005
    return [
        str(project.days),
        f"{project.transfer:g}",
        SHAPES[project.shape],
        f"{done.one:,.1f}",
        f"{done.fresh:,.1f}",
        f"{done.one / done.fresh:.2f}",
        f"{done.least:,.1f}" + ("" if sure else f" to {done.known:,.1f}"),
        f"{done.fresh / done.least:.3f}",
        f"{done.again:,.1f}",
        f"{done.again / done.least:.3f}",
    ]


def real_table(days: int, real: Sequence[Sequence[float]], virtual: Measured) -> str:
    """Return what the real time was beside that of the clock."""
    rows = [
        [name, spread(seconds), f"{clock:.2f}", f"{median(seconds) / clock:.3f}"]
        for name, seconds, clock in zip(
            ("into a new file", "with a ledger"),
            zip(*real, strict=True),
            (virtual.fresh, virtual.again),
            strict=True,
        )
    ]
    return markdown([f"{days} days, 2.5 s a day", "over a socket, s", "on the clock, s", "ratio"], rows)


def reached(done: Sequence[Measured]) -> Iterator[tuple[Bar, list[float]]]:
    """Yield the worst ratio for each bar, as far as its exports were made."""
    even = [each for each in done if each.project.shape == "even"]
    skewed = [each for each in done if each.project.shape == "skewed"]
    long = [each for each in even if each.project.days >= 90 and each.project.transfer == 10]
    for days, bar in zip(DAYS, FRESH, strict=True):
        yield bar, [max((each.fresh / each.least for each in even if each.project.days == days), default=0)]
    yield KNOWN, [max((each.again / each.least for each in even), default=0)]
    yield SKEWED, [max((each.again / each.least for each in skewed), default=0)]
    yield PARALLEL, [min((each.one / each.fresh for each in long), default=0)]


def draw(done: Sequence[Measured], figure: "Figure") -> None:
    """Draw, for each kind of sizes, by how much the exports were longer than the best possible."""
    panels = figure.subplots(1, len(SHAPES), sharey=True)
    for shape, axes in zip(SHAPES, panels, strict=True):
        _panel(axes, SHAPES[shape], [each for each in done if each.project.shape == shape])
    slowest = max(_longer(seconds, each) for each in done for seconds in (each.fresh, each.again))
    panels[0].set_ylim(0, slowest * 1.3)
    panels[0].set_ylabel("% longer than the best possible, at most")
    panels[0].legend(loc="upper left", fontsize=9, frameon=False)


def _longer(seconds: float, done: Measured) -> float:
    return 100 * (seconds / done.least - 1)


def _panel(axes: "Axes", title: str, done: Sequence[Measured]) -> None:
    for label, colour, aside, values in (
        ("10 workers, no ledger", COLOURS[0], -0.2, [_longer(each.fresh, each) for each in done]),
        ("10 workers, with a ledger", COLOURS[1], 0.2, [_longer(each.again, each) for each in done]),
    ):
        bars = axes.bar(
            [place + aside for place in range(len(done))], values, 0.38, color=colour, label=label
        )
        axes.bar_label(bars, fmt="%.0f", fontsize=8, padding=1)
    labels = [f"{each.project.days} days\n{each.project.transfer:g} s" for each in done]
    axes.set_xticks(range(len(done)), labels, fontsize=7)
    axes.set_title(title, fontsize=10)
    plain(axes, "y")


def options() -> argparse.Namespace:
    """Return what the command line says."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--days", type=int, nargs="+", choices=DAYS, default=DAYS, metavar="N", help="of 30, 90, 365"
    )
    parser.add_argument(
        "--real", type=int, default=30, metavar="N", help="days of the export in real time; 0 for none"
    )
    parser.add_argument("--rounds", type=int, default=1, metavar="N", help="of the export in real time")
    parser.add_argument("--scale", type=float, help="changes nothing: not the number of events decides here")
    parser.add_argument(
        "--folder", type=Path, metavar="PATH", help="where databases go meanwhile; default: the system's"
    )
    parser.add_argument(
        "--results", type=Path, default=RESULTS, metavar="PATH", help="where tables and plots go"
    )
    given = parser.parse_args()
    given.scale = 1.0
    given.about = f"{machine()}; seconds on a clock that leaps; every table checked against the truth"
    print(f"{given.about}\n", flush=True)
    return given


def main() -> None:
    """Export in all ways, and publish tables and a plot."""
    given = options()
    projects = [
        Project(days, transfer, shape) for shape in SHAPES for days in given.days for transfer in TRANSFERS
    ]
    done = [in_own_process(measured, project, given.folder) for project in projects]
    tables = [table(done)]
    if given.real:
        real = [in_real_time(given.real, given.folder) for _ in range(given.rounds)]
        tables.append(
            real_table(given.real, real, measured(Project(given.real, TRANSFERS[0], "even"), given.folder))
        )
    publish(
        "network",
        "Ten workers against one request and against the best possible",
        given,
        tables,
        reached=[(bar, values) for bar, values in reached(done) if values != [0]],
        draw=partial(draw, done),
    )


if __name__ == "__main__":
    main()
