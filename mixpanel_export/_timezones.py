"""Local times of legacy projects: conversion to UTC, and detection. Pure.

The `time` of a project created before 2023 is the local wall clock, written as seconds since 1970. A zone is an IANA
name; "UTC" stands for every project whose times are UTC.
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
"""A regular expression, for Python and DuckDB alike, of the texts that mean a day or a time.

Its groups are year, month, day, hour, minute, second, fraction and offset.
"""

_SAMPLE = 300  # lines
_MAX_LINE = 1 << 16  # bytes; longer lines are skipped
_MIN_EVENTS = 20  # fewer prove nothing
_QUARTER = 900  # seconds; smaller differences are the time that events take to arrive
# Offsets from UTC, in hours, of the zones in use whose offset is not a whole hour.
_FRACTIONS = frozenset({-9.5, -3.5, -2.5, 3.5, 4.5, 5.5, 5.75, 6.5, 8.75, 9.5, 10.5, 12.75, 13.75})


def checked_zone(*names: str | None) -> str:
    """Return the first of *names* that is not None, or "UTC".

    Raises:
        ArgumentError: It is no zone. Zones are those of the zone database, never paths into it, and never the zone of
            this machine, which differs elsewhere.
    """
    name = next((name for name in names if name is not None), "UTC")
    if name != "UTC" and name not in available_timezones() - {"localtime"}:
        raise ArgumentError("project_timezone", f"must be an IANA name such as US/Pacific, got {name!r}")
    return name


def to_utc(local: datetime, zone: str) -> datetime:
    """Return the moment, aware, at which clocks in *zone* show *local* (naive).

    A time that occurs twice, or is skipped, means the later of its two readings, as in DuckDB's `timezone`: the second
    occurrence, or the time as far after the gap as it lies in it.

    Raises:
        OverflowError: The moment lies outside the years 1 to 9999.
    """
    clock = _clock(zone)
    return max(local.replace(tzinfo=clock, fold=fold).astimezone(UTC) for fold in (0, 1))


def in_zone(moment: datetime, zone: str) -> datetime:
    """Return *moment* (aware) as clocks in *zone* show it."""
    return moment.astimezone(_clock(zone))


def naive_utc(moment: datetime) -> datetime:
    """Return *moment* in UTC without its zone, as tables store it; a naive one is taken as local."""
    return moment.astimezone(UTC).replace(tzinfo=None)


def _clock(zone: str) -> tzinfo:
    return UTC if zone == "UTC" else ZoneInfo(zone)


def offset_of(lines: Iterable[bytes]) -> float | None:
    """Return by how many hours the `time` of most events that were tracked live is ahead of UTC.

    None if most are in UTC, or no offset prevails. The time at which Mixpanel processed an event,
    `mp_processing_time_ms`, is always UTC.
    """
    delays = [seconds for line in islice(lines, _SAMPLE) if (seconds := _delay(line)) is not None]
    if len(delays) < _MIN_EVENTS:
        return None
    quarters, count = Counter(round(seconds / _QUARTER) for seconds in delays).most_common(1)[0]
    hours = -quarters / 4
    if not quarters or 2 * count <= len(delays) or not _is_offset(hours):
        return None
    return hours


def _delay(line: bytes) -> float | None:
    """Return the seconds from an event's time until Mixpanel processed it; None if they are unknown."""
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
