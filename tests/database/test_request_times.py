"""The ledger has the times of each batch's last request."""

from collections.abc import Callable
from datetime import datetime, timedelta
from itertools import count
from pathlib import Path

import pytest
from support import NOW, export, ledger, simulator

from mixpanel_export.simulator import Fault

pytestmark = pytest.mark.anyio

TIMES = "queued_at, connecting_at, connected_at, started, first_byte_at, received_at, validated_at, finished"


def ticking() -> Callable[[], datetime]:
    """Return a clock that advances by a millisecond whenever it is read."""
    ticks = count()
    return lambda: NOW + timedelta(milliseconds=next(ticks))


async def test_the_steps_of_a_batch_are_in_order(db: Path) -> None:
    """Every step of a committed batch has its own time, later than the previous step."""
    await export(simulator(), db, last="2024-03-06", chunk_days=2, now=ticking())
    rows = ledger(db, TIMES)
    assert len(rows) == 3
    for row in rows:
        assert list(row) == sorted(set(row))


async def test_a_failed_batch_has_the_times_of_its_last_request(db: Path) -> None:
    """The steps that the last request did not reach are NULL."""
    sim = simulator(faults=[Fault("500")])
    await export(sim, db, last="2024-03-02", chunk_days=1, retries=1, now=ticking())
    for *steps, first_byte, received, validated, finished in ledger(db, TIMES):
        assert [*steps, finished] == sorted({*steps, finished})
        assert (first_byte, received, validated) == (None, None, None)


async def test_batches_name_their_export(db: Path) -> None:
    """All batches of an export have the number of its first batch."""
    sim = simulator()
    await export(sim, db, last="2024-03-04", chunk_days=2)
    await export(sim, db, "2024-03-05", "2024-03-08", chunk_days=2, mode="append")
    assert ledger(db, "batch, export") == [(1, 1), (2, 1), (3, 3), (4, 3)]
