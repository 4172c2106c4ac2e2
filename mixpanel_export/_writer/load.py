"""Inserts a validated chunk into the events table."""

from collections.abc import Iterator
from dataclasses import dataclass

import duckdb
import numpy as np
from numpy.typing import NDArray

from mixpanel_export._database.connection import Connection, quoted
from mixpanel_export._database.schema import EVENT_COLUMNS
from mixpanel_export._model import Batch
from mixpanel_export._writer.arrow import EVENT, ExtractedColumns
from mixpanel_export._writer.extract import EXECUTE, LoadError, prepared, read_groups
from mixpanel_export._writer.offsets import Payload, PropertySpans
from mixpanel_export._writer.staging import ReadBuffers, StagedChunk

UNLOADABLE = (
    LoadError,
    duckdb.InvalidInputException,
    duckdb.ConversionException,
    duckdb.OutOfRangeException,
    duckdb.OutOfMemoryException,
)
"""Errors that concern one chunk rather than the database."""

_VALUES = ", ".join("payload[1]" if name == "properties" else name for name in EVENT_COLUMNS)
_INSERT = "INSERT INTO {table} SELECT {values}, {batch} FROM _export_lines WHERE keep"


@dataclass(frozen=True, slots=True, eq=False)
class ValidatedChunk:
    """A chunk whose lines are all events, ready to be inserted."""

    staged: StagedChunk
    batch: Batch
    """The ledger row that the chunk will have."""
    properties: tuple[PropertySpans, ...]
    """The spans of the properties in each block."""
    columns: ExtractedColumns
    keep: NDArray[np.bool_]
    """For each shaped line whether it is inserted; duplicates inside the chunk are not."""


def insert(connection: Connection, table: str, chunk: ValidatedChunk, buffers: ReadBuffers) -> None:
    """Insert a chunk into *table* in the caller's transaction; its lines are read into *buffers*.

    Raises:
        LoadError: DuckDB inserted another number of rows.
    """
    statement = _INSERT.format(table=quoted(table), values=_VALUES, batch=chunk.batch.number)
    inserted = 0
    if chunk.columns.rows:
        with prepared(connection, statement, EVENT) as source:
            for arrays in chunk.columns.joined_with(
                read_groups(_payloads(chunk, buffers), buffers), chunk.keep
            ):
                source.set_batches(arrays)
                inserted += sum(count for (count,) in connection.execute(EXECUTE).fetchall())
    if inserted != chunk.batch.rows:
        raise LoadError(
            f"of {chunk.batch.rows} events of {chunk.batch.days} DuckDB inserted {inserted}; please report this"
        )


def _payloads(chunk: ValidatedChunk, buffers: ReadBuffers) -> Iterator[Payload]:
    for text, properties in zip(chunk.staged.blocks(buffers), chunk.properties, strict=True):
        if len(text) != properties.size:
            raise LoadError(f"the staged files of {chunk.batch.days} were changed; please report this")
        yield Payload(text, properties.spans)


def first_line(error: Exception) -> str:
    """Return why a chunk cannot be loaded, in one line."""
    return f"Write failed: {str(error).splitlines()[0]}"
