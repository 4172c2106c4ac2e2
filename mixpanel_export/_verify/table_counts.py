"""Reads a table: its coverage, and its rows by event name and day."""

from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import TypeVar

import duckdb

from mixpanel_export._concurrency import InterruptedCall
from mixpanel_export._database.connection import Connection, check_zone, connect, quoted
from mixpanel_export._database.coverage import Coverage, coverages
from mixpanel_export._database.ledger import UNKNOWN_PROJECT, read_batches
from mixpanel_export._database.path import check_not_empty
from mixpanel_export._database.schema import (
    check_ledger,
    has_export_columns,
    name_in_database,
    table_exists,
)
from mixpanel_export._database.target_days import read_targets
from mixpanel_export._model import Chunk
from mixpanel_export._timezones import naive_utc, to_utc
from mixpanel_export.errors import (
    DatabaseError,
    DatabaseLockedError,
    SelectionError,
    TableFormatError,
    TableNotFoundError,
)

T = TypeVar("T")

Cell = tuple[str, date]
"""An event name, and a day in the reporting time zone."""

_ROWS = """
SELECT event_name, {day} AS day, count(*) FROM {table}
WHERE event_time >= ? AND event_time < ? AND coalesce(export_batch, -1) NOT IN (SELECT unnest(?::INTEGER[]))
GROUP BY ALL
"""
_HOURS = _ROWS.replace("{day}", "date_trunc('hour', event_time)")
# Rows that compaction would merge into one, because they differ only in their time. Exact duplicates do not count, unless
# the export kept duplicates. Times are compared as text, like in the removal of duplicates: two texts may be one time.
_MERGEABLE = """
WITH _groups AS (
    SELECT event_name, {day} AS day, list(rowid) AS ids FROM {table}
    WHERE event_time >= ? AND event_time < ? AND insert_id <> ''
        AND coalesce(export_batch, -1) NOT IN (SELECT unnest(?::INTEGER[]))
    GROUP BY event_name, {day}, distinct_id, insert_id HAVING count(*) > 1
), _members AS (
    SELECT event_name, day, ids[1] AS key, unnest(ids) AS id FROM _groups
)
SELECT event_name, day, sum(times - 1)::BIGINT FROM (
    SELECT _members.event_name, day, {times} AS times FROM _members JOIN {table} AS _events ON _events.rowid = id
    GROUP BY _members.event_name, day, key
) WHERE times > 1 GROUP BY ALL
"""
_BATCHES = """
SELECT coalesce(export_batch, -1), count(*), count(*) FILTER (event_time IS NULL) FROM {table} GROUP BY ALL
"""
_HIDDEN = "SELECT batch, count(*) FROM _export_duplicates GROUP BY ALL"
_UNTIMED = """
SELECT event_name, export_batch, count(*) FROM {table} WHERE event_time IS NULL GROUP BY ALL
"""
_HIDDEN_UNTIMED = """
SELECT event_name, batch, lost_to, count(*) FROM _export_duplicates WHERE event_time IS NULL GROUP BY ALL
"""


@dataclass(frozen=True, slots=True)
class TableCoverage:
    """The ledger's information about a table and a project."""

    table: str
    """The table's name as the database spells it."""
    coverages: tuple[Coverage, ...]
    """One for each selection of the project."""
    others: tuple[int, ...]
    """The batches of other projects."""
    zone: str
    deduplicated: bool


@dataclass(frozen=True, slots=True)
class TableCounts:
    """The numbers of rows in a table, without the rows of other projects."""

    rows: Mapping[Cell, int]
    names: frozenset[str]
    """The names of all events in the table, on any day."""
    untimed: Mapping[tuple[str, int], int]
    """The number of rows without a time, by name and batch."""
    hidden: Mapping[int, int]
    """For each batch, the number of its rows that are hidden because another batch has a newer version."""
    hidden_untimed: Mapping[tuple[str, int, int], int]
    """The number of hidden rows without a time, by name, batch, and the batch that has the newer version."""
    changed: frozenset[int]
    """The batches whose number of rows differs from the ledger. The ledger cannot explain their differences."""


@contextmanager
def connect_read_only(path: Path) -> Iterator[Connection]:
    """Open the file read-only, or in the mode in which this process already has it open.

    Raises:
        DatabaseNotFoundError: There is no such file, or it is empty.
        DatabaseError: The file cannot be opened or read.
    """
    check_not_empty(path)
    try:
        connection = connect(path, read_only=True)
    except DatabaseLockedError:
        raise
    except DatabaseError:
        connection = connect(path)  # DuckDB does not open a file in two modes in one process
    with connection:
        yield connection


def read(path: Path, call: Callable[[Connection], T], connection: Connection) -> T:
    """Return the result of *call*. Raises `DatabaseError` if DuckDB fails."""
    try:
        return call(connection)
    except duckdb.InterruptException as error:
        raise InterruptedCall from error
    except duckdb.Error as error:
        raise DatabaseError(
            f"reading from {path} failed: {' '.join(str(error).split())}",
            advice="check the disk and the file",
            db_path=str(path),
        ) from error


def read_coverage(connection: Connection, table: str, project: str) -> TableCoverage:
    """Return the ledger's information about a table and a project.

    Raises:
        TableNotFoundError: There is no such table.
        TableFormatError: The table does not have the columns of an exported table, or a newer release wrote the ledger.
        SelectionError: The table has no days of the project.
    """
    check_ledger(connection)
    name = name_in_database(connection, table)
    if not table_exists(connection, name):
        raise TableNotFoundError(name, advice="export it first")
    if not has_export_columns(connection, name):
        raise TableFormatError(name, f"table {name} was not exported", advice="export its events first")
    batches = read_batches(connection, name)
    targets = {key: days for key, days in read_targets(connection).items() if key[0] == name}
    all_coverages = coverages(batches, {}, targets)
    ours = tuple(each for each in all_coverages if each.selection.project in {project, UNKNOWN_PROJECT})
    if not ours:
        known = sorted({coverage.selection.project for coverage in all_coverages})
        raise SelectionError(
            f"table {name} has no days of project {project}",
            advice=f"use an account of project {known[0]}" if known else "export them first",
        )
    return TableCoverage(
        name,
        ours,
        tuple(batch.number for batch in batches if batch.selection.project not in {project, UNKNOWN_PROJECT}),
        ours[-1].options.zone,
        all(batch.deduplicated for coverage in ours for batch in coverage.batches),
    )


def read_counts(connection: Connection, table: TableCoverage, days: Chunk, zone: str) -> TableCounts:
    """Count the rows of *days*, which are in *zone*, and the rows without a day.

    Raises:
        ValueError: DuckDB does not know the zone.
    """
    check_zone(connection, zone)
    source = quoted(table.table)
    rows = connection.execute(
        _ROWS.format(table=source, day=_day(zone)), _parameters(table, days, zone)
    ).fetchall()
    names = connection.execute(f"SELECT DISTINCT event_name FROM {source}").fetchall()
    untimed = connection.execute(_UNTIMED.format(table=source)).fetchall()
    has_hidden = table_exists(connection, "_export_duplicates")  # the first releases did not have this table
    hidden = connection.execute(_HIDDEN).fetchall() if has_hidden else []
    hidden_untimed = connection.execute(_HIDDEN_UNTIMED).fetchall() if has_hidden else []
    return TableCounts(
        {(name, day): count for name, day, count in rows},
        frozenset(name for (name,) in names),
        {(name, batch): count for name, batch, count in untimed},
        dict(hidden),
        {(name, batch, newer): count for name, batch, newer, count in hidden_untimed},
        _changed_batches(connection, table),
    )


def _changed_batches(connection: Connection, table: TableCoverage) -> frozenset[int]:
    """Return the batches whose rows the user has changed. These are all batches if the table has rows of unknown batches."""
    result = connection.execute(_BATCHES.format(table=quoted(table.table))).fetchall()
    rows = {number: (count, untimed) for number, count, untimed in result}
    batches = {each.number: each for part in table.coverages for each in part.batches if each.visible}
    if rows.keys() - batches.keys() - set(table.others):
        return frozenset(batches)
    return frozenset(
        number
        for number, batch in batches.items()
        for count, untimed in (rows.get(number, (0, 0)),)
        if batch.status != "imported" and (count != batch.rows or untimed > batch.untimed_rows)
    )


def read_mergeable(connection: Connection, table: TableCoverage, days: Chunk, zone: str) -> Counter[Cell]:
    """Return the number of rows of *days* that Mixpanel's compaction would remove.

    It keeps one of the rows with the same name, `distinct_id`, `$insert_id` and day.
    """
    times = "count(DISTINCT properties->>'$.time')" if table.deduplicated else "count(*)"
    sql = _MERGEABLE.format(table=quoted(table.table), day=_day(zone), times=times)
    rows = connection.execute(sql, _parameters(table, days, zone)).fetchall()
    return Counter({(name, day): count for name, day, count in rows})


def read_hours(
    connection: Connection, table: TableCoverage, days: Chunk, names: Collection[str]
) -> dict[str, dict[datetime, int]]:
    """Count the rows of *names* by hour, for *days* in UTC."""
    sql = _HOURS.format(table=quoted(table.table))
    hours: defaultdict[str, dict[datetime, int]] = defaultdict(dict)
    for name, hour, count in connection.execute(sql, _parameters(table, days, "UTC")).fetchall():
        if name in names:
            hours[name][hour] = count
    return hours


def _day(zone: str) -> str:
    return "event_time::DATE" if zone == "UTC" else f"timezone('{zone}', timezone('UTC', event_time))::DATE"


def _parameters(table: TableCoverage, days: Chunk, zone: str) -> list[object]:
    return [_start(days.first, zone), _start(days.last + timedelta(days=1), zone), list(table.others)]


def _start(day: date, zone: str) -> datetime:
    """Return the naive UTC time at which a day starts in *zone*."""
    return naive_utc(to_utc(datetime(day.year, day.month, day.day), zone))  # noqa: DTZ001 - a local time
