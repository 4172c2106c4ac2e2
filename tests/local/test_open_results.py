"""A workspace's methods leave no statement open, so other connections in the process can write a checkpoint."""

from collections.abc import Callable
from pathlib import Path
from shutil import copyfile

import pytest
from support import ACCOUNT, export, query, simulator

from mixpanel_export import Workspace, run_sync

METHODS: dict[str, Callable[[Workspace], object]] = {
    "sql_scalar, one row": lambda ws: ws.sql_scalar("SELECT count(*) FROM events"),
    "sql_scalar, many rows": lambda ws: ws.sql_scalar("SELECT distinct_id FROM events"),
    "sql_scalar, no row": lambda ws: ws.sql_scalar("SELECT 1 FROM events WHERE false"),
    "sql_rows": lambda ws: ws.sql_rows("FROM events"),
    "sql": lambda ws: ws.sql("FROM events"),
    "relation": lambda ws: ws.relation("FROM events").fetchall(),
    "tables": lambda ws: ws.tables(all=True),
    "info": lambda ws: ws.info(),
    "table_schema": lambda ws: ws.table_schema("events"),
    "sample": lambda ws: ws.sample("events"),
    "summarize": lambda ws: ws.summarize("events"),
    "event_breakdown": lambda ws: ws.event_breakdown("events"),
    "property_keys": lambda ws: ws.property_keys("events"),
    "column_stats": lambda ws: ws.column_stats("events", "event_name"),
}


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file with the events of one day."""
    db = tmp_path_factory.mktemp("exported") / "events.duckdb"
    run_sync(export, simulator(), db, "2024-03-01", "2024-03-01")
    return db


@pytest.mark.parametrize("method", METHODS)
def test_a_person_is_forgotten_after_any_method(method: str, exported: Path, tmp_path: Path) -> None:
    """`forget` updates the ledger and writes its checkpoint while the workspace stays open."""
    path = copyfile(exported, tmp_path / "events.duckdb")
    with Workspace(path=path, credentials=ACCOUNT) as workspace:
        METHODS[method](workspace)
        result = workspace.forget(*query(exported, "SELECT max(distinct_id) FROM events")[0])
    assert result.tables[0].events > 0
