"""Prints results as `mp` does: as JSON, lines of JSON, CSV, a table or plain text."""

import csv
import io
import json
import shutil
import subprocess
from collections.abc import Callable, Iterator
from datetime import date
from typing import Any

import click

from mixpanel_export.cli import one_line
from mixpanel_export.cli.options import option
from mixpanel_export.errors import ArgumentError

Command = Callable[..., Any]


def format_options(command: Command) -> Command:
    """Add the options that select the format of a result."""
    command = option("--jq", metavar="EXPR", help="Filter the JSON with jq, which must be installed.")(
        command
    )
    return option(
        "-f",
        "--format",
        "style",
        type=click.Choice(["json", "jsonl", "table", "csv", "plain"]),
        default="json",
        help="Format of the result.",
    )(command)


def check_jq(style: str, jq: str | None) -> None:
    """Check that a result in the format *style* can be filtered with *jq*, if given.

    Raises:
        ArgumentError: The format is not JSON, or jq is not installed.
    """
    if jq is not None and style not in {"json", "jsonl"}:
        raise ArgumentError("jq", "requires --format json or jsonl")
    if jq is not None and shutil.which("jq") is None:
        raise ArgumentError("jq", "requires the jq program", advice="install it, or leave the option out")


def print_result(value: Any, style: str, jq: str | None) -> None:
    """Print a dictionary or a list in the format *style*, filtered with *jq* if given.

    Raises:
        ArgumentError: The format cannot be filtered (see `check_jq`), or the expression is wrong.
    """
    check_jq(style, jq)
    if jq is not None:
        values = _filtered(value, jq)
        value = values[0] if style == "json" and len(values) == 1 else values
    for line in _FORMATS[style](value):
        click.echo(line)


def json_text(value: Any, indent: int | None = None) -> str:
    """Return *value* as JSON; times and dates are ISO strings, and other unknown values are strings."""
    return json.dumps(value, indent=indent, default=plain_text, ensure_ascii=False)


def _filtered(value: Any, jq: str) -> list[Any]:
    process = subprocess.run(  # noqa: S603 - the expression is one argument, and no shell reads it
        [shutil.which("jq") or "jq", "-c", f" {jq}"],  # without the space, "-.n" would be an option
        input=json_text(value),
        capture_output=True,
        encoding="utf-8",
        check=False,
    )
    if process.returncode:
        raise ArgumentError("jq", f"failed ({one_line(process.stderr)})")
    return [json.loads(line) for line in process.stdout.splitlines()]


def _json(value: Any) -> Iterator[str]:
    yield json_text(value, indent=2)


def _json_lines(value: Any) -> Iterator[str]:
    yield from map(json_text, value if isinstance(value, list) else [value])


def _csv(value: Any) -> Iterator[str]:
    names, rows = _rows(value)
    if not rows:
        return
    for row in [names, *([_cell(cell, ("false", "true")) for cell in row] for row in rows)]:
        text = io.StringIO()
        csv.writer(text, lineterminator="").writerow(row)
        yield text.getvalue()


def _table(value: Any) -> Iterator[str]:
    names, rows = _rows(value)
    head = [name.upper().replace("_", " ") for name in names]
    cells = [head, *([one_line(_cell(cell, ("No", "Yes"))) for cell in row] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    for row in cells:
        yield "  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip()


def _plain(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        main = [value[key] for key in ("name", "value") if key in value][:1]
        yield from map(str, main or (f"{key}={text}" for key, text in value.items()))
    else:
        yield from (str(_main(item)) for item in value)


def _main(item: Any) -> object:
    if not isinstance(item, dict):
        return item
    keys = [key for key in ("name", "value", "event", "id") if key in item] or list(item)
    return item[keys[0]] if keys else ""


def _rows(value: Any) -> tuple[list[str], list[list[Any]]]:
    """Return *value* as column names and rows. Values that are not dictionaries form a `value` column."""
    items = value if isinstance(value, list) else [value]
    if not items or not isinstance(items[0], dict):
        return ["value"], [[item] for item in items]
    names = list(items[0])
    return names, [[item.get(name) for name in names] for item in items]


def _cell(value: Any, booleans: tuple[str, str]) -> str:
    match value:
        case None:
            return ""
        case bool():
            return booleans[value]
        case list() | tuple() | dict():
            return json_text(value)
        case _:
            return plain_text(value)


def plain_text(value: object) -> str:
    """Return a time or a date as an ISO string, and any other value as `str`."""
    return value.isoformat() if isinstance(value, date) else str(value)


_FORMATS: dict[str, Callable[[Any], Iterator[str]]] = {
    "csv": _csv,
    "json": _json,
    "jsonl": _json_lines,
    "plain": _plain,
    "table": _table,
}
