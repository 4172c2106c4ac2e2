"""The quota file, an SQLite database in the user's state folder.

Each call opens and closes the file, which takes half a millisecond. The file may therefore be deleted or replaced
between calls, and the process may fork. Calls block while another process has the lock. Writes are not synced to the
disk. If a process is killed, SQLite's journal keeps the file valid. If a power failure damages the file, it is renamed,
and a new file is created.
"""

import sqlite3
import warnings
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path
from typing import TypeVar

from platformdirs import user_state_path

from mixpanel_export._config.environment import expanded, home, variable
from mixpanel_export._files import file_to_write
from mixpanel_export.errors import AdvisoryWarning

T = TypeVar("T")

# Seconds. After a wait for the lock has timed out, later waits are this short, so that they do not delay requests.
_SHORT_TIMEOUT = 0.1


def quota_file() -> Path:
    """Return the path of the quota file, in `MPX_STATE_DIR` or in the platform's state folder."""
    name = variable("MPX_STATE_DIR")
    return (expanded(name).absolute() if name else _default_folder()) / "quota.sqlite3"


def _default_folder() -> Path:
    try:
        return user_state_path("mixpanel_export", appauthor=False)
    except RuntimeError:  # `HOME` is empty, or there is no home directory
        # `QuotaFile` rejects a relative path.
        return (home() or Path("~")) / ".local" / "state" / "mixpanel_export"


class QuotaFile:
    """Opens the quota file or, if that fails, an empty in-memory database. The first failure causes a warning."""

    def __init__(self, path: Path, timeout: float = 2.0) -> None:
        self._path = path
        self._timeout = self._usual_timeout = timeout
        self._seen = self._warned = False

    def run(self, work: Callable[[sqlite3.Connection, bool], T], *, writing: bool) -> T:
        """Call *work* with a connection and a flag that says whether it may write. Return the result."""
        try:
            return self._in_file(work, writing=writing)
        except (sqlite3.Error, OSError) as error:
            failure = error
        if self._prepare_retry(failure):
            try:
                return self._in_file(work, writing=writing)
            except (sqlite3.Error, OSError) as error:
                failure = error
        self._warn(f"cannot be used ({failure})")
        return _in_memory(work)

    def _in_file(self, work: Callable[[sqlite3.Connection, bool], T], *, writing: bool) -> T:
        if not self._path.is_absolute():  # see `_default_folder`
            raise FileNotFoundError("there is no home directory")
        file_to_write(self._path)
        exists = self._path.exists()
        if not (exists or writing):
            return _in_memory(work)
        if writing:
            self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with closing(sqlite3.connect(self._path, timeout=self._timeout, isolation_level=None)) as connection:
            result = work(connection, writing)
        if self._seen and not exists:
            self._warn("was deleted")
        self._seen = True
        self._timeout = self._usual_timeout
        return result

    def _prepare_retry(self, failure: Exception) -> bool:
        """Rename a damaged file. Return False if a retry would fail because another process has the lock."""
        match getattr(failure, "sqlite_errorcode", sqlite3.SQLITE_OK) & 0xFF:  # higher bits give details
            case sqlite3.SQLITE_BUSY:
                self._timeout = min(self._timeout, _SHORT_TIMEOUT)
                return False
            case sqlite3.SQLITE_CORRUPT | sqlite3.SQLITE_NOTADB:
                self._warn(f"is damaged ({failure}) and was replaced by a new one")
                with suppress(OSError):  # on Windows, another process may have the file open
                    self._path.replace(self._path.with_suffix(".broken"))
        return True

    def _warn(self, problem: str) -> None:
        if self._warned:
            return
        self._warned = True
        warnings.warn(
            AdvisoryWarning(
                f"the quota file {self._path} {problem}, so this process may not count other exports' requests",
                advice="run one export of a project at a time",
            ),
            stacklevel=2,
        )


def _in_memory(work: Callable[[sqlite3.Connection, bool], T]) -> T:
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as connection:
        return work(connection, True)
