"""Call an async function from code that cannot await.

In a thread without an event loop the call gets one of its own, in that thread, so callbacks run where the
caller is. In a thread whose event loop is running (a notebook) no second one may start, so the call gets a
helper thread with a loop, and the caller blocks. Either way an interrupt cancels the call, waits for what it
must finish, and leaves as the interrupt it is.

Whether a loop runs is a question about the thread. The context variable by which libraries recognise each
other is no answer: `asyncio.to_thread` and `trio.to_thread` copy it into threads that have no loop.
"""

import asyncio
import sys
from collections.abc import Awaitable, Callable
from concurrent.futures import wait
from contextvars import copy_context
from functools import partial
from typing import ParamSpec, TypeVar

import anyio
from anyio.from_thread import start_blocking_portal

P = ParamSpec("P")
T = TypeVar("T")

# Seconds. Windows cannot interrupt a wait without end, and asyncio turns the first Ctrl-C into the
# cancellation of a task, which a blocked loop does not deliver; so somebody has to look.
_LOOK_EVERY = 0.1


def run_sync(async_fn: Callable[P, Awaitable[T]], *args: P.args, **kwargs: P.kwargs) -> T:
    """Call *async_fn* and block until it returns; also inside a running asyncio or trio loop.

    Raises what the call raises. `KeyboardInterrupt` cancels the call and is raised again once it has ended.
    """
    call = partial(async_fn, *args, **kwargs)
    return _in_helper_thread(call) if _loop_in_this_thread() else _in_this_thread(call)


def _loop_in_this_thread() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        # Whoever runs another loop has imported this module, and says so in its thread-local.
        sniffio = sys.modules.get("sniffio")
        return sniffio is not None and sniffio.thread_local.name is not None
    return True


def _in_this_thread(call: Callable[[], Awaitable[T]]) -> T:
    context = copy_context()
    if sniffio := sys.modules.get("sniffio"):
        context.run(sniffio.current_async_library_cvar.set, None)
    return context.run(anyio.run, call)


def _in_helper_thread(call: Callable[[], Awaitable[T]]) -> T:
    was_cancelled = _cancellation_of_the_caller()
    with start_blocking_portal() as portal:
        future = portal.start_task_soon(call)
        while not wait([future], timeout=_LOOK_EVERY).done:
            if was_cancelled():
                raise asyncio.CancelledError
        return future.result()


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
