"""One test for each way in which exporters are known to lose events, to double them, or not to say so.

All go through the public doors: the simulator, or lines written by hand, on one side, a real DuckDB file on
the other.
"""

import json
from collections import Counter
from collections.abc import Callable, Sequence
from datetime import date
from pathlib import Path
from typing import Any

import httpx
import pytest
import regressions
from click.testing import CliRunner
from examples import slow
from lines import END, ONE_DAY, export_lines, texts
from regressions import DAYS, FIFTH, FIRST, LAST
from support import answering, export, held, ledger, query, simulator, truth

from mixpanel_export import (
    APIError,
    Workspace,
    export_events,
    run_sync,
)
from mixpanel_export.cli import cli
from mixpanel_export.simulator import Fault, Simulator

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("account_in_environment")]

sim = regressions.sim
url = regressions.url


def by_call(url: str, db: Path) -> bool:
    """Export through `export_events`; return whether it succeeded."""
    days = DAYS["from_date"], DAYS["to_date"]
    return not run_sync(export_events, *days, db=db, chunk_days=3, retries=1, api_url=url).has_failures


def by_workspace(url: str, db: Path) -> bool:
    """The same through `Workspace.fetch_events` in parallel."""
    with Workspace(path=db, api_url=url) as workspace:
        return not workspace.fetch_events(**DAYS, parallel=True, chunk_days=3, retries=1).has_failures


def by_one_request(url: str, db: Path) -> bool:
    """The same in one request, whose failure is raised."""
    with Workspace(path=db, api_url=url) as workspace:
        try:
            workspace.fetch_events(**DAYS, retries=1)
        except APIError:
            return False
        return True


def by_shell(url: str, db: Path) -> bool:
    """The same through `mpx export`, whose exit code tells whether it succeeded."""
    words = (
        f"export --from 2024-03-01 --to 2024-03-09 --chunk-days 3 -p --retries 1 --api-url {url} --db".split()
    )
    return CliRunner().invoke(cli, [*words, str(db)]).exit_code == 0


DOORS = [by_one_request, by_shell, *slow([by_call, by_workspace])]


async def check_that_only_its_day_fails(sim: Simulator, fault: Fault, db: Path) -> None:
    """Export three days while *fault* breaks the second for good, then again without it."""
    days = "2024-03-04", "2024-03-06"
    sim.faults = [fault]
    result = await export(sim, db, *days, chunk_days=1, retries=2)
    assert sim.hits(fault) == 3
    assert result.failed_date_ranges == (ONE_DAY,)
    others = (*sim.rows(date(2024, 3, 4), date(2024, 3, 4)), *sim.rows(date(2024, 3, 6), date(2024, 3, 6)))
    assert result.total_rows == len(others) == query(db, "SELECT count(*) FROM events")[0][0]
    assert query(db, "SELECT count(*) FROM _export_rejects") == [(0,)]
    sim.faults = []
    await export(sim, db, *days, mode="resume")
    assert held(db) == truth(sim, *days)


@pytest.mark.parametrize("door", DOORS)
def test_a_terminated_early_trailer_is_never_a_success(
    sim: Simulator, url: str, db: Path, door: Callable[[str, Path], bool]
) -> None:
    """In every interface, an export whose stream ends with an error text fails, and no row of those days is stored."""
    sim.faults = [Fault("terminated_early", first=FIFTH, last=FIFTH)]
    assert not door(url, db)
    with Workspace(path=db, api_url=url) as workspace:
        if workspace.tables():
            where = "event_time >= '2024-03-05' AND event_time < '2024-03-06'"
            assert workspace.sql_scalar(f"SELECT count(*) FROM events WHERE {where}") == 0
        sim.faults = []
        workspace.fetch_events(**DAYS, resume=True)
    assert held(db) == truth(sim)


@pytest.mark.parametrize(
    "fault",
    [
        Fault("terminated_early", FIFTH, FIFTH, position=1, newline=False),
        Fault("terminated_early", FIFTH, FIFTH, text="words that nobody has seen yet"),
        Fault("error_line", FIFTH, FIFTH),
        Fault("cut_line", FIFTH, FIFTH),
        *slow(
            [
                Fault("terminated_early", FIFTH, FIFTH, position=0),
                Fault("terminated_early", FIFTH, FIFTH, text="export terminated early", newline=False),
                Fault("error_fragment", FIFTH, FIFTH, newline=False),
                Fault("error_line", FIFTH, FIFTH, position=0, newline=False),
            ]
        ),
    ],
    ids=lambda fault: f"{fault.kind}-{fault.position}-{fault.text}",
)
@pytest.mark.parametrize("events", [*slow([3]), 40])
async def test_no_last_line_but_an_event_is_an_end(db: Path, fault: Fault, events: int) -> None:
    """If the last line is not an event, compressed or not, the export fails, and no row or reject of the body is stored."""
    await check_that_only_its_day_fails(simulator(events_per_day=events), fault, db)


@pytest.mark.parametrize("kind", ["close_before_head", "reset", *slow(["reset_before_head", "close"])])
async def test_a_broken_connection_is_never_a_success(db: Path, kind: Any) -> None:
    """What arrived before the connection broke is not stored."""
    await check_that_only_its_day_fails(simulator(), Fault(kind, FIFTH, FIFTH, position=0.9), db)


@pytest.mark.parametrize("position", [*slow([0.9]), 0.999])
@pytest.mark.parametrize("kind", ["truncated_gzip", "corrupt_crc", *slow(["trailing_garbage", "empty_body"])])
async def test_a_damaged_gzip_stream_is_never_a_success(db: Path, kind: Any, position: float) -> None:
    """What could be decompressed from a stream with a damaged end is not stored, even if it has every line."""
    await check_that_only_its_day_fails(simulator(), Fault(kind, FIFTH, FIFTH, position=position), db)


async def test_part_of_a_batch_is_never_kept(db: Path) -> None:
    """If a batch breaks just before its end, no row of it stays, not even those of whole days."""
    sim = simulator(faults=[Fault("cut_line", FIFTH, FIFTH, position=0.99)])
    result = await export(sim, db, chunk_days=3, retries=0)
    assert result.failed_date_ranges == (("2024-03-04", "2024-03-06"),)
    assert (
        result.total_rows
        == sim.truth(FIRST, date(2024, 3, 3)).distinct + sim.truth(date(2024, 3, 7), LAST).distinct
    )
    between = "event_time >= '2024-03-04' AND event_time < '2024-03-07'"
    assert query(db, f"SELECT count(*) FROM events WHERE {between}") == [(0,)]


async def test_an_error_line_never_becomes_an_event(db: Path) -> None:
    """An error among the events does not become an unnamed event in 1970, and the rest of the body is not trusted."""
    asked = 0

    def answer(_: httpx.Request) -> bytes:
        nonlocal asked
        asked += 1
        return b'{"event":"e","properties":{"n":1}}\n{"error": "something"}\n' + END

    result = await export(simulator(), db, *ONE_DAY, transport=answering(answer))
    assert (asked, result.rejects) == (2, 1)
    assert query(db, "SELECT event_name FROM events ORDER BY 1") == [("e",), ("end",)]
    assert query(db, "SELECT reason, line FROM _export_rejects") == [("rejected", b'{"error": "something"}')]


async def test_a_malformed_line_is_never_skipped_in_silence(db: Path) -> None:
    """A line between events that is not an event is stored verbatim, and counted in the result and the ledger."""
    sim = simulator(faults=[Fault("garbage_line")])
    result = await export(sim, db, chunk_days=3)
    assert (result.failed_batches, result.rejects, len(sim.requests)) == (0, 3, 6)
    assert held(db) == truth(sim)
    assert query(db, "SELECT line FROM _export_rejects") == [(b"this line is no event",)] * 3
    assert ledger(db, "rejects") == [(1,)] * 3


@pytest.mark.parametrize(
    "kind", ["reset", "terminated_early", *slow(["close", "truncated_gzip", "garbage_line"])]
)
async def test_a_retry_never_doubles_events_without_an_insert_id(db: Path, kind: Any) -> None:
    """Their copies cannot be recognized, but each is in the table once, even after attempts that broke late."""
    sim = simulator(missing_insert_id=1.0, faults=[Fault(kind, times=5, position=0.9)])
    result = await export(sim, db, chunk_days=3)
    assert query(db, "SELECT count(*) FROM events WHERE insert_id <> ''") == [(0,)]
    assert result.total_rows == sim.truth(FIRST, LAST).rows
    assert held(db) == truth(sim)


@pytest.mark.parametrize("kind", ["reset", "terminated_early"])
def test_a_stream_never_yields_an_event_twice(sim: Simulator, url: str, db: Path, kind: Any) -> None:
    """After an attempt that broke late, `stream_events` yields each line of the complete response once."""
    sim.faults = [Fault(kind, times=2, position=0.9)]
    with Workspace(path=db, api_url=url) as workspace:
        streamed = Counter(event["properties"].get("$insert_id") for event in workspace.stream_events(**DAYS))
    sent = Counter(json.loads(line)["properties"].get("$insert_id") for line in sim.lines(FIRST, LAST))
    assert streamed == sent


def version(event: str, time: int, distinct_id: str, processed: int) -> bytes:
    properties = {
        "time": time,
        "distinct_id": distinct_id,
        "$insert_id": "x",
        "mp_processing_time_ms": processed,
    }
    return json.dumps({"event": event, "properties": properties}, separators=(",", ":")).encode()


async def test_events_that_share_an_insert_id_all_stay(db: Path) -> None:
    """An `$insert_id` alone does not identify an event: another name, time or user is another event."""
    lines = [
        version("a", 1, "u", 5),
        version("b", 1, "u", 5),
        version("a", 2, "u", 5),
        version("a", 1, "v", 5),
    ]
    result = await export_lines(db, *lines)
    assert result.removed_duplicates == 0
    assert texts(db) == Counter(line.decode().split('"properties":')[1][:-1] for line in lines)


@pytest.mark.parametrize("order", [(5, 7, 6), *slow([((7, 6, 5),), ((6, 5, 7),)])])
async def test_of_the_versions_of_an_event_the_newest_stays(db: Path, order: Sequence[int]) -> None:
    """In any order, the version that Mixpanel processed last is in the table."""
    result = await export_lines(db, *[version("a", 1, "u", processed) for processed in order])
    assert result.removed_duplicates == 2
    assert [json.loads(text)["mp_processing_time_ms"] for text in texts(db)] == [7]


async def test_equal_lines_without_an_insert_id_all_stay(db: Path) -> None:
    """They cannot be identified as one event, so each is a row."""
    line = b'{"event":"e","properties":{"time":1,"distinct_id":"u"}}'
    result = await export_lines(db, line, line, line)
    assert (result.total_rows, result.removed_duplicates) == (4, 0)


async def test_events_that_are_sent_with_a_neighbouring_day_are_there_once(db: Path) -> None:
    """The table has each event once, whether or not a day's response also has events of other days."""
    sim = simulator(leaks=0.2, strays=0.1, events_per_day=60)
    await export(sim, db, chunk_days=1)
    assert sum(rows for (rows,) in ledger(db, "outside_rows")) > 0
    assert held(db) == truth(sim)


async def test_nothing_of_a_failed_attempt_stays(db: Path) -> None:
    """If the second response has different events in a different order, the table has only those of the second."""
    bodies = iter([[b"1", b"2", b"3"], [b"3", b"4"]])
    ends = iter([b"terminated early", END])

    def answer(_: httpx.Request) -> bytes:
        lines = [b'{"event":"e","properties":{"n":' + number + b"}}" for number in next(bodies)]
        return b"\n".join([*lines, next(ends)])

    await export(simulator(), db, *ONE_DAY, transport=answering(answer))
    assert texts(db) == {'{"n":3}': 1, '{"n":4}': 1}
