"""From staged lines to rows: what is in a chunk is found out first, and inserted when it is known to be sound.

The duplicates inside the chunk are told from what was found. The insert puts that beside the text again, without them.
So neither keeps a chunk's text in memory, and the transaction of the insert sees no row that it would have to take back.
"""

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace

import duckdb
import numpy as np
from numpy.typing import NDArray

from mixpanel_export._arrow import EVENT, LINE, Columns, numbered
from mixpanel_export._cut import Payload, Places
from mixpanel_export._database import first_moment, last_moment, quoted
from mixpanel_export._duplicates import find_within
from mixpanel_export._find import (
    EXECUTE,
    Findings,
    LoadError,
    Text,
    events_of,
    find,
    grouped,
    pieces,
    prepared,
)
from mixpanel_export._ledger import Loaded
from mixpanel_export._staging import Buffers, Staged

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
INSERT INTO {table} SELECT event_name, event_time, distinct_id, insert_id, payload[1], {batch} FROM _export_lines WHERE kept
"""


class DoubtfulLinesError(Exception):
    """Lines of a chunk, by their number from 0, are not sound."""

    def __init__(self, lines: set[int]) -> None:
        super().__init__()
        self.lines = lines


@dataclass(frozen=True, slots=True, eq=False)
class Ready:
    """A chunk that can be inserted: its lines are sound.

    `places` are those of its blocks, and `found` is what its outlined lines have. Those that are not `kept` stay out, as
    others have their identity. `loaded` is what the batch will be in the table.
    """

    staged: Staged
    places: tuple[Places, ...]
    found: Columns
    kept: NDArray[np.bool_]
    loaded: Loaded


def examine(
    connection: duckdb.DuckDBPyConnection, text: Text, zone: str, findings: Findings, *, dedupe: bool
) -> Ready:
    """Find out what is in a chunk, as `find`, into *findings*.

    With *dedupe*, of the events with the same identity only the winner is to be inserted.

    Raises:
        DoubtfulLinesError: The chunk must be mended first.
        LoadError: DuckDB did not read every line.
        OSError: What was found cannot be written.
    """
    with ExitStack() as stack:
        stack.callback(findings.columns.discard)
        find(connection, text, zone, findings)
        staged = text.staged
        if findings.lines != staged.lines:
            raise LoadError(
                f"of {staged.lines} lines of {staged.chunk} {findings.lines} were staged; please report this"
            )
        if findings.doubtful:
            raise DoubtfulLinesError(findings.doubtful)
        kept = np.ones(findings.columns.rows, np.bool_)
        if dedupe:
            kept[_losers(connection, replace(text, cuts=findings.cuts), findings, zone)] = False
        first = first_moment(f"DATE '{staged.chunk.first}'", zone)
        last = last_moment(f"DATE '{staged.chunk.last}'", zone)
        ((begin, end),) = connection.execute(f"SELECT {first}, {last}").fetchall()
        loaded = findings.loaded(begin, end, kept)
        stack.pop_all()
        return Ready(staged, tuple(cut.places for cut in findings.cuts), findings.columns, kept, loaded)


def insert(connection: duckdb.DuckDBPyConnection, table: str, ready: Ready, buffers: Buffers) -> None:
    """Insert a chunk into *table*, inside the caller's transaction; it is read into *buffers*.

    Raises:
        LoadError: DuckDB did not insert what was to be inserted.
    """
    statement = _INSERT.format(table=quoted(table), batch=ready.staged.batch)
    inserted = 0
    if ready.found.rows:
        with prepared(connection, statement, EVENT) as lines:
            for arrays in ready.found.beside(pieces(_payloads(ready, buffers), buffers), ready.kept):
                lines.show(arrays)
                inserted += sum(count for (count,) in connection.execute(EXECUTE).fetchall())
    if inserted != ready.loaded.rows:
        raise LoadError(
            f"of {ready.loaded.rows} events of {ready.staged.chunk} DuckDB inserted {inserted}; please report this"
        )


def _payloads(ready: Ready, buffers: Buffers) -> Iterator[Payload]:
    for text, places in zip(ready.staged.blocks(buffers), ready.places, strict=True):
        if len(text) != places.size:
            raise LoadError(
                f"what was staged of {ready.staged.chunk} is no longer what it was; please report this"
            )
        yield Payload(text, places.spans)


def _losers(
    connection: duckdb.DuckDBPyConnection, text: Text, findings: Findings, zone: str
) -> NDArray[np.int64]:
    """Return which of the events lose to others of the chunk; only those whose keys recur are parsed again."""
    recurring = findings.recurring()
    if not len(recurring):
        return recurring
    numbers = findings.numbers()
    suspects = numbers[recurring]
    batch = text.staged.batch
    longest = 0
    copies = (block.only(suspects) for piece in text.pieces() for block in piece)
    connection.execute(_SUSPECTS)
    with prepared(connection, _SUSPECT.format(batch=batch, events=events_of(zone)), LINE) as lines:
        for group in grouped(copies):
            longest = max(longest, *(block.longest for block in group))
            lines.show(numbered(group))
            connection.execute(EXECUTE)
    if not find_within(connection, "_export_incoming", [batch], longest=longest):
        return recurring[:0]
    losers = connection.execute(
        "SELECT number FROM _export_incoming AS _rows SEMI JOIN _export_losers ON _rows.rowid = id ORDER BY number ASC"
    )
    return np.searchsorted(numbers, losers.fetchnumpy()["number"])
