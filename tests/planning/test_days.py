"""Days are parsed and divided into chunks, and stay open until 48 hours after their end."""

from datetime import UTC, date, datetime, timedelta, timezone
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st
from plans import DAY, START

from mixpanel_export._planning.days import parse_day
from mixpanel_export._planning.planner import (
    first_open_day,
    is_open,
    split_date_range,
)


@pytest.mark.parametrize("text", ["2024-02-29", "0001-01-01", "9999-12-31"])
def test_a_day_is_read_as_written(text: str) -> None:
    """`YYYY-MM-DD` is a day, and a date stays one."""
    assert parse_day(text, "x") == date.fromisoformat(text)
    assert parse_day(date.fromisoformat(text), "x") == date.fromisoformat(text)


@pytest.mark.parametrize(
    "text",
    [
        "20240101",
        "2024-1-1",
        "2024-W01-1",
        "2024-02-30",
        "2023-02-29",
        "2024-01-01T00:00:00",
        " 2024-01-01",
        "2024-01-01\n",
        "\u0662024-01-01",
        "",
        "today",
        datetime(2024, 1, 1, tzinfo=UTC),
    ],
)
def test_anything_else_is_no_day(text: str | date) -> None:
    """Other notations of a date are rejected with one sentence that quotes the value."""
    with pytest.raises(
        ValueError, match=r"^from_date must be (YYYY-MM-DD|an existing date), got '"
    ) as caught:
        parse_day(text, "from_date")
    assert str(caught.value).endswith(f"got {str(text)!r}")


dates = st.dates(date(1990, 1, 1), date(2100, 1, 1))


@given(first=dates, days=st.integers(1, 400), chunk_days=st.integers(1, 100))
def test_splitting_is_counting_off(first: date, days: int, chunk_days: int) -> None:
    """A range is divided exactly as if its days were counted off one by one."""
    expected: list[tuple[str, str]] = []
    for number in range(days):
        text = str(first + number * DAY)
        if number % chunk_days == 0:
            expected.append((text, text))
        else:
            expected[-1] = (expected[-1][0], text)
    assert split_date_range(str(first), str(first + (days - 1) * DAY), chunk_days) == expected


def test_splitting_by_default_is_weekly() -> None:
    """By default, chunks have seven days."""
    assert split_date_range("2024-01-01", "2024-01-15") == [
        ("2024-01-01", "2024-01-07"),
        ("2024-01-08", "2024-01-14"),
        ("2024-01-15", "2024-01-15"),
    ]
    assert split_date_range("9999-12-31", "9999-12-31") == [("9999-12-31", "9999-12-31")]


def test_what_cannot_be_split_is_refused() -> None:
    """A reversed range, a chunk without days and a malformed date have different errors."""
    with pytest.raises(
        ValueError, match=r"^from_date must not be after to_date, got 2024-01-02 and 2024-01-01$"
    ):
        split_date_range("2024-01-02", "2024-01-01")
    for chunk_days in (0, -1):
        with pytest.raises(ValueError, match=rf"^chunk_days must be positive, got {chunk_days}$"):
            split_date_range("2024-01-01", "2024-01-02", chunk_days)
    with pytest.raises(ValueError, match=r"^from_date must be YYYY-MM-DD, got 'x'$"):
        split_date_range("x", "2024-01-01")
    with pytest.raises(ValueError, match=r"^to_date must be YYYY-MM-DD, got 'x'$"):
        split_date_range("2024-01-01", "x")


@given(
    last=dates,
    minutes=st.integers(-10_000, 10_000),
    offset=st.integers(-12, 14).map(lambda hours: timezone(timedelta(hours=hours))),
)
def test_a_day_is_open_until_it_is_over_for_48_hours(last: date, minutes: int, offset: timezone) -> None:
    """A day is open until two days after its end, in the time zone of the given moment."""
    end = datetime(last.year, last.month, last.day, tzinfo=offset) + DAY
    now = end + timedelta(minutes=minutes)
    assert is_open(last, now) == (now - end < timedelta(hours=48))
    assert first_open_day(now) == next(
        first for first in (now.date() + n * DAY for n in range(-9, 9)) if is_open(first, now)
    )


def test_a_day_closes_at_a_moment() -> None:
    """A day is closed exactly 48 hours after its end, and is open a microsecond earlier."""
    closing = datetime(2024, 1, 4, tzinfo=UTC)
    assert not is_open(START, closing)
    assert is_open(START, closing - timedelta(microseconds=1))
    assert first_open_day(closing) == date(2024, 1, 2)


def test_days_close_where_the_clock_is() -> None:
    """At the same moment, a day may be closed in Tokyo and open in California."""
    moment = datetime(2024, 1, 3, 15, tzinfo=UTC)
    assert not is_open(START, moment.astimezone(ZoneInfo("Asia/Tokyo")))
    assert is_open(START, moment.astimezone(ZoneInfo("US/Pacific")))
    assert is_open(START, moment)
