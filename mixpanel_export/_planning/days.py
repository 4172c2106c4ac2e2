"""Parses and checks days that callers pass as arguments. Pure functions."""

import re
from datetime import UTC, date, datetime, timedelta

from mixpanel_export._model import Chunk
from mixpanel_export.errors import ArgumentError

# date.fromisoformat also accepts week dates, and dates without hyphens.
_DAY = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
_LARGEST_OFFSET = timedelta(hours=14)  # from UTC; a day begins first in the zones with this offset


def parse_day(day: str | date, argument: str) -> date:
    """Return *day* as a date. Text must be `YYYY-MM-DD`. *argument* is the argument's name, for the error.

    Raises:
        ArgumentError: *day* has another format, or the calendar has no such day.
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
    """Return the days from *from_date* to *to_date*, both inclusive.

    Raises:
        ArgumentError: A date is invalid, or *to_date* is before *from_date*.
    """
    first, last = parse_day(from_date, "from_date"), parse_day(to_date, "to_date")
    if last < first:
        raise ArgumentError("to_date", f"{last} is before the first day, {first}", advice="swap them")
    return Chunk(first, last)


def check_has_begun(day: date, argument: str, now: datetime) -> None:
    """Raise an error if *day* has not begun in any time zone at *now*, which must be aware.

    Raises:
        ArgumentError: Names *argument*, and the latest day that has begun.
    """
    latest = latest_day(now)
    if day > latest:
        raise ArgumentError(argument, f"{day} is in the future; the latest day anywhere on earth is {latest}")


def latest_day(now: datetime) -> date:
    """Return the latest day that has begun in any time zone at *now*, which must be aware."""
    return (now.astimezone(UTC) + _LARGEST_OFFSET).date()
