"""Wall clocks of legacy projects become UTC: the rule against DuckDB's own, and what every clock promises."""

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from zoneinfo import ZoneInfo

import duckdb
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mixpanel_export._zone import checked_zone, in_zone, to_utc

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
@settings(max_examples=60)
def test_the_rule_is_duckdbs(zone: str, times: list[datetime]) -> None:
    """For all zones and times the moment is the one that DuckDB finds for the table."""
    assert duckdbs(zone, times) == [to_utc(time, zone).replace(tzinfo=None) for time in times]


@pytest.mark.parametrize("zone", ZONES)
def test_every_change_of_the_clocks_is_duckdbs(zone: str) -> None:
    """From hours before to a day after each change of the clocks, DuckDB finds the same moments."""
    quarters = [timedelta(minutes=minutes) for minutes in range(-180, 27 * 60, 15)]
    times = [change + quarter for change in changes(zone) for quarter in quarters]
    assert duckdbs(zone, times) == [to_utc(time, zone).replace(tzinfo=None) for time in times]


@given(LOCAL)
def test_the_clock_shows_the_time_again(local: tuple[str, datetime]) -> None:
    """For all times, the clock shows that time at the moment found, or a later one where it skipped the time."""
    zone, time = local
    shown = in_zone(to_utc(time, zone), zone).replace(tzinfo=None)
    assert shown >= time
    if shown > time:
        assert skipped(zone, time)


@given(LOCAL, st.integers(1, 36 * 60))
def test_order_is_kept_where_the_earlier_time_exists(local: tuple[str, datetime], minutes: int) -> None:
    """For all times that clocks show, what they show later is later, also across an hour that comes twice."""
    zone, time = local
    if not skipped(zone, time):
        assert to_utc(time, zone) < to_utc(time + timedelta(minutes=minutes), zone)


def skipped(zone: str, time: datetime) -> bool:
    """Whether clocks in *zone* never show *time*: neither reading of it shows it again."""
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
    """A skipped time moves beyond the gap, one that comes twice is the second, and all others are plain."""
    assert to_utc(local, zone) == utc


@pytest.mark.parametrize("zone", [*ZONES, "Etc/UTC", "Japan"])
def test_names_of_the_zone_database_are_taken(zone: str) -> None:
    """Each name of the zone database is a zone, also one without a continent."""
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
    """Abbreviations, other spellings, offsets, folders, paths and this machine's zone are refused with an example."""
    with pytest.raises(
        ValueError, match=r"^project_timezone must be an IANA name such as US/Pacific, got "
    ) as caught:
        checked_zone(name)
    assert repr(name) in str(caught.value)


def test_the_first_name_counts() -> None:
    """The first name that is given wins, even where it says UTC, and none at all is UTC."""
    assert checked_zone("UTC", "US/Pacific") == "UTC"
    assert checked_zone(None, "US/Pacific") == "US/Pacific"
    assert checked_zone(None, None) == checked_zone(None) == "UTC"


def test_a_clock_shows_the_same_moment() -> None:
    """A moment keeps being that moment, whatever clock shows it."""
    moment = datetime(2024, 1, 1, 7, tzinfo=UTC)
    shown = in_zone(moment, "US/Pacific")
    assert shown == moment
    assert (shown.day, shown.hour) == (31, 23)
    assert in_zone(shown, "UTC").hour == 7
