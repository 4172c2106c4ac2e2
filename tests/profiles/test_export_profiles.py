"""Exports of profiles: the table has exactly Mixpanel's profiles, whatever the server does, or is unchanged."""

import json
from pathlib import Path
from typing import Any

import anyio
import anyio.lowlevel
import httpx
import pytest
from examples import slow
from people import export_from, export_people, exported_project, people, project, snapshots
from support import Body, query

from mixpanel_export import (
    AuthenticationError,
    MixpanelDataError,
    ProfileProgress,
    Progress,
    QueryError,
    RateLimitError,
    SelectionError,
    ServerError,
    SnapshotError,
    TableError,
    TableExistsError,
    TableFormatError,
    TableNotFoundError,
)
from mixpanel_export.simulator import Cohort, Fault

pytestmark = pytest.mark.anyio

# Faults of a page after which one more request, or one more session, has all profiles.
PASSING = [
    "429", "500", "503", "close", "close_before_head", "cut_line", "error_line", "page_again", "profile_repeated",
    "profile_skipped", "reset", "reset_before_head", "session_evicted", "short_page", "total_too_high", "total_too_low",
    "wrong_page",
]  # fmt: skip


async def test_the_table_has_exactly_the_profiles(db: Path) -> None:
    """Ids, the text of the properties and the times are those of the server; page 0 is requested first, and counted."""
    sim = project(profiles=1234, page_size=100, queries_per_hour=60)
    result = await export_people(sim, db, per_hour=None)
    assert people(db) == sim.profile_truth()
    seen = query(
        db, "SELECT count(*) FILTER (last_seen = (properties->>'$.$last_seen')::TIMESTAMP) FROM profiles"
    )
    assert query(db, "SELECT count(last_seen) FROM profiles") == seen
    assert (result.total_rows, result.successful_pages, result.profiles, result.requests) == (
        1234,
        13,
        1234,
        13,
    )
    assert (result.has_failures, result.duplicates, result.short_pages, result.restarts) == (False, 0, 0, 0)
    assert snapshots(db) == [("complete", 1234 - result.rejects, 1234, 13, 0)]
    first, *others = [log.params for log in sim.profile_requests]
    assert "session_id" not in first
    assert len({log["session_id"] for log in others}) == 1
    assert 1 < sim.max_concurrent_queries <= 5


@pytest.mark.parametrize("kind", PASSING)
async def test_a_fault_that_passes_leaves_no_trace(kind: Any, db: Path) -> None:
    """The table is the server's after every fault of page 0 and of a later page."""
    sim = project(profile_faults=[Fault(kind, pages=(0, 3), times=1, retry_after=0)])
    await export_people(sim, db)
    assert people(db) == sim.profile_truth()


@pytest.mark.slow
@pytest.mark.parametrize("second", PASSING)
async def test_two_faults_leave_no_trace(second: Any, db: Path) -> None:
    """Nor do they in pairs: the second fault hits the new session after the first one was evicted."""
    faults = [
        Fault("session_evicted", pages=(4,), times=1),
        Fault(second, pages=(6,), times=1, retry_after=0),
    ]
    sim = project(profile_faults=faults)
    result = await export_people(sim, db)
    assert people(db) == sim.profile_truth()
    assert result.restarts >= 1


@pytest.mark.parametrize("status", [None, 200])
async def test_sessions_are_never_combined(status: int | None, db: Path) -> None:
    """If a session is evicted while profiles change, the table has the state of the new session only."""
    sim = project(profile_faults=[Fault("session_evicted", pages=(7,), times=1, status=status)])

    def change(page: ProfileProgress) -> None:
        sim.profile_revision = 1

    result = await export_people(sim, db, on_page=change, max_workers=1)
    assert people(db) == sim.profile_truth()
    assert result.restarts == 1
    assert snapshots(db, "status, restarts") == [("complete", 1)]


@pytest.mark.parametrize(
    "kind, error",
    [
        ("401", AuthenticationError),
        ("402", QueryError),
        ("500", ServerError),
        ("profile_skipped", SnapshotError),
        *slow(
            [
                ("403", QueryError),
                ("session_evicted", SnapshotError),
                ("page_again", SnapshotError),
                ("short_page", SnapshotError),
                ("total_too_low", SnapshotError),
            ]
        ),
    ],
)
async def test_a_fault_that_stays_leaves_the_old_table(
    kind: Any, error: type[MixpanelDataError], db: Path
) -> None:
    """The error is named, the old table is unchanged, and the ledger has the failure."""
    sim = await exported_project(db)
    old = people(db)
    sim.profile_revision = 1
    sim.profile_faults = [Fault(kind, pages=(5,))]
    pages: list[ProfileProgress] = []
    with pytest.raises(error) as caught:
        await export_people(sim, db, mode="replace", retries=1, on_page=pages.append)
    assert people(db) == old
    assert snapshots(db, "status, error") == [("complete", None), ("failed", str(caught.value))]
    assert query(db, "SELECT table_name FROM duckdb_tables() WHERE NOT starts_with(table_name, '_')") == [
        ("profiles",)
    ]
    if error is not SnapshotError:
        assert (pages[-1].page_index, pages[-1].success, pages[-1].error) == (5, False, str(caught.value))
    sim.profile_faults = []
    await export_people(sim, db, mode="replace")
    assert people(db) == sim.profile_truth() != old


async def test_a_short_page_is_accepted_if_all_profiles_are_there(db: Path) -> None:
    """Pages may follow those that the total promises; the result reports the short pages."""
    sim = project(profiles=20, page_size=10, awkward=0.0)
    truth = list(sim.profile_truth().items())
    pages = [truth[:10], truth[10:14], truth[14:]]  # the second page is short, and a third one follows

    async def respond(request: Any) -> Any:
        number = int(dict(httpx.QueryParams(request.content.decode()))["page"])
        results = [{"$distinct_id": key, "$properties": json.loads(text)} for key, text in pages[number]]
        body = {"page": number, "page_size": 10, "results": results, "session_id": "s", "total": 20}
        return httpx.Response(200, stream=Body([json.dumps(body).encode()]))

    result = await export_from(db=db, transport=httpx.MockTransport(respond))
    assert people(db).keys() == dict(truth).keys()
    assert (result.short_pages, result.successful_pages, result.total_rows) == (1, 3, 20)
    assert snapshots(db, "short_pages, pages") == [(1, 3)]


async def test_a_profile_on_two_pages_is_stored_once(db: Path) -> None:
    """The copy on the later page is stored, although the earlier page may arrive after it."""
    pages = [[("a", 1), ("b", 1)], [("c", 1), ("a", 2), ("a", 3)], [("d", 1), ("e", 1)], []]
    release = anyio.Event()

    async def respond(request: httpx.Request) -> httpx.Response:
        number = int(dict(httpx.QueryParams(request.content.decode()))["page"])
        results = [{"$distinct_id": key, "$properties": {"n": n}} for key, n in pages[number]]
        body = {"page": number, "page_size": 2, "results": results, "session_id": "s", "total": 5}
        if number == 2:
            release.set()
        elif number == 1:
            await release.wait()
        return httpx.Response(200, stream=Body([json.dumps(body, separators=(",", ":")).encode()]))

    for mode in ("create", "append", "replace"):
        result = await export_from(db=db, transport=httpx.MockTransport(respond), mode=mode)
        assert people(db) == {"a": '{"n":3}', **dict.fromkeys("bcde", '{"n":1}')}
        assert result.duplicates == 2
    assert snapshots(db, "status, duplicates, rows")[-1] == ("complete", 2, 5)


async def test_append_updates_and_replace_replaces(db: Path) -> None:
    """`append` adds and updates profiles; `replace` also removes them; the ledger counts the rows of each snapshot."""
    cohort = Cohort(7, share=0.5, without_profile=3)
    sim = project(cohorts=(cohort,))
    everybody = sim.profile_truth()
    await export_people(sim, db)
    sim.profile_revision = 1
    members = sim.profile_truth(cohort=7)
    result = await export_people(sim, db, mode="append", cohort=7)
    assert people(db) == everybody | members
    known = len(everybody.keys() & members.keys())
    assert (result.total_rows, result.updated_rows) == (len(members) - known, known)
    rows = dict(query(db, "SELECT export_batch, count(*) FROM profiles GROUP BY ALL"))
    assert dict(snapshots(db, "batch, rows")) == rows
    await export_people(sim, db, mode="replace")
    assert people(db) == sim.profile_truth()
    assert [status for (status,) in snapshots(db, "status")] == ["replaced", "replaced", "complete"]
    assert query(db, "SELECT table_name, type, row_count FROM _metadata") == [
        ("profiles", "profiles", len(people(db)))
    ]


async def test_a_selection_is_sent_and_recorded(db: Path) -> None:
    """Each argument selects what it selects in Mixpanel."""
    cohort = Cohort(7, share=0.5, without_profile=3)
    sim = project(cohorts=(cohort,), groups={"1234567890123456789": 12})
    ids = list(sim.profile_truth())[3:6]
    selections: list[tuple[dict[str, Any], dict[str, Any]]] = [
        ({"cohort": "7", "include_all_users": False}, {"cohort": 7, "include_all_users": False}),
        ({"cohort": 7}, {"cohort": 7}),
        ({"distinct_ids": [*ids, ids[0]]}, {"distinct_ids": ids}),
        ({"properties": ["$last_seen", "$email"]}, {"properties": ["$last_seen", "$email"]}),
        ({"where": 'defined(properties["$email"])'}, {"where": 'defined(properties["$email"])'}),
        ({"group": 1234567890123456789}, {"group": "1234567890123456789"}),
    ]
    for arguments, expected in selections:
        await export_people(sim, db, mode="replace", **arguments)
        assert people(db) == sim.profile_truth(**expected)
    assert json.loads(snapshots(db, "selection")[1][0]) == {"filter_by_cohort": '{"id":7}'}


async def test_callbacks_report_every_page(db: Path) -> None:
    """`on_page` reports each page once, and `on_progress` ends with all of them; both may be async."""
    sim = project()
    pages: list[ProfileProgress] = []
    progress: list[Progress] = []

    async def on_page(page: ProfileProgress) -> None:
        await anyio.lowlevel.checkpoint()
        pages.append(page)

    await export_people(sim, db, on_page=on_page, on_progress=progress.append)
    assert sorted(page.page_index for page in pages) == list(range(10))
    assert {page.total_pages for page in pages} == {10}
    assert pages[-1].cumulative_rows == sum(page.rows for page in pages) == len(people(db))
    assert (progress[-1].batches, progress[-1].batches_done, progress[-1].requests) == (10, 10, 10)


async def test_a_callback_that_raises_leaves_the_table(db: Path) -> None:
    """Its exception is raised, and nothing is stored."""

    def fail(page: ProfileProgress) -> None:
        raise ZeroDivisionError(page.page_index)

    with pytest.raises(ZeroDivisionError):
        await export_people(project(), db, on_page=fail)
    assert query(db, "FROM _export_snapshots") == []
    await export_people(sim := project(), db)
    assert people(db) == sim.profile_truth()


async def test_a_cancelled_export_leaves_the_table(db: Path) -> None:
    """A cancellation between pages leaves no trace, and the next export works."""
    sim = project()
    scope = anyio.CancelScope()

    def cancel(page: ProfileProgress) -> None:
        if page.page_index == 4:
            scope.cancel()

    with scope:
        await export_people(sim, db, max_workers=1, on_page=cancel)
    assert scope.cancelled_caught
    assert query(db, "SELECT table_name FROM duckdb_tables() WHERE NOT starts_with(table_name, '_')") == []
    await export_people(sim, db)
    assert people(db) == sim.profile_truth()


async def test_tables_that_cannot_be_used_are_refused(db: Path) -> None:
    """Before any request, with the error that names the problem."""
    with pytest.raises(TableNotFoundError):
        await export_people(project(), db, mode="append")
    sim = await exported_project(db)
    requests = len(sim.profile_requests)
    with pytest.raises(TableExistsError):
        await export_people(sim, db)
    query(db, "CREATE TABLE mine (distinct_id VARCHAR)")
    query(db, "CREATE TABLE old (distinct_id VARCHAR PRIMARY KEY, properties JSON, last_seen TIMESTAMP)")
    with pytest.raises(TableFormatError):
        await export_people(sim, db, table="mine", mode="replace")
    with pytest.raises(TableFormatError):
        await export_people(sim, db, table="old", mode="append")
    with pytest.raises(SelectionError):
        query(db, "UPDATE _export_snapshots SET project = '777'")
        await export_people(sim, db, mode="append")
    assert len(sim.profile_requests) == requests
    await export_people(sim, db, table="old", mode="replace")
    assert people(db, "old") == sim.profile_truth()


async def test_an_empty_snapshot_replaces_only_if_allowed(db: Path) -> None:
    """A table with rows is not replaced with an empty one by mistake."""
    sim = await exported_project(db)
    nobody = {"mode": "replace", "where": 'properties["$email"] == "nobody@example.org"'}
    with pytest.raises(TableError):
        await export_people(sim, db, **nobody)
    assert people(db) == sim.profile_truth()
    assert (await export_people(sim, db, allow_empty=True, **nobody)).total_rows == 0
    assert people(db) == {}


async def test_a_used_up_quota_ends_the_wait(db: Path) -> None:
    """Page 0 counts against the quota of the Query API; further pages do not."""
    sim = project(queries_per_hour=1)
    once: dict[str, Any] = {"db": db, "transport": sim.transport(), "per_hour": 1}
    await export_from(**once)
    with pytest.raises(RateLimitError):
        await export_from(**once, max_wait=0.0, mode="replace")
    assert people(db) == sim.profile_truth()
    assert snapshots(db, "status") == [("complete",), ("failed",)]
