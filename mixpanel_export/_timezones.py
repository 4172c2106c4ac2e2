"""Converts the local times of legacy projects to UTC, and detects such times. Pure functions.

In a project created before 2023, an event's `time` may be a local time, written as seconds since 1970. A zone is the
IANA name of a time zone; the default is "UTC".
"""

import json
from collections import Counter
from collections.abc import Iterable
from datetime import UTC, datetime, tzinfo
from itertools import islice
from math import isfinite
from zoneinfo import ZoneInfo, available_timezones

from mixpanel_export.errors import ArgumentError

ISO_TIME = (
    r"([0-9]{4})-([0-9]{2})-([0-9]{2})"
    r"(?:[ T]([0-9]{2}):([0-9]{2})(?::([0-9]{2})(?:\.([0-9]+))?)?"
    r"(Z|[+-][0-9]{2}(?::[0-9]{2}(?::[0-9]{2})?|[0-9]{2})?)?)?"
)
"""A regular expression for an ISO date or time. It works in both Python and DuckDB.

Its groups are year, month, day, hour, minute, second, fraction and offset.
"""

_SAMPLE = 300  # maximum number of lines to examine
_MAX_LINE = 1 << 16  # bytes; longer lines are skipped
_MIN_EVENTS = 20  # fewer events prove nothing
_QUARTER = 900  # seconds; delays are rounded to quarters of an hour, because events take some time to arrive
# Offsets from UTC, in hours, that are in use today and are not whole hours.
_FRACTIONS = frozenset({-9.5, -3.5, -2.5, 3.5, 4.5, 5.5, 5.75, 6.5, 8.75, 9.5, 10.5, 12.75, 13.75})


def checked_zone(*names: str | None, argument: str = "project_timezone") -> str:
    """Return the first of *names* that is not None, or "UTC". *argument* is the argument's name, for the error.

    Raises:
        ArgumentError: The name is not a time zone. "localtime" is rejected, because it means this machine's zone.
    """
    name = next((name for name in names if name is not None), "UTC")
    if name != "UTC" and name not in available_timezones() - {"localtime"}:
        raise ArgumentError(argument, f"must be an IANA name such as US/Pacific, got {name!r}")
    return name


def to_utc(local: datetime, zone: str) -> datetime:
    """Convert *local*, a naive local time in *zone*, to UTC. The result is aware.

    When daylight saving time starts or ends, a local time may be skipped or occur twice. The later of the two possible
    times is returned, as in DuckDB's `timezone`.

    Raises:
        OverflowError: The result is outside the years 1 to 9999.
    """
    tz = _tzinfo(zone)
    return max(local.replace(tzinfo=tz, fold=fold).astimezone(UTC) for fold in (0, 1))


def in_zone(moment: datetime, zone: str) -> datetime:
    """Convert *moment*, which must be aware, to *zone*."""
    return moment.astimezone(_tzinfo(zone))


def naive_utc(moment: datetime) -> datetime:
    """Convert *moment* to naive UTC, as stored in tables. A naive *moment* is assumed to be in this machine's zone."""
    return moment.astimezone(UTC).replace(tzinfo=None)


def _tzinfo(zone: str) -> tzinfo:
    return UTC if zone == "UTC" else ZoneInfo(zone)


def detect_offset(lines: Iterable[bytes]) -> float | None:
    """Return the events' offset from UTC, in hours; None if the times are in UTC, or if the offset is unclear.

    The offset is the most frequent difference between an event's `time` and its `mp_processing_time_ms`, which Mixpanel
    sets in UTC when it processes the event. More than half of the events must have this difference.
    """
    quarters = _usual_delay(lines)
    hours = -(quarters or 0) / 4
    return hours if hours and _is_offset(hours) else None


def times_are_utc(lines: Iterable[bytes]) -> bool:
    """Whether the events prove that their times are in UTC, using the same comparison as `detect_offset`."""
    return _usual_delay(lines) == 0


def _usual_delay(lines: Iterable[bytes]) -> int | None:
    """Return the delay that more than half of the events share, in quarters of an hour; None if there is none."""
    delays = [seconds for line in islice(lines, _SAMPLE) if (seconds := _delay(line)) is not None]
    if len(delays) < _MIN_EVENTS:
        return None
    quarters, count = Counter(round(seconds / _QUARTER) for seconds in delays).most_common(1)[0]
    return quarters if 2 * count > len(delays) else None


def _delay(line: bytes) -> float | None:
    """Return the seconds from an event's time to its processing; None if they are unknown or the event was imported."""
    if len(line) > _MAX_LINE:
        return None
    try:
        properties = json.loads(line)["properties"]
        imported = properties.get("$import")
        delay = properties["mp_processing_time_ms"] / 1000 - properties["time"]
    except (ValueError, OverflowError, KeyError, TypeError, AttributeError, RecursionError):
        return None
    return None if imported or not isfinite(delay) else delay


def _is_offset(hours: float) -> bool:
    return -12 <= hours <= 14 and (hours.is_integer() or hours in _FRACTIONS)
