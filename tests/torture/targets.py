"""The expected target days of each table and selection, and the missing days that follow from them."""

from collections.abc import Collection, Iterable
from datetime import date

from .contents import Contents, Entry
from .project import SHADOW, Export, Selection, days_of
from .violations import require

Key = tuple[str, Selection]
"""A table and a selection."""

Span = tuple[date, date]
"""First and last day."""


class TargetDays:
    """The target days after each step: all days that exports requested, and those between.

    An export without a new ledger row may have recorded its days or not.
    """

    def __init__(self) -> None:
        self._spans: dict[Key, Span] = {}

    def set_all(self, keys: Collection[Key], span: Span) -> None:
        """Set the target days of *keys*, as `mpx status --set-target` does for every exported table."""
        known = {*keys, *self._spans}
        self._spans.update({key: span for key in known if not key[0].startswith(SHADOW)})

    def check_step(
        self,
        task: Export,
        contents: Contents,
        *,
        refused: bool,
        anew: bool,
        killed: bool,
        recorded: bool,
        swapped: bool,
    ) -> None:
        """Compare the target days after an export with what they must be, and take them over.

        Args:
            task: The export.
            contents: The file after the export.
            refused: Whether the checks had to refuse the export.
            anew: Whether the export had to discard what the table held before.
            killed: Whether the export ended before its result, so that it may not have come to that.
            recorded: Whether the export left a ledger row.
            swapped: Whether the filled table replaced another one.
        """
        key = (task.target, task.selection)
        before = dict(self._spans)
        cleared = {other: span for other, span in before.items() if other[0] != task.target}
        span = (task.first, task.last)
        spans = dict(cleared if anew else before)
        first, last = spans.get(key, span)
        spans[key] = (min(first, task.first), max(last, task.last))
        if recorded:
            candidates = [spans]
        elif anew:
            candidates = [spans, cleared, before] if killed else [spans, cleared]
        else:
            candidates = [before] if refused else [spans, before]
        if swapped:
            candidates = [_moved(spans, task.target, task.table) for spans in candidates]
        require(contents.targets in candidates, "other target days", contents.targets, *candidates)
        self._spans = dict(contents.targets)

    def check(self, contents: Contents) -> None:
        """Compare the target days, and the missing days that the status of the file reports."""
        require(contents.targets == self._spans, "the target days changed", contents.targets, self._spans)
        by_key: dict[Key, list[Entry]] = {key: [] for key in self._spans if not key[0].startswith(SHADOW)}
        for entry in contents.ledger.values():
            if not entry.table.startswith(SHADOW):
                by_key.setdefault((entry.table, entry.selection), []).append(entry)
        missing = {key: _missing(entries, self._spans.get(key)) for key, entries in by_key.items()}
        require(contents.missing == missing, "other missing days", contents.missing, missing)


def _missing(entries: Iterable[Entry], target: Span | None) -> set[date]:
    """Return the days without a ledger row: of the target days, and between days with one."""
    tried = {day for entry in entries for day in days_of(entry.first, entry.last)}
    ends = tried.union(target or ())
    return days_of(min(ends), max(ends)) - tried


def _moved(spans: dict[Key, Span], old: str, new: str) -> dict[Key, Span]:
    """Return *spans* after the table *old* has replaced *new*."""
    moved = {(new, selection): span for (table, selection), span in spans.items() if table == old}
    return {key: span for key, span in spans.items() if key[0] not in {old, new}} | moved
