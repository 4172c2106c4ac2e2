"""The names of tables and views, and the constraints of tables."""

from collections.abc import Iterator

import duckdb
import pytest

from mixpanel_export._database.catalog import Catalog, read_catalog
from mixpanel_export._database.schema import constraint_of
from mixpanel_export.errors import TableFormatError

CONSTRAINTS = {
    "n INTEGER NOT NULL": "the constraint NOT NULL",
    "n INTEGER CHECK (n > 0)": "the constraint CHECK((n > 0))",
    "n INTEGER UNIQUE": "the constraint UNIQUE(n)",
    "n INTEGER PRIMARY KEY": "the constraint PRIMARY KEY(n)",
    "n INTEGER REFERENCES parents (n)": "the constraint FOREIGN KEY (n) REFERENCES parents(n)",
    "n INTEGER": None,
    'n INTEGER, "NOT NULL" INTEGER': None,
}


@pytest.fixture
def connection() -> Iterator[duckdb.DuckDBPyConnection]:
    with duckdb.connect() as connection:
        yield connection


def test_each_kind_of_constraint_is_named(connection: duckdb.DuckDBPyConnection) -> None:
    """Each constraint and unique index is described. Other indexes, and the names of columns, do not count."""
    connection.execute("CREATE TABLE parents (n INTEGER PRIMARY KEY)")
    for columns, constraint in CONSTRAINTS.items():
        connection.execute(f"CREATE OR REPLACE TABLE events ({columns})")
        assert constraint_of(connection, "events") == constraint
    connection.execute("CREATE INDEX usual ON events (n)")
    assert constraint_of(connection, "events") is None
    connection.execute("CREATE UNIQUE INDEX mine ON events (n)")
    assert constraint_of(connection, "events") == "the unique index mine"


def test_names_are_those_of_this_database(connection: duckdb.DuckDBPyConnection) -> None:
    """Case does not matter. Views are distinguished from tables. Other databases and schemas are left out."""
    connection.execute("CREATE TABLE Events (n INTEGER)")
    connection.execute("COMMENT ON TABLE Events IS 'mine'")
    connection.execute("CREATE TABLE batches (n INTEGER)")
    connection.execute("CREATE VIEW Seen AS FROM Events")
    connection.execute("CREATE SCHEMA other")
    connection.execute("CREATE TABLE other.elsewhere (n INTEGER)")
    connection.execute("ATTACH ':memory:' AS attached")
    connection.execute("CREATE TABLE attached.elsewhere (n INTEGER)")
    catalog = read_catalog(connection)
    assert catalog == Catalog({"Events": "mine", "batches": None}, frozenset({"Seen"}))
    assert list(catalog.comments) == ["Events", "batches"]
    assert [catalog.name_of(name) for name in ("eVENTS", "sEEN", "elsewhere")] == [
        "Events",
        "sEEN",
        "elsewhere",
    ]
    assert [catalog.has(name) for name in ("eVENTS", "sEEN", "elsewhere")] == [True, True, False]
    catalog.check_no_view("events")
    with pytest.raises(TableFormatError):
        catalog.check_no_view("SEEN")
