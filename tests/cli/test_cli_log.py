"""`--log-format json` and quiet runs under cron: standard error is machine-readable, or empty."""

import json
import shlex
import signal
import subprocess
import warnings
from collections.abc import Mapping
from datetime import date, datetime
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from shell import MPX, mpx, one_error
from support import held, truth

from mixpanel_export.cli.watch import PROGRESS_EVENT_EVERY, Events
from mixpanel_export.errors import RateLimitError
from mixpanel_export.results import BatchProgress, Progress
from mixpanel_export.simulator import Fault, Simulator

NINE_DAYS = ["--from", "2024-03-01", "--to", "2024-03-09"]
THREES = ["--parallel", "--chunk-days", "3"]
JSON = ["--log-format", "json"]


def events(text: str) -> list[dict[str, Any]]:
    """Return the events of a log, each of which is an object on a line that begins with its name and time."""
    found = [json.loads(line) for line in text.splitlines()]
    assert all(list(event)[:2] == ["event", "time"] for event in found)
    assert all(datetime.fromisoformat(event["time"]).tzinfo for event in found)
    return found


def names(result: Result) -> list[str]:
    return [event["event"] for event in events(result.stderr)]


@pytest.mark.usefixtures("env")
def test_an_export_is_told_in_events() -> None:
    """There are events for the plan, each batch and the result, with stable keys; standard output is unchanged."""
    result = mpx("export", *NINE_DAYS, *THREES, *JSON, "--json")
    plan, *batches, end = events(result.stderr)
    assert list(plan)[2:] == ["table", "batches", "quota_left", "quota_wait"]
    assert (plan["event"], plan["table"], plan["batches"]) == ("plan", "events", 3)
    assert [event["event"] for event in batches] == ["batch"] * 3
    assert list(batches[0])[2:] == [
        "table", "from_date", "to_date", "batch_index", "total_batches", "rows", "success", "error",
    ]  # fmt: skip
    printed = json.loads(result.stdout)
    assert {key: end[key] for key in printed} == printed
    assert list(end)[2 + len(printed) :] == [
        "removed_duplicates", "rejects", "repaired", "added_date_ranges", "errors", "command",
    ]  # fmt: skip
    assert sum(batch["rows"] for batch in batches) == printed["total_rows"]


@pytest.mark.usefixtures("env")
def test_retries_waits_and_failures_are_events(sim: Simulator) -> None:
    """A program sees why an export takes longer, what failed, and what to run next."""
    sim.faults = [Fault("500", first=date(2024, 3, 9))]
    result = mpx("export", *NINE_DAYS, *THREES, *JSON, "--retries", "1")
    assert result.exit_code == 1
    found = events(result.stderr)
    assert {"wait", "retry"} <= {event["event"] for event in found}
    wait = next(event for event in found if event["event"] == "wait")
    assert wait["waiting_for"].startswith("a retry (Mixpanel responded with status 500")
    (failed,) = [event for event in found if event.get("success") is False]
    assert "Mixpanel responded with status 500" in failed["error"]
    end = found[-1]
    assert (end["event"], end["failed_batches"]) == ("result", 1)
    assert [error["code"] for error in end["errors"]] == ["SERVER_ERROR"]
    assert shlex.split(end["command"])[:3] == ["mpx", "export", "events"]
    sim.faults = []
    again = mpx(*shlex.split(end["command"])[1:], *JSON)
    assert events(again.stderr)[-1]["command"] is None


@pytest.mark.usefixtures("env")
def test_a_retry_is_told_in_events_too(sim: Simulator) -> None:
    """If there is nothing to fetch, there is a note."""
    sim.faults = [Fault("500", first=date(2024, 3, 9))]
    mpx("export", *NINE_DAYS, *THREES, "--retries", "0", "-q")
    sim.faults = []
    assert names(mpx("retry", *JSON, "--chunk-days", "3")) == ["plan", "batch", "result"]
    assert names(mpx("retry", *JSON)) == ["note"]


def test_the_demo_is_told_in_events(tmp_path: Path) -> None:
    """The comparison stays on standard output."""
    words = ["--days", "1", "--events-per-day", "50", "--db", str(tmp_path / "demo.duckdb")]
    result = mpx("demo", *words, *JSON)
    found = [name for name in names(result) if name not in {"wait", "progress"}]
    assert found == ["note", "note", "plan", "batch", "note", "result"]
    assert {event["table"] for event in events(result.stderr) if event["event"] != "note"} == {"events"}
    assert "compared  identical" in result.stdout


@pytest.mark.parametrize(
    "words, code, error",
    [
        (["--to", "2024-02-01"], 2, "ValueError"),
        (["--region", "mars"], 3, "CONFIG_ERROR"),
        (["--append"], 4, "TABLE_NOT_FOUND"),
        (["--append", "--replace"], 2, "USAGE"),
        (["--limit", "many"], 2, "USAGE"),
    ],
)
@pytest.mark.usefixtures("env")
def test_an_error_is_an_event_with_its_code(words: list[str], code: int, error: str) -> None:
    """The last line has the error; the exit code is the same as without the option."""
    result = mpx("export", *NINE_DAYS, *JSON, *words)
    assert result.exit_code == code
    last = events(result.stderr)[-1]
    assert (last["event"], last["code"]) == ("error", error)
    assert "\n" not in last["message"]


@pytest.mark.usefixtures("env")
def test_hints_warnings_and_the_log_are_events(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every line for people becomes a JSON line, even an unusual warning."""
    assert events(mpx("export", *NINE_DAYS, *JSON).stderr)[0]["event"] == "note"

    def resolve(*_: object, **__: object) -> None:
        warnings.warn("others may read it", stacklevel=2)
        raise ValueError("so it ends")

    # No real step warns and then fails for sure.
    monkeypatch.setattr("mixpanel_export.credentials.resolve_credentials", resolve)
    result = mpx("export", *NINE_DAYS, *JSON)
    assert [(event["event"], event["message"]) for event in events(result.stderr)] == [
        ("warning", "others may read it"),
        ("error", "so it ends"),
    ]
    monkeypatch.undo()


@pytest.mark.usefixtures("env")
def test_verbose_logs_are_events(sim: Simulator) -> None:
    """Each record has its level."""
    sim.faults = [Fault("500", times=1)]
    found = events(mpx("export", *NINE_DAYS, *JSON, "-v").stderr)
    logged = [event for event in found if event["event"] == "log"]
    assert logged
    assert {event["level"] for event in logged} <= {"DEBUG", "INFO", "WARNING"}


def test_events_come_now_and_then_and_not_twice(capsys: pytest.CaptureFixture[str]) -> None:
    """The plan is logged once, each retry, a wait at its start and every minute, and the totals every ten seconds."""
    now = 0.0
    watch = Events("t", clock=lambda: now)
    for moment, progress in [
        (0.0, Progress(batches=9, quota_left=60)),
        (1.0, Progress(batches=9, retries=1, waiting_for="the\nquota", waiting_seconds=50)),
        (2.0, Progress(batches=9, retries=1, waiting_for="the quota", waiting_seconds=49)),
        (PROGRESS_EVENT_EVERY, Progress(batches=9, rows=70, retries=3)),
        (PROGRESS_EVENT_EVERY + 1, Progress(batches=9, rows=80, retries=3)),
        (2 * PROGRESS_EVENT_EVERY, Progress(batches=9, rows=90, retries=3)),
    ]:  # fmt: skip
        now = moment
        watch.log_progress(progress)
    spent = RateLimitError("spent", advice="lower $per_hour", days="a to b")
    watch.log_batch(BatchProgress("a", "b", 0, 1, 0, success=False, errors=(spent,)))
    found = events(capsys.readouterr().err)
    assert [event["event"] for event in found] == [
        "plan", "retry", "wait", "retry", "progress", "progress", "batch",
    ]  # fmt: skip
    assert (found[2]["waiting_for"], found[2]["waiting_seconds"]) == ("the quota", 50)
    assert [event["rows"] for event in found[4:6]] == [70, 90]
    assert found[-1]["error"] == "spent; lower --per-hour"


@pytest.mark.usefixtures("env")
def test_without_progress_there_is_the_plan_and_the_result(sim: Simulator) -> None:
    """`--no-progress` omits the events between them."""
    sim.faults = [Fault("500", times=1)]
    assert names(mpx("export", *NINE_DAYS, *THREES, *JSON, "--no-progress")) == ["plan", "result"]


def test_ctrl_c_is_an_event(sim: Simulator, env: Mapping[str, str], db: Path) -> None:
    """The event has the command to continue; the exit code is 130."""
    sim.faults = [Fault("stall", first=date(2024, 3, 4), last=date(2024, 3, 4))]
    with subprocess.Popen(
        [*MPX, "export", *NINE_DAYS, *THREES, *JSON], env=env, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stderr is not None
        while json.loads(process.stderr.readline())["event"] != "batch":
            pass
        process.send_signal(signal.SIGINT)
        last = events(process.stderr.read())[-1]
    assert process.returncode == 130
    assert (last["event"], last["code"]) == ("error", "INTERRUPTED")
    sim.faults = []
    assert mpx(*shlex.split(last["message"].partition("To continue: ")[2])[1:]).exit_code == 0
    assert held(db) == truth(sim)


# Cron


@pytest.mark.usefixtures("env")
def test_quiet_is_silent_when_all_went_well(db: Path, sim: Simulator) -> None:
    """Both streams are empty, so that cron sends no mail; --json still prints the result."""
    for words in ([], [*THREES, "--resume"], [*THREES, *JSON, "--replace"]):
        result = mpx("export", *NINE_DAYS, *words, "-q")
        assert (result.exit_code, result.stdout, result.stderr) == (0, "", "")
    result = mpx("export", *NINE_DAYS, "--append", "-q", "--json")
    assert json.loads(result.stdout)["successful_batches"] == 1
    assert not result.stderr
    assert held(db) == truth(sim)


@pytest.mark.usefixtures("env")
def test_quiet_is_one_line_when_something_failed(sim: Simulator) -> None:
    """Standard error has the first reason, the number of other failures, and the command."""
    sim.faults = [Fault("500", first=date(2024, 3, 4), last=date(2024, 3, 9))]
    result = mpx("export", *NINE_DAYS, *THREES, "--retries", "0", "-q")
    assert result.exit_code == 1
    line = one_error(result)
    assert line.startswith(
        "Error: 2 of 3 batches failed: 2024-03-04 to 2024-03-06: Mixpanel responded with status 500"
    )
    assert " (and 1 other range). To fetch the rest: mpx export events --from 2024-03-04" in line
    again = mpx("export", *NINE_DAYS, *THREES, *JSON, "--retries", "0", "-q", "--resume")
    assert [event["event"] for event in events(again.stderr)] == ["result"]
