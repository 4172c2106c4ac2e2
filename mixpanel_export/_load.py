"""From staged lines to rows: what is in a chunk is found out first, and inserted when it is known to be sound.

Finding out keeps every column but `properties`, some bytes of each event, as Arrow arrays; the duplicates inside the
chunk are told from these. The insert puts them beside the text again, without the duplicates. So neither keeps a
chunk's text in memory, and the transaction of the insert sees no row that it would have to take back. Python sees no
event. `properties` is cut out of each line as text, since every JSON function of DuckDB would write numbers and escapes
anew.

A line that is not of Mixpanel's shape, or that DuckDB refuses, is doubtful; its chunk must then be mended.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import duckdb
import numpy as np

from mixpanel_export._arrow import COLUMNS, LINE, Found, Shown, numbered
from mixpanel_export._cut import BEGIN, BETWEEN, Cut, Lines, Numbers, cut
from mixpanel_export._database import first_moment, in_utc, last_moment, quoted
from mixpanel_export._duplicates import find_within
from mixpanel_export._ledger import Loaded
from mixpanel_export._staging import Buffers, Staged

_PIECE = 8 << 20  # bytes of lines that one statement reads

# The name goes through JSON only where a backslash says that it is not what it means; that its bytes are UTF-8 nobody
# has looked at before. TRY, as DuckDB raises where they are not, and where text is no JSON.
_EVENTS = """
SELECT number, event_name, CASE WHEN year(time) BETWEEN 1 AND 9999 THEN time END AS event_time, -- Python has no others
       found[2] AS distinct_id, found[3] AS insert_id, properties,
       line[1]::VARCHAR = '{begin}' AND line[3]::VARCHAR = '{between}' AND starts_with(properties::VARCHAR, '{{')
           AND event_name IS NOT NULL AND found IS NOT NULL AS sound
FROM (
    SELECT *,
           CASE WHEN contains(raw, '\\') THEN TRY(json_extract_string('"' || raw || '"', '$'))
                ELSE TRY(decode(encode(raw))) END AS event_name,
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
# Time and id alone hardly ever recur in events that differ.
_FIND = f"""
SELECT {", ".join(COLUMNS)} FROM (
    SELECT * REPLACE (CASE WHEN sound THEN number ELSE -1 - number END AS number),
           CASE WHEN insert_id <> '' THEN hash(event_time, insert_id) END AS key
    FROM ({{events}})
)
"""
_SUSPECTS = """
CREATE OR REPLACE TEMP TABLE _export_incoming (
    number BIGINT, event_name VARCHAR, event_time TIMESTAMP, distinct_id VARCHAR, insert_id VARCHAR, properties JSON,
    export_batch INTEGER)
"""
_SUSPECT = """
INSERT INTO _export_incoming
SELECT number, event_name, event_time, distinct_id, insert_id, properties, {batch} FROM ({events})
"""
_INSERT = """
INSERT INTO {table} SELECT event_name, event_time, distinct_id, insert_id, line[4], {batch} FROM _export_lines WHERE kept
"""


_EXECUTE = "EXECUTE _export_statement"


class DoubtfulLinesError(Exception):
    """Lines of a chunk, by their number from 0, are not sound."""

    def __init__(self, lines: set[int]) -> None:
        super().__init__()
        self.lines = lines


class LoadError(Exception):
    """DuckDB did not read what was staged."""


@dataclass(frozen=True, slots=True, eq=False)
class Ready:
    """A chunk that can be inserted: its lines are sound.

    `cuts` are those of its blocks, and `found` is what its lines have. `losers` are the numbers of the lines that stay
    out, as others have their identity. `loaded` is what the batch will be in the table.
    """

    staged: Staged
    cuts: tuple[Cut, ...]
    found: Found
    losers: Numbers
    loaded: Loaded


class _Text:
    """The lines of a chunk, to be read as often as needed; they are cut the first time."""

    def __init__(self, staged: Staged, buffers: Buffers, cuts: Iterable[Cut] = ()) -> None:
        self.staged = staged
        self.cuts = list(cuts)
        self._buffers = buffers

    def pieces(self) -> Iterator[list[Lines]]:
        """Yield some blocks at a time, each only until the next ones."""
        self._buffers.reuse()
        for piece in _grouped(self._blocks()):
            yield piece
            self._buffers.reuse()

    def _blocks(self) -> Iterator[Lines]:
        start = 0
        for number, text in enumerate(self.staged.blocks(self._buffers)):
            if number == len(self.cuts):
                self.cuts.append(cut(text))
            where = self.cuts[number]
            if len(text) != where.size:
                raise LoadError(
                    f"what was staged of {self.staged.chunk} is no longer what it was; please report this"
                )
            yield Lines(text, where, where.outlined.astype(np.int64) + start)
            start += where.lines


def examine(
    connection: duckdb.DuckDBPyConnection, staged: Staged, buffers: Buffers, *, zone: str, dedupe: bool
) -> Ready:
    """Find out what is in a chunk, its times on the clock of *zone*; it is read into *buffers*.

    With *dedupe*, of the events with the same identity only the winner is to be inserted.

    Raises:
        DoubtfulLinesError: The chunk must be mended first.
        LoadError: DuckDB did not read every line.
    """
    text = _Text(staged, buffers)
    found = _find(connection, text, zone)
    losers = np.empty(0, dtype=np.int64)
    if dedupe:
        losers = _losers(connection, text, found.recurring(), zone)
    return Ready(staged, tuple(text.cuts), found, losers, _loaded(connection, staged, found, losers, zone))


def insert(connection: duckdb.DuckDBPyConnection, table: str, ready: Ready, buffers: Buffers) -> None:
    """Insert a chunk into *table*, inside the caller's transaction; it is read into *buffers*.

    Raises:
        LoadError: DuckDB did not insert what was to be inserted.
    """
    statement = _INSERT.format(table=quoted(table), batch=ready.staged.batch)
    text = _Text(ready.staged, buffers, ready.cuts)
    inserted = 0
    if len(ready.found):
        with _prepared(connection, statement, ready.found.schema) as lines:
            for arrays in ready.found.beside(text.pieces(), ready.losers):
                lines.show(arrays)
                inserted += sum(count for (count,) in connection.execute(_EXECUTE).fetchall())
    if inserted != ready.loaded.rows:
        raise LoadError(
            f"of {ready.loaded.rows} events of {ready.staged.chunk} DuckDB inserted {inserted}; please report this"
        )


def _find(connection: duckdb.DuckDBPyConnection, text: _Text, zone: str) -> Found:
    """Return what is found of the chunk's lines; refuse doubtful ones, or that not all were read."""
    found = Found()
    outlined = [np.empty(0, dtype=np.int64)]
    doubtful: set[int] = set()
    lines = 0
    with _prepared(connection, _FIND.format(events=_events(zone)), LINE) as shown:
        for piece in text.pieces():
            for block in piece:
                doubtful.update(lines + number for number in block.others())
                lines += block.cut.lines
                outlined.append(block.numbers)
            shown.show(numbered(piece))
            found.add(connection.sql(_EXECUTE))
    numbers = found.numbers()
    unsound = np.flatnonzero(numbers < 0)
    numbers[unsound] = -1 - numbers[unsound]
    staged = text.staged
    if lines != staged.lines or not np.array_equal(numbers, np.concatenate(outlined)):
        raise LoadError(
            f"of {staged.lines} lines of {staged.chunk} {lines} were staged, and DuckDB read {len(numbers)}, or not in "
            "their order; please report this"
        )
    doubtful.update(numbers[unsound].tolist())
    if doubtful:
        raise DoubtfulLinesError(doubtful)
    return found


def _losers(connection: duckdb.DuckDBPyConnection, text: _Text, suspects: Numbers, zone: str) -> Numbers:
    """Return the numbers of the events that lose to others of the chunk; only the *suspects* are read again."""
    if not len(suspects):
        return suspects
    connection.execute(_SUSPECTS)
    statement = _SUSPECT.format(batch=text.staged.batch, events=_events(zone))
    longest = 0
    copies = (block.only(suspects) for piece in text.pieces() for block in piece)
    with _prepared(connection, statement, LINE) as lines:
        for group in _grouped(copies):
            longest = max(longest, *(block.longest for block in group))
            lines.show(numbered(group))
            connection.execute(_EXECUTE)
    if not find_within(connection, "_export_incoming", [text.staged.batch], longest=longest):
        return suspects[:0]
    losers = connection.execute(
        "SELECT number FROM _export_incoming AS _rows SEMI JOIN _export_losers ON _rows.rowid = id ORDER BY number ASC"
    )
    return np.asarray(losers.fetchnumpy()["number"], dtype=np.int64)


def _loaded(
    connection: duckdb.DuckDBPyConnection, staged: Staged, found: Found, losers: Numbers, zone: str
) -> Loaded:
    """Return what the table will hold of the chunk."""
    first = first_moment(f"DATE '{staged.chunk.first}'", zone)
    last = last_moment(f"DATE '{staged.chunk.last}'", zone)
    ((begin, end),) = connection.execute(f"SELECT {first}, {last}").fetchall()
    times = found.times(begin, end, losers)
    return Loaded(
        len(found) - len(losers), len(losers), times.outside, times.earliest, times.latest, times.missing
    )


def _grouped(blocks: Iterable[Lines]) -> Iterator[list[Lines]]:
    """Yield as many blocks at a time as one statement should read."""
    group: list[Lines] = []
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
def _prepared(connection: duckdb.DuckDBPyConnection, statement: str, schema: object) -> Iterator[Shown]:
    """Prepare a statement for `_EXECUTE` that reads `_export_lines`; yields that table.

    To parse and plan it for each piece would take as long as to run it.
    """
    lines = Shown(schema)
    connection.register("_export_lines", lines)
    connection.execute(f"PREPARE _export_statement AS {statement}")
    try:
        yield lines
    finally:
        lines.show(())


def _events(zone: str) -> str:
    """Return the SQL that reads `_export_lines`, with each form of `time`, on the clock of *zone*, as UTC."""
    return _EVENTS.format(
        begin=BEGIN,
        between=BETWEEN,
        seconds=in_utc("make_timestamp(CAST(trunc(clock) AS BIGINT) * 1000000)", zone),
        milliseconds=in_utc("make_timestamp(CAST(trunc(clock) AS BIGINT) * 1000)", zone),
        iso="TRY_CAST(found[1] AS TIMESTAMPTZ)::TIMESTAMP" if zone == "UTC" else _LOCAL_ISO.format(zone=zone),
    )
