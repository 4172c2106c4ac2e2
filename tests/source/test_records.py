"""A line of Mixpanel's response as `stream_events` yields it, and as DuckDB reads the same text."""

from datetime import UTC, date, datetime
from typing import IO, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mixpanel_export._model import Chunk
from mixpanel_export._source.records import event_time, iter_events, parse_event, to_row


def at(
    year: int, month: int, day: int, hour: int = 0, minute: int = 0, second: int = 0, micro: int = 0
) -> datetime:
    return datetime(year, month, day, hour, minute, second, micro, UTC)


def row_of(line: bytes, zone: str = "UTC") -> dict[str, Any]:
    """Return the row of a line that is an event."""
    event = parse_event(line)
    assert event is not None
    return to_row(event, line, zone)


@pytest.mark.parametrize(
    "value, time",
    [
        (0, at(1970, 1, 1)),
        (1_704_164_645, at(2024, 1, 2, 3, 4, 5)),
        (1_704_164_645.999, at(2024, 1, 2, 3, 4, 5)),
        (1_704_164_645_678, at(2024, 1, 2, 3, 4, 5, 678_000)),
        (1_704_164_645_678.9, at(2024, 1, 2, 3, 4, 5, 678_000)),
        (10**11 - 1, at(5138, 11, 16, 9, 46, 39)),
        (10**11, at(1973, 3, 3, 9, 46, 40)),
        (-1, at(1969, 12, 31, 23, 59, 59)),
        (-1.5, at(1969, 12, 31, 23, 59, 59)),
        (1 - 10**10, at(1653, 2, 10, 6, 13, 21)),
        (-(10**11), at(1966, 10, 31, 14, 13, 20)),
        ("1704164645", at(2024, 1, 2, 3, 4, 5)),
        ("2024-01-02", at(2024, 1, 2)),
        ("2024-01-02T03:04:05", at(2024, 1, 2, 3, 4, 5)),
        ("2024-01-02T03:04:05Z", at(2024, 1, 2, 3, 4, 5)),
        ("2024-01-02 03:04:05.678+05:30", at(2024, 1, 1, 21, 34, 5, 678_000)),
        ("2024-13-02", None),
        ("20240102T030405", None),
        ("yesterday", None),
        ("", None),
        ("nan", None),
        ("inf", None),
        (10**400, None),
        (9 * 10**15, None),
        (-(10**15), None),
        ("9999-12-31T23:59:59-05:00", None),
        (None, None),
        (True, None),
        ([1_704_164_645], None),
        ({"seconds": 1}, None),
    ],
)
def test_time_is_seconds_milliseconds_or_iso(value: object, time: datetime | None) -> None:
    """`time` is seconds, milliseconds from 10^11 on, or an ISO text, without fractions; anything else is None."""
    assert event_time(value) == time


@pytest.mark.parametrize(
    "value, time",
    [
        (1_704_164_645, at(2024, 1, 2, 11, 4, 5)),
        (1_720_494_245_678, at(2024, 7, 9, 10, 4, 5, 678_000)),
        ("1704164645", at(2024, 1, 2, 11, 4, 5)),
        (-1, at(1970, 1, 1, 7, 59, 59)),
        ("2024-01-02", at(2024, 1, 2, 8)),
        ("2024-07-02T03:04:05", at(2024, 7, 2, 10, 4, 5)),
        ("2024-01-02T03:04:05Z", at(2024, 1, 2, 3, 4, 5)),
        ("2024-01-02T03:04:05-05:00", at(2024, 1, 2, 8, 4, 5)),
        (1_710_037_800, at(2024, 3, 10, 10, 30)),  # 02:30, which clocks skipped
        (1_730_597_400, at(2024, 11, 3, 9, 30)),  # 01:30, which they showed twice
        (253_402_300_799_000, None),  # local, the last second of 9999
        ("9999-12-31T23:59:59", None),
        ("yesterday", None),
        (None, None),
    ],
)
def test_a_legacy_projects_time_is_its_wall_clock(value: object, time: datetime | None) -> None:
    """With a zone, numbers and text without an offset are local and become UTC; an offset is respected."""
    assert event_time(value, "US/Pacific") == time


@pytest.mark.parametrize("value", [-62_135_596_800, "0001-01-01", "0001-01-01T00:00:00"])
def test_a_moment_before_the_calendar_is_none(value: object) -> None:
    """A time before the year 1 in UTC, though not in the project's zone, is None."""
    assert event_time(value) == at(1, 1, 1)
    assert event_time(value, "Asia/Tokyo") is None


def test_the_zone_changes_the_time_only() -> None:
    """A row of a legacy project has its time in UTC, and its original properties."""
    line = b'{"event":"a","properties":{"time":1704164645,"distinct_id":"d"}}'
    assert row_of(line, "US/Pacific") == row_of(line) | {"event_time": at(2024, 1, 2, 11, 4, 5)}


@given(st.integers(-(10**14), 10**14) | st.floats(-(10**14), 10**14))
def test_numbers_become_utc(number: float) -> None:
    """Every number becomes whole seconds or milliseconds since 1970, aware, or is outside the calendar."""
    time = event_time(number)
    if time is None:
        assert abs(number) > 6 * 10**10
    else:
        unit = 1 if abs(number) < 10**11 else 1000
        assert time.tzinfo is UTC
        assert round((time - at(1970, 1, 1)).total_seconds() * unit) == int(number)


@pytest.mark.parametrize(
    "line, event",
    [
        (b'{"event":"a","properties":{}}\n', {"event": "a", "properties": {}}),
        (b' {"properties" : {"b":1} , "event" : "a" }\r\n', {"event": "a", "properties": {"b": 1}}),
        (b'{"event":"a","properties":{"b":1,"b":2}}', {"event": "a", "properties": {"b": 1}}),
        (b'{"event":"a","event":"z","properties":{}}', {"event": "a", "properties": {}}),
        (b'{"event":"a","properties":{"b":"\\ud83d!"}}', {"event": "a", "properties": {"b": "\ufffd!"}}),
        (b'{"event":"a","properties":{"b":"\\uD83D\\uDE00"}}', {"event": "a", "properties": {"b": "\U0001f600"}}),
        (b'{"event":"a","properties":{"b":"\xff"}}', {"event": "a", "properties": {"b": "\ufffd"}}),
        (b'{"event":"a","properties":{"b":"\x01"}}', {"event": "a", "properties": {"b": "\ufffd"}}),
        ('{"event":"a","properties":{"b":"\u2028\u0085"}}'.encode(), {"event": "a", "properties": {"b": "\u2028\u0085"}}),
        (b'{"event":"a","properties":{"b":' + b"9" * 30 + b"}}", {"event": "a", "properties": {"b": 10**30 - 1}}),
        (
            b'{"event":"a","properties":{"b":-Infinity}}',  # no JSON, but DuckDB takes it, so the table has it
            {"event": "a", "properties": {"b": float("-inf")}},
        ),
    ],
)  # fmt: skip
def test_an_event_is_parsed(line: bytes, event: dict[str, Any]) -> None:
    """A line with a name and properties is an event: the first of equal keys is used, and invalid text is repaired."""
    assert parse_event(line) == event


@pytest.mark.parametrize(
    "line",
    [
        b"terminated early\n",
        b'{"error":"terminated early"}',
        b'{"event":"a"}',
        b'{"event":1,"properties":{}}',
        b'{"event":"a","properties":[]}',
        b'{"event":"a","properties":{"b":1}',
        b'["event","properties"]',
        b"null",
        b"[" * 100_000,
        b"\n",
    ],
)
def test_other_lines_are_no_events(line: bytes) -> None:
    """A line that is not a JSON object with a name and properties is not an event, even if a parser accepts it."""
    assert parse_event(line) is None


def test_missing_properties_are_none() -> None:
    """An event without time and ids is kept, with None in their places and complete properties."""
    assert row_of(b'{"event":"a","properties":{"b":1}}') == {
        "event_name": "a",
        "event_time": None,
        "distinct_id": None,
        "insert_id": None,
        "properties": {"b": 1},
    }


def test_lines_that_are_no_events_are_counted() -> None:
    """Non-events are omitted, with one warning that counts them; blank lines are ignored."""

    def download(_: Chunk, __: int | None, file: IO[bytes]) -> None:
        file.write(b'{"event":"a","properties":{}}\n\n \r\noops\n{"event":"b","properties":{}}\n{}\n')

    with pytest.warns(UserWarning, match="2 lines") as caught:
        found = list(
            iter_events(download, [Chunk(date(2024, 3, 1), date(2024, 3, 1))], raw=True, zone="US/Pacific")
        )
    assert [event["event"] for event in found] == ["a", "b"]
    assert len(caught) == 1
