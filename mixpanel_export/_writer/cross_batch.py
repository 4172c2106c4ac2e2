"""Moves duplicates across batches to `_export_duplicates`.

Inside a batch an event is inserted once. The days of batches are disjoint, so an event can be in two batches only if its
time lies outside the days of one of them. The row that loses moves to `_export_duplicates`, because it must be shown again
when the batch of the winner is replaced by one without it: the table shows what its batches delivered, in whatever
order they came.

The queries compare keys only, each on fewer rows than the one before. Python compares the few rows that remain, with
their `properties`. Everything runs inside the caller's transaction.
"""

from collections.abc import Iterable, Iterator, Sequence
from datetime import timedelta
from itertools import chain, islice

from mixpanel_export._database.connection import Connection, quoted
from mixpanel_export._database.ledger import Extent, Span, overlap
from mixpanel_export._database.schema import EVENT_COLUMNS
from mixpanel_export._writer.winners import MEMBERS, ROW_OVERHEAD, Candidate, duplicates

_TEXT = 8 << 20  # bytes of rows that are compared at once
_FEW = 100  # times that DuckDB compares with those of all rows
_PAGE = 1000  # rows that Python takes from DuckDB in one go

# Names begin with an underscore where they stand beside a table's, which cannot.

_STRAYS = """
SELECT rowid AS id, export_batch AS batch, event_time FROM {table} JOIN _days ON export_batch = batch
WHERE export_batch IN ({batches}) AND ({times}) AND event_time NOT BETWEEN first AND last
"""
_TIMELESS = """
SELECT rowid AS id, export_batch AS batch, event_time FROM {table}
WHERE export_batch IN ({batches}) AND event_time IS NULL
"""
# No time leads to such rows of a large table, so their ids are kept beside it, whether they are shown or hidden.
_NOTE = "INSERT INTO _export_timeless SELECT {batch}, insert_id FROM {table} WHERE {batch} IN ({batches}) AND event_time IS NULL"
_NOT_NOTED = """
SELECT batch FROM _export_batches
WHERE table_name = ? AND timeless_rows > 0 AND batch NOT IN (SELECT batch FROM _export_timeless)
"""
_SHARING = """
WITH _shared AS MATERIALIZED (
    FROM _export_timeless WHERE batch IN (SELECT unnest(?))
        AND insert_id IN (SELECT insert_id FROM _export_timeless WHERE batch IN (SELECT unnest(?)) AND insert_id <> '')
)
SELECT DISTINCT batch FROM _shared
SEMI JOIN (SELECT insert_id FROM _shared GROUP BY insert_id HAVING min(batch) <> max(batch)) USING (insert_id)
"""
# Times first, as they are read several times as fast as ids.
_MET = """
CREATE OR REPLACE TEMP TABLE _export_met AS
WITH _days AS (
    SELECT unnest($batches) AS batch, unnest($firsts) AS first, unnest($lasts) AS last
), _strays AS MATERIALIZED ({strays}), _rows AS MATERIALIZED (
    FROM _strays UNION
    SELECT rowid AS id, export_batch AS batch, event_time FROM {table} SEMI JOIN _strays USING (event_time)
    WHERE export_batch IN ({near})
), _twice AS (
    SELECT event_time FROM _rows GROUP BY event_time HAVING min(batch) <> max(batch)
)
SELECT id, batch, event_time, coalesce(event_time NOT BETWEEN first AND last, true) AS outside
FROM _rows JOIN _days USING (batch)
SEMI JOIN _twice ON _rows.event_time IS NOT DISTINCT FROM _twice.event_time
"""
_ACROSS = """
CREATE OR REPLACE TEMP TABLE _export_suspects AS
WITH _keys AS MATERIALIZED (
    SELECT id, batch, outside, hash(_events.event_time, insert_id) AS key
    FROM {table} AS _events JOIN _export_met ON _events.rowid = id
    WHERE export_batch IN ({batches}) AND ({times}) AND insert_id <> ''
), _twice AS (
    SELECT key FROM _keys GROUP BY key HAVING min(batch) <> max(batch) AND bool_or(outside)
)
SELECT id, key, outside, 0 AS page FROM _keys SEMI JOIN _twice USING (key)
"""
_PAGES = """
CREATE OR REPLACE TEMP TABLE _export_suspects AS
SELECT id, key, outside, sum(size) OVER (ORDER BY key, id ROWS UNBOUNDED PRECEDING) // {most} AS page FROM (
    SELECT id, key, outside, strlen(properties) + {beside} AS size
    FROM {table} AS _events JOIN _export_suspects ON _events.rowid = id WHERE export_batch IN ({batches})
)
"""
_SUSPECTS = """
SELECT key, event_name, found[1], found[2], found[3], TRY_CAST(found[4] AS DOUBLE), properties, NOT outside, export_batch, id
FROM (
    SELECT id, key, outside, export_batch, event_name, properties, json_extract_string(properties, {members}) AS found
    FROM {table} AS _events JOIN _export_suspects ON _events.rowid = id
    WHERE page = {page} AND export_batch IN ({batches})
)
"""
_ROW = ", ".join(EVENT_COLUMNS)


def record_untimed_ids(connection: Connection, table: str, new: Iterable[int]) -> None:
    """Keep the ids of the events without a time that *new* batches have brought into the table."""
    batches = _listed(new)
    if batches:
        connection.execute(_NOTE.format(table=quoted(table), batch="export_batch", batches=batches))


def record_missing_untimed_ids(connection: Connection, table: str) -> None:
    """Do as `record_untimed_ids` for the batches of the table of which nothing is noted, as an older release has brought them."""
    batches = [batch for (batch,) in connection.execute(_NOT_NOTED, [table]).fetchall()]
    if batches:
        record_untimed_ids(connection, table, batches)
        hidden = _NOTE.format(table="_export_duplicates", batch="batch", batches=_listed(batches))
        connection.execute(hidden)


def move_duplicates(
    connection: Connection, table: str, new: Iterable[int], extents: Sequence[Extent]
) -> None:
    """Hide the duplicates among the *new* batches and those of *extents* that they meet; the ledger's counts follow."""
    changed = set(new)
    sharing = _sharing_timeless(connection, changed, extents)
    involved = meeting(changed, extents, sharing)
    batches = _find_met(connection, quoted(table), changed, involved, sharing) if involved else []
    names = {"table": quoted(table), "batches": _listed(batches)}
    if not batches or not _number(connection, _ACROSS.format(times=_met_at(connection), **names)):
        return
    if _find_duplicates(connection, names, _pages(connection, names)):
        connection.execute(
            "INSERT INTO _export_duplicates SELECT batch, winner, {row} FROM _export_lost "
            "JOIN {table} AS _events ON _events.rowid = id WHERE export_batch IN ({batches})".format(
                row=_ROW, **names
            )
        )
        connection.execute("DELETE FROM {table} WHERE rowid IN (SELECT id FROM _export_lost)".format(**names))
        _recount(connection, "SELECT batch, count(*) AS removed FROM _export_lost GROUP BY batch")


def restore(connection: Connection, table: str, gone: Sequence[int]) -> list[int]:
    """Show the rows again that lost to the batches *gone*, and return the batches that have them back."""
    hidden = f"FROM _export_duplicates WHERE lost_to IN ({_listed(gone)})"
    batches = connection.execute(f"SELECT DISTINCT batch {hidden}").fetchall()
    if batches:
        connection.execute(f"INSERT INTO {quoted(table)} SELECT {_ROW}, batch {hidden}")
        _recount(connection, f"SELECT batch, -count(*) AS removed {hidden} GROUP BY batch")
        connection.execute(f"DELETE {hidden}")
    return [batch for (batch,) in batches]


def meeting(new: set[int], extents: Sequence[Extent], sharing: set[int]) -> list[Extent]:
    """Return the *new* batches and others that may share an event with one of them: by their times, or as they are *sharing* it."""
    mine = [extent for extent in extents if extent.batch in new]
    pairs = ((one, other) for one in mine for other in extents if one is not other and one.meets(other))
    met = set(chain.from_iterable(pairs))
    return [extent for extent in extents if extent in met or extent.batch in sharing]


def _listed(batches: Iterable[int]) -> str:
    return ", ".join(map(str, batches))


def _sharing_timeless(connection: Connection, new: set[int], extents: Sequence[Extent]) -> set[int]:
    """Return the batches that have the id of an event without a time which a *new* one has, and another too."""
    batches = [[extent.batch for extent in extents], list(new)]
    return {batch for (batch,) in connection.execute(_SHARING, batches).fetchall()}


def _find_met(
    connection: Connection,
    table: str,
    new: set[int],
    involved: Sequence[Extent],
    sharing: set[int],
) -> list[int]:
    """Fill `_export_met` with the rows that recur across batches, as far as times can tell, and return their batches.

    What two old batches share was settled when the younger of them came. So the strays of new batches are looked
    for everywhere, and those of old ones only among the new.
    """
    mine = [extent for extent in involved if extent.batch in new]
    old = [extent for extent in involved if extent.batch not in new]
    days = [extent.days for extent in mine]
    abroad = [extent.strays for extent in mine if extent.strays]
    strays = [
        _rows(_STRAYS, table, [extent for extent in mine if extent.strays], "true"),
        _rows(_STRAYS, table, [extent for extent in old if _meets(extent.strays, days)], _within(days)),
        _rows(_TIMELESS, table, [extent for extent in involved if extent.batch in sharing]),
    ]
    near = [extent for extent in old if _meets(extent.days, abroad) or _meets(extent.strays, abroad)]
    query = _MET.format(
        table=table,
        strays=" UNION ALL ".join(filter(None, strays)),
        near=_listed(extent.batch for extent in chain(mine, near)),
    )
    batches, firsts, lasts = zip(*((extent.batch, *extent.days) for extent in involved), strict=True)
    connection.execute(query, {"batches": list(batches), "firsts": list(firsts), "lasts": list(lasts)})
    found = connection.execute("SELECT DISTINCT batch FROM _export_met").fetchall()
    return [batch for (batch,) in found]


def _met_at(connection: Connection) -> str:
    """Return SQL for whether `_events` is at a time of `_export_met`, if these are few: most rows are passed over then."""
    found = connection.execute(f"SELECT DISTINCT event_time FROM _export_met LIMIT {_FEW + 1}").fetchall()
    times = [f"TIMESTAMP '{time}'" for (time,) in found if time is not None]
    if len(found) > _FEW:
        return "true"
    listed = f"_events.event_time IN ({', '.join(times)})" if times else "false"
    return listed if len(times) == len(found) else f"_events.event_time IS NULL OR {listed}"


def _rows(query: str, table: str, extents: Sequence[Extent], times: str = "") -> str:
    """Return the *query* for the batches of *extents*, nothing if there are none."""
    batches = _listed(extent.batch for extent in extents)
    return query.format(table=table, batches=batches, times=times) if batches else ""


def _meets(span: Span | None, others: Iterable[Span]) -> bool:
    return any(overlap(span, other) for other in others)


def _pages(connection: Connection, names: dict[str, str]) -> list[int]:
    """Divide the suspects into pages that fit into memory, in the order of keys, and return the numbers of these."""
    connection.execute(_PAGES.format(most=_TEXT, beside=ROW_OVERHEAD, **names))
    found = connection.execute("SELECT DISTINCT page FROM _export_suspects ORDER BY page").fetchall()
    return [page for (page,) in found]


def _find_duplicates(connection: Connection, names: dict[str, str], pages: Iterable[int]) -> bool:
    """Fill the temporary table `_export_lost` from the suspects, page by page; whether there are any."""
    pages_of_candidates = (
        _candidates(connection, _SUSPECTS.format(page=page, members=MEMBERS, **names)) for page in pages
    )
    lost = duplicates(pages_of_candidates)
    found = False
    while some := list(islice(lost, _PAGE)):
        into = "INSERT INTO _export_lost" if found else "CREATE OR REPLACE TEMP TABLE _export_lost AS"
        connection.execute(
            f"{into} SELECT unnest(?::BIGINT[]) AS id, unnest(?::INTEGER[]) AS batch, unnest(?::INTEGER[]) AS winner",
            list(map(list, zip(*some, strict=True))),
        )
        found = True
    return found


def _candidates(connection: Connection, query: str) -> Iterator[Candidate]:
    connection.execute(query)
    while rows := connection.fetchmany(_PAGE):
        yield from rows


def _within(spans: Iterable[Span]) -> str:
    """Return SQL for whether a time is in one of *spans*."""
    joined: list[Span] = []
    for first, last in sorted(spans):
        if joined and first - joined[-1][1] <= timedelta(microseconds=1):
            joined[-1] = joined[-1][0], max(joined[-1][1], last)
        else:
            joined.append((first, last))
    return " OR ".join(
        f"event_time BETWEEN TIMESTAMP '{first}' AND TIMESTAMP '{last}'" for first, last in joined
    )


def _number(connection: Connection, query: str) -> int:
    found = connection.execute(query).fetchone()
    return int(found[0]) if found else 0


def _recount(connection: Connection, removed: str) -> None:
    """Correct the ledger by the rows *removed* of each batch."""
    connection.execute(
        'UPDATE _export_batches SET "rows" = "rows" - removed, removed_duplicates = removed_duplicates + removed '
        f"FROM ({removed}) AS counts WHERE _export_batches.batch = counts.batch"
    )
