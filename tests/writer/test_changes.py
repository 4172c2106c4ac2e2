"""New batches are compared with those that they replace."""

from collections import Counter
from collections.abc import Iterable
from datetime import date, datetime, timedelta
from typing import NamedTuple

import duckdb
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mixpanel_export._database.schema import create_events_table, create_ledger
from mixpanel_export._model import Batch, Chunk
from mixpanel_export._writer.changes import Comparison, compare

FIRST = date(2024, 3, 1)
LAST = date(2024, 3, 2)
START = datetime(2024, 3, 1)
NOW = datetime(2024, 3, 9)
UTC_DAYS = (FIRST, LAST)


class Event(NamedTuple):
    """An event of the days; `hour` counts from the first day in UTC."""

    name: str
    hour: int | None
    insert_id: str | None
    person: str | None


EVENTS = st.lists(
    st.builds(
        Event,
        st.sampled_from(["a", "b"]),
        st.sampled_from([0, 23, 24, 30, None]),
        st.sampled_from(["i", "j", "", None]),
        st.sampled_from(["p", "q", None]),
    ),
    max_size=14,
)


def compared(
    old: Iterable[Event],
    new: Iterable[Event],
    *,
    hidden: Iterable[Event] = (),
    accepted: Iterable[date] = (),
    zone: str = "UTC",
) -> Comparison:
    """Compare a batch of two days with an older one, some of whose rows are *hidden*."""
    with duckdb.connect() as connection:
        create_ledger(connection)
        create_events_table(connection, "events")
        for table, batch, events in (
            ("events", 1, old),
            ("events", 2, new),
            ("_export_duplicates", 1, hidden),
        ):
            place = "?, 9," if table == "_export_duplicates" else ""
            values = f"{place} ?, ?, ?, ?, '{{}}'" + ("" if place else ", ?")
            for name, hour, insert_id, person in events:
                time = None if hour is None else START + timedelta(hours=hour)
                columns = [name, time, person, insert_id]
                row = [batch, *columns] if place else [*columns, batch]
                connection.execute(f"INSERT INTO {table} VALUES ({values})", row)
        batches = [Batch(number, Chunk(FIRST, LAST), "complete", 7) for number in (1, 2)]
        comparisons = compare(
            connection,
            "events",
            zone,
            new=batches[1:],
            old=batches[:1],
            accepted_losses=frozenset(accepted),
            now=NOW,
        )
    return comparisons[2]


def day_of(event: Event) -> date:
    """Return the day of an event; the first one for an event without a time."""
    return FIRST if event.hour is None or event.hour < 24 else LAST


def expected(old: list[Event], new: list[Event], day: date) -> tuple[int, int, int]:
    """Return how many events of *day* are added, removed and re-keyed."""
    before, after = (Counter(event for event in events if day_of(event) == day) for events in (old, new))
    added: Counter[tuple[object, ...]] = Counter()
    removed: Counter[tuple[object, ...]] = Counter()
    for change, side in ((after - before, added), (before - after, removed)):
        for (name, hour, insert_id, _), number in change.items():
            side[name, hour, insert_id] += number
    rekeyed = sum(min(added[key], removed[key]) for key in added if key[2])
    return added.total() - rekeyed, removed.total() - rekeyed, rekeyed


@settings(max_examples=15)
@given(old=EVENTS, hidden=EVENTS, new=EVENTS)
def test_every_event_is_counted_once(old: list[Event], hidden: list[Event], new: list[Event]) -> None:
    """For any two responses, the counts are those of the multisets, whether rows are visible or hidden."""
    result = compared(old, new, hidden=hidden, accepted=UTC_DAYS)
    changes = {change.day: (change.added, change.removed, change.rekeyed) for change in result.days}
    of_days = {day: expected([*old, *hidden], new, day) for day in UTC_DAYS}
    assert changes == {day: counts for day, counts in of_days.items() if any(counts)}
    assert not result.rejected


@given(old=st.integers(0, 9), new=st.integers(0, 9), accept=st.booleans())
@settings(max_examples=10)
def test_less_than_half_is_refused(old: int, new: int, accept: bool) -> None:
    """A batch is refused if a day has under half of its events, unless the day is accepted."""
    events = [Event("a", 30, f"i{number}", "p") for number in range(9)]
    result = compared(events[:old], events[:new], accepted=[LAST] if accept else ())
    assert result.rejected == (2 * new < old and not accept)
    assert [(change.day, change.kept) for change in result.days] == (
        [(LAST, result.rejected)] if old != new else []
    )
    assert result.old_rows == 7


@pytest.mark.parametrize("zone, day", [("UTC", LAST), ("US/Pacific", FIRST)])
def test_days_are_those_of_the_project(zone: str, day: date) -> None:
    """Six o'clock UTC on the second day is still the first day in California."""
    (change,) = compared([], [Event("a", 30, "i", "p")], zone=zone).days
    assert (change.day, change.added, change.checked_at) == (day, 1, NOW)
