"""NDJSON lines → the dictionaries that `stream_events` yields, saying what the table would say."""

import json
import re
import warnings
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from tempfile import TemporaryFile
from typing import Any, BinaryIO

from mixpanel_export._ndjson import canonical
from mixpanel_export._timezones import to_utc

# Numbers from here on are milliseconds: as seconds they would lie after the year 5138.
_MILLISECONDS_FROM = 10**11
_EPOCH = datetime(1970, 1, 1)  # noqa: DTZ001 - in whatever zone the number is meant
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)
_ISO = re.compile(r"\d{4}-\d\d-\d\d([ T]\d\d:\d\d(:\d\d(\.\d+)?)?(Z|[+-]\d\d(:?\d\d(:\d\d)?)?)?)?", re.ASCII)


def streamed(
    download: Callable[[BinaryIO], None], *, raw: bool, zone: str = "UTC"
) -> Iterator[dict[str, Any]]:
    """Yield the events that *download* writes to a file, once it has returned; warn of lines that are none."""
    left_out = 0
    with TemporaryFile() as file:
        download(file)
        file.seek(0)
        for line in file:
            event = parsed(line)
            if event is not None:
                yield event if raw else as_row(event, zone)
            elif not line.isspace():
                left_out += 1
    if left_out:
        warnings.warn(f"{left_out} lines of Mixpanel's answer are no events and were left out", stacklevel=2)


def parsed(line: bytes) -> dict[str, Any] | None:
    """Return Mixpanel's object, mended as in the table where it must be; None for a line that is no event."""
    # An escaped half of a surrogate pair is no JSON to DuckDB, though it is to Python.
    doubtful = b"\\ud" in line or b"\\uD" in line
    event = None if doubtful else _loaded(line)
    if event is None:
        mended = canonical(line)
        event = _loaded(mended.line) if mended else None
    if event and isinstance(event.get("event"), str) and isinstance(event.get("properties"), dict):
        return event
    return None


def as_row(event: dict[str, Any], zone: str = "UTC") -> dict[str, Any]:
    """Return the event under mixpanel_data's names; `properties` is the complete object, as in the table."""
    properties = event["properties"]
    return {
        "event_name": event["event"],
        "event_time": event_time(properties.get("time"), zone),
        "distinct_id": _text(properties.get("distinct_id")),
        "insert_id": _text(properties.get("$insert_id")),
        "properties": properties,
    }


def event_time(value: object, zone: str = "UTC") -> datetime | None:
    """Return what Mixpanel's `time` means, aware, in UTC; None where it means nothing.

    A number is seconds, from 10^11 in absolute value on milliseconds, less any fraction, whether it comes as
    a number or as text; other text is an ISO date or time. Numbers, and text without an offset, are what clocks
    in *zone* showed; what that says of times they showed twice or skipped is in `to_utc`.
    """
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    if isinstance(value, str) and not _NUMBER.fullmatch(value):
        return _iso_time(value, zone)
    try:
        number = float(value)
    except ValueError:
        return None
    except OverflowError:
        return None
    try:
        unit = timedelta(seconds=1) if abs(number) < _MILLISECONDS_FROM else timedelta(milliseconds=1)
        return to_utc(_EPOCH + int(number) * unit, zone)
    except (ValueError, OverflowError):  # infinite, not a number, or beyond the year 9999
        return None


def _iso_time(text: str, zone: str) -> datetime | None:
    try:
        time = datetime.fromisoformat(text) if _ISO.fullmatch(text) else None
        return time and (time.astimezone(UTC) if time.tzinfo else to_utc(time, zone))
    except (ValueError, OverflowError):
        return None


def _text(value: object) -> str | None:
    """Return an id as the table has it: text is itself, anything else its JSON."""
    if value is None or isinstance(value, str):
        return value
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), default=str)


def _loaded(line: bytes) -> dict[str, Any] | None:
    try:
        value = json.loads(line.decode(), object_pairs_hook=_first_wins, parse_int=_integer)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def _integer(text: str) -> int | Decimal:
    """Return a number of any length, which Python bounds for an int."""
    try:
        return int(text)
    except ValueError:
        return Decimal(text)


def _first_wins(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) < len(pairs):
        members |= dict(reversed(pairs))
    return members
