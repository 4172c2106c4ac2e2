"""What a workspace knows without Mixpanel: a DuckDB file, opened when it is first needed, and its tables.

`Workspace` is this and the way to Mixpanel. The two are classes of their own because each fills a page.
"""

from abc import ABC, abstractmethod
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, NoReturn, Self

import duckdb

from mixpanel_export._database.connection import connect, connected_for_export, quoted
from mixpanel_export._display import need_pandas
from mixpanel_export._local.statistics import asking, breakdown_of, property_keys_of, stats_of, summary_of
from mixpanel_export._local.tables import drop_tables, found_table, schema_of, tables_of
from mixpanel_export.errors import DatabaseError, DatabaseNotFoundError
from mixpanel_export.inspection import (
    ColumnStatsResult,
    EventBreakdownResult,
    SQLResult,
    SummaryResult,
    TableInfo,
    TableSchema,
)

if TYPE_CHECKING:
    import pandas as pd


class LocalDatabase(ABC):
    """A DuckDB file that answers questions. One thread at a time may use it."""

    def __init__(self, *, read_only: bool, folder_mode: int) -> None:
        self._read_only = read_only
        self._folder_mode = folder_mode
        self._connection: duckdb.DuckDBPyConnection | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the database file. Using the workspace again opens it again."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    @property
    @abstractmethod
    def db_path(self) -> Path:
        """Where the database is, whether or not it exists yet."""

    @property
    def connection(self) -> duckdb.DuckDBPyConnection:
        """DuckDB's own connection. What a transaction left open here has changed may keep a fetch from committing.

        Raises `DatabaseError` or one of its kinds where the file cannot be opened.
        """
        if self._connection is None:
            path = self.db_path if self._read_only else self._writable_path("open it")
            if self._read_only:
                check_there(path)
            self._connection = connect(path, read_only=self._read_only)
        return self._connection

    def sql(self, query: str) -> "pd.DataFrame":
        """Run *query* and return its rows as a pandas DataFrame.

        Raises `QueryError` for what DuckDB has against the query, and `ImportError` without pandas.
        """
        need_pandas("sql_rows")
        with asking():
            return self.connection.execute(query).df()

    def sql_scalar(self, query: str) -> Any:
        """Run *query* and return the first value of its first row, None where it has no row; `QueryError` as `sql`."""
        with asking():
            row = self.connection.execute(query).fetchone()
        return row[0] if row else None

    def sql_rows(self, query: str) -> SQLResult:
        """Run *query* and return its rows as tuples, with the names of the columns; `QueryError` as `sql`."""
        with asking():
            cursor = self.connection.execute(query)
            return SQLResult([column[0] for column in cursor.description or ()], cursor.fetchall())

    def relation(self, query: str) -> duckdb.DuckDBPyRelation:
        """Return *query* as DuckDB's relation, which runs when its rows are asked for: `.df()`, `.pl()`, `.arrow()`.

        Raises `QueryError` for what is wrong with the query before it runs; later errors are DuckDB's own.
        """
        with asking():
            return self.connection.sql(query)

    def tables(self) -> list[TableInfo]:
        """Return the tables of the database by name, without those that begin with an underscore."""
        return tables_of(self.connection)

    def table_schema(self, table: str) -> TableSchema:
        """Return the columns of a table or view; `TableNotFoundError` where there is none."""
        return schema_of(self.connection, table)

    def sample(self, table: str, n: int = 10) -> "pd.DataFrame":
        """Return *n* rows drawn at random, all where there are fewer; raises what `table_schema` and `sql` raise."""
        name = found_table(self.connection, table)
        return self.sql(f"SELECT * FROM {quoted(name)} USING SAMPLE reservoir({int(n)} ROWS)")

    def summarize(self, table: str) -> SummaryResult:
        """Return least, greatest, how many and how different values each column has, as DuckDB's SUMMARIZE.

        Raises `TableNotFoundError` where there is no such table.
        """
        return summary_of(self.connection, table)

    def event_breakdown(self, table: str) -> EventBreakdownResult:
        """Return how many events of which name there are, of how many users, and when, the most frequent first.

        Raises `TableNotFoundError` where there is no such table, `QueryError` where it does not hold events.
        """
        return breakdown_of(self.connection, table)

    def property_keys(self, table: str, event: str | None = None) -> list[str]:
        """Return the keys of `properties`, of all events or of those named *event*, sorted.

        Raises `TableNotFoundError` where there is no such table, `QueryError` where it does not hold events.
        """
        return property_keys_of(self.connection, table, event)

    def column_stats(self, table: str, column: str, *, top_n: int = 10) -> ColumnStatsResult:
        """Return what *column* holds, with its *top_n* most frequent values.

        *column* is a column or an expression, such as `properties->>'plan'`. It is SQL and runs as such, so it must
        not come from people whom the database is not open to.

        Raises `TableNotFoundError` where there is no such table, `QueryError` where *column* is no such thing.
        """
        return stats_of(self.connection, table, column, top_n)

    def drop(self, *names: str) -> None:
        """Drop tables with all that the ledger knows of them, in one transaction: all of them, or none.

        To exports they are not there then: `resume` starts from nothing.

        Raises:
            TableNotFoundError: There is no such table.
            TableFormatError: A newer release of this program has exported into the file.
            ValueError: The name begins with an underscore, so the table is this program's own.
            DatabaseError: The workspace is read-only, or something else changes the table.
            ExportRunningError: This process is exporting into the file.
        """
        path = self._writable_path("drop tables")
        # A connection of its own stands beside a transaction that the user may have begun.
        with connected_for_export(path) as connection:
            try:
                drop_tables(connection, names)
            except duckdb.Error as error:
                reason = str(error).splitlines()[0]
                raise DatabaseError(
                    f"cannot drop {', '.join(names)} ({reason}), so nothing was dropped",
                    advice="end what uses the database, then try again",
                    db_path=str(path),
                ) from error

    def drop_all(self, type: Literal["events", "profiles"] | None = None) -> None:  # noqa: A002 - mixpanel_data's
        """Drop all tables that were fetched, or those of one *type*; tables of your own making stay.

        Raises what `drop` raises.
        """
        fetched = [table for table in self.tables() if table.type is not None]
        self.drop(*(table.name for table in fetched if type in {None, table.type}))

    @property
    def storage(self) -> NoReturn:
        """Raise `NotImplementedError`: the database is what there is."""
        raise NotImplementedError(
            "there is no storage object; use sql, tables, table_schema and drop, or connection for DuckDB itself"
        )

    def _writable_path(self, purpose: str) -> Path:
        """Return the path of the file, in a folder that is there; refuse where it may only be read."""
        path = self.db_path
        if self._read_only:
            raise DatabaseError(
                f"{path} is open for reading only",
                advice=f"use a Workspace without read_only to {purpose}",
                db_path=str(path),
            )
        try:
            path.parent.mkdir(self._folder_mode, parents=True, exist_ok=True)
        except OSError as error:
            raise DatabaseError(
                f"cannot create the folder {path.parent} ({error.strerror})",
                advice="choose another path",
                db_path=str(path),
            ) from error
        return path


def size_and_birth(path: Path) -> tuple[float, datetime | None]:
    """Return the millions of bytes that a file has, and when it was made, None where the system does not tell."""
    found = path.stat()
    born = getattr(found, "st_birthtime", None)
    return found.st_size / 1_000_000, None if born is None else datetime.fromtimestamp(born, UTC)


def check_there(path: Path) -> None:
    """Raise `DatabaseNotFoundError` where there is no file at *path*."""
    if not path.exists():
        raise DatabaseNotFoundError(
            f"there is no database {path}",
            advice="fetch events into it first, or choose another path",
            db_path=str(path),
        )
