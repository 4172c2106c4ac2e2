"""Compares new responses for days with the events that the table has for these days.

All events from Mixpanel are compared, so both sides include the rows in `_export_duplicates`. Rows are compared by
64-bit hashes, so that memory does not depend on the length of names and ids. An event is *re-keyed* if it was moved to
another `distinct_id`. Only an event with an `$insert_id` can be re-keyed. An event without one
whose `distinct_id` changed counts as one removed and one added event.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime

from mixpanel_export._database.connection import Connection, quoted
from mixpanel_export._model import Batch, Chunk
from mixpanel_export.changes import DayChange

_CHANGES = """
WITH _parts(batch, part, side, first, last) AS (VALUES {parts}), _rows AS (
    SELECT export_batch AS batch, event_name, event_time, insert_id, distinct_id FROM {table}
    WHERE export_batch IN ({batches})
    UNION ALL SELECT batch, event_name, event_time, insert_id, distinct_id FROM _export_duplicates
    WHERE batch IN ({batches})
), _events AS (
    SELECT part, hash(event_name, event_time, insert_id) AS event, hash(distinct_id) AS person,
        CASE WHEN first = last OR event_time IS NULL THEN first ELSE greatest(first, least(last, {day})) END AS day,
        coalesce(insert_id, '') <> '' AS has_id, count(*) FILTER (side > 0) AS new, count(*) FILTER (side < 0) AS old
    FROM _rows JOIN _parts USING (batch) GROUP BY ALL
), _keys AS (
    SELECT part, day, sum(old) AS old, sum(new) AS new, bool_and(has_id) AS has_id,
        sum(greatest(new - old, 0)) AS gain, sum(greatest(old - new, 0)) AS loss
    FROM _events GROUP BY part, day, event
), _counts AS (
    SELECT part, day, old, new, gain, loss, if(has_id, least(gain, loss), 0) AS rekeyed FROM _keys
)
SELECT part, day, sum(old)::BIGINT, sum(new)::BIGINT, sum(gain - rekeyed)::BIGINT, sum(loss - rekeyed)::BIGINT,
    sum(rekeyed)::BIGINT
FROM _counts GROUP BY part, day ORDER BY part, day
"""


@dataclass(frozen=True, slots=True)
class Comparison:
    """The differences between a new batch and the batches that it replaces."""

    days: tuple[DayChange, ...]
    """The days that differ. If the batch is rejected, only days that lost over half of their events are listed."""
    rejected: bool
    """Whether a day lost over half of its events, so that the old batches stay."""
    old_rows: int
    """The number of rows in the replaced batches."""


def compare(
    connection: Connection,
    table: str,
    zone: str,
    *,
    new: Sequence[Batch],
    old: Sequence[Batch],
    accepted_losses: frozenset[date],
    now: datetime,
) -> dict[int, Comparison]:
    """Compare each batch in *new* with the batches in *old* that it replaces. The result is keyed by batch number.

    The rows of all batches must be in the table. Losses on the days in *accepted_losses* are ignored. A batch that does
    not replace another one is not in the result. *now* is naive and in UTC.
    """
    replaced = {
        batch.number: [other for other in old if other.visible and _contains(batch, other)] for batch in new
    }
    parts = [
        (number, batch.number, side, batch.days)
        for batch in new
        if (others := replaced[batch.number])
        for number, side in [(batch.number, 1), *((other.number, -1) for other in others)]
    ]
    if not parts:
        return {}
    days: dict[int, list[DayChange]] = {part: [] for _, part, _, _ in parts}
    for part, day, *counts in connection.execute(_query(table, zone, parts)).fetchall():
        old_rows, new_rows, added, removed, rekeyed = counts
        days[part].append(DayChange(day, old_rows, new_rows, added, removed, rekeyed, False, now))
    return {
        part: _comparison(changes, accepted_losses, sum(batch.rows for batch in replaced[part]))
        for part, changes in days.items()
    }


def _query(table: str, zone: str, parts: Sequence[tuple[int, int, int, Chunk]]) -> str:
    values = ", ".join(
        f"({batch}, {part}, {side}, DATE '{days.first}', DATE '{days.last}')"
        for batch, part, side, days in parts
    )
    return _CHANGES.format(
        table=quoted(table),
        parts=values,
        batches=", ".join(str(batch) for batch, *_ in parts),
        day="event_time::DATE" if zone == "UTC" else f"timezone('{zone}', timezone('UTC', event_time))::DATE",
    )


def _comparison(changes: Sequence[DayChange], accepted_losses: frozenset[date], old_rows: int) -> Comparison:
    losses = [change for change in changes if change.is_loss and change.day not in accepted_losses]
    if losses:
        return Comparison(tuple(replace(change, kept=True) for change in losses), True, old_rows)
    different = [change for change in changes if change.added or change.removed or change.rekeyed]
    return Comparison(tuple(different), False, old_rows)


def _contains(batch: Batch, other: Batch) -> bool:
    return batch.days.first <= other.days.first and other.days.last <= batch.days.last
