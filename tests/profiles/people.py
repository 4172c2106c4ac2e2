"""A project with user profiles, exports of them over a real socket, and the contents of the file."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
from support import ACCOUNT, NOW, RETRY_AT_ONCE, query, simulator

from mixpanel_export import ParallelProfileResult
from mixpanel_export._profiles.engine import run_job
from mixpanel_export._profiles.job import ProfileArguments, checked_job
from mixpanel_export._profiles.reports import ProfileCallbacks
from mixpanel_export.simulator import ProfileRules, Simulator

_exported: list[bytes] = []
"""The contents of the file of `exported_project`, once it has been called."""
SNAPSHOT = "status, rows, total, pages, restarts"


def project(profiles: int = 95, page_size: int = 10, **options: Any) -> Simulator:
    """Return a small project with profiles, some of them awkward."""
    rules = {name: options.pop(name) for name in ProfileRules.__dataclass_fields__ if name in options}
    defaults = {"awkward": 0.2, "queries_per_hour": 0}
    return simulator(
        profiles=profiles,
        profile_rules=ProfileRules(page_size=page_size, **rules),
        **(defaults | options),
    )


async def export_people(sim: Simulator, db: Path, **options: Any) -> ParallelProfileResult:
    """Export the profiles of *sim* over a socket, without pauses before retries."""
    async with sim.serve() as url:
        return await export_from(url, db, **options)


async def exported_project(db: Path) -> Simulator:
    """Return a project whose profiles have been exported into *db*, which is a copy after the first call."""
    if _exported:
        db.write_bytes(_exported[0])
    else:
        await export_from(db=db, transport=project().transport())
        _exported.append(db.read_bytes())
    return project()


async def export_from(
    url: str = "http://127.0.0.1",
    db: Path = Path("unused"),
    *,
    on_page: Callable[[Any], object] | None = None,
    on_progress: Callable[[Any], object] | None = None,
    transport: httpx.AsyncBaseTransport | None = None,
    **options: Any,
) -> ParallelProfileResult:
    """Export profiles from a server or a transport."""
    names = ("table", "mode", "allow_empty", "flatten", "wait")
    job_options = {name: options.pop(name) for name in names if name in options}
    defaults: dict[str, Any] = {"credentials": ACCOUNT, "api_url": url, "per_hour": 0, "now": lambda: NOW}
    arguments = ProfileArguments(**(defaults | options))
    job = checked_job(arguments, db=db, pauses=RETRY_AT_ONCE, **job_options)
    return await run_job(job, ProfileCallbacks(on_page, on_progress), transport=transport)


def people(db: Path, table: str = "profiles") -> dict[str, str]:
    """Return the exact text of each profile's properties, by its id. The ids must be different."""
    rows = query(db, f"SELECT distinct_id, properties FROM {table}")
    result = dict(rows)
    assert len(result) == len(rows)
    return result


def snapshots(db: Path, columns: str = SNAPSHOT) -> list[tuple[Any, ...]]:
    """Return columns of the ledger of profiles, oldest first."""
    return query(db, f"SELECT {columns} FROM _export_snapshots ORDER BY batch")
