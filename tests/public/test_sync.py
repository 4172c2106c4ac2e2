"""Blocking calls of async functions: from plain code, inside running loops, on worker threads, and interrupted."""

import asyncio
import signal
import subprocess
import sys
from collections.abc import Callable
from contextvars import ContextVar
from functools import partial
from threading import get_ident

import anyio
import anyio.lowlevel
import anyio.to_thread
import pytest
import trio
from loops import CALL, WAYS, inside_asyncio, inside_trio, plainly

from mixpanel_export.sync import run_sync

Where = Callable[[Callable[[], object]], object]

colour = ContextVar("colour", default="none")


def inside(backend: str, function: Callable[[], object]) -> object:
    async def main() -> object:
        return function()

    return anyio.run(main, backend=backend)


def on_a_thread_of_anyio(backend: str, function: Callable[[], object]) -> object:
    return anyio.run(anyio.to_thread.run_sync, function, backend=backend)


def on_a_thread_of_asyncio(function: Callable[[], object]) -> object:
    return anyio.run(asyncio.to_thread, function)


def on_a_thread_of_trio(function: Callable[[], object]) -> object:
    return trio.run(trio.to_thread.run_sync, function)


def on_a_thread_of_trio_under_anyio(function: Callable[[], object]) -> object:
    return anyio.run(trio.to_thread.run_sync, function, backend="trio")


WITHOUT_LOOP = [
    pytest.param(plainly, id="plain"),
    pytest.param(partial(on_a_thread_of_anyio, "asyncio"), id="anyio-thread-of-asyncio"),
    pytest.param(partial(on_a_thread_of_anyio, "trio"), id="anyio-thread-of-trio"),
    pytest.param(on_a_thread_of_asyncio, id="asyncio-thread"),
    pytest.param(on_a_thread_of_trio, id="trio-thread"),
    pytest.param(on_a_thread_of_trio_under_anyio, id="trio-thread-under-anyio"),
]
INSIDE_LOOP = [
    pytest.param(partial(inside, "asyncio"), id="in-anyio-on-asyncio"),
    pytest.param(partial(inside, "trio"), id="in-anyio-on-trio"),
    pytest.param(inside_asyncio, id="in-asyncio"),
    pytest.param(inside_trio, id="in-trio"),
]
EVERYWHERE = pytest.mark.parametrize("where", [*WITHOUT_LOOP, *INSIDE_LOOP])


async def thread_and_colour(*parts: str, end: str) -> tuple[int, str, str]:
    await anyio.lowlevel.checkpoint()
    return get_ident(), colour.get(), "".join(parts) + end


async def failing() -> None:
    await anyio.lowlevel.checkpoint()
    raise LookupError("as it is")


async def failing_in_a_group_of_one() -> None:
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(failing)


@EVERYWHERE
def test_arguments_go_in_and_the_value_comes_out(where: Where) -> None:
    """The call gets its arguments and its value is returned, wherever the caller is."""

    def call() -> str:
        return run_sync(thread_and_colour, "a", "b", end="c")[2]

    assert where(call) == "abc"


@pytest.mark.parametrize("where", WITHOUT_LOOP)
def test_a_thread_without_a_loop_keeps_the_call(where: Where) -> None:
    """If the caller's thread runs no loop, the call and its callbacks stay in that thread."""

    def same_thread() -> bool:
        return run_sync(thread_and_colour, end="")[0] == get_ident()

    assert where(same_thread) is True


@pytest.mark.parametrize("where", INSIDE_LOOP)
def test_a_thread_with_a_loop_gets_a_helper(where: Where) -> None:
    """If the caller's thread runs a loop, the call has another thread, because a second loop cannot start."""

    def same_thread() -> bool:
        return run_sync(thread_and_colour, end="")[0] == get_ident()

    assert where(same_thread) is False


@EVERYWHERE
def test_context_variables_are_visible(where: Where) -> None:
    """The call sees the caller's context variables, even in a helper thread."""

    def coloured() -> str:
        token = colour.set("green")
        try:
            return run_sync(thread_and_colour, end="")[1]
        finally:
            colour.reset(token)

    assert where(coloured) == "green"


@EVERYWHERE
def test_an_error_leaves_as_itself(where: Where) -> None:
    """The caller gets the error itself, not a group that contains it."""

    def call() -> None:
        with pytest.raises(LookupError, match="as it is"):
            run_sync(failing)

    where(call)


@EVERYWHERE
def test_a_group_stays_a_group(where: Where) -> None:
    """A group that the call raises is not unpacked."""

    def call() -> None:
        with pytest.raises(ExceptionGroup):
            run_sync(failing_in_a_group_of_one)

    where(call)


@EVERYWHERE
def test_calls_can_follow_each_other(where: Where) -> None:
    """A call leaves nothing behind that would prevent the next one."""

    def call() -> list[str]:
        return [run_sync(thread_and_colour, end=end)[2] for end in "xy"]

    assert where(call) == ["x", "y"]


def test_a_callback_may_call_again() -> None:
    """A synchronous callback inside the call may itself make a blocking call."""

    async def outer() -> str:
        return run_sync(thread_and_colour, end="inner")[2]

    assert run_sync(outer) == "inner"


def test_a_cancelled_caller_cancels_the_call() -> None:
    """When the blocked asyncio task is cancelled, the call is cancelled, and the caller is notified immediately."""
    ended: list[bool] = []

    async def cancelling(task: "asyncio.Task[object] | None") -> None:
        assert task is not None
        task.cancel()
        try:
            await anyio.sleep_forever()
        finally:
            ended.append(True)

    def call() -> None:
        run_sync(cancelling, asyncio.current_task())

    with pytest.raises(asyncio.CancelledError):
        inside_asyncio(call)
    assert ended == [True]


CHILD = (
    CALL
    + """
from mixpanel_export.sync import run_sync

async def endless():
    print("started", flush=True)
    try:
        await anyio.sleep_forever()
    finally:
        print("ended", flush=True)

try:
    call_by(sys.argv[1], lambda: run_sync(endless))
except KeyboardInterrupt:
    print("interrupted", flush=True)
"""
)


@pytest.mark.skipif(
    sys.platform == "win32", reason="a console of its own is needed to send Ctrl-C to a child"
)
@pytest.mark.parametrize("way", WAYS)
def test_an_interrupt_ends_the_call_and_is_raised(way: str) -> None:
    """Ctrl-C cancels a call that would never end, lets it clean up, and is raised in the caller."""
    command = [sys.executable, "-c", CHILD, way]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "started\n"
        child.send_signal(signal.SIGINT)
        rest, _ = child.communicate(timeout=60)
    assert rest.split() == ["ended", "interrupted"]
    assert child.returncode == 0
