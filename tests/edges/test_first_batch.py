"""If an export ends before its first batch, `mpx retry` fetches its days."""

import json
from datetime import UTC, date, datetime
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import duckdb
import pytest
from shell import mpx
from support import export, held, query, simulator, truth

from mixpanel_export._database.path import has_content
from mixpanel_export.errors import QueryError
from mixpanel_export.simulator import Fault, Simulator

pytestmark = pytest.mark.anyio

TARGETS = "SELECT from_date, to_date, timezone, deduped FROM _export_targets"
DAYS = (date(2024, 3, 1), date(2024, 3, 9))


@pytest.fixture
def sim() -> Simulator:
    """A simulator whose responses have more than one block of lines."""
    return simulator(events_per_day=800, now=lambda: datetime.now(UTC))


async def interrupted(sim: Simulator, db: Path, **arguments: Any) -> None:
    """Export until the target days are in the file, while the response stalls half-way."""
    sim.faults = [Fault("stall")]
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(partial(export, sim, db, one_request=True, **arguments))
        requests = len(sim.requests)
        # The export has opened the file when it sends its request. Before that, a query could prevent it.
        while len(sim.requests) == requests or not recorded(db):  # noqa: ASYNC110 - the file sends no events
            await anyio.sleep(0.05)
        tasks.cancel_scope.cancel()
    sim.faults = []


def recorded(db: Path) -> bool:
    """Whether the newest export has recorded its target days."""
    try:
        return has_content(db) and any(first == DAYS[0] for first, *_ in query(db, TARGETS))
    except duckdb.CatalogException:
        return False


@pytest.mark.usefixtures("env")
async def test_an_export_without_a_batch_is_continued(sim: Simulator, db: Path) -> None:
    """`mpx retry` creates the table and fetches every day, with the zone and deduplication of the first command."""
    await interrupted(sim, db, project_timezone="Asia/Tokyo", dedupe=False)
    assert query(db, "SELECT count(*) FROM _export_batches") == [(0,)]
    assert query(db, TARGETS) == [(*DAYS, "Asia/Tokyo", False)]
    (table,) = json.loads(mpx("status", "--json").stdout)["tables"]
    assert (table["statuses"], table["timezone"], table["dropped"]) == ({"missing": 9}, "Asia/Tokyo", False)
    assert mpx("status").exit_code == 0
    assert mpx("retry", "-q").exit_code == 0
    assert query(db, "SELECT DISTINCT timezone, deduped FROM _export_batches") == [("Asia/Tokyo", False)]
    assert mpx("retry").stderr.startswith("Nothing to fetch")


@pytest.mark.usefixtures("env")
async def test_the_first_missing_day_is_known(sim: Simulator, db: Path) -> None:
    """`mpx export --resume` needs no --from after an interruption."""
    await interrupted(sim, db)
    assert mpx("export", "--resume", "--to", "2024-03-09", "-q").exit_code == 0
    assert held(db) == truth(sim)


@pytest.mark.usefixtures("env")
async def test_an_unfinished_replacement_is_no_table(sim: Simulator, db: Path) -> None:
    """The old table stays complete, and nothing is fetched into another one."""
    await export(sim, db, "2024-03-02")
    await interrupted(sim, db, mode="replace")
    assert [table["statuses"] for table in json.loads(mpx("status", "--json").stdout)["tables"]] == [
        {"complete": 8}
    ]
    assert mpx("retry").stderr.startswith("Nothing to fetch")


@pytest.mark.usefixtures("env")
async def test_the_target_of_an_export_without_a_batch_can_be_set(sim: Simulator, db: Path) -> None:
    """`--set-target` changes its days and keeps its zone."""
    await interrupted(sim, db, project_timezone="Asia/Tokyo")
    assert mpx("status", "--set-target", "2024-03-05..2024-03-05").exit_code == 0
    assert query(db, TARGETS) == [(date(2024, 3, 5), date(2024, 3, 5), "Asia/Tokyo", True)]


@pytest.mark.usefixtures("env")
async def test_a_refused_selection_is_not_retried(sim: Simulator, db: Path) -> None:
    """Mixpanel would reject the filter each time, so no target day is recorded."""
    with pytest.raises(QueryError):
        await export(sim, db, where="properties[")
    assert query(db, TARGETS) == []
    assert mpx("retry").exit_code == 0
