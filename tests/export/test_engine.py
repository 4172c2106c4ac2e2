"""`export_events` from end to end, with the simulator and a real DuckDB file."""

import errno
from datetime import date
from itertools import count
from pathlib import Path
from typing import Any

import anyio
import httpx
import pytest
from examples import slow
from support import ACCOUNT, NOW, export, held, ledger, query, simulator, truth

from mixpanel_export._export.engine import export_events
from mixpanel_export._export.tuning import Tuning
from mixpanel_export._model import Chunk
from mixpanel_export._source.download import download_events
from mixpanel_export._source.parameters import Timeouts
from mixpanel_export.credentials import Credentials
from mixpanel_export.errors import (
    AuthenticationError,
    ConfigError,
    DatabaseError,
    FutureDateError,
    NetworkError,
    QueryError,
    ServerError,
    TruncatedError,
)
from mixpanel_export.results import BatchProgress, Progress
from mixpanel_export.simulator import Fault, Simulator

pytestmark = pytest.mark.anyio


PASSING = [
    "429", "500", "502", "503", "504", "timeout_error", "reset_before_head", "close_before_head",
    "terminated_early", "error_fragment", "error_line", "cut_line", "reset", "close", "truncated_gzip",
    "corrupt_crc", "trailing_garbage", "garbage_line",
]  # fmt: skip


OFTEN = ["429", "timeout_error", "terminated_early", "reset", "garbage_line"]
"""One fault for each way to pass, for the core run."""


STAYING = ["500", "close_before_head", "terminated_early"]
"""One fault for each way to fail; test_regressions.py has others."""


HARMLESS = ["two_members", "crlf", *slow(["blank_lines", "no_final_newline"])]


FIFTH = date(2024, 3, 5)


async def test_the_table_holds_exactly_the_events_over_a_real_socket(db: Path) -> None:
    """An export over a socket, within the server's limits, has exactly the truth."""
    sim = simulator(per_second=3, per_hour=60, first_byte=0.02)
    async with sim.serve() as url:
        result = await export_events(
            "2024-03-01", "2024-03-09", db=db, credentials=ACCOUNT, api_url=url, now=lambda: NOW
        )
    assert held(db) == truth(sim)
    assert result.total_rows == sim.truth(date(2024, 3, 1), date(2024, 3, 9)).distinct
    assert (result.successful_batches, result.failed_batches, result.failed_date_ranges) == (9, 0, ())
    assert {request.status for request in sim.requests} == {200}


async def test_no_more_requests_arrive_in_a_second_than_allowed(db: Path) -> None:
    """Of the requests that arrive on a real socket, no second has four."""
    sim = simulator(per_second=0, first_byte=0.05)
    async with sim.serve() as url:
        await export_events(
            "2024-03-01", "2024-03-09", db=db, credentials=ACCOUNT, api_url=url, now=lambda: NOW
        )
    arrivals = sorted(request.time for request in sim.requests)
    assert len(arrivals) == 9
    assert min(later - earlier for earlier, later in zip(arrivals, arrivals[3:], strict=False)) > 1


async def test_at_most_as_many_requests_at_once_as_workers(db: Path) -> None:
    """Concurrency reaches the number of workers and never exceeds it."""
    sim = simulator(first_byte=0.2)
    await export(sim, db, max_workers=4, chunk_days=1)
    assert sim.max_concurrent == 4
    assert held(db) == truth(sim)


@pytest.mark.parametrize("kind", [*OFTEN, *slow(sorted({*PASSING} - {*OFTEN}))])
async def test_a_fault_that_passes_leaves_no_trace(db: Path, kind: Any) -> None:
    """If each chunk has one failure of any kind, the table is exact and each batch succeeds."""
    fault = Fault(kind, times=3, retry_after=0)
    sim = simulator(faults=[fault])
    days = "2024-03-04", "2024-03-06"
    result = await export(sim, db, *days)
    assert sim.hits(fault) == 3
    assert result.failed_batches == 0
    assert held(db) == truth(sim, *days)


@pytest.mark.parametrize("kind", HARMLESS)
async def test_an_unusual_but_whole_answer_is_taken_at_once(db: Path, kind: Any) -> None:
    """A complete body of unusual form costs no additional request and no event."""
    sim = simulator(faults=[Fault(kind)])
    await export(sim, db)
    assert len(sim.requests) == 3
    assert held(db) == truth(sim)


@pytest.mark.parametrize("kind", [*STAYING, *slow(sorted({*PASSING} - {*STAYING, "garbage_line", "429"}))])
async def test_a_fault_that_stays_fails_its_batch_only_and_resume_completes(db: Path, kind: Any) -> None:
    """A day that always breaks is reported, none of it is stored, and `resume` fetches only that day."""
    sim = simulator(faults=[Fault(kind, retry_after=0, first=FIFTH, last=FIFTH)])
    days = "2024-03-04", "2024-03-06"
    result = await export(sim, db, *days, chunk_days=1, retries=2)
    assert result.failed_date_ranges == (("2024-03-05", "2024-03-05"),)
    assert result.successful_batches == 2
    assert isinstance(result.errors[0], NetworkError | ServerError | TruncatedError)
    assert query(db, "SELECT count(*) FROM events WHERE event_time::DATE = '2024-03-05'") == [(0,)]
    assert ledger(db)[1][2] == "failed"
    sim.faults = []
    asked = len(sim.requests)
    resumed = await export(sim, db, *days, mode="resume")
    assert held(db) == truth(sim, *days)
    assert [(request.first, request.last) for request in sim.requests[asked:]] == [(date(2024, 3, 5),) * 2]
    assert resumed.total_rows == sim.truth(date(2024, 3, 5), date(2024, 3, 5)).distinct
    assert {row[2] for row in ledger(db)} == {"complete"}


@pytest.mark.parametrize(
    "kind,error",
    [
        ("401", AuthenticationError),
        ("auth_text_200", AuthenticationError),
        ("402", QueryError),
        *slow(
            [
                ("auth_text_400", AuthenticationError),
                ("400", QueryError),
                ("403", QueryError),
                ("404", QueryError),
            ]
        ),
    ],
)
async def test_a_failure_of_the_whole_export_stops_it_at_once(
    db: Path, kind: Any, error: type[Exception]
) -> None:
    """An error that no retry can fix stops the export; only requests already in progress are sent."""
    sim = simulator(faults=[Fault(kind)])
    with pytest.raises(error):
        await export(sim, db, "2024-01-01", "2024-03-09", max_workers=3)
    assert len(sim.requests) <= 3


async def test_a_day_of_no_events_is_held_like_any_other(db: Path) -> None:
    """Empty days succeed without rows, create the table, and resume does not request them again."""
    sim = simulator(first_day=date(2025, 1, 1))
    result = await export(sim, db)
    assert (result.total_rows, result.successful_batches) == (0, 3)
    assert held(db) == 0
    again = await export(sim, db, mode="resume")
    assert (again.successful_batches, len(sim.requests)) == (0, 4)


async def test_duplicates_can_be_kept(db: Path) -> None:
    """Without dedupe, every line is a row."""
    sim = simulator(duplicates=0.2)
    result = await export(sim, db, dedupe=False)
    assert result.total_rows == sim.truth(date(2024, 3, 1), date(2024, 3, 9)).rows
    assert result.removed_duplicates == 0


async def test_removed_duplicates_are_counted(db: Path) -> None:
    """The result and the ledger have the number of removed duplicates."""
    sim = simulator(duplicates=0.2)
    result = await export(sim, db)
    whole = sim.truth(date(2024, 3, 1), date(2024, 3, 9))
    assert result.removed_duplicates == whole.rows - whole.distinct > 0
    assert query(db, "SELECT sum(removed_duplicates) FROM _export_batches") == [(result.removed_duplicates,)]


class _Held(httpx.AsyncBaseTransport):
    """Responds like *sim*, but delays the request for *day* until `released`."""

    def __init__(self, sim: Simulator, day: date) -> None:
        self._answers = sim.transport()
        self._day = str(day)
        self.released = anyio.Event()

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        if request.url.params["from_date"] == self._day:
            await self.released.wait()
        return await self._answers.handle_async_request(request)


async def test_a_valid_chunk_is_committed_while_others_take_long(db: Path) -> None:
    """A commit waits briefly for more chunks, but not for a request that takes long."""
    sim = simulator()
    transport = _Held(sim, FIFTH)
    reported: list[str] = []

    def report(batch: BatchProgress) -> None:
        reported.append(batch.from_date)
        if len(reported) == 8:
            transport.released.set()

    with anyio.fail_after(30):
        await export(sim, db, transport=transport, chunk_days=1, on_batch_complete=report)
    assert reported[8:] == [str(FIFTH)]
    assert held(db) == truth(sim)


@pytest.mark.parametrize("after", [0.05, *slow([0.0, 0.3, 0.6])])
async def test_cancelling_leaves_whole_batches_and_nothing_else(db: Path, after: float) -> None:
    """A cancelled export leaves no staging, and the batches that it committed are complete."""
    sim = simulator(events_per_day=500, first_byte=0.1)
    with anyio.move_on_after(after):
        await export(sim, db, max_workers=2, chunk_days=1)
    assert [path.name for path in db.parent.iterdir() if path.suffix != ".duckdb"] == []
    await export(sim, db, mode="resume")
    assert held(db) == truth(sim)


async def test_a_stall_is_given_up_and_the_chunk_fetched_again(db: Path) -> None:
    """A server that stalls before or during its response costs one attempt."""
    stalls = [Fault("stall", times=1), Fault("stall_before_head", times=1)]
    sim = simulator(faults=stalls)
    result = await export(sim, db, timeouts=Timeouts(first_byte=0.5, idle=0.5))
    assert [sim.hits(fault) for fault in stalls] == [1, 1]
    assert result.failed_batches == 0
    assert held(db) == truth(sim)


@pytest.mark.parametrize(
    "options,message",
    [
        ({"first": "2024-3-01"}, "from_date must be a day"),
        ({"last": "2024-02-30"}, "to_date must be an existing date"),
        ({"first": "2024-03-10"}, "before the first day"),
        ({"first": "2024-06-03", "last": "2024-06-03"}, "the current date is at most 2024-06-02"),
        ({"mode": "overwrite"}, "mode must be one of create, append, replace, resume"),
        ({"max_workers": 0}, "max_workers must be positive"),
        ({"chunk_days": 0}, "chunk_days must be between 1 and 100"),
        ({"chunk_days": 101}, "chunk_days must be between 1 and 100"),
        ({"limit": 0}, "limit must be between 1 and 100000"),
        ({"limit": 100_001}, "limit must be between 1 and 100000"),
        ({"retries": -1}, "retries must be 0 or more"),
        ({"per_second": -1}, "per_second must be 0"),
        ({"events": []}, "at least one event name"),
        ({"events": "Sign Up"}, "at least one event name"),
        ({"table": "_events"}, "not begin with _"),
        ({"table": 'e"; DROP TABLE x'}, "letters, digits and _"),
        ({"table": ""}, "letters, digits and _"),
    ],
)
async def test_arguments_out_of_range_cost_nothing(db: Path, options: dict[str, Any], message: str) -> None:
    """Each is a `ValueError` that names it, before any request and before the file is created."""
    sim = simulator()
    with pytest.raises(ValueError, match=message):
        await export(sim, db, **options)
    assert (sim.requests, db.exists()) == ([], False)


async def test_the_latest_day_anywhere_is_asked_for(db: Path) -> None:
    """If a day is today in any time zone, the server decides, and only the batch with a day too late fails."""
    sim = simulator()
    result = await export(sim, db, "2024-05-31", "2024-06-02")
    assert result.failed_date_ranges == (("2024-06-02", "2024-06-02"),)
    assert [type(error) for error in result.errors] == [FutureDateError]
    assert held(db) == truth(sim, "2024-05-31", "2024-06-01")


async def test_many_workers_are_warned_of_once(db: Path) -> None:
    """More workers than the rate limit can use are allowed, with one warning."""
    with pytest.warns(UserWarning, match="3 requests per second") as caught:
        await export(simulator(), db, max_workers=21)
    assert len(caught) == 1


async def test_quotas_come_from_the_environment(db: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`MPX_PER_HOUR` applies if there is no argument; anything but a number is refused."""
    monkeypatch.setenv("MPX_PER_HOUR", "12")
    seen: list[Progress] = []
    await export(simulator(), db, "2024-03-01", "2024-03-02", per_hour=None, on_progress=seen.append)
    assert seen[-1].quota_left == 10
    monkeypatch.setenv("MPX_PER_HOUR", "many")
    with pytest.raises(ConfigError, match="MPX_PER_HOUR"):
        await export(simulator(), db, per_hour=None, mode="append")


async def test_without_credentials_nothing_is_asked(
    db: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The error about missing credentials names the variables and the demo."""
    for name in ("MP_USERNAME", "MP_SECRET", "MP_PROJECT_ID"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("MP_CONFIG_PATH", str(tmp_path / "none.toml"))
    with pytest.raises(ConfigError, match=r"MP_USERNAME.*mpx demo"):
        await export(simulator(), db, credentials=None)
    assert not db.exists()


async def test_a_wrong_secret_leaves_no_table_behind(db: Path) -> None:
    """After the secret is corrected, the same call works."""
    sim = simulator()
    with pytest.raises(AuthenticationError, match="region"):
        await export(sim, db, credentials=Credentials(ACCOUNT.username, "wrong", "12345"))
    await export(sim, db)
    assert held(db) == truth(sim)


async def test_unknown_event_names_are_an_empty_success(db: Path) -> None:
    """Names that no event has result in an empty table."""
    result = await export(simulator(), db, events=["No Such Event"])
    assert (result.total_rows, result.failed_batches) == (0, 0)


async def test_a_429_pauses_every_fetcher(db: Path) -> None:
    """After one 429, no request is sent before its `Retry-After` is over, and the request does not count."""
    sim = simulator(faults=[Fault("429", times=1, retry_after=1.0)])
    seen: list[Progress] = []
    async with sim.serve() as url:
        await export_events(
            "2024-03-01", "2024-03-09", db=db, credentials=ACCOUNT, api_url=url, now=lambda: NOW, max_workers=1,
            chunk_days=3, on_progress=seen.append,
        )  # fmt: skip
    refused, *others = sim.requests
    assert refused.status == 429
    assert min(request.time for request in others) - refused.time >= 1.0
    assert (seen[-1].requests, seen[-1].quota_left) == (4, 57)
    assert held(db) == truth(sim)


async def test_chunks_larger_than_every_size_are_exact(db: Path) -> None:
    """Chunks that are staged compressed and in segments, and groups of one chunk, are loaded like any other."""
    sim = simulator(events_per_day=300)
    tuning = Tuning(plain_budget=1000, columns_memory=0, backlog=1000, group_rows=1, group_wait=0.0)
    await export(sim, db, tuning=tuning)
    assert held(db) == truth(sim)


async def test_a_download_restarts_its_file(tmp_path: Path) -> None:
    """`download_events` writes exactly the lines of one complete response, however many attempts it needed."""
    sim = simulator(faults=[Fault("cut_line", times=2)])
    with (tmp_path / "lines.ndjson").open("w+b") as file:
        await download_events(
            Chunk(date(2024, 3, 1), date(2024, 3, 2)), file, credentials=ACCOUNT, transport=sim.transport(),
            api_url="http://127.0.0.1", now=lambda: NOW,
        )  # fmt: skip
        file.seek(0)
        assert sorted(file.read().splitlines()) == sorted(sim.lines(date(2024, 3, 1), date(2024, 3, 2)))


async def test_a_full_disk_is_one_error_and_resume_completes(
    db: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An error of the file system during staging stops the export with a message, not with an OSError."""
    sim = simulator()
    files = count()

    def open_file(path: Path, mode: str = "r", **options: Any) -> Any:
        if mode == "wb" and next(files) == 3:
            raise OSError(errno.ENOSPC, "No space left on device")
        return original(path, mode, **options)

    original = Path.open  # a disk that gets full on the fourth file needs a file system of its own
    with monkeypatch.context() as patch:
        patch.setattr(Path, "open", open_file)
        with pytest.raises(DatabaseError, match=r"No space left on device.*resume"):
            await export(sim, db, max_workers=1, chunk_days=1)
    await export(sim, db, mode="resume")
    assert held(db) == truth(sim)
