"""What `mpx export` prints about waits and the quota, and how it writes durations."""

import shlex
from datetime import date
from pathlib import Path

import click
import pytest
from hypothesis import given
from hypothesis import strategies as st
from shell import NINE_DAYS, WEEK, mpx, small_table
from support import held, truth
from test_cli_failures import a_result

from mixpanel_export import errors
from mixpanel_export.cli.duration import duration_words, parse_duration
from mixpanel_export.cli.report import failure_lines
from mixpanel_export.cli.watch import WaitLines, watching
from mixpanel_export.results import BatchProgress, Progress
from mixpanel_export.simulator import Fault, Simulator

# Waits


def test_a_wait_is_due_once_and_not_soon_after_another() -> None:
    """Each long wait is one line in a log, and short ones are not logged."""
    now = 0.0
    waits = WaitLines(clock=lambda: now)
    said = []
    for now, waiting_for in [
        (0.0, None), (1.0, "44 min"), (1.1, "44 min"), (60.9, "43 min"), (61.0, "43 min"), (62.0, "42 min"),
        (63.0, None), (63.1, "a retry"), (64.0, "the quota"), (80.0, None), (81.0, "the quota"), (123.2, "the quota"),
    ]:  # fmt: skip
        if waits.due(waiting_for):
            said.append(now)
    assert said == [1.0, 63.1, 123.2]


def test_the_pace_of_the_quota_is_no_wait() -> None:
    """Every parallel export pauses for a second between requests, which is not logged."""
    waits = WaitLines(clock=lambda: 0.0)
    assert waits.due("the quota, 12 s")


def test_waits_are_lines_off_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    """One line says what the export is waiting for."""
    with watching("events") as (_, show):
        show(Progress(batches=2))
        show(Progress(batches=2, waiting_for="a retry (spent,\nhe said)"))
        show(Progress(batches=2, waiting_for="the quota", waiting_seconds=2640))
    with watching("events") as (_, show):
        show(Progress(batches=2, waiting_for="the quota", waiting_seconds=2640))
    assert capsys.readouterr().err.split("waiting for ")[1:] == [
        "a retry (spent, he said)\n  … ",
        "the quota, 44 min\n",
    ]


def test_waits_are_silent_where_nothing_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    """`--quiet` and `--no-progress` also hide waits."""
    with watching("events", shown=False, forecast=False) as (say, show):
        show(Progress(batches=2, quota_wait=2640, waiting_for="the quota", waiting_seconds=2640))
        say(BatchProgress("2024-01-01", "2024-01-02", 0, 1, 5, success=True))
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize("shown", [True, False])
def test_a_long_wait_is_forecast_once(capsys: pytest.CaptureFixture[str], shown: bool) -> None:
    """Without a terminal, the line comes first, even if batches are not shown; later ones would not be true."""
    with watching("events", shown=shown) as (_, show):
        show(Progress(batches=50, quota_left=12, quota_wait=3480))
        show(Progress(batches=50, quota_left=11, quota_wait=3470))
    assert capsys.readouterr().err == "50 requests planned, 12 left this hour: expect about 58 min\n"


@pytest.mark.usefixtures("env")
def test_a_retry_leaves_a_trace_in_a_log(sim: Simulator) -> None:
    """The log explains why an export took longer."""
    sim.faults = [Fault("500", times=1)]
    result = mpx("export", *WEEK)
    assert result.exit_code == 0
    wait, batch = result.stderr.splitlines()
    assert wait.startswith("  … waiting for a retry (")
    assert "Batch 1/1" in batch


# Failed batches


@pytest.mark.parametrize("words", [[], ["--parallel", "--chunk-days", "3"]])
@pytest.mark.parametrize("other, code", [("429", 5), ("500", 1)])
@pytest.mark.usefixtures("env")
def test_only_the_quota_is_exit_code_5(sim: Simulator, words: list[str], other: str, code: int) -> None:
    """If the quota caused every failure, a script may wait and continue, with one request or many."""
    sim.faults = [Fault(other, first=date(2024, 3, 9)), Fault("429", last=date(2024, 3, 6))]  # type: ignore[arg-type] # parametrize knows strings only
    result = mpx("export", *NINE_DAYS, *words, "--retries", "0", "--max-wait", "0", "-q")
    assert result.exit_code == code
    assert ("To fetch the rest, in " in result.stderr) == (code == 5)


@pytest.mark.usefixtures("env")
def test_what_the_quota_leaves_no_time_for_is_fetched_later(sim: Simulator, db: Path) -> None:
    """Exit code 5, one line for all those days, and a command with the earliest time that keeps the limits."""
    words = ["-p", "--chunk-days", "1", "--per-hour", "4", "--max-wait", "0.5m", "--idle-timeout", "90"]
    result = mpx("export", *NINE_DAYS, *words, "--no-progress")
    assert result.exit_code == 5
    assert small_table(result)["batches"] == "4 of 9"
    assert len(sim.requests) == 4
    lines = result.stderr.splitlines()
    assert lines[:3] == [
        "9 requests planned, 4 left this hour: expect about 2 h",
        "5 of 9 batches failed:",
        "  2024-03-01 to 2024-03-05: the quota is used up, and --max-wait is too short",
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
    """Consecutive days are one range; other failures have their own lines, and determine when to continue."""
    late = errors.RateLimitError("no request left", retry_after=600.0)
    ranges = [("2024-02-27", "2024-02-28"), ("2024-02-29", "2024-02-29"), ("2024-03-02", "2024-03-02")]
    fields: dict[str, object] = {"failed_batches": 3, "failed_date_ranges": tuple(ranges)}
    lines = failure_lines(a_result(**fields, errors=(late, late, late)), "mpx …")
    days = "2024-02-27 to 2024-02-29, 2024-03-02"
    assert lines[1:3] == [
        f"  {days}: the quota is used up, and --max-wait is too short",
        "To fetch the rest, in 10 min:",
    ]
    lines = failure_lines(a_result(**fields, errors=(late, errors.ServerError("broke"), late)), "mpx …")
    assert lines[1] == "  2024-02-29: broke"
    assert lines[2].startswith("  2024-02-27 to 2024-02-28, 2024-03-02: the quota")
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
    assert "sent no data" in result.stderr


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
    """The duration in the suggested command is parsed back into the same duration."""
    words = duration_words(seconds)
    assert parse_duration(click.Context(click.Command("any")), click.Option(["--any"]), words) == seconds
