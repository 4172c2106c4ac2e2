"""Changes the target days of exported tables: the days that `mpx status` expects."""

from pathlib import Path

from mixpanel_export._database.connection import connected_for_export, transaction
from mixpanel_export._database.ledger import read_batches
from mixpanel_export._database.path import check_not_empty
from mixpanel_export._database.preflight import SHADOW
from mixpanel_export._database.schema import check_ledger, create_ledger
from mixpanel_export._database.target_days import read_targets, set_target_days
from mixpanel_export._model import Chunk
from mixpanel_export._suggestions import did_you_mean
from mixpanel_export.errors import TableNotFoundError


def change_target_days(path: Path, days: Chunk, table: str | None = None) -> None:
    """Set the target days to *days* for every selection of *table*, or of all exported tables.

    Raises:
        DatabaseNotFoundError: There is no such file, or it is empty.
        TableNotFoundError: The ledger has no such table.
        TableFormatError: A newer release of this program wrote the ledger.
        DatabaseError: The file cannot be opened for writing.
    """
    check_not_empty(path)
    with connected_for_export(path) as connection:
        check_ledger(connection)
        known = {(batch.table, batch.selection) for batch in read_batches(connection)}
        known |= read_targets(connection).keys()
        exported = {pair for pair in known if not pair[0].startswith(SHADOW)}
        pairs = {(name, selection) for name, selection in exported if table in {None, name}}
        if not pairs:
            raise TableNotFoundError(
                table or "",
                f"{path} has no exported table{f' {table}' if table else ''}",
                advice=f"{did_you_mean(table or '', (name for name, _ in exported))}export into it first",
            )
        with transaction(connection):
            create_ledger(connection)
            for name, selection in pairs:
                set_target_days(connection, name, selection, days)
