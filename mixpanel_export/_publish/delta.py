"""A data set as a Delta table. One commit replaces the files of all changed parts, so readers see all changes or none.

DuckDB writes the files, and they are stored under unique names. A commit fails if another program has committed since
the table was opened. `deltalake` is part of the `lake` extra.
"""

import json
import re
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from mixpanel_export._database.publications import Day
from mixpanel_export._publish.data_set import DayFile, Store
from mixpanel_export._publish.layout import DELTA, FileFormat
from mixpanel_export._publish.object_store import reason_of
from mixpanel_export._publish.parts import Parts
from mixpanel_export._publish.plan import StoredFile
from mixpanel_export._publish.source import Source
from mixpanel_export.publication import PublishError

if TYPE_CHECKING:
    from deltalake import Schema

_TYPES = {
    "BOOLEAN": "boolean",
    "INTEGER": "integer",
    "BIGINT": "long",
    "DOUBLE": "double",
    "TIMESTAMP": "timestamp_ntz",
    "VARCHAR": "string",
    "JSON": "string",
}
_FILE = re.compile(r"data-[0-9a-f]{32}\.parquet")


class Delta:
    """A Delta table in a folder or an object store."""

    format: FileFormat = DELTA
    visible_at_once = False

    def __init__(
        self,
        destination: str,
        store: Store,
        parts: Parts,
        options: Mapping[str, str],
        prune_after: timedelta,
    ) -> None:
        from deltalake import DeltaTable  # noqa: PLC0415 - an extra

        self.store = store
        self.destination = destination
        self._parts = parts
        self._options = dict(options)
        self._prune_after = prune_after
        self._table: DeltaTable | None = None
        with self._converting_errors("read"):
            if DeltaTable.is_deltatable(destination, self._options):
                self._table = DeltaTable(destination, storage_options=self._options)
                self._check_partitions(self._table.metadata().partition_columns)

    def files(self) -> dict[str, StoredFile]:
        """Return the existing files of the table's current version. If there is no table yet, return all files."""
        stored = self.store.files()
        if self._table is None:
            return stored
        return {name: stored[name] for name in self._active() if name in stored}

    def _check_partitions(self, columns: Sequence[str]) -> None:
        """Check that the table is divided like the data set, because this cannot be changed."""
        if tuple(columns) != self._parts.columns:
            parts = ", ".join(columns) or "no column"
            raise PublishError(
                f"{self.destination} has a Delta table that is partitioned by {parts}",
                destination=self.destination,
                advice="choose an empty or new folder",
            )

    def owns(self, name: str) -> bool:
        """Whether a file may belong to the table."""
        folder, slash, file = name.rpartition("/")
        has_form = self._parts.has_folder(folder + slash) and _FILE.fullmatch(file) is not None
        return self._table is not None or has_form

    def put(self, file: Path, day: Day) -> tuple[str, StoredFile]:
        """Store a part's file under a new name, where readers do not see it yet. Return the name and the file's state."""
        name = f"{self._parts.folder(day)}data-{uuid4().hex}.parquet"
        return name, self.store.put(file, name)

    def finish(self, source: Source, written: Sequence[DayFile], obsolete: Collection[str]) -> None:
        """Replace the *obsolete* files with the *written* files in one commit. Then delete files of old versions.

        Raises:
            PublishError: Another publication has changed the table since this one started.
        """
        with self._converting_errors("write"):
            # After an error, the new files stay, because the commit may have succeeded although its response was lost.
            self._commit(_schema(source), written, self._obsolete(obsolete))
            self._prune()

    def _obsolete(self, known: Collection[str]) -> list[str]:
        """Return the *known* obsolete files, and the files of the table's current version that no longer exist."""
        return sorted(set(known) | (set(self._active()) - self.store.files().keys()))

    def _active(self) -> list[str]:
        if self._table is None:
            return []
        return [str(name) for name in self._table.get_add_actions(flatten=True).column("path").to_pylist()]

    def _commit(self, schema: "Schema", written: Sequence[DayFile], removed: Sequence[str]) -> None:
        from deltalake import CommitProperties, DeltaTable  # noqa: PLC0415 - an extra

        partition_by = list(self._parts.columns)
        if self._table is None:
            self._table = DeltaTable.create(
                self.destination, schema, partition_by=partition_by, storage_options=self._options
            )
        changed = self._table.schema() != schema
        if not (written or removed or changed):
            return
        now = int(time.time() * 1000)
        actions: list[Any] = [self._add(file, now) for file in written]
        # If the schema changes, all parts are written again, and the mode "overwrite" removes all old files.
        self._table.create_write_transaction(
            actions if changed else [*actions, *(_remove(name, now) for name in removed)],
            "overwrite" if changed else "append",
            schema,
            partition_by,
            commit_properties=CommitProperties(max_commit_retries=0),
        )

    def _prune(self) -> None:
        if self._table is not None:
            self._table.update_incremental()  # the commit does not update this object
            self._table.vacuum(
                int(self._prune_after / timedelta(hours=1)),
                dry_run=False,
                enforce_retention_duration=False,
                full=True,
            )

    def _add(self, file: DayFile, now: int) -> Any:
        from deltalake.transaction import AddAction  # noqa: PLC0415 - an extra

        values = dict.fromkeys(self._parts.columns, str(file.day) if file.day else None)
        return AddAction(file.name, file.size, values, now, True, json.dumps({"numRecords": file.rows}))

    @contextmanager
    def _converting_errors(self, action: str) -> Iterator[None]:
        from deltalake.exceptions import CommitFailedError, DeltaError  # noqa: PLC0415 - an extra

        try:
            yield
        except CommitFailedError as error:
            raise PublishError(
                f"another publication changed {self.destination} at the same time, so this one changed nothing",
                destination=self.destination,
                advice="publish again",
            ) from error
        except (DeltaError, OSError) as error:
            if isinstance(error, OSError) and error.errno is not None:  # it has a reason on one line
                raise
            raise OSError(f"cannot {action} the Delta table: {reason_of(error)}") from error


def _schema(source: Source) -> "Schema":
    from deltalake import Field, Schema  # noqa: PLC0415 - an extra
    from deltalake.schema import PrimitiveType  # noqa: PLC0415 - an extra

    columns = zip(DELTA.names(source), (kind for _, kind in source.columns), strict=True)
    fields = [Field(name, PrimitiveType(_TYPES[kind])) for name, kind in columns]
    return Schema([*fields, *(Field(name, PrimitiveType("date")) for name in source.parts.columns)])


def _remove(name: str, now: int) -> Any:
    from deltalake.transaction import RemoveAction  # noqa: PLC0415 - an extra

    return RemoveAction(name, True, now)
