"""Blocking calls from plain code and from inside running event loops, in this process and in others."""

import asyncio
from collections.abc import Callable
from typing import TypeVar

import trio

T = TypeVar("T")


def plainly(call: Callable[[], T]) -> T:
    """Call without a loop."""
    return call()


def inside_asyncio(call: Callable[[], T]) -> T:
    """Call from a coroutine of asyncio, which the call blocks."""

    async def main() -> T:
        return call()

    return asyncio.run(main())


def inside_trio(call: Callable[[], T]) -> T:
    """Call from an async function of trio, which the call blocks."""

    async def main() -> T:
        return call()

    return trio.run(main)


WAYS = ["plain", "notebook", "asyncio", "anyio", "trio"]
CALL = """
import asyncio, sys
import anyio, trio

def call_by(way, function):
    async def main():
        function()

    def in_a_notebook():
        loop = asyncio.new_event_loop()
        try:
            loop.run_until_complete(main())
        finally:
            loop.close()

    ways = {
        "plain": function,
        "notebook": in_a_notebook,
        "asyncio": lambda: asyncio.run(main()),
        "anyio": lambda: anyio.run(main),
        "trio": lambda: trio.run(main),
    }
    ways[way]()
"""
"""Defines `call_by(way, function)` in a child process, for each of the `WAYS`."""
