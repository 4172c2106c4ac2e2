"""What `on_progress` reports about the quota while an export runs."""

from pathlib import Path

import pytest
from support import export, simulator

from mixpanel_export.results import Progress

pytestmark = pytest.mark.anyio


class StopError(Exception):
    """The callback does not want to continue."""


async def test_a_spent_hour_holds_nobody_up_who_has_been_admitted(tmp_path: Path) -> None:
    """While the last response arrives, nothing waits for the quota, whatever is left of it."""
    seen: list[Progress] = []
    sim = simulator(first_byte=0.5)
    await export(sim, tmp_path / "x.duckdb", one_request=True, per_hour=1, on_progress=seen.append)
    assert any((progress.quota_left, progress.batches_done) == (0, 0) for progress in seen)
    assert {(progress.waiting_for, progress.waiting_seconds) for progress in seen} == {(None, None)}
    assert {progress.quota_wait for progress in seen} == {0}


async def test_a_wait_for_the_quota_is_told_in_whole_seconds(tmp_path: Path) -> None:
    """The first progress has the whole wait, later ones the wait of the next request."""
    seen: list[Progress] = []

    def look(progress: Progress) -> None:
        seen.append(progress)
        if progress.waiting_seconds is not None:
            raise StopError

    with pytest.raises(StopError):
        await export(simulator(), tmp_path / "x.duckdb", chunk_days=3, per_hour=1, on_progress=look)
    assert (seen[0].batches, seen[0].requests) == (3, 0)
    assert seen[0].quota_wait in range(7200, 7211 + 5)  # less or more where the machine stalls
    assert (seen[-1].requests, seen[-1].quota_left, seen[-1].waiting_for) == (1, 0, "the quota")
    assert seen[-1].waiting_seconds in range(3500, 3606)
