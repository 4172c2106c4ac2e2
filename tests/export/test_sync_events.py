"""A sync completes a table up to yesterday, and reports what changed in Mixpanel."""

import warnings
from collections import Counter
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import pytest
from changing_days import DAYS, FIRST, Line, Server, table
from changing_days import rows as rows_of
from examples import slow
from support import export_from, ledger, query
from syncs import sync

from mixpanel_export.changes import DayChange
from mixpanel_export.errors import ArgumentError

pytestmark = pytest.mark.anyio

NIGHT = datetime(2024, 3, 5, 6, tzinfo=UTC)  # after the last of DAYS


def event(hour: int, person: str = "p", insert_id: str | None = "i", name: str = "a") -> Line:
    """Return an event with a unique id."""
    return Line(name, hour, person, insert_id and f"{insert_id}{hour}", 1)


def full(count: int = 10) -> Server:
    """Return a server with *count* events on each day."""
    return Server(
        {day: [event(24 * number + hour) for hour in range(count)] for number, day in enumerate(DAYS)}
    )


def rows(server: Server) -> Counter[tuple[object, ...]]:
    """Return the rows of a table with all events of the server."""
    return rows_of(line for day in server.days for line in server.days[day])


def counts(changes: Iterable[DayChange]) -> list[tuple[int, int, int, int]]:
    """Return day, added, removed and re-keyed of each change."""
    return [((change.day - FIRST).days, change.added, change.removed, change.rekeyed) for change in changes]


async def test_the_first_sync_needs_a_day_and_later_ones_none(db: Path) -> None:
    """Without target days `since` is required; it creates the table, and the next night adds its day."""
    server = full()
    with pytest.raises(ArgumentError) as caught:
        await sync(server.transport(), db, NIGHT)
    assert (caught.value.argument, server.asked) == ("since", [])
    first = await sync(server.transport(), db, NIGHT - timedelta(days=1), since="2024-03-01")
    assert (first.days, first.fetched_days, first.changes, first.kept) == (
        ("2024-03-01", "2024-03-03"),
        3,
        (),
        (),
    )
    second = await sync(server.transport(), db, NIGHT)
    assert second.days == ("2024-03-01", "2024-03-04")
    assert (second.export.total_rows, second.added, second.changes) == (10, 0, ())
    assert table(db) == rows(server)
    assert {(first, last) for first, last, *_ in ledger(db)} == {(day, day) for day in DAYS}


async def test_an_earlier_first_day_adds_days_and_a_later_one_has_no_effect(db: Path) -> None:
    """The target grows to an earlier `since`, also after an export without it, and never shrinks."""
    server = full()
    await export_from(server.transport(), db, DAYS[2], DAYS[2], now=lambda: NIGHT)
    days = [
        (await sync(server.transport(), db, NIGHT, since=since)).days[0]
        for since in ("2024-03-02", "2024-03-05", "2024-03-01", "2024-03-04", None)
    ]
    assert days == ["2024-03-02", "2024-03-02", "2024-03-01", "2024-03-01", "2024-03-01"]
    assert table(db) == rows(server)


async def test_late_removed_and_merged_events_are_reported(db: Path) -> None:
    """The result and `_sync_changes` have the numbers for each day; a merge is neither an addition nor a removal."""
    server = full()
    await sync(server.transport(), db, NIGHT, since="2024-03-01")
    first, second, third, _ = DAYS
    server.days[first].append(event(20))
    server.days[second] = [event(24 + hour, "merged" if hour < 3 else "p") for hour in range(9)]
    server.days[third].append(event(49, "other", None))
    result = await sync(server.transport(), db, NIGHT + timedelta(hours=1))
    assert counts(result.changes) == [(0, 1, 0, 0), (1, 0, 1, 3), (2, 1, 0, 0)]
    assert (result.added, result.removed, result.rekeyed, result.kept) == (2, 1, 3, ())
    recorded = query(
        db, "SELECT day, old_rows, new_rows, added, removed, rekeyed, kept FROM _sync_changes ORDER BY day"
    )
    assert recorded == [
        (first, 10, 11, 1, 0, 0, False),
        (second, 10, 9, 0, 1, 3, False),
        (third, 10, 11, 1, 0, 0, False),
    ]
    assert table(db) == rows(server)


@pytest.mark.parametrize("left", [4, 5, *slow([0, 1])])
async def test_a_day_that_lost_over_half_of_its_events_is_kept(db: Path, left: int) -> None:
    """The old rows stay until the loss is accepted; a day with exactly half of its events is replaced."""
    server = full()
    await sync(server.transport(), db, NIGHT, since="2024-03-01")
    before = table(db)
    server.days[DAYS[1]] = server.days[DAYS[1]][:left]
    for hours in (1, 2):
        result = await sync(server.transport(), db, NIGHT + timedelta(hours=hours))
        if left == 5:
            assert result.kept == ()
            assert table(db) == rows(server)
            continue
        assert [(change.day, change.old_rows, change.new_rows) for change in result.kept] == [
            (DAYS[1], 10, left)
        ]
        assert result.removed == 0
        assert table(db) == before
        assert query(db, "SELECT count(*) FROM _sync_changes") == [(1,)]
    accepted = await sync(server.transport(), db, NIGHT + timedelta(hours=3), accept_loss=True)
    assert accepted.kept == ()
    assert table(db) == rows(server)
    assert query(db, "SELECT sum(removed)::INTEGER, bool_or(kept) FROM _sync_changes") == [(10 - left, False)]


async def test_a_loss_that_is_over_is_no_longer_reported(db: Path) -> None:
    """When the events return, the day is replaced, and nothing is kept."""
    server = full()
    await sync(server.transport(), db, NIGHT, since="2024-03-01")
    lost, server.days[DAYS[0]] = server.days[DAYS[0]], []
    with warnings.catch_warnings(action="ignore"):
        assert len((await sync(server.transport(), db, NIGHT)).kept) == 1
    server.days[DAYS[0]] = [*lost, event(22)]
    result = await sync(server.transport(), db, NIGHT)
    assert (result.kept, counts(result.changes)) == ((), [(0, 1, 0, 0)])
    assert table(db) == rows(server)


async def test_accepting_does_not_accept_later_losses(db: Path) -> None:
    """`accept_loss` applies to the days that were reported before; a new loss is kept."""
    server = full()
    await sync(server.transport(), db, NIGHT, since="2024-03-01")
    server.days[DAYS[0]] = []
    await sync(server.transport(), db, NIGHT)
    server.days[DAYS[1]] = []
    result = await sync(server.transport(), db, NIGHT, accept_loss=True)
    assert [change.day for change in result.kept] == [DAYS[1]]
    assert query(db, f"SELECT count(*) FROM events WHERE event_time < '{DAYS[1]}'") == [(0,)]


async def test_a_batch_of_several_days_is_kept_whole(db: Path) -> None:
    """If one day of a batch lost its events, all days of the batch stay, and only that day is reported."""
    server = full()
    await export_from(server.transport(), db, DAYS[0], DAYS[3], chunk_days=4, now=lambda: NIGHT)
    before = table(db)
    server.days[DAYS[1]] = []
    server.days[DAYS[2]].append(event(71))
    result = await sync(server.transport(), db, NIGHT)
    assert [(change.day, change.kept) for change in result.changes] == [(DAYS[1], True)]
    assert table(db) == before
    result = await sync(server.transport(), db, NIGHT, accept_loss=True)
    assert counts(result.changes) == [(1, 0, 10, 0), (2, 1, 0, 0)]
    assert table(db) == rows(server)


async def test_a_refused_day_is_no_longer_failed(db: Path) -> None:
    """A day fails during a night without network; when its response is later rejected, it is no longer failed."""
    server = full()
    await sync(server.transport(), db, NIGHT, since="2024-03-01")
    offline = httpx.MockTransport(lambda _: httpx.Response(503))
    failed = await sync(offline, db, NIGHT, retries=0)
    assert (failed.has_failures, len(failed.export.failed_date_ranges)) == (True, 4)
    assert table(db) == rows(server)
    server.days[DAYS[0]] = []
    result = await sync(server.transport(), db, NIGHT)
    assert ([change.day for change in result.kept], result.has_failures) == ([DAYS[0]], False)
    assert {status for _, _, status, _ in ledger(db)} == {"complete", "open"}


async def test_an_empty_day_is_no_news_the_second_time(db: Path) -> None:
    """A day that is treated as empty causes one warning, although every sync fetches it."""
    server = full()
    server.days[DAYS[1]] = []
    with pytest.warns(UserWarning, match="2024-03-02"):
        await sync(server.transport(), db, NIGHT, since="2024-03-01")
    await sync(server.transport(), db, NIGHT)


async def test_a_replaced_table_forgets_what_was_kept(db: Path) -> None:
    """If the old rows of a kept day are replaced, the day is no longer reported."""
    server = full()
    await sync(server.transport(), db, NIGHT, since="2024-03-01")
    server.days[DAYS[0]] = []
    await sync(server.transport(), db, NIGHT)
    await export_from(server.transport(), db, DAYS[0], DAYS[0], mode="append", now=lambda: NIGHT)
    assert (await sync(server.transport(), db, NIGHT)).kept == ()
    await export_from(server.transport(), db, DAYS[0], DAYS[3], mode="replace", now=lambda: NIGHT)
    assert query(db, "SELECT count(*) FROM _sync_changes") == [(0,)]
