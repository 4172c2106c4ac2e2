"""Calls an async function from code that cannot await.

In a thread without an event loop, the call runs in a new loop in that thread, so callbacks run in the caller's thread.
A thread with a running loop, as in a notebook, cannot start a second loop. In this case, the call runs in a loop in a
helper thread, and the caller blocks.

sniffio's context variable does not show whether the current thread has a running loop, because `asyncio.to_thread` and
`trio.to_thread` copy the variable into threads without a loop.

A signal handler can run between any two bytecodes. If the handler raises an exception, as Python's Ctrl-C handler does,
the exception could stop the loop at any point and leave tasks and worker threads unfinished. Therefore, if a handler
raises an exception during a call, the call is cancelled, and the exception is raised again once the call has ended.
Only callbacks, which may block forever, are interrupted immediately.
"""

import asyncio
import signal
import sys
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from functools import partial
from threading import current_thread, main_thread
from types import FrameType
from typing import ParamSpec, TypeVar

import anyio

from mixpanel_export._concurrency import runs_callback
from mixpanel_export._loop_thread import CancellableCall, LoopThread, context_without_loop

P = ParamSpec("P")
T = TypeVar("T")

# Seconds. Windows cannot interrupt an unlimited wait, and asyncio turns the first Ctrl-C into a task cancellation,
# which a blocked loop does not deliver. So the caller polls.
_POLL_INTERVAL = 0.1
# Signals that end a program. SIGBREAK is Ctrl-Break on Windows.
_SIGNALS = [
    getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGBREAK") if hasattr(signal, name)
]


def run_sync(async_fn: Callable[P, Awaitable[T]], *args: P.args, **kwargs: P.kwargs) -> T:
    """Call *async_fn* and block until it returns, even inside a running asyncio or trio loop.

    If the call raises an exception, `run_sync` raises it. If a signal handler raises an exception, as on Ctrl-C, the
    call is cancelled, and the handler's exception is raised once the call has ended. In a thread without a loop, a
    second signal has no effect, because the clean-up is short. In a thread with a loop, the exception of the second
    handler is raised immediately, while the call ends in its helper thread.

    Example:
        result = run_sync(export_events, "2024-01-01", "2024-01-31", db="events.duckdb", credentials=credentials)
    """
    call = CancellableCall(partial(async_fn, *args, **kwargs))
    return _in_helper_thread(call) if _loop_in_this_thread() else _in_this_thread(call)


def _loop_in_this_thread() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        # Async libraries other than asyncio, such as trio, record their running loop in sniffio's thread-local.
        sniffio = sys.modules.get("sniffio")
        return sniffio is not None and sniffio.thread_local.name is not None
    return True


def _in_this_thread(call: CancellableCall[T]) -> T:
    with _Signals(call.cancel, callbacks_here=True).waiting():
        return context_without_loop().run(anyio.run, call.run)


def _in_helper_thread(call: CancellableCall[T]) -> T:
    was_cancelled = _cancellation_of_the_caller()
    helper = LoopThread(call)
    signals = _Signals(call.cancel, callbacks_here=False)
    with signals.waiting():
        helper.start()
        while helper.is_alive and len(signals.raised) + was_cancelled() < 2:
            helper.join(_POLL_INTERVAL)
            if was_cancelled():
                call.cancel()
        if helper.is_alive or was_cancelled():
            raise asyncio.CancelledError
        return helper.result()


class _Signals:
    """The exceptions that signal handlers raise during a call."""

    def __init__(self, cancel: Callable[[], None], *, callbacks_here: bool) -> None:
        self.raised: list[BaseException] = []
        self._cancel = cancel
        self._callbacks_here = callbacks_here
        self._over = False

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Let exceptions raised by handlers cancel the call. The first one is raised at the end of the block."""
        installed = {}
        if current_thread() is main_thread():
            for number in _SIGNALS:
                if callable(handler := signal.getsignal(number)):
                    installed[number] = (partial(self._handle, handler), handler)
                    signal.signal(number, installed[number][0])
        try:
            yield
        finally:
            # From here on, exceptions propagate, in case a handler raises one while the handlers are being restored.
            self._over = True
            for number, (wrapper, handler) in installed.items():
                if signal.getsignal(number) is wrapper:
                    signal.signal(number, handler)
            if self.raised:
                raise self.raised[0] from None  # hides the cancellation that it caused

    def _handle(
        self, handler: Callable[[int, FrameType | None], object], number: int, frame: FrameType | None
    ) -> None:
        try:
            handler(number, frame)
        except BaseException as error:
            if self._over or (self._callbacks_here and runs_callback(frame)):
                raise
            self.raised.append(error)
            self._cancel()


def _cancellation_of_the_caller() -> Callable[[], bool]:
    """Return a function that checks whether the blocked asyncio task has been cancelled since this call."""
    try:
        task = asyncio.current_task()
    except RuntimeError:
        task = None
    if task is None:
        return lambda: False
    before = task.cancelling()
    return lambda: task.cancelling() > before
