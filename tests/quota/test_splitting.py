"""Chunks whose responses break are fetched in pieces."""

from datetime import date
from itertools import pairwise
from pathlib import Path
from typing import Any

import anyio
import httpx
import pytest
import virtual_exports
from examples import slow
from support import Body, held, ledger, query, truth
from trio.testing import MockClock
from virtual_exports import (
    DAY,
    FIRST,
    LAST,
    SEVENTH,
    TEN_DAYS,
    Run,
    always_bad,
    days_of,
    export,
    gaps,
    simulator_on,
    truth_without,
)

from mixpanel_export.errors import (
    AuthenticationError,
)
from mixpanel_export.results import BatchProgress, ParallelFetchResult, Progress
from mixpanel_export.simulator import Fault

db = virtual_exports.db
mock_clock = virtual_exports.mock_clock
run = virtual_exports.run


BREAKING = ["terminated_early", "stall", *slow(["reset", "truncated_gzip", "504"])]


@pytest.mark.parametrize("kind", BREAKING)
def test_a_day_that_always_breaks_costs_itself_alone(
    db: Path, mock_clock: MockClock, run: Run, kind: str
) -> None:
    """Nine of ten days are in the table, one is reported, with as many requests as the policy needs, 15.

    Ten, five and two days break twice each, the other halves of five, three and one come at once, and the day
    itself is asked for six times.
    """
    sim = simulator_on(mock_clock, faults=[always_bad(kind)])
    told: list[BatchProgress] = []
    result = run(lambda: export(sim, db, *TEN_DAYS, chunk_days=10, on_batch_complete=told.append))
    assert result.failed_date_ranges == (("2024-03-07", "2024-03-07"),)
    assert result.total_rows == truth_without(sim, SEVENTH)
    assert (result.successful_batches, result.failed_batches) == (0, 1)
    assert query(db, "SELECT count(*) FROM events WHERE event_time::DATE = '2024-03-07'") == [(0,)]
    assert sorted(days_of(sim.requests)) == [1] * 7 + [2, 2, 3, 5, 5, 5, 10, 10]
    [batch] = told
    assert (batch.from_date, batch.to_date) == TEN_DAYS
    assert (batch.batch_index, batch.total_batches, batch.success) == (0, 1, False)
    assert batch.rows == result.total_rows
    assert "2024-03-07" in (batch.error or "")


def test_pieces_have_rows_of_the_ledger_and_resume_fetches_the_bad_day_alone(
    db: Path, mock_clock: MockClock, run: Run
) -> None:
    """The ledger has a row for each piece, together each day once; later one request completes the table."""
    sim = simulator_on(mock_clock, faults=[always_bad("reset")])
    run(lambda: export(sim, db, *TEN_DAYS, chunk_days=10))
    rows = ledger(db, "from_date, to_date, status, attempts")
    assert (rows[0][0], rows[-1][1]) == (FIRST, LAST)
    assert all(earlier[1] + DAY == later[0] for earlier, later in pairwise(rows))
    assert {row[0]: (row[2], row[3]) for row in rows if row[2] != "complete"} == {SEVENTH: ("failed", 6)}
    assert {row[3] for row in rows if row[2] == "complete"} == {1}
    sim.faults = []
    asked = len(sim.requests)
    resumed = run(lambda: export(sim, db, *TEN_DAYS, mode="resume"))
    assert [(request.first, request.last) for request in sim.requests[asked:]] == [(SEVENTH, SEVENTH)]
    assert resumed.failed_batches == 0
    assert held(db) == truth(sim, *TEN_DAYS)
    assert {row[2] for row in ledger(db)} == {"complete"}


def test_a_chunk_that_is_too_large_succeeds_in_pieces_as_one_batch(
    db: Path, mock_clock: MockClock, run: Run
) -> None:
    """If the server cannot send more than three days, the batch is one success, reported once with all rows."""
    sim = simulator_on(mock_clock)
    wire = sim.transport()

    async def limited(request: httpx.Request) -> httpx.Response:
        first, last = (date.fromisoformat(request.url.params[name]) for name in ("from_date", "to_date"))
        if (last - first).days >= 3:
            return httpx.Response(400, stream=Body([b'{"error": "Timeout Error."}']))
        return await wire.handle_async_request(request)

    told: list[BatchProgress] = []
    seen: list[Progress] = []
    result = run(
        lambda: export(
            sim, db, *TEN_DAYS, chunk_days=5, transport=httpx.MockTransport(limited), on_batch_complete=told.append,
            on_progress=seen.append,
        )
    )  # fmt: skip
    assert held(db) == truth(sim, *TEN_DAYS)
    assert sorted(days_of(sim.requests)) == [2, 2, 3, 3]
    assert (result.successful_batches, result.failed_batches, result.failed_date_ranges) == (2, 0, ())
    assert [(batch.total_batches, batch.success, batch.error) for batch in told] == [(2, True, None)] * 2
    assert sorted(batch.batch_index for batch in told) == [0, 1]
    assert sum(batch.rows for batch in told) == result.total_rows
    assert seen[-1].rows == result.total_rows + result.removed_duplicates
    assert (seen[-1].batches, seen[-1].batches_done, seen[-1].requests, seen[-1].retries) == (2, 2, 6, 0)


def test_the_servers_own_time_out_splits_at_once(db: Path, mock_clock: MockClock, run: Run) -> None:
    """After one `Timeout Error.`, the halves are requested almost without a pause."""
    sim = simulator_on(mock_clock, faults=[Fault("timeout_error", times=1)])
    run(lambda: export(sim, db, *TEN_DAYS, chunk_days=10))
    assert days_of(sim.requests) == [10, 5, 5]
    assert max(gaps(sim)) < 1
    assert held(db) == truth(sim, *TEN_DAYS)


@pytest.mark.parametrize("per_hour, sizes", [(6, [10, 5, 5]), (5, [10, 10])])
def test_no_split_where_the_hour_has_no_room(
    db: Path, mock_clock: MockClock, run: Run, per_hour: int, sizes: list[int]
) -> None:
    """With fewer than five requests left, the chunk is requested again unchanged."""
    sim = simulator_on(mock_clock, faults=[Fault("timeout_error", times=1)])
    run(lambda: export(sim, db, *TEN_DAYS, chunk_days=10, per_hour=per_hour))
    assert days_of(sim.requests) == sizes
    assert held(db) == truth(sim, *TEN_DAYS)


def test_a_split_leaves_older_batches_whole(db: Path, mock_clock: MockClock, run: Run) -> None:
    """A boundary that would divide a visible batch moves to the batch's end; a batch that fills the chunk is not divided."""
    sim = simulator_on(mock_clock)
    run(lambda: export(sim, db, "2024-03-03", "2024-03-09", chunk_days=7))
    sim.faults = [Fault("timeout_error", times=1)]
    run(lambda: export(sim, db, *TEN_DAYS, chunk_days=10, mode="append"))
    assert sorted(days_of(sim.requests)[2:]) == [2, 8]
    sim.faults = [Fault("timeout_error", times=1)]
    run(lambda: export(sim, db, "2024-03-03", "2024-03-10", chunk_days=8, mode="append"))
    assert days_of(sim.requests)[4:] == [8, 8]
    assert held(db) == truth(sim, *TEN_DAYS)
    assert query(db, "SELECT count(*) FROM _export_batches") == [(2,)]


@pytest.mark.parametrize("kind", ["timeout_error", "reset"])
def test_a_limit_is_never_split(db: Path, mock_clock: MockClock, run: Run, kind: Any) -> None:
    """Two pieces would return twice the limit, so a limited request is only repeated."""
    sim = simulator_on(mock_clock, faults=[Fault(kind, times=3)])
    result = run(lambda: export(sim, db, *TEN_DAYS, limit=20))
    assert days_of(sim.requests) == [10] * 4
    assert (result.total_rows, query(db, "SELECT count(*) FROM events")) == (20, [(20,)])


@pytest.mark.parametrize("kind", ["close_before_head", "reset_before_head", "502"])
def test_a_server_that_is_down_is_no_reason_to_split(
    db: Path, mock_clock: MockClock, run: Run, kind: Any
) -> None:
    """If no response starts, smaller chunks would only cost more requests: six for each chunk, and no more."""
    sim = simulator_on(mock_clock, faults=[Fault(kind)])
    result = run(lambda: export(sim, db, *TEN_DAYS, chunk_days=10))
    assert days_of(sim.requests) == [10] * 6
    assert result.failed_date_ranges == (TEN_DAYS,)


def test_one_request_is_split_where_it_must_be(db: Path, mock_clock: MockClock, run: Run) -> None:
    """A single request for all days is divided only after it broke twice, and its pieces are requested one after another."""
    sim = simulator_on(mock_clock, faults=[Fault("reset", times=2)], first_byte=1.0)
    result = run(lambda: export(sim, db, *TEN_DAYS, one_request=True))
    assert days_of(sim.requests) == [10, 10, 5, 5]
    assert (sim.max_concurrent, result.successful_batches) == (1, 1)
    assert held(db) == truth(sim, *TEN_DAYS)


def test_replace_swaps_a_table_that_came_in_pieces(db: Path, mock_clock: MockClock, run: Run) -> None:
    """A replacement with a failed piece leaves the old table; the same call then fetches that piece and replaces it."""
    sim = simulator_on(mock_clock)
    run(lambda: export(sim, db, "2024-02-01", "2024-02-10"))
    before = held(db)
    sim.faults = [always_bad("close")]
    result = run(lambda: export(sim, db, *TEN_DAYS, chunk_days=10, mode="replace"))
    assert (result.failed_date_ranges, held(db)) == ((("2024-03-07", "2024-03-07"),), before)
    sim.faults = []
    asked = len(sim.requests)
    run(lambda: export(sim, db, *TEN_DAYS, chunk_days=10, mode="replace"))
    assert len(sim.requests) == asked + 1
    assert held(db) == truth(sim, *TEN_DAYS)


def test_pieces_without_events_are_held(db: Path, mock_clock: MockClock, run: Run) -> None:
    """Days before a project's first are empty pieces, complete like any other."""
    sim = simulator_on(mock_clock, first_day=date(2024, 3, 8), faults=[Fault("timeout_error", times=3)])
    run(lambda: export(sim, db, *TEN_DAYS, chunk_days=10))
    assert held(db) == truth(sim, *TEN_DAYS)
    assert {row[2] for row in ledger(db)} == {"complete"}
    asked = len(sim.requests)
    run(lambda: export(sim, db, *TEN_DAYS, mode="resume"))
    assert len(sim.requests) == asked


def test_a_piece_that_is_refused_for_good_stops_the_export(db: Path, mock_clock: MockClock, run: Run) -> None:
    """An error that affects the whole export stops it, also if it occurs in a piece."""
    sim = simulator_on(mock_clock, faults=[Fault("timeout_error", times=1), Fault("401", after=1)])
    with pytest.raises(AuthenticationError):
        run(lambda: export(sim, db, *TEN_DAYS, chunk_days=10))
    assert len(sim.requests) <= 3


def test_progress_counts_batches_and_not_pieces(db: Path, mock_clock: MockClock, run: Run) -> None:
    """The number of batches is constant, done and failed ones only increase, and rows given up are not counted."""
    sim = simulator_on(mock_clock, faults=[always_bad("reset")], first_byte=1.0)
    seen: list[Progress] = []
    result = run(lambda: export(sim, db, *TEN_DAYS, chunk_days=5, on_progress=seen.append))
    assert {progress.batches for progress in seen} == {2}
    decided = [progress.batches_done + progress.batches_failed for progress in seen]
    assert decided == sorted(decided)
    assert (seen[-1].batches_done, seen[-1].batches_failed) == (1, 1)
    assert seen[-1].rows == result.total_rows + result.removed_duplicates
    assert seen[-1].requests == len(sim.requests)


class Killed(BaseException):
    """Ends the export without any of its clean-up."""


def test_pieces_that_are_committed_survive_what_ends_the_export(
    db: Path, mock_clock: MockClock, run: Run
) -> None:
    """If the export ends between the commits of two pieces, the table has the first, and resume fetches the rest."""
    sim = simulator_on(mock_clock, faults=[Fault("timeout_error", times=1)])
    wire = sim.transport()

    async def dying(request: httpx.Request) -> httpx.Response:
        if request.url.params["from_date"] == "2024-03-06":
            await anyio.sleep(100)
            raise Killed
        return await wire.handle_async_request(request)

    with pytest.raises(Killed):
        run(lambda: export(sim, db, *TEN_DAYS, chunk_days=10, transport=httpx.MockTransport(dying)))
    assert [row[:3] for row in ledger(db)] == [(FIRST, date(2024, 3, 5), "complete")]
    run(lambda: export(sim, db, *TEN_DAYS, mode="resume", chunk_days=10))
    assert days_of(sim.requests) == [10, 5, 5]
    assert held(db) == truth(sim, *TEN_DAYS)


@pytest.mark.parametrize("seconds", [1.5, 3.0, *slow([0.0, 1.0, 2.0, 5.0])])
def test_cancelling_while_pieces_run_leaves_whole_pieces(
    db: Path, mock_clock: MockClock, run: Run, seconds: float
) -> None:
    """Whenever it is cancelled, the table agrees with the ledger, and `resume` completes it."""
    sim = simulator_on(
        mock_clock, faults=[Fault("timeout_error", times=3)], first_byte=1.0, seconds_per_day=0.1
    )

    async def cancelled() -> ParallelFetchResult:
        with anyio.move_on_after(seconds):
            await export(sim, db, *TEN_DAYS, chunk_days=10, max_workers=2, mode="resume")
        return await export(sim, db, *TEN_DAYS, chunk_days=10, mode="resume")

    run(cancelled)
    assert held(db) == truth(sim, *TEN_DAYS)
    assert query(db, "SELECT count(*) FROM _export_batches WHERE status <> 'complete'") == [(0,)]
