"""`export_events` against what a power user would write: download to .gz files, then one INSERT … SELECT.

`export` is ours with default settings, client-side limits off. `power_user` asks for the same chunks, ten at
a time, writes the compressed bodies to disk as they come, and has DuckDB load all files in one statement on
all cores. It checks no body, restarts nothing, removes no duplicate, keeps no ledger, and stores
`properties` as DuckDB writes them anew. Both end with a closed database file.
"""

import argparse
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from functools import partial
from pathlib import Path

import anyio
import duckdb
import httpx
from _measure import Cost, cost_of, counted, in_own_process, machine, served, spread, stored

from mixpanel_export import Credentials, export_events
from mixpanel_export._plan import open_from, plan
from mixpanel_export._stream import Chunk
from mixpanel_export.simulator import Truth

FIRST = date(2024, 1, 1)
DAYS = 90
LAST = FIRST + timedelta(DAYS - 1)
ACCOUNT = Credentials("demo.mp-service-account", "demo-secret", "12345")
WORKERS = 10
DATABASE = "export.duckdb"

LOAD = """
CREATE TABLE events (
    event_name VARCHAR, event_time TIMESTAMP, distinct_id VARCHAR, insert_id VARCHAR,
    properties JSON USING COMPRESSION zstd, export_batch INTEGER);
INSERT INTO events
SELECT found[1], make_timestamp(TRY_CAST(found[2] AS BIGINT) * 1000000), found[3], found[4], found[5], 0
FROM (
    SELECT json_extract_string(json, [
        '$.event', '$.properties.time', '$.properties.distinct_id', '$.properties."$insert_id"', '$.properties'
    ]) AS found
    FROM read_ndjson_objects('{folder}/*.gz')
);
"""


@dataclass(frozen=True, slots=True)
class Run:
    """What one run took, and the bytes of its database file."""

    cost: Cost
    file: int


def export(url: str, folder: Path) -> None:
    """Ours: the async door, default settings, no limits."""
    anyio.run(
        partial(
            export_events,
            FIRST,
            LAST,
            db=folder / DATABASE,
            credentials=ACCOUNT,
            api_url=url,
            per_second=0,
            per_hour=0,
        )
    )


def power_user(url: str, folder: Path) -> None:
    """Theirs: raw bodies into files, then one statement."""
    anyio.run(_download, url, folder)
    with duckdb.connect(str(folder / DATABASE)) as connection:
        connection.execute("SET preserve_insertion_order = false; SET enable_progress_bar = false")
        connection.execute(LOAD.format(folder=folder))


async def _download(url: str, folder: Path) -> None:
    chunks = plan(FIRST, LAST, trust=False, requests=None, open_from=open_from(datetime.now(UTC))).chunks
    limiter = anyio.CapacityLimiter(WORKERS)
    auth = httpx.BasicAuth(ACCOUNT.username or "", ACCOUNT.secret)
    async with (
        httpx.AsyncClient(base_url=url, auth=auth, timeout=600) as client,
        anyio.create_task_group() as group,
    ):
        for chunk in chunks:
            group.start_soon(_download_chunk, client, limiter, chunk, folder)


async def _download_chunk(
    client: httpx.AsyncClient, limiter: anyio.CapacityLimiter, chunk: Chunk, folder: Path
) -> None:
    asked = {
        "project_id": ACCOUNT.project_id,
        "from_date": str(chunk.first),
        "to_date": str(chunk.last),
    }
    async with limiter, client.stream("GET", "/api/2.0/export", params=asked) as response:
        response.raise_for_status()
        with (folder / f"{chunk.first}.gz").open("wb") as file:
            async for piece in response.aiter_raw():
                file.write(piece)


def check_exact(db: Path, truth: Truth) -> None:
    """Compare all columns of every row, the text of the properties too, with what the simulator has.

    Raises:
        SystemExit: they differ.
    """
    if in_own_process(stored, db) != (truth.distinct, truth.checksum):
        raise SystemExit("the table of export_events does not hold exactly the simulator's events")


def check_rows(db: Path, truth: Truth) -> None:
    """Compare the number of rows with the lines that the simulator sent: duplicates are kept, text is not.

    Raises:
        SystemExit: they differ.
    """
    rows = in_own_process(counted, db)
    if rows != truth.rows:
        raise SystemExit(f"the power user's table has {rows} rows, and {truth.rows} were sent")


@dataclass(frozen=True, slots=True)
class Way:
    """One of the two ways to fill a table, and how its result is checked."""

    name: str
    work: Callable[[str, Path], None]
    check: Callable[[Path, Truth], None]

    def run(self, url: str, truth: Truth, folder: Path | None) -> Run:
        """Fill a new database in a new folder, check it, and remove it."""
        with tempfile.TemporaryDirectory(dir=folder) as run:
            cost = cost_of(self.work, url, Path(run))
            db = Path(run, DATABASE)
            size = sum(file.stat().st_size for file in db.parent.glob(f"{DATABASE}*"))
            self.check(db, truth)
        return Run(cost, size)


OURS = Way("A: export_events", export, check_exact)
THEIRS = Way("B: power user", power_user, check_rows)


def pairs(url: str, truth: Truth, *, rounds: int, folder: Path | None) -> list[tuple[Run, Run]]:
    """Run both ways *rounds* times, A first and B first in turn, after one round that does not count."""
    measured = []
    for number in range(rounds + 1):
        order = [OURS, THEIRS] if number % 2 else [THEIRS, OURS]
        runs = {way.name: way.run(url, truth, folder) for way in order}
        measured.append((runs[OURS.name], runs[THEIRS.name]))
    return measured[1:]


def table(measured: Sequence[tuple[Run, Run]]) -> str:
    """Return the figures as a Markdown table: median (least to greatest)."""
    lines = ["| | wall s | CPU s | peak RSS MB | file MB |", "|---|---|---|---|---|"]
    for way, runs in zip((OURS, THEIRS), zip(*measured, strict=True), strict=True):
        cells = [
            spread([run.cost.wall for run in runs]),
            spread([run.cost.cpu for run in runs]),
            spread([run.cost.peak / 1e6 for run in runs], digits=0),
            spread([run.file / 1e6 for run in runs], digits=1),
        ]
        lines.append(f"| {way.name} | {' | '.join(cells)} |")
    wall = [theirs.cost.wall / ours.cost.wall for ours, theirs in measured]
    cpu = [theirs.cost.cpu / ours.cost.cpu for ours, theirs in measured]
    lines.append(f"| B / A, pair by pair | {spread(wall)} | {spread(cpu)} | | |")
    return "\n".join(lines)


def main() -> None:
    """Measure, check, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--scale", type=float, default=0.25, metavar="X", help="1 is 1,000,000 events")
    parser.add_argument("--rounds", type=int, default=5, metavar="N", help="pairs after the warm-up")
    parser.add_argument("--folder", type=Path, help="where the files go meanwhile; default: the system's")
    given = parser.parse_args()
    per_day = round(given.scale * 1_000_000 / DAYS)
    limits_off = {"per_second": 0, "per_hour": 0, "concurrent": 0}
    with served(FIRST, LAST, events_per_day=per_day, cache_bytes=1 << 34, **limits_off) as (url, truth):
        print(f"{machine()}; {truth.rows:,} lines of {DAYS} days, {given.rounds} pairs\n", flush=True)
        print(table(pairs(url, truth, rounds=given.rounds, folder=given.folder)))


if __name__ == "__main__":
    main()
