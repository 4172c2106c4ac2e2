"""Reads the numbers and examples of duplicates, rejected lines and repaired events."""

from collections.abc import Sequence
from typing import Any

from mixpanel_export._database.connection import Connection
from mixpanel_export._database.schema import table_exists
from mixpanel_export._model import Batch
from mixpanel_export._report.model import Duplicate, Quality, Reject
from mixpanel_export._report.personal import shorten

_EXAMPLES = 10  # of each kind
_NAMES = 10
_LINE = 1200  # bytes to read from a raw line; a character has up to four bytes


def read_quality(connection: Connection, table: str, batches: Sequence[Batch], *, examples: bool) -> Quality:
    """Return the duplicates, rejects and repairs in *batches*, the ledger rows of a table."""
    own = "batch IN (SELECT batch FROM _export_batches WHERE table_name = ?)"
    duplicates: list[Duplicate] = []
    names: list[tuple[Any, ...]] = []
    across = 0
    if table_exists(connection, "_export_duplicates"):
        names = connection.execute(
            "SELECT event_name, count(*), (sum(count(*)) OVER ())::BIGINT FROM _export_duplicates "
            f"WHERE {own} GROUP BY event_name ORDER BY count(*) DESC, event_name LIMIT {_NAMES}",
            [table],
        ).fetchall()
        across = names[0][2] if names else 0
        duplicates = _duplicates(connection, own, table, examples=examples)
    return Quality(
        removed=sum(batch.removed_duplicates for batch in batches),
        across=across,
        rejected=sum(batch.rejects for batch in batches),
        repaired=sum(batch.repaired for batch in batches),
        across_by_name=tuple((name, count) for name, count, _ in names),
        duplicates=tuple(duplicates),
        rejects=tuple(_rejects(connection, table, examples=examples)),
    )


def _duplicates(connection: Connection, own: str, table: str, *, examples: bool) -> list[Duplicate]:
    rows = connection.execute(
        "SELECT event_name, event_time::DATE, batch, lost_to, distinct_id, insert_id, properties "
        f"FROM _export_duplicates WHERE {own} ORDER BY batch DESC, event_time, insert_id LIMIT {_EXAMPLES}",
        [table],
    ).fetchall()
    return [
        Duplicate(*public, *((distinct_id, insert_id, shorten(properties or "")) if examples else ()))
        for *public, distinct_id, insert_id, properties in rows
    ]


def _rejects(connection: Connection, table: str, *, examples: bool) -> list[Reject]:
    """Return the newest rejected lines and repaired events, up to `_EXAMPLES` of each."""
    if not table_exists(connection, "_export_rejects"):
        return []
    rows = connection.execute(
        f"SELECT reason, batch, from_date, to_date, octet_length(line), line[:{_LINE}] FROM _export_rejects "
        "JOIN _export_batches USING (batch) WHERE table_name = ? "
        f"QUALIFY row_number() OVER (PARTITION BY reason ORDER BY batch DESC, line) <= {_EXAMPLES} ORDER BY ALL",
        [table],
    ).fetchall()
    return [
        Reject(
            reason, batch, first, last, size, shorten(line.decode("utf-8", "replace")) if examples else None
        )
        for reason, batch, first, last, size, line in rows
    ]
