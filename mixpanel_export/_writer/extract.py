"""Extracts every column except `properties` from a segment's lines, as Arrow arrays, without a Python object per event.

`properties` stays a span of the line's text, because DuckDB's JSON functions all rewrite numbers and escapes. A
line is *doubtful* if it is not regular (see `offsets`) or DuckDB cannot parse it.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import accumulate
from typing import Any

import duckdb
import numpy as np
from numpy.typing import NDArray

from mixpanel_export._database.connection import in_utc
from mixpanel_export._timezones import ISO_TIME
from mixpanel_export._writer.arrow import (
    COLUMNS,
    FORMATS,
    ExtractedColumns,
    column_formats,
    line_arrays,
    not_null,
    values,
)
from mixpanel_export._writer.offsets import IndexedText, Numbers, Offsets, index_lines
from mixpanel_export._writer.prepared import LINES, ArrowTable, PreparedRead

_EPOCH = datetime(1970, 1, 1)  # noqa: DTZ001 - a table's times are naive UTC

# Only a name with a backslash needs JSON decoding. `decode` checks that the bytes are UTF-8. TRY is needed because
# `json_extract_string` and `decode` raise an error on invalid input.
NAME = """
CASE WHEN contains(raw, '\\') THEN TRY(json_extract_string('"' || raw || '"', '$')) ELSE TRY(decode(encode(raw))) END
"""
"""SQL for the event name, given `raw`, the text between the quotes."""

# Almost every time is a whole number of seconds, written only in digits. It is converted without the checks that other
# forms need.
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
                    FROM {lines}
                )
            )
        )
    )
)
"""
# Text without an offset is local time. With a zone appended, text that already has an offset cannot be cast.
_LOCAL_ISO = """
coalesce(TRY_CAST(ids[1] || ' {zone}' AS TIMESTAMPTZ), TRY_CAST(ids[1] || ' 00:00:00 {zone}' AS TIMESTAMPTZ),
         TRY_CAST(ids[1] AS TIMESTAMPTZ))::TIMESTAMP
"""
# A key is an odd number, or 0 if there is no insert id. Different events rarely share a time and an id, so few keys recur by
# chance.
_EXTRACT = f"""
SELECT {", ".join(COLUMNS)}, CASE WHEN sound THEN number ELSE -1 - number END,
       CASE WHEN insert_id <> '' THEN hash(event_time, insert_id) | 1::UBIGINT ELSE 0::UBIGINT END
FROM ({{events}})
"""
_FORMATS = [*FORMATS, "l", "L"]
_TIME, _NUMBER, _KEY = COLUMNS.index("event_time"), len(COLUMNS), len(COLUMNS) + 1


class LoadError(Exception):
    """The lines that DuckDB read differ from the staged lines."""


@dataclass(frozen=True, slots=True, eq=False)
class ExtractedSegment:
    """The columns of a segment. A *position* is the number of a line among the regular lines, counted from 0."""

    lines: int
    """The number of newlines."""
    longest: int
    """The size of the longest line, in bytes."""
    spans: Offsets
    """Where each regular line starts and ends."""
    properties: Offsets
    """Where the properties of each regular line start and end."""
    columns: ExtractedColumns
    doubtful: tuple[int, ...]
    """The line numbers of the doubtful lines in the segment."""
    keys: NDArray[np.uint64]
    """The key of each regular line; 0 if it has no `insert_id`. Duplicates have equal keys."""
    stray_positions: Numbers
    """The positions of events whose time is outside the days of the chunk."""
    stray_times: NDArray[np.int64]
    """The times of these events, in microseconds."""
    untimed_positions: Numbers
    """The positions of events without a time."""


class Extraction:
    """The columns of all segments of a chunk."""

    def __init__(self, segments: Sequence[ExtractedSegment]) -> None:
        self.segments = segments
        self.lines = sum(segment.lines for segment in segments)
        self.rows = sum(segment.columns.rows for segment in segments)

    def doubtful(self) -> set[int]:
        """Return the numbers of the doubtful lines in the chunk."""
        firsts = accumulate((segment.lines for segment in self.segments), initial=0)
        return {
            first + number
            for first, segment in zip(firsts, self.segments, strict=False)
            for number in segment.doubtful
        }

    def recurring_keys(self) -> tuple[Numbers, NDArray[np.uint64]]:
        """Return the positions of the regular lines whose keys recur in the chunk, and the keys, both sorted by key."""
        keys = np.concatenate([np.empty(0, np.uint64), *(segment.keys for segment in self.segments)])
        ordered = np.sort(keys)
        recurring = np.unique(ordered[1:][ordered[1:] == ordered[:-1]])
        positions = np.flatnonzero(np.isin(keys, recurring[recurring > 0]))
        positions = positions[np.argsort(keys[positions], kind="stable")]
        return positions, keys[positions]

    def count(self, keep: NDArray[np.bool_]) -> "RowCounts":
        """Count the rows flagged in *keep*."""
        strays = [np.empty(0, np.int64)]
        untimed = first = 0
        for segment in self.segments:
            flags = keep[first : first + segment.columns.rows]
            first += segment.columns.rows
            strays.append(segment.stray_times[flags[segment.stray_positions]])
            untimed += int(np.count_nonzero(flags[segment.untimed_positions]))
        times = np.concatenate(strays)
        rows = int(np.count_nonzero(keep))
        return RowCounts(
            rows=rows,
            removed_duplicates=len(keep) - rows,
            stray_rows=len(times),
            stray_first=_moment(times.min()) if len(times) else None,
            stray_last=_moment(times.max()) if len(times) else None,
            untimed_rows=untimed,
        )


@dataclass(frozen=True, slots=True)
class RowCounts:
    """The row counts of a chunk. `Batch` has fields of the same names."""

    rows: int
    removed_duplicates: int
    stray_rows: int
    stray_first: datetime | None
    stray_last: datetime | None
    untimed_rows: int


class ExtractionStatement:
    """The SQL that extracts columns. Times without an offset are in *zone*.

    The fast statement fails if any line is invalid. Then a slower statement identifies the invalid lines.
    """

    def __init__(self, table: ArrowTable, zone: str) -> None:
        careful = _EXTRACT.format(events=_events_sql(zone))
        self._careful = PreparedRead(table, "careful_extraction", careful)
        self._fast = PreparedRead(table, "extraction", careful.replace("TRY(", "("))

    def extract(
        self,
        text: bytes | memoryview,
        days: tuple[datetime, datetime],
        store: Callable[[Sequence[Any]], ExtractedColumns],
    ) -> ExtractedSegment:
        """Extract the columns of the lines in *text*.

        *days* contains the first and the last moment of the chunk's days. *store* gets arrays whose first fields are `COLUMNS`.

        Raises:
            LoadError: DuckDB did not read every regular line.
            duckdb.Error: The statement failed.
        """
        index = index_lines(text)
        segment = IndexedText(text, index, index.regular.astype(np.int64))
        arrays = self._arrays(segment)
        if any(column_formats(array) != _FORMATS for array in arrays):
            raise LoadError("DuckDB returned Arrow arrays with an unexpected layout; please report this")
        numbers = np.concatenate(
            [segment.numbers[:0], *(values(array, _NUMBER, np.int64) for array in arrays)]
        )
        doubtful = np.flatnonzero(numbers < 0)
        numbers[doubtful] = -1 - numbers[doubtful]
        if not np.array_equal(numbers, segment.numbers):
            raise LoadError(
                f"DuckDB read {len(numbers)} of {len(segment.numbers)} lines, or read them in the wrong order; please report this"
            )
        times = np.concatenate([np.empty(0, np.int64), *(values(array, _TIME, np.int64) for array in arrays)])
        timed = np.concatenate([np.empty(0, np.bool_), *(not_null(array, _TIME) for array in arrays)])
        first, last = map(_microseconds, days)
        strays = np.flatnonzero(timed & ((times < first) | (times > last)))
        return ExtractedSegment(
            lines=index.lines,
            longest=index.longest,
            spans=index.spans,
            properties=index.properties,
            columns=store(arrays),
            doubtful=(*segment.irregular(), *numbers[doubtful].tolist()),
            keys=np.concatenate(
                [np.empty(0, np.uint64), *(values(array, _KEY, np.uint64) for array in arrays)]
            ),
            stray_positions=strays,
            stray_times=times[strays],
            untimed_positions=np.flatnonzero(~timed),
        )

    def _arrays(self, segment: IndexedText) -> list[Any]:
        """Return the rows of `_EXTRACT` for a segment."""
        with self._fast.memory_for_lines(segment.index.longest):
            try:
                return self._fast.arrays(line_arrays(segment))
            except (duckdb.InvalidInputException, duckdb.ConversionException, UnicodeDecodeError):
                # UnicodeDecodeError: DuckDB's own error message quotes bytes that are not UTF-8.
                return self._careful.arrays(line_arrays(segment))


def _events_sql(zone: str) -> str:
    """Return the SQL that reads `LINES` and converts every form of `time`, including local times in *zone*, to UTC."""
    return _EVENTS.format(
        lines=LINES,
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
