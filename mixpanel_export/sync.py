"""Call an async function from code that cannot await.

In a thread without an event loop the call gets one of its own, in that thread, so callbacks run where the
caller is. In a thread whose event loop is running (a notebook) no second one may start, so the call gets a
helper thread with a loop, and the caller blocks.

Whether a loop runs is a question about the thread. The context variable by which libraries recognise each
other is no answer: `asyncio.to_thread` and `trio.to_thread` copy it into threads that have no loop.

A signal handler runs between any two bytecodes, and one that raises (Python's own for Ctrl-C, or a program's
that exits on SIGTERM) would break a loop off in the middle: what it was about to wake never runs, and worker
threads are never told to end. So while a call lasts, what a handler raises cancels the call instead, and is
raised when the call has ended. Only a callback, which may block for ever, is broken off as any code would be.
"""

import asyncio
import signal
import sys
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from contextvars import Context, copy_context
from functools import partial
from threading import Thread, current_thread, main_thread
from types import FrameType
from typing import Generic, ParamSpec, TypeVar

import anyio

from mixpanel_export._concurrency import runs_callback

P = ParamSpec("P")
T = TypeVar("T")

# Seconds. Windows cannot interrupt a wait without end, and asyncio turns the first Ctrl-C into the
# cancellation of a task, which a blocked loop does not deliver; so somebody has to look.
_LOOK_EVERY = 0.1
# Signals that ask a program to end; the last is Ctrl-Break of Windows.
_SIGNALS = [
    getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGBREAK") if hasattr(signal, name)
]


def run_sync(async_fn: Callable[P, Awaitable[T]], *args: P.args, **kwargs: P.kwargs) -> T:
    """Call *async_fn* and block until it returns; also inside a running asyncio or trio loop.

    Raises what the call raises. Ctrl-C, and any signal whose handler raises, cancels the call, and what the
    handler raised leaves once the call has ended. Another one hurries nothing in a thread without a loop, as the
    clean-up is short; inside a loop it leaves at once, and the call ends by itself in its thread.
    """
    call = _Call(partial(async_fn, *args, **kwargs))
    return _in_helper_thread(call) if _loop_in_this_thread() else _in_this_thread(call)


class _Call(Generic[T]):
    """A call that can be cancelled from a signal handler and from another thread."""

    def __init__(self, call: Callable[[], Awaitable[T]]) -> None:
        self._call = call
        self._cancelled = False
        self._cancel_soon: Callable[[], object] | None = None

    async def run(self) -> T:
        """Make the call in the running loop of asyncio."""
        with anyio.CancelScope() as scope:
            self._cancel_soon = partial(asyncio.get_running_loop().call_soon_threadsafe, scope.cancel)
            if self._cancelled:
                scope.cancel()
            return await self._call()
        raise asyncio.CancelledError

    def cancel(self) -> None:
        """Cancel the call soon, whether it is yet to begin, running or over."""
        self._cancelled = True
        if self._cancel_soon is not None:
            with suppress(RuntimeError):  # the loop is closed
                self._cancel_soon()


def _loop_in_this_thread() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        # Whoever runs another loop has imported this module, and says so in its thread-local.
        sniffio = sys.modules.get("sniffio")
        return sniffio is not None and sniffio.thread_local.name is not None
    return True


def _context_without_loop() -> Context:
    context = copy_context()
    if sniffio := sys.modules.get("sniffio"):
        context.run(sniffio.current_async_library_cvar.set, None)
    return context


def _in_this_thread(call: _Call[T]) -> T:
    with _Signals(call.cancel, callbacks_here=True).waiting():
        return _context_without_loop().run(anyio.run, call.run)


def _in_helper_thread(call: _Call[T]) -> T:
    was_cancelled = _cancellation_of_the_caller()
    returned: Future[T] = Future()
    helper = Thread(target=_context_without_loop().run, args=(_run_into, returned, call))
    signals = _Signals(call.cancel, callbacks_here=False)
    with signals.waiting():
        helper.start()
        while helper.is_alive() and len(signals.raised) + was_cancelled() < 2:
            helper.join(_LOOK_EVERY)
            if was_cancelled():
                call.cancel()
        if helper.is_alive() or was_cancelled():
            raise asyncio.CancelledError
        return returned.result()


def _run_into(returned: "Future[T]", call: _Call[T]) -> None:
    try:
        returned.set_result(anyio.run(call.run))
    except BaseException as error:  # noqa: BLE001 - it is raised where the caller waits
        returned.set_exception(error)


class _Signals:
    """What the handlers of signals raise while a call lasts."""

    def __init__(self, cancel: Callable[[], None], *, callbacks_here: bool) -> None:
        self.raised: list[BaseException] = []
        self._cancel = cancel
        self._callbacks_here = callbacks_here
        self._over = False

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Let what a handler raises cancel the call, and leave when the block has ended."""
        ours = {}
        if current_thread() is main_thread():
            for number in _SIGNALS:
                if callable(handler := signal.getsignal(number)):
                    ours[number] = (partial(self._handle, handler), handler)
                    signal.signal(number, ours[number][0])
        try:
            yield
        finally:
            # From here on nothing is held back, should a handler raise before the last one is in its place again.
            self._over = True
            for number, (own, handler) in ours.items():
                if signal.getsignal(number) is own:
                    signal.signal(number, handler)
            if self.raised:
                raise self.raised[0] from None  # the cancelled call ended as it should

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
    """Return whether the asyncio task that blocks here has been cancelled since now."""
    try:
        task = asyncio.current_task()
    except RuntimeError:
        task = None
    if task is None:
        return lambda: False
    before = task.cancelling()
    return lambda: task.cancelling() > before
