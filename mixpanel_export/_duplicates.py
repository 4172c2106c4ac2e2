"""Which of several rows with one identity is shown: inside a batch, and across batches.

An identity is event name, `distinct_id`, `time` and `$insert_id`, compared as the text that was sent; a row
without an `$insert_id` is never a duplicate. The winner is the row processed last, then the one with the
greatest text, so the outcome does not depend on the order in which rows or batches came.

Inside a batch the others are left out before it is inserted. Across batches, whose days are disjoint, a row can
only recur where its time lies outside the days asked for. There the loser moves to `_export_duplicates`, since it
must be shown again once the batch that it lost to is replaced by one without it: the table shows what its batches
delivered, whatever happened before.

Probes look at keys only; payload is read of the few rows whose keys recur. Everything runs inside the caller's
transaction, and deleting comes last: DuckDB 2.0 returns the text of other rows, or crashes, where rows are looked
up by `rowid` in a table that has lost rows of the same transaction.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import chain

import duckdb

from mixpanel_export._database import quoted
from mixpanel_export._lines import scalar_texts

Span = tuple[datetime, datetime]
"""Naive UTC, both inclusive."""

_IDENTITY = ("time", "distinct_id", "$insert_id")
_PAGE = 1000  # rows that Python looks at in one go
_TEXT = 16 << 20  # bytes of text that are looked at at once

# Names begin with an underscore where they stand beside a table's, which cannot.
_WITHIN = """
WITH _keys AS (
    SELECT rowid AS id, export_batch AS batch, hash(event_name, event_time, distinct_id, insert_id) AS key
    FROM {table} WHERE export_batch IN ({batches}) AND insert_id <> ''
), _twice AS (
    SELECT batch, key FROM _keys GROUP BY ALL HAVING count(*) > 1
)
SELECT id, false AS outside FROM _keys SEMI JOIN _twice USING (batch, key)
"""
# Only rows at a time that some batch has outside its days can recur.
_ACROSS = """
WITH _days(batch, first, last) AS (VALUES {days}), _keys AS (
    SELECT rowid AS id, batch, hash(event_name, event_time, distinct_id, insert_id) AS key,
           event_time IS NULL OR event_time NOT BETWEEN first AND last AS outside
    FROM {table} JOIN _days ON export_batch = batch
    WHERE export_batch IN ({batches}) AND insert_id <> '' AND (event_time IS NULL{times})
), _twice AS (
    SELECT key FROM _keys SEMI JOIN (SELECT key FROM _keys WHERE outside) AS _strays USING (key)
    GROUP BY key HAVING count(DISTINCT batch) > 1
)
SELECT id, outside FROM _keys SEMI JOIN _twice USING (key)
"""
_SUSPECTS = """
CREATE OR REPLACE TEMP TABLE _export_suspects (
    id BIGINT, batch INTEGER, event_name VARCHAR, size BIGINT, digest VARCHAR, identity VARCHAR[], processed DOUBLE)
"""
_SIZE = """
SELECT coalesce(sum(strlen(properties)), 0) FROM {table}
WHERE export_batch IN ({batches}) AND rowid IN (SELECT id FROM _export_recurring)
"""
# One JSON function only: each takes several times the memory of all the text that it is given at once.
_EXTRACT = """
INSERT INTO _export_suspects
SELECT id, batch, event_name, size, digest, found[:3],
       CASE WHEN isfinite(TRY_CAST(found[4] AS DOUBLE)) THEN TRY_CAST(found[4] AS DOUBLE) END
FROM (
    SELECT rowid AS id, export_batch AS batch, event_name, strlen(properties) AS size, md5(properties) AS digest,
           json_extract_string(properties, ['$.time', '$.distinct_id', '$."$insert_id"', '$.mp_processing_time_ms'])
               AS found
    FROM {table}
    WHERE export_batch IN ({batches}) AND rowid IN (SELECT id FROM _export_recurring WHERE hash(id) % {shares} = {share})
)
"""
# What DuckDB extracts of some values is not the text that was sent: numbers with a fraction or of many digits went
# through a double, also inside objects and lists, and zero loses its sign.
_REWRITTEN = r"""
SELECT id FROM _export_suspects
WHERE regexp_matches(array_to_string(identity, chr(10)),
    '(?m)^([\[{]|-?0$|-?[0-9]+\.[0-9]|-?[0-9]+([eE][-+]?[0-9]+|[0-9]{18})$|-?(inf|nan|Inf|NaN))')
"""
# Only where several rows were processed last, and differ, has their text to be looked at.
_TIES = """
CREATE OR REPLACE TEMP TABLE _export_ties AS
SELECT id, size, hash(event_name, identity) AS share, NULL::BIGINT AS place FROM (
    SELECT *, min(digest) OVER alike <> max(digest) OVER alike AS differ
    FROM (
        SELECT *, rank() OVER (PARTITION BY {scope}event_name, identity ORDER BY processed DESC NULLS LAST) AS place
        FROM _export_suspects
    )
    WHERE place = 1 WINDOW alike AS (PARTITION BY {scope}event_name, identity)
) WHERE differ
"""
_BREAK_TIES = """
UPDATE _export_ties SET place = ranked.place FROM (
    SELECT id, rank() OVER (PARTITION BY {scope}_suspects.event_name, identity ORDER BY properties DESC) AS place
    FROM _export_ties JOIN _export_suspects AS _suspects USING (id) JOIN {table} AS _events ON _events.rowid = id
    WHERE share % {shares} = {share} AND export_batch IN ({batches})
) AS ranked WHERE _export_ties.id = ranked.id
"""
_LOSERS = """
CREATE OR REPLACE TEMP TABLE _export_losers AS
SELECT id, batch, winner FROM (
    SELECT id, batch, row_number() OVER alike AS place, first_value(batch) OVER alike AS winner
    FROM _export_suspects JOIN _export_recurring USING (id) LEFT JOIN _export_ties USING (id)
    WINDOW alike AS (
        PARTITION BY {scope}event_name, identity
        ORDER BY processed DESC NULLS LAST, _export_ties.place, outside, batch)
) WHERE place > 1
"""
_ROW = "event_name, event_time, distinct_id, insert_id, properties"


@dataclass(frozen=True, slots=True)
class Reach:
    """The times that a batch has events of: the span of its days, one outside them, and none at all."""

    batch: int
    inside: Span
    outside: Span | None
    timeless: bool

    def meets(self, other: "Reach") -> bool:
        """Whether an event can be in both batches, whose days are disjoint."""
        return (
            (self.timeless and other.timeless)
            or _overlap(self.outside, other.inside)
            or _overlap(self.inside, other.outside)
            or _overlap(self.outside, other.outside)
        )


def find_within(connection: duckdb.DuckDBPyConnection, table: str, batches: Sequence[int]) -> bool:
    """Whether rows inside one of *batches* lose to others there; `_export_losers` then has their `rowid` as `id`."""
    names = _names(table, batches)
    return _find_losers(connection, names, _WITHIN.format(**names), scope="batch, ")


def hide_across(
    connection: duckdb.DuckDBPyConnection, table: str, new: Iterable[int], reaches: Sequence[Reach]
) -> None:
    """Hide the losers among the *new* batches and those of *reaches* that they meet; the ledger's counts follow.

    After this the transaction must not look up rows of the table.
    """
    involved = meeting(set(new), reaches)
    if not involved:
        return
    names = _names(table, [reach.batch for reach in involved])
    days = ", ".join(
        f"({reach.batch}, TIMESTAMP '{reach.inside[0]}', TIMESTAMP '{reach.inside[1]}')" for reach in involved
    )
    strays = [reach.outside for reach in involved if reach.outside]
    times = "".join(f" OR event_time BETWEEN '{first}' AND '{last}'" for first, last in strays)
    if _find_losers(connection, names, _ACROSS.format(days=days, times=times, **names), scope=""):
        connection.execute(
            "INSERT INTO _export_duplicates SELECT batch, winner, {row} FROM _export_losers "
            "JOIN {table} AS _events ON _events.rowid = id WHERE export_batch IN ({batches})".format(
                row=_ROW, **names
            )
        )
        connection.execute(
            "DELETE FROM {table} WHERE rowid IN (SELECT id FROM _export_losers)".format(**names)
        )
        _recount(connection, "SELECT batch, count(*) AS removed FROM _export_losers GROUP BY batch")


def restore(connection: duckdb.DuckDBPyConnection, table: str, gone: Sequence[int]) -> list[int]:
    """Show the rows again that lost to the batches *gone*, and return the batches that have them back."""
    hidden = "FROM _export_duplicates WHERE lost_to IN ({batches})".format(**_names(table, gone))
    batches = connection.execute(f"SELECT DISTINCT batch {hidden}").fetchall()
    if batches:
        connection.execute(f"INSERT INTO {quoted(table)} SELECT {_ROW}, batch {hidden}")
        _recount(connection, f"SELECT batch, -count(*) AS removed {hidden} GROUP BY batch")
        connection.execute(f"DELETE {hidden}")
    return [batch for (batch,) in batches]


def meeting(new: set[int], reaches: Sequence[Reach]) -> list[Reach]:
    """Return the *new* batches and the others that may share an event with one of them, if any does."""
    mine = [reach for reach in reaches if reach.batch in new]
    pairs = ((one, other) for one in mine for other in reaches if one is not other and one.meets(other))
    return sorted(set(chain.from_iterable(pairs)), key=lambda reach: reach.batch)


def _overlap(one: Span | None, other: Span | None) -> bool:
    return one is not None and other is not None and one[0] <= other[1] and other[0] <= one[1]


def _names(table: str, batches: Iterable[int]) -> dict[str, str]:
    return {"table": quoted(table), "batches": ", ".join(map(str, batches))}


def _find_losers(
    connection: duckdb.DuckDBPyConnection, names: dict[str, str], recurring: str, *, scope: str
) -> bool:
    """Fill the temporary table `_export_losers` from the rows that *recurring* finds; whether there are any."""
    connection.execute(f"CREATE OR REPLACE TEMP TABLE _export_recurring AS {recurring}")
    connection.execute(_SUSPECTS)
    for share, shares in _shares(connection, _SIZE.format(**names)):
        connection.execute(_EXTRACT.format(share=share, shares=shares, **names))
    _undo_rewriting(connection, names)
    connection.execute(_TIES.format(scope=scope))
    for share, shares in _shares(connection, "SELECT coalesce(sum(size), 0) FROM _export_ties"):
        connection.execute(_BREAK_TIES.format(scope=scope, share=share, shares=shares, **names))
    connection.execute(_LOSERS.format(scope=scope))
    return bool(_number(connection, "SELECT count(*) FROM _export_losers"))


def _shares(connection: duckdb.DuckDBPyConnection, size: str) -> Iterator[tuple[int, int]]:
    """Return the numbers of the shares in which so many bytes of text fit into memory, one by one."""
    shares = -(-_number(connection, size) // _TEXT)
    return ((share, shares) for share in range(shares))


def _undo_rewriting(connection: duckdb.DuckDBPyConnection, names: dict[str, str]) -> None:
    """Give suspects whose identity has a value that DuckDB wrote anew the text that was sent."""
    rewritten = connection.execute(_REWRITTEN).fetchall()
    if not rewritten:
        return
    connection.execute("CREATE OR REPLACE TEMP TABLE _export_sent (id BIGINT, sent VARCHAR[])")
    for start in range(0, len(rewritten), _PAGE):
        page = connection.execute(
            "SELECT rowid, properties FROM {table} WHERE export_batch IN ({batches}) "
            "AND rowid IN (SELECT unnest(?))".format(**names),
            [[row for (row,) in rewritten[start : start + _PAGE]]],
        ).fetchall()
        connection.execute(
            "INSERT INTO _export_sent SELECT unnest(?), unnest(?)",
            [[row for row, _ in page], [_identity(row, text) for row, text in page]],
        )
    connection.execute(
        "CREATE OR REPLACE TEMP TABLE _export_suspects AS "
        "SELECT * EXCLUDE (sent) REPLACE (coalesce(sent, identity) AS identity) "
        "FROM _export_suspects LEFT JOIN _export_sent USING (id)"
    )


def _identity(row: int, properties: str) -> list[str | None]:
    try:
        return scalar_texts(properties, _IDENTITY)
    except (
        ValueError,
        RecursionError,
    ):  # what DuckDB takes for JSON, and Python does not, is nobody's duplicate
        return [f"row {row}"]


def _number(connection: duckdb.DuckDBPyConnection, query: str) -> int:
    found = connection.execute(query).fetchone()
    return int(found[0]) if found else 0


def _recount(connection: duckdb.DuckDBPyConnection, removed: str) -> None:
    """Correct the ledger by the rows *removed* of each batch."""
    connection.execute(
        'UPDATE _export_batches SET "rows" = "rows" - removed, removed_duplicates = removed_duplicates + removed '
        f"FROM ({removed}) AS counts WHERE _export_batches.batch = counts.batch"
    )
