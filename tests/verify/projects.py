"""A project, a table of its events, and verifications of the table over the simulator's transport."""

from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import anyio
from support import ACCOUNT, RETRY_AT_ONCE, export, query, simulator

from mixpanel_export import VerifyResult
from mixpanel_export._verify.job import VerifyArguments, checked_job
from mixpanel_export._verify.verify import run_job
from mixpanel_export.simulator import Simulator

FIRST, LAST = date(2024, 5, 3), date(2024, 5, 12)
NOW = datetime(2024, 6, 1, 12, tzinfo=UTC)
"""Less than 30 days after the first day."""

_exported: list[bytes] = []
"""The contents of the file of `exported_project`, once it has been called."""


def project(**options: Any) -> Simulator:
    """Return a project with about 100 events a day, all with a time."""
    return simulator(**({"events_per_day": 100, "odd": 0.0} | options))


async def exported(sim: Simulator, db: Path, **options: Any) -> Path:
    """Export the days from `FIRST` to `LAST` in requests of three days."""
    await export(sim, db, FIRST, LAST, **({"chunk_days": 3} | options))
    return db


async def exported_project(db: Path) -> Simulator:
    """Return a project whose days have been exported into *db*, which is a copy after the first call."""
    sim = project()
    if _exported:
        db.write_bytes(_exported[0])
    else:
        _exported.append((await exported(sim, db)).read_bytes())
    return sim


async def verified(sim: Simulator, db: Path, **options: Any) -> VerifyResult:
    """Verify the days from `FIRST` to `LAST` without pauses before retries."""
    defaults: dict[str, Any] = {
        "from_date": FIRST,
        "to_date": LAST,
        "credentials": ACCOUNT,
        "api_url": "http://127.0.0.1",
        "now": lambda: NOW,
    }
    transport = options.pop("transport", None) or sim.transport()
    job = checked_job(VerifyArguments(db=db, **(defaults | options)))
    return await run_job(replace(job, pauses=RETRY_AT_ONCE), transport)


def verify(sim: Simulator, db: Path, **options: Any) -> VerifyResult:
    """Do the same from synchronous code."""
    return anyio.run(partial(verified, sim, db, **options))


def day(number: int) -> date:
    """Return a day of the table, counting from 0."""
    return FIRST + timedelta(days=number)


def wrong(result: VerifyResult) -> Mapping[tuple[str, str], int]:
    """Return the unexplained differences by event and day."""
    return {(each.event, each.day): each.difference for each in result.unexplained}


def explanations(result: VerifyResult) -> set[str]:
    """Return the explanations in the result."""
    return {each.explanation for each in result.differences if each.explanation is not None}


def change(db: Path, *statements: str) -> None:
    """Change the file with SQL, as users should not."""
    for statement in statements:
        query(db, statement)
