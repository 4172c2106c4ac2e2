"""Real `mpx export` processes that share one project's quota, as the server sees them."""

import os
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path

import pytest
from anyio.from_thread import start_blocking_portal
from examples import slow
from shell import MPX, mpx
from support import held, ledger, simulator, truth

from mixpanel_export.simulator import Simulator

FIRST = date(2024, 3, 1)


@dataclass(frozen=True)
class Share:
    """The days of one of several processes, and its file."""

    db: Path
    first: date
    last: date

    @property
    def days(self) -> tuple[str, str]:
        """Return the first and the last day as text."""
        return str(self.first), str(self.last)


def shares(folder: Path, processes: int, days: int) -> list[Share]:
    """Return *days* days for each of the *processes*, one after the other."""
    firsts = [FIRST + number * timedelta(days) for number in range(processes)]
    return [
        Share(folder / f"{number}.duckdb", first, first + timedelta(days - 1))
        for number, first in enumerate(firsts)
    ]


@contextmanager
def served(sim: Simulator) -> Iterator[Mapping[str, str]]:
    """Serve *sim* from a thread of its own, and yield the environment of a process that exports from it.

    All days are prepared, since a simulator that is busy making them would count requests later than they came.
    """
    sim.prepare(FIRST, FIRST + timedelta(60))
    with start_blocking_portal() as portal, portal.wrap_async_context_manager(sim.serve()) as url:
        yield os.environ | {
            "MPX_API_URL": url,
            "MP_USERNAME": "demo.mp-service-account",
            "MP_SECRET": "demo-secret",
            "MP_PROJECT_ID": "12345",
            "MP_REGION": "us",
        }


def words_for(share: Share, *options: str) -> list[str]:
    """Return the command that exports the days of *share*, one request a day."""
    first, last = share.days
    words = ["--from", first, "--to", last, "--db", str(share.db), "--parallel", "--chunk-days", "1"]
    return ["export", *words, *options]


def start(share: Share, env: Mapping[str, str], *options: str) -> subprocess.Popen[str]:
    """Begin to export the days of *share*."""
    command = [*MPX, *words_for(share, *options)]
    return subprocess.Popen(command, env=env, stderr=subprocess.PIPE, text=True)


def ended(processes: list[subprocess.Popen[str]]) -> list[tuple[int, str]]:
    """Return exit codes and standard error."""
    said = [process.communicate(timeout=100)[1] for process in processes]
    return [(process.returncode, text) for process, text in zip(processes, said, strict=True)]


def statuses(sim: Simulator) -> list[int | None]:
    """Return the status of each request."""
    return [request.status for request in sim.requests]


@pytest.mark.parametrize("processes, days", [(2, 5), *slow([(10, 2)])])
def test_processes_together_keep_mixpanels_limits(tmp_path: Path, processes: int, days: int) -> None:
    """Concurrent exports of one project are never refused, and each file is exact."""
    sim = simulator(per_second=3, per_hour=60)
    parts = shares(tmp_path, processes, days)
    with served(sim) as env:
        results = ended([start(share, env) for share in parts])
    assert [code for code, _ in results] == [0] * processes, results
    assert statuses(sim) == [200] * (processes * days)
    assert [held(share.db) for share in parts] == [truth(sim, *share.days) for share in parts]


@pytest.mark.slow
def test_an_hour_that_is_spent_is_spent_for_all(tmp_path: Path) -> None:
    """Two processes that need 8 requests of the hour's 6, and do not wait, leave 2 for `resume`, and get no 429."""
    sim = simulator(per_second=3, per_hour=6)
    parts = shares(tmp_path, 2, 4)
    with served(sim) as env:
        limited = {**env, "MPX_PER_HOUR": "6"}
        results = ended([start(share, limited, "--max-wait", "0") for share in parts])
    assert statuses(sim) == [200] * 6
    missing = [sum(row[2] == "failed" for row in ledger(share.db)) for share in parts]
    assert sum(missing) == 2
    assert [code for code, _ in results] == [5 if failed else 0 for failed in missing], results
    assert all(("the quota is used up" in text) == (code == 5) for code, text in results)
    later = simulator()
    with served(later) as env:
        unlimited = {**env, "MPX_PER_HOUR": "0", "MPX_PER_SECOND": "0"}
        for share in parts:
            assert mpx(*words_for(share, "--resume"), env=unlimited).exit_code == 0
    assert statuses(later) == [200] * 2
    assert [held(share.db) for share in parts] == [truth(sim, *share.days) for share in parts]
