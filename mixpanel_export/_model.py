"""The frozen values that several folders share.

Fetch tasks send items to the writer over a memory object stream. A chunk's items come in this order::

    (ChunkStart Block*)* (ChunkStart Block* ChunkEnd | ChunkFailed | ChunkSplit)

Each `ChunkStart` restarts the chunk, and the writer discards earlier blocks. `ChunkEnd` is sent only for a response
that is proven complete. The writer returns a verdict on each `ChunkEnd`, `ChunkFailed` and `ChunkSplit`. After a
`ChunkSplit`, each piece is a chunk with its own items. The verdicts are:

- `Committed`: the chunk's rows and its ledger row are in the database.
- `Malformed`: some lines are not events, perhaps because of a transmission fault. The chunk is fetched again. If it
  still has such lines, they are stored as rejects, and the chunk is committed.
- `Unloadable`: DuckDB cannot load the chunk, for example because memory is too small. The chunk fails.
- `Failed`: the failure is recorded in the ledger.
- `Split`: the pieces have batch numbers.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Literal

Status = Literal["complete", "open", "limited", "failed", "imported"]
"""The status of a ledger row, which is also the status of its days.

- `complete`: the table has all events of the days.
- `open`: the last day ended less than 48 hours before the request, so `resume` fetches the batch again.
- `limited`: the export had a `limit`, so events may be missing.
- `failed`: the batch has no rows in the table.
- `imported`: mixpanel_data wrote the rows, and nothing proves that they are complete.
"""


@dataclass(frozen=True, slots=True, order=True)
class Chunk:
    """The days of one request, from *first* to *last*, both inclusive. Also used for other date ranges."""

    first: date
    last: date

    @property
    def length(self) -> int:
        """The number of days."""
        return (self.last - self.first).days + 1

    @property
    def dates(self) -> Iterator[date]:
        """Each day of the chunk, in order."""
        return (self.first + timedelta(days=number) for number in range(self.length))

    def overlaps(self, other: "Chunk") -> bool:
        """Whether the two chunks have a day in common."""
        return self.first <= other.last and other.first <= self.last

    def borders(self, later: "Chunk") -> bool:
        """Whether the *later* chunk starts on the day after this one."""
        return later.first - self.last == timedelta(days=1)

    def __str__(self) -> str:
        return f"{self.first} to {self.last}" if self.length > 1 else str(self.first)


@dataclass(frozen=True, slots=True)
class Selection:
    """The events that an export requests."""

    project: str
    events: tuple[str, ...] | None = None
    """The sorted event names; None for all events."""
    where: str | None = None
    """Mixpanel's filter expression; None for no filter."""

    def excludes(self, other: "Selection") -> bool:
        """Whether no event can be in both selections; false if that cannot be proven."""
        return (
            self.project == other.project
            and self.where == other.where
            and self.events is not None
            and other.events is not None
            and set(self.events).isdisjoint(other.events)
        )

    def includes(self, other: "Selection") -> bool:
        """Whether every event of *other* is in this selection; false if that cannot be proven."""
        return (
            self.project == other.project
            and self.where in {None, other.where}
            and (
                self.events is None
                or (other.events is not None and set(self.events).issuperset(other.events))
            )
        )

    @property
    def names(self) -> list[str] | None:
        """The event names as a list; None for all events."""
        return None if self.events is None else list(self.events)

    @property
    def events_json(self) -> str | None:
        """The event names as the ledger stores them."""
        return None if self.events is None else json.dumps(self.events, ensure_ascii=False)

    @classmethod
    def from_ledger(cls, project: str, events_json: str | None, where: str | None) -> "Selection":
        """Return the selection stored in three ledger columns."""
        return cls(project, None if events_json is None else tuple(json.loads(events_json)), where)

    def __str__(self) -> str:
        names = "all events" if self.events is None else "events " + ", ".join(self.events)
        return f"{names} of project {self.project}" + (f" where {self.where}" if self.where else "")


@dataclass(frozen=True, slots=True)
class Batch:
    """One row of the ledger."""

    number: int
    """The `export_batch` of the batch's rows. Newer batches have greater numbers."""
    days: Chunk
    status: Status
    rows: int = 0
    """The number of rows in the table, not counting duplicates."""
    selection: Selection = Selection("")
    table: str = ""
    zone: str = "UTC"
    """The project's time zone, in which the days start and end."""
    deduplicated: bool = True
    """Whether duplicates were removed."""
    removed_duplicates: int = 0
    rejects: int = 0
    """The number of lines that are not events. They are in `_export_rejects`."""
    repaired: int = 0
    """The number of events whose text was changed because DuckDB could not read it."""
    stray_rows: int = 0
    """The number of rows whose time is outside `days`."""
    stray_first: datetime | None = None
    """The earliest time of the stray rows, in naive UTC."""
    stray_last: datetime | None = None
    """The latest time of the stray rows, in naive UTC."""
    untimed_rows: int = 0
    """The number of rows without a time."""
    bytes_read: int = 0
    """Compressed bytes that all attempts received."""
    attempts: int = 0
    requested_at: datetime | None = None
    """When the request that delivered the rows was sent, in naive UTC."""
    finished: datetime | None = None
    """When the batch was committed or failed for good, in naive UTC."""
    error: str | None = None
    revision: int = 0
    """How often rows in the batch have been hidden, shown again or deleted since the commit."""
    export: int | None = None
    """The number of the first batch of the same export."""
    queued_at: datetime | None = None
    """See `RequestTimes` for this field and the next four."""
    connecting_at: datetime | None = None
    connected_at: datetime | None = None
    first_byte_at: datetime | None = None
    received_at: datetime | None = None
    validated_at: datetime | None = None
    """When the validation of all lines ended, in naive UTC."""

    @property
    def visible(self) -> bool:
        """Whether the batch's rows are in the table."""
        return self.status != "failed"

    @property
    def empty_response(self) -> bool:
        """Whether two requests for the days each got an empty response (status 200, no body).

        The days are then treated as days without events.
        """
        return self.status in {"complete", "open"} and not self.rows and not self.bytes_read


@dataclass(frozen=True, slots=True)
class ChunkStart:
    """A chunk starts or restarts."""

    chunk: Chunk
    batch: int
    """The batch number for the chunk's ledger row."""
    keep_rejects: bool = False
    """Whether to store lines that are not events as rejects. Otherwise, the chunk is fetched again if it has any."""


@dataclass(frozen=True, slots=True)
class RequestTimes:
    """The times of a chunk's last request, in naive UTC. A time is None if the step was not reached."""

    queued_at: datetime | None = None
    """When a worker was free, and the wait for the quota started."""
    connecting_at: datetime | None = None
    """When the quota allowed the request to connect."""
    connected_at: datetime | None = None
    """When the connection was open. The request may then wait for the quota again."""
    first_byte_at: datetime | None = None
    """When the first byte of the body arrived."""
    received_at: datetime | None = None
    """When the body was complete and its lines were staged."""


Lines = tuple[bytes | memoryview, ...]
"""NDJSON lines, in pieces. Each line ends with a newline, but a piece may end in the middle of a line."""


@dataclass(frozen=True, slots=True)
class Block:
    """Whole lines of a chunk."""

    chunk: Chunk
    lines: Lines


@dataclass(frozen=True, slots=True)
class ChunkEnd:
    """The response for the chunk is complete."""

    chunk: Chunk
    requested_at: datetime
    """When the successful request was sent, as an aware time."""
    attempts: int
    bytes_read: int
    """Compressed bytes that all attempts received."""
    size: int
    """The total size in bytes of all blocks since the last `ChunkStart`."""
    times: RequestTimes = RequestTimes()


@dataclass(frozen=True, slots=True)
class ChunkFailed:
    """The chunk has failed for good."""

    chunk: Chunk
    batch: int
    requested_at: datetime
    attempts: int
    bytes_read: int
    error: str
    times: RequestTimes = RequestTimes()


@dataclass(frozen=True, slots=True)
class ChunkSplit:
    """The chunk will be fetched in *pieces*. The writer discards its blocks."""

    chunk: Chunk
    pieces: tuple[Chunk, ...]


Item = ChunkStart | Block | ChunkEnd | ChunkFailed | ChunkSplit


@dataclass(frozen=True, slots=True)
class Committed:
    """Verdict: the chunk's rows are in the table."""

    chunk: Chunk
    rows: int
    removed_duplicates: int = 0
    rejects: int = 0
    repaired: int = 0

    def __str__(self) -> str:
        return f"{self.chunk}: {self.rows} rows committed, {self.removed_duplicates} duplicates removed"


@dataclass(frozen=True, slots=True)
class Malformed:
    """Verdict: some lines of the chunk are not events, so the chunk should be fetched again."""

    chunk: Chunk
    lines: int
    """The number of lines that are not events."""

    def __str__(self) -> str:
        return f"{self.chunk}: fetching again, because {self.lines} lines are not events"


@dataclass(frozen=True, slots=True)
class Unloadable:
    """Verdict: DuckDB cannot load the chunk, so none of its rows are in the table."""

    chunk: Chunk
    reason: str
    needed_memory: int | None = None
    """The memory that DuckDB probably needs for the chunk, in bytes; None if memory was not the problem."""

    def __str__(self) -> str:
        return f"{self.chunk}: {self.reason}"


@dataclass(frozen=True, slots=True)
class Failed:
    """Verdict: the chunk's failure is recorded in the ledger."""

    chunk: Chunk

    def __str__(self) -> str:
        return f"{self.chunk}: failed"


@dataclass(frozen=True, slots=True)
class Split:
    """Verdict: the chunk's pieces get the batch numbers *batches*, in the same order."""

    chunk: Chunk
    batches: tuple[int, ...]

    def __str__(self) -> str:
        return f"{self.chunk}: split into {len(self.batches)} pieces"


Verdict = Committed | Malformed | Unloadable | Failed | Split
