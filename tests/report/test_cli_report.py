"""`mpx report`."""

from collections.abc import Mapping
from pathlib import Path

import click
import pytest
from report_pages import CONTROL, create_database
from shell import mpx


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
