"""Tasks and threads: the effect of cancellation on a call in a thread, and the error that a task group raises."""

import asyncio
import subprocess
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from threading import Event

import anyio
import anyio.lowlevel
import pytest

from mixpanel_export._concurrency import InterruptedCall, entered_in_thread, in_thread, raise_first_error

pytestmark = pytest.mark.anyio


class Stoppable:
    """A store whose statement runs until it is interrupted, perhaps more than once."""

    def __init__(self, interrupts: int = 1) -> None:
        self.running = Event()
        self._left = interrupts
        self._stopped = Event()

    def interrupt(self) -> None:
        self._left -= 1
        if self._left <= 0:
            self._stopped.set()

    def commit(self) -> None:
        self.running.set()
        self._stopped.wait(30)
        raise InterruptedCall


@pytest.mark.parametrize("interrupts", [1, 3])
async def test_cancelling_interrupts_the_statement_and_waits_for_its_thread(interrupts: int) -> None:
    """The interrupt is repeated until the thread has ended, and only the cancellation is raised."""
    store = Stoppable(interrupts)
    with anyio.CancelScope() as scope:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(in_thread, store.commit, store.interrupt)
            await anyio.to_thread.run_sync(store.running.wait)
            scope.cancel()
    assert scope.cancelled_caught
    assert store._stopped.is_set()


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_asyncios_cancellation_of_every_task_waits_for_the_thread() -> None:
    """When `asyncio.run` cancels the remaining tasks, the statement is interrupted, and its thread ends first."""
    store = Stoppable(interrupts=3)
    here = asyncio.all_tasks()
    call = asyncio.ensure_future(in_thread(store.commit, store.interrupt))
    await anyio.to_thread.run_sync(store.running.wait)
    for task in asyncio.all_tasks() - here:
        task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    assert store._stopped.is_set()


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_a_context_that_is_cancelled_while_it_is_entered_is_left() -> None:
    """Entering in a thread continues when the task is cancelled, so its resources are released."""
    entering, go_on, left = Event(), Event(), Event()

    @contextmanager
    def slow() -> Iterator[None]:
        entering.set()
        go_on.wait(30)
        yield
        left.set()

    async def use() -> None:
        async with entered_in_thread(slow()):
            raise AssertionError("entered although cancelled")

    using = asyncio.ensure_future(use())
    await anyio.to_thread.run_sync(entering.wait)
    using.cancel()
    await anyio.lowlevel.checkpoint()
    go_on.set()
    with pytest.raises(asyncio.CancelledError):
        await using
    assert left.is_set()


async def test_a_commit_that_has_ended_is_not_interrupted() -> None:
    """The call's result is returned, and nothing is interrupted afterwards."""
    store = Stoppable()
    assert await in_thread(lambda: 7, store.interrupt) == 7
    assert not store._stopped.is_set()


async def test_an_error_of_the_call_leaves_as_itself() -> None:
    """The caller does not have to search a group for it."""
    store = Stoppable()

    def fail() -> None:
        raise LookupError("x")

    with pytest.raises(LookupError, match="x"):
        await in_thread(fail, store.interrupt)


def group(*errors: BaseException) -> BaseExceptionGroup[BaseException]:
    return BaseExceptionGroup("", errors)


@pytest.mark.parametrize(
    "errors,leaves",
    [
        ([KeyError("a")], KeyError),
        ([KeyError("a"), ValueError("b")], KeyError),
        ([group(group(KeyError("a")), ValueError("b"))], KeyError),
        ([KeyError("a"), group(KeyboardInterrupt())], KeyboardInterrupt),
    ],
)
def test_the_first_error_leaves_alone(errors: Iterable[BaseException], leaves: type[BaseException]) -> None:
    """Of several errors, the first is raised, but an interrupt takes precedence."""
    with pytest.raises(leaves), raise_first_error():
        raise group(*errors)


AFTER_THE_MAIN_THREAD = """
from threading import Thread, main_thread
from mixpanel_export._concurrency import started_in_thread

def work():
    main_thread().join()
    print(started_in_thread(lambda: "result")())

Thread(target=work).start()
"""


def test_a_call_can_start_after_the_main_thread_has_ended() -> None:
    """A program may export in a thread that goes on after its main thread has ended."""
    script = [sys.executable, "-c", AFTER_THE_MAIN_THREAD]
    assert subprocess.run(script, capture_output=True, text=True, check=True).stdout == "result\n"
