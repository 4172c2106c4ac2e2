"""The days that `mpx export` requests if one or both dates are not given."""

import re
from collections.abc import Mapping
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pytest
from shell import mpx, one_error
from support import held, query

from mixpanel_export import Workspace
from mixpanel_export._model import Chunk
from mixpanel_export.cli.date_range import chosen_days
from mixpanel_export.errors import ArgumentError
from mixpanel_export.simulator import Fault, Simulator

DAY = timedelta(days=1)
TODAY = date(2024, 3, 31)
PARALLEL = ["--parallel", "--resume", "--no-progress"]


def ago(days: int) -> str:
    """Return the day so many days before today, in UTC."""
    return str(datetime.now(UTC).date() - days * DAY)


def ranges(sim: Simulator) -> set[tuple[str, str]]:
    """Return first and last day of each request."""
    return {(str(request.first), str(request.last)) for request in sim.requests}


def no_day() -> date:
    raise AssertionError("the ledger must not be asked")


@pytest.mark.parametrize(
    "first, last, number, expected",
    [
        ("2024-03-01", "2024-03-02", None, Chunk(date(2024, 3, 1), date(2024, 3, 2))),
        ("2024-03-01", None, None, Chunk(date(2024, 3, 1), TODAY - DAY)),
        ("today", None, None, Chunk(TODAY, TODAY)),
        ("last-month", "last-month", None, Chunk(date(2024, 2, 1), date(2024, 2, 29))),
        (None, None, 30, Chunk(date(2024, 3, 1), TODAY - DAY)),
        (None, "2024-02", 29, Chunk(date(2024, 2, 1), date(2024, 2, 29))),
    ],
)
def test_days_end_yesterday_unless_told(
    first: str | None, last: str | None, number: int | None, expected: Chunk
) -> None:
    """`--days` counts back from the last day; a first day after yesterday is also the last day."""
    assert chosen_days(first, last, number, TODAY, no_day) == expected


def test_the_table_tells_the_first_day() -> None:
    """Without --from and --days, it is the first missing day; if that is after the last day, there is nothing to do."""
    assert chosen_days(None, None, None, TODAY, lambda: date(2024, 3, 4)) == Chunk(
        date(2024, 3, 4), date(2024, 3, 30)
    )
    assert chosen_days(None, None, None, TODAY, lambda: TODAY) is None


@pytest.mark.usefixtures("env")
def test_an_export_continues_where_the_table_ends(sim: Simulator) -> None:
    """The second command needs no days: it fetches failed, open and new days, up to yesterday."""
    assert mpx("export", "--from", "-9d", "--to", "-5d", *PARALLEL, "--chunk-days", "1").exit_code == 0
    sim.requests.clear()
    assert mpx("export", *PARALLEL, "--chunk-days", "1").exit_code == 0
    assert ranges(sim) == {(ago(days), ago(days)) for days in range(1, 5)}


@pytest.mark.usefixtures("env")
def test_an_empty_filter_is_no_other_selection(sim: Simulator) -> None:
    """`--where ''` exports all events, so the ledger determines the first day."""
    assert mpx("export", "--from", "-9d", "--to", "-5d", *PARALLEL).exit_code == 0
    sim.requests.clear()
    assert mpx("export", "--to", "-4d", "--where", "", *PARALLEL).exit_code == 0
    assert ranges(sim) == {(ago(4), ago(4))}


def test_days_before_the_calendar_are_refused() -> None:
    """`--days` may not count back beyond the year 1."""
    with pytest.raises(ArgumentError):
        chosen_days(None, "0001-01-05", 6, TODAY, no_day)


@pytest.mark.usefixtures("env")
def test_an_export_begins_at_a_failed_day(sim: Simulator) -> None:
    """A failed day is missing, so the next export starts there and skips the complete days after it."""
    sim.faults = [Fault("500", first=date.fromisoformat(ago(8)), last=date.fromisoformat(ago(8)))]
    days = [*PARALLEL, "--chunk-days", "1", "--retries", "0"]
    assert mpx("export", "--from", "-9d", "--to", "-5d", *days).exit_code == 1
    sim.faults = []
    sim.requests.clear()
    assert mpx("export", "--to", "-4d", *days).exit_code == 0
    assert ranges(sim) == {(ago(8), ago(8)), (ago(4), ago(4))}


@pytest.mark.usefixtures("env")
def test_a_complete_table_costs_no_request(sim: Simulator, db: Path) -> None:
    """If no day is left to fetch, the command prints that and succeeds."""
    assert mpx("export", "--from", "-9d", "--to", "-5d", *PARALLEL).exit_code == 0
    before = held(db)
    sim.requests.clear()
    result = mpx("export", "--to", "-5d", *PARALLEL)
    assert (result.exit_code, sim.requests, held(db)) == (0, [], before)
    assert "Nothing to fetch" in result.stderr


@pytest.mark.usefixtures("env")
def test_each_selection_has_its_own_first_day(sim: Simulator) -> None:
    """The days of other events do not determine the first day, so it must be given."""
    assert mpx("export", "-e", "Sign Up", "--from", "-9d", "--to", "-5d", *PARALLEL).exit_code == 0
    sim.requests.clear()
    assert "--from" in one_error(mpx("export", "-e", "Page View", *PARALLEL))
    assert not sim.requests


@pytest.mark.usefixtures("env")
def test_without_a_table_the_first_day_is_asked_for_on_a_terminal_only(db: Path) -> None:
    """A script gets an error that shows how to give the first day."""
    result = mpx("export")
    assert result.exit_code == 2
    assert "--from" in one_error(result)
    assert not db.exists()


def test_a_job_in_another_folder_learns_what_is_missing(
    env: Mapping[str, str], sim: Simulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The error names the missing file, and Python's default file if it exists, even with --quiet."""
    monkeypatch.delenv("MPX_DB")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    other = tmp_path / ".mp" / "data" / "12345.db"
    other.parent.mkdir(parents=True)
    error = one_error(mpx("export", *PARALLEL, "--quiet"))
    assert str(tmp_path / "mixpanel.duckdb") in error
    assert str(other) not in error
    other.touch()
    error = one_error(mpx("export", *PARALLEL, "--quiet"))
    assert {str(tmp_path / "mixpanel.duckdb"), str(other)} <= set(re.findall(r"[^\s()]+", error))
    assert not sim.requests
    assert not Path("mixpanel.duckdb").exists()


@pytest.mark.usefixtures("env")
def test_a_missing_table_is_named(sim: Simulator, db: Path) -> None:
    """The file exists, but has only other tables."""
    assert mpx("export", "--from", "-3d", "--to", "-3d").exit_code == 0
    sim.requests.clear()
    error = one_error(mpx("export", "signups", "--resume"))
    assert {str(db), "signups"} <= set(re.findall(r"[^\s;]+", error))
    assert not sim.requests


@pytest.mark.usefixtures("env")
def test_python_reads_the_same_words(sim: Simulator, db: Path) -> None:
    """`fetch_events` and `stream_events` accept the same text as `--from` and `--to`, and report dates."""
    with Workspace(path=db) as workspace:
        result = workspace.fetch_events(from_date="-3d", to_date="yesterday", progress=False)
        streamed = list(workspace.stream_events(from_date="-3d", to_date="yesterday"))
    assert result.to_dict()["date_range"] == [ago(3), ago(1)]
    assert ranges(sim) == {(ago(3), ago(1))}
    assert len(streamed) >= query(db, "SELECT count(*) FROM events")[0][0] > 0
