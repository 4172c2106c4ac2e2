"""Extracts every column but `properties` from the lines of a chunk, as Arrow arrays, without a Python object per event.

`properties` is a span of the line's text, because every JSON function of DuckDB rewrites numbers and escapes. A line is
*doubtful* if it is not of Mixpanel's shape or DuckDB cannot parse it.
"""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from mixpanel_export._database.connection import Connection, in_utc
from mixpanel_export._timezones import ISO_TIME
from mixpanel_export._writer.arrow import (
    COLUMNS,
    FORMATS,
    LINE,
    ArrowSource,
    ExtractedColumns,
    column_formats,
    fetch_arrays,
    line_arrays,
    not_null,
    values,
)
from mixpanel_export._writer.memory import MemoryBudget
from mixpanel_export._writer.offsets import (
    BEGIN,
    BETWEEN,
    IndexedBlock,
    LineIndex,
    Numbers,
    Payload,
    index_lines,
)
from mixpanel_export._writer.staging import ReadBuffers, StagedChunk

EXECUTE = "EXECUTE _export_statement"
"""Runs the statement of `prepared`."""

GROUP_SIZE = 8 << 20
"""Bytes of lines that one statement reads."""

_EPOCH = datetime(1970, 1, 1)  # noqa: DTZ001 - a table's times are naive UTC

# Only a name with a backslash needs JSON decoding. `decode` checks that the bytes are UTF-8. TRY, because both functions
# raise on invalid input.
NAME = """
CASE WHEN contains(raw, '\\') THEN TRY(json_extract_string('"' || raw || '"', '$')) ELSE TRY(decode(encode(raw))) END
"""
"""SQL of the event's name for `raw`, the text between the quotes."""

_EVENTS = """
SELECT number, event_name, CASE WHEN year(time) BETWEEN 1 AND 9999 THEN time END AS event_time, -- the years of Python
       ids[2] AS distinct_id, ids[3] AS insert_id, properties,
       line[1]::VARCHAR = '{begin}' AND line[3]::VARCHAR = '{between}' AND starts_with(properties::VARCHAR, '{{')
           AND event_name IS NOT NULL AND ids IS NOT NULL AS sound
FROM (
    SELECT *,
           {name} AS event_name,
           CASE WHEN abs(clock) < 1e11 AND clock >= -62135596800
                THEN {seconds}
                WHEN abs(clock) >= 1e11 AND clock BETWEEN -62135596800000 AND 253402300799999
                THEN {milliseconds}
                WHEN regexp_full_match(ids[1], '{iso_time}') THEN {iso}
           END AS time
    FROM (
        SELECT *, CASE WHEN NOT regexp_matches(ids[1], '[_\\s]') THEN TRY_CAST(ids[1] AS DOUBLE) END AS clock
        FROM (
            SELECT number, line, line[2]::VARCHAR AS raw, line[4] AS properties,
                   TRY(json_extract_string(line[4], ['$.time', '$.distinct_id', '$."$insert_id"'])) AS ids
            FROM _export_lines
        )
    )
)
"""
# Text without an offset is local; only such text can be cast with a zone appended.
_LOCAL_ISO = """
coalesce(TRY_CAST(ids[1] || ' {zone}' AS TIMESTAMPTZ), TRY_CAST(ids[1] || ' 00:00:00 {zone}' AS TIMESTAMPTZ),
         TRY_CAST(ids[1] AS TIMESTAMPTZ))::TIMESTAMP
"""
# A key is odd, or 0 without an insert id. Different events rarely share time and id, so few keys recur by chance.
_EXTRACT = f"""
SELECT {", ".join(COLUMNS)}, CASE WHEN sound THEN number ELSE -1 - number END,
       CASE WHEN insert_id <> '' THEN hash(event_time, insert_id) | 1::UBIGINT ELSE 0::UBIGINT END
FROM ({{events}})
"""
_FORMATS = [*FORMATS, "l", "L"]
_TIME, _NUMBER, _KEY = COLUMNS.index("event_time"), len(COLUMNS), len(COLUMNS) + 1


Block = TypeVar("Block", IndexedBlock, Payload)


class LoadError(Exception):
    """DuckDB did not read the lines that were staged."""


class Extraction:
    """The columns of a chunk's lines, as far as they are extracted.

    `indexes` belong to the blocks, `columns` to the shaped lines. `lines` counts newlines, and `doubtful` has the numbers of
    doubtful lines.
    """

    def __init__(self, budget: MemoryBudget, file: Path) -> None:
        self.indexes: list[LineIndex] = []
        self.columns = ExtractedColumns(budget, file)
        self.lines = 0
        self.doubtful: set[int] = set()
        self._keys = [np.empty(0, dtype=np.uint64)]
        self._times = [np.empty(0, dtype=np.int64)]
        self._timed = [np.empty(0, dtype=np.bool_)]

    def add_indexes(self, group: Sequence[IndexedBlock]) -> None:
        """Add the line indexes of the next blocks."""
        for block in group:
            self.doubtful.update(self.lines + number for number in block.unshaped())
            self.lines += block.index.lines
            self.indexes.append(block.index)

    def add_columns(self, arrays: Sequence[Any], expected: Numbers) -> None:
        """Add the rows of `_EXTRACT` for the shaped lines with the numbers *expected*.

        Raises:
            LoadError: The rows belong to other lines, or their order or format differs.
            OSError: The columns cannot be written.
        """
        if any(column_formats(array) != _FORMATS for array in arrays):
            raise LoadError(
                "DuckDB's Arrow settings were changed during the export; leave them alone until it ends"
            )
        numbers = np.concatenate([expected[:0], *(values(array, _NUMBER, np.int64) for array in arrays)])
        doubtful = np.flatnonzero(numbers < 0)
        numbers[doubtful] = -1 - numbers[doubtful]
        self.doubtful.update(numbers[doubtful].tolist())
        if not np.array_equal(numbers, expected):
            raise LoadError(
                f"of {len(expected)} lines DuckDB read {len(numbers)}, or not in their order; please report this"
            )
        for array in arrays:
            self.columns.add(array)
            self._keys.append(values(array, _KEY, np.uint64).copy())
            self._times.append(values(array, _TIME, np.int64).copy())
            self._timed.append(not_null(array, _TIME))

    def recurring(self) -> tuple[Numbers, NDArray[np.uint64]]:
        """Return the places of the shaped lines whose keys recur, ordered by key, and these keys."""
        keys = np.concatenate(self._keys)
        ordered = np.sort(keys)
        recurring = np.unique(ordered[1:][ordered[1:] == ordered[:-1]])
        places = np.flatnonzero(np.isin(keys, recurring[recurring > 0]))
        places = places[np.argsort(keys[places], kind="stable")]
        return places, keys[places]

    def count(self, first: datetime, last: datetime, keep: NDArray[np.bool_]) -> "RowCounts":
        """Count the rows flagged in *keep*; *first* and *last* are the first and last moment of the chunk's days."""
        timed = np.concatenate(self._timed)
        times = np.concatenate(self._times)[keep & timed]
        strays = times[(times < _microseconds(first)) | (times > _microseconds(last))]
        rows = int(np.count_nonzero(keep))
        return RowCounts(
            rows=rows,
            removed_duplicates=len(keep) - rows,
            stray_rows=len(strays),
            stray_first=_moment(strays.min()) if len(strays) else None,
            stray_last=_moment(strays.max()) if len(strays) else None,
            untimed_rows=int(np.count_nonzero(keep & ~timed)),
        )


@dataclass(frozen=True, slots=True)
class RowCounts:
    """What the table will hold of a chunk; the fields are those of `Batch`."""

    rows: int
    removed_duplicates: int
    stray_rows: int
    stray_first: datetime | None
    stray_last: datetime | None
    untimed_rows: int


def extract(
    connection: Connection, staged: StagedChunk, buffers: ReadBuffers, zone: str, extraction: Extraction
) -> None:
    """Add the columns of a chunk's lines, their times on the clock of *zone*, to *extraction*.

    Raises:
        LoadError: DuckDB did not read every line.
        OSError: The columns cannot be written.
    """
    with prepared(connection, _EXTRACT.format(events=events_sql(zone)), LINE) as source:
        for group in read_groups(_indexed(staged, buffers), buffers):
            extraction.add_indexes(group)
            source.set_batches(line_arrays(group))
            expected = np.concatenate([block.numbers for block in group])
            extraction.add_columns(fetch_arrays(connection.sql(EXECUTE)), expected)


def read_groups(blocks: Iterable[Block], buffers: ReadBuffers) -> Iterator[list[Block]]:
    """Yield groups of blocks, about `GROUP_SIZE` bytes each. A group is valid until the next one is requested."""
    buffers.reuse()
    for group in _grouped(blocks):
        yield group
        buffers.reuse()


@contextmanager
def prepared(connection: Connection, statement: str, schema: object) -> Iterator[ArrowSource]:
    """Prepare a statement for `EXECUTE` that reads `_export_lines`; yield that table.

    Parsing and planning it for each group would take as long as running it.
    """
    source = ArrowSource(schema)
    connection.register("_export_lines", source)
    connection.execute(f"PREPARE _export_statement AS {statement}")
    try:
        yield source
    finally:
        source.set_batches(())


def events_sql(zone: str) -> str:
    """Return the SQL that reads `_export_lines` and converts each form of `time`, on the clock of *zone*, to UTC."""
    return _EVENTS.format(
        begin=BEGIN,
        iso_time=ISO_TIME,
        between=BETWEEN,
        name=NAME,
        seconds=in_utc("make_timestamp(CAST(trunc(clock) AS BIGINT) * 1000000)", zone),
        milliseconds=in_utc("make_timestamp(CAST(trunc(clock) AS BIGINT) * 1000)", zone),
        iso="TRY_CAST(ids[1] AS TIMESTAMPTZ)::TIMESTAMP" if zone == "UTC" else _LOCAL_ISO.format(zone=zone),
    )


def _indexed(staged: StagedChunk, buffers: ReadBuffers) -> Iterator[IndexedBlock]:
    start = 0
    for text in staged.blocks(buffers):
        index = index_lines(text)
        yield IndexedBlock(text, index, index.shaped.astype(np.int64) + start)
        start += index.lines


def _grouped(blocks: Iterable[Block]) -> Iterator[list[Block]]:
    group: list[Block] = []
    size = 0
    for block in blocks:
        group.append(block)
        size += len(block.text)
        if size > GROUP_SIZE:
            yield group
            group, size = [], 0
    if group:
        yield group


def _microseconds(moment: datetime) -> int:
    return (moment - _EPOCH) // timedelta(microseconds=1)


def _moment(microseconds: np.int64) -> datetime:
    return _EPOCH + timedelta(microseconds=int(microseconds))
