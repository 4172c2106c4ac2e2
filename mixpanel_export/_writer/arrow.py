"""Passes Arrow arrays between Python and DuckDB without copies. The arrays contain lines of text or extracted columns.

nanoarrow builds the arrays on numpy's memory, or receives them from DuckDB.
"""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import duckdb
import nanoarrow as na
import numpy as np
from nanoarrow.ipc import InputStream, StreamWriter
from numpy.typing import DTypeLike, NDArray

from mixpanel_export._database.schema import EVENT_COLUMNS
from mixpanel_export._files import delete
from mixpanel_export._writer.memory import MemoryBudget
from mixpanel_export._writer.offsets import IndexedText, Offsets

_ARRAY_ROWS = 512  # lines per array; DuckDB allocates memory for parsing one array at a time
_ERRORS = {
    "INTERRUPT": duckdb.InterruptException,
    "Out of Memory": duckdb.OutOfMemoryException,
    "Invalid Input": duckdb.InvalidInputException,
    "Conversion": duckdb.ConversionException,
    "Out of Range": duckdb.OutOfRangeException,
}
_TEXT = na.c_schema(
    na.Schema(
        na.Type.STRING,
        name="item",
        # With this extension name from Arrow's specification, DuckDB accepts the text as JSON without parsing it.
        metadata={"ARROW:extension:name": "arrow.json", "ARROW:extension:metadata": ""},
    )
)
_PARTS = na.c_schema(na.fixed_size_list(_TEXT, 4))
_PAYLOAD = na.c_schema(na.fixed_size_list(_TEXT, 2))
_ARROW_TYPES = {"VARCHAR": na.string(), "TIMESTAMP": na.timestamp("us")}
_EXTRACTED = {name: _ARROW_TYPES[kind] for name, kind in EVENT_COLUMNS.items() if name != "properties"}
_COLUMNS = na.c_schema(na.struct(_EXTRACTED))
LINE = na.c_schema(na.struct({"line": _PARTS, "number": na.int64()}))
"""The schema of a regular line: `line`, a list of four strings (the first is the event name, the third the properties),
and `number`."""

EVENT = na.c_schema(
    na.struct({"payload": _PAYLOAD, "keep": na.bool_(), "export_batch": na.int32(), **_EXTRACTED})
)
"""The schema of an event: `payload`, a list of two strings (the first is the properties); `keep`, whether to insert the
event; `export_batch`, its batch number; and the extracted columns."""

COLUMNS = tuple(_EXTRACTED)
"""The columns of an events table that are extracted from lines."""

FORMATS = [column.format for column in _COLUMNS.children]
"""Arrow's format strings for these columns; arrays with other formats would be misread."""


class ExtractedColumns:
    """The extracted columns of a segment's regular lines.

    The columns stay in memory if *budget* has enough bytes left. Otherwise, they are written to *file*, which must not
    exist yet.
    """

    def __init__(self, arrays: Sequence[Any], budget: MemoryBudget, file: Path) -> None:
        """Store the first columns of arrays from `fetch_arrays`. The formats of these columns must be `FORMATS`.

        Raises:
            OSError: The file cannot be written.
        """
        self._budget = budget
        self._file = file
        self._arrays = [_c_array(_COLUMNS, array.length, [None], _columns(array)) for array in arrays]
        self.rows = sum(array.length for array in arrays)
        self._size = sum(_size(column) for array in self._arrays for column in _columns(array))
        self._stored = 0
        if not budget.reserve(self._size):
            self._size = 0
            self._write()

    def joined_with(
        self, text: bytes | memoryview, spans: Offsets, keep: NDArray[np.bool_], batch: int
    ) -> Iterator[object]:
        """Yield arrays with the schema `EVENT` for the segment.

        *text* is the segment's text, *spans* locates the properties in it, and *keep* has a flag for each row.

        Raises:
            OSError, EOFError: Columns in the file cannot be read.
        """
        first = 0
        arrays: Iterable[Any] = self._arrays or self._read()
        for array in arrays:
            rows = array.length
            payload = _texts(_PAYLOAD, text, spans, first, rows)
            numbers = _c_array(na.int32(), rows, [None, na.c_buffer(np.full(rows, batch, np.int32))])
            flags = _flags(keep[first : first + rows])
            yield _c_array(EVENT, rows, [None], [payload, flags, numbers, *_columns(array)])
            first += rows

    def discard(self) -> None:
        """Release the memory and remove the file."""
        self._arrays = []
        self._budget.release(self._size)
        self._size = 0
        delete(self._file)  # if it is in use, it is deleted with its folder

    def _write(self) -> None:
        with self._file.open("xb") as file, StreamWriter.from_writable(file) as writer:
            for array in self._arrays:
                writer.write_array(array)
        self._arrays = []
        self._stored = self._file.stat().st_size

    def _read(self) -> Iterator[Any]:
        if not self._stored:
            return
        if self._file.stat().st_size < self._stored:
            raise EOFError(f"{self._file.name} was truncated")
        with self._file.open("rb") as file:
            yield from na.c_array_stream(InputStream.from_readable(file))


def fetch_arrays(relation: duckdb.DuckDBPyRelation) -> list[Any]:
    """Execute *relation* and return its rows as arrays.

    Raises:
        duckdb.Error: The statement failed.
    """
    try:
        return list(na.c_array_stream(relation))
    except RuntimeError as error:  # nanoarrow raises a private subclass
        raise _as_duckdb_error(error) from error


def column_formats(array: Any) -> list[str]:
    """Return Arrow's format strings for the columns."""
    return [column.format for column in array.schema.children]


def values(array: Any, index: int, dtype: DTypeLike) -> NDArray[Any]:
    """Return a numeric column of *array* by its index, without a copy; the values of NULLs are undefined."""
    return np.frombuffer(array.child(index).view().buffer(1), dtype)[: array.length]


def not_null(array: Any, index: int) -> NDArray[np.bool_]:
    """Return, for each row, whether the column has a value."""
    column = array.child(index)
    if not column.null_count:
        return np.ones(column.length, np.bool_)
    bits = np.frombuffer(column.view().buffer(0), np.uint8)
    return np.unpackbits(bits, count=column.length, bitorder="little").astype(np.bool_)


def line_arrays(segment: IndexedText) -> Iterator[object]:
    """Yield arrays with the schema `LINE` for the regular lines of a segment."""
    for first in range(0, len(segment.numbers), _ARRAY_ROWS):
        count = min(_ARRAY_ROWS, len(segment.numbers) - first)
        numbers = _c_array(na.int64(), count, [None, na.c_buffer(segment.numbers[first : first + count])])
        yield _c_array(
            LINE, count, [None], [_texts(_PARTS, segment.text, segment.index.marks, first, count), numbers]
        )


def _texts(schema: object, text: bytes | memoryview, marks: Offsets, first: int, count: int) -> object:
    """Return an array that divides *text* at *marks*. Each row is a list of strings.

    Each string ends where the next one starts, in the same row or the next. The last string ends with *text*.
    """
    parts = marks.shape[1]
    offsets = marks[first : first + count + 1].ravel()[: parts * count + 1]
    if first + count == len(marks):
        offsets = np.append(offsets, np.int32(len(text)))
    items = _c_array(_TEXT, parts * count, [None, na.c_buffer(np.ascontiguousarray(offsets)), text])
    return _c_array(schema, count, [None], [items])


def _flags(flags: NDArray[np.bool_]) -> object:
    packed = np.packbits(flags, bitorder="little")
    return _c_array(na.bool_(), len(flags), [None, na.c_buffer(packed)])


def _c_array(
    schema: object, length: int, buffers: Sequence[object], children: Sequence[object] = ()
) -> object:
    return na.c_array_from_buffers(
        schema, length, buffers, null_count=0, children=children, validation_level="none"
    )


def _columns(array: Any) -> list[Any]:
    return [array.child(index) for index in range(len(COLUMNS))]


def _size(column: Any) -> int:
    view = column.view()
    return sum(view.buffer(number).size_bytes for number in range(view.n_buffers))


def _as_duckdb_error(error: RuntimeError) -> duckdb.Error:
    """Return the DuckDB error behind a nanoarrow error.

    nanoarrow keeps only a DuckDB error's message, so this function restores the type.
    """
    _, _, text = str(error).partition(": ")
    return next(
        (kind(text) for prefix, kind in _ERRORS.items() if text.startswith(prefix)), duckdb.Error(text)
    )
