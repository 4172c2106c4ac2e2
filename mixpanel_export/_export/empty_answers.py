"""Which answers without a body are believed at once: nothing proves such an answer whole.

A chunk that came without a byte is fetched once more where events were to be expected: an earlier attempt brought
some, the table has some of these days, or days before and after have some. Neighbouring chunks that all came empty
share one request, so that an event that is rare costs no second round of the whole plan.
"""

import logging
from collections.abc import Iterator
from dataclasses import dataclass, field

import anyio

from mixpanel_export._concurrency import Bell
from mixpanel_export._export.tracker import Outcome
from mixpanel_export._model import Chunk
from mixpanel_export._source.fetcher import ChunkStats, Fetcher, is_final
from mixpanel_export.errors import APIError

_log = logging.getLogger("mixpanel_export")


@dataclass(slots=True)
class _Look:
    """One request for several chunks in a row."""

    over: anyio.Event = field(default_factory=anyio.Event)
    empty: bool = False


class _Nowhere:
    async def restart(self) -> None:
        pass

    async def block(self, lines: bytes) -> None:
        pass


class SecondLook:
    """Decides which chunks are to be fetched again; *bell* rings whenever a chunk is decided."""

    def __init__(self, outcome: Outcome, fetcher: Fetcher, bell: Bell) -> None:
        self._outcome = outcome
        self._fetcher = fetcher
        self._bell = bell
        self._silent: set[Chunk] = set()
        self._believed: set[Chunk] = set()
        self._looks: dict[Chunk, _Look] = {}

    async def wanted(self, chunk: Chunk, stats: ChunkStats) -> bool:
        """Whether the chunk, whose answer *stats* describes, is to be fetched once more.

        May wait until its neighbours are known.
        """
        if not stats.silent:
            return False
        if stats.had_body or self._outcome.has_events_in(chunk):
            return True
        self._silent.add(chunk)
        self._bell.ring()
        try:
            return await self._lies_between_events(chunk) and not await self._is_empty_again(chunk)
        finally:
            self._silent.discard(chunk)

    async def _lies_between_events(self, chunk: Chunk) -> bool:
        """Whether days before and days after the chunk have events, as soon as that is known."""
        while not self._outcome.has_events_around(chunk):
            if len(self._silent) >= self._outcome.undecided:
                self._believed |= self._silent
            if chunk in self._believed:
                return False
            await self._bell.wait()
        return True

    async def _is_empty_again(self, chunk: Chunk) -> bool:
        """Whether the chunk is empty together with its silent neighbours, if it has any."""
        if chunk not in self._looks:
            row = list(self._row(chunk))
            if len(row) == 1:
                return False
            look = _Look()
            self._looks.update(dict.fromkeys(row, look))
            try:
                look.empty = await self._ask(Chunk(row[0].first, row[-1].last))
            finally:
                look.over.set()
        await self._looks[chunk].over.wait()
        return self._looks[chunk].empty

    def _row(self, chunk: Chunk) -> Iterator[Chunk]:
        """Return the chunk and those beside it, day by day without a hole, that are waiting for a second look too."""
        silent = sorted(self._silent - self._looks.keys())
        place = silent.index(chunk)
        first = last = place
        while first and silent[first - 1].borders(silent[first]):
            first -= 1
        while last + 1 < len(silent) and silent[last].borders(silent[last + 1]):
            last += 1
        yield from silent[first : last + 1]

    async def _ask(self, days: Chunk) -> bool:
        _log.info("%s: asked for once more together, as they came empty between days with events", days)
        try:
            stats = await self._fetcher.fetch(days, _Nowhere())
        except APIError as error:
            if is_final(error):
                raise
            return False
        empty, stats.rows = stats.silent, 0
        return empty
