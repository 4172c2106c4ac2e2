"""Nightly syncs of a project whose events change, on machines that fail, all derived from one seed."""

import os
import signal
import sys
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from random import Random
from subprocess import run
from typing import Any

import anyio
from support import query, simulator
from syncs import sync

from mixpanel_export import BatchProgress, SyncResult
from mixpanel_export.errors import MixpanelDataError
from mixpanel_export.simulator import Change, Fault, Simulator, checksum

DAY = timedelta(days=1)
BEGIN = datetime(2024, 1, 1, tzinfo=UTC)
BUDGET = 20
WINDOW = 30  # days that the weekly fetch covers
QUARTER = 13  # weeks; in the last three of them, nothing but new events changes


class Killed(Exception):  # noqa: N818 - not an error
    """The process of a night ended between two batches."""


@dataclass
class Night:
    """The events of one night."""

    at: datetime
    faults: list[Fault] = field(default_factory=list)
    asleep: bool = False
    """Whether the machine does not run."""
    clock: timedelta = timedelta(0)
    """How wrong the machine's clock is."""
    kill_after: int | None = None
    """The number of batches after which the process ends."""
    hard: bool = False
    """Whether it is killed by the system."""

    @property
    def is_good(self) -> bool:
        """Whether nothing fails."""
        return not (self.faults or self.asleep or self.clock or self.kill_after)


def changes(seed: int, weeks: int) -> Iterator[Change]:
    """Yield imports, deletions, undone deletions and merges, of events up to 60 days old; none in the last weeks."""
    draw = Random(f"changes {seed}")
    for week in range(weeks):
        if week % QUARTER >= QUARTER - 3 or (week and week >= weeks - 3):
            continue
        for kind in ("late", "removed", "removed", "merged"):
            at = BEGIN + timedelta(days=7 * week + draw.randrange(7), hours=draw.randrange(24))
            last = at.date() - timedelta(days=draw.randrange(1, 40))
            first = last - timedelta(days=draw.randrange(20))
            until = (
                at + timedelta(days=draw.randrange(1, 7))
                if draw.random() < 0.3 and kind == "removed"
                else None
            )
            share = 0.9 if kind == "removed" and draw.random() < 0.2 else draw.choice([0.02, 0.1, 0.3])
            yield Change(kind, at, until, share, first, last)


def nights(seed: int, weeks: int) -> Iterator[Night]:
    """Yield the nights. The last week of each quarter, and of all, is good."""
    draw = Random(f"nights {seed}")
    for number in range(7 * weeks):
        night = Night(BEGIN + number * DAY + timedelta(hours=5, minutes=draw.randrange(120)))
        week = number // 7
        pick = draw.random()
        if week % QUARTER == QUARTER - 1 or week == weeks - 1:
            pick = 1.0
        if pick < 0.05 or 60 <= number < 72:
            night.asleep = True
        elif pick < 0.10:
            night.faults = [Fault("503")]
        elif pick < 0.20:
            night.faults = [Fault(draw.choice(["503", "terminated_early", "reset"]), probability=0.4)]
        elif pick < 0.26:
            lost = [night.at.date() - draw.randrange(1, 6) * DAY for _ in range(2)]
            night.faults = [Fault("empty_200", days=tuple(lost))]
        elif pick < 0.34:
            night.kill_after, night.hard = draw.randrange(1, 6), draw.random() < 0.3
        elif pick < 0.37:
            night.clock = draw.choice([-9, -1, 2, 40]) * DAY
        yield night


@dataclass
class Project:
    """A project, a database, and what is known about the responses in it."""

    db: Path
    seed: int
    weeks: int
    now: datetime = BEGIN
    sim: Simulator = field(init=False)
    answered: dict[int, datetime] = field(default_factory=dict)
    """When each batch was requested, by a right clock."""
    silent: set[int] = field(default_factory=set)
    """The new days of nights with empty answers, which count as empty until their next fetch."""
    stale: list[int] = field(default_factory=list)
    """For each week, the recent days that differ from Mixpanel."""

    def __post_init__(self) -> None:
        self.sim = simulator(
            seed=self.seed,
            events_per_day=12,
            odd=0.0,
            first_day=date(2023, 12, 1),
            now=lambda: self.now,
            changes=tuple(changes(self.seed, self.weeks)),
        )

    async def spend(self, night: Night) -> SyncResult | None:
        """Run a night's sync. Return its result, or None if it ended early."""
        self.now = night.at
        if night.asleep:
            return None
        self.sim.faults = night.faults
        result: SyncResult | None = None
        left = night.kill_after

        def count(_: BatchProgress) -> None:
            nonlocal left
            if left is not None:
                left -= 1
                if left <= 0:
                    raise Killed

        try:
            if night.hard:
                self._kill(night)
            else:
                result = await self.sync(night, count)
        except (Killed, MixpanelDataError):
            assert not night.is_good
        finally:
            batches = query(self.db, 'SELECT batch, "rows" FROM _export_batches') if self.db.exists() else []
            new = {batch: rows for batch, rows in batches if batch not in self.answered}
            self.answered |= dict.fromkeys(new, night.at)
            if any(fault.kind == "empty_200" for fault in night.faults):
                self.silent.update(batch for batch, rows in new.items() if not rows)
        return result

    async def sync(self, night: Night, on_batch_complete: object = None) -> SyncResult:
        """Sync as the machine does in this night."""
        return await sync(
            self.sim.transport(),
            self.db,
            night.at + night.clock,
            since="2023-12-15",
            budget=BUDGET,
            retries=1,
            accept_loss=night.at.weekday() == 6,
            on_batch_complete=on_batch_complete,  # type: ignore[arg-type] # a callback or None
        )

    def _kill(self, night: Night) -> None:
        """Run the sync in a process that SIGKILL ends after some batches."""
        words = [self.db, self.seed, self.weeks, night.at.isoformat(), night.kill_after]
        environ = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
        done = run([sys.executable, __file__, *map(str, words)], check=False, env=environ)
        assert done.returncode in {-signal.SIGKILL, 0}  # 0: fewer batches were left

    def check(self) -> None:
        """Compare each recent day with Mixpanel's events when the table's response was requested."""
        today = self.now
        first = today.date() - WINDOW * DAY
        rows: dict[date, list[Row]] = defaultdict(list)
        for row in query(self.db, f"{ROWS} WHERE event_time >= '{first}'"):
            rows[row[1].date()].append(row)
        stale = 0
        for day, batch in query(self.db, NEWEST_BATCHES.format(first=first, last=today.date() - DAY)):
            stored = checksum(rows[day])
            if batch not in self.silent:
                self.now = self.answered[batch]
                assert stored == checksum(self.sim.rows(day, day)), (day, batch, self.now)
                self.now = today
            stale += stored != checksum(self.sim.rows(day, day))
        self.stale.append(stale)

    def is_exact(self) -> bool:
        """Whether the last 30 days are as Mixpanel has them now."""
        first = self.now.date() - WINDOW * DAY
        rows = query(self.db, f"{ROWS} WHERE event_time >= '{first}'")
        return checksum(rows) == checksum(self.sim.rows(first, self.now.date() - DAY))


Row = tuple[Any, ...]
NEWEST_BATCHES = """
SELECT day::DATE, max(batch) FROM generate_series(DATE '{first}', DATE '{last}', INTERVAL 1 DAY) days(day)
JOIN _export_batches ON status IN ('complete', 'open') AND day BETWEEN from_date AND to_date
GROUP BY day ORDER BY day
"""
ROWS = "SELECT event_name, event_time, distinct_id, insert_id, properties FROM events"


def main() -> None:
    """Run the sync of one night and kill this process after some batches."""
    db, seed, weeks, at, kill_after = sys.argv[1:]
    project = Project(Path(db), int(seed), int(weeks), datetime.fromisoformat(at))
    left = int(kill_after)

    def count(_: BatchProgress) -> None:
        nonlocal left
        left -= 1
        if left <= 0:
            os.kill(os.getpid(), signal.SIGKILL)

    anyio.run(project.sync, Night(project.now), count)


if __name__ == "__main__":
    main()
