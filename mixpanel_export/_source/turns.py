"""Whose bytes are decoded first, where more of them come than one processor can decode."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from operator import attrgetter

import anyio
from anyio.lowlevel import checkpoint

_VERY_LONG = 500  # turns of others; a server may drop a connection that nobody reads from
_BACK = 3  # passes of the event loop in which a task reads what the system has for it already


@dataclass(eq=False, slots=True)
class _Waiting:
    rank: int
    since: int
    woken: anyio.Event | None = None


class Turns:
    """Lets one task at a time go on: of those that would, the one with the lowest rank, or one that has waited very long.

    So what began first ends first, and others can work with it, instead of all ending at the same time. Tasks that
    mostly wait for a network hardly ever wait here.
    """

    def __init__(self) -> None:
        self._all: list[_Waiting] = []  # as they came
        self._holder: _Waiting | None = None
        self._ended = 0

    @asynccontextmanager
    async def of(self, rank: int) -> AsyncIterator[None]:
        """Wait for a turn, and hold it."""
        me = _Waiting(rank, self._ended)
        self._all.append(me)
        try:
            await self._come(me)
            self._holder = me
            await checkpoint()  # who comes meanwhile waits, so that ranks are compared
            yield
        finally:
            self._all.remove(me)
            if self._holder in {me, None}:
                self._holder = None
                self._ended += 1
                self._wake()

    async def _come(self, me: _Waiting) -> None:
        while self._holder or self._next() is not me:
            if not self._holder:
                self._wake()
            me.woken = anyio.Event()
            await me.woken.wait()
            await self._let_back()

    async def _let_back(self) -> None:
        """Let the last holder come back for another turn, as often as it does so at once."""
        before = None
        while not self._holder and before != self._ended:
            before = self._ended
            for _ in range(_BACK):
                await checkpoint()

    def _next(self) -> _Waiting:
        first = self._all[0]
        if self._ended - first.since > _VERY_LONG:
            return first
        return min(self._all, key=attrgetter("rank"))

    def _wake(self) -> None:
        if self._all and (woken := self._next().woken):
            woken.set()
