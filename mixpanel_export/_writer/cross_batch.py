"""Resolves duplicates across batches: the table keeps one row per event, and `_export_duplicates` keeps the others.

Duplicates within a chunk are removed before it is inserted, and batches that can share an event have disjoint days. So
an event can be in two batches only if it is a stray in one of them. A *stray* is a row whose time is missing or lies
outside its batch's days. `_export_strays` has the time and `insert_id` of every stray, whether its row is visible or
hidden. This small table determines the other batches that may share events with a new batch, and the times of these
events.

A duplicate is moved rather than deleted, because it becomes visible again if its winner's batch is replaced. So the
table's contents do not depend on the order in which batches arrive.

SQL compares only keys, and each query reads fewer rows than the one before. Python then compares the few remaining rows,
including their `properties`. Everything runs inside the caller's transaction.
"""

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice

from mixpanel_export._database.connection import Connection, first_moment, last_moment, quoted
from mixpanel_export._database.schema import EVENT_COLUMNS
from mixpanel_export._writer.winners import MEMBERS, ROW_OVERHEAD, Candidate, duplicates

PAGE_SIZE = 8 << 20
"""The number of bytes of rows that are compared at a time."""

_FETCH_ROWS = 1000  # rows that Python exchanges with DuckDB at a time
_COLUMNS = ", ".join(EVENT_COLUMNS)

# Names in these queries begin with an underscore, because the name of an events table cannot begin with one. DuckDB reads
# times much faster than strings, so each query reads the `insert_id` of as few rows as possible.

_RECORD = """
INSERT INTO _export_strays SELECT {batch}, event_time, insert_id FROM {rows} WHERE rowid IN (
    SELECT _rows.rowid FROM {rows} AS _rows JOIN _export_batches ON _rows.{batch} = _export_batches.batch
    WHERE _rows.{batch} IN ({batches}) AND (event_time IS NULL OR event_time NOT BETWEEN {first} AND {last})
)
"""
_UNRECORDED = """
SELECT batch FROM _export_batches
WHERE table_name = ? AND deduped AND outside_rows + timeless_rows > 0 AND batch NOT IN (SELECT batch FROM _export_strays)
"""
_EXTENTS = """
CREATE OR REPLACE TEMP TABLE _export_extents AS SELECT batch, {first} AS first, {last} AS last FROM _export_batches
WHERE table_name = ? AND project = ? AND status <> 'failed' AND deduped
"""
_TIMES = """
CREATE OR REPLACE TEMP TABLE _export_times AS
SELECT event_time FROM _export_strays WHERE batch IN ({new})
UNION SELECT event_time FROM _export_strays SEMI JOIN _export_extents USING (batch) WHERE {new_days}
"""
_BATCHES = """
SELECT batch FROM _export_extents SEMI JOIN (
    SELECT batch FROM _export_strays WHERE batch IN ({new})
    UNION SELECT batch FROM _export_strays WHERE {new_days}
    UNION SELECT batch FROM _export_extents
        JOIN (SELECT DISTINCT event_time::DATE AS day FROM _export_times) ON day BETWEEN first::DATE AND last::DATE
    UNION SELECT batch FROM (FROM _export_strays WHERE batch NOT IN ({new})) AS _others
        SEMI JOIN (FROM _export_strays WHERE batch IN ({new}) AND insert_id <> '') AS _own
        ON _others.event_time IS NOT DISTINCT FROM _own.event_time AND _others.insert_id = _own.insert_id
) USING (batch)
"""
_CANDIDATES = """
CREATE OR REPLACE TEMP TABLE _export_candidates AS
WITH _timed AS MATERIALIZED (
    SELECT rowid AS id, export_batch AS batch, event_time FROM {table} AS _events
    SEMI JOIN _export_times ON _events.event_time IS NOT DISTINCT FROM _export_times.event_time
    WHERE export_batch IN ({batches})
), _shared_times AS (
    SELECT event_time FROM _timed GROUP BY event_time HAVING {shared}
), _keyed AS MATERIALIZED (
    SELECT id, batch, _timed.event_time, hash(_timed.event_time, insert_id) AS key
    FROM _timed SEMI JOIN _shared_times ON _timed.event_time IS NOT DISTINCT FROM _shared_times.event_time
    JOIN {table} AS _events ON _events.rowid = id WHERE export_batch IN ({batches}) AND insert_id <> ''
), _shared_keys AS (
    SELECT key FROM _keyed GROUP BY key HAVING {shared}
)
SELECT id, key, coalesce(_keyed.event_time BETWEEN first AND last, false) AS inside,
    sum(strlen(properties) + {overhead}) OVER (ORDER BY key, id ROWS UNBOUNDED PRECEDING) // {page_size} AS page
FROM _keyed SEMI JOIN _shared_keys USING (key) JOIN _export_extents USING (batch)
JOIN {table} AS _events ON _events.rowid = id WHERE export_batch IN ({batches})
"""
_PAGE = """
SELECT key, event_name, ids[1], ids[2], ids[3], TRY_CAST(ids[4] AS DOUBLE), properties, inside, export_batch, id FROM (
    SELECT id, key, inside, export_batch, event_name, properties, json_extract_string(properties, {members}) AS ids
    FROM {table} AS _events JOIN _export_candidates ON _events.rowid = id WHERE page = {page} AND export_batch IN ({batches})
)
"""
_MOVE = """
INSERT INTO _export_duplicates SELECT batch, winner, {columns} FROM _export_losers
JOIN {table} AS _events ON _events.rowid = id WHERE export_batch IN ({batches})
"""


def record_strays(connection: Connection, table: str, zone: str, batches: Iterable[int]) -> None:
    """Record the strays of *batches*, which must be in the ledger. *zone* is the zone of their days."""
    _record(connection, quoted(table), "export_batch", zone, batches)


def record_missing_strays(connection: Connection, table: str, zone: str) -> None:
    """Record the strays, including hidden rows, of batches that an older release wrote."""
    batches = _numbers(connection, _UNRECORDED, [table])
    record_strays(connection, table, zone, batches)
    _record(connection, "_export_duplicates", "batch", zone, batches)


def move_duplicates(
    connection: Connection,
    table: str,
    project: str,
    zone: str,
    new: Sequence[int],
    *,
    page_size: int = PAGE_SIZE,
) -> None:
    """Move the duplicates between two *new* batches, or between a new and an older batch of the project.

    The counts in the ledger are updated. The strays of all batches must be recorded. *page_size* limits how many bytes
    of rows are in memory at a time.
    """
    batches = batches_to_compare(connection, table, project, zone, new)
    if len(batches) < 2:
        return
    terms = {"table": quoted(table), "batches": _sql_list(batches)}
    shared = f"min(batch) <> max(batch) AND bool_or(batch IN ({_sql_list(new)}))"
    connection.execute(_CANDIDATES.format(shared=shared, overhead=ROW_OVERHEAD, page_size=page_size, **terms))
    pages = _numbers(connection, "SELECT DISTINCT page FROM _export_candidates ORDER BY page")
    losers = duplicates(
        _candidates(connection, _PAGE.format(members=MEMBERS, page=page, **terms)) for page in pages
    )
    if _store_losers(connection, losers):
        connection.execute(_MOVE.format(columns=_COLUMNS, **terms))
        connection.execute(
            "DELETE FROM {table} WHERE rowid IN (SELECT id FROM _export_losers)".format(**terms)
        )
        _recount(connection, "SELECT batch, count(*) AS removed FROM _export_losers GROUP BY batch")


def restore(connection: Connection, table: str, replaced: Sequence[int]) -> list[int]:
    """Make the duplicates of rows in the *replaced* batches visible again. Return the batches of these duplicates."""
    hidden = f"FROM _export_duplicates WHERE lost_to IN ({_sql_list(replaced)})"
    batches = _numbers(connection, f"SELECT DISTINCT batch {hidden}")
    if batches:
        connection.execute(f"INSERT INTO {quoted(table)} SELECT {_COLUMNS}, batch {hidden}")
        _recount(connection, f"SELECT batch, -count(*) AS removed {hidden} GROUP BY batch")
        connection.execute(f"DELETE {hidden}")
    return batches


def batches_to_compare(
    connection: Connection, table: str, project: str, zone: str, new: Sequence[int]
) -> list[int]:
    """Return the batches that may share events with *new* batches. Store the times of these events in `_export_times`."""
    if not _numbers(connection, "SELECT batch FROM _export_strays LIMIT 1"):
        return []  # without strays, no event can be in two batches
    connection.execute(_EXTENTS.format(**_days(zone)), [table, project])
    batch_list = _sql_list(new)
    spans = (
        connection.execute(f"FROM _export_extents WHERE batch IN ({batch_list})").fetchall() if new else []
    )
    days = [f"event_time BETWEEN TIMESTAMP '{first}' AND TIMESTAMP '{last}'" for _, first, last in spans]
    terms = {"new": batch_list, "new_days": " OR ".join(days)}
    if days and any(_numbers(connection, _TIMES.format(**terms))):
        return _numbers(connection, _BATCHES.format(**terms))
    return []


def _record(connection: Connection, rows: str, batch: str, zone: str, batches: Iterable[int]) -> None:
    if batch_list := _sql_list(batches):
        connection.execute(_RECORD.format(rows=rows, batch=batch, batches=batch_list, **_days(zone)))


def _store_losers(connection: Connection, losers: Iterator[tuple[int, int, int]]) -> bool:
    """Write the *losers* into `_export_losers`, some at a time. Return whether there are any."""
    connection.execute(
        "CREATE OR REPLACE TEMP TABLE _export_losers (id BIGINT, batch INTEGER, winner INTEGER)"
    )
    stored = False
    while some := list(islice(losers, _FETCH_ROWS)):
        columns = list(map(list, zip(*some, strict=True)))
        connection.execute("INSERT INTO _export_losers SELECT unnest(?), unnest(?), unnest(?)", columns)
        stored = True
    return stored


def _candidates(connection: Connection, query: str) -> Iterator[Candidate]:
    connection.execute(query)
    while rows := connection.fetchmany(_FETCH_ROWS):
        yield from rows


def _recount(connection: Connection, removed: str) -> None:
    """Update the counts in the ledger. The query *removed* returns the number of rows removed from each batch."""
    connection.execute(
        'UPDATE _export_batches SET "rows" = "rows" - removed, removed_duplicates = removed_duplicates + removed, '
        f"revision = coalesce(revision, 0) + 1 FROM ({removed}) AS counts WHERE _export_batches.batch = counts.batch"
    )


def _days(zone: str) -> dict[str, str]:
    """Return the SQL for the first and the last moment of a batch's days."""
    return {"first": first_moment("from_date", zone), "last": last_moment("to_date", zone)}


def _sql_list(batches: Iterable[int]) -> str:
    return ", ".join(map(str, batches))


def _numbers(connection: Connection, query: str, parameters: Sequence[object] = ()) -> list[int]:
    return [number for (number,) in connection.execute(query, parameters).fetchall()]
