"""Renders a query's rows as a text table, with DuckDB's box renderer."""

from collections.abc import Iterator, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass
from functools import partial
from io import StringIO

import duckdb

from mixpanel_export._database.connection import Connection, quoted
from mixpanel_export._local.reader import (
    NO_PARAMETERS,
    Parameters,
    interruptible,
    one_line_errors,
    relation_of,
)

_PAGE = 9_999  # rows; the renderer cannot show more at a time
_ANY_WIDTH = 1_000_000  # characters; wide enough for any value
_MIN_WIDTH = 8  # characters of a column; if columns would be narrower, columns in the middle are left out
_FRAME = 3  # characters around each column's value
_MAX_LINES = 4  # approximate maximum number of lines for a value
_MIN_TEXT_WIDTH = 20  # characters; a string is not shortened to fewer than `_MAX_LINES` lines of this width
_HARMLESS = "\n\u200c\u200d"  # the last two control how characters join, as in emoji
_TABLE = "_mpx_rows"  # a temporary table
_EXPLAIN = ["explain_key", "explain_value"]


@dataclass(frozen=True, slots=True)
class Box:
    """The first rows of a query, as text."""

    pages: Iterator[str]
    """Tables of at most 9,999 rows."""
    more: bool
    """Whether the query has more rows."""


def box_of(
    connection: Connection, sql: str, parameters: Parameters = NO_PARAMETERS, *, rows: int, width: int | None
) -> Box | None:
    """Run *sql* and render the first *rows* rows of its last statement, or all rows if *rows* is 0.

    Return None if the statement does not return rows.

    The table is at most *width* characters wide: long strings are shortened, and values are wrapped. If that is not enough,
    columns in the middle are left out. If *width* is None, each row is one line. Control characters are shown as
    escapes.

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
        create = f"CREATE OR REPLACE TEMP TABLE {_TABLE} AS FROM (\n{relation.sql_query()}\n){limit}"
        interruptible(connection, lambda: connection.execute(create, dict(parameters) or None).fetchall())
    ((count,),) = connection.execute(f"SELECT count(*) FROM temp.{_TABLE}").fetchall()
    shown = min(rows, count) if rows else count
    return Box(_pages(connection, shown, width), more=count > shown)


def _pages(connection: Connection, rows: int, width: int | None) -> Iterator[str]:
    for start in range(0, max(rows, 1), _PAGE):
        page = connection.sql(f"FROM temp.{_TABLE} LIMIT {min(_PAGE, rows - start)} OFFSET {start}")
        yield _escape_controls(
            _render(page, _ANY_WIDTH, _ANY_WIDTH) if width is None else _render_to_fit(page, width)
        )


def _render_to_fit(page: duckdb.DuckDBPyRelation, width: int) -> str:
    """Render *page*, at most *width* columns wide. Long strings are shortened to a few lines."""
    number = len(page.columns)
    share = (width - 1) // number - _FRAME
    json_places = [place for place, kind in enumerate(page.types) if str(kind) == "JSON"]
    short = page.project(
        ", ".join(_shorten(column, page, _MAX_LINES * max(share, _MIN_TEXT_WIDTH)) for column in page.columns)
    )
    text = _render(short, width)
    if _lacks_columns(text) and share >= _MIN_WIDTH:
        text = _render(short, width, share)
    return text if _lacks_columns(text) else _with_json_types(text, json_places)


def _lacks_columns(box: str) -> bool:
    """Whether columns in the middle are replaced with dots."""
    return " … " in box.split("\n", 2)[1].split("│")


def _shorten(column: str, page: duckdb.DuckDBPyRelation, length: int) -> str:
    """Return SQL that shortens the strings in *column* to at most *length* characters."""
    name = quoted(column)
    if str(page.types[page.columns.index(column)]) not in {"VARCHAR", "JSON"}:
        return name
    text = f"{name}::VARCHAR"
    return f"CASE WHEN length({text}) > {length} THEN left({text}, {length - 1}) || '…' ELSE {text} END AS {name}"


def _with_json_types(text: str, places: Sequence[int]) -> str:
    """Return the box with the type json in the headers of JSON columns, which the renderer shows as varchar."""
    lines = text.split("\n")
    head = next(number for number, line in enumerate(lines) if line.startswith(("├", "└")))
    for place in places:
        for number in reversed(range(1, head)):
            cells = lines[number].split("│")
            if cells[place + 1].strip() == "varchar":
                cells[place + 1] = f"{'json':^{len(cells[place + 1])}}"
                lines[number] = "│".join(cells)
                break
    return "\n".join(lines)


def _render(page: duckdb.DuckDBPyRelation, width: int, column: int | None = None) -> str:
    text = StringIO()
    with redirect_stdout(text):  # the renderer prints its result
        if column is None:
            page.show(max_rows=_PAGE, max_width=width)
        else:
            page.show(max_rows=_PAGE, max_width=width, max_col_width=column)
    return text.getvalue().rstrip("\n")


def _escape_controls(text: str) -> str:
    """Return *text* with all control characters escaped. The renderer escapes only some of them."""
    return "".join(
        character
        if character.isprintable() or character in _HARMLESS
        else character.encode("unicode_escape").decode("ascii")
        for character in text
    )
