"""Converts errors that occur while the database file is written."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import duckdb

from mixpanel_export._concurrency import InterruptedCall
from mixpanel_export._database.connection import advice_on, identity
from mixpanel_export.errors import DatabaseError

Days = str | Callable[[], str] | None


@dataclass(frozen=True, slots=True)
class WriteTexts:
    """The parts of the error messages that depend on the kind of export."""

    state: str
    """The state of the table after the error."""
    retry: str
    """The advice for the time after the problem has been solved."""
    lost: str
    """The clause that says which data was not written to a file that replaced the export's file."""
    put_back: str
    """The advice if the file was moved, removed or replaced."""


@contextmanager
def converting_errors(path: Path, message: str, retry: str, days: Days = None) -> Iterator[None]:
    """Convert DuckDB errors to `DatabaseError`, or to `InterruptedCall` after an interrupt.

    The reason replaces `{reason}` in *message*. *retry* is the end of the advice, such as `publish again`.
    """
    try:
        yield
    except duckdb.InterruptException as error:
        raise InterruptedCall from error
    except duckdb.Error as error:
        reason = str(error).splitlines()[0]
        raise DatabaseError(
            message.replace("{reason}", reason),
            db_path=str(path),
            days=days() if callable(days) else days,
            advice=f"{advice_on(reason)}, then {retry}",
        ) from error


class WrittenFile:
    """The database file of an export, identified by its inode."""

    def __init__(self, path: Path, texts: WriteTexts) -> None:
        self._path = path
        self._texts = texts
        self._file = identity(path)

    @contextmanager
    def converting_errors(self, days: Days = None) -> Iterator[None]:
        """Convert DuckDB errors, and raise an error if the file was moved or replaced. The errors contain *days*."""
        message = f"cannot write to the table ({{reason}}); {self._texts.state}"
        with converting_errors(self._path, message, self._texts.retry, days):
            yield
        if identity(self._path) != self._file:
            raise DatabaseError(
                f"{self._path} was moved, removed or replaced during the export, so {self._texts.lost} to the file now at "
                "that path",
                db_path=str(self._path),
                days=days() if callable(days) else days,
                advice=self._texts.put_back,
            )
