"""The numbers in a report equal those of SQL."""

import json
from datetime import date
from pathlib import Path

import duckdb
import pytest
from report_pages import Page, create_database, day, report_data, store_events
from support import query

from mixpanel_export import Workspace
from mixpanel_export._report.activity import unit_for
from mixpanel_export._report.model import STACKED_NAMES, ReportData
from mixpanel_export._report.page import render

LAST = "(SELECT max(export) FROM _export_batches WHERE table_name = 'events')"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return create_database(tmp_path / "events.duckdb")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> ReportData:
    """The data of a report on the database as it was created."""
    return report_data(create_database(tmp_path_factory.mktemp("data") / "events.duckdb"))


def test_events_and_users_per_day(path: Path, data: ReportData) -> None:
    """Each day has the events, the users and the events by name that SQL counts."""
    activity = data.tables[0].activity
    where = "event_time >= '2024-03-01' AND event_time < '2024-03-07'"
    assert [(bucket.first, bucket.events, bucket.users) for bucket in activity.buckets] == query(
        path,
        f"SELECT event_time::DATE AS d, count(*), count(DISTINCT distinct_id) FROM events WHERE {where} GROUP BY d ORDER BY d",
    )
    counts = dict(
        query(path, "SELECT event_name, count(*) FROM events WHERE event_name IS NOT NULL GROUP BY ALL")
    )
    assert {name.name: name.events for name in activity.names} == counts
    for bucket in activity.buckets:
        by_name = dict(
            query(
                path,
                f"SELECT event_name, count(*) FROM events WHERE event_time::DATE = '{bucket.first}' GROUP BY ALL",
            )
        )
        assert bucket.by_name == tuple(by_name.get(name.name, 0) for name in activity.names[:STACKED_NAMES])
        assert bucket.others == bucket.events - sum(bucket.by_name)
    total, users = query(path, "SELECT count(*), count(DISTINCT distinct_id) FROM events")[0]
    assert (activity.events, activity.users) == (total, users)
    assert activity.events_outside == 2


def test_days_are_those_of_the_zone(path: Path) -> None:
    """An event shortly after midnight in UTC belongs to the day before in the project's zone."""
    with duckdb.connect(str(path)) as connection:
        connection.execute("UPDATE _export_batches SET timezone = 'US/Pacific'")
        connection.execute(
            "UPDATE events SET event_time = '2024-03-02 03:00:00' WHERE event_time IS NOT NULL"
        )
    (bucket,) = report_data(path).tables[0].activity.buckets
    assert bucket.first == day(1)
    assert bucket.events == query(path, "SELECT count(event_time) FROM events")[0][0]


@pytest.mark.parametrize(
    "days, unit", [(1, "day"), (370, "day"), (371, "week"), (2590, "week"), (2591, "month")]
)
def test_long_ranges_have_longer_buckets(days: int, unit: str) -> None:
    """A chart has at most 370 bars for days or weeks."""
    assert unit_for(days) == unit


def test_weeks_have_their_own_users(path: Path) -> None:
    """A user who is active on several days of a week is counted once for the week."""
    with duckdb.connect(str(path)) as connection:
        connection.execute("UPDATE _export_batches SET to_date = '2025-06-01' WHERE batch = 1")
        store_events(connection, "events", 1, date(2025, 1, 14), 20)
        store_events(connection, "events", 1, date(2025, 1, 15), 20)
    activity = report_data(path).tables[0].activity
    assert activity.unit == "week"
    assert [(bucket.first, bucket.events, bucket.users) for bucket in activity.buckets] == query(
        path,
        "SELECT date_trunc('week', event_time)::DATE AS w, count(*), count(DISTINCT distinct_id) FROM events "
        "WHERE event_time >= '2024-03-01' GROUP BY w ORDER BY w",
    )
    assert activity.buckets[-1].last == date(2025, 1, 19)


def test_the_calendar_has_the_status_of_each_day(data: ReportData) -> None:
    """The statuses are those of `mpx status`; days with two empty responses are silent."""
    calendar = data.tables[0].calendars[0]
    statuses = {day.day: (day.status, day.rows) for day in calendar.days}
    assert statuses == {
        day(1): ("complete", 100),
        day(2): ("complete", 30),
        day(3): ("open", 38),
        day(4): ("failed", 0),
        day(5): ("missing", 0),
        day(6): ("silent", 0),
    }
    assert dict(calendar.counts) == {"complete": 2, "open": 1, "failed": 1, "missing": 1, "silent": 1}
    assert [(failure.first, failure.last) for failure in calendar.failures] == [(day(4), day(4))]


def test_properties_without_a_flat_table(path: Path, data: ReportData) -> None:
    """In a small table, the values in all events are counted; `null` is not a value."""
    properties = data.tables[0].properties
    assert properties.flat_table is None
    assert properties.events == properties.total_events == 170
    expected = query(
        path,
        "SELECT key, count(*) FILTER (type <> 'NULL') AS n FROM events AS e, json_each(e.properties) GROUP BY key "
        "ORDER BY n DESC, key",
    )
    assert [(row.key, row.values) for row in properties.rows] == expected
    assert {row.key: row.type for row in properties.rows} == {
        "$email": "text",
        "plan": "integer",
        "list": "list",
        "rare": "text",
    }
    assert {row.key: row.share for row in properties.rows}["rare"] == pytest.approx(43 / 170)


def test_properties_of_a_flat_table(path: Path) -> None:
    """With a flat table, counts and types are those of `_flat_columns`."""
    with Workspace(path=path) as workspace:
        workspace.flatten()
    properties = report_data(path).tables[0].properties
    assert properties.flat_table == "events_flat"
    assert [(row.key, row.type, row.values) for row in properties.rows] == query(
        path, "SELECT key, type, value_count FROM _flat_columns ORDER BY value_count DESC, key"
    )
    assert {row.key: row.values for row in properties.rows}["rare"] == query(
        path, 'SELECT count("rare") FROM events_flat'
    )[0][0]


def test_quality(path: Path, data: ReportData) -> None:
    """Duplicates, rejects and repairs are those of the ledger."""
    quality = data.tables[0].quality
    sums = "sum(removed_duplicates)::BIGINT, sum(rejects)::BIGINT, sum(repaired)::BIGINT"
    assert [(quality.removed, quality.rejected, quality.repaired)] == query(
        path, f"SELECT {sums} FROM _export_batches WHERE table_name = 'events'"
    )
    assert quality.across == query(path, "SELECT count(*) FROM _export_duplicates")[0][0]
    assert sum(count for _, count in quality.across_by_name) == quality.across
    assert sorted(reject.reason for reject in quality.rejects) == ["rejected", "repaired"]


def test_the_timeline_has_the_phases_of_the_last_export(path: Path, data: ReportData) -> None:
    """Each phase lasts as long as the times of the ledger say; the quota is waited for twice."""
    timeline = data.tables[0].timeline
    assert [row.batch.number for row in timeline.rows] == [
        number
        for (number,) in query(
            path, f"SELECT batch FROM _export_batches WHERE export = {LAST} ORDER BY queued_at"
        )
    ]
    assert {name: timeline.rows[0].seconds(name) for name in ("quota wait", "connection", "first byte")} == {
        "quota wait": 2.0,
        "connection": 2.0,
        "first byte": 5.0,
    }
    for phase, begin, end in (
        ("transfer", "first_byte_at", "received_at"),
        ("validation", "received_at", "validated_at"),
        ("commit", "validated_at", "finished"),
    ):
        expected = query(
            path,
            f"SELECT batch, epoch({end}) - epoch({begin}) FROM _export_batches WHERE export = {LAST} AND {end} > {begin}",
        )
        assert [
            (row.batch.number, row.seconds(phase)) for row in timeline.rows if row.seconds(phase)
        ] == expected
    failed = timeline.rows[-1]
    assert failed.batch.status == "failed"
    assert [phase.name for phase in failed.phases][-1] == "first byte"
    assert (
        timeline.seconds
        == query(
            path,
            f"SELECT epoch(max(finished)) - epoch(min(queued_at)) FROM _export_batches WHERE export = {LAST}",
        )[0][0]
    )


def test_an_old_ledger_has_no_timeline(path: Path) -> None:
    """The batches of an older release have no times, so there is no chart."""
    with duckdb.connect(str(path)) as connection:
        connection.execute("UPDATE _export_batches SET export = NULL, queued_at = NULL")
    data = report_data(path)
    assert data.tables[0].timeline.rows == ()
    assert "table-1-timeline-chart" not in Page(render(data)).ids


def test_requests_and_bytes_per_day(path: Path, data: ReportData) -> None:
    """The requests and bytes of a day are the sums over the batches whose last request was on that day."""
    usage = data.tables[0].usage
    assert [(row.day, row.requests, row.bytes_read) for row in usage] == query(
        path,
        "SELECT started::DATE, sum(attempts)::BIGINT, sum(bytes)::BIGINT FROM _export_batches WHERE table_name = 'events' GROUP BY 1 ORDER BY 1",
    )


def test_the_page_prints_these_numbers(path: Path, data: ReportData) -> None:
    """The tables of the page have the rows of SQL, with separators of thousands."""
    page = Page(render(data))
    assert [row[:3] for row in page.tables["Events and users per day"][1:4]] == [
        [str(first), f"{events:,}", f"{users:,}"]
        for first, events, users in query(
            path,
            "SELECT event_time::DATE AS d, count(*), count(DISTINCT distinct_id) FROM events WHERE event_time > '2024-01-01' "
            "GROUP BY d ORDER BY d DESC",
        )
    ]
    ledger = [row[:8] for row in page.tables["Batches in the ledger"][1:5]]
    assert ledger == [
        list(map(str, row))
        for row in query(
            path,
            "SELECT batch, from_date || CASE WHEN to_date > from_date THEN ' to ' || to_date ELSE '' END, status, \"rows\", removed_duplicates, "
            "rejects, repaired, attempts FROM _export_batches WHERE table_name = 'events' ORDER BY batch DESC",
        )
    ]
    properties = page.tables["Properties, with the share of events that have a value"]
    assert ["rare", "text", "43", "25.3 %", ""] in properties
    assert ["2024-03-06", "3,000,000"] not in properties
    assert page.tables["Requests and bytes per day"][1][2] == "3,001,000"


def test_profiles_have_their_numbers(path: Path, data: ReportData) -> None:
    """The page has the rows, the last export and the last failure, also of a table whose only export failed."""
    (people,) = data.profiles
    assert people.rows == query(path, "SELECT count(*) FROM people")[0][0]
    times = "SELECT max(finished) FROM _export_snapshots WHERE status = '{}'"
    assert [(people.last_export,), (people.failed,)] == [
        *query(path, times.format("complete")),
        *query(path, times.format("failed")),
    ]
    assert "2024-06-01 14:00" in Page(render(data)).source
    with duckdb.connect(str(path)) as connection:
        connection.execute("DROP TABLE people; DELETE FROM _export_snapshots WHERE status = 'complete'")
    (people,) = report_data(path).profiles
    assert (people.rows, people.last_export, people.failed is None) == (0, None, False)


def test_the_charts_have_these_numbers(path: Path, data: ReportData) -> None:
    """The bars of the chart of events add up to the events of SQL, by day and by name."""
    page = Page(render(data))
    rows = json.loads(page.scripts["table-1-events-chart"])["datasets"]["rows"]
    names = [name.name for name in data.tables[0].activity.names[:STACKED_NAMES]]
    bars = [(row["begin"], names[row["index"]], row["count"]) for row in rows if row["index"] < STACKED_NAMES]
    assert sorted(bars) == query(
        path,
        "SELECT epoch_ms(date_trunc('day', event_time)) AS d, event_name, count(*) FROM events WHERE event_time > '2024-01-01' "
        f"AND event_name IN ({', '.join(f'$${name}$$' for name in names)}) "
        "GROUP BY ALL ORDER BY ALL",
    )
    users = json.loads(page.scripts["table-1-users-chart"])["datasets"]["rows"]
    assert [(row["begin"], row["users"]) for row in users] == query(
        path,
        "SELECT epoch_ms(date_trunc('day', event_time)) AS d, count(DISTINCT distinct_id) FROM events "
        "WHERE event_time > '2024-01-01' GROUP BY ALL ORDER BY ALL",
    )
