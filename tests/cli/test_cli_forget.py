"""`mpx forget`: people are deleted, and the number of deleted events is printed."""

import json
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest
from shell import have_export, held_by_another, mpx, one_error, typed
from support import query

pytestmark = pytest.mark.usefixtures("env")

ID = "zebra-9f31"


@pytest.fixture
def exported(env: Mapping[str, str], db: Path) -> Path:
    """A database with three days; nine of the events are the person's."""
    assert env["MPX_DB"] == str(db)
    have_export(db, "--from", "2024-03-01", "--to", "2024-03-03")
    query(db, f"UPDATE events SET distinct_id = '{ID}' WHERE rowid IN (SELECT rowid FROM events LIMIT 9)")
    return db


def test_what_was_deleted_is_printed(exported: Path) -> None:
    """Standard output has a line for each table; standard error has the notes."""
    result = mpx("forget", ID, "nobody")
    assert result.exit_code == 0
    header, row = result.stdout.splitlines()
    assert header.split("  ")[0] == "table"
    assert row.split() == ["events", "9", "0", "0"]
    assert "Mixpanel" in result.stderr
    assert "COPY FROM DATABASE" in result.stderr
    assert ID not in result.output
    assert query(exported, f"SELECT count(*) FROM events WHERE distinct_id = '{ID}'") == [(0,)]


def test_nothing_matched_is_no_failure(exported: Path) -> None:
    """The exit code is 0, and a line says so; tables that were not searched are named."""
    query(exported, "CREATE TABLE mine AS SELECT distinct_id FROM events")
    result = mpx("forget", "nobody", "--also", "user_id", "--also", "device_id")
    assert result.exit_code == 0
    *_, nothing, others = result.stdout.splitlines()
    assert "nothing was removed" in nothing
    assert others.endswith(" mine")


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no pseudo-terminals of this kind")
def test_a_terminal_asks_once(exported: Path) -> None:
    """Return deletes nothing; `--yes` skips the question; nothing is asked if nothing matches. The id is not shown."""
    typed(["forget", "nobody"], [])
    shown = typed(["forget", ID], [(b"[y/N]:", "")], exit_code=1)
    assert ("9 events" in shown, ID in shown) == (True, False)
    of_person = f"SELECT count(*) FROM events WHERE distinct_id = '{ID}'"
    assert query(exported, of_person) == [(9,)]
    typed(["forget", ID], [(b"[y/N]:", "y")])
    assert query(exported, of_person) == [(0,)]
    query(
        exported, f"UPDATE events SET distinct_id = '{ID}' WHERE rowid IN (SELECT rowid FROM events LIMIT 9)"
    )
    typed(["forget", ID, "--yes"], [])
    assert query(exported, of_person) == [(0,)]


def test_json_has_every_table(exported: Path) -> None:
    """Only JSON is printed, for all tables or the named one."""
    for words in ([], ["--table", "EVENTS"]):
        result = mpx("forget", ID, "--db", str(exported), "--json", *words)
        assert (result.exit_code, result.stderr) == (0, "")
        (table,) = json.loads(result.stdout)["tables"]
        assert table["table"] == "events"
        assert table["events"] == (0 if words else 9)


def test_a_resume_afterwards_has_nothing_to_do(exported: Path) -> None:
    """The ledger agrees with the table."""
    mpx("forget", ID)
    assert mpx("export", "--from", "2024-03-01", "--to", "2024-03-03", "--resume", "--quiet").exit_code == 0
    assert json.loads(mpx("status", str(exported), "--json").stdout)["tables"][0]["mismatches"] == []
    assert query(exported, "SELECT max(batch) = count(*) FROM _export_batches") == [(True,)]


def test_what_cannot_be_done_is_an_error(exported: Path) -> None:
    """The exit code is that of the error's kind, and the id is not printed."""
    assert exported.exists()
    for words, code in (
        ([ID, "--db", "none.duckdb"], 4),
        ([ID, "--table", "none"], 4),
        ([""], 2),
        ([ID, "--also", "$user_id"], 2),
        ([], 2),
    ):
        result = mpx("forget", *words)
        assert result.exit_code == code
        assert not result.stdout
        assert ID not in result.stderr


def test_a_file_in_use_is_an_error(exported: Path) -> None:
    """While another process exports into the file or has it open, nothing is deleted."""
    with held_by_another(exported):
        assert "in use" in one_error(mpx("forget", ID))
