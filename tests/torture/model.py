"""What the file must hold after each step, worked out from what the server had and never by the exporter's code.

The ledger is believed in one thing only: which ranges of days became batches. That these are the days they have to
be, that each batch holds exactly what the server had for it when it was asked, and that the table is the union of
the batches with every event once, is checked against the simulator.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import date

from mixpanel_export import (
    APIError,
    AuthenticationError,
    MixpanelDataError,
    ParallelFetchResult,
    QueryError,
    SelectionError,
    TableExistsError,
    TableNotFoundError,
)
from mixpanel_export.simulator import RequestLog, Row
from mixpanel_export.simulator.events import Record

from .file import Entry, File
from .world import FINAL, Ask, World, days_of

_REFUSALS = (TableExistsError, TableNotFoundError, SelectionError)


class ViolationError(Exception):
    """A promise was broken; *lost* and *doubled* count events where it was that one."""

    def __init__(self, message: str, *, lost: int = 0, doubled: int = 0) -> None:
        super().__init__(message)
        self.lost = lost
        self.doubled = doubled


def require(condition: object, message: str, *what: object) -> None:
    """Raise `ViolationError` unless the *condition* holds."""
    if not condition:
        raise ViolationError(message + "".join(f"; {thing}" for thing in what))


@dataclass(frozen=True, slots=True)
class Outcome:
    """How an export ended: with a *result*, with an *error*, or by a signal, which leaves neither."""

    result: ParallelFetchResult | None = None
    error: BaseException | None = None

    @property
    def failed(self) -> set[tuple[date, date]]:
        """The ranges of days that the result names as failed."""
        ranges = self.result.failed_date_ranges if self.result else ()
        return {(date.fromisoformat(first), date.fromisoformat(last)) for first, last in ranges}


@dataclass(frozen=True, slots=True)
class Batch:
    """A ledger row, and what the server had for its days when it was asked."""

    entry: Entry
    purpose: tuple[object, ...]
    sent: Sequence[Record] = ()
    more_rejects: bool = False

    @property
    def visible(self) -> bool:
        """Whether the batch's rows are in the table."""
        return self.entry.status != "failed"

    @property
    def days(self) -> set[date]:
        """The days of the batch."""
        return days_of(self.entry.first, self.entry.last)


@dataclass(frozen=True, slots=True)
class Expected:
    """What must come of an export: a refusal, or requests for *days* while *held* batches are there."""

    refusal: type[MixpanelDataError] | None
    held: Sequence[Batch]
    days: set[date]


class Model:
    """The batches of one file, and the checks of each step."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._batches: dict[int, Batch] = {}
        self._rows: dict[str, int] = {}
        self.compared = 0

    def tables(self) -> set[str]:
        """Return the tables that the file has, shadows included."""
        return {batch.entry.table for batch in self._batches.values() if batch.visible}

    def held(self, table: str) -> list[Batch]:
        """Return the batches of a table, failed ones too."""
        return [batch for batch in self._batches.values() if batch.entry.table == table]

    def expected(self, ask: Ask) -> Expected:
        """Work out what *ask* must do, as things stand."""
        held = self.held(ask.target)
        there = [batch for batch in held if batch.visible]
        going_on = ask.mode != "replace" or all(batch.purpose == ask.purpose for batch in there)
        held = held if going_on and (there or ask.mode == "resume") else []
        days, mine = ask.days, [batch for batch in held if batch.entry.selection == ask.selection]
        if ask.mode in {"resume", "replace"}:
            newest = {
                day: batch.entry.status
                for batch in sorted(mine, key=lambda batch: batch.entry.batch)
                for day in batch.days
            }
            days = {day for day in days if newest.get(day) != "complete"}
        touched = [batch.days for batch in mine if batch.visible and batch.days & days]
        return Expected(self._refusal(ask), held, days.union(*touched))

    def _refusal(self, ask: Ask) -> type[MixpanelDataError] | None:
        there = [batch for batch in self.held(ask.table) if batch.visible]
        if ask.mode == "create" and there:
            return TableExistsError
        if ask.mode == "append" and not there:
            return TableNotFoundError
        if ask.mode != "replace" and any(_conflict(ask, batch) for batch in there):
            return SelectionError
        return None

    def after(self, ask: Ask, expected: Expected, outcome: Outcome, file: File) -> None:
        """Take in what an export left behind, and check all of it."""
        requests = self._world.requests()
        asked = [(log.first, log.last) for log in requests if log.first and log.last]
        _check_outcome(expected, outcome, requests)
        _check_requests(expected, outcome, [days_of(*days) for days in asked])
        held = {batch.entry.batch for batch in expected.held}
        cleared = {batch.entry.batch for batch in self.held(ask.target)} - held
        swapped = self._swap(ask, outcome, file)
        table = ask.table if swapped else ask.target
        new = {number: entry for number, entry in file.ledger.items() if number not in self._batches}
        self._check_new(ask, expected, outcome, new.values(), table, asked)
        self._drop_gone(cleared, file, new.values())
        require(outcome.result is None or not cleared & set(file.ledger), "stale batches were kept", cleared)
        garbage = any(log.fault == "garbage_line" for log in requests)
        for number, entry in new.items():
            sent = (
                self._world.sent(entry.first, entry.last, ask.selection) if entry.status != "failed" else []
            )
            self._batches[number] = Batch(entry, ask.purpose, sent, more_rejects=garbage)
        _check_complete(expected, outcome, new.values())
        self.check(file)
        self._check_growth(ask, outcome, file, swapped=swapped)

    def _swap(self, ask: Ask, outcome: Outcome, file: File) -> bool:
        """Rename the shadow's batches if the replacement has happened; whether it has."""
        if ask.mode != "replace" or outcome.error or outcome.failed:
            return False
        before = {number for number, batch in self._batches.items() if batch.entry.table == ask.table}
        now = {number for number, entry in file.ledger.items() if entry.table == ask.table}
        if outcome.result is None and not now - before:
            return False
        for number in before:
            del self._batches[number]
        self._rows[ask.table] = 0
        for number, batch in self._batches.items():
            if batch.entry.table == ask.target:
                self._batches[number] = replace(batch, entry=batch.entry._replace(table=ask.table))
        require(ask.target not in file.tables, "a shadow table is left after the swap")
        return True

    def _check_new(
        self,
        ask: Ask,
        expected: Expected,
        outcome: Outcome,
        new: Iterable[Entry],
        table: str,
        asked: Sequence[tuple[date, date]],
    ) -> None:
        for entry in new:
            require(entry.batch > max(self._batches, default=0), "a batch id was used again", entry)
            require(entry.table == table, "the batch is of another table", entry)
            require(
                (entry.selection, entry.dedupe) == (ask.selection, ask.dedupe), "another selection", entry
            )
            require(days_of(entry.first, entry.last) <= expected.days, "a batch nobody asked for", entry)
            status = "open" if self._world.is_open(entry.last) else "complete"
            if entry.status == "failed":
                require(
                    outcome.result is None or (entry.first, entry.last) in outcome.failed, "unsaid", entry
                )
            else:
                require(entry.status == status, f"should be {status}", entry)
                require((entry.first, entry.last) in asked, "no such request was made", entry)

    def _drop_gone(self, cleared: set[int], file: File, new: Iterable[Entry]) -> None:
        """Forget the batches that are gone, each for a reason; the others must be as they were."""
        for number, batch in list(self._batches.items()):
            over = [entry for entry in new if _overlaps(batch.entry, entry)]
            covered = any(
                entry.first <= batch.entry.first and batch.entry.last <= entry.last for entry in over
            )
            replaced = any(entry.status != "failed" for entry in over)
            if number not in file.ledger:
                justified = covered and (replaced or not batch.visible)
                require(justified or number in cleared, "a batch is gone", batch.entry)
                del self._batches[number]
                continue
            require(
                not (replaced and (batch.visible or covered)), "two batches of one day", batch.entry, over
            )
            entry = file.ledger[number]
            require(_identity(entry) == _identity(batch.entry), "a batch has changed", batch.entry, entry)

    def check(self, file: File) -> None:
        """Compare the file with what it must hold, batch by batch and table by table."""
        for table, rows in file.tables.items():
            unknown = set(rows) - {batch.entry.batch for batch in self.held(table) if batch.visible}
            require(not unknown, f"{table} has rows of batches that its ledger does not know", unknown)
        visible = {number for number, entry in file.ledger.items() if entry.status != "failed"}
        require(
            file.lost_to <= visible, "events are hidden behind batches that are gone", file.lost_to - visible
        )
        for number, batch in self._batches.items():
            self._check_batch(batch, file.ledger[number], file)
        for table in self.tables():
            self._check_table(table, file)

    def _check_growth(self, ask: Ask, outcome: Outcome, file: File, *, swapped: bool) -> None:
        """Compare what the result says with what became of the table."""
        counts = {
            table: sum(rows.total() for rows in batches.values()) for table, batches in file.tables.items()
        }
        grown = counts.get(ask.table, 0) - self._rows.get(ask.table, 0)
        self._rows = counts
        if outcome.result is not None:
            said = outcome.result.total_rows
            require(said == (grown if swapped or ask.mode != "replace" else 0), "another growth", said, grown)

    def _check_batch(self, batch: Batch, entry: Entry, file: File) -> None:
        rows = file.tables.get(entry.table, {}).get(entry.batch, Counter())
        hidden = file.hidden.get(entry.batch, Counter())
        wanted = Counter(self._world.stored(batch.sent, dedupe=entry.dedupe))
        _compare(f"batch {entry}", wanted, rows + hidden)
        require(rows.total() == entry.rows, "the ledger counts other rows", rows.total(), entry)
        require(
            entry.rows + entry.removed == len(batch.sent), "duplicates do not add up", len(batch.sent), entry
        )
        broken = [record[6] for record in batch.sent if record[6]]
        rejects, repaired = sum(sent.rejects for sent in broken), sum(sent.repaired for sent in broken)
        require(entry.repaired == repaired, f"{repaired} events were to be repaired", entry)
        require(entry.rejects == rejects or batch.more_rejects, f"{rejects} lines were to be rejected", entry)
        aside = [file.set_aside.get((entry.batch, reason), 0) for reason in ("rejected", "repaired")]
        require(aside == [entry.rejects, entry.repaired], "lines set aside do not add up", aside, entry)

    def _check_table(self, table: str, file: File) -> None:
        batches = [batch for batch in self.held(table) if batch.visible]
        every = [record for batch in batches if batch.entry.dedupe for record in batch.sent]
        wanted = Counter(self._world.stored(every, dedupe=True))
        for batch in batches:
            if not batch.entry.dedupe:
                wanted.update(self._world.stored(batch.sent, dedupe=False))
        rows: Counter[Row] = Counter()
        for of_batch in file.tables.get(table, {}).values():
            rows.update(of_batch)
        _compare(f"table {table}", wanted, rows)
        self.compared += rows.total()


def _check_outcome(expected: Expected, outcome: Outcome, requests: Sequence[RequestLog]) -> None:
    error = outcome.error
    if expected.refusal or isinstance(error, _REFUSALS):
        said = None if error is None else type(error)
        killed = outcome == Outcome()
        require(killed or said is expected.refusal, f"expected {expected.refusal}", repr(error))
        require(not requests, "a refused export asked for something")
    elif isinstance(error, AuthenticationError | QueryError):
        require(any(log.fault in FINAL for log in requests), "no answer was final", repr(error))
    elif error is not None:
        raise ViolationError(f"an export ended with {error!r}") from error
    for failure in outcome.result.errors if outcome.result else ():
        require(isinstance(failure, APIError), "a batch failed for a reason of our own", repr(failure))
    if outcome.failed:
        require(
            any(log.fault for log in requests), "a batch failed though nothing went wrong", outcome.failed
        )


def _check_requests(expected: Expected, outcome: Outcome, asked: Sequence[set[date]]) -> None:
    for days in asked:
        extra = sorted(map(str, days - expected.days))
        require(not extra, "days were asked for that are complete, or that nobody wanted", extra)
    if outcome.result is not None:
        missed = expected.days.difference(*asked)
        require(not missed, "days were not asked for", missed)


def _check_complete(expected: Expected, outcome: Outcome, new: Iterable[Entry]) -> None:
    """After an export that came to its end, each of its days is there anew or named as failed."""
    if outcome.result is None:
        return
    fetched = {day for entry in new if entry.status != "failed" for day in days_of(entry.first, entry.last)}
    failed = {day for first, last in outcome.failed for day in days_of(first, last)}
    require(expected.days == fetched | failed, "days are missing, and nobody says so", expected.days, fetched)
    require(not fetched & failed, "days are said to have failed and have not", fetched & failed)
    noted = {(entry.first, entry.last) for entry in new if entry.status == "failed"}
    require(outcome.failed == noted, "the ledger names other failures than the result", noted)


def _compare(what: str, wanted: Counter[Row], rows: Counter[Row]) -> None:
    lost, doubled = wanted - rows, rows - wanted
    if lost or doubled:
        shown = [row for events in (lost, doubled) for row in list(events)[:2]]
        raise ViolationError(
            f"{what}: {lost.total()} events lost, {doubled.total()} too many, such as {shown}",
            lost=lost.total(),
            doubled=doubled.total(),
        )


def _conflict(ask: Ask, batch: Batch) -> bool:
    (names, where), (other_names, other_where) = ask.selection, batch.entry.selection
    if not batch.days & ask.days or ask.selection == batch.entry.selection:
        return False
    disjoint = names and other_names and not set(names) & set(other_names)
    return where != other_where or not disjoint


def _overlaps(old: Entry, new: Entry) -> bool:
    same = (old.table, old.selection) == (new.table, new.selection)
    return same and old.batch < new.batch and new.first <= old.last and old.first <= new.last


def _identity(entry: Entry) -> object:
    return (*entry[:5], entry.selection, entry.dedupe)
