"""Renders the rows of a query as a table for people, with DuckDB's box renderer."""

from collections.abc import Iterator
from contextlib import redirect_stdout
from dataclasses import dataclass
from functools import partial
from io import StringIO

import duckdb

from mixpanel_export._database.connection import Connection
from mixpanel_export._local.reader import (
    NO_PARAMETERS,
    Parameters,
    interruptible,
    one_line_errors,
    relation_of,
)

_PAGE = 9_999  # rows; the renderer shows no more at a time
_ANY_WIDTH = 1_000_000  # columns, so that no value is cut
_NARROWEST = 8  # characters of a column, if all columns are to fit
_FRAME = 3  # characters beside the value of each column
_TABLE = "temp._mpx_rows"
_EXPLAIN = ["explain_key", "explain_value"]


@dataclass(frozen=True, slots=True)
class Box:
    """The first rows of a query, rendered."""

    pages: Iterator[str]
    """Tables of at most 9,999 rows."""
    more: bool
    """Whether the query has more rows."""


def box_of(
    connection: Connection, sql: str, parameters: Parameters = NO_PARAMETERS, *, rows: int, width: int | None
) -> Box | None:
    """Run *sql* and render the first *rows* rows (0: all) of its last statement; None if that has no rows to show.

    The table is at most *width* columns wide; values are wrapped, and if that does not help, columns in the middle are
    left out. If *width* is None, each row is one line. Control characters are shown as escapes.

    Raises:
        ValueError: The SQL is wrong; the message has one line.
    """
    with one_line_errors():
        relation = interruptible(connection, partial(relation_of, connection, sql, parameters))
        if relation is None or (relation.columns == ["Success"] and not relation.fetchall()):
            return None
        if relation.columns == _EXPLAIN:
            return Box(iter([str(plan) for _, plan in relation.fetchall()]), more=False)
        limit = f" LIMIT {rows + 1}" if rows else ""
        create = f"CREATE TEMP TABLE {_TABLE.partition('.')[2]} AS FROM (\n{relation.sql_query()}\n){limit}"
        interruptible(connection, lambda: connection.execute(create, dict(parameters) or None).fetchall())
    ((count,),) = connection.execute(f"SELECT count(*) FROM {_TABLE}").fetchall()
    shown = min(rows, count) if rows else count
    return Box(_pages(connection, shown, width), more=count > shown)


def _pages(connection: Connection, rows: int, width: int | None) -> Iterator[str]:
    for start in range(0, max(rows, 1), _PAGE):
        page = connection.sql(f"FROM {_TABLE} LIMIT {min(_PAGE, rows - start)} OFFSET {start}")
        text = _rendered(page, width)
        number = len(page.columns)
        if width and text.partition("\n")[0].count("┬") + 1 < number:
            column = width // number - _FRAME
            text = _rendered(page, width, column) if column >= _NARROWEST else text
        yield _printable(text)


def _rendered(page: duckdb.DuckDBPyRelation, width: int | None, column: int | None = None) -> str:
    text = StringIO()
    with redirect_stdout(text):  # the renderer prints
        page.show(max_rows=_PAGE, max_width=width or _ANY_WIDTH, max_col_width=column or width or _ANY_WIDTH)
    return text.getvalue().rstrip("\n")


def _printable(text: str) -> str:
    """Return *text* with all control characters escaped. The renderer escapes only some of them."""
    return "".join(
        character
        if character.isprintable() or character == "\n"
        else character.encode("unicode_escape").decode("ascii")
        for character in text
    )
