"""The arguments of an export that no test of the public interface covers."""

from datetime import date, timedelta
from pathlib import Path

import anyio
import pytest
from support import export, simulator

from mixpanel_export._export.job import _planned_requests
from mixpanel_export._quota.gate import Gate
from mixpanel_export._quota.limits import Quota
from mixpanel_export.simulator import RequestLog

LARGE = date(2024, 3, 17)
THIRTY_DAYS = "2024-03-01", "2024-03-30"


@pytest.mark.parametrize(
    "sent,days,planned",
    [(0, 365, 50), (0, 1, 50), (48, 365, 10), (48, 1000, 10), (48, 1001, 50), (57, 7, 3), (59, 100, 1), (59, 101, 50), (60, 1, 50)],
)  # fmt: skip
def test_a_plan_spends_what_is_left_of_the_hour_and_a_reserve_stays(
    sent: int, days: int, planned: int
) -> None:
    """Five of six remaining requests are planned, unless the chunks would be too long; then those of a whole hour."""

    async def asked() -> int | None:
        gate = Gate(Quota(0, 60))
        for _ in range(sent):
            async with gate.admission() as admission:
                await admission.admit()
        return _planned_requests(gate.statistics(), days)

    assert anyio.run(asked) == planned


def test_a_plan_without_a_quota_has_no_bound() -> None:
    """Without limits, the plan may have any number of requests."""

    async def planned() -> int | None:
        return _planned_requests(Gate(Quota(0, 0)).statistics(), 365)

    assert anyio.run(planned) is None


def busy(when: date) -> int:
    """Return the events of a day: one day has as many as thirty others."""
    return 300 if when == LARGE else 10


def spans(requests: list[RequestLog]) -> list[tuple[date, date]]:
    """Return the days that were asked for, in the order of the requests."""
    return [(request.first, request.last) for request in requests if request.first and request.last]


def weekend_days(first: date, last: date) -> int:
    """Return how many of the days are Saturdays or Sundays."""
    return sum((first + timedelta(number)).weekday() >= 5 for number in range((last - first).days + 1))


@pytest.mark.anyio
async def test_chunks_are_asked_for_in_the_plans_order(tmp_path: Path) -> None:
    """In every event loop, the longest chunks are requested first; then those with few weekend days, and then the newest."""
    sim = simulator(events_per_day=5)
    await export(sim, tmp_path / "test.duckdb", "2024-03-01", "2024-04-20")
    asked = spans(sim.requests)
    assert len(asked) == 20
    assert asked == sorted(
        asked, key=lambda span: (span[1] - span[0], -weekend_days(*span), span[0]), reverse=True
    )


@pytest.mark.anyio
@pytest.mark.parametrize("mode", ["replace", "append"])
async def test_an_export_begins_with_the_days_that_had_most_events(tmp_path: Path, mode: str) -> None:
    """The sizes of earlier batches are used: for whole batches that are replaced, and day by day for a new table."""
    sim, db = simulator(events_per_day=busy), tmp_path / "test.duckdb"
    await export(sim, db, *THIRTY_DAYS)
    await export(sim, db, *THIRTY_DAYS, mode=mode)
    before, after = spans(sim.requests)[:20], spans(sim.requests)[20:]
    [large] = [span for span in before if span[0] <= LARGE <= span[1]]
    if mode == "append":
        assert after[0] == large
        assert sorted(after) == sorted(before)
    else:
        days = [date.fromordinal(day) for day in range(large[0].toordinal(), large[1].toordinal() + 1)]
        assert sorted(after[: len(days)]) == [(day, day) for day in days]
        assert len(after) <= 20
