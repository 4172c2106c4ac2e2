"""Which of several rows with one identity is shown: inside a batch, and across batches.

An identity is event name, `distinct_id`, `time` and `$insert_id`, compared as the text that was sent; a row
without an `$insert_id` is never a duplicate. The winner is the row processed last, then the one with the
greatest text, so the outcome does not depend on the order in which rows or batches came.

Inside a batch the others are deleted. Across batches, whose days are disjoint, a row can only recur where its
time lies outside the days asked for. There the loser moves to `_export_duplicates`, since it must be shown
again once the batch that it lost to is replaced by one without it: the table shows what its batches delivered,
whatever happened before.

Probes look at keys only; payload is read of the few rows whose keys recur. Everything runs inside the caller's
transaction.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import chain

import duckdb

from mixpanel_export._database import quoted
from mixpanel_export._lines import scalar_texts

Span = tuple[datetime, datetime]
"""Naive UTC, both inclusive."""

_IDENTITY = ("time", "distinct_id", "$insert_id")
_PAGE = 10_000  # rows that Python looks at in one go

_WITHIN = """
WITH keys AS (
    SELECT rowid AS id, export_batch, hash(event_name, event_time, distinct_id, insert_id) AS key
    FROM {table} WHERE export_batch IN ({batches}) AND insert_id <> ''
), twice AS (
    SELECT export_batch, key FROM keys GROUP BY ALL HAVING count(*) > 1
)
SELECT id, false AS outside FROM keys SEMI JOIN twice USING (export_batch, key)
"""
# Only rows at a time that some batch has outside its days can recur.
_ACROSS = """
WITH days(batch, first, last) AS (VALUES {days}), keys AS (
    SELECT rowid AS id, batch, hash(event_name, event_time, distinct_id, insert_id) AS key,
           event_time IS NULL OR event_time NOT BETWEEN first AND last AS outside
    FROM {table} JOIN days ON export_batch = batch
    WHERE export_batch IN ({batches}) AND insert_id <> '' AND (event_time IS NULL{times})
), twice AS (
    SELECT key FROM keys SEMI JOIN (SELECT key FROM keys WHERE outside) AS strays USING (key)
    GROUP BY key HAVING count(DISTINCT batch) > 1
)
SELECT id, outside FROM keys SEMI JOIN twice USING (key)
"""
# What DuckDB extracts of a number with a fraction went through a double, so it is not the text that was sent.
_SUSPECTS = """
CREATE OR REPLACE TEMP TABLE suspects AS
SELECT id, outside, export_batch AS batch, event_name, properties,
       json_extract_string(properties, ['$.time', '$.distinct_id', '$."$insert_id"']) AS identity,
       'DOUBLE' IN json_type(properties, ['$.time', '$.distinct_id', '$."$insert_id"']) AS rounded
FROM ({recurring}) AS recurring JOIN {table} AS events ON events.rowid = id
WHERE export_batch IN ({batches})
"""
_LOSERS = """
CREATE OR REPLACE TEMP TABLE losers AS
SELECT id, batch, winner
FROM (
    SELECT id, batch, row_number() OVER alike AS place, first_value(batch) OVER alike AS winner
    FROM (SELECT *, TRY_CAST(json_extract_string(properties, '$.mp_processing_time_ms') AS DOUBLE) AS processed FROM suspects)
    WINDOW alike AS (
        PARTITION BY {scope}event_name, identity ORDER BY processed DESC NULLS LAST, properties DESC, outside, batch)
)
WHERE place > 1
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


def delete_within(connection: duckdb.DuckDBPyConnection, table: str, batches: Sequence[int]) -> None:
    """Leave only the winners inside each of *batches*."""
    names = _names(table, batches)
    if _find_losers(connection, names, _WITHIN.format(**names), scope="batch, "):
        connection.execute("DELETE FROM {table} WHERE rowid IN (SELECT id FROM losers)".format(**names))


def hide_across(
    connection: duckdb.DuckDBPyConnection, table: str, new: Iterable[int], reaches: Sequence[Reach]
) -> None:
    """Hide the losers among the *new* batches and those of *reaches* that they meet; the ledger's counts follow."""
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
            "INSERT INTO _export_duplicates SELECT batch, winner, {row} FROM losers JOIN {table} AS events "
            "ON events.rowid = id WHERE export_batch IN ({batches})".format(row=_ROW, **names)
        )
        connection.execute("DELETE FROM {table} WHERE rowid IN (SELECT id FROM losers)".format(**names))
        _recount(connection, "SELECT batch, count(*) AS removed FROM losers GROUP BY batch")


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
    """Fill the temporary table `losers` from the rows that *recurring* suspects; whether there are any."""
    connection.execute(_SUSPECTS.format(recurring=recurring, **names))
    _unround(connection)
    connection.execute(_LOSERS.format(scope=scope))
    found = connection.execute("SELECT count(*) FROM losers").fetchone()
    return bool(found and found[0])


def _unround(connection: duckdb.DuckDBPyConnection) -> None:
    """Give suspects whose identity has a number that DuckDB wrote anew the text that was sent."""
    page = f"SELECT id, properties FROM suspects WHERE rounded LIMIT {_PAGE}"
    while rounded := connection.execute(page).fetchall():
        connection.execute(
            "UPDATE suspects SET identity = sent, rounded = false "
            "FROM (SELECT unnest(?) AS sent_id, unnest(?) AS sent) WHERE id = sent_id",
            [[row for row, _ in rounded], [scalar_texts(text, _IDENTITY) for _, text in rounded]],
        )


def _recount(connection: duckdb.DuckDBPyConnection, removed: str) -> None:
    """Correct the ledger by the rows *removed* of each batch."""
    connection.execute(
        'UPDATE _export_batches SET "rows" = "rows" - removed, removed_duplicates = removed_duplicates + removed '
        f"FROM ({removed}) AS counts WHERE _export_batches.batch = counts.batch"
    )
