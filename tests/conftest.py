"""Settings for all tests, and the project and database of the `mpx` tests."""

import gc
from collections import defaultdict
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from itertools import count
from pathlib import Path
from zlib import crc32

import pytest
from examples import CORE, FULL
from hypothesis import settings
from shell import environment
from support import ACCOUNT, simulator

from mixpanel_export.simulator import Simulator

BACKENDS = ["asyncio", "trio"]


def pytest_configure(config: pytest.Config) -> None:
    """Choose the number of examples by whether slow tests run."""
    settings.load_profile(CORE if config.option.markexpr == "not slow" else FULL)
    gc.disable()  # collecting the tests creates half a million objects and no garbage


def pytest_collection_finish() -> None:
    """Exclude the collected tests and the imported modules from each later search for garbage."""
    gc.freeze()
    gc.enable()


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Start the longest tests first, and leave one event loop of the two to the slow run.

    The tests with a timeout of their own are the longest. The cases of each async test alternate between the loops.
    """
    items.sort(key=lambda item: item.get_closest_marker("timeout") is None)
    cases: dict[str, dict[str, list[pytest.Item]]] = defaultdict(lambda: defaultdict(list))
    for item in items:
        if isinstance(item, pytest.Function) and hasattr(item, "callspec"):
            backend = item.callspec.params.get("anyio_backend")
            cases[f"{item.path.name}::{item.originalname}"][str(backend)].append(item)
    for name, by_backend in cases.items():
        if len(by_backend) == len(BACKENDS):
            for backend, its_cases in by_backend.items():
                for item in its_cases[(crc32(name.encode()) + BACKENDS.index(backend)) % 2 :: 2]:
                    item.add_marker("slow")


@pytest.fixture(scope="session")
def _quota_files(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder for each test; pytest itself would search all earlier folders for the next free number."""
    root = tmp_path_factory.mktemp("state")
    return (root / str(number) for number in count())


@pytest.fixture(autouse=True)
def _own_quota(monkeypatch: pytest.MonkeyPatch, _quota_files: Iterator[Path]) -> None:
    """Give each test a separate quota file, because all use the same few hosts."""
    folder = next(_quota_files)
    folder.mkdir(mode=0o700)
    monkeypatch.setenv("MPX_STATE_DIR", str(folder))


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


@pytest.fixture
def account_in_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The simulator's account, without a quota to wait for."""
    settings = {
        "MP_USERNAME": ACCOUNT.auth[0],
        "MP_SECRET": ACCOUNT.auth[1],
        "MP_PROJECT_ID": "12345",
        "MP_CONFIG_PATH": str(tmp_path / "none.toml"),
        "MPX_PER_SECOND": "0",
        "MPX_PER_HOUR": "0",
    }
    for name in ("MP_ACCOUNT", "MP_REGION", "MPX_API_URL", "MPX_DB"):
        monkeypatch.delenv(name, raising=False)
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
