"""The local part of a workspace: a DuckDB file and its tables. `Workspace` adds exports from Mixpanel."""

from abc import ABC, abstractmethod
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, Self

import duckdb

from mixpanel_export._database.connection import advice_on, connect, connected_for_export, quoted
from mixpanel_export._database.path import check_exists
from mixpanel_export._display import require_pandas
from mixpanel_export._flat.flatten import flatten_events
from mixpanel_export._local.forget import forget_people
from mixpanel_export._local.report import report_of
from mixpanel_export._local.statistics import (
    breakdown_of,
    property_keys_of,
    query_errors,
    stats_of,
    summary_of,
)
from mixpanel_export._local.tables import drop_tables, resolve_table, schema_of, tables_of
from mixpanel_export._tracebacks import short_tracebacks
from mixpanel_export.errors import DatabaseError
from mixpanel_export.inspection import (
    ColumnStatsResult,
    EventBreakdownResult,
    Report,
    SQLResult,
    SummaryResult,
    TableInfo,
    TableSchema,
)
from mixpanel_export.results import FlattenResult, ForgetResult
from mixpanel_export.sync import run_sync

if TYPE_CHECKING:
    import pandas as pd


class LocalDatabase(ABC):
    """A DuckDB file, opened on first use. Only one thread at a time may use it."""

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
        """Close the database file. It is reopened when it is next used."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    @property
    @abstractmethod
    def db_path(self) -> Path:
        """The path of the database file, which may not exist yet."""

    @property
    @short_tracebacks
    def connection(self) -> duckdb.DuckDBPyConnection:
        """The DuckDB connection. An open transaction with changes can make a fetch fail.

        Raises `DatabaseError` if the file cannot be opened.
        """
        if self._connection is None:
            path = self.db_path if self._read_only else self._writable_path("open it")
            if self._read_only:
                check_exists(path)
            self._connection = connect(path, read_only=self._read_only)
        return self._connection

    @short_tracebacks
    def sql(self, query: str) -> "pd.DataFrame":
        """Run *query* and return its rows as a pandas DataFrame.

        Raises `QueryError` if the query fails, and `ImportError` if pandas is not installed.

        Example:
            workspace.sql("SELECT event_name, count(*) AS events FROM events GROUP BY ALL")
        """
        require_pandas("sql_rows")
        with query_errors():
            return self.connection.execute(query).df()

    @short_tracebacks
    def sql_scalar(self, query: str) -> Any:
        """Run *query* and return the first value of its first row, or None if it has no rows. Raises `QueryError`."""
        with query_errors():
            row = self.connection.execute(query).fetchone()
            # This ends the query. An unread result would keep its transaction open, so that other connections could not
            # write a checkpoint.
            self.connection.execute("SELECT 1")
        return row[0] if row else None

    @short_tracebacks
    def sql_rows(self, query: str) -> SQLResult:
        """Run *query* and return its rows as tuples, with the column names. Raises `QueryError`."""
        with query_errors():
            cursor = self.connection.execute(query)
            return SQLResult([column[0] for column in cursor.description or ()], cursor.fetchall())

    @short_tracebacks
    def relation(self, query: str) -> duckdb.DuckDBPyRelation:
        """Return *query* as a DuckDB relation, which runs when it is converted: `.df()`, `.pl()`, `.arrow()`.

        Raises `QueryError` if the query is invalid. Errors that occur while it runs are DuckDB errors.
        """
        with query_errors():
            return self.connection.sql(query)

    @short_tracebacks
    def tables(self, *, all: bool = False) -> list[TableInfo]:  # noqa: A002 - keyword-only
        """Return the exported tables, sorted by name. If *all* is true, also return your own tables, with the type None.

        Tables whose names begin with an underscore are internal and are never returned.
        """
        return tables_of(self.connection, own=all)

    @short_tracebacks
    def table_schema(self, table: str) -> TableSchema:
        """Return the columns of a table or view. Raises `TableNotFoundError`."""
        return schema_of(self.connection, table)

    @short_tracebacks
    def sample(self, table: str, n: int = 10) -> "pd.DataFrame":
        """Return *n* random rows, or all if there are fewer. Raises the same errors as `table_schema` and `sql`."""
        name = resolve_table(self.connection, table)
        return self.sql(f"SELECT * FROM {quoted(name)} USING SAMPLE reservoir({int(n)} ROWS)")

    @short_tracebacks
    def summarize(self, table: str) -> SummaryResult:
        """Return each column's minimum, maximum, counts and quartiles, from DuckDB. Raises `TableNotFoundError`."""
        return summary_of(self.connection, table)

    @short_tracebacks
    def event_breakdown(self, table: str) -> EventBreakdownResult:
        """Return the number of events, the number of users, and the first and last time for each event name.

        The most frequent event name comes first.

        Raises `TableNotFoundError` if there is no such table, and `QueryError` if it does not contain events.
        """
        return breakdown_of(self.connection, table)

    @short_tracebacks
    def property_keys(self, table: str, event: str | None = None) -> list[str]:
        """Return the sorted keys of `properties` in all events, or in all events named *event*.

        Raises `TableNotFoundError` if there is no such table, and `QueryError` if it does not contain events.
        """
        return property_keys_of(self.connection, table, event)

    @short_tracebacks
    def column_stats(self, table: str, column: str, *, top_n: int = 10) -> ColumnStatsResult:
        """Return statistics of *column* and its *top_n* most frequent values.

        *column* is a column or an SQL expression, such as `properties->>'plan'`. It is run as SQL, so it must not come
        from untrusted input.

        Raises `TableNotFoundError` if there is no such table, and `QueryError` if *column* is invalid.
        """
        return stats_of(self.connection, table, column, top_n)

    @short_tracebacks
    def report(self, table: str | None = None, *, examples: bool = False) -> Report:
        """Return an HTML page about the exported tables, or about one *table*; needs the `report` extra.

        It shows the status of each day, events and users over time, the properties, duplicates, rejected lines, the
        requests of the last export, and the ledger. It always contains the names of events and properties. If *examples*
        is true, it also contains values of properties, ids and lines, which may be personal data.

        Raises:
            ConfigError: The `report` extra is not installed.
            TableNotFoundError: The ledger has no such table.
            TableFormatError: A newer release of this program wrote the ledger.

        Example:
            workspace.report().save("events.html")
        """
        return report_of(self.connection, self.db_path, table, examples=examples)

    @short_tracebacks
    def drop(self, *names: str, force: bool = False) -> None:
        """Drop exported tables and their ledger entries in one transaction: all of them, or none.

        The flat tables of a dropped table are dropped with it. A later `resume` exports a dropped table from scratch. If
        *force* is true, you can also drop your own tables.

        Raises:
            TableNotFoundError: There is no such table.
            TableFormatError: The table was not exported, or a newer release of this program wrote the ledger.
            ArgumentError: A name begins with an underscore, like the names of internal tables.
            DatabaseError: The workspace is read-only, or another connection is changing the table.
            ExportRunningError: This process is exporting into the file.
        """
        path = self._writable_path("drop tables")
        # This uses a separate connection, because the user may have started a transaction on the other one.
        with connected_for_export(path) as connection:
            try:
                drop_tables(connection, names, own=force)
            except duckdb.Error as error:
                reason = str(error).splitlines()[0]
                raise DatabaseError(
                    f"cannot drop {', '.join(names)} ({reason}), so nothing was dropped",
                    advice=f"{advice_on(reason)}, then try again",
                    db_path=str(path),
                ) from error

    @short_tracebacks
    def drop_all(self, type: Literal["events", "profiles"] | None = None) -> None:  # noqa: A002 - the name of mixpanel_data
        """Drop all exported tables, or all of one *type*. Your own tables are kept. Raises the same errors as `drop`."""
        self.drop(*(table.name for table in self.tables() if type in {None, table.type}))

    @short_tracebacks
    def forget(self, *distinct_ids: str, also: Iterable[str] = (), table: str | None = None) -> ForgetResult:
        """Delete every event and profile whose `distinct_id` is in *distinct_ids* from all exported tables, or from *table*.

        *also* selects additional properties to compare: `user_id` (`$user_id`), `device_id` (`$device_id`) and
        `before_identity` (`$distinct_id_before_identity`). Hidden duplicates of these events, and raw lines in which an
        id occurs, are also deleted. Either everything is deleted or nothing. The ledger is updated to match the
        remaining rows, so a later `resume` does not refetch the days. Your own tables are not searched; the result lists
        your tables with a `distinct_id` column.

        Delete the person in Mixpanel first. If an export refetches the person's days or profile before Mixpanel has
        deleted the person, the events and the profile are restored. Then call `forget` again.

        DuckDB marks rows as deleted, but does not overwrite them immediately. Queries no longer find the rows, but their
        bytes may remain in the file. A copy of the database (`COPY FROM DATABASE`) does not contain these bytes.

        Raises:
            ArgumentError: There is no id, an id is empty, or *also* has an unknown value; this is a `ValueError`.
            DatabaseNotFoundError: There is no such file.
            DatabaseError: The file has no ledger, cannot be written, or is used by another process.
            TableNotFoundError: The ledger has no such table.
            TableFormatError: A newer release of this program wrote the ledger, or the columns of a table were changed.
            ExportRunningError: This process is exporting into the file.

        Example:
            workspace.forget("user-1", "$device:4711", also=["user_id", "device_id"])
        """
        check_exists(self.db_path)
        return forget_people(self._writable_path("forget people"), distinct_ids, also, table)

    @short_tracebacks
    def flatten(
        self,
        table: str = "events",
        *,
        into: str | None = None,
        only: Iterable[str] | None = None,
        events: Iterable[str] | None = None,
        per_event: bool | None = None,
        auto: bool | None = None,
        rebuild: bool = False,
    ) -> FlattenResult:
        """Create or update a table with one typed column for each property. See `flatten_events`.

        Example:
            workspace.flatten()
            workspace.sql('SELECT "$browser", count(*) FROM events_flat GROUP BY ALL')
        """
        check_exists(self.db_path)
        return run_sync(
            flatten_events,
            self._writable_path("flatten tables"),
            table,
            into=into,
            only=only,
            events=events,
            per_event=per_event,
            auto=auto,
            rebuild=rebuild,
        )

    def _writable_path(self, purpose: str) -> Path:
        """Create the file's folder, and return the file's path. Raises `DatabaseError` if the workspace is read-only."""
        path = self.db_path
        if self._read_only:
            raise DatabaseError(
                f"{path} is open read-only",
                advice=f"use a Workspace with read_only=False to {purpose}",
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


def size_and_creation_time(path: Path) -> tuple[float, datetime | None]:
    """Return a file's size in millions of bytes, and its creation time or None if the system does not record it."""
    status = path.stat()
    created = getattr(status, "st_birthtime", None)
    return status.st_size / 1_000_000, None if created is None else datetime.fromtimestamp(created, UTC)
