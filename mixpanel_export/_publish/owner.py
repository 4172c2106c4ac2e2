"""Finds out whether another database has published to a destination: each Parquet file names the publication that wrote it."""

from collections.abc import Collection, Iterable, Mapping
from pathlib import Path

import duckdb

from mixpanel_export._database.connection import Connection, first_row
from mixpanel_export._database.publications import PublishedDay
from mixpanel_export._publish.data_set import Store
from mixpanel_export._publish.layout import OWNER
from mixpanel_export._publish.plan import StoredFile


def unknown_files(files: Mapping[str, StoredFile], published: Iterable[PublishedDay]) -> list[str]:
    """Return the names of the files that differ from their state when they were published, in order."""
    known = {state.file: StoredFile(state.size, state.stamp) for state in published}
    return sorted(name for name, file in files.items() if known.get(name) != file)


def has_other_owner(connection: Connection, store: Store, names: Collection[str], owner: str | None) -> bool:
    """Whether another publication than *owner* wrote one of these files. It reads each file, so pass few."""
    for name in names:
        with store.reading(name) as path:
            if _owner_of(connection, path) not in {None, owner}:
                return True
    return False


def _owner_of(connection: Connection, file: Path) -> str | None:
    """Return the id of the publication that wrote a file; None if the file is damaged or has no id."""
    query = f"SELECT decode(value) FROM parquet_kv_metadata(?) WHERE decode(key) = '{OWNER}'"
    try:
        row = first_row(connection, query, [str(file)])
    except duckdb.InterruptException:
        raise
    except duckdb.Error:
        return None
    return str(row[0]) if row else None
