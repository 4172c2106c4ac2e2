"""Turns: who goes first, who is not forgotten, and what that makes of chunks that come faster than they are decoded."""

import gzip
from collections.abc import AsyncIterator
from datetime import UTC, date, datetime

import anyio
import httpx
import pytest
import respx
from anyio.lowlevel import checkpoint
from support import ACCOUNT

from mixpanel_export._model import Chunk
from mixpanel_export._quota.gate import Gate
from mixpanel_export._source import turns as _turns
from mixpanel_export._source.client import new_client
from mixpanel_export._source.fetcher import Fetcher
from mixpanel_export._source.request import Query
from mixpanel_export._source.turns import Turns

pytestmark = pytest.mark.anyio

URL = "https://data.mixpanel.com/api/2.0/export"
LINE = b'{"event":"e","properties":{"filler":"%s"}}\n' % (b"x" * 2000)


class Log:
    """Tasks that take turns, and the order in which they had them."""

    def __init__(self) -> None:
        self.turns = Turns()
        self.had = list[int]()

    async def go(self, rank: int, times: int = 1) -> None:
        for _ in range(times):
            async with self.turns.of(rank):
                self.had.append(rank)
                await checkpoint()
            await checkpoint()


async def _begin(log: Log, *ranks: int, times: int = 1) -> None:
    """Let tasks of these ranks queue one after the other while another has its turn."""
    async with anyio.create_task_group() as tasks, log.turns.of(-1):
        for rank in ranks:
            tasks.start_soon(log.go, rank, times)
            await anyio.wait_all_tasks_blocked()


async def test_of_those_that_wait_the_lowest_rank_goes_first() -> None:
    """In whatever order they came."""
    log = Log()
    await _begin(log, 3, 1, 2)
    assert log.had == [1, 2, 3]


async def test_one_that_comes_back_at_once_goes_before_those_of_higher_rank() -> None:
    """A task that only hands over between two turns ends before the next one has its first."""
    log = Log()
    await _begin(log, 2, 1, times=5)
    assert log.had == [1] * 5 + [2] * 5


async def test_one_that_waits_very_long_has_a_turn_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its connection is read from before the server gives it up."""
    monkeypatch.setattr(_turns, "_VERY_LONG", -1)
    log = Log()
    await _begin(log, 3, 1, 2, times=2)
    assert log.had == [3, 1, 2, 3, 1, 2]


@pytest.mark.parametrize("cancelled", [1, 2])
async def test_one_that_is_cancelled_while_it_waits_holds_nobody_up(cancelled: int) -> None:
    """Not even where the turn has just become its own."""
    log = Log()
    scopes = {rank: anyio.CancelScope() for rank in (1, 2)}

    async def go(rank: int) -> None:
        with scopes[rank]:
            await log.go(rank)

    with anyio.fail_after(5):
        async with anyio.create_task_group() as tasks:
            async with log.turns.of(0):
                for rank in scopes:
                    tasks.start_soon(go, rank)
                await anyio.wait_all_tasks_blocked()
            scopes[cancelled].cancel()
        await log.go(7)
    assert log.had == [3 - cancelled, 7]


async def test_one_that_fails_in_its_turn_gives_it_back() -> None:
    """A damaged answer ends its attempt, and the others go on."""
    log = Log()
    with pytest.raises(ValueError, match="damaged"):
        async with log.turns.of(1):
            raise ValueError("damaged")
    await log.go(2)
    assert log.had == [2]


class _AtOnce(httpx.AsyncByteStream):
    """The body of an answer, always there at once."""

    def __init__(self, body: bytes) -> None:
        self._body = body

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for start in range(0, len(self._body), 16_384):
            await checkpoint()
            yield self._body[start : start + 16_384]


class _Blocks:
    def __init__(self, log: list[Chunk], chunk: Chunk) -> None:
        self._log, self._chunk = log, chunk

    async def restart(self) -> None:
        """Nothing is kept."""

    async def block(self, lines: bytes) -> None:
        assert lines.endswith(b"\n")
        self._log.append(self._chunk)
        await checkpoint()


@respx.mock
async def test_chunks_that_come_faster_than_they_are_decoded_end_one_after_the_other(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The first one is whole, and can be examined, when the last one has hardly begun; none waits very long here."""
    monkeypatch.setattr(_turns, "_VERY_LONG", 10_000)
    body = gzip.compress(LINE * 10_000, 0)
    respx.get(URL).mock(
        side_effect=lambda _: httpx.Response(200, headers={"content-encoding": "gzip"}, stream=_AtOnce(body))
    )
    chunks = [Chunk(date(2024, 3, day), date(2024, 3, day)) for day in (1, 2, 3, 4)]
    log = list[Chunk]()
    gate = Gate(per_second=0, per_hour=0, max_wait=0)
    async with new_client(None) as client, anyio.create_task_group() as tasks:
        fetcher = Fetcher(
            client, Query(URL, ACCOUNT), gate, workers=4, retries=0, now=lambda: datetime.now(UTC)
        )
        for chunk in chunks:
            tasks.start_soon(fetcher.fetch, chunk, _Blocks(log, chunk))
    first, *_, last = dict.fromkeys(log)
    blocks = log.count(first)
    assert all(log.count(chunk) == blocks for chunk in chunks)
    assert blocks > 10
    assert log[: blocks + 4].count(first) == blocks
    assert last not in log[: 2 * blocks]
