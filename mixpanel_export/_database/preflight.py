"""Checks, before an export, that the table and the ledger allow it. Nothing is written."""

import json
from dataclasses import dataclass
from datetime import date
from typing import Literal

from mixpanel_export._database.catalog import Catalog, read_catalog
from mixpanel_export._database.connection import Connection, check_zone
from mixpanel_export._database.ledger import Ledger
from mixpanel_export._database.schema import check_format, check_version
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
    """The selection's batches in the target table, and its failed batches."""
    history: tuple[Batch, ...]
    """If a table is to be replaced, the selection's batches in it. They are used only to estimate numbers of events."""
    rows: int
    """The number of rows in the target table; 0 if `starts_empty`."""
    starts_empty: bool
    """Whether the target table does not exist yet, or is a shadow table that cannot be continued."""
    ledger_is_obsolete: bool
    """Whether the ledger may have rows about an earlier target table, which must be deleted."""


def check_before_export(connection: Connection, spec: ExportSpec) -> State:
    """Check that the table and the ledger allow the export, before any request or change.

    Raises:
        ValueError: DuckDB does not know the zone.
        TableExistsError, TableNotFoundError, TableFormatError: The table cannot be used in this mode.
        SelectionError: The table has days with an incompatible selection or zone.
        LedgerMismatchError: The table's rows differ from the ledger.
    """
    check_zone(connection, spec.zone)
    catalog = read_catalog(connection)
    table = catalog.name_of(spec.table)
    _check_table(connection, catalog, table, spec.mode)
    check_version(catalog)
    target_table = SHADOW + table if spec.mode == "replace" else table
    has_ledger = catalog.has("_export_batches")
    ledger = Ledger(connection, target_table, spec.selection, spec.zone)
    batches = ledger.batches() if has_ledger else []
    rows = _rows_to_keep(catalog, target_table, ledger, batches, spec)
    # The mode `resume` fetches days that failed before the table existed, so their ledger rows are kept.
    ledger_is_obsolete = rows is None and (spec.mode != "resume" or any(batch.visible for batch in batches))
    replaced = Ledger(connection, table, spec.selection, spec.zone) if target_table != table else None
    return State(
        table=table,
        target_table=target_table,
        batches=() if ledger_is_obsolete else tuple(ledger.of_selection(batches)),
        history=tuple(replaced.for_selection()) if replaced and has_ledger else (),
        rows=rows or 0,
        starts_empty=rows is None,
        ledger_is_obsolete=ledger_is_obsolete and has_ledger,
    )


def _rows_to_keep(
    catalog: Catalog, target_table: str, ledger: Ledger, batches: list[Batch], spec: ExportSpec
) -> int | None:
    """Return the number of rows in the target table; None if the export must start with an empty one.

    Only the shadow table of the same export is continued, and only if its rows agree with the ledger.
    """
    if not catalog.has(target_table):
        return None
    if spec.mode == "replace":
        if catalog.comments.get(target_table) != spec.fingerprint:
            return None
        try:
            return ledger.check_rows(batches, spec.days, compare_counts=True)
        except LedgerMismatchError:
            return None
    ledger.check_zone(batches)
    ledger.check_selection(batches, spec.days, limited=spec.limited)
    return ledger.check_rows(batches, spec.days, compare_counts=spec.mode == "resume")


def _check_table(connection: Connection, catalog: Catalog, table: str, mode: Mode) -> None:
    """Check that the table can be used in this mode."""
    exists = catalog.has(table)
    if mode == "create":
        if exists:
            raise _exists_error(connection, catalog, table)
        return
    catalog.check_no_view(table)
    if exists:
        check_format(connection, table, replacing=mode == "replace")
    elif mode == "append":
        names = [name for name in catalog.comments if not name.startswith("_")]
        raise TableNotFoundError(
            table,
            f"table {table} does not exist, so nothing can be appended",
            argument="append",
            advice=f"{did_you_mean(table, names)}leave out $append to create it",
        )


def _exists_error(connection: Connection, catalog: Catalog, table: str) -> TableExistsError:
    exists = f"table {table} already exists"
    try:
        catalog.check_no_view(table)
        check_format(connection, table)
    except TableFormatError as error:
        return TableExistsError(table, f"{exists}, but {error.reason}", advice=error.advice)
    return TableExistsError(
        table,
        exists,
        advice="use $resume to add missing days, $append to add or refetch days, or $replace to replace all days",
    )
