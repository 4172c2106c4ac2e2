"""Legacy projects: `time` is the project's wall clock, written as if it were seconds since 1970 in UTC.

Twice a year a wall clock shows times that exist twice or not at all. Both mean the later of the two moments
they can be read as: the second pass through a doubled hour, and for a skipped time the moment as far behind
the jump as the clock says.
"""

from datetime import UTC, date, datetime, timedelta, tzinfo
from zoneinfo import ZoneInfo

EPOCH = datetime(1970, 1, 1)  # noqa: DTZ001 - rows carry naive UTC, as a TIMESTAMP column does

_STEP = 900  # no zone changes its clocks but at a quarter of an hour
_UNUSUAL_EVERY = 8


def zone_of(timezone: str | None) -> tzinfo:
    """Return the zone of that IANA name; UTC for None."""
    return UTC if timezone is None else ZoneInfo(timezone)


def utc_of(local: datetime, zone: tzinfo) -> datetime:
    """Return the moment, naive UTC, at which clocks in *zone* show *local*.

    Raises:
        OverflowError: The moment lies outside the years 1 to 9999.
    """
    readings = (local.replace(tzinfo=zone, fold=fold).astimezone(UTC) for fold in (0, 1))
    return max(readings).replace(tzinfo=None)


class WallClock:
    """The clock of *zone* on one day that begins at *start*, in seconds as the clock writes them."""

    def __init__(self, zone: tzinfo, start: int) -> None:
        self._zone = zone
        self._unusual = [
            second for second in range(start, start + 86_400, _STEP) if len(set(self._offsets(second))) == 2
        ]

    def placed(self, number: int, second: int) -> int:
        """Return *second*, moved into a doubled or skipped hour of the day for some *number*s."""
        if not self._unusual or number % _UNUSUAL_EVERY:
            return second
        return self._unusual[second % len(self._unusual)] + second % _STEP

    def utc(self, second: int) -> int:
        """Return the true seconds since 1970 at which the clock shows *second*."""
        return second - min(self._offsets(second))

    def _offsets(self, second: int) -> list[int]:
        """How many seconds the clock is ahead of UTC, by the earlier and by the later reading."""
        local = EPOCH + timedelta(seconds=second)
        ahead = (local.replace(tzinfo=self._zone, fold=fold).utcoffset() for fold in (0, 1))
        return [int(offset.total_seconds()) for offset in ahead if offset is not None]


def today(moment: datetime, timezone: str | None) -> date:
    """Return the date in the project's zone at *moment*."""
    return moment.astimezone(zone_of(timezone)).date()
