"""One publication, from the state of the last one to its result."""

from collections.abc import Iterable, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import uuid4

from mixpanel_export._database.connection import Connection
from mixpanel_export._database.publications import (
    Day,
    Publication,
    PublishedDay,
    create_publications,
    read_days,
    read_publications,
    record_days,
    start_publication,
)
from mixpanel_export._database.schema import check_ledger, name_in_database
from mixpanel_export._database.write_errors import converting_errors
from mixpanel_export._flat.flatten import Request, flatten
from mixpanel_export._publish.data_set import DataSet, DayFile, Store
from mixpanel_export._publish.destination import Connection as StoreConnection
from mixpanel_export._publish.destination import open_data_set, open_store, threads
from mixpanel_export._publish.layout import FORMATS, PARQUET
from mixpanel_export._publish.owner import has_other_owner, unknown_files
from mixpanel_export._publish.parts import Parts
from mixpanel_export._publish.plan import StoredFile, plan
from mixpanel_export._publish.run import DayResult, Publisher, Totals, publish_error
from mixpanel_export._publish.source import Source, find_source
from mixpanel_export._publish.workers import Workers
from mixpanel_export.errors import ArgumentError
from mixpanel_export.publication import PublishError, PublishResult, Watcher


@dataclass(frozen=True, slots=True)
class Options:
    """The arguments of a publication."""

    destination: str
    table: str | None = None
    default: str = "events"
    """The table for a destination without an earlier publication, if *table* is None."""
    format: str | None = None
    flat: bool = False
    overwrite: bool = False
    verify: bool = False
    connection: StoreConnection = field(default_factory=StoreConnection)
    prune_after: timedelta = timedelta(days=7)


@dataclass(frozen=True, slots=True)
class _Target:
    """The table to publish. A flat table may not exist yet."""

    table: str
    source: Source
    """The table itself, or the exported table if the flat table does not exist."""
    flat: Request | None
    """The update of the flat table before the publication."""


class Job:
    """Publishes one table to one destination. `run` is called in a thread."""

    def __init__(self, connection: Connection, path: Path, options: Options, on_progress: Watcher) -> None:
        self._connection = connection
        self._path = path
        self._options = options
        self._on_progress = on_progress
        self._workers = Workers(connection, threads(options.destination))

    def interrupt(self) -> None:
        """Stop `run`."""
        self._workers.interrupt()

    def run(self) -> PublishResult:
        """Publish.

        Raises:
            InterruptedCall: `interrupt` was called.
            MixpanelDataError: See `publish_table`.
        """
        with converting_errors(self._path, "cannot read or write the database ({reason})", "publish again"):
            try:
                return self._run()
            except OSError as error:
                raise publish_error(self._options.destination, error, "write") from error

    def _run(self) -> PublishResult:
        check_ledger(self._connection)
        create_publications(self._connection)
        publications = read_publications(self._connection)
        old = next((each for each in publications if each.destination == self._options.destination), None)
        target = self._target(old)
        name = self._options.format or (old.format if old else PARQUET.name)
        data_set = self._data_set(name, target.source.parts)
        files = data_set.files()
        if old and files:
            _check_same(old, target.table, name)
        self._check_files(data_set, files, old)
        if target.flat:
            flatten(self._connection, self._path, target.flat)
            source = find_source(self._connection, target.table)  # it has new columns, or did not exist
        else:
            source = target.source
        self._check_times(source)
        with data_set.store.staging() as staging, self._workers.running():
            owner = self._start(old, source, name)
            publisher = self._publisher(owner, source, data_set, files, staging)
            return self._publish(publisher, files.keys(), name)

    def _target(self, old: Publication | None) -> _Target:
        """Return the table that is published."""
        name = self._options.table or (old.table if old else self._options.default)
        source = find_source(self._connection, name)
        if source.flat:
            return _Target(source.table, source, Request(source.flat.source, source.table))
        if self._options.flat:
            flat = f"{source.table}_flat"
            name = name_in_database(self._connection, flat)
            return _Target(name, source, Request(source.table, flat))
        return _Target(source.table, source, None)

    def _data_set(self, format_name: str, parts: Parts) -> DataSet:
        options = self._options
        store = open_store(options.destination, self._path, self._workers.check, options.connection)
        return open_data_set(
            options.destination,
            FORMATS[format_name],
            parts,
            store,
            connection=options.connection,
            prune_after=options.prune_after,
        )

    def _check_files(
        self, data_set: DataSet, files: Mapping[str, StoredFile], old: Publication | None
    ) -> None:
        """Check that this database may replace the files."""
        destination = self._options.destination
        foreign = min((name for name in files if not data_set.owns(name)), default=None)
        if foreign is not None:
            raise PublishError(
                f"{destination} has a file that is not part of the data set: {foreign}",
                destination=destination,
                advice="choose an empty or new folder, or move the file",
            )
        if files and not (self._options.overwrite or (old and self._is_owner(data_set.store, files, old))):
            raise PublishError(
                f"{destination} has a data set that another database published",
                destination=destination,
                advice="choose an empty or new folder, or pass $overwrite to replace it",
            )

    def _is_owner(self, store: Store, files: Mapping[str, StoredFile], old: Publication) -> bool:
        unknown = unknown_files(files, read_days(self._connection, old.destination).values())
        return not has_other_owner(self._connection, store, unknown, old.owner)

    def _check_times(self, source: Source) -> None:
        """Check that each row belongs to a day, or has no time."""
        if not source.has_parts(self._connection):
            raise PublishError(
                f"table {source.table} has rows whose event_time is before year 1 or after year 9999",
                destination=self._options.destination,
                advice="correct these times in SQL or set them to NULL, then publish again",
            )

    def _start(self, old: Publication | None, source: Source, format_name: str) -> str:
        """Store the publication, and return its id."""
        new = Publication(
            destination=self._options.destination,
            table=source.table,
            format=format_name,
            schema=source.schema,
            published_at=old.published_at if old else None,
            owner=(old and old.owner) or uuid4().hex,
        )
        if new != old:
            start_publication(self._connection, new, keep_days=old is not None and old.schema == new.schema)
        return str(new.owner)

    def _publisher(
        self, owner: str, source: Source, data_set: DataSet, files: Mapping[str, StoredFile], staging: Path
    ) -> Publisher:
        versions = source.versions(self._connection)
        published = read_days(self._connection, self._options.destination)
        todo = plan(versions, published, files)
        return Publisher(
            destination=self._options.destination,
            owner=owner,
            source=source,
            versions=versions,
            published=published,
            plan=todo,
            data_set=data_set,
            staging=staging,
            workers=self._workers,
            totals=Totals(len(todo.changed), self._on_progress),
        )

    def _publish(self, publisher: Publisher, files: AbstractSet[str], format_name: str) -> PublishResult:
        """Write the changed parts, and record that the data set matches the table."""
        destination, parts = self._options.destination, publisher.source.parts
        written = publisher.write(self._connection)
        states = {each.day: each.state for each in written}
        days = dict(publisher.published) | states
        for day in publisher.plan.removed:
            del days[day]
        self._workers.check()
        new = [each for each in written if not each.unchanged]
        obsolete = files - {state.file for state in days.values()}
        publisher.data_set.finish(publisher.source, [_day_file(each) for each in new], obsolete)
        unrecorded = {} if publisher.data_set.visible_at_once else states
        now = datetime.now(UTC).replace(tzinfo=None)
        record_days(self._connection, destination, unrecorded, publisher.plan.removed, published_at=now)
        return PublishResult(
            destination=destination,
            table=publisher.source.table,
            format=format_name,
            by_day=bool(parts.columns),
            days=len(days),
            rows=sum(state.rows for state in days.values()),
            written_days=_names(parts, [each.day for each in new]),
            removed_days=_names(parts, publisher.plan.removed),
            bytes_written=sum(each.state.size for each in new),
            different_days=self._different(publisher, days) if self._options.verify else None,
            duration_seconds=0.0,
        )

    def _different(self, publisher: Publisher, days: Mapping[Day, PublishedDay]) -> tuple[str, ...]:
        """Return the parts whose files differ from the table. The next publication writes them again."""
        different = publisher.different(days)
        record_days(self._connection, self._options.destination, {}, different)
        return _names(publisher.source.parts, different)


def _check_same(old: Publication, table: str, format_name: str) -> None:
    """Check that the table and the format are the same as in the earlier publication."""
    for argument, before, now in (("table", old.table, table), ("format", old.format, format_name)):
        if before != now:
            raise ArgumentError(
                argument,
                f"was {before} in the earlier publication to {old.destination}, got {now}",
                advice="choose another destination, or delete the files there",
            )


def _day_file(result: DayResult) -> DayFile:
    state = result.state
    return DayFile(result.day, state.file, state.size, state.rows)


def _names(parts: Parts, days: Iterable[Day]) -> tuple[str, ...]:
    """Return the names of parts, in order."""
    return tuple(sorted(map(parts.name, days)))
