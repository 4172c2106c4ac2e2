"""`mpx report`."""

import sys
from collections.abc import Mapping
from pathlib import Path

import click
import pytest
from report_pages import CONTROL, create_database
from shell import interrupted, mpx, one_error

# The statement reports that it runs, and then runs longer than any test.
ENDLESS = """
import os
from functools import partial
from mixpanel_export._local import report
from mixpanel_export.cli import main

def collect(connection, *_, **__):
    connection.create_function("report", partial(os.write, 2), ["BLOB"], "BIGINT", side_effects=True)
    connection.execute(
        "SELECT count(*) FROM (SELECT report('HERE'::BLOB) AS n) AS s, range(1_000_000_000_000) AS r(x) WHERE sin(x) > n"
    )

report.collect = collect
main()
"""


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return create_database(tmp_path / "app.duckdb")


def test_a_page_is_written_beside_the_prompt(path: Path) -> None:
    """The page of `app.duckdb` is `app-report.html` in the current folder, and its name is printed."""
    result = mpx("report", str(path))
    assert (result.exit_code, result.stdout) == (0, "app-report.html\n")
    assert Path("app-report.html").read_text(encoding="utf-8").startswith("<!doctype html>")


def test_a_page_on_standard_output(path: Path) -> None:
    """`--out -` prints the page and writes no file."""
    result = mpx("report", str(path), "--out", "-", "--table", "events")
    assert result.stdout.startswith("<!doctype html>")
    assert CONTROL not in result.stdout
    assert not Path("app-report.html").exists()


def test_examples_are_an_option(path: Path) -> None:
    """`--examples` includes values."""
    mpx("report", str(path), "--out", "page.html", "--examples")
    assert CONTROL in Path("page.html").read_text(encoding="utf-8")


def test_a_browser_is_opened(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`--open` opens the file that was written."""
    opened: list[str] = []
    monkeypatch.setattr(click, "launch", opened.append)  # no browser may start in a test
    assert mpx("report", str(path), "--open").exit_code == 0
    assert opened == [Path("app-report.html").absolute().as_uri()]


@pytest.mark.parametrize(
    "words, code",
    [(["--table", "nothing"], 4), (["--open", "--out", "-"], 2), (["--out", "no/such/folder.html"], 1)],
)
def test_wrong_arguments(path: Path, words: list[str], code: int) -> None:
    """An unknown table, `--open` without a file, and a folder that does not exist have their exit codes."""
    result = mpx("report", str(path), *words)
    assert result.exit_code == code
    assert len(result.stderr.splitlines()) == 1


def test_a_missing_file(tmp_path: Path) -> None:
    """A file that does not exist has exit code 4."""
    assert mpx("report", str(tmp_path / "missing.duckdb")).exit_code == 4


def test_an_export_has_a_page(env: Mapping[str, str], db: Path, tmp_path: Path) -> None:
    """The page of a real export has its events, its requests and its ledger."""
    days = ("--from", "2024-03-01", "--to", "2024-03-06", "--chunk-days", "2")
    assert mpx("export", *days, "--parallel", "--quiet", env=env).exit_code == 0
    assert mpx("report", "--out", str(tmp_path / "page.html"), env=env).exit_code == 0
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert db.name in page
    assert "timeline-chart" in page


def test_status_names_the_command(path: Path) -> None:
    """`mpx status` ends with the command that makes the page."""
    assert f"report {path}" in mpx("status", str(path)).stdout


def test_without_the_extra_nothing_is_written(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Exit code 3, and one line with the command that installs it."""
    monkeypatch.setitem(sys.modules, "altair", None)
    result = mpx("report", str(path))
    assert result.exit_code == 3
    assert "pip install 'mpx-export[report]'" in one_error(result)


@pytest.mark.skipif(
    sys.platform == "win32", reason="a console of its own is needed to send Ctrl-C to a child"
)
def test_ctrl_c_during_a_statement_is_one_line(path: Path) -> None:
    """A report that is interrupted while DuckDB runs a statement exits with 130 and writes no file."""
    assert interrupted(ENDLESS, ["report", str(path)]) == (130, b"", b"Interrupted.\n")
    assert not Path("app-report.html").exists()


def test_a_statement_that_duckdb_stops_is_an_interrupt(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """DuckDB notices Ctrl-C by itself in some calls, and raises a RuntimeError; the exit code and the line are the same."""

    def collect(*_: object, **__: object) -> None:
        raise RuntimeError("Query interrupted")

    # DuckDB raises this error only if the signal comes while the main thread runs a part of the statement.
    monkeypatch.setattr("mixpanel_export._local.report.collect", collect)
    result = mpx("report", str(path))
    assert (result.exit_code, result.output) == (130, "Interrupted.\n")
