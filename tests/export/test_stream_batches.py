"""`stream_batches` yields exactly the events of complete responses, in asyncio, trio and plain code."""

import gc
import os
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import date, timedelta
from pathlib import Path
from typing import Any
from weakref import WeakSet

import anyio
import pytest
from examples import slow
from lines import END, lines_of, rows_of
from support import ACCOUNT, NOW, RETRY_AT_ONCE, export, held, simulator, truth

from mixpanel_export import ArgumentError, AuthenticationError, ServerError
from mixpanel_export._export.callbacks import Callbacks
from mixpanel_export._export.job import ExportArguments
from mixpanel_export._export.tuning import STREAM_TUNING
from mixpanel_export._loop_thread import THREAD_NAME
from mixpanel_export.batches import BatchStream, EventBatch, open_stream, stream_batches
from mixpanel_export.simulator import Fault, Simulator, checksum

pytestmark = pytest.mark.anyio

FIRST, LAST = date(2024, 3, 1), date(2024, 3, 9)
AWKWARD = {"awkward": 0.05, "rejects": 0.01, "odd": 0.05, "events_per_day": 50}
FAULTS = [
    Fault("terminated_early", times=3),
    Fault("reset", times=4),
    Fault("corrupt_crc", times=2),
    Fault("timeout_error", first=date(2024, 3, 5), last=date(2024, 3, 5), times=1),
    Fault("empty_200", days=(date(2024, 3, 3), date(2024, 3, 4)), times=1),
]
TUNING = replace(STREAM_TUNING, pauses=RETRY_AT_ONCE, segment_size=20_000)
Opener = Callable[..., BatchStream]


@pytest.fixture
def opener(tmp_path: Path) -> Iterator[Opener]:
    """Open streams without limits and without pauses. At the end, no thread and no file is left."""
    folder = tmp_path / "staging"
    folder.mkdir()
    streams: WeakSet[BatchStream] = WeakSet()

    def open_one(sim: Simulator, **options: Any) -> BatchStream:
        stream = opened(folder, sim, **options)
        streams.add(stream)
        return stream

    yield open_one
    gc.collect()
    for stream in list(streams):  # a test that failed still refers to its stream
        stream.close()
    for thread in threading.enumerate():
        if thread.name == THREAD_NAME:
            thread.join()
    assert not list(folder.iterdir())


def opened(folder: Path, sim: Simulator, *, ordered: bool = False, **options: Any) -> BatchStream:
    defaults: dict[str, Any] = {
        "from_date": FIRST,
        "to_date": LAST,
        "credentials": ACCOUNT,
        "api_url": "http://127.0.0.1",
        "per_second": 0,
        "per_hour": 0,
        "now": lambda: NOW,
    }
    transport = options.pop("transport", None) or sim.transport()
    arguments = ExportArguments(db=folder / "batches", **(defaults | options))
    return open_stream(
        arguments, Callbacks(), folder=folder, ordered=ordered, transport=transport, tuning=TUNING
    )


@pytest.mark.parametrize(
    "ordered, faults", [(False, []), (True, FAULTS), *slow([(True, []), (False, FAULTS)])]
)
async def test_the_batches_equal_the_truth_and_the_table(
    ordered: bool, faults: list[Fault], opener: Opener, db: Path
) -> None:
    """Lines and counts are exact for every kind of content and after faults."""
    sim = simulator(**AWKWARD, faults=faults)
    lines: list[bytes] = []
    batches: list[EventBatch] = []
    async for batch in opener(sim, ordered=ordered, chunk_days=2):
        own = list(batch.lines())
        assert len(own) == batch.rows
        lines += own
        batches.append(batch)
    expected = sim.truth(FIRST, LAST)
    assert checksum(rows_of(lines)) == expected.checksum
    assert sum(batch.removed_duplicates for batch in batches) == expected.duplicates
    assert sum(batch.rejects for batch in batches) == expected.rejects
    assert sum(batch.repaired for batch in batches) == expected.repaired
    spans = [(batch.from_date, batch.to_date) for batch in batches]
    assert spans == sorted(spans) or not ordered
    assert sum((last - first).days + 1 for first, last in spans) == 9
    sim.faults = []
    await export(sim, db, chunk_days=2)
    assert held(db) == expected.checksum


async def test_at_most_max_workers_batches_are_on_disk(opener: Opener, tmp_path: Path) -> None:
    """While the consumer works on a batch, no more chunks are requested than workers, in any order of days."""
    sim = simulator(events_per_day=20)
    async with opener(sim, chunk_days=1, max_workers=3, ordered=True) as batches:
        async for batch in batches:
            await anyio.sleep(0.05)
            consumed = (batch.from_date - FIRST).days
            assert len(sim.requests) <= consumed + 3
            assert len(list((tmp_path / "staging").rglob("*.ndjson"))) <= 3


async def test_a_day_without_events_does_not_delay_later_days(opener: Opener) -> None:
    """In order, a run of empty days is requested again, once, as soon as later days wait for it."""
    silent = {date(2024, 3, day) for day in (1, 2, 3, 6)}
    sim = simulator(events_per_day=lambda day: 0 if day in silent else 20)
    with pytest.warns(UserWarning, match="empty"):
        days = [
            (batch.from_date, batch.rows > 0)
            async for batch in opener(sim, chunk_days=1, max_workers=2, ordered=True, per_hour=1000)
        ]
    assert days == [(FIRST + timedelta(n), FIRST + timedelta(n) not in silent) for n in range(9)]
    assert len(sim.requests) <= 9 + 3


async def test_failed_days_are_raised_after_all_other_batches(opener: Opener) -> None:
    """The stream yields every complete batch, then raises the first error; `result` lists the failed days."""
    bad = date(2024, 3, 4)
    sim = simulator(faults=[Fault("500", first=bad, last=bad)])
    for ordered in (False, True):
        stream = opener(sim, chunk_days=1, retries=1, ordered=ordered)
        days = set()
        with pytest.raises(ServerError) as caught:
            async for batch in stream:
                days.add(batch.from_date)
        assert days == {FIRST + timedelta(n) for n in range(9)} - {bad}
        assert stream.result is not None
        assert stream.result.failed_date_ranges == (("2024-03-04", "2024-03-04"),)
        assert caught.value is stream.result.errors[0]
        assert [batch async for batch in stream] == []


def test_rejected_credentials_end_the_stream(opener: Opener) -> None:
    """The error is raised at once, and a batch that the consumer has stays readable until then."""
    sim = simulator(events_per_day=200, faults=[Fault("401", first=LAST, last=LAST)])
    stream = opener(sim, chunk_days=1, max_workers=1, ordered=True)
    with pytest.raises(AuthenticationError):
        for batch in stream:
            if batch.to_date == LAST - timedelta(1):
                assert len(list(batch.lines())) == batch.rows
    assert stream.result is None


def test_a_loop_may_end_early(opener: Opener) -> None:
    """After `break`, `close` or garbage collection, a thread or a file is not left, and old batches are not readable."""
    sim = simulator()
    batches = []
    for batch in opener(sim, chunk_days=1):
        batches.append(batch)
        if len(batches) == 2:
            break
    with pytest.raises(ValueError, match="next one"):
        next(batches[0].lines())
    assert next(batches[1].lines())
    del batch
    batches.clear()
    with opener(sim) as stream:
        kept = next(stream)
    with pytest.raises(ValueError, match="next one"):
        list(kept.lines())
    assert list(stream) == []


async def test_a_cancelled_consumer_leaves_nothing(opener: Opener) -> None:
    """A cancellation during the wait for a batch ends all requests."""
    sim = simulator(faults=[Fault("stall")])
    with anyio.move_on_after(0.3) as scope:
        async for _ in opener(sim):
            raise AssertionError
    assert scope.cancelled_caught


def test_a_program_may_end_before_its_stream(tmp_path: Path) -> None:
    """The process ends, and no file is left, even if the program still refers to a batch."""
    code = f"""
from support import ACCOUNT, NOW, simulator
from mixpanel_export import stream_batches

stream = stream_batches(
    "2024-03-01", "2024-03-09", credentials=ACCOUNT, api_url="http://127.0.0.1", per_second=0, per_hour=0,
    now=lambda: NOW, transport=simulator().transport(), folder={str(tmp_path)!r}
)
batch = next(stream)
"""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    subprocess.run([sys.executable, "-c", code], env=environment, check=True, timeout=100)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "line",
    [
        b'{"event":"a","properties":{\r"time":1709640000,"distinct_id":"x"}}',
        b'{"event":"a","properties":{"time":1709640000,"list":[\r1,\r2]}}\r',
    ],
)
async def test_only_a_newline_ends_a_line(line: bytes, opener: Opener) -> None:
    """A carriage return between JSON values does not split an event."""
    async for batch in opener(simulator(), from_date=FIRST, to_date=FIRST, transport=lines_of(line)):
        assert list(batch.lines()) == [line + b"\n", END + b"\n"]


async def test_filters_and_limits_are_passed_on(opener: Opener) -> None:
    """Only the requested events arrive, and without `dedupe` each as often as it was sent."""
    sim = simulator()
    with opener(sim, events=["Page View"], dedupe=False) as stream:
        lines = [line for batch in stream for line in batch.lines()]
    assert Counter(lines) == Counter(line + b"\n" for line in sim.lines(FIRST, LAST, events=["Page View"]))
    with opener(sim, limit=7) as stream:
        assert sum(batch.rows for batch in stream) == 7
    with opener(sim, from_date=NOW.date(), to_date=NOW.date()) as stream:
        assert [batch.is_final for batch in stream] == [False]
    with pytest.raises(ArgumentError):
        stream_batches(LAST, FIRST, credentials=ACCOUNT)
    with pytest.raises(ArgumentError):
        stream_batches(FIRST, LAST, credentials=ACCOUNT, folder="/no/such/folder")


async def test_arrow_has_the_rows_of_the_table(opener: Opener) -> None:
    """The record batches have the table's first five columns, with exact times and text."""
    pyarrow = pytest.importorskip("pyarrow")
    sim = simulator(**AWKWARD)
    found: list[Any] = []
    async for batch in opener(sim):
        table = pyarrow.table(batch.to_arrow().read_all())
        assert table.num_rows == batch.rows
        assert table.column_names == ["event_name", "event_time", "distinct_id", "insert_id", "properties"]
        found += zip(*(column.to_pylist() for column in table.columns), strict=True)
    assert checksum(found) == truth(sim)
