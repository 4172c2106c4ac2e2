"""Shows results in notebooks: as DataFrames, if pandas is installed, and as HTML with escaped contents."""

from collections.abc import Iterable, Sequence
from html import escape
from importlib.util import find_spec
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd

_MAX_CELL = 200  # characters; the properties of an event may have thousands
_LEFT = ' style="text-align: left"'


def require_pandas(instead: str) -> None:
    """Check that pandas is installed.

    Raises:
        ImportError: pandas is not installed. The message suggests *instead* as an alternative.
    """
    if find_spec("pandas") is None:
        raise ImportError(
            f"DataFrames require pandas; run `pip install 'mpx-export[pandas]'`, or use {instead}"
        )


def data_frame(columns: Sequence[str], rows: Sequence[Sequence[object]], *, instead: str) -> "pd.DataFrame":
    """Return the rows as a DataFrame. It has all columns even if there are no rows."""
    require_pandas(instead)
    import pandas as pd  # noqa: PLC0415 - an extra

    return pd.DataFrame(list(rows), columns=list(columns))


def html_pairs(rows: Iterable[tuple[str, object]], caption: str) -> str:
    """Return an HTML table with two columns, a name and a value in each row."""
    body = "".join(f"<tr><th{_LEFT}>{escape(name)}</th>{_cell(value)}</tr>" for name, value in rows)
    return f"<table><caption>{escape(caption)}</caption><tbody>{body}</tbody></table>"


def html_table(
    columns: Sequence[str], rows: Sequence[Sequence[object]], caption: str = "", max_rows: int = 20
) -> str:
    """Return an HTML table with a header and at most *max_rows* rows. A line below it has the total number of rows."""
    title = f"<caption>{escape(caption)}</caption>" if caption else ""
    head = "".join(f"<th{_LEFT}>{escape(name)}</th>" for name in columns)
    body = "".join(f"<tr>{''.join(map(_cell, row))}</tr>" for row in rows[:max_rows])
    count = f"{len(rows):,} row{'' if len(rows) == 1 else 's'}"
    if len(rows) > max_rows:
        count = f"the first {max_rows} of {count}"
    return f"<table>{title}<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table><p>{count}</p>"


def html_frame(page: str, title: str) -> str:
    """Return HTML that shows a whole page in a frame.

    The scripts of the page can run, but they cannot reach anything outside the frame.
    """
    style = "width: 100%; height: 80vh; border: 0"
    return f'<iframe srcdoc="{escape(page)}" title="{escape(title)}" sandbox="allow-scripts" style="{style}"></iframe>'


def _cell(value: object) -> str:
    text = "NULL" if value is None else str(value)
    if len(text) > _MAX_CELL:
        text = text[: _MAX_CELL - 1] + "…"
    content = escape(text).replace("\n", "<br>")
    return f"<td{_LEFT}>{f'<em>{content}</em>' if value is None else content}</td>"
