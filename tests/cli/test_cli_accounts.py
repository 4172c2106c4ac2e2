"""`mpx accounts`: secrets can be entered in three ways, never as an argument, and are never printed."""

import json
import os
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from shell import served, typed
from support import simulator

from mixpanel_export._config.config_file import Defaults, read_defaults
from mixpanel_export.cli import cli
from mixpanel_export.credentials import read_accounts, resolve_credentials
from mixpanel_export.simulator import Fault, Simulator

SECRET = "s3cr3t-V4lue"
CONFIG = f"""\
default = "main"

[accounts.main]
username = "svc.main"
secret = "{SECRET}"
project_id = 7
region = "IN"

[accounts.old]
secret = "{SECRET}"
project_timezone = "US/Pacific"
"""
ADD = ["add", "new", "--username", "svc.new", "--project-id", "9", "--no-test"]
DEMO = ["--username", "demo.mp-service-account", "--project-id", "12345", "--secret-stdin"]
LIST = """\
   account  user name         project  region  time zone
*  main     svc.main          7        in
   old      (project secret)           us      US/Pacific
"""


@pytest.fixture(autouse=True)
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The configuration file, with nothing else configured."""
    for name in list(os.environ):
        if name.startswith(("MP_", "MPX_")) and name != "MPX_STATE_DIR":
            monkeypatch.delenv(name)
    file = tmp_path / "mp" / "config.toml"
    monkeypatch.setenv("MP_CONFIG_PATH", str(file))
    return file


@pytest.fixture
def config(path: Path) -> Path:
    path.parent.mkdir()
    path.write_text(CONFIG, encoding="utf-8")
    path.chmod(0o600)
    return path


def mpx(*words: str, typed: str = "") -> Result:
    """Run `mpx accounts` in this process; a traceback is a failure of the test, and so is a secret."""
    result = CliRunner().invoke(cli, ["accounts", *words], prog_name="mpx", input=typed)
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert SECRET not in result.output
    return result


def one_error(result: Result, code: int) -> str:
    assert result.exit_code == code, result.output
    (line,) = result.stderr.splitlines()
    assert line.startswith("Error: ")
    return line


def stored(path: Path, name: str) -> tuple[str | None, str, str, str]:
    found = resolve_credentials(name, environ={}, config_path=path)
    return found.username, str(found.secret), found.project_id, found.region


def test_without_a_file_it_says_how_to_begin(path: Path) -> None:
    """Having no accounts is not an error, and no file is created."""
    result = mpx("list")
    assert (result.exit_code, result.stdout) == (0, "")
    assert result.stderr == f"{path} has no accounts; `mpx accounts add NAME` adds one.\n"
    assert json.loads(mpx("list", "--json").stdout) == []
    assert not path.exists()


@pytest.mark.usefixtures("config")
def test_accounts_are_listed_without_their_secrets() -> None:
    """One row for each account, with a star next to the default."""
    result = mpx("list")
    assert (result.exit_code, result.stdout, result.stderr) == (0, LIST, "")
    assert json.loads(mpx("list", "--json").stdout)[0] == {
        "name": "main",
        "username": "svc.main",
        "project_id": "7",
        "region": "in",
        "project_timezone": None,
        "default": True,
    }


@pytest.mark.usefixtures("config")
def test_an_environment_that_goes_first_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """The output explains why the default account is not used."""
    monkeypatch.setenv("MP_SECRET", SECRET)
    assert "takes precedence over the default account" in mpx("list").stderr


def test_a_secret_comes_by_standard_input(path: Path) -> None:
    """The secret is its first line, without the line end."""
    result = mpx(*ADD, "--region", "EU", "--secret-stdin", typed=f"{SECRET}\nmore\n")
    assert result.exit_code == 0
    assert result.stdout == (
        f"Added new (project 9, eu, the default) to {path}. To test it: `mpx accounts test new`.\n"
        "Next: mpx export --from yesterday\n"
    )
    assert stored(path, "new") == ("svc.new", SECRET, "9", "eu")


def test_a_secret_comes_by_the_environment(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The variables of an export provide the account, and the output names the source of the secret."""
    for name, value in {
        "USERNAME": "svc.env",
        "SECRET": f"{SECRET}\n",
        "PROJECT_ID": "5",
        "REGION": "in",
    }.items():
        monkeypatch.setenv(f"MP_{name}", value)
    result = mpx("add", "saved", "--no-test")
    assert (result.exit_code, result.stderr) == (0, "Using the secret in MP_SECRET.\n")
    assert stored(path, "saved") == ("svc.env", SECRET, "5", "in")


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no pseudo-terminals of this kind")
@pytest.mark.parametrize("option", [[], ["--secret-stdin"]])
def test_a_secret_that_is_typed_is_not_shown(option: list[str], path: Path) -> None:
    """On a terminal, missing values are prompted for, and the secret is not echoed, however standard input is encoded."""
    asked = (
        (b"account:", "svc.typed"),
        (b"shown):", SECRET),
        (b"Project id:", "4"),
        (b"[us]:", "eu"),
        (b"2023? [y/N]:", "y"),
        (b"or UTC:", "Mars"),
        (b"or UTC:", "US/Pacific"),
        (b"[Y/n]:", ""),
    )
    shown = typed(["accounts", "add", "typed", "--no-test", *option], asked)
    assert "svc.typed" in shown
    assert SECRET not in shown
    assert stored(path, "typed") == ("svc.typed", SECRET, "4", "eu")
    assert resolve_credentials("typed", config_path=path).project_timezone == "US/Pacific"
    assert read_defaults(path) == Defaults(parallel=True, mode="resume")


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no pseudo-terminals of this kind")
@pytest.mark.usefixtures("config")
def test_a_removal_is_asked_about(path: Path) -> None:
    """On a terminal, removal of an account and its secret requires confirmation."""
    assert "Aborted" in typed(["accounts", "remove", "old"], [(b"[y/N]:", "n")], exit_code=1)
    assert path.read_text(encoding="utf-8") == CONFIG
    assert "Removed old." in typed(["accounts", "remove", "old"], [(b"[y/N]:", "y")])


@pytest.mark.parametrize(
    "words, code, text",
    [
        (["add", "new"], 2, "--username is missing"),
        (ADD, 2, "use --secret-stdin or MP_SECRET"),
        ([*ADD, "--secret-stdin"], 3, "MP_SECRET"),
        ([*ADD, "--region", "mars"], 2, "'mars'"),
        ([*ADD, "--secret-stdin", "--project-timezone", "Mars"], 3, "'Mars'"),
        (["add", " ", "--secret-stdin"], 3, "account"),
        (["add", "main", "--secret-stdin"], 4, "'main'"),
        (["add", "new", "secret"], 2, "unexpected extra argument"),
        (["remove", "main"], 2, "use --yes"),
        (["remove", "nobody", "--yes"], 4, "'nobody'"),
        (["default", "nobody"], 4, "'nobody'"),
        (["test", "nobody"], 4, "'nobody'"),
    ],
)
def test_what_cannot_be_done_is_one_line(words: list[str], code: int, text: str, config: Path) -> None:
    """No unnecessary prompts appear, nothing is written, and the exit code tells the kind of error."""
    typed = "x\n" if "Mars" in words else ""
    assert text in one_error(mpx(*words, typed=typed), code)
    assert config.read_text(encoding="utf-8") == CONFIG


@pytest.mark.usefixtures("config")
def test_an_account_is_replaced_on_request(path: Path) -> None:
    """With --replace, the name may exist; if the account was the default, it still is."""
    assert "--replace" in one_error(mpx("add", "main", *ADD[2:], "--secret-stdin"), 4)
    result = mpx("add", "main", *ADD[2:], "--replace", "--secret-stdin", typed="other\n")
    assert "(project 9, us, the default)" in result.stdout
    assert stored(path, "main") == ("svc.new", "other", "9", "us")


@pytest.mark.usefixtures("config")
def test_the_default_is_shown_changed_and_missed() -> None:
    """The default can be printed and changed, and removing it prints a notice."""
    assert mpx("default").stdout == "main\n"
    assert mpx("default", "old").stdout == "old is the default account.\n"
    assert mpx("remove", "main", "--yes").stdout == "Removed main.\n"
    removed = mpx("remove", "old", "--yes").stdout
    assert removed.startswith(
        "Removed old, which was the default account. To set another: `mpx accounts default "
    )
    assert "has no default account" in one_error(mpx("default"), 3)


@pytest.mark.usefixtures("config")
def test_a_region_that_is_none_is_an_error_beside_an_account(monkeypatch: pytest.MonkeyPatch) -> None:
    """The account has its own region, but an invalid MP_REGION is still an error."""
    monkeypatch.setenv("MP_REGION", "de")
    assert "'de'" in one_error(mpx("test", "main"), 3)


# Mixpanel's opinion


@pytest.fixture
def sim(path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Simulator]:
    """A served simulator, and the account `demo` of it in the file."""
    sim = simulator(now=lambda: datetime.now(UTC))
    mpx("add", "demo", *DEMO, "--no-test", typed="demo-secret\n")
    with served(sim) as url:
        monkeypatch.setenv("MPX_API_URL", url)
        yield sim


def test_an_account_is_tried_with_one_request(sim: Simulator) -> None:
    """Mixpanel's response is printed; as JSON, it has the keys of mixpanel_data's `test_credentials`."""
    result = mpx("test", "demo")
    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout.startswith("Mixpanel accepts account demo: project 12345, us; yesterday (UTC) has ")
    assert len(sim.requests) == 1
    printed: dict[str, Any] = json.loads(mpx("test", "--json").stdout)
    assert list(printed) == ["success", "account", "project_id", "region", "events_found"]
    assert (printed["success"], printed["account"], printed["project_id"]) == (True, "demo", "12345")


def test_a_new_account_is_tried_before_it_is_stored(sim: Simulator, path: Path) -> None:
    """An account that Mixpanel rejects is not stored; one that cannot be tested now is stored, and the reason is printed."""
    result = mpx("add", "good", *DEMO, typed="demo-secret\n")
    assert (result.exit_code, len(sim.requests)) == (0, 1)
    assert "Mixpanel accepts it" in result.stdout
    assert "does not accept" in one_error(mpx("add", "bad", *DEMO, typed="wrong\n"), 3)
    sim.faults = [Fault("503")]
    result = mpx("add", "unknown", *DEMO, typed="demo-secret\n")
    assert result.exit_code == 0
    assert "could not be tested" in result.stdout
    assert set(read_accounts(path)[1]) == {"demo", "good", "unknown"}


def test_a_time_zone_of_a_project_in_utc_is_refused(sim: Simulator, path: Path) -> None:
    """It would shift every time; a zone that agrees with UTC shifts none."""
    zone = [*DEMO, "--project-timezone"]
    assert "Asia/Tokyo" in one_error(mpx("add", "shifted", *zone, "Asia/Tokyo", typed="demo-secret\n"), 3)
    assert mpx("add", "same", *zone, "Atlantic/Reykjavik", typed="demo-secret\n").exit_code == 0
    assert set(read_accounts(path)[1]) == {"demo", "same"}
    assert len(sim.requests) == 2


def test_without_a_name_it_tries_what_an_export_would_use(
    sim: Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The environment takes precedence over the default account."""
    for name, value in {
        "USERNAME": "demo.mp-service-account",
        "SECRET": "demo-secret",
        "PROJECT_ID": "12345",
    }.items():
        monkeypatch.setenv(f"MP_{name}", value)
    assert mpx("test").stdout.startswith("Mixpanel accepts the credentials in the environment: ")
    assert json.loads(mpx("test", "--json").stdout)["account"] is None
    monkeypatch.setenv("MP_SECRET", "wrong")
    assert "does not accept the credentials" in one_error(mpx("test"), 3)
    assert mpx("test", "demo").exit_code == 0
    assert len(sim.requests) == 4


@pytest.mark.parametrize("fault, code", [("429", 5), ("402", 1), ("503", 1), ("auth_text_200", 3)])
def test_other_answers_have_their_exit_codes(fault: str, code: int, sim: Simulator) -> None:
    """Rejected, not tested now, and impossible have different exit codes."""
    sim.faults = [Fault(fault)]  # type: ignore[arg-type] # a kind
    one_error(mpx("test"), code)
