"""Views of a flat table. Each event name has a view with the columns that have a value for that event."""

import re
from collections.abc import Sequence

from mixpanel_export._database.connection import Connection, quoted
from mixpanel_export._database.schema import columns_of, table_exists
from mixpanel_export._flat.columns import OTHER, Column
from mixpanel_export._flat.layout import EVENTS
from mixpanel_export._flat.state import COMMENT, is_our_view, read_views, write_views
from mixpanel_export._flat.values import literal


def view_name(flat: str, event: str) -> str:
    """Return the view name for an event. The name may already be in use."""
    words = re.sub(r"\W+", "_", event.lower()).strip("_")
    return f"{flat}_{words or 'event'}"


def update_views(
    connection: Connection,
    flat: str,
    columns: Sequence[Column],
    batches: Sequence[int],
    *,
    types_changed: bool,
) -> dict[str, str]:
    """Create a view for each event name in *batches* and add columns to views. Return the view name for each event name.

    If there are no views yet, or the user has dropped one, the views for all events are checked. A view never loses a
    column. If *types_changed* is true, all views are created again, because the types of columns have changed.
    """
    views = _existing_views(connection, flat)
    complete = views and len(views) == len(read_views(connection, flat))
    present_columns = _columns_by_event(connection, flat, columns, batches if complete else None)
    for event, present in sorted(present_columns.items()):
        if event not in views:
            views[event] = _new_name(connection, flat, event)
        names = _columns_of_view(connection, views[event])
        if types_changed or not present <= names or not names:
            _create_view(connection, flat, event, views[event], present | names)
    if types_changed:
        for event, view in views.items():
            _create_view(connection, flat, event, view, _columns_of_view(connection, view))
    write_views(connection, flat, views)
    return views


def _existing_views(connection: Connection, flat: str) -> dict[str, str]:
    """Return the view name for each event name, without views that the user has dropped or replaced."""
    views = read_views(connection, flat)
    return {event: view for event, view in views.items() if is_our_view(connection, view)}


def _columns_by_event(
    connection: Connection, flat: str, columns: Sequence[Column], batches: Sequence[int] | None
) -> dict[str, set[str]]:
    """Return, for each event name in *batches* or in all batches, the columns that have a value."""
    names = [column.name for column in columns]
    if OTHER in dict(columns_of(connection, flat)):
        names.append(OTHER)
    condition = "true" if batches is None else f"export_batch IN (SELECT unnest({list(batches)}::INTEGER[]))"
    counts = "".join(f", count({quoted(name)})" for name in names)
    rows = connection.execute(
        f"SELECT event_name{counts} FROM {quoted(flat)} WHERE event_name IS NOT NULL AND {condition} GROUP BY event_name"
    ).fetchall()
    return {
        event: {name for name, count in zip(names, values, strict=True) if count} for event, *values in rows
    }


def _new_name(connection: Connection, flat: str, event: str) -> str:
    name = base = view_name(flat, event)
    number = 1
    while table_exists(connection, name):
        number += 1
        name = f"{base}_{number}"
    return name


def _columns_of_view(connection: Connection, view: str) -> set[str]:
    return {name for name, _ in columns_of(connection, view)} - EVENTS.columns.keys()


def _create_view(connection: Connection, flat: str, event: str, view: str, names: set[str]) -> None:
    """Create a view with its columns in the table's order."""
    selected = [name for name, _ in columns_of(connection, flat) if name in EVENTS.columns or name in names]
    connection.execute(
        f"CREATE OR REPLACE VIEW {quoted(view)} AS SELECT {', '.join(map(quoted, selected))} FROM {quoted(flat)} "
        f"WHERE event_name = {literal(event)}"
    )
    connection.execute(f"COMMENT ON VIEW {quoted(view)} IS '{COMMENT}'")
