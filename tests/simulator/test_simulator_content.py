"""Unusual content, rejects and long lines, compared with a reference that only reads the lines."""

import json
from collections import Counter
from datetime import date

import pytest
from endpoint import get, simulator
from examples import examples
from hypothesis import given
from hypothesis import strategies as st
from reference import as_text, event_in, expected_rows, expected_truth

from mixpanel_export.simulator.content import NAMES

DAY = date(2024, 3, 5)


@examples(core=8, full=30)
@given(
    seed=st.integers(0, 2**32),
    events=st.integers(0, 120),
    rates=st.tuples(*[st.sampled_from([0.0, 0.1, 1.0])] * 3, st.sampled_from([0.0, 0.5])),
)
def test_the_truth_about_awkward_content_matches_its_lines(
    seed: int, events: int, rates: tuple[float, float, float, float]
) -> None:
    """For all rates, rows and counts equal those of the reference."""
    awkward, rejects, duplicates, odd = rates
    shares = {"awkward": awkward, "rejects": rejects, "duplicates": duplicates, "odd": odd}
    sim = simulator(seed=seed, events_per_day=events, **shares)
    lines = list(sim.lines(DAY, DAY))
    assert Counter(sim.rows(DAY, DAY)) == Counter(expected_rows(lines))
    assert sim.truth(DAY, DAY) == expected_truth(lines)


@pytest.fixture(scope="module")
def awkward_lines() -> list[bytes]:
    """Many lines, all of them awkward."""
    return list(simulator(events_per_day=2000, awkward=1.0, duplicates=0.3).lines(DAY, DAY))


@pytest.mark.parametrize(
    "piece",
    [
        *("\u2028".encode(), "\u2029".encode(), "\u0085".encode(), rb"\u0000", rb'\ud83d"', rb"\uDE00b"),
        *(b"\xff", b"caf\xe9", b"\xf0\x9f\x98", b"a\tb", b"a\x00b", b"a\rb", b"\x1c\x1d\x1e"),
        *(b"9007199254740993", b"18446744073709551616", b"123456789012345678901234567890"),
        *(b"1e308", b"1e400", b"-0.0", b'"one":1,"one again":1.0', b"1E5", b"3.1415926535897932384626433"),
        *(b'"undefined"', b'"<null>"', b'"text null"', b'"mixed":[', b'"mixed":{', b'"mixed":1', b'"mixed":"'),
        *(b'"Plan":1,"plan":2', b'"$browser":"shadow","browser"', b'"a key"', b'"a.key"', "🎈".encode()),
        *(b'"":', b'"twice":1,"twice":"two"', b'"time":1,"distinct_id":"second","$insert_id":"second"'),
        *(b'"property 254":254', b'"$merge"', b'"$create_alias"', b'"$hotshard_events"', b'"$ae_session"'),
        *(b'"event":""', rb'"first\r\nsecond', rb'"say \"hi\"', b'{"properties":{', b'{ "event" : ', b'"more":'),
        *(b'"distinct_id":""', b'"distinct_id":-7', b'"$insert_id":42', b'~#%"', b'"time":-', b'"time":"'),
    ],
)  # fmt: skip
def test_every_kind_of_awkward_content_occurs(awkward_lines: list[bytes], piece: bytes) -> None:
    """Many awkward events contain every text that exporters were seen to break on, or may break on."""
    assert any(piece in line for line in awkward_lines)


def test_ids_and_times_can_be_missing_or_of_any_type(awkward_lines: list[bytes]) -> None:
    """Among many awkward events each identifying property is missing, and has every type."""
    all_properties = [event[1] for event in map(event_in, awkward_lines) if event]
    for key in ("time", "distinct_id", "$insert_id"):
        types = {type(properties.get(key, ...)) for properties in all_properties}
        assert {type(...), type(None), int, str} <= types
    times = [properties.get("time") for properties in all_properties]
    assert any(isinstance(time, int) and 10**12 <= time < 10**13 for time in times)
    assert {len(str(properties.get("$insert_id"))) for properties in all_properties} > {32, 36}
    assert max(len(properties) for properties in all_properties) >= 255


def test_no_newline_inside_a_line(awkward_lines: list[bytes]) -> None:
    """No string contains byte 0x0A."""
    assert not any(b"\n" in line for line in awkward_lines)


def test_awkward_duplicates_have_one_identity_and_different_bytes() -> None:
    """Events of one identity are sent with different escapes, line formats and repairs."""
    lines = list(simulator(events_per_day=300, awkward=1.0, duplicates=1.0).lines(DAY, DAY))
    by_identity: dict[tuple[object, ...], set[bytes]] = {}
    for line in lines:
        if event := event_in(line):
            name, properties, _ = event
            if insert_id := properties.get("$insert_id"):
                key = (name, as_text(properties.get("distinct_id")), as_text(properties.get("time")))
                by_identity.setdefault((*key, as_text(insert_id)), set()).add(line)
    duplicates = [group for group in by_identity.values() if len(group) > 1]
    assert len(duplicates) > 100
    assert any(b'{"properties":' in line for group in duplicates for line in group)
    assert any({rb'"$insert_id":"\u' in line for line in group} == {True, False} for group in duplicates)


def test_names_are_unique() -> None:
    """No two event names are equal, so the index of a name identifies it."""
    assert len(set(NAMES)) == len(NAMES)


@pytest.mark.anyio
async def test_the_last_line_is_an_event() -> None:
    """With rejects, the last line is an event for every query and in every order."""
    sim = simulator(rejects=0.5, events_per_day=30, shuffled=True, awkward=0.2)
    for params in ({}, {"limit": "1"}, {"limit": "7"}, {"limit": "20"}, {"event": '["Page View"]'}):
        for _ in range(8):
            lines = (await get(sim, **params)).content.split(b"\n")
            assert lines.pop() == b""
            assert event_in(lines[-1])
            assert "limit" not in params or len([*filter(event_in, lines)]) == int(params["limit"])


def test_rejects_of_every_kind_occur_at_the_configured_rate() -> None:
    """Rejects occur at their rate, are not events for a JSON parser, and have several JSON types."""
    sim = simulator(rejects=0.1, events_per_day=4000, weekday_pattern=False, duplicates=0.0)
    lines = list(sim.lines(DAY, DAY))
    rejects = [line for line in lines if not event_in(line)]
    assert 330 < len(rejects) < 470
    assert len(lines) - len(rejects) == 4000
    types = {type(json.loads(line)) for line in set(rejects) if is_json(line)}
    assert types == {dict, list, str, float, type(None)}
    assert b'{"event":1,"properties":{}}' in rejects
    assert not all(map(is_json, rejects))


def is_json(line: bytes) -> bool:
    try:
        json.loads(line)
    except ValueError:
        return False
    return True


def test_long_lines_have_the_configured_length() -> None:
    """Long lines have between a fifth of the configured length and all of it; the others are unchanged."""
    sim = simulator(
        long_lines=0.05, long_line_bytes=1_000_000, events_per_day=200, weekday_pattern=False, duplicates=0.0
    )
    sizes = sorted(map(len, sim.lines(DAY, DAY)))
    long = [size for size in sizes if size > 10_000]
    assert 3 <= len(long) <= 25
    assert long[0] >= 200_000
    assert 500_000 <= long[-1] <= 1_010_000
    assert len(sizes) == 200
    assert Counter(sim.rows(DAY, DAY)) == Counter(expected_rows(list(sim.lines(DAY, DAY))))


@pytest.mark.anyio
async def test_time_in_ms_of_awkward_events() -> None:
    """With `time_in_ms` seconds become milliseconds in lines of every format, and nothing else changes."""
    sim = simulator(awkward=1.0, rejects=0.1, events_per_day=200)
    body = (await get(sim, from_date=str(DAY), to_date=str(DAY), time_in_ms="true")).content
    times = {
        time
        for _, properties, _ in filter(None, map(event_in, body.split(b"\n")))
        if isinstance(time := properties.get("time"), int)
    }
    assert not {time for time in times if 10**9 <= time < 10**11}
    assert len({time for time in times if 10**12 <= time < 10**13}) > 100
    assert body.count(b"\n") == len(list(sim.lines(DAY, DAY)))
