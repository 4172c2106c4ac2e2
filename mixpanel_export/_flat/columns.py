"""The columns of a flat table: their names, and the changes in an update. Pure functions."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from mixpanel_export._flat.kinds import Kind, column_type

OTHER = "_other"
"""The column for properties that have no column of their own."""

MAX_COLUMNS = 1000
"""The maximum number of keys that become columns."""


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a flat table, and statistics of its key's values."""

    key: str
    name: str
    kinds: Kind = Kind.NONE
    values: int = 0
    """The number of values, without `null`."""
    first_batch: int | None = None
    """The lowest number of a batch with a value."""
    last_batch: int | None = None
    """The highest number of a batch with a value."""
    widened_by: tuple[int, ...] = ()
    """The batches with values that widened the type."""

    @property
    def type(self) -> str:
        """The type in DuckDB."""
        return column_type(self.kinds)

    def with_counts(self, counts: Mapping[int, int], removed: int) -> "Column":
        """Return the column after an update.

        *counts* contains its number of values in each batch that was read. *removed* is the number of deleted values.
        """
        batches = [batch for batch, count in counts.items() if count]
        known = [batch for batch in (self.first_batch, self.last_batch) if batch is not None]
        return replace(
            self,
            values=self.values - removed + sum(counts.values()),
            first_batch=min([*known, *batches], default=None),
            last_batch=max([*known, *batches], default=None),
        )


def new_columns(keys: Iterable[str], existing_names: Collection[str]) -> list[Column]:
    """Return a new column for each key.

    The name is the key, or `_empty` for the empty key. If another column has the name, it gets the first free number:
    `Email`, then `email_2`. Case is ignored, because DuckDB ignores it.
    """
    used = {name.lower() for name in (OTHER, *existing_names)}
    columns = []
    for key in keys:
        name = unused_name(key.replace("\0", "␀") or "_empty", used)
        used.add(name.lower())
        columns.append(Column(key, name))
    return columns


def unused_name(name: str, used: Collection[str]) -> str:
    """Return *name*, with a number if it is among the *used* names, which are in lower case."""
    number, candidate = 1, name
    while candidate.lower() in used:
        number += 1
        candidate = f"{name}_{number}"
    return candidate


def new_keys(counts: Mapping[str, int], columns: Sequence[Column]) -> list[str]:
    """Return the keys that become new columns, the most frequent first. A table has at most `MAX_COLUMNS` columns."""
    existing = {column.key for column in columns}
    candidates = sorted(counts.keys() - existing, key=lambda key: (-counts[key], key))
    return candidates[: max(0, MAX_COLUMNS - len(existing))]


@dataclass(frozen=True, slots=True)
class BatchState:
    """Identifies the rows of a batch. The state changes whenever rows of the batch are added or removed."""

    revision: int
    """The number of changes to the rows of the batch, as recorded in the ledger."""
    source_rows: int
    """The number of rows in the source table."""


@dataclass(frozen=True, slots=True)
class Changes:
    """The batches that an update reads or deletes."""

    read: tuple[int, ...]
    """New and changed batches. They are read, after the old rows of changed batches are deleted."""
    removed: tuple[int, ...]
    """Batches that are in the flat table, but no longer in the source table."""


def changes(now: Mapping[int, BatchState], before: Mapping[int, BatchState]) -> Changes:
    """Return the batches that differ between the source table and the flat table."""
    return Changes(
        read=tuple(sorted(batch for batch, state in now.items() if before.get(batch) != state)),
        removed=tuple(sorted(before.keys() - now.keys())),
    )
