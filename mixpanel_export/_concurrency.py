"""Runs code in tasks and threads. Results, errors and cancellation behave the same under asyncio and trio."""

import inspect
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from concurrent.futures import Future
from contextlib import AbstractContextManager, asynccontextmanager, contextmanager
from functools import partial
from itertools import count
from threading import Thread
from types import FrameType
from typing import Generic, TypeVar

import anyio
from anyio import to_thread

T = TypeVar("T")
V = TypeVar("V")

# Seconds. Interrupts are repeated, because an interrupt between two statements has no effect.
_INTERRUPT_INTERVAL = 0.02
_MAX_TRIES = 50  # a call that has not started by then never will, because its wait for a thread was cancelled

# Seconds. A Ctrl-C that arrives just before the event loop starts to wait does not wake it, so the loop wakes up regularly.
_WAKE_INTERVAL = 0.2

_CHANGE_INTERVAL = 0.1  # seconds between two checks for a change


class InterruptedCall(Exception):  # noqa: N818 - the caller interrupted it
    """A call in a thread was interrupted and has rolled back its transaction."""


class CallbackError(Exception):
    """Carries an exception raised by a user's callback out of the task groups."""

    def __init__(self, raised: BaseException) -> None:
        super().__init__(raised)
        self.raised = raised


def call_back(callback: Callable[[V], T], value: V) -> T:
    """Call a user's *callback*. All callbacks are called from here, so that `runs_callback` can recognize them."""
    return callback(value)


def runs_callback(frame: FrameType | None) -> bool:
    """Whether the interrupted *frame* belongs to a user's callback, which may be stopped at any point."""
    while frame is not None and frame.f_code is not call_back.__code__:
        frame = frame.f_back
    return frame is not None


class SerialCalls:
    """Calls a user's callbacks one at a time. If a callback returns an awaitable, it is awaited.

    If a callback raises an exception, the call raises `CallbackError`, and later calls do nothing.
    """

    def __init__(self) -> None:
        self._lock = anyio.Lock()
        self._raised = False

    async def call(self, callback: Callable[[V], object], value: V) -> None:
        """Call *callback* with *value*."""
        async with self._lock:
            if self._raised:
                return  # the export is ending
            try:
                result = call_back(callback, value)
                if inspect.isawaitable(result):
                    await result
            except anyio.get_cancelled_exc_class() as error:
                self._raised = True
                if anyio.get_current_task().has_pending_cancellation():
                    raise
                raise CallbackError(error) from error  # the callback awaited something that was cancelled
            except (Exception, KeyboardInterrupt, SystemExit) as error:
                self._raised = True
                raise CallbackError(error) from error

    async def call_on_change(self, callback: Callable[[V], object], current: Callable[[], V]) -> None:
        """Call *callback* whenever *current* returns a new value. Check every 0.1 s, until cancelled."""
        reported = None
        while True:
            value = current()
            if value != reported:
                await self.call(callback, value)
                reported = value
            await anyio.sleep(_CHANGE_INTERVAL)


async def in_task(body: Callable[[], Awaitable[T]]) -> T:
    """Run *body* in a separate task and return its result.

    If asyncio cancels a task (`wait_for`, `timeout`, Ctrl-C under `asyncio.run`), it interrupts any await in that
    task, even clean-up that anyio shields. Here, the caller's task only awaits a task group. The task group then
    cancels *body* by anyio's rules, which respect shields.
    """
    results: list[T] = []

    async def run() -> None:
        results.append(await body())

    try:
        with raise_first_error():
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(run)
    except CallbackError as error:
        raise error.raised from error.raised.__cause__
    return results[0]


class _Call(Generic[T]):
    """A call for a worker thread. It records whether it has started and whether it has ended.

    Once asyncio has cancelled the task that waits for the thread, that task cannot know this in any other way.
    """

    def __init__(self, call: Callable[[], T]) -> None:
        self._call = call
        self._started = self.ended = False

    def __call__(self) -> T:
        self._started = True
        try:
            return self._call()
        finally:
            self.ended = True

    async def wait_for_end(self, interrupt: Callable[[], None]) -> None:
        """Interrupt the call repeatedly until it has ended. The wait cannot be cancelled."""
        with anyio.CancelScope(shield=True):
            for tries in count():
                if self.ended or (not self._started and tries > _MAX_TRIES):
                    return
                interrupt()
                await anyio.sleep(_INTERRUPT_INTERVAL)


async def in_thread(call: Callable[[], T], interrupt: Callable[[], None]) -> T:
    """Run *call* in a worker thread. If this task is cancelled, call *interrupt* and wait until the call ends."""
    running = _Call(call)
    finished = anyio.Event()
    with raise_first_error():
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(_interrupt_when_cancelled, running, interrupt, finished)
            try:
                result = await to_thread.run_sync(running)
            except InterruptedCall:
                await anyio.sleep_forever()  # until the cancellation that caused the interrupt arrives
                raise
            finally:
                if running.ended:
                    finished.set()
    return result


async def _interrupt_when_cancelled(
    running: _Call[T], interrupt: Callable[[], None], finished: anyio.Event
) -> None:
    try:
        while not finished.is_set():
            with anyio.move_on_after(_WAKE_INTERVAL):
                await finished.wait()
    except anyio.get_cancelled_exc_class():
        await running.wait_for_end(interrupt)
        raise


def started_in_thread(call: Callable[[], T]) -> Callable[[], T]:
    """Start *call* in a thread. Return a function that waits for its result, or raises its exception.

    Unlike an executor, this function can also be used in a thread that goes on after the main thread has ended.
    """
    future: Future[T] = Future()

    def run() -> None:
        try:
            future.set_result(call())
        except BaseException as error:  # noqa: BLE001 - raised again by `result`
            future.set_exception(error)

    Thread(target=run).start()
    return future.result


@asynccontextmanager
async def entered_in_thread(manager: AbstractContextManager[T]) -> AsyncIterator[T]:
    """Enter and exit *manager* in worker threads, so that the event loop does not block. Only the entry can be cancelled."""
    entered: list[T] = []
    try:
        await _run_to_end(lambda: entered.append(manager.__enter__()))
        yield entered[0]
    finally:
        if entered:
            with anyio.CancelScope(shield=True):
                await _run_to_end(partial(manager.__exit__, None, None, None))


async def _run_to_end(call: Callable[[], object]) -> None:
    running = _Call(call)
    try:
        await to_thread.run_sync(running)
    finally:
        await running.wait_for_end(_do_nothing)


def _do_nothing() -> None:
    """An interrupt without effect, for calls that must run to their end."""


@contextmanager
def raise_first_error() -> Iterator[None]:
    """Raise an exception group's first error instead of the group. The other errors are consequences of the first.

    An exception that is not an `Exception`, such as `KeyboardInterrupt`, takes precedence. A broken channel is never
    the first error, because the channel broke when the task at its other end failed.
    """
    try:
        yield
    except BaseExceptionGroup as group:
        errors = list(_leaves(group))
        causes = [error for error in errors if not isinstance(error, anyio.BrokenResourceError)] or errors
        error = next((error for error in causes if not isinstance(error, Exception)), causes[0])
        raise error from error.__cause__


def _leaves(error: BaseException) -> Iterator[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        for inner in error.exceptions:
            yield from _leaves(inner)
    else:
        yield error
