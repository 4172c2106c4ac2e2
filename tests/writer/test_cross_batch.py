"""Duplicates across batches, compared with a model that compares every pair of rows."""

import json
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta
from itertools import count
from typing import Any, NamedTuple
from zoneinfo import ZoneInfo

import duckdb
import pytest
from examples import examples
from hypothesis import example, given
from hypothesis import strategies as st

from mixpanel_export._database.connection import transaction
from mixpanel_export._database.ledger import Ledger
from mixpanel_export._database.schema import LEDGER_TABLES, create_events_table, create_ledger
from mixpanel_export._model import Batch, Chunk, Selection
from mixpanel_export._writer.cross_batch import move_duplicates, record_missing_strays, record_strays, restore

FIRST = date(2024, 3, 1)
DAYS = [FIRST + timedelta(days=day) for day in range(3)]
TABLE = "ev ents"
COLUMNS = "event_name, event_time, distinct_id, insert_id, properties, export_batch"
ME, OTHER = Selection("1"), Selection("2")


class Event(NamedTuple):
    """An event as it was sent; `fraction` follows the second, `hour` counts from the first day in UTC."""

    name: str
    hour: int | None
    fraction: str
    insert_id: str
    processed: int | None
    note: str

    @property
    def time(self) -> datetime | None:
        """The time that the table has."""
        return None if self.hour is None else datetime.combine(FIRST, time()) + timedelta(hours=self.hour)

    @property
    def properties(self) -> str:
        """The text that was sent."""
        members = {"distinct_id": "d", "note": self.note, "$insert_id": self.insert_id}
        if self.processed is not None:
            members["mp_processing_time_ms"] = str(self.processed)
        rest = json.dumps(members)[1:]
        if self.time is None:
            return "{" + rest
        return f'{{"time":{int(self.time.replace(tzinfo=UTC).timestamp())}{self.fraction},{rest}'

    @property
    def identity(self) -> tuple[Any, ...]:
        """What distinguishes the event from others."""
        return self.name, self.hour, self.hour is None or self.fraction, self.insert_id


class Row(NamedTuple):
    """An event in a batch of one day; `inside` is true if its time is in that day."""

    event: Event
    batch: int
    inside: bool

    @property
    def rank(self) -> tuple[Any, ...]:
        """Of the rows with one identity the one with the greatest rank is visible."""
        processed = self.event.processed
        return processed is not None, processed or 0, self.event.properties, self.inside, -self.batch

    @property
    def values(self) -> tuple[Any, ...]:
        """The row as the table has it."""
        event = self.event
        return event.name, event.time, "d", event.insert_id, event.properties, self.batch


def winners(rows: Iterable[Row]) -> Counter[Row]:
    """Return the visible ones of *rows*."""
    best: dict[object, Row] = {}
    for number, row in enumerate(rows):
        key = row.event.identity if row.event.insert_id else number
        best[key] = max(row, best.get(key, row), key=lambda one: one.rank)
    return Counter(best.values())


@dataclass
class Table:
    """A table that receives batches, and their events."""

    connection: duckdb.DuckDBPyConnection
    zone: str
    page_size: int
    delivered: dict[int, tuple[date, list[Row]]] = field(default_factory=dict)
    numbers: Iterator[int] = field(default_factory=lambda: count(1))

    def deliver(self, days: dict[date, list[Event]]) -> None:
        """Commit a batch for each of *days*; it supersedes the one that is there."""
        gone = [number for number, (day, _) in self.delivered.items() if day in days]
        ledger = Ledger(self.connection, TABLE, ME, self.zone)
        self.connection.execute(f'DELETE FROM "{TABLE}" WHERE export_batch IN (SELECT unnest(?))', [gone])
        ledger.delete(gone)
        for number in gone:
            del self.delivered[number]
        new = [self.insert(ME, day, events) for day, events in days.items()]
        record_strays(self.connection, TABLE, self.zone, new)
        restored = restore(self.connection, TABLE, gone) if gone else []
        move_duplicates(
            self.connection, TABLE, ME.project, self.zone, new + restored, page_size=self.page_size
        )

    def insert(
        self, selection: Selection, day: date, events: list[Event], *, deduplicated: bool = True
    ) -> int:
        """Insert a batch of *events*, without the duplicates inside it; only a deduplicated one of this project is `delivered`."""
        batch = next(self.numbers)
        rows = [Row(event, batch, self.on(day, event.time)) for event in events]
        rows = list(winners(rows).elements()) if deduplicated else rows
        if rows:
            values = list(map(list, zip(*(row.values for row in rows), strict=True)))
            unnested = ", ".join(["unnest(?)"] * len(values))
            self.connection.execute(f'INSERT INTO "{TABLE}" ({COLUMNS}) SELECT {unnested}', values)
        strays = [row for row in rows if not row.inside and row.event.time]
        row = Batch(
            number=batch,
            days=Chunk(day, day),
            status="complete",
            selection=selection,
            table=TABLE,
            rows=len(rows),
            stray_rows=len(strays),
            untimed_rows=sum(row.event.time is None for row in rows),
            zone=self.zone,
            deduplicated=deduplicated,
        )
        Ledger(self.connection, TABLE, selection, self.zone).write([row])
        if selection == ME and deduplicated:
            self.delivered[batch] = day, rows
        return batch

    def on(self, day: date, moment: datetime | None) -> bool:
        """Whether *moment* is in *day* in the time zone."""
        first, last = (
            datetime.combine(one, time(), ZoneInfo(self.zone)).astimezone(UTC).replace(tzinfo=None)
            for one in (day, day + timedelta(days=1))
        )
        return moment is not None and first <= moment < last

    @property
    def rows(self) -> list[Row]:
        """All rows that the batches delivered."""
        return [row for _, rows in self.delivered.values() for row in rows]

    def read(self, table: str, batch: str) -> Counter[tuple[Any, ...]]:
        """Return the rows of the delivered batches in *table*."""
        rows = self.connection.execute(
            f"SELECT event_name, properties, {batch} FROM {table} WHERE {batch} IN (SELECT unnest(?))",
            [list(self.delivered)],
        )
        return Counter(rows.fetchall())

    def strays(self) -> Counter[tuple[Any, ...]]:
        """Return what is recorded of the strays of the delivered batches."""
        rows = self.connection.execute(
            "FROM _export_strays WHERE batch IN (SELECT unnest(?))", [list(self.delivered)]
        )
        return Counter(rows.fetchall())

    def check(self) -> None:
        """The table and `_export_duplicates` hold what they should, and the ledger counts it."""
        visible = winners(self.rows)
        hidden = Counter(self.rows) - visible
        assert self.read(f'"{TABLE}"', "export_batch") == texts(visible)
        assert self.read("_export_duplicates", "batch") == texts(hidden)
        ledger = self.connection.execute(
            'SELECT batch, "rows", removed_duplicates FROM _export_batches WHERE batch IN (SELECT unnest(?))',
            [list(self.delivered)],
        )
        counts = {number: [0, 0] for number in self.delivered}
        for column, rows in enumerate((visible, hidden)):
            for row in rows.elements():
                counts[row.batch][column] += 1
        assert {number: list(both) for number, *both in ledger.fetchall()} == counts
        assert (
            self.connection.execute(
                "FROM _export_duplicates WHERE batch = lost_to OR lost_to IS NULL"
            ).fetchall()
            == []
        )


def texts(rows: Counter[Row]) -> Counter[tuple[Any, ...]]:
    return Counter((row.event.name, row.event.properties, row.batch) for row in rows.elements())


@pytest.fixture(scope="module")
def connection() -> Iterator[duckdb.DuckDBPyConnection]:
    """A database with a ledger and an events table."""
    with closing(duckdb.connect()) as connection:
        connection.execute("SET preserve_insertion_order = false")
        create_ledger(connection)
        create_events_table(connection, TABLE)
        yield connection


# Few values, so that events recur.
EVENTS = st.lists(
    st.builds(
        Event,
        name=st.sampled_from("aaaab"),
        hour=st.sampled_from([1, 25, 25, 49, 49, 73, -400000, None]),
        fraction=st.sampled_from(["", "", "", "", ".0", ".5", ".50"]),
        insert_id=st.sampled_from(["i", "i", "i", "j", ""]),
        processed=st.sampled_from([1, 2, None]),
        note=st.sampled_from(["", "n"]),
    ),
    min_size=1,
    max_size=6,
)
COMMITS = st.lists(
    st.dictionaries(st.sampled_from(DAYS), EVENTS, min_size=1, max_size=3), min_size=2, max_size=4
)


UNTIMED, LOST = (Event("a", hour, "", "i", 1, "") for hour in (None, -400000))


@example(
    commits=[{DAYS[0]: [UNTIMED]}, {DAYS[2]: [UNTIMED]}], bystanders=[], zone="UTC", page_size=1, older=False
)
@example(commits=[{DAYS[0]: [LOST]}, {DAYS[2]: [LOST]}], bystanders=[], zone="UTC", page_size=1, older=False)
@given(
    commits=COMMITS,
    bystanders=EVENTS,
    zone=st.sampled_from(["UTC", "UTC", "US/Pacific"]),
    page_size=st.sampled_from([1, 1500, 16 << 20]),
    older=st.booleans(),
)
@examples(core=12, full=100)
def test_each_event_is_visible_once(
    connection: duckdb.DuckDBPyConnection,
    commits: list[dict[date, list[Event]]],
    bystanders: list[Event],
    zone: str,
    page_size: int,
    older: bool,
) -> None:
    """Whatever batches arrive together, in whatever order, and are replaced by whatever: each event is visible once, the rest hidden.

    Batches of other projects, and those that were not deduplicated, play no part. If an *older* release wrote the
    batches, so that their strays were not recorded, that changes nothing.
    """
    for name in (TABLE, *LEDGER_TABLES):
        connection.execute(f'DELETE FROM "{name}"')
    table = Table(connection, zone, page_size)
    untouched = [
        table.insert(OTHER, DAYS[0], bystanders),
        table.insert(ME, DAYS[-1] + timedelta(days=1), bystanders, deduplicated=False),
    ]
    events = f'FROM "{TABLE}" WHERE export_batch IN ({untouched[0]}, {untouched[1]}) ORDER BY ALL'
    before = connection.execute(events).fetchall()
    for commit in commits:
        with transaction(connection):
            table.deliver(commit)
        table.check()
        if older:
            connection.execute("DELETE FROM _export_strays")
        record_missing_strays(connection, TABLE, zone)
        assert table.strays() == Counter(
            (row.batch, row.event.time, row.event.insert_id) for row in table.rows if not row.inside
        )
    assert connection.execute(events).fetchall() == before
