"""The output, modes and selections of `mpx export`."""

import json
import re
import shlex
from dataclasses import replace
from datetime import date
from pathlib import Path

import click
import pytest
from hypothesis import given
from hypothesis import strategies as st
from shell import NINE_DAYS, WEEK, mpx, one_error, small_table
from support import held, query, truth

from mixpanel_export.cli import cli
from mixpanel_export.cli.event_names import event_words, parse_events
from mixpanel_export.cli.report import plan_lines
from mixpanel_export.results import ExportPlan
from mixpanel_export.simulator import Fault, Simulator

# The result, and what goes where


@pytest.mark.usefixtures("env")
def test_a_parallel_export_ends_in_a_small_table(sim: Simulator, db: Path) -> None:
    """The file contains exactly the simulator's events, and standard output has the summary."""
    result = mpx("export", *NINE_DAYS, "--parallel")
    assert result.exit_code == 0
    assert held(db) == truth(sim)
    rows = query(db, "SELECT count(*) FROM events")[0][0]
    shown = small_table(result)
    assert shown["table"] == "events"
    assert shown["database"] == str(db)
    assert shown["rows added"] == f"{rows:,}"
    assert shown["batches"] == "9 of 9"


@pytest.mark.usefixtures("env")
def test_each_batch_is_one_line_off_a_terminal() -> None:
    """A log has one numbered line for each batch, and nothing else."""
    result = mpx("export", *NINE_DAYS, "--parallel", "--chunk-days", "3")
    lines = result.stderr.splitlines()
    assert len(lines) == 3
    assert {re.match(r"  \S+ Batch (\d)/3: ", line)[1] for line in lines} == {"1", "2", "3"}  # type: ignore[index] # a mismatch fails
    assert any("2024-03-04 to 2024-03-06 (" in line for line in lines)


@pytest.mark.usefixtures("env")
def test_json_is_exactly_the_result() -> None:
    """`--json` prints only the keys of `to_dict()`, in their order, to standard output."""
    result = mpx("export", *WEEK, "--json")
    printed = json.loads(result.stdout)
    assert list(printed) == [
        "table",
        "total_rows",
        "successful_batches",
        "failed_batches",
        "failed_date_ranges",
        "duration_seconds",
        "fetched_at",
        "has_failures",
    ]
    assert (printed["successful_batches"], printed["has_failures"]) == (1, False)
    assert "duplicates: " in result.stderr


@pytest.mark.usefixtures("env")
def test_quiet_says_nothing_but_errors() -> None:
    """With `-q`, standard error is empty after a success, and has the error line after a failure."""
    assert mpx("export", *NINE_DAYS, "-q", "--json").stderr == ""
    assert "already exists" in one_error(mpx("export", *NINE_DAYS, "-q"))


@pytest.mark.usefixtures("env")
def test_no_progress_leaves_the_batches_out() -> None:
    """`--no-progress` hides batches, not hints."""
    result = mpx("export", *NINE_DAYS, "--no-progress")
    assert result.stderr.splitlines() == [
        "Exporting 9 days with one request; --parallel sends several at a time."
    ]


@pytest.mark.usefixtures("env")
def test_a_terminal_gets_bars(monkeypatch: pytest.MonkeyPatch) -> None:
    """If bars can be drawn, they replace the lines, and are not written to standard output."""
    # The streams of this process are no terminal.
    monkeypatch.setattr("mixpanel_export.progress.can_draw", lambda *_: True)
    result = mpx("export", *NINE_DAYS, "-p", "--chunk-days", "3")
    assert "events: 3/3 batches" in result.stderr
    assert "✓" not in result.stderr
    assert "batches |" not in result.stdout


@pytest.mark.usefixtures("env")
def test_verbose_logs_instead_of_bars(monkeypatch: pytest.MonkeyPatch) -> None:
    """With `-v`, log lines and bars would mix, so there are lines."""
    # The streams of this process are no terminal.
    monkeypatch.setattr("mixpanel_export.progress.can_draw", lambda *_: True)
    result = mpx("export", *WEEK, "-v")
    assert "batches |" not in result.stderr
    assert "Batch 1/1" in result.stderr


@pytest.mark.usefixtures("env")
def test_the_zone_is_an_option_before_a_variable(db: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`--project-timezone` overrides MPX_PROJECT_TIMEZONE, and the ledger records the zone."""
    monkeypatch.setenv("MPX_PROJECT_TIMEZONE", "Asia/Tokyo")
    assert mpx("export", "variable", *WEEK).exit_code == 0
    assert mpx("export", "option", *WEEK, "--project-timezone", "US/Pacific").exit_code == 0
    zones = "SELECT table_name, timezone FROM _export_batches ORDER BY batch"
    assert query(db, zones) == [("variable", "Asia/Tokyo"), ("option", "US/Pacific")]


@pytest.mark.usefixtures("env")
def test_a_variable_that_is_no_zone_is_one_line(sim: Simulator, monkeypatch: pytest.MonkeyPatch) -> None:
    """Exit code 3, a line with the variable and an example, and no request."""
    monkeypatch.setenv("MPX_PROJECT_TIMEZONE", "PST")
    result = mpx("export", *WEEK)
    assert result.exit_code == 3
    assert "'PST'; set MPX_PROJECT_TIMEZONE" in one_error(result)
    assert not sim.requests


@pytest.mark.usefixtures("env")
def test_the_command_that_goes_on_keeps_the_zone(sim: Simulator) -> None:
    """The command that fetches the missing days has the same zone, and completes the table."""
    sim.faults = [Fault("500", first=date(2024, 3, 7))]
    shape = ["-p", "--chunk-days", "1", "--retries", "0"]
    result = mpx("export", *WEEK, *shape, "--project-timezone", "US/Pacific")
    command = shlex.split(result.stderr.splitlines()[-1])
    assert command[command.index("--project-timezone") + 1] == "US/Pacific"
    sim.faults = []
    assert mpx(*command[1:]).exit_code == 0


# One request


@pytest.mark.usefixtures("env")
def test_without_parallel_there_is_one_request(sim: Simulator, db: Path) -> None:
    """The whole range is one request; if it has more than a week, a hint mentions a faster way."""
    result = mpx("export", *NINE_DAYS)
    assert result.exit_code == 0
    assert len(sim.requests) == 1
    assert held(db) == truth(sim)
    assert "9 days with one request; --parallel" in result.stderr
    assert "--parallel" not in mpx("export", "week", *WEEK).stderr


@pytest.mark.usefixtures("env")
def test_over_100_days_need_parallel(sim: Simulator) -> None:
    """One request for 101 days is refused before it is sent."""
    result = mpx("export", "--from", "2023-01-01", "--to", "2023-04-11")
    assert result.exit_code == 2
    assert "--parallel" in one_error(result)
    assert not sim.requests


@pytest.mark.parametrize("kind, code", [("400", 1), ("401", 3), ("403", 1)])
@pytest.mark.usefixtures("env")
def test_a_refused_export_exits_with_its_error(sim: Simulator, kind: str, code: int) -> None:
    """If Mixpanel rejects the whole export, there is one error line, and the exit code of its kind."""
    sim.faults = [Fault(kind)]  # type: ignore[arg-type] # parametrize knows strings only
    result = mpx("export", *WEEK, "--retries", "0", "--no-progress")
    assert result.exit_code == code
    assert one_error(result)


@pytest.mark.usefixtures("env")
def test_a_single_request_that_fails_is_reported_as_a_batch(sim: Simulator, db: Path) -> None:
    """The result, the summary and the command to continue are the same as with `--parallel`."""
    sim.faults = [Fault("500")]
    result = mpx("export", *WEEK, "--retries", "0", "--no-progress", "--json")
    assert result.exit_code == 1
    assert json.loads(result.stdout)["failed_date_ranges"] == [["2024-03-01", "2024-03-07"]]
    failed, error, _, command, last = result.stderr.splitlines()
    assert failed == "1 of 1 batches failed:"
    assert last == "No events were exported."
    assert error.startswith("  2024-03-01 to 2024-03-07: ")
    sim.faults = []
    assert mpx(*shlex.split(command)[1:]).exit_code == 0
    assert held(db) == truth(sim, last="2024-03-07")


@pytest.mark.usefixtures("env")
def test_a_limit_caps_the_one_request(db: Path) -> None:
    """`--limit` stores at most that many events, and no hint suggests options that it excludes."""
    result = mpx("export", *NINE_DAYS, "--limit", "5", "--no-dedupe")
    assert result.exit_code == 0
    assert query(db, "SELECT count(*) FROM events") == [(5,)]
    assert "--parallel" not in result.stderr


@pytest.mark.usefixtures("env")
def test_a_limit_over_too_many_days_does_not_ask_for_parallel() -> None:
    """Options that cannot be combined are not recommended."""
    result = mpx("export", "--from", "2023-01-01", "--to", "2023-04-11", "--limit", "5")
    assert result.exit_code == 2
    assert "--limit" in one_error(result)
    assert "--parallel" not in result.stderr


# Selections


@pytest.mark.usefixtures("env")
def test_events_select_by_name(sim: Simulator, db: Path) -> None:
    """`-e` accepts names separated by commas, and can be repeated; other events are not stored."""
    wanted = ["Sign Up", "Page View", 'Clicked "Buy now"']
    result = mpx("export", *NINE_DAYS, "-p", "-e", "Sign Up, Page View", "-e", json.dumps(wanted[1:]))
    assert result.exit_code == 0
    assert held(db) == truth(sim, events=wanted)


@pytest.mark.usefixtures("env")
def test_an_unknown_event_is_an_empty_success(db: Path) -> None:
    """Mixpanel does not report unknown names, so an empty result is not an error."""
    result = mpx("export", *WEEK, "-e", "No Such Event")
    assert result.exit_code == 0
    assert query(db, "SELECT count(*) FROM events") == [(0,)]


@given(st.lists(st.text(min_size=1).filter(str.strip), min_size=1, unique=True))
def test_any_event_names_survive_the_command_line(names: list[str]) -> None:
    """The one value for a list of names is parsed back into the same list."""
    option = cli.get_command(click.Context(cli), "export")
    assert option is not None
    assert parse_events(click.Context(option), option.params[0], (event_words(names),)) == names


@pytest.mark.parametrize("value", ["", " , ", "Page View,", "[", "[1]", '["a", ""]', "[]"])
def test_event_names_that_cannot_be_meant_are_refused(value: str) -> None:
    """An empty variable in a script does not export everything."""
    assert mpx("export", *WEEK, "-e", value).exit_code == 2


# Modes


@pytest.mark.usefixtures("env")
def test_the_four_modes(sim: Simulator, db: Path) -> None:
    """Create requires that there is no table, append and resume add to one, and replace replaces its days."""
    assert mpx("export", *WEEK, "--append").exit_code == 4
    assert mpx("export", *WEEK).exit_code == 0
    assert mpx("export", *WEEK).exit_code == 4
    assert mpx("export", "--from", "2024-03-08", "--to", "2024-03-08", "--append").exit_code == 0
    assert mpx("export", *NINE_DAYS, "--resume").exit_code == 0
    assert held(db) == truth(sim)
    assert len(sim.requests) == 3
    assert mpx("export", *WEEK, "--replace", "--yes").exit_code == 0
    assert held(db) == truth(sim, last="2024-03-07")


@pytest.mark.usefixtures("env")
def test_resume_with_nothing_to_fetch_says_so(sim: Simulator) -> None:
    """A complete table needs no request, and the result explains the zeros."""
    mpx("export", *WEEK)
    before = len(sim.requests)
    result = mpx("export", *WEEK, "--resume")
    assert result.exit_code == 0
    assert "none to fetch" in result.stdout
    assert len(sim.requests) == before


@pytest.mark.usefixtures("env")
def test_rows_that_take_the_place_of_earlier_ones_are_said_to(db: Path) -> None:
    """Days that are fetched again add no rows to the table; the output must not look as if nothing was received."""
    mpx("export", *WEEK)
    rows = query(db, "SELECT count(*) FROM events")[0][0]
    result = mpx("export", *WEEK, "--append")
    assert small_table(result)["rows added"] == f"0 (and {rows:,} replaced)"
    assert small_table(mpx("export", *WEEK, "--replace"))["rows added"] == f"{rows:,}"


# Plans


def test_a_plan_says_why_it_has_few_requests() -> None:
    """The reason is printed if earlier batches predict a short export, and only then."""
    plan = ExportPlan("events", (("2024-03-01", "2024-03-10"),), (), (), 10, 50, 0.0, 3.2)
    assert any("at most 4 s" in line for line in plan_lines(plan, "x.duckdb", 60.0))
    assert not any(
        "why" in line for line in plan_lines(replace(plan, one_request_seconds=None), "x.duckdb", 60.0)
    )
