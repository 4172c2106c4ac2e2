"""Answers of the Query API that contradict each other or the documentation, and exports that are killed."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import pytest
from anyio.from_thread import start_blocking_portal
from examples import slow
from people import export_from, exported_project, people, snapshots
from support import Body, query

from mixpanel_export import (
    MixpanelDataError,
    ParallelProfileResult,
    SnapshotError,
    TruncatedError,
    run_sync,
)

pytestmark = pytest.mark.anyio


def page(number: int, **changes: Any) -> dict[str, Any]:
    """Return page *number* of three, with two profiles each; later pages are empty. None removes a member."""
    letters = "ab" if number < 3 else ""
    results = [{"$distinct_id": f"{number}{letter}", "$properties": {"n": number}} for letter in letters]
    body = {"page": number, "page_size": 2, "results": results, "session_id": "s", "status": "ok", "total": 6}
    return {name: value for name, value in (body | changes).items() if value is not None}


def answering(**changes: dict[str, Any]) -> httpx.MockTransport:
    """Return a transport that answers with `page`, changed for the pages that are named like `page1`."""

    async def respond(request: httpx.Request) -> httpx.Response:
        number = int(dict(httpx.QueryParams(request.content.decode()))["page"])
        body = page(number, **changes.get(f"page{number}", {}))
        return httpx.Response(200, stream=Body([json.dumps(body).encode()]))

    return httpx.MockTransport(respond)


@pytest.mark.parametrize(
    "changes",
    [
        {"page0": {"page_size": None}},
        {f"page{number}": {"total": None, "page_size": None, "session_id": None, "page": None} for number in (1, 2)},
        {"page0": {"status": None, "computed_at": "2026-01-01", "more": {"results": []}}},
    ],
)  # fmt: skip
async def test_only_what_is_needed_must_be_there(changes: Any, db: Path) -> None:
    """The total and the session are needed on page 0 only."""
    result = await export_from(db=db, transport=answering(**changes))
    assert people(db) == {f"{number}{letter}": f'{{"n": {number}}}' for number in range(3) for letter in "ab"}
    assert (result.successful_pages, result.restarts) == (3, 0)


@pytest.mark.parametrize(
    "changes, error",
    [
        ({"page0": {"total": None}}, TruncatedError),
        ({"page0": {"session_id": None}}, TruncatedError),
        ({"page1": {"results": None}}, TruncatedError),
        ({"page1": {"page": 2}}, TruncatedError),
        ({"page1": {"session_id": "other"}}, SnapshotError),
        ({"page1": {"total": 7}}, SnapshotError),
        ({"page2": {"results": []}}, SnapshotError),
        ({"page2": {"results": [{"$distinct_id": "2a"}]}}, SnapshotError),
        ({"page2": {"results": page(1)["results"]}}, SnapshotError),
        ({"page0": {"total": 5}, "page1": {"total": 5}, "page2": {"total": 5}}, SnapshotError),
    ],
)
async def test_a_contradiction_is_an_error(changes: Any, error: type[MixpanelDataError], db: Path) -> None:
    """Nothing is stored, and the error quotes no profile."""
    with pytest.raises(error) as caught:
        await export_from(db=db, transport=answering(**changes), retries=1)
    assert "$distinct_id" not in str(caught.value) + repr(vars(caught.value))
    assert query(db, "SELECT table_name FROM duckdb_tables() WHERE NOT starts_with(table_name, '_')") == []
    assert [status for (status,) in snapshots(db, "status")] == ["failed"]


async def test_entries_that_are_not_profiles_are_kept_aside(db: Path) -> None:
    """They count towards the total, are in `_export_rejects`, and go when the table is replaced."""
    odd = [{"$distinct_id": None, "$properties": {}}, {"$distinct_id": "\ud800", "$properties": {}}]
    result = await export_from(db=db, transport=answering(page1={"results": odd}))
    assert (result.total_rows, result.rejects, result.repaired, result.profiles) == (5, 1, 1, 6)
    assert people(db)["�"] == "{}"
    assert sorted(query(db, "SELECT reason, decode(line) FROM _export_rejects")) == [
        ("rejected", '{"$distinct_id": null, "$properties": {}}'),
        ("repaired", r'{"$distinct_id": "\ud800", "$properties": {}}'),
    ]
    await export_from(db=db, transport=answering(), mode="replace")
    assert query(db, "FROM _export_rejects") == []


def test_a_result_says_what_was_unusual() -> None:
    """In a notebook, counts that are not 0 have a row."""
    html = ParallelProfileResult("people", 5, 1, 0, (), 0.5, None, duplicates=3, restarts=2)._repr_html_()  # type: ignore[arg-type]
    assert "duplicates removed" in html
    assert "restarts" in html
    assert "repaired" not in html


KILLED = """
import os, signal, sys
from mixpanel_export import Credentials, Workspace

def kill(page):
    if page.cumulative_rows >= int(sys.argv[3]):
        os.kill(os.getpid(), signal.SIGKILL)

account = Credentials("demo.mp-service-account", "demo-secret", "12345")
Workspace(path=sys.argv[1], credentials=account, api_url=sys.argv[2]).fetch_profiles(
    replace=True, parallel=True, on_page_complete=kill
)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGKILL")
@pytest.mark.parametrize("rows", [50, *slow([1, 90])])
def test_a_killed_export_leaves_the_old_table(rows: int, db: Path) -> None:
    """After the first page, in the middle and after most pages; the next export works."""
    sim = run_sync(exported_project, db)
    with start_blocking_portal() as portal, portal.wrap_async_context_manager(sim.serve()) as url:
        old = people(db)
        sim.profile_revision = 1
        command = [sys.executable, "-c", KILLED, str(db), url, str(rows)]
        assert subprocess.run(command, check=False, capture_output=True).returncode == -9
        assert people(db) == old
        tables = query(
            db, "SELECT table_name FROM duckdb_tables() WHERE NOT starts_with(table_name, '_export')"
        )
        assert set(tables) <= {("profiles",), ("_sync_changes",)}
        portal.call(lambda: export_from(url, db, mode="replace"))
    assert people(db) == sim.profile_truth() != old
