"""The DuckDB file: created for every DuckDB from 1.2, opened for one export at a time; and what SQL everywhere needs."""

import os
import re
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Lock

import duckdb

from mixpanel_export._database.settings import bulk_settings
from mixpanel_export.errors import DatabaseError, DatabaseLockedError, ExportRunningError

STORAGE_VERSION = "v1.2.0"
"""The oldest storage format with zstd: DuckDB 1.2 and all later ones read it (duckdb.org, storage versions)."""

Connection = duckdb.DuckDBPyConnection

_DAMAGED = "restore the damaged file from a copy, or choose another path"
_ADVICE = {
    "Corrupt database file": _DAMAGED,
    "Could not read enough bytes": _DAMAGED,
    "main key table": "drop what refers to the table",
    "Permission denied": "let this user write to the file and its folder, or choose another path",
}

_exporting: set[Path] = set()
_exporting_changes = Lock()


def connect(path: Path, *, read_only: bool = False) -> duckdb.DuckDBPyConnection:
    """Open the database file, creating it where there is none and it is to be written.

    Raises:
        DatabaseLockedError: another process holds the file.
        DatabaseError: the folder does not exist, the file is no DuckDB database, or it may not be written.
    """
    _check_path(path)
    try:
        if not read_only and not _is_there(path):
            _create(path)
        return duckdb.connect(str(path), read_only=read_only)
    except (duckdb.Error, OSError) as error:
        raise _as_database_error(path, error) from error


@contextmanager
def connected_for_export(path: Path) -> Iterator[duckdb.DuckDBPyConnection]:
    """Hold the database for one export: the only one of this process, with the settings that bulk loading wants.

    Raises:
        ExportRunningError: this process is already exporting into the file.
        DatabaseError: as `connect`.
    """
    with ExitStack() as stack:
        stack.enter_context(_only_export(path.resolve()))
        connection = stack.enter_context(connect(path))
        try:
            _check_access(connection, path)
            stack.enter_context(bulk_settings(connection))
            stack.callback(roll_back, connection)
        except duckdb.Error as error:
            raise _as_database_error(path, error) from error
        yield connection


@contextmanager
def connected_to_look(path: Path) -> Iterator[duckdb.DuckDBPyConnection]:
    """Open the file without changing it; in the place of one that is not there, an empty database in memory.

    Raises:
        DatabaseError: as `connect`.
    """
    _check_path(path)
    with connect(path, read_only=True) if _is_there(path) else duckdb.connect() as connection:
        try:
            yield connection
        except duckdb.Error as error:
            raise _as_database_error(path, error) from error


@contextmanager
def transaction(connection: duckdb.DuckDBPyConnection) -> Iterator[None]:
    """Commit what the block does, or nothing of it."""
    try:
        connection.begin()
        yield
        connection.commit()
    except BaseException:
        roll_back(connection)
        raise


def roll_back(connection: duckdb.DuckDBPyConnection) -> None:
    """Roll back the transaction that is open, if one is."""
    while True:
        try:
            connection.rollback()
        except duckdb.InterruptException:
            continue  # meant for the statement that ended already
        except duckdb.TransactionException:
            return  # DuckDB has rolled back itself
        else:
            return


def identity(path: Path) -> tuple[int, int] | None:
    """Return what tells the file from another one of its name; None where there is none."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino


def advice_on(reason: str) -> str | None:
    """Return what to do about an error of DuckDB that says where the fault is, None for others."""
    return next((advice for sign, advice in _ADVICE.items() if sign in reason), None)


def quoted(identifier: str) -> str:
    """Return *identifier* as SQL reads it, whatever characters it has."""
    return '"' + identifier.replace('"', '""') + '"'


def in_utc(local: str, zone: str) -> str:
    """Return SQL for the UTC of *local*, SQL of a time on the clock of *zone*.

    A time that the clock shows twice or never means the later of its two readings.
    """
    return local if zone == "UTC" else f"timezone('{zone}', {local})::TIMESTAMP"


def check_zone(connection: duckdb.DuckDBPyConnection, zone: str) -> None:
    """Refuse a zone that only Python knows, as its database may be newer than DuckDB's.

    Raises:
        ValueError: saying so.
    """
    known = connection.execute("SELECT name FROM pg_timezone_names() WHERE name = ?", [zone]).fetchone()
    if known is None:
        raise ValueError(
            f"project_timezone {zone} is not known to DuckDB {duckdb.__version__}; use another name of that zone"
        )


def first_moment(day: str, zone: str) -> str:
    """Return SQL for when *day*, SQL of a date, begins in *zone*, in UTC."""
    return in_utc(f"{day}::TIMESTAMP", zone)


def last_moment(day: str, zone: str) -> str:
    """Return SQL for the last microsecond of *day*, SQL of a date, in *zone*, in UTC."""
    return f"{in_utc(f'({day} + 1)::TIMESTAMP', zone)} - INTERVAL 1 MICROSECOND"


def takes_zstd(connection: duckdb.DuckDBPyConnection) -> bool:
    """Whether the file's storage version has the zstd compression of text."""
    tag = connection.execute(
        "SELECT tags['storage_version'] FROM duckdb_databases() WHERE database_name = current_database()"
    ).fetchone()
    found = re.match(r"v(\d+)\.(\d+)", str(tag[0])) if tag and tag[0] else None
    return found is None or (int(found[1]), int(found[2])) >= (1, 2)


def _check_path(path: Path) -> None:
    # DuckDB takes a backslash for a slash everywhere, and what follows a question mark for options.
    if os.name == "posix" and re.search(r"[\\?]", str(path)):
        raise DatabaseError(
            f"DuckDB would take {path} for another path, as it has a backslash or a question mark; rename it, or "
            "choose another path",
            db_path=str(path),
        )
    if not path.parent.is_dir():
        raise DatabaseError(
            f"cannot create {path}: the folder {path.parent} does not exist; create it or choose another path",
            db_path=str(path),
        )


def _is_there(path: Path) -> bool:
    """Whether the file exists; an empty one, as tempfile makes them, is no database yet."""
    return path.exists() and path.stat().st_size > 0


def _check_access(connection: duckdb.DuckDBPyConnection, path: Path) -> None:
    for setting, unfit, why in (
        ("enable_external_access", False, "with enable_external_access off, so no staged file could be read"),
        ("lock_configuration", True, "with lock_configuration on, so it cannot be told how to load"),
    ):
        ((value,),) = connection.execute(f"SELECT current_setting('{setting}')").fetchall()
        if value is unfit:
            raise DatabaseError(
                f"{path} is open in this process {why}; close that connection first", db_path=str(path)
            )


def _create(path: Path) -> None:
    """Put an empty database at *path*, whole from the first moment; one that somebody was quicker with stays."""
    target = path.resolve()  # a link stays one
    try:
        with (
            TemporaryDirectory(
                dir=target.parent, prefix=f".{target.name}.export-", ignore_cleanup_errors=True
            ) as folder,
            duckdb.connect() as outside,
        ):
            new = Path(folder, "new")
            literal = "'" + str(new).replace("'", "''") + "'"
            outside.execute(f"ATTACH {literal} AS created (STORAGE_VERSION '{STORAGE_VERSION}')")
            outside.execute("DETACH created")
            _put(new, target)
    except (duckdb.Error, OSError):
        if not _is_there(target):  # else an export runs in it, and has tidied up
            raise


def _put(new: Path, target: Path) -> None:
    if target.exists():
        if not _is_there(target):
            new.replace(target)
        return
    try:
        os.link(new, target)  # unlike a move, it replaces nothing
    except FileExistsError:
        return
    except OSError:  # a disk without hard links
        new.replace(target)


@contextmanager
def _only_export(path: Path) -> Iterator[None]:
    with _exporting_changes:
        if path in _exporting:
            raise ExportRunningError(
                f"an export into {path} is already running in this process; wait for it, or export into another file"
            )
        _exporting.add(path)
    try:
        yield
    finally:
        with _exporting_changes:
            _exporting.discard(path)


def _as_database_error(path: Path, error: Exception) -> DatabaseError:
    text = str(error)
    if "Could not set lock" in text or "being used by another process" in text:
        found = re.search(r"PID (\d+)", text)
        pid = int(found[1]) if found else None
        holder = f"process {pid}" if pid else "another process"
        return DatabaseLockedError(
            f"{path} is in use by {holder}; close it there, or export into another file",
            db_path=str(path),
            holding_pid=pid,
        )
    if "not a valid DuckDB database" in text:
        return DatabaseError(f"{path} is not a DuckDB database; choose another path", db_path=str(path))
    if "different configuration" in text:
        return DatabaseError(
            f"{path} is open in this process read-only or with other settings; close that connection first",
            db_path=str(path),
        )
    advice = advice_on(text) or "choose another path"
    return DatabaseError(f"cannot open {path}: {text.splitlines()[0]}; {advice}", db_path=str(path))
