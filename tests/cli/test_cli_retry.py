"""`mpx retry` fetches exactly the days that the ledger says are missing, with the options of the original export."""

import json
import re
import shlex
import signal
import subprocess
from collections.abc import Mapping
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pytest
from examples import slow
from shell import MPX, have_export, held_by_another, mpx, one_error
from support import held, query, truth

from mixpanel_export.simulator import Fault, Simulator

NINE_DAYS = ["--from", "2024-03-01", "--to", "2024-03-09"]
ONE_A_REQUEST = ["--parallel", "--chunk-days", "1", "--retries", "0", "-q"]
QUICK = ["--retries", "0", "--no-progress"]


@pytest.mark.usefixtures("env")
def test_what_failed_or_is_missing_is_fetched_and_nothing_else(sim: Simulator, db: Path) -> None:
    """There is one request for each failed day and for the gap; then the table is exact."""
    sim.faults = [Fault("500", first=date(2024, 3, 2), last=date(2024, 3, 2))]
    mpx("export", "--from", "2024-03-01", "--to", "2024-03-03", *ONE_A_REQUEST)
    mpx("export", "--from", "2024-03-08", "--to", "2024-03-09", "--append", "-q")
    sim.faults = []
    before = len(sim.requests)
    result = mpx("retry", "--chunk-days", "4")
    assert result.exit_code == 0
    assert held(db) == truth(sim)
    asked = sorted((request.first, request.last) for request in sim.requests[before:])
    assert asked == [(date(2024, 3, 2), date(2024, 3, 2)), (date(2024, 3, 4), date(2024, 3, 7))]
    assert "batches     2 of 2" in result.stdout
    assert "Batch 1/2" in result.stderr


@pytest.mark.usefixtures("env")
def test_open_days_are_fetched_until_they_are_complete(sim: Simulator, db: Path) -> None:
    """A day that was exported less than 48 hours after its end is fetched again, and replaces its rows."""
    last = datetime.now(UTC).date() - timedelta(days=1)
    days = ["--from", str(last - timedelta(days=4)), "--to", str(last)]
    mpx("export", *days, *ONE_A_REQUEST)
    before = len(sim.requests)
    assert mpx("retry", "-q").exit_code == 0
    assert len(sim.requests) == before + 2
    assert held(db) == truth(sim, str(last - timedelta(days=4)), str(last))


@pytest.mark.usefixtures("env")
def test_each_selection_is_fetched_as_it_was_asked_for(sim: Simulator, db: Path) -> None:
    """Tables, events, `where`, zone and deduplication are those in the ledger, whatever the configuration is now."""
    sim.faults = [Fault("500", first=date(2024, 3, 4), last=date(2024, 3, 5))]
    free = 'properties["plan"] == "free"'
    mpx("export", "a", *NINE_DAYS, *ONE_A_REQUEST, "-e", "Sign Up, Page View", "--where", free)
    mpx("export", "b", *NINE_DAYS, *ONE_A_REQUEST, "--project-timezone", "Asia/Tokyo", "--no-dedupe")
    sim.faults = []
    result = mpx("retry", "--json", "--no-progress")
    assert [done["table"] for done in json.loads(result.stdout)] == ["a", "b"]
    assert held(db, "a") == truth(sim, events=["Sign Up", "Page View"], where=free)
    kept = query(db, "SELECT DISTINCT timezone, deduped FROM _export_batches WHERE table_name = 'b'")
    assert kept == [("Asia/Tokyo", False)]


@pytest.mark.usefixtures("env")
def test_days_that_kept_duplicates_keep_them(sim: Simulator, db: Path) -> None:
    """The options of the failed days are used, whatever options were used later for other days."""
    sim.faults = [Fault("500", first=date(2024, 3, 2), last=date(2024, 3, 2))]
    mpx("export", "--from", "2024-03-01", "--to", "2024-03-03", *ONE_A_REQUEST, "--no-dedupe")
    sim.faults = []
    mpx("export", "--from", "2024-03-04", "--to", "2024-03-04", "--append", "-q")
    assert mpx("retry", "-q").exit_code == 0
    kept = query(db, "SELECT from_date, deduped FROM _export_batches ORDER BY ALL")
    assert kept == [(date(2024, 3, number), number == 4) for number in (1, 2, 3, 4)]


@pytest.mark.usefixtures("env")
def test_days_of_overlapping_selections_do_not_stop_the_others(sim: Simulator, db: Path) -> None:
    """Days that an export would reject are left alone, and all others are fetched."""
    for day in ("2024-03-01", "2024-03-03"):
        mpx("export", "a", "--from", day, "--to", day, "--resume", "-q", "-e", "Sign Up")
    mpx("export", "a", "--from", "2024-03-02", "--to", "2024-03-02", "--append", "-q")
    sim.faults = [Fault("500", first=date(2024, 3, 2), last=date(2024, 3, 2))]
    mpx("export", "b", "--from", "2024-03-01", "--to", "2024-03-03", *ONE_A_REQUEST)
    sim.faults = []
    assert mpx("retry", "-q").exit_code == 0
    assert held(db, "b") == truth(sim, "2024-03-01", "2024-03-03")


@pytest.mark.usefixtures("env")
def test_what_failed_before_there_was_a_table_is_not_forgotten(sim: Simulator, db: Path) -> None:
    """If only some days were exported, for example because of a kill, the other days are still fetched."""
    sim.faults = [Fault("500")]
    mpx("export", *NINE_DAYS, *ONE_A_REQUEST)
    sim.faults = []
    assert mpx("export", "--from", "2024-03-01", "--to", "2024-03-02", "--resume", "-q").exit_code == 0
    assert json.loads(mpx("status", "--json").stdout)["tables"][0]["statuses"] == {"complete": 2, "failed": 7}
    assert mpx("retry", "-q").exit_code == 0
    assert held(db) == truth(sim)


@pytest.mark.usefixtures("env")
def test_one_table_can_be_chosen(sim: Simulator, db: Path) -> None:
    """The other tables are unchanged; a table that is not in the ledger is exit code 4, without a request."""
    sim.faults = [Fault("500", first=date(2024, 3, 9))]
    mpx("export", "a", *NINE_DAYS, *ONE_A_REQUEST)
    mpx("export", "b", *NINE_DAYS, *ONE_A_REQUEST)
    sim.faults = []
    assert mpx("retry", "--table", "b", "-q").exit_code == 0
    assert held(db, "b") == truth(sim)
    assert query(db, "SELECT table_name FROM _export_batches WHERE status = 'failed'") == [("a",)]
    before = len(sim.requests)
    result = mpx("retry", "--table", "c")
    assert result.exit_code == 4
    assert "table c" in one_error(result)
    assert len(sim.requests) == before


@pytest.mark.usefixtures("env")
def test_with_nothing_to_fetch_it_says_so(sim: Simulator, db: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Exit code 0, one line on standard error, no request and no credentials; quiet prints nothing, JSON an empty list."""
    have_export(db, *NINE_DAYS)
    before = len(sim.requests)
    monkeypatch.delenv("MP_SECRET")
    result = mpx("retry")
    assert (result.exit_code, result.stdout) == (0, "")
    assert result.stderr == f"Nothing to fetch: {db} is complete.\n"
    assert json.loads(mpx("retry", "--json").stdout) == []
    assert mpx("retry", "-q").output == ""
    assert len(sim.requests) == before


@pytest.mark.usefixtures("env")
def test_a_file_without_events_is_not_called_complete(sim: Simulator, db: Path) -> None:
    """Nor is a file whose replacement was interrupted."""
    query(db, "CREATE TABLE mine AS SELECT 1")
    result = mpx("retry")
    assert result.exit_code == 0
    assert "no exported events yet" in result.stderr
    assert f"mpx export --from DATE --db {db}" in result.stderr
    have_export(db, *NINE_DAYS)
    sim.faults = [Fault("500", first=date(2024, 3, 9))]
    mpx("export", *NINE_DAYS, "--replace", *ONE_A_REQUEST)
    assert "a replacement" in mpx("retry").stderr


@pytest.mark.usefixtures("env")
def test_rows_that_no_batch_has_are_not_called_complete(db: Path) -> None:
    """Nothing can be fetched, so the output has the command that gives advice; quiet prints nothing."""
    have_export(db, *NINE_DAYS)
    query(db, "INSERT INTO events SELECT * REPLACE (999 AS export_batch) FROM events")
    assert shlex.join(["mpx", "doctor", str(db)]) in mpx("retry").stderr
    assert mpx("retry", "-q").stderr == ""


@pytest.mark.usefixtures("env")
def test_changed_days_are_left_and_reported(sim: Simulator, db: Path) -> None:
    """The other days are fetched, then the exit code is 1, and the printed command restores the changed days."""
    sim.faults = [Fault("500", days=(date(2024, 3, 2), date(2024, 3, 8)))]
    mpx("export", *NINE_DAYS, *ONE_A_REQUEST)
    sim.faults = []
    query(db, "DELETE FROM events WHERE event_time::DATE BETWEEN '2024-03-04' AND '2024-03-05'")
    result = mpx("retry", "-q")
    assert (result.exit_code, result.stdout) == (1, "")
    *_, command = result.stderr.splitlines()
    before = len(sim.requests)
    assert mpx(*shlex.split(command)[1:]).exit_code == 0
    assert {str(day) for each in sim.requests[before:] for day in (each.first, each.last)} == {
        "2024-03-04", "2024-03-05",
    }  # fmt: skip
    assert held(db) == truth(sim)
    assert mpx("retry", "-q").exit_code == 0


@pytest.mark.usefixtures("env")
def test_a_table_that_was_dropped_stays_away(sim: Simulator, db: Path) -> None:
    """A table that the user dropped is not created again; one that could not be created yet is."""
    sim.faults = [Fault("500", first=date(2024, 3, 9))]
    mpx("export", "dropped", *NINE_DAYS, *ONE_A_REQUEST)
    mpx("export", "never", "--from", "2024-03-09", "--to", "2024-03-09", *ONE_A_REQUEST)
    query(db, "DROP TABLE dropped")
    sim.faults = []
    assert mpx("retry", "-q").exit_code == 0
    tables = {name for (name,) in query(db, "SHOW TABLES")}
    assert "never" in tables
    assert "dropped" not in tables
    assert held(db, "never") == truth(sim, "2024-03-09", "2024-03-09")


@pytest.mark.usefixtures("env")
def test_a_table_that_was_given_another_column_is_not_passed_over(sim: Simulator, db: Path) -> None:
    """Nothing can be added to it, which is an error; the calendar is unchanged."""
    sim.faults = [Fault("500", first=date(2024, 3, 9))]
    mpx("export", *NINE_DAYS, *ONE_A_REQUEST)
    sim.faults = []
    query(db, "ALTER TABLE events ADD COLUMN mine INTEGER")
    assert json.loads(mpx("status", "--json").stdout)["tables"][0]["statuses"] == {"complete": 8, "failed": 1}
    result = mpx("retry", "-q")
    assert result.exit_code != 0
    assert "mine" in one_error(result)
    query(db, "ALTER TABLE events DROP COLUMN mine")
    assert mpx("retry", "-q").exit_code == 0
    assert held(db) == truth(sim)


@pytest.mark.usefixtures("env")
def test_a_look_stays_a_look(sim: Simulator) -> None:
    """Days fetched with --limit are not fetched in full, nor are the days between them and others."""
    mpx("export", "--from", "2024-01-01", "--to", "2024-01-01", "--limit", "3", "-q")
    mpx("export", *NINE_DAYS, "--append", "-q")
    before = len(sim.requests)
    assert mpx("retry").exit_code == 0
    assert len(sim.requests) == before


@pytest.mark.usefixtures("env")
def test_a_look_that_failed_is_not_fetched_in_full(sim: Simulator, db: Path) -> None:
    """These days are not expected, and the rows of an earlier limited export stay."""
    look = ["export", "--from", "2024-03-01", "--to", "2024-03-01", "--limit", "3", "--retries", "0", "-q"]
    mpx(*look)
    sim.faults = [Fault("500")]
    assert mpx(*look, "--append").exit_code == 1
    sim.faults = []
    before = len(sim.requests)
    assert mpx("retry").exit_code == 0
    assert len(sim.requests) == before
    assert query(db, "SELECT count(*) FROM events") == [(3,)]


@pytest.mark.usefixtures("env")
def test_another_project_is_not_mixed_in(sim: Simulator, monkeypatch: pytest.MonkeyPatch) -> None:
    """Exit code 3, a line with both projects and the options, and no request; the option solves it."""
    sim.faults = [Fault("500", first=date(2024, 3, 9))]
    mpx("export", *NINE_DAYS, *ONE_A_REQUEST)
    sim.faults = []
    before = len(sim.requests)
    monkeypatch.setenv("MP_PROJECT_ID", "777")
    result = mpx("retry")
    assert result.exit_code == 3
    assert {"12345", "777", "--account", "--project-id"} <= set(re.findall(r"[\w-]+", one_error(result)))
    assert len(sim.requests) == before
    assert mpx("retry", "--project-id", "12345", "-q").exit_code == 0


@pytest.mark.parametrize("kind, code", [("429", 5), *slow([("500", 1)])])
@pytest.mark.usefixtures("env")
def test_what_fails_again_is_reported_as_an_export_does(
    sim: Simulator, db: Path, kind: str, code: int
) -> None:
    """With the reason, the exit code and a command that retries once more, with the options typed.

    The first day fails, because it is requested last: after a 429 nothing else is requested without a wait.
    """
    sim.faults = [Fault(kind, last=date(2024, 3, 1))]  # type: ignore[arg-type] # parametrize knows strings only
    mpx("export", *NINE_DAYS, *ONE_A_REQUEST, "--max-wait", "0")
    result = mpx("retry", *QUICK, "--max-wait", "0", "--table", "events")
    assert result.exit_code == code
    assert "1 of 1 batches failed:" in result.stderr
    command = shlex.split(result.stderr.splitlines()[3])
    assert command == [
        "mpx", "retry", str(db), "--table", "events", "--max-wait", "0s", "--retries", "0", "--no-progress",
    ]  # fmt: skip
    sim.faults = []
    assert mpx(*command[1:]).exit_code == 0
    assert held(db) == truth(sim)


@pytest.mark.usefixtures("env")
def test_quiet_is_one_line_if_it_fails_and_none_if_not(sim: Simulator, db: Path) -> None:
    """The line that cron would mail has the days, the reason and the command."""
    sim.faults = [Fault("500", first=date(2024, 3, 9))]
    mpx("export", *NINE_DAYS, *ONE_A_REQUEST)
    result = mpx("retry", "-q", "--retries", "0")
    assert result.exit_code == 1
    line = one_error(result)
    assert line.startswith("Error: 1 of 1 batches failed: 2024-03-09: Mixpanel responded with status 500")
    assert line.endswith(f"To fetch the rest: mpx retry {shlex.quote(str(db))} --retries 0 --quiet")
    sim.faults = []
    result = mpx("retry", "-q")
    assert (result.exit_code, result.stdout, result.stderr) == (0, "", "")


def test_a_file_in_use_names_the_process(env: Mapping[str, str], db: Path) -> None:
    """No option is recommended that the command does not have."""
    with held_by_another(db) as holder:
        error = one_error(mpx("retry"))
    assert error.endswith(
        f"is in use by process {holder.pid}; try again later, or close the file in that process"
    )


def test_a_file_that_is_not_there_is_exit_code_4(tmp_path: Path) -> None:
    """It is not created."""
    assert mpx("retry", str(tmp_path / "none.duckdb")).exit_code == 4
    assert not list(tmp_path.iterdir())


def test_ctrl_c_says_how_to_go_on(sim: Simulator, env: Mapping[str, str], db: Path) -> None:
    """Exit code 130, one line, and its command completes the table."""
    sim.faults = [Fault("500", first=date(2024, 3, 3), last=date(2024, 3, 4))]
    mpx("export", *NINE_DAYS, *ONE_A_REQUEST)
    sim.faults = [Fault("stall", first=date(2024, 3, 4), last=date(2024, 3, 4))]
    with subprocess.Popen(
        [*MPX, "retry", "--chunk-days", "1"], env=env, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stderr is not None
        assert "2024-03-03" in process.stderr.readline()
        process.send_signal(signal.SIGINT)
        (said,) = process.stderr.read().splitlines()[-1:]
    assert process.returncode == 130
    assert said.startswith("Interrupted; complete batches are kept. To continue: mpx retry ")
    sim.faults = []
    assert mpx(*shlex.split(said.partition("To continue: ")[2])[1:]).exit_code == 0
    assert held(db) == truth(sim)
