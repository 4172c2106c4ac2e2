"""Prepared statements that read a table of Arrow arrays."""

from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import duckdb

from mixpanel_export._database.connection import Connection
from mixpanel_export._database.settings import memory_for_lines
from mixpanel_export._writer.arrow import fetch_arrays
from mixpanel_export._writer.arrow_stream import ArrowSource

LINES = "$lines"
"""The placeholder for the input table in a `PreparedRead`'s SQL. Table names cannot contain it."""


class PreparedRead:
    """A prepared statement that reads the table `LINES`. The rows of this table are supplied for each run.

    Parsing and planning take as long as a run, so a statement is parsed and planned only once, before its first run. A new
    statement replaces an earlier one with the same *name* on the connection; the earlier one must not be run again.
    """

    def __init__(self, connection: Connection, name: str, statement: str, schema: object) -> None:
        self._connection = connection
        self._name = f"_export_{name}"
        self._statement = statement
        self._source = ArrowSource(schema)
        self._is_prepared = False

    def memory_for_lines(self, longest: int) -> AbstractContextManager[None]:
        """Let DuckDB use the memory that it needs to read lines of up to *longest* bytes."""
        return memory_for_lines(self._connection, longest)

    def arrays(self, lines: Iterable[object]) -> list[Any]:
        """Run the statement over the arrays that *lines* yields, and return its rows as arrays.

        Raises:
            duckdb.Error: The statement failed.
            Exception: The error that *lines* raised.
        """
        with self._reading(lines):
            return fetch_arrays(self._connection.sql(f"EXECUTE {self._name}"))

    def rows(self, lines: Iterable[object]) -> list[tuple[Any, ...]]:
        """Run the statement over the arrays that *lines* yields, and return its rows.

        Raises:
            duckdb.Error: The statement failed.
            Exception: The error that *lines* raised.
        """
        with self._reading(lines):
            return self._connection.execute(f"EXECUTE {self._name}").fetchall()

    @contextmanager
    def _reading(self, lines: Iterable[object]) -> Iterator[None]:
        if not self._is_prepared:
            self._prepare()
        self._source.set_arrays(lines)
        try:
            yield
        except duckdb.Error:
            self._source.raise_error()
            raise
        finally:
            self._source.set_arrays(())

    def _prepare(self) -> None:
        lines = f"{self._name}_lines"
        self._connection.register(lines, self._source)
        self._connection.execute(f"PREPARE {self._name} AS {self._statement.replace(LINES, lines)}")
        self._is_prepared = True
