"""Settings for all tests, and what the tests of `mpx` export from and into."""

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import settings
from shell import environment
from support import simulator

from mixpanel_export.simulator import Simulator

# A shared machine may stall anywhere, and how long an example takes is no claim of any test.
settings.register_profile("shared machine", deadline=None)
settings.load_profile("shared machine")


@pytest.fixture(autouse=True)
def _own_quota(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Give each test a quota file of its own, as all talk to the same few hosts."""
    monkeypatch.setenv("MPX_STATE_DIR", str(tmp_path_factory.mktemp("state")))


@pytest.fixture
def sim() -> Simulator:
    return simulator(now=lambda: datetime.now(UTC))


@pytest.fixture
def env(sim: Simulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Mapping[str, str]]:
    """An environment in which `mpx` exports from *sim* into *db*."""
    with environment(sim, tmp_path, monkeypatch) as env:
        yield env


@pytest.fixture
def db(tmp_path: Path) -> Path:
    return tmp_path / "events.duckdb"
