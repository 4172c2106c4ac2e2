"""The arguments of callbacks, and the effects of an exception or a cancellation inside one."""

import asyncio
import subprocess
import sys
from contextlib import closing, suppress
from datetime import date
from pathlib import Path

import anyio
import pytest
from examples import slow
from support import export, held, ledger, query, simulator, truth

from mixpanel_export._database.connection import connect
from mixpanel_export.results import BatchProgress, Progress
from mixpanel_export.simulator import Fault

pytestmark = pytest.mark.anyio


FIFTH = date(2024, 3, 5)


async def test_every_batch_is_told_once_and_one_at_a_time(db: Path) -> None:
    """`on_batch_complete` is awaited for each batch, one at a time, with its index in date order."""
    sim = simulator(faults=[Fault("500", first=FIFTH, last=FIFTH)])
    told: list[BatchProgress] = []
    inside = 0

    async def tell(batch: BatchProgress) -> None:
        nonlocal inside
        inside += 1
        assert inside == 1
        await anyio.sleep(0.001)
        told.append(batch)
        inside -= 1

    await export(sim, db, chunk_days=1, retries=0, on_batch_complete=tell)
    told.sort(key=lambda batch: batch.batch_index)
    assert [batch.batch_index for batch in told] == list(range(9))
    assert [batch.from_date for batch in told] == [f"2024-03-0{day}" for day in range(1, 10)]
    assert [batch.success for batch in told] == [True] * 4 + [False] + [True] * 4
    assert told[4].error is not None
    assert sum(batch.rows for batch in told) == query(db, "SELECT count(*) FROM events")[0][0]


async def test_a_callback_that_raises_stops_the_export_and_keeps_what_is_committed(db: Path) -> None:
    """The caller gets the callback's own exception, and `resume` completes the table."""
    sim = simulator()

    def refuse(batch: BatchProgress) -> None:
        raise LookupError(batch.from_date)

    with pytest.raises(LookupError):
        await export(sim, db, on_batch_complete=refuse, max_workers=1)
    assert 0 < len([row for row in ledger(db) if row[2] == "complete"]) < 9
    await export(sim, db, mode="resume")
    assert held(db) == truth(sim)


async def test_a_callback_cannot_start_another_export_into_the_file(db: Path) -> None:
    """A nested export into the same file is refused instead of waiting for itself."""
    sim = simulator()
    refused: list[str] = []

    async def nest(_: BatchProgress) -> None:
        with pytest.raises(Exception, match="already running") as caught:
            await export(sim, db, mode="resume")
        refused.append(type(caught.value).__name__)

    await export(sim, db, on_batch_complete=nest)
    assert refused == ["ExportRunningError"] * 3


async def test_progress_is_totals(db: Path) -> None:
    """The number of batches never decreases, and at the end everything is done."""
    sim = simulator(first_byte=0.15)
    seen: list[Progress] = []
    await export(sim, db, on_progress=seen.append, max_workers=3, per_hour=60)
    done = [progress.batches_done for progress in seen]
    assert done == sorted(done)
    last = seen[-1]
    assert (last.batches, last.batches_done, last.requests, last.quota_left) == (3, 3, 3, 57)
    assert last.rows == sim.truth(date(2024, 3, 1), date(2024, 3, 9)).rows
    assert last.bytes_read == sum(request.bytes_sent for request in sim.requests)


async def test_what_a_callback_raises_leaves_as_it_is(db: Path) -> None:
    """A group of exceptions is not unpacked, and a cancellation inside the callback is not swallowed."""
    sim = simulator()

    def raise_group(_: object) -> None:
        raise ExceptionGroup("mine", [ValueError(1), KeyError(2)])

    with pytest.raises(ExceptionGroup, match="mine") as caught:
        await export(sim, db, on_batch_complete=raise_group)
    assert len(caught.value.exceptions) == 2
    with pytest.raises(ExceptionGroup, match="mine"):
        await export(sim, db, on_progress=raise_group, mode="replace")


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_a_callback_that_lets_a_cancellation_out_stops_the_export(db: Path) -> None:
    """Awaiting something that was cancelled is an error of the callback like any other."""

    async def wait_for_the_cancelled(_: BatchProgress) -> None:
        task = asyncio.ensure_future(asyncio.sleep(60))
        task.cancel()
        await task

    sim = simulator(faults=[Fault("stall_before_head", after=1)])
    with pytest.raises(asyncio.CancelledError):
        await export(sim, db, on_batch_complete=wait_for_the_cancelled, max_workers=1, chunk_days=3)
    assert len(sim.requests) <= 2


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
@pytest.mark.parametrize("milliseconds", [60, 200, *slow(range(0, 300, 20))])
async def test_asyncios_own_cancellation_cleans_up_too(db: Path, milliseconds: int) -> None:
    """`asyncio.timeout` at any moment leaves no lock, no staging, no changed setting and no part of a batch."""
    sim = simulator()
    with closing(connect(db)) as own:
        own.execute("SET GLOBAL memory_limit = '777MiB'")
        settings = "SELECT current_setting('memory_limit'), current_setting('preserve_insertion_order')"
        with suppress(TimeoutError):
            async with asyncio.timeout(milliseconds / 1000):
                await export(sim, db, mode="replace")
        assert own.execute(settings).fetchone() == ("777.0 MiB", True)
        assert [path.name for path in db.parent.glob(".*")] == []
        await export(sim, db, mode="replace")
        assert own.execute(settings).fetchone() == ("777.0 MiB", True)
    assert held(db) == truth(sim)


async def test_progress_counts_no_rows_that_were_given_up(db: Path) -> None:
    """Rows of a failed batch are not in the last progress."""
    sim = simulator(faults=[Fault("terminated_early", first=FIFTH, last=FIFTH)])
    seen: list[Progress] = []
    await export(sim, db, retries=0, on_progress=seen.append)
    assert seen[-1].batches_failed == 1
    others = (
        sim.truth(date(2024, 3, 1), date(2024, 3, 3)).rows
        + sim.truth(date(2024, 3, 7), date(2024, 3, 9)).rows
    )
    assert seen[-1].rows == others


def test_a_callback_may_end_the_process(db: Path) -> None:
    """`sys.exit` in a callback ends the process with its code; the database is intact."""
    code = (
        "import sys, anyio\\n"
        "from pathlib import Path\\n"
        "from support import export, simulator\\n"
        "async def main():\\n"
        "    await export(simulator(), Path(sys.argv[1]), on_batch_complete=lambda batch: sys.exit(7))\\n"
        "anyio.run(main)\\n"
    ).replace("\\n", "\n")
    tests = Path(__file__).parents[1]
    ended = subprocess.run([sys.executable, "-c", code, str(db)], cwd=tests, timeout=60, check=False)
    assert ended.returncode == 7
    assert query(db, "SELECT count(DISTINCT export_batch) > 0 FROM events") == [(True,)]
