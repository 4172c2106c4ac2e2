"""Which of several rows with one identity is shown, where several batches have them.

Inside a batch only one was inserted. Across batches, whose days are disjoint, a row can only recur where its time
lies outside the days asked for. There the loser moves to `_export_duplicates`, since it must be shown again once the
batch that it lost to is replaced by one without it: the table shows what its batches delivered, whatever happened before.

Probes look at keys only, each at fewer rows than the one before; payload is read of the few rows that are left, and
Python compares these. Everything runs inside the caller's transaction.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import chain, islice

import duckdb

from mixpanel_export._database.connection import quoted
from mixpanel_export._writer.winners import BESIDE, MEMBERS, Rival, losers

Span = tuple[datetime, datetime]
"""Naive UTC, both inclusive."""

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
_ROW = "event_name, event_time, distinct_id, insert_id, properties"


@dataclass(frozen=True, slots=True)
class Reach:
    """The times that a batch has events of: the span of its days, and one outside them."""

    batch: int
    inside: Span
    outside: Span | None

    def meets(self, other: "Reach") -> bool:
        """Whether an event that has a time can be in both batches, whose days are disjoint."""
        return (
            _overlap(self.outside, other.inside)
            or _overlap(self.inside, other.outside)
            or _overlap(self.outside, other.outside)
        )


def note_timeless(connection: duckdb.DuckDBPyConnection, table: str, new: Iterable[int]) -> None:
    """Keep the ids of the events without a time that *new* batches have brought into the table."""
    batches = _listed(new)
    if batches:
        connection.execute(_NOTE.format(table=quoted(table), batch="export_batch", batches=batches))


def make_up_for_timeless(connection: duckdb.DuckDBPyConnection, table: str) -> None:
    """Do as `note_timeless` for the batches of the table of which nothing is noted, as an older release has brought them."""
    batches = [batch for (batch,) in connection.execute(_NOT_NOTED, [table]).fetchall()]
    if batches:
        note_timeless(connection, table, batches)
        hidden = _NOTE.format(table="_export_duplicates", batch="batch", batches=_listed(batches))
        connection.execute(hidden)


def hide_across(
    connection: duckdb.DuckDBPyConnection, table: str, new: Iterable[int], reaches: Sequence[Reach]
) -> None:
    """Hide the losers among the *new* batches and those of *reaches* that they meet; the ledger's counts follow."""
    changed = set(new)
    sharing = _sharing_timeless(connection, changed, reaches)
    involved = meeting(changed, reaches, sharing)
    batches = _find_met(connection, quoted(table), changed, involved, sharing) if involved else []
    names = {"table": quoted(table), "batches": _listed(batches)}
    if not batches or not _number(connection, _ACROSS.format(times=_met_at(connection), **names)):
        return
    if _find_losers(connection, names, _pages(connection, names)):
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
    hidden = f"FROM _export_duplicates WHERE lost_to IN ({_listed(gone)})"
    batches = connection.execute(f"SELECT DISTINCT batch {hidden}").fetchall()
    if batches:
        connection.execute(f"INSERT INTO {quoted(table)} SELECT {_ROW}, batch {hidden}")
        _recount(connection, f"SELECT batch, -count(*) AS removed {hidden} GROUP BY batch")
        connection.execute(f"DELETE {hidden}")
    return [batch for (batch,) in batches]


def meeting(new: set[int], reaches: Sequence[Reach], sharing: set[int]) -> list[Reach]:
    """Return the *new* batches and others that may share an event with one of them: by their times, or as they are *sharing* it."""
    mine = [reach for reach in reaches if reach.batch in new]
    pairs = ((one, other) for one in mine for other in reaches if one is not other and one.meets(other))
    met = set(chain.from_iterable(pairs))
    return [reach for reach in reaches if reach in met or reach.batch in sharing]


def _overlap(one: Span | None, other: Span | None) -> bool:
    return one is not None and other is not None and one[0] <= other[1] and other[0] <= one[1]


def _listed(batches: Iterable[int]) -> str:
    return ", ".join(map(str, batches))


def _sharing_timeless(
    connection: duckdb.DuckDBPyConnection, new: set[int], reaches: Sequence[Reach]
) -> set[int]:
    """Return the batches that have the id of an event without a time which a *new* one has, and another too."""
    batches = [[reach.batch for reach in reaches], list(new)]
    return {batch for (batch,) in connection.execute(_SHARING, batches).fetchall()}


def _find_met(
    connection: duckdb.DuckDBPyConnection,
    table: str,
    new: set[int],
    involved: Sequence[Reach],
    sharing: set[int],
) -> list[int]:
    """Fill `_export_met` with the rows that recur across batches, as far as times can tell, and return their batches.

    What two old batches share was settled when the younger of them came. So the strays of new batches are looked
    for everywhere, and those of old ones only among the new.
    """
    mine = [reach for reach in involved if reach.batch in new]
    old = [reach for reach in involved if reach.batch not in new]
    days = [reach.inside for reach in mine]
    abroad = [reach.outside for reach in mine if reach.outside]
    strays = [
        _rows(_STRAYS, table, [reach for reach in mine if reach.outside], "true"),
        _rows(_STRAYS, table, [reach for reach in old if _meets(reach.outside, days)], _within(days)),
        _rows(_TIMELESS, table, [reach for reach in involved if reach.batch in sharing]),
    ]
    near = [reach for reach in old if _meets(reach.inside, abroad) or _meets(reach.outside, abroad)]
    query = _MET.format(
        table=table,
        strays=" UNION ALL ".join(filter(None, strays)),
        near=_listed(reach.batch for reach in chain(mine, near)),
    )
    batches, firsts, lasts = zip(*((reach.batch, *reach.inside) for reach in involved), strict=True)
    connection.execute(query, {"batches": list(batches), "firsts": list(firsts), "lasts": list(lasts)})
    found = connection.execute("SELECT DISTINCT batch FROM _export_met").fetchall()
    return [batch for (batch,) in found]


def _met_at(connection: duckdb.DuckDBPyConnection) -> str:
    """Return SQL for whether `_events` is at a time of `_export_met`, if these are few: most rows are passed over then."""
    found = connection.execute(f"SELECT DISTINCT event_time FROM _export_met LIMIT {_FEW + 1}").fetchall()
    times = [f"TIMESTAMP '{time}'" for (time,) in found if time is not None]
    if len(found) > _FEW:
        return "true"
    listed = f"_events.event_time IN ({', '.join(times)})" if times else "false"
    return listed if len(times) == len(found) else f"_events.event_time IS NULL OR {listed}"


def _rows(query: str, table: str, reaches: Sequence[Reach], times: str = "") -> str:
    """Return the *query* for the batches of *reaches*, nothing if there are none."""
    batches = _listed(reach.batch for reach in reaches)
    return query.format(table=table, batches=batches, times=times) if batches else ""


def _meets(span: Span | None, others: Iterable[Span]) -> bool:
    return any(_overlap(span, other) for other in others)


def _pages(connection: duckdb.DuckDBPyConnection, names: dict[str, str]) -> list[int]:
    """Divide the suspects into pages that fit into memory, in the order of keys, and return the numbers of these."""
    connection.execute(_PAGES.format(most=_TEXT, beside=BESIDE, **names))
    found = connection.execute("SELECT DISTINCT page FROM _export_suspects ORDER BY page").fetchall()
    return [page for (page,) in found]


def _find_losers(connection: duckdb.DuckDBPyConnection, names: dict[str, str], pages: Iterable[int]) -> bool:
    """Fill the temporary table `_export_losers` from the suspects, page by page; whether there are any."""
    rivals = (_rivals(connection, _SUSPECTS.format(page=page, members=MEMBERS, **names)) for page in pages)
    lost = losers(rivals)
    found = False
    while some := list(islice(lost, _PAGE)):
        into = "INSERT INTO _export_losers" if found else "CREATE OR REPLACE TEMP TABLE _export_losers AS"
        connection.execute(
            f"{into} SELECT unnest(?::BIGINT[]) AS id, unnest(?::INTEGER[]) AS batch, unnest(?::INTEGER[]) AS winner",
            list(map(list, zip(*some, strict=True))),
        )
        found = True
    return found


def _rivals(connection: duckdb.DuckDBPyConnection, query: str) -> Iterator[Rival]:
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


def _number(connection: duckdb.DuckDBPyConnection, query: str) -> int:
    found = connection.execute(query).fetchone()
    return int(found[0]) if found else 0


def _recount(connection: duckdb.DuckDBPyConnection, removed: str) -> None:
    """Correct the ledger by the rows *removed* of each batch."""
    connection.execute(
        'UPDATE _export_batches SET "rows" = "rows" - removed, removed_duplicates = removed_duplicates + removed '
        f"FROM ({removed}) AS counts WHERE _export_batches.batch = counts.batch"
    )
