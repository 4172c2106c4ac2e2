"""Measures exports into a large file: appends, deduplication, replacing a day, resuming a complete export.

First, 16 appends of ten days build a file of 4 million events, with a batch for each day. Then pairs of exports are run in
turn: the first million events into a new file, and the last million after the other three; a million in one call with and
without deduplication; a new day, and a day that exists, into the full file; `resume` with 10 and with 1,000 complete days.
Sizes apply at `--scale 1`.
"""

import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

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
    has_rows,
    in_own_process,
    new_folder,
    options,
    serve_days,
    spread,
)
from _report import Bar, horizontal, line, markdown, plain, publish

from mixpanel_export.simulator import Truth

if TYPE_CHECKING:
    from matplotlib.figure import Figure

STEP = 10  # days in an append
MILLION = 40  # days with a million events
DAYS = 4 * MILLION
OLDEST = date(2023, 1, 1)  # of the resumed file; the first day of the simulator
BATCHES = 1000
EVENTS_A_BATCH = 20
DATABASE = "export.duckdb"

GROWN = Bar("growth: seconds of the last million ÷ those of the first", 1.1, at_most=True)


@dataclass(frozen=True, slots=True)
class Work:
    """An export into a copy of the file *start*, or into a new file, and the check of its result.

    *sent* is the number of lines that the server sends for it.
    """

    name: str
    work: Callable[[Path], None]
    proof: Proof
    sent: int
    start: Path | None = None

    def run(self, within: Path | None) -> Cost:
        """Export in a new folder, check the result, and remove it."""
        with new_folder(within) as folder:
            db = folder / DATABASE
            if self.start:
                shutil.copyfile(self.start, db)
            cost = cost_of(self.work, db)
            self.proof.of(db)
        return cost


@dataclass(frozen=True, slots=True)
class Pair:
    """Two exports that are run in turn. The second is reported relative to the first."""

    base: Work
    other: Work

    def run(self, rounds: int, within: Path | None) -> list[list[Cost]]:
        """Return the costs of both, by round."""
        return alternate([self.base, self.other], rounds, lambda work: work.run(within))


def append(url: str, first: int, stop: int, db: Path) -> None:
    """Append the days from number *first* to *stop*, ten at a time; create the file if necessary."""
    for start in range(first, stop, STEP):
        mode = "append" if db.exists() else "create"
        export(url, day(start), day(min(start + STEP, stop) - 1), db, mode=mode, chunk_days=1)


def at_once(url: str, settings: dict[str, Any], db: Path) -> None:
    """Export the first million in one call."""
    export(url, FIRST, day(MILLION - 1), db, **settings)


def many_batches(url: str, batches: int, db: Path) -> None:
    """Create a file with this number of batches, each of one day."""
    export(url, OLDEST, OLDEST + timedelta(batches - 1), db, chunk_days=1)


def resume(batches: int, db: Path) -> None:
    """Resume an export whose days are all complete; nothing listens at the server's address."""
    last = OLDEST + timedelta(batches - 1)
    export("http://127.0.0.1:9", OLDEST, last, db, mode="resume", retries=0)


def build(url: str, folder: Path) -> tuple[list[Cost], Path, Path]:
    """Build the large file. Return the cost of each append, a copy without the last million events, and the whole file."""
    full, before = folder / "full.duckdb", folder / "before.duckdb"
    costs = []
    for start in range(0, DAYS, STEP):
        if start == DAYS - MILLION:
            shutil.copyfile(full, before)
        costs.append(cost_of(append, url, start, start + STEP, full))
    return costs, before, full


def pairs(url: str, by_day: Sequence[Truth], before: Path, full: Path) -> list[Pair]:
    """Return the pairs for the *full* file, for the file *before* its last million, and for new files."""

    def proof(days: int) -> Proof:
        return Proof(f"the first {days} days", equals(sum(by_day[:days], Truth())))

    million = by_day[:MILLION]
    last = by_day[DAYS - MILLION : DAYS]
    with_duplicates = Proof("dedupe=False", has_rows(_sent(million)))
    return [
        Pair(
            Work(
                "the first quarter, 4 appends",
                partial(append, url, 0, MILLION),
                proof(MILLION),
                _sent(million),
            ),
            Work(
                "the last quarter, 4 appends",
                partial(append, url, DAYS - MILLION, DAYS),
                proof(DAYS),
                _sent(last),
                before,
            ),
        ),
        Pair(
            Work(
                "a quarter at once, dedupe=False",
                partial(at_once, url, {"dedupe": False}),
                with_duplicates,
                _sent(million),
            ),
            Work("a quarter at once, default", partial(at_once, url, {}), proof(MILLION), _sent(million)),
        ),
        Pair(
            Work("a new day", partial(append, url, DAYS, DAYS + 1), proof(DAYS + 1), by_day[DAYS].rows, full),
            Work(
                "a day again",
                partial(append, url, MILLION, MILLION + 1),
                proof(DAYS),
                by_day[MILLION].rows,
                full,
            ),
        ),
    ]


def resume_pair(folder: Path) -> Pair:
    """Return the pair of resumes, with few and with many complete batches."""
    last = OLDEST + timedelta(BATCHES - 1)
    works = []
    content: dict[str, Any] = {"events_per_day": EVENTS_A_BATCH, "odd": ODD, "concurrent": 0}
    with serve_days(OLDEST, last, **content, **UNLIMITED) as (url, by_day):
        for batches in (10, BATCHES):
            start = folder / f"{batches}.duckdb"
            in_own_process(many_batches, url, batches, start)
            truth = sum(list(by_day.values())[:batches], Truth())
            name = f"resume, {batches:,} batches"
            works.append(Work(name, partial(resume, batches), Proof(name, equals(truth)), 0, start))
    return Pair(*works)


def _sent(by_day: Sequence[Truth]) -> int:
    return sum(truth.rows for truth in by_day)


def table(results: Sequence[tuple[Pair, list[list[Cost]]]]) -> str:
    """Return the figures as a Markdown table: median (minimum to maximum)."""
    rows = []
    for pair, (base_costs, other_costs) in results:
        ratios = [other.wall / base.wall for base, other in zip(base_costs, other_costs, strict=True)]
        rows += [
            [*_cells(pair.base, base_costs), ""],
            [*_cells(pair.other, other_costs), spread(ratios)],
        ]
    header = [
        "",
        "lines sent",
        "wall s",
        "CPU s",
        "peak RSS MB",
        "wall s per million",
        "wall ÷ the row above",
    ]
    return markdown(header, rows)


def _cells(work: Work, costs: Sequence[Cost]) -> list[str]:
    return [
        work.name,
        f"{work.sent:,}" if work.sent else "none",
        spread([cost.wall for cost in costs]),
        spread([cost.cpu for cost in costs]),
        spread([cost.peak / 1e6 for cost in costs], digits=0),
        spread(_per_million(work, costs)) if work.sent else "",
    ]


def _per_million(work: Work, costs: Sequence[Cost]) -> list[float]:
    return [cost.wall * 1e6 / work.sent for cost in costs]


def bar_values(results: Sequence[tuple[Pair, list[list[Cost]]]]) -> list[tuple[Bar, list[float]]]:
    """Return the ratios of the bar, by round."""
    pair, (first, last) = results[0]
    speeds = zip(_per_million(pair.base, first), _per_million(pair.other, last), strict=True)
    return [(GROWN, [after / before for before, after in speeds])]


def draw(
    steps: Sequence[float], results: Sequence[tuple[Pair, list[list[Cost]]]], scale: float, figure: "Figure"
) -> None:
    """Draw the seconds of each append over the size of the file, and the pairs beside it."""
    appends, millions, seconds = figure.subplots(1, 3)
    line(
        appends,
        [scale * 4 * step / len(steps) for step in range(len(steps))],
        [[step] for step in steps],
        "an append",
    )
    appends.set_xlim(left=0)
    appends.set_ylim(0, max(steps) * 1.25)
    appends.set_xlabel("million events before the append")
    appends.set_ylabel("seconds per million events")
    appends.set_title("16 appends of 10 days, one run", fontsize=10)
    plain(appends)
    works = [
        (work, costs)
        for pair, both in results
        for work, costs in zip((pair.base, pair.other), both, strict=True)
    ]
    names = [work.name.replace(", ", ",\n") for work, _ in works]
    horizontal(
        millions,
        "median, minimum and maximum",
        "seconds per million events",
        [(name, _per_million(*each)) for name, each in zip(names[:4], works[:4], strict=True)],
    )
    horizontal(
        seconds,
        "one export into a large file",
        "seconds",
        [
            (name, [cost.wall for cost in costs])
            for name, (_, costs) in zip(names[4:], works[4:], strict=True)
        ],
        digits=2,
    )


def main() -> None:
    """Measure, check, and publish a table and a plot."""
    arguments = options("--scale", "--rounds", "--folder", "--results", description=__doc__, rounds=4)
    content: dict[str, Any] = {
        "events_per_day": round(arguments.scale * 1e6 / MILLION),
        "weekday_pattern": False,
        "odd": ODD,
        "cache_bytes": 1 << 34,
        "concurrent": 0,
    }
    with (
        serve_days(FIRST, day(DAYS), **content, **UNLIMITED) as (url, days),
        new_folder(arguments.folder) as folder,
    ):
        by_day = list(days.values())
        costs, before, full = build(url, folder)
        every = [*pairs(url, by_day, before, full), resume_pair(folder)]
        results = [(pair, pair.run(arguments.rounds, arguments.folder)) for pair in every]
    sent = [_sent(by_day[start : start + STEP]) for start in range(0, DAYS, STEP)]
    steps = [cost.wall * 1e6 / lines for cost, lines in zip(costs, sent, strict=True)]
    publish(
        "growth",
        f"The cost of exports into a file of {sum(sent):,} events",
        arguments,
        [table(results)],
        bars=bar_values(results),
        draw=partial(draw, steps, results, arguments.scale),
    )


if __name__ == "__main__":
    main()
