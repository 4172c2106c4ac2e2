"""Exports that wait: for the hourly quota, after refusals, for pauses that the server requests; and `max_wait`."""

from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest
import virtual_exports
from examples import slow
from support import Body, held, ledger, query, truth
from trio.testing import MockClock
from virtual_exports import HOUR, LIMITS, TEN_DAYS, Run, days_of, export, far_from, gaps, simulator_on

from mixpanel_export.errors import (
    RateLimitError,
)
from mixpanel_export.results import Progress
from mixpanel_export.simulator import Fault

db = virtual_exports.db
mock_clock = virtual_exports.mock_clock
run = virtual_exports.run


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


@pytest.mark.parametrize("chunk_days, planned", [(None, 50), *slow([(8, 100)])])
@pytest.mark.parametrize("seed", [0, *slow([2])])
def test_two_hours_of_quota_with_a_tenth_of_all_answers_bad(
    db: Path, mock_clock: MockClock, run: Run, seed: int, chunk_days: int | None, planned: int
) -> None:
    """793 days are exact in the end, within 120 requests, of which none is wasted and none is refused for its pace.

    What is not bad brings a batch: so the requests are those of the plan, one more for each split, and one for
    each bad answer. A split follows a time-out of the server's own, or two breaks.
    """
    sim = simulator_on(
        mock_clock, seed=seed, events_per_day=3, first_day=date(2022, 1, 1), faults=tenth(), **LIMITS
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
    assert mock_clock.current_time() < 2 * HOUR


@pytest.mark.parametrize("retry_after, least, most", [(30.0, 30.0, 34.0), (None, 60.0, 67.0)])
def test_all_fetchers_pause_together(
    db: Path, mock_clock: MockClock, run: Run, retry_after: float | None, least: float, most: float
) -> None:
    """Refused concurrent requests cause one pause without requests; each is then repeated, and no attempt is counted."""
    sim = simulator_on(mock_clock, faults=[Fault("429", times=4, retry_after=retry_after)])
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


def test_a_lasting_refusal_is_asked_ever_more_seldom(db: Path, mock_clock: MockClock, run: Run) -> None:
    """Without `Retry-After`, the pauses are one, two, four and eight minutes, and at most a tenth longer."""
    sim = simulator_on(mock_clock, faults=[Fault("429", times=4, retry_after=None)])
    run(lambda: export(sim, db, *TEN_DAYS, chunk_days=10, retries=0))
    for gap, pause in zip(gaps(sim), [60, 120, 240, 480], strict=True):
        assert pause <= gap <= 1.1 * pause + 1
    assert held(db) == truth(sim, *TEN_DAYS)


@pytest.mark.parametrize("workers", [*slow([1]), 10])
@pytest.mark.parametrize(
    "max_wait, retry_after, waves",
    [(100.0, 30.0, 4), (170.0, None, 2), *slow([(0.0, 7.0, 1), (250.0, None, 3)])],
)
def test_max_wait_bounds_what_refusals_cost(
    db: Path,
    mock_clock: MockClock,
    run: Run,
    max_wait: float,
    retry_after: float | None,
    waves: int,
    workers: int,
) -> None:
    """Days that are not fetched by then failed because of the quota, used no retry, and are fetched by resume."""
    sim = simulator_on(mock_clock, faults=[Fault("429", after=6, retry_after=retry_after)])
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
    assert mock_clock.current_time() <= max_wait + 20
    assert len({request.time for request in sim.requests if request.status == 429}) == waves
    assert query(db, "SELECT count(*) FROM events") == [(result.total_rows,)]
    sim.faults = []
    assert run(lambda: export(sim, db, *TEN_DAYS, mode="resume")).failed_batches == 0
    assert held(db) == truth(sim, *TEN_DAYS)


def test_max_wait_bounds_the_wait_for_the_hour(db: Path, mock_clock: MockClock, run: Run) -> None:
    """Six of ten chunks fit into the hour; the other four fail immediately without a wait, or are fetched an hour later."""
    sim = simulator_on(mock_clock, per_hour=6)
    options: dict[str, Any] = {"chunk_days": 1, "per_hour": 6}
    result = run(lambda: export(sim, db, *TEN_DAYS, max_wait=3000.0, **options))
    assert (result.successful_batches, result.failed_batches) == (6, 4)
    assert mock_clock.current_time() < 10
    run(lambda: export(sim, db, *TEN_DAYS, mode="resume", **options))
    assert HOUR < mock_clock.current_time() < HOUR + 30
    assert {request.status for request in sim.requests} == {200}
    assert held(db) == truth(sim, *TEN_DAYS)


def test_a_connection_that_fails_takes_no_place(db: Path, mock_clock: MockClock, run: Run) -> None:
    """If six requests fit without a wait, any number of failed connections before them changes nothing."""
    sim = simulator_on(mock_clock, per_hour=6)
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
    """A transport whose connection may fail before anything is admitted."""

    def __init__(self, answer: Callable[[httpx.Request], Awaitable[httpx.Response]]) -> None:
        self._answer = answer

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        return await self._answer(request)


def test_a_pause_may_be_a_date(db: Path, mock_clock: MockClock, run: Run) -> None:
    """`Retry-After` as an HTTP date applies until then."""
    sim = simulator_on(
        mock_clock,
        faults=[Fault("429", times=1, retry_after=600.0)],
        limit_retry_after="date",
        now=lambda: datetime.now(UTC),
    )
    run(lambda: export(sim, db, *TEN_DAYS, chunk_days=10))
    [gap] = gaps(sim)
    assert 590 <= gap <= 661
    assert held(db) == truth(sim, *TEN_DAYS)


def test_a_failing_server_may_name_its_pause(db: Path, mock_clock: MockClock, run: Run) -> None:
    """After a 503 with `Retry-After`, no request is sent earlier, for an hour at most."""
    sim = simulator_on(
        mock_clock, faults=[Fault("503", times=1, retry_after=500.0), Fault("503", times=1, retry_after=1e5)]
    )
    run(lambda: export(sim, db, *TEN_DAYS, chunk_days=10))
    assert gaps(sim) == pytest.approx([500.0, HOUR])
    assert held(db) == truth(sim, *TEN_DAYS)


def test_max_wait_bounds_the_pause_that_a_failing_server_names(
    db: Path, mock_clock: MockClock, run: Run
) -> None:
    """The export's own pause does not count towards `max_wait`, but a pause that the server requests does."""
    sim = simulator_on(mock_clock, faults=[Fault("503", retry_after=500.0)])
    result = run(lambda: export(sim, db, *TEN_DAYS, chunk_days=10, max_wait=499.0))
    assert (result.failed_batches, len(sim.requests)) == (1, 1)
    sim = simulator_on(mock_clock, faults=[Fault("503", times=2, retry_after=None)])
    result = run(lambda: export(sim, db, *TEN_DAYS, chunk_days=10, max_wait=0.0, mode="resume"))
    assert (result.failed_batches, len(sim.requests)) == (0, 3)


def test_a_refusal_whose_body_breaks_is_one(db: Path, mock_clock: MockClock, run: Run) -> None:
    """The status 429 is sufficient: the pause applies, and it is neither a retry nor a broken response."""
    sim = simulator_on(mock_clock)
    wire = sim.transport()
    left = iter(range(3))

    async def broken(request: httpx.Request) -> httpx.Response:
        if next(left, None) is not None:
            return httpx.Response(429, headers={"Retry-After": "9"}, stream=Breaking([b'{"err']))
        return await wire.handle_async_request(request)

    options: dict[str, Any] = {"chunk_days": 10, "retries": 0, "transport": httpx.MockTransport(broken)}
    result = run(lambda: export(sim, db, *TEN_DAYS, **options))
    assert (result.failed_batches, days_of(sim.requests)) == (0, [10])
    assert 27 <= mock_clock.current_time() <= 33


class Breaking(Body):
    """A body that breaks after its pieces."""

    async def __aiter__(self) -> AsyncIterator[bytes]:
        async for piece in super().__aiter__():
            yield piece
        raise httpx.ReadError("")


def test_what_was_given_up_waits_for_no_quota(db: Path, mock_clock: MockClock, run: Run) -> None:
    """The last progress of an export whose hour is used up expects no more waits."""
    seen: list[Progress] = []
    options: dict[str, Any] = {"chunk_days": 1, "per_hour": 6, "max_wait": 0.0, "on_progress": seen.append}
    result = run(lambda: export(simulator_on(mock_clock), db, *TEN_DAYS, **options))
    assert result.failed_batches == 4
    assert (seen[-1].quota_left, seen[-1].quota_wait) == (0, 0)
