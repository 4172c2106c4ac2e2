"""Compares exports of a million events, with every known defect, with the truth; and measures the cost of exactness.

Each case exports some days of a simulator in a separate process. Then the file is compared with the simulator's truth: all
columns and the text of `properties` by a checksum, the numbers in the result and in the ledger, and each line in
`_export_rejects`. A difference ends the program. The cost of a case is given as the ratio to a case with fewer defects.
"""

import argparse
import shutil
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import date, timedelta
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import anyio
from _compare import Expected, Span, differences, prepare, query
from _measure import Cost, in_own_process, machine, measure, serve_prepared, spread

from mixpanel_export import Credentials, ParallelFetchResult, export_events
from mixpanel_export._writer import batch_records as _records
from mixpanel_export._writer import cross_batch as _duplicates
from mixpanel_export._writer import table as _store

FIRST = date(2024, 1, 1)
DAYS = 30
EMPTY = date(2022, 12, 1)  # before the first day with events
DATABASE = "export.duckdb"
ACCOUNT = Credentials("demo.mp-service-account", "demo-secret", "12345")
LIMITS_OFF: dict[str, Any] = {"per_second": 0, "per_hour": 0}

# Seven of eight duplicates of a day share an identity; with the leaks they are 1.5 % of the lines.
CLEAN = {"duplicates": 0.0, "odd": 0.0}
DOUBLE = {"duplicates": 0.015, "odd": 0.0, "leaks": 0.002}
AWKWARD = DOUBLE | {"odd": 0.002, "awkward": 0.005, "strays": 0.001}
REJECTS = {"rejects": 0.0005}
LONG_LINES = 5  # approximate number among all events, up to 5 MB each
STRANGE_TIMES = DOUBLE | {
    "odd": 0.002,
    "awkward": 0.1,
}  # so that most days have some times far outside the day

COLUMNS = (
    "lines sent, MB | duplicates removed, across batches | rejected, repaired | wall s | CPU s | peak RSS MB "
    "| wall ÷ a | CPU ÷ a | RSS ÷ a | batches compared | probe ms | probe, % of commits"
)


@dataclass(frozen=True, slots=True)
class Observed:
    """The result of an export, the seconds of its commits, and the seconds of the cross-batch probes in them.

    A probe looks for duplicates in other batches. *compared* has the number of batches that each probe compared.
    """

    result: ParallelFetchResult
    commits: list[float]
    probes: list[float]
    compared: list[int]


@dataclass(frozen=True, slots=True)
class Case:
    """An export of days into a new file, or into a copy of *start*, with the expected result.

    *rows_before* is the number of rows in *start*; *base* names the case that the cost is relative to.
    """

    name: str
    url: str
    days: Span
    expected: Expected
    base: str
    start: Path | None = None
    rows_before: int | None = None
    options: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Run:
    """One export of a case whose result was exact."""

    cost: Cost
    observed: Observed
    hidden: int


def export(url: str, days: Span, db: Path, options: dict[str, Any]) -> Observed:
    """Export *days* without limits, and measure the time of each commit and of its cross-batch probe.

    Raises:
        RuntimeError: Batches have failed.
    """
    _, commits, probes, meetings = (
        _timed(owner, name)
        for owner, name in (
            (_store, "insert"),
            (_store.EventsTable, "load"),
            (_records, "move_duplicates"),
            (_duplicates, "batches_to_compare"),
        )
    )
    warnings.filterwarnings("ignore", ".*has no events for this export")  # the file without events
    keywords: dict[str, Any] = {"db": db, "credentials": ACCOUNT, "api_url": url} | LIMITS_OFF | options
    result = anyio.run(partial(export_events, *days, **keywords))
    if result.failed_batches:
        raise RuntimeError(f"{result.failed_date_ranges} are missing: {result.errors}")
    return Observed(
        result,
        [seconds for seconds, _ in commits],
        [seconds for seconds, _ in probes],
        [len(batches) for _, batches in meetings],
    )


def _timed(owner: Any, name: str) -> list[tuple[float, Any]]:
    """Replace a function so that it is measured. Return a list that gets the seconds and the result of each call."""
    calls: list[tuple[float, Any]] = []
    function: Callable[..., Any] = getattr(owner, name)

    def timed(*args: Any) -> Any:
        started = time.perf_counter()
        result = function(*args)
        calls.append((time.perf_counter() - started, result))
        return result

    setattr(owner, name, timed)
    return calls


def run(case: Case, folder: Path | None, *, full: bool) -> Run:
    """Export the days of *case* into a new file, compare it with the truth, and remove it.

    Raises:
        SystemExit: They differ.
    """
    with tempfile.TemporaryDirectory(dir=folder) as temporary:
        db = Path(temporary, DATABASE)
        if case.start:
            shutil.copyfile(case.start, db)
        observed, cost = measure(export, case.url, case.days, db, case.options)
        problems = list(
            differences(db, case.expected, observed.result, rows_before=case.rows_before, full=full)
        )
        if problems:
            raise SystemExit(f"{case.name}, {case.days[0]} to {case.days[1]}: " + "; ".join(problems[:20]))
        [(hidden,)] = query(db, "SELECT count(*) FROM _export_duplicates")
    return Run(cost, observed, hidden)


def all_days(stack: ExitStack, per_day: int) -> list[Case]:
    """Return the cases that export all days in parallel into a new file."""
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
            Case(name, url, days, expected, first)
            for name, (url, (expected,)) in (
                ("c: b and duplicates, leaks", double),
                ("c+: c and odd, awkward, strays, long lines", awkward),
                ("d: c+ and rejects", everything),
            )
        ),
    ]


def daily(stack: ExitStack, per_day: int, batches: int, folder: Path) -> Iterator[Case]:
    """Yield the cases that export one day into a file without events, and into one with *batches* of a day each."""
    stored = FIRST, FIRST + timedelta(batches - 1)
    new, middle = FIRST + timedelta(batches), FIRST + timedelta(batches // 2)
    for number, (kind, profile) in enumerate(
        (("clean", CLEAN), ("leaks", DOUBLE), ("strange times", STRANGE_TIMES)), 1
    ):
        url, expected = _served(stack, per_day, profile, [(FIRST, new), stored, (new, new)])
        empty, full = folder / f"empty{number}", folder / f"full{number}"
        in_own_process(export, url, (EMPTY, EMPTY), empty, {})
        in_own_process(export, url, stored, full, {"chunk_days": 1})
        rows = expected[1].truth.distinct
        append = {"mode": "append"}
        first = f"{number}a: {kind}, append to an empty file"
        yield Case(first, url, (new, new), expected[2], first, empty, 0, append)
        yield Case(
            f"{number}b: {kind}, append to {batches}", url, (new, new), expected[0], first, full, rows, append
        )
        yield Case(
            f"{number}c: {kind}, replace in {batches}",
            url,
            (middle, middle),
            expected[1],
            first,
            full,
            rows,
            append,
        )


def _served(
    stack: ExitStack, per_day: int, profile: dict[str, float], spans: Sequence[Span]
) -> tuple[str, list[Expected]]:
    settings: dict[str, Any] = {"events_per_day": per_day, "cache_bytes": 1 << 34, "concurrent": 0}
    return stack.enter_context(serve_prepared(partial(prepare, spans), **settings, **LIMITS_OFF, **profile))


def rounds(cases: Sequence[Case], number: int, folder: Path | None) -> list[dict[str, Run]]:
    """Run all *cases* in *number* rounds, in alternating order, after a warm-up round that is discarded.

    New files are compared in full in every round, copies of a large file in the warm-up only.
    """
    results = []
    for round_number in range(number + 1):
        order = list(reversed(cases)) if round_number % 2 else cases
        runs = {case.name: run(case, folder, full=not (round_number and case.rows_before)) for case in order}
        results.append(runs)
    return results[1:]


def table(cases: Sequence[Case], results: Sequence[dict[str, Run]]) -> str:
    """Return the figures as a Markdown table: median (minimum to maximum)."""
    lines = [
        f"| | {COLUMNS} |",
        "|---" * (COLUMNS.count("|") + 2) + "|",
    ]
    for case in cases:
        runs = [runs[case.name] for runs in results]
        bases = [runs[case.base] for runs in results]
        cells = [case.name, *_sent(case, runs[0]), *_costs(runs, bases), *_probes(runs)]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _sent(case: Case, run: Run) -> list[str]:
    truth = case.expected.truth
    return [
        f"{truth.rows + truth.rejects:,}, {case.expected.size / 1e6:.0f}",
        f"{truth.duplicates:,}, {run.hidden:,}",
        f"{truth.rejects:,}, {truth.repaired:,}",
    ]


def _costs(runs: Sequence[Run], bases: Sequence[Run]) -> list[str]:
    ratios = [
        (
            run.cost.wall / base.cost.wall,
            run.cost.cpu / base.cost.cpu,
            run.cost.peak / max(base.cost.peak, 1),
        )
        for run, base in zip(runs, bases, strict=True)
    ]
    return [
        spread([run.cost.wall for run in runs]),
        spread([run.cost.cpu for run in runs]),
        spread([run.cost.peak / 1e6 for run in runs], digits=0),
        *(spread(ratio) for ratio in zip(*ratios, strict=True)),
    ]


def _probes(runs: Sequence[Run]) -> list[str]:
    return [
        str(max((count for run in runs for count in run.observed.compared), default=0)),
        spread([1000 * sum(run.observed.probes) / len(run.observed.probes) for run in runs], digits=1),
        spread([100 * sum(run.observed.probes) / sum(run.observed.commits) for run in runs], digits=1),
    ]


def summary(cases: Sequence[Case], results: Sequence[dict[str, Run]]) -> str:
    """Return a summary of the checks and of the costs."""
    first, *others = (case for case in cases if case.start is None)
    costs = ", ".join(
        f"{case.name[: case.name.index(':')]} "
        f"{median(runs[case.name].cost.cpu / runs[first.name].cost.cpu for runs in results):.2f}"
        for case in others
    )
    most = max(case.expected.truth.rows for case in cases)
    return (
        f"Exact: all {len(cases) * (len(results) + 1)} exports, of up to {most:,} events, have every event once. "
        f"CPU relative to a, median: {costs}."
    )


def main() -> None:
    """Export, compare, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--scale", type=float, default=0.25, metavar="X", help="size; 1 is a million events")
    parser.add_argument(
        "--rounds", type=int, default=5, metavar="N", help="number of rounds after the warm-up"
    )
    parser.add_argument(
        "--batches", type=int, default=300, metavar="N", help="batches in the large file; 0 to skip it"
    )
    parser.add_argument("--folder", type=Path, help="folder for temporary files; default: the system's")
    arguments = parser.parse_args()
    events = arguments.scale * 1_000_000
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(dir=arguments.folder)))
        cases = [
            *all_days(stack, round(events / DAYS)),
            *(
                daily(stack, round(events / arguments.batches), arguments.batches, folder)
                if arguments.batches
                else ()
            ),
        ]
        print(f"{machine()}; {arguments.rounds} rounds\n", flush=True)
        results = rounds(cases, arguments.rounds, arguments.folder)
    print(f"{table(cases, results)}\n\n{summary(cases, results)}")


if __name__ == "__main__":
    main()
