"""`mpx status`: what it prints about a database on any terminal, and the commands that it suggests."""

import json
import re
import shlex
import subprocess
from collections.abc import Mapping
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import click
import pytest
from click.testing import CliRunner
from examples import slow
from hypothesis import given
from hypothesis import strategies as st
from shell import MPX, have_export, held_by_another, mpx, one_error
from support import held, query, truth

from mixpanel_export._database.coverage import Coverage, RowsPerDay, coverages
from mixpanel_export._model import Batch, Chunk, Selection
from mixpanel_export.cli import cli
from mixpanel_export.cli.calendar import ASCII, UNICODE, Signs, calendar_lines, signs_for
from mixpanel_export.cli.status import _ago
from mixpanel_export.simulator import Fault, Simulator

NINE_DAYS = ["--from", "2024-03-01", "--to", "2024-03-09"]
ONE_A_REQUEST = ["--parallel", "--chunk-days", "1", "--retries", "0", "--no-progress"]


@pytest.fixture(autouse=True)
def _terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")


def commands(text: str) -> list[list[str]]:
    """Return the commands that the text suggests."""
    return [shlex.split(line) for line in text.splitlines() if line.startswith("  mpx ")]


# Drawing


def coverage(days: str, rows: list[int] | None = None, first: date = date(2024, 2, 20)) -> Coverage:
    """Return what has a day a letter: c, o, f, l, i, x for a changed one, or a point for a missing one."""
    words = {"c": "complete", "o": "open", "f": "failed", "l": "limited", "i": "imported", "x": "complete"}
    counts = dict(enumerate(rows or []))
    every = [first + timedelta(days=number) for number in range(len(days))]
    kept = [
        Batch(
            number=number,
            table="events",
            selection=Selection("12345"),
            days=Chunk(every[number], every[number]),
            status=words[letter],  # type: ignore[arg-type] # one of the words above
            rows=counts.get(number, 0) + (letter == "x"),
            finished=None,
        )
        for number, letter in enumerate(days)
        if letter in words
    ]
    counted: RowsPerDay = {
        number: {day: many} for number, (day, many) in enumerate(zip(every, rows or [], strict=False))
    }
    (found,) = coverages(kept, {"events": counted})
    return found


def drawn(found: Coverage, signs: Signs = ASCII, width: int = 80) -> list[str]:
    return [click.unstyle(line) for line in calendar_lines(found, signs, width)]


def test_a_few_days_have_a_line_each() -> None:
    """Each line has the weekday, the status sign and its word, the rows, and a bar in proportion to them."""
    assert drawn(coverage("cof.c", [1000, 500, 0, 0, 1]), width=60) == [
        "2024-02-20 Tue # complete 1,000 ===========================",
        "2024-02-21 Wed o open       500 ==============",
        "2024-02-22 Thu X failed       0",
        "2024-02-23 Fri . missing      0",
        "2024-02-24 Sat # complete     1 =",
        "",
        "# complete 2   o open 1   X failed 1   . missing 1",
    ]


def test_many_days_have_a_line_a_month() -> None:
    """Each line has a character for each day, the rows as heights beside it, and the sum, in 79 columns."""
    found = coverage(
        "c" * 9 + "f" + "." * 6 + "ooo", [8, 4, 1, 0, 9, 9, 9, 9, 9, 0, 0, 0, 0, 0, 0, 0, 90, 90, 9]
    )
    assert drawn(found) == [
        "        1   5    10   15   20   25   30  1   5    10   15   20   25   30",
        "2024-02                    #########X                       111 11111        58",
        "2024-03 ......ooo                              991                          189",
        "",
        "# complete 9   o open 3   X failed 1   . missing 6",
        "1-9 rows per day, up to 90",
    ]


def test_a_narrow_terminal_has_the_bars_below() -> None:
    """Nothing is wider than 39 columns, except the words of the legend."""
    found = coverage("c" * 20 + ".ofxli", [100_000] * 20)
    lines = drawn(found, width=40)
    assert lines[:5] == [
        "        1   5    10   15   20   25   30",
        "2024-02                    ##########",
        "     1M                    9999999999",
        "2024-03 ##########.oX!-i",
        "     1M 9999999999",
    ]
    assert all(len(line) <= 40 for line in lines)
    assert " ".join(lines[6:]).split()[:6] == ["#", "complete", "20", "o", "open", "1"]


@given(
    st.text("cofxli.", min_size=1, max_size=900).map(lambda days: "c" + days + "c"),
    st.lists(st.integers(0, 10**12), max_size=900),
    st.sampled_from([ASCII, UNICODE]),
    st.integers(39, 200),
)
def test_no_line_is_wider_than_the_terminal(days: str, rows: list[int], signs: Signs, width: int) -> None:
    """Every day is drawn, with a different sign for each status."""
    found = coverage(days, rows)
    lines = drawn(found, signs, width)
    if width >= 54:  # where a few days' words and figures have room
        assert all(len(line) <= width for line in lines)
    legend = [line for line in lines[lines.index("") + 1 :] if "rows per day" not in line]
    assert sum(int(number) for line in legend for number in re.findall(r"\d+", line)) == len(days)
    assert len(set(signs.days.values())) == len(signs.days)


@pytest.mark.parametrize(
    "encoding, signs",
    [("utf-8", UNICODE), ("utf-16", UNICODE), ("cp1252", ASCII), ("cp437", ASCII), ("ascii", ASCII), (None, ASCII), ("x", ASCII)],
)  # fmt: skip
def test_signs_are_those_that_the_console_can_print(encoding: str | None, signs: Signs) -> None:
    """A Windows console without Unicode gets letters and digits."""
    assert signs_for(encoding) is signs


@pytest.mark.parametrize(
    "minutes, words",
    [(0, "just now"), (1, "1 minute ago"), (59, "59 minutes ago"), (60, "1 hour ago"), (1440, "1 day ago"), (4400, "3 days ago"), (-5, "just now")],
)  # fmt: skip
def test_the_last_export_is_so_long_ago(minutes: int, words: str) -> None:
    """The largest suitable unit is used; a time in the future, after the clock was set back, is not negative."""
    assert _ago(datetime.now(UTC).replace(tzinfo=None) - timedelta(minutes=minutes, seconds=5)) == words


# The command


@pytest.mark.usefixtures("env")
def test_what_is_printed_fixes_what_failed(sim: Simulator, db: Path) -> None:
    """Each failure has its reason and a command; the commands complete the table, and then none is printed."""
    sim.faults = [
        Fault("500", first=date(2024, 3, 3), last=date(2024, 3, 4)),
        Fault("503", first=date(2024, 3, 7), last=date(2024, 3, 7)),
    ]
    selection = ["-e", "Sign Up,it's", "--where", 'properties["plan"] == "free"']
    mpx("export", "some", *NINE_DAYS, *ONE_A_REQUEST, *selection)
    shown = mpx("status")
    assert "2024-03-03 to 2024-03-04 failed: Mixpanel responded with status 500" in " ".join(
        shown.stdout.split()
    )
    *failures, retry = commands(shown.stdout)
    assert retry == ["mpx", "retry", str(db)]
    assert failures[0][:7] == [
        "mpx", "export", "some", "--from", "2024-03-03", "--to", "2024-03-04",
    ]  # fmt: skip
    sim.faults = []
    for command in failures:
        assert mpx(*command[1:]).exit_code == 0
    assert not commands(mpx("status").stdout)
    names = ["Sign Up", "it's"]
    assert held(db, "some") == truth(sim, events=names, where='properties["plan"] == "free"')


@pytest.mark.usefixtures("env")
def test_days_whose_refetch_failed_still_have_their_events(sim: Simulator, db: Path) -> None:
    """The line of failed days mentions events of an earlier export, and only if there are any."""
    remark = "6 of them still have earlier events in the table"
    sim.faults = [Fault("500")]
    assert mpx("export", *NINE_DAYS, *ONE_A_REQUEST).exit_code == 1
    assert remark not in mpx("status").stdout
    sim.faults = []
    assert mpx("retry").exit_code == 0
    sim.faults = [Fault("500", first=date(2024, 3, 4))]
    assert mpx("export", *NINE_DAYS, *ONE_A_REQUEST, "--append").exit_code == 1
    assert held(db) == truth(sim)
    assert remark in " ".join(mpx("status").stdout.split())


@pytest.mark.usefixtures("env")
def test_a_batch_changed_by_hand_is_told_with_its_command(sim: Simulator, db: Path) -> None:
    """Deleted rows are noticed, and the command restores them."""
    have_export(db, *NINE_DAYS, *ONE_A_REQUEST)
    assert not commands(mpx("status").stdout)
    query(db, "DELETE FROM events WHERE event_time::DATE = '2024-03-05'")
    shown = mpx("status").stdout
    (command,) = commands(shown)
    assert "2024-03-05: batch " in shown
    assert "changed 1" in shown
    assert mpx(*command[1:]).exit_code == 0
    assert held(db) == truth(sim)


@pytest.mark.usefixtures("env")
def test_rows_that_no_batch_has_are_told(db: Path) -> None:
    """Days may then be duplicated, which the calendar does not show."""
    have_export(db, *NINE_DAYS, *ONE_A_REQUEST)
    assert json.loads(mpx("status", "--json").stdout)["unknown_rows"] == {}
    query(db, "INSERT INTO events SELECT * REPLACE (999 AS export_batch) FROM events LIMIT 7")
    assert "Table events has 7 rows that do not belong to a batch" in mpx("status").stdout
    assert json.loads(mpx("status", "--json").stdout)["unknown_rows"] == {"events": 7}


@pytest.mark.usefixtures("env")
def test_a_replacement_that_is_not_finished_is_told_with_its_command(sim: Simulator, db: Path) -> None:
    """The calendar is that of the old table, and the command completes the new one."""
    mpx("export", "--from", "2024-03-01", "--to", "2024-03-02")
    sim.faults = [Fault("500", first=date(2024, 3, 9))]
    mpx("export", *NINE_DAYS, "--replace", *ONE_A_REQUEST, "--project-timezone", "Asia/Tokyo", "--no-dedupe")
    shown = mpx("status").stdout
    assert "complete 2" in shown
    assert "The replacement of events is incomplete; 8 batches are kept. To continue:" in shown
    (command,) = commands(shown)
    assert command[-3:] == ["--project-timezone", "Asia/Tokyo", "--no-dedupe"]
    assert json.loads(mpx("status", "--json").stdout)["replacements"][0]["kept"] == 8
    sim.faults = []
    before = len(sim.requests)
    assert mpx(*command[1:]).exit_code == 0
    assert len(sim.requests) == before + 1
    assert "complete 9" in mpx("status").stdout


@pytest.mark.usefixtures("env")
def test_a_table_that_was_dropped_is_nothing_to_fetch(db: Path) -> None:
    """The table is reported as dropped, and no command creates it again."""
    have_export(db, *NINE_DAYS)
    query(db, "DROP TABLE events")
    shown = mpx("status").stdout
    assert "the table does not exist" in shown
    assert not commands(shown)


@pytest.mark.usefixtures("env")
def test_json_has_each_day_and_each_command(sim: Simulator, db: Path) -> None:
    """One object has the same as the text: every day, its status and its rows."""
    sim.faults = [Fault("500", first=date(2024, 3, 4), last=date(2024, 3, 4))]
    mpx("export", *NINE_DAYS, *ONE_A_REQUEST)
    status = json.loads(mpx("status", "--json").stdout)
    (table,) = status["tables"]
    assert status["command"] == shlex.join(["mpx", "retry", str(db)])
    assert (table["table"], table["project_id"], table["timezone"]) == ("events", "12345", "UTC")
    assert table["statuses"] == {"complete": 8, "failed": 1}
    assert table["calendar"][3] == {"day": "2024-03-04", "status": "failed", "rows": 0}
    assert sum(known["rows"] for known in table["calendar"]) + table["outside_rows"] == table["rows"]
    (failure,) = table["failures"]
    assert (failure["from_date"], failure["to_date"]) == ("2024-03-04", "2024-03-04")
    assert shlex.split(failure["command"])[:3] == ["mpx", "export", "events"]
    assert datetime.fromisoformat(table["last_export"]) <= datetime.now(UTC)


@pytest.mark.usefixtures("env")
def test_many_failures_are_counted(db: Path) -> None:
    """A screenful of failures have commands; the number of the others is printed."""
    mpx("export", "--from", "2024-03-01", "--to", "2024-03-01")
    for number in range(1, 13):
        query(
            db,
            "INSERT INTO _export_batches BY NAME SELECT * REPLACE (batch + 100 AS batch, 'failed' AS status, 'broke' AS"
            f" error, from_date + {2 * number} AS from_date, to_date + {2 * number} AS to_date) FROM _export_batches"
            " ORDER BY batch LIMIT 1",
        )
    shown = mpx("status").stdout
    assert shown.count(" failed: broke\n") == 8
    assert "and 4 more; --json prints all" in shown


@pytest.mark.usefixtures("env")
def test_a_file_without_exports_says_how_to_begin(db: Path) -> None:
    """Tables that were not exported are named, and so is the first command to run."""
    query(db, "CREATE TABLE visits AS SELECT 1 AS x")
    shown = mpx("status").stdout
    assert "Other tables: visits" in shown
    assert "has no exported events yet. To export: mpx export --from DATE --to DATE" in shown


@pytest.mark.usefixtures("env")
def test_one_table_can_be_chosen() -> None:
    """A table that is not in the ledger is exit code 4."""
    mpx("export", "a", *NINE_DAYS)
    mpx("export", "b", *NINE_DAYS)
    assert re.findall(r"^table +(\w)$", mpx("status").stdout, re.MULTILINE) == ["a", "b"]
    assert re.findall(r"^table +(\w)$", mpx("status", "--table", "b").stdout, re.MULTILINE) == ["b"]
    result = mpx("status", "--table", "c")
    assert result.exit_code == 4
    assert "table c" in one_error(result)


@pytest.mark.usefixtures("env")
@pytest.mark.parametrize("chunk_days, number, is_mentioned", [("5", 5, True), ("1", 2, False)])
def test_all_days_of_an_open_batch_are_open(chunk_days: str, number: int, is_mentioned: bool) -> None:
    """A resume refetches the days that are shown as open, which are more if they share a batch with the last days."""
    days = ["--from", "-5d", "--to", "yesterday"]
    mpx("export", *days, "--parallel", "--chunk-days", chunk_days)
    facts, _ = mpx("status").stdout.split("\n\n", 2)[1:]
    (words,) = re.findall(r"^open +((?:.|\n)*)", facts, re.MULTILINE)
    assert (words.split()[0], "batch" in words) == (str(number), is_mentioned)
    plan = json.loads(mpx("export", *days, "--parallel", "--resume", "--dry-run", "--json").stdout)
    assert plan["days"] == number


def test_a_file_that_is_not_there_is_exit_code_4(tmp_path: Path) -> None:
    """One line names it, and it is not created."""
    result = mpx("status", str(tmp_path / "none.duckdb"))
    assert result.exit_code == 4
    assert "none.duckdb" in one_error(result)
    assert not list(tmp_path.iterdir())


@pytest.mark.usefixtures("env")
def test_colours_are_for_terminals_that_want_them(db: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Signs are coloured only on a terminal, and not with NO_COLOR; the letters are the same."""
    have_export(db, *NINE_DAYS)
    plain = mpx("status").stdout
    assert "\x1b" not in plain
    coloured = CliRunner().invoke(cli, ["status"], color=True).stdout
    assert "\x1b[32m" in coloured
    assert click.unstyle(coloured) == plain
    monkeypatch.setenv("NO_COLOR", "1")
    assert CliRunner().invoke(cli, ["status"], color=True).stdout == plain


@pytest.mark.parametrize("encoding, sign", [("cp1252", "#"), *slow([("utf-8", "■")])])
def test_a_console_prints_what_it_can(env: Mapping[str, str], db: Path, encoding: str, sign: str) -> None:
    """If standard output cannot encode blocks, letters are printed, and the exit code is 0."""
    have_export(db, *NINE_DAYS)
    shown = subprocess.run(
        [*MPX, "status"], env={**env, "PYTHONIOENCODING": encoding}, capture_output=True, check=True
    )
    assert f" {sign} complete " in shown.stdout.decode(encoding)


def test_a_file_in_use_names_the_process_and_the_option(db: Path) -> None:
    """Exit code 1 and one line; with --wait, another line first says how long the command waits, and for whom."""
    with held_by_another(db) as holder:
        result = mpx("status", str(db))
        assert result.exit_code == 1
        assert f"process {holder.pid}" in one_error(result)
        assert "--wait" in one_error(result)
        waited = mpx("status", str(db), "--wait", "0.1s")
        assert waited.exit_code == 1
        assert f"in use by process {holder.pid}; waiting up to 0.1s." in waited.stderr.splitlines()[0]
        assert f"after 0.1s by process {holder.pid}" in waited.stderr.splitlines()[1]


def test_a_file_that_becomes_free_is_shown(db: Path) -> None:
    """A real process waits for another one, and continues when that has ended."""
    with (
        held_by_another(db) as holder,
        subprocess.Popen(
            [*MPX, "status", str(db), "--wait", "10m"],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        ) as waiting,
    ):
        assert waiting.stderr is not None
        assert f"process {holder.pid}; waiting up to 600s" in waiting.stderr.readline()
        holder.communicate("\n")
        out, _ = waiting.communicate()
    assert waiting.returncode == 0
    assert "has no exported events yet" in out
