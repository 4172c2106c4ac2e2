"""An export that has to be patient: hours of quota, refusals, breaks that only smaller pieces survive."""

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from datetime import UTC, date, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any, TypeVar

import anyio
import httpx
import pytest
import trio
from _virtual import virtual_clock
from support import Body, export, held, ledger, query, simulator, truth
from trio.testing import MockClock

from mixpanel_export.errors import (
    AuthenticationError,
    RateLimitError,
)
from mixpanel_export.results import BatchProgress, ParallelFetchResult, Progress
from mixpanel_export.simulator import Fault, RequestLog, Simulator

T = TypeVar("T")

DAY = timedelta(1)
FIRST, SEVENTH, LAST = date(2024, 3, 1), date(2024, 3, 7), date(2024, 3, 10)
TEN_DAYS = "2024-03-01", "2024-03-10"
LIMITS: dict[str, Any] = {"per_second": 3, "per_hour": 60}
HOUR = 3600.0


@pytest.fixture
def db(tmp_path: Path) -> Path:
    return tmp_path / "test.duckdb"


@pytest.fixture
def clock(tmp_path: Path) -> Iterator[MockClock]:
    """Time that leaps for the event loop, the quota file and, where it is told to, the simulator."""
    with virtual_clock(tmp_path / "state") as clock:
        yield clock


@pytest.fixture
def run(clock: MockClock) -> Callable[[Callable[[], Awaitable[T]]], T]:
    """Return a function that runs an async one on the clock."""
    return lambda call: trio.run(call, clock=clock)


Run = Callable[[Callable[[], Awaitable[ParallelFetchResult]]], ParallelFetchResult]


def simulator_on(clock: MockClock, **options: Any) -> Simulator:
    """Return a simulator that counts, paces and stalls on *clock*."""
    return simulator(clock=clock.current_time, **options)


def days_of(requests: Sequence[RequestLog]) -> list[int]:
    """Return how many days each request asked for."""
    return [(request.last - request.first).days + 1 for request in requests if request.first and request.last]


def truth_without(sim: Simulator, gone: date, first: date = FIRST, last: date = LAST) -> int:
    """Return the rows that an exact export of these days has when one is missing."""
    return sum(
        sim.truth(day, day).distinct
        for day in (first + number * DAY for number in range((last - first).days + 1))
        if day != gone
    )


# Two hours of quota, a tenth of all answers bad

MIXED = [
    "500", "502", "503", "504", "timeout_error", "reset_before_head", "close_before_head", "stall_before_head",
    "terminated_early", "error_fragment", "cut_line", "reset", "close", "stall", "truncated_gzip", "corrupt_crc",
]  # fmt: skip
YEARS = "2022-03-20", "2024-05-20"


def tenth(**options: Any) -> list[Fault]:
    """Return faults of all kinds that together hit a tenth of all requests; *options* are those of each."""
    kinds: list[tuple[Any, float | None]] = [(kind, 1.0) for kind in MIXED]
    kinds += [("429", 20.0), ("429", None)]
    share = 1 - 0.9 ** (1 / len(kinds))
    return [Fault(kind, probability=share, retry_after=after, **options) for kind, after in kinds]


@pytest.mark.parametrize("chunk_days, planned", [(None, 50), (8, 100)])
@pytest.mark.parametrize("seed", [0, 2])
def test_two_hours_of_quota_with_a_tenth_of_all_answers_bad(
    db: Path, clock: MockClock, run: Run, seed: int, chunk_days: int | None, planned: int
) -> None:
    """793 days are exact in the end, within 120 requests, of which none is wasted and none is refused for its pace.

    What is not bad brings a batch: so the requests are those of the plan, one more for each split, and one for
    each bad answer. A split follows a time-out of the server's own, or two breaks.
    """
    sim = simulator_on(
        clock, seed=seed, events_per_day=3, first_day=date(2022, 1, 1), faults=tenth(), **LIMITS
    )
    result = run(lambda: export(sim, db, *YEARS, chunk_days=chunk_days, **LIMITS))
    faults = [request.fault for request in sim.requests if request.fault]
    splits = len(ledger(db)) - planned
    spent = f"{len(sim.requests)} requests: {planned} planned, {splits} splits, {len(faults)} bad answers"
    assert result.errors == (), spent
    assert held(db) == truth(sim, *YEARS), spent
    assert result.successful_batches == planned
    assert len(sim.requests) == planned + splits + len(faults) <= 120, spent
    assert splits <= faults.count("timeout_error") + len(faults) // 2, spent
    assert [request.fault for request in sim.requests if request.status == 429].count(None) == 0
    assert clock.current_time() < 2 * HOUR


# Pieces


def always_bad(kind: Any, **options: Any) -> Fault:
    """Return a fault that breaks whatever contains the seventh day."""
    return Fault(kind, first=SEVENTH, last=SEVENTH, **options)


BREAKING = ["reset", "terminated_early", "truncated_gzip", "504", "stall"]


@pytest.mark.parametrize("kind", BREAKING)
def test_a_day_that_always_breaks_costs_itself_alone(db: Path, clock: MockClock, run: Run, kind: str) -> None:
    """Nine of ten days are in the table, one is reported, with as many requests as the policy needs, 15.

    Ten, five and two days break twice each, the other halves of five, three and one come at once, and the day
    itself is asked for six times.
    """
    sim = simulator_on(clock, faults=[always_bad(kind)])
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
    db: Path, clock: MockClock, run: Run
) -> None:
    """The ledger has a row for each piece, together each day once; later one request completes the table."""
    sim = simulator_on(clock, faults=[always_bad("reset")])
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
    db: Path, clock: MockClock, run: Run
) -> None:
    """Where the server cannot answer for more than three days, the batch is one success, told once with all rows."""
    sim = simulator_on(clock)
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


def test_the_servers_own_time_out_splits_at_once(db: Path, clock: MockClock, run: Run) -> None:
    """After one `Timeout Error.` the halves are asked for, with no pause to speak of."""
    sim = simulator_on(clock, faults=[Fault("timeout_error", times=1)])
    run(lambda: export(sim, db, *TEN_DAYS, chunk_days=10))
    assert days_of(sim.requests) == [10, 5, 5]
    assert max(gaps(sim)) < 1
    assert held(db) == truth(sim, *TEN_DAYS)


@pytest.mark.parametrize("per_hour, sizes", [(6, [10, 5, 5]), (5, [10, 10])])
def test_no_split_where_the_hour_has_no_room(
    db: Path, clock: MockClock, run: Run, per_hour: int, sizes: list[int]
) -> None:
    """With fewer than five requests left the chunk is asked for again as it is."""
    sim = simulator_on(clock, faults=[Fault("timeout_error", times=1)])
    run(lambda: export(sim, db, *TEN_DAYS, chunk_days=10, per_hour=per_hour))
    assert days_of(sim.requests) == sizes
    assert held(db) == truth(sim, *TEN_DAYS)


def test_a_split_leaves_older_batches_whole(db: Path, clock: MockClock, run: Run) -> None:
    """An edge that would cut a batch with rows moves to its border, and a batch that fills the chunk keeps it whole."""
    sim = simulator_on(clock)
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
def test_a_limit_is_never_split(db: Path, clock: MockClock, run: Run, kind: Any) -> None:
    """Two pieces would bring the limit twice, so a limited request is only repeated."""
    sim = simulator_on(clock, faults=[Fault(kind, times=3)])
    result = run(lambda: export(sim, db, *TEN_DAYS, limit=20))
    assert days_of(sim.requests) == [10] * 4
    assert (result.total_rows, query(db, "SELECT count(*) FROM events")) == (20, [(20,)])


@pytest.mark.parametrize("kind", ["close_before_head", "reset_before_head", "502"])
def test_a_server_that_is_down_is_no_reason_to_split(db: Path, clock: MockClock, run: Run, kind: Any) -> None:
    """Where no answer begins, smaller chunks would only be more requests: six for each chunk, and no more."""
    sim = simulator_on(clock, faults=[Fault(kind)])
    result = run(lambda: export(sim, db, *TEN_DAYS, chunk_days=10))
    assert days_of(sim.requests) == [10] * 6
    assert result.failed_date_ranges == (TEN_DAYS,)


def test_one_request_is_split_where_it_must_be(db: Path, clock: MockClock, run: Run) -> None:
    """One request for all days is cut only after it broke twice, and its pieces come one after the other."""
    sim = simulator_on(clock, faults=[Fault("reset", times=2)], first_byte=1.0)
    result = run(lambda: export(sim, db, *TEN_DAYS, one_request=True))
    assert days_of(sim.requests) == [10, 10, 5, 5]
    assert (sim.max_concurrent, result.successful_batches) == (1, 1)
    assert held(db) == truth(sim, *TEN_DAYS)


def test_replace_swaps_a_table_that_came_in_pieces(db: Path, clock: MockClock, run: Run) -> None:
    """A replacement with a bad piece leaves the old table; the same call then fetches that piece and swaps."""
    sim = simulator_on(clock)
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


def test_pieces_without_events_are_held(db: Path, clock: MockClock, run: Run) -> None:
    """Days before a project's first are empty pieces, complete like any other."""
    sim = simulator_on(clock, first_day=date(2024, 3, 8), faults=[Fault("timeout_error", times=3)])
    run(lambda: export(sim, db, *TEN_DAYS, chunk_days=10))
    assert held(db) == truth(sim, *TEN_DAYS)
    assert {row[2] for row in ledger(db)} == {"complete"}
    asked = len(sim.requests)
    run(lambda: export(sim, db, *TEN_DAYS, mode="resume"))
    assert len(sim.requests) == asked


def test_a_piece_that_is_refused_for_good_stops_the_export(db: Path, clock: MockClock, run: Run) -> None:
    """What concerns the whole export does so from a piece, too."""
    sim = simulator_on(clock, faults=[Fault("timeout_error", times=1), Fault("401", after=1)])
    with pytest.raises(AuthenticationError):
        run(lambda: export(sim, db, *TEN_DAYS, chunk_days=10))
    assert len(sim.requests) <= 3


def test_progress_counts_batches_and_not_pieces(db: Path, clock: MockClock, run: Run) -> None:
    """Batches never change in number, done and failed ones only grow, and what is given up is not among the rows."""
    sim = simulator_on(clock, faults=[always_bad("reset")], first_byte=1.0)
    seen: list[Progress] = []
    result = run(lambda: export(sim, db, *TEN_DAYS, chunk_days=5, on_progress=seen.append))
    assert {progress.batches for progress in seen} == {2}
    decided = [progress.batches_done + progress.batches_failed for progress in seen]
    assert decided == sorted(decided)
    assert (seen[-1].batches_done, seen[-1].batches_failed) == (1, 1)
    assert seen[-1].rows == result.total_rows + result.removed_duplicates
    assert seen[-1].requests == len(sim.requests)


class Killed(BaseException):
    """What ends the export without any clean-up of ours deciding how."""


def test_pieces_that_are_committed_survive_what_ends_the_export(db: Path, clock: MockClock, run: Run) -> None:
    """Ended between the commits of two pieces, the table has the first, and resume fetches the rest of the chunk."""
    sim = simulator_on(clock, faults=[Fault("timeout_error", times=1)])
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


@pytest.mark.parametrize("seconds", [0.0, 1.0, 1.5, 2.0, 3.0, 5.0])
def test_cancelling_while_pieces_run_leaves_whole_pieces(
    db: Path, clock: MockClock, run: Run, seconds: float
) -> None:
    """Whenever it is cancelled, the table is what the ledger says, and resume makes it exact."""
    sim = simulator_on(clock, faults=[Fault("timeout_error", times=3)], first_byte=1.0, seconds_per_day=0.1)

    async def cancelled() -> ParallelFetchResult:
        with anyio.move_on_after(seconds):
            await export(sim, db, *TEN_DAYS, chunk_days=10, max_workers=2, mode="resume")
        return await export(sim, db, *TEN_DAYS, chunk_days=10, mode="resume")

    run(cancelled)
    assert held(db) == truth(sim, *TEN_DAYS)
    assert query(db, "SELECT count(*) FROM _export_batches WHERE status <> 'complete'") == [(0,)]


# Refusals


def far_from(sim: Simulator) -> httpx.MockTransport:
    """Return a transport whose answers take a second to arrive, so that several requests are under way."""
    wire = sim.transport()

    async def late(request: httpx.Request) -> httpx.Response:
        response = await wire.handle_async_request(request)
        await anyio.sleep(1)
        return response

    return httpx.MockTransport(late)


def gaps(sim: Simulator) -> list[float]:
    """Return the seconds between one request and the next."""
    return [later.time - earlier.time for earlier, later in pairwise(sim.requests)]


@pytest.mark.parametrize("retry_after, least, most", [(30.0, 30.0, 34.0), (None, 60.0, 67.0)])
def test_all_fetchers_pause_together(
    db: Path, clock: MockClock, run: Run, retry_after: float | None, least: float, most: float
) -> None:
    """Refused requests of one wave make one pause, in which nobody asks; each is asked for again, and none counts."""
    sim = simulator_on(clock, faults=[Fault("429", times=4, retry_after=retry_after)])
    seen: list[Progress] = []
    options: dict[str, Any] = {
        "chunk_days": 1,
        "max_workers": 4,
        "retries": 0,
        "per_hour": 60,
        "transport": far_from(sim),
    }
    result = run(lambda: export(sim, db, *TEN_DAYS, on_progress=seen.append, **options))
    assert [request.status for request in sim.requests] == [429] * 4 + [200] * 10
    assert {request.time for request in sim.requests[:4]} == {sim.requests[0].time}
    assert least <= sim.requests[4].time - sim.requests[0].time <= most
    assert result.failed_batches == 0
    assert seen[-1].quota_left == 50
    assert held(db) == truth(sim, *TEN_DAYS)


def test_a_lasting_refusal_is_asked_ever_more_seldom(db: Path, clock: MockClock, run: Run) -> None:
    """Without `Retry-After` the pauses are one, two, four and eight minutes, and a tenth more at most."""
    sim = simulator_on(clock, faults=[Fault("429", times=4, retry_after=None)])
    run(lambda: export(sim, db, *TEN_DAYS, chunk_days=10, retries=0))
    for gap, pause in zip(gaps(sim), [60, 120, 240, 480], strict=True):
        assert pause <= gap <= 1.1 * pause + 1
    assert held(db) == truth(sim, *TEN_DAYS)


@pytest.mark.parametrize("workers", [1, 10])
@pytest.mark.parametrize(
    "max_wait, retry_after, waves", [(0.0, 7.0, 1), (100.0, 30.0, 4), (170.0, None, 2), (250.0, None, 3)]
)
def test_max_wait_bounds_what_refusals_cost(
    db: Path,
    clock: MockClock,
    run: Run,
    max_wait: float,
    retry_after: float | None,
    waves: int,
    workers: int,
) -> None:
    """What is not fetched by then has failed for the quota, no retry was spent on it, and resume completes."""
    sim = simulator_on(clock, faults=[Fault("429", after=6, retry_after=retry_after)])
    options: dict[str, Any] = {
        "chunk_days": 1,
        "max_workers": workers,
        "retries": 0,
        "transport": far_from(sim),
    }
    result = run(lambda: export(sim, db, *TEN_DAYS, max_wait=max_wait, **options))
    assert (result.successful_batches, result.failed_batches) == (6, 4)
    assert {type(error) for error in result.errors} == {RateLimitError}
    assert all("max_wait" in str(error) for error in result.errors)
    assert clock.current_time() <= max_wait + 20
    assert len({request.time for request in sim.requests if request.status == 429}) == waves
    assert query(db, "SELECT count(*) FROM events") == [(result.total_rows,)]
    sim.faults = []
    assert run(lambda: export(sim, db, *TEN_DAYS, mode="resume")).failed_batches == 0
    assert held(db) == truth(sim, *TEN_DAYS)


def test_max_wait_bounds_the_wait_for_the_hour(db: Path, clock: MockClock, run: Run) -> None:
    """Of ten chunks six fit into the hour; four fail at once where nobody may wait, and come an hour later else."""
    sim = simulator_on(clock, per_hour=6)
    options: dict[str, Any] = {"chunk_days": 1, "per_hour": 6}
    result = run(lambda: export(sim, db, *TEN_DAYS, max_wait=3000.0, **options))
    assert (result.successful_batches, result.failed_batches) == (6, 4)
    assert clock.current_time() < 10
    run(lambda: export(sim, db, *TEN_DAYS, mode="resume", **options))
    assert HOUR < clock.current_time() < HOUR + 30
    assert {request.status for request in sim.requests} == {200}
    assert held(db) == truth(sim, *TEN_DAYS)


def test_a_connection_that_fails_takes_no_place(db: Path, clock: MockClock, run: Run) -> None:
    """Where six requests fit and nobody may wait, any number of failed connections before them changes nothing."""
    sim = simulator_on(clock, per_hour=6)
    wire = sim.transport()
    left = iter(range(20))

    async def flaky(request: httpx.Request) -> httpx.Response:
        if next(left, None) is not None:
            raise httpx.ConnectError("refused")
        return await wire.handle_async_request(request)

    options: dict[str, Any] = {"chunk_days": 2, "per_hour": 6, "max_wait": 0.0, "retries": 20}
    result = run(lambda: export(sim, db, *TEN_DAYS, transport=Early(flaky), **options))
    assert result.failed_batches == 0
    assert held(db) == truth(sim, *TEN_DAYS)


class Early(httpx.AsyncBaseTransport):
    """A transport whose connection may fail, which is before anything is admitted."""

    def __init__(self, answer: Callable[[httpx.Request], Awaitable[httpx.Response]]) -> None:
        self._answer = answer

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        return await self._answer(request)


def test_a_pause_may_be_a_date(db: Path, clock: MockClock, run: Run) -> None:
    """`Retry-After` as an HTTP date holds until then."""
    sim = simulator_on(
        clock,
        faults=[Fault("429", times=1, retry_after=600.0)],
        limit_retry_after="date",
        now=lambda: datetime.now(UTC),
    )
    run(lambda: export(sim, db, *TEN_DAYS, chunk_days=10))
    [gap] = gaps(sim)
    assert 590 <= gap <= 661
    assert held(db) == truth(sim, *TEN_DAYS)


def test_a_failing_server_may_name_its_pause(db: Path, clock: MockClock, run: Run) -> None:
    """A 503 with `Retry-After` is not asked again before, and an hour at most."""
    sim = simulator_on(
        clock, faults=[Fault("503", times=1, retry_after=500.0), Fault("503", times=1, retry_after=1e5)]
    )
    run(lambda: export(sim, db, *TEN_DAYS, chunk_days=10))
    assert gaps(sim) == pytest.approx([500.0, HOUR])
    assert held(db) == truth(sim, *TEN_DAYS)


def test_max_wait_bounds_the_pause_that_a_failing_server_names(db: Path, clock: MockClock, run: Run) -> None:
    """A pause of our own choice is no wait for the quota, but one that the server names is."""
    sim = simulator_on(clock, faults=[Fault("503", retry_after=500.0)])
    result = run(lambda: export(sim, db, *TEN_DAYS, chunk_days=10, max_wait=499.0))
    assert (result.failed_batches, len(sim.requests)) == (1, 1)
    sim = simulator_on(clock, faults=[Fault("503", times=2, retry_after=None)])
    result = run(lambda: export(sim, db, *TEN_DAYS, chunk_days=10, max_wait=0.0, mode="resume"))
    assert (result.failed_batches, len(sim.requests)) == (0, 3)


def test_a_refusal_whose_body_breaks_is_one(db: Path, clock: MockClock, run: Run) -> None:
    """The status of a 429 is enough: its pause holds, and it is neither a retry nor a break."""
    sim = simulator_on(clock)
    wire = sim.transport()
    left = iter(range(3))

    async def broken(request: httpx.Request) -> httpx.Response:
        if next(left, None) is not None:
            return httpx.Response(429, headers={"Retry-After": "9"}, stream=Breaking([b'{"err']))
        return await wire.handle_async_request(request)

    options: dict[str, Any] = {"chunk_days": 10, "retries": 0, "transport": httpx.MockTransport(broken)}
    result = run(lambda: export(sim, db, *TEN_DAYS, **options))
    assert (result.failed_batches, days_of(sim.requests)) == (0, [10])
    assert 27 <= clock.current_time() <= 33


class Breaking(Body):
    """A body that breaks after its pieces."""

    async def __aiter__(self) -> AsyncIterator[bytes]:
        async for piece in super().__aiter__():
            yield piece
        raise httpx.ReadError("")


def test_what_was_given_up_waits_for_no_quota(db: Path, clock: MockClock, run: Run) -> None:
    """The last progress of an export whose hour is spent expects no further wait."""
    seen: list[Progress] = []
    options: dict[str, Any] = {"chunk_days": 1, "per_hour": 6, "max_wait": 0.0, "on_progress": seen.append}
    result = run(lambda: export(simulator_on(clock), db, *TEN_DAYS, **options))
    assert result.failed_batches == 4
    assert (seen[-1].quota_left, seen[-1].quota_wait) == (0, 0)
