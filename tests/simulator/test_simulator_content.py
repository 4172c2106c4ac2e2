"""Awkward content, legacy clocks, leaks and changes of the simulator, against what its lines alone say."""

import codecs
import gzip
import json
import zlib
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from fractions import Fraction
from itertools import pairwise
from typing import Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mixpanel_export.simulator import Change, Row, Simulator, Truth, checksum
from mixpanel_export.simulator.content import NAMES

DAY = date(2024, 3, 5)
NEXT = date(2024, 3, 6)
NOW = datetime(2025, 6, 1, 12, tzinfo=UTC)
ZONE = ZoneInfo("US/Pacific")
GAP_DAY, DOUBLED_DAY = date(2024, 3, 10), date(2024, 11, 3)


def simulator(**options: Any) -> Simulator:
    """Return a small simulator without limits at a time when all has arrived, unless *options* say otherwise."""
    usual: dict[str, Any] = {
        "events_per_day": 200,
        "weekday_pattern": False,
        "per_second": 0,
        "per_hour": 0,
        "now": lambda: NOW,
    }
    return Simulator(**(usual | options))


async def raw_body(of: Simulator, first: date = DAY, last: date = DAY, **params: Any) -> tuple[str, bytes]:
    """Return the Content-Encoding and the body as it went over the wire."""
    asked = {"from_date": str(first), "to_date": str(last), "project_id": "12345"} | params
    account = ("demo.mp-service-account", "demo-secret")
    async with (
        httpx.AsyncClient(base_url="http://simulator", transport=of.transport(), auth=account) as http,
        http.stream("GET", "/api/2.0/export", params=asked) as response,
    ):
        body = b"".join([piece async for piece in response.aiter_raw()])
        assert response.status_code == 200, body
        return response.headers.get("content-encoding", "identity"), body


async def body_of(of: Simulator, first: date = DAY, last: date = DAY, **params: Any) -> bytes:
    """Return the body, unpacked."""
    encoding, body = await raw_body(of, first, last, **params)
    return gzip.decompress(body) if encoding == "gzip" else body


# Reading lines: a computation that shares nothing with the simulator, nor with any exporter.


def _one_each(error: UnicodeError) -> tuple[str, int]:
    assert isinstance(error, UnicodeDecodeError)
    return "\ufffd" * (error.end - error.start), error.end


codecs.register_error("one U+FFFD each", _one_each)


def mended(line: bytes) -> str:
    """Return the line as text, each byte, control or half of a pair that breaks JSON replaced."""
    text = line.decode("utf-8", "one U+FFFD each")
    kept: list[str] = []
    inside, at = False, 0
    while at < len(text):
        take, put = 1, text[at]
        if put == '"':
            inside = not inside
        elif inside and put < " ":
            put = "\ufffd"
        elif inside and put == "\\":
            take, put = _escape(text[at : at + 12])
        kept.append(put)
        at += take
    return "".join(kept)


def _escape(text: str) -> tuple[int, str]:
    """How long the escape at the start of *text* is, and what it must become."""
    units = [text[at + 2 : at + 6].lower() for at in (0, 6) if text[at : at + 2] == "\\u"]
    if units and units[0][:1] == "d" and units[0][1] in "89abcdef":
        paired = len(units) == 2 and units[0][1] in "89ab" and units[1][0] == "d" and units[1][1] in "cdef"
        return (12, text) if paired else (6, "\ufffd")
    return 2, text[:2]


def first_wins(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    return dict(reversed(pairs))


DECODER = json.JSONDecoder(object_pairs_hook=first_wins, parse_float=Decimal)


def event_in(line: bytes) -> tuple[str, dict[str, Any], str] | None:
    """Return an event's name, its properties and their text; None for a line that is no event."""
    text = mended(line)
    try:
        whole = DECODER.decode(text)
    except ValueError:
        return None
    properties = whole.get("properties") if isinstance(whole, dict) else None
    if not isinstance(properties, dict) or not isinstance(whole.get("event"), str):
        return None
    return whole["event"], properties, text_of_properties(text)


def text_of_properties(text: str) -> str:
    """Cut out the first member of that name of the outermost object."""
    at = text.index("{") + 1
    while True:
        at += len(text[at:]) - len(text[at:].lstrip(" \t,"))
        key, at = DECODER.raw_decode(text, at)
        at = text.index(":", at) + 1
        at += len(text[at:]) - len(text[at:].lstrip(" \t"))
        start = at
        _, at = DECODER.raw_decode(text, at)
        if key == "properties":
            return text[start:at]


def as_text(value: object) -> str | None:
    """Return a JSON value as text, the way an SQL `->>` does."""
    if value is None or isinstance(value, str):
        return value
    return str(value) if isinstance(value, Decimal) else json.dumps(value, separators=(",", ":"))


def moment_of(value: object, zone: ZoneInfo | None = None) -> datetime | None:
    """Return what a `time` means: fractions for numbers, and all readings of a wall clock tried."""
    if value is None or isinstance(value, bool | list | dict):
        return None
    try:
        number = json.loads(str(value), parse_float=Fraction)
    except ValueError:
        return iso_moment(str(value), zone)
    millis = int(number) * (1 if abs(number) >= 10**11 else 1000)
    if abs(millis) > 10**15:
        return None
    return on_clock(datetime(1970, 1, 1) + timedelta(milliseconds=millis), zone)


def iso_moment(written: str, zone: ZoneInfo | None) -> datetime | None:
    try:
        moment = datetime.fromisoformat(written)
    except ValueError:
        return None
    return moment.astimezone(UTC).replace(tzinfo=None) if moment.tzinfo else on_clock(moment, zone)


def on_clock(wall: datetime, zone: ZoneInfo | None) -> datetime:
    """Return the last moment, naive UTC, at which clocks show *wall*; of a skipped time, as if they did not jump."""
    if zone is None:
        return wall
    hour = timedelta(hours=1)
    tried = [wall.replace(tzinfo=UTC) + shift * hour for shift in range(-15, 16)]
    exact = [moment for moment in tried if moment.astimezone(zone).replace(tzinfo=None) == wall]
    if exact:
        return max(exact).replace(tzinfo=None)
    yesterday = on_clock(wall - timedelta(days=1), zone)
    return yesterday + timedelta(days=1)


def expected_rows(lines: Sequence[bytes], zone: ZoneInfo | None = None) -> list[Row]:
    """Deduplicate the events among *lines*."""
    groups: dict[tuple[object, ...], list[tuple[int, str, Row]]] = {}
    for number, line in enumerate(lines):
        found = event_in(line)
        if found is None:
            continue
        name, properties, text = found
        time, insert_id = properties.get("time"), as_text(properties.get("$insert_id"))
        row = Row(name, moment_of(time, zone), as_text(properties.get("distinct_id")), insert_id, text)
        key = (name, row.distinct_id, as_text(time), insert_id) if insert_id else (number,)
        groups.setdefault(key, []).append((properties["mp_processing_time_ms"], text, row))
    return [max(group)[2] for group in groups.values()]


def expected_truth(lines: Sequence[bytes], zone: ZoneInfo | None = None) -> Truth:
    """Work out what there is to know about *lines*, all distinct events told apart over all of them."""
    events = [line for line in lines if event_in(line)]
    rows = expected_rows(events, zone)
    broken = sum(mended(line) != line.decode("utf-8", "surrogateescape") for line in events)
    return Truth(len(events), len(rows), checksum(rows), len(lines) - len(events), broken)


# Awkward content, rejects and long lines.


@settings(max_examples=15)
@given(
    seed=st.integers(0, 2**32),
    events=st.integers(0, 120),
    rates=st.tuples(*[st.sampled_from([0.0, 0.1, 1.0])] * 3, st.sampled_from([0.0, 0.5])),
)
def test_truth_of_awkward_content_is_what_its_lines_say(
    seed: int, events: int, rates: tuple[float, float, float, float]
) -> None:
    """For all rates, rows and counts are those of a computation that mends and parses the lines sent."""
    awkward, rejects, duplicates, odd = rates
    shares = {"awkward": awkward, "rejects": rejects, "duplicates": duplicates, "odd": odd}
    sim = simulator(seed=seed, events_per_day=events, **shares)
    lines = list(sim.lines(DAY, DAY))
    assert Counter(sim.rows(DAY, DAY)) == Counter(expected_rows(lines))
    assert sim.truth(DAY, DAY) == expected_truth(lines)


@pytest.fixture(scope="module")
def awkward_lines() -> list[bytes]:
    """Many lines, all of them awkward."""
    return list(simulator(events_per_day=4000, awkward=1.0, duplicates=0.3).lines(DAY, DAY))


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
def test_every_kind_of_awkward_content_is_sent(awkward_lines: list[bytes], piece: bytes) -> None:
    """Among many awkward events there is each text that exporters have been seen to break, or may break."""
    assert any(piece in line for line in awkward_lines)


def test_ids_and_times_may_be_missing_or_of_any_kind(awkward_lines: list[bytes]) -> None:
    """Among many awkward events each identifying property is missing, and is of each type."""
    found = [event[1] for event in map(event_in, awkward_lines) if event]
    for key in ("time", "distinct_id", "$insert_id"):
        types = {type(properties.get(key, ...)) for properties in found}
        assert {type(...), type(None), int, str} <= types
    times = [properties.get("time") for properties in found]
    assert any(isinstance(time, int) and 10**12 <= time < 10**13 for time in times)
    assert {len(str(properties.get("$insert_id"))) for properties in found} > {32, 36}
    assert max(len(properties) for properties in found) >= 255


def test_no_line_break_but_at_the_end_of_a_line(awkward_lines: list[bytes]) -> None:
    """Whatever a string holds, byte 0x0A is not in it."""
    assert not any(b"\n" in line for line in awkward_lines)


def test_awkward_twins_have_one_identity_and_different_bytes() -> None:
    """Events of the same identity are sent in other spellings, shapes and repairs, and collapse."""
    lines = list(simulator(events_per_day=300, awkward=1.0, duplicates=1.0).lines(DAY, DAY))
    spellings: dict[tuple[object, ...], set[bytes]] = {}
    for line in lines:
        if found := event_in(line):
            name, properties, _ = found
            if insert_id := properties.get("$insert_id"):
                key = (name, as_text(properties.get("distinct_id")), as_text(properties.get("time")))
                spellings.setdefault((*key, as_text(insert_id)), set()).add(line)
    twins = [group for group in spellings.values() if len(group) > 1]
    assert len(twins) > 100
    assert any(b'{"properties":' in line for group in twins for line in group)
    assert any({rb'"$insert_id":"\u' in line for line in group} == {True, False} for group in twins)


def test_names_are_told_apart() -> None:
    """No two names are the same, so a name's number stands for it."""
    assert len(set(NAMES)) == len(NAMES)


@pytest.mark.anyio
async def test_a_line_that_is_no_event_is_never_the_last() -> None:
    """Whatever is asked for, and in whatever order it comes, the last line is an event."""
    sim = simulator(rejects=0.5, events_per_day=30, shuffled=True, awkward=0.2)
    for params in ({}, {"limit": "1"}, {"limit": "7"}, {"limit": "20"}, {"event": '["Page View"]'}):
        for _ in range(8):
            lines = (await body_of(sim, DAY, NEXT, **params)).split(b"\n")
            assert lines.pop() == b""
            assert event_in(lines[-1])
            assert "limit" not in params or len([*filter(event_in, lines)]) == int(params["limit"])


def test_rejects_of_every_kind_come_at_the_rate_set() -> None:
    """Rejects are as frequent as asked for, are no events to a JSON parser, and are of several JSON types."""
    lines = list(simulator(rejects=0.1, events_per_day=4000, duplicates=0.0).lines(DAY, DAY))
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


def test_long_lines_are_as_long_as_said() -> None:
    """Long lines have from a fifth of the length set up to it, the others stay as they are."""
    sim = simulator(long_lines=0.05, long_line_bytes=1_000_000, duplicates=0.0)
    sizes = sorted(map(len, sim.lines(DAY, DAY)))
    long = [size for size in sizes if size > 10_000]
    assert 3 <= len(long) <= 25
    assert long[0] >= 200_000
    assert 500_000 <= long[-1] <= 1_010_000
    assert len(sizes) == 200
    assert Counter(sim.rows(DAY, DAY)) == Counter(expected_rows(list(sim.lines(DAY, DAY))))


@pytest.mark.anyio
async def test_milliseconds_of_awkward_events() -> None:
    """With `time_in_ms` seconds become milliseconds in lines of every shape, and nothing else changes."""
    sim = simulator(awkward=1.0, rejects=0.1)
    body = await body_of(sim, time_in_ms="true")
    times = {
        time
        for _, properties, _ in filter(None, map(event_in, body.split(b"\n")))
        if isinstance(time := properties.get("time"), int)
    }
    assert not {time for time in times if 10**9 <= time < 10**11}
    assert len({time for time in times if 10**12 <= time < 10**13}) > 100
    assert body.count(b"\n") == len(list(sim.lines(DAY, DAY)))


# The clocks of legacy projects.


@pytest.mark.parametrize("day", [DAY, GAP_DAY, DOUBLED_DAY])
def test_truth_of_a_legacy_project_reads_the_wall_clock(day: date) -> None:
    """Times are local, and truth has the moment they mean, the later one where there are two or none."""
    sim = simulator(timezone="US/Pacific", odd=0.1, awkward=0.1)
    lines = list(sim.lines(day, day))
    assert Counter(sim.rows(day, day)) == Counter(expected_rows(lines, ZONE))
    assert sim.truth(day, day) == expected_truth(lines, ZONE)
    assert sim.truth(day, day, as_utc=True) == expected_truth(lines)
    assert sim.truth(day, day) != sim.truth(day, day, as_utc=True)


@pytest.mark.parametrize("day,offset", [(GAP_DAY, None), (DOUBLED_DAY, 2)])
def test_a_day_of_change_has_events_in_the_hour_of_change(day: date, offset: int | None) -> None:
    """However few events a day has, some have a time that does not exist, or that exists twice."""
    sim = simulator(timezone="US/Pacific", events_per_day=20, odd=0.0)
    walls = [datetime.fromtimestamp(time, UTC) for time in seconds_of(sim, day)]
    hour = [wall for wall in walls if wall.hour == (1 if offset else 2)]
    assert len(hour) >= 2
    assert {wall.date() for wall in walls} == {day}


def seconds_of(sim: Simulator, day: date) -> list[int]:
    return [json.loads(line)["properties"]["time"] for line in sim.lines(day, day)]


@pytest.mark.parametrize("day", [DAY, GAP_DAY, DOUBLED_DAY])
def test_arrival_stays_utc(day: date) -> None:
    """Events arrive after the true moment of their time, never before it."""
    sim = simulator(timezone="US/Pacific", odd=0.0, duplicates=0.0, late=0.0)
    for row in sim.rows(day, day):
        assert row.event_time is not None
        processed = json.loads(row.properties)["mp_processing_time_ms"] / 1000
        delay = processed - row.event_time.replace(tzinfo=UTC).timestamp()
        assert 0.2 <= delay <= 4.3


@pytest.mark.anyio
@pytest.mark.parametrize(
    "timezone,moment,today",
    [
        ("US/Pacific", datetime(2024, 3, 6, 7, 59, tzinfo=UTC), date(2024, 3, 5)),
        ("US/Pacific", datetime(2024, 3, 6, 8, 0, tzinfo=UTC), date(2024, 3, 6)),
        ("Asia/Tokyo", datetime(2024, 3, 5, 15, 0, tzinfo=UTC), date(2024, 3, 6)),
        (None, datetime(2024, 3, 5, 23, 59, tzinfo=UTC), date(2024, 3, 5)),
    ],
)
async def test_today_is_the_projects(timezone: str | None, moment: datetime, today: date) -> None:
    """The last day that may be asked for is the one that it is in the project's zone."""
    sim = simulator(timezone=timezone, now=lambda: moment)
    await body_of(sim, DAY, today)
    with pytest.raises(AssertionError, match="later than today"):
        await body_of(sim, DAY, today + timedelta(days=1))


def test_a_zone_that_does_not_exist_is_refused_at_once() -> None:
    """A simulator of an unknown zone cannot be made."""
    with pytest.raises(ZoneInfoNotFoundError):
        simulator(timezone="US/Nowhere")


def test_a_legacy_day_is_complete_in_the_end() -> None:
    """A day that clocks west of UTC end late still gets all its events."""
    clock = [datetime(2024, 3, 6, tzinfo=UTC)]
    sim = simulator(timezone="US/Pacific", late=1.0, events_per_day=1000, now=lambda: clock[0])
    counts = []
    for hours in (0, 24, 42, 49, 80, 1000):
        clock[0] = datetime(2024, 3, 6, tzinfo=UTC) + timedelta(hours=hours)
        counts.append(sim.truth(DAY, DAY).rows)
        arrivals = [json.loads(line)["properties"]["mp_processing_time_ms"] for line in sim.lines(DAY, DAY)]
        assert max(arrivals, default=0) <= clock[0].timestamp() * 1000
    assert counts == sorted(counts)
    assert counts[0] < counts[-2] == counts[-1]


# Days that hold events of their neighbours.


@settings(max_examples=15)
@given(
    seed=st.integers(0, 2**32),
    rates=st.tuples(*[st.sampled_from([0.0, 0.1, 0.5])] * 4),
    days=st.integers(1, 4),
)
def test_truth_of_a_range_counts_leaked_events_once(
    seed: int, rates: tuple[float, float, float, float], days: int
) -> None:
    """For all rates, truth is the set of all lines of all days of the range, whatever day sends them."""
    leaks, strays, duplicates, awkward = rates
    sim = simulator(
        seed=seed, events_per_day=40, leaks=leaks, strays=strays, duplicates=duplicates, awkward=awkward
    )
    last = DAY + timedelta(days=days - 1)
    lines = list(sim.lines(DAY, last))
    assert sim.truth(DAY, last) == expected_truth(lines)
    assert Counter(sim.rows(DAY, last)) == Counter(expected_rows(lines))


def test_leaks_are_in_both_answers_and_strays_in_the_wrong_one_only() -> None:
    """A leaked event has its own day and a neighbour's, a stray only a neighbour's; each keeps its line."""
    plain = {day: set(simulator(odd=0.0).lines(day, day)) for day in (DAY, NEXT)}
    leaky = simulator(odd=0.0, leaks=0.2)
    assert plain[DAY] < set(leaky.lines(DAY, DAY))
    forth = set(leaky.lines(NEXT, NEXT)) & plain[DAY]
    back = set(leaky.lines(DAY, DAY)) & plain[NEXT]
    assert len(forth) > 5
    assert len(back) > 5
    assert all(json.loads(line)["properties"]["$insert_id"] for line in forth | back)
    astray = simulator(odd=0.0, strays=0.2)
    gone = plain[DAY] - set(astray.lines(DAY, DAY))
    assert len(gone) > 20
    around = set(astray.lines(DAY - timedelta(days=1), DAY - timedelta(days=1)))
    assert gone <= around | set(astray.lines(NEXT, NEXT))


def test_events_that_come_late_leak_late() -> None:
    """What has not arrived is in no day, and what has stays: a neighbour's answer grows as a day's own does."""
    clock = [datetime(2024, 3, 5, tzinfo=UTC)]
    sim = simulator(leaks=0.5, late=0.5, now=lambda: clock[0])
    counts = []
    for hours in (0, 24, 48, 72, 96, 120, 1000):
        clock[0] = datetime(2024, 3, 5, tzinfo=UTC) + timedelta(hours=hours)
        counts.append(sim.truth(DAY, DAY).rows)
        arrivals = [json.loads(line)["properties"]["mp_processing_time_ms"] for line in sim.lines(DAY, DAY)]
        assert max(arrivals, default=0) <= clock[0].timestamp() * 1000
    assert counts == sorted(counts)
    assert counts[-1] == counts[-2]


# What happens to stored events.


def test_late_events_appear_when_they_are_imported() -> None:
    """A late event is in no answer before, then it is, and says when it came."""
    at = datetime(2024, 6, 1, tzinfo=UTC)
    clock = [at - timedelta(seconds=1)]
    sim = simulator(now=lambda: clock[0], changes=[Change("late", at, share=0.3, first=DAY, last=DAY)])
    before, untouched = set(sim.lines(DAY, DAY)), set(sim.lines(NEXT, NEXT))
    early = sim.truth(DAY, DAY)
    clock[0] = at
    new = set(sim.lines(DAY, DAY)) - before
    assert before < set(sim.lines(DAY, DAY))
    assert 30 <= len(new) <= 90
    arrivals = {json.loads(line)["properties"]["mp_processing_time_ms"] for line in new}
    assert arrivals == {int(at.timestamp() * 1000)}
    assert set(sim.lines(NEXT, NEXT)) == untouched
    assert sim.truth(DAY, DAY) == expected_truth(list(sim.lines(DAY, DAY))) != early


def test_events_are_in_no_answer_for_a_while() -> None:
    """An event that was processed is visible only after the time set, and truth knows."""
    clock = [datetime(2024, 3, 5, 18, tzinfo=UTC)]
    seen_at_once = simulator(now=lambda: clock[0], late=0.0)
    unseen = simulator(now=lambda: clock[0], late=0.0, visible_after=2700.0)
    before = set(seen_at_once.lines(DAY, DAY))
    assert set(unseen.lines(DAY, DAY)) < before
    assert unseen.truth(DAY, DAY) == expected_truth(list(unseen.lines(DAY, DAY)))
    clock[0] += timedelta(minutes=45)
    assert set(unseen.lines(DAY, DAY)) == before


def test_removed_events_may_come_back() -> None:
    """Removed events are missing from the moment they are removed until they are restored."""
    removed, restored = datetime(2024, 6, 1, tzinfo=UTC), datetime(2024, 6, 8, tzinfo=UTC)
    clock = [removed - timedelta(days=1)]
    later = Change("merged", restored + timedelta(days=1), first=NEXT)
    sim = simulator(now=lambda: clock[0], changes=[Change("removed", removed, restored, share=0.3), later])
    whole, before = list(sim.lines(DAY, DAY)), sim.truth(DAY, DAY)
    clock[0] = removed
    assert 100 < len(list(sim.lines(DAY, DAY))) < 170
    assert set(sim.lines(DAY, DAY)) < set(whole)
    assert sim.truth(DAY, DAY) == expected_truth(list(sim.lines(DAY, DAY)))
    for days in (0, 1, 100):
        clock[0] = restored + timedelta(days=days)
        assert list(sim.lines(DAY, DAY)) == whole
        assert sim.truth(DAY, DAY) == before


def test_events_removed_for_good_stay_away() -> None:
    """Without a restoration removed events are missing for ever."""
    gone = simulator(changes=[Change("removed", datetime(2024, 6, 1, tzinfo=UTC), share=1.0)])
    assert gone.truth(DAY, DAY) == Truth()


def test_merged_users_are_rewritten_alike() -> None:
    """Events of a merged user change their distinct_id, keep the former one, and are otherwise the same."""
    at = datetime(2024, 6, 1, tzinfo=UTC)
    clock = [at - timedelta(days=1)]
    sim = simulator(now=lambda: clock[0], events_per_day=3000, changes=[Change("merged", at, share=0.4)])
    before = [json.loads(line)["properties"] for line in sim.lines(DAY, DAY)]
    clock[0] = at
    after = [json.loads(line)["properties"] for line in sim.lines(DAY, DAY)]
    renamed: dict[str, set[str]] = {}
    for old, new in zip(before, after, strict=True):
        if "$distinct_id_before_identity" in new:
            assert new.pop("$distinct_id_before_identity") == old["distinct_id"]
            assert new.pop("$is_reshuffled") is True
            renamed.setdefault(old["distinct_id"], set()).add(new["distinct_id"])
            old = old | {"distinct_id": new["distinct_id"]}  # noqa: PLW2901 - what the rest is compared with
        assert old == new
    assert len(renamed) > 100
    assert all(len(names) == 1 and names.pop().startswith("user-") for names in renamed.values())
    kept = {old["distinct_id"] for old in before if old.get("distinct_id")} - set(renamed)
    assert not any(new.get("distinct_id") in renamed for new in after)
    assert any(name.startswith("$device:") for name in map(str, kept))


@pytest.mark.anyio
async def test_answers_change_with_what_is_stored() -> None:
    """A day that was served before a change is served anew after it."""
    at = datetime(2024, 6, 1, tzinfo=UTC)
    clock = [at - timedelta(days=1)]
    changes = [Change("merged", at), Change("removed", at), Change("late", at)]
    sim = simulator(now=lambda: clock[0], changes=changes)
    for moment in (at - timedelta(days=1), at, at + timedelta(days=100)):
        clock[0] = moment
        for _ in range(2):
            assert sorted((await body_of(sim)).split(b"\n")[:-1]) == sorted(sim.lines(DAY, DAY))


# How bodies go out.


@pytest.mark.anyio
async def test_lines_come_in_another_order_on_each_call() -> None:
    """A shuffled simulator never sends even a small day twice in the same order, and always the same lines."""
    sim = simulator(shuffled=True, rejects=0.2)
    bodies = [(await body_of(sim)).split(b"\n")[:-1] for _ in range(4)]
    assert len({tuple(lines) for lines in bodies}) == 4
    assert len({tuple(sorted(lines)) for lines in bodies}) == 1
    assert Counter(bodies[0]) == Counter(sim.lines(DAY, DAY))


@pytest.mark.anyio
@pytest.mark.parametrize("size", [1, 100, 4099, 10**9])
async def test_gzip_members_end_anywhere(size: int) -> None:
    """Members of any size, whole each, together make the body; small ones end inside lines and characters."""
    sim = simulator(gzip_member=size, gzip_over=0, events_per_day=30)
    encoding, raw = await raw_body(sim)
    members = []
    while raw:
        member = zlib.decompressobj(wbits=31)
        members.append(member.decompress(raw))
        assert member.eof
        raw = member.unused_data
    assert encoding == "gzip"
    assert {len(member) for member in members[:-1]} <= {size}
    assert sorted(b"".join(members).split(b"\n")[:-1]) == sorted(sim.lines(DAY, DAY))
    if size <= 4099:
        assert len(members) >= 3
        assert not all(member.endswith(b"\n") for member in members)
    if size <= 100:
        assert any(0x80 <= following[0] < 0xC0 for _, following in pairwise(members))


@pytest.mark.anyio
@pytest.mark.parametrize("member", [None, 100])
async def test_an_empty_day_is_nothing_or_gzip_of_nothing(member: int | None) -> None:
    """A day without events is a body of no bytes, or a gzip member of nothing where compression is forced."""
    assert await raw_body(simulator(events_per_day=0, gzip_member=member)) == ("identity", b"")
    encoding, raw = await raw_body(simulator(events_per_day=0, gzip_over=-1, gzip_member=member))
    assert (encoding, gzip.decompress(raw)) == ("gzip", b"")
    assert raw


@pytest.mark.anyio
@pytest.mark.parametrize("piece", [1, 16 * 1024 * 1024])
async def test_awkward_bodies_survive_every_size_of_piece(piece: int) -> None:
    """Pieces of one byte and of 16 MB carry the same lines."""
    sim = simulator(piece=piece, awkward=1.0, rejects=0.1, events_per_day=50)
    assert Counter((await body_of(sim)).split(b"\n")[:-1]) == Counter(sim.lines(DAY, DAY))
