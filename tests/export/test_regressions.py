"""One test for each way in which exporters are known to lose events, to double them, or not to say so.

All go through the public doors: the simulator, or lines written by hand, on one side, a real DuckDB file on
the other.
"""

import json
import tracemalloc
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import anyio
import anyio.abc
import httpx
import pytest
from anyio.from_thread import start_blocking_portal
from click.testing import CliRunner
from support import ACCOUNT, NOW, Body, answering, export, held, ledger, query, simulator, truth

from mixpanel_export import (
    APIError,
    AuthenticationError,
    BatchProgress,
    FutureDateError,
    LineTooLongError,
    NetworkError,
    QueryError,
    TableExistsError,
    TableNotFoundError,
    Timeouts,
    Workspace,
    export_events,
    run_sync,
)
from mixpanel_export._database.settings import memory_limit
from mixpanel_export.cli import cli
from mixpanel_export.simulator import Fault, Rules, Simulator

pytestmark = pytest.mark.anyio

FIRST, LAST = date(2024, 3, 1), date(2024, 3, 9)
DAYS: dict[str, Any] = {"from_date": "2024-03-01", "to_date": "2024-03-09"}
FIFTH = date(2024, 3, 5)
ONE_DAY = ("2024-03-05", "2024-03-05")
END = b'{"event":"end","properties":{}}'


@pytest.fixture
def anyio_backend() -> str:
    """One event loop will do: what depends on it is tested on both in test_engine.py."""
    return "asyncio"


@pytest.fixture
def db(tmp_path: Path) -> Path:
    return tmp_path / "test.duckdb"


@pytest.fixture(autouse=True)
def _settings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The simulator's account in the environment, no quota to wait for, and the shortest backoff there is."""
    settings = {
        "MP_USERNAME": ACCOUNT.auth[0],
        "MP_SECRET": ACCOUNT.auth[1],
        "MP_PROJECT_ID": "12345",
        "MP_CONFIG_PATH": str(tmp_path / "none.toml"),
        "MPX_PER_SECOND": "0",
        "MPX_PER_HOUR": "0",
    }
    for name in ("MP_ACCOUNT", "MP_REGION", "MPX_API_URL", "MPX_DB"):
        monkeypatch.delenv(name, raising=False)
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    for pause in ("LONGEST_PAUSE", "_SHORTEST_PAUSE", "_REFUSAL_PAUSE", "_SPREAD"):
        monkeypatch.setattr(f"mixpanel_export._quota.retry.{pause}", 0.0)


@pytest.fixture
def sim() -> Simulator:
    return simulator()


@pytest.fixture
def url(sim: Simulator) -> Iterator[str]:
    """The address of *sim* on a socket."""
    with start_blocking_portal() as portal, portal.wrap_async_context_manager(sim.serve()) as url:
        yield url


def by_call(url: str, db: Path) -> bool:
    """Export through `export_events`; whether it says that all went well."""
    days = DAYS["from_date"], DAYS["to_date"]
    return not run_sync(export_events, *days, db=db, chunk_days=3, retries=1, api_url=url).has_failures


def by_workspace(url: str, db: Path) -> bool:
    """The same through `Workspace.fetch_events` in parallel."""
    with Workspace(path=db, api_url=url) as workspace:
        return not workspace.fetch_events(**DAYS, parallel=True, chunk_days=3, retries=1).has_failures


def by_one_request(url: str, db: Path) -> bool:
    """The same in one request, whose failure is raised."""
    with Workspace(path=db, api_url=url) as workspace:
        try:
            workspace.fetch_events(**DAYS, retries=1)
        except APIError:
            return False
        return True


def by_shell(url: str, db: Path) -> bool:
    """The same through `mpx export`, which says it by its exit code."""
    words = (
        f"export --from 2024-03-01 --to 2024-03-09 --chunk-days 3 -p --retries 1 --api-url {url} --db".split()
    )
    return CliRunner().invoke(cli, [*words, str(db)]).exit_code == 0


DOORS = [by_call, by_workspace, by_one_request, by_shell]


async def check_that_only_its_day_fails(sim: Simulator, fault: Fault, db: Path) -> None:
    """Export three days while *fault* breaks the second for good, then again without it."""
    days = "2024-03-04", "2024-03-06"
    sim.faults = [fault]
    result = await export(sim, db, *days, chunk_days=1, retries=2)
    assert sim.hits(fault) == 3
    assert result.failed_date_ranges == (ONE_DAY,)
    others = (*sim.rows(date(2024, 3, 4), date(2024, 3, 4)), *sim.rows(date(2024, 3, 6), date(2024, 3, 6)))
    assert result.total_rows == len(others) == query(db, "SELECT count(*) FROM events")[0][0]
    assert query(db, "SELECT count(*) FROM _export_rejects") == [(0,)]
    sim.faults = []
    await export(sim, db, *days, mode="resume")
    assert held(db) == truth(sim, *days)


def lines_of(*lines: bytes) -> httpx.MockTransport:
    """Return a transport that answers with these lines and a last sound one."""
    return answering(lambda _: b"\n".join([*lines, END]))


async def export_lines(db: Path, *lines: bytes) -> Any:
    """Export one day that has these lines."""
    return await export(simulator(), db, *ONE_DAY, transport=lines_of(*lines))


def texts(db: Path) -> Counter[str]:
    """The properties that the table holds, without those of the last line."""
    return Counter(text for (text,) in query(db, "SELECT properties FROM events WHERE event_name <> 'end'"))


# What looks like success


@pytest.mark.parametrize("door", DOORS)
def test_a_terminated_early_trailer_is_never_a_success(
    sim: Simulator, url: str, db: Path, door: Callable[[str, Path], bool]
) -> None:
    """Through every door an export whose stream ends in words fails, and of those days nothing is stored."""
    sim.faults = [Fault("terminated_early", first=FIFTH, last=FIFTH)]
    assert not door(url, db)
    with Workspace(path=db, api_url=url) as workspace:
        if workspace.tables():
            where = "event_time >= '2024-03-05' AND event_time < '2024-03-06'"
            assert workspace.sql_scalar(f"SELECT count(*) FROM events WHERE {where}") == 0
        sim.faults = []
        workspace.fetch_events(**DAYS, resume=True)
    assert held(db) == truth(sim)


@pytest.mark.parametrize(
    "fault",
    [
        Fault("terminated_early", FIFTH, FIFTH, position=0),
        Fault("terminated_early", FIFTH, FIFTH, position=1, newline=False),
        Fault("terminated_early", FIFTH, FIFTH, text="export terminated early", newline=False),
        Fault("terminated_early", FIFTH, FIFTH, text="words that nobody has seen yet"),
        Fault("error_fragment", FIFTH, FIFTH, newline=False),
        Fault("error_line", FIFTH, FIFTH),
        Fault("error_line", FIFTH, FIFTH, position=0, newline=False),
        Fault("cut_line", FIFTH, FIFTH),
    ],
    ids=lambda fault: f"{fault.kind}-{fault.position}-{fault.text}",
)
@pytest.mark.parametrize("events", [3, 40])
async def test_no_last_line_but_an_event_is_an_end(db: Path, fault: Fault, events: int) -> None:
    """Whatever the last line is, compressed or not: no event, no success, and no row or reject of that body."""
    await check_that_only_its_day_fails(simulator(events_per_day=events), fault, db)


@pytest.mark.parametrize("kind", ["reset_before_head", "close_before_head", "reset", "close"])
async def test_a_broken_connection_is_never_a_success(db: Path, kind: Any) -> None:
    """What arrived before the connection broke is not the day."""
    await check_that_only_its_day_fails(simulator(), Fault(kind, FIFTH, FIFTH, position=0.9), db)


@pytest.mark.parametrize("position", [0.9, 0.999])
@pytest.mark.parametrize("kind", ["truncated_gzip", "corrupt_crc", "trailing_garbage", "empty_body"])
async def test_a_damaged_gzip_stream_is_never_a_success(db: Path, kind: Any, position: float) -> None:
    """What could be inflated of a stream without its right end is not the day, even where every line is there."""
    await check_that_only_its_day_fails(simulator(), Fault(kind, FIFTH, FIFTH, position=position), db)


async def test_part_of_a_batch_is_never_kept(db: Path) -> None:
    """Of a batch that breaks just before its end no row stays, not even of its whole days."""
    sim = simulator(faults=[Fault("cut_line", FIFTH, FIFTH, position=0.99)])
    result = await export(sim, db, chunk_days=3, retries=0)
    assert result.failed_date_ranges == (("2024-03-04", "2024-03-06"),)
    assert (
        result.total_rows
        == sim.truth(FIRST, date(2024, 3, 3)).distinct + sim.truth(date(2024, 3, 7), LAST).distinct
    )
    between = "event_time >= '2024-03-04' AND event_time < '2024-03-07'"
    assert query(db, f"SELECT count(*) FROM events WHERE {between}") == [(0,)]


async def test_an_error_line_never_becomes_an_event(db: Path) -> None:
    """An error among the events is no event of an empty name in 1970, and no reason to take the rest on trust."""
    asked = 0

    def answer(_: httpx.Request) -> bytes:
        nonlocal asked
        asked += 1
        return b'{"event":"e","properties":{"n":1}}\n{"error": "something"}\n' + END

    result = await export(simulator(), db, *ONE_DAY, transport=answering(answer))
    assert (asked, result.rejects) == (2, 1)
    assert query(db, "SELECT event_name FROM events ORDER BY 1") == [("e",), ("end",)]
    assert query(db, "SELECT reason, line FROM _export_rejects") == [("rejected", b'{"error": "something"}')]


async def test_a_malformed_line_is_never_skipped_in_silence(db: Path) -> None:
    """A line between events that stays no event is kept verbatim, and counted in the result and the ledger."""
    sim = simulator(faults=[Fault("garbage_line")])
    result = await export(sim, db, chunk_days=3)
    assert (result.failed_batches, result.rejects, len(sim.requests)) == (0, 3, 6)
    assert held(db) == truth(sim)
    assert query(db, "SELECT line FROM _export_rejects") == [(b"this line is no event",)] * 3
    assert ledger(db, "rejects") == [(1,)] * 3


# What arrives twice


@pytest.mark.parametrize("kind", ["reset", "close", "terminated_early", "truncated_gzip", "garbage_line"])
async def test_a_retry_never_doubles_events_without_an_insert_id(db: Path, kind: Any) -> None:
    """Nothing could tell their copies apart, and still each is there once after attempts that came far."""
    sim = simulator(missing_insert_id=1.0, faults=[Fault(kind, times=5, position=0.9)])
    result = await export(sim, db, chunk_days=3)
    assert query(db, "SELECT count(*) FROM events WHERE insert_id <> ''") == [(0,)]
    assert result.total_rows == sim.truth(FIRST, LAST).rows
    assert held(db) == truth(sim)


@pytest.mark.parametrize("kind", ["reset", "terminated_early"])
def test_a_stream_never_yields_an_event_twice(sim: Simulator, url: str, db: Path, kind: Any) -> None:
    """After an attempt that came far `stream_events` yields each line of the whole answer once."""
    sim.faults = [Fault(kind, times=2, position=0.9)]
    with Workspace(path=db, api_url=url) as workspace:
        streamed = Counter(event["properties"].get("$insert_id") for event in workspace.stream_events(**DAYS))
    sent = Counter(json.loads(line)["properties"].get("$insert_id") for line in sim.lines(FIRST, LAST))
    assert streamed == sent


def version(event: str, time: int, distinct_id: str, processed: int) -> bytes:
    properties = {
        "time": time,
        "distinct_id": distinct_id,
        "$insert_id": "x",
        "mp_processing_time_ms": processed,
    }
    return json.dumps({"event": event, "properties": properties}, separators=(",", ":")).encode()


async def test_events_that_share_an_insert_id_all_stay(db: Path) -> None:
    """An `$insert_id` alone identifies nothing: another name, time or user is another event."""
    lines = [
        version("a", 1, "u", 5),
        version("b", 1, "u", 5),
        version("a", 2, "u", 5),
        version("a", 1, "v", 5),
    ]
    result = await export_lines(db, *lines)
    assert result.removed_duplicates == 0
    assert texts(db) == Counter(line.decode().split('"properties":')[1][:-1] for line in lines)


@pytest.mark.parametrize("order", [(5, 7, 6), (7, 6, 5), (6, 5, 7)])
async def test_of_the_versions_of_an_event_the_newest_stays(db: Path, order: Sequence[int]) -> None:
    """Whichever is sent first, the version that Mixpanel processed last is the one in the table."""
    result = await export_lines(db, *[version("a", 1, "u", processed) for processed in order])
    assert result.removed_duplicates == 2
    assert [json.loads(text)["mp_processing_time_ms"] for text in texts(db)] == [7]


async def test_equal_lines_without_an_insert_id_all_stay(db: Path) -> None:
    """Nothing says that they are one event, so each of them is a row."""
    line = b'{"event":"e","properties":{"time":1,"distinct_id":"u"}}'
    result = await export_lines(db, line, line, line)
    assert (result.total_rows, result.removed_duplicates) == (4, 0)


async def test_events_that_are_sent_with_a_neighbouring_day_are_there_once(db: Path) -> None:
    """Whether a day's answer holds events of other days too, or alone: the table has each of them once."""
    sim = simulator(leaks=0.2, strays=0.1, events_per_day=60)
    await export(sim, db, chunk_days=1)
    assert sum(rows for (rows,) in ledger(db, "outside_rows")) > 0
    assert held(db) == truth(sim)


async def test_nothing_of_a_failed_attempt_stays(db: Path) -> None:
    """Where the second answer has other events in another order, the table has those of the second alone."""
    bodies = iter([[b"1", b"2", b"3"], [b"3", b"4"]])
    ends = iter([b"terminated early", END])

    def answer(_: httpx.Request) -> bytes:
        lines = [b'{"event":"e","properties":{"n":' + number + b"}}" for number in next(bodies)]
        return b"\n".join([*lines, next(ends)])

    await export(simulator(), db, *ONE_DAY, transport=answering(answer))
    assert texts(db) == {'{"n":3}': 1, '{"n":4}': 1}


# Lines and what is in them


@pytest.mark.parametrize("separator", ["\u2028", "\u2029", "\u0085"])
async def test_only_a_newline_ends_a_line(db: Path, separator: str) -> None:
    """What other readers of lines cut at stands inside a string, untouched."""
    properties = f'{{"text":"before{separator}after"}}'
    await export_lines(db, f'{{"event":"e","properties":{properties}}}'.encode())
    assert texts(db) == {properties: 1}
    assert query(db, "SELECT count(*) FROM _export_rejects") == [(0,)]


@pytest.mark.parametrize("control", [b"\x0b", b"\x0c", b"\x1c", b"\x1d", b"\x1e", b"\r", b"\xc2"])
async def test_a_byte_that_json_forbids_costs_no_event(db: Path, control: bytes) -> None:
    """Where such a byte stands in a string, the event is there without it, and the line as it was beside it."""
    line = b'{"event":"e","properties":{"text":"before' + control + b'after"}}'
    result = await export_lines(db, line)
    assert (result.repaired, result.rejects, result.total_rows) == (1, 0, 2)
    assert texts(db) == {'{"text":"before\ufffdafter"}': 1}
    assert query(db, "SELECT line FROM _export_rejects") == [(line,)]


@pytest.mark.parametrize(
    "properties",
    [
        '{"a":null,"b":"undefined","c":"<null>","d":"<undefined>","e":""}',
        '{"k":1,"K":2,"$k":3,"k ":4,"":5,"a.b":6,"\\"":7,"🎈":8}',
        '{"list":[1,"two",null,{"three":[[]]}],"object":{"list":[{}]}}',
        '{"same":1,"same":"two"}',
    ],
)
async def test_properties_of_every_shape_stay_as_they_were_sent(db: Path, properties: str) -> None:
    """Placeholders, keys that differ by little, nested values and equal keys are text, and no columns to fit."""
    other = '{"k":"text","list":"scalar","object":1,"a":true}'
    await export_lines(db, *(f'{{"event":"e","properties":{text}}}'.encode() for text in (properties, other)))
    assert texts(db) == {properties: 1, other: 1}


@pytest.mark.parametrize(
    "name", ["$identify", "$merge", "$create_alias", "$hotshard_events", "$ae_session", ""]
)
async def test_events_of_mixpanels_own_are_exported_too(db: Path, name: str) -> None:
    """Nothing is left out by its name."""
    await export_lines(db, json.dumps({"event": name, "properties": {"distinct_id": ""}}).encode())
    assert query(db, "SELECT event_name, distinct_id FROM events WHERE event_name <> 'end'") == [(name, "")]


@pytest.mark.parametrize("content_type", ["text/plain; charset=iso-8859-1", "application/json", "text/html"])
async def test_the_content_type_changes_nothing(db: Path, content_type: str) -> None:
    """Lines are UTF-8 whatever the header says they are."""
    sim = simulator(content_type=content_type)
    await export(sim, db)
    assert held(db) == truth(sim)


@pytest.mark.parametrize("options", [{}, {"gzip_over": 0}, {"gzip_over": 1 << 30}, {"gzip_member": 3000}])
async def test_compressed_and_plain_answers_mix(db: Path, options: dict[str, int]) -> None:
    """Small days come plain and others compressed, or all alike, or in members: each answer is read as what it is."""
    sim = simulator(events_per_day=lambda day: 1 if day.day % 2 else 50, **options)
    result = await export(sim, db, chunk_days=1)
    assert (result.failed_batches, len(sim.requests)) == (0, 9)
    assert held(db) == truth(sim)


async def test_awkward_content_is_stored_and_counted_exactly(db: Path) -> None:
    """Where half of the events are awkward and some lines are none, rows, repairs and rejects are the truth's."""
    sim = simulator(awkward=0.5, rejects=0.05, odd=0.0)
    result = await export(sim, db)
    expected = sim.truth(FIRST, LAST)
    assert (result.total_rows, result.repaired, result.rejects) == (
        expected.distinct,
        expected.repaired,
        expected.rejects,
    )
    assert min(result.repaired, result.rejects) > 0
    assert held(db) == expected.checksum


async def test_fragments_of_a_line_are_never_joined(db: Path) -> None:
    """Two neighbours that would make an event together are two lines that are none."""
    halves = [b'{"event":"made up","prope', b'rties":{"n":1}}']
    result = await export_lines(db, *halves)
    assert (result.total_rows, result.rejects) == (1, 2)
    assert {line for (line,) in query(db, "SELECT line FROM _export_rejects")} == set(halves)


@pytest.mark.parametrize("piece", [1, 7, 16 << 20])
async def test_characters_cut_between_pieces_arrive_whole(db: Path, piece: int) -> None:
    """Where the transfer cuts lines, characters and the gzip stream makes no difference."""
    sim = simulator(piece=piece, events_per_day=20)
    await export(sim, db)
    assert held(db) == truth(sim)


async def test_an_odd_record_does_not_fail_its_batch(db: Path) -> None:
    """Days of nothing but missing, null, numeric and unreadable ids and times are stored in one attempt each."""
    sim = simulator(odd=1.0, missing_insert_id=0.0)
    result = await export(sim, db)
    assert (result.failed_batches, result.rejects, len(sim.requests)) == (0, 0, 9)
    assert held(db) == truth(sim)
    assert query(
        db,
        "SELECT count(*) FILTER (distinct_id IS NULL) > 0, count(*) FILTER (event_time IS NULL) > 0 FROM events",
    ) == [(True, True)]


@pytest.mark.parametrize("constant", ["NaN", "Infinity", "-Infinity"])
async def test_a_number_that_json_does_not_have_costs_no_event(db: Path, constant: str) -> None:
    """What some serializers write for no number fails no batch: the event is stored as it came."""
    result = await export_lines(db, f'{{"event":"e","properties":{{"a":{constant}}}}}'.encode())
    assert (result.failed_batches, result.total_rows) == (0, 2)
    assert texts(db) == {f'{{"a":{constant}}}': 1}


async def test_a_line_beyond_the_maximum_fails_its_batch_only_and_at_once(db: Path) -> None:
    """A line over 64 MiB is named with the maximum and its beginning, and not fetched again to be as long."""
    long = '{"event":"Monster","properties":{"text":"' + "x" * (64 << 20) + '"}}'
    fault = Fault("garbage_line", FIFTH, FIFTH, text=long)
    sim = simulator(faults=[fault])
    result = await export(sim, db, chunk_days=1)
    assert sim.hits(fault) == 1
    assert result.failed_date_ranges == (ONE_DAY,)
    (error,) = result.errors
    assert isinstance(error, LineTooLongError)
    assert "2024-03-05" in str(error)
    assert "67108864 bytes" in str(error)
    assert '{"event":"Monster"' in str(error)
    assert result.total_rows == sim.truth(FIRST, LAST).distinct - sim.truth(FIFTH, FIFTH).distinct


async def test_memory_does_not_grow_with_the_batch(db: Path) -> None:
    """Of a batch of 96 MB no more than what is kept on purpose, and the pieces at hand, is in Python's memory."""
    piece = b'{"event":"e","properties":{"text":"' + b"x" * 4000 + b'"}}\n'
    piece *= (1 << 20) // len(piece)

    def handle(_: httpx.Request) -> httpx.Response:
        return httpx.Response(200, stream=Body(piece for _ in range(96)))

    tracemalloc.start()
    try:
        result = await export(simulator(), db, *ONE_DAY, transport=httpx.MockTransport(handle))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert result.total_rows == 96 * piece.count(b"\n")
    assert peak < memory_limit() // 8 + (24 << 20)


# Refusals, and days that cannot be had


@pytest.mark.parametrize("kind", ["400", "402", "403", "404"])
async def test_a_refusal_is_not_retried(db: Path, kind: Any) -> None:
    """What the server refuses costs one request, and its words reach the caller with the status."""
    sim = simulator(faults=[Fault(kind, text="because & therefore " + "x" * 1000)])
    with pytest.raises(QueryError, match=f"{kind}.*because & therefore") as caught:
        await export(sim, db, max_workers=1)
    assert (len(sim.requests), caught.value.status_code) == (1, int(kind))
    assert len(caught.value.response_body or "") == 500


@pytest.mark.parametrize("kind", ["401", "auth_text_400", "auth_text_200"])
async def test_denied_credentials_cost_one_request_and_hint_at_the_region(db: Path, kind: Any) -> None:
    """In each way in which Mixpanel says so: no retry, no data, and the region among the things to check."""
    sim = simulator(faults=[Fault(kind)])
    with pytest.raises(AuthenticationError, match=r"region requested \(us, eu or in\)"):
        await export(sim, db, max_workers=1)
    assert len(sim.requests) == 1
    assert query(db, "SELECT count(*) FROM duckdb_tables() WHERE table_name = 'events'") == [(0,)]


async def test_a_redirect_leads_nowhere(db: Path) -> None:
    """Not even to the same path with a slash: credentials go to the address that was given, and no other."""
    sim = simulator(faults=[Fault("redirect")])
    with pytest.raises(QueryError, match=r"302.*API URL"):
        await export(sim, db, max_workers=1)
    assert len(sim.requests) == 1


async def test_an_unreachable_server_fails_every_batch_with_words(db: Path) -> None:
    """Where nothing listens, each batch fails with the address and the days after so many attempts, and stays to do."""
    async with await anyio.create_tcp_listener(local_host="127.0.0.1") as listener:
        url = f"http://127.0.0.1:{listener.extra(anyio.abc.SocketAttribute.local_port)}"
    result = await export(simulator(), db, chunk_days=3, transport=None, api_url=url, retries=1)
    assert result.failed_batches == 3
    for error, (first, _) in zip(result.errors, result.failed_date_ranges, strict=True):
        assert isinstance(error, NetworkError)
        assert "127.0.0.1" in str(error)
        assert first in str(error)


@pytest.mark.parametrize(
    "where",
    [
        'properties["$city"] == "São Paulo"',
        'properties["page title"] == "Über-Uns/Über-Uns · Example" or not defined(properties["emoji 🎈 key"])',
        'properties["$os"] in ["iOS", "Linux"] and user["$email"] != "a&b=c+d%20@e.f"',
        'event["$time"] >= datetime("2024-03-04T12:00:00")',
        'number(properties["mp_processing_time_ms"]) < 1709712000000',
    ],
)
async def test_a_where_expression_reaches_the_server_as_it_is(db: Path, where: str) -> None:
    """Quotes, signs that mean something in a URL, and letters of any script survive the request."""
    sim = simulator()
    result = await export(sim, db, where=where)
    assert sim.requests[0].params["where"] == where
    assert 0 < result.total_rows < sim.truth(FIRST, LAST).distinct
    assert held(db) == sim.truth(FIRST, LAST, where=where).checksum


@pytest.mark.parametrize("shape", ["request", "error", "status", "text"])
async def test_a_malformed_where_expression_stops_the_export(db: Path, shape: Any) -> None:
    """Whatever its wording, a 400 costs one request, leaves no table, and says where to look."""
    sim = simulator(rules=Rules(shape=shape, wording={"where": "no such selector"}))
    with pytest.raises(QueryError, match=r"400.*no such selector.*check the dates, events and where"):
        await export(sim, db, where='properties["$city" ==', max_workers=1)
    assert len(sim.requests) == 1
    assert query(db, "SELECT count(*) FROM duckdb_tables() WHERE table_name = 'events'") == [(0,)]


async def test_an_empty_answer_that_is_an_error_is_no_empty_day(db: Path) -> None:
    """An error object that is the whole body of a 200 is reported with its words."""
    sim = simulator(faults=[Fault("error_line", FIFTH, FIFTH, position=0)])
    result = await export(sim, db, retries=0, chunk_days=1)
    assert result.failed_date_ranges == (ONE_DAY,)
    assert "Internal server error" in str(result.errors[0])


async def test_an_export_that_its_table_forbids_asks_for_nothing(db: Path) -> None:
    """A table that is there, or is not, decides before any quota is spent."""
    sim = simulator()
    with pytest.raises(TableNotFoundError):
        await export(sim, db, mode="append")
    assert sim.requests == []
    await export(sim, db)
    asked = len(sim.requests)
    with pytest.raises(TableExistsError):
        await export(sim, db)
    assert len(sim.requests) == asked


@pytest.mark.parametrize("shape", ["seen", "request", "error", "status", "text"])
async def test_a_day_that_has_not_begun_fails_its_batch_only(db: Path, shape: Any) -> None:
    """The other days are here, the day costs one request, and the error names the last day to ask for."""
    sim = simulator(rules=Rules(shape=shape))
    result = await export(sim, db, "2024-05-28", "2024-06-02")
    assert result.failed_date_ranges == (("2024-06-02", "2024-06-02"),)
    (error,) = result.errors
    assert isinstance(error, FutureDateError)
    assert "use 2024-06-01 as to_date until 2024-06-02 has begun in the project's time zone" in str(error)
    assert [request.status for request in sim.requests].count(400) == 1
    assert held(db) == truth(sim, "2024-05-28", "2024-06-01")
    assert query(db, "SELECT status FROM _export_batches WHERE to_date = '2024-06-02'") == [("failed",)]


async def test_a_day_that_has_begun_meanwhile_is_fetched_by_resume(db: Path) -> None:
    """The day that was refused is asked for again, and then it is there."""
    clock = [NOW]
    sim = simulator(now=lambda: clock[0])
    await export(sim, db, "2024-05-28", "2024-06-02")
    clock[0] = NOW + timedelta(days=1)
    result = await export(sim, db, "2024-05-28", "2024-06-02", mode="resume", now=lambda: clock[0])
    assert result.failed_batches == 0
    assert held(db) == truth(sim, "2024-05-28", "2024-06-02")


@pytest.mark.parametrize("shape", ["seen", "request", "error", "status", "text"])
async def test_days_before_the_plans_history_stop_the_export_and_name_the_first_day(
    db: Path, shape: Any
) -> None:
    """Nothing is clamped: the error has the plan's limit and the first day within it, with which it works."""
    sim = simulator(history_days=90, rules=Rules(shape=shape))
    with pytest.raises(QueryError, match=r"the plan's limit is 90 days, so use 2024-03-03 or a later day"):
        await export(sim, db, "2024-02-01", "2024-03-09", max_workers=1, chunk_days=10)
    assert len(sim.requests) == 1
    await export(sim, db, "2024-03-03", "2024-03-09", mode="resume")
    assert held(db) == truth(sim, "2024-03-03", "2024-03-09")


async def test_midnight_during_an_export_changes_nothing_of_its_plan(db: Path) -> None:
    """The days are those of the start, and the day that was today at its request is not held to be final."""
    hours = iter(range(1, 1000))
    sim = simulator()
    late = datetime(2024, 6, 1, 20, tzinfo=UTC)
    result = await export(
        sim, db, "2024-05-29", "2024-06-01", max_workers=1, now=lambda: late + timedelta(hours=next(hours))
    )
    assert result.failed_batches == 0
    assert max(str(request.last) for request in sim.requests) == "2024-06-01"
    assert ledger(db, "status")[-1] == ("open",)


# The table and the ledger


@pytest.mark.parametrize("mode", ["append", "resume"])
async def test_a_first_batch_that_fails_leaves_a_table_to_go_on_with(db: Path, mode: str) -> None:
    """Where the first day fails after others were committed, the documented next step completes the table."""
    sim = simulator(faults=[Fault("500", last=FIRST)])
    result = await export(sim, db, retries=0, chunk_days=1)
    assert (result.successful_batches, result.failed_batches) == (8, 1)
    assert query(db, "SELECT from_date, to_date FROM _metadata") == [(date(2024, 3, 2), LAST)]
    sim.faults = []
    await export(sim, db, mode=mode)
    assert held(db) == truth(sim)


async def test_a_hole_is_never_claimed_to_be_held(db: Path) -> None:
    """Days that failed between others are counted as missing, and what was selected is recorded."""
    sim = simulator(faults=[Fault("500", FIFTH, date(2024, 3, 6))])
    await export(sim, db, retries=0, chunk_days=1, events=["Sign Up", "Page View"])
    assert query(db, "SELECT from_date, to_date, missing_days FROM _metadata") == [(FIRST, LAST, 2)]
    assert {json.loads(events)[0] for (events,) in ledger(db, "events")} == {"Page View"}


@pytest.mark.parametrize("hole", [FIRST, FIFTH, LAST])
async def test_the_latest_event_does_not_say_where_to_resume(db: Path, hole: date) -> None:
    """Resume fetches the days that are missing, wherever they lie, and no others."""
    sim = simulator(faults=[Fault("500", hole, hole)])
    await export(sim, db, retries=0, chunk_days=1)
    sim.faults = []
    asked = len(sim.requests)
    await export(sim, db, mode="resume")
    assert [(request.first, request.last) for request in sim.requests[asked:]] == [(hole, hole)]
    assert held(db) == truth(sim)


@pytest.mark.parametrize("mode", ["create", "append", "resume", "replace"])
async def test_days_without_events_make_a_table(db: Path, mode: str) -> None:
    """A table of no rows is there where there were no events, whatever the mode."""
    sim = simulator(first_day=date(2025, 1, 1))
    if mode == "append":
        await export(sim, db, "2024-02-01", "2024-02-03")
    result = await export(sim, db, mode=mode)
    assert (result.failed_batches, result.total_rows) == (0, 0)
    assert query(db, "SELECT count(*) FROM events") == [(0,)]


async def test_a_failed_replacement_leaves_the_old_table(db: Path) -> None:
    """Until all new days are there, the rows, the ledger and the metadata are those of the old ones."""
    sim = simulator()
    await export(sim, db)
    before = held(db), query(db, "SELECT * FROM _metadata")
    sim.faults = [Fault("terminated_early", date(2024, 3, 12))]
    result = await export(sim, db, "2024-03-10", "2024-03-12", mode="replace", retries=0)
    assert (result.failed_batches, result.total_rows) == (1, 0)
    assert (held(db), query(db, "SELECT * FROM _metadata")) == before


async def test_counts_are_not_of_32_bits(db: Path) -> None:
    """More rows than 2^31 can be counted in the ledger and in the metadata."""
    await export(simulator(), db, *ONE_DAY)
    counted = query(
        db,
        "SELECT table_name, column_name, data_type FROM duckdb_columns() WHERE column_name IN "
        "('rows', 'row_count', 'removed_duplicates', 'bytes_read') ORDER BY ALL",
    )
    assert {data_type for *_, data_type in counted} == {"BIGINT"}
    assert {("_export_batches", "rows"), ("_metadata", "row_count")} <= {
        (table, column) for table, column, _ in counted
    }


async def test_no_index_stands_between_an_event_and_its_table(db: Path) -> None:
    """A key of the table made each insert a search, and let one event push out another."""
    await export(simulator(), db, *ONE_DAY)
    found = "(SELECT table_name FROM duckdb_constraints() UNION ALL SELECT table_name FROM duckdb_indexes())"
    assert query(db, f"SELECT count(*) FROM {found} WHERE table_name = 'events'") == [(0,)]


# Callbacks, limits and patience


@pytest.mark.parametrize("call", [1, 4])
async def test_a_callback_that_raises_neither_hangs_the_export_nor_loses_a_batch(db: Path, call: int) -> None:
    """Its exception ends the export, each batch in the ledger is whole, and resume brings the rest."""
    sim = simulator()
    told: list[BatchProgress] = []

    def tell(batch: BatchProgress) -> None:
        told.append(batch)
        if len(told) == call:
            raise LookupError("mine")

    with pytest.raises(LookupError, match="mine"):
        await export(sim, db, "2024-02-01", "2024-03-09", chunk_days=1, on_batch_complete=tell)
    assert len(told) == call
    assert [row[0] for row in ledger(db, "rows") if row[0]] == [
        count
        for (count,) in query(db, "SELECT count(*) FROM events GROUP BY export_batch ORDER BY export_batch")
    ]
    await export(sim, db, "2024-02-01", "2024-03-09", mode="resume")
    assert held(db) == truth(sim, "2024-02-01", "2024-03-09")


def test_a_limit_beside_parallel_is_refused(sim: Simulator, url: str, db: Path) -> None:
    """It would hold for each request and not for the export, so it is not ignored, and costs no request."""
    with (
        Workspace(path=db, api_url=url) as workspace,
        pytest.raises(ValueError, match="limit cannot be used with"),
    ):
        workspace.fetch_events(**DAYS, parallel=True, limit=5)
    words = f"export --from 2024-03-01 --to 2024-03-09 -p --limit 5 --api-url {url} --db {db}".split()
    assert CliRunner().invoke(cli, words).exit_code == 2
    assert sim.requests == []


async def test_years_fit_into_an_hour_of_quota(db: Path) -> None:
    """More days than an hour has requests are exported in one go, and the server refuses none."""
    sim = simulator(events_per_day=1, per_hour=60)
    result = await export(sim, db, "2023-01-01", "2024-05-01", per_hour=60)
    assert result.failed_batches == 0
    assert {request.status for request in sim.requests} == {200}
    assert held(db) == truth(sim, "2023-01-01", "2024-05-01")


class Hanging(httpx.AsyncBaseTransport):
    """A network that never answers, and says when so many requests wait for it."""

    def __init__(self, enough: int) -> None:
        self.asked = 0
        self.waiting = anyio.Event()
        self._enough = enough

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:  # noqa: ARG002 - httpx's signature
        self.asked += 1
        if self.asked == self._enough:
            self.waiting.set()
        await anyio.sleep_forever()
        raise AssertionError


async def test_cancelling_does_not_wait_for_pending_batches(db: Path) -> None:
    """An export that is cancelled ends although its requests hang, and sends none for the days to come."""
    network = Hanging(enough=2)
    async with anyio.create_task_group() as tasks:

        async def run() -> None:
            await export(simulator(), db, max_workers=2, chunk_days=1, transport=network)

        tasks.start_soon(run)
        await network.waiting.wait()
        tasks.cancel_scope.cancel()
    assert network.asked == 2


@pytest.mark.parametrize("retry_after", ["seconds", "date", "none"])
async def test_a_429_is_waited_for(db: Path, retry_after: Any) -> None:
    """However it is worded, a spent quota is no failure of the batch and no empty answer."""
    fault = Fault("429", times=4, retry_after=0)
    sim = simulator(faults=[fault], limit_retry_after=retry_after)
    result = await export(sim, db, max_workers=1, retries=4)
    assert sim.hits(fault) == 4
    assert result.failed_batches == 0
    assert held(db) == truth(sim)


@pytest.mark.parametrize("kind", ["500", "502", "503", "504", "timeout_error"])
async def test_every_failure_of_the_server_is_tried_again(db: Path, kind: Any) -> None:
    """500 no less than 503, and a time-out of its own although it says 400; the page is never read as rows."""
    sim = simulator(faults=[Fault(kind, times=3, retry_after=0)])
    result = await export(sim, db)
    assert (result.failed_batches, result.rejects, len(sim.requests)) == (0, 0, 12)
    assert held(db) == truth(sim)


async def test_a_slow_answer_is_not_cut_off_while_bytes_arrive(db: Path) -> None:
    """Only silence is bounded, so an answer may take longer than every time-out."""
    sim = simulator(events_per_day=60, bandwidth=6000, piece=1000)
    result = await export(sim, db, *ONE_DAY, timeouts=Timeouts(connect=2, first_byte=2, idle=2), retries=0)
    sent = sum(request.bytes_sent for request in sim.requests)
    assert (result.failed_batches, sent > 12_000) == (0, True)
    assert held(db) == truth(sim, *ONE_DAY)
