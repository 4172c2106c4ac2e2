"""What DuckDB and Python show one another without copying: lines where they lie, and columns found in them.

Both are Arrow arrays, made by nanoarrow over memory of numpy's or handed over by DuckDB.
"""

from collections.abc import Iterable, Iterator, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import duckdb
import nanoarrow as na
import numpy as np
from nanoarrow.c_array_stream import CArrayStream
from nanoarrow.ipc import InputStream, StreamWriter
from numpy.typing import DTypeLike, NDArray

from mixpanel_export._writer.memory import Room
from mixpanel_export._writer.offsets import Lines, Offsets, Payload

_SOME = 512  # lines of an array that is read; DuckDB takes memory for what it parses of one array at a time
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
        # With this name, of Arrow's own, DuckDB takes the text for JSON without looking.
        metadata={"ARROW:extension:name": "arrow.json", "ARROW:extension:metadata": ""},
    )
)
_PARTS = na.c_schema(na.fixed_size_list(_TEXT, 5))
_PAYLOAD = na.c_schema(na.fixed_size_list(_TEXT, 2))
_FOUND = {
    "event_name": na.string(),
    "event_time": na.timestamp("us"),
    "distinct_id": na.string(),
    "insert_id": na.string(),
}
_COLUMNS = na.c_schema(na.struct(_FOUND))
LINE = na.c_schema(na.struct({"line": _PARTS, "number": na.int64()}))
"""A `line` as a list of five texts, and its `number`."""

EVENT = na.c_schema(na.struct({"payload": _PAYLOAD, "kept": na.bool_(), **_FOUND}))
"""A `payload` as a list of two texts, the first the properties, whether it is `kept`, and what was found beside it."""

COLUMNS = tuple(_FOUND)
"""The columns of a table of events that are found in lines."""

FORMATS = [column.format for column in _COLUMNS.children]
"""What Arrow calls the layouts of these columns; those of any other would be read wrongly."""


class Shown:
    """A table that DuckDB can read, of one schema and of changing rows."""

    def __init__(self, schema: object) -> None:
        self._schema = schema
        self._arrays: list[object] = []

    def show(self, arrays: Iterable[object]) -> None:
        """Let the table have the rows of *arrays*, and no others, from now on."""
        self._arrays = list(arrays)

    def __arrow_c_stream__(self, requested_schema: object = None) -> object:
        """Return a new Arrow stream of the rows; asking for another schema changes nothing, as Arrow allows."""
        return CArrayStream.from_c_arrays(self._arrays, self._schema, validate=False).__arrow_c_stream__()


class Columns:
    """What was found of the outlined lines of a chunk, in their order, for each of `COLUMNS`.

    What finds no *room* in memory lies in a *file*, which must not be there yet.
    """

    def __init__(self, room: Room, file: Path) -> None:
        self._room = room
        self._file = file
        self._arrays: list[Any] = []
        self._filed: list[int] = []
        self.rows = self._size = 0

    def add(self, array: Any) -> None:
        """Take in the first columns of an array of `fetched`, whose layouts are those of `FORMATS`.

        Raises:
            OSError: They cannot be written.
        """
        columns = [array.child(place) for place in range(len(COLUMNS))]
        found = _c_array(_COLUMNS, array.length, [None], columns)
        self.rows += array.length
        size = sum(map(_size, columns))
        if not self._filed and self._room.take(size):
            self._arrays.append(found)
            self._size += size
        else:
            self._put_away(found)

    def beside(self, pieces: Iterable[Sequence[Payload]], kept: NDArray[np.bool_]) -> Iterator[list[object]]:
        """Yield of each piece arrays of the schema `EVENT`.

        The *pieces* must be those of the whole chunk, in order, and *kept* is for each of its rows.

        Raises:
            OSError, EOFError: What was put away cannot be read.
        """
        found = ([array.child(place) for place in range(len(COLUMNS))] for array in self._all())
        columns: list[Any] = []
        start = 0
        for piece in pieces:
            arrays = []
            for block in piece:
                first = 0
                while first < len(block.spans):
                    columns = columns or next(found)
                    count = min(columns[0].length, len(block.spans) - first)
                    some = [column[:count] for column in columns]
                    columns = [column[count:] for column in columns] if count < columns[0].length else []
                    payload = _texts(_PAYLOAD, block.text, block.spans, first, count)
                    children = [payload, _flags(kept[start : start + count]), *some]
                    arrays.append(_c_array(EVENT, count, [None], children))
                    first, start = first + count, start + count
            yield arrays

    def _put_away(self, array: Any) -> None:
        stream = BytesIO()
        with StreamWriter.from_writable(stream) as writer:
            writer.write_array(array)
        with self._file.open("ab") as file:
            self._filed.append(file.write(stream.getbuffer()))

    def discard(self) -> None:
        """Give back the room in memory and on the disk."""
        self._arrays = []
        self._room.give_back(self._size)
        self._size = 0
        self._file.unlink(missing_ok=True)

    def _all(self) -> Iterator[Any]:
        yield from self._arrays
        if self._filed:
            with self._file.open("rb") as file:
                for size in self._filed:
                    stream = BytesIO(file.read(size))
                    if len(stream.getbuffer()) < size:
                        raise EOFError(f"{self._file.name} is shorter than it was")
                    yield from na.c_array_stream(InputStream.from_readable(stream))


def fetched(relation: duckdb.DuckDBPyRelation) -> list[Any]:
    """Execute *relation* and return its rows as arrays.

    Raises:
        duckdb.Error: As for any statement.
    """
    try:
        return list(na.c_array_stream(relation))
    except RuntimeError as error:  # nanoarrow's, a class of its own that it does not show
        raise _as_duckdbs(error) from error


def formats(array: Any) -> list[str]:
    """Return what Arrow calls the layouts of the columns."""
    return [column.format for column in array.schema.children]


def values(array: Any, place: int, dtype: DTypeLike) -> NDArray[Any]:
    """Return a column of numbers, by its place in the *array*, where they lie; those that are NULL may be any."""
    return np.frombuffer(array.child(place).view().buffer(1), dtype)[: array.length]


def present(array: Any, place: int) -> NDArray[np.bool_]:
    """Return for each row whether the column has a value."""
    column = array.child(place)
    if not column.null_count:
        return np.ones(column.length, np.bool_)
    bits = np.frombuffer(column.view().buffer(0), np.uint8)
    return np.unpackbits(bits, count=column.length, bitorder="little").astype(np.bool_)


def numbered(blocks: Iterable[Lines]) -> Iterator[object]:
    """Yield arrays of the schema `LINE` of the outlined lines of blocks."""
    for block in blocks:
        for first in range(0, len(block.numbers), _SOME):
            yield _numbered(block, first, min(_SOME, len(block.numbers) - first))


def _numbered(block: Lines, first: int, count: int) -> object:
    numbers = _c_array(na.int64(), count, [None, na.c_buffer(block.numbers[first : first + count])])
    return _c_array(LINE, count, [None], [_texts(_PARTS, block.text, block.cut.marks, first, count), numbers])


def _texts(schema: object, text: bytes | memoryview, marks: Offsets, first: int, count: int) -> object:
    """Return lists of texts where they lie, each row of *marks* one; a text ends where the next one begins.

    So the last one of a row reaches to the next row, or to the end.
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


def _size(column: Any) -> int:
    view = column.view()
    return sum(view.buffer(number).size_bytes for number in range(view.n_buffers))


def _as_duckdbs(error: RuntimeError) -> duckdb.Error:
    """Return the error that DuckDB had while its rows were fetched, of which only the text came through."""
    _, _, text = str(error).partition(": ")
    return next((kind(text) for sign, kind in _ERRORS.items() if text.startswith(sign)), duckdb.Error(text))
