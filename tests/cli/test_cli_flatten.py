"""`mpx flatten`: its output, and its options."""

import json
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest
from examples import slow
from shell import have_export, mpx, typed, words_of
from support import query

pytestmark = pytest.mark.usefixtures("env")


@pytest.fixture
def exported(env: Mapping[str, str], db: Path) -> Path:
    """A file with two days."""
    assert env["MPX_DB"] == str(db)
    have_export(db, "--from", "2024-03-01", "--to", "2024-03-02")
    return db


def test_what_was_done_is_printed(exported: Path) -> None:
    """Rows, columns and batches are printed; the second run has nothing to do."""
    result = mpx("flatten")
    assert result.exit_code == 0
    ((rows,),) = query(exported, "SELECT count(*) FROM events_flat")
    assert result.stdout.startswith(f"events_flat: {rows} rows, ")
    assert "1 batch read" in result.stdout
    assert "up to date" in mpx("flatten", "--db", str(exported)).stdout


def test_doctor_does_not_mistake_a_flat_table_for_a_changed_export(exported: Path) -> None:
    """Its additional columns cause no warning."""
    assert mpx("flatten").exit_code == 0
    assert "events_flat" not in mpx("doctor", "--db", str(exported)).output


@pytest.mark.parametrize("day", ["2024-03-02", *slow(["2024-03-03"])])
def test_status_has_the_command_that_updates_a_flat_table(exported: Path, day: str) -> None:
    """A replaced or new batch makes the flat table outdated, until the command has run."""
    assert mpx("flatten", "--into", "wide").exit_code == 0
    assert outdated() == []
    assert mpx("export", "--from", day, "--to", day, "--append", "--quiet").exit_code == 0
    (flat,) = outdated()
    assert (flat["table"], flat["source"]) == ("wide", "events")
    assert f"  {flat['command']}\n" in mpx("status", str(exported)).stdout
    assert mpx(*words_of(flat["command"])).exit_code == 0
    assert outdated() == []


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no pseudo-terminals of this kind")
@pytest.mark.usefixtures("exported")
def test_an_export_on_a_terminal_has_the_command_that_updates_a_flat_table() -> None:
    """The command is printed only if the export left a flat table outdated."""
    words = ["export", "--from", "2024-03-02", "--to", "2024-03-02", "--append"]
    assert mpx("flatten").exit_code == 0
    assert "mpx flatten events --into events_flat" in typed(words, [])
    assert mpx("flatten", "--auto").exit_code == 0
    assert "mpx flatten" not in typed(words, [])


def outdated() -> list[dict[str, str]]:
    """Return the outdated flat tables of the JSON of `mpx status`."""
    flats: list[dict[str, str]] = json.loads(mpx("status", "--json").stdout)["outdated_flat_tables"]
    return flats


def test_options_reach_the_table(exported: Path) -> None:
    """Keys, events, name and views can be given; names can be a JSON list."""
    words = ("--into", "wide", "--only", "$os,$city", "--event", '["Sign Up"]', "--per-event", "--auto")
    result = mpx("flatten", "events", *words, "--json")
    assert (result.exit_code, result.stderr) == (0, "")
    done = json.loads(result.stdout)
    assert (done["table"], sorted(done["new_columns"]), done["views"]) == (
        "wide",
        ["$city", "$os"],
        ["wide_sign_up"],
    )
    assert query(exported, "SELECT auto FROM _flat_tables") == [(True,)]
    assert mpx("flatten", "--into", "wide", "--only", "plan").exit_code == 2
    assert mpx("flatten", "--into", "wide", "--only", "plan", "--rebuild").exit_code == 0


@pytest.mark.parametrize(
    "words, code", [(["none"], 4), (["--db", "none.duckdb"], 4), (["--into", "events"], 4)]
)
def test_what_cannot_be_done_is_an_error(exported: Path, words: list[str], code: int) -> None:
    """The exit code is that of the error's kind."""
    assert exported.exists()
    result = mpx("flatten", *words)
    assert (result.exit_code, result.stdout) == (code, "")
