"""The frozen values that cross folders.

Fetchers and the writer speak one grammar over the memory object stream, for each chunk::

    (ChunkStart Block*)* (ChunkStart Block* ChunkEnd | ChunkFailed | ChunkSplit)

`ChunkStart` restarts the chunk: everything staged of it before is void. `ChunkEnd` is sent only for a body that is
proven whole. The writer answers each `ChunkEnd`, `ChunkFailed` and `ChunkSplit` with a verdict. After a `ChunkSplit` its
pieces are chunks like any other.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Literal

Status = Literal["complete", "open", "limited", "failed", "imported"]
"""What a ledger row says of its days.

`open`: the last day had not been over for 48 hours at request time, so `resume` fetches the batch again. `limited`: the
export had a `limit`, so events may be missing. `imported`: mixpanel_data delivered the rows, and nothing proves that
they are complete.
"""


@dataclass(frozen=True, slots=True, order=True)
class Chunk:
    """The days that one request asks for, both inclusive."""

    first: date
    last: date

    @property
    def days(self) -> int:
        """The number of days."""
        return (self.last - self.first).days + 1

    @property
    def dates(self) -> Iterator[date]:
        """Each day of the chunk, in order."""
        return (self.first + timedelta(days=number) for number in range(self.days))

    def overlaps(self, other: "Chunk") -> bool:
        """Whether the two have a day in common."""
        return self.first <= other.last and other.first <= self.last

    def covers(self, other: "Chunk") -> bool:
        """Whether every day of *other* is a day of this chunk."""
        return self.first <= other.first and other.last <= self.last

    def borders(self, later: "Chunk") -> bool:
        """Whether the *later* chunk begins on the day after this one."""
        return later.first - self.last == timedelta(days=1)

    def __str__(self) -> str:
        return f"{self.first} to {self.last}" if self.days > 1 else str(self.first)


@dataclass(frozen=True, slots=True)
class Selection:
    """Which events of which project an export requests; `events` is sorted, None for all."""

    project: str
    events: tuple[str, ...] | None = None
    where: str | None = None

    def excludes(self, other: "Selection") -> bool:
        """Whether no event can be in both selections."""
        return (
            self.project == other.project
            and self.where == other.where
            and self.events is not None
            and other.events is not None
            and set(self.events).isdisjoint(other.events)
        )

    @property
    def events_json(self) -> str | None:
        """The event names as the ledger stores them."""
        return None if self.events is None else json.dumps(self.events, ensure_ascii=False)

    @classmethod
    def from_ledger(cls, project: str, events_json: str | None, where: str | None) -> "Selection":
        """Return the selection that the ledger's columns describe."""
        return cls(project, None if events_json is None else tuple(json.loads(events_json)), where)

    def __str__(self) -> str:
        names = "all events" if self.events is None else "events " + ", ".join(self.events)
        return f"{names} of project {self.project}" + (f" where {self.where}" if self.where else "")


@dataclass(frozen=True, slots=True)
class Batch:
    """One row of the ledger."""

    number: int
    """The `export_batch` of its rows. Numbers rise with time, so of two batches the newer one has the greater number."""
    days: Chunk
    status: Status
    rows: int = 0
    """Rows in the table, after duplicates were removed."""
    selection: Selection = Selection("")
    table: str = ""
    zone: str = "UTC"
    """The zone on whose clock the project's times are; days begin and end by that clock."""
    deduplicated: bool = True
    """Whether rows with equal identity were removed."""
    removed_duplicates: int = 0
    rejects: int = 0
    """Lines that are no events; they are in `_export_rejects`."""
    repaired: int = 0
    """Events whose text had to change before DuckDB could read it."""
    stray_rows: int = 0
    """Rows whose time lies outside `days`."""
    stray_first: datetime | None = None
    """The least time of the stray rows, in naive UTC."""
    stray_last: datetime | None = None
    """The greatest time of the stray rows, in naive UTC."""
    untimed_rows: int = 0
    """Rows without a time."""
    bytes_read: int = 0
    """Bytes received on the wire, over all attempts."""
    attempts: int = 0
    requested_at: datetime | None = None
    """When the request was sent whose response the batch holds, in naive UTC."""
    finished: datetime | None = None
    """When the batch was committed or given up, in naive UTC."""
    error: str | None = None

    @property
    def visible(self) -> bool:
        """Whether the batch's rows are in the table."""
        return self.status != "failed"

    @property
    def silent(self) -> bool:
        """Whether Mixpanel answered without a body, which nothing proves whole; it was asked twice."""
        return self.status in {"complete", "open"} and not self.rows and not self.bytes_read


@dataclass(frozen=True, slots=True)
class ChunkStart:
    """The chunk begins, or begins again.

    `batch` is the number of the ledger row that the chunk will have. With `keep_rejects`, lines that are no events are
    final: they are stored as rejects.
    """

    chunk: Chunk
    batch: int
    keep_rejects: bool = False


@dataclass(frozen=True, slots=True)
class Block:
    """Whole NDJSON lines, each ended by a newline."""

    chunk: Chunk
    lines: bytes


@dataclass(frozen=True, slots=True)
class ChunkEnd:
    """The chunk's body is whole and had *lines* newlines.

    `attempts` and `bytes_read` (on the wire) are totals over all attempts. `requested_at` is aware.
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
    batch: int
    requested_at: datetime
    attempts: int
    bytes_read: int
    error: str


@dataclass(frozen=True, slots=True)
class ChunkSplit:
    """The chunk will be fetched in *pieces*; everything staged of it is void."""

    chunk: Chunk
    pieces: tuple[Chunk, ...]


Item = ChunkStart | Block | ChunkEnd | ChunkFailed | ChunkSplit


@dataclass(frozen=True, slots=True)
class Committed:
    """The writer's verdict: the chunk's rows are in the table."""

    chunk: Chunk
    rows: int
    removed_duplicates: int = 0
    rejects: int = 0
    repaired: int = 0

    def __str__(self) -> str:
        return f"{self.chunk}: {self.rows} rows committed, {self.removed_duplicates} duplicates removed"


@dataclass(frozen=True, slots=True)
class Rejected:
    """The writer's verdict: *lines* lines of the chunk are no events, so it should be fetched once more."""

    chunk: Chunk
    lines: int

    def __str__(self) -> str:
        return f"{self.chunk}: fetched once more, as {self.lines} lines are no events"


@dataclass(frozen=True, slots=True)
class Refused:
    """The writer's verdict: DuckDB cannot load this chunk; nothing of it is in the table."""

    chunk: Chunk
    reason: str

    def __str__(self) -> str:
        return f"{self.chunk}: {self.reason}"


@dataclass(frozen=True, slots=True)
class Failed:
    """The writer's verdict: the failure of the chunk is in the ledger."""

    chunk: Chunk

    def __str__(self) -> str:
        return f"{self.chunk}: failed"


@dataclass(frozen=True, slots=True)
class Split:
    """The writer's verdict: the pieces of the chunk have the batch numbers *batches*, in their order."""

    chunk: Chunk
    batches: tuple[int, ...]

    def __str__(self) -> str:
        return f"{self.chunk}: split into {len(self.batches)} pieces"


Verdict = Committed | Rejected | Refused | Failed | Split
