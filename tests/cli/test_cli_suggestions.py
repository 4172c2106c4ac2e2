"""Suggestions for mistyped names."""

from pathlib import Path

import pytest
from shell import WEEK, mpx, one_error

from mixpanel_export._suggestions import closest


def test_only_similar_names_are_suggested() -> None:
    """Case does not count, and nothing is suggested for a name like none."""
    assert closest("exprot", ["export", "retry"]) == "export"
    assert closest("sign up", ["Sign Up", "Log In"]) == "Sign Up"
    assert closest("x", ["export"]) is None
    assert closest("x", []) is None


@pytest.mark.parametrize(
    "words, suggestion",
    [
        (["exprot"], "'export'"),
        (["accounts", "lst"], "'list'"),
        (["export", "--parralel"], "--parallel"),
        (["status", "--table", "evnts"], "'events'"),
        (["retry", "--table", "Evnts"], "'events'"),
        (["query", "FROM evnts"], "events"),
        (["export", *WEEK, "--account", "mian"], "'main'"),
    ],
)
@pytest.mark.usefixtures("env")
def test_a_typo_gets_a_suggestion(words: list[str], suggestion: str, tmp_path: Path) -> None:
    """Commands, options, tables and accounts: the error says what exists."""
    (tmp_path / "config.toml").write_text('[accounts.main]\nsecret = "s"\n', encoding="utf-8")
    assert mpx("export", *WEEK).exit_code == 0
    result = mpx(*words)
    assert result.exit_code in {2, 4}
    assert suggestion in one_error(result)


@pytest.mark.usefixtures("env")
def test_an_event_that_the_file_does_not_have_gets_a_suggestion() -> None:
    """Mixpanel does not say that a name is unknown, so the file's events are all that can be compared."""
    assert mpx("export", *WEEK).exit_code == 0
    assert "did you mean 'Sign Up'?" in mpx("export", "some", *WEEK, "-e", "SignUp").stderr
    assert "did you mean" not in mpx("export", "others", *WEEK, "-e", "Sign Up,New Event").stderr
