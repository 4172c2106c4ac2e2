"""`mpx demo`: what a new user sees in the first minute."""

import re
from datetime import date
from pathlib import Path

import pytest
from click.testing import CliRunner
from shell import one_error
from support import query

from mixpanel_export.cli import cli
from mixpanel_export.cli.demo import FIRST_BYTE, FIRST_DAY, SECONDS_PER_DAY, is_exact
from mixpanel_export.simulator import Simulator, Truth
from mixpanel_export.workspace import Workspace

LEDGER = (
    "CREATE TABLE events (id INTEGER); CREATE TABLE _export_batches (table_name VARCHAR, project VARCHAR);"
)
ONE_DAY = ["demo", "--days", "1", "--events-per-day", "50"]


@pytest.fixture
def db(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the demo writes; the environment has settings that it must not obey."""
    for name in ("MP_USERNAME", "MP_SECRET", "MP_PROJECT_ID", "MP_REGION"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("MPX_API_URL", "https://example.invalid")
    monkeypatch.setenv("MPX_PER_HOUR", "1")
    return tmp_path / "demo.duckdb"


def test_the_demo_needs_no_account_and_can_be_run_again(db: Path) -> None:
    """It exports, compares, computes, runs a query, and replaces the table of an earlier demo."""
    CliRunner().invoke(cli, [*ONE_DAY, "--db", str(db)])
    result = CliRunner().invoke(cli, ["demo", "--days", "3", "--events-per-day", "40", "--db", str(db)])
    assert result.exit_code == 0, result.output
    rows = query(db, "SELECT count(*) FROM events")[0][0]
    assert f"exported  {rows:,} events in " in result.stdout
    assert f"one request would take {FIRST_BYTE + 3 * SECONDS_PER_DAY:.1f} s" in result.stdout
    assert "compared  identical to the simulator's events" in result.stdout
    assert re.search(r"SELECT event_name, count.*\n  Page View +\d+\n", result.stdout)
    assert result.stdout.endswith(", or export your own project: mpx export --help\n")
    assert "Batch 1/3" in result.stderr


def test_a_comparison_that_fails_is_an_exit_code(db: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A demo that lost events does not look like a successful one."""
    # An export would have to be wrong to differ from the truth.
    monkeypatch.setattr(Simulator, "truth", lambda *_: Truth(1, 1, 1))
    result = CliRunner().invoke(cli, [*ONE_DAY, "--db", str(db), "--no-progress"])
    assert result.exit_code == 1
    assert "NOT identical to the simulator's events" in result.stdout
    assert "Batch" not in result.stderr


@pytest.mark.parametrize(
    "made",
    [
        "CREATE TABLE events (id INTEGER)",
        'CREATE TABLE "Events" (id INTEGER)',
        "CREATE VIEW events AS SELECT 1 AS id",
        LEDGER,
        LEDGER + "INSERT INTO _export_batches VALUES ('events', 'demo-50'), ('events', '12345')",
        LEDGER + "INSERT INTO _export_batches VALUES ('events', NULL)",
    ],
)
def test_the_demo_leaves_an_events_table_that_is_not_its_own(made: str, db: Path) -> None:
    """A user's events are not replaced by generated ones: one line says so, and nothing is written."""
    query(db, made)
    before = db.read_bytes()
    result = CliRunner().invoke(cli, [*ONE_DAY, "--db", str(db)])
    assert result.exit_code == 4
    assert one_error(result).startswith(f"Error: {db} has an events table")
    assert not result.stdout
    assert db.read_bytes() == before


def test_the_demo_may_share_a_file_with_other_tables(db: Path) -> None:
    """Only a table with the same name prevents the demo."""
    query(db, "CREATE TABLE visits AS SELECT 1 AS id")
    result = CliRunner().invoke(cli, [*ONE_DAY, "--db", str(db)])
    assert result.exit_code == 0, result.output
    assert query(db, "SELECT id FROM visits") == [(1,)]


@pytest.mark.parametrize(
    "damage",
    [
        "DELETE FROM events WHERE rowid = 0",
        "INSERT INTO events SELECT * FROM events LIMIT 1",
        "UPDATE events SET distinct_id = 'x' WHERE rowid = 0",
        "UPDATE events SET event_time = event_time + INTERVAL 1 SECOND",
        """UPDATE events SET properties = replace(properties::VARCHAR, '":', '": ')::JSON""",
    ],
)
def test_the_comparison_sees_every_column_and_the_text(damage: str, tmp_path: Path) -> None:
    """It fails for one row too few or too many, one changed value, or different spelling of the properties."""
    sim = Simulator(events_per_day=30)
    rows = list(sim.rows(FIRST_DAY, date(2024, 1, 2)))
    with Workspace(path=tmp_path / "x.duckdb") as workspace:
        connection = workspace.connection
        connection.execute(
            "CREATE TABLE events"
            " (event_name VARCHAR, event_time TIMESTAMP, distinct_id VARCHAR, insert_id VARCHAR, properties JSON)"
        )
        connection.executemany("INSERT INTO events VALUES (?, ?, ?, ?, ?)", rows)
        assert is_exact(sim, date(2024, 1, 2), workspace)
        connection.execute(damage)
        assert not is_exact(sim, date(2024, 1, 2), workspace)
