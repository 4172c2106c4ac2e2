"""A copy of the database for readers, because an export locks the database itself."""

import time
from functools import partial
from pathlib import Path

import duckdb

from mixpanel_export._concurrency import InterruptedCall, in_thread
from mixpanel_export._database.connection import Connection, quoted
from mixpanel_export._database.path import STORAGE_VERSION, check_not_empty, database_path
from mixpanel_export._database.waiting import connected_when_free
from mixpanel_export._files import replacing
from mixpanel_export._publish.run import publish_error
from mixpanel_export._tracebacks import short_tracebacks_async
from mixpanel_export.errors import ArgumentError
from mixpanel_export.publication import CopyResult, PublishError

_NAME = "_export_copy"


def is_database(destination: str | Path) -> bool:
    """Whether a destination is a read copy, rather than a data set."""
    return str(destination).lower().endswith(".duckdb") and "://" not in str(destination)


@short_tracebacks_async
async def copy_database(db: str | Path, destination: str | Path, *, wait: float = 0.0) -> CopyResult:
    """Copy all tables and views of the database to the file *destination*, for readers such as dashboards.

    Once the copy is complete, it replaces the old file by renaming. Readers that have the old file open continue to see
    it until they open the file again. The copy does not contain data of deleted rows, which the database file can still
    contain. *wait* is the maximum wait, in seconds, for a file that is in use.

    Raises:
        ArgumentError: *destination* is the database itself, or its name does not end with `.duckdb`.
        DatabaseNotFoundError: There is no file *db*.
        DatabaseError: The file *db* cannot be opened.
        PublishError: The copy cannot be written.

    Example:
        asyncio.run(copy_database("events.duckdb", "dashboard.duckdb"))
    """
    started = time.monotonic()
    path = database_path(db)
    check_not_empty(path)
    target = database_path(destination).absolute()
    if not is_database(target) or target.resolve() == path.resolve():
        raise ArgumentError("destination", f"must be another file that ends with .duckdb, got {destination}")
    async with connected_when_free(path, wait) as connection:
        tables, size = await in_thread(partial(_copy, connection, target), connection.interrupt)
    return CopyResult(str(target), tables, size, time.monotonic() - started)


def _copy(connection: Connection, target: Path) -> tuple[int, int]:
    """Write the copy. Return the number of tables, and the size of the file in bytes."""
    log = target.with_name(f"{target.name}.wal")
    if log.exists():  # DuckDB would apply it to the new file
        raise PublishError(
            f"{target} seems to be in use by another program, because {log.name} exists",
            destination=str(target),
            advice="close the file there, or choose another one",
        )
    try:
        with replacing(target) as new:
            _fill(connection, new)
        ((tables,),) = connection.execute(
            "SELECT count(*) FROM duckdb_tables() WHERE database_name = current_database() AND NOT starts_with(table_name, '_')"
        ).fetchall()
        return int(tables), target.stat().st_size
    except duckdb.InterruptException as error:
        raise InterruptedCall from error
    except (duckdb.Error, OSError) as error:
        raise publish_error(str(target), error, "write") from error


def _fill(connection: Connection, file: Path) -> None:
    literal = "'" + str(file).replace("'", "''") + "'"
    ((name,),) = connection.execute("SELECT current_database()").fetchall()
    connection.execute(f"ATTACH {literal} AS {_NAME} (STORAGE_VERSION '{STORAGE_VERSION}')")
    try:
        connection.execute(f"COPY FROM DATABASE {quoted(name)} TO {_NAME}")
    finally:
        connection.execute(f"DETACH {_NAME}")
