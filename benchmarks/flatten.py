"""Measures flat tables: the first run, the run after one new day of a hundred, and queries over columns instead of JSON.

The reference for the first run is one `json_extract` with a list of the same keys, and the INSERT of its values as JSON. The
events have 16 keys, or about 60 more than the simulator's. The number of events applies at `--scale 1`.
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

from mixpanel_export._database.connection import Connection, connect, connected_for_export, quoted
from mixpanel_export._flat.flatten import Request, flatten
from mixpanel_export._flat.values import json_values

if TYPE_CHECKING:
    from matplotlib.figure import Figure

DAYS = 100
EVENTS = 1_000_000
QUERIES = {
    "total per country": (
        """SELECT properties->>'mp_country_code', sum((properties->>'$."$screen_width"')::BIGINT) FROM events GROUP BY 1""",
        'SELECT mp_country_code, sum("$screen_width") FROM events_flat GROUP BY 1',
    ),
    "browser by system": (
        """SELECT properties->>'$."$os"', properties->>'$."$browser"', count(*) FROM events GROUP BY ALL""",
        'SELECT "$os", "$browser", count(*) FROM events_flat GROUP BY ALL',
    ),
    "filter on three": (
        """SELECT count(*) FROM events WHERE properties->>'$."$os"' = 'iOS' AND properties->>'$."$city"' = 'London' AND properties->>'mp_lib' = 'swift'""",
        """SELECT count(*) FROM events_flat WHERE "$os" = 'iOS' AND "$city" = 'London' AND mp_lib = 'swift'""",
    ),
}
_KEPT = ("time", "distinct_id", "$device_id", "$os", "$browser", "$browser_version", "$screen_height", "$screen_width",
         "$city", "$region", "mp_country_code", "mp_lib", "$lib_version", "account_id", "$insert_id", "plan")  # fmt: skip
_ADDED = (
    "hash(insert_id, {n}) % 1000",
    "(hash(insert_id, {n}) % 100000) / 100",
    "'\"' || ['google', 'newsletter', 'direct', 'partner'][(hash(insert_id, {n}) % 4)::INTEGER + 1] || '\"'",
    "CASE WHEN hash(insert_id, {n}) % 2 = 0 THEN 'true' ELSE 'false' END",
)

PEAK = Bar("flatten: peak RSS of the first run", 450, at_most=True, unit="MB")
FASTER = Bar("flatten: CPU of a query over JSON ÷ over columns", 50, at_most=False)


@dataclass(frozen=True, slots=True)
class Run:
    """CPU seconds, and the peak memory in MB of the first run and the next."""

    first: float
    next: float
    reference: float
    peak: float
    queries: tuple[float, ...]
    """For each query, the seconds over JSON divided by those over columns."""


def sixteen() -> str:
    """Return SQL for properties with 16 keys."""
    members = (f"'{key}', json_extract(properties, '/{key}')" for key in _KEPT)
    return f"json_object({', '.join(members)})"


def sixty() -> str:
    """Return SQL for the properties with 34 more keys, of all kinds."""
    members = (f"',\"added_{n}\":' || {_ADDED[n % 4].format(n=n)}" for n in range(34))
    return f"left(properties, -1) || {' || '.join(members)} || '}}'"


def prepared(db: Path, properties: str) -> None:
    """Replace the properties, and put the last batch aside."""
    with connect(db) as connection:
        connection.execute(f"UPDATE events SET properties = {properties}")
        connection.execute("CREATE TABLE last_ledger AS FROM _export_batches ORDER BY batch DESC LIMIT 1")
        connection.execute(
            "CREATE TABLE last_events AS FROM events WHERE export_batch IN (SELECT batch FROM last_ledger)"
        )
        for table, column in (("events", "export_batch"), ("_export_batches", "batch")):
            connection.execute(f"DELETE FROM {table} WHERE {column} IN (SELECT batch FROM last_ledger)")


def measured(db: Path) -> Run:
    """Flatten, add the last batch, flatten again, run the reference and the queries."""
    with connected_for_export(db) as connection:
        first = _cpu(lambda: flatten(connection, db, Request()))
        connection.execute("INSERT INTO events FROM last_events")
        connection.execute("INSERT INTO _export_batches FROM last_ledger")
        following = _cpu(lambda: flatten(connection, db, Request()))
        peak = _peak() / 1e6
        queries = tuple(
            _cpu(partial(_all, connection, slow)) / max(_cpu(partial(_all, connection, fast)), 1e-4)
            for slow, fast in QUERIES.values()
        )
        return Run(first, following, _cpu(lambda: _reference(connection)), peak, queries)


def _cpu(work: Callable[[], object]) -> float:
    before = time.process_time()
    work()
    return time.process_time() - before


def _all(connection: Connection, query: str) -> list[tuple[object, ...]]:
    return connection.execute(query).fetchall()


def _reference(connection: Connection) -> None:
    keys = [key for (key,) in _all(connection, "SELECT key FROM _flat_columns ORDER BY position")]
    base = "event_name, event_time, distinct_id, insert_id, export_batch"
    columns = ", ".join(f"{quoted(f'c{place}')} JSON" for place in range(len(keys)))
    values = ", ".join(f"v[{place}]" for place in range(1, len(keys) + 1))
    connection.execute(f"CREATE TABLE reference AS SELECT {base} FROM events LIMIT 0")
    for column in columns.split(", "):
        connection.execute(f"ALTER TABLE reference ADD COLUMN {column}")
    connection.execute(
        f"INSERT INTO reference SELECT {base}, {values} "
        f"FROM (SELECT {base}, {json_values(map(str, keys), 'none')} AS v FROM events)"
    )


def run(url: str, properties: str, within: Path | None) -> Run:
    """Export into a new file, and measure in a process of its own."""
    with new_folder(within) as folder:
        db = folder / "events.duckdb"
        export(url, FIRST, day(DAYS - 1), db, chunk_days=1)
        prepared(db, properties)
        return in_own_process(measured, db)


def table(results: dict[str, list[Run]]) -> str:
    """Return the figures as a Markdown table: median (minimum to maximum)."""
    rows = []
    for name, runs in results.items():
        seconds = [spread([getattr(run, part) for run in runs]) for part in ("first", "next", "reference")]
        rows.append([name, *seconds, spread([run.peak for run in runs], digits=0)])
    return markdown(["CPU s", "first", "after a day", "reference", "peak RSS MB"], rows)


def queries_table(results: dict[str, list[Run]]) -> str:
    """Return how many times as fast each query is."""
    rows = [
        [query, *(spread([run.queries[place] for run in runs], digits=0) for runs in results.values())]
        for place, query in enumerate(QUERIES)
    ]
    return markdown(["times as fast", *results], rows)


def bars(results: dict[str, list[Run]]) -> list[tuple[Bar, Sequence[float]]]:
    """Return the values for each bar."""
    values: list[tuple[Bar, Sequence[float]]] = []
    for name, runs in results.items():
        ratio = Bar(f"flatten: CPU of the first run ÷ reference, {name}", 2.0, at_most=True)
        day_bar = Bar(f"flatten: CPU after a day ÷ first run, {name}", 0.03, at_most=True)
        values.append((ratio, [each.first / each.reference for each in runs]))
        values.append((day_bar, [each.next / each.first for each in runs]))
    every = [each for runs in results.values() for each in runs]
    return [*values, (PEAK, [each.peak for each in every]), (FASTER, [min(each.queries) for each in every])]


def draw(results: dict[str, list[Run]], figure: "Figure") -> None:
    """Draw the first run beside the reference."""
    for axes, (name, runs) in zip(figure.subplots(1, 2), results.items(), strict=True):
        parts = [(part, [getattr(each, part) for each in runs]) for part in ("first", "reference")]
        horizontal(axes, name, "CPU seconds", parts)


def main() -> None:
    """Measure, and publish tables and a plot."""
    arguments = options("--scale", "--rounds", "--folder", "--results", description=__doc__, rounds=3)
    events = max(1, round(arguments.scale * EVENTS / DAYS))
    content = {"events_per_day": events, "weekday_pattern": False, "first_day": FIRST}
    cases = {"16 keys": sixteen(), "60 keys": sixty()}
    with serve(FIRST, day(DAYS - 1), concurrent=0, **content, **UNLIMITED) as (url, _):
        results = {
            name: [run(url, properties, arguments.folder) for _ in range(arguments.rounds)]
            for name, properties in cases.items()
        }
    publish(
        "flatten",
        f"Flat tables of {events * DAYS:,} events in {DAYS} days",
        arguments,
        [table(results), queries_table(results)],
        bars=bars(results),
        draw=partial(draw, results),
    )


if __name__ == "__main__":
    main()
