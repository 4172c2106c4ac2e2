"""Days as arguments: text to dates, checked. Pure."""

import re
from datetime import UTC, date, datetime, timedelta

from mixpanel_export._model import Chunk
from mixpanel_export.errors import ArgumentError

_DAY = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}"
)  # date.fromisoformat alone also accepts weeks, and dates without hyphens
_EARLIEST_OFFSET = timedelta(hours=14)  # ahead of UTC, where each day begins first


def parse_day(day: str | date, argument: str) -> date:
    """Return *day*, written as `YYYY-MM-DD` if it is text; *argument* is the name of the argument.

    Raises:
        ArgumentError: It is written otherwise, or there is no such day.
    """
    match day:
        case str() if _DAY.fullmatch(day):
            try:
                return date.fromisoformat(day)
            except ValueError as error:
                raise ArgumentError(argument, f"must be a day that exists, got {day!r}") from error
        case date() if not isinstance(day, datetime):
            return day
    raise ArgumentError(argument, f"must be YYYY-MM-DD, got {str(day)!r}")


def checked_days(from_date: str | date, to_date: str | date, now: datetime) -> Chunk:
    """Return the days of a range, both inclusive; *now* is aware.

    Raises:
        ArgumentError: A date is none, the range is reversed, or its last day has begun in no time zone.
    """
    first, last = parse_day(from_date, "from_date"), parse_day(to_date, "to_date")
    if last < first:
        raise ArgumentError("to_date", f"{last} is before from_date {first}", advice="swap them")
    latest = (now.astimezone(UTC) + _EARLIEST_OFFSET).date()
    if last > latest:
        raise ArgumentError(
            "to_date", f"{last} is in the future; the latest day anywhere on earth is {latest}"
        )
    return Chunk(first, last)
