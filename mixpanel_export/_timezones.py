"""Local times of legacy projects: conversion to UTC, and detection. Pure.

The `time` of a project created before 2023 is the local wall clock, written as seconds since 1970. A zone is an
IANA name; "UTC" stands for every project whose times are UTC already.
"""

import json
from collections import Counter
from collections.abc import Iterable
from datetime import UTC, datetime, tzinfo
from itertools import islice
from math import isfinite
from zoneinfo import ZoneInfo, available_timezones

_SAMPLE = 300  # lines
_LONGEST = 1 << 16  # bytes of a line that is looked at
_LEAST = 20  # events; fewer prove nothing
_QUARTER = 900  # seconds; what is below it is how long events take to arrive
# Hours between UTC and the clocks in use; no zone has other fractions.
_FRACTIONS = frozenset({-9.5, -3.5, -2.5, 3.5, 4.5, 5.5, 5.75, 6.5, 8.75, 9.5, 10.5, 12.75, 13.75})


def checked_zone(*names: str | None) -> str:
    """Return the first of *names* that is given, "UTC" where none is.

    Raises:
        ValueError: It is no zone. Names are those of the zone database, never paths into it, and never the
            zone of this machine, which is another one elsewhere.
    """
    name = next((name for name in names if name is not None), "UTC")
    if name != "UTC" and name not in available_timezones() - {"localtime"}:
        raise ValueError(f"project_timezone must be an IANA name such as US/Pacific, got {name!r}")
    return name


def to_utc(local: datetime, zone: str) -> datetime:
    """Return the moment, aware, at which clocks in *zone* show *local* (naive).

    A time that clocks show twice, or skip, is the later of its two readings, which is what DuckDB's `timezone`
    makes of it too: the second occurrence, or the time as far beyond the gap as it lies in it.

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

    None where most are in UTC, or nothing prevails. The clock that processed an event, `mp_processing_time_ms`,
    is always UTC.
    """
    late = [seconds for line in islice(lines, _SAMPLE) if (seconds := _lateness(line)) is not None]
    if len(late) < _LEAST:
        return None
    quarters, count = Counter(round(seconds / _QUARTER) for seconds in late).most_common(1)[0]
    hours = -quarters / 4
    if not quarters or 2 * count <= len(late) or not _is_offset(hours):
        return None
    return hours


def _lateness(line: bytes) -> float | None:
    """Return how long after its time an event was processed, in seconds; None where that cannot be said."""
    if len(line) > _LONGEST:
        return None
    try:
        properties = json.loads(line)["properties"]
        imported = properties.get("$import")
        late = properties["mp_processing_time_ms"] / 1000 - properties["time"]
    except (ValueError, OverflowError, KeyError, TypeError, AttributeError, RecursionError):
        return None
    return None if imported or not isfinite(late) else late


def _is_offset(hours: float) -> bool:
    return -12 <= hours <= 14 and (hours.is_integer() or hours in _FRACTIONS)
