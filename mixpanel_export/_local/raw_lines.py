"""Finds raw lines in which an id occurs. Raw lines are rejected lines and the originals of repaired lines."""

import re
from collections.abc import Collection, Iterator
from typing import Literal

from mixpanel_export._database.connection import Connection
from mixpanel_export._ndjson import canonical, normalized

_FETCH_ROWS = 1000  # raw lines that Python fetches from DuckDB at a time
_RAW_LINES = """
SELECT _export_rejects.rowid, _export_rejects.batch, reason, line
FROM _export_rejects JOIN {ledger} USING (batch) WHERE table_name = ?
"""

RawLedger = Literal["_export_batches", "_export_snapshots"]
"""The table that lists a table's batches: one is for events, the other for profiles."""


def delete_matches(connection: Connection, table: str, matches: str) -> int:
    """Delete the rows of *table* whose `rowid` is an `id` in the table *matches*. Return the number of rows."""
    ((count,),) = connection.execute(f"SELECT count(*) FROM {matches}").fetchall()
    if count:
        connection.execute(f"DELETE FROM {table} WHERE rowid IN (SELECT id FROM {matches})")
    return int(count)


def find_raw_lines(connection: Connection, ledger: RawLedger, table: str, ids: Collection[str]) -> None:
    """Fill the temporary table `_export_lines` with the raw lines of a table in which an id occurs."""
    # An id within a longer word does not match, because it is part of a different id.
    occurs = re.compile(rf"(?<![^\W_])(?:{'|'.join(map(re.escape, ids))})(?![^\W_])").search
    matches: list[tuple[int, int, str]] = []
    cursor = connection.execute(_RAW_LINES.format(ledger=ledger), [table])
    while page := cursor.fetchmany(_FETCH_ROWS):
        matches += [
            (row, batch, reason) for row, batch, reason, line in page if any(map(occurs, _texts(line)))
        ]
    connection.execute(
        "CREATE OR REPLACE TEMP TABLE _export_lines AS "
        "SELECT unnest(?::BIGINT[]) AS id, unnest(?::INTEGER[]) AS batch, unnest(?::VARCHAR[]) AS kind",
        [[value[place] for value in matches] for place in range(3)],
    )


def _texts(line: bytes) -> Iterator[str]:
    """Yield the texts to search: the raw line, the line without escapes and, for an event, the text that DuckDB parses."""
    text = line.decode("utf-8", "replace")
    yield text
    yield _unescaped(text)
    event = canonical(line)
    if event is not None:
        yield _unescaped(normalized(event.line.decode()))


def _unescaped(text: str) -> str:
    """Return *text* with JSON escapes replaced with their characters. The text need not be JSON."""
    characters = re.sub(r"\\(?:u([0-9a-fA-F]{4})|(.))", _character, text, flags=re.DOTALL)
    return characters.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _character(escape: re.Match[str]) -> str:
    if escape[1]:
        return chr(int(escape[1], 16))
    return {"b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t"}.get(escape[2], escape[2])
