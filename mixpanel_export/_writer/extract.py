"""Extracts every column but `properties` from the lines of a chunk, as Arrow arrays, without a Python object per event.

`properties` is a span of the line's text, because every JSON function of DuckDB rewrites numbers and escapes. A line is
*doubtful* if it is not regular (see `offsets`) or DuckDB cannot parse it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
from numpy.typing import NDArray

from mixpanel_export._database.connection import Connection, in_utc
from mixpanel_export._timezones import ISO_TIME
from mixpanel_export._writer.arrow import (
    COLUMNS,
    FORMATS,
    LINE,
    ExtractedColumns,
    column_formats,
    line_arrays,
    not_null,
    values,
)
from mixpanel_export._writer.memory import MemoryBudget
from mixpanel_export._writer.offsets import IndexedText, LineIndex, Numbers, index_lines
from mixpanel_export._writer.prepared import PreparedRead
from mixpanel_export._writer.staging import StagedChunk

_EPOCH = datetime(1970, 1, 1)  # noqa: DTZ001 - a table's times are naive UTC

# Only a name with a backslash needs JSON decoding. `decode` checks that the bytes are UTF-8. TRY, because both functions
# raise on invalid input.
NAME = """
CASE WHEN contains(raw, '\\') THEN TRY(json_extract_string('"' || raw || '"', '$')) ELSE TRY(decode(encode(raw))) END
"""
"""SQL of the event's name for `raw`, the text between the quotes."""

# Almost every time is a whole number of seconds, written in digits only; it is converted without the checks of other forms.
_EVENTS = """
SELECT number, event_name, ids[2] AS distinct_id, ids[3] AS insert_id,
       CASE WHEN whole IS NOT NULL THEN time WHEN year(time) BETWEEN 1 AND 9999 THEN time END AS event_time, -- Python's years
       event_name IS NOT NULL AND ids IS NOT NULL AS sound
FROM (
    SELECT *,
           {name} AS event_name,
           CASE WHEN whole IS NOT NULL THEN {whole}
                WHEN abs(clock) < 1e11 AND clock >= -62135596800
                THEN {seconds}
                WHEN abs(clock) >= 1e11 AND clock BETWEEN -62135596800000 AND 253402300799999
                THEN {milliseconds}
                WHEN regexp_full_match(ids[1], '{iso_time}') THEN {iso}
           END AS time
    FROM (
        SELECT *, CASE WHEN whole IS NULL AND NOT regexp_matches(ids[1], '[_\\s]') THEN TRY_CAST(ids[1] AS DOUBLE) END AS clock
        FROM (
            SELECT *, CASE WHEN integer_time BETWEEN 0 AND 99999999999 AND integer_time::VARCHAR = ids[1] THEN integer_time END AS whole
            FROM (
                SELECT *, TRY_CAST(ids[1] AS BIGINT) AS integer_time
                FROM (
                    SELECT number, line[1]::VARCHAR AS raw,
                           TRY(json_extract_string(line[3], ['$.time', '$.distinct_id', '$."$insert_id"'])) AS ids
                    FROM $lines
                )
            )
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


class LoadError(Exception):
    """DuckDB did not read the lines that were staged."""


class Extraction:
    """The columns that have been extracted from a chunk so far.

    `indexes` has an element for each segment, `columns` a row for each regular line. `lines` is the number of newlines, and
    `doubtful` has the numbers of doubtful lines.
    """

    def __init__(self, budget: MemoryBudget, file: Path) -> None:
        self.indexes: list[LineIndex] = []
        self.columns = ExtractedColumns(budget, file)
        self.lines = 0
        self.doubtful: set[int] = set()
        self._keys = [np.empty(0, dtype=np.uint64)]
        self._times = [np.empty(0, dtype=np.int64)]
        self._timed = [np.empty(0, dtype=np.bool_)]

    def add_index(self, segment: IndexedText) -> None:
        """Add the line index of the next segment."""
        self.doubtful.update(self.lines + number for number in segment.irregular())
        self.lines += segment.index.lines
        self.indexes.append(segment.index)

    def add_columns(self, arrays: Sequence[Any], expected: Numbers) -> None:
        """Add the rows of `_EXTRACT` for the regular lines with the numbers *expected*.

        Raises:
            LoadError: The rows belong to other lines, or their order or format differs.
            OSError: The columns cannot be written.
        """
        if any(column_formats(array) != _FORMATS for array in arrays):
            raise LoadError("DuckDB returned Arrow arrays of another layout; please report this")
        numbers = np.concatenate([expected[:0], *(values(array, _NUMBER, np.int64) for array in arrays)])
        doubtful = np.flatnonzero(numbers < 0)
        numbers[doubtful] = -1 - numbers[doubtful]
        self.doubtful.update(numbers[doubtful].tolist())
        if not np.array_equal(numbers, expected):
            raise LoadError(
                f"DuckDB read {len(numbers)} of {len(expected)} lines, or in another order; please report this"
            )
        self.columns.add_segment(arrays)
        for array in arrays:
            self._keys.append(values(array, _KEY, np.uint64).copy())
            self._times.append(values(array, _TIME, np.int64).copy())
            self._timed.append(not_null(array, _TIME))

    def recurring(self) -> tuple[Numbers, NDArray[np.uint64]]:
        """Return the places of the regular lines whose keys recur, ordered by key, and these keys."""
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
    """The counts of a chunk's rows. `Batch` has the same fields."""

    rows: int
    removed_duplicates: int
    stray_rows: int
    stray_first: datetime | None
    stray_last: datetime | None
    untimed_rows: int


class ExtractionStatement:
    """The SQL that extracts columns. Times without an offset are in *zone*.

    The fast statement raises an error if a line is invalid. Then a slower statement identifies the invalid lines.
    """

    def __init__(self, connection: Connection, zone: str) -> None:
        careful = _EXTRACT.format(events=_events_sql(zone))
        self._careful = PreparedRead(connection, "careful_extraction", careful, LINE)
        self._fast = PreparedRead(connection, "extraction", careful.replace("TRY(", "("), LINE)

    def arrays(self, segment: IndexedText) -> list[Any]:
        """Return the rows of `_EXTRACT` for a segment.

        Raises:
            duckdb.Error: As for any statement.
        """
        with self._fast.room_for_lines(segment.index.longest):
            try:
                return self._fast.arrays(line_arrays(segment))
            except (duckdb.InvalidInputException, duckdb.ConversionException, UnicodeDecodeError):
                # UnicodeDecodeError: DuckDB's message quotes bytes that are not UTF-8.
                return self._careful.arrays(line_arrays(segment))


def extract(statement: ExtractionStatement, staged: StagedChunk, extraction: Extraction) -> None:
    """Add the columns of a chunk's lines to *extraction*.

    Raises:
        LoadError: DuckDB did not read every line.
        OSError, EOFError: The lines cannot be read, or the columns cannot be written.
    """
    for text in staged.segments():
        index = index_lines(text)
        segment = IndexedText(text, index, index.regular.astype(np.int64) + extraction.lines)
        extraction.add_index(segment)
        extraction.add_columns(statement.arrays(segment), segment.numbers)


def _events_sql(zone: str) -> str:
    """Return the SQL that reads `LINES` and converts each form of `time` to UTC. Times without an offset are in *zone*."""
    return _EVENTS.format(
        iso_time=ISO_TIME,
        name=NAME,
        whole=in_utc("make_timestamp(whole * 1000000)", zone),
        seconds=in_utc("make_timestamp(CAST(trunc(clock) AS BIGINT) * 1000000)", zone),
        milliseconds=in_utc("make_timestamp(CAST(trunc(clock) AS BIGINT) * 1000)", zone),
        iso="TRY_CAST(ids[1] AS TIMESTAMPTZ)::TIMESTAMP" if zone == "UTC" else _LOCAL_ISO.format(zone=zone),
    )


def _microseconds(moment: datetime) -> int:
    return (moment - _EPOCH) // timedelta(microseconds=1)


def _moment(microseconds: np.int64) -> datetime:
    return _EPOCH + timedelta(microseconds=int(microseconds))
