"""`mpx export --dry-run`: it describes exactly what the export would do, and changes nothing."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from datetime import date
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import anyio
import duckdb
import pytest
from click.testing import CliRunner, Result
from examples import slow
from shell import held_by_another, served
from support import export, ledger, query, simulator

from mixpanel_export._quota.file import quota_file
from mixpanel_export._quota.shared import Key, SharedQuota
from mixpanel_export.cli import cli
from mixpanel_export.cli.report import plan_lines
from mixpanel_export.results import ExportPlan
from mixpanel_export.simulator import Fault, Simulator

WEEK = ["--from", "2024-03-01", "--to", "2024-03-07"]
NINE_DAYS = ["--from", "2024-03-01", "--to", "2024-03-09"]
MIDDLE = ["--from", "2024-03-05", "--to", "2024-03-06"]


@pytest.fixture
def sim() -> Simulator:
    return simulator()


@pytest.fixture
def url(sim: Simulator, db: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The address of *sim*, in an environment in which `mpx` exports from it into *db*."""
    for name in list(os.environ):
        if name.startswith(("MP_", "MPX_")) and name != "MPX_STATE_DIR":
            monkeypatch.delenv(name)
    with served(sim) as url:
        settings = {
            "MPX_API_URL": url,
            "MP_USERNAME": "demo.mp-service-account",
            "MP_SECRET": "demo-secret",
            "MP_PROJECT_ID": "12345",
            "MP_CONFIG_PATH": str(db.with_name("config.toml")),
            "MPX_DB": str(db),
            "MPX_PER_SECOND": "0",
        }
        for name, value in settings.items():
            monkeypatch.setenv(name, value)
        yield url


@pytest.fixture
def db(tmp_path: Path) -> Path:
    return tmp_path / "data" / "events.duckdb"


@pytest.fixture(autouse=True)
def _folder(db: Path) -> None:
    db.parent.mkdir()


def mpx(*words: str) -> Result:
    """Run `mpx export` in this process; a traceback is a failure of the test."""
    result = CliRunner().invoke(cli, ["export", *words], prog_name="mpx")
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def planned(*words: str) -> dict[str, Any]:
    """Return the plan of a dry run."""
    result = mpx(*words, "--dry-run", "--json")
    assert result.exit_code == 0, result.stderr
    plan: dict[str, Any] = json.loads(result.stdout)
    return plan


def files(folder: Path) -> dict[Path, tuple[int, bytes]]:
    """Return every file below *folder*, when it was changed and what is in it."""
    return {
        path: (path.stat().st_mtime_ns, path.read_bytes()) for path in folder.rglob("*") if path.is_file()
    }


def asked(sim: Simulator, since: int = 0) -> list[list[str]]:
    """Return the days of the requests that came after the first *since*, by date."""
    return sorted([str(request.first), str(request.last)] for request in sim.requests[since:])


# What it says


@pytest.mark.parametrize(
    "before, words",
    [
        ([[*MIDDLE]], [*NINE_DAYS, "-p", "--resume"]),
        ([[*WEEK]], [*MIDDLE, "-p", "--append"]),
        ([[*WEEK]], [*NINE_DAYS, "-p", "--replace"]),
        *slow(
            [
                ([], NINE_DAYS),
                ([], [*NINE_DAYS, "-p"]),
                ([], [*NINE_DAYS, "-p", "--chunk-days", "2", "--resume"]),
                ([], [*NINE_DAYS, "-p", "--replace"]),
                ([[*MIDDLE]], [*NINE_DAYS, "--resume"]),
                ([[*WEEK]], [*WEEK, "-p", "--resume"]),
                ([[*WEEK, "--limit", "5"]], [*NINE_DAYS, "-p", "--append"]),
            ]
        ),
        ([[*WEEK], ["dropped", *WEEK]], ["dropped", *WEEK, "-p", "--resume"]),
    ],
)
@pytest.mark.usefixtures("url")
def test_the_plan_is_what_the_export_then_does(
    sim: Simulator, db: Path, before: list[list[str]], words: list[str]
) -> None:
    """In every mode, and for every table, the planned requests are those that are sent."""
    for earlier in before:
        assert mpx(*earlier).exit_code == 0
        if earlier[0] == "dropped":
            with duckdb.connect(str(db)) as connection:
                connection.execute("DROP TABLE dropped")
    plan, since = planned(*words), len(sim.requests)
    result = mpx(*words, "--json")
    assert plan["date_ranges"] == asked(sim, since)
    assert result.exit_code == 0
    added = plan["added_date_ranges"]
    assert ("also fetched: " in result.stderr) == bool(added)
    assert all(first in result.stderr and last in result.stderr for first, last in added)


@pytest.mark.usefixtures("url")
def test_a_failed_replacement_is_gone_on_with(sim: Simulator) -> None:
    """Days that an earlier attempt fetched are skipped, as in the export."""
    mpx(*WEEK)
    words = [*NINE_DAYS, "-p", "--chunk-days", "3", "--replace", "--retries", "0"]
    sim.faults = [Fault("500", first=date(2024, 3, 9))]
    assert mpx(*words).exit_code == 1
    plan = planned(*words)
    assert plan["date_ranges"] == [["2024-03-07", "2024-03-09"]]
    assert plan["skipped_date_ranges"] == [["2024-03-01", "2024-03-06"]]
    other = planned(*WEEK, "-p", "--replace", "--chunk-days", "7")
    assert other["date_ranges"] == [["2024-03-01", "2024-03-07"]]


@pytest.mark.usefixtures("url")
def test_it_is_a_small_table_and_a_line_a_request() -> None:
    """Standard output has the plan, and standard error says that nothing was exported."""
    mpx(*MIDDLE)
    result = mpx(*WEEK, "-p", "--chunk-days", "3", "--resume", "--dry-run")
    assert result.exit_code == 0
    assert [line.split("  ", 1)[0] for line in result.stdout.splitlines()[:6]] == [
        "table", "database", "requests", "skipped", "quota", "estimate",
    ]  # fmt: skip
    assert result.stdout.splitlines()[2:] == [
        "requests  3, for 5 days",
        "skipped   2024-03-05 to 2024-03-06 (already in the table)",
        "quota     59 requests left this hour",
        "estimate  no wait for the quota",
        "  2024-03-01 to 2024-03-03  3 days",
        "  2024-03-04 to 2024-03-04  1 day",
        "  2024-03-07 to 2024-03-07  1 day",
    ]
    assert result.stderr == "Dry run: nothing was requested, and no file was changed.\n"
    assert mpx(*MIDDLE, "--resume", "--dry-run", "-q").stderr == ""
    assert "none; the table already has these days" in mpx(*MIDDLE, "--resume", "--dry-run").stdout


def test_the_estimate_is_that_of_the_quota(url: str) -> None:
    """Requests of other exports count, the plan uses the remaining quota, and the wait is printed."""
    quota = SharedQuota(Key(urlsplit(url).netloc, "12345"), 0, 0)
    for _ in range(59):
        quota.take_slot()
    plan = planned(*WEEK, "-p")
    assert (plan["quota_left"], len(plan["date_ranges"]), plan["quota_wait"]) == (1, 1, 0)
    plan = planned(*WEEK, "-p", "--chunk-days", "1")
    assert len(plan["date_ranges"]) == 7
    assert 3500 < plan["quota_wait"] <= 3605
    estimate = mpx(*WEEK, "-p", "--chunk-days", "1", "--dry-run", "--max-wait", "30m").stdout.splitlines()[4]
    assert estimate == "estimate  about 60 min of waiting for the quota, more than --max-wait (30 min) allows"


def test_an_unlimited_project_has_no_estimate() -> None:
    """The text is correct without a limit, and if an earlier batch must be fetched again."""
    plan = ExportPlan("t", (("2024-03-01", "2024-03-02"),), (), (("2024-03-02", "2024-03-02"),), 2, None, 0)
    assert plan_lines(plan, "x.duckdb", 0)[2:] == [
        "requests      1, for 2 days",
        "also fetched  2024-03-02 (in the same batch as a requested day)",
        "quota         no limit",
        "estimate      no wait for the quota",
        "  2024-03-01 to 2024-03-02  2 days",
    ]


# What it leaves alone


@pytest.mark.parametrize("mode", [[], ["--resume"], ["--replace"]])
@pytest.mark.usefixtures("url")
def test_without_a_file_it_plans_from_nothing_and_makes_none(
    sim: Simulator, db: Path, mode: list[str]
) -> None:
    """There is no request, no database and no quota file."""
    assert planned(*NINE_DAYS, *mode)["date_ranges"] == [["2024-03-01", "2024-03-09"]]
    assert not sim.requests
    assert not list(db.parent.iterdir())
    assert not quota_file().exists()
    db.touch()  # as tempfile does
    assert planned(*NINE_DAYS, *mode)["days"] == 9
    assert not db.stat().st_size


@pytest.mark.parametrize("mode", ["--replace", *slow(["--resume", "--append"])])
@pytest.mark.usefixtures("url")
def test_it_changes_no_file_and_takes_no_quota(sim: Simulator, db: Path, mode: str) -> None:
    """The database and the quota file stay identical, even if the export would replace the table."""
    mpx(*WEEK)
    mpx("dropped", *WEEK)
    with duckdb.connect(str(db)) as connection:
        connection.execute("DROP TABLE dropped")
    before = files(db.parent), files(quota_file().parent), len(sim.requests)
    assert planned(*NINE_DAYS, mode)["table"] == "events"
    if mode != "--append":
        assert planned("dropped", *NINE_DAYS, mode)["days"] == 9
    assert (files(db.parent), files(quota_file().parent), len(sim.requests)) == before


@pytest.mark.usefixtures("url")
def test_what_a_killed_export_left_is_read_and_kept(db: Path) -> None:
    """A log that DuckDB has not yet written into the file counts, and is kept for the next writer."""
    mpx(*WEEK)
    code = (
        "import duckdb, os, sys\n"
        f"c = duckdb.connect({str(db)!r})\n"
        "c.execute('DELETE FROM events')\n"
        "c.execute('DELETE FROM _export_batches')\n"
        "os._exit(0)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
    before = files(db.parent)
    assert len(before) == 2
    assert planned(*WEEK, "--resume")["days"] == 7
    assert files(db.parent) == before


# What it refuses


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file with one batch, the sign-ups of a week."""
    db = tmp_path_factory.mktemp("exported") / "events.duckdb"
    days = "2024-03-01", "2024-03-07"
    anyio.run(partial(export, simulator(), db, *days, events=["Sign Up"], one_request=True))
    return db


@pytest.mark.parametrize(
    "sql, words",
    [
        ("", []),
        ("", ["--resume"]),
        ("", ["nothing", "--append"]),
        ("", ["--resume", "-e", "Sign Up", "--project-timezone", "US/Pacific"]),
        ("", ["--append", "--limit", "5", "--parallel"]),
        ("DELETE FROM events", ["--resume", "-e", "Sign Up"]),
        ("DROP TABLE _export_batches", ["--append"]),
        ("CREATE VIEW seen AS SELECT 1", ["seen", "--resume"]),
        ("CREATE TABLE other (a INTEGER)", ["other", "--replace"]),
        ("CREATE TABLE other (a INTEGER)", ["other"]),
        ("COMMENT ON TABLE _export_batches IS 'mixpanel_export ledger 99'", ["--resume"]),
        *slow([("", ["--append", "-e", "Sign Up", "--limit", "5"]), ("", ["--project-timezone", "Nowhere"])]),
    ],
)
@pytest.mark.usefixtures("url")
def test_what_the_export_would_refuse_is_refused_alike(
    sim: Simulator, db: Path, exported: Path, sql: str, words: list[str]
) -> None:
    """The line and the exit code are the same for every error in the table, selection or ledger; nothing is requested."""
    shutil.copy(exported, db)
    if sql:
        query(db, sql)
    before = files(db.parent)
    dry = mpx(*words, *NINE_DAYS, "--dry-run", "-q")
    assert files(db.parent) == before
    real = mpx(*words, *NINE_DAYS, "-q")
    assert (dry.exit_code, dry.stderr, dry.stdout) == (real.exit_code, real.stderr, real.stdout)
    assert dry.exit_code
    assert dry.stderr.startswith("Error: ")
    assert sim.requests == []
    assert len(ledger(db)) == 1 if "_export_batches" not in sql else True


@pytest.mark.parametrize("content", [None, b"a,b\n1,2\n" * 2000])
@pytest.mark.usefixtures("url")
def test_a_file_that_cannot_be_one_is_refused_alike(db: Path, content: bytes | None) -> None:
    """A missing folder and a file of another kind cause the same error as an export."""
    if content is None:
        db.parent.rmdir()
    else:
        db.write_bytes(content)
    dry, real = mpx(*WEEK, "--dry-run"), mpx(*WEEK)
    assert (dry.exit_code, dry.stderr) == (real.exit_code, real.stderr) == (1, real.stderr)


@pytest.mark.usefixtures("url")
def test_a_file_that_another_process_writes_is_refused_alike(db: Path, exported: Path) -> None:
    """The error names the process, because no plan is possible while it writes."""
    shutil.copy(exported, db)
    with held_by_another(db) as holder:
        result = mpx(*WEEK, "--resume", "--dry-run")
    assert result.exit_code == 1
    assert f"process {holder.pid}" in result.stderr
