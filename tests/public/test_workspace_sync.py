"""`Workspace.sync`, and exports that wait for each other."""

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

import anyio
import pytest
import workspaces
from shell import held_by_another
from support import export, held, simulator, truth
from workspaces import Served

from mixpanel_export import Workspace
from mixpanel_export.errors import ArgumentError, DatabaseLockedError, ExportRunningError
from mixpanel_export.simulator import checksum

portal = workspaces.portal
environment = workspaces.environment
served = workspaces.served

pytestmark = pytest.mark.anyio


def test_a_workspace_syncs_with_an_open_connection(served: Served) -> None:
    """The file may be open in the workspace; empty filters select everything."""
    yesterday = datetime.now(UTC).date() - timedelta(days=1)
    first = yesterday - timedelta(days=2)
    result = served.workspace.sync(since=first, events=[], where=" ", progress=False)
    assert served.workspace.sql_scalar("SELECT count(*) FROM events") == result.export.total_rows
    again = served.workspace.sync(progress=False)
    assert (again.days, again.changes, again.kept) == ((str(first), str(yesterday)), (), ())
    rows = served.workspace.connection.execute(
        "SELECT event_name, event_time, distinct_id, insert_id, properties FROM events"
    ).fetchall()
    assert checksum(rows) == served.simulator.truth(first, yesterday).checksum
    assert "synchronized" in again._repr_html_()


def test_two_threads_share_a_file(served: Served) -> None:
    """With `wait`, the fetches of two workspaces into one file queue."""

    def fetch(table: str) -> int:
        with Workspace(
            path=served.workspace.db_path, credentials=workspaces.CREDENTIALS, api_url=served.url
        ) as workspace:
            fetched = workspace.fetch_events(
                table, from_date="2024-01-01", to_date="2024-01-02", progress=False, wait=60.0
            )
            return fetched.rows

    with ThreadPoolExecutor() as threads:
        rows = list(threads.map(fetch, ("a", "b", "c")))
    assert len(set(rows)) == 1


async def test_two_exports_into_one_file_queue(db: Path) -> None:
    """With `wait`, both are complete at the end; without it, the second is refused."""
    sim = simulator()
    async with anyio.create_task_group() as tasks:
        for first, last, name in (("2024-03-01", "2024-03-04", "a"), ("2024-03-05", "2024-03-09", "b")):
            tasks.start_soon(partial(export, sim, db, first, last, table=name, wait=60.0))
    for first, last, name in (("2024-03-01", "2024-03-04", "a"), ("2024-03-05", "2024-03-09", "b")):
        assert held(db, name) == truth(sim, first, last)
    refused: list[Exception] = []

    async def another(_: object) -> None:
        with pytest.raises(ExportRunningError) as caught:
            await export(sim, db, table="c", wait=0.01)
        refused.append(caught.value)

    await export(sim, db, table="d", last="2024-03-01", on_batch_complete=another)
    assert len(refused) == 1


async def test_an_export_waits_for_another_process(db: Path) -> None:
    """It starts when the process closes the file; a wait that is too short ends with the same error."""
    sim = simulator()
    with held_by_another(db) as process:
        with pytest.raises(DatabaseLockedError):
            await export(sim, db, last="2024-03-01", wait=0.1)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(partial(export, sim, db, last="2024-03-01", wait=60.0))
            await anyio.sleep(0.3)
            assert sim.requests == []
            assert process.stdin is not None
            process.stdin.write("\n")
            process.stdin.flush()
    assert held(db) == truth(sim, last="2024-03-01")


async def test_a_negative_wait_is_refused(db: Path) -> None:
    """No request is sent."""
    sim = simulator()
    with pytest.raises(ArgumentError):
        await export(sim, db, wait=-1.0)
    assert (sim.requests, db.exists()) == ([], False)
