"""Inserts validated chunks into the events table."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import duckdb
import numpy as np
from numpy.typing import NDArray

from mixpanel_export._database.connection import Connection, quoted
from mixpanel_export._database.schema import EVENT_COLUMNS
from mixpanel_export._database.settings import lacks_memory
from mixpanel_export._model import Batch
from mixpanel_export._writer.arrow import EVENT, ExtractedColumns
from mixpanel_export._writer.extract import LoadError
from mixpanel_export._writer.offsets import Offsets
from mixpanel_export._writer.prepared import LINES, ArrowTable
from mixpanel_export._writer.staging import StagedChunk

UNLOADABLE = (
    LoadError,
    EOFError,
    duckdb.InvalidInputException,
    duckdb.ConversionException,
    duckdb.OutOfRangeException,
    duckdb.OutOfMemoryException,
)
"""Errors caused by one chunk rather than by the database."""

_BASE_MEMORY = 64_000_000  # bytes that a commit needs in addition to its rows
_VALUES = ", ".join("payload[1]" if name == "properties" else name for name in EVENT_COLUMNS)
_INSERT = f"INSERT INTO {{table}} SELECT {_VALUES}, export_batch FROM {LINES} WHERE keep"


class UnloadableError(Exception):
    """A chunk in the group cannot be loaded. None of the group's rows are in the table."""

    def __init__(self, error: Exception, size: int) -> None:
        """Convert *error*, which occurred while *size* bytes of lines were loaded."""
        super().__init__(str(error))
        self.reason = first_line(error)
        self.needed_memory = _BASE_MEMORY + size * 5 // 4 if lacks_memory(error) else None
        """The memory that DuckDB probably needs, in bytes; None if memory was not the problem."""


@dataclass(frozen=True, slots=True, eq=False)
class ValidatedChunk:
    """A chunk whose lines are all events, ready to be inserted."""

    staged: StagedChunk
    batch: Batch
    """The ledger row that the chunk will have."""
    properties: tuple[Offsets, ...]
    """Where the properties of each regular line start and end in its segment."""
    columns: tuple[ExtractedColumns, ...]
    """The extracted columns of each segment."""
    keep: NDArray[np.bool_]
    """For each regular line, whether to insert it. Duplicates within the chunk are not inserted."""
    longest: int
    """The size of the longest line, in bytes."""

    def discard_columns(self) -> None:
        """Release the memory of the columns and remove their files."""
        for columns in self.columns:
            columns.discard()


def insert(connection: Connection, table: str, group: Iterable[ValidatedChunk]) -> None:
    """Insert chunks into *table* in the caller's transaction. One statement inserts all chunks, on all threads.

    The statement takes one chunk at a time from *group* and ends when the group ends. Each thread fills its own row
    groups, so the rows are only roughly in the order of the lines.

    Raises:
        LoadError: DuckDB inserted too few or too many rows.
        OSError, EOFError: The staged lines or columns cannot be read.
    """
    expected = 0

    def arrays() -> Iterator[object]:
        nonlocal expected
        for chunk in group:
            expected += chunk.batch.rows
            for segment in segment_arrays(chunk):
                yield from segment

    statement = _INSERT.format(table=quoted(table))
    ((inserted,),) = ArrowTable(connection, EVENT).run(statement, arrays())
    if inserted != expected:
        raise LoadError(f"DuckDB inserted {inserted} of {expected} events; please report this")


def segment_arrays(chunk: ValidatedChunk) -> Iterator[Iterator[object]]:
    """Yield, for each segment of the chunk, its arrays with the schema `EVENT`."""
    start = 0
    for segment, spans, columns in zip(chunk.staged.segments, chunk.properties, chunk.columns, strict=True):
        keep = chunk.keep[start : start + columns.rows]
        yield columns.joined_with(segment.text(), spans, keep, chunk.batch.number)
        start += columns.rows


def first_line(error: Exception) -> str:
    """Return the reason why a chunk cannot be loaded, in one line that starts like mixpanel_data's message."""
    return f"Write failed: {str(error).splitlines()[0]}"
