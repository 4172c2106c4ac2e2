"""A million events with everything that can be wrong with them against the truth, and what exactness costs.

Each case exports some days of a simulator in a process of its own, and what the file then holds is compared
with what that simulator knows: every column and the text of `properties` by a checksum, the numbers that the
result and the ledger tell, and each line that was set aside. A difference ends the program. What the cases
cost is told as ratios, taken round by round against a case of the same kind that does less.
"""

import argparse
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import date, timedelta
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import anyio
from _compare import Span, Told, differences, query, tell
from _measure import Cost, in_own_process, machine, measured, serving, spread

from mixpanel_export import Credentials, ParallelFetchResult, export_events
from mixpanel_export._writer import cross_batch as _duplicates
from mixpanel_export._writer import table as _store

FIRST = date(2024, 1, 1)
DAYS = 30
EMPTY = date(2022, 12, 1)  # long before the first day that the simulator has events of
DATABASE = "export.duckdb"
ACCOUNT = Credentials("demo.mp-service-account", "demo-secret", "12345")
LIMITS_OFF: dict[str, Any] = {"per_second": 0, "per_hour": 0}

# Seven of eight duplicates of a day share an identity; the leaks make it 1.5 % of the lines again.
CLEAN = {"duplicates": 0.0, "odd": 0.0}
DOUBLE = {"duplicates": 0.015, "odd": 0.0, "leaks": 0.002}
AWKWARD = DOUBLE | {"odd": 0.002, "awkward": 0.005, "strays": 0.001}
REJECTS = {"rejects": 0.0005}
LONG_LINES = 5  # about so many of all events, up to 5 MB each
STRANGE_TIMES = DOUBLE | {"odd": 0.002, "awkward": 0.1}  # so that a day is likely to have some far outside

COLUMNS = (
    "lines sent in all, MB | removed, across batches | rejected, repaired | wall s | CPU s | peak RSS MB "
    "| wall ÷ a | CPU ÷ a | RSS ÷ a | batches looked at | probe ms | probe, % of commits"
)


@dataclass(frozen=True, slots=True)
class Done:
    """What an export returned, the seconds of its inserts and commits and of their probes across batches, and what these saw."""

    result: ParallelFetchResult
    commits: list[float]
    probes: list[float]
    looked_at: list[int]


@dataclass(frozen=True, slots=True)
class Case:
    """Days to export into an empty file, or into a copy of *start*, and what must then be there.

    *before* is the number of rows in *start*, if there is one; *against* names the case to which the cost is compared.
    """

    name: str
    url: str
    days: Span
    told: Told
    against: str
    start: Path | None = None
    before: int | None = None
    options: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Run:
    """One export of a case, found exact."""

    cost: Cost
    done: Done
    hidden: int


def export(url: str, days: Span, db: Path, options: dict[str, Any]) -> Done:
    """Export *days* without limits, with a clock on each commit and on its probe across batches.

    Raises:
        RuntimeError: days are missing.
    """
    _, commits, probes, met = (
        _watched(owner, name)
        for owner, name in (
            (_store, "insert"),
            (_store.EventsTable, "load"),
            (_store, "move_duplicates"),
            (_duplicates, "meeting"),
        )
    )
    given: dict[str, Any] = {"db": db, "credentials": ACCOUNT, "api_url": url} | LIMITS_OFF | options
    result = anyio.run(partial(export_events, *days, **given))
    if result.failed_batches:
        raise RuntimeError(f"{result.failed_date_ranges} are missing: {result.errors}")
    return Done(
        result,
        [seconds for seconds, _ in commits],
        [seconds for seconds, _ in probes],
        [len(batches) for _, batches in met],
    )


def _watched(owner: Any, name: str) -> list[tuple[float, Any]]:
    """Return a list that gets the seconds and the outcome of each call of a function from now on."""
    calls: list[tuple[float, Any]] = []
    function: Callable[..., Any] = getattr(owner, name)

    def timed(*args: Any) -> Any:
        begun = time.perf_counter()
        outcome = function(*args)
        calls.append((time.perf_counter() - begun, outcome))
        return outcome

    setattr(owner, name, timed)
    return calls


def run(case: Case, folder: Path | None, *, thorough: bool) -> Run:
    """Export the days of *case* into a new file, compare it with the truth, and remove it.

    Raises:
        SystemExit: they differ.
    """
    with tempfile.TemporaryDirectory(dir=folder) as own:
        db = Path(own, DATABASE)
        if case.start:
            shutil.copyfile(case.start, db)
        done, cost = measured(export, case.url, case.days, db, case.options)
        wrong = list(differences(db, case.told, done.result, before=case.before, thorough=thorough))
        if wrong:
            raise SystemExit(f"{case.name}, {case.days[0]} to {case.days[1]}: " + "; ".join(wrong[:20]))
        [(hidden,)] = query(db, "SELECT count(*) FROM _export_duplicates")
    return Run(cost, done, hidden)


def whole(stack: ExitStack, per_day: int) -> list[Case]:
    """Return the cases that export all days in parallel into an empty file."""
    days = FIRST, FIRST + timedelta(DAYS - 1)
    long_lines = {"long_lines": LONG_LINES / (per_day * DAYS)}
    url, (clean,) = _served(stack, per_day, CLEAN, [days])
    double = _served(stack, per_day, DOUBLE, [days])
    awkward = _served(stack, per_day, AWKWARD | long_lines, [days])
    everything = _served(stack, per_day, AWKWARD | REJECTS | long_lines, [days])
    first = "a: clean, dedupe off"
    return [
        Case(first, url, days, clean, first, options={"dedupe": False}),
        Case("b: clean, dedupe on", url, days, clean, first),
        *(
            Case(name, url, days, told, first)
            for name, (url, (told,)) in (
                ("c: b and duplicates, leaks", double),
                ("c+: c and odd, awkward, strays, long", awkward),
                ("d: c+ and rejects, so everything", everything),
            )
        ),
    ]


def daily(stack: ExitStack, per_day: int, batches: int, folder: Path) -> Iterator[Case]:
    """Yield the cases that export one day into a file of nothing, and into one of many *batches* of a day each."""
    held = FIRST, FIRST + timedelta(batches - 1)
    new, middle = FIRST + timedelta(batches), FIRST + timedelta(batches // 2)
    for number, (kind, profile) in enumerate(
        (("clean", CLEAN), ("leaks", DOUBLE), ("strange times", STRANGE_TIMES)), 1
    ):
        url, told = _served(stack, per_day, profile, [(FIRST, new), held, (new, new)])
        empty, full = folder / f"empty{number}", folder / f"full{number}"
        in_own_process(export, url, (EMPTY, EMPTY), empty, {})
        in_own_process(export, url, held, full, {"chunk_days": 1})
        rows = told[1].truth.distinct
        append = {"mode": "append"}
        first = f"{number}a: {kind}, append to nothing"
        yield Case(first, url, (new, new), told[2], first, empty, 0, append)
        yield Case(
            f"{number}b: {kind}, append to {batches}", url, (new, new), told[0], first, full, rows, append
        )
        yield Case(
            f"{number}c: {kind}, replace in {batches}",
            url,
            (middle, middle),
            told[1],
            first,
            full,
            rows,
            append,
        )


def _served(
    stack: ExitStack, per_day: int, profile: dict[str, float], spans: Sequence[Span]
) -> tuple[str, list[Told]]:
    settings: dict[str, Any] = {"events_per_day": per_day, "cache_bytes": 1 << 34, "concurrent": 0}
    return stack.enter_context(serving(partial(tell, spans), **settings, **LIMITS_OFF, **profile))


def rounds(cases: Sequence[Case], number: int, folder: Path | None) -> list[dict[str, Run]]:
    """Run all *cases*, forwards and backwards in turn, *number* times after one round that does not count.

    Files that began empty are always read as a whole, copies of a larger one in the first round.
    """
    done = []
    for turn in range(number + 1):
        order = list(reversed(cases)) if turn % 2 else cases
        runs = {case.name: run(case, folder, thorough=not (turn and case.before)) for case in order}
        done.append(runs)
    return done[1:]


def table(cases: Sequence[Case], done: Sequence[dict[str, Run]]) -> str:
    """Return the figures as a Markdown table: median (least to greatest)."""
    lines = [
        f"| | {COLUMNS} |",
        "|---" * (COLUMNS.count("|") + 2) + "|",
    ]
    for case in cases:
        runs = [runs[case.name] for runs in done]
        others = [runs[case.against] for runs in done]
        cells = [case.name, *_sent(case, runs[0]), *_costs(runs, others), *_probes(runs)]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _sent(case: Case, run: Run) -> list[str]:
    truth = case.told.truth
    return [
        f"{truth.rows + truth.rejects:,}, {case.told.size / 1e6:.0f}",
        f"{truth.duplicates:,}, {run.hidden:,}",
        f"{truth.rejects:,}, {truth.repaired:,}",
    ]


def _costs(runs: Sequence[Run], others: Sequence[Run]) -> list[str]:
    ratios = [
        (
            run.cost.wall / other.cost.wall,
            run.cost.cpu / other.cost.cpu,
            run.cost.peak / max(other.cost.peak, 1),
        )
        for run, other in zip(runs, others, strict=True)
    ]
    return [
        spread([run.cost.wall for run in runs]),
        spread([run.cost.cpu for run in runs]),
        spread([run.cost.peak / 1e6 for run in runs], digits=0),
        *(spread(ratio) for ratio in zip(*ratios, strict=True)),
    ]


def _probes(runs: Sequence[Run]) -> list[str]:
    return [
        str(max((most for run in runs for most in run.done.looked_at), default=0)),
        spread([1000 * sum(run.done.probes) / len(run.done.probes) for run in runs], digits=1),
        spread([100 * sum(run.done.probes) / sum(run.done.commits) for run in runs], digits=1),
    ]


def verdict(cases: Sequence[Case], done: Sequence[dict[str, Run]]) -> str:
    """Return one line that says what was proven, and what it cost."""
    first, *others = (case for case in cases if case.start is None)
    costs = ", ".join(
        f"{case.name[: case.name.index(':')]} "
        f"{median(runs[case.name].cost.cpu / runs[first.name].cost.cpu for runs in done):.2f}"
        for case in others
    )
    most = max(case.told.truth.rows for case in cases)
    return (
        f"Exact: all {len(cases) * (len(done) + 1)} exports, of up to {most:,} events, are what was sent, once. "
        f"CPU against a, median: {costs}."
    )


def main() -> None:
    """Export, compare, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--scale", type=float, default=0.25, metavar="X", help="1 is 1,000,000 events")
    parser.add_argument("--rounds", type=int, default=5, metavar="N", help="after the warm-up")
    parser.add_argument("--batches", type=int, default=300, metavar="N", help="of the large file; 0: none")
    parser.add_argument("--folder", type=Path, help="where the files go meanwhile; default: the system's")
    given = parser.parse_args()
    events = given.scale * 1_000_000
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(dir=given.folder)))
        cases = [
            *whole(stack, round(events / DAYS)),
            *(daily(stack, round(events / given.batches), given.batches, folder) if given.batches else ()),
        ]
        print(f"{machine()}; {given.rounds} rounds\n", flush=True)
        done = rounds(cases, given.rounds, given.folder)
    print(f"{table(cases, done)}\n\n{verdict(cases, done)}")


if __name__ == "__main__":
    main()
