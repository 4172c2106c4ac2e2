"""Reads the lines and the columns of a validated chunk from its staged files."""

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mixpanel_export._database.connection import Connection
from mixpanel_export._database.schema import EVENT_COLUMNS
from mixpanel_export._writer.arrow import EVENT
from mixpanel_export._writer.extract import LoadError
from mixpanel_export._writer.load import ValidatedChunk, segment_arrays
from mixpanel_export._writer.offsets import index_lines
from mixpanel_export._writer.prepared import LINES, ArrowTable, PreparedRead

# Only DuckDB has a type for JSON; other libraries get the same text as a string.
_VALUES = ", ".join(
    "payload[1]::VARCHAR AS properties" if name == "properties" else name for name in EVENT_COLUMNS
)


class ColumnReader:
    """Reads the columns of validated chunks, with the names and values that they have in a table."""

    def __init__(self, connection: Connection) -> None:
        table = ArrowTable(connection, EVENT)
        self._statement = PreparedRead(table, "reading", f"SELECT {_VALUES} FROM {LINES} WHERE keep")

    def arrays(self, chunk: ValidatedChunk) -> Iterator[Any]:
        """Yield Arrow arrays with the events of *chunk*. Only one segment is in memory at a time.

        Raises:
            LoadError: DuckDB read too few or too many rows.
            duckdb.Error: The statement failed.
            OSError, EOFError: The staged lines or columns cannot be read.
        """
        rows = 0
        for arrays in segment_arrays(chunk):
            with self._statement.memory_for_lines(chunk.longest):
                result = self._statement.arrays(arrays)
            rows += sum(array.length for array in result)
            yield from result
        if rows != chunk.batch.rows:
            raise LoadError(f"DuckDB read {rows} of {chunk.batch.rows} events; please report this")


def read_lines(chunk: ValidatedChunk) -> Iterator[memoryview]:
    """Yield the lines of the events of *chunk*, in pieces of whole lines, each line with its newline.

    Raises:
        LoadError: The staged lines were changed.
        OSError, EOFError: The staged lines cannot be read.
    """
    start = 0
    for segment, columns in zip(chunk.staged.segments, chunk.columns, strict=True):
        text = segment.text()
        keep = chunk.keep[start : start + columns.rows]
        start += columns.rows
        spans = index_lines(text).spans
        if len(spans) != len(keep):
            raise LoadError(f"the staged files of {chunk.staged.chunk} were changed; please report this")
        for first, last in _join_spans(spans[keep]):
            yield text[first:last]


def _join_spans(spans: NDArray[np.int32]) -> Iterator[list[int]]:
    """Join spans that touch."""
    if len(spans):
        breaks = np.flatnonzero(spans[1:, 0] != spans[:-1, 1])
        starts = spans[np.append(0, breaks + 1), 0]
        ends = spans[np.append(breaks, len(spans) - 1), 1]
        yield from np.stack((starts, ends), axis=1).tolist()
