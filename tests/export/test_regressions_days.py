"""Regressions about refusals and days: errors of the server, holes, midnight, and what callers are told."""

import json
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import anyio
import anyio.abc
import httpx
import pytest
import regressions
from click.testing import CliRunner
from examples import slow
from lines import ONE_DAY
from regressions import DAYS, FIFTH, FIRST, LAST
from support import NOW, export, held, ledger, query, simulator, truth

from mixpanel_export import (
    AuthenticationError,
    BatchProgress,
    FutureDateError,
    NetworkError,
    QueryError,
    TableExistsError,
    TableNotFoundError,
    Timeouts,
    Workspace,
)
from mixpanel_export.cli import cli
from mixpanel_export.simulator import Fault, Rules, Simulator

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("account_in_environment")]

sim = regressions.sim
url = regressions.url

SHAPES = ["seen", "error", *slow(["request", "status", "text"])]


@pytest.mark.parametrize("kind", ["400", "402", *slow(["403", "404"])])
async def test_a_refusal_is_not_retried(db: Path, kind: Any) -> None:
    """A rejection by the server costs one request, and the caller gets its text and status."""
    sim = simulator(faults=[Fault(kind, text="because & therefore " + "x" * 1000)])
    with pytest.raises(QueryError, match=f"{kind}.*because & therefore") as caught:
        await export(sim, db, max_workers=1)
    assert (len(sim.requests), caught.value.status_code) == (1, int(kind))
    assert len(caught.value.response_body or "") == 500


@pytest.mark.parametrize("kind", ["auth_text_400", *slow(["401", "auth_text_200"])])
async def test_denied_credentials_cost_one_request_and_hint_at_the_region(db: Path, kind: Any) -> None:
    """However Mixpanel reports it: no retry, no data, and advice to check the region."""
    sim = simulator(faults=[Fault(kind)])
    with pytest.raises(AuthenticationError, match=r"region \(us, eu or in\)"):
        await export(sim, db, max_workers=1)
    assert len(sim.requests) == 1
    assert query(db, "SELECT count(*) FROM duckdb_tables() WHERE table_name = 'events'") == [(0,)]


async def test_a_redirect_leads_nowhere(db: Path) -> None:
    """Credentials go only to the configured address, not even to the same path with a slash."""
    sim = simulator(faults=[Fault("redirect")])
    with pytest.raises(QueryError, match=r"302.*API URL"):
        await export(sim, db, max_workers=1)
    assert len(sim.requests) == 1


async def test_an_unreachable_server_fails_every_batch_with_words(db: Path) -> None:
    """If no server listens, each batch fails with the address and the days after all attempts, and stays missing."""
    async with await anyio.create_tcp_listener(local_host="127.0.0.1") as listener:
        url = f"http://127.0.0.1:{listener.extra(anyio.abc.SocketAttribute.local_port)}"
    result = await export(simulator(), db, chunk_days=3, transport=None, api_url=url, retries=1)
    assert result.failed_batches == 3
    for error, (first, _) in zip(result.errors, result.failed_date_ranges, strict=True):
        assert isinstance(error, NetworkError)
        assert "127.0.0.1" in str(error)
        assert first in str(error)


@pytest.mark.parametrize(
    "where",
    [
        'properties["$city"] == "São Paulo"',
        'properties["page title"] == "Über-Uns/Über-Uns · Example" or not defined(properties["emoji 🎈 key"])',
        *slow(
            [
                'properties["$os"] in ["iOS", "Linux"] and user["$email"] != "a&b=c+d%20@e.f"',
                'event["$time"] >= datetime("2024-03-04T12:00:00")',
                'number(properties["mp_processing_time_ms"]) < 1709712000000',
            ]
        ),
    ],
)
async def test_a_where_expression_reaches_the_server_as_it_is(db: Path, where: str) -> None:
    """Quotes, characters with a meaning in URLs, and letters of any script are sent unchanged."""
    sim = simulator()
    result = await export(sim, db, where=where)
    assert sim.requests[0].params["where"] == where
    assert 0 < result.total_rows < sim.truth(FIRST, LAST).distinct
    assert held(db) == sim.truth(FIRST, LAST, where=where).checksum


@pytest.mark.parametrize("shape", ["request", "error", "status", "text"])
async def test_a_malformed_where_expression_stops_the_export(db: Path, shape: Any) -> None:
    """Whatever its text, a 400 costs one request, creates no table, and the error says where to look."""
    sim = simulator(rules=Rules(shape=shape, wording={"where": "no such selector"}))
    with pytest.raises(QueryError, match=r"400.*no such selector.*check the dates, events and where"):
        await export(sim, db, where='properties["$city" ==', max_workers=1)
    assert len(sim.requests) == 1
    assert query(db, "SELECT count(*) FROM duckdb_tables() WHERE table_name = 'events'") == [(0,)]


async def test_an_empty_answer_that_is_an_error_is_no_empty_day(db: Path) -> None:
    """The text of an error object that is the whole body of a 200 is reported."""
    sim = simulator(faults=[Fault("error_line", FIFTH, FIFTH, position=0)])
    result = await export(sim, db, retries=0, chunk_days=1)
    assert result.failed_date_ranges == (ONE_DAY,)
    assert "Internal server error" in str(result.errors[0])


async def test_an_export_that_its_table_forbids_asks_for_nothing(db: Path) -> None:
    """Whether the table exists is checked before any quota is used."""
    sim = simulator()
    with pytest.raises(TableNotFoundError):
        await export(sim, db, mode="append")
    assert sim.requests == []
    await export(sim, db)
    asked = len(sim.requests)
    with pytest.raises(TableExistsError):
        await export(sim, db)
    assert len(sim.requests) == asked


@pytest.mark.parametrize("shape", SHAPES)
async def test_a_day_that_has_not_begun_fails_its_batch_only(db: Path, shape: Any) -> None:
    """The other days are exported, the day costs one request, and the error names the latest possible day."""
    sim = simulator(rules=Rules(shape=shape))
    result = await export(sim, db, "2024-05-28", "2024-06-02")
    assert result.failed_date_ranges == (("2024-06-02", "2024-06-02"),)
    (error,) = result.errors
    assert isinstance(error, FutureDateError)
    assert "use 2024-06-01 as to_date until 2024-06-02 has begun in the project's time zone" in str(error)
    assert [request.status for request in sim.requests].count(400) == 1
    assert held(db) == truth(sim, "2024-05-28", "2024-06-01")
    assert query(db, "SELECT status FROM _export_batches WHERE to_date = '2024-06-02'") == [("failed",)]


async def test_a_day_that_has_begun_meanwhile_is_fetched_by_resume(db: Path) -> None:
    """The day that was rejected is requested again, and succeeds."""
    clock = [NOW]
    sim = simulator(now=lambda: clock[0])
    await export(sim, db, "2024-05-28", "2024-06-02")
    clock[0] = NOW + timedelta(days=1)
    result = await export(sim, db, "2024-05-28", "2024-06-02", mode="resume", now=lambda: clock[0])
    assert result.failed_batches == 0
    assert held(db) == truth(sim, "2024-05-28", "2024-06-02")


@pytest.mark.parametrize("shape", SHAPES)
async def test_days_before_the_plans_history_stop_the_export_and_name_the_first_day(
    db: Path, shape: Any
) -> None:
    """The range is not changed silently: the error has the first day of the plan's history, which works."""
    sim = simulator(history_days=90, rules=Rules(shape=shape))
    with pytest.raises(QueryError, match=r"the plan's history starts on 2024-03-03"):
        await export(sim, db, "2024-02-01", "2024-03-09", max_workers=1, chunk_days=10)
    assert len(sim.requests) == 1
    await export(sim, db, "2024-03-03", "2024-03-09", mode="resume")
    assert held(db) == truth(sim, "2024-03-03", "2024-03-09")


async def test_midnight_during_an_export_changes_nothing_of_its_plan(db: Path) -> None:
    """The days are those of the start, and the day that was today at its request is not final."""
    hours = iter(range(1, 1000))
    sim = simulator()
    late = datetime(2024, 6, 1, 20, tzinfo=UTC)
    result = await export(
        sim, db, "2024-05-29", "2024-06-01", max_workers=1, now=lambda: late + timedelta(hours=next(hours))
    )
    assert result.failed_batches == 0
    assert max(str(request.last) for request in sim.requests) == "2024-06-01"
    assert ledger(db, "status")[-1] == ("open",)


@pytest.mark.parametrize("mode", ["resume", *slow(["append"])])
async def test_a_first_batch_that_fails_leaves_a_table_to_go_on_with(db: Path, mode: str) -> None:
    """If the first day fails after others were committed, the documented next step completes the table."""
    sim = simulator(faults=[Fault("500", last=FIRST)])
    result = await export(sim, db, retries=0, chunk_days=1)
    assert (result.successful_batches, result.failed_batches) == (8, 1)
    assert query(db, "SELECT from_date, to_date FROM _metadata") == [(date(2024, 3, 2), LAST)]
    sim.faults = []
    await export(sim, db, mode=mode)
    assert held(db) == truth(sim)


async def test_a_hole_is_never_claimed_to_be_held(db: Path) -> None:
    """Days that failed between others count as missing, and the selection is recorded."""
    sim = simulator(faults=[Fault("500", FIFTH, date(2024, 3, 6))])
    await export(sim, db, retries=0, chunk_days=1, events=["Sign Up", "Page View"])
    assert query(db, "SELECT from_date, to_date, missing_days FROM _metadata") == [(FIRST, LAST, 2)]
    assert {json.loads(events)[0] for (events,) in ledger(db, "events")} == {"Page View"}


@pytest.mark.parametrize("hole", [FIFTH, *slow([FIRST, LAST])])
async def test_the_latest_event_does_not_say_where_to_resume(db: Path, hole: date) -> None:
    """Resume fetches exactly the missing days, wherever they are."""
    sim = simulator(faults=[Fault("500", hole, hole)])
    await export(sim, db, retries=0, chunk_days=1)
    sim.faults = []
    asked = len(sim.requests)
    await export(sim, db, mode="resume")
    assert [(request.first, request.last) for request in sim.requests[asked:]] == [(hole, hole)]
    assert held(db) == truth(sim)


@pytest.mark.parametrize("mode", ["create", "replace", *slow(["append", "resume"])])
async def test_days_without_events_make_a_table(db: Path, mode: str) -> None:
    """If there are no events, a table without rows is created, in every mode."""
    sim = simulator(first_day=date(2025, 1, 1))
    if mode == "append":
        await export(sim, db, "2024-02-01", "2024-02-03")
    result = await export(sim, db, mode=mode)
    assert (result.failed_batches, result.total_rows) == (0, 0)
    assert query(db, "SELECT count(*) FROM events") == [(0,)]


async def test_a_failed_replacement_leaves_the_old_table(db: Path) -> None:
    """Until all new days are complete, the rows, the ledger and the metadata are the old ones."""
    sim = simulator()
    await export(sim, db)
    before = held(db), query(db, "SELECT * FROM _metadata")
    sim.faults = [Fault("terminated_early", date(2024, 3, 12))]
    result = await export(sim, db, "2024-03-10", "2024-03-12", mode="replace", retries=0)
    assert (result.failed_batches, result.total_rows) == (1, 0)
    assert (held(db), query(db, "SELECT * FROM _metadata")) == before


async def test_counts_are_not_of_32_bits(db: Path) -> None:
    """The ledger and the metadata can count more than 2^31 rows."""
    await export(simulator(), db, *ONE_DAY)
    counted = query(
        db,
        "SELECT table_name, column_name, data_type FROM duckdb_columns() WHERE column_name IN "
        "('rows', 'row_count', 'removed_duplicates', 'bytes_read') ORDER BY ALL",
    )
    assert {data_type for *_, data_type in counted} == {"BIGINT"}
    assert {("_export_batches", "rows"), ("_metadata", "row_count")} <= {
        (table, column) for table, column, _ in counted
    }


async def test_no_index_stands_between_an_event_and_its_table(db: Path) -> None:
    """A primary key would make each insert a search, and let one event replace another."""
    await export(simulator(), db, *ONE_DAY)
    found = "(SELECT table_name FROM duckdb_constraints() UNION ALL SELECT table_name FROM duckdb_indexes())"
    assert query(db, f"SELECT count(*) FROM {found} WHERE table_name = 'events'") == [(0,)]


@pytest.mark.parametrize("call", [4, *slow([1])])
async def test_a_callback_that_raises_neither_hangs_the_export_nor_loses_a_batch(db: Path, call: int) -> None:
    """The callback's exception ends the export, each batch in the ledger is complete, and `resume` fetches the rest."""
    sim = simulator()
    told: list[BatchProgress] = []

    def tell(batch: BatchProgress) -> None:
        told.append(batch)
        if len(told) == call:
            raise LookupError("mine")

    with pytest.raises(LookupError, match="mine"):
        await export(sim, db, "2024-02-25", "2024-03-09", chunk_days=1, on_batch_complete=tell)
    assert len(told) == call
    assert [row[0] for row in ledger(db, "rows") if row[0]] == [
        count
        for (count,) in query(db, "SELECT count(*) FROM events GROUP BY export_batch ORDER BY export_batch")
    ]
    await export(sim, db, "2024-02-25", "2024-03-09", mode="resume")
    assert held(db) == truth(sim, "2024-02-25", "2024-03-09")


def test_a_limit_beside_parallel_is_refused(sim: Simulator, url: str, db: Path) -> None:
    """It would apply to each request rather than to the export, so it is rejected without a request."""
    with (
        Workspace(path=db, api_url=url) as workspace,
        pytest.raises(ValueError, match="limit cannot be used with"),
    ):
        workspace.fetch_events(**DAYS, parallel=True, limit=5)
    words = f"export --from 2024-03-01 --to 2024-03-09 -p --limit 5 --api-url {url} --db {db}".split()
    assert CliRunner().invoke(cli, words).exit_code == 2
    assert sim.requests == []


async def test_years_fit_into_an_hour_of_quota(db: Path) -> None:
    """More days than there are requests in an hour are exported at once, and the server refuses none."""
    sim = simulator(events_per_day=1, per_hour=12)
    result = await export(sim, db, "2023-01-01", "2024-05-01", per_hour=12)
    assert result.failed_batches == 0
    assert {request.status for request in sim.requests} == {200}
    assert held(db) == truth(sim, "2023-01-01", "2024-05-01")


class Hanging(httpx.AsyncBaseTransport):
    """A network that never responds, and signals when enough requests wait for it."""

    def __init__(self, enough: int) -> None:
        self.asked = 0
        self.waiting = anyio.Event()
        self._enough = enough

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:  # noqa: ARG002 - httpx's signature
        self.asked += 1
        if self.asked == self._enough:
            self.waiting.set()
        await anyio.sleep_forever()
        raise AssertionError


async def test_cancelling_does_not_wait_for_pending_batches(db: Path) -> None:
    """A cancelled export ends although its requests hang, and sends no more requests."""
    network = Hanging(enough=2)
    async with anyio.create_task_group() as tasks:

        async def run() -> None:
            await export(simulator(), db, max_workers=2, chunk_days=1, transport=network)

        tasks.start_soon(run)
        await network.waiting.wait()
        tasks.cancel_scope.cancel()
    assert network.asked == 2


@pytest.mark.parametrize("retry_after", ["date", *slow(["seconds", "none"])])
async def test_a_429_is_waited_for(db: Path, retry_after: Any) -> None:
    """Whatever its text, a 429 is neither a failure of the batch nor an empty response."""
    fault = Fault("429", times=4, retry_after=0)
    sim = simulator(faults=[fault], limit_retry_after=retry_after)
    result = await export(sim, db, max_workers=1, retries=4)
    assert sim.hits(fault) == 4
    assert result.failed_batches == 0
    assert held(db) == truth(sim)


@pytest.mark.parametrize("kind", ["500", "timeout_error", *slow(["502", "503", "504"])])
async def test_every_failure_of_the_server_is_tried_again(db: Path, kind: Any) -> None:
    """500 and 503 are retried, and a timeout that has status 400; the error page is never read as rows."""
    sim = simulator(faults=[Fault(kind, times=3, retry_after=0)])
    days = "2024-03-04", "2024-03-06"
    result = await export(sim, db, *days, chunk_days=1)
    assert (result.failed_batches, result.rejects, len(sim.requests)) == (0, 0, 6)
    assert held(db) == truth(sim, *days)


async def test_a_slow_answer_is_not_cut_off_while_bytes_arrive(db: Path) -> None:
    """Only silence has a limit, so a response may take longer than every timeout."""
    sim = simulator(events_per_day=60, bandwidth=6000, piece=1000)
    result = await export(sim, db, *ONE_DAY, timeouts=Timeouts(connect=2, first_byte=2, idle=2), retries=0)
    sent = sum(request.bytes_sent for request in sim.requests)
    assert (result.failed_batches, sent > 12_000) == (0, True)
    assert held(db) == truth(sim, *ONE_DAY)
