"""The times of legacy projects: converted if the zone is known, and noticed if it is not."""

import json
import time
from collections.abc import Iterable
from datetime import UTC, datetime
from itertools import cycle
from pathlib import Path

import pytest
from examples import slow
from support import export, held, ledger, simulator, truth

from mixpanel_export._timezones import detect_offset, naive_utc, times_are_utc
from mixpanel_export.simulator import Simulator

pytestmark = pytest.mark.anyio

MARCH = ("2024-03-08", "2024-03-12")  # clocks in the United States go forward on the 10th
NOVEMBER = ("2024-11-01", "2024-11-05")  # and back on the 3rd
JULY = ("2024-07-01", "2024-07-05")
LATER = datetime(2025, 1, 1, tzinfo=UTC)


@pytest.fixture
def db(tmp_path: Path) -> Path:
    return tmp_path / "test.duckdb"


def legacy(zone: str | None = "US/Pacific", **options: float) -> Simulator:
    """Return a project that keeps the local time of *zone*."""
    return simulator(timezone=zone, now=lambda: LATER, **options)


@pytest.mark.parametrize("days", [MARCH, NOVEMBER])
@pytest.mark.parametrize("zone", ["Australia/Lord_Howe", *slow(["US/Pacific", "Asia/Kolkata"])])
async def test_a_legacy_projects_times_become_utc(db: Path, zone: str, days: tuple[str, str]) -> None:
    """With the project's zone, every time is UTC, also in skipped and repeated hours."""
    sim = legacy(zone)
    await export(sim, db, *days, project_timezone=zone, now=lambda: LATER)
    assert held(db) == truth(sim, *days)
    assert {found for (found,) in ledger(db, "timezone")} == {zone}


async def test_an_event_outside_its_day_is_known_by_the_projects_clock(db: Path) -> None:
    """Days start at the project's midnight; an event that two of them deliver is visible once."""
    sim = legacy(leaks=0.2)
    await export(sim, db, *MARCH, project_timezone="US/Pacific", now=lambda: LATER, chunk_days=1)
    assert held(db) == truth(sim, *MARCH)
    inside = await _outside_rows(db)
    assert 0 < inside < 200


async def _outside_rows(db: Path) -> int:
    return sum(number for (number,) in ledger(db, "outside_rows"))


@pytest.mark.parametrize("zone,hours", [("US/Pacific", "-7"), ("Asia/Kolkata", r"\+5.5")])
async def test_times_that_look_local_are_warned_of_once(db: Path, zone: str, hours: str) -> None:
    """Without the zone, the export is the same as for UTC, and one warning names the option."""
    sim = legacy(zone)
    with pytest.warns(UserWarning, match=f"{hours} hours from UTC.*project_timezone") as warned:
        await export(sim, db, *JULY, now=lambda: LATER, chunk_days=1)
    assert len(warned) == 1
    assert held(db) == truth(sim, *JULY, as_utc=True)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("late", [0.0, 0.9])
async def test_events_that_come_late_are_no_local_times(db: Path, late: float) -> None:
    """A project in UTC causes no warning, however late its events arrive."""
    sim = legacy(None, late=late)
    await export(sim, db, *JULY, now=lambda: LATER)
    assert held(db) == truth(sim, *JULY)


def lines(late: Iterable[float], **properties: object) -> list[bytes]:
    """Return events that were processed so many seconds after their time."""
    return [
        json.dumps(
            {
                "event": "e",
                "properties": {
                    "time": 1.6e9,
                    "mp_processing_time_ms": (1.6e9 + seconds) * 1000,
                    **properties,
                },
            }
        ).encode()
        for seconds in late
    ]


@pytest.mark.parametrize(
    "late,offset",
    [
        ([7 * 3600 + 3] * 20, -7.0),
        ([-5.5 * 3600 + 3] * 20, 5.5),
        ([-5.75 * 3600 + 60] * 20, 5.75),
        ([7 * 3600] * 19, None),
        ([7 * 3600] * 40 + [3.0] * 39, -7.0),
        ([7 * 3600] * 40 + [3.0] * 40, None),
        ([3.0] * 40, None),
        ([600.0] * 40, None),
        ([5400.0] * 40, None),
        ([20 * 3600.0] * 40, None),
        ([12 * 3600.0] * 20, -12.0),
        ([13 * 3600.0] * 40, None),
        ([-14 * 3600.0] * 20, 14.0),
        ([-15 * 3600.0] * 40, None),
    ],
)
def test_an_offset_is_what_a_zone_can_have_and_most_events_show(
    late: list[float], offset: float | None
) -> None:
    """If there are enough events, and most are off by the offset of a zone, there is a warning; delays cause none."""
    assert detect_offset(lines(late)) == offset


def test_a_sample_of_the_lines_is_enough() -> None:
    """Lines without end are not read to their end."""
    assert detect_offset(cycle(lines([7 * 3600.0]))) == -7.0


def test_times_are_in_utc_if_most_events_show_it() -> None:
    """Too few events, and events with an offset, prove nothing."""
    assert times_are_utc(lines([3.0] * 20))
    assert not times_are_utc(lines([3.0] * 19))
    assert not times_are_utc(lines([7 * 3600.0] * 20))


@pytest.mark.skipif(not hasattr(time, "tzset"), reason="the zone of a process is POSIX'")
def test_the_zone_of_the_machine_does_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    """A moment has the same naive UTC on every machine."""
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    time.tzset()
    try:
        assert naive_utc(datetime(2024, 3, 1, 12, tzinfo=UTC)) == datetime(2024, 3, 1, 12)
        assert naive_utc(datetime(2024, 3, 1, 12)) == datetime(2024, 3, 1, 3)
    finally:
        monkeypatch.undo()
        time.tzset()


def test_only_events_that_were_tracked_live_tell() -> None:
    """The times of imported events mean nothing, nor do lines that are not events."""
    late = [7 * 3600.0] * 40
    junk = [b"text", b"[1]", b"null", b'{"event":"e"}', b"[" * 10_000, b'{"properties":{"time":"x"}}']
    for number in ("1e400", "-1e400", "NaN", "9" * 400):
        times = (
            f'{{"properties":{{"time":{time},"mp_processing_time_ms":{number}}}}}' for time in ("1", number)
        )
        junk += [line.encode() for line in times]
    assert detect_offset(lines(late, **{"$import": True})) is None
    assert detect_offset(junk * 10 + lines(late)) == -7.0
    assert detect_offset(lines(late, text="x" * 70_000)) is None


async def test_a_change_of_the_clocks_does_not_hide_the_offset(db: Path) -> None:
    """A project whose winter time is UTC is noticed on its first day of summer time."""
    with pytest.warns(UserWarning, match="1 hours from UTC"):
        await export(legacy("Europe/London"), db, "2024-03-28", "2024-04-03", now=lambda: LATER)


@pytest.mark.filterwarnings("error")
async def test_who_says_that_times_are_utc_is_believed(db: Path) -> None:
    """With the option that the warning names, whatever its value, there is no warning."""
    await export(legacy(), db, *JULY, project_timezone="UTC", now=lambda: LATER)
