"""`mpx export --replace` and the other days of the table: they are counted and shown, and a terminal asks before they go."""

import json
import sys
from pathlib import Path

import pytest
from shell import NINE_DAYS, have_export, mpx, small_table, typed
from support import held, query, truth

from mixpanel_export.simulator import Simulator

BATCH_OF_DAY = "SELECT from_date::VARCHAR, max(batch) FROM _export_batches GROUP BY ALL"
REPLACE = ["export", "--from", "2024-03-04", "--to", "2024-03-05", "--replace"]


def rows_outside(db: Path) -> int:
    """The number of events that `REPLACE` does not fetch. An event without a time counts if none of its batch is fetched."""
    outside = "SELECT batch FROM _export_batches WHERE to_date < '2024-03-04' OR from_date > '2024-03-05'"
    lost = f"""event_time::DATE NOT BETWEEN '2024-03-04' AND '2024-03-05'
        OR (event_time IS NULL AND export_batch IN ({outside}))"""
    return int(query(db, f"SELECT count(*) FROM events WHERE {lost}")[0][0])


@pytest.mark.usefixtures("env")
@pytest.mark.parametrize("days_per_batch", ["1", "9"])
def test_the_other_days_are_counted_before_and_after(sim: Simulator, db: Path, days_per_batch: str) -> None:
    """Whatever batches the table has, a dry run, a warning and the summary have the numbers."""
    mpx("export", *NINE_DAYS, "--parallel", "--chunk-days", days_per_batch)
    lost = f"7 days with {rows_outside(db):,} events"
    assert lost in small_table(mpx(*REPLACE, "--dry-run"))["removed"]
    plan = json.loads(mpx(*REPLACE, "--dry-run", "--json").stdout)
    assert (plan["removed_days"], plan["removed_events"]) == (7, rows_outside(db))
    assert held(db) == truth(sim)
    result = mpx(*REPLACE, "--yes")
    assert f"{lost} (2024-03-01 to 2024-03-03, 2024-03-06 to 2024-03-09)" in result.stderr
    assert lost in small_table(result)["removed"]
    assert held(db) == truth(sim, "2024-03-04", "2024-03-05")
    again = mpx(*REPLACE)
    assert "--replace removes" not in again.stderr
    assert "removed" not in small_table(again)


@pytest.mark.usefixtures("env")
def test_a_script_that_requests_fewer_days_is_refused(sim: Simulator, db: Path) -> None:
    """Nothing is requested or removed without `--yes`, since nobody can be asked."""
    have_export(db, *NINE_DAYS)
    requests = len(sim.requests)
    for words in ([], ["--quiet"], ["--log-format", "json"]):
        assert mpx(*REPLACE, *words).exit_code == 2
    assert len(sim.requests) == requests
    assert held(db) == truth(sim)
    assert mpx(*REPLACE, "--yes", "--quiet").stderr == ""
    assert held(db) == truth(sim, "2024-03-04", "2024-03-05")


@pytest.mark.usefixtures("env")
def test_a_script_that_moves_on_is_not_refused(sim: Simulator, db: Path) -> None:
    """The same number of days, or more, need no `--yes`; days that leave the table are a warning."""
    mpx(*REPLACE)
    for first, last, warns in (
        ("04", "05", False),
        ("05", "06", True),
        ("03", "08", False),
        ("01", "06", True),
    ):
        days = f"2024-03-{first}", f"2024-03-{last}"
        result = mpx("export", "--from", days[0], "--to", days[1], "--replace")
        assert (result.exit_code, "--replace removes" in result.stderr) == (0, warns)
        assert held(db) == truth(sim, *days)


@pytest.mark.usefixtures("env")
def test_append_replaces_a_day_and_keeps_the_others(sim: Simulator, db: Path) -> None:
    """The advice for refetching a few days is right: `--append` replaces exactly these days of the table."""
    mpx("export", *NINE_DAYS, "--parallel", "--chunk-days", "1")
    before = dict(query(db, BATCH_OF_DAY))
    assert mpx("export", "--from", "2024-03-04", "--to", "2024-03-04", "--append").exit_code == 0
    after = dict(query(db, BATCH_OF_DAY))
    assert {day for day in after if after[day] != before[day]} == {"2024-03-04"}
    assert held(db) == truth(sim)


@pytest.mark.usefixtures("env")
def test_events_that_the_new_selection_leaves_out_are_counted(db: Path) -> None:
    """Replacing all events by some of them counts every day; replacing some by all counts nothing."""
    have_export(db, *NINE_DAYS)
    (count,) = query(db, "SELECT count(*) FROM events")[0]
    some = [*NINE_DAYS, "--replace", "-e", "Sign Up"]
    assert small_table(mpx("export", *some, "--dry-run"))["removed"].startswith(
        f"9 days with {count:,} events"
    )
    assert mpx("export", *some).exit_code == 0
    assert "removed" not in small_table(mpx("export", *NINE_DAYS, "--replace", "--dry-run"))
    assert mpx("export", *NINE_DAYS, "--append").exit_code == 1
    assert mpx("export", *NINE_DAYS, "--replace").exit_code == 0
    assert mpx("export", *NINE_DAYS, "--append").exit_code == 0  # the earlier selection is gone


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no pseudo-terminals of this kind")
@pytest.mark.usefixtures("env")
def test_a_terminal_asks_and_no_is_the_default(sim: Simulator, db: Path) -> None:
    """Return keeps every day; `--yes` skips the question; nothing is asked if no other day goes."""
    have_export(db, *NINE_DAYS)
    shown = typed(REPLACE, [(b"[y/N]:", "")], exit_code=1)
    assert "--append" in shown
    assert held(db) == truth(sim)
    typed(["export", *NINE_DAYS, "--replace"], [])
    assert held(db) == truth(sim)
    typed(REPLACE, [(b"[y/N]:", "y")])
    assert held(db) == truth(sim, "2024-03-04", "2024-03-05")
    typed(["export", "--from", "2024-03-04", "--to", "2024-03-04", "--replace", "--yes"], [])
    assert held(db) == truth(sim, "2024-03-04", "2024-03-04")
