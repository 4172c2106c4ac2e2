"""The columns and the batch states of the two kinds of source tables, which contain events or profiles."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from mixpanel_export._database.connection import Connection, quoted
from mixpanel_export._database.ledger import check_batches, read_batches
from mixpanel_export._database.schema import has_export_columns, has_profile_columns
from mixpanel_export._flat.columns import BatchState


@dataclass(frozen=True, slots=True)
class Layout:
    """The columns and the batches of a kind of source table."""

    columns: Mapping[str, str]
    """The columns that a flat table has in common with its source, with their types. The last one is `export_batch`."""
    batch_states: Callable[[Connection, str], dict[int, BatchState]]
    """Returns the state of each batch that has rows in the source."""
    has_events: bool
    """Whether rows have event names."""


def layout_of(connection: Connection, table: str) -> Layout | None:
    """Return the layout of a table of events or profiles; None if it is neither."""
    if has_export_columns(connection, table):
        return EVENTS
    return PROFILES if has_profile_columns(connection, table) else None


def _event_states(connection: Connection, table: str) -> dict[int, BatchState]:
    """Return the state of each batch of events.

    Raises:
        LedgerMismatchError: The table has rows that the ledger does not record.
    """
    batches = read_batches(connection, table)
    counts = check_batches(connection, table, batches)
    revisions = {batch.number: batch.revision for batch in batches}
    return {batch: BatchState(revisions[batch], count) for batch, count in counts.items()}


def _profile_states(connection: Connection, table: str) -> dict[int, BatchState]:
    """Return the state of each batch of profiles. A later snapshot has another number, and a deletion changes the count."""
    rows = connection.execute(
        f"SELECT export_batch, count(*) FROM {quoted(table)} WHERE export_batch IS NOT NULL GROUP BY export_batch"
    ).fetchall()
    return {batch: BatchState(0, count) for batch, count in rows}


EVENTS = Layout(
    columns={
        "event_name": "VARCHAR",
        "event_time": "TIMESTAMP",
        "distinct_id": "VARCHAR",
        "insert_id": "VARCHAR",
        "export_batch": "INTEGER",
    },
    batch_states=_event_states,
    has_events=True,
)
PROFILES = Layout(
    columns={"distinct_id": "VARCHAR", "last_seen": "TIMESTAMP", "export_batch": "INTEGER"},
    batch_states=_profile_states,
    has_events=False,
)
