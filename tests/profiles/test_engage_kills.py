"""Exports of profiles that are killed: the table is unchanged, or complete if the kill came after the commit."""

import os
from collections.abc import Iterator
from contextlib import closing
from multiprocessing import get_context
from pathlib import Path

import anyio
import pytest
from anyio.from_thread import start_blocking_portal
from examples import slow
from people import export_from, people, project, snapshots
from support import ACCOUNT, NOW
from torture.child import PROFILE_STATEMENTS, ChildProfiles, Moment, Point, export_profiles
from torture.people import TABLE, ProfileExport

from mixpanel_export.simulator import Simulator

PAGES = 10
MOMENTS: tuple[Moment, ...] = ("before", "during", "after")
CORE = [
    ("profiles: stage a page", 4, "before"),
    ("profiles: commit", 2, "before"),
    ("profiles: commit", 2, "after"),
]
ALL = [
    *(("profiles: stage a page", page, moment) for page in range(1, PAGES + 1) for moment in MOMENTS),
    *((name, 1, moment) for name in PROFILE_STATEMENTS for moment in MOMENTS),
]


@pytest.fixture
def served() -> Iterator[tuple[Simulator, str]]:
    """A project with ten pages, served by a thread."""
    sim = project(profiles=95, page_size=10)
    with start_blocking_portal() as portal, portal.wrap_async_context_manager(sim.serve()) as url:
        yield sim, url


if os.name == "posix":  # kills need SIGKILL and fork

    @pytest.mark.parametrize("mode", ["replace", *slow(["append"])])
    @pytest.mark.parametrize("name, turn, moment", [*CORE, *slow(ALL)])
    def test_a_kill_leaves_the_old_table_or_the_new_one(
        served: tuple[Simulator, str], db: Path, name: str, turn: int, moment: Moment, mode: str
    ) -> None:
        """At every page and every statement; the next export is exact."""
        sim, url = served
        anyio.run(lambda: export_from(url, db, table=TABLE))
        old = sim.profile_truth()
        sim.profile_revision = 1
        new = sim.profile_truth()
        killed = _export_killed(
            ChildProfiles(
                ProfileExport(mode), db, url, ACCOUNT, NOW, db.with_name("state"), Point(name, turn, moment)
            )
        )
        expected = old | new if mode == "append" else new
        after = people(db, TABLE)
        assert after in (old, expected)
        if (name, moment) in {("profiles: stage a page", "before"), ("profiles: commit", "before")}:
            assert killed
            assert after == old
        if (name, turn, moment) == ("profiles: commit", 2, "after") or not killed:
            assert after == expected
        complete = [row for row in snapshots(db) if row[0] == "complete"]
        assert len(complete) == (2 if after != old and mode == "append" else 1)
        anyio.run(lambda: export_from(url, db, table=TABLE, mode=mode))
        assert people(db, TABLE) == expected


def _export_killed(job: ChildProfiles) -> bool:
    """Run *job* in a child, and return whether it was killed."""
    context = get_context("forkserver")
    context.set_forkserver_preload(
        ["mixpanel_export._profiles.engine", "anyio._backends._asyncio", "httpx", "duckdb"]
    )
    receive, send = context.Pipe(duplex=False)
    child = context.Process(target=export_profiles, args=(job, send))
    child.start()
    send.close()
    with closing(receive):
        child.join(120)
        code = child.exitcode
    assert code in {0, -9}
    return code == -9
