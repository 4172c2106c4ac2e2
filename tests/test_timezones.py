"""Local times of legacy projects become UTC: compared with DuckDB's own conversion, up to the table."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import IO, Any
from zoneinfo import ZoneInfo

import anyio
import duckdb
import httpx
import pytest
from examples import examples, slow
from hypothesis import given
from hypothesis import strategies as st
from support import ACCOUNT, answering, export_from, ledger, query

from mixpanel_export._model import Chunk
from mixpanel_export._source.records import iter_events
from mixpanel_export._timezones import checked_zone, in_zone, to_utc
from mixpanel_export.errors import SelectionError

HOUR = timedelta(hours=1)
# With and without summer time, half hours and quarters, a negative summer time, a day that was skipped. Their
# rules have been the same in every release of the zone database for years.
ZONES = (
    "UTC",
    "US/Pacific",
    "America/New_York",
    "America/St_Johns",
    "America/Sao_Paulo",
    "Europe/London",
    "Europe/Dublin",
    "Europe/Berlin",
    "Asia/Kolkata",
    "Asia/Kathmandu",
    "Asia/Tokyo",
    "Australia/Lord_Howe",
    "Pacific/Apia",
    "Pacific/Chatham",
    "Etc/GMT+12",
)


def changes(zone: str) -> Iterator[datetime]:
    """The local times, to the hour, at which clocks in *zone* are put forward or back from 2009 to 2024."""
    hours = [datetime(2009, 1, 1, tzinfo=UTC) + HOUR * 24 * day for day in range(16 * 365)]
    for before, after in pairwise(moment.astimezone(ZoneInfo(zone)) for moment in hours):
        if before.utcoffset() != after.utcoffset():
            yield before.replace(tzinfo=None)


TIMES = st.datetimes(datetime(1970, 1, 1), datetime(2037, 12, 31))
CHANGES = [(zone, local) for zone in ZONES for local in changes(zone)]
# A minute anywhere, or within the days around a change of the clocks.
LOCAL = st.tuples(st.sampled_from(ZONES), TIMES) | st.builds(
    lambda change, minutes: (change[0], change[1] + timedelta(minutes=minutes)),
    st.sampled_from(CHANGES),
    st.integers(-180, 27 * 60),
)


def duckdbs(zone: str, times: Sequence[datetime]) -> list[datetime]:
    """Return the moments that DuckDB's own `timezone` finds for local *times*, in UTC and naive."""
    with duckdb.connect() as connection:
        found = connection.execute(
            "SELECT timezone('UTC', timezone(?, unnest(?::TIMESTAMP[])))", [zone, times]
        )
        return [moment for (moment,) in found.fetchall()]


@given(st.sampled_from(ZONES), st.lists(TIMES, min_size=1, max_size=50))
@examples(core=20, full=100)
def test_the_rule_is_duckdbs(zone: str, times: list[datetime]) -> None:
    """For all zones and times, the moment is the one that DuckDB computes for the table."""
    assert duckdbs(zone, times) == [to_utc(time, zone).replace(tzinfo=None) for time in times]


@pytest.mark.parametrize("zone", ZONES)
def test_every_change_of_the_clocks_is_duckdbs(zone: str) -> None:
    """From hours before to a day after each clock change, DuckDB computes the same moments."""
    quarters = [timedelta(minutes=minutes) for minutes in range(-180, 27 * 60, 15)]
    times = [change + quarter for change in changes(zone) for quarter in quarters]
    assert duckdbs(zone, times) == [to_utc(time, zone).replace(tzinfo=None) for time in times]


@given(LOCAL)
def test_the_clock_shows_the_time_again(local: tuple[str, datetime]) -> None:
    """For all times, the clock shows that time at the result, or a later one if it skipped the time."""
    zone, time = local
    shown = in_zone(to_utc(time, zone), zone).replace(tzinfo=None)
    assert shown >= time
    if shown > time:
        assert skipped(zone, time)


@given(LOCAL, st.integers(1, 36 * 60))
def test_order_is_kept_where_the_earlier_time_exists(local: tuple[str, datetime], minutes: int) -> None:
    """For all local times, a later local time is later in UTC, even in an hour that occurs twice."""
    zone, time = local
    if not skipped(zone, time):
        assert to_utc(time, zone) < to_utc(time + timedelta(minutes=minutes), zone)


def skipped(zone: str, time: datetime) -> bool:
    """Whether clocks in *zone* never show *time*: neither interpretation of it shows it again."""
    readings = (time.replace(tzinfo=ZoneInfo(zone), fold=fold).astimezone(UTC) for fold in (0, 1))
    return all(in_zone(moment, zone).replace(tzinfo=None) != time for moment in readings)


@pytest.mark.parametrize(
    "zone, local, utc",
    [
        ("US/Pacific", datetime(2024, 3, 10, 1, 59), datetime(2024, 3, 10, 9, 59, tzinfo=UTC)),
        ("US/Pacific", datetime(2024, 3, 10, 2, 30), datetime(2024, 3, 10, 10, 30, tzinfo=UTC)),
        ("US/Pacific", datetime(2024, 3, 10, 3, 0), datetime(2024, 3, 10, 10, 0, tzinfo=UTC)),
        ("US/Pacific", datetime(2024, 11, 3, 0, 59), datetime(2024, 11, 3, 7, 59, tzinfo=UTC)),
        ("US/Pacific", datetime(2024, 11, 3, 1, 0), datetime(2024, 11, 3, 9, 0, tzinfo=UTC)),
        ("US/Pacific", datetime(2024, 11, 3, 2, 0), datetime(2024, 11, 3, 10, 0, tzinfo=UTC)),
        ("Pacific/Apia", datetime(2011, 12, 30, 12), datetime(2011, 12, 30, 22, tzinfo=UTC)),
        ("Asia/Kolkata", datetime(2024, 1, 1), datetime(2023, 12, 31, 18, 30, tzinfo=UTC)),
        ("UTC", datetime(2024, 1, 1), datetime(2024, 1, 1, tzinfo=UTC)),
    ],
)
def test_a_time_is_the_later_of_its_readings(zone: str, local: datetime, utc: datetime) -> None:
    """A skipped time moves to after the gap, one that occurs twice is the second, and all others are unambiguous."""
    assert to_utc(local, zone) == utc


@pytest.mark.parametrize("zone", [*ZONES, "Etc/UTC", "Japan"])
def test_names_of_the_zone_database_are_taken(zone: str) -> None:
    """Each name in the time zone database is a zone, even one without a continent."""
    assert checked_zone(zone) == zone


@pytest.mark.parametrize(
    "name",
    [
        "",
        "PDT",
        "us/pacific",
        "US",
        "US/Pacific ",
        "US/../US/Pacific",
        "../zoneinfo/US/Pacific",
        "/usr/share/zoneinfo/US/Pacific",
        "posix/US/Pacific",
        "localtime",
        "US/Pacific\0",
        "+02:00",
    ],
)
def test_anything_else_is_no_zone(name: str) -> None:
    """Abbreviations, other spellings, offsets, folders, paths and this machine's zone are rejected with an example."""
    with pytest.raises(
        ValueError, match=r"^project_timezone must be an IANA name such as US/Pacific, got "
    ) as caught:
        checked_zone(name)
    assert repr(name) in str(caught.value)


def test_the_first_name_counts() -> None:
    """The first name that is given wins, even if it is UTC; the default is UTC."""
    assert checked_zone("UTC", "US/Pacific") == "UTC"
    assert checked_zone(None, "US/Pacific") == "US/Pacific"
    assert checked_zone(None, None) == checked_zone(None) == "UTC"


def test_a_clock_shows_the_same_moment() -> None:
    """Converting a moment to another zone does not change it."""
    moment = datetime(2024, 1, 1, 7, tzinfo=UTC)
    shown = in_zone(moment, "US/Pacific")
    assert shown == moment
    assert (shown.day, shown.hour) == (31, 23)
    assert in_zone(shown, "UTC").hour == 7


# The whole way


def line(time: object) -> bytes:
    return json.dumps({"event": "e", "properties": {"time": time}}, separators=(",", ":")).encode()


def exported(
    lines: Sequence[bytes], db: Path, first: str = "2024-03-01", **options: Any
) -> list[tuple[Any, ...]]:
    """Return times and properties of a table after an export up to 1 March whose responses have these lines."""
    transport = answering(lambda _: b"\n".join(lines))
    anyio.run(partial(export_from, transport, db, first, "2024-03-01", **options))
    return query(db, "SELECT event_time, properties::VARCHAR FROM events")


def streamed_rows(lines: Sequence[bytes], zone: str) -> list[tuple[datetime | None, str]]:
    """Return what `stream_events` yields from the same response, as table rows."""

    def download(_: Chunk, __: int | None, file: IO[bytes]) -> None:
        file.write(b"\n".join(lines))

    return [
        (time and time.replace(tzinfo=None), json.dumps(row["properties"], separators=(",", ":")))
        for row in iter_events(download, [Chunk(date(2024, 3, 1), date(2024, 3, 1))], raw=False, zone=zone)
        for time in [row["event_time"]]
    ]


def forms(time: datetime) -> Iterator[object]:
    """The ways in which Mixpanel, or those who import into it, write one local time."""
    seconds = (time - datetime(1970, 1, 1)) // timedelta(seconds=1)
    yield from (seconds, seconds + 0.5, str(seconds), f"{seconds}.25")
    if seconds >= 10**8:  # a smaller number is of seconds, whatever was meant
        yield from (seconds * 1000 + 7, str(seconds * 1000 + 7))
    whole = time.replace(microsecond=0)
    yield from (whole.isoformat(), str(whole), f"{whole}.123", f"{whole.date()}")
    yield from (f"{whole.isoformat()}Z", f"{whole}+00:00", f"{whole}-05:00", f"{whole.isoformat()}.5+05:30")


@pytest.mark.parametrize(
    "zone", ["Europe/Dublin", "Pacific/Apia", *slow(["UTC", "US/Pacific", "Asia/Kathmandu", "Etc/GMT+12"])]
)
def test_the_table_agrees_with_the_stream(zone: str, tmp_path: Path) -> None:
    """In each form, zone and season, and around clock changes, table and stream have the same rows."""
    quarters = [timedelta(minutes=minutes) for minutes in (-60, -1, 0, 30, 60, 90, 120, 180)]
    seasons = [datetime(2024, month, 15, 12, 34, 56) for month in range(1, 13)]
    near = [
        change + timedelta(hours=hours) + quarter
        for change in list(changes(zone))[-2:]
        for hours in range(0, 25, 6)
        for quarter in quarters
    ]
    lines = [line(form) for time in seasons + near for form in forms(time)]
    found = exported(lines, tmp_path / "test.duckdb", project_timezone=zone)
    assert sorted(found) == sorted(streamed_rows(lines, zone))


@pytest.mark.parametrize("zone", ["UTC", "Asia/Tokyo", "Etc/GMT+12"])
def test_odd_times_agree_too(zone: str, tmp_path: Path) -> None:
    """An invalid time, or one outside the years 1 to 9999 in UTC, is NULL in the table and None in the stream."""
    years = [-62_135_596_800, -62_135_596_800_000, "0001-01-01", 253_402_300_799_999, "9999-12-31T23:59:59"]
    beyond = ["9999-12-31T23:59:59-05:00", "0001-01-01T00:00:00+05:00", 1e300, -(10**15)]
    others = [-(10**10), 0, "yesterday", "now", "infinity", "", None, True, [0]]
    lines = [line(time) for time in (*years, *beyond, *others, 1_704_164_645)]
    found = exported(lines, tmp_path / "test.duckdb", project_timezone=zone)
    assert sorted(found, key=str) == sorted(streamed_rows(lines, zone), key=str)


def test_properties_keep_the_local_time(tmp_path: Path) -> None:
    """The column is in UTC, and `properties` has the original number."""
    found = exported([line(1_704_164_645)], tmp_path / "test.duckdb", project_timezone="US/Pacific")
    assert found == [(datetime(2024, 1, 2, 11, 4, 5), '{"time":1704164645}')]


@pytest.mark.parametrize(
    "argument, account, used",
    [
        (None, "Asia/Tokyo", "Asia/Tokyo"),
        ("UTC", "Asia/Tokyo", "UTC"),
        *slow(
            [
                (None, None, "UTC"),
                ("US/Pacific", "Asia/Tokyo", "US/Pacific"),
                ("US/Pacific", None, "US/Pacific"),
            ]
        ),
    ],
)
def test_the_argument_wins_over_the_account(
    argument: str | None, account: str | None, used: str, tmp_path: Path
) -> None:
    """The argument wins, then the account; the default is UTC. The ledger records the zone."""
    db = tmp_path / "test.duckdb"
    credentials = replace(ACCOUNT, project_timezone=account)
    found = exported([line(0)], db, credentials=credentials, project_timezone=argument)
    assert found[0][0] == to_utc(datetime(1970, 1, 1), used).replace(tzinfo=None)
    assert ledger(db, "timezone") == [(used,)]


def test_an_unknown_zone_costs_no_request(tmp_path: Path) -> None:
    """An unknown zone is rejected before anything is requested or written."""
    asked: list[str] = []

    def answer(request: httpx.Request) -> bytes:
        asked.append(str(request.url))
        return b""

    export = partial(export_from, answering(answer), tmp_path / "test.duckdb", "2024-03-01", "2024-03-01")
    with pytest.raises(ValueError, match="project_timezone"):
        anyio.run(partial(export, project_timezone="PDT"))
    assert not asked
    assert not list(tmp_path.iterdir())


def test_one_table_has_one_zone(tmp_path: Path) -> None:
    """An export that would mix times of two zones in one table is rejected with both names; replacing is allowed."""
    db = tmp_path / "test.duckdb"
    exported([line(0)], db, project_timezone="US/Pacific")
    for mode in ("append", "resume"):
        with pytest.raises(SelectionError, match=r"US/Pacific.*Asia/Tokyo|Asia/Tokyo.*US/Pacific"):
            exported([line(0)], db, project_timezone="Asia/Tokyo", mode=mode)
    assert exported([line(0)], db, project_timezone="Asia/Tokyo", mode="replace")[0][0].hour == 15
    assert ledger(db, "timezone") == [("Asia/Tokyo",)]


@pytest.mark.parametrize(
    "zone, hour, status",
    [
        ("Asia/Tokyo", 14, "open"),
        ("US/Pacific", 32, "complete"),
        *slow([("UTC", 23, "open"), ("UTC", 24, "complete")]),
        *slow([("Asia/Tokyo", 15, "complete"), ("US/Pacific", 31, "open")]),
    ],
)
def test_a_day_is_over_when_it_is_over_in_the_project(
    zone: str, hour: int, status: str, tmp_path: Path
) -> None:
    """1 March is final 48 hours after its end in the project's zone, *hour* hours after the start of 3 March."""
    db = tmp_path / "test.duckdb"
    now = datetime(2024, 3, 3, tzinfo=UTC) + timedelta(hours=hour)
    exported([line(0)], db, project_timezone=zone, now=lambda: now.astimezone(ZoneInfo("Asia/Kathmandu")))
    assert ledger(db, "status") == [(status,)]


@pytest.mark.parametrize("zone, chunks", [("Asia/Tokyo", 1), ("US/Pacific", 2)])
def test_days_open_in_the_project_are_fetched_alone(zone: str, chunks: int, tmp_path: Path) -> None:
    """At the same moment, 1 March is in a week of closed days in Tokyo, and an open day in California."""
    db = tmp_path / "test.duckdb"
    now = datetime(2024, 3, 4, tzinfo=UTC)
    exported([line(0)], db, "2024-02-24", project_timezone=zone, now=lambda: now, max_workers=1)
    assert len(ledger(db)) == chunks
