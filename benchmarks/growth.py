"""What an export costs in a file that has grown: appends, duplicates, a day replaced, a resume with nothing to do.

A file of four million events is built by sixteen appends of ten days, a batch a day. Then the first million of
it is built again and again, in turn with the last million onto the other three, and the same million at once
with and without a look for duplicates. In the full file a day is exported that it has, in turn with one that is
new; and `resume` is asked for 1,000 days that are all there, in turn with 10. Sizes are those of `--scale 1`.
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
    UNLIMITED,
    Cost,
    Proof,
    alternating,
    as_many,
    cost_of,
    day,
    exactly,
    export,
    in_own_process,
    new_folder,
    options,
    served_days,
    spread,
)
from _report import Bar, horizontal, line, markdown, plain, publish

from mixpanel_export.simulator import Truth

if TYPE_CHECKING:
    from matplotlib.figure import Figure

STEP = 10  # days an append
MILLION = 40  # days that have a million events
DAYS = 4 * MILLION
OLDEST = date(2023, 1, 1)  # of the file that is resumed; the simulator has nothing before
BATCHES = 1000
EVENTS_A_BATCH = 20
DATABASE = "export.duckdb"

GROWN = Bar("growth: seconds of the last million ÷ those of the first", 1.1, at_most=True)


@dataclass(frozen=True, slots=True)
class Work:
    """Something to do to a copy of the file *start*, or to a new one, and how its result is proven.

    *sent* is how many lines the server sends for it.
    """

    name: str
    work: Callable[[Path], None]
    proof: Proof
    sent: int
    start: Path | None = None

    def run(self, within: Path | None) -> Cost:
        """Do it in a new folder, look at the result, and remove it."""
        with new_folder(within) as folder:
            db = folder / DATABASE
            if self.start:
                shutil.copyfile(self.start, db)
            cost = cost_of(self.work, db)
            self.proof.of(db)
        return cost


@dataclass(frozen=True, slots=True)
class Pair:
    """Two pieces of work that are done in turn, the second of which is told in terms of the first."""

    plain: Work
    other: Work

    def run(self, rounds: int, within: Path | None) -> list[list[Cost]]:
        """Return what both cost, round by round."""
        return alternating([self.plain, self.other], rounds, lambda work: work.run(within))


def append(url: str, first: int, stop: int, db: Path) -> None:
    """Append the days by number, a step at a time; a file that is not there is made."""
    for start in range(first, stop, STEP):
        mode = "append" if db.exists() else "create"
        export(url, day(start), day(min(start + STEP, stop) - 1), db, mode=mode, chunk_days=1)


def at_once(url: str, settings: dict[str, Any], db: Path) -> None:
    """Export the first million in one call."""
    export(url, FIRST, day(MILLION - 1), db, **settings)


def many_batches(url: str, batches: int, db: Path) -> None:
    """Make a file of so many batches of a day each."""
    export(url, OLDEST, OLDEST + timedelta(batches - 1), db, chunk_days=1)


def resume(batches: int, db: Path) -> None:
    """Ask for days that are all there, of a server that is not."""
    last = OLDEST + timedelta(batches - 1)
    export("http://127.0.0.1:9", OLDEST, last, db, mode="resume", retries=0)


def built(url: str, folder: Path) -> tuple[list[Cost], Path, Path]:
    """Return what each step of the large file cost, the file without its last million, and the whole file."""
    full, before = folder / "full.duckdb", folder / "before.duckdb"
    costs = []
    for start in range(0, DAYS, STEP):
        if start == DAYS - MILLION:
            shutil.copyfile(full, before)
        costs.append(cost_of(append, url, start, start + STEP, full))
    return costs, before, full


def pairs(url: str, told: Sequence[Truth], before: Path, full: Path) -> list[Pair]:
    """Return what is done in turn to the large file, to that *before* its last million, and to none."""

    def proof(days: int) -> Proof:
        return Proof(f"the first {days} days", exactly(sum(told[:days], Truth())))

    million = told[:MILLION]
    last, doubled = told[DAYS - MILLION : DAYS], Proof("dedupe=False", as_many(_sent(million)))
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
                doubled,
                _sent(million),
            ),
            Work("a quarter at once, default", partial(at_once, url, {}), proof(MILLION), _sent(million)),
        ),
        Pair(
            Work("a new day", partial(append, url, DAYS, DAYS + 1), proof(DAYS + 1), told[DAYS].rows, full),
            Work(
                "a day again",
                partial(append, url, MILLION, MILLION + 1),
                proof(DAYS),
                told[MILLION].rows,
                full,
            ),
        ),
    ]


def resumed(folder: Path) -> Pair:
    """Return the pair of files with a few and with many batches, where nothing is missing."""
    last = OLDEST + timedelta(BATCHES - 1)
    works = []
    with served_days(OLDEST, last, events_per_day=EVENTS_A_BATCH, concurrent=0, **UNLIMITED) as (url, told):
        for batches in (10, BATCHES):
            start = folder / f"{batches}.duckdb"
            in_own_process(many_batches, url, batches, start)
            truth = sum(list(told.values())[:batches], Truth())
            name = f"resume, {batches:,} batches held"
            works.append(Work(name, partial(resume, batches), Proof(name, exactly(truth)), 0, start))
    return Pair(*works)


def _sent(told: Sequence[Truth]) -> int:
    return sum(truth.rows for truth in told)


def table(measured: Sequence[tuple[Pair, list[list[Cost]]]]) -> str:
    """Return the figures as a Markdown table: median (least to greatest)."""
    rows = []
    for pair, (plain_costs, other_costs) in measured:
        ratios = [other.wall / plain.wall for plain, other in zip(plain_costs, other_costs, strict=True)]
        rows += [
            [*_cells(pair.plain, plain_costs), ""],
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


def reached(measured: Sequence[tuple[Pair, list[list[Cost]]]]) -> list[tuple[Bar, list[float]]]:
    """Return what there is a bar for, taken round by round."""
    pair, (first, last) = measured[0]
    speeds = zip(_per_million(pair.plain, first), _per_million(pair.other, last), strict=True)
    return [(GROWN, [after / before for before, after in speeds])]


def draw(
    steps: Sequence[float], measured: Sequence[tuple[Pair, list[list[Cost]]]], scale: float, figure: "Figure"
) -> None:
    """Draw the seconds of each step over the size that the file had, and the pairs beside it."""
    along, millions, seconds = figure.subplots(1, 3)
    line(
        along,
        [scale * 4 * step / len(steps) for step in range(len(steps))],
        [[step] for step in steps],
        "an append",
    )
    along.set_xlim(left=0)
    along.set_ylim(0, max(steps) * 1.25)
    along.set_xlabel("million events before the append")
    along.set_ylabel("seconds per million events")
    along.set_title("16 appends of 10 days, one run", fontsize=10)
    plain(along)
    works = [
        (work, costs)
        for pair, both in measured
        for work, costs in zip((pair.plain, pair.other), both, strict=True)
    ]
    names = [work.name.replace(", ", ",\n") for work, _ in works]
    horizontal(
        millions,
        "median, least and greatest",
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
    """Measure, prove, and publish a table and a plot."""
    given = options("--scale", "--rounds", "--folder", "--results", description=__doc__, rounds=4)
    content = {"events_per_day": round(given.scale * 1e6 / MILLION), "weekday_pattern": False}
    with (
        served_days(FIRST, day(DAYS), cache_bytes=1 << 34, concurrent=0, **content, **UNLIMITED) as (
            url,
            days,
        ),
        new_folder(given.folder) as folder,
    ):
        told = list(days.values())
        costs, before, full = built(url, folder)
        every = [*pairs(url, told, before, full), resumed(folder)]
        measured = [(pair, pair.run(given.rounds, given.folder)) for pair in every]
    sent = [_sent(told[start : start + STEP]) for start in range(0, DAYS, STEP)]
    steps = [cost.wall * 1e6 / lines for cost, lines in zip(costs, sent, strict=True)]
    publish(
        "growth",
        f"What an export costs in a file that has grown to {sum(sent):,} events",
        given,
        [table(measured)],
        reached=reached(measured),
        draw=partial(draw, steps, measured, given.scale),
    )


if __name__ == "__main__":
    main()
