"""Parses NDJSON lines into the dictionaries that `stream_events` yields.

For the same lines, an export writes the same values into the table.
"""

import re
import warnings
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime, timedelta
from tempfile import TemporaryFile
from typing import IO, Any

from mixpanel_export._model import Chunk
from mixpanel_export._ndjson import canonical, loads, member_text, normalized
from mixpanel_export._timezones import ISO_TIME, to_utc

_EPOCH = datetime(1970, 1, 1)  # noqa: DTZ001 - in the zone of the number
# Larger numbers are milliseconds. As seconds, they would be times after the year 5138.
_MILLISECONDS_FROM = 10**11
# The start of the year 1 in seconds since 1970, and the end of the year 9999 in milliseconds.
_FIRST_SECOND, _LAST_MILLISECOND = -62_135_596_800, 253_402_300_799_999
_DAY = timedelta(days=1)
# Python supports only the years 1 to 9999. A time outside these years may be inside them once its offset is applied.
# The time is computed in a year 400 years away, because the calendar repeats every 400 years.
_SHIFTS = {0: 400, 9999: -400}
_NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?")
_ISO_TIME = re.compile(ISO_TIME)


def iter_events(
    download: Callable[[Chunk, int | None, IO[bytes]], None],
    chunks: Iterable[Chunk],
    *,
    raw: bool,
    limit: int | None = None,
    zone: str = "UTC",
) -> Iterator[dict[str, Any]]:
    """Download one chunk after another, and yield its events. Warn at the end if some lines were not events.

    *download* writes the lines of a complete response to a file. Its second argument is the remaining part of *limit*.
    """
    __tracebackhide__ = True
    rejects = 0
    for chunk in chunks:
        if limit == 0:
            break
        with TemporaryFile() as file:
            download(chunk, limit, file)
            file.seek(0)
            for line in file:
                if line.isspace():
                    continue
                if limit is not None:
                    limit = max(0, limit - 1)
                event = parse_event(line)
                if event is not None:
                    yield event if raw else to_row(event, line, zone)
                else:
                    rejects += 1
    if rejects:
        warnings.warn(f"{rejects} lines of Mixpanel's response are not events and were skipped", stacklevel=2)


def parse_event(line: bytes) -> dict[str, Any] | None:
    """Return the event in a line; None if the line is not an event. A line is repaired if an export would repair it."""
    # DuckDB rejects an escaped lone surrogate; Python does not.
    suspect = b"\\ud" in line or b"\\uD" in line
    event = None if suspect else _load_object(line)
    if event is None:
        repaired = canonical(line)
        event = _load_object(repaired.line) if repaired else None
    if event and isinstance(event.get("event"), str) and isinstance(event.get("properties"), dict):
        return event
    return None


def to_row(event: dict[str, Any], line: bytes, zone: str = "UTC") -> dict[str, Any]:
    """Return the columns of an *event*, which was parsed from *line*. `properties` is the whole object."""
    properties = event["properties"]
    return {
        "event_name": event["event"],
        "event_time": event_time(properties.get("time"), zone),
        "distinct_id": _id(properties, "distinct_id", line),
        "insert_id": _id(properties, "$insert_id", line),
        "properties": properties,
    }


def event_time(value: object, zone: str = "UTC") -> datetime | None:
    """Convert Mixpanel's `time` property to an aware time in UTC; None if it cannot be parsed.

    A number, or a string with a number, is in seconds since 1970, or in milliseconds if its absolute value is at least
    10^11. Fractions are dropped. Any other string must be an ISO date or time. Numbers and strings without an offset
    are local times in *zone*, which `to_utc` converts.
    """
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    if isinstance(value, str) and not _NUMBER.fullmatch(value):
        return iso_time(value, zone)
    try:
        return _number_time(float(value), zone)
    except OverflowError:
        return None


def _number_time(number: float, zone: str) -> datetime | None:
    if abs(number) < _MILLISECONDS_FROM:
        if number < _FIRST_SECOND:
            return None
        elapsed = timedelta(seconds=int(number))
    elif 1000 * _FIRST_SECOND <= number <= _LAST_MILLISECOND:
        elapsed = timedelta(milliseconds=int(number))
    else:
        return None
    try:
        return to_utc(_EPOCH + elapsed, zone)
    except OverflowError:
        return None


def iso_time(text: str, zone: str) -> datetime | None:
    """Convert an ISO date or time to UTC; None if it cannot be parsed.

    A time without an offset is a local time in *zone*.
    """
    match = _ISO_TIME.fullmatch(text)
    if match is None:
        return None
    year, month, day, hour, minute, second = (int(number or 0) for number in match.groups()[:6])
    microsecond = int((match[7] or "")[:6].ljust(6, "0"))
    clock = timedelta(hours=hour, minutes=minute, seconds=second, microseconds=microsecond)
    if minute > 59 or second > 59 or clock > _DAY:
        return None
    shift = _SHIFTS.get(year, 0)
    try:
        midnight = datetime(year + shift, month, day)  # noqa: DTZ001 - in the text's offset, or in *zone*
        if match[8]:
            moment = (midnight + clock - _offset(match[8])).replace(tzinfo=UTC)
        else:
            moment = to_utc(midnight + clock, zone)
        return moment.replace(year=moment.year - shift)
    except (ValueError, OverflowError):
        return None


def _offset(text: str) -> timedelta:
    """Parse an offset from UTC: `Z`, or hours, minutes and seconds, with or without colons."""
    digits = text[1:].replace(":", "").ljust(6, "0")
    offset = timedelta(hours=int(digits[:2]), minutes=int(digits[2:4]), seconds=int(digits[4:]))
    return -offset if text.startswith("-") else offset


def _id(properties: dict[str, Any], key: str, line: bytes) -> str | None:
    """Return an id as an export stores it: a string unchanged, and any other value as the JSON that DuckDB writes."""
    value = properties.get(key)
    if value is None or isinstance(value, str):
        return value
    if type(value) is int:
        return str(value)
    repaired = canonical(line)
    return (
        normalized(member_text(member_text(repaired.line.decode(), "properties"), key)) if repaired else None
    )


def _load_object(line: bytes) -> dict[str, Any] | None:
    try:
        value = loads(line.decode())
    except ValueError:
        return None
    return value if isinstance(value, dict) else None
