"""Schedules: an export after the other over one file, each under faults of its own, and a check after each."""

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

from mixpanel_export import Credentials, MixpanelDataError, Timeouts, export_events
from mixpanel_export.simulator import Fault, checksum

from .file import read
from .knobs import drawn, turned
from .model import Model, Outcome, ViolationError, require
from .world import SHADOW, Ask, Mode, World

ACCOUNT = Credentials("demo.mp-service-account", "demo-secret", "12345")
_BEGINNINGS: tuple[Mode, ...] = ("create", "create", "replace", "resume")
_IMPATIENT = Timeouts(connect=5.0, first_byte=1.0, idle=1.0)  # what a busy machine takes is no stall
_LONG = 120.0  # seconds after which an export hangs


@dataclass(slots=True)
class Tally:
    """What was done, and what was found; tallies add up."""

    schedules: int = 0
    exports: int = 0
    events: int = 0
    mutations: int = 0
    lost: int = 0
    doubled: int = 0
    faults: Counter[str] = field(default_factory=Counter)
    kills: Counter[str] = field(default_factory=Counter)
    missed: Counter[str] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)

    def __iadd__(self, other: "Tally") -> Self:
        """Add the *other* to this one."""
        for name in self.__dataclass_fields__:
            setattr(self, name, getattr(self, name) + getattr(other, name))
        return self

    def note(self, error: Exception, command: str) -> None:
        """Take in a broken promise, with the *command* that breaks it again."""
        said = f"{type(error).__name__}: {error}"
        if isinstance(error, ViolationError):
            self.lost += error.lost
            self.doubled += error.doubled
        else:
            said = "".join(traceback.format_exception(error))
        self.failures.append(f"{command}\n{indent(said, '    ')}")


class Run:
    """One file, and the world it is filled from."""

    def __init__(self, draw: Random, folder: Path, *, plain: bool = False, heavy: bool = False) -> None:
        self.draw = draw
        self.world = World(draw, plain=plain, heavy=heavy)
        self.model = Model(self.world)
        self.db = folder / "torture.duckdb"
        self.knobs = drawn(draw)
        self.tally = Tally()

    def export(self, ask: Ask, faults: Sequence[Fault] = ()) -> Outcome:
        """Export as *ask* says, in this process and without a socket, and check what came of it."""
        self.world.sim.faults = list(faults)
        expected = self.model.expected(ask)
        outcome = self._exported(ask, impatient=bool(faults))
        require(not self.staging(), "staging is left", self.staging())
        self._count_faults()
        self.model.after(ask, expected, outcome, read(self.db))
        self.tally.exports += 1
        return outcome

    def staging(self) -> list[str]:
        """Return the staging directories that are there."""
        return [path.name for path in self.db.parent.glob(f".{self.db.name}.export-*")]

    def complete(self) -> None:
        """Let nothing go wrong any more: every table then comes to its end, and that is the truth."""
        for table in sorted(self.model.tables()):
            if table.startswith(SHADOW):
                continue
            for selection in sorted({batch.entry.selection for batch in self.model.held(table)}, key=str):
                batches = [batch for batch in self.model.held(table) if batch.entry.selection == selection]
                first = min(batch.entry.first for batch in batches)
                last = max(batch.entry.last for batch in batches)
                ask = Ask(
                    table, "resume", first, last, selection, options={"project_timezone": self.world.zone}
                )
                if self.model.expected(ask).refusal:
                    continue
                outcome = self.export(ask)
                require(outcome.result and not outcome.failed, "nothing went wrong, and it is not whole", ask)

    def replace_all(self) -> None:
        """Replace a table by all days there are, and compare with the simulator's own sum."""
        first, last = self.world.days[0], self.world.days[-1]
        ask = Ask("events", "replace", first, last, options={"project_timezone": self.world.zone})
        outcome = self.export(ask)
        require(outcome.result and not outcome.failed, "nothing went wrong, and it is not whole", ask)
        rows = [row for of in read(self.db).tables.get("events", {}).values() for row in of.elements()]
        truth = self.world.sim.truth(first, last)
        require(checksum(rows) == truth.checksum, "the table is not the truth", len(rows), truth)

    def _exported(self, ask: Ask, *, impatient: bool) -> Outcome:
        async def exported() -> Outcome:
            with anyio.fail_after(_LONG):
                try:
                    return Outcome(await export())
                except MixpanelDataError as error:
                    return Outcome(error=error)

        export = partial(
            export_events,
            ask.first,
            ask.last,
            db=self.db,
            credentials=ACCOUNT,
            transport=self.world.sim.transport(),
            api_url="http://127.0.0.1",
            per_second=0,
            per_hour=0,
            max_wait=1.0,
            timeouts=_IMPATIENT if impatient else None,
            now=lambda: self.world.now,
            **ask.arguments,
        )
        backend = self.draw.choice(["asyncio", "trio"])
        with turned(self.knobs), warnings.catch_warnings():
            warnings.filterwarnings(
                "ignore", "most events look|.*answered twice without a body|.*no event at all"
            )
            return anyio.run(exported, backend=backend)

    def _count_faults(self) -> None:
        self.tally.faults.update(log.fault for log in self.world.unread() if log.fault)


def schedule(seed: int) -> Tally:
    """Run the schedule of *seed*: up to six exports, each with up to three faults."""
    draw = Random(seed)
    with TemporaryDirectory(prefix="torture-", ignore_cleanup_errors=True) as folder:
        run = Run(draw, Path(folder))
        run.tally.schedules = 1
        try:
            for number in range(draw.choice([1, 2, 2, 2, 3, 6])):
                mode = None if number else draw.choice(_BEGINNINGS)
                run.export(run.world.ask(mode=mode), run.world.faults(draw.choice([0, 1, 1, 2, 3])))
                run.world.time_passes()
            run.complete()
            if draw.random() < 0.2:
                run.replace_all()
        except Exception as error:  # noqa: BLE001 - whatever it is, the seed must be told
            run.tally.note(error, f"python -m tests.torture --seed {seed} --schedules 1")
        run.tally.events = run.model.compared
        return run.tally
