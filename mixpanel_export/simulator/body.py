"""Bodies: from a query to the pieces of bytes that answer it, in constant memory.

days ─ segments of lines ─ [limit, faults in lines] ─ gzip or plain ─ pieces ─ [faults on the wire]

Generators are handed to an exit stack as they are made, so that an answer which nobody reads to its end
leaves none of them open.
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
from mixpanel_export.simulator.faults import GZIP_ONLY, LINES, WIRE, Fault
from mixpanel_export.simulator.query import Query
from mixpanel_export.simulator.segments import NO_LINES, DayCache, GzipMember, Segment, blocks, segment
from mixpanel_export.simulator.where import Predicate

GZIP_OVER = 1400
"""A larger body is compressed for whoever accepts it, in bytes (docs: openapi/export.openapi.yaml)."""

T = TypeVar("T")
Pieces = AsyncGenerator[bytes, None]
Segments = AsyncGenerator[Segment, None]


@dataclass(frozen=True, slots=True)
class Pace:
    """How fast bodies go out, on which clock, and in what pieces; see `Simulator`."""

    clock: Callable[[], float]
    sleep: Callable[[float], Awaitable[None]]
    seconds_per_day: float = 0.0
    bandwidth: float | None = None
    piece: int = 65536
    gzip_over: int = GZIP_OVER
    member: int | None = None


@dataclass(frozen=True, slots=True)
class Body:
    """A body about to be sent."""

    gzip: bool
    pieces: Pieces


@dataclass(frozen=True, slots=True)
class Source:
    """Where segments come from: a project's events, with the days already compressed."""

    profile: Profile
    cache: DayCache
    pace: Pace
    shuffled: bool = False

    async def segments(self, query: Query, arrived: datetime, order: int, *, paced: bool) -> Segments:
        """Yield the lines of all days of *query*, in an order that *order* decides."""
        draw = Random(f"{self.profile.seed}:order:{order}")
        days = list(query.days())
        turn = draw.randrange(len(days))
        begun = self.pace.clock()
        for done, day in enumerate(days[turn:] + days[:turn]):
            for share, part in self._day(day, query, arrived, draw):
                yield _shuffled(part, draw) if self.shuffled else part
                await (self._wait(begun, done + share) if paced else checkpoint())

    def prepare(self, query: Query, arrived: datetime) -> None:
        """Compress the days of *query* that have all arrived."""
        for day in query.days():
            for _ in self._day(day, query, arrived, Random(0)):
                pass

    async def _wait(self, begun: float, days: float) -> None:
        """Wait until *days* may have been sent."""
        left = begun + days * self.pace.seconds_per_day - self.pace.clock()
        await (self.pace.sleep(left) if self.pace.seconds_per_day and left > 0 else checkpoint())

    def _day(
        self, day: date, query: Query, arrived: datetime, draw: Random
    ) -> Iterator[tuple[float, Segment]]:
        """Segments of one day, each with the share of the day that is over with it; 1 comes last."""
        filtered = query.events is not None or query.where is not None
        everything = not filtered and not query.in_ms and settled_at(self.profile, day) <= arrived
        kept = self.cache.get(day) if everything else None
        if kept is None:
            yield from self._made(day, query, arrived, keep=everything)
            return
        for number, part in enumerate(draw.sample(kept, len(kept)), 1):
            yield number / len(kept), part

    def _made(
        self, day: date, query: Query, arrived: datetime, *, keep: bool
    ) -> Iterator[tuple[float, Segment]]:
        chosen = selected(self.profile, day, arrived, query.events, query.where)
        lines = (line(in_milliseconds(record) if query.in_ms else record) for record in chosen)
        expected = max(1, self.profile.events_on(day) * 1000)  # others' days may have lines for an empty one
        made: list[Segment] = []
        sent = size = 0
        for block in blocks(lines):
            part = segment(block)
            sent, size = sent + part.size, size + len(part.data)
            keep = keep and self.cache.fits(size)
            if keep:
                made.append(part)
            yield min(sent / expected, 0.99), part
        yield 1.0, NO_LINES
        if keep:
            self.cache.put(day, made or [NO_LINES])


def _shuffled(part: Segment, draw: Random) -> Segment:
    """The same lines in another order; the last stays an event."""
    lines = part.lines().split(b"\n")[:-1]
    draw.shuffle(lines)
    events = [place for place, line in enumerate(lines) if line not in REJECTS]
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
    """Records of *day* that have arrived by *arrived*: of the named *events* only, and as *where* wants them."""
    chosen = records(profile, day, now=None if settled_at(profile, day) <= arrived else arrived)
    if events is not None:
        wanted = {index for index, name in enumerate(NAMES) if name in events}
        chosen = (record for record in chosen if record[0] in wanted)
    return chosen if where is None else (record for record in chosen if where(record[1], record[5]))


@dataclass(frozen=True, slots=True)
class BodyMaker:
    """Makes the body of one answer; what it begins is closed when *stack* is."""

    source: Source
    query: Query
    fault: Fault | None
    arrived: datetime
    order: int
    stack: AsyncExitStack = field(repr=False)

    async def body(self, *, accepts_gzip: bool) -> Body:
        """Return the body, compressed where *accepts_gzip* allows it and its size calls for it."""
        segments = await self._segments(paced=True)
        begun, large = await _peek(segments, self.source.pace.gzip_over)
        gzip = accepts_gzip and (large or (self.fault is not None and self.fault.kind in GZIP_ONLY))
        pieces = await self._encoded(self._keep(_chained(begun, segments)), gzip=gzip)
        pieces = self._keep(_recut(pieces, self.source.pace.piece))
        if self.fault and self.fault.kind in WIRE:
            size = await _size(await self._encoded(await self._segments(paced=False), gzip=gzip))
            pieces = self._keep(WIRE[self.fault.kind](pieces, size, self.fault, self.source.pace.sleep))
        if self.source.pace.bandwidth:
            pieces = self._keep(_throttled(pieces, self.source.pace, self.source.pace.bandwidth))
        return Body(gzip, pieces)

    def _keep(self, generator: AsyncGenerator[T, None]) -> AsyncGenerator[T, None]:
        self.stack.push_async_callback(generator.aclose)
        return generator

    def _raw(self, *, paced: bool) -> Segments:
        return self._keep(self.source.segments(self.query, self.arrived, self.order, paced=paced))

    async def _segments(self, *, paced: bool) -> Segments:
        """Segments after the limit and after the faults that concern lines."""
        stage = LINES.get(self.fault.kind) if self.fault else None
        if self.query.limit is None and stage is None:
            return self._raw(paced=paced)
        lines = self._lines(self._raw(paced=paced))
        if stage and self.fault:
            size = await _size(self._lines(self._raw(paced=False)))
            lines = self._keep(stage(lines, size, self.fault, self.source.pace.sleep))
        return self._keep(_compressed(lines))

    def _lines(self, segments: Segments) -> Pieces:
        lines = self._keep(_plain(segments))
        return lines if self.query.limit is None else self._keep(_limited(lines, self.query.limit))

    async def _encoded(self, segments: Segments, *, gzip: bool) -> Pieces:
        if not gzip:
            return self._keep(_plain(segments))
        match self.fault.kind if self.fault else None:
            case "corrupt_crc":
                return self._keep(_member(segments, crc_error=0xFFFF))
            case "two_members":
                return self._keep(_two_members(segments))
            case _ if self.source.pace.member:
                return self._keep(_members(segments, self.source.pace.member))
            case _:
                return self._keep(_member(segments))


async def _peek(segments: Segments, limit: int) -> tuple[list[Segment], bool]:
    """Take segments until it is known whether the body is larger than *limit*."""
    begun: list[Segment] = []
    size = 0
    while size <= limit:
        part = await anext(segments, None)
        if part is None:
            return begun, False
        begun.append(part)
        size += part.size
    return begun, True


async def _chained(begun: Iterable[Segment], rest: AsyncIterable[Segment]) -> Segments:
    for part in begun:
        yield part
    async for part in rest:
        yield part


async def _plain(segments: AsyncIterable[Segment]) -> Pieces:
    async for part in segments:
        yield part.lines()


async def _compressed(lines: AsyncIterable[bytes]) -> Segments:
    async for piece in lines:
        yield segment(piece)


async def _limited(lines: AsyncIterable[bytes], limit: int) -> Pieces:
    """Yield what comes before the event number *limit*, and that."""
    async for piece in lines:
        kept: list[bytes] = []
        for each in piece.split(b"\n")[:-1]:
            kept += each, b"\n"
            limit -= each not in REJECTS
            if not limit:
                yield b"".join(kept)
                return
        yield piece


async def _two_members(segments: Segments) -> Pieces:
    """Yield two gzip members, the first of one segment."""
    first = await anext(segments, NO_LINES)
    member = GzipMember()
    yield member.begin() + member.add(first) + member.end()
    member = GzipMember()
    yield member.begin()
    async for part in segments:
        yield member.add(part)
    yield member.end()


async def _member(segments: AsyncIterable[Segment], crc_error: int = 0) -> Pieces:
    """Yield one gzip member; *crc_error* is mixed into its checksum."""
    member = GzipMember()
    yield member.begin()
    async for part in segments:
        yield member.add(part)
    yield member.end(crc_error)


async def _members(segments: AsyncIterable[Segment], size: int) -> Pieces:
    """Yield gzip members of *size* bytes of lines each, wherever that cuts; of nothing, one."""
    some = False
    async with aclosing(_plain(segments)) as lines, aclosing(_recut(lines, size)) as pieces:
        async for piece in pieces:
            some = True
            yield _whole_member(segment(piece))
    if not some:
        yield _whole_member(NO_LINES)


def _whole_member(part: Segment) -> bytes:
    member = GzipMember()
    return member.begin() + member.add(part) + member.end()


async def _recut(pieces: AsyncIterable[bytes], size: int) -> Pieces:
    """Cut *pieces* into others of *size* bytes, but for the last."""
    kept = bytearray()
    async for piece in pieces:
        kept += piece
        whole = len(kept) - len(kept) % size
        for at in range(0, whole, size):
            yield bytes(kept[at : at + size])
        del kept[:whole]
    if kept:
        yield bytes(kept)


async def _throttled(pieces: AsyncIterable[bytes], pace: Pace, bandwidth: float) -> Pieces:
    """Yield *pieces* no faster than *bandwidth* bytes per second."""
    begun, sent = pace.clock(), 0
    async for piece in pieces:
        sent += len(piece)
        left = begun + sent / bandwidth - pace.clock()
        if left > 0:
            await pace.sleep(left)
        yield piece


async def _size(pieces: AsyncIterable[bytes]) -> int:
    size = 0
    async for piece in pieces:
        size += len(piece)
    return size
