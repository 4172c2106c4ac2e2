"""NDJSON lines → the dictionaries that `stream_events` yields. They say what the table says of the same lines."""

import re
import warnings
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from tempfile import TemporaryFile
from typing import Any, BinaryIO

from mixpanel_export._ndjson import canonical, loads, member, written
from mixpanel_export._timezones import ISO_TIME, to_utc

_EPOCH = datetime(1970, 1, 1)  # noqa: DTZ001 - in whatever zone the number is meant
# Numbers from here on are milliseconds: as seconds they would lie after the year 5138.
_MILLISECONDS_FROM = 10**11
_FIRST, _LAST = -62_135_596_800, 253_402_300_799_999  # in seconds and in milliseconds: the years 1 to 9999
_DAY = timedelta(days=1)
# Python has no year 0, and none after 9999, but other offsets may move such a time into the years that it has. The
# calendar repeats after 400 years.
_SHIFTS = {0: 400, 9999: -400}
_NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?")
_ISO_TIME = re.compile(ISO_TIME)


def streamed(
    download: Callable[[BinaryIO], None], *, raw: bool, zone: str = "UTC"
) -> Iterator[dict[str, Any]]:
    """Call *download* with a file, then yield the events in it; warn of lines that are no events."""
    __tracebackhide__ = True
    rejects = 0
    with TemporaryFile() as file:
        download(file)
        file.seek(0)
        for line in file:
            event = parsed(line)
            if event is not None:
                yield event if raw else as_row(event, line, zone)
            elif not line.isspace():
                rejects += 1
    if rejects:
        warnings.warn(f"{rejects} lines of Mixpanel's response are no events and were left out", stacklevel=2)


def parsed(line: bytes) -> dict[str, Any] | None:
    """Return Mixpanel's object, repaired as in the table where necessary; None for a line that is no event."""
    # DuckDB refuses an escaped half of a surrogate pair, Python does not.
    suspect = b"\\ud" in line or b"\\uD" in line
    event = None if suspect else _loaded(line)
    if event is None:
        repaired = canonical(line)
        event = _loaded(repaired.line) if repaired else None
    if event and isinstance(event.get("event"), str) and isinstance(event.get("properties"), dict):
        return event
    return None


def as_row(event: dict[str, Any], line: bytes, zone: str = "UTC") -> dict[str, Any]:
    """Return the *event* of a *line* under mixpanel_data's names; `properties` is the complete object, as in the table."""
    properties = event["properties"]
    return {
        "event_name": event["event"],
        "event_time": event_time(properties.get("time"), zone),
        "distinct_id": _id(properties, "distinct_id", line),
        "insert_id": _id(properties, "$insert_id", line),
        "properties": properties,
    }


def event_time(value: object, zone: str = "UTC") -> datetime | None:
    """Return the moment that Mixpanel's `time` means, aware, in UTC; None if it is unparseable.

    A number is seconds, from 10^11 in absolute value on milliseconds, less any fraction, whether it is sent as a number or
    as text. Other text is an ISO date or time. Numbers, and text without an offset, are what clocks in *zone* showed;
    `to_utc` says what that means of times that occurred twice or were skipped.
    """
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    if isinstance(value, str) and not _NUMBER.fullmatch(value):
        return _iso_time(value, zone)
    try:
        return _number_time(float(value), zone)
    except OverflowError:
        return None


def _number_time(number: float, zone: str) -> datetime | None:
    if abs(number) < _MILLISECONDS_FROM:
        if number < _FIRST:
            return None
        elapsed = timedelta(seconds=int(number))
    elif 1000 * _FIRST <= number <= _LAST:
        elapsed = timedelta(milliseconds=int(number))
    else:
        return None
    try:
        return to_utc(_EPOCH + elapsed, zone)
    except OverflowError:
        return None


def _iso_time(text: str, zone: str) -> datetime | None:
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
        midnight = datetime(year + shift, month, day)  # noqa: DTZ001 - on the clock of the text's offset, or of *zone*
        if match[8]:
            moment = (midnight + clock - _offset(match[8])).replace(tzinfo=UTC)
        else:
            moment = to_utc(midnight + clock, zone)
        return moment.replace(year=moment.year - shift)
    except (ValueError, OverflowError):
        return None


def _offset(text: str) -> timedelta:
    """Return an offset from UTC: `Z`, or hours, minutes and seconds with or without colons."""
    digits = text[1:].replace(":", "").ljust(6, "0")
    offset = timedelta(hours=int(digits[:2]), minutes=int(digits[2:4]), seconds=int(digits[4:]))
    return -offset if text.startswith("-") else offset


def _id(properties: dict[str, Any], key: str, line: bytes) -> str | None:
    """Return an id as the table has it: text as it is, anything else as DuckDB writes its JSON."""
    value = properties.get(key)
    if value is None or isinstance(value, str):
        return value
    if type(value) is int:
        return str(value)
    shaped = canonical(line)
    return written(member(member(shaped.line.decode(), "properties"), key)) if shaped else None


def _loaded(line: bytes) -> dict[str, Any] | None:
    try:
        value = loads(line.decode())
    except ValueError:
        return None
    return value if isinstance(value, dict) else None
