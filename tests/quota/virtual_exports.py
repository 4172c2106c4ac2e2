"""Exports on a clock that jumps ahead, and what the simulator saw of them."""

from collections.abc import Awaitable, Callable, Iterator, Sequence
from datetime import date, timedelta
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any, TypeVar

import anyio
import httpx
import pytest
import trio
from _virtual import virtual_clock
from support import export as usual_export
from support import simulator
from trio.testing import MockClock

from mixpanel_export._export.tuning import DEFAULT_TUNING
from mixpanel_export.results import ParallelFetchResult
from mixpanel_export.simulator import Fault, RequestLog, Simulator

T = TypeVar("T")

export = partial(usual_export, tuning=DEFAULT_TUNING)
"""An export with the pauses of the retry policy, which take no time on this clock."""


DAY = timedelta(1)


FIRST, SEVENTH, LAST = date(2024, 3, 1), date(2024, 3, 7), date(2024, 3, 10)


TEN_DAYS = "2024-03-01", "2024-03-10"


LIMITS: dict[str, Any] = {"per_second": 3, "per_hour": 60}


HOUR = 3600.0


@pytest.fixture
def db(tmp_path: Path) -> Path:
    return tmp_path / "test.duckdb"


@pytest.fixture
def mock_clock(tmp_path: Path) -> Iterator[MockClock]:
    """A clock that jumps ahead, for the event loop, the quota file and, if requested, the simulator."""
    with virtual_clock(tmp_path / "state") as clock:
        yield clock


@pytest.fixture
def run(mock_clock: MockClock) -> Callable[[Callable[[], Awaitable[T]]], T]:
    """Return a function that runs an async one on the clock."""
    return lambda call: trio.run(call, clock=mock_clock)


Run = Callable[[Callable[[], Awaitable[ParallelFetchResult]]], ParallelFetchResult]


def simulator_on(mock_clock: MockClock, **options: Any) -> Simulator:
    """Return a simulator that counts, paces and stalls on *clock*."""
    return simulator(clock=mock_clock.current_time, **options)


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


# Pieces


def always_bad(kind: Any, **options: Any) -> Fault:
    """Return a fault that breaks every response with the seventh day."""
    return Fault(kind, first=SEVENTH, last=SEVENTH, **options)


# Refusals


def far_from(sim: Simulator) -> httpx.MockTransport:
    """Return a transport whose responses take a second to arrive, so that several requests are in progress."""
    wire = sim.transport()

    async def late(request: httpx.Request) -> httpx.Response:
        response = await wire.handle_async_request(request)
        await anyio.sleep(1)
        return response

    return httpx.MockTransport(late)


def gaps(sim: Simulator) -> list[float]:
    """Return the seconds between one request and the next."""
    return [later.time - earlier.time for earlier, later in pairwise(sim.requests)]
