"""Days as people write them, relative to the current day."""

from datetime import date, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mixpanel_export._model import Chunk
from mixpanel_export._planning.days import checked_days, parse_day, resolve_day
from mixpanel_export.errors import ArgumentError

TODAY = date(2024, 3, 31)
todays = st.dates(date(1990, 1, 1), date(2100, 1, 1))


@pytest.mark.parametrize(
    "text, first, last",
    [
        ("today", "2024-03-31", "2024-03-31"),
        ("Yesterday", "2024-03-30", "2024-03-30"),
        ("-30d", "2024-03-01", "2024-03-01"),
        ("30d", "2024-03-01", "2024-03-01"),
        ("0d", "2024-03-31", "2024-03-31"),
        ("2w", "2024-03-17", "2024-03-17"),
        ("-2W", "2024-03-17", "2024-03-17"),
        ("2024-02", "2024-02-01", "2024-02-29"),
        ("2023-12", "2023-12-01", "2023-12-31"),
        ("9999-12", "9999-12-01", "9999-12-31"),
        ("last-month", "2024-02-01", "2024-02-29"),
        ("2024-01-31", "2024-01-31", "2024-01-31"),
    ],
)
def test_words_mean_days(text: str, first: str, last: str) -> None:
    """A month is its first day at the start of a range, and its last day at the end."""
    assert resolve_day(text, "x", TODAY) == date.fromisoformat(first)
    assert resolve_day(text, "x", TODAY, last=True) == date.fromisoformat(last)


@pytest.mark.parametrize(
    "text",
    [
        "", "tomorrow", "yesterday ", "30", "-d", "+3d", "--3d", "3m", "1.5d", "\u0663d", "2024-13", "2024-00", "0000-01",
        "24-01", "2024-1", "last month", "2024-02-30", "999999d", "999999w", datetime(2024, 1, 1),
    ],
)  # fmt: skip
def test_anything_else_is_refused(text: str | date) -> None:
    """The error names the argument and quotes the value."""
    with pytest.raises(ArgumentError) as caught:
        resolve_day(text, "from_date", TODAY)
    assert caught.value.argument == "from_date"
    assert repr(str(text)) in str(caught.value)


@given(todays, st.dates())
def test_a_date_is_itself_whatever_day_it_is(today: date, day: date) -> None:
    """A date, and its ISO text, never depend on the current day."""
    for value in (day, day.isoformat()):
        assert resolve_day(value, "x", today) == resolve_day(value, "x", today, last=True) == day
        assert parse_day(value, "x") == day


@given(todays, st.integers(0, 5000))
def test_an_age_counts_days_or_weeks_back(today: date, age: int) -> None:
    """The sign is optional, and a week is seven days."""
    day = today - timedelta(days=age)
    assert resolve_day(f"{age}d", "x", today) == resolve_day(f"-{age}d", "x", today) == day
    assert resolve_day(f"{age}w", "x", today) == today - age * timedelta(days=7)


@given(todays)
def test_last_month_ends_where_this_month_begins(today: date) -> None:
    """It is a whole month, and the same range as when it is given by year and number."""
    days = checked_days("last-month", "last-month", today)
    assert days.first.day == 1
    assert days.last + timedelta(days=1) == today.replace(day=1)
    assert checked_days(f"{days.first:%Y-%m}", f"{days.last:%Y-%m}", today) == days


@given(todays)
def test_ranges_of_words_are_in_order(today: date) -> None:
    """A range may mix the formats, and one that ends before it starts is rejected."""
    assert checked_days("yesterday", "today", today) == Chunk(today - timedelta(days=1), today)
    with pytest.raises(ArgumentError, match="is before the first day"):
        checked_days("today", "yesterday", today)


@pytest.mark.parametrize(
    "first, last, argument",
    [
        ("x", "2024-03-01", "from_date"),
        ("2024-03-01", "x", "to_date"),
        ("2024-03-02", "2024-03-01", "to_date"),
    ],
)
def test_the_error_names_the_argument(first: str, last: str, argument: str) -> None:
    """The error about an invalid date has its argument; for a wrong order, it has the argument of the end."""
    with pytest.raises(ArgumentError) as caught:
        checked_days(first, last, TODAY)
    assert caught.value.argument == argument


@given(day=todays)
def test_a_single_day_is_a_range(day: date) -> None:
    """The first and the last day may be the same."""
    assert checked_days(day, day, TODAY) == Chunk(day, day)
