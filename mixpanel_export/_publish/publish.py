"""Keeps a set of data files up to date with a table. Later publications write only days that have changed."""

import time
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

from mixpanel_export._concurrency import in_thread
from mixpanel_export._database.path import check_not_empty, database_path
from mixpanel_export._database.waiting import connected_when_free
from mixpanel_export._publish.destination import Connection as StoreConnection
from mixpanel_export._publish.destination import normalize
from mixpanel_export._publish.job import Job, Options
from mixpanel_export._publish.layout import FORMATS
from mixpanel_export._tracebacks import short_tracebacks_async
from mixpanel_export.errors import ArgumentError
from mixpanel_export.publication import PublishProgress, PublishResult, Watcher


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
    """Bring the data set at *destination* up to date with a table.

    The data set has a file for each UTC day, in a folder `date=YYYY-MM-DD`. A table of profiles has no days. Its data set is one file, which is replaced if the table has changed.

    *destination* is a folder, or an `s3://`, `gs://` or `az://` URL. URLs require the `lake` extra. `obstore` reads
    credentials and other settings, such as `AWS_ACCESS_KEY_ID`, from the environment. *endpoint* is the URL of another
    server that implements the same API. *allow_http* permits connections without TLS.

    The first publication writes all days. Later publications write only days whose rows have changed, and delete days
    that the table no longer has. Each file is replaced atomically. If a publication is interrupted, each day still has
    either its old or its new file, and the next publication continues.

    *table* is an exported table or a flat table. The default is the table of the last publication to *destination*, or
    `events`. If *flat* is true, the flat table of *table* is published instead; it is created if it does not exist. Flat
    tables are updated before they are published. All files have the same columns: the table's columns without
    `export_batch`. A column named `date` becomes `date_2`, because readers take `date` from the names of the folders.
    `properties` has Parquet's JSON type, which polars reads as bytes; cast the column to `pl.String`.

    *format* is `parquet`, or `delta` for a Delta table, which needs the `lake` extra. A Delta table changes in one commit, so
    a reader sees either the old or the new data set. If two publications change it at the same time, one of them fails.
    Each publication to a Delta table deletes the files that were replaced more than *prune_after* seconds ago.

    If *verify* is true, all files are read again and compared with the table. If *destination* has files that this
    database did not publish, an error is raised. If *overwrite* is true, a data set that another database published there
    is replaced instead. To publish there again, the other database then needs *overwrite*, too.
    *on_progress* is called in another thread. *wait* is the maximum wait, in seconds, for a file that is in use.

    Raises:
        ArgumentError: An argument is invalid, or differs from the earlier publication to *destination*.
        DatabaseNotFoundError: There is no such file.
        DatabaseError: The file cannot be opened or written.
        TableNotFoundError, TableFormatError: There is no such table, or it was not exported.
        ConfigError: The `lake` extra is not installed.
        PublishError: The destination cannot be read or written, or has files that this database did not publish.

    Example:
        result = asyncio.run(publish_table("events.duckdb", "lake/events"))
        print(result.written_days)
    """
    if format is not None and format not in FORMATS:
        raise ArgumentError("format", f"must be one of {', '.join(FORMATS)}, got {format!r}")
    options = Options(
        destination=normalize(destination),
        table=table,
        format=format,
        flat=flat,
        overwrite=overwrite,
        verify=verify,
        connection=StoreConnection(endpoint, allow_http),
        prune_after=timedelta(seconds=prune_after),
    )
    return await _publish(db, options, on_progress, wait)


@short_tracebacks_async
async def publish_after_export(
    db: str | Path, destination: str | Path, table: str, *, on_progress: Watcher | None = None
) -> PublishResult:
    """Bring the data set at *destination* up to date after an export into *table*.

    If a table was already published to *destination*, that table is published instead.

    Raises:
        MixpanelDataError: See `publish_table`.
    """
    return await _publish(db, Options(normalize(destination), default=table), on_progress, 0.0)


async def _publish(
    db: str | Path, options: Options, on_progress: Watcher | None, wait: float
) -> PublishResult:
    started = time.monotonic()
    path = database_path(db)
    check_not_empty(path)
    async with connected_when_free(path, wait) as database:
        job = Job(database, path, options, on_progress or _ignore)
        result = await in_thread(job.run, job.interrupt)
    return replace(result, duration_seconds=time.monotonic() - started)


def _ignore(_: PublishProgress) -> None:
    """Report no progress."""
