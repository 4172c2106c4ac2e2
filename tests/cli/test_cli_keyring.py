"""Secrets in the system's keyring: `mpx accounts add --keyring`."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from keyrings import InMemory, no_backend, used
from shell import WEEK, mpx, one_error

from mixpanel_export.credentials import resolve_credentials
from mixpanel_export.simulator import Simulator

ADD = ["accounts", "add", "main", "--secret-stdin", "--no-test", "--keyring"]


@pytest.fixture
def backend() -> Iterator[InMemory]:
    with used(backend := InMemory()):
        yield backend


@pytest.fixture
def config(env: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The configuration file, and no secret in the environment."""
    monkeypatch.delenv("MP_SECRET")
    return tmp_path / "config.toml"


def test_the_secret_is_in_the_keyring_only(
    backend: InMemory, config: Path, sim: Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An export reads it from the keyring, and the file does not contain it."""
    assert mpx(*ADD, given="demo-secret\n").exit_code == 0
    assert "demo-secret" not in config.read_text(encoding="utf-8")
    assert list(backend.secrets.values()) == ["demo-secret"]
    for name in ("MP_USERNAME", "MP_PROJECT_ID"):
        monkeypatch.delenv(name)
    assert mpx("export", *WEEK).exit_code == 0
    assert len(sim.requests) == 1


def test_the_secret_leaves_with_its_last_account(backend: InMemory, config: Path) -> None:
    """Two accounts of one user share the secret; without --keyring, the file has it again."""
    assert mpx(*ADD, given="demo-secret\n").exit_code == 0
    assert mpx(*ADD, "--replace", given="second\n").exit_code == 0
    other = ["accounts", "add", "other", *ADD[3:]]
    assert mpx(*other, given="second\n").exit_code == 0
    assert mpx("accounts", "remove", "other", "--yes").exit_code == 0
    assert resolve_credentials("main", config_path=config, environ={}).secret == "second"
    assert mpx("accounts", "remove", "main", "--yes").exit_code == 0
    assert backend.secrets == {}
    assert mpx(*ADD, given="third\n").exit_code == 0
    assert mpx(*ADD[:-1], "--replace", given="fourth\n").exit_code == 0
    assert resolve_credentials("main", config_path=config, environ={}).secret == "fourth"


@pytest.mark.usefixtures("config")
def test_a_system_without_a_keyring_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a backend or the package, nothing is stored: exit code 3."""
    with used(no_backend()):
        assert "keyring" in one_error(mpx(*ADD, given="demo-secret\n"))
    for module in ("keyring", "keyring.errors"):
        monkeypatch.setitem(sys.modules, module, None)
    result = mpx(*ADD, given="demo-secret\n")
    assert result.exit_code == 3
    assert "[keyring]" in one_error(result)


def test_a_secret_that_the_keyring_lost_is_one_line(
    backend: InMemory, config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The error says how to store the secret again."""
    assert mpx(*ADD, given="demo-secret\n").exit_code == 0
    backend.secrets.clear()
    monkeypatch.delenv("MP_USERNAME")
    monkeypatch.delenv("MP_PROJECT_ID")
    result = mpx("export", *WEEK)
    assert result.exit_code == 3
    assert "--keyring" in one_error(result)
    assert config.exists()
