"""The cost of days without events, compared with the same number of days of one event each.

Both exports fetch 2,000 days with `chunk_days=1` and without client-side limits, into a new file. An empty answer cannot be
distinguished from a response that broke before the first byte, so the exporter requests the empty days again. That must
not cost more than storing an event for each day. The number of days applies at `--scale 1`.
"""

import warnings
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import date, timedelta
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio
from _measure import (
    ACCOUNT,
    UNLIMITED,
    Cost,
    Proof,
    alternate,
    equals,
    measure,
    new_folder,
    options,
    serve,
    spread,
)
from _report import Bar, horizontal, markdown, publish

from mixpanel_export import export_events

if TYPE_CHECKING:
    from matplotlib.figure import Figure

DAYS = 2000
FIRST = date(2019, 1, 1)

CPU = Bar("empty: CPU seconds of empty days ÷ those of days with one event", 1.3, at_most=True)
WALL = Bar("empty: wall seconds of empty days ÷ those of days with one event", 1.3, at_most=True)


@dataclass(frozen=True, slots=True)
class Run:
    """The cost of one export, and its number of failed batches."""

    cost: Cost
    failed: int


@dataclass(frozen=True, slots=True)
class Case:
    """An export of days that all have the same number of events, with its own server."""

    name: str
    url: str
    last: date
    proof: Proof

    def run(self, within: Path | None) -> Run:
        """Export into a new file, check it, and remove it."""
        with new_folder(within) as folder:
            db = folder / "export.duckdb"
            failed, cost = measure(export, self.url, self.last, db)
            self.proof.of(db)
        return Run(cost, failed)


def export(url: str, last: date, db: Path) -> int:
    """Export the days one by one, and return the number of failed batches."""
    settings: dict[str, Any] = {"db": db, "credentials": ACCOUNT, "api_url": url, "chunk_days": 1}
    warnings.filterwarnings("ignore", ".*has no events for this export")
    return anyio.run(partial(export_events, FIRST, last, **settings, **UNLIMITED)).failed_batches


def case(stack: ExitStack, name: str, events: int, days: int) -> Case:
    """Start the server for a case, and return the case."""
    last = FIRST + timedelta(days - 1)
    content = {"events_per_day": events, "first_day": FIRST, "weekday_pattern": False, "duplicates": 0.0}
    url, truth = stack.enter_context(serve(FIRST, last, concurrent=0, **content, **UNLIMITED))
    return Case(name, url, last, Proof(name, equals(truth)))


def ratios(results: Sequence[Sequence[Run]], part: str) -> list[float]:
    """Return the ratio of a part of the cost to that of the other case, by round."""
    empty, one_event = results
    return [getattr(a.cost, part) / getattr(b.cost, part) for a, b in zip(empty, one_event, strict=True)]


def table(cases: Sequence[Case], results: Sequence[Sequence[Run]]) -> str:
    """Return the figures as a Markdown table: median (minimum to maximum)."""
    rows = [
        [
            case.name,
            spread([run.cost.wall for run in runs]),
            spread([run.cost.cpu for run in runs]),
            spread([run.cost.peak / 1e6 for run in runs], digits=0),
            f"{max(run.failed for run in runs):,}",
        ]
        for case, runs in zip(cases, results, strict=True)
    ]
    wall, cpu = (spread(ratios(results, part)) for part in ("wall", "cpu"))
    rows.append(["empty ÷ one event", wall, cpu, "", ""])
    return markdown(["", "wall s", "CPU s", "peak RSS MB", "failed batches"], rows)


def draw(cases: Sequence[Case], results: Sequence[Sequence[Run]], figure: "Figure") -> None:
    """Draw wall and CPU seconds of both cases."""
    for axes, part in zip(figure.subplots(1, 2), ("wall", "cpu"), strict=True):
        bars = [
            (case.name, [getattr(run.cost, part) for run in runs])
            for case, runs in zip(cases, results, strict=True)
        ]
        horizontal(axes, {"wall": "by the clock", "cpu": "CPU of all threads"}[part], "seconds", bars)


def main() -> None:
    """Measure, check, and publish a table and a plot."""
    arguments = options("--scale", "--rounds", "--folder", "--results", description=__doc__, rounds=3)
    days = max(1, round(arguments.scale * DAYS))
    with ExitStack() as stack:
        cases = [
            case(stack, f"{days:,} empty days", 0, days),
            case(stack, f"{days:,} days of one event", 1, days),
        ]
        results = alternate(cases, arguments.rounds, lambda each: each.run(arguments.folder))
    publish(
        "empty",
        f"The cost of {days:,} days without events",
        arguments,
        [table(cases, results)],
        bars=[(CPU, ratios(results, "cpu")), (WALL, ratios(results, "wall"))],
        draw=partial(draw, cases, results),
    )


if __name__ == "__main__":
    main()
