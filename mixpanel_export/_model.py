"""The frozen values that cross stages.

Fetchers and the writer speak one grammar over the memory object stream, for each chunk::

    (ChunkStart Block*)* (ChunkStart Block* ChunkEnd | ChunkFailed | ChunkSplit)

`ChunkStart` means that the chunk begins from nothing, however much of it had come before; `ChunkEnd` is
sent only for a body that is proven whole. To each `ChunkEnd` the writer answers with a verdict. After `ChunkSplit`
the pieces are chunks like any other.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, datetime, timedelta


@dataclass(frozen=True, slots=True, order=True)
class Chunk:
    """The days that one request asks for, both inclusive."""

    first: date
    last: date

    @property
    def days(self) -> int:
        """How many days the chunk has."""
        return (self.last - self.first).days + 1

    @property
    def dates(self) -> Iterator[date]:
        """Each day of the chunk, in order."""
        return (self.first + timedelta(days=number) for number in range(self.days))

    def overlaps(self, other: "Chunk") -> bool:
        """Whether the two have a day in common."""
        return self.first <= other.last and other.first <= self.last

    def covers(self, other: "Chunk") -> bool:
        """Whether every day of the *other* is one of this chunk's."""
        return self.first <= other.first and other.last <= self.last

    def borders(self, later: "Chunk") -> bool:
        """Whether the *later* chunk begins on the day after this one."""
        return later.first - self.last == timedelta(days=1)

    def __str__(self) -> str:
        return f"{self.first} to {self.last}" if self.days > 1 else str(self.first)


@dataclass(frozen=True, slots=True)
class ChunkStart:
    """The chunk begins, for the first time or again; `keep_rejects` where lines that are no event are final."""

    chunk: Chunk
    keep_rejects: bool = False


@dataclass(frozen=True, slots=True)
class Block:
    """Whole NDJSON lines, each ended by a newline."""

    chunk: Chunk
    lines: bytes


@dataclass(frozen=True, slots=True)
class ChunkEnd:
    """The chunk's body is whole and had *lines* newlines.

    `attempts` and `bytes_read` (on the wire) are totals of the chunk.
    """

    chunk: Chunk
    requested_at: datetime
    attempts: int
    bytes_read: int
    lines: int


@dataclass(frozen=True, slots=True)
class ChunkFailed:
    """The chunk is given up."""

    chunk: Chunk
    requested_at: datetime
    attempts: int
    error: str


@dataclass(frozen=True, slots=True)
class ChunkSplit:
    """The chunk will come in *pieces*; what has come of it is void."""

    chunk: Chunk
    pieces: tuple[Chunk, ...]


Item = ChunkStart | Block | ChunkEnd | ChunkFailed | ChunkSplit


@dataclass(frozen=True, slots=True)
class Committed:
    """The writer's verdict: rows of the chunk, after duplicates were removed, are in the table for good."""

    chunk: Chunk
    rows: int
    removed_duplicates: int = 0
    rejects: int = 0
    repaired: int = 0


@dataclass(frozen=True, slots=True)
class Rejected:
    """The writer's verdict: *lines* of the chunk are no events, so it should be fetched once more."""

    chunk: Chunk
    lines: int


@dataclass(frozen=True, slots=True)
class Refused:
    """The writer's verdict: DuckDB does not take this chunk, though it takes others; nothing of it is kept."""

    chunk: Chunk
    reason: str


Verdict = Committed | Rejected | Refused
