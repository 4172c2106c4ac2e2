"""What DuckDB and Python show one another without copying: lines where they lie, and columns found in them.

Both are Arrow arrays, made by nanoarrow over memory of numpy's or handed over by DuckDB.
"""

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import duckdb
import nanoarrow as na
import numpy as np
from nanoarrow._utils import NanoarrowException
from nanoarrow.c_array_stream import CArrayStream
from numpy.typing import DTypeLike, NDArray

from mixpanel_export._cut import Lines, Numbers

COLUMNS = ("number", "event_name", "event_time", "distinct_id", "insert_id", "key")
"""What is found of lines: their numbers, negative ones less one of those that are doubtful, the columns of a table of
events but for `properties`, and a hash, or NULL, of what recurs in duplicates."""

_PLACES = {name: place for place, name in enumerate(COLUMNS)}
_KEPT = COLUMNS[1:5]
_SOME = 512  # lines of an array that is read; DuckDB takes memory for what it parses of one array at a time
_ERRORS = {
    "INTERRUPT": duckdb.InterruptException,
    "Out of Memory": duckdb.OutOfMemoryException,
    "Invalid Input": duckdb.InvalidInputException,
    "Conversion": duckdb.ConversionException,
    "Out of Range": duckdb.OutOfRangeException,
}
_EPOCH = datetime(1970, 1, 1)  # noqa: DTZ001 - a table's times are naive UTC
_TEXT = na.c_schema(
    na.Schema(
        na.Type.STRING,
        name="item",
        # With this name, of Arrow's own, DuckDB takes the text for JSON without looking.
        metadata={"ARROW:extension:name": "arrow.json", "ARROW:extension:metadata": ""},
    )
)
_PARTS = na.c_schema(na.fixed_size_list(_TEXT, 5))
LINE = na.c_schema(na.struct({"line": _PARTS, "number": na.int64()}))
"""A `line` as a list of five texts, and its `number`."""


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


@dataclass(frozen=True, slots=True)
class Times:
    """How many events have a time outside a span, the first and last of these, and how many have none."""

    outside: int
    earliest: datetime | None
    latest: datetime | None
    missing: int


class Found:
    """What was found of the outlined lines of a chunk, in their order, in the columns of `COLUMNS`."""

    def __init__(self) -> None:
        self._schema: Any = None
        self._arrays: list[Any] = []

    def __len__(self) -> int:
        """How many lines there are."""
        return sum(array.length for array in self._arrays)

    def add(self, relation: duckdb.DuckDBPyRelation) -> None:
        """Execute *relation* and take in its rows.

        Raises:
            duckdb.Error: As for any statement.
        """
        try:
            stream = na.c_array_stream(relation)
            self._schema = self._schema or stream.get_schema()
            self._arrays += list(stream)
        except NanoarrowException as error:
            raise _as_duckdbs(error) from error

    def numbers(self) -> Numbers:
        """Return the numbers of the lines."""
        return self._values("number", np.int64)

    def recurring(self) -> Numbers:
        """Return the numbers of the lines whose keys recur."""
        keys = self._values("key", np.uint64)
        present = np.flatnonzero(self._present("key"))
        ordered = np.sort(keys[present])
        twice = np.unique(ordered[1:][ordered[1:] == ordered[:-1]])
        return self.numbers()[present[np.isin(keys[present], twice)]]

    def times(self, first: datetime, last: datetime, losers: Numbers) -> Times:
        """Return where the times of all lines but the *losers* lie; the span is inclusive."""
        kept = self._kept(losers)
        present = self._present("event_time")
        times = self._values("event_time", np.int64)[kept & present]
        outside = times[(times < _microseconds(first)) | (times > _microseconds(last))]
        return Times(
            len(outside),
            _moment(outside.min()) if len(outside) else None,
            _moment(outside.max()) if len(outside) else None,
            int(np.count_nonzero(kept & ~present)),
        )

    @property
    def schema(self) -> object:
        """The schema of what `beside` yields."""
        found = {name: self._schema.child(_PLACES[name]) for name in _KEPT}
        return na.c_schema(na.struct({"line": _PARTS, "kept": na.bool_(), **found}))

    def beside(self, pieces: Iterable[Sequence[Lines]], losers: Numbers) -> Iterator[list[object]]:
        """Yield of each piece arrays of `line`, whether it is `kept`, and what was found of it.

        The *pieces* must be those of the whole chunk, in order. The *losers* are not to be kept.
        """
        schema = self.schema
        kept = self._kept(losers)
        columns = deque([array.child(_PLACES[name]) for name in _KEPT] for array in self._arrays)
        start = 0
        for piece in pieces:
            arrays = []
            for block in piece:
                first = 0
                while first < len(block.numbers):
                    some = columns.popleft()
                    count = min(some[0].length, len(block.numbers) - first)
                    if count < some[0].length:
                        columns.appendleft([column[count:] for column in some])
                        some = [column[:count] for column in some]
                    children = [_lines(block, first, count), _flags(kept[start : start + count]), *some]
                    arrays.append(_c_array(schema, count, [None], children))
                    first, start = first + count, start + count
            yield arrays

    def _kept(self, losers: Numbers) -> NDArray[np.bool_]:
        kept = np.ones(len(self), np.bool_)
        kept[np.searchsorted(self.numbers(), losers)] = False
        return kept

    def _values(self, column: str, dtype: DTypeLike) -> NDArray[Any]:
        """Return a column of numbers; those that are NULL may be any."""
        buffers = [(array.length, array.child(_PLACES[column]).view().buffer(1)) for array in self._arrays]
        parts = [np.frombuffer(buffer, dtype)[:length] for length, buffer in buffers]
        return np.concatenate([np.empty(0, dtype), *parts])

    def _present(self, column: str) -> NDArray[np.bool_]:
        """Return for each line whether it has a value in the column."""
        parts = [_validity(array.child(_PLACES[column])) for array in self._arrays]
        return np.concatenate([np.empty(0, np.bool_), *parts])


def numbered(blocks: Iterable[Lines]) -> Iterator[object]:
    """Yield arrays of the schema `LINE` of the outlined lines of blocks."""
    for block in blocks:
        for first in range(0, len(block.numbers), _SOME):
            yield _numbered(block, first, min(_SOME, len(block.numbers) - first))


def _numbered(block: Lines, first: int, count: int) -> object:
    numbers = _c_array(na.int64(), count, [None, na.c_buffer(block.numbers[first : first + count])])
    return _c_array(LINE, count, [None], [_lines(block, first, count), numbers])


def _lines(block: Lines, first: int, count: int) -> object:
    """Return so many lines of the block, each cut into five texts, where they lie."""
    # A part ends where the next one begins, so the last part of a line reaches over all that is left out.
    marks = block.cut.marks[first : first + count + 1].ravel()
    if first + count < len(block.numbers):
        offsets = marks[: 5 * count + 1]
    else:
        offsets = np.append(marks, block.cut.ends[-1:])
    text = _c_array(_TEXT, 5 * count, [None, na.c_buffer(np.ascontiguousarray(offsets)), block.text])
    return _c_array(_PARTS, count, [None], [text])


def _flags(flags: NDArray[np.bool_]) -> object:
    packed = np.packbits(flags, bitorder="little")
    return _c_array(na.bool_(), len(flags), [None, na.c_buffer(packed)])


def _c_array(
    schema: object, length: int, buffers: Sequence[object], children: Sequence[object] = ()
) -> object:
    return na.c_array_from_buffers(
        schema, length, buffers, null_count=0, children=children, validation_level="none"
    )


def _validity(column: Any) -> NDArray[np.bool_]:
    if not column.null_count:
        return np.ones(column.length, np.bool_)
    bits = np.frombuffer(column.view().buffer(0), np.uint8)
    return np.unpackbits(bits, count=column.length, bitorder="little").astype(np.bool_)


def _as_duckdbs(error: NanoarrowException) -> duckdb.Error:
    """Return the error that DuckDB had while its rows were fetched, of which only the text came through."""
    _, _, text = str(error).partition(": ")
    return next((kind(text) for sign, kind in _ERRORS.items() if text.startswith(sign)), duckdb.Error(text))


def _microseconds(moment: datetime) -> int:
    return (moment - _EPOCH) // timedelta(microseconds=1)


def _moment(microseconds: np.int64) -> datetime:
    return _EPOCH + timedelta(microseconds=int(microseconds))
