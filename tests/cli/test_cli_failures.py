"""What `mpx export` prints about failed batches, and about days to fetch later."""

import json
import re
import shlex
from datetime import UTC, date, datetime
from pathlib import Path

import pytest
from shell import NINE_DAYS, WEEK, mpx, small_table
from support import held, truth

from mixpanel_export import errors
from mixpanel_export.cli.report import failure_lines, result_lines
from mixpanel_export.results import ParallelFetchResult
from mixpanel_export.simulator import Fault, Simulator


@pytest.mark.usefixtures("env")
def test_a_failed_batch_is_reported_with_the_command_that_fetches_it(sim: Simulator, db: Path) -> None:
    """The other batches are in the table, the exit code is 1, and the printed command completes the table exactly."""
    sim.faults = [Fault("500", first=date(2024, 3, 4), last=date(2024, 3, 6))]
    words = ["-p", "--chunk-days", "3", "-e", "Sign Up,Page View", "--retries", "0"]
    result = mpx("export", "some", *NINE_DAYS, *words)
    assert result.exit_code == 1
    assert small_table(result)["batches"] == "2 of 3"
    lines = result.stderr.splitlines()
    summary = lines[lines.index("1 of 3 batches failed:") :]
    assert summary[1].startswith("  2024-03-04 to 2024-03-06: ")
    command = shlex.split(summary[3])
    assert command[:8] == ["mpx", "export", "some", "--from", "2024-03-04", "--to", "2024-03-06", "--db"]
    assert command[8:] == [
        str(db), "--resume", "--events", "Sign Up,Page View", "--parallel", "--chunk-days", "3", "--retries", "0",
    ]  # fmt: skip
    sim.faults = []
    before = len(sim.requests)
    assert mpx(*command[1:]).exit_code == 0
    assert len(sim.requests) == before + 1
    assert held(db, "some") == truth(sim, events=["Sign Up", "Page View"])


@pytest.mark.usefixtures("env")
def test_where_all_batches_fail_the_last_line_says_that_nothing_came(sim: Simulator) -> None:
    """The last line is what users and readers of cron mails read first."""
    sim.faults = [Fault("500")]
    result = mpx("export", *NINE_DAYS, "-p", "--chunk-days", "3", "--retries", "0", "--json")
    assert result.exit_code == 1
    assert json.loads(result.stdout)["has_failures"] is True
    assert result.stderr.splitlines()[-1] == "No events were exported."


@pytest.mark.usefixtures("env")
def test_a_failure_is_told_once(sim: Simulator) -> None:
    """The line of the batch says that it failed, and the final summary says why."""
    sim.faults = [Fault("500", first=date(2024, 3, 9))]
    result = mpx("export", *NINE_DAYS, "-p", "--chunk-days", "3", "--retries", "0")
    assert result.exit_code == 1
    assert re.search(r"Batch \d/3: 2024-03-07 to 2024-03-09 failed$", result.stderr, re.MULTILINE)
    assert result.stderr.count("2024-03-07 to 2024-03-09: ") == 1


@pytest.mark.usefixtures("env")
def test_a_failed_replacement_is_asked_for_again_as_a_whole(sim: Simulator, db: Path) -> None:
    """The old table stays until the new one is complete, and the printed command completes it."""
    mpx("export", *WEEK)
    sim.faults = [Fault("500", first=date(2024, 3, 9))]
    result = mpx("export", *NINE_DAYS, "-p", "--chunk-days", "3", "--replace", "--retries", "0")
    assert result.exit_code == 1
    assert held(db) == truth(sim, last="2024-03-07")
    lines = result.stderr.splitlines()
    assert (
        lines[-3]
        == "events is unchanged; 2 batches are kept, and the table is replaced once the rest has arrived."
    )
    command = shlex.split(lines[-1])
    assert command[3:7] == NINE_DAYS
    assert "--replace" in command
    sim.faults = []
    assert mpx(*command[1:]).exit_code == 0
    assert held(db) == truth(sim)


def a_result(**fields: object) -> ParallelFetchResult:
    usual: dict[str, object] = {
        "table": "events",
        "total_rows": 0,
        "successful_batches": 1,
        "failed_batches": 0,
        "failed_date_ranges": (),
        "duration_seconds": 1.0,
        "fetched_at": datetime(2024, 1, 1, tzinfo=UTC),
    }
    return ParallelFetchResult(**(usual | fields))  # type: ignore[arg-type] # a dictionary of any fields


def test_remarks_appear_when_there_is_something_to_remark() -> None:
    """Added days, duplicates, rejects and repairs are printed only if there are any."""
    assert len(result_lines(a_result(), "x.duckdb")) == 5
    lines = result_lines(
        a_result(
            added_date_ranges=(("2024-01-01", "2024-01-02"),), removed_duplicates=1200, rejects=2, repaired=3
        ),
        "x.duckdb",
    )
    assert [re.split(r"  +", line)[0] for line in lines[5:]] == [
        "also fetched",
        "duplicates",
        "rejects",
        "repaired",
    ]
    assert "2024-01-01 to 2024-01-02" in lines[5]
    assert "1,200 removed" in lines[6]


def test_one_kept_batch_is_not_several() -> None:
    """The summary of a failed replacement uses the singular for one batch."""
    failed = a_result(failed_batches=1, failed_date_ranges=(("a", "b"),), errors=(errors.ServerError("x"),))
    assert "; 1 batch is kept, " in failure_lines(failed, "mpx …", replacing=True)[2]
    assert not any("kept" in line for line in failure_lines(failed, "mpx …"))


def test_an_error_of_several_lines_stays_one_line() -> None:
    """A server's response may have line breaks; the summary has one line for each range."""
    result = a_result(
        failed_batches=1,
        failed_date_ranges=(("2024-01-01", "2024-01-02"),),
        errors=(errors.ServerError("it said\n  <html>\n"),),
    )
    assert failure_lines(result, "mpx …")[1] == "  2024-01-01 to 2024-01-02: it said <html>"
