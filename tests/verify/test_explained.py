"""Differences that Mixpanel's rules explain, and which days and events are compared."""

from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from projects import (
    FIRST,
    LAST,
    NOW,
    change,
    day,
    explanations,
    exported,
    exported_project,
    project,
    verified,
    wrong,
)
from support import export, query

from mixpanel_export.errors import ArgumentError, SelectionError, TableFormatError, TableNotFoundError
from mixpanel_export.simulator import Change, Counting, Fault

pytestmark = pytest.mark.anyio

LATER = datetime(2024, 5, 20, tzinfo=UTC)
DAYS = [str(day(number)) for number in range(10)]


class Clock:
    """A clock that a test sets, for a project and its exports."""

    def __init__(self, now: datetime) -> None:
        self.now = now

    def __call__(self) -> datetime:
        return self.now


async def test_an_open_day_may_have_received_more_events(db: Path) -> None:
    """The difference is explained until the day is exported again."""
    clock = Clock(datetime(2024, 5, 13, 1, tzinfo=UTC))
    sim = project(now=clock, late=0.5, duplicates=0.0)
    await exported(sim, db, now=clock)
    clock.now = NOW
    result = await verified(sim, db)
    assert result.verified
    assert {each.day for each in result.differences} <= {DAYS[8], DAYS[9]}
    assert explanations(result) == {"open"}
    await exported(sim, db, mode="resume")
    assert (await verified(sim, db)).differences == ()


async def test_an_open_batch_explains_its_open_days_only(db: Path) -> None:
    """One request had all days, and only the last two of them were open; rows that somebody deleted are never explained."""
    clock = Clock(datetime(2024, 5, 13, 1, tzinfo=UTC))
    sim = project(
        now=clock, late=0.5, duplicates=0.0, changes=[Change("late", LATER, first=day(4), last=day(4))]
    )
    await exported(sim, db, now=clock, chunk_days=10)
    clock.now = NOW
    result = await verified(sim, db)
    assert list(result.failed_days) == [DAYS[4]]
    assert explanations(result) == {"open"}
    change(db, f"DELETE FROM events WHERE event_time::DATE = '{day(9)}'")
    result = await verified(sim, db)
    assert DAYS[9] in result.failed_days


@pytest.mark.parametrize("kind, sign", [("late", 1), ("removed", -1)])
async def test_changes_after_the_export_are_found_and_mended(kind: Any, sign: int, db: Path) -> None:
    """Late events and deletions make their days fail, and exporting those days again corrects the table."""
    clock = Clock(LATER - timedelta(days=1))
    sim = project(now=clock, changes=[Change(kind, LATER, first=day(4), last=day(6))], duplicates=0.3)
    await exported(sim, db)
    assert (await verified(sim, db)).verified
    clock.now = NOW
    result = await verified(sim, db)
    assert list(result.failed_days) == DAYS[4:7]
    assert all(difference * sign > 0 for difference in wrong(result).values())
    assert result.refetch_date_ranges == ((DAYS[4], DAYS[6]),)
    for first, last in result.refetch_date_ranges:
        await export(sim, db, first, last, mode="append")
    assert (await verified(sim, db)).differences == ()


async def test_a_failed_day_differs(db: Path) -> None:
    """Events of days that could not be exported are missing, and `resume` fetches them."""
    sim = project()
    sim.faults = [Fault("500", days=(day(4),))]
    await exported(sim, db, chunk_days=1, retries=0)
    result = await verified(sim, db)
    assert list(result.failed_days) == [DAYS[4]]
    sim.faults = []
    await exported(sim, db, mode="resume")
    assert (await verified(sim, db)).verified


async def test_duplicates_that_mixpanel_counts_explain_an_exact_surplus(db: Path) -> None:
    """If one row is missing, the surplus is not the number of removed duplicates."""
    sim = project(duplicates=0.3, counting=Counting("none"))
    result = await verified(sim, await exported(sim, db))
    assert result.verified
    assert explanations(result) == {"duplicates"}
    one_row = f"SELECT min(rowid) FROM events WHERE event_time::DATE = '{day(4)}'"
    change(
        db,
        f"DELETE FROM events WHERE rowid = ({one_row})",
        'UPDATE _export_batches SET "rows" = "rows" - 1 WHERE batch = 2',
    )
    assert list((await verified(sim, db)).failed_days) == DAYS[3:6]


async def test_duplicates_are_counted_for_whole_batches(db: Path) -> None:
    """A range that ends within a batch is compared with all days of the batch."""
    sim = project(duplicates=0.3, counting=Counting("none"))
    result = await verified(sim, await exported(sim, db), from_date=day(4), to_date=day(4))
    assert (result.verified, explanations(result)) == (True, {"duplicates"})
    assert {each.day for each in result.differences} == {DAYS[4]}


async def test_compaction_explains_a_lack(db: Path) -> None:
    """Mixpanel merges events that differ only in their time, never more than the table has of them."""
    sim = project(duplicates=0.5, counting=Counting("compacted"))
    result = await verified(sim, await exported(sim, db))
    assert (result.verified, explanations(result)) == (True, {"merged"})
    assert all(each.difference < 0 for each in result.differences)


async def test_events_without_a_time_are_on_no_day(db: Path) -> None:
    """Mixpanel may count them on any day of their batch."""
    sim = project(odd=0.2, duplicates=0.0)
    result = await verified(sim, await exported(sim, db))
    assert (result.verified, explanations(result)) == (True, {"untimed"})


async def test_events_that_exports_never_have_are_hidden(db: Path) -> None:
    """Two empty export responses prove it; a table without the event does not."""
    hiding = project(not_exported=["Sign Up"])
    await exported(hiding, db)
    requests = len(hiding.requests)
    result = await verified(hiding, db)
    assert result.verified
    assert {(each.event, each.explanation) for each in result.differences} == {("Sign Up", "hidden")}
    asked = hiding.requests[requests:]
    assert [(log.params["event"], log.params["limit"]) for log in asked] == [('["Sign Up"]', "1")] * 2
    sending = project()
    result = await verified(sending, db)
    assert list(result.failed_days) == DAYS
    assert {event for event, _ in wrong(result)} == {"Sign Up"}


async def test_days_over_30_days_old_may_differ(db: Path) -> None:
    """Mixpanel changes old days; the difference is shown, but the day fails only if the table was changed."""
    sim = await exported_project(db)
    days, ledger = f"event_time::DATE IN ('{day(2)}', '{day(4)}')", "SELECT count(*) FROM events"
    change(db, f"DELETE FROM events WHERE {days}")
    now = datetime.combine(day(2) + timedelta(days=31), datetime.min.time(), UTC)
    assert list((await verified(sim, db, now=lambda: now)).failed_days) == [DAYS[2], DAYS[4]]
    change(db, f'UPDATE _export_batches SET "rows" = ({ledger} WHERE export_batch = batch)')
    result = await verified(sim, db, now=lambda: now)
    assert list(result.failed_days) == [DAYS[4]]
    assert {each.day for each in result.differences if each.explanation == "old"} == {DAYS[2]}


async def test_another_zone_is_suggested(db: Path) -> None:
    """If the counts agree with another offset from UTC, the result has that offset."""
    sim = project(events_per_day=300, counting=Counting(timezone="Asia/Tokyo"))
    await exported(sim, db)
    result = await verified(sim, db)
    assert not result.verified
    assert result.utc_offset == 9.0
    result = await verified(sim, db, reporting_timezone="Asia/Tokyo")
    assert (result.verified, result.utc_offset, result.timezone) == (True, None, "Asia/Tokyo")
    assert result.skipped_date_ranges == ((DAYS[0], DAYS[0]),)


async def test_no_zone_is_suggested_for_other_differences(db: Path) -> None:
    """A time zone does not explain a day without rows."""
    sim = project(events_per_day=300)
    await exported(sim, db)
    change(db, f"DELETE FROM events WHERE event_time::DATE = '{day(4)}'")
    assert (await verified(sim, db)).utc_offset is None


async def test_a_tolerance_is_a_share_of_a_day(db: Path) -> None:
    """A day fails only if it exceeds the tolerance; the difference is unexplained in both cases."""
    sim = project(events_per_day=200, weekday_pattern=False, duplicates=0.0)
    await exported(sim, db)
    change(
        db,
        f"DELETE FROM events WHERE rowid IN (FROM events SELECT rowid WHERE event_time::DATE = '{day(4)}' LIMIT 2)",
    )
    assert list((await verified(sim, db, tolerance=0.009)).failed_days) == [DAYS[4]]
    result = await verified(sim, db, tolerance=0.01)
    assert result.verified
    assert sum(wrong(result).values()) == 2


async def test_ignored_events_are_not_compared(db: Path) -> None:
    """They are not compared, whether or not the table has them."""
    sim = project()
    await exported(sim, db, events=["Page View", "Sign Up"])
    change(db, "DELETE FROM events WHERE event_name = 'Page View'")
    assert not (await verified(sim, db)).verified
    result = await verified(sim, db, ignore=["Page View"])
    assert (result.verified, result.events) == (True, 1)


async def test_selections_are_compared_with_their_names(db: Path) -> None:
    """With two selections of different days, each name is compared on the days of its selection."""
    sim = project()
    await exported(sim, db, events=["Page View"])
    await export(sim, db, day(3), day(5), events=["Sign Up"], mode="append")
    result = await verified(sim, db)
    assert (result.verified, result.events, result.days) == (True, 2, 10)
    assert result.requests == 1  # no names beyond the selections are of interest
    change(db, f"DELETE FROM events WHERE event_name = 'Sign Up' AND event_time::DATE = '{day(4)}'")
    assert wrong(await verified(sim, db)).keys() == {("Sign Up", DAYS[4])}


async def test_a_filter_is_refused(db: Path) -> None:
    """Mixpanel's counts do not support filters; a table of other projects has nothing to compare."""
    sim = project()
    await exported(sim, db, where='properties["$browser"] == "Chrome"')
    with pytest.raises(SelectionError, match="filter"):
        await verified(sim, db)
    change(db, "UPDATE _export_batches SET project = '7'", "DELETE FROM _export_targets")
    with pytest.raises(SelectionError, match="project 12345"):
        await verified(sim, db)
    assert not sim.query_requests


async def test_limited_days_and_days_beyond_the_table_are_skipped(db: Path) -> None:
    """Days that the table does not have completely are listed and not compared."""
    sim = await exported_project(db)
    await export(sim, db, day(12), day(12), mode="append", limit=5)
    result = await verified(sim, db, from_date=FIRST - timedelta(days=2), to_date=LAST + timedelta(days=3))
    assert (result.verified, result.days) == (True, 10)
    before, after = FIRST - timedelta(days=2), LAST + timedelta(days=1)
    assert result.skipped_date_ranges == (
        (str(before), str(FIRST - timedelta(days=1))),
        (str(after), str(LAST + timedelta(days=3))),
    )


async def test_the_last_30_days_are_the_default(db: Path) -> None:
    """If no days are given, the last 30 days before today are compared."""
    sim = project()
    await export(sim, db, date(2024, 4, 1), date(2024, 5, 31), chunk_days=31)
    result = await verified(sim, db, from_date=None, to_date=None)
    assert (result.from_date, result.to_date, result.days) == ("2024-05-02", "2024-05-31", 30)
    assert (await verified(sim, db, from_date="2024-04", to_date="2024-04")).days == 30


async def test_arguments_are_checked(db: Path) -> None:
    """The error is raised before the first request, and names the argument."""
    sim = await exported_project(db)
    cases: list[tuple[dict[str, Any], str]] = [
        ({"tolerance": 1.5}, "tolerance"),
        ({"ignore": "Page View"}, "ignore"),
        ({"retries": -1}, "retries"),
        ({"max_wait": -1.0}, "max_wait"),
        ({"per_hour": -1}, "per_hour"),
        ({"reporting_timezone": "Mars/Olympus"}, "reporting_timezone"),
        ({"from_date": "2023-01-01", "to_date": "2023-01-31"}, "from_date"),
        ({"from_date": "soon"}, "from_date"),
    ]
    for options, argument in cases:
        with pytest.raises(ArgumentError) as caught:
            await verified(sim, db, **options)
        assert caught.value.argument == argument
    assert not sim.query_requests


async def test_only_exported_tables_are_verified(db: Path) -> None:
    """Missing tables and the user's own tables cannot be compared."""
    sim = await exported_project(db)
    query(db, "CREATE TABLE mine (a INTEGER)")
    with pytest.raises(TableNotFoundError):
        await verified(sim, db, table="nothing")
    with pytest.raises(TableFormatError):
        await verified(sim, db, table="mine")
    assert (await verified(sim, db, table="EVENTS")).table == "events"
