"""What an export finds in the database: whether it may run, and what is there already. Reads, and never writes."""

import json
from dataclasses import dataclass
from datetime import date
from typing import Literal

import duckdb

from mixpanel_export._database.connection import check_zone
from mixpanel_export._database.ledger import Ledger, Selection, selection_of
from mixpanel_export._database.schema import (
    check_format,
    check_ledger,
    check_no_view,
    comment_of,
    name_in_database,
    table_exists,
)
from mixpanel_export._model import Chunk
from mixpanel_export._planning.planner import Held
from mixpanel_export.errors import (
    LedgerMismatchError,
    TableExistsError,
    TableFormatError,
    TableNotFoundError,
)

Mode = Literal["create", "append", "replace", "resume"]

SHADOW = "_export_replace_"
"""What the name of a table that `replace` fills begins with; the rest is the one to be replaced."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """What is to be exported into which table.

    *zone* is the one whose clock the project's times are on, UTC where that is not *zone_given*; with *limited* the server may leave events out.
    """

    table: str
    selection: Selection
    days: Chunk
    mode: Mode
    zone: str = "UTC"
    zone_given: bool = False
    dedupe: bool = True
    limited: bool = False

    @property
    def purpose(self) -> str:
        """What a shadow table is being filled for: only the same export goes on with it."""
        asked = [str(self.days.first), str(self.days.last), self.selection.project]
        how = [self.zone, self.dedupe, self.limited]
        return json.dumps([*asked, self.selection.events_json, self.selection.where, *how])


def order_of(table: str, purpose: str) -> Order:
    """Return the order for a replacement of *table* that has this purpose."""
    first, last, project, events, where, zone, dedupe, limited = json.loads(purpose)
    return Order(
        table=table,
        selection=selection_of(project, events, where),
        days=Chunk(date.fromisoformat(first), date.fromisoformat(last)),
        mode="replace",
        zone=zone,
        zone_given=True,
        dedupe=dedupe,
        limited=limited,
    )


@dataclass(frozen=True, slots=True)
class State:
    """Where an order's events go, and what is there.

    `table` is spelled as in the database, `target` is the table to be filled. Where it cannot be gone on with,
    as it is not there or a shadow of another purpose, it is to be begun anew, and nothing counts as `held`.
    `history` are the selection's batches in a table that is to be replaced.
    """

    table: str
    target: str
    held: tuple[Held, ...]
    history: tuple[Held, ...]
    begin_anew: bool


def state_for(connection: duckdb.DuckDBPyConnection, order: Order) -> State:
    """Check that the state of the table fits the order, before anything is asked or written.

    Raises:
        ValueError: DuckDB does not know the zone.
        TableExistsError, TableNotFoundError, TableFormatError, SelectionError, LedgerMismatchError: see there.
    """
    check_zone(connection, order.zone)
    table = name_in_database(connection, order.table)
    _check_table(connection, table, order.mode)
    check_ledger(connection)
    target = SHADOW + table if order.mode == "replace" else table
    ledger = Ledger(connection, target, order.selection, order.zone)
    if not table_exists(connection, target):
        fits = False
    elif order.mode == "replace":
        fits = _shadow_fits(connection, target, ledger, order)
    else:
        fits = True
        ledger.check_zone()
        ledger.check_selection(order.days, limited=order.limited)
        ledger.check_rows(order.days, trust=order.mode == "resume")
    replaced = Ledger(connection, table, order.selection, order.zone) if target != table else None
    return State(
        table=table,
        target=target,
        held=tuple(batch.held for batch in ledger.mine()) if fits else (),
        history=tuple(batch.held for batch in replaced.mine()) if replaced else (),
        begin_anew=not fits,
    )


def _check_table(connection: duckdb.DuckDBPyConnection, table: str, mode: Mode) -> None:
    """Refuse what the mode cannot work with."""
    there = table_exists(connection, table)
    if mode == "create":
        if there:
            raise TableExistsError(
                f"table {table} already exists{_remedy(connection, table)}", table_name=table
            )
        return
    check_no_view(connection, table)
    if there:
        check_format(connection, table, replacing=mode == "replace")
    elif mode == "append":
        raise TableNotFoundError(
            f"table {table} does not exist, so nothing can be appended; leave out append to create it",
            table_name=table,
        )


def _remedy(connection: duckdb.DuckDBPyConnection, table: str) -> str:
    try:
        check_no_view(connection, table)
        check_format(connection, table)
    except TableFormatError as error:
        return f", but {error}"
    return "; use resume to complete it, append to add days, or replace"


def _shadow_fits(connection: duckdb.DuckDBPyConnection, shadow: str, ledger: Ledger, order: Order) -> bool:
    if comment_of(connection, shadow) != order.purpose:
        return False
    try:
        ledger.check_rows(order.days, trust=True)
    except LedgerMismatchError:
        return False
    return True
