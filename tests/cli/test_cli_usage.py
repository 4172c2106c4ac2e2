"""Invalid arguments, settings and files: `mpx` prints one line, and sends no request."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from shell import ALL, WEEK, held_by_another, mpx, one_error

from mixpanel_export import errors
from mixpanel_export._error_base import ARGUMENTS
from mixpanel_export.cli import in_options, option_of
from mixpanel_export.simulator import Simulator

# Usage and other bad input


def test_errors_name_options_and_not_arguments() -> None:
    """The command line names options where Python names arguments; the reason is the same."""
    spent = errors.RateLimitError(
        "no from_date\nhelps", advice="lower $max_workers or $per_hour", days="2024-01-01"
    )
    assert in_options(spent) == "2024-01-01: no from_date helps; lower --workers or --per-hour"
    assert in_options(spent, days=False) == "no from_date helps; lower --workers or --per-hour"
    swapped = errors.ArgumentError("to_date", "is too early", advice="swap $from_date and $to_date")
    assert in_options(swapped) == "--to is too early; swap --from and --to"


def test_every_argument_of_an_advice_is_an_option() -> None:
    """Each argument in advice, except the file's path and the table, is an option of a command."""
    options = {name for command in ALL.values() for parameter in command.params for name in parameter.opts}
    assert {option_of(argument) for argument in ARGUMENTS - {"path", "table"}} <= options


@pytest.mark.usefixtures("env")
def test_the_librarys_errors_come_in_the_words_of_the_command_line() -> None:
    """The library names its arguments, and the command line names its options."""
    swapped = mpx("export", "--from", "2024-03-02", "--to", "2024-03-01", "--parallel")
    assert one_error(swapped).startswith("Error: --to 2024-03-01")
    assert "leave out --append" in one_error(mpx("export", *WEEK, "--append"))
    mpx("export", *WEEK)
    assert "use --resume to add missing days, --append to add or refetch days, or --replace" in one_error(
        mpx("export", *WEEK)
    )


@pytest.mark.parametrize(
    "words, says",
    [
        ([], "--from"),
        (["--from", "2024-03-01", "--days", "3"], "--days"),
        (["--to", "soon"], "--to"),
        (["--days", "0"], "--days"),
        (["--replace"], "--from"),
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
    """Exit code 2, a line that names the mistake, no request, and no file."""
    result = mpx("export", *words)
    assert result.exit_code == 2
    assert says in one_error(result)
    assert not sim.requests


@pytest.mark.usefixtures("env")
def test_days_in_the_future_are_refused(sim: Simulator) -> None:
    """A range of days that have not begun in any time zone is rejected."""
    day = str((datetime.now(UTC) + timedelta(days=2)).date())
    result = mpx("export", "--from", day, "--to", day, "--parallel")
    assert result.exit_code == 2
    assert "future" in one_error(result)
    assert not sim.requests


@pytest.mark.usefixtures("env")
def test_missing_credentials_name_the_variables_and_the_demo(
    sim: Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Exit code 3, and advice for users without an account."""
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
    """Region, account, server and project are checked before the first request."""
    result = mpx("export", *WEEK, *words)
    assert result.exit_code == code
    assert says in one_error(result)
    assert not sim.requests


@pytest.mark.usefixtures("env")
def test_a_path_that_does_not_exist_is_an_error(sim: Simulator, tmp_path: Path) -> None:
    """A mistyped folder is reported before anything is fetched."""
    result = mpx("export", *WEEK, "--db", str(tmp_path / "no" / "folder" / "x.duckdb"))
    assert result.exit_code == 1
    assert "folder" in one_error(result)
    assert not sim.requests


@pytest.mark.usefixtures("env")
def test_a_file_of_another_kind_is_an_error(sim: Simulator, db: Path) -> None:
    """A file that is not a DuckDB database is left unchanged."""
    db.write_text("a,b\n1,2\n" * 2000, encoding="utf-8")
    result = mpx("export", *WEEK)
    assert result.exit_code == 1
    assert db.name in one_error(result)
    assert not sim.requests
    assert db.read_text(encoding="utf-8").startswith("a,b\n")


@pytest.mark.usefixtures("env")
def test_a_file_that_another_process_holds_is_an_error(sim: Simulator, db: Path) -> None:
    """The line names the process that has the file open."""
    with held_by_another(db) as holder:
        result = mpx("export", *WEEK)
    assert result.exit_code == 1
    assert str(holder.pid) in one_error(result)
    assert not sim.requests


@pytest.mark.usefixtures("env")
def test_a_project_secret_warns_in_one_line(sim: Simulator, monkeypatch: pytest.MonkeyPatch) -> None:
    """Warnings are text for people, without a file name or source line."""
    monkeypatch.delenv("MP_USERNAME")
    result = mpx("export", *WEEK)
    assert result.exit_code == 3
    assert result.stderr.splitlines()[0].startswith("Warning: a project secret is used")
    assert sim.requests
