"""Measures publications to a folder: the first one, and the next after one changed day of a hundred.

The reference for the first publication is DuckDB's own COPY with PARTITION_BY, with the same settings. The number of events
applies at `--scale 1`.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from _measure import (
    FIRST,
    UNLIMITED,
    _peak,
    day,
    export,
    in_own_process,
    new_folder,
    options,
    serve,
    spread,
)
from _report import Bar, horizontal, markdown, publish

from mixpanel_export import run_sync
from mixpanel_export._database.connection import connect, connected_for_export
from mixpanel_export._publish.publish import publish_table

if TYPE_CHECKING:
    from matplotlib.figure import Figure

DAYS = 100
EVENTS = 1_000_000
_REFERENCE = (
    "COPY (SELECT event_name, event_time, distinct_id, insert_id, properties, event_time::DATE AS date FROM events) "
    "TO '{}' (FORMAT parquet, COMPRESSION zstd, PARTITION_BY (date))"
)

FIRST_RUN = Bar("publish: CPU of the first publication ÷ DuckDB's COPY", 1.5, at_most=True)
NEXT_RUN = Bar("publish: CPU after one changed day ÷ first publication", 0.03, at_most=True)
PEAK = Bar("publish: peak RSS of the first publication", 450, at_most=True, unit="MB")


@dataclass(frozen=True, slots=True)
class Run:
    """CPU seconds, and the peak memory of both publications in MB."""

    first: float
    next: float
    reference: float
    peak: float


def published(db: Path) -> tuple[float, float, float]:
    """Publish, change one day, and publish again. Return the CPU seconds of both, and the peak memory in MB."""
    lake = db.with_name("lake")
    first = _cpu(lambda: run_sync(publish_table, db, lake))
    changed = day(DAYS // 2)
    with connect(db) as connection:
        connection.execute(f"UPDATE events SET event_name = 'changed' WHERE event_time::DATE = '{changed}'")
        connection.execute(f"UPDATE _export_batches SET revision = 1 WHERE from_date = '{changed}'")
    following = _cpu(lambda: run_sync(publish_table, db, lake))
    return first, following, _peak() / 1e6


def reference(db: Path) -> float:
    """Return the CPU seconds of DuckDB's own COPY."""
    with connected_for_export(db) as connection:
        return _cpu(lambda: connection.execute(_REFERENCE.format(db.with_name("reference"))))


def _cpu(work: Callable[[], object]) -> float:
    before = time.process_time()
    work()
    return time.process_time() - before


def run(url: str, within: Path | None) -> Run:
    """Export into a new file, and measure in processes of their own."""
    with new_folder(within) as folder:
        db = folder / "events.duckdb"
        export(url, FIRST, day(DAYS - 1), db, chunk_days=1)
        copied = in_own_process(reference, db)
        first, following, peak = in_own_process(published, db)
        return Run(first, following, copied, peak)


def table(runs: Sequence[Run]) -> str:
    """Return the figures as a Markdown table: median (minimum to maximum)."""
    seconds = [spread([getattr(each, part) for each in runs]) for part in ("first", "next", "reference")]
    peak = spread([each.peak for each in runs], digits=0)
    return markdown(["", "first", "after a day", "COPY", "peak RSS MB"], [["CPU s", *seconds, peak]])


def bars(runs: Sequence[Run]) -> list[tuple[Bar, Sequence[float]]]:
    """Return the values for each bar."""
    return [
        (FIRST_RUN, [each.first / each.reference for each in runs]),
        (NEXT_RUN, [each.next / each.first for each in runs]),
        (PEAK, [each.peak for each in runs]),
    ]


def draw(runs: Sequence[Run], figure: "Figure") -> None:
    """Draw the publications beside the reference."""
    parts = [(part, [getattr(each, part) for each in runs]) for part in ("first", "next", "reference")]
    horizontal(figure.subplots(), "Publications", "CPU seconds", parts)


def main() -> None:
    """Measure, and publish a table and a plot."""
    arguments = options("--scale", "--rounds", "--folder", "--results", description=__doc__, rounds=3)
    events = max(1, round(arguments.scale * EVENTS / DAYS))
    content = {"events_per_day": events, "weekday_pattern": False, "first_day": FIRST}
    with serve(FIRST, day(DAYS - 1), concurrent=0, **content, **UNLIMITED) as (url, _):
        runs = [run(url, arguments.folder) for _ in range(arguments.rounds)]
    publish(
        "publish",
        f"Publications of {events * DAYS:,} events in {DAYS} days",
        arguments,
        [table(runs)],
        bars=bars(runs),
        draw=partial(draw, runs),
    )


if __name__ == "__main__":
    main()
