"""Renders a report as one HTML page. Importing this module requires the `report` extra."""

import base64
import hashlib
import json
import shlex
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from importlib.metadata import version
from itertools import groupby
from math import ceil
from pathlib import Path
from typing import Any, TypeVar

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from mixpanel_export._report import charts
from mixpanel_export._report.model import (
    STACKED_NAMES,
    Activity,
    Calendar,
    CalendarDay,
    ReportData,
    TableReport,
    Timeline,
)
from mixpanel_export._report.requests import PHASES

T = TypeVar("T")

_TEMPLATES = Path(__file__).parent / "templates"
_LEVELS = 4  # shades of complete days
_MIN_ROWS = 8  # in the first of two tables of properties
_SHOWN_PROPERTIES = 30
_SHOWN_BATCHES = 15
_MINUTE = 60
_KILOBYTE = 1000


@dataclass(frozen=True, slots=True)
class _Cell:
    """A day of the calendar as a table cell."""

    status: str
    rows: int
    level: str
    """For complete days, a space and a CSS class for the number of rows; otherwise empty."""
    title: str


@dataclass(frozen=True, slots=True)
class _Month:
    name: str
    cells: tuple[_Cell | None, ...]
    """The days 1 to 31; None for days that are not in the calendar."""
    rows: int


@dataclass(frozen=True, slots=True)
class _DayCounts:
    complete: int
    """Days that are complete or empty."""
    open: int
    absent: int
    """Days that failed, are missing or were changed by hand."""
    total: int


def render(data: ReportData) -> str:
    """Return the page. Its content security policy allows only the scripts in the page, and does not allow requests."""
    bundle, script = charts.javascript(), (_TEMPLATES / "page.js").read_text(encoding="utf-8")
    return _environment().get_template("page.html.jinja").render(
        data=data,
        version=version("mpx-export"),
        css=Markup((_TEMPLATES / "page.css").read_text(encoding="utf-8")),  # noqa: S704 - our file
        bundle=Markup(bundle),  # noqa: S704 - the library's code
        script=Markup(script),  # noqa: S704 - our file
        script_hashes=Markup(f"{_hash(bundle)} {_hash(script)}"),  # noqa: S704 - base64
        stacked=STACKED_NAMES,
        stacked_count=lambda activity: len(activity.names[:STACKED_NAMES]) + 1,
        phases=PHASES,
        shown_properties=_SHOWN_PROPERTIES,
        shown_batches=_SHOWN_BATCHES,
    )  # fmt: skip


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(_TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "months": _months,
        "halves": _halves,
        "to_fetch": _has_days_to_fetch,
        "day_counts": _day_counts,
        "other_events": _other_events,
        "shell_quoted": shlex.quote,
        "total": _total,
        "percent": _percent,
        "moment": _moment,
        "seconds": _seconds,
        "size": _size,
        "series_colour": charts.series_colour,
        "phase_colour": charts.phase_colour,
        "events_chart": _as_json(charts.events_chart),
        "users_chart": _as_json(charts.users_chart),
        "timeline_chart": _as_json(charts.timeline_chart),
        "requests_chart": _as_json(charts.requests_chart),
        "bytes_chart": _as_json(charts.bytes_chart),
    }
    return environment


def _as_json(chart: Callable[[Any], charts.Spec]) -> Callable[[Any], Markup]:
    """Return a function that returns a chart as JSON for a `script` element. The JSON cannot end the element."""

    def text(value: object) -> Markup:
        return Markup(json.dumps(chart(value), separators=(",", ":")).replace("<", "\\u003c"))  # noqa: S704

    return text


def _hash(script: str) -> str:
    digest = hashlib.sha256(script.encode()).digest()
    return f"'sha256-{base64.b64encode(digest).decode()}'"


def _months(calendar: Calendar) -> Iterator[_Month]:
    usual = _usual_rows(calendar.days)
    for name, group in groupby(calendar.days, key=lambda day: f"{day.day:%Y-%m}"):
        days = {day.day.day: day for day in group}
        cells = tuple(_cell(days[number], usual) if number in days else None for number in range(1, 32))
        yield _Month(name, cells, sum(day.rows for day in days.values()))


def _usual_rows(days: Sequence[CalendarDay]) -> int:
    """Return a number of rows that only one day in ten exceeds.

    Days with this number have the strongest colour, so one very large day does not make all other days pale.
    """
    rows = sorted(day.rows for day in days if day.rows)
    return rows[len(rows) * 9 // 10] if rows else 0


def _cell(day: CalendarDay, usual: int) -> _Cell:
    level = min(_LEVELS, ceil(_LEVELS * day.rows / usual)) if usual else 0
    shade = f" v{level}" if day.status == "complete" and level < _LEVELS else ""
    return _Cell(day.status, day.rows, shade, f"{day.day:%a %Y-%m-%d}: {day.status}, {day.rows:,} events")


def _day_counts(table: TableReport) -> _DayCounts:
    counts: dict[str, int] = {}
    for calendar in table.calendars:
        for status, count in calendar.counts:
            counts[status] = counts.get(status, 0) + count
    return _DayCounts(
        complete=counts.get("complete", 0) + counts.get("silent", 0),
        open=counts.get("open", 0),
        absent=sum(counts.get(status, 0) for status in ("failed", "missing", "changed")),
        total=sum(counts.values()),
    )


def _halves(rows: Sequence[T]) -> tuple[Sequence[T], Sequence[T]]:
    """Return the rows for two tables side by side. If there are only a few rows, there is one table."""
    middle = max(_MIN_ROWS, ceil(len(rows) / 2))
    return rows[:middle], rows[middle:]


def _has_days_to_fetch(counts: Sequence[tuple[str, int]]) -> bool:
    return any(status in {"failed", "missing", "open"} for status, _ in counts)


def _other_events(activity: Activity) -> int:
    """Return the number of the chart's events whose names are not stacked."""
    return sum(bucket.others for bucket in activity.buckets)


def _total(timeline: Timeline, phase: str) -> float:
    return sum(row.seconds(phase) for row in timeline.rows)


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def _moment(moment: datetime | None) -> str:
    return f"{moment:%Y-%m-%d %H:%M}" if moment else ""


def _seconds(seconds: float) -> str:
    if seconds < _MINUTE:
        return f"{seconds:.2f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes:,} min {rest:02} s"


def _size(size: int) -> str:
    """Return a number of bytes in megabytes, kilobytes or, if there are only a few, bytes."""
    if size < _KILOBYTE:
        return f"{size} B"
    return f"{size / 1e6:,.1f} MB" if size >= 1e6 else f"{size / 1e3:,.1f} kB"
