"""From staged lines to rows: what is in a chunk is found out first, and inserted when it is known to be sound.

The duplicates inside the chunk are told from what was found. The insert puts that beside the text again, without them.
So neither keeps a chunk's text in memory, and the transaction of the insert sees no row that it would have to take back.
"""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass

import duckdb
import numpy as np
from numpy.typing import NDArray

from mixpanel_export._database.connection import first_moment, last_moment, quoted
from mixpanel_export._database.ledger import Loaded
from mixpanel_export._writer.arrow import EVENT, LINE, Columns, Shown, numbered
from mixpanel_export._writer.extract import (
    EXECUTE,
    NAME,
    Findings,
    LoadError,
    Text,
    find,
    pieces,
    prepared,
)
from mixpanel_export._writer.offsets import Cut, Lines, Numbers, Payload, Places, cut
from mixpanel_export._writer.staging import Buffers, Staged
from mixpanel_export._writer.winners import BESIDE, MEMBERS, Rival, losers

_TEXT = 2 << 20  # bytes of lines that are compared at once
_INFLATED = 8  # times as many where the whole chunk must be inflated for them
# Rows as `_rivals` wants them, as far as they are not all the same.
_RIVALS = f"""
SELECT number, {NAME}, found[1], found[2], found[3], TRY_CAST(found[4] AS DOUBLE), properties
FROM (
    SELECT number, line[2]::VARCHAR AS raw, line[4] AS properties, TRY(json_extract_string(line[4], {MEMBERS})) AS found
    FROM _export_lines
)
"""
_INSERT = """
INSERT INTO {table} SELECT event_name, event_time, distinct_id, insert_id, payload[1], {batch} FROM _export_lines WHERE kept
"""
_CHANGED = "what was staged of {chunk} is no longer what it was; please report this"


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
            kept[_losers(connection, staged, findings)] = False
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
            raise LoadError(_CHANGED.format(chunk=ready.staged.chunk))
        yield Payload(text, places.spans)


def _losers(connection: duckdb.DuckDBPyConnection, staged: Staged, findings: Findings) -> list[int]:
    """Return the places of the outlined lines that lose to others of the chunk; only lines whose keys recur are looked at."""
    places, keys = findings.recurring()
    if not len(places):
        return []
    with prepared(connection, _RIVALS, LINE) as shown:
        pages = (
            _rivals(connection, shown, lines, keys)
            for lines, keys in _pages(staged, findings.cuts, places, keys)
        )
        return [place for place, _, _ in losers(pages)]


def _rivals(
    connection: duckdb.DuckDBPyConnection, shown: Shown, lines: Lines, keys: NDArray[np.uint64]
) -> Iterator[Rival]:
    shown.show(numbered([lines]))
    rows = connection.execute(EXECUTE).fetchall()
    if [place for place, *_ in rows] != lines.numbers.tolist():
        raise LoadError("lines that recur were not read again, or not in their order; please report this")
    for key, (place, *row) in zip(keys.tolist(), rows, strict=True):
        yield key, *row, True, 0, place


def _pages(
    staged: Staged, cuts: Sequence[Cut], places: Numbers, keys: NDArray[np.uint64]
) -> Iterator[tuple[Lines, NDArray[np.uint64]]]:
    """Yield as many of the lines at *places* at a time as may be compared at once, with their keys, in the order of *keys*."""
    firsts = np.cumsum([0, *(len(cut.outlined) for cut in cuts)])
    blocks = np.searchsorted(firsts, places, side="right") - 1
    spans = np.empty((len(places), 2), dtype=np.int64)
    for block in np.unique(blocks):
        here = blocks == block
        spans[here] = cuts[block].spans(places[here] - firsts[block])
    most = _INFLATED * _TEXT if staged.compressed else _TEXT
    pages = np.cumsum(spans[:, 1] - spans[:, 0] + BESIDE) // most
    for page in np.unique(pages):
        some = np.flatnonzero(pages == page)
        some = some[np.argsort(places[some])]
        wanted: dict[int, list[list[int]]] = {}
        for block, span in zip(blocks[some].tolist(), spans[some].tolist(), strict=True):
            wanted.setdefault(block, []).append(span)
        text = b"".join(staged.some(wanted))
        where = cut(text)
        if len(where.outlined) != len(some):
            raise LoadError(_CHANGED.format(chunk=staged.chunk))
        yield Lines(text, where, places[some]), keys[some]
