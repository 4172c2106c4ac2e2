"""Keeps a data set of files in step with a table. Later publications write only days that have changed."""

import time
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

from mixpanel_export._concurrency import in_thread
from mixpanel_export._database.connection import Connection
from mixpanel_export._database.path import check_not_empty, database_path
from mixpanel_export._database.publications import (
    Day,
    Publication,
    PublishedDay,
    create_publications,
    finish_publication,
    read_days,
    read_publications,
    record_days,
    start_publication,
)
from mixpanel_export._database.schema import check_ledger, name_in_database
from mixpanel_export._database.waiting import connected_when_free
from mixpanel_export._database.write_errors import converting_errors
from mixpanel_export._flat.flatten import Request, flatten
from mixpanel_export._publish.data_set import DataSet, DayFile
from mixpanel_export._publish.destination import Connection as StoreConnection
from mixpanel_export._publish.destination import normalize, open_data_set, open_store, threads
from mixpanel_export._publish.layout import FORMATS, PARQUET, partition
from mixpanel_export._publish.plan import plan
from mixpanel_export._publish.run import Publisher, Totals, publish_error
from mixpanel_export._publish.source import PARTITION, Source, find_source
from mixpanel_export._publish.workers import Workers
from mixpanel_export._tracebacks import short_tracebacks_async
from mixpanel_export.errors import ArgumentError
from mixpanel_export.publication import PublishError, PublishProgress, PublishResult, Watcher


@dataclass(frozen=True, slots=True)
class Options:
    """The arguments of a publication."""

    destination: str
    table: str | None
    format: str | None
    flat: bool
    overwrite: bool
    verify: bool
    connection: StoreConnection
    prune_after: timedelta


@short_tracebacks_async
async def publish_table(
    db: str | Path,
    destination: str | Path,
    table: str | None = None,
    *,
    format: str | None = None,  # noqa: A002 - the name of the option
    flat: bool = False,
    overwrite: bool = False,
    verify: bool = False,
    endpoint: str | None = None,
    allow_http: bool = False,
    prune_after: float = 604_800.0,
    on_progress: Watcher | None = None,
    wait: float = 0.0,
) -> PublishResult:
    """Bring the data set at *destination* in step with a table. It has a file for each UTC day, in a folder `date=YYYY-MM-DD`.

    *destination* is a folder, or an `s3://`, `gs://` or `az://` URL. A URL needs the extra `lake`. `obstore` reads
    credentials and other settings, such as `AWS_ACCESS_KEY_ID`, from the environment. *endpoint* is the URL of another
    server with the same protocol. *allow_http* permits connections without TLS.

    The first publication writes all days. Later publications write only days whose rows have changed, and delete days
    that the table no longer has. Each file is replaced atomically. If a publication is interrupted, each day has its old
    or its new file, and the next publication continues.

    *table* is an exported table or a flat table. The default is the table that was published to *destination* before, or
    `events`. If *flat* is true, the flat table of *table* is published instead; it is created if it does not exist. Flat
    tables are updated before they are published. All files have the same columns: the table's columns without
    `export_batch`. A column named `date` becomes `date_2`, because readers take `date` from the names of the folders.

    *format* is `parquet`, or `delta` for a Delta table, which needs the extra `lake`. A Delta table changes in one commit, so
    a reader sees either the old or the new data set. If two publications change it at the same time, one of them fails.
    Each publication to a Delta table deletes the files that were replaced more than *prune_after* seconds ago.

    If *verify* is true, all files are read again and compared with the table. If *destination* has files that this
    database did not publish, an error is raised. If *overwrite* is true, a data set that another database published there
    is replaced instead. If the other database publishes again, it replaces this data set, even without *overwrite*.
    *on_progress* is called in another thread. *wait* is the maximum wait, in seconds, for a file that is in use.

    Raises:
        ArgumentError: An argument is invalid, or differs from the earlier publication to *destination*.
        DatabaseNotFoundError: There is no such file.
        DatabaseError: The file cannot be opened or written.
        TableNotFoundError, TableFormatError: There is no such table, or it was not exported.
        ConfigError: The extra `lake` is not installed.
        PublishError: The destination cannot be read or written, or has other files.

    Example:
        result = asyncio.run(publish_table("events.duckdb", "lake/events"))
        print(result.written_days)
    """
    started = time.monotonic()
    connection = StoreConnection(endpoint, allow_http)
    prune = timedelta(seconds=prune_after)
    options = Options(normalize(destination), table, format, flat, overwrite, verify, connection, prune)
    if format is not None and format not in FORMATS:
        raise ArgumentError("format", f"must be one of {', '.join(FORMATS)}, got {format!r}")
    path = database_path(db)
    check_not_empty(path)
    async with connected_when_free(path, wait) as database:
        job = _Job(database, path, options, on_progress or _ignore)
        result = await in_thread(job.run, job.interrupt)
    return replace(result, duration_seconds=time.monotonic() - started)


class _Job:
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
        destination = self._options.destination
        check_ledger(self._connection)
        create_publications(self._connection)
        publications = read_publications(self._connection)
        old = next((each for each in publications if each.destination == destination), None)
        name = self._options.format or (old.format if old else PARQUET.name)
        data_set = self._data_set(name)
        files = data_set.files()
        _check_files(destination, data_set, files.keys(), may_own=bool(old) or self._options.overwrite)
        table, flat = self._flat_table(old)
        if old and files:
            _check_same(old, table, name)
        if flat:
            flatten(self._connection, self._path, flat)
        source = find_source(self._connection, table)
        _check_times(self._connection, source, destination)
        publication = Publication(destination, table, name, source.schema, old.published_at if old else None)
        with data_set.store.staging() as staging, self._workers.running():
            same_schema = old is not None and old.schema == publication.schema
            start_publication(self._connection, publication, keep_days=same_schema)
            versions = source.versions(self._connection)
            published = read_days(self._connection, destination)
            todo = plan(versions, published, files)
            publisher = Publisher(
                destination=destination,
                source=source,
                versions=versions,
                published=published,
                plan=todo,
                data_set=data_set,
                staging=staging,
                workers=self._workers,
                totals=Totals(len(todo.changed), self._on_progress),
            )
            written = publisher.write(self._connection)
            days = published | {each.day: each.state for each in written}
            for day in todo.removed:
                del days[day]
            used = {state.file for state in days.values()}
            self._workers.check()
            new = [each for each in written if not each.unchanged]
            data_set.finish(
                source,
                [DayFile(each.day, each.state.file, each.state.size, each.state.rows) for each in new],
                [file for file in files if file not in used],
            )
            record_days(
                self._connection, destination, {each.day: each.state for each in written}, todo.removed
            )
            finish_publication(self._connection, destination, datetime.now(UTC).replace(tzinfo=None))
            different = self._different(publisher, days) if self._options.verify else None
        return PublishResult(
            destination=destination,
            table=source.table,
            format=name,
            days=len(days),
            rows=sum(state.rows for state in days.values()),
            written_days=_names(each.day for each in new),
            removed_days=_names(todo.removed),
            bytes_written=sum(each.state.size for each in new),
            different_days=different,
            duration_seconds=0.0,
        )

    def _data_set(self, format_name: str) -> DataSet:
        options = self._options
        store = open_store(options.destination, self._path, self._workers.check, options.connection)
        return open_data_set(
            options.destination, FORMATS[format_name], store, options.connection, options.prune_after
        )

    def _flat_table(self, old: Publication | None) -> tuple[str, Request | None]:
        """Return the name of the published table and, if it is a flat table, the request that updates it."""
        source = find_source(self._connection, self._options.table or (old.table if old else "events"))
        if source.flat:
            return source.table, Request(source.flat.source, source.table)
        if self._options.flat:
            name = f"{source.table}_flat"
            return name_in_database(self._connection, name), Request(source.table, name)
        return source.table, None

    def _different(self, publisher: Publisher, days: Mapping[Day, PublishedDay]) -> tuple[str, ...]:
        """Return the days whose files differ from the table. The next publication writes them again."""
        different = publisher.different(days)
        record_days(self._connection, self._options.destination, {}, different)
        return _names(different)


def _check_same(old: Publication, table: str, format_name: str) -> None:
    """Check that the table and the format are the same as in the earlier publication."""
    for argument, before, now in (("table", old.table, table), ("format", old.format, format_name)):
        if before != now:
            raise ArgumentError(
                argument,
                f"was {before} in the earlier publication to {old.destination}, got {now}",
                advice="choose another destination, or delete the files there",
            )


def _check_files(destination: str, data_set: DataSet, names: Collection[str], *, may_own: bool) -> None:
    """Check that all files belong to this data set. If *may_own* is false, check that there are no files."""
    foreign = min((name for name in names if not data_set.owns(name)), default=None)
    if foreign is not None:
        raise PublishError(
            f"{destination} has a file that mpx did not publish: {foreign}",
            destination=destination,
            advice="choose an empty or new folder, or move the file",
        )
    if names and not may_own:
        raise PublishError(
            f"{destination} has a data set that another database published",
            destination=destination,
            advice="choose an empty or new folder, or pass $overwrite to replace it",
        )


def _check_times(connection: Connection, source: Source, destination: str) -> None:
    """Check that each row belongs to a day, or has no time."""
    if not source.has_days(connection):
        raise PublishError(
            f"table {source.table} has rows whose event_time is before year 1 or after year 9999",
            destination=destination,
            advice="correct these times in SQL or set them to NULL, then publish again",
        )


def _names(days: Iterable[Day]) -> tuple[str, ...]:
    """Return the days as strings, in order."""
    return tuple(sorted(partition(day).removeprefix(f"{PARTITION}=") for day in days))


def _ignore(_: PublishProgress) -> None:
    """Report no progress."""
