"""A simulator on a socket, a workspace that talks to it, and callers with and without an event loop."""

import json
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any, TypedDict

import pytest
from anyio.from_thread import BlockingPortal, start_blocking_portal

from mixpanel_export import (
    Credentials,
    Workspace,
)
from mixpanel_export.simulator import Simulator, checksum

FIRST, LAST = date(2024, 1, 1), date(2024, 1, 14)


class Days(TypedDict):
    """The range of a fetch."""

    from_date: str
    to_date: str


DAYS: Days = {"from_date": "2024-01-01", "to_date": "2024-01-14"}


COLUMNS = "event_name, event_time, distinct_id, insert_id, properties"


CREDENTIALS = Credentials("demo.mp-service-account", "demo-secret", "12345")


@pytest.fixture(scope="module")
def portal() -> Iterator[BlockingPortal]:
    with start_blocking_portal() as portal:
        yield portal


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Only a test's own credentials, a separate home directory, and no wait for the quota."""
    for name in ("MP_USERNAME", "MP_SECRET", "MP_PROJECT_ID", "MP_REGION", "MP_CONFIG_PATH"):
        monkeypatch.delenv(name, raising=False)
    for name in ("MPX_API_URL", "MPX_PROJECT_TIMEZONE"):
        monkeypatch.delenv(name, raising=False)
    for name in ("HOME", "USERPROFILE"):
        monkeypatch.setenv(name, str(tmp_path / "home"))
    for name in ("MPX_PER_SECOND", "MPX_PER_HOUR"):
        monkeypatch.setenv(name, "0")


@dataclass(frozen=True, slots=True)
class Served:
    """A simulator on a socket, and a workspace that uses it."""

    simulator: Simulator
    url: str
    workspace: Workspace

    def requests(self) -> int:
        return len(self.simulator.requests)


@contextmanager
def serving(portal: BlockingPortal, path: Path, simulator: Simulator) -> Iterator[Served]:
    with (
        portal.wrap_async_context_manager(simulator.serve()) as url,
        Workspace(path=path, credentials=CREDENTIALS, api_url=url) as workspace,
    ):
        yield Served(simulator, url, workspace)


@pytest.fixture
def served(portal: BlockingPortal, tmp_path: Path) -> Iterator[Served]:
    simulator = Simulator(events_per_day=40, duplicates=0.1, odd=0.05, per_second=0, per_hour=0)
    with serving(portal, tmp_path / "events.duckdb", simulator) as served:
        yield served


def checksum_of(workspace: Workspace, table: str = "events") -> int:
    return checksum(workspace.connection.execute(f"SELECT {COLUMNS} FROM {table}").fetchall())


def first_wins(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object of whose equal keys the first counts, as in the columns of a table."""
    return dict(reversed(pairs))


def in_order(events: Iterable[dict[str, Any]]) -> list[str]:
    return sorted(json.dumps(event, sort_keys=True, default=str) for event in events)
