"""Runs calls in other threads. An async call gets its own event loop there, and any thread can cancel the call."""

import asyncio
import sys
from collections.abc import Awaitable, Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from contextvars import Context, copy_context
from functools import partial
from threading import Thread
from typing import Generic, TypeVar

import anyio

T = TypeVar("T")

THREAD_NAME = "mixpanel_export"
"""The name of the threads that run event loops."""


class CancellableCall(Generic[T]):
    """A call that can be cancelled from a signal handler and from another thread."""

    def __init__(self, call: Callable[[], Awaitable[T]]) -> None:
        self._call = call
        self._cancelled = False
        self._cancel_soon: Callable[[], object] | None = None

    async def run(self) -> T:
        """Run the call in the current asyncio loop."""
        with anyio.CancelScope() as scope:
            self._cancel_soon = partial(asyncio.get_running_loop().call_soon_threadsafe, scope.cancel)
            if self._cancelled:
                scope.cancel()
            return await self._call()
        raise asyncio.CancelledError

    def cancel(self) -> None:
        """Cancel the call from any thread, before, during or after it."""
        self._cancelled = True
        if self._cancel_soon is not None:
            with suppress(RuntimeError):  # the loop is closed
                self._cancel_soon()


class LoopThread(Generic[T]):
    """A thread that runs a call in its own asyncio loop."""

    def __init__(self, call: CancellableCall[T]) -> None:
        self._call = call
        self._future: Future[T] = Future()
        self._thread = Thread(target=context_without_loop().run, args=(self._run,), name=THREAD_NAME)

    def start(self) -> None:
        """Start the call."""
        self._thread.start()

    @property
    def is_alive(self) -> bool:
        """Whether the call has started and has not ended."""
        return self._thread.is_alive()

    def join(self, timeout: float | None = None) -> None:
        """Wait until the call has ended, for at most *timeout* seconds."""
        self._thread.join(timeout)

    def result(self) -> T:
        """Return the result of the call, or raise its exception. The call must have ended."""
        return self._future.result()

    def _run(self) -> None:
        try:
            self._future.set_result(anyio.run(self._call.run))
        except BaseException as error:  # noqa: BLE001 - raised again by `result`
            self._future.set_exception(error)


def call_outside_loop(call: Callable[[], T]) -> T:
    """Run *call* in a thread that has no event loop. An anyio lock created there can be used in any loop."""
    with ThreadPoolExecutor(1) as threads:
        return threads.submit(context_without_loop().run, call).result()


def context_without_loop() -> Context:
    """Return a copy of the current context in which sniffio finds no event loop."""
    context = copy_context()
    if sniffio := sys.modules.get("sniffio"):
        context.run(sniffio.current_async_library_cvar.set, None)
    return context
