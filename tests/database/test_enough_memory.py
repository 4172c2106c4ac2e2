"""Transactions for which DuckDB has too little memory are tried again with more."""

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import duckdb
import pytest

from mixpanel_export._database.connection import Connection, transaction
from mixpanel_export._database.settings import with_enough_memory

LONG_ROWS = "INSERT INTO long SELECT long_text(n) FROM range(300) AS numbers(n)"


@pytest.fixture
def connection(db: Path) -> Iterator[Connection]:
    """A connection whose DuckDB has 30 MB, and a table for rows of 120 kB."""
    with duckdb.connect(str(db), config={"memory_limit": "30MB", "threads": "1"}) as connection:
        connection.execute(
            "CREATE MACRO long_text(n) AS (SELECT string_agg(sha256(n || '-' || i), '') FROM range(2000) AS r(i))"
        )
        connection.execute("CREATE TABLE long (text VARCHAR)")
        yield connection


def insert(connection: Connection, limits: list[str]) -> int:
    """Insert long rows in a transaction, record the memory limit, and return the number of rows."""
    limits += connection.execute("SELECT current_setting('memory_limit')").fetchall()[0]
    with transaction(connection):
        ((count,),) = connection.execute(LONG_ROWS).fetchall()
    return int(count)


def test_a_transaction_that_lacks_memory_is_tried_again(connection: Connection) -> None:
    """The second attempt has more memory, its rows are there once, and the old limit is restored."""
    limits: list[str] = []
    assert with_enough_memory(connection, partial(insert, connection, limits)) == 300
    assert len(set(limits)) == 2
    assert connection.execute("SELECT count(*) FROM long").fetchall() == [(300,)]
    assert connection.execute("SELECT current_setting('memory_limit')").fetchall() == [(limits[0],)]


def test_other_errors_are_raised_at_once(connection: Connection) -> None:
    """Only a lack of memory is a reason for a second attempt."""
    attempts: list[str] = []

    def fail() -> None:
        attempts.append("")
        connection.execute("FROM nothing")

    with pytest.raises(duckdb.CatalogException):
        with_enough_memory(connection, fail)
    assert len(attempts) == 1


@pytest.mark.parametrize("reason", ["failed to pin block of size", "could not allocate block of size"])
def test_a_commit_that_lacks_memory_is_an_error_of_the_transaction(
    reason: str, connection: Connection
) -> None:
    """DuckDB reports it with another class of error, and the transaction is tried again, too."""
    results = iter([duckdb.TransactionException(f"Failed to commit: {reason} 256.0 KiB"), 1])

    def commit() -> object:
        result = next(results)
        if isinstance(result, Exception):
            raise result
        return result

    assert with_enough_memory(connection, commit) == 1
