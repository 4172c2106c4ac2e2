"""Results in notebooks: DataFrames, if pandas is installed, and HTML tables, whose contents are escaped."""

from collections.abc import Iterable, Sequence
from html import escape
from importlib.util import find_spec
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd

_LONGEST = 200  # characters of a cell; properties may have thousands
_LEFT = ' style="text-align: left"'


def require_pandas(instead: str) -> None:
    """Raise `ImportError` if pandas is not installed. The message names *instead* as an alternative."""
    if find_spec("pandas") is None:
        raise ImportError(
            f"DataFrames require pandas; run `pip install 'mpx-export[pandas]'`, or use {instead}"
        )


def data_frame(columns: Sequence[str], rows: Sequence[Sequence[object]], *, instead: str) -> "pd.DataFrame":
    """Return the rows as a DataFrame, which has all columns even without rows."""
    require_pandas(instead)
    import pandas as pd  # noqa: PLC0415 - an extra

    return pd.DataFrame(list(rows), columns=list(columns))


def html_pairs(rows: Iterable[tuple[str, object]], caption: str) -> str:
    """Return names and values as an HTML table of two columns."""
    body = "".join(f"<tr><th{_LEFT}>{escape(name)}</th>{_cell(value)}</tr>" for name, value in rows)
    return f"<table><caption>{escape(caption)}</caption><tbody>{body}</tbody></table>"


def html_table(
    columns: Sequence[str], rows: Sequence[Sequence[object]], caption: str = "", most: int = 20
) -> str:
    """Return at most *most* rows as an HTML table with a header, followed by the number of all rows."""
    title = f"<caption>{escape(caption)}</caption>" if caption else ""
    head = "".join(f"<th{_LEFT}>{escape(name)}</th>" for name in columns)
    body = "".join(f"<tr>{''.join(map(_cell, row))}</tr>" for row in rows[:most])
    shown = f"{len(rows):,} row{'' if len(rows) == 1 else 's'}"
    if len(rows) > most:
        shown = f"the first {most} of {shown}"
    return f"<table>{title}<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table><p>{shown}</p>"


def _cell(value: object) -> str:
    text = "NULL" if value is None else str(value)
    if len(text) > _LONGEST:
        text = text[: _LONGEST - 1] + "…"
    shown = escape(text).replace("\n", "<br>")
    return f"<td{_LEFT}>{f'<em>{shown}</em>' if value is None else shown}</td>"
