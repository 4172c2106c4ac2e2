"""What is in the lines of a chunk: every column but `properties`, some bytes of each event, as Arrow arrays.

Python sees no event. `properties` is cut out of each line as text, since every JSON function of DuckDB would write
numbers and escapes anew. A line that is not of Mixpanel's shape, or that DuckDB refuses, is doubtful.
"""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, TypeVar

import duckdb
import numpy as np
from numpy.typing import NDArray

from mixpanel_export._database.connection import in_utc
from mixpanel_export._database.ledger import Loaded
from mixpanel_export._writer.arrow import (
    COLUMNS,
    FORMATS,
    LINE,
    Columns,
    Shown,
    fetched,
    formats,
    numbered,
    present,
    values,
)
from mixpanel_export._writer.memory import Room
from mixpanel_export._writer.offsets import BEGIN, BETWEEN, Cut, Lines, Numbers, Payload, cut
from mixpanel_export._writer.staging import Buffers, Staged

EXECUTE = "EXECUTE _export_statement"
"""Runs what is `prepared`."""

_PIECE = 8 << 20  # bytes of lines that one statement reads
_EPOCH = datetime(1970, 1, 1)  # noqa: DTZ001 - a table's times are naive UTC

# It goes through JSON only where a backslash says that it is not what it means; that its bytes are UTF-8 nobody has
# looked at before. TRY, as DuckDB raises where they are not, and where text is no JSON.
NAME = """
CASE WHEN contains(raw, '\\') THEN TRY(json_extract_string('"' || raw || '"', '$')) ELSE TRY(decode(encode(raw))) END
"""
"""SQL of the event's name that the text `raw` between the quotes means."""

_EVENTS = """
SELECT number, event_name, CASE WHEN year(time) BETWEEN 1 AND 9999 THEN time END AS event_time, -- Python has no others
       found[2] AS distinct_id, found[3] AS insert_id, properties,
       line[1]::VARCHAR = '{begin}' AND line[3]::VARCHAR = '{between}' AND starts_with(properties::VARCHAR, '{{')
           AND event_name IS NOT NULL AND found IS NOT NULL AS sound
FROM (
    SELECT *,
           {name} AS event_name,
           CASE WHEN abs(clock) < 1e11 AND clock >= -62135596800
                THEN {seconds}
                WHEN abs(clock) >= 1e11 AND clock BETWEEN -62135596800000 AND 253402300799999
                THEN {milliseconds}
                WHEN regexp_matches(found[1], '^\\d{{4}}-\\d\\d-\\d\\d') THEN {iso}
           END AS time
    FROM (
        SELECT *, CASE WHEN NOT regexp_matches(found[1], '[_\\s]') THEN TRY_CAST(found[1] AS DOUBLE) END AS clock
        FROM (
            SELECT number, line, line[2]::VARCHAR AS raw, line[4] AS properties,
                   TRY(json_extract_string(line[4], ['$.time', '$.distinct_id', '$."$insert_id"'])) AS found
            FROM _export_lines
        )
    )
)
"""
# Text without an offset is local too; only such text can be cast with a zone put after it.
_LOCAL_ISO = """
coalesce(TRY_CAST(found[1] || ' {zone}' AS TIMESTAMPTZ), TRY_CAST(found[1] || ' 00:00:00 {zone}' AS TIMESTAMPTZ),
         TRY_CAST(found[1] AS TIMESTAMPTZ))::TIMESTAMP
"""
# Time and id alone hardly ever recur in events that differ; a key is odd, or 0 where there is no id.
_FIND = f"""
SELECT {", ".join(COLUMNS)}, CASE WHEN sound THEN number ELSE -1 - number END,
       CASE WHEN insert_id <> '' THEN hash(event_time, insert_id) | 1::UBIGINT ELSE 0::UBIGINT END
FROM ({{events}})
"""
_FORMATS = [*FORMATS, "l", "L"]
_TIME, _NUMBER, _KEY = COLUMNS.index("event_time"), len(COLUMNS), len(COLUMNS) + 1


Block = TypeVar("Block", Lines, Payload)


class LoadError(Exception):
    """DuckDB did not read what was staged."""


class Findings:
    """What is found of the lines of a chunk.

    `cuts` are those of its blocks, `columns` what its outlined lines have, kept in *room* or *file*. `lines` counts newlines, and `doubtful` are the numbers of such lines.
    """

    def __init__(self, room: Room, file: Path) -> None:
        self.cuts: list[Cut] = []
        self.columns = Columns(room, file)
        self.lines = 0
        self.doubtful: set[int] = set()
        self._keys = [np.empty(0, dtype=np.uint64)]
        self._times = [np.empty(0, dtype=np.int64)]
        self._timed = [np.empty(0, dtype=np.bool_)]

    def cut(self, piece: Sequence[Lines]) -> None:
        """Take in how the next blocks are cut."""
        for block in piece:
            self.doubtful.update(self.lines + number for number in block.others())
            self.lines += block.cut.lines
            self.cuts.append(block.cut)

    def add(self, arrays: Sequence[Any], expected: Numbers) -> None:
        """Take in the rows of `_FIND` for the outlined lines of the numbers *expected*.

        Raises:
            LoadError: They are of other lines, or not in their order, or laid out in another way.
            OSError: They cannot be written.
        """
        if any(formats(array) != _FORMATS for array in arrays):
            raise LoadError(
                "DuckDB's Arrow settings were changed during the export; leave them alone until it ends"
            )
        found = np.concatenate([expected[:0], *(values(array, _NUMBER, np.int64) for array in arrays)])
        unsound = np.flatnonzero(found < 0)
        found[unsound] = -1 - found[unsound]
        self.doubtful.update(found[unsound].tolist())
        if not np.array_equal(found, expected):
            raise LoadError(
                f"of {len(expected)} lines DuckDB read {len(found)}, or not in their order; please report this"
            )
        for array in arrays:
            self.columns.add(array)
            self._keys.append(values(array, _KEY, np.uint64).copy())
            self._times.append(values(array, _TIME, np.int64).copy())
            self._timed.append(present(array, _TIME))

    def recurring(self) -> tuple[Numbers, NDArray[np.uint64]]:
        """Return the places, among the outlined lines, of those whose keys recur, and these keys, by which they are ordered."""
        keys = np.concatenate(self._keys)
        ordered = np.sort(keys)
        twice = np.unique(ordered[1:][ordered[1:] == ordered[:-1]])
        places = np.flatnonzero(np.isin(keys, twice[twice > 0]))
        places = places[np.argsort(keys[places], kind="stable")]
        return places, keys[places]

    def loaded(self, first: datetime, last: datetime, kept: NDArray[np.bool_]) -> Loaded:
        """Return what the table will hold of the lines that are *kept*; *first* and *last* are the chunk's moments."""
        timed = np.concatenate(self._timed)
        times = np.concatenate(self._times)[kept & timed]
        outside = times[(times < _microseconds(first)) | (times > _microseconds(last))]
        rows = int(np.count_nonzero(kept))
        return Loaded(
            rows,
            len(kept) - rows,
            len(outside),
            _moment(outside.min()) if len(outside) else None,
            _moment(outside.max()) if len(outside) else None,
            int(np.count_nonzero(kept & ~timed)),
        )


@dataclass(frozen=True, slots=True)
class Text:
    """The lines of a chunk, read into *buffers*."""

    staged: Staged
    buffers: Buffers

    def pieces(self) -> Iterator[list[Lines]]:
        """Yield some blocks at a time, each only until the next ones."""
        return pieces(self._lines(), self.buffers)

    def _lines(self) -> Iterator[Lines]:
        start = 0
        for text in self.staged.blocks(self.buffers):
            where = cut(text)
            yield Lines(text, where, where.outlined.astype(np.int64) + start)
            start += where.lines


def find(connection: duckdb.DuckDBPyConnection, text: Text, zone: str, findings: Findings) -> None:
    """Add what is in the lines of a chunk, their times on the clock of *zone*, to *findings*.

    Raises:
        LoadError: DuckDB did not read every line.
        OSError: What was found cannot be written.
    """
    with prepared(connection, _FIND.format(events=events_of(zone)), LINE) as lines:
        for piece in text.pieces():
            findings.cut(piece)
            lines.show(numbered(piece))
            expected = np.concatenate([block.numbers for block in piece])
            findings.add(fetched(connection.sql(EXECUTE)), expected)


def pieces(blocks: Iterable[Block], buffers: Buffers) -> Iterator[list[Block]]:
    """Yield some *blocks* at a time, each only until the next ones: they are read into *buffers*, which are then reused."""
    buffers.reuse()
    for piece in grouped(blocks):
        yield piece
        buffers.reuse()


def grouped(blocks: Iterable[Block]) -> Iterator[list[Block]]:
    """Yield as many blocks at a time as one statement should read."""
    group: list[Block] = []
    size = 0
    for block in blocks:
        group.append(block)
        size += len(block.text)
        if size > _PIECE:
            yield group
            group, size = [], 0
    if group:
        yield group


@contextmanager
def prepared(connection: duckdb.DuckDBPyConnection, statement: str, schema: object) -> Iterator[Shown]:
    """Prepare a statement for `EXECUTE` that reads `_export_lines`; yields that table.

    To parse and plan it for each piece would take as long as to run it.
    """
    lines = Shown(schema)
    connection.register("_export_lines", lines)
    connection.execute(f"PREPARE _export_statement AS {statement}")
    try:
        yield lines
    finally:
        lines.show(())


def events_of(zone: str) -> str:
    """Return the SQL that reads `_export_lines`, with each form of `time`, on the clock of *zone*, as UTC."""
    return _EVENTS.format(
        begin=BEGIN,
        between=BETWEEN,
        name=NAME,
        seconds=in_utc("make_timestamp(CAST(trunc(clock) AS BIGINT) * 1000000)", zone),
        milliseconds=in_utc("make_timestamp(CAST(trunc(clock) AS BIGINT) * 1000)", zone),
        iso="TRY_CAST(found[1] AS TIMESTAMPTZ)::TIMESTAMP" if zone == "UTC" else _LOCAL_ISO.format(zone=zone),
    )


def _microseconds(moment: datetime) -> int:
    return (moment - _EPOCH) // timedelta(microseconds=1)


def _moment(microseconds: np.int64) -> datetime:
    return _EPOCH + timedelta(microseconds=int(microseconds))
