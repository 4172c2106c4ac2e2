"""Compares Spark with `export_events` on the same days, with the same requests, on two cores.

Both begin with the first request and end with all events on disk, without duplicates: `export_events` writes a DuckDB file,
Spark writes Parquet files. Spark's session has then started and read one day. Its CPU seconds include those of the JVM and of
the Python processes. The benchmark requires the extra `spark`, Java 17 and Linux.
"""

import os
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import duckdb
from _measure import (
    ACCOUNT,
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
    in_own_process,
    new_folder,
    options,
    serve,
    spread,
)
from _report import markdown, publish
from pyspark.sql import SparkSession

from mixpanel_export.integrations.spark import MixpanelEvents, deduplicated

DAYS = 30
LAST = day(DAYS - 1)
CHUNK_DAYS = 3
CORES = 2
DATABASE = "events.duckdb"
PARQUET = "events"
ENGINE, SPARK = "export_events", "Spark"
_FILES = "CREATE VIEW events AS SELECT * REPLACE (properties::JSON AS properties) FROM read_parquet('{}/*.parquet')"


@dataclass(frozen=True, slots=True)
class Bench:
    """The server, and the check of each result."""

    url: str
    proof: Proof
    folder: Path | None

    def run(self, way: str) -> Cost:
        """Load all days in a new process, check the result, and remove it."""
        with new_folder(self.folder) as folder:
            if way == ENGINE:
                days = partial(export, self.url, FIRST, LAST, folder / DATABASE)
                cost = cost_of(days, chunk_days=CHUNK_DAYS)
            else:
                cost = in_own_process(in_spark, self.url, folder)
                with duckdb.connect(str(folder / DATABASE)) as connection:
                    connection.execute(_FILES.format(folder / PARQUET))
            self.proof.of(folder / DATABASE)
        return cost


def in_spark(url: str, folder: Path) -> Cost:
    """Read all days with Spark, remove duplicates, and write Parquet files. The peak of the memory is not measured."""
    os.environ |= {
        "MP_USERNAME": ACCOUNT.username or "",
        "MP_SECRET": ACCOUNT.secret,
        "MP_PROJECT_ID": ACCOUNT.project_id,
        "PYSPARK_PYTHON": sys.executable,
        "SPARK_LOCAL_IP": "127.0.0.1",
    }
    settings = {
        "spark.ui.enabled": "false",
        "spark.ui.showConsoleProgress": "false",
        "spark.sql.shuffle.partitions": str(CORES),
        "spark.local.dir": str(folder / "local"),
    }
    spark = SparkSession.builder.master(f"local[{CORES}]").config(map=settings).getOrCreate()
    try:
        spark.dataSource.register(MixpanelEvents)
        _write(spark, url, 1, folder / "first-day")
        wall, cpu = time.perf_counter(), _cpu_of_tree(os.getpid())
        _write(spark, url, DAYS, folder / PARQUET)
        return Cost(time.perf_counter() - wall, _cpu_of_tree(os.getpid()) - cpu, 0)
    finally:
        spark.stop()


def _write(spark: SparkSession, url: str, days: int, folder: Path) -> None:
    source = {
        "from_date": FIRST,
        "to_date": day(days - 1),
        "chunk_days": CHUNK_DAYS,
        "api_url": url,
        **UNLIMITED,
    }
    reader = spark.read.format("mixpanel")
    for name, value in source.items():
        reader = reader.option(name, str(value))
    deduplicated(reader.load()).write.parquet(str(folder))


def _cpu_of_tree(process: int) -> float:
    """Return the CPU seconds of a process and of all its descendants, also of those that have ended."""
    statuses = {}
    for file in Path("/proc").glob("[0-9]*/stat"):
        try:
            _, _, text = file.read_text("latin-1").rpartition(") ")  # after the name of the program
        except OSError:  # the process has ended
            continue
        statuses[int(file.parent.name)] = text.split()
    tree = {process}
    while new := {number for number, fields in statuses.items() if int(fields[1]) in tree} - tree:
        tree |= new
    # The CPU time of the process, and that of its children that have ended, in user mode and in the kernel.
    return sum(int(ticks) for number in tree for ticks in statuses[number][11:15]) / os.sysconf("SC_CLK_TCK")


def table(events: int, results: Sequence[Sequence[Cost]]) -> str:
    """Return the figures as a Markdown table: median (minimum to maximum)."""
    rows = [
        [
            way,
            spread([cost.wall for cost in costs]),
            spread([cost.cpu for cost in costs]),
            spread([events / cost.cpu for cost in costs], digits=0),
        ]
        for way, costs in zip((ENGINE, SPARK), results, strict=True)
    ]
    pairs = list(zip(*results, strict=True))
    ratios = [
        "Spark ÷ export_events",
        spread([spark.wall / engine.wall for engine, spark in pairs]),
        spread([spark.cpu / engine.cpu for engine, spark in pairs]),
        "",
    ]
    return markdown(["", "wall s", "CPU s", "events a CPU second"], [*rows, ratios])


def main() -> None:
    """Measure, check, and publish a table."""
    arguments = options("--scale", "--rounds", "--folder", "--results", description=__doc__, rounds=3)
    per_day = max(1, round(arguments.scale * 1_000_000 / DAYS))
    content: dict[str, Any] = {"events_per_day": per_day, "odd": ODD, "concurrent": 0}
    with serve(FIRST, LAST, **content, **UNLIMITED) as (url, truth):
        bench = Bench(url, Proof("events", equals(truth)), arguments.folder)
        results = alternate((ENGINE, SPARK), arguments.rounds, bench.run)
    title = f"Spark and export_events: {truth.rows:,} events in {DAYS} days, {CORES} cores"
    publish("spark", title, arguments, [table(truth.rows, results)])


if __name__ == "__main__":
    main()
