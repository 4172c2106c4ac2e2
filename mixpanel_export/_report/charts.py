"""The charts, as Vega-Lite specifications. Importing this module requires the `report` extra.

Colours are CSS variables of the page, so that a chart works in light mode, dark mode and print. Legends, titles and tables
with the same numbers are HTML, which screen readers can read.
"""

import json
from collections.abc import Iterator, Sequence
from datetime import date, timedelta
from functools import cache
from itertools import accumulate
from typing import Any

import altair as alt
import vl_convert

from mixpanel_export._report.model import STACKED_NAMES, Activity, Bucket, Timeline, Usage
from mixpanel_export._report.requests import PHASES

Spec = dict[str, Any]

OTHER = "other events"

_HEIGHT = 190  # pixels
_LOW_HEIGHT = 110  # pixels
_MAX_BAR_WIDTH = 40  # pixels of a bar
_MIN_DAYS = 14  # on an axis; with fewer days, the bars would be too wide
_LONG = 60  # days
_MAX_TICKS = 7
_ROW = 16  # pixels of a row of the timeline
_MUTED = "var(--muted)"
_CONFIG = {
    "background": "transparent",
    "font": "inherit",
    "aria": False,
    "padding": 0,
    "view": {"stroke": None},
    "axis": {
        "labelColor": _MUTED,
        "titleColor": _MUTED,
        "labelFontSize": 11,
        "titleFontSize": 11,
        "titleFontWeight": "normal",
        "domain": False,
        "ticks": False,
        "gridColor": "var(--line)",
        "labelPadding": 6,
    },
    "axisX": {"grid": False, "ticks": True, "tickColor": "var(--line)", "labelFlush": True},
}


@cache
def javascript() -> str:
    """Return the code of Vega, Vega-Lite and Vega-Embed. It defines `vegaEmbed`, and does not load other files."""
    return vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;").replace("</script", "<\\/script")


def series_colour(index: int, count: int) -> str:
    """Return the CSS colour of the series at *index* of *count* series. The last series contains all other events."""
    return "var(--series-other)" if index == count - 1 else f"var(--series-{index + 1})"


def events_chart(activity: Activity) -> Spec:
    """Return a bar chart of the events in each bucket, stacked by name."""
    names = [*(name.name for name in activity.names[:STACKED_NAMES]), OTHER]
    colours = [series_colour(index, len(names)) for index in range(len(names))]
    rows = [
        _span(bucket, activity) | {"index": index, "count": count, "top": top}
        for bucket in activity.buckets
        for index, (count, top) in enumerate(_running_totals((*bucket.by_name, bucket.others)))
        if count
    ]
    chart = (
        _bars(activity)
        .transform_calculate(base="datum.top - datum.count", name=f"{json.dumps(names)}[datum.index]")
        .encode(
            y=_amount("top"),
            y2="base:Q",
            color=_colours("index", list(range(len(names))), colours),
            tooltip=[_day(activity), alt.Tooltip("name:N", title="event"), _number("count", "events")],
        )
    )
    return _to_spec(chart, rows, _HEIGHT)


def users_chart(activity: Activity) -> Spec:
    """Return a bar chart of the users in each bucket."""
    rows = [_span(bucket, activity) | {"users": bucket.users} for bucket in activity.buckets]
    chart = _bars(activity).encode(
        y=_amount("users"),
        y2=alt.datum(0),
        color=alt.value("var(--series-1)"),
        tooltip=[_day(activity), _number("users", "users")],
    )
    return _to_spec(chart, rows, _HEIGHT)


def timeline_chart(timeline: Timeline) -> Spec:
    """Return a chart with a bar of phases for each batch of the last export."""
    rows = [
        {
            "first": str(row.batch.days.first),
            "days": str(row.batch.days),
            "phase": phase.name,
            "begin": phase.begin,
            "end": phase.end,
            "seconds": phase.seconds,
        }
        for row in timeline.rows
        for phase in row.phases
    ]
    order = [str(row.batch.days.first) for row in timeline.rows]
    chart = (
        alt.Chart(alt.NamedData("rows"))
        .mark_rect()
        .encode(
            x=alt.X("begin:Q", title="seconds", axis=alt.Axis(grid=True, tickCount=6, labelOverlap="greedy")),
            x2="end:Q",
            y=alt.Y("first:O", title=None, sort=order, scale=alt.Scale(paddingInner=0.25)),
            color=_colours("phase", list(PHASES), list(map(phase_colour, PHASES))),
            tooltip=["days:N", "phase:N", alt.Tooltip("seconds:Q", format=",.3f")],
        )
    )
    return _to_spec(chart, rows, _ROW * max(3, len(order)))


def requests_chart(usage: Sequence[Usage]) -> Spec:
    """Return a bar chart of the requests on each day."""
    rows = [{"day": str(day.day), "amount": day.requests} for day in usage]
    return _by_day(rows, _number("amount", "requests"), "var(--series-1)")


def bytes_chart(usage: Sequence[Usage]) -> Spec:
    """Return a bar chart of the bytes on each day."""
    rows = [{"day": str(day.day), "amount": day.bytes_read} for day in usage]
    return _by_day(rows, _number("amount", "bytes"), "var(--series-3)")


def phase_colour(name: str) -> str:
    """Return the CSS colour of a phase."""
    return f"var(--phase-{PHASES.index(name) + 1})"


def _by_day(rows: list[dict[str, Any]], amount: alt.Tooltip, colour: str) -> Spec:
    chart = (
        alt.Chart(alt.NamedData("rows"))
        .mark_bar(color=colour, width=alt.ExprRef(f"min({_MAX_BAR_WIDTH}, bandwidth('x'))"))
        .encode(
            x=alt.X(
                "day:O",
                title=None,
                axis=alt.Axis(labelAngle=0, labelOverlap="greedy", labelSeparation=10),
                scale=alt.Scale(paddingInner=0.2),
            ),
            y=_amount("amount"),
            tooltip=["day:N", amount],
        )
    )
    return _to_spec(chart, rows, _LOW_HEIGHT)


def ticks(first: date, last: date) -> list[date]:
    """Return at most `_MAX_TICKS` days for the labels of an axis. In long ranges, they are the first days of months."""
    days = (last - first).days + 1
    if days > _LONG:
        months = (last.year - first.year) * 12 + last.month - first.month
        step = -(-months // _MAX_TICKS) or 1
        starts = (first.month + number for number in range(1, months + 1, step))
        return [date(first.year + (month - 1) // 12, (month - 1) % 12 + 1, 1) for month in starts]
    step = -(-days // _MAX_TICKS)
    return [first + timedelta(days=number) for number in range(0, days, step)]


def _bars(activity: Activity) -> alt.Chart:
    """Return a chart with a bar for each bucket, on a continuous axis, so that days without events appear as gaps."""
    end = max(activity.last + timedelta(days=1), activity.first + timedelta(days=_MIN_DAYS))
    chart: alt.Chart = (
        alt.Chart(alt.NamedData("rows"))
        .mark_rect(stroke="var(--surface)", strokeWidth=0.4)
        .encode(
            x=alt.X(
                "begin:T",
                title=None,
                scale=alt.Scale(type="utc", domainMin=_utc(activity.first), domainMax=_utc(end)),
                axis=alt.Axis(
                    format="%-d %b %Y",
                    values=[_utc(day) for day in ticks(activity.first, activity.last)],
                    labelOverlap="greedy",
                    labelSeparation=10,
                ),
            ),
            x2="end:T",
        )
    )
    return chart


def _span(bucket: Bucket, activity: Activity) -> dict[str, Any]:
    """Return the start and the end of a bucket's bar. The first and the last bar may be shortened."""
    begin = max(bucket.first, activity.first)
    end = min(bucket.last, activity.last) + timedelta(days=1)
    return {"begin": _milliseconds(begin), "end": _milliseconds(end)}


def _running_totals(counts: Sequence[int]) -> Iterator[tuple[int, int]]:
    """Yield each count with the sum up to and including it."""
    return zip(counts, accumulate(counts), strict=True)


def _milliseconds(day: date) -> int:
    """Return the start of a day as a JavaScript timestamp in milliseconds.

    The start is in UTC, so that readers in all time zones see the same day.
    """
    return (day - date(1970, 1, 1)).days * 86_400_000


def _utc(day: date) -> alt.DateTime:
    return alt.DateTime(year=day.year, month=day.month, date=day.day, utc=True)


def _day(activity: Activity) -> alt.Tooltip:
    return alt.Tooltip("begin:T", title=activity.unit, timeUnit="utcyearmonthdate", format="%Y-%m-%d")


def _number(field: str, title: str) -> alt.Tooltip:
    return alt.Tooltip(f"{field}:Q", title=title, format=",")


def _amount(field: str) -> alt.Y:
    return alt.Y(
        f"{field}:Q",
        title=None,
        stack=None,
        axis=alt.Axis(format="~s", tickCount=4, tickMinStep=1, minExtent=36),
    )


def _colours(field: str, domain: list[Any], colours: list[str]) -> alt.Color:
    return alt.Color(f"{field}:N", legend=None, scale=alt.Scale(domain=domain, range=colours))


def _to_spec(chart: alt.Chart, rows: list[dict[str, Any]], height: int) -> Spec:
    # The rows are added last, so that altair does not validate each of them.
    spec = chart.properties(width="container", height=height).to_dict()
    return spec | {"datasets": {"rows": rows}, "config": _CONFIG}
