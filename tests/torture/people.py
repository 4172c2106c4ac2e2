"""Profiles in the torture: exports of them into a table beside the events, each checked against the simulator's truth."""

from contextlib import closing
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from random import Random
from typing import Any, get_args

import duckdb
import httpx

from mixpanel_export import APIError, Credentials, ParallelProfileResult
from mixpanel_export._profiles.engine import run_job
from mixpanel_export._profiles.job import ProfileArguments, checked_job
from mixpanel_export._profiles.reports import ProfileCallbacks
from mixpanel_export.simulator import Fault, ProfileRules, Simulator
from mixpanel_export.simulator.faults import PageKind

from .settings import PAUSES
from .violations import require

TABLE = "people"
_LOSING = frozenset({"short_page", "page_again", "wrong_page", "profile_repeated", "profile_skipped"})
_KINDS: tuple[Any, ...] = (
    *get_args(PageKind) * 2,
    "429", "500", "503", "402", "empty_200", "error_line", "terminated_early", "cut_line", "reset", "close",
    "reset_before_head", "truncated_gzip", "trailing_garbage", "timeout_error",
)  # fmt: skip
_WHERE = 'properties["plan"] == "team"'


def random_profiles(draw: Random) -> dict[str, Any]:
    """Return options of a simulator with profiles."""
    rules = ProfileRules(page_size=draw.choice([5, 10]), totals=draw.choice(["all", "first"]))
    return {"profiles": draw.choice([0, 9, 10, 31, 40]), "profile_rules": rules, "queries_per_hour": 0}


@dataclass(frozen=True, slots=True)
class ProfileExport:
    """One export of profiles."""

    mode: Any
    where: str | None = None
    workers: int = 5
    retries: int = 2


async def export_people(
    task: ProfileExport,
    db: Path,
    credentials: Credentials,
    now: datetime,
    *,
    url: str = "http://127.0.0.1",
    transport: httpx.AsyncBaseTransport | None = None,
) -> ParallelProfileResult:
    """Export as `export_profiles` does, without pauses before retries."""
    arguments = ProfileArguments(
        credentials=credentials,
        where=task.where,
        max_workers=task.workers,
        retries=task.retries,
        api_url=url,
        per_hour=0,
        now=lambda: now,
    )
    job = checked_job(arguments, db=db, table=TABLE, mode=task.mode, allow_empty=True, pauses=PAUSES)
    return await run_job(job, ProfileCallbacks(), transport=transport)


class People:
    """What the table must have: the exact text of the properties, by id. None if there is no table."""

    def __init__(self, sim: Simulator, draw: Random) -> None:
        self._sim = sim
        self._draw = draw
        self.rows: dict[str, str] | None = None

    def task(self) -> ProfileExport:
        """Return a random export, after changes to some profiles."""
        draw = self._draw
        self._sim.profile_revision += draw.choice([0, 1])
        return ProfileExport(
            "create" if self.rows is None else draw.choice(["replace", "replace", "append"]),
            draw.choice([None, None, _WHERE]),
            draw.choice([1, 5]),
            draw.choice([0, 2]),
        )

    def faults(self) -> list[Fault]:
        """Return up to three faults. A loss of profiles can be seen only if the total is right."""
        draw = self._draw
        faults = [self._fault() for _ in range(draw.choice([0, 1, 1, 2, 3]))]
        if any(fault.kind == "total_too_low" for fault in faults):
            return [fault for fault in faults if fault.kind not in _LOSING]
        return faults

    def _fault(self) -> Fault:
        draw = self._draw
        kind = draw.choice(_KINDS)
        pages = draw.choice([(), (), (0,), (1,), (3,), (3, 4)])
        times = draw.choice([1, 1, 2, 8, None])
        return Fault(
            kind,
            pages=pages,
            # The request is sent again until `max_wait`, with longer and longer pauses.
            times=min(times or 2, 2) if kind == "429" else times,
            after=draw.choice([0, 0, 1]),
            position=draw.choice([0.0, 0.5]),
            retry_after=0.0,
        )

    def after(self, task: ProfileExport) -> dict[str, str]:
        """Return the rows after a successful export."""
        new = self._sim.profile_truth(where=task.where)
        return (self.rows or {}) | new if task.mode == "append" else new

    def check_step(self, task: ProfileExport, error: Exception | None, faults: int, db: Path) -> None:
        """Check the table after an export that ended with *error*, or without one, after some *faults*."""
        if error is None:
            self.rows = self.after(task)
        else:
            require(isinstance(error, APIError), "an export of profiles ended with", repr(error))
            require(faults, "an export of profiles failed although nothing went wrong", repr(error))
        self.check(db)

    def check_killed(self, task: ProfileExport, db: Path) -> None:
        """Check that a killed export has changed nothing, or everything."""
        rows = rows_of(db)
        if rows != self.rows:
            self.rows = self.after(task)
        self.check(db)

    def check(self, db: Path) -> None:
        """Compare the table with what it must have."""
        rows = rows_of(db)
        if rows != self.rows:
            lost = (self.rows or {}).keys() - (rows or {}).keys()
            more = (rows or {}).keys() - (self.rows or {}).keys()
            require(False, "the profiles differ", sorted(lost)[:3], sorted(more)[:3])

    def forget(self, person: str) -> int:
        """Remove the profile of *person*, and return the number of removed rows."""
        return int(self.rows is not None and self.rows.pop(person, None) is not None)


def rows_of(db: Path) -> dict[str, str] | None:
    """Return the rows of the table; None if there is no table."""
    if not db.exists() or not db.stat().st_size:
        return None
    with closing(duckdb.connect(str(db))) as connection:
        if not connection.execute(
            "SELECT count(*) FROM duckdb_tables() WHERE table_name = ?", [TABLE]
        ).fetchall()[0][0]:
            return None
        rows = connection.execute(f"SELECT distinct_id, properties FROM {TABLE}").fetchall()
    require(len(dict(rows)) == len(rows), "a profile is in the table twice")
    return dict(rows)
