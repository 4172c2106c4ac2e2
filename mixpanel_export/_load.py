"""From staged lines to rows: what is in a chunk is found out first, and inserted when it is known to be sound.

Finding out keeps every column but `properties`, some bytes of each event, in a table of a database in memory; the
duplicates inside the chunk are told from that. The insert puts these columns and the text together, without the
duplicates. So neither keeps a chunk's text in memory, and the transaction of the insert sees no row that it would have
to take back. Python sees no event. `properties` is cut out of each line as text, since every JSON function of DuckDB
would write numbers and escapes anew.

A line that is not of Mixpanel's shape, or that DuckDB refuses, is doubtful; its chunk must then be mended.
"""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import duckdb
import numpy as np

from mixpanel_export._cut import BEGIN, BETWEEN, Cut, Lines, Numbers, cut, rows
from mixpanel_export._database import WORK, first_moment, in_utc, last_moment, quoted
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
_FOUND = """
CREATE OR REPLACE TABLE {found} (
    number BIGINT, event_name VARCHAR, event_time TIMESTAMP, distinct_id VARCHAR, insert_id VARCHAR, sound BOOLEAN)
"""
_FIND = (
    "INSERT INTO {found} SELECT number, event_name, event_time, distinct_id, insert_id, sound FROM ({events})"
)
# Time and id alone hardly ever recur in events that differ.
_RECURRING = """
WITH _keys AS (SELECT number, hash(event_time, insert_id) AS key FROM {found} WHERE insert_id <> '')
SELECT number FROM _keys SEMI JOIN (SELECT key FROM _keys GROUP BY key HAVING count(*) > 1) USING (key) ORDER BY number ASC
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
_HELD = """
SELECT count(*), count(*) FILTER (outside), min(event_time) FILTER (outside), max(event_time) FILTER (outside),
       count(*) FILTER (event_time IS NULL)
FROM (SELECT event_time, event_time NOT BETWEEN {first} AND {last} AS outside FROM {found})
"""
# That the numbers agree is for certainty: a row too few is noticed, one beside the wrong text would not be.
_INSERT = """
INSERT INTO {table}
SELECT event_name, event_time, distinct_id, insert_id, line[4], {batch}
FROM _export_lines POSITIONAL JOIN (
    FROM {found} WHERE number BETWEEN {first} AND {last} ORDER BY number ASC
) AS _found WHERE _export_lines.number = _found.number
"""


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

    `cuts` are those of its blocks. `losers` are the numbers of the lines that stay out, as others have their
    identity. `loaded` is what the batch will be in the table.
    """

    staged: Staged
    cuts: tuple[Cut, ...]
    losers: Numbers
    loaded: Loaded


def examine(connection: duckdb.DuckDBPyConnection, staged: Staged, *, zone: str, dedupe: bool) -> Ready:
    """Find out what is in a chunk, its times on the clock of *zone*; what is found is there until `forget`.

    With *dedupe*, of the events with the same identity only the winner is to be inserted.

    Raises:
        DoubtfulLinesError: The chunk must be mended first.
        LoadError: DuckDB did not read every line.
    """
    cuts = _find(connection, staged, zone)
    losers = _losers(connection, staged, cuts, zone) if dedupe else np.empty(0, dtype=np.int64)
    if len(losers):
        connection.execute(
            f"DELETE FROM {_found(staged)} WHERE number IN (SELECT unnest(?::BIGINT[]))", [losers.tolist()]
        )
    return Ready(staged, cuts, losers, _loaded(connection, staged, len(losers), zone))


def insert(connection: duckdb.DuckDBPyConnection, table: str, ready: Ready) -> None:
    """Insert a chunk into *table*, inside the caller's transaction.

    Raises:
        LoadError: DuckDB did not insert what was to be inserted.
    """
    names = {"table": quoted(table), "batch": ready.staged.batch, "found": _found(ready.staged)}
    inserted = 0
    for piece in _pieces(ready.staged, ready.cuts):
        winners = [block for block in (block.without(ready.losers) for block in piece) if len(block.numbers)]
        if winners:
            first, last = winners[0].numbers[0], winners[-1].numbers[-1]
            inserted += sum(_over(connection, winners, _INSERT.format(first=first, last=last, **names)))
    if inserted != ready.loaded.rows:
        raise LoadError(
            f"of {ready.loaded.rows} events of {ready.staged.chunk} DuckDB inserted {inserted}; please report this"
        )


def forget(connection: duckdb.DuckDBPyConnection, staged: Staged) -> None:
    """Let go of what was found of a chunk, if anything."""
    connection.execute(f"DROP TABLE IF EXISTS {_found(staged)}")


def _found(staged: Staged) -> str:
    return f"{WORK}.main.found_{staged.batch}"


def _find(connection: duckdb.DuckDBPyConnection, staged: Staged, zone: str) -> tuple[Cut, ...]:
    """Fill the table of what is found and return the cuts; refuse doubtful lines, or that not all were read."""
    found = _found(staged)
    statement = _FIND.format(found=found, events=_events(zone))
    connection.execute(_FOUND.format(found=found))
    cuts: list[Cut] = []
    doubtful: set[int] = set()
    lines = outlined = read = 0
    for piece in _pieces(staged):
        for block in piece:
            doubtful.update(lines + number for number in block.others())
            lines += block.cut.lines
            outlined += len(block.numbers)
            cuts.append(block.cut)
        read += sum(_over(connection, piece, statement))
    if (lines, outlined) != (staged.lines, read):
        raise LoadError(
            f"of {staged.lines} lines of {staged.chunk} {lines} were staged, and of {outlined} DuckDB read {read}; "
            "please report this"
        )
    unsound = connection.execute(f"SELECT number FROM {found} WHERE NOT sound").fetchall()
    doubtful.update(number for (number,) in unsound)
    if doubtful:
        raise DoubtfulLinesError(doubtful)
    return tuple(cuts)


def _losers(connection: duckdb.DuckDBPyConnection, staged: Staged, cuts: Sequence[Cut], zone: str) -> Numbers:
    """Return the numbers of the events that lose to others of the chunk; only those whose keys recur are read again."""
    suspects = _numbers(connection, _RECURRING.format(found=_found(staged)))
    if not len(suspects):
        return suspects
    connection.execute(_SUSPECTS)
    statement = _SUSPECT.format(batch=staged.batch, events=_events(zone))
    longest = 0
    copies = (block.only(suspects) for piece in _pieces(staged, cuts) for block in piece)
    for group in _grouped(copies):
        longest = max(longest, *(block.longest for block in group))
        _over(connection, group, statement)
    if not find_within(connection, "_export_incoming", [staged.batch], longest=longest):
        return suspects[:0]
    return _numbers(
        connection,
        "SELECT number FROM _export_incoming AS _rows SEMI JOIN _export_losers ON _rows.rowid = id ORDER BY number ASC",
    )


def _loaded(connection: duckdb.DuckDBPyConnection, staged: Staged, losers: int, zone: str) -> Loaded:
    """Return what the table will hold of the chunk."""
    first = first_moment(f"DATE '{staged.chunk.first}'", zone)
    last = last_moment(f"DATE '{staged.chunk.last}'", zone)
    held = connection.execute(_HELD.format(first=first, last=last, found=_found(staged))).fetchall()
    ((kept, outside, earliest, latest, timeless),) = held
    return Loaded(kept, losers, outside, earliest, latest, timeless)


def _numbers(connection: duckdb.DuckDBPyConnection, query: str) -> Numbers:
    found = connection.execute(query).fetchnumpy()["number"]
    return np.asarray(found, dtype=np.int64)


def _pieces(staged: Staged, cuts: Sequence[Cut] = ()) -> Iterator[list[Lines]]:
    """Yield the chunk piece by piece, each only until the next one; cut where its *cuts* say, if there are any already."""
    buffers = Buffers()
    for piece in _grouped(_blocks(staged, cuts, buffers)):
        yield piece
        buffers.reuse()


def _blocks(staged: Staged, cuts: Sequence[Cut], buffers: Buffers) -> Iterator[Lines]:
    start = 0
    for number, text in enumerate(staged.blocks(buffers)):
        where = cuts[number] if cuts else cut(text)
        yield Lines(text, where, where.outlined.astype(np.int64) + start)
        start += where.lines


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


def _over(connection: duckdb.DuckDBPyConnection, piece: Sequence[Lines], statement: str) -> list[int]:
    """Run a statement that reads `_export_lines`, the lines of *piece*; returns the numbers of rows that it tells."""
    with _table_of_lines(connection, piece):
        return [count for (count,) in connection.execute(statement).fetchall()]


@contextmanager
def _table_of_lines(connection: duckdb.DuckDBPyConnection, piece: Sequence[Lines]) -> Iterator[None]:
    lines = rows(piece)
    connection.register("_export_lines", lines)
    try:
        yield
    finally:
        lines.release()


def _events(zone: str) -> str:
    """Return the SQL that reads `_export_lines`, with each form of `time`, on the clock of *zone*, as UTC."""
    return _EVENTS.format(
        begin=BEGIN,
        between=BETWEEN,
        seconds=in_utc("make_timestamp(CAST(trunc(clock) AS BIGINT) * 1000000)", zone),
        milliseconds=in_utc("make_timestamp(CAST(trunc(clock) AS BIGINT) * 1000)", zone),
        iso="TRY_CAST(found[1] AS TIMESTAMPTZ)::TIMESTAMP" if zone == "UTC" else _LOCAL_ISO.format(zone=zone),
    )
