"""`mpx mp`: mixpanel_data's command lines work, with its results, formats and exit codes."""

import csv
import io
import json
import os
import shutil
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from shell import environment, mpx
from support import held, query, simulator, truth

from mixpanel_export import errors
from mixpanel_export.cli.mp import EXIT_CODES
from mixpanel_export.cli.mp.missing import MISSING
from mixpanel_export.cli.mp.output import print_result
from mixpanel_export.simulator import Fault, Simulator

DAYS = ["--from", "2024-03-01", "--to", "2024-03-09"]


@pytest.fixture
def sim(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Simulator]:
    sim = simulator(odd=0, profiles=1_200)
    with environment(sim, tmp_path, monkeypatch):
        yield sim


@pytest.fixture
def db(sim: Simulator, tmp_path: Path) -> Path:
    """A database with the table `events`."""
    assert mpx("mp", "-q", "fetch", "events", *DAYS).exit_code == 0
    return tmp_path / "events.duckdb"


def result_of(result: Result) -> Any:
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def test_a_parallel_fetch_is_exact(sim: Simulator, tmp_path: Path) -> None:
    """The result has mixpanel_data's keys, each batch is a line, and the table has every event."""
    result = mpx("mp", "fetch", "events", *DAYS, "--parallel", "--chunk-days", "3", "--batch-size", "500")
    answer = result_of(result)
    assert list(answer)[:4] == ["table", "total_rows", "successful_batches", "failed_batches"]
    assert (answer["total_rows"], answer["has_failures"]) == (truth_rows(sim), False)
    assert "Batch 3/3: 2024-03-07 to 2024-03-09" in result.stderr
    assert held(tmp_path / "events.duckdb") == truth(sim)


def truth_rows(sim: Simulator) -> int:
    return sim.truth(date(2024, 3, 1), date(2024, 3, 9)).distinct


def test_a_fetch_replaces_and_appends(db: Path, sim: Simulator) -> None:
    """--append adds days and --replace replaces the table, with one request each, in a table of any name."""
    more = result_of(mpx("mp", "fetch", "events", "--from", "2024-03-10", "--to", "2024-03-10", "--append"))
    assert (more["type"], more["date_range"]) == ("events", ["2024-03-10", "2024-03-10"])
    assert held(db) == truth(sim, "2024-03-01", "2024-03-10")
    result_of(mpx("mp", "fetch", "events", "--from", "2024-03-05", "--to", "2024-03-06", "--replace"))
    assert held(db) == truth(sim, "2024-03-05", "2024-03-06")
    result_of(mpx("mp", "fetch", "events", "views", *DAYS, "-e", "Page View", "-w", "", "--format", "json"))
    assert query(db, "SELECT DISTINCT event_name FROM views") == [("Page View",)]


@pytest.mark.parametrize("raw", [False, True])
def test_events_are_streamed_as_lines(raw: bool, sim: Simulator, tmp_path: Path) -> None:
    """--stdout prints every event, as rows or as Mixpanel's objects, and stores nothing."""
    result = mpx("mp", "fetch", "events", *DAYS, "--stdout", *(["--raw"] if raw else []))
    events = [json.loads(line) for line in result.stdout.splitlines()]
    assert len(events) == sim.truth(date(2024, 3, 1), date(2024, 3, 9)).rows
    assert list(events[0])[:2] == (["event", "properties"] if raw else ["event_name", "event_time"])
    assert result.stderr == f"Streamed {len(events)} events.\n"
    assert not (tmp_path / "events.duckdb").exists()


def test_profiles_are_fetched_and_streamed(sim: Simulator, tmp_path: Path) -> None:
    """The options are mixpanel_data's, and so are the keys of the result and of the lines."""
    answer = result_of(
        mpx("mp", "fetch", "profiles", "people", "-p", "--workers", "3", "-o", "$email,logins")
    )
    assert list(answer)[:3] == ["table", "total_rows", "successful_pages"]
    rows = dict(query(tmp_path / "events.duckdb", "SELECT distinct_id, properties FROM people"))
    assert rows == sim.profile_truth(properties=["$email", "logins"])
    first, second, *_ = rows
    one = result_of(mpx("mp", "fetch", "profiles", "people", "--replace", "--distinct-id", first))
    assert (one["type"], one["rows"]) == ("profiles", 1)
    words = ["--distinct-ids", first, "--distinct-ids", second, "--stdout"]
    lines = [json.loads(line) for line in mpx("mp", "fetch", "profiles", *words).stdout.splitlines()]
    assert [line["distinct_id"] for line in lines] == [first, second]
    members = ["--cohort-id", "x"]  # the documentation of `mp` also uses this name of --cohort
    for wrong in (
        ["--replace", "--append"],
        ["--raw"],
        ["--behaviors", "{"],
        ["--include-all-users"],
        members,
    ):
        assert mpx("mp", "fetch", "profiles", *wrong).exit_code == 3


def test_sql_is_run(db: Path, sim: Simulator, tmp_path: Path) -> None:
    """SQL comes from the command line or a file, and returns rows or one value; the database is not changed."""
    count = "SELECT count(*) AS n FROM events"
    assert result_of(mpx("mp", "query", "sql", count)) == [{"n": truth_rows(sim)}]
    assert result_of(mpx("mp", "query", "sql", count, "--scalar")) == {"value": truth_rows(sim)}
    assert mpx("mp", "query", "sql", count, "-s", "-f", "plain").stdout == f"{truth_rows(sim)}\n"
    file = tmp_path / "count.sql"
    file.write_text(count, encoding="utf-8")
    assert result_of(mpx("mp", "query", "sql", "--file", str(file))) == [{"n": truth_rows(sim)}]
    assert mpx("mp", "query", "sql", "DROP TABLE events").exit_code == 3
    assert held(db) == truth(sim)


def test_the_database_is_inspected(db: Path, sim: Simulator) -> None:
    """Each command has mixpanel_data's keys, with consistent values."""
    rows = truth_rows(sim)
    assert result_of(mpx("mp", "inspect", "info"))["tables"] == ["events"]
    (table,) = result_of(mpx("mp", "inspect", "tables"))
    assert (list(table), table["row_count"]) == (["name", "type", "row_count", "fetched_at"], rows)
    schema = result_of(mpx("mp", "inspect", "schema", "-t", "events", "--sample"))
    assert schema["columns"][0] == {"name": "event_name", "type": "VARCHAR", "nullable": True}
    sample = result_of(mpx("mp", "inspect", "sample", "-t", "EVENTS", "-n", "3"))
    assert (len(sample), next(iter(sample[0]))) == (3, "event_name")
    assert result_of(mpx("mp", "inspect", "summarize", "-t", "events"))["row_count"] == rows
    breakdown = result_of(mpx("mp", "inspect", "breakdown", "-t", "events"))
    top = breakdown["events"][0]
    assert breakdown["total_events"] == rows
    keys = result_of(mpx("mp", "inspect", "keys", "-t", "events", "-e", top["event_name"]))
    assert "$insert_id" in keys
    column = result_of(mpx("mp", "inspect", "column", "-t", "events", "-c", "event_name", "--top", "1"))
    assert column["top_values"] == [[top["event_name"], top["count"]]]


def test_tables_are_dropped_after_a_question(db: Path) -> None:
    """The answer no is exit code 2, yes and --force drop the tables, and only --force drops the user's own table."""
    query(db, "CREATE TABLE mine (x INTEGER)")
    declined = mpx("mp", "inspect", "drop", "-t", "events", given="n\n")
    assert (declined.exit_code, declined.stdout) == (2, "")
    assert mpx("mp", "inspect", "drop", "-t", "mine", given="y\n").exit_code == 1
    assert result_of(mpx("mp", "inspect", "drop", "-t", "mine", "--force")) == {"dropped": "mine"}
    assert result_of(mpx("mp", "inspect", "drop-all", "--type", "events", "--force")) == {
        "dropped_count": 1,
        "type_filter": "events",
    }
    assert result_of(mpx("mp", "inspect", "tables")) == []


ROWS = [
    {"name": "a,b", "n": None, "at": date(2024, 1, 2), "ok": True},
    {"name": "c", "n": [1], "at": "x", "ok": False},
]


@pytest.mark.parametrize(
    "style, lines",
    [
        ("jsonl", [json.dumps(row, default=str) for row in ROWS]),
        ("csv", ["name,n,at,ok", '"a,b",,2024-01-02,true', "c,[1],x,false"]),
        ("table", ["NAME  N    AT          OK", "a,b        2024-01-02  Yes", "c     [1]  x           No"]),
        ("plain", ["a,b", "c"]),
    ],
)
def test_results_have_five_formats(style: str, lines: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """Rows are printed in each format; JSON is indented."""
    print_result(ROWS, style, None)
    assert capsys.readouterr().out.splitlines() == lines
    print_result(ROWS, "json", None)
    assert json.loads(capsys.readouterr().out) == json.loads(json.dumps(ROWS, default=str))


@pytest.mark.parametrize("style", ["json", "jsonl", "csv", "table", "plain"])
def test_other_results_have_the_formats_too(style: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Empty lists, lists of text, and dictionaries without a name are printed."""
    for value in ([], ["a", "b"], {"n": 1}):
        print_result(value, style, None)
    out = capsys.readouterr().out
    assert "a" in out
    if style == "csv":
        assert list(csv.reader(io.StringIO(out))) == [["value"], ["a"], ["b"], ["n"], ["1"]]


@pytest.mark.skipif(os.name != "posix", reason="the stand-in for jq is a script")
def test_jq_filters_the_result(db: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The program gets the expression and the JSON; its output lines are the result."""
    program = tmp_path / "bin" / "jq"
    program.parent.mkdir()
    program.write_text(
        '#!/bin/sh\n[ "$2" = " bad" ] && { echo "no such thing" >&2; exit 3; }\ncat >/dev/null; echo 5\n'
    )
    monkeypatch.setenv("PATH", str(program.parent))
    missing = mpx("mp", "inspect", "tables", "--jq", ".[0]")
    assert (missing.exit_code, missing.stdout) == (3, "")
    program.chmod(0o700)
    monkeypatch.setenv("PATH", f"{program.parent}:/bin:/usr/bin")
    assert result_of(mpx("mp", "inspect", "tables", "--jq", ".[0]")) == 5
    assert mpx("mp", "inspect", "tables", "--jq", "bad").exit_code == 3
    assert mpx("mp", "inspect", "tables", "--jq", ".", "-f", "csv").exit_code == 3


@pytest.mark.skipif(shutil.which("jq") is None, reason="jq is not installed")
@pytest.mark.parametrize(
    "expression, answer",
    [(".[].name", "events"), ("map(.row_count > 0)", [True]), ("-(.[0].row_count) < 0", True)],
)
def test_jq_itself_filters_the_result(expression: str, answer: object, db: Path) -> None:
    """The installed jq runs the expression, even if it starts like an option."""
    del db
    assert result_of(mpx("mp", "inspect", "tables", "--jq", expression)) == answer


def test_the_file_is_named_before_or_after_the_command(sim: Simulator, tmp_path: Path) -> None:
    """--db may be in either place; the later one wins."""
    other = str(tmp_path / "other.duckdb")
    assert mpx("mp", "--db", str(tmp_path / "none"), "fetch", "events", "--db", other, *DAYS).exit_code == 0
    count = "SELECT count(*) FROM events"
    for words in (["--db", other, "query", "sql", count, "-s"], ["query", "sql", count, "-s", "--db", other]):
        assert result_of(mpx("mp", *words)) == {"value": truth_rows(sim)}
    assert result_of(mpx("mp", "inspect", "info", "--db", other))["path"] == other
    assert not (tmp_path / "none").exists()


def test_a_table_is_an_option_or_an_argument(db: Path) -> None:
    """Either names the table that a command inspects; both or neither is a usage error."""
    del db
    for command in ("schema", "summarize", "breakdown", "keys"):
        named = result_of(mpx("mp", "inspect", command, "events"))
        assert named == result_of(mpx("mp", "inspect", command, "-t", "events"))
    assert len(result_of(mpx("mp", "inspect", "sample", "events", "-n", "2"))) == 2
    assert mpx("mp", "inspect", "keys").exit_code == 2
    assert mpx("mp", "inspect", "keys", "events", "-t", "events").exit_code == 2


@pytest.mark.parametrize(
    "words, code",
    [
        (["fetch", "events", "--to", "2024-03-09"], 3),
        (["fetch", "events", *DAYS, "--append", "--replace"], 3),
        (["fetch", "events", *DAYS, "--raw"], 3),
        (["fetch", "events", *DAYS, "--limit", "5", "--parallel"], 3),
        (["fetch", "events", "--from", "2023-01-01", "--to", "2024-03-09"], 3),
        (["fetch", "events", *DAYS, "--jq", ".rows", "--format", "csv"], 3),
        (["fetch", "events", *DAYS, "--limit", "0"], 2),
        (["fetch", "events", *DAYS, "--no-such-option"], 2),
        (["-a", "nobody", "fetch", "events", *DAYS], 4),
        (["inspect", "tables"], 4),
        (["query", "sql"], 3),
        (["query", "sql", "--file", "none.sql"], 4),
    ],
)
def test_wrong_usage_has_the_exit_codes_of_mp(words: list[str], code: int, sim: Simulator) -> None:
    """One line describes the error, and nothing is requested."""
    result = mpx("mp", "-q", *words)
    assert (result.exit_code, result.stdout, sim.requests) == (code, "", [])
    assert result.stderr.splitlines()[-1].startswith("Error: ")


@pytest.mark.parametrize("kind, code", [("401", 2), ("402", 3)])
def test_refused_requests_have_the_exit_codes_of_mp(kind: Any, code: int, sim: Simulator) -> None:
    """A rejected account is 2, any other rejected request is 3, and nothing is printed."""
    sim.faults = [Fault(kind)]
    for words in (["--stdout"], ["--parallel"], []):
        result = mpx("mp", "-q", "fetch", "events", *DAYS, *words)
        assert (result.exit_code, result.stdout) == (code, "")
    assert dict(EXIT_CODES)[errors.RateLimitError] == 5


@pytest.mark.parametrize("words", [f"{group} {name}".split() for group in MISSING for name in MISSING[group]])
def test_what_is_missing_says_what_to_use(words: list[str]) -> None:
    """Commands of `mp` without a counterpart fail with an error and a hint, whatever their options."""
    result = mpx("mp", *words, "any", "--from", "2024-01-01")
    assert (result.exit_code, result.stdout) == (1, "")
    assert "; use " in result.stderr


def test_an_unknown_command_is_one(sim: Simulator) -> None:
    """It exists neither here nor in `mp`."""
    assert mpx("mp", "nothing").exit_code == 2
    assert "mpx accounts default" in mpx("mp", "auth", "switch", "main").stderr
