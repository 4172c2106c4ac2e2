"""Events and users over time, aggregated by DuckDB."""

from calendar import monthrange
from datetime import date, timedelta

from mixpanel_export._database.connection import Connection, quoted
from mixpanel_export._report.model import STACKED_NAMES, Activity, Bucket, BucketUnit, EventName

_MAX_NAMES = 20
_MAX_BUCKETS = 370  # bars in a chart


def read_activity(connection: Connection, table: str, zone: str, first: date, last: date) -> Activity:
    """Return the activity of a table. The buckets contain the events from *first* to *last*, which are days in *zone*.

    The names, `events` and `users` cover the whole table. Distinct users are counted with SELECT DISTINCT in a subquery.
    DuckDB can spill this subquery to disk, so memory use stays bounded.
    """
    unit = unit_for((last - first).days + 1)
    source = quoted(table)
    names = connection.execute(
        f"SELECT event_name, count(*) FROM {source} WHERE event_name IS NOT NULL "
        f"GROUP BY event_name ORDER BY count(*) DESC, event_name LIMIT {_MAX_NAMES}"
    ).fetchall()
    ((events, other_names),) = connection.execute(
        f"SELECT (SELECT count(*) FROM {source}), (SELECT count(*) FROM (SELECT DISTINCT event_name FROM {source} "
        "WHERE event_name IS NOT NULL))"
    ).fetchall()
    ((users,),) = connection.execute(
        f"SELECT count(*) FROM (SELECT DISTINCT distinct_id FROM {source} WHERE distinct_id IS NOT NULL)"
    ).fetchall()
    stacked = [name for name, _ in names[:STACKED_NAMES]]
    buckets = _buckets(connection, _bucketed_events(source, zone, unit, first, last), unit, stacked)
    return Activity(
        unit=unit,
        first=first,
        last=last,
        buckets=buckets,
        names=tuple(EventName(*row) for row in names),
        other_names=other_names - len(names),
        events=events,
        users=users,
        events_outside=events - sum(bucket.events for bucket in buckets),
    )


def no_activity(first: date, last: date) -> Activity:
    """Return the activity of a table that does not exist."""
    return Activity("day", first, last, (), (), 0, 0, 0, 0)


def unit_for(days: int) -> BucketUnit:
    """Return the smallest unit that gives at most `_MAX_BUCKETS` bars for *days* days, or `month` if none does."""
    if days <= _MAX_BUCKETS:
        return "day"
    return "week" if days <= 7 * _MAX_BUCKETS else "month"


def _last_day(first: date, unit: BucketUnit) -> date:
    """Return the last day of the bucket that starts on *first*."""
    if unit == "month":
        return first.replace(day=monthrange(first.year, first.month)[1])
    return first + timedelta(days=6 if unit == "week" else 0)


def _bucketed_events(source: str, zone: str, unit: BucketUnit, first: date, last: date) -> str:
    """Return SQL for the events from *first* to *last*, each with the first day of its bucket."""
    local = "event_time" if zone == "UTC" else f"timezone('{zone}', timezone('UTC', event_time))"
    return (
        f"(SELECT date_trunc('{unit}', {local})::DATE AS first, event_name, distinct_id FROM {source} "
        f"WHERE {local} >= DATE '{first}' AND {local} < DATE '{last}' + 1)"
    )


def _buckets(connection: Connection, dated: str, unit: BucketUnit, names: list[str]) -> tuple[Bucket, ...]:
    counts = ", ".join(f"count(*) FILTER (event_name = ${index + 1})" for index in range(len(names)))
    rows = connection.execute(
        f"SELECT first, count(*), {counts or 'NULL'} FROM {dated} GROUP BY first ORDER BY first", names
    ).fetchall()
    users = dict(
        connection.execute(
            f"SELECT first, count(*) FROM (SELECT DISTINCT first, distinct_id FROM {dated} "
            "WHERE distinct_id IS NOT NULL) GROUP BY first"
        ).fetchall()
    )
    return tuple(
        Bucket(first, _last_day(first, unit), events, users.get(first, 0), tuple(by_name[: len(names)]))
        for first, events, *by_name in rows
    )
