"""Handles of a quota file, on a clock that the test sets."""

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from mixpanel_export._quota.clock import Moment
from mixpanel_export._quota.shared import Key, SharedQuota

KEY = Key("data.mixpanel.com", "12345")


IN_CHILD = "from mixpanel_export._quota.shared import *; from pathlib import Path; import sqlite3, time\n"


@dataclass
class Clock:
    """A machine's clocks, set by the test."""

    boot: str | None = "first"
    elapsed: float = 1000.0
    wall: float = 1.7e9

    def __call__(self) -> Moment:
        return Moment(self.boot, self.elapsed, self.wall)

    def pass_(self, seconds: float) -> None:
        """Let *seconds* pass."""
        self.elapsed += seconds
        self.wall += seconds

    def restart(self) -> None:
        """Begin another boot of the machine."""
        self.boot, self.elapsed = f"after {self.boot}", 5.0


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state" / "quota.sqlite3"


@pytest.fixture
def handle(path: Path, clock: Clock) -> Callable[..., SharedQuota]:
    """Return a function that opens the quota as one more process would."""

    def open_(per_second: int = 0, per_hour: int = 3, key: Key = KEY, timeout: float = 60.0) -> SharedQuota:
        return SharedQuota(key, per_second, per_hour, path=path, clock=clock, timeout=timeout)

    return open_


Open = Callable[..., SharedQuota]


def rows(path: Path, column: str = "elapsed") -> list[Any]:
    """Return a column of the file, oldest first."""
    with closing(sqlite3.connect(path)) as connection:
        return [row[0] for row in connection.execute(f"SELECT {column} FROM entries ORDER BY elapsed")]


def taken(quota: SharedQuota) -> str:
    """Take a place that must be free, and return its ticket."""
    ticket = quota.take_slot().ticket
    assert ticket is not None
    return ticket


@contextmanager
def one_warning(text: str) -> Iterator[None]:
    """Expect exactly one warning that contains *text*."""
    with pytest.warns(UserWarning, match=text) as caught:
        yield
    assert len(caught) == 1
