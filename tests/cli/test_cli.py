"""`mpx export` as a shell sees it: words, channels and exit codes."""

import json
import re
import shlex
import signal
import subprocess
import sys
from collections.abc import Mapping
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import click
import pytest
from click.testing import CliRunner, Result
from hypothesis import given
from hypothesis import strategies as st
from shell import MPX, held_by_another, mpx, one_error
from support import held, query, truth

from mixpanel_export import errors
from mixpanel_export._advice import ARGUMENTS
from mixpanel_export.cli import COMMANDS, Mpx, cli, in_options, option_of, program
from mixpanel_export.cli.duration import duration_words, parse_duration
from mixpanel_export.cli.export import command as export
from mixpanel_export.cli.export import parse_events
from mixpanel_export.cli.report import event_words, failure_lines, result_lines
from mixpanel_export.cli.watch import WaitLines, watching
from mixpanel_export.results import BatchProgress, ParallelFetchResult, Progress
from mixpanel_export.simulator import Fault, Simulator

WEEK = ["--from", "2024-03-01", "--to", "2024-03-07"]
NINE_DAYS = ["--from", "2024-03-01", "--to", "2024-03-09"]


def small_table(result: Result) -> dict[str, str]:
    """Return what standard output says, by its names."""
    return {line[:10].rstrip(): line[10:].strip() for line in result.stdout.splitlines()}


# The result, and what goes where


@pytest.mark.usefixtures("env")
def test_a_parallel_export_ends_in_a_small_table(sim: Simulator, db: Path) -> None:
    """The file holds exactly the simulator's events, and standard output says what was done."""
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
    """A log shows one line a batch, numbered to the total, and nothing else."""
    result = mpx("export", *NINE_DAYS, "--parallel", "--chunk-days", "3")
    lines = result.stderr.splitlines()
    assert len(lines) == 3
    assert {re.match(r"  \S+ Batch (\d)/3: ", line)[1] for line in lines} == {"1", "2", "3"}  # type: ignore[index] # a mismatch fails
    assert any("2024-03-04 to 2024-03-06 (" in line for line in lines)


@pytest.mark.usefixtures("env")
def test_json_is_exactly_the_result() -> None:
    """`--json` puts the keys of `to_dict()`, in their order, on standard output and nothing else."""
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
    """`-q` leaves standard error empty when all is well, and keeps the error line when it is not."""
    assert mpx("export", *NINE_DAYS, "-q", "--json").stderr == ""
    assert "already exists" in one_error(mpx("export", *NINE_DAYS, "-q"))


@pytest.mark.usefixtures("env")
def test_no_progress_leaves_the_batches_out() -> None:
    """`--no-progress` silences batches, not hints."""
    result = mpx("export", *NINE_DAYS, "--no-progress")
    assert result.stderr.splitlines() == [
        "Exporting 9 days with one request; --parallel makes several at a time."
    ]


@pytest.mark.usefixtures("env")
def test_a_terminal_gets_bars(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where bars can be drawn they take the place of the lines, and stay off standard output."""
    monkeypatch.setattr("mixpanel_export.progress.can_draw", lambda *_: True)
    result = mpx("export", *NINE_DAYS, "-p", "--chunk-days", "3")
    assert "events: 3/3 batches" in result.stderr
    assert "✓" not in result.stderr
    assert "batches |" not in result.stdout


@pytest.mark.usefixtures("env")
def test_verbose_logs_instead_of_bars(monkeypatch: pytest.MonkeyPatch) -> None:
    """With `-v` lines and bars would run into each other, so there are lines."""
    monkeypatch.setattr("mixpanel_export.progress.can_draw", lambda *_: True)
    result = mpx("export", *WEEK, "-v")
    assert "batches |" not in result.stderr
    assert "Batch 1/1" in result.stderr


@pytest.mark.usefixtures("env")
def test_the_zone_is_an_option_before_a_variable(db: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`--project-timezone` wins over MPX_PROJECT_TIMEZONE, and the ledger says which zone it was."""
    monkeypatch.setenv("MPX_PROJECT_TIMEZONE", "Asia/Tokyo")
    assert mpx("export", "variable", *WEEK).exit_code == 0
    assert mpx("export", "option", *WEEK, "--project-timezone", "US/Pacific").exit_code == 0
    zones = "SELECT table_name, timezone FROM _export_batches ORDER BY batch"
    assert query(db, zones) == [("variable", "Asia/Tokyo"), ("option", "US/Pacific")]


@pytest.mark.usefixtures("env")
def test_a_variable_that_is_no_zone_is_one_line(sim: Simulator, monkeypatch: pytest.MonkeyPatch) -> None:
    """Exit code 3, a line that names the variable and an example, no request."""
    monkeypatch.setenv("MPX_PROJECT_TIMEZONE", "PST")
    result = mpx("export", *WEEK)
    assert result.exit_code == 3
    assert "'PST'; set MPX_PROJECT_TIMEZONE" in one_error(result)
    assert not sim.requests


@pytest.mark.usefixtures("env")
def test_the_command_that_goes_on_keeps_the_zone(sim: Simulator) -> None:
    """The command that fetches what is missing has the zone that was typed, and completes the table."""
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
    """The whole range is one request, and over a week a hint says that there is a faster way."""
    result = mpx("export", *NINE_DAYS)
    assert result.exit_code == 0
    assert len(sim.requests) == 1
    assert held(db) == truth(sim)
    assert "9 days with one request; --parallel" in result.stderr
    assert "--parallel" not in mpx("export", "week", *WEEK).stderr


@pytest.mark.usefixtures("env")
def test_over_100_days_need_parallel(sim: Simulator) -> None:
    """One request for 101 days is refused before it is made."""
    result = mpx("export", "--from", "2023-01-01", "--to", "2023-04-11")
    assert result.exit_code == 2
    assert "--parallel" in one_error(result)
    assert not sim.requests


@pytest.mark.parametrize("kind, code", [("400", 1), ("401", 3), ("403", 1)])
@pytest.mark.usefixtures("env")
def test_a_refused_export_exits_with_its_error(sim: Simulator, kind: str, code: int) -> None:
    """Where Mixpanel refuses the export as a whole there is one error line, and the exit code of its kind."""
    sim.faults = [Fault(kind)]  # type: ignore[arg-type] # parametrize knows strings only
    result = mpx("export", *WEEK, "--retries", "0", "--no-progress")
    assert result.exit_code == code
    assert one_error(result)


@pytest.mark.usefixtures("env")
def test_a_single_request_that_fails_is_reported_as_a_batch(sim: Simulator, db: Path) -> None:
    """The result, the summary and the command that goes on are there as with `--parallel`."""
    sim.faults = [Fault("500")]
    result = mpx("export", *WEEK, "--retries", "0", "--no-progress", "--json")
    assert result.exit_code == 1
    assert json.loads(result.stdout)["failed_date_ranges"] == [["2024-03-01", "2024-03-07"]]
    failed, error, _, command, last = result.stderr.splitlines()
    assert failed == "1 of 1 batches failed:"
    assert last.removeprefix("No events were exported: ") == error.removeprefix(
        "  2024-03-01 to 2024-03-07: "
    )
    sim.faults = []
    assert mpx(*shlex.split(command)[1:]).exit_code == 0
    assert held(db) == truth(sim, last="2024-03-07")


@pytest.mark.usefixtures("env")
def test_a_limit_caps_the_one_request(db: Path) -> None:
    """`--limit` stores at most that many events, and no hint says to add what excludes it."""
    result = mpx("export", *NINE_DAYS, "--limit", "5", "--no-dedupe")
    assert result.exit_code == 0
    assert query(db, "SELECT count(*) FROM events") == [(5,)]
    assert "--parallel" not in result.stderr


@pytest.mark.usefixtures("env")
def test_a_limit_over_too_many_days_does_not_ask_for_parallel() -> None:
    """What cannot be combined is not recommended."""
    result = mpx("export", "--from", "2023-01-01", "--to", "2023-04-11", "--limit", "5")
    assert result.exit_code == 2
    assert "--limit" in one_error(result)
    assert "--parallel" not in result.stderr


# Selections


@pytest.mark.usefixtures("env")
def test_events_select_by_name(sim: Simulator, db: Path) -> None:
    """`-e` takes names with commas between, and again; the rest is not stored."""
    wanted = ["Sign Up", "Page View", 'Clicked "Buy now"']
    result = mpx("export", *NINE_DAYS, "-p", "-e", "Sign Up, Page View", "-e", json.dumps(wanted[1:]))
    assert result.exit_code == 0
    assert held(db) == truth(sim, events=wanted)


@pytest.mark.usefixtures("env")
def test_an_unknown_event_is_an_empty_success(db: Path) -> None:
    """Mixpanel does not know which names exist, so nothing found is no error."""
    result = mpx("export", *WEEK, "-e", "No Such Event")
    assert result.exit_code == 0
    assert query(db, "SELECT count(*) FROM events") == [(0,)]


@given(st.lists(st.text(min_size=1).filter(str.strip), min_size=1, unique=True))
def test_any_event_names_survive_the_command_line(names: list[str]) -> None:
    """The one value that stands for a list of names is read back as that list."""
    option = cli.get_command(click.Context(cli), "export")
    assert option is not None
    assert parse_events(click.Context(option), option.params[0], (event_words(names),)) == names


@pytest.mark.parametrize("value", ["", " , ", "[", "[1]", '["a", ""]', "[]"])
def test_event_names_that_cannot_be_meant_are_refused(value: str) -> None:
    """An empty variable in a script must not export everything."""
    assert mpx("export", *WEEK, "-e", value).exit_code == 2


# Modes


@pytest.mark.usefixtures("env")
def test_the_four_modes(sim: Simulator, db: Path) -> None:
    """Create wants no table, append and resume add to one, replace puts the new days in its place."""
    assert mpx("export", *WEEK, "--append").exit_code == 4
    assert mpx("export", *WEEK).exit_code == 0
    assert mpx("export", *WEEK).exit_code == 4
    assert mpx("export", "--from", "2024-03-08", "--to", "2024-03-08", "--append").exit_code == 0
    assert mpx("export", *NINE_DAYS, "--resume").exit_code == 0
    assert held(db) == truth(sim)
    assert len(sim.requests) == 3
    assert mpx("export", *WEEK, "--replace").exit_code == 0
    assert held(db) == truth(sim, last="2024-03-07")


@pytest.mark.usefixtures("env")
def test_resume_with_nothing_to_fetch_says_so(sim: Simulator) -> None:
    """A complete table costs no request, and the result explains the zeros."""
    mpx("export", *WEEK)
    before = len(sim.requests)
    result = mpx("export", *WEEK, "--resume")
    assert result.exit_code == 0
    assert "none to fetch" in result.stdout
    assert len(sim.requests) == before


@pytest.mark.usefixtures("env")
def test_rows_that_take_the_place_of_earlier_ones_are_said_to(db: Path) -> None:
    """Days fetched again add nothing to the table, which must not look as if nothing had come."""
    mpx("export", *WEEK)
    rows = query(db, "SELECT count(*) FROM events")[0][0]
    result = mpx("export", *WEEK, "--append")
    assert small_table(result)["rows added"] == f"0 (and {rows:,} replaced)"
    assert small_table(mpx("export", *WEEK, "--replace"))["rows added"] == f"{rows:,}"


# Waits


def test_a_wait_is_due_when_it_begins_and_once_a_minute() -> None:
    """Each wait leaves a trace in a log, and none floods it."""
    now = 0.0
    waits = WaitLines(clock=lambda: now)
    said = []
    for now, waiting_for in [
        (0.0, None), (1.0, "44 min"), (1.1, "44 min"), (60.9, "43 min"), (61.0, "43 min"), (62.0, "42 min"),
        (63.0, None), (63.1, "a new attempt"), (64.0, "the quota"), (123.2, "the quota"),
    ]:  # fmt: skip
        if waits.due(waiting_for):
            said.append(now)
    assert said == [1.0, 61.0, 63.1, 123.2]


def test_the_pace_of_the_quota_is_no_wait() -> None:
    """Every parallel export pauses for a second between requests, which is nothing to log."""
    waits = WaitLines(clock=lambda: 0.0)
    assert waits.due("the quota, 12 s")


def test_waits_are_lines_off_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    """One line says what the export waits for."""
    with watching("events") as (_, show):
        show(Progress(batches=2))
        show(Progress(batches=2, waiting_for="a new attempt after: spent,\nhe said"))
        show(Progress(batches=2, waiting_for="the quota", waiting_seconds=2640))
    with watching("events") as (_, show):
        show(Progress(batches=2, waiting_for="the quota", waiting_seconds=2640))
    assert capsys.readouterr().err.split("waiting for ")[1:] == [
        "a new attempt after: spent, he said\n  … ",
        "the quota, 44 min\n",
    ]


def test_waits_are_silent_where_nothing_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    """`--quiet` and `--no-progress` count for waits too."""
    with watching("events", shown=False, forecast=False) as (say, show):
        show(Progress(batches=2, quota_wait=2640, waiting_for="the quota", waiting_seconds=2640))
        say(BatchProgress("2024-01-01", "2024-01-02", 0, 1, 5, success=True))
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize("shown", [True, False])
def test_a_long_wait_is_forecast_once(capsys: pytest.CaptureFixture[str], shown: bool) -> None:
    """Off a terminal the line comes first, and also where batches are not shown; later ones would not be true."""
    with watching("events", shown=shown) as (_, show):
        show(Progress(batches=50, quota_left=12, quota_wait=3480))
        show(Progress(batches=50, quota_left=11, quota_wait=3470))
    assert capsys.readouterr().err == "50 requests planned, 12 left this hour: expect about 58 min\n"


@pytest.mark.usefixtures("env")
def test_a_retry_leaves_a_trace_in_a_log(sim: Simulator) -> None:
    """An export that comes late says why."""
    sim.faults = [Fault("500", times=1)]
    result = mpx("export", *WEEK)
    assert result.exit_code == 0
    wait, batch = result.stderr.splitlines()
    assert wait.startswith("  … waiting for a new attempt after: ")
    assert "Batch 1/1" in batch


# Failed batches


@pytest.mark.parametrize("words", [[], ["--parallel", "--chunk-days", "3"]])
@pytest.mark.parametrize("other, code", [("429", 5), ("500", 1)])
@pytest.mark.usefixtures("env")
def test_only_the_quota_is_exit_code_5(sim: Simulator, words: list[str], other: str, code: int) -> None:
    """A script may wait and go on where every failure is the quota's, in one request or many."""
    sim.faults = [Fault(other, first=date(2024, 3, 9)), Fault("429", last=date(2024, 3, 6))]  # type: ignore[arg-type] # parametrize knows strings only
    result = mpx("export", *NINE_DAYS, *words, "--retries", "0", "--max-wait", "0", "-q")
    assert result.exit_code == code
    assert ("To fetch the rest, in " in result.stderr) == (code == 5)


@pytest.mark.usefixtures("env")
def test_what_the_quota_leaves_no_time_for_is_fetched_later(sim: Simulator, db: Path) -> None:
    """Exit code 5, one line for all those days, and a command that says when and keeps the limits typed."""
    words = ["-p", "--chunk-days", "1", "--per-hour", "4", "--max-wait", "0.5m", "--idle-timeout", "90"]
    result = mpx("export", *NINE_DAYS, *words, "--no-progress")
    assert result.exit_code == 5
    assert small_table(result)["batches"] == "4 of 9"
    assert len(sim.requests) == 4
    lines = result.stderr.splitlines()
    assert lines[:3] == [
        "9 requests planned, 4 left this hour: expect about 2 h",
        "5 of 9 batches failed:",
        "  2024-03-05 to 2024-03-09: the quota is spent, and --max-wait is too short to wait for more",
    ]
    assert lines[3] in {
        "To fetch the rest, in 60 min:",
        "To fetch the rest, in 59 min:",
    }
    command = shlex.split(lines[4])
    assert command[-7:] == ["--per-hour", "4", "--max-wait", "30s", "--idle-timeout", "90s", "--no-progress"]
    assert mpx(*command[1:], "--per-hour", "0").exit_code == 0
    assert held(db) == truth(sim)


def test_days_that_are_late_are_told_in_one_line() -> None:
    """Days that follow each other are one range; other failures keep a line each, and decide when to go on."""
    late = errors.RateLimitError("no request left", retry_after=600.0)
    ranges = [("2024-02-27", "2024-02-28"), ("2024-02-29", "2024-02-29"), ("2024-03-02", "2024-03-02")]
    fields: dict[str, object] = {"failed_batches": 3, "failed_date_ranges": tuple(ranges)}
    lines = failure_lines(a_result(**fields, errors=(late, late, late)), "mpx …")
    late_days = (
        "  2024-02-27 to 2024-02-29, 2024-03-02 to 2024-03-02: the quota is spent, and --max-wait is too "
    )
    assert lines[1:3] == [f"{late_days}short to wait for more", "To fetch the rest, in 10 min:"]
    lines = failure_lines(a_result(**fields, errors=(late, errors.ServerError("broke"), late)), "mpx …")
    assert lines[1] == "  2024-02-29 to 2024-02-29: broke"
    assert lines[2].startswith("  2024-02-27 to 2024-02-28, 2024-03-02 to 2024-03-02: the quota")
    assert lines[3] == "To fetch the rest:"


@pytest.mark.parametrize(
    "kind, option", [("stall", "--idle-timeout"), ("stall_before_head", "--first-byte-timeout")]
)
@pytest.mark.usefixtures("env")
def test_a_silent_connection_is_given_up_after_the_timeout(sim: Simulator, kind: str, option: str) -> None:
    """Each kind of silence has its own option."""
    sim.faults = [Fault(kind)]  # type: ignore[arg-type] # parametrize knows strings only
    result = mpx("export", *WEEK, "--retries", "0", option, "0.2s", "-q")
    assert result.exit_code == 1
    assert "went silent" in result.stderr


@pytest.mark.parametrize(
    "text, seconds",
    [("0", 0), ("90", 90), ("90s", 90), (" 1.5m ", 90), ("2h", 7200), ("2 h", 7200), ("1d", 86_400), ("0.001", 0.001)],
)  # fmt: skip
def test_durations_are_written_as_people_do(text: str, seconds: float) -> None:
    """Seconds, or a number with a unit."""
    option = click.Option(["--any"])
    assert parse_duration(click.Context(click.Command("any")), option, text) == pytest.approx(seconds)


@given(st.integers(0, 10**9).map(lambda thousandths: thousandths / 1000))
def test_any_duration_survives_the_command_line(seconds: float) -> None:
    """What the command that goes on says of a duration is read back as the same."""
    words = duration_words(seconds)
    assert parse_duration(click.Context(click.Command("any")), click.Option(["--any"]), words) == seconds


@pytest.mark.usefixtures("env")
def test_a_failed_batch_is_reported_with_the_command_that_fetches_it(sim: Simulator, db: Path) -> None:
    """The others are in the table, the exit code is 1, and the printed command completes the table exactly."""
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
    """The last line is what a person or a cron mail reads first."""
    sim.faults = [Fault("500")]
    result = mpx("export", *NINE_DAYS, "-p", "--chunk-days", "3", "--retries", "0", "--json")
    assert result.exit_code == 1
    assert json.loads(result.stdout)["has_failures"] is True
    last = result.stderr.splitlines()[-1]
    assert last.startswith("No events were exported: ")
    assert last.removeprefix("No events were exported: ") in result.stderr.splitlines()[-6]


@pytest.mark.usefixtures("env")
def test_a_failed_replacement_is_asked_for_again_as_a_whole(sim: Simulator, db: Path) -> None:
    """The old table stays until the new one is whole, and the printed command gets it there."""
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
    """Days added, duplicates, rejects and repairs are said, and only then."""
    assert len(result_lines(a_result(), "x.duckdb")) == 5
    lines = result_lines(
        a_result(
            added_date_ranges=(("2024-01-01", "2024-01-02"),), removed_duplicates=1200, rejects=2, repaired=3
        ),
        "x.duckdb",
    )
    assert [re.split(r"  +", line)[0] for line in lines[5:]] == [
        "days added",
        "duplicates",
        "rejects",
        "repaired",
    ]
    assert "2024-01-01 to 2024-01-02" in lines[5]
    assert "1,200 removed" in lines[6]


def test_one_kept_batch_is_not_several() -> None:
    """A failed replacement says what is kept in plain grammar."""
    failed = a_result(failed_batches=1, failed_date_ranges=(("a", "b"),), errors=(errors.ServerError("x"),))
    assert "; 1 batch is kept, " in failure_lines(failed, "mpx …", replacing=True)[2]
    assert not any("kept" in line for line in failure_lines(failed, "mpx …"))


def test_an_error_of_several_lines_stays_one_line() -> None:
    """A server's answer may have line breaks; the summary keeps a line for each range."""
    result = a_result(
        failed_batches=1,
        failed_date_ranges=(("2024-01-01", "2024-01-02"),),
        errors=(errors.ServerError("it said\n  <html>\n"),),
    )
    assert failure_lines(result, "mpx …")[1] == "  2024-01-01 to 2024-01-02: it said <html>"


# Usage and other bad input


def test_errors_name_options_and_not_arguments() -> None:
    """The command line names options where Python names arguments; the reason stays as it is."""
    spent = errors.RateLimitError(
        "no from_date\nhelps", advice="lower $max_workers or $per_hour", days="2024-01-01"
    )
    assert in_options(spent) == "2024-01-01: no from_date helps; lower --workers or --per-hour"
    assert in_options(spent, days=False) == "no from_date helps; lower --workers or --per-hour"
    swapped = errors.ArgumentError("to_date", "is too early", advice="swap $from_date and $to_date")
    assert in_options(swapped) == "--to is too early; swap --from and --to"


def test_every_argument_of_an_advice_is_an_option() -> None:
    """What advice may name can be typed: each argument but the file's path is an option of `mpx export`."""
    options = {name for parameter in export.params for name in parameter.opts}
    assert {option_of(argument) for argument in ARGUMENTS - {"path", "table"}} <= options


@pytest.mark.usefixtures("env")
def test_the_librarys_errors_come_in_the_words_of_the_command_line() -> None:
    """The library names its arguments, and the shell's door its own."""
    swapped = mpx("export", "--from", "2024-03-02", "--to", "2024-03-01", "--parallel")
    assert one_error(swapped).startswith("Error: --to 2024-03-01")
    assert "leave out --append" in one_error(mpx("export", *WEEK, "--append"))
    mpx("export", *WEEK)
    assert "use --resume to complete it, --append to add days, or --replace" in one_error(
        mpx("export", *WEEK)
    )


@pytest.mark.parametrize(
    "words, says",
    [
        ([], "--from"),
        (["--from", "2024-03-01"], "--to"),
        ([*WEEK, "--parallel", "--limit", "5"], "--limit"),
        ([*WEEK, "--append", "--replace"], "choose one"),
        ([*WEEK, "--resume", "--replace"], "choose one"),
        ([*WEEK, "--workers", "5"], "--parallel"),
        ([*WEEK, "--chunk-days", "5"], "--parallel"),
        ([*WEEK, "-p", "--workers", "0"], "--workers"),
        ([*WEEK, "-p", "--workers", "101"], "--workers"),
        ([*WEEK, "-p", "--chunk-days", "0"], "--chunk-days"),
        ([*WEEK, "-p", "--chunk-days", "101"], "--chunk-days"),
        ([*WEEK, "--limit", "0"], "--limit"),
        ([*WEEK, "--limit", "100001"], "--limit"),
        ([*WEEK, "--retries", "-1"], "--retries"),
        ([*WEEK, "--per-hour", "x"], "--per-hour"),
        ([*WEEK, "--max-wait", "-1"], "--max-wait"),
        ([*WEEK, "--max-wait", "soon"], "write it as 90s, 30m, 2h or 1d"),
        ([*WEEK, "--max-wait", "1e3"], "--max-wait"),
        ([*WEEK, "--max-wait", "inf"], "--max-wait"),
        ([*WEEK, "--idle-timeout", "0"], "'--idle-timeout'"),
        ([*WEEK, "--first-byte-timeout", "0m"], "--first-byte-timeout"),
        ([*WEEK, "--nonsense"], "--nonsense"),
        (["a b", *WEEK], "a b"),
        (["_events", *WEEK], "_events"),
        (["--from", "2024-03-02", "--to", "2024-03-01"], "2024-03-02"),
        (["--from", "2024-3-1", "--to", "2024-03-02"], "2024-3-1"),
        (["--from", "2024-02-30", "--to", "2024-03-02"], "2024-02-30"),
        ([*WEEK, "--project-timezone", "PDT"], "--project-timezone must be an IANA name such as US/Pacific"),
    ],
)
@pytest.mark.usefixtures("env")
def test_wrong_usage_is_one_line_and_costs_no_request(sim: Simulator, words: list[str], says: str) -> None:
    """Exit code 2, a line that names the culprit, no request, no file."""
    result = mpx("export", *words)
    assert result.exit_code == 2
    assert says in one_error(result)
    assert not sim.requests


@pytest.mark.usefixtures("env")
def test_days_in_the_future_are_refused(sim: Simulator) -> None:
    """A range of days that have begun nowhere on earth is refused."""
    day = str((datetime.now(UTC) + timedelta(days=2)).date())
    result = mpx("export", "--from", day, "--to", day, "--parallel")
    assert result.exit_code == 2
    assert "future" in one_error(result)
    assert not sim.requests


@pytest.mark.usefixtures("env")
def test_missing_credentials_name_the_variables_and_the_demo(
    sim: Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Exit code 3, and what to do without an account."""
    for name in ("MP_USERNAME", "MP_SECRET", "MP_PROJECT_ID"):
        monkeypatch.delenv(name)
    result = mpx("export", *WEEK)
    assert result.exit_code == 3
    assert "MP_USERNAME" in one_error(result)
    assert "mpx demo" in one_error(result)
    assert not sim.requests


@pytest.mark.parametrize(
    "words, code, says",
    [
        (["--region", "mars"], 3, "mars"),
        (["--account", "nobody"], 4, "nobody"),
        (["--api-url", "http://example.com"], 3, "https"),
        (["--project-id", "../x"], 3, "../x"),
    ],
)
@pytest.mark.usefixtures("env")
def test_settings_that_cannot_work_cost_no_request(
    sim: Simulator, words: list[str], code: int, says: str
) -> None:
    """Region, account, server and project are checked before anything is asked."""
    result = mpx("export", *WEEK, *words)
    assert result.exit_code == code
    assert says in one_error(result)
    assert not sim.requests


@pytest.mark.usefixtures("env")
def test_a_path_that_does_not_exist_is_an_error(sim: Simulator, tmp_path: Path) -> None:
    """A mistyped folder is said before anything is fetched."""
    result = mpx("export", *WEEK, "--db", str(tmp_path / "no" / "folder" / "x.duckdb"))
    assert result.exit_code == 1
    assert "folder" in one_error(result)
    assert not sim.requests


@pytest.mark.usefixtures("env")
def test_a_file_of_another_kind_is_an_error(sim: Simulator, db: Path) -> None:
    """What is no DuckDB file is left as it is."""
    db.write_text("a,b\n1,2\n" * 2000, encoding="utf-8")
    result = mpx("export", *WEEK)
    assert result.exit_code == 1
    assert db.name in one_error(result)
    assert not sim.requests
    assert db.read_text(encoding="utf-8").startswith("a,b\n")


@pytest.mark.usefixtures("env")
def test_a_file_that_another_process_holds_is_an_error(sim: Simulator, db: Path) -> None:
    """The line names the process that has to let go."""
    with held_by_another(db) as holder:
        result = mpx("export", *WEEK)
    assert result.exit_code == 1
    assert str(holder.pid) in one_error(result)
    assert not sim.requests


@pytest.mark.usefixtures("env")
def test_a_project_secret_warns_in_one_line(sim: Simulator, monkeypatch: pytest.MonkeyPatch) -> None:
    """Warnings are words for people here, without a file name or a line of source."""
    monkeypatch.delenv("MP_USERNAME")
    result = mpx("export", *WEEK)
    assert result.exit_code == 3
    assert result.stderr.splitlines()[0].startswith("Warning: a project secret is used")
    assert sim.requests


# The group


@pytest.mark.parametrize(
    "error, code",
    [
        (errors.MixpanelDataError("x"), 1),
        (errors.ServerError("x"), 1),
        (errors.LedgerMismatchError("x", batch=1), 1),
        (errors.DatabaseLockedError("x", db_path="x", holding_pid=1), 1),
        (OSError("x"), 1),
        (ValueError("x"), 2),
        (errors.AuthenticationError("x"), 3),
        (errors.ConfigError("x"), 3),
        (errors.AccountExistsError("x", account_name="a"), 4),
        (errors.AccountNotFoundError("x", account_name="a", available_accounts=[]), 4),
        (errors.TableExistsError("x", table_name="t"), 4),
        (errors.TableNotFoundError("x", table_name="t"), 4),
        (errors.DatabaseNotFoundError("x", db_path="x"), 4),
        (errors.RateLimitError("x"), 5),
        (KeyboardInterrupt(), 130),
    ],
)
def test_errors_become_exit_codes_in_one_place(error: BaseException, code: int) -> None:
    """Each kind of error has its exit code, and never a traceback."""

    def fails() -> None:
        raise error

    class Failing(Mpx):
        def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command:  # noqa: ARG002 - click's
            return click.Command(cmd_name, callback=fails)

    result = CliRunner().invoke(Failing("mpx"), ["any"])
    assert result.exit_code == code
    assert isinstance(result.exception, SystemExit)
    assert result.stderr.strip() == ("Interrupted." if code == 130 else "Error: x")


@pytest.mark.parametrize("words", [["--help"], *[[name, "--help"] for name in COMMANDS]])
def test_help_is_quick(words: list[str]) -> None:
    """Help loads no HTTP client, no database, no bars and no simulator."""
    code = (
        "import sys\n"
        "from mixpanel_export.cli import cli\n"
        f"try: cli({words!r}, prog_name='mpx')\n"
        "except SystemExit: pass\n"
        "heavy = {'httpx', 'duckdb', 'tqdm', 'anyio', 'mixpanel_export.simulator'} & set(sys.modules)\n"
        "sys.exit(f'help imported {heavy}' if heavy else 0)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "Usage: mpx" in done.stdout


@pytest.mark.parametrize("name", COMMANDS)
def test_every_option_has_help_and_every_command_an_example(name: str) -> None:
    """Nobody has to read the source to use an option."""
    command = cli.get_command(click.Context(cli), name)
    assert command is not None
    assert all(option.help for option in command.params if isinstance(option, click.Option))
    assert f"  mpx {name}" in (command.epilog or "")


def test_an_unknown_command_is_one_line() -> None:
    """A typing error does not print a page."""
    result = mpx("exprot")
    assert result.exit_code == 2
    assert "exprot" in one_error(result)


def test_the_version_is_the_distributions() -> None:
    """`--version` names the release."""
    assert re.search(r"\d+\.\d+\.\d+", mpx("--version").stdout)


def test_the_program_is_named_as_it_can_be_typed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`mpx` where the shell finds this one; else the path, from here where it is below here."""
    script = tmp_path / "venv" / "bin" / "mpx"
    script.parent.mkdir(parents=True)
    script.touch(mode=0o755)
    found: str | None = None
    monkeypatch.setattr("shutil.which", lambda _: found)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", [str(script)])
    relative = str(Path("venv", "bin", "mpx"))
    assert program() == relative
    monkeypatch.setattr(sys, "argv", [relative])
    assert program() == relative
    found = str(tmp_path / "another" / "mpx")
    assert program() == relative
    found = str(script)
    assert program() == "mpx"


# Processes


def test_ctrl_c_keeps_whole_batches_and_says_how_to_go_on(
    sim: Simulator, env: Mapping[str, str], db: Path
) -> None:
    """Exit code 130, one line without a traceback, and its command completes the table."""
    sim.faults = [Fault("stall", first=date(2024, 3, 4), last=date(2024, 3, 4))]
    words = ["export", *NINE_DAYS, "-p", "--chunk-days", "3"]
    with subprocess.Popen([*MPX, *words], env=env, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        first = process.stderr.readline()  # one batch is in the table, another will never be
        process.send_signal(signal.SIGINT)
        rest = process.stderr.read().splitlines()
    assert process.returncode == 130
    assert "Batch" in first
    assert "Traceback" not in rest
    last = rest[-1]
    assert last.startswith("Interrupted; complete batches are kept. To continue: mpx export events ")
    sim.faults = []
    done = len(sim.requests)
    assert mpx(*shlex.split(last.partition("To continue: ")[2])[1:]).exit_code == 0
    assert len(sim.requests) < done + 3
    assert held(db) == truth(sim)


def test_a_reader_that_goes_away_is_no_traceback(env: Mapping[str, str]) -> None:
    """`mpx export | head -0` ends quietly."""
    with subprocess.Popen(
        [*MPX, "export", *WEEK], env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert "Traceback" not in process.stderr.read()
    assert process.returncode == 1


@pytest.mark.parametrize("ending", ["SystemExit(130)", "KeyboardInterrupt()"])
def test_an_interrupted_command_ends_whatever_threads_are_left(ending: str) -> None:
    """Ctrl-C pressed again may leave threads that nobody ends any more; the process does not wait for them."""
    code = f"""
import threading
from mixpanel_export import cli
def interrupted(prog_name):
    print("said", flush=False)
    raise {ending}
cli.cli = interrupted
threading.Thread(target=threading.Event().wait).start()
cli.main()
"""
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, timeout=30, check=False)
    assert (ended.returncode, ended.stdout.strip()) == (130, b"said")
