"""Statements that read Arrow arrays as the rows of a table."""

from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import duckdb

from mixpanel_export._database.connection import Connection
from mixpanel_export._database.settings import memory_for_lines
from mixpanel_export._writer.arrow import fetch_arrays
from mixpanel_export._writer.arrow_stream import ArrowSource

LINES = "_export_rows"
"""The name of an `ArrowTable` in SQL."""


class ArrowTable:
    """The table `LINES` of one connection. Each statement that reads it supplies the table's rows, as Arrow arrays."""

    def __init__(self, connection: Connection, schema: object) -> None:
        self.connection = connection
        self._source = ArrowSource(schema)

    def prepare(self, name: str, statement: str) -> None:
        """Prepare a statement that reads no other table.

        DuckDB plans a prepared statement again for each run if it reads a table or a view. Planning takes as long as a run,
        so the statement reads a Python variable, which DuckDB finds in this function.
        """
        _export_rows = self._source
        self.connection.unregister(LINES)
        try:
            self.connection.execute(f"PREPARE {name} AS {statement}")
        finally:
            # A statement with a time zone is always planned again. DuckDB then finds this view.
            self.connection.register(LINES, self._source)

    def run(self, statement: str, arrays: Iterable[object]) -> list[tuple[Any, ...]]:
        """Run a statement once over *arrays*, and return its rows. It may read and change other tables.

        Raises:
            duckdb.Error: The statement failed.
            Exception: The error that *arrays* raised.
        """
        self.connection.register(LINES, self._source)
        with self.filled_with(arrays):
            return self.connection.execute(statement).fetchall()

    @contextmanager
    def filled_with(self, arrays: Iterable[object]) -> Iterator[None]:
        """Let the statement that is run in the block read *arrays*. Raise the error that *arrays* raised, if any."""
        self._source.set_arrays(arrays)
        try:
            yield
        except duckdb.Error:
            self._source.raise_error()
            raise
        finally:
            self._source.set_arrays(())


class PreparedRead:
    """A statement that reads an `ArrowTable`, and is prepared before its first run.

    A new statement replaces an earlier one with the same *name* on the connection; the earlier one must not be run again.
    """

    def __init__(self, table: ArrowTable, name: str, statement: str) -> None:
        self._table = table
        self._name = f"_export_{name}"
        self._statement = statement
        self._is_prepared = False

    def memory_for_lines(self, longest: int) -> AbstractContextManager[None]:
        """Let DuckDB use the memory that it needs to read lines of up to *longest* bytes."""
        return memory_for_lines(self._table.connection, longest)

    def arrays(self, lines: Iterable[object]) -> list[Any]:
        """Run the statement over the arrays that *lines* yields, and return its rows as arrays.

        Raises:
            duckdb.Error: The statement failed.
            Exception: The error that *lines* raised.
        """
        with self._reading(lines) as execute:
            return fetch_arrays(self._table.connection.sql(execute))

    def rows(self, lines: Iterable[object]) -> list[tuple[Any, ...]]:
        """Run the statement over the arrays that *lines* yields, and return its rows.

        Raises:
            duckdb.Error: The statement failed.
            Exception: The error that *lines* raised.
        """
        with self._reading(lines) as execute:
            return self._table.connection.execute(execute).fetchall()

    @contextmanager
    def _reading(self, lines: Iterable[object]) -> Iterator[str]:
        """Yield the SQL that runs the statement over *lines*."""
        if not self._is_prepared:
            self._table.prepare(self._name, self._statement)
            self._is_prepared = True
        with self._table.filled_with(lines):
            yield f"EXECUTE {self._name}"
