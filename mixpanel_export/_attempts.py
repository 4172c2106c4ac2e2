"""One chunk, as many attempts as it takes: the limiter, the gate, the pause, and when to give up."""

from collections.abc import Awaitable, Callable
from contextlib import aclosing
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

import anyio
import httpx

from mixpanel_export._fetch import Query, fetch
from mixpanel_export._limits import Gate, pause_before_retry
from mixpanel_export._stream import Chunk
from mixpanel_export.errors import APIError, AuthenticationError, QueryError, RateLimitError


class Sink(Protocol):
    """Where the lines of one chunk go."""

    async def restart(self) -> None:
        """Begin from nothing; called before each attempt."""

    async def block(self, lines: bytes) -> None:
        """Take whole lines."""


@dataclass(slots=True)
class Account:
    """What one chunk has cost so far; `rows` are those of the attempt that runs or succeeded."""

    requested_at: datetime
    attempts: int = 0
    bytes_read: int = 0
    rows: int = 0
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
        sleep: Callable[[float], Awaitable[None]] = anyio.sleep,
    ) -> None:
        self._client = client
        self._query = query
        self._gate = gate
        self._limiter = anyio.CapacityLimiter(workers)
        self._retries = retries
        self._now = now
        self._sleep = sleep
        self.accounts: dict[Chunk, Account] = {}

    async def fetch(self, chunk: Chunk, sink: Sink) -> Account:
        """Bring the whole chunk into *sink*, restarting it as often as it takes.

        Raises:
            APIError: The attempts are spent, or trying again cannot help (see `is_final`).
        """
        account = self.accounts.setdefault(chunk, Account(self._now()))
        failures = refused = 0
        while True:
            try:
                async with self._limiter:
                    await self._attempt(chunk, account, sink)
            except APIError as error:
                account.rows = 0
                limited = isinstance(error, RateLimitError)
                refused, failures = refused + limited, failures + (not limited)
                pause = pause_before_retry(error, refused if limited else failures, retries=self._retries)
                if pause is None:
                    raise
                await self._wait(account, pause, error)
            else:
                return account

    async def _attempt(self, chunk: Chunk, account: Account, sink: Sink) -> None:
        ticket: float | None = None

        async def admit() -> None:
            nonlocal ticket
            ticket = await self._gate.admit()
            account.requested_at = self._now()
            account.attempts += 1

        def received(size: int) -> None:
            account.bytes_read += size

        await self._gate.approach()
        await sink.restart()
        try:
            async with aclosing(
                fetch(self._client, self._query, chunk, admit=admit, received=received)
            ) as blocks:
                async for block in blocks:
                    account.rows += block.count(b"\n")
                    await sink.block(block)
        except (AuthenticationError, RateLimitError):
            if ticket is not None:
                self._gate.refund(ticket)
            raise

    async def _wait(self, account: Account, pause: float, error: APIError) -> None:
        if isinstance(error, RateLimitError):
            self._gate.pause(pause)  # the quota is the project's, so every fetcher waits
            return
        account.waiting_for = f"a new attempt after: {error}"
        await self._sleep(pause)
        account.waiting_for = None


def is_final(error: APIError) -> bool:
    """Whether the error concerns the whole export, so that no other chunk can succeed either."""
    return isinstance(error, AuthenticationError | QueryError)
