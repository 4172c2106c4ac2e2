"""Draws a calendar of a table's days, with row counts as bars. The functions only return text."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from mixpanel_export._database.coverage import Coverage, Day

FEW_DAYS = 14
"""The maximum number of days that are drawn with one line per day.

More days are drawn with one line per month and one character per day.
"""

_MIN_WIDTH_BESIDE = (
    79  # columns; on a narrower terminal, a month's bars are drawn below its days, not beside them
)
_MONTH = 31  # characters

_COLOURS = {
    "complete": "green",
    "open": "yellow",
    "failed": "red",
    "missing": "red",
    "changed": "red",
    "limited": "cyan",
    "imported": "blue",
}


@dataclass(frozen=True, slots=True)
class Signs:
    """The characters of the calendar."""

    days: dict[str, str]
    """The character of each status."""
    heights: str
    """The characters for row counts, ascending."""
    bar: str
    """The character used for horizontal bars."""

    def of(self, status: str) -> str:
        """Return the character for a status."""
        return self.days.get(status, "?")


_STATUSES = ("complete", "open", "failed", "missing", "changed", "limited", "imported")
UNICODE = Signs(dict(zip(_STATUSES, "■□✗·≠◌▣", strict=True)), "▁▂▃▄▅▆▇█", "█")
ASCII = Signs(dict(zip(_STATUSES, "#oX.!-i", strict=True)), "123456789", "=")


def signs_for(encoding: str | None) -> Signs:
    """Return block characters if *encoding* can print them, else ASCII."""
    try:
        "".join([*UNICODE.days.values(), UNICODE.heights]).encode(encoding or "ascii")
    except (UnicodeEncodeError, LookupError):
        return ASCII
    return UNICODE


def calendar_lines(coverage: "Coverage", signs: Signs, width: int) -> list[str]:
    """Return the calendar and its legend, at most *width* columns wide; *width* must be at least 39."""
    days = coverage.days
    max_rows = max(day.rows for day in days)
    draw = _days if len(days) <= FEW_DAYS else _months
    return [*draw(days, signs, max_rows, width), "", *_legend(coverage, signs, max_rows, width)]


def _days(days: Sequence["Day"], signs: Signs, max_rows: int, width: int) -> Iterator[str]:
    """Yield one line per day, with a bar for its rows."""
    figures = len(f"{max_rows:,}")
    # Some consoles wrap when the last column is used.
    room = max(1, width - 1 - len("2024-01-01 Mon # complete ") - figures - 1)
    for day in days:
        sign = _coloured(signs.of(day.status), day.status)
        bar = signs.bar * math.ceil(room * day.rows / max_rows) if max_rows else ""
        yield f"{day.day:%Y-%m-%d %a} {sign} {day.status:<8} {day.rows:>{figures},} {bar}".rstrip()


def _months(days: Sequence["Day"], signs: Signs, max_rows: int, width: int) -> Iterator[str]:
    """Yield the lines of each month: a character per day, and the row counts beside or below the days."""
    ruler = "1   5    10   15   20   25   30 "
    beside = width >= _MIN_WIDTH_BESIDE
    yield (" " * 8 + ruler + (" " + ruler if beside else "")).rstrip()
    for month, group in groupby(days, key=lambda day: f"{day.day:%Y-%m}"):
        month_days = list(group)
        total = _short(sum(day.rows for day in month_days))
        calendar = _by_day(month_days, lambda day: _coloured(signs.of(day.status), day.status))
        bars = _by_day(month_days, lambda day: _height(day.rows, max_rows, signs.heights))
        if beside:
            yield f"{month} {calendar}  {bars} {total:>6}".rstrip()
        else:
            yield f"{month} {calendar}".rstrip()
            yield f"{total:>7} {bars}".rstrip()


def _by_day(days: Sequence["Day"], sign: "Callable[[Day], str]") -> str:
    signs = {day.day.day: sign(day) for day in days}
    return "".join(signs.get(number, " ") for number in range(1, _MONTH + 1))


def _height(rows: int, max_rows: int, heights: str) -> str:
    return heights[math.ceil(rows * len(heights) / max_rows) - 1] if rows else " "


def _legend(coverage: "Coverage", signs: Signs, max_rows: int, width: int) -> Iterator[str]:
    words = [
        (_coloured(signs.of(status), status), f"{status} {coverage.statuses[status]}")
        for status in [*_STATUSES, *sorted(set(coverage.statuses) - set(_STATUSES))]
        if coverage.statuses[status]
    ]
    line, used = "", 0
    for sign, word in words:
        if used and used + len(word) + 5 > width:
            yield line
            line, used = "", 0
        line += ("   " if used else "") + f"{sign} {word}"
        used += len(word) + (5 if used else 2)
    yield line
    if max_rows and len(coverage.days) > FEW_DAYS:
        yield f"{signs.heights[0]}-{signs.heights[-1]} rows per day, up to {max_rows:,}"


def _coloured(sign: str, status: str) -> str:
    return click.style(sign, fg=_COLOURS.get(status))


def _short(number: int) -> str:
    """Return *number* in at most six characters."""
    if number < 100_000:
        return f"{number:,}"
    power = 1 if number < 999_500 else 2 if number < 999_500_000 else 3
    return f"{number / 1000**power:.3g}{'kMG'[power - 1]}"
