"""The expected contents of the file after each step, computed from the server's data and never by the exporter's code.

One thing is taken from the ledger: which ranges of days are batches. Checked against the simulator are that these are the
right days, that each batch has exactly what the server had for it at the time of the request, and that a table is the union
of its batches with every event once.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace
from datetime import date

from mixpanel_export import (
    APIError,
    AuthenticationError,
    MixpanelDataError,
    QueryError,
    SelectionError,
    TableExistsError,
    TableNotFoundError,
)
from mixpanel_export.simulator import RequestLog, Row

from .contents import Contents, Entry
from .project import FINAL, Export, Project, days_of, distinct_id_of, is_plain
from .state import Batch, Expected, Outcome
from .targets import TargetDays
from .violations import ViolationError, require

_REFUSALS = (TableExistsError, TableNotFoundError, SelectionError)


class Model:
    """The batches of one file, and the checks of each step."""

    def __init__(self, project: Project) -> None:
        self._project = project
        self._batches: dict[int, Batch] = {}
        self._rows: dict[str, int] = {}
        self._targets = TargetDays()
        self.compared = 0

    def tables(self) -> set[str]:
        """Return the tables in the file, shadow tables included."""
        return {batch.entry.table for batch in self._batches.values() if batch.visible}

    def batches(self, table: str) -> list[Batch]:
        """Return the batches of a table, failed ones included."""
        return [batch for batch in self._batches.values() if batch.entry.table == table]

    def expected(self, task: Export) -> Expected:
        """Return the expected behaviour of *task* in the present state."""
        batches = self.batches(task.target)
        visible = [batch for batch in batches if batch.visible]
        continues = task.mode != "replace" or all(batch.fingerprint == task.fingerprint for batch in visible)
        anew = not (continues and (visible or task.mode == "resume"))
        batches = [] if anew else batches
        days, same = task.days, [batch for batch in batches if batch.entry.selection == task.selection]
        if task.mode in {"resume", "replace"}:
            newest = {
                day: batch.entry.status
                for batch in sorted(same, key=lambda batch: batch.entry.batch)
                for day in batch.days
            }
            days = {day for day in days if newest.get(day) != "complete"}
        widened = [batch.days for batch in same if batch.visible and batch.days & days]
        return Expected(self._refusal(task), batches, days.union(*widened), anew)

    def _refusal(self, task: Export) -> type[MixpanelDataError] | None:
        visible = [batch for batch in self.batches(task.table) if batch.visible]
        if task.mode == "create" and visible:
            return TableExistsError
        if task.mode == "append" and not visible:
            return TableNotFoundError
        if task.mode != "replace" and any(_conflict(task, batch) for batch in visible):
            return SelectionError
        return None

    def check_step(self, task: Export, expected: Expected, outcome: Outcome, contents: Contents) -> None:
        """Check everything that an export has done, and update the model."""
        requests = self._project.new_requests()
        ranges = [(log.first, log.last) for log in requests if log.first and log.last]
        _check_outcome(expected, outcome, requests)
        _check_requests(expected, outcome, [days_of(*days) for days in ranges])
        existing = {batch.entry.batch for batch in expected.batches}
        stale = {batch.entry.batch for batch in self.batches(task.target)} - existing
        swapped = self._swap(task, outcome, contents)
        table = task.table if swapped else task.target
        new = {number: entry for number, entry in contents.ledger.items() if number not in self._batches}
        self._check_new(task, expected, outcome, new.values(), table, ranges)
        self._remove_superseded(stale, contents, new.values())
        require(outcome.result is None or not stale & set(contents.ledger), "stale batches remain", stale)
        garbage = any(log.fault == "garbage_line" for log in requests)
        for number, entry in new.items():
            self._batches[number] = self._batch(entry, task, more_rejects=garbage)
        _check_complete(expected, outcome, new.values())
        self._targets.check_step(
            task,
            contents,
            refused=expected.refusal is not None,
            anew=expected.anew and expected.refusal is None,
            killed=outcome == Outcome(),
            recorded=bool(new),
            swapped=swapped,
        )
        self.check(contents)
        self._check_growth(task, outcome, contents, swapped=swapped)

    def forget(self, person: str) -> int:
        """Remove the events of *person* from all batches, and return the number of their rows in the file."""
        total = 0
        for number, batch in self._batches.items():
            events = [record for record in batch.sent if distinct_id_of(record) == person]
            rows = len(self._project.stored(events, dedupe=batch.entry.dedupe))
            self._batches[number] = batch.without(person, duplicates=len(events) - rows)
            total += rows
        return total

    def check_unchanged(self, contents: Contents) -> None:
        """Check the contents after a step that neither adds nor removes batches."""
        entries = {number: _identity(entry) for number, entry in contents.ledger.items()}
        known = {number: _identity(batch.entry) for number, batch in self._batches.items()}
        require(entries == known, "a batch has appeared, disappeared or changed", entries, known)
        self.check(contents)
        self._rows = _row_counts(contents)

    def persons(self) -> list[str]:
        """Return the people with events in the file whose id `forget` can find in a line unchanged."""
        sent = (record for batch in self._batches.values() for record in batch.sent)
        return sorted({person for record in sent if (person := distinct_id_of(record)) and is_plain(person)})

    def set_target(self, first: date, last: date) -> None:
        """Set the target days of every table."""
        keys = {(batch.entry.table, batch.entry.selection) for batch in self._batches.values()}
        self._targets.set_all(keys, (first, last))

    def _batch(self, entry: Entry, task: Export, *, more_rejects: bool) -> Batch:
        failed = entry.status == "failed"
        sent = [] if failed else self._project.sent(entry.first, entry.last, task.selection)
        unusual = [record[6] for record in sent if record[6]]
        return Batch(
            entry,
            task.fingerprint,
            sent,
            sum(each.rejects for each in unusual),
            [each.lines for each in unusual if each.repaired],
            more_rejects,
        )

    def _swap(self, task: Export, outcome: Outcome, contents: Contents) -> bool:
        """Rename the batches of the shadow table if the replacement has happened, and return whether it has."""
        if task.mode != "replace" or outcome.error or outcome.failed:
            return False
        before = {number for number, batch in self._batches.items() if batch.entry.table == task.table}
        now = {number for number, entry in contents.ledger.items() if entry.table == task.table}
        if outcome.result is None and not now - before:
            return False
        for number in before:
            del self._batches[number]
        self._rows[task.table] = 0
        for number, batch in self._batches.items():
            if batch.entry.table == task.target:
                self._batches[number] = replace(batch, entry=batch.entry._replace(table=task.table))
        require(task.target not in contents.tables, "a shadow table remains after the swap")
        return True

    def _check_new(
        self,
        task: Export,
        expected: Expected,
        outcome: Outcome,
        new: Iterable[Entry],
        table: str,
        ranges: Sequence[tuple[date, date]],
    ) -> None:
        for entry in new:
            require(entry.batch > max(self._batches, default=0), "a batch id was reused", entry)
            require(entry.table == table, "the batch belongs to another table", entry)
            require(
                (entry.selection, entry.dedupe) == (task.selection, task.dedupe), "another selection", entry
            )
            require(days_of(entry.first, entry.last) <= expected.days, "an unexpected batch", entry)
            status = "open" if self._project.is_open(entry.last) else "complete"
            if entry.status == "failed":
                reported = outcome.result is None or (entry.first, entry.last) in outcome.failed
                require(reported, "a failure is not reported", entry)
            else:
                require(entry.status == status, f"should be {status}", entry)
                require((entry.first, entry.last) in ranges, "no such request was sent", entry)

    def _remove_superseded(self, stale: set[int], contents: Contents, new: Iterable[Entry]) -> None:
        """Remove the batches that are gone, which needs a reason; the others must be unchanged."""
        for number, batch in list(self._batches.items()):
            overlapping = [entry for entry in new if _overlaps(batch.entry, entry)]
            covered = any(
                entry.first <= batch.entry.first and batch.entry.last <= entry.last for entry in overlapping
            )
            replaced = any(entry.status != "failed" for entry in overlapping)
            if number not in contents.ledger:
                justified = covered and (replaced or not batch.visible)
                require(justified or number in stale, "a batch is gone", batch.entry)
                del self._batches[number]
                continue
            both = replaced and (batch.visible or covered)
            require(not both, "two batches of one day", batch.entry, overlapping)
            entry = contents.ledger[number]
            require(_identity(entry) == _identity(batch.entry), "a batch has changed", batch.entry, entry)

    def check(self, contents: Contents) -> None:
        """Compare the contents with what is expected, batch by batch and table by table."""
        for table, rows in contents.tables.items():
            unknown = set(rows) - {batch.entry.batch for batch in self.batches(table) if batch.visible}
            require(not unknown, f"{table} has rows of batches that are not in the ledger", unknown)
        visible = {number for number, entry in contents.ledger.items() if entry.status != "failed"}
        missing = contents.winners - visible
        require(not missing, "duplicates lost to batches that are gone", missing)
        for number, batch in self._batches.items():
            self._check_batch(batch, contents.ledger[number], contents)
        for table in self.tables():
            self._check_table(table, contents)
        self._targets.check(contents)

    def _check_growth(self, task: Export, outcome: Outcome, contents: Contents, *, swapped: bool) -> None:
        """Compare the number of rows in the result with the growth of the table."""
        counts = _row_counts(contents)
        grown = counts.get(task.table, 0) - self._rows.get(task.table, 0)
        self._rows = counts
        if outcome.result is not None:
            total = outcome.result.total_rows
            correct = grown if swapped or task.mode != "replace" else 0
            require(total == correct, "total_rows is not the growth of the table", total, correct)

    def _check_batch(self, batch: Batch, entry: Entry, contents: Contents) -> None:
        rows = contents.tables.get(entry.table, {}).get(entry.batch, Counter())
        duplicates = contents.duplicates.get(entry.batch, Counter())
        correct = Counter(self._project.stored(batch.sent, dedupe=entry.dedupe))
        _compare(f"batch {entry}", correct, rows + duplicates)
        require(rows.total() == entry.rows, "the ledger has another number of rows", rows.total(), entry)
        sent = len(batch.sent) + batch.forgotten_duplicates
        require(entry.rows + entry.removed == sent, "rows and removed duplicates do not add up", sent, entry)
        repaired = len(batch.repaired)
        require(entry.repaired == repaired, f"{repaired} events needed repair", entry)
        require(
            entry.rejects == batch.rejects or batch.more_rejects,
            f"{batch.rejects} lines were no events",
            entry,
        )
        stored = [contents.rejects.get((entry.batch, reason), 0) for reason in ("rejected", "repaired")]
        require(stored == [entry.rejects, entry.repaired], "_export_rejects does not add up", stored, entry)

    def _check_table(self, table: str, contents: Contents) -> None:
        batches = [batch for batch in self.batches(table) if batch.visible]
        deduped = [record for batch in batches if batch.entry.dedupe for record in batch.sent]
        correct = Counter(self._project.stored(deduped, dedupe=True))
        for batch in batches:
            if not batch.entry.dedupe:
                correct.update(self._project.stored(batch.sent, dedupe=False))
        rows: Counter[Row] = Counter()
        for batch_rows in contents.tables.get(table, {}).values():
            rows.update(batch_rows)
        _compare(f"table {table}", correct, rows)
        self.compared += rows.total()


def _check_outcome(expected: Expected, outcome: Outcome, requests: Sequence[RequestLog]) -> None:
    error = outcome.error
    if expected.refusal or error in _REFUSALS:
        killed = outcome == Outcome()
        require(killed or error is expected.refusal, f"expected {expected.refusal}", error, outcome.message)
        require(not requests, "a refused export has sent requests")
    elif error is not None and issubclass(error, AuthenticationError | QueryError):
        require(any(log.fault in FINAL for log in requests), "no answer was final", error, outcome.message)
    elif error is not None:
        raise ViolationError(f"an export ended with {error.__name__}: {outcome.message}")
    for failure in outcome.result.errors if outcome.result else ():
        require(isinstance(failure, APIError), "a batch failed for an internal reason", repr(failure))
    if outcome.failed:
        faulty = any(log.fault for log in requests)
        require(faulty, "a batch failed although nothing went wrong", outcome.failed)


def _check_requests(expected: Expected, outcome: Outcome, requested: Sequence[set[date]]) -> None:
    for days in requested:
        extra = sorted(map(str, days - expected.days))
        require(not extra, "days were requested that are complete or outside the export", extra)
    if outcome.result is not None:
        missing = expected.days.difference(*requested)
        require(not missing, "days were not requested", missing)


def _check_complete(expected: Expected, outcome: Outcome, new: Iterable[Entry]) -> None:
    """Check that after a finished export each of its days has a new batch or is reported as failed."""
    if outcome.result is None:
        return
    fetched = {day for entry in new if entry.status != "failed" for day in days_of(entry.first, entry.last)}
    failed = {day for first, last in outcome.failed for day in days_of(first, last)}
    require(expected.days == fetched | failed, "days are missing without a report", expected.days, fetched)
    require(not fetched & failed, "days are reported as failed but have batches", fetched & failed)
    recorded = {(entry.first, entry.last) for entry in new if entry.status == "failed"}
    require(outcome.failed == recorded, "the ledger has other failures than the result", recorded)


def _row_counts(contents: Contents) -> dict[str, int]:
    return {
        table: sum(rows.total() for rows in batches.values()) for table, batches in contents.tables.items()
    }


def _compare(what: str, correct: Counter[Row], rows: Counter[Row]) -> None:
    lost, doubled = correct - rows, rows - correct
    if lost or doubled:
        examples = [row for events in (lost, doubled) for row in list(events)[:2]]
        raise ViolationError(
            f"{what}: {lost.total()} events lost, {doubled.total()} too many, such as {examples}",
            lost=lost.total(),
            doubled=doubled.total(),
        )


def _conflict(task: Export, batch: Batch) -> bool:
    (names, where), (other_names, other_where) = task.selection, batch.entry.selection
    if not batch.days & task.days or task.selection == batch.entry.selection:
        return False
    disjoint = names and other_names and not set(names) & set(other_names)
    return where != other_where or not disjoint


def _overlaps(old: Entry, new: Entry) -> bool:
    same = (old.table, old.selection) == (new.table, new.selection)
    return same and old.batch < new.batch and new.first <= old.last and old.first <= new.last


def _identity(entry: Entry) -> object:
    return (*entry[:5], entry.selection, entry.dedupe)
