"""Legacy projects: `time` is the project's wall clock, written as if it were seconds since 1970 in UTC.

When clocks change, some local times occur twice and others not at all. Both stand for the later of their two possible
moments: the second occurrence of a repeated hour, and a skipped time moved forward by the gap.
"""

from datetime import UTC, date, datetime, timedelta, tzinfo
from zoneinfo import ZoneInfo

EPOCH = datetime(1970, 1, 1)  # noqa: DTZ001 - rows carry naive UTC, as a TIMESTAMP column does

_STEP = 900  # zones change their clocks at a quarter of an hour only
_UNUSUAL_EVERY = 8


def zone_of(timezone: str | None) -> tzinfo:
    """Return the zone with this IANA name; UTC for None."""
    return UTC if timezone is None else ZoneInfo(timezone)


def utc_of(local: datetime, zone: tzinfo) -> datetime:
    """Return the moment in naive UTC at which clocks in *zone* show *local*.

    Raises:
        OverflowError: The moment is outside the years 1 to 9999.
    """
    readings = (local.replace(tzinfo=zone, fold=fold).astimezone(UTC) for fold in (0, 1))
    return max(readings).replace(tzinfo=None)


class WallClock:
    """The wall clock of *zone* on the day that begins at *start*, in seconds as the clock shows them."""

    def __init__(self, zone: tzinfo, start: int) -> None:
        self._zone = zone
        self._unusual = [
            second for second in range(start, start + 86_400, _STEP) if len(set(self._offsets(second))) == 2
        ]

    def placed(self, number: int, second: int) -> int:
        """Return *second*, moved into a repeated or skipped hour of the day for every eighth *number*."""
        if not self._unusual or number % _UNUSUAL_EVERY:
            return second
        return self._unusual[second % len(self._unusual)] + second % _STEP

    def utc(self, second: int) -> int:
        """Return the seconds since 1970 at which the clock shows *second*."""
        return second - min(self._offsets(second))

    def _offsets(self, second: int) -> list[int]:
        """Return the seconds by which the clock is ahead of UTC, for the earlier and the later moment."""
        local = EPOCH + timedelta(seconds=second)
        ahead = (local.replace(tzinfo=self._zone, fold=fold).utcoffset() for fold in (0, 1))
        return [int(offset.total_seconds()) for offset in ahead if offset is not None]


def today(moment: datetime, timezone: str | None) -> date:
    """Return the date in the project's zone at *moment*."""
    return moment.astimezone(zone_of(timezone)).date()
