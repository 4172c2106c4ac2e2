"""Which rows are shown, against a model that compares every row with every other one."""

import json
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

import duckdb
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mixpanel_export._database.ledger import Extent, Span
from mixpanel_export._database.schema import create_events_table, create_ledger
from mixpanel_export._writer.cross_batch import move_duplicates, record_untimed_ids

FIRST = datetime(2024, 3, 1)
DAY = timedelta(days=1)
TABLE = "ev ents"
COLUMNS = "event_name, event_time, distinct_id, insert_id, properties, export_batch"


class Event(NamedTuple):
    """An event as it was sent; `fraction` follows the second, `hour` counts from the first day."""

    name: str
    hour: int | None
    fraction: str
    insert_id: str
    processed: int | None
    note: str

    @property
    def time(self) -> datetime | None:
        """The time that the table has."""
        return None if self.hour is None else FIRST + timedelta(hours=self.hour)

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
        """What tells the event from others."""
        return self.name, self.hour, self.hour is None or self.fraction, self.insert_id


class Row(NamedTuple):
    """An event in a batch, which has one day."""

    event: Event
    batch: int

    @property
    def rank(self) -> tuple[Any, ...]:
        """Of the rows with one identity that with the greatest is shown."""
        processed, hour = self.event.processed, self.event.hour
        inside = hour is not None and hour // 24 == self.batch
        return processed is not None, processed or 0, self.event.properties, inside, -self.batch


def winners(rows: Iterable[Row]) -> Counter[Row]:
    """Return the rows that are shown."""
    best: dict[object, Row] = {}
    for number, row in enumerate(rows):
        key = row.event.identity if row.event.insert_id else number
        best[key] = max(row, best.get(key, row), key=lambda one: one.rank)
    return Counter(best.values())


def inside(batch: int) -> Span:
    return FIRST + batch * DAY, FIRST + (batch + 1) * DAY - timedelta(microseconds=1)


def extent(batch: int, rows: Iterable[Row]) -> Extent:
    """Return what the ledger knows of the times of a batch."""
    times = [row.event.time for row in rows]
    strays = [time for time in times if time and not inside(batch)[0] <= time <= inside(batch)[1]]
    return Extent(batch, inside(batch), (min(strays), max(strays)) if strays else None)


@contextmanager
def connected() -> Iterator[duckdb.DuckDBPyConnection]:
    """Yield a database with an empty table and a ledger."""
    with closing(duckdb.connect()) as connection:
        connection.execute("SET preserve_insertion_order = false")
        create_ledger(connection)
        create_events_table(connection, TABLE)
        yield connection


def commit(connection: duckdb.DuckDBPyConnection, rows: list[Row], batches: list[int]) -> None:
    """Insert the *rows* of *batches*, which have no duplicates inside them."""
    connection.begin()
    values = [
        (row.event.name, row.event.time, "d", row.event.insert_id, row.event.properties, row.batch)
        for row in rows
    ]
    if values:
        connection.executemany(f'INSERT INTO "{TABLE}" ({COLUMNS}) VALUES (?, ?, ?, ?, ?, ?)', values)
    counts = Counter(row.batch for row in rows)
    connection.executemany(
        'INSERT INTO _export_batches (batch, "rows", removed_duplicates) VALUES (?, ?, 0)',
        [(batch, counts[batch]) for batch in batches],
    )
    record_untimed_ids(connection, TABLE, batches)


def found(connection: duckdb.DuckDBPyConnection, table: str, batch: str) -> Counter[tuple[Any, ...]]:
    return Counter(connection.execute(f"SELECT event_name, properties, {batch} FROM {table}").fetchall())


def texts(rows: Iterable[Row]) -> Counter[tuple[Any, ...]]:
    return Counter((row.event.name, row.event.properties, row.batch) for row in rows)


EVENTS = st.lists(
    st.builds(
        Event,
        name=st.sampled_from("aab"),
        hour=st.sampled_from([-400000, 1, 25, 49, 73, 73, 97, 200000, None]),  # few, so that they recur
        fraction=st.sampled_from(["", "", ".0", ".5", ".50"]),
        insert_id=st.sampled_from(["i", "i", "j", ""]),
        processed=st.sampled_from([1, 2, None]),
        note=st.sampled_from(["", "n"]),
    ),
    max_size=8,
)
PAGE = st.sampled_from([1, 1500, 16 << 20])


@given(
    batches=st.lists(EVENTS, min_size=4, max_size=4),
    order=st.permutations(range(4)),
    sizes=st.sampled_from([(1, 1, 1, 1), (2, 2), (1, 3), (3, 1), (4,), (1, 2, 1)]),
    page=PAGE,
    few=st.sampled_from([0, 1, 100]),
)
def test_across_batches_the_winners_are_shown(
    batches: list[list[Event]], order: list[int], sizes: tuple[int, ...], page: int, few: int
) -> None:
    """Whatever times events have, and whichever batches come first and together, each is shown once; the rest is hidden."""
    delivered: list[Row] = []
    extents: list[Extent] = []
    left = iter(order)
    with pytest.MonkeyPatch.context() as patch, connected() as connection:
        patch.setattr("mixpanel_export._writer.cross_batch._TEXT", page)
        patch.setattr("mixpanel_export._writer.cross_batch._FEW", few)
        for size in sizes:
            new = [next(left) for _ in range(size)]
            kept = [
                row
                for batch in new
                for row in winners(Row(event, batch) for event in batches[batch]).elements()
            ]
            commit(connection, kept, new)
            delivered += kept
            extents += [extent(batch, (row for row in kept if row.batch == batch)) for batch in new]
            move_duplicates(connection, TABLE, new, extents)
            connection.commit()
            shown = winners(delivered)
            assert found(connection, f'"{TABLE}"', "export_batch") == texts(shown.elements())
            assert found(connection, "_export_duplicates", "batch") == texts(delivered) - texts(
                shown.elements()
            )
            check_books(connection, shown)


def check_books(connection: duckdb.DuckDBPyConnection, shown: Counter[Row]) -> None:
    """The ledger counts what is shown and what is hidden, and no row is hidden for one of its own batch."""
    counted = connection.execute('SELECT batch, "rows", removed_duplicates FROM _export_batches').fetchall()
    lost = connection.execute("SELECT batch, lost_to FROM _export_duplicates").fetchall()
    hidden = Counter(batch for batch, _ in lost)
    visible = Counter(row.batch for row in shown.elements())
    assert counted == [(batch, visible[batch], hidden[batch]) for batch, _, _ in counted]
    assert all(batch != winner for batch, winner in lost)
