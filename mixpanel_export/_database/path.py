"""Checks the path of a database file, and creates an empty database there.

New files are copies of `empty_database.bin`, because starting a DuckDB instance to create a file takes 15 ms. DuckDB 1.2.0
wrote that file for `ATTACH 'empty_database.bin' (STORAGE_VERSION 'v1.2.0')`. DuckDB 1.2 and all later releases can read it.
"""

import os
import re
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory

from mixpanel_export import _files
from mixpanel_export._config.environment import expanded
from mixpanel_export.errors import DatabaseError, DatabaseNotFoundError

STORAGE_VERSION = "v1.2.0"
"""The oldest storage format with zstd compression. DuckDB 1.2 and all later releases can read it (duckdb.org)."""

_LOCAL_ADVICE = "use a file on this machine, such as events.duckdb"
# Prefixes that DuckDB does not treat as file names. It would load an extension or connect to a service instead.
_NOT_FILES = {
    ":memory:": "a database in memory, which is lost when the export ends",
    "md:": "a MotherDuck database",
    "motherduck:": "a MotherDuck database",
    "ducklake:": "a DuckLake catalog",
    "sqlite:": "an SQLite database",
    "postgres:": "a PostgreSQL database",
    "mysql:": "a MySQL database",
}


def database_path(db: str | Path) -> Path:
    """Return the path of the DuckDB file *db*, with `~` expanded. Nothing is opened.

    Raises:
        DatabaseError: *db* is not a path on this machine, or is not a regular file.
        ConfigError: *db* begins with `~` and there is no home directory.
    """
    if not str(db):
        raise DatabaseError("the path of the database is empty", advice=_LOCAL_ADVICE, db_path="")
    path = expanded(db)
    _check_kind(path, str(db))
    try:
        path.absolute()
    except FileNotFoundError as error:
        raise DatabaseError(
            f"{db} would be in the current folder, which no longer exists",
            advice="change to another folder, or use an absolute path",
            db_path=str(path),
        ) from error
    return path


def check_exists(path: Path) -> None:
    """Raise `DatabaseNotFoundError` if there is no file at *path*."""
    if not path.exists():
        raise _not_found_error(path, f"there is no database {path.absolute()}")


def check_not_empty(path: Path) -> None:
    """Raise `DatabaseNotFoundError` if the file at *path* is missing or empty. An empty file is not a database yet."""
    check_exists(path)
    if path.stat().st_size == 0:
        raise _not_found_error(path, f"{path.absolute()} is empty")


def check_path(path: Path) -> None:
    """Check that a database file can be opened or created at *path*.

    Raises:
        DatabaseError: DuckDB would open another path, or the folder does not exist.
    """
    _check_kind(path, str(path))
    # DuckDB treats a backslash as a slash, and text after a question mark as options.
    if os.name == "posix" and re.search(r"[\\?]", str(path)):
        raise DatabaseError(
            f"DuckDB would open another path instead of {path}, which has a backslash or a question mark",
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


def check_folder(path: Path) -> None:
    """Check that this user may create other files next to the database file.

    Raises:
        DatabaseError: This user may not write to the folder.
    """
    folder = path.resolve().parent
    if not os.access(folder, os.W_OK):
        raise DatabaseError(
            f"an export writes other files next to {path}, but this user may not write to {folder}",
            advice="give this user write permission to the folder, or choose another path",
            db_path=str(path),
        )


def _check_kind(path: Path, name: str) -> None:
    """Check that *path* is a regular file or does not exist. Errors refer to it as *name*."""
    try:
        problem = _problem_of(path)
    except OSError as error:
        raise DatabaseError(
            f"cannot open {name}: {error.strerror}", advice="choose another path", db_path=str(path)
        ) from error
    if problem:
        raise DatabaseError(f"{name} is {problem}", advice=_LOCAL_ADVICE, db_path=str(path))


def _problem_of(path: Path) -> str | None:
    """Return why *path* cannot be a database file, as the end of the sentence `PATH is …`; None if it can be one."""
    name = str(path).lower()
    if meaning := next((words for prefix, words in _NOT_FILES.items() if name.startswith(prefix)), None):
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


def has_content(path: Path) -> bool:
    """Whether the file exists and is not empty. DuckDB cannot open empty files, such as those that tempfile creates."""
    return path.exists() and path.stat().st_size > 0


def create_database(path: Path) -> None:
    """Create an empty database at *path*.

    Other processes see either no file or a complete one. If another process creates the database first, it is not
    replaced.
    """
    target = path.resolve()  # keeps a symbolic link in place
    content = Path(__file__).with_name("empty_database.bin").read_bytes()
    try:
        if target.exists():
            _files.fill(target, content)
        else:
            with TemporaryDirectory(
                dir=target.parent, prefix=f".{target.name}.export-", ignore_cleanup_errors=True
            ) as folder:
                new = Path(folder, "new")
                new.touch()
                _files.fill(new, content)
                _move_into_place(new, target)
    except OSError:
        if not has_content(target):  # otherwise, another process has just created it
            raise


def _move_into_place(new: Path, target: Path) -> None:
    with suppress(FileExistsError):
        try:
            os.link(new, target)  # unlike a move, a link does not replace a file
        except FileExistsError:
            raise
        except OSError:  # a disk without hard links
            new.replace(target)


def _not_found_error(path: Path, reason: str) -> DatabaseNotFoundError:
    return DatabaseNotFoundError(str(path), reason, advice="export into it first, or choose another path")
