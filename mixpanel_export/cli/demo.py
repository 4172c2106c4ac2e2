"""`mpx demo`: exports events in parallel from a simulated Mixpanel, and checks every event."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, timedelta
from typing import TYPE_CHECKING, Any

import click

from mixpanel_export.cli import program
from mixpanel_export.cli.log import log_format_option, logs_json, say
from mixpanel_export.cli.options import option
from mixpanel_export.cli.report import quoted
from mixpanel_export.cli.run_export import log_result
from mixpanel_export.cli.simulate import SECRET, USERNAME
from mixpanel_export.cli.watch import messages, watching
from mixpanel_export.errors import TableExistsError
from mixpanel_export.results import ParallelFetchResult

if TYPE_CHECKING:
    from mixpanel_export.simulator import Simulator
    from mixpanel_export.workspace import Workspace

EXAMPLES = """\b
Examples:
  mpx demo
  mpx demo --days 30 --events-per-day 10000 --db big.duckdb
"""

FIRST_DAY = date(2024, 1, 1)
TABLE = "events"
PROJECT = "demo-"  # prefix, followed by the number of events per day
# Seconds. The server is slow enough to limit the export's speed, as Mixpanel does, and fast enough to watch.
FIRST_BYTE, SECONDS_PER_DAY = 0.5, 0.8
UNUSUAL_SHARE = (
    0.002  # share of events with an unusual or missing time or id; these must be exported exactly, too
)

TOP_EVENTS = f"SELECT event_name, count(*) AS events FROM {TABLE} GROUP BY ALL ORDER BY events DESC LIMIT 4"
ROWS = f"SELECT event_name, event_time, distinct_id, insert_id, properties::VARCHAR FROM {TABLE}"
TABLES = "SELECT lower(table_name) FROM information_schema.tables WHERE table_catalog = current_database() AND table_schema = 'main'"
PROJECTS = f"SELECT DISTINCT project FROM _export_batches WHERE lower(table_name) = '{TABLE}'"


@dataclass(frozen=True, slots=True)
class Outcome:
    """The result of the demo."""

    simulator: "Simulator"
    result: ParallelFetchResult
    days: int
    exact: bool
    """Whether the table holds exactly the simulator's events."""
    top: list[tuple[Any, ...]]
    """The most frequent events, with their counts."""


@click.command("demo", short_help="Run a parallel export without an account.", epilog=EXAMPLES)
@option(
    "--db",
    default="mpx-demo.duckdb",
    metavar="PATH",
    help="DuckDB file; the `events` table of an earlier demo is replaced.",
)
@option("--days", type=click.IntRange(1, 365), metavar="N", default=90, help="Days to export.")
@option(
    "--events-per-day", type=click.IntRange(1), metavar="N", default=2000, help="Events on an average day."
)
@option("--no-progress", is_flag=True, help="Hide the bars and the line per batch.")
@log_format_option
@click.pass_context
def command(ctx: click.Context, db: str, days: int, events_per_day: int, no_progress: bool) -> None:
    """Export 90 days from a simulated Mixpanel in parallel, and compare every event with the original.

    The demo needs no account and no network. The simulator runs in this process, on 127.0.0.1, with Mixpanel's limits.
    """
    _check_table(db)
    say(f"Exporting {days} days from a simulated Mixpanel on 127.0.0.1 into {db}.")
    with messages(quiet=False, verbose=False):
        outcome = _run(db, days, events_per_day, shown=not no_progress)
    if logs_json():
        log_result(outcome.result)
    click.echo("\n".join(_summary_lines(outcome, db)))
    if not outcome.exact:
        ctx.exit(1)


def _check_table(db: str) -> None:
    """Raise `TableExistsError` if the file's events table was not written by a demo."""
    from mixpanel_export._database.path import database_path
    from mixpanel_export.workspace import Workspace

    if not database_path(db).exists():
        return
    with Workspace(path=db, read_only=True) as workspace:
        tables = {name for (name,) in workspace.connection.execute(TABLES).fetchall()}
        if TABLE not in tables:
            return
        recorded = "_export_batches" in tables
        projects = workspace.connection.execute(PROJECTS).fetchall() if recorded else []
    if not projects or not all((project or "").startswith(PROJECT) for (project,) in projects):
        raise TableExistsError(
            TABLE,
            f"{db} has an events table that was not written by `mpx demo`",
            advice="choose another --db",
        )


def _run(db: str, days: int, events_per_day: int, *, shown: bool) -> Outcome:
    from mixpanel_export.simulator import Simulator
    from mixpanel_export.sync import run_sync
    from mixpanel_export.workspace import Workspace

    last = FIRST_DAY + timedelta(days=days - 1)
    # The project id contains the number of events, so that a demo with another number does not continue an
    # interrupted one.
    project_id = f"{PROJECT}{events_per_day}"
    simulator = Simulator(
        events_per_day=events_per_day,
        odd=UNUSUAL_SHARE,
        username=USERNAME,
        secret=SECRET,
        project_id=project_id,
        first_byte=FIRST_BYTE,
        seconds_per_day=SECONDS_PER_DAY,
    )
    say("Generating the simulator's events.")
    simulator.prepare(FIRST_DAY, last)
    result = run_sync(_export, simulator, project_id, db, last, shown=shown)
    say("Comparing every event in the file with the original.")
    with Workspace(path=db, read_only=True) as workspace:
        top = workspace.connection.execute(TOP_EVENTS).fetchall()
        return Outcome(simulator, result, days, is_exact(simulator, last, workspace), top)


async def _export(
    simulator: "Simulator", project_id: str, db: str, last: date, *, shown: bool
) -> ParallelFetchResult:
    from mixpanel_export._export.engine import export_events
    from mixpanel_export.credentials import Credentials

    credentials = Credentials(USERNAME, SECRET, project_id)
    with watching(TABLE, title="demo", shown=shown) as (on_batch, on_progress):
        async with simulator.serve() as url:
            return await export_events(
                FIRST_DAY,
                last,
                db=db,
                table=TABLE,
                credentials=credentials,
                mode="replace",
                on_batch_complete=on_batch,
                on_progress=on_progress,
                api_url=url,
                per_second=3,
                per_hour=60,
            )


def is_exact(simulator: "Simulator", last: date, workspace: "Workspace") -> bool:
    """Whether the table holds exactly the simulator's events. All columns are compared, `properties` as text."""
    from mixpanel_export.simulator import checksum

    truth = simulator.truth(FIRST_DAY, last)
    cursor = workspace.connection.execute(ROWS)

    def rows() -> Iterator[tuple[Any, ...]]:
        while group := cursor.fetchmany(10_000):
            yield from group

    return checksum(rows()) == truth.checksum


def _summary_lines(outcome: Outcome, db: str) -> Iterator[str]:
    result, days = outcome.result, outcome.days
    requests, concurrent = len(outcome.simulator.requests), outcome.simulator.max_concurrent
    single_request_seconds = FIRST_BYTE + days * SECONDS_PER_DAY
    yield f"exported  {result.total_rows:,} events in {result.duration_seconds:.1f} s with {requests} requests, up to {concurrent} at a time"
    received = result.total_rows + result.removed_duplicates
    yield f"received  {received:,} events, of which {result.removed_duplicates:,} were removed as duplicates (Mixpanel sends duplicates, too)"
    yield f"computed  one request would take {single_request_seconds:.1f} s ({FIRST_BYTE} s to the first byte, {SECONDS_PER_DAY} s per day)"
    if outcome.exact:
        yield "compared  identical to the simulator's events in every column and in the text of properties"
    else:
        yield "compared  NOT identical to the simulator's events; please report this"
    yield f"\n{TOP_EVENTS}"
    width = max(len(str(name)) for name, _ in outcome.top)
    for name, events in outcome.top:
        yield f"  {name:<{width}}  {events:>9,}"
    yield f"\nNext: open {db} with DuckDB, or export your own project: {quoted([program()])} export --help"
