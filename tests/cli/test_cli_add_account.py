"""`mpx accounts add` on a terminal: each answer is checked immediately, and only an invalid one is asked for again."""

import os
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest
from shell import mpx, one_error, typed

from mixpanel_export.credentials import read_accounts, resolve_credentials
from mixpanel_export.simulator import Fault, Simulator

pytestmark = pytest.mark.skipif(
    sys.platform == "win32", reason="Windows has no pseudo-terminals of this kind"
)

USER = (b"account:", "demo.mp-service-account")
REGION = (b"[us]:", "")
REST = [REGION, (b"[y/N]:", ""), (b"[Y/n]:", "n")]


@pytest.fixture(autouse=True)
def config(env: Mapping[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The configuration file, with no other account configured."""
    assert env
    for name in [name for name in os.environ if name.startswith("MP_") and name != "MP_CONFIG_PATH"]:
        monkeypatch.delenv(name)
    return tmp_path / "config.toml"


def test_every_answer_is_checked_at_once(config: Path) -> None:
    """Name, user name, secret, project and region: an invalid answer repeats only its own question."""
    asked = [
        (b"[main]:", ""),
        (b"account:", "a:b"),
        USER,
        (b"(not shown):", "  "),
        (b"(not shown):", "demo-secret"),
        (b"id:", "my project"),
        (b"id:", "12345"),
        (b"[us]:", "mars"),
        *REST,
    ]
    shown = typed(["accounts", "add"], asked)
    assert "Mixpanel accepts it" in shown
    assert "MPX_API_URL" in shown  # which is set, and not stored
    assert shown.count("Error: ") == 4
    found = resolve_credentials("main", config_path=config)
    assert (found.username, found.project_id, found.region) == (USER[1], "12345", "us")


def test_a_refused_secret_is_asked_for_again(config: Path, sim: Simulator) -> None:
    """The other answers are kept, and the account is stored with the secret that Mixpanel accepts."""
    asked = [(b"[main]:", "demo"), USER, (b"(not shown):", "wrong"), (b"id:", "12345"), *REST[:2]]
    shown = typed(["accounts", "add"], [*asked, REGION, (b"again (not shown):", "demo-secret"), REST[2]])
    assert "Mixpanel does not accept" in shown
    assert len(sim.requests) == 2
    assert resolve_credentials("demo", config_path=config).secret == "demo-secret"


def test_another_region_is_tried_with_the_same_secret(config: Path, sim: Simulator) -> None:
    """After a rejection, the region is asked for first; if its answer is new, the secret is not asked for."""
    sim.faults = [Fault("401", times=1)]
    asked = [USER, (b"(not shown):", "demo-secret"), (b"id:", "12345"), *REST[:2], (b"[us]:", "eu"), REST[2]]
    typed(["accounts", "add", "demo"], asked)
    assert resolve_credentials("demo", config_path=config).region == "eu"


def test_a_zone_that_would_shift_times_is_asked_for_again(config: Path) -> None:
    """The times of the simulator's project are UTC, so only UTC, or no zone, is accepted."""
    asked = [USER, (b"(not shown):", "demo-secret"), (b"id:", "12345"), REGION]
    zone = [(b"[y/N]:", "y"), (b"UTC:", "US/Pacific"), (b"[y/N]:", "")]
    typed(["accounts", "add", "demo"], [*asked, *zone, REST[2]])
    assert resolve_credentials("demo", config_path=config).project_timezone is None


def test_three_refused_secrets_are_an_error(config: Path) -> None:
    """Nothing is stored, and the exit code is that of a rejected account."""
    asked = [USER, (b"(not shown):", "wrong"), (b"id:", "12345"), *REST[:2]]
    again = (b"again (not shown):", "wrong")
    typed(["accounts", "add", "demo"], [*asked, REGION, again, REGION, again], exit_code=3)
    assert not config.exists()


def test_a_forbidden_project_is_asked_for_again(config: Path) -> None:
    """The other answers are kept, and the account is stored with the project that Mixpanel accepts."""
    asked = [USER, (b"(not shown):", "demo-secret"), (b"id:", "54321"), *REST[:2]]
    typed(["accounts", "add", "demo"], [*asked, (b"id again:", "12345"), REST[2]])
    assert resolve_credentials("demo", config_path=config).project_id == "12345"


def test_three_forbidden_projects_are_an_error(config: Path) -> None:
    """Nothing is stored, and the exit code is that of a rejected account."""
    asked = [USER, (b"(not shown):", "demo-secret"), (b"id:", "54321"), *REST[:2]]
    again = (b"id again:", "54322")
    typed(["accounts", "add", "demo"], [*asked, again, again], exit_code=3)
    assert not config.exists()


def test_without_a_terminal_a_forbidden_project_is_not_stored(config: Path, sim: Simulator) -> None:
    """The exit code is that of a rejected account."""
    words = ["demo", "--username", USER[1], "--project-id", "54321", "--secret-stdin"]
    result = mpx("accounts", "add", *words, given="demo-secret")
    assert result.exit_code == 3
    assert one_error(result)
    assert not config.exists()
    assert len(sim.requests) == 1


def test_a_name_that_is_taken_is_asked_for_again(config: Path) -> None:
    """The default name of the first account is main; a second one needs another name."""
    config.write_text('[accounts.main]\nsecret = "s"\n', encoding="utf-8")
    config.chmod(0o600)
    asked = [(b"Name for the account:", "main"), (b"Name for the account:", "second"), USER]
    shown = typed(
        ["accounts", "add", "--no-test"], [*asked, (b"(not shown):", "x"), (b"id:", "12345"), *REST]
    )
    assert "--replace" in shown
    assert set(read_accounts(config)[1]) == {"main", "second"}


@pytest.mark.parametrize(
    "words",
    [["add"], ["add", "x", "--username", "a:b"], ["add", "x", "--project-id", "../1"], ["add", "x", "--username", ""]],
)  # fmt: skip
def test_without_a_terminal_a_wrong_or_missing_answer_is_an_error(words: list[str], config: Path) -> None:
    """Nothing is prompted for, and nothing is written."""
    result = mpx("accounts", *words)
    assert result.exit_code == 2
    assert one_error(result)
    assert not config.exists()
