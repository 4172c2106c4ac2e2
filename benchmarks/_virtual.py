"""Exports on a virtual clock, on which an hour of waiting takes a second. Exporter and simulator run unchanged.

The clock stops while a worker thread works, so it measures only the waits for the network and the quota. The work of DuckDB
and the decoder takes no time on it; `engine.py` measures that.
"""

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import date
from pathlib import Path
from typing import Any, TypeVar

import anyio
import httpx
from anyio import to_thread
from trio.testing import MockClock

from mixpanel_export._export.tuning import DEFAULT_TUNING
from mixpanel_export._quota import shared as _quota
from mixpanel_export._quota.clock import Moment

T = TypeVar("T")


@contextmanager
def virtual_clock(state: Path) -> Iterator[MockClock]:
    """Yield a clock for `trio.run` that jumps forward when all tasks wait. The quota file is in the folder *state*."""
    clock = MockClock(autojump_threshold=0)
    busy = 0
    run_sync = to_thread.run_sync

    async def stop_clock_and_run(call: Callable[..., T], *arguments: Any, **options: Any) -> T:
        nonlocal busy
        busy += 1
        clock.autojump_threshold = float("inf")
        try:
            return await run_sync(call, *arguments, **options)
        finally:
            busy -= 1
            if not busy:
                clock.autojump_threshold = 0

    def now() -> Moment:
        return Moment("benchmark", clock.current_time(), 1.7e9 + clock.current_time())

    with ExitStack() as stack:
        stack.enter_context(_replace(to_thread, "run_sync", stop_clock_and_run))
        stack.enter_context(_replace(_quota, "system_clock", lambda: now))
        stack.enter_context(_environment("MPX_STATE_DIR", str(state)))
        # A statement that waits in its thread for further chunks would stop the clock.
        stack.enter_context(_tuned("group_wait", 0.0))
        yield clock


@contextmanager
def _replace(module: object, name: str, value: object) -> Iterator[None]:
    before = getattr(module, name)
    setattr(module, name, value)
    try:
        yield
    finally:
        setattr(module, name, before)


@contextmanager
def _tuned(field: str, value: object) -> Iterator[None]:
    before = getattr(DEFAULT_TUNING, field)
    object.__setattr__(DEFAULT_TUNING, field, value)  # the value is frozen, and every export uses it
    try:
        yield
    finally:
        object.__setattr__(DEFAULT_TUNING, field, before)


@contextmanager
def _environment(name: str, value: str) -> Iterator[None]:
    before = os.environ.get(name)
    os.environ[name] = value
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before


class SlowStart(httpx.AsyncBaseTransport):
    """A transport whose responses start later if more days are requested."""

    def __init__(self, transport: httpx.AsyncBaseTransport, seconds_per_day: float) -> None:
        self._transport = transport
        self._seconds_per_day = seconds_per_day

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Forward the request, and delay the response."""
        response = await self._transport.handle_async_request(request)
        first, last = (date.fromisoformat(request.url.params[name]) for name in ("from_date", "to_date"))
        await anyio.sleep(self._seconds_per_day * ((last - first).days + 1))
        return response
