"""Regressions about content: each way in which exporters are known to damage lines, numbers or characters."""

import json
import tracemalloc
from datetime import date
from pathlib import Path

import httpx
import pytest
import regressions
from examples import slow
from lines import ONE_DAY, export_lines, texts
from regressions import FIFTH, FIRST, LAST
from support import Body, export, held, query, simulator, truth

from mixpanel_export import (
    LineTooLongError,
)
from mixpanel_export._database.settings import memory_limit
from mixpanel_export.simulator import Fault

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("account_in_environment")]

sim = regressions.sim


@pytest.mark.parametrize("separator", ["\u2028", *slow(["\u2029", "\u0085"])])
async def test_only_a_newline_ends_a_line(db: Path, separator: str) -> None:
    """Characters that other readers treat as line ends are preserved inside strings."""
    properties = f'{{"text":"before{separator}after"}}'
    await export_lines(db, f'{{"event":"e","properties":{properties}}}'.encode())
    assert texts(db) == {properties: 1}
    assert query(db, "SELECT count(*) FROM _export_rejects") == [(0,)]


@pytest.mark.parametrize("control", [b"\r", b"\xc2", *slow([b"\x0b", b"\x0c", b"\x1c", b"\x1d", b"\x1e"])])
async def test_a_byte_that_json_forbids_costs_no_event(db: Path, control: bytes) -> None:
    """If a string has such a byte, the event is stored without it, and the original line is stored separately."""
    line = b'{"event":"e","properties":{"text":"before' + control + b'after"}}'
    result = await export_lines(db, line)
    assert (result.repaired, result.rejects, result.total_rows) == (1, 0, 2)
    assert texts(db) == {'{"text":"before\ufffdafter"}': 1}
    assert query(db, "SELECT line FROM _export_rejects") == [(line,)]


@pytest.mark.parametrize(
    "properties",
    [
        '{"k":1,"K":2,"$k":3,"k ":4,"":5,"a.b":6,"\\"":7,"🎈":8}',
        *slow(
            [
                '{"a":null,"b":"undefined","c":"<null>","d":"<undefined>","e":""}',
                '{"list":[1,"two",null,{"three":[[]]}],"object":{"list":[{}]}}',
                '{"same":1,"same":"two"}',
            ]
        ),
    ],
)
async def test_properties_of_every_shape_stay_as_they_were_sent(db: Path, properties: str) -> None:
    """Placeholders, similar keys, nested values and repeated keys are text, not columns."""
    other = '{"k":"text","list":"scalar","object":1,"a":true}'
    await export_lines(db, *(f'{{"event":"e","properties":{text}}}'.encode() for text in (properties, other)))
    assert texts(db) == {properties: 1, other: 1}


@pytest.mark.parametrize(
    "name", ["$identify", *slow(["", "$merge", "$create_alias", "$hotshard_events", "$ae_session"])]
)
async def test_events_of_mixpanels_own_are_exported_too(db: Path, name: str) -> None:
    """No event is excluded because of its name."""
    await export_lines(db, json.dumps({"event": name, "properties": {"distinct_id": ""}}).encode())
    assert query(db, "SELECT event_name, distinct_id FROM events WHERE event_name <> 'end'") == [(name, "")]


@pytest.mark.parametrize(
    "content_type", ["text/plain; charset=iso-8859-1", *slow(["application/json", "text/html"])]
)
async def test_the_content_type_changes_nothing(db: Path, content_type: str) -> None:
    """Lines are UTF-8, whatever the header says."""
    sim = simulator(content_type=content_type)
    await export(sim, db)
    assert held(db) == truth(sim)


@pytest.mark.parametrize(
    "options", [{}, {"gzip_member": 3000}, *slow([{"gzip_over": 0}, {"gzip_over": 1 << 30}])]
)
async def test_compressed_and_plain_answers_mix(db: Path, options: dict[str, int]) -> None:
    """Small days may be plain and others compressed, or in several members: each response is read correctly."""
    sim = simulator(events_per_day=lambda day: 1 if day.day % 2 else 50, **options)
    result = await export(sim, db, chunk_days=1)
    assert (result.failed_batches, len(sim.requests)) == (0, 9)
    assert held(db) == truth(sim)


async def test_awkward_content_is_stored_and_counted_exactly(db: Path) -> None:
    """If half of the events are unusual and some lines are not events, rows, repairs and rejects equal the truth."""
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
    """Two adjacent fragments that would form an event together are two lines that are not events."""
    halves = [b'{"event":"made up","prope', b'rties":{"n":1}}']
    result = await export_lines(db, *halves)
    assert (result.total_rows, result.rejects) == (1, 2)
    assert {line for (line,) in query(db, "SELECT line FROM _export_rejects")} == set(halves)


@pytest.mark.parametrize("piece", [1, *slow([7, 16 << 20])])
async def test_characters_cut_between_pieces_arrive_whole(db: Path, piece: int) -> None:
    """Lines, characters and the gzip stream may be divided anywhere."""
    sim = simulator(piece=piece, events_per_day=20)
    days = "2024-03-01", "2024-03-02"
    await export(sim, db, *days)
    assert held(db) == truth(sim, *days)


async def test_an_odd_record_does_not_fail_its_batch(db: Path) -> None:
    """Days with only missing, null, numeric and invalid ids and times are stored in one attempt each."""
    sim = simulator(odd=1.0, missing_insert_id=0.0)
    result = await export(sim, db)
    assert (result.failed_batches, result.rejects, len(sim.requests)) == (0, 0, 3)
    assert held(db) == truth(sim)
    assert query(
        db,
        "SELECT count(*) FILTER (distinct_id IS NULL) > 0, count(*) FILTER (event_time IS NULL) > 0 FROM events",
    ) == [(True, True)]


@pytest.mark.parametrize("constant", ["NaN", *slow(["Infinity", "-Infinity"])])
async def test_a_number_that_json_does_not_have_costs_no_event(db: Path, constant: str) -> None:
    """NaN and similar texts of some serializers fail no batch: the event is stored as it was sent."""
    result = await export_lines(db, f'{{"event":"e","properties":{{"a":{constant}}}}}'.encode())
    assert (result.failed_batches, result.total_rows) == (0, 2)
    assert texts(db) == {f'{{"a":{constant}}}': 1}


@pytest.mark.parametrize("chunk_days, requests", [(2, 2), *slow([(1, 1)])])
async def test_a_line_beyond_the_maximum_fails_its_day_only(chunk_days: int, requests: int, db: Path) -> None:
    """The error about a line over 64 MiB has the maximum and the line's start; a longer chunk is split down to its day."""
    long = '{"event":"Monster","properties":{"text":"' + "x" * (64 << 20) + '"}}'
    fault = Fault("garbage_line", FIFTH, FIFTH, text=long)
    sim = simulator(faults=[fault])
    result = await export(sim, db, FIFTH, date(2024, 3, 6), chunk_days=chunk_days)
    assert sim.hits(fault) == requests
    assert result.failed_date_ranges == (ONE_DAY,)
    (error,) = result.errors
    assert isinstance(error, LineTooLongError)
    assert "2024-03-05" in str(error)
    assert "67108864 bytes" in str(error)
    assert '{"event":"Monster"' in str(error)
    assert result.total_rows == sim.truth(date(2024, 3, 6), date(2024, 3, 6)).distinct


async def test_memory_does_not_grow_with_the_batch(db: Path) -> None:
    """Of a batch of 96 MB, Python's memory has only what is kept on purpose and the current pieces."""
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
