"""A script for mixpanel_data runs if only its import is changed, and finds the same signatures."""

import ast
import inspect
import json
import os
import subprocess
import sys
from datetime import date
from inspect import Parameter
from pathlib import Path
from typing import Any

import pytest
from anyio.from_thread import start_blocking_portal

import mixpanel_export
from mixpanel_export import Workspace
from mixpanel_export.simulator import Simulator

# mixpanel_data's own, as it was when it last stored events; `...` stands for an argument without a default.
SIGNATURES = {
    "__init__": "(account=None, project_id=None, region=None, path=None, read_only=False, workspace_id=None)",
    "ephemeral": "(account=None, project_id=None, region=None)",
    "memory": "(account=None, project_id=None, region=None)",
    "open": "(path, *, read_only=True)",
    "close": "()",
    "test_credentials": "(account=None)",
    "fetch_events": "(name='events', *, from_date, to_date, events=None, where=None, limit=None, progress=True, "
    "append=False, batch_size=1000, parallel=False, max_workers=None, on_batch_complete=None, chunk_days=7)",
    "stream_events": "(*, from_date, to_date, events=None, where=None, limit=None, raw=False)",
    "fetch_profiles": "(name='profiles', *, where=None, cohort_id=None, output_properties=None, progress=True, append=False, "
    "batch_size=1000, distinct_id=None, distinct_ids=None, group_id=None, behaviors=None, as_of_timestamp=None, "
    "include_all_users=False, parallel=False, max_workers=None, on_page_complete=None)",
    "stream_profiles": "(*, where=None, cohort_id=None, output_properties=None, raw=False, distinct_id=None, "
    "distinct_ids=None, group_id=None, behaviors=None, as_of_timestamp=None, include_all_users=False)",
    "sql": "(query)",
    "sql_scalar": "(query)",
    "sql_rows": "(query)",
    "tables": "()",
    "table_schema": "(table)",
    "info": "()",
    "sample": "(table, n=10)",
    "summarize": "(table)",
    "event_breakdown": "(table)",
    "property_keys": "(table, event=None)",
    "column_stats": "(table, column, *, top_n=10)",
    "drop": "(*names)",
    "drop_all": "(type=None)",
}
PROPERTIES = ("connection", "db_path", "api", "storage")
# README says why.
OTHER_DEFAULTS = {("fetch_events", "chunk_days"): None}
# Name: the fields, in order.
RESULTS = {
    "BatchProgress": "from_date to_date batch_index total_batches rows success error",
    "BatchResult": "from_date to_date rows success error",
    "ColumnInfo": "name type nullable primary_key",
    "ColumnStatsResult": "table column dtype count null_count null_pct unique_count unique_pct top_values min max mean std",
    "ColumnSummary": "column_name column_type min max approx_unique avg std q25 q50 q75 count null_percentage",
    "EventBreakdownResult": "table total_events total_users date_range events",
    "EventStats": "event_name count unique_users first_seen last_seen pct_of_total",
    "FetchResult": "table rows type duration_seconds date_range fetched_at",
    "ParallelFetchResult": "table total_rows successful_batches failed_batches failed_date_ranges duration_seconds fetched_at",
    "ParallelProfileResult": "table total_rows successful_pages failed_pages failed_page_indices duration_seconds fetched_at",
    "ProfileProgress": "page_index total_pages rows success error cumulative_rows",
    "SQLResult": "columns rows",
    "SummaryResult": "table row_count columns",
    "TableInfo": "name type row_count fetched_at",
    "TableSchema": "table_name columns",
    "WorkspaceInfo": "path project_id region account tables size_mb created_at",
}

SCRIPT = """
import json
from pathlib import Path

import mixpanel_data as mp
from mixpanel_data import EventNotFoundError, OAuthError, ParallelProfileResult, ProfileProgress, TableType
from mixpanel_data.auth import AccountInfo, AuthMethod, ConfigManager, Credentials
from mixpanel_data.exceptions import APIError, JQLSyntaxError, MixpanelDataError
from mixpanel_data.types import BatchProgress, TableMetadata

assert ConfigManager().resolve_credentials().region == Credentials("u", "s", "1", region="US").region == "us"

found = mp.Workspace.test_credentials()
assert found["success"] and found["project_id"] == "12345" and found["region"] == "us", found
ConfigManager().add_account("second", "demo.mp-service-account", "demo-secret", "12345", "us")
assert mp.Workspace.test_credentials("second")["account"] == "second"
assert [account.name for account in ConfigManager().list_accounts()] == ["second"]

batches = []
with mp.Workspace() as ws:
    result = ws.fetch_events(
        "events", from_date="2024-01-01", to_date="2024-01-28", parallel=True, max_workers=4, chunk_days=7,
        on_batch_complete=batches.append, progress=False,
    )
    assert isinstance(result, mp.ParallelFetchResult) and not result.has_failures, result
    more = ws.fetch_events(
        "events", from_date="2024-01-29", to_date="2024-01-31", append=True, batch_size=500, progress=False
    )
    assert isinstance(more, mp.FetchResult) and more.type == "events", more
    ws.fetch_events(
        name="views", from_date="2024-01-01", to_date="2024-01-07", events=["Page View"],
        where='properties["plan"] == "free" or not defined(properties["plan"])', progress=False,
    )
    capped = ws.fetch_events("few", from_date="2024-01-01", to_date="2024-01-07", limit=5, progress=False)
    assert capped.rows == capped.row_count == ws.sql_scalar("SELECT count(*) FROM few") <= 5, capped
    ws.drop("few")
    try:
        ws.fetch_events("events", from_date="2024-01-01", to_date="2024-01-07", progress=False)
    except mp.TableExistsError as error:
        assert error.table_name == "events" and error.code == "TABLE_EXISTS" and error.details["suggestion"]
    assert isinstance(batches[0], BatchProgress)
    for missing in (lambda: ws.api, lambda: ws.storage):
        try:
            missing()
        except NotImplementedError as error:
            assert "; use " in str(error)
        else:
            raise AssertionError
    path = ws.db_path
    tables = {table.name: table for table in ws.tables()}
    info = ws.info()
    schema = ws.table_schema("events")
    breakdown = ws.event_breakdown("events")
    top = breakdown.events[0]
    keys = ws.property_keys("events")
    some = ws.property_keys("events", event=top.event_name)
    stats = ws.column_stats("events", "event_name", top_n=3)
    plan = ws.column_stats("events", "properties->>'$.plan'")
    summary = ws.summarize("events")
    rows = ws.sql_rows("SELECT event_name, COUNT(*) FROM events GROUP BY 1 ORDER BY 2 DESC, 1")
    frame = ws.sql("SELECT event_name, event_time, distinct_id, insert_id, properties FROM events")
    answer = {
        "path": str(path),
        "project": info.project_id,
        "names": info.tables,
        "size": info.size_mb,
        "counts": {name: table.row_count for name, table in tables.items()},
        "types": sorted({table.type for table in tables.values()}),
        "fetched": result.total_rows + more.rows,
        "batches": sorted((b.batch_index, b.from_date, b.to_date, b.total_batches, b.success) for b in batches),
        "schema": {column.name: column.type for column in schema.columns},
        "sample": [len(ws.sample("events")), len(ws.sample("events", n=3))],
        "breakdown": [breakdown.total_events, sum(event.count for event in breakdown.events), len(breakdown.df)],
        "percent": round(sum(event.pct_of_total for event in breakdown.events)),
        "range": [moment.isoformat()[:10] for moment in breakdown.date_range],
        "keys": [set(some) <= set(keys), keys == sorted(keys), "plan" in keys],
        "stats": [stats.count, stats.null_count, len(stats.top_values), len(stats.df), plan.count < stats.count],
        "top": list(stats.top_values[0]) == [top.event_name, top.count],
        "summary": [summary.row_count, [column.column_name for column in summary.columns], len(summary.df)],
        "rows": [rows.columns[0], sum(count for _, count in rows), rows.to_dicts()[0]["event_name"] == top.event_name],
        "frame": [len(frame), list(frame.columns)],
        "scalar": ws.sql_scalar("SELECT COUNT(DISTINCT distinct_id) FROM events") == breakdown.total_users,
        "direct": ws.connection.execute("SELECT count(*) FROM views").fetchone()[0] == tables["views"].row_count,
    }
    for value in (result, more, summary, breakdown, stats, schema, info, *tables.values(), *batches):
        json.dumps(value.to_dict())
    streamed = list(ws.stream_events(from_date="2024-01-01", to_date="2024-01-02"))
    answer["streamed"] = [len(streamed), sorted(streamed[0])]
    raw = next(iter(ws.stream_events(from_date="2024-01-01", to_date="2024-01-02", raw=True)))
    answer["raw"] = sorted(raw)
    chosen = dict(from_date="2024-01-01", to_date="2024-01-07", events=["Page View"], where='properties["plan"] == "free"')
    plans = [event["properties"]["plan"] for event in ws.stream_events(**chosen, limit=3)]
    assert plans and set(plans) == {"free"} and len(plans) <= 3, plans

pages = []
with mp.Workspace() as ws:
    people = ws.fetch_profiles("people", parallel=True, max_workers=9, on_page_complete=pages.append, progress=False)
    assert isinstance(people, mp.ParallelProfileResult) and not people.has_failures, people
    assert people.failed_page_indices == () and people.successful_pages == len(pages) == pages[0].total_pages
    assert isinstance(pages[0], ProfileProgress) and max(p.cumulative_rows for p in pages) == people.total_rows
    one = ws.sql_scalar("SELECT min(distinct_id) FROM people")
    few = ws.fetch_profiles(name="few", distinct_ids=[one], output_properties=["$email"], progress=False, batch_size=500)
    assert isinstance(few, mp.FetchResult) and (few.type, few.rows, few.date_range) == ("profiles", 1, None), few
    again = ws.fetch_profiles("few", append=True, where='properties["logins"] > 500', progress=False)
    assert ws.sql_scalar("SELECT count(*) FROM few") == again.rows + 1
    profiles = list(ws.stream_profiles(distinct_id=one))
    raw_profiles = list(ws.stream_profiles(raw=True))
    answer["profiles"] = [people.total_rows, sorted(profiles[0]), len(raw_profiles), sorted(raw_profiles[0])]
    answer["profile types"] = {t.name: t.type for t in ws.tables() if t.type != "events"}
    for value in (people, few, *pages):
        json.dumps(value.to_dict())
    assert len(ws.sql("SELECT distinct_id, properties, last_seen FROM people")) == people.total_rows
    ws.drop_all(type="profiles")

with mp.Workspace.open(path) as ws:
    assert len(ws.sql("SELECT * FROM views")) == tables["views"].row_count
with mp.Workspace.open(path, read_only=False) as ws:
    ws.sql("CREATE TABLE mine AS SELECT 1 AS n")
with mp.Workspace("second", "12345", "us", path, True, 7) as ws:
    assert ws.info().account == "second" and ws.sql_rows("FROM mine").rows == [(1,)]
with mp.Workspace(path=path, read_only=True) as ws:
    assert [table.name for table in ws.tables()] == ["events", "views"]

ws = mp.Workspace(path=path)
ws.drop("views")
assert [table.name for table in ws.tables()] == ["events"]
try:
    ws.drop("views")
except mp.TableNotFoundError:
    ws.drop_all(type="profiles")
    assert len(ws.tables()) == 1
    ws.drop_all(type="events")
assert ws.tables() == []
ws.drop_all()
try:
    ws.event_breakdown("events")
except mp.TableNotFoundError:
    pass
try:
    ws.sql("SELECT * FROM events")
except mp.QueryError:
    pass
ws.close()

for temporary, account in ((mp.Workspace.ephemeral, "second"), (mp.Workspace.memory, None)):
    with temporary(account, project_id="12345", region="us") as ws:
        ws.fetch_events(from_date="2024-01-01", to_date="2024-01-02", progress=False)
        assert ws.sql_scalar("SELECT COUNT(*) FROM events") > 0
        where = ws.db_path
    assert where is None or not Path(where).exists()
try:
    mp.Workspace.open("no such file.db")
except FileNotFoundError:
    print(json.dumps(answer))
"""


def parameters_of(signature: str) -> list[Parameter]:
    """Return the parameters that a signature in text has."""
    (function,) = ast.parse(f"def f{signature}: ...").body
    assert isinstance(function, ast.FunctionDef)
    given, kinds = function.args, Parameter
    plain = [None] * (len(given.args) - len(given.defaults)) + list(given.defaults)
    named = [
        *((argument, default, kinds.POSITIONAL_OR_KEYWORD) for argument, default in zip(given.args, plain, strict=True)),
        *((argument, None, kinds.VAR_POSITIONAL) for argument in [given.vararg] if argument),
        *(
            (argument, default, kinds.KEYWORD_ONLY)
            for argument, default in zip(given.kwonlyargs, given.kw_defaults, strict=True)
        ),
    ]  # fmt: skip
    return [
        Parameter(
            argument.arg, kind, default=Parameter.empty if default is None else ast.literal_eval(default)
        )
        for argument, default, kind in named
    ]


@pytest.mark.parametrize("name", SIGNATURES)
def test_the_signatures_are_mixpanel_datas(name: str) -> None:
    """Each method has the same arguments in the same order with the same defaults; new ones are keyword-only."""
    ours = [
        parameter.replace(annotation=Parameter.empty)
        for parameter in inspect.signature(getattr(Workspace, name)).parameters.values()
        if parameter.name != "self"
    ]
    theirs = [
        parameter.replace(default=OTHER_DEFAULTS.get((name, parameter.name), parameter.default))
        for parameter in parameters_of(SIGNATURES[name])
    ]
    assert ours[: len(theirs)] == theirs
    assert {parameter.kind for parameter in ours[len(theirs) :]} <= {
        Parameter.KEYWORD_ONLY,
        Parameter.VAR_KEYWORD,
    }


def test_methods_are_called_as_before() -> None:
    """Class methods are still class methods, and properties are still properties."""
    static = {name: inspect.getattr_static(Workspace, name) for name in SIGNATURES}
    assert isinstance(static["test_credentials"], staticmethod)
    assert all(isinstance(static[name], classmethod) for name in ("open", "ephemeral", "memory"))
    assert all(isinstance(inspect.getattr_static(Workspace, name), property) for name in PROPERTIES)


@pytest.mark.parametrize("name", RESULTS)
def test_the_results_are_mixpanel_datas(name: str) -> None:
    """Each result has the same fields in the same order; new fields follow them."""
    kind = getattr(mixpanel_export, name)
    fields = RESULTS[name].split()
    assert list(kind.__dataclass_fields__)[: len(fields)] == fields
    assert callable(kind.to_dict)


@pytest.fixture(scope="module")
def answer(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The output of the script, and the simulator that it used."""
    home = tmp_path_factory.mktemp("home")
    simulator = Simulator(events_per_day=30, per_second=0, per_hour=0, profiles=2_300)
    program = SCRIPT.replace("mixpanel_data", "mixpanel_export")
    with start_blocking_portal() as portal, portal.wrap_async_context_manager(simulator.serve()) as url:
        settings = {
            "MP_USERNAME": "demo.mp-service-account",
            "MP_SECRET": "demo-secret",
            "MP_PROJECT_ID": "12345",
            "MP_REGION": "us",
            "MPX_API_URL": url,
            "MPX_PER_SECOND": "0",
            "MPX_PER_HOUR": "0",
            "HOME": str(home),
            "USERPROFILE": str(home),
        }
        done = subprocess.run(
            [sys.executable, "-c", program],
            env=os.environ | settings,
            cwd=home,
            capture_output=True,
            text=True,
            check=False,
        )
    assert (done.returncode, done.stderr) == (0, "")
    return json.loads(done.stdout), simulator, home


def test_a_script_for_mixpanel_data_runs_with_its_import_changed(
    answer: tuple[dict[str, Any], Simulator, Path],
) -> None:
    """Every local method returns the simulator's data, in mixpanel_data's file, which is closed at the end."""
    told, simulator, home = answer
    truth = simulator.truth(date(2024, 1, 1), date(2024, 1, 31))
    file = home / ".mp" / "data" / "12345.db"
    assert (told["path"], told["project"], told["names"]) == (str(file), "12345", ["events", "views"])
    assert file.exists()
    assert (told["counts"]["events"], told["fetched"], told["types"]) == (
        truth.distinct,
        truth.distinct,
        ["events"],
    )
    assert 0 < told["counts"]["views"] < truth.distinct
    assert told["size"] > 0
    assert told["batches"] == [
        [0, "2024-01-01", "2024-01-07", 4, True],
        [1, "2024-01-08", "2024-01-14", 4, True],
        [2, "2024-01-15", "2024-01-21", 4, True],
        [3, "2024-01-22", "2024-01-28", 4, True],
    ]


def test_the_script_fetches_every_profile(answer: tuple[dict[str, Any], Simulator, Path]) -> None:
    """In parallel and in a stream, with mixpanel_data's keys; tables of profiles have their type."""
    told, simulator, _ = answer
    profiles = len(simulator.profile_truth())
    assert told["profiles"] == [
        profiles,
        ["distinct_id", "last_seen", "properties"],
        profiles,
        ["$distinct_id", "$properties"],
    ]
    assert told["profile types"] == {"few": "profiles", "people": "profiles"}


def test_the_answers_of_the_script_agree_with_one_another(
    answer: tuple[dict[str, Any], Simulator, Path],
) -> None:
    """Breakdown, statistics, summary, SQL and streams agree about the same table."""
    told, simulator, _ = answer
    rows = simulator.truth(date(2024, 1, 1), date(2024, 1, 31)).distinct
    five = ["event_name", "event_time", "distinct_id", "insert_id", "properties"]
    assert list(told["schema"])[:5] == five
    assert told["sample"] == [10, 3]
    assert told["breakdown"][:2] == [rows, rows]
    assert told["percent"] == 100
    assert told["range"][0] <= "2024-01-01"
    assert told["keys"] == [True, True, True]
    assert told["stats"] == [rows, 0, 3, 3, True]
    assert told["top"]
    assert told["summary"] == [rows, list(told["schema"]), 6]
    assert told["rows"] == ["event_name", rows, True]
    assert told["frame"] == [rows, five]
    assert told["scalar"]
    assert told["direct"]
    first_days = simulator.truth(date(2024, 1, 1), date(2024, 1, 2)).rows
    assert told["streamed"] == [first_days, sorted(five)]
    assert told["raw"] == ["event", "properties"]
