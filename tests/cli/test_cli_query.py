"""`mpx query`: its result, as a table for people or in exact form for programs."""

import csv
import io
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import duckdb
import pytest
from examples import examples
from hypothesis import given
from hypothesis import strategies as st
from shell import MPX, held_by_another, mpx, one_error, typed
from support import query

from mixpanel_export._local.box import box_of
from mixpanel_export._local.reader import run_query
from mixpanel_export.cli.query import csv_lines, json_lines, json_value, text_value

TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00"))


@pytest.fixture
def db(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "events.duckdb"
    monkeypatch.setenv("MPX_DB", str(path))
    query(path, "CREATE TABLE t AS SELECT x, 'n' || x AS name FROM range(3) AS r(x)")
    return path


def test_people_get_a_box(db: Path) -> None:
    """The header has names and types, and numbers are aligned right. A script gets nothing else."""
    result = mpx("query", "SELECT name, (10 * x)::INT AS x, nullif(x, 1) AS y FROM t ORDER BY t.x")
    assert result.stdout.splitlines() == [
        "┌─────────┬───────┬───────┐",
        "│  name   │   x   │   y   │",
        "│ varchar │ int32 │ int64 │",
        "├─────────┼───────┼───────┤",
        "│ n0      │     0 │     0 │",
        "│ n1      │    10 │  NULL │",
        "│ n2      │    20 │     2 │",
        "└─────────┴───────┴───────┘",
    ]
    assert result.stderr == ""


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no pseudo-terminals of this kind")
def test_a_terminal_names_only_a_default_file(db: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The line with the database appears if neither an option, a variable nor the configuration file named it."""
    words = ["query", "FROM t LIMIT 1"]
    assert "Database" not in typed(words, [])
    monkeypatch.delenv("MPX_DB")
    monkeypatch.chdir(db.parent)
    assert "Database" not in typed([*words, "--db", db.name], [])
    db.rename("mixpanel.duckdb")
    assert "Database: mixpanel.duckdb" in typed(words, [])


def numbers(box: str) -> list[int]:
    """Return the numbers of a box with one column."""
    cells = [line.strip("│ ") for line in box.splitlines()]
    return [int(cell) for cell in cells if cell.isdigit()]


@pytest.mark.usefixtures("db")
def test_rows_beyond_the_hundredth_are_cut_with_a_note() -> None:
    """The note is on standard error; --rows shows more rows, or all."""
    sql = "FROM range(250) AS r(x)"
    result = mpx("query", sql)
    assert len(numbers(result.stdout)) == 100
    assert result.stderr.startswith(
        "Only the first 100 rows are shown; --rows 0, --json or --csv prints all.\n"
    )
    for words in (["--rows", "250"], ["--rows", "0"]):
        result = mpx("query", sql, *words)
        assert numbers(result.stdout) == list(range(250))
        assert "first" not in result.stderr


@pytest.mark.usefixtures("db")
def test_sql_may_come_from_standard_input() -> None:
    """It is UTF-8, with or without a byte order mark."""
    assert json.loads(mpx("query", "-", "--json", given="SELECT\n'é' AS a").stdout) == {"a": "é"}
    assert json.loads(mpx("query", "-", "--json", given=b"\xef\xbb\xbfSELECT 1 AS a").stdout) == {"a": 1}
    for given_text in ("", " \n"):
        assert "no SQL" in one_error(mpx("query", "-", given=given_text))
    assert mpx("query", "-", given=b"SELECT '\xff'").exit_code == 2


@pytest.mark.usefixtures("db")
def test_json_is_an_object_a_line() -> None:
    """The lines are JSON; numbers are numbers, NaN is null, and nested values are nested."""
    sql = (
        "SELECT x, name, x / 0 AS never, [x, NULL] AS list, {'k': name} AS struct, x = 1 AS yes, NULL AS nothing, "
        "TIMESTAMP '2024-03-01 12:00:00' AS at, 1.50::DECIMAL(9, 2) AS price FROM t ORDER BY x DESC LIMIT 1"
    )
    (line,) = mpx("query", sql, "--json").stdout.splitlines()
    assert json.loads(line) == {
        "x": 2,
        "name": "n2",
        "never": None,
        "list": [2, None],
        "struct": {"k": "n2"},
        "yes": False,
        "nothing": None,
        "at": "2024-03-01 12:00:00",
        "price": 1.5,
    }
    assert not mpx("query", "FROM t WHERE false", "--json").stdout


def test_json_columns_are_as_they_were_sent(db: Path) -> None:
    """No number, escape or space changes, but a row is on one line."""
    sent = '{"n": 1E5, "long": 0.1234567890123456789, "e": "\\u00e9",\n "s": "\\n"}'
    with duckdb.connect(str(db)) as connection:
        connection.execute("CREATE TABLE j AS SELECT ?::JSON AS p", [sent])
    out = mpx("query", "FROM j", "--json").stdout
    assert out == '{"p": ' + sent.replace("\n", " ") + "}\n"
    assert next(
        csv.reader(io.StringIO(mpx("query", "SELECT p FROM j", "--csv").stdout.partition("\n")[2]))
    ) == [sent]


@given(st.lists(st.tuples(TEXT | st.none(), TEXT | st.none(), st.integers(-(2**63), 2**63 - 1)), max_size=5))
@examples(core=8, full=60)
def test_json_and_csv_give_back_any_text(rows: list[tuple[str | None, str | None, int]]) -> None:
    """Every value can be read back, in order; in CSV, NULL is empty and empty text is quoted."""
    with duckdb.connect() as connection:
        connection.execute("CREATE TABLE t (a VARCHAR, b VARCHAR, c BIGINT)")
        if rows:
            connection.executemany("INSERT INTO t VALUES (?, ?, ?)", rows)
        as_json = run_query(connection, "FROM t", json_value)
        assert as_json is not None
        assert [tuple(json.loads(line).values()) for line in json_lines(as_json)] == rows
        as_csv = run_query(connection, "FROM t", text_value)
        assert as_csv is not None
        text = "".join(csv_lines(as_csv))
        assert list(csv.reader(io.StringIO(text, newline=""))) == [
            ["a", "b", "c"],
            *([a or "", b or "", str(c)] for a, b, c in rows),
        ]
        assert text.count('""') >= sum((a == "") + (b == "") for a, b, _ in rows)


def test_csv_is_read_by_duckdb_as_it_was(db: Path, tmp_path: Path) -> None:
    """DuckDB's CSV reader distinguishes NULL, empty text, commas, quotes and line breaks."""
    sql = "SELECT * FROM (VALUES (NULL, 'a,b'), ('', 'a\"b'), (' x ', e'a\\nb')) AS v(a, b)"
    file = tmp_path / "out.csv"
    file.write_bytes(mpx("query", sql, "--csv").stdout_bytes)
    assert query(db, f"FROM read_csv('{file}', header = true, allow_quoted_nulls = false)") == [
        (None, "a,b"),
        ("", 'a"b'),
        (" x ", "a\nb"),
    ]


def test_what_is_written_is_utf_8_with_plain_newlines(db: Path) -> None:
    """The encoding of the console does not matter."""
    env = {"MPX_DB": str(db), "PYTHONIOENCODING": "cp1252"}
    for option, expected in (("--json", '{"a": "日本"}\n'), ("--csv", "a\n日本\n")):
        command = [*MPX, "query", "SELECT '日本' AS a", option]
        done = subprocess.run(command, env={**os.environ, **env}, capture_output=True, check=True)
        assert done.stdout == expected.encode()
    shown = subprocess.run(
        [*MPX, "query", "SELECT '日本' AS a"], env={**os.environ, **env}, capture_output=True, check=True
    )
    assert b"\\u65e5\\u672c" in shown.stdout


@pytest.mark.usefixtures("db")
def test_parquet_is_written_to_a_file(tmp_path: Path) -> None:
    """Standard output stays empty, and the file has the rows with their types."""
    file = tmp_path / "t.parquet"
    result = mpx("query", "FROM t WHERE x > 0", "--parquet", str(file))
    assert (result.exit_code, result.stdout) == (0, "")
    assert result.stderr == f"2 rows written to {file}.\n"
    with duckdb.connect() as connection:
        rows = connection.execute("FROM read_parquet(?) ORDER BY x", [str(file)]).fetchall()
    assert rows == [(1, "n1"), (2, "n2")]


def test_parquet_never_takes_the_place_of_the_database(db: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file is refused under any name, and the tables are unchanged."""
    monkeypatch.chdir(db.parent)
    for name in (str(db), db.name, f"../{db.parent.name}/{db.name}"):
        result = mpx("query", "FROM t", "--parquet", name)
        assert (result.exit_code, result.stdout) == (2, "")
        assert "would replace the database" in one_error(result)
        assert query(db, "SELECT count(*) FROM t") == [(3,)]


@pytest.mark.parametrize(
    "words, code, says",
    [
        (["SELEC 1"], 2, "SQL: Parser Error: syntax error"),
        (["SELECT y FROM t"], 2, 'column "y" not found'),
        (["SELECT CAST(name AS INTEGER) FROM t"], 2, "SQL: Conversion Error"),
        (["SELECT CAST(name AS INTEGER) FROM t", "--json"], 2, "SQL: Conversion Error"),
        (["DELETE FROM t"], 2, "DELETE"),
        (["FROM 'nope.csv'"], 1, "No files found"),
        (["SELECT 1", "--json", "--csv"], 2, "choose one"),
        (["SELECT 1", "--rows", "-1"], 2, "--rows"),
        (["SELECT 1", "--wait", "soon"], 2, "write it as 90s"),
        (["SELECT 1", "--db", "none.duckdb"], 4, "none.duckdb"),
        (["SELECT 1", "--parquet", "no/folder/x.parquet"], 1, "no rows were written to"),
        ([""], 2, "no SQL"),
    ],
)
@pytest.mark.usefixtures("db")
def test_what_is_wrong_is_one_line(words: list[str], code: int, says: str) -> None:
    """The exit code is that of the error's kind, and standard output is empty."""
    result = mpx("query", *words)
    assert result.exit_code == code
    assert says in one_error(result)


@pytest.mark.usefixtures("db")
def test_statements_without_rows_print_nothing() -> None:
    """Settings and comments have no result; a query plan is one."""
    for sql in ("SET threads = 1", "/* nothing */", "SET threads = 1; -- and nothing"):
        for words in ([], ["--json"]):
            result = mpx("query", sql, *words)
            assert (result.exit_code, result.stdout, result.stderr) == (0, "", "")
    assert "Projection" in mpx("query", "EXPLAIN SELECT 1").stdout
    assert "true" in mpx("query", 'SELECT true AS "Success"').stdout


# The table


def shown(sql: str, width: int | None, rows: int = 100) -> str:
    """Return the box of a query."""
    with duckdb.connect() as connection:
        box = box_of(connection, sql, rows=rows, width=width)
        assert box is not None
        return "\n".join(box.pages)


def test_cells_cannot_control_the_terminal() -> None:
    """Control characters in events are shown as escapes."""
    text = shown(
        "SELECT chr(27) || '[31mred' || chr(13) || chr(10) || 'x' || chr(8232) || 'y' || chr(8238) AS a", None
    )
    assert all(character.isprintable() or character == "\n" for character in text)
    assert r"\u2028" in text


@pytest.mark.parametrize("width", [*range(80, 90), 120, 200])
def test_every_column_is_shown_on_a_terminal(width: int) -> None:
    """On a narrow terminal, values are wrapped, and no line is wider than the terminal."""
    columns = ", ".join(f"'{str(number) * 30}' AS c{number}" for number in range(6))
    text = shown(f"SELECT {columns}", width)
    assert all(f"c{number}" in text for number in range(6))
    assert text.count("5") >= 30
    assert max(map(len, text.splitlines())) <= width


@pytest.mark.parametrize("width", [80, 200])
def test_long_texts_are_cut_on_a_terminal(width: int) -> None:
    """An event has a few lines, and JSON keeps its name in the header."""
    properties = json.dumps({f"key {number}": "x" * 20 for number in range(100)})
    text = shown(f"SELECT 'a' AS name, '{properties}'::JSON AS properties, 1 AS b, 'varchar' AS c", width)
    assert len(text.splitlines()) < 20
    assert "…" in text
    assert re.search(r"│ +varchar +│ +json +│ +int32 +│ +varchar +│", text)


def test_columns_in_the_middle_are_left_out_where_wrapping_does_not_help() -> None:
    """The first and the last columns are shown, and the number of columns."""
    columns = ", ".join(f"'{'x' * 20}' AS c{number}" for number in range(40))
    text = shown(f"SELECT {columns}", 80)
    assert "c0" in text
    assert "c39" in text
    assert "40 columns" in text


def test_into_a_pipe_goes_everything() -> None:
    """Without a terminal, no value is cut or wrapped."""
    text = shown(f"SELECT '{'x' * 5000}' AS a, 1 AS b FROM range(3)", None)
    assert text.count("x" * 5000) == 3


def test_a_box_has_any_number_of_rows() -> None:
    """DuckDB renders fewer than 10,000 rows at a time."""
    assert numbers(shown("FROM range(25000)", 80, rows=0)) == list(range(25_000))
    assert numbers(shown("FROM range(25000)", 80, rows=12_000)) == list(range(12_000))


# Parameters, files and hints


@pytest.mark.parametrize("form", [[], ["--json"], ["--csv"]])
@pytest.mark.usefixtures("db")
def test_parameters_are_values(form: list[str]) -> None:
    """They are text, which DuckDB can also compare with numbers and times, and never SQL."""
    sql = "SET threads = 1; SELECT name AS n FROM t WHERE name = $name AND x >= $least AND TIMESTAMP '2024-03-02' > $day"
    result = mpx("query", sql, "-p", "name=n2", "-p", "least=1", "--parameter", "day=2024-03-01", *form)
    assert (result.exit_code, "n2" in result.stdout) == (0, True)
    text = "x' = y; DROP TABLE t --"
    assert json.loads(mpx("query", "SELECT $a AS a", "-p", f"a={text}", "--json").stdout) == {"a": text}


@pytest.mark.usefixtures("db")
def test_parquet_takes_parameters(tmp_path: Path) -> None:
    """The file has the rows that the values select."""
    file = tmp_path / "t.parquet"
    assert mpx("query", "FROM t WHERE name = $n", "-p", "n=n1", "--parquet", str(file)).exit_code == 0
    with duckdb.connect() as connection:
        assert connection.execute("FROM read_parquet(?)", [str(file)]).fetchall() == [(1, "n1")]


@pytest.mark.parametrize(
    "words",
    [
        ["SELECT $a", "-p", "b=1"],
        ["SELECT $a"],
        ["SELECT 1", "-p", "a=1"],
        ["SELECT $a", "-p", "a"],
        ["SELECT $a", "-p", "1=1"],
        [],
        ["SELECT 1", "--file", "x.sql"],
    ],
)
@pytest.mark.usefixtures("db")
def test_parameters_and_sql_must_fit(words: list[str]) -> None:
    """A name without a value, a value without a name, no SQL, and two SQL texts are usage errors."""
    result = mpx("query", *words)
    assert result.exit_code == 2
    assert one_error(result)


@pytest.mark.usefixtures("db")
def test_sql_may_come_from_a_file(tmp_path: Path) -> None:
    """It is read like standard input."""
    file = tmp_path / "report.sql"
    file.write_text("SELECT name FROM t -- all\nWHERE x = 1", encoding="utf-8")
    assert json.loads(mpx("query", "--file", str(file), "--json").stdout) == {"name": "n1"}
    assert mpx("query", "--file", str(tmp_path / "none.sql")).exit_code == 1


@pytest.mark.usefixtures("db")
def test_keys_with_a_dollar_get_a_hint() -> None:
    """DuckDB reads them as paths, so the result would be NULL or an unclear error."""
    sql = """SELECT '{"$city": "Berlin"}'::JSON ->> '$city'"""
    assert """'$."$city"'""" in mpx("query", sql).stderr
    right = mpx("query", sql.replace("'$city'", """'$."$city"'"""))
    assert "Berlin" in right.stdout
    assert "path" not in right.stderr


def test_a_file_in_use_is_waited_for(db: Path) -> None:
    """The error names the process and the option, as in `mpx status`."""
    with held_by_another(db) as holder:
        said = one_error(mpx("query", "FROM t"))
        assert f"process {holder.pid}" in said
        assert "--wait" in said
        assert "after 0.1s" in mpx("query", "FROM t", "--wait", "0.1s").stderr


def test_a_reader_that_goes_away_is_no_traceback(db: Path) -> None:
    """`mpx query … --json | head -1` ends quietly, however many rows are left."""
    with subprocess.Popen(
        [*MPX, "query", "FROM range(1000000)", "--json"], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b'{"range": 0}\n'
        process.stdout.close()
        _, said = process.communicate()
    assert said == b""
