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


def checked_days(from_date: str | date, to_date: str | date) -> Chunk:
    """Return the days of a range, both inclusive.

    Raises:
        ArgumentError: A date is none, or the range is reversed.
    """
    first, last = parse_day(from_date, "from_date"), parse_day(to_date, "to_date")
    if last < first:
        raise ArgumentError("to_date", f"{last} is before the first day, {first}", advice="swap them")
    return Chunk(first, last)


def check_begun(day: date, argument: str, now: datetime) -> None:
    """Refuse a day that has begun in no time zone at *now* (aware); *argument* is the name of the argument.

    Raises:
        ArgumentError: It names the latest day.
    """
    latest = latest_day(now)
    if day > latest:
        raise ArgumentError(argument, f"{day} is in the future; the latest day anywhere on earth is {latest}")


def latest_day(now: datetime) -> date:
    """Return the latest day that has begun anywhere on earth at *now* (aware)."""
    return (now.astimezone(UTC) + _EARLIEST_OFFSET).date()
