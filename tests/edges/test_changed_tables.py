"""Tables that a user has changed: the error names what prevents inserts, before any request."""

import shutil
from functools import partial
from pathlib import Path

import anyio
import pytest
from examples import slow
from support import export, held, query, simulator, truth

from mixpanel_export import TableFormatError

CHANGES = {
    "ALTER TABLE events ALTER event_time TYPE VARCHAR": "event_time of type VARCHAR instead of TIMESTAMP",
    "ALTER TABLE events ALTER properties TYPE VARCHAR": "properties of type VARCHAR instead of JSON",
    "ALTER TABLE events ALTER export_batch TYPE BIGINT": "export_batch of type BIGINT instead of INTEGER",
    "ALTER TABLE events ADD COLUMN mine INTEGER": "column, mine",
    "CREATE OR REPLACE TABLE events AS SELECT export_batch, * EXCLUDE export_batch FROM events": "another order",
    "CREATE UNIQUE INDEX mine ON events (distinct_id, event_time, insert_id, event_name, export_batch)": "unique index mine",
    "ALTER TABLE events ALTER export_batch SET NOT NULL": "constraint NOT NULL",
}


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file with an exported table."""
    db = tmp_path_factory.mktemp("exported") / "events.duckdb"
    anyio.run(partial(export, simulator(duplicates=0), db))
    return db


@pytest.mark.parametrize("change", [*[*CHANGES][::3], *slow([*[*CHANGES][1::3], *[*CHANGES][2::3]])])
@pytest.mark.parametrize("mode", ["append", *slow(["resume"])])
def test_a_change_that_keeps_rows_out_is_named(change: str, mode: str, exported: Path, db: Path) -> None:
    """The error comes before any request, and the table is unchanged."""
    shutil.copy(exported, db)
    query(db, change)
    sim, before = simulator(duplicates=0), query(db, "SELECT count(*) FROM events")
    with pytest.raises(TableFormatError, match=f"events has been changed: it has .*{CHANGES[change]}"):
        anyio.run(partial(export, sim, db, mode=mode))
    assert (query(db, "SELECT count(*) FROM events"), sim.requests) == (before, [])


def test_a_changed_table_may_be_replaced(exported: Path, db: Path) -> None:
    """The new table has the usual columns."""
    shutil.copy(exported, db)
    query(db, "ALTER TABLE events ADD COLUMN mine INTEGER")
    sim = simulator(duplicates=0)
    anyio.run(partial(export, sim, db, mode="replace"))
    assert held(db) == truth(sim)


def test_other_indexes_and_views_are_the_users_own(db: Path) -> None:
    """An index that is not unique does not prevent inserts."""
    sim = simulator()
    anyio.run(partial(export, sim, db, last="2024-03-05"))
    query(db, "CREATE INDEX mine ON events (distinct_id)")
    anyio.run(partial(export, sim, db, mode="append", first="2024-03-06"))
    assert held(db) == truth(sim)
