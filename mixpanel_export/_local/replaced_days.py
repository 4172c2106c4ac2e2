"""Finds the events that `replace` removes from a table, because it does not fetch them again."""

from collections.abc import Sequence
from dataclasses import dataclass

from mixpanel_export._database.coverage import join_days
from mixpanel_export._database.ledger import read_batches
from mixpanel_export._database.schema import check_ledger, name_in_database, table_exists
from mixpanel_export._local.reader import Connection, rows_per_day
from mixpanel_export._model import Batch, Chunk, Selection


@dataclass(frozen=True, slots=True)
class RemovedDays:
    """Days of a table with events that a replacement removes and does not refetch."""

    ranges: tuple[Chunk, ...] = ()
    """The ranges of consecutive days, in order."""
    events: int = 0
    """The number of events that are not requested again."""
    fewer_days: bool = False
    """Whether the table has more days than are requested. It is false if every export requests the same number of days."""

    @property
    def number(self) -> int:
        """The number of days."""
        return sum(days.length for days in self.ranges)


def removed_days(connection: Connection, table: str, requested: Chunk, selection: Selection) -> RemovedDays:
    """Return the days of *table* outside *requested*, and the days with events that *selection* does not include.

    If the table does not exist, there are no such days.

    Raises:
        TableFormatError: A newer release wrote the ledger.
    """
    check_ledger(connection)
    name = name_in_database(connection, table)
    if not table_exists(connection, name):
        return RemovedDays()
    batches = [batch for batch in read_batches(connection, name) if batch.visible]
    # Imported batches are assumed to be in the selection: their project is unknown, and they may be incomplete.
    selected = [
        batch for batch in batches if batch.status == "imported" or selection.includes(batch.selection)
    ]
    others = [batch for batch in batches if batch not in selected and batch.rows]
    exported = {day for batch in batches for day in batch.days.dates}
    days = exported.difference(requested.dates) | {day for batch in others for day in batch.days.dates}
    outside = [batch for batch in selected if not batch.days.overlaps(requested)]
    events = sum(batch.rows for batch in outside + others)
    return RemovedDays(
        tuple(join_days(days)),
        events + _partial_rows(connection, name, selected, requested),
        requested.length < len(exported),
    )


def _partial_rows(connection: Connection, table: str, batches: Sequence[Batch], requested: Chunk) -> int:
    """Return the number of rows outside *requested* in batches that also contain requested days.

    The rows are counted in the table, because the ledger does not count them by day.
    """
    inside = set(requested.dates)
    other_days = {
        batch.number: set(batch.days.dates) - inside
        for batch in batches
        if batch.days.overlaps(requested) and not inside.issuperset(batch.days.dates)
    }
    if not other_days:
        return 0
    counts = rows_per_day(connection, table, batches[0].zone)
    return sum(
        rows
        for number, days in other_days.items()
        for day, rows in counts.get(number, {}).items()
        if day in days
    )
