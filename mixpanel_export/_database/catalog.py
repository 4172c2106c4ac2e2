"""The names of the tables and views in a database, read with one query."""

from collections.abc import Mapping
from dataclasses import dataclass

from mixpanel_export._database.connection import Connection
from mixpanel_export.errors import TableFormatError

IN_MAIN = "schema_name = 'main' AND database_name = current_database()"
"""SQL condition that restricts DuckDB's catalog functions to this database, because others may be attached.

Without it, these functions take 5 ms, because DuckDB parses all its own views.
"""


@dataclass(frozen=True, slots=True)
class Catalog:
    """The tables and views of a database at one moment. DuckDB ignores the case of their names."""

    comments: Mapping[str, str | None]
    """The comment on each table, including the ledger's tables, in the order of their names."""
    views: frozenset[str]

    def name_of(self, table: str) -> str:
        """Return the table's name as the database spells it, or *table* if there is no such table."""
        return next((name for name in self.comments if name.lower() == table.lower()), table)

    def has(self, name: str) -> bool:
        """Whether there is a table or view with this name, in upper or lower case."""
        return name.lower() in map(str.lower, (*self.comments, *self.views))

    def check_no_view(self, name: str) -> None:
        """Check that there is no view with this name.

        Raises:
            TableFormatError: There is a view with this name.
        """
        if name.lower() in map(str.lower, self.views):
            raise TableFormatError(name, f"{name} is a view", advice="export into another table, or drop it")


def read_catalog(connection: Connection) -> Catalog:
    """Return the tables and views of the database."""
    rows = connection.execute(
        f"SELECT table_name, comment, false FROM duckdb_tables() WHERE {IN_MAIN} UNION ALL "
        f"SELECT view_name, NULL, true FROM duckdb_views() WHERE {IN_MAIN}"
    ).fetchall()
    return Catalog(
        {name: comment for name, comment, is_view in sorted(rows) if not is_view},
        frozenset(name for name, _, is_view in rows if is_view),
    )
