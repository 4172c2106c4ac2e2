"""Connections to the DuckDB file, transactions, and SQL expressions that several folders use."""

import os
import re
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from threading import Lock
from typing import Any

import duckdb

from mixpanel_export._database.path import check_folder, check_path, create_database, has_content
from mixpanel_export._database.settings import bulk_settings
from mixpanel_export.errors import DatabaseError, DatabaseLockedError, ExportRunningError

Connection = duckdb.DuckDBPyConnection

_MORE_MEMORY = "raise MPX_MEMORY_LIMIT, for example to 2GB"
_DAMAGED = "restore the damaged file from a copy, or choose another path"
# Advice on DuckDB errors, keyed by a part of the error text.
_ADVICE = {
    "Corrupt database file": _DAMAGED,
    "Could not read enough bytes": _DAMAGED,
    "Out of Memory": _MORE_MEMORY,
    "failed to pin block": _MORE_MEMORY,
    "could not allocate block": _MORE_MEMORY,
    "main key table": "drop the tables that refer to it",
    "index depends on it": "drop the index",
    "Permission denied": "give this user write permission to the file and its folder, or choose another path",
}
_DEFAULT_ADVICE = "free up disk space, or close whatever is using the database"
_exporting: set[Path] = set()
_exporting_lock = Lock()
_create_lock = Lock()


def connect(path: Path, *, read_only: bool = False) -> Connection:
    """Open the database file. Create the file if it is missing or empty, unless *read_only* is true.

    Raises:
        DatabaseLockedError: Another process has the file open.
        DatabaseError: The folder does not exist, the file is not a DuckDB database, or it cannot be written.
    """
    check_path(path)
    try:
        if not read_only:
            with _create_lock:
                if not has_content(path):
                    create_database(path)
        # The path is made absolute, because DuckDB would load an extension for a relative path such as md:x.
        return duckdb.connect(str(path.absolute()), read_only=read_only)
    except (duckdb.Error, OSError) as error:
        raise _as_database_error(path, error) from error


@contextmanager
def connected_for_export(path: Path) -> Iterator[Connection]:
    """Open the database for an export, with settings for bulk loading.

    The file stays open until the export ends, even while the export waits for the quota, because only DuckDB's lock
    prevents other processes from changing the table and the ledger.

    Raises:
        ExportRunningError: This process is already exporting into the file.
        DatabaseError: See `connect`.
    """
    check_path(path)
    check_folder(path)
    with ExitStack() as stack:
        stack.enter_context(_only_export_of_file(path.resolve()))
        connection = connect(path)
        stack.enter_context(_private_temp_folder(path, connection))
        try:
            _check_access(connection, path)
            stack.enter_context(bulk_settings(connection))
            stack.callback(roll_back, connection)
        except duckdb.Error as error:
            raise _as_database_error(path, error) from error
        yield connection


@contextmanager
def connected_read_only(path: Path) -> Iterator[Connection]:
    """Open the file read-only. If it does not exist, open an empty in-memory database.

    Raises:
        DatabaseError: See `connect`.
    """
    check_path(path)
    with connect(path, read_only=True) if has_content(path) else duckdb.connect() as connection:
        try:
            yield connection
        except duckdb.Error as error:
            raise _as_database_error(path, error) from error


@contextmanager
def transaction(connection: Connection) -> Iterator[None]:
    """Run the block in a transaction. Commit if it succeeds; roll back if it raises an exception."""
    try:
        begin(connection)
        yield
        connection.commit()
    except BaseException:
        roll_back(connection)
        raise


def begin(connection: Connection) -> None:
    """Begin a transaction that the caller commits or rolls back."""
    _create_private_log(connection)
    connection.begin()


def _create_private_log(connection: Connection) -> None:
    """Create the write-ahead log of a private database file, because DuckDB would create it readable by all users."""
    row = first_row(
        connection, "SELECT path FROM duckdb_databases() WHERE database_name = current_database()"
    )
    if row is None or not row[0]:
        return  # in memory
    path = Path(row[0]).resolve()
    with suppress(OSError):  # if the folder cannot be used, DuckDB reports it
        mode = path.stat().st_mode & 0o666
        if mode & 0o044 != 0o044:
            os.close(os.open(f"{path}.wal", os.O_CREAT | os.O_WRONLY, mode))


def roll_back(connection: Connection) -> None:
    """Roll back the open transaction, if there is one."""
    while True:
        try:
            connection.rollback()
        except duckdb.InterruptException:
            continue  # the interrupt was for an earlier statement
        except (duckdb.TransactionException, duckdb.FatalException):
            return  # no transaction is open, or a full disk has made the database unusable until it is closed
        else:
            return


def first_row(
    connection: Connection, query: str, parameters: Sequence[object] = ()
) -> tuple[Any, ...] | None:
    """Return the first row of *query*, or None if it has none. The query should have few rows, because all are read.

    An unread result would keep its transaction open, so other connections could not write a checkpoint.
    """
    rows = connection.execute(query, parameters).fetchall()
    return rows[0] if rows else None


def identity(path: Path) -> tuple[int, int] | None:
    """Return the device and inode of the file; None if it does not exist."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino


def advice_on(reason: str, otherwise: str = _DEFAULT_ADVICE) -> str:
    """Return advice on a DuckDB error with the message *reason*; *otherwise* if there is no specific advice."""
    return next((advice for part, advice in _ADVICE.items() if part in reason), otherwise)


def quoted(identifier: str) -> str:
    """Return *identifier* quoted for SQL."""
    return '"' + identifier.replace('"', '""') + '"'


def in_utc(local: str, zone: str) -> str:
    """Return SQL that converts *local*, an SQL expression for a local time in *zone*, to UTC.

    When daylight saving time starts or ends, a local time may be skipped or occur twice. The result is then the later
    of the two possible times.
    """
    return local if zone == "UTC" else f"timezone('{zone}', {local})::TIMESTAMP"


def check_zone(connection: Connection, zone: str) -> None:
    """Check that DuckDB knows the zone. Python's time zone database may be newer than DuckDB's.

    Raises:
        ValueError: DuckDB does not know the zone.
    """
    if zone != "UTC" and not first_row(
        connection, "SELECT 1 FROM pg_timezone_names() WHERE name = ?", [zone]
    ):
        raise ValueError(
            f"DuckDB {duckdb.__version__} does not know project_timezone {zone}; use another name for that zone"
        )


def first_moment(day: str, zone: str) -> str:
    """Return SQL for the UTC time at which a day starts in *zone*. *day* is an SQL expression for a date."""
    return in_utc(f"{day}::TIMESTAMP", zone)


def last_moment(day: str, zone: str) -> str:
    """Return SQL for the UTC time of the last microsecond of a day in *zone*. *day* is an SQL expression for a date."""
    return f"{in_utc(f'({day} + 1)::TIMESTAMP', zone)} - INTERVAL 1 MICROSECOND"


def supports_zstd(connection: Connection) -> bool:
    """Whether the file's storage version supports zstd compression of text."""
    tag = first_row(
        connection,
        "SELECT tags['storage_version'] FROM duckdb_databases() WHERE database_name = current_database()",
    )
    version = re.match(r"v(\d+)\.(\d+)", str(tag[0])) if tag and tag[0] else None
    return version is None or (int(version[1]), int(version[2])) >= (1, 2)


def _check_access(connection: Connection, path: Path) -> None:
    """Check that no other connection in this process has settings that make an export impossible."""
    ((access, locked),) = connection.execute(
        "SELECT current_setting('enable_external_access'), current_setting('lock_configuration')"
    ).fetchall()
    if access and not locked:
        return
    reason = (
        "with lock_configuration on, so settings cannot be changed"
        if access
        else "with enable_external_access off, so staged files cannot be read"
    )
    raise DatabaseError(
        f"{path} is open in this process {reason}",
        advice="close that connection first",
        db_path=str(path),
    )


@contextmanager
def _private_temp_folder(path: Path, connection: Connection) -> Iterator[None]:
    """Create DuckDB's temporary folder, which only this user can read, and close *connection* at the end.

    DuckDB spills data that does not fit in memory to this folder. If DuckDB created the folder, all users could read
    it, even if the database file is private.
    """
    target = path.resolve()
    folder = target.with_name(f"{target.name}.tmp")
    with suppress(OSError):  # if the folder cannot be used, DuckDB reports it
        folder.mkdir(mode=0o700, exist_ok=True)
        folder.chmod(0o700)
    try:
        with connection:
            yield
    finally:
        with suppress(OSError):  # another connection of this process may be using it
            folder.rmdir()


@contextmanager
def _only_export_of_file(path: Path) -> Iterator[None]:
    """Reject a second export into the same file from this process while the block runs."""
    with _exporting_lock:
        if path in _exporting:
            raise ExportRunningError(
                f"an export into {path} is already running in this process",
                advice="wait for it, or export into another file",
            )
        _exporting.add(path)
    try:
        yield
    finally:
        with _exporting_lock:
            _exporting.discard(path)


def _as_database_error(path: Path, error: Exception) -> DatabaseError:
    """Convert a DuckDB or OS error to a `DatabaseError`."""
    text = str(error)
    # On Windows, the operating system's part of the message is localized, so DuckDB's own part, "already open in", is
    # matched, too.
    if any(
        part in text for part in ("Could not set lock", "being used by another process", "already open in")
    ):
        match = re.search(r"PID (\d+)", text)
        pid = int(match[1]) if match else None
        holder = f"process {pid}" if pid else "another process"
        return DatabaseLockedError(
            str(path),
            pid,
            f"{path} is in use by {holder}",
            advice="close it in that process, or use another file",
        )
    if "not a valid DuckDB database" in text:
        return DatabaseError(
            f"{path} is not a DuckDB database", advice="choose another path", db_path=str(path)
        )
    if "different configuration" in text:
        return DatabaseError(
            f"{path} is open in this process read-only or with other settings",
            advice="close that connection first",
            db_path=str(path),
        )
    reason = (isinstance(error, OSError) and error.strerror) or text.splitlines()[0]
    return DatabaseError(
        f"cannot open {path}: {reason}",
        advice=advice_on(text, "choose another path"),
        db_path=str(path),
    )
