"""`mpx query`: an answer from the database, for people or for other programs."""

import json
import re
import sys
import unicodedata
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from shutil import get_terminal_size
from typing import TYPE_CHECKING

import click

from mixpanel_export.cli.look import looking
from mixpanel_export.cli.options import db_option, wait_option

if TYPE_CHECKING:
    from mixpanel_export._local.reader import Answer, Connection

EXAMPLES = """\b
Examples:
  mpx query "SELECT event_name, count(*) AS events FROM events GROUP BY ALL ORDER BY events DESC"
  mpx query "FROM events LIMIT 5" --json | jq .properties.plan
  mpx query - --csv --db app.duckdb < report.sql > report.csv
  mpx query "FROM events" --parquet events.parquet

\b
The file is opened read-only; what would change it is refused. --json and --csv are UTF-8, and columns of type JSON
are in it as they were sent. Exit codes: 0 ok, 2 wrong SQL or usage, 4 no such file, 1 anything else.
"""

_WIDEST = 60  # columns of a cell on a terminal
_NUMBER = re.compile(r"U?(TINY|SMALL|BIG|HUGE)?INT(EGER)?|FLOAT|DOUBLE|DECIMAL\(.*\)")


@click.command("query", short_help="Answer a question in SQL.", epilog=EXAMPLES)
@click.argument("sql")
@db_option
@click.option("--json", "as_json", is_flag=True, help="One JSON object a row and line, as jq reads them.")
@click.option("--csv", "as_csv", is_flag=True, help='CSV with a header; NULL is empty, empty text is "".')
@click.option(
    "--parquet",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Write a Parquet file; one that is there is replaced.",
)
@click.option(
    "--rows",
    type=click.IntRange(0),
    metavar="N",
    default=100,
    help="Rows that the table for people has at most; 0 = all.",
)
@wait_option
def command(
    *, sql: str, db: str, as_json: bool, as_csv: bool, parquet: Path | None, rows: int, wait: float
) -> None:
    """Run SQL (- reads it from standard input) on a DuckDB file, and print the rows as a table.

    The file is not changed. The tables of exports are described in the README.
    """
    if as_json + as_csv + (parquet is not None) > 1:
        raise click.UsageError("--json, --csv and --parquet exclude each other; choose one")
    if parquet is not None and _is_same(parquet, Path(db).expanduser()):
        raise click.UsageError("--parquet names the database, which it would replace; choose another file")
    text = sys.stdin.buffer.read().decode("utf-8-sig") if sql == "-" else sql
    if not text.strip():
        raise click.UsageError("there is no SQL to run")
    with looking(db, wait) as connection:
        if parquet is not None:
            _write_parquet(connection, text, parquet)
        elif as_json or as_csv:
            _write_lines(connection, text, as_json=as_json)
        else:
            _show(connection, text, rows)


def _is_same(file: Path, db: Path) -> bool:
    return file.exists() and db.exists() and file.samefile(db)


def _write_parquet(connection: "Connection", sql: str, path: Path) -> None:
    from mixpanel_export._local.reader import write_parquet

    rows = write_parquet(connection, sql, path)
    click.echo(f"{rows:,} {'row' if rows == 1 else 'rows'} written to {path}.", err=True)


def _write_lines(connection: "Connection", sql: str, *, as_json: bool) -> None:
    """Write the rows as they come, in UTF-8 and with plain newlines wherever this runs."""
    from mixpanel_export._local.reader import ask

    answer = ask(connection, sql, json_value if as_json else text_value)
    if answer is None:
        return
    out = sys.stdout.buffer
    for line in json_lines(answer) if as_json else csv_lines(answer):
        out.write(line.encode("utf-8", "replace"))
    out.flush()


def _show(connection: "Connection", sql: str, most: int) -> None:
    from mixpanel_export._local.reader import ask

    answer = ask(connection, sql, text_value)
    if answer is None:
        return
    shown = list(islice(answer.rows, most + 1 if most else None))
    more = bool(most) and len(shown) > most
    if answer.columns == ("Success",) and not shown:
        return  # of SET and the like
    if answer.columns == ("explain_key", "explain_value"):
        click.echo("\n".join(str(plan) for _, plan in shown))
        return
    width = get_terminal_size().columns if sys.stdout.isatty() else None
    click.echo("\n".join(table_lines(answer, shown[: most or None], width)))
    if more:
        click.echo(f"The first {most} rows; --rows 0 shows all, --json or --csv writes all.", err=True)


def text_value(column: str, kind: str) -> str:  # noqa: ARG001 - as `json_value`
    """Return SQL for a column as DuckDB shows it."""
    return f"{column}::VARCHAR"


def json_value(column: str, kind: str) -> str:
    """Return SQL for a column as JSON: one of that type as it was sent, on one line; no number that JSON has not."""
    if kind == "JSON":
        return rf"replace(replace({column}::VARCHAR, chr(10), ' '), chr(13), ' ')"
    if kind in {"FLOAT", "DOUBLE"}:
        return f"CASE WHEN isfinite({column}) THEN to_json({column})::VARCHAR END"
    return f"to_json({column})::VARCHAR"


def json_lines(answer: "Answer") -> Iterator[str]:
    """Yield a JSON object a row; of columns with the same name the last one counts for most readers."""
    names = [json.dumps(name, ensure_ascii=False) for name in answer.columns]
    for row in answer.rows:
        values = ("null" if value is None else value for value in row)
        yield "{" + ", ".join(f"{name}: {value}" for name, value in zip(names, values, strict=True)) + "}\n"


def csv_lines(answer: "Answer") -> Iterator[str]:
    """Yield the header and a line a row, as RFC 4180 has it but for plain newlines."""
    yield _csv_line(answer.columns)
    for row in answer.rows:
        yield _csv_line(row)


def _csv_line(values: Sequence[str | None]) -> str:
    return ",".join(map(_csv_value, values)) + "\n"


def _csv_value(value: str | None) -> str:
    if value is None:
        return ""
    quoted = not value or any(sign in value for sign in ',"\r\n') or value != value.strip()
    return '"' + value.replace('"', '""') + '"' if quoted else value


def table_lines(
    answer: "Answer", rows: Sequence[Sequence[str | None]], width: int | None = None
) -> list[str]:
    """Return the rows as a table for people, with numbers to the right; *width* is that of a terminal, None for none.

    Nothing in the data can move the cursor or colour the terminal: control characters are shown as escapes.
    """
    most = None if width is None else _WIDEST
    head = [_cell(name, most) for name in answer.columns]
    body = [[_cell("NULL" if value is None else value, most) for value in row] for row in rows]
    widths = [max(map(_wide, column)) for column in zip(head, *body, strict=True)]
    pads = [_right if _NUMBER.fullmatch(kind) else _left for kind in answer.types]
    lines = [
        "  ".join(pad(cell, wide) for pad, cell, wide in zip(pads, row, widths, strict=True)).rstrip()
        for row in [head, ["-" * wide for wide in widths], *body]
    ]
    return [_cut(line, width) for line in lines] if width else lines


def _cell(text: str, most: int | None) -> str:
    plain = "".join(sign if sign.isprintable() else _escaped(sign) for sign in text)
    return _cut(plain, most) if most else plain


def _escaped(sign: str) -> str:
    return sign.encode("unicode_escape").decode("ascii")


def _cut(text: str, width: int) -> str:
    """Return *text*, with dots in the place of what is beyond *width* columns."""
    if _wide(text) <= width:
        return text
    kept = ""
    for sign in text:
        if _wide(kept + sign) > width - 3:
            break
        kept += sign
    return kept + "..."


def _wide(text: str) -> int:
    """Return how many columns of a terminal *text* takes."""
    if text.isascii():
        return len(text)
    return sum(
        0 if unicodedata.combining(sign) else 2 if unicodedata.east_asian_width(sign) in "WF" else 1
        for sign in text
    )


def _left(text: str, width: int) -> str:
    return text + " " * (width - _wide(text))


def _right(text: str, width: int) -> str:
    return " " * (width - _wide(text)) + text
