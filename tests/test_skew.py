"""A legacy project's times: converted where its zone is known, and noticed where it is not."""

from datetime import UTC, datetime
from pathlib import Path

import pytest
from support import export, held, ledger, simulator, truth

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
@pytest.mark.parametrize("zone", ["US/Pacific", "Asia/Kolkata", "Australia/Lord_Howe"])
async def test_a_legacy_projects_times_become_utc(db: Path, zone: str, days: tuple[str, str]) -> None:
    """With the project's zone every time is UTC, in the hours that clocks skip and repeat too."""
    sim = legacy(zone)
    await export(sim, db, *days, project_timezone=zone, now=lambda: LATER)
    assert held(db) == truth(sim, *days)
    assert {found for (found,) in ledger(db, "timezone")} == {zone}


async def test_an_event_outside_its_day_is_known_by_the_projects_clock(db: Path) -> None:
    """Days begin where the project's clock says so: events that two of them deliver are shown once."""
    sim = legacy(leaks=0.2)
    await export(sim, db, *MARCH, project_timezone="US/Pacific", now=lambda: LATER, chunk_days=1)
    assert held(db) == truth(sim, *MARCH)
    inside = await _outside_rows(db)
    assert 0 < inside < 200


async def _outside_rows(db: Path) -> int:
    return sum(number for (number,) in ledger(db, "outside_rows"))


@pytest.mark.parametrize("zone,hours", [("US/Pacific", "-7"), ("Asia/Kolkata", r"\+5.5")])
async def test_times_that_look_local_are_warned_of_once(db: Path, zone: str, hours: str) -> None:
    """Without the zone the export is what it would be for UTC, and one warning names the option."""
    sim = legacy(zone)
    with pytest.warns(UserWarning, match=f"{hours} hours off UTC.*project_timezone") as warned:
        await export(sim, db, *JULY, now=lambda: LATER, chunk_days=1)
    assert len(warned) == 1
    assert held(db) == truth(sim, *JULY, as_utc=True)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("late", [0.0, 0.9])
async def test_events_that_come_late_are_no_local_times(db: Path, late: float) -> None:
    """A project in UTC is not suspected, however late its events arrive."""
    sim = legacy(None, late=late)
    await export(sim, db, *JULY, now=lambda: LATER)
    assert held(db) == truth(sim, *JULY)
