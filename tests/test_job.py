"""What an export is asked to do, as far as no other test asks it through a door."""

import anyio
import pytest

from mixpanel_export._job import _planned_requests
from mixpanel_export._limits import Gate


@pytest.mark.parametrize(
    "sent,days,planned",
    [(0, 365, 50), (0, 1, 50), (48, 365, 10), (48, 1000, 10), (48, 1001, 50), (57, 7, 3), (59, 100, 1), (59, 101, 50), (60, 1, 50)],
)  # fmt: skip
def test_a_plan_spends_what_is_left_of_the_hour_and_a_reserve_stays(
    sent: int, days: int, planned: int
) -> None:
    """Five of six requests that are left are planned, unless their chunks would be too long; then a whole hour's."""

    async def asked() -> int | None:
        gate = Gate(0, 60)
        for _ in range(sent):
            await gate.admit()
        return _planned_requests(gate, days)

    assert anyio.run(asked) == planned


def test_a_plan_without_a_quota_has_no_bound() -> None:
    """Without limits the plan may ask as often as it likes."""
    assert _planned_requests(Gate(0, 0), 365) is None
