"""Exports on a clock that leaps: an hour of network takes a second, and engine, quota file and simulator do not notice.

The clock stands still while a worker thread is at work, so what is measured is waiting: for the network and for the
quota. What DuckDB and the decoder need costs nothing here; `engine.py` is about that.
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

from mixpanel_export._quota import shared as _quota
from mixpanel_export._quota.clock import Moment

T = TypeVar("T")


@contextmanager
def leaping(state: Path) -> Iterator[MockClock]:
    """Yield a clock for `trio.run` that leaps to what all tasks wait for; the quota file lies in *state*."""
    clock = MockClock(autojump_threshold=0)
    at_work = 0
    run_sync = to_thread.run_sync

    async def standing_still(call: Callable[..., T], *arguments: Any, **options: Any) -> T:
        nonlocal at_work
        at_work += 1
        clock.autojump_threshold = float("inf")
        try:
            return await run_sync(call, *arguments, **options)
        finally:
            at_work -= 1
            if not at_work:
                clock.autojump_threshold = 0

    def now() -> Moment:
        return Moment("benchmark", clock.current_time(), 1.7e9 + clock.current_time())

    with ExitStack() as stack:
        stack.enter_context(_replaced(to_thread, "run_sync", standing_still))
        stack.enter_context(_replaced(_quota, "system_clock", lambda: now))
        stack.enter_context(_environment("MPX_STATE_DIR", str(state)))
        yield clock


@contextmanager
def _replaced(module: object, name: str, value: object) -> Iterator[None]:
    before = getattr(module, name)
    setattr(module, name, value)
    try:
        yield
    finally:
        setattr(module, name, before)


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


class Preparing(httpx.AsyncBaseTransport):
    """A transport whose answers begin later the more days they are asked for."""

    def __init__(self, transport: httpx.AsyncBaseTransport, seconds_per_day: float) -> None:
        self._transport = transport
        self._seconds_per_day = seconds_per_day

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Pass the request on, and hold the answer back."""
        response = await self._transport.handle_async_request(request)
        first, last = (date.fromisoformat(request.url.params[name]) for name in ("from_date", "to_date"))
        await anyio.sleep(self._seconds_per_day * ((last - first).days + 1))
        return response
