"""Statements that read Arrow arrays as the rows of a table."""

from collections.abc import Iterator

import duckdb
import numpy as np
import pytest

from mixpanel_export._writer.arrow import LINE, line_arrays
from mixpanel_export._writer.offsets import IndexedText, index_lines
from mixpanel_export._writer.prepared import LINES, ArrowTable, PreparedRead


def rows(*names: str) -> Iterator[object]:
    text = b"".join(b'{"event":"%s","properties":{}}\n' % name.encode() for name in names)
    index = index_lines(text)
    return line_arrays(IndexedText(text, index, index.regular.astype(np.int64)))


@pytest.mark.parametrize(
    "expression",
    ["line[1]::VARCHAR", "line[1]::VARCHAR || timezone('Asia/Tokyo', TIMESTAMP '2024-01-01')::DATE"],
)
def test_each_run_reads_its_own_rows(expression: str) -> None:
    """Each run of a prepared statement reads its own rows, whatever else the connection has prepared or created meanwhile."""
    suffix = "2023-12-31" if "timezone" in expression else ""
    with duckdb.connect() as connection:
        connection.execute("SET TimeZone = 'UTC'")
        table = ArrowTable(connection, LINE)
        names = PreparedRead(table, "names", f"SELECT {expression} FROM {LINES}")
        count = PreparedRead(table, "count", f"SELECT count(*) FROM {LINES}")
        assert names.rows(rows("a", "b")) == [(f"a{suffix}",), (f"b{suffix}",)]
        assert count.rows(rows("c")) == [(1,)]
        connection.execute("CREATE TABLE other (a INTEGER)")
        table.run(f"INSERT INTO other SELECT number FROM {LINES}", rows("d", "e", "f"))
        assert names.rows(rows("g")) == [(f"g{suffix}",)]
        assert connection.execute("SELECT count(*) FROM other").fetchall() == [(3,)]
        assert names.rows(rows()) == []


def test_a_statement_that_cannot_be_prepared_does_not_affect_the_others() -> None:
    """If DuckDB cannot prepare a statement, an earlier one with a time zone still finds its rows."""
    with duckdb.connect() as connection:
        table = ArrowTable(connection, LINE)
        zoned = f"SELECT number, timezone('Asia/Tokyo', TIMESTAMP '2024-01-01') IS NULL FROM {LINES}"
        earlier = PreparedRead(table, "earlier", zoned)
        assert earlier.rows(rows("a")) == [(0, False)]
        with pytest.raises(duckdb.BinderException):
            PreparedRead(table, "invalid", f"SELECT no_column FROM {LINES}").rows(rows("b"))
        assert earlier.rows(rows("c", "d")) == [(0, False), (1, False)]


def test_an_error_of_the_rows_is_raised_as_it_is() -> None:
    """An error that the rows raise reaches the caller, and the next run is not affected."""

    def broken() -> Iterator[object]:
        yield from rows("a")
        raise EOFError("truncated")

    with duckdb.connect() as connection:
        count = PreparedRead(ArrowTable(connection, LINE), "count", f"SELECT count(*) FROM {LINES}")
        with pytest.raises(EOFError, match="truncated"):
            count.rows(broken())
        assert count.rows(rows("b")) == [(1,)]
