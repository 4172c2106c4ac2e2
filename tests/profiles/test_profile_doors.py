"""`Workspace.fetch_profiles` and `stream_profiles`, from synchronous code and inside a running event loop."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC
from pathlib import Path
from typing import Any

import pytest
from anyio.from_thread import start_blocking_portal
from loops import inside_asyncio, plainly
from people import exported_project, people, project
from support import ACCOUNT, query

from mixpanel_export import (
    ArgumentError,
    AuthenticationError,
    FetchResult,
    ParallelProfileResult,
    ProfileProgress,
    SnapshotError,
    TableExistsError,
    Workspace,
    run_sync,
)
from mixpanel_export._ndjson import loads
from mixpanel_export._profiles.stream import iter_profiles
from mixpanel_export._source.profile_page import parse_page
from mixpanel_export.errors import AdvisoryWarning
from mixpanel_export.simulator import Cohort, Fault, Simulator


@pytest.fixture(autouse=True)
def _no_quota(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MPX_QUERY_PER_HOUR", "0")


@contextmanager
def workspace_of(sim: Simulator, db: Path) -> Iterator[Workspace]:
    """Serve *sim*, and yield a workspace that uses it."""
    with (
        start_blocking_portal() as portal,
        portal.wrap_async_context_manager(sim.serve()) as url,
        Workspace(path=db, credentials=ACCOUNT, api_url=url) as workspace,
    ):
        yield workspace


@pytest.mark.parametrize("where", [plainly, inside_asyncio])
def test_profiles_are_fetched_as_in_mixpanel_data(where: Callable[[Any], Any], db: Path) -> None:
    """Both modes have mixpanel_data's results, progress and table."""
    sim = project()
    pages: list[ProfileProgress] = []
    with workspace_of(sim, db) as workspace:
        result = where(lambda: workspace.fetch_profiles(parallel=True, on_page_complete=pages.append))
        assert isinstance(result, ParallelProfileResult)
        assert (result.total_rows, result.successful_pages, result.failed_page_indices) == (95, 10, ())
        assert pages[-1].cumulative_rows == 95
        with pytest.raises(TableExistsError):
            workspace.fetch_profiles()
        one = where(lambda: workspace.fetch_profiles("one", max_workers=3, progress=False))
        assert isinstance(one, FetchResult)
        assert (one.rows, one.type, one.date_range) == (95, "profiles", None)
    assert people(db) == people(db, "one") == sim.profile_truth()
    assert sim.max_concurrent_queries <= 5


def test_a_table_of_profiles_is_updated_replaced_and_dropped(db: Path) -> None:
    """As in mixpanel_data; a flat table is made on request."""
    sim = run_sync(exported_project, db)
    with workspace_of(sim, db) as workspace:
        more = workspace.fetch_profiles(append=True, parallel=True)
        assert (more.total_rows, more.updated_rows) == (0, 95)
        assert workspace.fetch_profiles(replace=True, flatten=True).rows == 95
        assert [(table.name, table.type, table.row_count) for table in workspace.tables()] == [
            ("profiles", "profiles", 95)
        ]
        assert workspace.sql_scalar("SELECT count(*) FROM profiles_flat") == 95
        assert people(db) == sim.profile_truth()
        workspace.drop("profiles")
        assert workspace.tables() == []
        assert workspace.sql_scalar("SELECT count(*) FROM _export_snapshots") == 0


def test_the_arguments_select_profiles(db: Path) -> None:
    """As in mixpanel_data; empty lists and strings select everything."""
    cohort = Cohort(7, without_profile=2)
    sim = project(cohorts=(cohort,))
    first, second = list(sim.profile_truth())[:2]
    with workspace_of(sim, db) as workspace:
        for options, truth in (
            ({"cohort_id": "7"}, {"cohort": 7, "include_all_users": False}),
            ({"cohort_id": "7", "include_all_users": True}, {"cohort": 7}),
            ({"distinct_id": first}, {"distinct_ids": [first]}),
            ({"distinct_ids": [first, second]}, {"distinct_ids": [first, second]}),
            ({"where": "", "output_properties": [], "distinct_ids": [], "behaviors": []}, {}),
        ):
            workspace.fetch_profiles(replace=True, progress=False, **options)
            assert people(db) == sim.profile_truth(**truth)
            streamed = {
                each["distinct_id"]: each["properties"] for each in workspace.stream_profiles(**options)
            }
            assert streamed == {key: loads(text) for key, text in sim.profile_truth(**truth).items()}
        requests = len(sim.profile_requests)
        for wrong in (
            {"distinct_id": first, "distinct_ids": [second]},
            {"include_all_users": True},
            {"append": True, "replace": True},
            {"batch_size": 1},
            {"max_workers": 0},
        ):
            with pytest.raises(ArgumentError):
                workspace.fetch_profiles(**wrong)
        assert len(sim.profile_requests) == requests


@pytest.mark.parametrize("where", [plainly, inside_asyncio])
def test_a_stream_agrees_with_the_table(where: Callable[[Any], Any], db: Path) -> None:
    """It has the rows of the table, in the order of the pages, or with raw=True what Mixpanel sent."""
    sim = project()
    with workspace_of(sim, db) as workspace:
        rows = where(lambda: list(workspace.stream_profiles()))
        raw = list(workspace.stream_profiles(raw=True))
        workspace.fetch_profiles(progress=False)
    assert [row["distinct_id"] for row in rows] == list(sim.profile_truth())
    table = query(db, "SELECT distinct_id, last_seen, properties FROM profiles")
    expected = {
        key: (seen and seen.replace(tzinfo=UTC), loads(properties)) for key, seen, properties in table
    }
    assert {row["distinct_id"]: (row["last_seen"], row["properties"]) for row in rows} == expected
    assert {str(row["$distinct_id"]): row["$properties"] for row in raw} == {
        key: properties for key, (_, properties) in expected.items()
    }


def test_a_stream_is_lazy(db: Path) -> None:
    """Pages are requested when they are needed, one first and then five at a time."""
    sim = project()
    with workspace_of(sim, db) as workspace:
        stream = workspace.stream_profiles()
        assert sim.profile_requests == []
        taken = [next(stream) for _ in range(11)]
        assert len(taken) == 11
        assert len(sim.profile_requests) == 6


@pytest.mark.parametrize(
    "kind", ["429", "500", "cut_line", "reset", "session_evicted", "total_too_low", "wrong_page"]
)
def test_a_stream_survives_what_passes(kind: Any, db: Path) -> None:
    """After an eviction it continues in a new session, if the pages that were yielded are the same."""
    sim = project(profile_faults=[Fault(kind, pages=(0, 7), times=1, retry_after=0)])
    with workspace_of(sim, db) as workspace:
        streamed = [each["distinct_id"] for each in workspace.stream_profiles()]
    assert streamed == list(sim.profile_truth())


@pytest.mark.parametrize("kind", ["session_evicted", "page_again", "profile_skipped", "short_page"])
def test_a_stream_that_is_not_whole_ends_with_an_error(kind: Any, db: Path) -> None:
    """Also if the session is evicted after the profiles have changed, since two sessions are never combined."""
    fault = Fault(kind, pages=(7,), times=None if kind == "session_evicted" else 1)
    sim = project(profile_faults=[fault])
    with workspace_of(sim, db) as workspace, pytest.raises(SnapshotError):
        list(workspace.stream_profiles())
    sim = project(profile_faults=[Fault("session_evicted", pages=(7,), times=1)])
    with workspace_of(sim, db) as workspace, pytest.raises(SnapshotError):
        for _ in workspace.stream_profiles():
            sim.profile_revision = 1


def test_a_stream_after_a_full_last_page_sees_a_total_that_is_too_low(db: Path) -> None:
    """The page after it is not empty, so profiles would be missing."""
    sim = project(31, totals="first", profile_faults=[Fault("total_too_low")])
    with workspace_of(sim, db) as workspace, pytest.raises(SnapshotError):
        list(workspace.stream_profiles())


def test_the_error_of_a_page_is_raised(db: Path) -> None:
    """As that of a fetch is, also without *parallel*; nothing is stored."""
    sim = project(profile_faults=[Fault("401", pages=(2,))])
    with workspace_of(sim, db) as workspace:
        with pytest.raises(AuthenticationError) as caught:
            list(workspace.stream_profiles())
        assert (caught.value.request_method, caught.value.request_body or {}) != ("POST", {})
        assert "demo-secret" not in repr(vars(caught.value))
        for parallel in (False, True):
            with pytest.raises(AuthenticationError):
                workspace.fetch_profiles(parallel=parallel, progress=False)
        assert workspace.tables() == []


def test_a_stream_skips_what_is_not_a_profile() -> None:
    """One warning has the number of such entries, which count towards the total."""
    page = parse_page(b'{"results":[3,{"$distinct_id":"a"}],"total":2}')
    with pytest.warns(AdvisoryWarning, match=": 1"):
        assert list(iter_profiles(lambda *_: [page], raw=True, at_once=5)) == [
            {"$distinct_id": "a", "$properties": {}}
        ]


@pytest.mark.parametrize("identity", ["7", "1.5", "9" * 5000])
def test_a_raw_stream_has_any_number_as_an_id(identity: str) -> None:
    """An id that is a number stays a number, whatever its form and length."""
    page = parse_page(b'{"results":[{"$distinct_id":%s}],"total":1}' % identity.encode())
    (profile,) = iter_profiles(lambda *_: [page], raw=True, at_once=1)
    assert profile["$distinct_id"] == loads(identity)


def test_a_stream_takes_pages_after_the_expected_ones() -> None:
    """If a page is short, more pages may follow; all profiles must be there at the end."""
    texts = {
        0: '{"$distinct_id":1},{"$distinct_id":2}',
        1: '{"$distinct_id":3}',
        2: '{"$distinct_id":4}',
        3: "",
    }

    def fetch(session: Any, numbers: range, *, total: int = 4) -> list[Any]:
        return [
            parse_page(
                f'{{"results":[{texts[number]}],"total":{total},"page_size":2,"session_id":"s"}}'.encode()
            )
            for number in numbers
        ]

    assert [each["$distinct_id"] for each in iter_profiles(fetch, raw=True, at_once=1)] == [1, 2, 3, 4]
    with pytest.raises(SnapshotError):
        list(iter_profiles(lambda *page: fetch(*page, total=6), raw=False, at_once=5))
