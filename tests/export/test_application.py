"""An application that uses the database while an export in the same process fills it."""

from contextlib import ExitStack, closing
from dataclasses import replace
from pathlib import Path

import duckdb
import pytest
from examples import slow
from support import TUNING, export, held, simulator, truth

from mixpanel_export.results import BatchProgress

pytestmark = pytest.mark.anyio

ONE_BY_ONE = replace(TUNING, group_wait=0.0)


@pytest.mark.parametrize(
    "setting",
    [
        "memory_limit = '60MB'",
        *slow(["lock_configuration = true", "threads = 3", "TimeZone = 'Asia/Kolkata'"]),
    ],
)
async def test_a_setting_that_it_changes_costs_no_day(setting: str, db: Path) -> None:
    """The export does not rely on later changes of DuckDB's settings."""
    sim = simulator()
    with ExitStack() as stack:

        def change(batch: BatchProgress) -> None:
            if batch.batch_index == 0:
                application = stack.enter_context(closing(duckdb.connect(str(db))))
                application.execute(f"SET GLOBAL {setting}")

        await export(sim, db, chunk_days=3, max_workers=1, tuning=ONE_BY_ONE, on_batch_complete=change)
    assert held(db) == truth(sim)
