"""Parses and checks days that callers pass as arguments. Pure functions.

A day is a date or a string: `2024-01-31`, `today`, `yesterday`, `-30d` or `30d` (30 days ago), `-2w` or `2w` (two
weeks ago), `2024-03` or `last-month`. A month means its first day at the start of a range, and its last day at the
end of a range.
"""

import re
from datetime import UTC, date, datetime, timedelta

from mixpanel_export._model import Chunk
from mixpanel_export.errors import ArgumentError

# date.fromisoformat also accepts week dates, and dates without hyphens.
_DAY = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
_MONTH = re.compile(r"[0-9]{4}-[0-9]{2}")
_AGO = re.compile(r"-?([0-9]{1,6})([dw])")
_UNITS = {"d": 1, "w": 7}  # days
_LARGEST_OFFSET = timedelta(hours=14)  # from UTC; a day starts first in zones with this offset


def parse_day(day: str | date, argument: str) -> date:
    """Return *day* as a date. A string must be `YYYY-MM-DD`. *argument* is the argument's name, for the error.

    Raises:
        ArgumentError: *day* has another format, or the calendar has no such day.
    """
    match day:
        case str() if _DAY.fullmatch(day):
            return _existing(day, day, argument)
        case date() if not isinstance(day, datetime):
            return day
    raise ArgumentError(argument, f"must be YYYY-MM-DD, got {str(day)!r}")


def resolve_day(day: str | date, argument: str, today: date, *, last: bool = False) -> date:
    """Return *day* as a date. A string may have any of this module's formats.

    *last* is true if the day is the last one of a range. *argument* is the argument's name, for the error.

    Raises:
        ArgumentError: *day* has another format, or the calendar has no such day.
    """
    text = day.lower() if isinstance(day, str) else ""
    if text in {"today", "yesterday"}:
        return today if text == "today" else _days_before(today, 1, text, argument)
    if match := _AGO.fullmatch(text):
        return _days_before(today, int(match[1]) * _UNITS[match[2]], text, argument)
    if text == "last-month":
        last_day = _days_before(today, today.day, text, argument)
        return last_day if last else last_day.replace(day=1)
    if _MONTH.fullmatch(text):
        first_day = _existing(f"{text}-01", text, argument)
        return _end_of_month(first_day) if last else first_day
    if text and not _DAY.fullmatch(text):
        raise ArgumentError(
            argument, f"must be a day such as 2024-01-31, yesterday, -30d, 2024-01 or last-month, got {day!r}"
        )
    return parse_day(day, argument)


def checked_days(from_date: str | date, to_date: str | date, today: date) -> Chunk:
    """Return the days from *from_date* to *to_date*, both inclusive. Relative days are relative to *today*.

    Raises:
        ArgumentError: A date is invalid, or *to_date* is before *from_date*.
    """
    first = resolve_day(from_date, "from_date", today)
    last = resolve_day(to_date, "to_date", today, last=True)
    if last < first:
        raise ArgumentError("to_date", f"{last} is before the first day, {first}", advice="swap them")
    return Chunk(first, last)


def check_has_begun(day: date, argument: str, now: datetime) -> None:
    """Check that *day* has begun in at least one time zone at *now*, which must be aware.

    Raises:
        ArgumentError: The day has not begun in any time zone. *argument* is the argument's name, for the error.
    """
    latest = latest_day(now)
    if day > latest:
        raise ArgumentError(
            argument, f"{day} is in the future; the current date is at most {latest}, in any time zone"
        )


def latest_day(now: datetime) -> date:
    """Return the latest day that has begun in any time zone at *now*, which must be aware."""
    return (now.astimezone(UTC) + _LARGEST_OFFSET).date()


def _existing(iso: str, text: str, argument: str) -> date:
    try:
        return date.fromisoformat(iso)
    except ValueError as error:
        raise ArgumentError(argument, f"must be an existing date, got {text!r}") from error


def _days_before(today: date, days: int, text: str, argument: str) -> date:
    try:
        return today - timedelta(days=days)
    except OverflowError as error:
        raise ArgumentError(argument, f"must be an existing date, got {text!r}") from error


def _end_of_month(first: date) -> date:
    if (first.year, first.month) == (9999, 12):
        return date.max
    return (first + timedelta(days=31)).replace(day=1) - timedelta(days=1)
