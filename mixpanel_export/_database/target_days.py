"""The target days of a table and selection: all days that exports have requested, fetched or not.

A target day without a batch is missing, even if an export was interrupted before it recorded anything about that day.
An export records its target days once Mixpanel has accepted its account and selection. Exports add target days, and
remove only days that the project's plan does not include.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import date
from typing import Any

from mixpanel_export._database.connection import Connection
from mixpanel_export._database.schema import table_exists
from mixpanel_export._model import Chunk, Selection

_SAME_SELECTION = (
    """table_name = ? AND project = ? AND events IS NOT DISTINCT FROM ? AND "where" IS NOT DISTINCT FROM ?"""
)


@dataclass(frozen=True, slots=True)
class LoadOptions:
    """The options that determine how an export loads the selected events."""

    zone: str = "UTC"
    """The project's time zone, in which the days start and end."""
    deduplicated: bool = True
    """Whether duplicates are removed."""


@dataclass(frozen=True, slots=True)
class Target:
    """The target days of a table and selection."""

    days: Chunk
    options: LoadOptions | None = None
    """The options of the newest export of these days; None if they were not recorded."""


def read_targets(connection: Connection) -> dict[tuple[str, Selection], Target]:
    """Return the target of each table and selection that has one."""
    return _read_targets(connection) if table_exists(connection, "_export_targets") else {}


def _read_targets(connection: Connection) -> dict[tuple[str, Selection], Target]:
    cursor = connection.execute("FROM _export_targets")
    names = [name for name, *_ in cursor.description or ()]
    rows = [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]
    return {
        (row["table_name"], Selection.from_ledger(row["project"], row["events"], row["where"])): _target(row)
        for row in rows
    }


def _target(row: Mapping[str, Any]) -> Target:
    zone = row.get("timezone")  # missing in files of older releases
    options = None if zone is None else LoadOptions(zone, row["deduped"])
    return Target(Chunk(row["from_date"], row["to_date"]), options)


# The functions below require that the database has a ledger.


def is_target(connection: Connection, table: str, selection: Selection, target: Target) -> bool:
    """Whether the target days include the days of *target*, and the newest export loaded them with the same options."""
    current = _read_targets(connection).get((table, selection))
    return current is not None and current == _widened(current, target)


def widen_target_days(connection: Connection, table: str, selection: Selection, target: Target) -> None:
    """Add the days of *target* to the target days, together with any days in between."""
    current = _read_targets(connection).get((table, selection))
    wider = target if current is None else _widened(current, target)
    if wider != current:
        _write(connection, table, selection, wider)


def _widened(current: Target, target: Target) -> Target:
    first, last = min(current.days.first, target.days.first), max(current.days.last, target.days.last)
    return replace(target, days=Chunk(first, last))


def trim_target_days(connection: Connection, table: str, selection: Selection, first: date) -> None:
    """Remove the days before *first* from the target days."""
    current = _read_targets(connection).get((table, selection))
    if current and current.days.first < first:
        days = Chunk(first, current.days.last) if first <= current.days.last else None
        set_target_days(connection, table, selection, days)


def set_target_days(connection: Connection, table: str, selection: Selection, days: Chunk | None) -> None:
    """Replace the target days with *days*; None removes them."""
    current = _read_targets(connection).get((table, selection))
    options = current.options if current else None
    _write(connection, table, selection, Target(days, options) if days else None)


def _write(connection: Connection, table: str, selection: Selection, target: Target | None) -> None:
    key = [table, selection.project, selection.events_json, selection.where]
    connection.execute(f"DELETE FROM _export_targets WHERE {_SAME_SELECTION}", key)
    if target is not None:
        options = [target.options.zone, target.options.deduplicated] if target.options else [None, None]
        connection.execute(
            'INSERT INTO _export_targets (table_name, project, events, "where", from_date, to_date, timezone, deduped) '
            "VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            [*key, target.days.first, target.days.last, *options],
        )


def delete_target_days(connection: Connection, table: str) -> None:
    """Remove the target days of the table, for all selections."""
    connection.execute("DELETE FROM _export_targets WHERE table_name = ?", [table])


def move_target_days(connection: Connection, old: str, new: str) -> None:
    """Move the target days of the table *old* to the table *new*."""
    connection.execute("UPDATE _export_targets SET table_name = ? WHERE table_name = ?", [new, old])
