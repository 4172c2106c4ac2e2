"""The public API as a type checker sees it. Checked, never run."""

from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import Any, assert_type

import duckdb
import pandas as pd

import mixpanel_export
from mixpanel_export import (
    BatchProgress,
    ColumnStatsResult,
    Credentials,
    EventBreakdownResult,
    FetchResult,
    MixpanelDataError,
    ParallelFetchResult,
    Progress,
    RateLimitError,
    SQLResult,
    SummaryResult,
    SyncResult,
    TableInfo,
    TableSchema,
    Timeouts,
    UpgradeResult,
    VerifyResult,
    Workspace,
    WorkspaceInfo,
    export_events,
    run_sync,
    split_date_range,
    sync_events,
    upgrade_database,
    verify_events,
)


def on_batch(batch: BatchProgress) -> None:
    assert_type(batch.error, str | None)


async def on_progress(progress: Progress) -> None:
    assert_type(progress.rows, int)
    assert_type(progress.waiting_seconds, float | None)


async def the_async_door() -> None:
    result = await export_events("2024-01-01", date(2024, 3, 30), db=Path("events.duckdb"))
    assert_type(result, ParallelFetchResult)
    await export_events(
        "2024-01-01",
        "2024-03-30",
        db="events.duckdb",
        table="signups",
        credentials=Credentials("user", "secret", "1", "eu", "US/Pacific"),
        project_timezone="UTC",
        http2=True,
        timeouts=Timeouts(first_byte=600.0, idle=60.0),
        retries=2,
        max_wait=0.0,
        events=("Sign up", "Sign in"),
        where='properties["plan"] == "free"',
        max_workers=5,
        chunk_days=3,
        mode="resume",
        on_batch_complete=on_batch,
        on_progress=on_progress,
    )
    await export_events("2024-01-01", "2024-03-30", db="x", mode="upsert")  # type: ignore[arg-type]  # no such mode


def the_blocking_door(parallel: bool) -> None:
    with Workspace(
        path="events.duckdb",
        region="eu",
        project_timezone="US/Pacific",
        http2=True,
        timeouts=Timeouts(idle=60.0),
    ) as workspace:
        one = workspace.fetch_events(from_date="2024-01-01", to_date="2024-01-31", limit=10)
        assert_type(one, FetchResult)
        many = workspace.fetch_events(
            "events",
            from_date="2024-01-01",
            to_date="2024-12-31",
            parallel=True,
            on_batch_complete=on_batch,
            retries=2,
            max_wait=1800.0,
        )
        assert_type(many, ParallelFetchResult)
        either = workspace.fetch_events(from_date="2024-01-01", to_date="2024-01-31", parallel=parallel)
        assert_type(either, FetchResult | ParallelFetchResult)
        events = workspace.stream_events(
            from_date="2024-01-01", to_date=date(2024, 1, 31), raw=True, max_wait=0
        )
        assert_type(events, Iterator[dict[str, Any]])
        assert_type(workspace.sql("SELECT 1"), pd.DataFrame)
        assert_type(workspace.sql_rows("SELECT 1"), SQLResult)
        assert_type(workspace.tables(), list[TableInfo])
        assert_type(workspace.tables(all=True), list[TableInfo])
        assert_type(workspace.connection, duckdb.DuckDBPyConnection)
        assert_type(workspace.db_path, Path)


def looking_into_a_database() -> None:
    with Workspace.open("events.duckdb", read_only=False) as workspace:
        assert_type(workspace, Workspace)
        assert_type(workspace.info(), WorkspaceInfo)
        assert_type(workspace.table_schema("events"), TableSchema)
        assert_type(workspace.sample("events", n=3), pd.DataFrame)
        assert_type(workspace.summarize("events"), SummaryResult)
        assert_type(workspace.event_breakdown("events"), EventBreakdownResult)
        assert_type(workspace.event_breakdown("events").df, pd.DataFrame)
        assert_type(workspace.property_keys("events", event="Sign up"), list[str])
        assert_type(workspace.column_stats("events", "event_name", top_n=3), ColumnStatsResult)
        assert_type(workspace.relation("FROM events"), duckdb.DuckDBPyRelation)
        workspace.drop("events", "others")
        workspace.drop("mine", force=True)
        workspace.drop_all("events")
        workspace.drop_all(type="tables")  # type: ignore[arg-type]  # no such type
    with Workspace.ephemeral("main", project_timezone="UTC") as temporary, Workspace.memory() as other:
        assert_type(temporary, Workspace)
        assert_type(other, Workspace)
    assert_type(Workspace.test_credentials("main"), dict[str, Any])
    assert_type(upgrade_database(Path("12345.db")), UpgradeResult)


def the_rest() -> None:
    result = run_sync(export_events, "2024-01-01", "2024-01-31", db="events.duckdb", mode="append")
    assert_type(result, ParallelFetchResult)
    synced = run_sync(sync_events, "events.duckdb", since="2024-01-01", lookback=7, accept_loss=True)
    assert_type(synced, SyncResult)
    verified = run_sync(verify_events, Path("events.duckdb"), from_date=date(2024, 1, 1), tolerance=0.01)
    assert_type(verified, VerifyResult)
    assert_type(verified.unexplained[0].difference, int)
    assert_type(Workspace().verify(ignore=["$identify"], to_date="yesterday"), VerifyResult)
    run_sync(export_events, "2024-01-01", "2024-01-31")  # type: ignore[call-arg]  # no database
    assert_type(split_date_range("2024-01-01", "2024-01-31", 7), list[tuple[str, str]])
    assert_type(mixpanel_export.__version__, str)


def catching() -> None:
    try:
        the_rest()
    except RateLimitError as error:
        assert_type(error.retry_after, float | None)
    except MixpanelDataError as error:
        assert_type(error.code, str)
        assert_type(error.to_dict(), dict[str, object])
