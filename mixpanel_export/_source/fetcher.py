"""One chunk, as many attempts as it takes: the limiter, the gate, and the steps that the retry policy decides."""

import logging
import math
from collections.abc import Callable
from contextlib import aclosing
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from itertools import count
from typing import Protocol

import anyio
import httpx
import numpy as np

from mixpanel_export._model import Chunk
from mixpanel_export._quota.gate import CalledTooEarlyError, Gate, OutOfPatienceError, Ticket
from mixpanel_export._quota.retry import LONGEST_PAUSE, History, Wait, next_step
from mixpanel_export._source.request import Query, Turn, fetch
from mixpanel_export._source.turns import Turns
from mixpanel_export.errors import (
    APIError,
    AuthenticationError,
    FutureDateError,
    MixpanelDataError,
    QueryError,
    RateLimitError,
)

_log = logging.getLogger("mixpanel_export")

_UNCOUNTED = frozenset({401, 402, 429})  # statuses that Mixpanel does not count against the hour
_SOME = 64 << 10  # bytes of which what is compared stays in the processor's cache
_LONG_WAIT = 120  # seconds; longer ones are told in minutes
_ROOM_TO_SPLIT = 5  # requests of the hour; two pieces are more requests, and other chunks need theirs


class Sink(Protocol):
    """Where the lines of one chunk go."""

    async def restart(self) -> None:
        """Begin from nothing; called before each attempt."""

    async def block(self, lines: bytes) -> None:
        """Take whole lines."""


class ChunkTooLargeError(Exception):
    """The chunk should be fetched in two pieces."""


@dataclass(slots=True)
class ChunkStats:
    """What one chunk has cost so far; `rows` and `silent` are of the attempt that runs or succeeded.

    `silent` says that not a byte has come: an answer without a body, which nothing proves whole. `had_body` says
    that some attempt brought one, whatever became of it.
    """

    requested_at: datetime
    attempts: int = 0
    bytes_read: int = 0
    rows: int = 0
    silent: bool = True
    had_body: bool = False
    waiting_for: str | None = None


class Fetcher:
    """Fetches chunks with patience, all under one limiter and one gate."""

    def __init__(
        self,
        client: httpx.AsyncClient,
        query: Query,
        gate: Gate,
        *,
        workers: int,
        retries: int,
        now: Callable[[], datetime],
    ) -> None:
        self._client = client
        self._query = query
        self._gate = gate
        self._limiter = anyio.CapacityLimiter(workers)
        self._retries = retries
        self._now = now
        self._turns = Turns()
        self._ranks = count()
        self.stats: dict[Chunk, ChunkStats] = {}

    async def fetch(self, chunk: Chunk, sink: Sink, *, splittable: bool = False) -> ChunkStats:
        """Bring the whole chunk into *sink*, restarting it as often as it takes.

        Raises:
            APIError: The attempts are spent, trying again cannot help, or the quota comes too late.
            ChunkTooLargeError: The chunk is *splittable*, and its pieces would fare better.
        """
        stats = self.stats.setdefault(chunk, ChunkStats(self._now()))
        history = History()
        turn = partial(self._turns.of, next(self._ranks))
        while True:
            try:
                async with self._limiter:
                    await self._attempt(chunk, stats, sink, turn)
            except RateLimitError as error:
                _log.info("%s", error)
            except APIError as error:
                history = history.after(error)
                await self._follow(error, history, stats, splittable=splittable)
            except CalledTooEarlyError:
                continue
            except OutOfPatienceError as error:
                raise _too_late(chunk, error) from error
            else:
                return stats

    async def _follow(
        self, error: APIError, history: History, stats: ChunkStats, *, splittable: bool
    ) -> None:
        """Do what the policy says after a failed attempt, up to the next one."""
        step = next_step(history, retries=self._retries, splittable=splittable and self._may_split)
        match step:
            case Wait(seconds) if seconds > LONGEST_PAUSE and seconds > self._gate.patience:
                raise error  # the server names the pause, so it is a wait like that for the quota
            case Wait(seconds):
                _log.info("%s; again in %.1f s", error, seconds)
                stats.waiting_for = f"a new attempt after: {error}"
                await anyio.sleep(seconds)
                stats.waiting_for = None
            case "split":
                _log.info("%s; in two pieces now", error)
                stats.rows = 0
                raise ChunkTooLargeError from error
            case "give up":
                raise error

    @property
    def _may_split(self) -> bool:
        """Whether two pieces would bring the same, as each has the limit to itself, and the hour has room for them."""
        room = self._gate.remaining is None or self._gate.remaining >= _ROOM_TO_SPLIT
        return room and self._query.limit is None

    async def _attempt(self, chunk: Chunk, stats: ChunkStats, sink: Sink, turn: Turn) -> None:
        ticket: Ticket | None = None

        async def admit() -> None:
            nonlocal ticket
            ticket = await self._gate.admit()
            stats.requested_at = self._now()
            stats.attempts += 1
            _log.debug("%s: attempt %d", chunk, stats.attempts)

        def received(size: int) -> None:
            stats.bytes_read += size
            stats.silent, stats.had_body = False, True

        called = await self._gate.approach()
        try:
            await sink.restart()
            stats.rows, stats.silent = 0, True
            async with aclosing(
                fetch(
                    self._client, self._query, chunk, admit=admit, received=received, turn=turn, now=self._now
                )
            ) as blocks:
                async for block in blocks:
                    stats.rows += _lines_in(block)
                    await sink.block(block)
        except APIError as error:
            if ticket is not None:
                await self._settle(ticket, error)
            raise
        finally:
            if ticket is None:
                self._gate.withdraw(called)
        if ticket is not None:
            self._gate.accepted(ticket)

    async def _settle(self, ticket: Ticket, error: APIError) -> None:
        """Let the gate know what the server did not count, and for how long it wants to be left alone."""
        if isinstance(error, RateLimitError):
            await self._gate.refused(ticket, error.retry_after)
        elif error.status_code in _UNCOUNTED:
            await self._gate.refund(ticket)


def _lines_in(block: bytes) -> int:
    """Return how many newlines the block has, in about a third of the time that `bytes.count` takes."""
    bytes_ = np.frombuffer(block, np.uint8)
    parts = (bytes_[start : start + _SOME] for start in range(0, len(bytes_), _SOME))
    return sum(int(np.count_nonzero(part == ord("\n"))) for part in parts)


def is_final(error: MixpanelDataError) -> bool:
    """Whether the error concerns the whole export, so that no other chunk can succeed either."""
    return isinstance(error, AuthenticationError | QueryError) and not isinstance(error, FutureDateError)


def _too_late(chunk: Chunk, error: OutOfPatienceError) -> RateLimitError:
    seconds = math.ceil(error.seconds)
    wait = f"{seconds} s" if seconds < _LONG_WAIT else f"{seconds / 60:.0f} min"
    return RateLimitError(
        f"the quota leaves no request for {chunk} for another {wait}, longer than max_wait "
        "allows; resume then, or raise max_wait",
        status_code=None,
        retry_after=error.seconds,
    )
