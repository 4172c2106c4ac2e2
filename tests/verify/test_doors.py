"""`mpx verify` and `Workspace.verify`: output, exit codes, the suggested commands, and several processes."""

import asyncio
import json
import re
import subprocess
from collections.abc import Iterator, Mapping
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from projects import change
from shell import MPX, environment, mpx, one_error, words_of
from support import ACCOUNT, export, held, query, simulator, truth

from mixpanel_export import VerifyResult, Workspace, run_sync
from mixpanel_export.simulator import Counting, Simulator

TODAY = datetime.now(UTC).date()
FIRST, LAST = TODAY - timedelta(days=20), TODAY - timedelta(days=11)  # the commands use the machine's clock
RANGE = ["--from", str(FIRST), "--to", str(LAST)]
MISSING = f"DELETE FROM events WHERE event_time::DATE = '{FIRST + timedelta(days=4)}'"


def day(number: int) -> date:
    """Return a day of the table, counting from 0."""
    return FIRST + timedelta(days=number)


@pytest.fixture
def sim() -> Simulator:
    """A project of the last weeks, all of whose events have a time."""
    return recent()


def recent(**options: Any) -> Simulator:
    return simulator(**({"events_per_day": 50, "odd": 0.0, "now": lambda: datetime.now(UTC)} | options))


@pytest.fixture(scope="module")
def complete(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The contents of a file with a complete table."""
    path = tmp_path_factory.mktemp("complete") / "events.duckdb"
    run_sync(export, recent(), path, FIRST, LAST, one_request=True, now=lambda: datetime.now(UTC))
    return path.read_bytes()


@pytest.fixture
def exported_env(env: Mapping[str, str], db: Path, complete: bytes) -> Mapping[str, str]:
    """An environment with a complete table in *db*."""
    db.write_bytes(complete)
    return env


@pytest.mark.usefixtures("exported_env")
def test_a_complete_table_is_exit_code_0() -> None:
    """A few lines tell what was compared; with --quiet, nothing is printed."""
    result = mpx("verify", *RANGE)
    assert result.exit_code == 0
    lines = dict(line.split("  ", 1) for line in result.stdout.splitlines())
    assert lines.keys() == {"table", "days", "events", "verified"}
    assert lines["verified"].strip() == "yes"
    assert f"{FIRST} to {LAST}, in UTC: 10 compared" in lines["days"]
    quiet = mpx("verify", *RANGE, "--quiet")
    assert (quiet.exit_code, quiet.stdout, quiet.stderr) == (0, "", "")


@pytest.mark.usefixtures("exported_env")
def test_a_day_that_differs_is_exit_code_1_and_a_command_that_mends_it(db: Path) -> None:
    """The output has the day and its numbers, and the suggested command completes the table."""
    change(db, MISSING)
    result = mpx("verify", *RANGE, "--quiet")
    assert result.exit_code == 1
    assert re.search(rf"^{day(4)}  Page View +0 +\d+ +\+\d+$", result.stdout, re.MULTILINE)
    (command,) = [line for line in result.stdout.splitlines() if line.startswith("  ")]
    assert mpx(*words_of(command.strip()), "--quiet").exit_code == 0
    assert mpx("verify", *RANGE, "--quiet").exit_code == 0


@pytest.mark.usefixtures("exported_env")
@pytest.mark.parametrize("lacking", [True, False])
def test_the_advice_mentions_forgotten_people_if_events_are_lacking(db: Path, *, lacking: bool) -> None:
    """An export may bring back the events that `mpx forget` deleted; surplus rows are no sign of them."""
    surplus = f"INSERT INTO events SELECT * REPLACE ('Other' AS event_name) FROM events WHERE event_time::DATE = '{day(4)}'"
    change(db, MISSING if lacking else surplus)
    result = mpx("verify", *RANGE)
    assert result.exit_code == 1
    assert ("mpx forget" in result.stdout) is lacking


@pytest.mark.usefixtures("exported_env")
def test_json_has_the_whole_result(db: Path) -> None:
    """JSON goes to standard output, with the same exit code as text."""
    change(db, MISSING)
    result = mpx("verify", *RANGE, "--json")
    assert result.exit_code == 1
    printed = json.loads(result.stdout)
    assert printed["verified"] is False
    assert printed["failed_days"] == [str(day(4))]
    assert printed["refetch_date_ranges"] == [[str(day(4)), str(day(4))]]
    assert {each["day"] for each in printed["differences"]} == {str(day(4))}
    assert list(printed["differences"][0]) == ["event", "day", "table_rows", "mixpanel_events", "explanation"]


@pytest.mark.usefixtures("env")
def test_changed_days_are_one_story(sim: Simulator, db: Path) -> None:
    """`status`, `verify`, `doctor` and `retry` print the same command, and it restores the rows that were deleted."""
    assert mpx("export", *RANGE, "--parallel", "--chunk-days", "4", "-q").exit_code == 0
    change(db, MISSING)
    table = json.loads(mpx("status", "--json").stdout)["tables"][0]
    assert table["statuses"] == {"changed": 4, "complete": 6}
    command = table["mismatches"][0]["command"]
    assert f"--from {day(4)} --to {day(7)}" in command
    assert json.loads(mpx("verify", *RANGE, "--json").stdout)["commands"] == [command]
    findings = json.loads(mpx("doctor", "--offline", "--json").stdout)["findings"]
    assert [each["advice"] for each in findings if each["state"] == "problem"] == [
        f"run `{command}` to fetch these days again"
    ]
    for words in (["status"], ["verify", *RANGE], ["doctor", "--offline"], ["retry"]):
        assert command in mpx(*words).output
    assert mpx(*words_of(command)).exit_code == 0
    assert held(db) == truth(sim, str(FIRST), str(LAST))
    assert mpx("verify", *RANGE).exit_code == 0


@pytest.mark.usefixtures("exported_env")
def test_rows_that_no_batch_has_need_advice(db: Path) -> None:
    """An export is rejected as long as the table has these rows, so the command is that of `mpx doctor`."""
    change(
        db,
        f"INSERT INTO events SELECT * REPLACE (NULL AS export_batch) FROM events WHERE event_time::DATE = '{day(4)}'",
    )
    assert json.loads(mpx("verify", *RANGE, "--json").stdout)["commands"] == [f"mpx doctor {db}"]


@pytest.mark.usefixtures("exported_env")
def test_many_differences_are_shown_in_part(db: Path) -> None:
    """The largest differences are printed, and the number of the others."""
    change(db, "DELETE FROM events")
    lines = mpx("verify", *RANGE).stdout.splitlines()
    assert sum(bool(re.match(r"\d{4}-", line)) for line in lines) == 20
    assert any(re.fullmatch(r"and \d+ smaller differences; --json prints all", line) for line in lines)


@pytest.mark.usefixtures("exported_env")
def test_a_tolerance_is_a_share_or_a_percentage(db: Path) -> None:
    """`1` and `100%` mean the same; other texts are rejected."""
    change(db, MISSING)
    assert mpx("verify", *RANGE, "--tolerance", "99.9%").exit_code == 1
    for share in ("100%", "1", "1.0"):
        assert mpx("verify", *RANGE, "--tolerance", share).exit_code == 0
    for share in ("101%", "-1", "much"):
        assert mpx("verify", *RANGE, "--tolerance", share).exit_code == 2


@pytest.mark.usefixtures("exported_env")
def test_events_can_be_ignored(db: Path) -> None:
    """Names are written as in `mpx export`."""
    change(db, "DELETE FROM events WHERE event_name IN ('Page View', 'Sign Up')")
    assert mpx("verify", *RANGE, "--ignore", "Page View").exit_code == 1
    assert mpx("verify", *RANGE, "--ignore", "Page View", "--ignore", '["Sign Up"]').exit_code == 0


def test_a_likely_zone_is_suggested(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The option that the advice names solves the problem, and has an environment variable."""
    sim = recent(events_per_day=100, counting=Counting(timezone="Asia/Tokyo"))
    with environment(sim, tmp_path, monkeypatch):
        assert mpx("export", *RANGE, "--quiet").exit_code == 0
        result = mpx("verify", *RANGE)
        assert result.exit_code == 1
        assert "UTC+9. " in result.stdout
        assert "--reporting-timezone" in result.stdout
        assert mpx("verify", *RANGE, "--reporting-timezone", "Asia/Tokyo").exit_code == 0
        assert mpx("verify", *RANGE, env={"MPX_REPORTING_TIMEZONE": "Asia/Tokyo"}).exit_code == 0


@pytest.mark.usefixtures("exported_env")
def test_what_cannot_be_verified_is_one_line() -> None:
    """The exit codes are those of an export."""
    for words, code in (
        (["--from", "2023-02-01", "--to", "2023-02-02"], 2),
        (["nothing"], 4),
        (["--db", "nothing.duckdb"], 4),
        (["--reporting-timezone", "Mars"], 2),
        (["--account", "nobody"], 4),
    ):
        result = mpx("verify", "--quiet", *words)
        assert result.exit_code == code
        one_error(result)


def workspace(sim_url: str, db: Path) -> Workspace:
    return Workspace(path=db, credentials=ACCOUNT, api_url=sim_url)


def checked(result: VerifyResult) -> None:
    assert result.verified
    assert result.days == 10
    assert "verified" in result._repr_html_()


def test_a_workspace_verifies_its_open_file(exported_env: Mapping[str, str], db: Path) -> None:
    """A workspace verifies while its connection is open for writing, read-only or closed, and inside a running loop."""
    url = exported_env["MPX_API_URL"]
    with workspace(url, db) as writable:
        checked(writable.verify(from_date=FIRST, to_date=LAST))
        assert writable.sql_scalar("SELECT count(*) FROM events")
        checked(writable.verify(from_date=FIRST, to_date=LAST))

        async def in_loop() -> VerifyResult:
            return writable.verify(from_date=FIRST, to_date=LAST)

        checked(asyncio.run(in_loop()))
    with Workspace(path=db, credentials=ACCOUNT, api_url=url, read_only=True) as reader:
        assert reader.sql_scalar("SELECT count(*) FROM events")
        checked(reader.verify(from_date=FIRST, to_date=LAST))


def test_the_result_has_its_numbers_in_a_notebook(exported_env: Mapping[str, str], db: Path) -> None:
    """Failed days are named."""
    change(db, MISSING)
    with workspace(exported_env["MPX_API_URL"], db) as opened:
        result = opened.verify(from_date=FIRST, to_date=LAST)
    assert str(day(4)) in result._repr_html_()
    assert "not verified" in result._repr_html_()


def started(env: Mapping[str, str], db: Path) -> Iterator["subprocess.Popen[bytes]"]:
    """Start verifications of one file that do not wait for the quota."""
    for _ in range(2):
        words = ["verify", *RANGE, "--db", str(db), "--max-wait", "0", "--quiet", "--tolerance", "1"]
        yield subprocess.Popen([*MPX, *words], env=env, stderr=subprocess.PIPE)


def test_processes_share_the_quota_of_queries(
    exported_env: Mapping[str, str], sim: Simulator, db: Path
) -> None:
    """Of two verifications with two requests each, not all fit into an hourly quota of three; no request is refused."""
    env = dict(exported_env) | {"MPX_QUERY_PER_HOUR": "3"}
    codes = []
    for process in list(started(env, db)):
        process.communicate(timeout=100)
        codes.append(process.returncode)
    assert set(codes) == {0, 5}
    assert len(sim.query_requests) == 3
    assert {log.status for log in sim.query_requests} == {200}
    assert "0 of 3 requests this hour" in mpx("quota", env=env).stdout


def test_an_imported_file_can_be_verified(exported_env: Mapping[str, str], db: Path) -> None:
    """Days that mixpanel_data wrote, which cannot be proven complete in another way."""
    query(db, "UPDATE _export_batches SET status = 'imported', project = '(unknown)'")
    with workspace(exported_env["MPX_API_URL"], db) as opened:
        checked(opened.verify(from_date=FIRST, to_date=LAST))
    change(db, MISSING)
    with workspace(exported_env["MPX_API_URL"], db) as opened:
        assert opened.verify(from_date=FIRST, to_date=LAST).failed_days == (str(day(4)),)
