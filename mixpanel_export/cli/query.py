"""`mpx query`: runs a query and prints the result, for people or for other programs."""

import json
import os
import re
import shutil
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import click

from mixpanel_export._config.environment import decoded
from mixpanel_export.cli.default_file import say_database
from mixpanel_export.cli.open_database import open_read_only
from mixpanel_export.cli.options import db_option, wait_option
from mixpanel_export.cli.query_hints import hints_about_columns, say_how_to_write_keys, say_unknown_keys

if TYPE_CHECKING:
    from mixpanel_export._local.reader import Connection, QueryResult

EXAMPLES = """\b
Examples:
  mpx query "SELECT event_name, count(*) AS events FROM events GROUP BY ALL ORDER BY events DESC"
  mpx query "SELECT properties->>'plan' AS plan, count(*) FROM events GROUP BY ALL"
  mpx query 'SELECT "$browser", count(*) FROM events_flat GROUP BY ALL'   # after mpx flatten
  mpx query "FROM events LIMIT 5" --json | jq .properties.plan
  mpx query - --csv --db app.duckdb < report.sql > report.csv
  mpx query --file report.sql -p event='Sign Up' -p since=2024-03-01
  mpx query "FROM events" --parquet events.parquet
  mpx query "FROM events" --parquet - | aws s3 cp - s3://bucket/events.parquet

\b
An events table has the columns event_name, event_time, distinct_id, insert_id, properties and
export_batch. properties->>'plan' is text; properties.plan is JSON, so strings have quotation marks.
To read a key that starts with $, write properties->>'$."$browser"'. `mpx flatten` creates a table
with a column for each property. The file is opened read-only, and statements that would change
it are rejected. --json and --csv write UTF-8, and they write JSON columns as they were received.
Exit codes: 0 ok, 2 wrong SQL or usage, 4 no such file, 1 any other error.
"""

_PLAIN = str.maketrans("─│┌┬┐├┼┤└┴┘…", "-|+++++++++.")
_OPTION_WITH_VALUE = re.compile(r"(--[a-z][a-z-]*|-p\w+)=")
STANDARD_OUTPUT = Path("-")


class QueryCommand(click.Command):
    """A command whose SQL may start with `-`: an argument that contains whitespace is never an option."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        return super().parse_args(ctx, self._with_sql_last(args))

    def _with_sql_last(self, args: list[str]) -> list[str]:
        """If the SQL looks like an option, move it to the end, after `--`."""
        options_with_value = {
            name
            for option in self.params
            if isinstance(option, click.Option) and not option.is_flag
            for name in option.opts
        }
        for place, argument in enumerate(args):
            if argument == "--":
                break
            is_value = place > 0 and args[place - 1] in options_with_value
            if not is_value and _is_sql_like_an_option(argument):
                return [*args[:place], *args[place + 1 :], "--", argument]
        return args


def _is_sql_like_an_option(argument: str) -> bool:
    return argument.startswith("-") and len(argument.split()) > 1 and not _OPTION_WITH_VALUE.match(argument)


def parse_parameters(
    _ctx: click.Context, _option: click.Parameter, values: tuple[str, ...]
) -> dict[str, str]:
    """Return the names and values from all `--parameter` options."""
    pairs = [value.partition("=") for value in values]
    for name, equals, _ in pairs:
        if not (equals and name.isidentifier()):
            raise click.BadParameter(f"{name + equals!r} is not a parameter; write it as NAME=VALUE")
    return {name: value for name, _, value in pairs}


@click.command("query", cls=QueryCommand, short_help="Run an SQL query.", epilog=EXAMPLES)
@click.argument("sql", required=False)
@click.option(
    "--file",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Read the SQL from a file instead.",
)
@click.option(
    "-p",
    "--parameter",
    "parameters",
    multiple=True,
    callback=parse_parameters,
    metavar="NAME=VALUE",
    help="Set $NAME in the SQL to this text; repeatable.",
)
@db_option
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object per line, for jq.")
@click.option(
    "--csv", "as_csv", is_flag=True, help='Print CSV with a header; NULL is empty, and an empty string is "".'
)
@click.option(
    "--parquet",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Write a Parquet file, replacing an existing one; - is standard output.",
)
@click.option(
    "--rows",
    type=click.IntRange(0),
    metavar="N",
    default=100,
    help="Show at most N rows in the table; 0 = all.",
)
@wait_option
@click.pass_context
def command(
    ctx: click.Context,
    *,
    sql: str | None,
    file: Path | None,
    parameters: dict[str, str],
    db: str,
    as_json: bool,
    as_csv: bool,
    parquet: Path | None,
    rows: int,
    wait: float,
) -> None:
    """Run SQL on a DuckDB file and print the rows as a table. If SQL is -, it is read from standard input.

    The file is not changed. The README describes the tables that an export writes.
    """
    if as_json + as_csv + (parquet is not None) > 1:
        raise click.UsageError("--json, --csv and --parquet cannot be combined; choose one")
    if parquet is not None:
        _check_parquet(parquet, db)
    text = _read_sql(sql, file)
    if not text.strip():
        raise click.UsageError("there is no SQL to run")
    say_how_to_write_keys(text, parameters)
    with open_read_only(db, wait) as connection, hints_about_columns(connection, text):
        if parquet is not None:
            _write_parquet(connection, text, parquet, parameters)
        elif as_json or as_csv:
            _write_lines(connection, text, parameters, as_json=as_json)
        else:
            _print_table(ctx, connection, text, parameters, rows)


def _read_sql(sql: str | None, file: Path | None) -> str:
    """Return the SQL from the argument, from standard input if the argument is `-`, or from *file*."""
    if (sql is None) == (file is None):
        raise click.UsageError(
            "there is no SQL to run; pass it as an argument, or a file with --file"
            if sql is None
            else "SQL and --file cannot be combined; choose one"
        )
    if file is not None:
        content = file.read_bytes()
    else:
        content = sys.stdin.buffer.read() if sql == "-" else str(sql).encode("utf-8", "surrogateescape")
    try:
        return decoded(content)
    except UnicodeDecodeError as error:
        raise click.UsageError("the SQL is not text in UTF-8") from error


def _check_parquet(parquet: Path, db: str) -> None:
    from mixpanel_export._database.path import database_path

    database = database_path(db)
    # Unlike Path.resolve, realpath does not raise an error for a symlink loop.
    output, file = (os.path.realpath(path) for path in (parquet, database))
    if output in {file, f"{file}.wal"} or _is_same(parquet, database):
        raise click.UsageError("--parquet would replace the database; choose another file")
    if parquet == STANDARD_OUTPUT and sys.stdout.isatty():
        raise click.UsageError(
            "--parquet - would write binary data to the terminal; redirect it into a file or a pipe"
        )


def _is_same(file: Path, database: Path) -> bool:
    return file.exists() and database.exists() and file.samefile(database)


def _write_parquet(connection: "Connection", sql: str, path: Path, parameters: dict[str, str]) -> None:
    from mixpanel_export._local.reader import write_parquet

    if path == STANDARD_OUTPUT:
        with TemporaryDirectory(
            prefix="mpx-", ignore_cleanup_errors=True
        ) as folder:  # Parquet needs a seekable file
            file = Path(folder, "rows.parquet")
            rows = write_parquet(connection, sql, file, parameters)
            with file.open("rb") as content:
                shutil.copyfileobj(content, sys.stdout.buffer)
            sys.stdout.buffer.flush()
        name = "standard output"
    else:
        rows = write_parquet(connection, sql, path, parameters)
        name = str(path)
    click.echo(f"{rows:,} {'row' if rows == 1 else 'rows'} written to {name}.", err=True)


def _write_lines(connection: "Connection", sql: str, parameters: dict[str, str], *, as_json: bool) -> None:
    """Write the rows as they arrive, in UTF-8 and with plain newlines on every platform."""
    from mixpanel_export._local.reader import run_query

    result = run_query(connection, sql, json_value if as_json else text_value, parameters)
    if result is None:
        return
    out = sys.stdout.buffer
    for line in json_lines(result) if as_json else csv_lines(result):
        out.write(line.encode("utf-8", "replace"))
    out.flush()


def _print_table(
    ctx: click.Context, connection: "Connection", sql: str, parameters: dict[str, str], max_rows: int
) -> None:
    from mixpanel_export._local.box import box_of

    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
    box = box_of(connection, sql, parameters, rows=max_rows, width=width)
    if box is None:
        return
    for page in box.pages:
        click.echo(page if _can_encode_frames(sys.stdout.encoding) else page.translate(_PLAIN))
    if box.more:
        click.echo(
            f"Only the first {max_rows} rows are shown; --rows 0, --json or --csv prints all.", err=True
        )
    say_unknown_keys(connection, sql)
    say_database(ctx)


def _can_encode_frames(encoding: str | None) -> bool:
    try:
        "".join(map(chr, _PLAIN)).encode(encoding or "ascii")
    except (UnicodeEncodeError, LookupError):
        return False
    return True


def text_value(column: str, kind: str) -> str:  # noqa: ARG001 - the signature of `json_value`
    """Return SQL that converts a column to the text that DuckDB shows."""
    return f"{column}::VARCHAR"


def json_value(column: str, kind: str) -> str:
    """Return SQL that converts a column to one line of JSON. JSON columns keep their text; NaN and infinity become NULL."""
    if kind == "JSON":
        return rf"replace(replace({column}::VARCHAR, chr(10), ' '), chr(13), ' ')"
    if kind in {"FLOAT", "DOUBLE"}:
        return f"CASE WHEN isfinite({column}) THEN to_json({column})::VARCHAR END"
    return f"to_json({column})::VARCHAR"


def json_lines(result: "QueryResult") -> Iterator[str]:
    """Yield a JSON object per row. If several columns have the same name, most JSON parsers use the last one."""
    names = [json.dumps(name, ensure_ascii=False) for name in result.columns]
    for row in result.rows:
        values = ("null" if value is None else value for value in row)
        yield "{" + ", ".join(f"{name}: {value}" for name, value in zip(names, values, strict=True)) + "}\n"


def csv_lines(result: "QueryResult") -> Iterator[str]:
    """Yield a header and a line per row, as in RFC 4180, but with plain newlines."""
    yield _csv_line(result.columns)
    for row in result.rows:
        yield _csv_line(row)


def _csv_line(values: Sequence[str | None]) -> str:
    return ",".join(map(_csv_value, values)) + "\n"


def _csv_value(value: str | None) -> str:
    if value is None:
        return ""
    quoted = not value or any(sign in value for sign in ',"\r\n') or value != value.strip()
    return '"' + value.replace('"', '""') + '"' if quoted else value
