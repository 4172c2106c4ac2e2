"""Schedules: exports into one file, one after the other, each under random faults and followed by a check."""

import traceback
import warnings
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory
from textwrap import indent
from typing import Self

import anyio

from mixpanel_export import Credentials, MixpanelDataError, Timeouts, Workspace
from mixpanel_export._local.set_target import change_target_days
from mixpanel_export._model import Chunk
from mixpanel_export.simulator import Fault, checksum

from .contents import read
from .flat import check_flat_tables
from .model import Model
from .people import People, ProfileExport, export_people
from .project import SHADOW, Export, Mode, Project
from .settings import export, random_settings
from .state import Outcome
from .violations import ViolationError, require

ACCOUNT = Credentials("demo.mp-service-account", "demo-secret", "12345")
EXPECTED_WARNINGS = (
    ".*(most events look|both responses for these days were empty|has no events for this export)"
)
_FIRST_MODES: tuple[Mode, ...] = ("create", "create", "replace", "resume")
_SHORT_TIMEOUTS = Timeouts(connect=5.0, first_byte=1.0, idle=1.0)  # longer than any pause of a busy machine
_MAX_SECONDS = 120.0  # an export that takes longer hangs


@dataclass(slots=True)
class Tally:
    """Counts of what was done, and the failures; tallies can be added."""

    schedules: int = 0
    exports: int = 0
    events: int = 0
    snapshots: int = 0
    forgotten: int = 0
    mutations: int = 0
    lost: int = 0
    doubled: int = 0
    faults: Counter[str] = field(default_factory=Counter)
    kills: Counter[str] = field(default_factory=Counter)
    missed: Counter[str] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)

    def __iadd__(self, other: "Tally") -> Self:
        """Add *other*."""
        for name in self.__dataclass_fields__:
            setattr(self, name, getattr(self, name) + getattr(other, name))
        return self

    def add_failure(self, error: Exception, command: str) -> None:
        """Add a failure, with the *command* that reproduces it."""
        if isinstance(error, ViolationError):
            self.lost += error.lost
            self.doubled += error.doubled
            text = f"{type(error).__name__}: {error}"
        else:
            text = "".join(traceback.format_exception(error))
        self.failures.append(f"{command}\n{indent(text, '    ')}")


class Run:
    """Exports from one project into one file."""

    def __init__(self, draw: Random, folder: Path, *, stable: bool = False, heavy: bool = False) -> None:
        self.draw = draw
        self.project = Project(draw, stable=stable, heavy=heavy)
        self.model = Model(self.project)
        self.db = folder / "torture.duckdb"
        self.settings = random_settings(draw)
        self.tally = Tally()
        # Flat tables and profiles change nothing else of a schedule.
        self._draw_flat = Random(draw.getstate()[1][0])
        self.draw_people = Random(f"{draw.getstate()[1][0]}:people")
        self.people = People(self.project.sim, self.draw_people)

    def export(self, task: Export, faults: Sequence[Fault] = ()) -> Outcome:
        """Export in this process without a socket, and check the result."""
        self.project.sim.faults = list(faults)
        expected = self.model.expected(task)
        outcome = self._outcome(task, short_timeouts=bool(faults))
        require(not self.staging(), "staging is left behind", self.staging())
        self._count_faults()
        self.model.check_step(task, expected, outcome, read(self.db))
        self.tally.exports += 1
        return outcome

    def forget_someone(self) -> None:
        """Forget a person of the model, if there is one, or sometimes a person without events."""
        if person := self.person():
            self.forget(person)

    def forget(self, person: str) -> None:
        """Forget a person, and check that exactly the events of this person are gone."""
        with Workspace(path=self.db) as workspace:
            result = workspace.forget(person)
        removed = sum(table.events + table.hidden_rows for table in result.tables)
        expected = self.model.forget(person) + self.people.forget(person)
        require(removed == expected, "`forget` reports another number of events", removed, expected)
        self.model.check_unchanged(read(self.db))
        self.people.check(self.db)
        self.tally.forgotten += 1

    def person(self) -> str | None:
        """Return a person with events in the file, or sometimes one without; None if there are no people with events."""
        persons = self.model.persons()
        if persons and self.draw.random() < 0.1:
            return "user-9999"
        return self.draw.choice(persons) if persons else None

    def set_target(self) -> None:
        """Set the target days of all tables, as `mpx status --set-target` does."""
        if any(not table.startswith(SHADOW) for table in self.model.tables()):
            first, last = self.project.span()
            change_target_days(self.db, Chunk(first, last))
            self.model.set_target(first, last)
            self.model.check_unchanged(read(self.db))

    def flatten(self) -> None:
        """Update the flat tables, and check them; perhaps let later exports do it, too."""
        if any(not table.startswith(SHADOW) for table in self.model.tables()):
            check_flat_tables(self.db, auto=self._draw_flat.random() < 0.5)
            self.model.check_unchanged(read(self.db))

    def export_people(self, *, faulty: bool = True) -> None:
        """Export profiles under random faults, and check their table; the events do not change."""
        task = self.people.task()
        self.project.sim.profile_faults = self.people.faults() if faulty else []
        before = len(self.project.sim.profile_requests)
        error = self._error_of_people(task)
        faults = [log.fault for log in self.project.sim.profile_requests[before:] if log.fault]
        self.people.check_step(task, error, len(faults), self.db)
        self.tally.faults.update(faults)
        self.tally.snapshots += 1
        self.model.check_unchanged(read(self.db))

    def _error_of_people(self, task: ProfileExport) -> Exception | None:
        async def error() -> Exception | None:
            with anyio.fail_after(_MAX_SECONDS):
                try:
                    await export_people(
                        task, self.db, ACCOUNT, self.project.now, transport=self.project.sim.transport()
                    )
                except MixpanelDataError as error:
                    return error
            return None

        return anyio.run(error, backend=self.draw_people.choice(["asyncio", "trio"]))

    def between_exports(self) -> None:
        """Perhaps export profiles, forget people or set target days; let time pass."""
        if self.draw_people.random() < 0.4:
            self.export_people()
        for _ in range(self.draw.choice([0, 0, 1, 2])):
            self.forget_someone()
        if self.draw.random() < 0.15:
            self.set_target()
        if self._draw_flat.random() < 0.5:
            self.flatten()
        self.project.advance()

    def staging(self) -> list[str]:
        """Return the names of the staging directories."""
        return [path.name for path in self.db.parent.glob(f".{self.db.name}.export-*")]

    def complete(self) -> None:
        """Resume all selections of all tables without faults; each must then be complete."""
        for table in sorted(self.model.tables()):
            if table.startswith(SHADOW):
                continue
            for selection in sorted({batch.entry.selection for batch in self.model.batches(table)}, key=str):
                batches = [batch for batch in self.model.batches(table) if batch.entry.selection == selection]
                first = min(batch.entry.first for batch in batches)
                last = max(batch.entry.last for batch in batches)
                options = {"project_timezone": self.project.zone}
                task = Export(table, "resume", first, last, selection, options=options)
                if not self.model.expected(task).refusal:
                    self._require_complete(task)
        if self.people.rows is not None:
            self.export_people(faulty=False)

    def replace_all(self) -> None:
        """Replace a table by all days, and compare it with the simulator's own truth.

        An earlier replacement that did not end is completed before. It may lack persons who were forgotten since,
        and have events that the server has changed since.
        """
        first, last = self.project.days[0], self.project.days[-1]
        task = Export("events", "replace", first, last, options={"project_timezone": self.project.zone})
        if self.model.batches(task.target):
            self._require_complete(task)
        self._require_complete(task)
        rows = [row for batch in read(self.db).tables.get("events", {}).values() for row in batch.elements()]
        truth = self.project.sim.truth(first, last)
        require(checksum(rows) == truth.checksum, "the table differs from the truth", len(rows), truth)

    def _require_complete(self, task: Export) -> None:
        outcome = self.export(task)
        require(outcome.result and not outcome.failed, "incomplete although nothing failed", task)

    def _outcome(self, task: Export, *, short_timeouts: bool) -> Outcome:
        run = partial(
            export,
            self.settings,
            transport=self.project.sim.transport(),
            db=self.db,
            credentials=ACCOUNT,
            api_url="http://127.0.0.1",
            per_second=0,
            per_hour=0,
            max_wait=1.0,
            timeouts=_SHORT_TIMEOUTS if short_timeouts else None,
            now=lambda: self.project.now,
            **task.arguments,
        )

        async def outcome() -> Outcome:
            with anyio.fail_after(_MAX_SECONDS):
                try:
                    return Outcome(await run())
                except MixpanelDataError as error:
                    return Outcome(error=type(error), message=str(error))

        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", EXPECTED_WARNINGS)
            return anyio.run(outcome, backend=self.draw.choice(["asyncio", "trio"]))

    def _count_faults(self) -> None:
        self.tally.faults.update(log.fault for log in self.project.pending_requests() if log.fault)


def schedule(seed: int) -> Tally:
    """Run the schedule of *seed*: up to six exports, each with up to three faults."""
    draw = Random(seed)
    with TemporaryDirectory(prefix="torture-", ignore_cleanup_errors=True) as folder:
        run = Run(draw, Path(folder))
        run.tally.schedules = 1
        try:
            for number in range(draw.choice([1, 2, 2, 2, 3, 6])):
                mode = None if number else draw.choice(_FIRST_MODES)
                run.export(run.project.export(mode=mode), run.project.faults(draw.choice([0, 1, 1, 2, 3])))
                run.between_exports()
            run.complete()
            if draw.random() < 0.2:
                run.replace_all()
        except Exception as error:  # noqa: BLE001 - every failure is reported with its seed
            run.tally.add_failure(error, f"python -m tests.torture --seed {seed} --schedules 1")
        run.tally.events = run.model.compared
        return run.tally
