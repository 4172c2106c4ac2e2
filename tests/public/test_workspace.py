"""The blocking door, end to end: a real socket, a real DuckDB file, callers with and without a loop."""

import asyncio
import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from threading import get_ident
from typing import Any, TypedDict, TypeVar

import duckdb
import pytest
import trio
from anyio.from_thread import BlockingPortal, start_blocking_portal

from mixpanel_export import (
    AccountNotFoundError,
    ArgumentError,
    AuthenticationError,
    BatchProgress,
    ConfigError,
    Credentials,
    DatabaseError,
    DatabaseLockedError,
    DatabaseNotFoundError,
    DateRangeTooLargeError,
    FetchResult,
    MixpanelDataError,
    NetworkError,
    ParallelFetchResult,
    Progress,
    QueryError,
    RateLimitError,
    ServerError,
    TableExistsError,
    TableInfo,
    TableNotFoundError,
    Timeouts,
    Workspace,
)
from mixpanel_export.simulator import Fault, Simulator, checksum

T = TypeVar("T")

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
    """No credentials but those that a test sets, a home of its own, and no waiting for quota."""
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
    """A simulator on a socket, and a workspace that talks to it."""

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


def plainly(call: Callable[[], T]) -> T:
    return call()


def inside_asyncio(call: Callable[[], T]) -> T:
    async def main() -> T:
        return call()

    return asyncio.run(main())


def inside_trio(call: Callable[[], T]) -> T:
    async def main() -> T:
        return call()

    return trio.run(main)


@pytest.mark.parametrize("where", [plainly, inside_asyncio, inside_trio])
def test_a_parallel_fetch_brings_the_set_of_events(
    where: Callable[[Callable[[], ParallelFetchResult]], ParallelFetchResult], served: Served
) -> None:
    """In plain code and inside running loops the table holds exactly the simulator's events."""
    result = where(lambda: served.workspace.fetch_events(**DAYS, parallel=True))
    truth = served.simulator.truth(FIRST, LAST)
    assert isinstance(result, ParallelFetchResult)
    assert (result.table, result.total_rows, result.failed_batches) == ("events", truth.distinct, 0)
    assert result.successful_batches == served.requests() > 1
    assert checksum_of(served.workspace) == truth.checksum


def test_a_sequential_fetch_makes_one_request(served: Served) -> None:
    """Without parallel one request brings the range, and the result is mixpanel_data's."""
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
    """Without parallel one request at a time is made, so even many workers are nothing to warn of."""
    served.workspace.fetch_events(**DAYS, max_workers=100)
    assert served.simulator.max_concurrent == 1


def test_chunk_days_cut_fixed_chunks(served: Served) -> None:
    """A number of chunk_days cuts the range as mixpanel_data did."""
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
    """In parallel a batch that fails is in the result, the others in the table, and resume fetches the rest."""
    served.simulator.faults = [Fault("500", first=date(2024, 1, 8), last=date(2024, 1, 8))]
    result = served.workspace.fetch_events(**DAYS, parallel=True, chunk_days=7, retries=0)
    assert result.failed_date_ranges == (("2024-01-08", "2024-01-14"),)
    assert checksum_of(served.workspace) == served.simulator.truth(FIRST, date(2024, 1, 7)).checksum
    served.simulator.faults = []
    resumed = served.workspace.fetch_events(**DAYS, parallel=True, resume=True)
    assert not resumed.has_failures
    assert checksum_of(served.workspace) == served.simulator.truth(FIRST, LAST).checksum


def test_a_sequential_failure_is_raised(served: Served) -> None:
    """Without parallel what made the request fail is raised, and nothing is in the table."""
    served.simulator.faults = [Fault("500")]
    with pytest.raises(ServerError, match="2024-01-01"):
        served.workspace.fetch_events(**DAYS, retries=0)
    assert served.workspace.tables() == []
    assert served.requests() == 1


def test_duplicates_can_be_kept(served: Served) -> None:
    """With dedupe=False the table has every line that was sent."""
    kept = served.workspace.fetch_events(**DAYS, dedupe=False)
    truth = served.simulator.truth(FIRST, LAST)
    assert kept.rows == truth.rows > truth.distinct


def test_modes_decide_about_the_table(served: Served) -> None:
    """The default wants no table, append wants one and adds, replace swaps what is there."""
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
    """Event names, expression and limit are asked of Mixpanel, by a fetch and by a stream."""
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
        ({"max_workers": 101, "parallel": True}, "max_workers"),
        ({"chunk_days": 0, "parallel": True}, "chunk_days"),
        ({"chunk_days": 101, "parallel": True}, "chunk_days"),
        ({"limit": 5, "parallel": True}, "limit"),
        ({"append": True, "resume": True}, "append"),
        ({"append": True, "replace": True}, "append"),
        ({"resume": True, "replace": True}, "replace"),
        ({"from_date": "2024-1-1"}, "from_date"),
        ({"from_date": "2024-01-15"}, "from_date"),
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


@pytest.mark.parametrize("batch_size", [100, 1000, 100_000])
def test_batch_size_changes_nothing(batch_size: int, served: Served) -> None:
    """mixpanel_data's batch_size is accepted within its bounds and has no effect."""
    result = served.workspace.fetch_events(**DAYS, batch_size=batch_size)
    assert result.rows == served.simulator.truth(FIRST, LAST).distinct


def test_one_request_has_a_bound(served: Served) -> None:
    """Over 100 days without parallel are refused before any request, 100 are not."""
    too_long: Days = {"from_date": "2024-01-01", "to_date": "2024-04-10"}
    for call in (served.workspace.fetch_events, served.workspace.stream_events):
        with pytest.raises(DateRangeTooLargeError, match="parallel") as caught:
            call(**too_long)
        assert (caught.value.days_requested, caught.value.max_days) == (101, 100)
        assert (caught.value.from_date, caught.value.to_date) == ("2024-01-01", "2024-04-10")
    assert served.requests() == 0
    served.workspace.fetch_events(from_date="2024-01-01", to_date="2024-04-09")
    assert served.requests() == 1


def test_callbacks_run_in_the_callers_thread(served: Served) -> None:
    """In plain code both callbacks run in the thread that called, one at a time, and see the whole export."""
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
    """Where standard error is no terminal, nothing is drawn, whatever progress says."""
    served.workspace.fetch_events(**DAYS, parallel=True, progress=True)
    assert capfd.readouterr() == ("", "")


def test_an_exception_of_a_callback_reaches_the_caller(served: Served) -> None:
    """A callback that raises stops the fetch, and its exception leaves as itself."""

    def stop(batch: BatchProgress) -> None:
        raise ZeroDivisionError(batch.from_date)

    with pytest.raises(ZeroDivisionError, match="2024-01"):
        served.workspace.fetch_events(**DAYS, parallel=True, on_batch_complete=stop)


def test_an_open_connection_is_no_obstacle(served: Served) -> None:
    """The workspace's own connection may be open before a fetch and sees the rows after it."""
    workspace = served.workspace
    assert workspace.sql_scalar("SELECT n FROM range(1000000) AS numbers(n)") == 0
    workspace.fetch_events(**DAYS, parallel=True)
    connection = workspace.connection
    assert workspace.sql_scalar("SELECT count(*) FROM events") == served.simulator.truth(FIRST, LAST).distinct
    workspace.fetch_events(from_date="2024-02-01", to_date="2024-02-02", replace=True)
    assert workspace.connection is connection
    february = served.simulator.truth(date(2024, 2, 1), date(2024, 2, 2))
    assert workspace.sql_scalar("SELECT count(*) FROM events") == february.distinct


def test_the_default_file_is_named_after_the_project(served: Served, tmp_path: Path) -> None:
    """Without a path the file is mixpanel_data's, in a folder that is made when it is first needed."""
    with Workspace(credentials=CREDENTIALS, api_url=served.url) as workspace:
        assert workspace.db_path == tmp_path / "home" / ".mp" / "data" / "12345.db"
        assert not (tmp_path / "home").exists()
        workspace.fetch_events(**DAYS)
        assert workspace.db_path.exists()
        assert checksum_of(workspace) == served.simulator.truth(FIRST, LAST).checksum
        if os.name == "posix":  # whose folders can be kept from other users by their mode
            assert workspace.db_path.parent.stat().st_mode & 0o777 == 0o700


def test_a_missing_folder_is_made(served: Served, tmp_path: Path) -> None:
    """The folders of a path are made when the file is first needed, as mixpanel_data made them, and not before."""
    path = tmp_path / "of mine" / "and deeper" / "events.duckdb"
    with Workspace(path=path, credentials=CREDENTIALS, api_url=served.url) as workspace:
        assert not path.parent.parent.exists()
        workspace.fetch_events(**DAYS)
        assert checksum_of(workspace) == served.simulator.truth(FIRST, LAST).checksum
    assert path.exists()


def test_a_folder_that_cannot_be_made_is_an_error(served: Served, tmp_path: Path) -> None:
    """Where something else is in a folder's place, the error says so, without a request."""
    (tmp_path / "file").touch()
    path = tmp_path / "file" / "events.duckdb"
    with (
        Workspace(path=path, credentials=CREDENTIALS, api_url=served.url) as workspace,
        pytest.raises(DatabaseError, match="cannot create the folder"),
    ):
        workspace.fetch_events(**DAYS)
    assert served.requests() == 0


def test_credentials_come_from_the_environment(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without credentials the environment is asked when a fetch needs them, and so is the API URL."""
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
    """What is found in the environment, or the account that is named or the default, is tried and named."""
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
    """A project or region argument wins over the credentials that are given."""
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
    """With a legacy project secret a fetch works, and project_id is not sent."""
    simulator = Simulator(events_per_day=5, legacy_secret="old-secret", per_second=0, per_hour=0)
    with portal.wrap_async_context_manager(simulator.serve()) as url:
        legacy = Credentials(None, "old-secret", "")
        with Workspace(credentials=legacy, path=tmp_path / "old.duckdb", api_url=url) as workspace:
            assert workspace.fetch_events(**DAYS).rows == simulator.truth(FIRST, LAST).distinct
    assert "project_id" not in simulator.requests[-1].params


@pytest.mark.parametrize("call", ["fetch_events", "stream_events"])
def test_missing_credentials_cost_nothing(call: str, tmp_path: Path) -> None:
    """Without credentials the error says what to set, at the call, and no file or folder is made."""
    path = tmp_path / "events.duckdb"
    with Workspace(path=path) as workspace, pytest.raises(ConfigError, match=r"MP_USERNAME.*mpx demo"):
        getattr(workspace, call)(**DAYS)
    assert list(tmp_path.iterdir()) == []


def test_the_default_file_needs_a_project() -> None:
    """A project secret does not tell the project, so the default file needs one; a path as id is none."""
    with pytest.raises(ConfigError, match="MP_PROJECT_ID"):
        _ = Workspace(credentials=Credentials(None, "secret", "")).db_path
    with pytest.raises(ConfigError, match="not a project id"):
        _ = Workspace(project_id="../other").db_path


def test_sql_needs_no_credentials(tmp_path: Path) -> None:
    """A workspace on a path answers SQL without any credentials."""
    with Workspace(path=str(tmp_path / "new.duckdb")) as workspace:
        assert workspace.sql_scalar("SELECT 40 + 2") == 42
        assert workspace.sql_scalar("SELECT 1 WHERE false") is None


def test_new_files_open_in_older_releases(tmp_path: Path) -> None:
    """A file that a workspace makes has the storage version that DuckDB 1.2 reads."""
    with Workspace(path=tmp_path / "new.duckdb") as workspace:
        tag = (
            "SELECT tags['storage_version'] FROM duckdb_databases() WHERE database_name = current_database()"
        )
        assert "v1.2.0" in workspace.sql_scalar(tag)


def test_sql_returns_a_frame(served: Served) -> None:
    """`sql` gives a pandas DataFrame of the rows."""
    served.workspace.fetch_events(**DAYS)
    frame = served.workspace.sql("SELECT event_name, count(*) AS n FROM events GROUP BY ALL")
    assert list(frame.columns) == ["event_name", "n"]
    assert int(frame["n"].sum()) == served.simulator.truth(FIRST, LAST).distinct


def test_a_frame_without_pandas_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where pandas is not installed, `sql` says which extra brings it."""
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(
        "mixpanel_export._display.find_spec", lambda name: None if name == "pandas" else find_spec(name)
    )
    with (
        Workspace(path=tmp_path / "new.duckdb") as workspace,
        pytest.raises(ImportError, match=r"mpx-export\[pandas\]"),
    ):
        workspace.sql("SELECT 1")


def test_sql_rows_have_names(tmp_path: Path) -> None:
    """`sql_rows` gives tuples with the names of their columns, as dictionaries on request."""
    with Workspace(path=tmp_path / "new.duckdb") as workspace:
        result = workspace.sql_rows("SELECT n, n * n AS square FROM range(3) AS numbers(n)")
    assert result.columns == ["n", "square"]
    assert result.rows == [(0, 0), (1, 1), (2, 4)]
    assert (list(result), len(result)) == (result.rows, 3)
    assert result.to_dicts()[2] == {"n": 2, "square": 4}
    assert result.to_dict() == {
        "columns": ["n", "square"],
        "rows": [[0, 0], [1, 1], [2, 4]],
        "row_count": 3,
    }


def test_tables_are_the_users(served: Served) -> None:
    """`tables` lists fetched tables and the user's own by name, and nothing that begins with an underscore."""
    workspace = served.workspace
    assert workspace.tables() == []
    workspace.fetch_events("january", **DAYS)
    workspace.connection.execute('CREATE TABLE "and mine" AS SELECT * FROM range(3)')
    mine, january = workspace.tables()
    assert mine == TableInfo("and mine", None, 3, None)
    assert january.name == "january"
    assert (january.type, january.row_count) == ("events", served.simulator.truth(FIRST, LAST).distinct)
    assert january.fetched_at is not None
    assert abs(datetime.now(UTC) - january.fetched_at).total_seconds() < 3600


def test_tables_of_mixpanel_data_are_listed(tmp_path: Path) -> None:
    """In a file that mixpanel_data made, its own list of tables tells kind and time."""
    path = tmp_path / "old.duckdb"
    with duckdb.connect(str(path)) as connection:
        connection.execute(
            "CREATE TABLE people (distinct_id VARCHAR PRIMARY KEY, properties JSON, last_seen TIMESTAMP);"
            "CREATE TABLE _metadata (table_name VARCHAR PRIMARY KEY, type VARCHAR NOT NULL, "
            "fetched_at TIMESTAMP NOT NULL, from_date DATE, to_date DATE, row_count INTEGER NOT NULL);"
            "INSERT INTO _metadata VALUES ('people', 'profiles', '2026-01-02 03:04:05', NULL, NULL, 0)"
        )
    with Workspace(path=path, read_only=True) as workspace:
        assert workspace.tables() == [
            TableInfo("people", "profiles", 0, datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC))
        ]


def test_a_read_only_workspace_reads(served: Served) -> None:
    """With read_only queries are answered, and neither a fetch nor a change is possible."""
    served.workspace.fetch_events(**DAYS)
    served.workspace.close()
    path = served.workspace.db_path
    with Workspace(path=path, read_only=True, credentials=CREDENTIALS, api_url=served.url) as workspace:
        assert checksum_of(workspace) == served.simulator.truth(FIRST, LAST).checksum
        with pytest.raises(DatabaseError, match="without read_only to fetch"):
            workspace.fetch_events(**DAYS, resume=True)
        with pytest.raises(duckdb.Error):
            workspace.connection.execute("DROP TABLE events")
    assert served.requests() == 1


def test_a_read_only_workspace_needs_a_database(tmp_path: Path) -> None:
    """With read_only a missing file, or one of another kind, is an error that names it, and none is made."""
    path = tmp_path / "none.duckdb"
    with pytest.raises(DatabaseNotFoundError, match=r"none\.duckdb"):
        Workspace(path=path, read_only=True).tables()
    assert not path.exists()
    path.write_text("not a database " * 1000, encoding="utf-8")
    for read_only in (True, False):
        with pytest.raises(DatabaseError, match="not a DuckDB database"):
            Workspace(path=path, read_only=read_only).tables()


HOLDER = """
import sys, duckdb
with duckdb.connect(sys.argv[1]) as connection:
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.mark.parametrize("read_only", [True, False])
def test_a_locked_file_says_who_holds_it(read_only: bool, tmp_path: Path) -> None:
    """A file that another process has open is an error that says so, whether it was to be read or written."""
    path = tmp_path / "events.duckdb"
    command = [sys.executable, "-c", HOLDER, str(path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline().split() == [b"held"]
        with pytest.raises(DatabaseLockedError) as caught:
            Workspace(path=path, read_only=read_only).tables()
        holder.communicate()
    assert caught.value.holding_pid in {holder.pid, None}
    assert str(path) in str(caught.value)


def test_closing_lets_go_of_the_file(tmp_path: Path) -> None:
    """After the context, or `close`, the file can be opened with other settings; using it again opens it again."""
    path = tmp_path / "events.duckdb"
    with Workspace(path=path) as workspace:
        workspace.connection.execute("CREATE TABLE mine AS SELECT 1 AS n")
    with duckdb.connect(str(path), read_only=True) as connection:
        assert connection.execute("SELECT n FROM mine").fetchall() == [(1,)]
    assert workspace.sql_scalar("SELECT n FROM mine") == 1
    workspace.close()
    workspace.close()


@pytest.mark.parametrize("where", [plainly, inside_asyncio])
def test_a_raw_stream_is_what_mixpanel_sent(
    where: Callable[[Callable[[], list[dict[str, Any]]]], list[dict[str, Any]]], served: Served
) -> None:
    """raw=True yields every object of Mixpanel's answer, duplicates included, and stores nothing."""
    found = where(lambda: list(served.workspace.stream_events(**DAYS, raw=True)))
    sent = [json.loads(line, object_pairs_hook=first_wins) for line in served.simulator.lines(FIRST, LAST)]
    assert in_order(found) == in_order(sent)
    assert len(found) == served.simulator.truth(FIRST, LAST).rows
    assert not served.workspace.db_path.exists()


def test_a_stream_agrees_with_the_table(portal: BlockingPortal, tmp_path: Path) -> None:
    """Where nothing is sent twice, the stream has the rows of the table: the same names, times, ids, properties."""
    simulator = Simulator(events_per_day=60, duplicates=0, odd=0.3, per_second=0, per_hour=0)
    with serving(portal, tmp_path / "events.duckdb", simulator) as served:
        served.workspace.fetch_events(**DAYS)
        table = served.workspace.sql_rows(f"SELECT {COLUMNS} FROM events").to_dicts()
        streamed = list(served.workspace.stream_events(**DAYS))
    for row in table:
        time, properties = row["event_time"], row["properties"]
        assert isinstance(properties, str)
        row["properties"] = json.loads(properties, object_pairs_hook=first_wins)
        row["event_time"] = time.replace(tzinfo=UTC) if isinstance(time, datetime) else None
    assert list(streamed[0]) == ["event_name", "event_time", "distinct_id", "insert_id", "properties"]
    assert in_order(streamed) == in_order(table)


@pytest.mark.parametrize("zone, hours", [(None, -9), ("US/Pacific", 8), ("UTC", 0)])
def test_the_zone_of_a_project_holds_for_fetches_and_streams(
    zone: str | None, hours: int, portal: BlockingPortal, tmp_path: Path
) -> None:
    """Table and stream have the same UTC, by the zone of the workspace, or else of the credentials."""
    simulator = Simulator(events_per_day=40, duplicates=0, odd=0, per_second=0, per_hour=0)
    legacy = replace(CREDENTIALS, project_timezone="Asia/Tokyo")
    with (
        serving(portal, tmp_path / "utc.duckdb", simulator) as served,
        Workspace(
            path=tmp_path / "local.duckdb", credentials=legacy, api_url=served.url, project_timezone=zone
        ) as workspace,
    ):
        shift = timedelta(hours=hours)
        shifted = sorted(event["event_time"] + shift for event in served.workspace.stream_events(**DAYS))
        assert sorted(event["event_time"] for event in workspace.stream_events(**DAYS)) == shifted
        workspace.fetch_events(**DAYS)
        times = workspace.sql_rows("SELECT event_time FROM events ORDER BY 1").rows
        assert [time for (time,) in times] == [time.replace(tzinfo=None) for time in shifted]


def test_a_stream_checks_its_zone(served: Served) -> None:
    """A zone that is none is refused at the call, before any request."""
    with (
        Workspace(
            path=served.workspace.db_path, credentials=CREDENTIALS, api_url=served.url, project_timezone="PST"
        ) as workspace,
        pytest.raises(ValueError, match="project_timezone must be an IANA name"),
    ):
        workspace.stream_events(**DAYS)
    assert served.requests() == 0


def test_a_stream_begins_again_when_it_was_not_whole(served: Served) -> None:
    """After a truncated answer the range is asked for again, and nothing of the first answer is yielded."""
    served.simulator.faults = [Fault("terminated_early", times=1)]
    found = list(served.workspace.stream_events(**DAYS))
    assert served.requests() == 2
    assert len(found) == served.simulator.truth(FIRST, LAST).rows


def test_a_stream_that_fails_yields_nothing(served: Served) -> None:
    """What keeps a stream from being fetched is raised before its first event."""
    served.simulator.faults = [Fault("401")]
    with pytest.raises(AuthenticationError):
        next(served.workspace.stream_events(**DAYS))


def test_patience_is_an_argument_of_fetches_and_streams(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the hour is spent, *max_wait* says how long to wait for more, and what did not come is an error."""
    monkeypatch.setenv("MPX_PER_HOUR", "3")
    workspace = served.workspace
    result = workspace.fetch_events(
        **DAYS, parallel=True, chunk_days=4, progress=False, max_wait=0, on_batch_complete=None
    )
    assert (result.successful_batches, result.failed_batches) == (3, 1)
    assert isinstance(result.errors[0], RateLimitError)
    with pytest.raises(RateLimitError, match="longer than max_wait allows"):
        workspace.fetch_events("other", **DAYS, max_wait=0)
    with pytest.raises(RateLimitError):
        next(workspace.stream_events(**DAYS, max_wait=0))
    assert served.requests() == 3


def test_retries_are_an_argument_of_streams(served: Served) -> None:
    """With none a stream fails at once."""
    served.simulator.faults = [Fault("500")]
    with pytest.raises(ServerError):
        next(served.workspace.stream_events(**DAYS, retries=0))
    assert served.requests() == 1


@pytest.mark.parametrize("streams", [False, True])
def test_timeouts_are_those_of_the_workspace(served: Served, tmp_path: Path, streams: bool) -> None:
    """Each request of a workspace is given up after the silence that it was made with."""
    served.simulator.faults = [Fault("stall")]
    file, timeouts = tmp_path / "x.duckdb", Timeouts(idle=0.2)
    with (
        Workspace(path=file, credentials=CREDENTIALS, api_url=served.url, timeouts=timeouts) as workspace,
        pytest.raises(NetworkError),
    ):
        if streams:
            next(workspace.stream_events(**DAYS, retries=0))
        else:
            workspace.fetch_events(**DAYS, retries=0)


def test_a_stream_checks_its_limit(served: Served) -> None:
    """A limit out of range is refused at the call."""
    with pytest.raises(ValueError, match="limit must be positive"):
        served.workspace.stream_events(**DAYS, limit=0)


def test_the_errors_are_mixpanel_datas(served: Served) -> None:
    """What a fetch raises is caught by the base class and carries a code."""
    with pytest.raises(MixpanelDataError) as caught:
        served.workspace.fetch_events(**DAYS, append=True)
    assert caught.value.code == "TABLE_NOT_FOUND"
