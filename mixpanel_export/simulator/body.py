"""Creates the response body for a query, as pieces of bytes, in constant memory.

days ─ segments of lines ─ [limit, faults in lines] ─ gzip or plain ─ pieces ─ [faults on the wire]

Each generator is registered with an exit stack when it is created, so it is closed even if the client does not read
the whole response.
"""

from collections.abc import AsyncGenerator, AsyncIterable, Awaitable, Callable, Iterable, Iterator
from contextlib import AsyncExitStack, aclosing
from dataclasses import dataclass, field
from datetime import date, datetime
from random import Random
from typing import TypeVar

from anyio.lowlevel import checkpoint

from mixpanel_export.simulator.awkward import REJECTS
from mixpanel_export.simulator.content import NAMES
from mixpanel_export.simulator.days import records, settled_at
from mixpanel_export.simulator.events import Profile, Record, in_milliseconds, line
from mixpanel_export.simulator.fault_stages import LINES, WIRE
from mixpanel_export.simulator.faults import GZIP_ONLY, Fault
from mixpanel_export.simulator.parse import Query
from mixpanel_export.simulator.segments import NO_LINES, DayCache, GzipMember, Segment, blocks, segment
from mixpanel_export.simulator.where import Predicate

GZIP_OVER = 1400
"""Bodies with more bytes than this are compressed if the client accepts gzip (docs: openapi/export.openapi.yaml)."""

T = TypeVar("T")
Pieces = AsyncGenerator[bytes, None]
Segments = AsyncGenerator[Segment, None]


@dataclass(frozen=True, slots=True)
class Pace:
    """The speed at which bodies are sent, and the sizes of their pieces; see `Simulator`."""

    clock: Callable[[], float]
    sleep: Callable[[float], Awaitable[None]]
    seconds_per_day: float = 0.0
    bandwidth: float | None = None
    piece: int = 65536
    gzip_over: int = GZIP_OVER
    member: int | None = None


@dataclass(frozen=True, slots=True)
class Body:
    """A body to send."""

    gzip: bool
    pieces: Pieces


@dataclass(frozen=True, slots=True)
class Source:
    """Yields a project's events as segments, and caches compressed days."""

    profile: Profile
    cache: DayCache
    pace: Pace
    shuffled: bool = False

    async def segments(self, query: Query, arrived: datetime, order: int, *, paced: bool) -> Segments:
        """Yield the lines for all days in *query*, in an order that depends on *order*."""
        draw = Random(f"{self.profile.seed}:order:{order}")
        days = list(query.days())
        rotation = draw.randrange(len(days))
        started = self.pace.clock()
        for done, day in enumerate(days[rotation:] + days[:rotation]):
            for share, part in self._day(day, query, arrived, draw):
                yield _shuffle(part, draw) if self.shuffled else part
                await (self._wait(started, done + share) if paced else checkpoint())

    def prepare(self, query: Query, arrived: datetime) -> None:
        """Compress and cache the final days in *query*."""
        for day in query.days():
            for _ in self._day(day, query, arrived, Random(0)):
                pass

    async def _wait(self, started: float, days: float) -> None:
        """Wait for as long as sending this number of *days* should have taken since *started*."""
        remaining = started + days * self.pace.seconds_per_day - self.pace.clock()
        await (self.pace.sleep(remaining) if self.pace.seconds_per_day and remaining > 0 else checkpoint())

    def _day(
        self, day: date, query: Query, arrived: datetime, draw: Random
    ) -> Iterator[tuple[float, Segment]]:
        """Yield a day's segments. Each comes with the share of the day that has been sent after it, from 0 to 1."""
        filtered = query.events is not None or query.where is not None
        everything = not filtered and not query.in_ms and settled_at(self.profile, day) <= arrived
        cached = self.cache.get(day) if everything else None
        if cached is None:
            yield from self._compressed(day, query, arrived, cache=everything)
            return
        for number, part in enumerate(draw.sample(cached, len(cached)), 1):
            yield number / len(cached), part

    def _compressed(
        self, day: date, query: Query, arrived: datetime, *, cache: bool
    ) -> Iterator[tuple[float, Segment]]:
        records = selected(self.profile, day, arrived, query.events, query.where)
        lines = (line(in_milliseconds(record) if query.in_ms else record) for record in records)
        expected = max(
            1, self.profile.events_on(day) * 1000
        )  # an empty day may have lines from adjacent days
        segments: list[Segment] = []
        sent = size = 0
        for block in blocks(lines):
            part = segment(block)
            sent, size = sent + part.size, size + len(part.data)
            cache = cache and self.cache.fits(size)
            if cache:
                segments.append(part)
            yield min(sent / expected, 0.99), part
        yield 1.0, NO_LINES
        if cache:
            self.cache.put(day, segments or [NO_LINES])


def _shuffle(part: Segment, draw: Random) -> Segment:
    """Return the same lines in a random order, with an event as the last line."""
    lines = part.lines().split(b"\n")[:-1]
    draw.shuffle(lines)
    events = [index for index, line in enumerate(lines) if line not in REJECTS]
    if events:
        lines.append(lines.pop(events[-1]))
    return segment(b"".join(line + b"\n" for line in lines))


def selected(
    profile: Profile,
    day: date,
    arrived: datetime,
    events: frozenset[str] | None,
    where: Predicate | None = None,
) -> Iterator[Record]:
    """Yield the records for *day* that have arrived by *arrived* and match *events* and *where*."""
    matches = records(profile, day, now=None if settled_at(profile, day) <= arrived else arrived)
    if events is not None:
        indexes = {index for index, name in enumerate(NAMES) if name in events}
        matches = (record for record in matches if record[0] in indexes)
    return matches if where is None else (record for record in matches if where(record[1], record[5]))


@dataclass(frozen=True, slots=True)
class BodyMaker:
    """Creates the body of one response. *stack* closes its generators."""

    source: Source
    query: Query
    fault: Fault | None
    arrived: datetime
    order: int
    stack: AsyncExitStack = field(repr=False)

    async def body(self, *, accepts_gzip: bool) -> Body:
        """Return the body, compressed if *accepts_gzip* allows it and the body is large enough."""
        segments = await self._segments(paced=True)
        start, large = await _peek(segments, self.source.pace.gzip_over)
        gzip = accepts_gzip and (large or (self.fault is not None and self.fault.kind in GZIP_ONLY))
        pieces = await self._encode(self._register(_chain(start, segments)), gzip=gzip)
        pieces = self._register(_resize(pieces, self.source.pace.piece))
        if self.fault and self.fault.kind in WIRE:
            size = await _size(await self._encode(await self._segments(paced=False), gzip=gzip))
            pieces = self._register(WIRE[self.fault.kind](pieces, size, self.fault, self.source.pace.sleep))
        if self.source.pace.bandwidth:
            pieces = self._register(_throttle(pieces, self.source.pace, self.source.pace.bandwidth))
        return Body(gzip, pieces)

    def _register(self, generator: AsyncGenerator[T, None]) -> AsyncGenerator[T, None]:
        self.stack.push_async_callback(generator.aclose)
        return generator

    def _raw(self, *, paced: bool) -> Segments:
        return self._register(self.source.segments(self.query, self.arrived, self.order, paced=paced))

    async def _segments(self, *, paced: bool) -> Segments:
        """Return the segments to which the limit and the faults in lines have been applied."""
        stage = LINES.get(self.fault.kind) if self.fault else None
        if self.query.limit is None and stage is None:
            return self._raw(paced=paced)
        lines = self._lines(self._raw(paced=paced))
        if stage and self.fault:
            size = await _size(self._lines(self._raw(paced=False)))
            lines = self._register(stage(lines, size, self.fault, self.source.pace.sleep))
        return self._register(_as_segments(lines))

    def _lines(self, segments: Segments) -> Pieces:
        lines = self._register(_plain(segments))
        return lines if self.query.limit is None else self._register(_limit_lines(lines, self.query.limit))

    async def _encode(self, segments: Segments, *, gzip: bool) -> Pieces:
        if not gzip:
            return self._register(_plain(segments))
        match self.fault.kind if self.fault else None:
            case "corrupt_crc":
                return self._register(_member(segments, crc_error=0xFFFF))
            case "two_members":
                return self._register(_two_members(segments))
            case _ if self.source.pace.member:
                return self._register(_members(segments, self.source.pace.member))
            case _:
                return self._register(_member(segments))


async def _peek(segments: Segments, limit: int) -> tuple[list[Segment], bool]:
    """Read segments until it is clear whether the body is larger than *limit*. Return them, and whether it is larger."""
    start: list[Segment] = []
    size = 0
    while size <= limit:
        part = await anext(segments, None)
        if part is None:
            return start, False
        start.append(part)
        size += part.size
    return start, True


async def _chain(start: Iterable[Segment], rest: AsyncIterable[Segment]) -> Segments:
    for part in start:
        yield part
    async for part in rest:
        yield part


async def _plain(segments: AsyncIterable[Segment]) -> Pieces:
    async for part in segments:
        yield part.lines()


async def _as_segments(lines: AsyncIterable[bytes]) -> Segments:
    async for piece in lines:
        yield segment(piece)


async def _limit_lines(lines: AsyncIterable[bytes], limit: int) -> Pieces:
    """Yield the lines up to and including event number *limit*."""
    async for piece in lines:
        lines_before: list[bytes] = []
        for each in piece.split(b"\n")[:-1]:
            lines_before += each, b"\n"
            limit -= each not in REJECTS
            if not limit:
                yield b"".join(lines_before)
                return
        yield piece


async def _two_members(segments: Segments) -> Pieces:
    """Yield two gzip members. The first has one segment."""
    first = await anext(segments, NO_LINES)
    member = GzipMember()
    yield member.begin() + member.add(first) + member.end()
    member = GzipMember()
    yield member.begin()
    async for part in segments:
        yield member.add(part)
    yield member.end()


async def _member(segments: AsyncIterable[Segment], crc_error: int = 0) -> Pieces:
    """Yield one gzip member. Its checksum is combined with *crc_error* by XOR."""
    member = GzipMember()
    yield member.begin()
    async for part in segments:
        yield member.add(part)
    yield member.end(crc_error)


async def _members(segments: AsyncIterable[Segment], size: int) -> Pieces:
    """Yield gzip members with *size* bytes of lines each. A member may end within a line. An empty body has one member."""
    empty = True
    async with aclosing(_plain(segments)) as lines, aclosing(_resize(lines, size)) as pieces:
        async for piece in pieces:
            empty = False
            yield _whole_member(segment(piece))
    if empty:
        yield _whole_member(NO_LINES)


def _whole_member(part: Segment) -> bytes:
    member = GzipMember()
    return member.begin() + member.add(part) + member.end()


async def _resize(pieces: AsyncIterable[bytes], size: int) -> Pieces:
    """Yield the same bytes in pieces of *size* bytes. The last piece may be smaller."""
    buffer = bytearray()
    async for piece in pieces:
        buffer += piece
        complete = len(buffer) - len(buffer) % size
        for at in range(0, complete, size):
            yield bytes(buffer[at : at + size])
        del buffer[:complete]
    if buffer:
        yield bytes(buffer)


async def _throttle(pieces: AsyncIterable[bytes], pace: Pace, bandwidth: float) -> Pieces:
    """Yield *pieces* at no more than *bandwidth* bytes per second."""
    started, sent = pace.clock(), 0
    async for piece in pieces:
        sent += len(piece)
        remaining = started + sent / bandwidth - pace.clock()
        if remaining > 0:
            await pace.sleep(remaining)
        yield piece


async def _size(pieces: AsyncIterable[bytes]) -> int:
    size = 0
    async for piece in pieces:
        size += len(piece)
    return size
