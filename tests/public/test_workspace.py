"""The blocking interface from end to end: a real socket, a real DuckDB file, callers with and without a loop."""

import json
from collections.abc import Callable
from dataclasses import replace
from datetime import date
from pathlib import Path
from threading import get_ident
from typing import Any

import pytest
import workspaces
from anyio.from_thread import BlockingPortal
from examples import slow
from loops import inside_asyncio, inside_trio, plainly
from workspaces import CREDENTIALS, DAYS, FIRST, LAST, Days, Served, checksum_of

from mixpanel_export import (
    AccountNotFoundError,
    ArgumentError,
    AuthenticationError,
    BatchProgress,
    ConfigError,
    Credentials,
    DateRangeTooLargeError,
    FetchResult,
    MixpanelDataError,
    ParallelFetchResult,
    Progress,
    QueryError,
    ServerError,
    TableExistsError,
    TableNotFoundError,
    Workspace,
)
from mixpanel_export.simulator import Fault, Simulator

portal = workspaces.portal
environment = workspaces.environment
served = workspaces.served


@pytest.mark.parametrize("where", [plainly, inside_asyncio, *slow([inside_trio])])
def test_a_parallel_fetch_brings_the_set_of_events(
    where: Callable[[Callable[[], ParallelFetchResult]], ParallelFetchResult], served: Served
) -> None:
    """In plain code and inside running loops, the table has exactly the simulator's events."""
    result = where(lambda: served.workspace.fetch_events(**DAYS, parallel=True))
    truth = served.simulator.truth(FIRST, LAST)
    assert isinstance(result, ParallelFetchResult)
    assert (result.table, result.total_rows, result.failed_batches) == ("events", truth.distinct, 0)
    assert result.successful_batches == served.requests() > 1
    assert checksum_of(served.workspace) == truth.checksum


def test_a_sequential_fetch_makes_one_request(served: Served) -> None:
    """Without parallel, one request fetches the range, and the result is mixpanel_data's."""
    result = served.workspace.fetch_events("january", **DAYS)
    truth = served.simulator.truth(FIRST, LAST)
    assert isinstance(result, FetchResult)
    assert (result.table, result.rows, result.type) == ("january", truth.distinct, "events")
    assert result.date_range == ("2024-01-01", "2024-01-14")
    assert list(result.to_dict()) == [
        "table", "rows", "type", "duration_seconds", "date_range", "fetched_at",
    ]  # fmt: skip
    assert [(log.first, log.last) for log in served.simulator.requests] == [(FIRST, LAST)]
    assert checksum_of(served.workspace, "january") == truth.checksum


def test_a_sequential_fetch_has_no_workers(served: Served) -> None:
    """Without parallel, requests are sent one at a time, so many workers cause no warning."""
    served.workspace.fetch_events(**DAYS, max_workers=100)
    assert served.simulator.max_concurrent == 1


def test_chunk_days_cut_fixed_chunks(served: Served) -> None:
    """With chunk_days, the range is divided as in mixpanel_data."""
    batches: list[BatchProgress] = []
    served.workspace.fetch_events(
        **DAYS, parallel=True, chunk_days=5, max_workers=1, on_batch_complete=batches.append
    )
    cut = sorted(
        (batch.batch_index, batch.from_date, batch.to_date, batch.total_batches) for batch in batches
    )
    assert cut == [
        (0, "2024-01-01", "2024-01-05", 3),
        (1, "2024-01-06", "2024-01-10", 3),
        (2, "2024-01-11", "2024-01-14", 3),
    ]


def test_a_failed_batch_is_reported_and_resume_completes_the_table(served: Served) -> None:
    """In parallel, a failed batch is in the result, the others are in the table, and resume fetches the rest."""
    served.simulator.faults = [Fault("500", first=date(2024, 1, 8), last=date(2024, 1, 8))]
    result = served.workspace.fetch_events(**DAYS, parallel=True, chunk_days=7, retries=0)
    assert result.failed_date_ranges == (("2024-01-08", "2024-01-14"),)
    assert checksum_of(served.workspace) == served.simulator.truth(FIRST, date(2024, 1, 7)).checksum
    served.simulator.faults = []
    resumed = served.workspace.fetch_events(**DAYS, parallel=True, resume=True)
    assert not resumed.has_failures
    assert checksum_of(served.workspace) == served.simulator.truth(FIRST, LAST).checksum


def test_a_sequential_failure_is_raised(served: Served) -> None:
    """Without parallel, the request's error is raised, and nothing is in the table."""
    served.simulator.faults = [Fault("500")]
    with pytest.raises(ServerError, match="2024-01-01"):
        served.workspace.fetch_events(**DAYS, retries=0)
    assert served.workspace.tables() == []
    assert served.requests() == 1


def test_duplicates_can_be_kept(served: Served) -> None:
    """With dedupe=False, the table has every line that was sent."""
    kept = served.workspace.fetch_events(**DAYS, dedupe=False)
    truth = served.simulator.truth(FIRST, LAST)
    assert kept.rows == truth.rows > truth.distinct


def test_modes_decide_about_the_table(served: Served) -> None:
    """The default requires that there is no table, append adds to one, and replace replaces its contents."""
    workspace = served.workspace
    with pytest.raises(TableNotFoundError):
        workspace.fetch_events(**DAYS, append=True)
    workspace.fetch_events(**DAYS)
    with pytest.raises(TableExistsError):
        workspace.fetch_events(**DAYS)
    more = workspace.fetch_events(from_date="2024-01-15", to_date="2024-01-20", append=True)
    assert more.rows == served.simulator.truth(date(2024, 1, 15), date(2024, 1, 20)).distinct
    assert checksum_of(workspace) == served.simulator.truth(FIRST, date(2024, 1, 20)).checksum
    workspace.fetch_events(from_date="2024-02-01", to_date="2024-02-02", replace=True)
    assert checksum_of(workspace) == served.simulator.truth(date(2024, 2, 1), date(2024, 2, 2)).checksum


def test_selection_and_limit_reach_mixpanel(served: Served) -> None:
    """Event names, expression and limit are sent to Mixpanel, by a fetch and by a stream."""
    names = ["Page View", "No such event"]
    result = served.workspace.fetch_events(**DAYS, events=names, limit=7)
    found = list(served.workspace.stream_events(**DAYS, events=names, limit=7))
    assert result.rows == len(found) == 7
    with pytest.raises(QueryError, match="where"):
        served.workspace.fetch_events("filtered", **DAYS, where="1 ==")
    with pytest.raises(QueryError, match="where"):
        next(served.workspace.stream_events(**DAYS, where="1 =="))
    selected, streamed, *filtered = (log.params for log in served.simulator.requests)
    for asked in (selected, streamed):
        assert (sorted(json.loads(asked["event"])), asked["limit"]) == (sorted(names), "7")
    assert [asked["where"] for asked in filtered] == ["1 ==", "1 =="]


@pytest.mark.parametrize(
    "arguments, argument",
    [
        ({"batch_size": 99}, "batch_size"),
        ({"batch_size": 100_001}, "batch_size"),
        ({"limit": 0}, "limit"),
        ({"limit": 100_001}, "limit"),
        ({"max_workers": 0}, "max_workers"),
        ({"chunk_days": 0, "parallel": True}, "chunk_days"),
        ({"chunk_days": 101, "parallel": True}, "chunk_days"),
        ({"limit": 5, "parallel": True}, "limit"),
        ({"append": True, "resume": True}, "append"),
        ({"append": True, "replace": True}, "append"),
        ({"resume": True, "replace": True}, "replace"),
        ({"from_date": "2024-1-1"}, "from_date"),
        ({"from_date": "2024-01-15"}, "to_date"),
        ({"from_date": "2024-01-15", "parallel": True}, "to_date"),
        ({"to_date": "2999-01-01", "from_date": "2999-01-01"}, "from_date"),
        ({"name": "no-such-name"}, "table"),
        ({"name": "_metadata"}, "table"),
    ],
)
def test_bad_arguments_cost_no_request(arguments: dict[str, Any], argument: str, served: Served) -> None:
    """Arguments out of range are a ValueError that names the argument, before any request and any file."""
    asked: dict[str, Any] = {**DAYS, **arguments}
    with pytest.raises(ArgumentError) as caught:
        served.workspace.fetch_events(**asked)
    assert caught.value.argument == argument
    assert served.requests() == 0
    assert not served.workspace.db_path.exists()


@pytest.mark.parametrize("batch_size", [100, *slow([1000, 100_000])])
def test_batch_size_changes_nothing(batch_size: int, served: Served) -> None:
    """mixpanel_data's batch_size is accepted within its range and has no effect."""
    result = served.workspace.fetch_events(**DAYS, batch_size=batch_size)
    assert result.rows == served.simulator.truth(FIRST, LAST).distinct


def test_one_request_has_a_bound(served: Served) -> None:
    """Over 100 days without parallel are rejected before any request; 100 are not."""
    too_long: Days = {"from_date": "2024-01-01", "to_date": "2024-04-10"}
    with pytest.raises(DateRangeTooLargeError, match="parallel") as caught:
        served.workspace.fetch_events(**too_long)
    assert (caught.value.days_requested, caught.value.max_days) == (101, 100)
    assert (caught.value.from_date, caught.value.to_date) == ("2024-01-01", "2024-04-10")
    assert served.requests() == 0
    served.workspace.fetch_events(from_date="2024-01-01", to_date="2024-04-09")
    assert served.requests() == 1


def test_callbacks_run_in_the_callers_thread(served: Served) -> None:
    """In plain code, both callbacks run in the caller's thread, one at a time, and see the whole export."""
    threads: set[int] = set()
    batches: list[BatchProgress] = []
    totals: list[Progress] = []

    def on_batch(batch: BatchProgress) -> None:
        threads.add(get_ident())
        batches.append(batch)

    def on_progress(progress: Progress) -> None:
        threads.add(get_ident())
        totals.append(progress)

    result = served.workspace.fetch_events(
        **DAYS, parallel=True, on_batch_complete=on_batch, on_progress=on_progress
    )
    assert threads == {get_ident()}
    assert sum(batch.rows for batch in batches) == result.total_rows
    assert totals[-1].batches_done == totals[-1].batches == len(batches)


def test_progress_is_silent_off_a_terminal(served: Served, capfd: pytest.CaptureFixture[str]) -> None:
    """If standard error is not a terminal, nothing is drawn, whatever *progress* is."""
    served.workspace.fetch_events(**DAYS, parallel=True, progress=True)
    assert capfd.readouterr() == ("", "")


def test_an_exception_of_a_callback_reaches_the_caller(served: Served) -> None:
    """A callback that raises stops the fetch, and its own exception is raised."""

    def stop(batch: BatchProgress) -> None:
        raise ZeroDivisionError(batch.from_date)

    with pytest.raises(ZeroDivisionError, match="2024-01"):
        served.workspace.fetch_events(**DAYS, parallel=True, on_batch_complete=stop)


def test_credentials_come_from_the_environment(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without credentials, the environment is read when a fetch needs them, and so is the API URL."""
    for name, value in {
        "MP_USERNAME": "demo.mp-service-account",
        "MP_SECRET": "demo-secret",
        "MP_PROJECT_ID": "999",
        "MPX_API_URL": served.url,
    }.items():
        monkeypatch.setenv(name, value)
    with Workspace(project_id="12345", path=served.workspace.db_path) as workspace:
        workspace.fetch_events(**DAYS)
    assert served.simulator.requests[-1].params["project_id"] == "12345"


def test_credentials_are_tested_with_one_request(
    served: Served, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The credentials in the environment, or the named or default account, are tested and named."""
    monkeypatch.setenv("MPX_API_URL", served.url)
    with pytest.raises(ConfigError, match="MP_USERNAME"):
        Workspace.test_credentials()
    config = tmp_path / "config.toml"
    config.write_text(
        'default = "main"\n[accounts.main]\nusername = "demo.mp-service-account"\nsecret = "demo-secret"\n'
        'project_id = "12345"\nregion = "eu"\n[accounts.wrong]\nusername = "demo.mp-service-account"\n'
        'secret = "wr0ng"\nproject_id = "12345"\n',
        encoding="utf-8",
    )
    config.chmod(0o600)
    monkeypatch.setenv("MP_CONFIG_PATH", str(config))
    expected = {
        "success": True, "account": "main", "project_id": "12345", "region": "eu", "events_found": 1,
    }  # fmt: skip
    assert Workspace.test_credentials() == Workspace.test_credentials("main") == expected
    with pytest.raises(AuthenticationError):
        Workspace.test_credentials(account="wrong")
    with pytest.raises(AccountNotFoundError):
        Workspace.test_credentials("nobody")
    for name, value in {
        "USERNAME": CREDENTIALS.username,
        "SECRET": "demo-secret",
        "PROJECT_ID": "12345",
    }.items():
        monkeypatch.setenv(f"MP_{name}", str(value))
    assert Workspace.test_credentials() == expected | {"account": None, "region": "us"}
    assert [log.params["limit"] for log in served.simulator.requests] == ["1"] * 4


def test_arguments_override_given_credentials(served: Served) -> None:
    """A project or region argument overrides the given credentials."""
    wrong = replace(CREDENTIALS, project_id="999")
    path = served.workspace.db_path
    with Workspace(project_id="12345", credentials=wrong, path=path, api_url=served.url) as workspace:
        workspace.fetch_events(**DAYS)
    with (
        pytest.raises(ConfigError, match="us, eu or in"),
        Workspace(region="mars", credentials=wrong, path=path) as workspace,
    ):
        workspace.fetch_events(**DAYS)


def test_a_project_secret_is_sent_without_project(portal: BlockingPortal, tmp_path: Path) -> None:
    """A fetch works with a legacy project secret, and project_id is not sent."""
    simulator = Simulator(events_per_day=5, legacy_secret="old-secret", per_second=0, per_hour=0)
    with portal.wrap_async_context_manager(simulator.serve()) as url:
        legacy = Credentials(None, "old-secret", "")
        with Workspace(credentials=legacy, path=tmp_path / "old.duckdb", api_url=url) as workspace:
            assert workspace.fetch_events(**DAYS).rows == simulator.truth(FIRST, LAST).distinct
    assert "project_id" not in simulator.requests[-1].params


@pytest.mark.parametrize("call", ["fetch_events", "stream_events"])
def test_missing_credentials_cost_nothing(call: str, tmp_path: Path) -> None:
    """Without credentials, the call's error says what to set, and no file or folder is created."""
    path = tmp_path / "events.duckdb"
    with Workspace(path=path) as workspace, pytest.raises(ConfigError, match=r"MP_USERNAME.*mpx demo"):
        getattr(workspace, call)(**DAYS)
    assert list(tmp_path.iterdir()) == []


def test_the_default_file_needs_a_project() -> None:
    """A project secret does not contain the project, so the default file requires one; a path is not a valid id."""
    with pytest.raises(ConfigError, match="MP_PROJECT_ID"):
        _ = Workspace(credentials=Credentials(None, "secret", "")).db_path
    with pytest.raises(ConfigError, match="not a project id"):
        _ = Workspace(project_id="../other").db_path


def test_the_errors_are_mixpanel_datas(served: Served) -> None:
    """Errors of a fetch are instances of the base class and have a code."""
    with pytest.raises(MixpanelDataError) as caught:
        served.workspace.fetch_events(**DAYS, append=True)
    assert caught.value.code == "TABLE_NOT_FOUND"


def test_a_fetch_updates_the_flat_tables_on_request(served: Served) -> None:
    """With *flatten*, a flat table is created; later fetches update it only with *flatten*, or if it has `auto`."""
    workspace = served.workspace
    flat, all_rows = "SELECT count(*) FROM events_flat", "SELECT count(*) FROM events"
    workspace.fetch_events(from_date="2024-01-01", to_date="2024-01-02", flatten=True)
    first = workspace.sql_scalar(flat)
    assert first == workspace.sql_scalar(all_rows) > 0
    workspace.fetch_events(from_date="2024-01-03", to_date="2024-01-03", append=True)
    assert workspace.sql_scalar(flat) == first
    workspace.flatten(auto=True)
    workspace.fetch_events(from_date="2024-01-04", to_date="2024-01-04", append=True)
    assert workspace.sql_scalar(flat) == workspace.sql_scalar(all_rows) > first
