"""Checks, before an export, that the table and the ledger allow it. Nothing is written."""

import json
from dataclasses import dataclass
from datetime import date
from typing import Literal

from mixpanel_export._database.connection import Connection, check_zone
from mixpanel_export._database.ledger import Ledger
from mixpanel_export._database.schema import (
    check_format,
    check_ledger,
    check_no_view,
    comment_of,
    name_in_database,
    table_exists,
    table_names,
)
from mixpanel_export._model import Batch, Chunk, Selection
from mixpanel_export._suggestions import did_you_mean
from mixpanel_export.errors import (
    LedgerMismatchError,
    TableExistsError,
    TableFormatError,
    TableNotFoundError,
)

Mode = Literal["create", "append", "replace", "resume"]

SHADOW = "_export_replace_"
"""The prefix of the shadow table, which `replace` fills. The rest is the name of the table to be replaced."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportSpec:
    """The events that an export loads, and the table for them."""

    table: str
    selection: Selection
    days: Chunk
    mode: Mode
    zone: str = "UTC"
    """The project's time zone."""
    zone_is_known: bool = False
    """Whether the caller specified the zone. If not, times that look local cause a warning."""
    dedupe: bool = True
    """Whether to remove duplicates."""
    limited: bool = False
    """Whether the export has a limit, so that events may be missing."""
    accepted_losses: frozenset[date] | None = None
    """Days that may lose over half of their events. If None, all days may lose events, and days are not compared."""

    @property
    def fingerprint(self) -> str:
        """A string that identifies the export that fills a shadow table.

        Only an export with the same fingerprint continues to fill the table.
        """
        days = [str(self.days.first), str(self.days.last)]
        selection = [self.selection.project, self.selection.events_json, self.selection.where]
        return json.dumps([*days, *selection, self.zone, self.dedupe, self.limited])

    @classmethod
    def from_fingerprint(cls, table: str, fingerprint: str) -> "ExportSpec":
        """Return the spec for a replacement of *table*, parsed from its fingerprint."""
        first, last, project, events, where, zone, dedupe, limited = json.loads(fingerprint)
        return cls(
            table=table,
            selection=Selection.from_ledger(project, events, where),
            days=Chunk(date.fromisoformat(first), date.fromisoformat(last)),
            mode="replace",
            zone=zone,
            zone_is_known=True,
            dedupe=dedupe,
            limited=limited,
        )


@dataclass(frozen=True, slots=True)
class State:
    """The state of an export's table before the export."""

    table: str
    """The table name, as the database spells it."""
    target_table: str
    """The table that the export fills: `table`, or the shadow table of a replacement."""
    batches: tuple[Batch, ...]
    """The selection's batches in the target table."""
    history: tuple[Batch, ...]
    """If a table is to be replaced, the selection's batches in it. They are used only to estimate numbers of events."""
    starts_empty: bool
    """Whether the target table does not exist yet, or is a shadow table that cannot be continued."""


def check_before_export(connection: Connection, spec: ExportSpec) -> State:
    """Check that the table and the ledger allow the export, before any request or change.

    Raises:
        ValueError: DuckDB does not know the zone.
        TableExistsError, TableNotFoundError, TableFormatError: The table cannot be used in this mode.
        SelectionError: The table has days with an incompatible selection or zone.
        LedgerMismatchError: The table's rows differ from the ledger.
    """
    check_zone(connection, spec.zone)
    table = name_in_database(connection, spec.table)
    _check_table(connection, table, spec.mode)
    check_ledger(connection)
    target_table = SHADOW + table if spec.mode == "replace" else table
    ledger = Ledger(connection, target_table, spec.selection, spec.zone)
    if not table_exists(connection, target_table):
        fits = False
    elif spec.mode == "replace":
        fits = _shadow_fits(connection, target_table, ledger, spec)
    else:
        fits = True
        ledger.check_zone()
        ledger.check_selection(spec.days, limited=spec.limited)
        ledger.check_rows(spec.days, compare_counts=spec.mode == "resume")
    replaced = Ledger(connection, table, spec.selection, spec.zone) if target_table != table else None
    return State(
        table=table,
        target_table=target_table,
        batches=tuple(ledger.for_selection()) if fits else (),
        history=tuple(replaced.for_selection()) if replaced else (),
        starts_empty=not fits,
    )


def _check_table(connection: Connection, table: str, mode: Mode) -> None:
    """Check that the table can be used in this mode."""
    exists = table_exists(connection, table)
    if mode == "create":
        if exists:
            raise _exists_error(connection, table)
        return
    check_no_view(connection, table)
    if exists:
        check_format(connection, table, replacing=mode == "replace")
    elif mode == "append":
        raise TableNotFoundError(
            table,
            f"table {table} does not exist, so nothing can be appended",
            argument="append",
            advice=f"{did_you_mean(table, _public_names(connection))}leave out $append to create it",
        )


def _public_names(connection: Connection) -> list[str]:
    return [name for name in table_names(connection) if not name.startswith("_")]


def _exists_error(connection: Connection, table: str) -> TableExistsError:
    exists = f"table {table} already exists"
    try:
        check_no_view(connection, table)
        check_format(connection, table)
    except TableFormatError as error:
        return TableExistsError(table, f"{exists}, but {error.reason}", advice=error.advice)
    return TableExistsError(
        table,
        exists,
        advice="use $resume to add missing days, $append to add or refetch days, or $replace to replace all days",
    )


def _shadow_fits(connection: Connection, shadow: str, ledger: Ledger, spec: ExportSpec) -> bool:
    """Whether the same export filled the shadow table, and the rows of the table agree with the ledger."""
    if comment_of(connection, shadow) != spec.fingerprint:
        return False
    try:
        ledger.check_rows(spec.days, compare_counts=True)
    except LedgerMismatchError:
        return False
    return True
