"""What a workspace reports about its own database, and how it opens it."""

import json
import sys
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import databases
import duckdb
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mixpanel_export import (
    ColumnInfo,
    ColumnStatsResult,
    DatabaseError,
    DatabaseNotFoundError,
    EventBreakdownResult,
    EventStats,
    MixpanelDataError,
    QueryError,
    SummaryResult,
    TableNotFoundError,
    TableSchema,
    Workspace,
    WorkspaceInfo,
)
from mixpanel_export._local.file import size_and_creation_time
from mixpanel_export._local.statistics import stats_of

db = databases.db
workspace = databases.workspace


def test_a_schema_has_the_columns_in_order(workspace: Workspace) -> None:
    """Names, types, NULLs and keys of a table, whose name may be in any case, and of a view."""
    assert workspace.table_schema("AND MINE") == TableSchema(
        "and mine",
        [ColumnInfo("id", "INTEGER", False, True), ColumnInfo("price", "DECIMAL(9,2)", False)],
    )
    events = workspace.table_schema("events")
    assert [(column.name, column.type) for column in events.columns][3:] == [
        ("insert_id", "VARCHAR"),
        ("properties", "JSON"),
        ("export_batch", "INTEGER"),
    ]
    assert all(column.nullable for column in events.columns)
    assert workspace.table_schema("seen").columns == [ColumnInfo("event_name", "VARCHAR", True)]
    assert json.loads(json.dumps(events.to_dict()))["columns"][0] == {
        "name": "event_name",
        "type": "VARCHAR",
        "nullable": True,
        "primary_key": False,
    }


def test_a_sample_is_drawn_from_the_table(workspace: Workspace) -> None:
    """As many rows as requested, all from the table and none twice; all rows if there are fewer."""
    workspace.connection.execute("CREATE TABLE numbers AS SELECT n FROM range(5000) AS numbers(n)")
    assert len(workspace.sample("numbers")) == 10
    drawn = workspace.sample("numbers", n=200)["n"].tolist()
    assert len(set(drawn)) == 200
    assert set(drawn) <= set(range(5000))
    assert drawn != list(range(200))
    assert len(workspace.sample("and mine")) == 0
    assert sorted(workspace.sample("events", 99)["insert_id"]) == ["a", "b", "c", "d", "e"]


def test_a_summary_has_a_row_a_column(workspace: Workspace) -> None:
    """Minimum, maximum, number of values and of NULLs; only numbers have a mean."""
    summary = workspace.summarize("events")
    assert (summary.table, summary.row_count, len(summary.columns)) == ("events", 5, 6)
    time, batch = summary.columns[1], summary.columns[5]
    assert (time.column_name, time.column_type) == ("event_time", "TIMESTAMP")
    assert (time.min, time.max) == ("2024-02-28 09:00:00", "2024-03-02 11:00:00")
    assert (time.avg, time.count, time.null_percentage) == (None, 5, 40.0)
    assert (batch.avg, batch.std, batch.q50, batch.approx_unique) == (1.0, 0.0, "1", 1)
    assert summary.columns[0].avg is None
    assert list(summary.df["column_name"]) == [column.column_name for column in summary.columns]
    assert json.loads(json.dumps(summary.to_dict()))["columns"][5]["q50"] == "1"
    assert workspace.summarize("and mine").row_count == 0


def test_a_breakdown_counts_the_events(workspace: Workspace) -> None:
    """Events, users and times for each name, the most frequent first, including events without a time."""
    first, last = datetime(2024, 2, 28, 9), datetime(2024, 3, 2, 11)
    breakdown = workspace.event_breakdown("events")
    assert breakdown == EventBreakdownResult(
        "events",
        5,
        3,
        (first, last),
        [
            EventStats("View", 3, 2, datetime(2024, 3, 1, 10), last, 60.0),
            EventStats("Odd", 1, 1, None, None, 20.0),
            EventStats("Sign up", 1, 0, first, first, 20.0),
        ],
    )
    assert list(breakdown.df.columns) == [
        "event_name", "count", "unique_users", "first_seen", "last_seen", "pct_of_total",
    ]  # fmt: skip
    assert list(breakdown.df["count"]) == [3, 1, 1]
    shown = json.loads(json.dumps(breakdown.to_dict()))
    assert shown["date_range"] == ["2024-02-28T09:00:00", "2024-03-02T11:00:00"]
    assert shown["events"][1]["first_seen"] is None
    assert shown["events"][0]["last_seen"] == "2024-03-02T11:00:00"


def test_a_breakdown_of_nothing(workspace: Workspace) -> None:
    """An empty table has no events, and mixpanel_data's two least times."""
    workspace.connection.execute("DELETE FROM events")
    breakdown = workspace.event_breakdown("events")
    assert (breakdown.total_events, breakdown.total_users, breakdown.events) == (0, 0, [])
    assert [str(moment) for moment in breakdown.date_range] == ["0001-01-01 00:00:00"] * 2
    assert (len(breakdown.df), len(breakdown.df.columns)) == (0, 6)


def test_property_keys_are_sorted(workspace: Workspace) -> None:
    """The keys of all events, or of those with one name, each once."""
    assert workspace.property_keys("events") == ["$city", "n", "plan", "zip"]
    assert workspace.property_keys("events", event="Sign up") == ["plan", "zip"]
    assert workspace.property_keys("events", "No such event") == []


def test_column_statistics(workspace: Workspace) -> None:
    """The values and NULLs of a column, the number of different values, and the most frequent ones with their counts."""
    stats = workspace.column_stats("events", "event_name")
    assert stats == ColumnStatsResult(
        "events", "event_name", "VARCHAR", 5, 0, 0.0, 3, 60.0, [("View", 3), ("Odd", 1), ("Sign up", 1)]
    )
    assert stats.df.to_dict("list") == {"value": ["View", "Odd", "Sign up"], "count": [3, 1, 1]}
    assert workspace.column_stats("events", "event_name", top_n=1).top_values == [("View", 3)]
    assert json.loads(json.dumps(stats.to_dict()))["top_values"][0] == ["View", 3]


def test_column_statistics_of_an_expression(workspace: Workspace) -> None:
    """An expression works like a column, whatever operators it has, and numbers have a standard deviation."""
    plan = workspace.column_stats("events", "properties->>'plan'")
    assert (plan.count, plan.null_count, plan.null_pct) == (3, 2, 40.0)
    assert plan.top_values == [("free", 2), ("pro", 1)]
    assert (plan.min, plan.max, plan.mean, plan.std) == (None, None, None, None)
    number = workspace.column_stats("events", "CAST(properties->>'n' AS DECIMAL(9, 1))")
    assert number.dtype == "DECIMAL(9,1)"
    assert (number.count, number.min, number.max, number.mean) == (2, 1.0, 2.5, 1.75)
    assert number.std == pytest.approx(1.0607, abs=1e-3)


def test_column_statistics_of_nothing(workspace: Workspace) -> None:
    """Without rows, all counts are 0, nothing is divided by them, and the type is known."""
    stats = workspace.column_stats("and mine", "price")
    assert (stats.dtype, stats.count, stats.null_pct, stats.unique_pct) == ("DECIMAL(9,2)", 0, 0.0, 0.0)
    assert (stats.top_values, stats.mean, len(stats.df)) == ([], None, 0)


@given(st.lists(st.none() | st.sampled_from("aab") | st.text(max_size=3), max_size=40))
@settings(max_examples=30, deadline=None)
def test_counts_are_those_of_the_values(values: list[str | None]) -> None:
    """For all text columns, the counts of values, NULLs and the most frequent values are correct."""
    with duckdb.connect() as connection:
        connection.execute("CREATE TABLE t AS SELECT unnest(?::VARCHAR[]) AS v", [values])
        stats = stats_of(connection, "t", "v", 99)
    counted = Counter(value for value in values if value is not None)
    assert (stats.count, stats.null_count) == (counted.total(), len(values) - counted.total())
    assert dict(stats.top_values) == counted
    assert [count for _, count in stats.top_values] == sorted(counted.values(), reverse=True)
    assert 0 <= stats.unique_pct <= 100


@pytest.mark.parametrize(
    "ask",
    [
        lambda ws: ws.table_schema("nothing"),
        lambda ws: ws.sample("nothing"),
        lambda ws: ws.summarize("nothing"),
        lambda ws: ws.event_breakdown("nothing"),
        lambda ws: ws.property_keys("nothing"),
        lambda ws: ws.column_stats("nothing", "n"),
        lambda ws: ws.drop("nothing"),
        lambda ws: ws.drop("events", "nothing", force=True),
    ],
)
def test_a_missing_table_is_named_with_those_that_are_there(
    ask: Callable[[Workspace], object], workspace: Workspace
) -> None:
    """Methods for a table that does not exist raise `TableNotFoundError`, and change nothing."""
    with pytest.raises(TableNotFoundError, match=r"nothing does not exist.*and mine, events") as caught:
        ask(workspace)
    assert caught.value.table_name == "nothing"
    assert len(workspace.tables(all=True)) == 2


@pytest.mark.parametrize(
    "ask, message",
    [
        (lambda ws: ws.event_breakdown("and mine"), "distinct_id or event_name or event_time"),
        (lambda ws: ws.property_keys("and mine"), "no column properties"),
        (lambda ws: ws.property_keys("seen", "View"), "no column properties"),
        (lambda ws: ws.column_stats("events", "no_such_column"), "no_such_column"),
        (lambda ws: ws.column_stats("events", "event_name +"), "syntax error"),
        (lambda ws: ws.column_stats("events", "error('broken')"), "broken"),
        (lambda ws: ws.sql("SELECT nonsense"), "nonsense"),
        (lambda ws: ws.sql_scalar("SELECT nonsense"), "nonsense"),
        (lambda ws: ws.sql_rows("SELEC 1"), "syntax error"),
        (lambda ws: ws.relation("FROM nowhere"), "nowhere"),
    ],
)
def test_what_a_query_gets_wrong_is_mixpanel_datas_error(
    ask: Callable[[Workspace], object], message: str, workspace: Workspace
) -> None:
    """An error of DuckDB, or a table without events, is a `QueryError` with the reason."""
    with pytest.raises(QueryError, match=message):
        ask(workspace)


def test_a_relation_is_duckdbs(workspace: Workspace) -> None:
    """`relation` can be extended, and returns rows and frames."""
    relation = workspace.relation("SELECT event_name FROM events")
    assert isinstance(relation, duckdb.DuckDBPyRelation)
    assert relation.filter("event_name = 'View'").aggregate("count(*)").fetchall() == [(3,)]
    assert len(relation.df()) == 5


@pytest.mark.parametrize(
    "ask",
    [
        lambda ws: ws.sample("events"),
        lambda ws: ws.summarize("events").df,
        lambda ws: ws.event_breakdown("events").df,
        lambda ws: ws.column_stats("events", "event_name").df,
    ],
)
def test_frames_without_pandas_name_the_extra(
    ask: Callable[[Workspace], object], workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If pandas is not installed, the error of each frame names the extra."""
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(ImportError, match=r"mpx-export\[pandas\]"):
        ask(workspace)


# Opening


def test_info_tells_where_and_what(db: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file, its size, its tables, and their project, if known."""
    for name in ("MP_USERNAME", "MP_SECRET", "MP_CONFIG_PATH"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("MP_CONFIG_PATH", str(db.with_name("none.toml")))
    with Workspace(path=db) as workspace:
        info = workspace.info()
    assert isinstance(info, WorkspaceInfo)
    assert (info.path, info.project_id, info.region, info.account) == (db, "unknown", "unknown", None)
    assert info.tables == []  # no export made them
    assert info.size_mb == db.stat().st_size / 1_000_000
    assert info.created_at is None or info.created_at <= datetime.now(UTC)
    assert json.loads(json.dumps(info.to_dict()))["path"] == str(db)
    monkeypatch.setenv("MP_USERNAME", "u")
    monkeypatch.setenv("MP_SECRET", "s")
    monkeypatch.setenv("MP_PROJECT_ID", "777")
    monkeypatch.setenv("MP_REGION", "eu")
    with Workspace(path=db) as workspace:
        assert (workspace.info().project_id, workspace.info().region) == ("777", "eu")
    with Workspace.open(db) as workspace:
        assert (workspace.info().project_id, workspace.info().region) == ("unknown", "unknown")


def test_the_birth_of_a_file_is_told_where_it_is_known() -> None:
    """The creation time of a file is returned if the file system records it, and is not guessed otherwise."""
    kept = SimpleNamespace(st_size=3_000_000, st_birthtime=1_700_000_000.5)
    unknown = SimpleNamespace(st_size=3_500_000)
    born = datetime(2023, 11, 14, 22, 13, 20, 500_000, tzinfo=UTC)
    for found, expected in ((kept, (3.0, born)), (unknown, (3.5, None))):
        file: Any = SimpleNamespace(stat=lambda found=found: found)
        assert size_and_creation_time(file) == expected


def test_open_wants_a_file(tmp_path: Path) -> None:
    """`open` raises an error if the file does not exist, and creates none."""
    for kind in (FileNotFoundError, DatabaseNotFoundError, MixpanelDataError):
        for read_only in (True, False):
            with pytest.raises(kind, match=r"none\.duckdb"):
                Workspace.open(tmp_path / "none.duckdb", read_only=read_only)
    assert list(tmp_path.iterdir()) == []


def test_open_reads_unless_told_otherwise(db: Path) -> None:
    """`open` lets others read the file, and writes only with read_only=False."""
    with Workspace.open(str(db)) as one, Workspace.open(db) as other:
        assert (
            one.sql_scalar("SELECT count(*) FROM events")
            == other.sql_scalar("SELECT count(*) FROM events")
            == 5
        )
        with pytest.raises(DatabaseError, match="read_only"):
            one.drop("events")
        with pytest.raises(DatabaseError, match="read_only"):
            one.drop_all()
    with Workspace.open(db, read_only=False) as writing:
        writing.drop("events", force=True)
        assert [table.name for table in writing.tables(all=True)] == ["and mine"]


def test_a_workspace_is_opened_when_it_is_needed(tmp_path: Path) -> None:
    """Creating or closing a workspace uses neither files nor credentials."""
    with Workspace(account="nobody", path=tmp_path / "deep" / "x.duckdb"):
        assert list(tmp_path.iterdir()) == []
    with Workspace(path=tmp_path / "x.duckdb", read_only=True):
        pass
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("kind", ["ephemeral", "memory"])
def test_a_temporary_workspace_leaves_nothing(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its file is in the temporary folder, readable by this user only, and is removed at the end or after an error."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with getattr(Workspace, kind)() as workspace:
        workspace.connection.execute("CREATE TABLE mine AS SELECT 1 AS n")
        path = workspace.db_path
        assert path.is_relative_to(tmp_path)
        assert path.exists()
        workspace.close()
        assert workspace.sql_scalar("SELECT n FROM mine") == 1
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(ZeroDivisionError), getattr(Workspace, kind)() as workspace:
        workspace.connection.execute("CREATE TABLE mine AS SELECT 1 AS n")
        raise ZeroDivisionError
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "use, instead",
    [
        (lambda ws: ws.api, "stream_events"),
        (lambda ws: ws.storage, "connection"),
    ],
)
def test_what_is_missing_says_what_to_use(use: Callable[[Workspace], object], instead: str, db: Path) -> None:
    """Methods of mixpanel_data that are missing raise a `NotImplementedError` that names an alternative."""
    with pytest.raises(NotImplementedError, match=instead):
        use(Workspace(path=db))


def test_summaries_print_as_what_they_are(workspace: Workspace) -> None:
    """The values are frozen, and their repr has the class and its fields."""
    assert isinstance(workspace.summarize("events"), SummaryResult)
    assert repr(workspace.table_schema("and mine")).startswith(
        "TableSchema(table_name='and mine', columns=[ColumnInfo("
    )
