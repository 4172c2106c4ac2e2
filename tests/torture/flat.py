"""Flat tables of a file: an update, killed or not, ends in the same rows as a table made from scratch."""

from collections import Counter
from contextlib import suppress
from datetime import datetime
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Any

from mixpanel_export import Workspace

from .violations import require

SUFFIX = "_flat"
_SCRATCH = "_scratch_flat"


def check_flat_tables(db: Path, *, auto: bool) -> None:
    """Update the flat table of each exported table, and compare it with one made from scratch.

    With *auto*, each later export updates the flat tables at its end.
    """
    with Workspace(path=db) as workspace:
        for table in [info.name for info in workspace.tables()]:
            flat, scratch = table + SUFFIX, table + _SCRATCH
            workspace.flatten(table, auto=auto)
            workspace.flatten(table, into=scratch)
            require(_rows(workspace, flat) == _rows(workspace, scratch), "a flat table differs", table)
            workspace.drop(scratch)


def _rows(workspace: Workspace, table: str) -> Counter[frozenset[Any]]:
    """Return the rows of a flat table, each as its values by key."""
    names = dict(
        workspace.sql_rows(f"SELECT column_name, key FROM _flat_columns WHERE flat_table = '{table}'").rows
    )
    result = workspace.sql_rows(f'FROM "{table}"')
    keys = [(name in names, names.get(name, name)) for name in result.columns]
    return Counter(
        frozenset(
            (key, _comparable(value)) for key, value in zip(keys, row, strict=True) if value is not None
        )
        for row in result.rows
    )


def _comparable(value: Any) -> Decimal | str:
    """Return *value* in a form that does not depend on the type of its column, which updates only make wider."""
    if isinstance(value, bool):
        return str(value).lower()
    text = value.isoformat() if isinstance(value, datetime) else str(value)
    with suppress(InvalidOperation):
        if (number := Decimal(text)).is_finite():
            return number
    return text
