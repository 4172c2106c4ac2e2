"""Ledgers of older releases that lack columns are read unchanged; the next export adds the columns."""

from pathlib import Path

import duckdb
import pytest
from examples import slow
from shell import mpx
from support import export, held, ledger, query, simulator, truth

from mixpanel_export._database.ledger import read_batches
from mixpanel_export._model import Batch

pytestmark = pytest.mark.anyio

LATER_COLUMNS = {
    "stray_rows": "outside_rows",
    "error": "error",
    "deduplicated": "deduped",
    "zone": "timezone",
    "revision": "revision",
    "export": "export",
    "received_at": "received_at",
}
"""Fields of `Batch`, and columns that an older release may not have had."""


def without(db: Path, column: str) -> None:
    """Turn the ledger into one of an older release that did not have *column*."""
    query(db, f'ALTER TABLE _export_batches DROP COLUMN "{column}"')
    query(db, "COMMENT ON TABLE _export_batches IS 'mixpanel_export ledger 2'")


@pytest.mark.parametrize(
    "field, column", [*[*LATER_COLUMNS.items()][:2], *slow([*LATER_COLUMNS.items()][2:])]
)
async def test_a_missing_column_has_the_default_and_is_not_added_by_reading(
    db: Path, field: str, column: str
) -> None:
    """`mpx status` shows a ledger that lacks a column, and changes nothing."""
    await export(simulator(), db, last="2024-03-02")
    without(db, column)
    before = db.read_bytes()
    assert mpx("status", str(db)).exit_code == 0
    with duckdb.connect(str(db), read_only=True) as connection:
        batches = read_batches(connection)
    default = Batch.__dataclass_fields__[field].default
    assert {getattr(batch, field) for batch in batches} == {default}
    assert db.read_bytes() == before


@pytest.mark.parametrize(
    "column, mode",
    [
        ("outside_rows", "append"),
        ("timezone", "resume"),
        *slow((column, "append") for column in LATER_COLUMNS.values() if column != "outside_rows"),
        *slow((column, "resume") for column in LATER_COLUMNS.values() if column != "timezone"),
    ],
)
async def test_the_next_export_adds_a_missing_column(db: Path, column: str, mode: str) -> None:
    """Old rows of the ledger have NULL in it, new ones a value, and the table has every event once."""
    sim = simulator(odd=0.05)
    await export(sim, db, last="2024-03-04", chunk_days=2)
    before = ledger(db, f'batch, "{column}"')
    without(db, column)
    first = "2024-03-05" if mode == "append" else "2024-03-01"
    await export(sim, db, first, "2024-03-09", mode=mode)
    old = [(batch, None) for batch, _ in before]
    after = ledger(db, f'batch, "{column}"')
    assert after[: len(old)] == old
    assert len(after) > len(old)
    assert all(value is not None for _, value in after[len(old) :]) or column == "error"
    assert held(db) == truth(sim)
    assert query(db, "SELECT comment FROM duckdb_tables() WHERE table_name = '_export_batches'") == [
        ("mixpanel_export ledger 5",)
    ]
