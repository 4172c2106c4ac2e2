"""`mpx sync`: silent if nothing is wrong, one line otherwise; and the sections of the configuration file."""

import json
import os
import sys
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pytest
from examples import slow
from shell import held_by_another, mpx, one_error, typed
from support import held, query, truth

from mixpanel_export.simulator import Fault, Simulator

pytestmark = pytest.mark.usefixtures("env")

TODAY = datetime.now(UTC).date()
QUICK = ("--retries", "0")


def ago(days: int) -> date:
    """Return the day that was so many days ago."""
    return TODAY - timedelta(days=days)


def configured(folder: Path, text: str) -> None:
    """Write the configuration file."""
    path = folder / "config.toml"
    path.write_text(text, encoding="utf-8")
    path.chmod(0o600)


def test_two_nights(sim: Simulator, db: Path) -> None:
    """The first sync needs a day, later ones need nothing; neither prints anything without a terminal."""
    assert "--since" in one_error(missing := mpx("sync"))
    assert (missing.exit_code, db.exists(), sim.requests) == (2, False, [])
    for words in (("--since", str(ago(9))), ()):
        result = mpx("sync", *words)
        assert (result.exit_code, result.output) == (0, "")
        assert held(db) == truth(sim, str(ago(9)), str(ago(1)))
    (synced,) = json.loads(mpx("sync", "--json").stdout)
    assert (synced["days"], synced["fetched_days"]) == ([str(ago(9)), str(ago(1))], 5)
    assert (synced["added"], synced["removed"], synced["rekeyed"], synced["has_failures"]) == (0, 0, 0, False)


@pytest.mark.parametrize("since", ["-9d", *slow([str(ago(9))])])
def test_an_earlier_first_day_adds_days(since: str, sim: Simulator, db: Path) -> None:
    """The sync fetches the days before the table's first day, and later syncs keep them."""
    mpx("sync", "--since", "-3d")
    assert mpx("sync", "--since", since).output == ""
    assert held(db) == truth(sim, str(ago(9)), str(ago(1)))
    (synced,) = json.loads(mpx("sync", "--json").stdout)
    assert synced["days"] == [str(ago(9)), str(ago(1))]


@pytest.mark.parametrize("since, day", [("-2d", ago(2)), ("today", None), *slow([(str(ago(2)), ago(2))])])
def test_a_later_first_day_has_no_effect(since: str, day: date | None, sim: Simulator, db: Path) -> None:
    """A note says so, with the command that removes target days, if the range has a day."""
    mpx("sync", "--since", "-4d")
    result = mpx("sync", "--since", since)
    assert (result.exit_code, "--since" in result.stderr) == (0, True)
    command = f"mpx status --set-target {day}..{ago(1)}"
    assert (command in result.stderr, "--set-target" in result.stderr) == (day is not None,) * 2
    assert mpx("sync", "--since", since, "--quiet").output == ""
    assert held(db) == truth(sim, str(ago(4)), str(ago(1)))


def test_a_loss_is_reported_until_it_is_accepted(sim: Simulator, db: Path) -> None:
    """The exit code is 1, one line names the day, and its command replaces the events."""
    mpx("sync", "--since", str(ago(4)))
    before = held(db)
    sim.faults = [Fault("empty_200", days=(ago(2),))]
    for _ in range(2):
        result = mpx("sync", *QUICK)
        assert result.exit_code == 1
        assert str(ago(2)) in one_error(result)
        assert held(db) == before
    assert result.stderr.strip().endswith("mpx sync --retries 0 --accept-loss")
    event = json.loads(mpx("sync", "--log-format", "json").stderr.splitlines()[-1])
    assert (event["event"], event["day"], event["new_rows"], event["kept"]) == ("kept", str(ago(2)), 0, True)
    accepted = mpx("sync", "--accept-loss", "--quiet")
    assert (accepted.exit_code, accepted.output) == (0, "")
    assert query(db, f"SELECT count(*) FROM events WHERE event_time::DATE = '{ago(2)}'") == [(0,)]


def test_failed_days_are_fetched_the_next_night(sim: Simulator, db: Path) -> None:
    """A night without Mixpanel ends with 1; the next one fetches its days."""
    mpx("sync", "--since", str(ago(3)))
    sim.faults = [Fault("503")]
    failed = mpx("sync", *QUICK)
    assert failed.exit_code == 1
    assert "mpx sync" in failed.stderr
    sim.faults = []
    assert mpx("sync").exit_code == 0
    assert held(db) == truth(sim, str(ago(3)), str(ago(1)))


def test_a_file_in_use_has_its_own_exit_code(db: Path) -> None:
    """While another process has the file open, the exit code is 6, also after a wait."""
    with held_by_another(db):
        for words in ((), ("--wait", "0.3s")):
            result = mpx("sync", "--since", "-2d", *words)
            assert result.exit_code == 6
            assert str(db) in result.stderr


def test_selections_of_a_table_need_no_options_afterwards(sim: Simulator, db: Path) -> None:
    """Each selection in the table is fetched with its recorded options."""
    for names in ("Sign Up", "Page View"):
        mpx("sync", "--since", str(ago(3)), "--events", names)
    results = json.loads(mpx("sync", "--json").stdout)
    assert [result["fetched_days"] for result in results] == [3, 3]
    assert held(db) == truth(sim, str(ago(3)), str(ago(1)), events=["Sign Up", "Page View"])


def test_sections_sync_several_tables(sim: Simulator, db: Path, tmp_path: Path) -> None:
    """A section has account, selection, table and file; an error in one does not stop the others."""
    other = tmp_path / "other.duckdb"
    configured(
        tmp_path,
        f"""
        [sync.signups]
        events = ["$mp_web_page_view"]
        table = "signups"
        since = {ago(3)}
        lookback = 1
        [sync.nobody]
        account = "nobody"
        since = "-2d"
        [sync.pages]
        events = ["Page View"]
        since = "{ago(2)}"
        db = "{other.as_posix()}"
        """,
    )
    assert mpx("sync", "signups").output == ""
    result = mpx("sync", "--all", "--json")
    assert (result.exit_code, result.stderr.startswith("Error: nobody: ")) == (4, True)
    assert [synced["fetched_days"] for synced in json.loads(result.stdout)] == [2, 2]
    assert held(db, "signups") == truth(sim, str(ago(3)), str(ago(1)), events=["$mp_web_page_view"])
    assert held(other) == truth(sim, str(ago(2)), str(ago(1)), events=["Page View"])


@pytest.mark.parametrize(
    "words, text, code",
    [
        (["x"], "", 3),
        (["--all"], "", 3),
        (["y"], "[sync.x]\n", 3),
        (["x"], "[sync.x]\nevent = 'a'\n", 3),
        (["x"], "[sync.x]\nlookback = -1\n", 3),
        (["x"], "[sync.x]\nevents = 'a'\n", 3),
        (["x"], "sync = 1\n", 3),
        (["x", "--all"], "[sync.x]\n", 2),
        (["x", "--db", "a.duckdb"], "[sync.x]\n", 2),
        (["--init"], "", 2),
        (["--lookback", "-1"], "", 2),
    ],
)
def test_mistakes_cost_no_request(
    words: list[str], text: str, code: int, sim: Simulator, tmp_path: Path
) -> None:
    """An invalid section or option is one error, before any request."""
    configured(tmp_path, text)
    result = mpx("sync", *words)
    assert result.exit_code == code
    assert "Error: " in result.stderr
    assert sim.requests == []


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no pseudo-terminals of this kind")
def test_init_asks_and_writes_a_section(
    sim: Simulator, db: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The answers are in the file, with an absolute path, and the section and the crontab line work in any folder."""
    script = tmp_path / "50% bin" / "mpx"
    script.parent.mkdir()
    script.touch(mode=0o755)
    monkeypatch.setenv("PATH", f"{script.parent}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.chdir(tmp_path)
    configured(tmp_path, "# mine\n[defaults]\nparallel = true\n")
    questions = [
        (b"[events]:", "nightly"),
        (b"]:", db.name),
        (b"]:", ""),
        (b"all):", ""),
        (b"[-30d]:", "-2d"),
        (b"[5]:", ""),
        (b"[y/N]:", "y"),
    ]
    shown = typed(["sync", "--init"], questions)
    assert "mpx sync nightly" in shown
    line = shown.splitlines()[-1].replace(r"\%", "%")
    assert line == f"0 6 * * * '{script}' sync nightly"
    text = (tmp_path / "config.toml").read_text(encoding="utf-8")
    assert text.startswith("# mine\n[defaults]\nparallel = true\n")
    assert "profiles = true" in text
    monkeypatch.chdir(script.parent)
    summary = typed(["sync", "nightly", "--no-progress"], [])
    assert "nightly: 2 days fetched with 2 requests" in summary
    assert held(db) == truth(sim, str(ago(2)), str(ago(1)))
