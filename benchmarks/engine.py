"""Compares `export_events` with three other ways to load the same days into DuckDB.

A is `export_events` with default settings and without client-side limits. B is what a DuckDB expert would write: it
requests the same chunks, ten at a time, writes the compressed bodies to disk, and loads all files with one statement on all
cores. It does not check bodies, retry, remove duplicates or keep a ledger, and DuckDB reformats `properties`. C is only the
statement of B, with the files already on disk. D is the traditional loop, for the first days only: one request, `json.loads`
for each line, `executemany` into a table with a primary key. E is B with curl, which downloads without Python. F is E with
`gzip -t` for each file, the cheapest part of what A checks. Each way ends when the database file is closed.
"""

import json
import os
import subprocess
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import anyio
import duckdb
import httpx
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
    has_rows,
    in_own_process,
    new_folder,
    options,
    serve_days,
    spread,
)
from _report import Bar, horizontal, markdown, publish

from mixpanel_export._model import Chunk
from mixpanel_export._planning.planner import first_open_day, plan
from mixpanel_export.simulator import Simulator, Truth

if TYPE_CHECKING:
    from matplotlib.figure import Figure

DAYS = 90
LAST = day(DAYS - 1)
WORKERS = 10
DATABASE = "export.duckdb"
SAMPLE = 2000  # minimum number of events for D, in whole days
ROWS_A_CALL = 1000  # 5,000 makes no difference

AGAINST_B = Bar("engine: B ÷ A, wall: ours against a power user's script", 1.0, at_most=False, aim=1.3)
AGAINST_E = Bar("engine: E ÷ A, wall: ours against the same script with curl", 0.9, at_most=False, aim=1.2)
AGAINST_C = Bar(
    "engine: A ÷ C, CPU seconds: ours against DuckDB's own load of local files", 1.15, at_most=True
)
AGAINST_D = Bar("engine: A ÷ D, events a second: ours against row by row", 100, at_most=False)

LOAD = """
CREATE TABLE events (
    event_name VARCHAR, event_time TIMESTAMP, distinct_id VARCHAR, insert_id VARCHAR,
    properties JSON USING COMPRESSION zstd, export_batch INTEGER);
INSERT INTO events
SELECT field[1], make_timestamp(TRY_CAST(field[2] AS BIGINT) * 1000000), field[3], field[4], field[5], 0
FROM (
    SELECT json_extract_string(json, [
        '$.event', '$.properties.time', '$.properties.distinct_id', '$.properties."$insert_id"', '$.properties'
    ]) AS field
    FROM read_ndjson_objects('{folder}/*.gz')
);
"""

KEYED = """
CREATE TABLE events (
    event_name VARCHAR, event_time TIMESTAMP, distinct_id VARCHAR, insert_id VARCHAR PRIMARY KEY, properties JSON)
"""


@dataclass(frozen=True, slots=True)
class Run:
    """The cost of one run, and the size of its database file in bytes."""

    cost: Cost
    file: int


def ours(url: str, folder: Path) -> None:
    """A: `export_events` with default settings, without limits."""
    export(url, FIRST, LAST, folder / DATABASE)


def power_user(url: str, folder: Path) -> None:
    """B: write the bodies into files, then load them with one statement."""
    download(url, folder)
    load(folder, folder)


def load(files: Path, folder: Path) -> None:
    """C: only load the files."""
    with duckdb.connect(str(folder / DATABASE)) as connection:
        connection.execute("SET preserve_insertion_order = false; SET enable_progress_bar = false")
        connection.execute(LOAD.format(folder=files))


def download(url: str, folder: Path) -> None:
    """Write the compressed bodies into files, with the same requests as A."""
    anyio.run(_download, url, folder)


def with_curl(url: str, folder: Path) -> None:
    """E: like B, but curl writes the files."""
    _download_with_curl(url, folder)
    load(folder, folder)


def with_checks(url: str, folder: Path) -> None:
    """F: like E, but gzip checks each file before the load."""
    _download_with_curl(url, folder)
    files = b"\0".join(bytes(file) for file in folder.glob("*.gz"))
    processes = str(os.cpu_count() or 1)
    subprocess.run(["xargs", "-0", "-n", "1", "-P", processes, "gzip", "-t"], input=files, check=True)
    load(folder, folder)


def _download_with_curl(url: str, folder: Path) -> None:
    settings = [
        f'user = "{ACCOUNT.username}:{ACCOUNT.secret}"',
        'header = "Accept-Encoding: gzip"',
        "fail",
        "no-progress-meter",
        "parallel",
        f"parallel-max = {WORKERS}",
    ]
    for chunk in _chunks():
        settings += [
            f'url = "{httpx.URL(url).copy_with(path="/api/2.0/export", params=_params(chunk))}"',
            f'output = "{folder / str(chunk.first)}.gz"',
        ]
    subprocess.run(["curl", "--config", "-"], input="\n".join(settings), text=True, check=True)


def _chunks() -> Sequence[Chunk]:
    """Return the chunks that A requests."""
    first_open = first_open_day(datetime.now(UTC))
    return plan(FIRST, LAST, skip_complete=False, requests=None, first_open_day=first_open).chunks


async def _download(url: str, folder: Path) -> None:
    limiter = anyio.CapacityLimiter(WORKERS)
    async with (
        httpx.AsyncClient(base_url=url, auth=_auth(), timeout=600) as client,
        anyio.create_task_group() as group,
    ):
        for chunk in _chunks():
            group.start_soon(_download_chunk, client, limiter, chunk, folder)


async def _download_chunk(
    client: httpx.AsyncClient, limiter: anyio.CapacityLimiter, chunk: Chunk, folder: Path
) -> None:
    params = _params(chunk)
    async with limiter, client.stream("GET", "/api/2.0/export", params=params) as response:
        response.raise_for_status()
        with (folder / f"{chunk.first}.gz").open("wb") as file:
            async for piece in response.aiter_raw():
                file.write(piece)


def row_by_row(url: str, days: int, folder: Path) -> None:
    """D: load the first *days* with a Python object for each event, and a primary key against duplicates."""
    with (
        httpx.Client(base_url=url, auth=_auth(), timeout=600) as client,
        duckdb.connect(str(folder / DATABASE)) as connection,
        client.stream("GET", "/api/2.0/export", params=_params(Chunk(FIRST, day(days - 1)))) as response,
    ):
        response.raise_for_status()
        connection.execute(KEYED)
        rows = map(_row, _lines(response))
        while batch := list(islice(rows, ROWS_A_CALL)):
            connection.executemany("INSERT OR IGNORE INTO events VALUES (?, ?, ?, ?, ?)", batch)


def _lines(response: httpx.Response) -> Iterator[bytes]:
    rest = b""
    for piece in response.iter_bytes():
        *lines, rest = (rest + piece).split(b"\n")  # iter_lines also splits inside strings
        yield from lines
    if rest:
        yield rest


def _row(line: bytes) -> tuple[Any, ...]:
    event = json.loads(line)
    properties = event["properties"]
    moment = None
    with suppress(KeyError, TypeError, ValueError, OverflowError):
        moment = datetime.fromtimestamp(int(properties.pop("time")), UTC).replace(tzinfo=None)
    distinct_id, insert_id = properties.pop("distinct_id", None), properties.pop("$insert_id", None)
    return event["event"], moment, distinct_id, insert_id or str(uuid4()), json.dumps(properties)


def _keyed_rows(per_day: int, days: int) -> int:
    """Return the number of rows of the first *days* if events with equal `$insert_id` are duplicates."""
    ids = [row.insert_id for row in Simulator(events_per_day=per_day, odd=ODD).rows(FIRST, day(days - 1))]
    return len({each for each in ids if each}) + sum(not each for each in ids)


def _auth() -> httpx.BasicAuth:
    return httpx.BasicAuth(ACCOUNT.username or "", ACCOUNT.secret)


def _params(chunk: Chunk) -> dict[str, str]:
    return {
        "project_id": ACCOUNT.project_id,
        "from_date": str(chunk.first),
        "to_date": str(chunk.last),
    }


@dataclass(frozen=True, slots=True)
class Way:
    """A way to load a number of events into a table, and the check of its result."""

    name: str
    work: Callable[[Path], None]
    events: int
    proof: Proof

    def run(self, within: Path | None) -> Run:
        """Fill a new database in a new folder, check it, and remove it."""
        with new_folder(within) as folder:
            cost = cost_of(self.work, folder)
            size = sum(file.stat().st_size for file in folder.glob(f"{DATABASE}*"))
            self.proof.of(folder / DATABASE)
        return Run(cost, size)


def all_ways(url: str, files: Path, per_day: int, by_day: Sequence[Truth]) -> list[Way]:
    """Return A to D; *by_day* has the truth about each day."""
    truth = sum(by_day, Truth())
    days = min(DAYS, -(-SAMPLE // per_day))
    # Which of several duplicates D keeps depends on the order of arrival.
    keyed = Proof("D", has_rows(_keyed_rows(per_day, days)), alike=False)
    return [
        Way("A: export_events", partial(ours, url), truth.rows, Proof("A", equals(truth))),
        Way("B: power user", partial(power_user, url), truth.rows, Proof("B", has_rows(truth.rows))),
        Way("C: DuckDB, files on disk", partial(load, files), truth.rows, Proof("C", has_rows(truth.rows))),
        Way("D: row by row", partial(row_by_row, url, days), sum(each.rows for each in by_day[:days]), keyed),
        Way(
            "E: power user, with curl", partial(with_curl, url), truth.rows, Proof("E", has_rows(truth.rows))
        ),
        Way("F: E and gzip -t", partial(with_checks, url), truth.rows, Proof("F", has_rows(truth.rows))),
    ]


def table(ways: Sequence[Way], results: Sequence[Sequence[Run]]) -> str:
    """Return the figures as a Markdown table: median (minimum to maximum)."""
    rows = [
        [
            way.name,
            f"{way.events:,}",
            spread([run.cost.wall for run in runs]),
            spread([run.cost.cpu for run in runs]),
            spread([run.cost.peak / 1e6 for run in runs], digits=0),
            spread([run.file / 1e6 for run in runs], digits=1),
            spread([way.events / run.cost.wall for run in runs], digits=0),
        ]
        for way, runs in zip(ways, results, strict=True)
    ]
    return markdown(["", "events", "wall s", "CPU s", "peak RSS MB", "file MB", "events a second"], rows)


def bar_values(ways: Sequence[Way], results: Sequence[Sequence[Run]]) -> list[tuple[Bar, list[float]]]:
    """Return the ratios of each bar, by round."""
    rounds = list(zip(*results, strict=True))
    size_ratio = ways[0].events / ways[3].events
    return [
        (AGAINST_B, [b.cost.wall / a.cost.wall for a, b, *_ in rounds]),
        (AGAINST_E, [e.cost.wall / a.cost.wall for a, _, _, _, e, _ in rounds]),
        (AGAINST_C, [a.cost.cpu / c.cost.cpu for a, _, c, *_ in rounds]),
        (AGAINST_D, [size_ratio * d.cost.wall / a.cost.wall for a, _, _, d, *_ in rounds]),
    ]


def draw(ways: Sequence[Way], results: Sequence[Sequence[Run]], figure: "Figure") -> None:
    """Draw the costs of all ways in three charts."""
    speed, cpu, memory = figure.subplots(1, 3)
    names = [way.name.replace(", ", ",\n") for way in ways]
    every = list(zip(names, ways, results, strict=True))
    horizontal(
        speed,
        "events a second (more is better)",
        "thousand events a second",
        [(name, [way.events / run.cost.wall / 1e3 for run in runs]) for name, way, runs in every],
    )
    horizontal(
        cpu,
        "CPU of all threads, without D",
        "CPU seconds per million events",
        [(name, [run.cost.cpu * 1e6 / way.events for run in runs]) for name, way, runs in every[:3]],
    )
    horizontal(
        memory,
        "peak resident memory, without D",
        "MB",
        [(name, [run.cost.peak / 1e6 for run in runs]) for name, _, runs in every[:3]],
        digits=0,
    )
    for axes in (cpu, memory):
        axes.set_yticklabels([name.partition(":")[0] for name, _, _ in every[:3]])


def main() -> None:
    """Measure, check, and publish a table and a plot."""
    arguments = options("--scale", "--rounds", "--folder", "--results", description=__doc__, rounds=5)
    per_day = round(arguments.scale * 1_000_000 / DAYS)
    content: dict[str, Any] = {"events_per_day": per_day, "odd": ODD, "cache_bytes": 1 << 34, "concurrent": 0}
    with (
        serve_days(FIRST, LAST, **content, **UNLIMITED) as (url, by_day),
        new_folder(arguments.folder) as files,
    ):
        in_own_process(download, url, files)
        compared = all_ways(url, files, per_day, list(by_day.values()))
        results = alternate(compared, arguments.rounds, lambda way: way.run(arguments.folder))
    publish(
        "engine",
        f"The engine: {compared[0].events:,} events of {DAYS} days from a server without latency",
        arguments,
        [table(compared, results)],
        bars=bar_values(compared, results),
        draw=partial(draw, compared, results),
    )


if __name__ == "__main__":
    main()
