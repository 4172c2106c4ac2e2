"""Views of a flat table, one for each event, with the columns that have a value for that event."""

import re
from collections.abc import Sequence

from mixpanel_export._database.connection import Connection, quoted
from mixpanel_export._database.schema import columns_of, table_exists
from mixpanel_export._flat.columns import BASE_COLUMNS, OTHER, Column
from mixpanel_export._flat.state import COMMENT, is_our_view, read_views
from mixpanel_export._flat.values import literal


def view_name(flat: str, event: str) -> str:
    """Return the name of the view of an event before it is checked whether the name is free."""
    words = re.sub(r"\W+", "_", event.lower()).strip("_")
    return f"{flat}_{words or 'event'}"


def update_views(
    connection: Connection, flat: str, columns: Sequence[Column], batches: Sequence[int], *, changed: bool
) -> dict[str, str]:
    """Create the view of each event of *batches*, and add columns to views; return the name of each event's view.

    A view never loses a column. *changed* says that the types of columns have changed, so all views are made again.
    """
    views = read_views(connection, flat)
    for event, present in _columns_by_event(connection, flat, columns, batches).items():
        if event not in views:
            views[event] = _new_name(connection, flat, event)
            connection.execute("INSERT INTO _flat_views VALUES (?, ?, ?)", [flat, event, views[event]])
        names = _columns_of_view(connection, views[event])
        if changed or not present <= names or not names:
            _create_view(connection, flat, event, views[event], present | names)
    if changed:
        for event, view in views.items():
            _create_view(connection, flat, event, view, _columns_of_view(connection, view))
    return views


def _columns_by_event(
    connection: Connection, flat: str, columns: Sequence[Column], batches: Sequence[int]
) -> dict[str, set[str]]:
    """Return the columns that have a value, for each event of *batches*."""
    names = [column.name for column in columns]
    if OTHER in dict(columns_of(connection, flat)):
        names.append(OTHER)
    if not batches:
        return {}
    counts = "".join(f", count({quoted(name)})" for name in names)
    rows = connection.execute(
        f"SELECT event_name{counts} FROM {quoted(flat)} WHERE export_batch IN ({', '.join(map(str, batches))}) GROUP BY event_name"
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
    return {name for name, _ in columns_of(connection, view)} - BASE_COLUMNS.keys()


def _create_view(connection: Connection, flat: str, event: str, view: str, names: set[str]) -> None:
    """Create a view, with its columns in the order of the table. A table or view of the user with its name stays."""
    if table_exists(connection, view) and not is_our_view(connection, view):
        return
    selected = [name for name, _ in columns_of(connection, flat) if name in BASE_COLUMNS or name in names]
    connection.execute(
        f"CREATE OR REPLACE VIEW {quoted(view)} AS SELECT {', '.join(map(quoted, selected))} FROM {quoted(flat)} "
        f"WHERE event_name = {literal(event)}"
    )
    connection.execute(f"COMMENT ON VIEW {quoted(view)} IS '{COMMENT}'")
