"""Time zones of legacy projects, where `time` is a local time written as if it were seconds since 1970 in UTC.

When daylight saving time starts or ends, some local times are skipped and others occur twice. Both are converted to the
later of the two possible times in UTC: a skipped time is moved forward by the gap, and a repeated time is treated as its
second occurrence.
"""

from datetime import UTC, date, datetime, timedelta, tzinfo
from zoneinfo import ZoneInfo

EPOCH = datetime(1970, 1, 1)  # noqa: DTZ001 - rows have naive UTC, like a TIMESTAMP column

_STEP = 900  # seconds; clocks change only at multiples of a quarter of an hour
_UNUSUAL_EVERY = 8


def zone_of(timezone: str | None) -> tzinfo:
    """Return the zone with this IANA name; UTC for None."""
    return UTC if timezone is None else ZoneInfo(timezone)


def utc_of(local: datetime, zone: tzinfo) -> datetime:
    """Convert a local time in *zone* to naive UTC.

    Raises:
        OverflowError: The result is outside the years 1 to 9999.
    """
    candidates = (local.replace(tzinfo=zone, fold=fold).astimezone(UTC) for fold in (0, 1))
    return max(candidates).replace(tzinfo=None)


class WallClock:
    """Local times in *zone* on the day that begins at *start*. They are in seconds, as if counted from 1970 in UTC."""

    def __init__(self, zone: tzinfo, start: int) -> None:
        self._zone = zone
        self._unusual = [
            second for second in range(start, start + 86_400, _STEP) if len(set(self._offsets(second))) == 2
        ]

    def local_second(self, number: int, second: int) -> int:
        """Return *second* or, for every eighth *number*, a repeated or skipped local time if the day has one."""
        if not self._unusual or number % _UNUSUAL_EVERY:
            return second
        return self._unusual[second % len(self._unusual)] + second % _STEP

    def utc(self, second: int) -> int:
        """Return the seconds since 1970 for the local time *second*."""
        return second - min(self._offsets(second))

    def _offsets(self, second: int) -> list[int]:
        """Return the two possible offsets from UTC, in seconds. For most times, they are equal."""
        local = EPOCH + timedelta(seconds=second)
        ahead = (local.replace(tzinfo=self._zone, fold=fold).utcoffset() for fold in (0, 1))
        return [int(offset.total_seconds()) for offset in ahead if offset is not None]


def today(moment: datetime, timezone: str | None) -> date:
    """Return the date at *moment* in the project's zone."""
    return moment.astimezone(zone_of(timezone)).date()
