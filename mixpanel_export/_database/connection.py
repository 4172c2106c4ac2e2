"""The DuckDB file: create it, open it for one export at a time, and the SQL expressions that several folders need.

New files have a storage format that every DuckDB from 1.2 on can read.
"""

import os
import re
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Lock

import duckdb

from mixpanel_export import _files
from mixpanel_export._database.settings import bulk_settings
from mixpanel_export._environment import expanded
from mixpanel_export.errors import DatabaseError, DatabaseLockedError, ExportRunningError

STORAGE_VERSION = "v1.2.0"
"""The oldest storage format with zstd compression; DuckDB 1.2 and all later releases read it (duckdb.org)."""

Connection = duckdb.DuckDBPyConnection

_DAMAGED = "restore the damaged file from a copy, or choose another path"
_ADVICE = {
    "Corrupt database file": _DAMAGED,
    "Could not read enough bytes": _DAMAGED,
    "main key table": "drop what refers to the table",
    "Permission denied": "let this user write to the file and its folder, or choose another path",
}
_LOCAL = "use a file on this machine, such as events.duckdb"
# Names that DuckDB does not take for files. It would load an extension, or connect to a service.
_NO_FILES = {
    ":memory:": "a database in memory, which is lost when the export ends",
    "md:": "a MotherDuck database",
    "motherduck:": "a MotherDuck database",
    "ducklake:": "a DuckLake catalog",
    "sqlite:": "an SQLite database",
    "postgres:": "a PostgreSQL database",
    "mysql:": "a MySQL database",
}

_exporting: set[Path] = set()
_exporting_changes = Lock()
_creating = Lock()


def database_path(db: str | Path) -> Path:
    """Return the path of the DuckDB file *db*, with `~` expanded. Nothing is opened.

    Raises:
        DatabaseError: *db* is not a path on this machine, or what is there is not a regular file.
        ConfigError: *db* begins with `~` and there is no home directory.
    """
    path = expanded(db)
    _check_kind(path, str(db) or str(path))
    try:
        path.absolute()
    except FileNotFoundError as error:
        raise DatabaseError(
            f"{db} would be in the current folder, which does not exist any more",
            advice="change to another folder, or use an absolute path",
            db_path=str(path),
        ) from error
    return path


def connect(path: Path, *, read_only: bool = False) -> Connection:
    """Open the database file. Unless *read_only*, create it if nothing or an empty file is there.

    Raises:
        DatabaseLockedError: another process holds the file.
        DatabaseError: the folder does not exist, the file is not a DuckDB database, or it cannot be written.
    """
    _check_path(path)
    try:
        if not read_only:
            with _creating:
                if not _has_content(path):
                    _create(path)
        # A relative name such as md:x would load an extension.
        return duckdb.connect(str(path.absolute()), read_only=read_only)
    except (duckdb.Error, OSError) as error:
        raise _as_database_error(path, error) from error


@contextmanager
def connected_for_export(path: Path) -> Iterator[Connection]:
    """Open the database for the only export of this process into it, with settings for bulk loading.

    Raises:
        ExportRunningError: this process is already exporting into the file.
        DatabaseError: as `connect`.
    """
    _check_path(path)
    _check_folder(path)
    with ExitStack() as stack:
        stack.enter_context(_only_export(path.resolve()))
        connection = connect(path)
        stack.enter_context(_private_spill(path, connection))
        try:
            _check_access(connection, path)
            stack.enter_context(bulk_settings(connection))
            stack.callback(roll_back, connection)
        except duckdb.Error as error:
            raise _as_database_error(path, error) from error
        yield connection


@contextmanager
def connected_to_look(path: Path) -> Iterator[Connection]:
    """Open the file read-only; if it does not exist, yield an empty database in memory.

    Raises:
        DatabaseError: as `connect`.
    """
    _check_path(path)
    with connect(path, read_only=True) if _has_content(path) else duckdb.connect() as connection:
        try:
            yield connection
        except duckdb.Error as error:
            raise _as_database_error(path, error) from error


@contextmanager
def transaction(connection: Connection) -> Iterator[None]:
    """Commit what the block does; if it fails, commit nothing."""
    _keep_log_private(connection)
    try:
        connection.begin()
        yield
        connection.commit()
    except BaseException:
        roll_back(connection)
        raise


def _keep_log_private(connection: Connection) -> None:
    """Create the write-ahead log of a private database, since DuckDB would create it readable for everybody."""
    row = connection.execute(
        "SELECT path FROM duckdb_databases() WHERE database_name = current_database()"
    ).fetchone()
    if row is None or not row[0]:
        return  # in memory
    path = Path(row[0]).resolve()
    with suppress(OSError):  # DuckDB reports a folder that it cannot use
        mode = path.stat().st_mode & 0o666
        if mode & 0o044 != 0o044:
            os.close(os.open(f"{path}.wal", os.O_CREAT | os.O_WRONLY, mode))


def roll_back(connection: Connection) -> None:
    """Roll back the open transaction, if there is one."""
    while True:
        try:
            connection.rollback()
        except duckdb.InterruptException:
            continue  # it was meant for an earlier statement
        except duckdb.TransactionException:
            return  # DuckDB has rolled back itself
        else:
            return


def identity(path: Path) -> tuple[int, int] | None:
    """Return device and inode of the file; None if it does not exist."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino


def advice_on(reason: str) -> str | None:
    """Return what to do about an error of DuckDB; None if its text gives no hint."""
    return next((advice for sign, advice in _ADVICE.items() if sign in reason), None)


def quoted(identifier: str) -> str:
    """Return *identifier* quoted for SQL."""
    return '"' + identifier.replace('"', '""') + '"'


def in_utc(local: str, zone: str) -> str:
    """Return SQL that converts *local*, an SQL expression for a local time in *zone*, to UTC.

    A local time that occurs twice or never has two readings; the later one is used.
    """
    return local if zone == "UTC" else f"timezone('{zone}', {local})::TIMESTAMP"


def check_zone(connection: Connection, zone: str) -> None:
    """Check that DuckDB knows the zone. Python's time zone database may be newer.

    Raises:
        ValueError: DuckDB does not know it.
    """
    row = connection.execute("SELECT name FROM pg_timezone_names() WHERE name = ?", [zone]).fetchone()
    if row is None:
        raise ValueError(
            f"project_timezone {zone} is not known to DuckDB {duckdb.__version__}; use another name of that zone"
        )


def first_moment(day: str, zone: str) -> str:
    """Return SQL for the UTC time at which a day begins in *zone*; *day* is an SQL expression for a date."""
    return in_utc(f"{day}::TIMESTAMP", zone)


def last_moment(day: str, zone: str) -> str:
    """Return SQL for the UTC time of a day's last microsecond in *zone*; *day* is an SQL expression for a date."""
    return f"{in_utc(f'({day} + 1)::TIMESTAMP', zone)} - INTERVAL 1 MICROSECOND"


def takes_zstd(connection: Connection) -> bool:
    """Whether the file's storage version supports zstd compression of text."""
    tag = connection.execute(
        "SELECT tags['storage_version'] FROM duckdb_databases() WHERE database_name = current_database()"
    ).fetchone()
    version = re.match(r"v(\d+)\.(\d+)", str(tag[0])) if tag and tag[0] else None
    return version is None or (int(version[1]), int(version[2])) >= (1, 2)


def _check_path(path: Path) -> None:
    _check_kind(path, str(path))
    # DuckDB reads a backslash as a slash, and what follows a question mark as options.
    if os.name == "posix" and re.search(r"[\\?]", str(path)):
        raise DatabaseError(
            f"DuckDB would take {path} for another path, because it has a backslash or a question mark",
            advice="rename it, or choose another path",
            db_path=str(path),
        )
    folder = path.resolve().parent
    if not folder.is_dir():
        raise DatabaseError(
            f"cannot create {path}: the folder {folder} does not exist",
            advice="create it, or choose another path",
            db_path=str(path),
        )


def _check_kind(path: Path, name: str) -> None:
    """Check that *path*, called *name* in the error, can be a database file."""
    try:
        problem = _problem_of(path)
    except OSError as error:
        raise DatabaseError(
            f"cannot open {name}: {error.strerror}", advice="choose another path", db_path=str(path)
        ) from error
    if problem:
        raise DatabaseError(f"{name} is {problem}", advice=_LOCAL, db_path=str(path))


def _problem_of(path: Path) -> str | None:
    """Say why *path* cannot be a database file, to be read after `PATH is`; None if it can."""
    name = str(path).lower()  # with a folder before it, the name is that of a file
    if meaning := next((words for prefix, words in _NO_FILES.items() if name.startswith(prefix)), None):
        return f"{meaning}, not a file"
    if path == Path("-"):
        return "standard output, which cannot hold a database"
    if scheme := _files.remote_address(path):
        return f"an address ({scheme}), not a file on this machine"
    if not _is_utf8(str(path)):
        return "not a name in UTF-8, as DuckDB requires"
    kind = _files.kind_of(path)
    return f"{kind}, not a regular file" if kind else None


def _is_utf8(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _has_content(path: Path) -> bool:
    """Whether the file exists and is not empty; an empty one, as tempfile makes them, is not a database yet."""
    return path.exists() and path.stat().st_size > 0


def _check_access(connection: Connection, path: Path) -> None:
    for setting, obstacle, why in (
        ("enable_external_access", False, "with enable_external_access off, so staged files cannot be read"),
        ("lock_configuration", True, "with lock_configuration on, so settings cannot be changed"),
    ):
        ((value,),) = connection.execute(f"SELECT current_setting('{setting}')").fetchall()
        if value is obstacle:
            raise DatabaseError(
                f"{path} is open in this process {why}",
                advice="close that connection first",
                db_path=str(path),
            )


def _check_folder(path: Path) -> None:
    folder = path.resolve().parent
    if not os.access(folder, os.W_OK):
        raise DatabaseError(
            f"an export into {path} also writes other files into {folder}, which this user may not",
            advice="let this user write to the folder, or choose another path",
            db_path=str(path),
        )


def _create(path: Path) -> None:
    """Put an empty database at *path*, complete from the first moment; never replace one that another process made."""
    target = path.resolve()  # keeps symbolic links
    try:
        with (
            _folder_for(target) as folder,
            duckdb.connect() as outside,
        ):
            new = Path(folder, "new")
            literal = "'" + str(new).replace("'", "''") + "'"
            outside.execute(f"ATTACH {literal} AS created (STORAGE_VERSION '{STORAGE_VERSION}')")
            outside.execute("DETACH created")
            if target.exists():
                _files.fill(target, new.read_bytes())
            else:
                _put(new, target)
    except (duckdb.Error, OSError):
        if not _has_content(target):  # else another process has created it meanwhile
            raise


def _folder_for(target: Path) -> "TemporaryDirectory[str]":
    """Return a folder beside *target*, or in the system's place if only the empty file itself can be written."""
    try:
        return TemporaryDirectory(
            dir=target.parent, prefix=f".{target.name}.export-", ignore_cleanup_errors=True
        )
    except OSError:
        if not target.exists():
            raise
        return TemporaryDirectory(prefix="mpx-", ignore_cleanup_errors=True)


def _put(new: Path, target: Path) -> None:
    with suppress(FileExistsError):
        try:
            os.link(new, target)  # unlike a move, it replaces nothing
        except FileExistsError:
            raise
        except OSError:  # a disk without hard links
            new.replace(target)


@contextmanager
def _private_spill(path: Path, connection: Connection) -> Iterator[None]:
    """Keep what DuckDB writes to disk for lack of memory in a folder that only this user can read; close in the end.

    DuckDB would create that folder with permissions for everybody, whatever the mode of the database.
    """
    target = path.resolve()
    folder = target.with_name(f"{target.name}.tmp")
    with suppress(OSError):  # DuckDB reports a folder that it cannot use
        folder.mkdir(mode=0o700, exist_ok=True)
        folder.chmod(0o700)
    try:
        with connection:
            yield
    finally:
        with suppress(OSError):  # another connection of this process may be using it
            folder.rmdir()


@contextmanager
def _only_export(path: Path) -> Iterator[None]:
    with _exporting_changes:
        if path in _exporting:
            raise ExportRunningError(
                f"an export into {path} is already running in this process",
                advice="wait for it, or export into another file",
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
        match = re.search(r"PID (\d+)", text)
        pid = int(match[1]) if match else None
        holder = f"process {pid}" if pid else "another process"
        return DatabaseLockedError(
            f"{path} is in use by {holder}",
            advice="close it there, or export into another file",
            db_path=str(path),
            holding_pid=pid,
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
        advice=advice_on(text) or "choose another path",
        db_path=str(path),
    )
