"""A sync every night for a year: the table follows a changing project, through outages, kills and wrong clocks."""

import sys
import time
from collections.abc import Callable
from pathlib import Path

import anyio
import pytest
from nights import BUDGET, QUARTER, Project, nights

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGKILL")


async def live(project: Project) -> dict[str, object]:
    """Spend all nights, and check the table after each week. Return figures about them."""
    spent: list[int] = []
    cpu: list[float] = []  # of the simulator, too
    for number, night in enumerate(nights(project.seed, project.weeks)):
        before, started = len(project.sim.requests), time.process_time()
        result = await project.spend(night)
        requests = len(project.sim.requests) - before
        if night.is_good:
            assert result is not None
            assert not result.has_failures
            assert requests == result.requests
            assert requests - result.export.empty_batches <= BUDGET  # empty answers are requested again
            spent.append(requests)
            cpu.append(time.process_time() - started)
        if number % 7 == 6 and project.db.exists():
            project.check()
            week = number // 7
            if week % QUARTER == QUARTER - 1 or week == project.weeks - 1:
                assert project.is_exact(), f"after week {week}"
    return {
        "requests_a_good_night": sum(spent) / len(spent),
        "cpu_seconds_a_good_night": sum(cpu) / len(cpu),
        "stale_days_a_week": project.stale,
    }


@pytest.mark.parametrize("seed", [3967])
def test_some_weeks(
    seed: int, tmp_path: Path, record_testsuite_property: Callable[[str, object], None]
) -> None:
    """Every recent day has the events of its last fetch, and after quiet weeks Mixpanel's current events."""
    figures = anyio.run(live, Project(tmp_path / "events.duckdb", seed, weeks=3))
    for name, value in figures.items():
        record_testsuite_property(name, value)


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("seed", [2])
def test_a_year(seed: int, tmp_path: Path, record_testsuite_property: Callable[[str, object], None]) -> None:
    """A year of syncs, with a quiet week at the end of each quarter."""
    figures = anyio.run(live, Project(tmp_path / "events.duckdb", seed, weeks=52))
    for name, value in figures.items():
        record_testsuite_property(name, value)
