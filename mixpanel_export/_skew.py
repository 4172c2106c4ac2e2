"""Do times look like a legacy project's, whose clock is local? Pure; a guess, good enough to ask the user."""

import json
from collections import Counter
from collections.abc import Iterable
from itertools import islice
from math import isfinite

_SAMPLE = 300  # lines
_LONGEST = 1 << 16  # bytes of a line that is looked at
_LEAST = 20  # events; fewer prove nothing
_QUARTER = 900  # seconds; what is below it is how long events take to arrive
# Hours between UTC and the clocks in use; no zone has other fractions.
_FRACTIONS = frozenset({-9.5, -3.5, -2.5, 3.5, 4.5, 5.5, 5.75, 6.5, 8.75, 9.5, 10.5, 12.75, 13.75})


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
