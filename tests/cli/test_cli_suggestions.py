"""Suggestions for mistyped names."""

import sys
from pathlib import Path

import pytest
from examples import slow
from shell import WEEK, have_export, mpx, one_error, typed
from support import query

from mixpanel_export._suggestions import closest
from mixpanel_export.simulator import Simulator


def test_only_similar_names_are_suggested() -> None:
    """Case is ignored, and nothing is suggested for a dissimilar name."""
    assert closest("exprot", ["export", "retry"]) == "export"
    assert closest("sign up", ["Sign Up", "Log In"]) == "Sign Up"
    assert closest("x", ["export"]) is None
    assert closest("x", []) is None


@pytest.mark.parametrize(
    "words, suggestion",
    [
        (["exprot"], "'export'"),
        (["export", "--parralel"], "--parallel"),
        (["status", "--table", "evnts"], "'events'"),
        (["query", "FROM evnts"], "events"),
        (["export", *WEEK, "--account", "mian"], "'main'"),
        *slow([(["accounts", "lst"], "'list'"), (["retry", "--table", "Evnts"], "'events'")]),
    ],
)
@pytest.mark.usefixtures("env")
def test_a_typo_gets_a_suggestion(words: list[str], suggestion: str, db: Path, tmp_path: Path) -> None:
    """For commands, options, tables and accounts, the error says what exists."""
    (tmp_path / "config.toml").write_text('[accounts.main]\nsecret = "s"\n', encoding="utf-8")
    have_export(db, *WEEK)
    result = mpx(*words)
    assert result.exit_code in {2, 4}
    assert suggestion in one_error(result)


@pytest.mark.usefixtures("env")
def test_a_mistyped_event_costs_no_request(sim: Simulator, db: Path) -> None:
    """If complete days lack the name and there is no terminal, it is rejected; a flag or an earlier export allows it."""
    have_export(db, *WEEK)
    sim.requests.clear()
    some = ["export", "some", *WEEK, "--resume", "-e", "SignUp"]
    for more in ([], ["--quiet"], ["--dry-run"]):
        result = mpx(*some, *more)
        assert result.exit_code == 2
        error = one_error(result)
        assert all(words in error for words in ("'SignUp'", "'Sign Up'?", "--allow-new-events"))
    assert not sim.requests
    assert query(db, "SELECT DISTINCT table_name FROM _export_targets") == [("events",)]
    assert mpx(*some, "--allow-new-events").exit_code == 0
    assert mpx(*some).exit_code == 0


@pytest.mark.usefixtures("env")
def test_a_sync_checks_event_names(sim: Simulator, db: Path) -> None:
    """A mistyped name is rejected before any request, unless it is allowed or was requested before."""
    have_export(db, *WEEK)
    sim.requests.clear()
    some = ["sync", "--table", "some", "--since", "-1d", "-e", "SignUp"]
    result = mpx(*some)
    assert (result.exit_code, sim.requests) == (2, [])
    assert all(words in one_error(result) for words in ("'SignUp'", "'Sign Up'?", "--allow-new-events"))
    assert mpx(*some, "--allow-new-events").exit_code == 0
    assert mpx(*some).exit_code == 0


@pytest.mark.usefixtures("env")
def test_an_event_without_rows_is_not_suggested() -> None:
    """After a mistyped name has left an empty table, the correct name is accepted without a suggestion."""
    for name in ("Page View", "Sing Up"):
        assert mpx("export", name.split()[0], *WEEK, "-e", name).exit_code == 0
    result = mpx("export", "right", *WEEK, "-e", "Sign Up")
    assert (result.exit_code, "did you mean" in result.stderr) == (0, False)


@pytest.mark.usefixtures("env")
def test_a_new_event_is_not_questioned(db: Path) -> None:
    """Nor is a known one, or any name for another project."""
    have_export(db, *WEEK)
    assert "did you mean" not in mpx("export", "others", *WEEK, "-e", "Sign Up,New Event").stderr
    other = mpx("export", "other", *WEEK, "-e", "SignUp", "--project-id", "777", "--dry-run")
    assert (other.exit_code, "did you mean" in other.stderr) == (0, False)


@pytest.mark.usefixtures("env")
def test_selected_events_only_suggest(sim: Simulator) -> None:
    """Days with selected events do not prove that another name is wrong."""
    assert mpx("export", *WEEK, "-e", "Sign Up").exit_code == 0
    result = mpx("export", "some", *WEEK, "-e", "SignUp")
    assert (result.exit_code, len(sim.requests) > 1) == (0, True)
    assert "did you mean 'Sign Up'?" in result.stderr


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no pseudo-terminals of this kind")
@pytest.mark.parametrize("answer, code", [("n", 1), *slow([("y", 0)])])
@pytest.mark.usefixtures("env")
def test_a_terminal_asks_about_a_mistyped_event(answer: str, code: int, sim: Simulator, db: Path) -> None:
    """The default answer is no."""
    have_export(db, *WEEK)
    sim.requests.clear()
    typed(["export", "some", *WEEK, "-e", "SignUp"], [(b"[y/N]:", answer)], exit_code=code)
    assert bool(sim.requests) == (code == 0)


@pytest.mark.parametrize(
    "first, second, option",
    [
        (["-e", "Sign Up,Page View"], [], "--events 'Page View,Sign Up'"),
        ([], ["-e", "Sign Up"], "leave out --events"),
        (["--where", 'properties["plan"] == "free"'], [], '--where \'properties["plan"] == "free"\''),
        *slow([([], ["--where", "true"], "leave out --where")]),
        *slow([(["-e", "a,b", "--allow-new-events"], ["-e", "a"], "--events a,b")]),
    ],
)
@pytest.mark.usefixtures("env")
def test_another_selection_gets_the_options_of_the_table(
    first: list[str], second: list[str], option: str
) -> None:
    """The command in the error's advice continues the table."""
    mpx("export", *WEEK, *first)
    result = mpx("export", *WEEK, "--append", *second)
    assert result.exit_code == 1
    assert option in one_error(result)
