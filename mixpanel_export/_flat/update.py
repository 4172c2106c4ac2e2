"""Brings a flat table up to date, in the caller's transaction."""

from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace

from mixpanel_export._database.connection import Connection, quoted, supports_zstd
from mixpanel_export._database.schema import columns_of, table_exists
from mixpanel_export._database.settings import memory_for_columns
from mixpanel_export._flat.columns import (
    MAX_COLUMNS,
    OTHER,
    BatchState,
    Changes,
    Column,
    changes,
    new_columns,
    new_keys,
)
from mixpanel_export._flat.kinds import Kind, column_type, is_final, widening_sql
from mixpanel_export._flat.layout import Layout
from mixpanel_export._flat.members import other_members
from mixpanel_export._flat.reading import (
    DoubtfulRows,
    Source,
    all_kinds,
    joined_kinds,
    key_counts,
    kinds_by_batch,
    sampled_kinds,
    special_rows,
)
from mixpanel_export._flat.state import (
    COMMENT,
    FlatTable,
    read_batch_states,
    read_columns,
    write_batch_states,
    write_columns,
)
from mixpanel_export._flat.values import Marks, conversion, texts

_MAX_UNSAMPLED_ROWS = 20_000  # for more rows, a sample is read first, to find columns that must be VARCHAR


@dataclass(frozen=True, slots=True)
class Update:
    """The result of an update of a flat table."""

    columns: tuple[Column, ...]
    new: tuple[str, ...]
    """The names of new columns."""
    widened: tuple[str, ...]
    """The names of columns whose type is wider than before."""
    batches: tuple[int, ...]
    """The batches that were read."""
    other_keys: bool
    """Whether any row that was read has keys without a column of their own."""


def update(
    connection: Connection,
    flat: FlatTable,
    layout: Layout,
    memory: ExitStack,
    *,
    unparsable: bool,
    skip_new: bool = False,
) -> Update:
    """Bring *flat* up to date, or create it. *layout* is the layout of its source table.

    The fast queries break the JSON of some rows. If *unparsable* is true, these rows are read in Python. Otherwise, they
    cause an error. If *skip_new* is true, a table that lacks only new batches is left unchanged.

    If the table has many columns, DuckDB has more memory until *memory* is closed. The caller closes it after the
    transaction, because the commit needs memory for each column, too.

    Raises:
        duckdb.InvalidInputException: A fast query broke the JSON of a row, and *unparsable* is false.
        duckdb.Error: DuckDB cannot read or write.
    """
    before = read_batch_states(connection, flat.name)
    now = layout.batch_states(connection, flat.source)
    pending = changes(now, before)
    if skip_new and not pending.removed and before.keys().isdisjoint(pending.read):
        pending = Changes((), ())
    source = Source(flat.source, layout.columns, pending.read, flat.events, unparsable)
    if not pending.read:
        return _without_reading(connection, flat, layout, pending)
    plan = _plan(connection, flat, source, now)
    if plan.rewrites_all:
        pending = Changes(tuple(sorted(now)), pending.removed)
        source = replace(source, batches=pending.read)
        plan = replace(plan, doubtful=True)  # batches that were not read before may have doubtful rows
    memory.enter_context(memory_for_columns(connection, len(plan.columns)))
    return _apply(connection, flat, plan, source, pending=pending, before=before, now=now)


def _without_reading(connection: Connection, flat: FlatTable, layout: Layout, pending: Changes) -> Update:
    """Delete the rows of removed batches. Create the table if it is missing."""
    columns = read_columns(connection, flat.name)
    if not table_exists(connection, flat.name):
        _create(connection, flat.name, layout.columns, columns, other=False)
    removed = _delete(connection, flat.name, columns, pending.removed)
    columns = [column.with_counts({}, removed.get(column.key, 0)) for column in columns]
    write_columns(connection, flat.name, columns)
    write_batch_states(connection, flat.name, pending.removed, {})
    return Update(tuple(columns), (), (), (), other_keys=False)


@dataclass(frozen=True, slots=True)
class _Plan:
    """The columns that a flat table will have."""

    old: tuple[Column, ...]
    columns: tuple[Column, ...]
    """The old columns and then the new ones, with their future kinds."""
    rewrites_all: bool
    """Whether all rows must be written again, because the values of a widened column do not preserve their text."""
    other: bool
    """Whether rows have keys without a column."""
    doubtful: bool
    """Whether some rows must be read in Python."""

    @property
    def widened(self) -> list[tuple[Column, Column]]:
        """The old columns whose type changes, each with its new column."""
        pairs = zip(self.old, self.columns, strict=False)
        return [(old, new) for old, new in pairs if old.type != new.type]


def _plan(connection: Connection, flat: FlatTable, source: Source, now: Mapping[int, BatchState]) -> _Plan:
    old = read_columns(connection, flat.name)
    counts = key_counts(connection, source, flat.only, len(old) + MAX_COLUMNS + 1)
    added = new_columns(new_keys(counts, old), [*source.columns, *(column.name for column in old)])
    columns = [*old, *added]
    kinds, doubtful = _kinds(connection, source, columns, now)
    columns = [replace(column, kinds=column.kinds | kinds.get(column.key, Kind.NONE)) for column in columns]
    has_other = any(name == OTHER for name, _ in columns_of(connection, flat.name))
    other = flat.only is None and (has_other or not counts.keys() <= {column.key for column in columns})
    plan = _Plan(tuple(old), tuple(columns), rewrites_all=False, other=other, doubtful=doubtful)
    widened = [(before, after) for before, after in plan.widened if before.kinds]
    if not widened:
        return plan
    rewrites_all = any(widening_sql(before.type, after.type, "") is None for before, after in widened)
    by_key = _widening_batches(connection, source, [before for before, _ in widened], doubtful=doubtful)
    columns = [
        replace(column, widened_by=(*column.widened_by, *by_key.get(column.key, ()))) for column in columns
    ]
    return replace(plan, columns=tuple(columns), rewrites_all=rewrites_all)


def _kinds(
    connection: Connection, source: Source, columns: Sequence[Column], now: Mapping[int, BatchState]
) -> tuple[dict[str, Kind], bool]:
    """Return the kinds of each key whose type is not final, and whether there are doubtful rows."""
    known = {column.key: column.kinds for column in columns}
    if sum(now[batch].source_rows for batch in source.batches) > _MAX_UNSAMPLED_ROWS:
        known = joined_kinds(known, sampled_kinds(connection, source, _undecided(known)))
    doubtful, minus_zero = special_rows(connection, source)
    if doubtful:
        known = joined_kinds(known, *DoubtfulRows(connection, source, None).kinds().values())
    return joined_kinds(known, _kinds_in_sql(connection, source, known, minus_zero=minus_zero)), doubtful


def _kinds_in_sql(
    connection: Connection, source: Source, known: Mapping[str, Kind], *, minus_zero: bool
) -> dict[str, Kind]:
    """Return the kinds of each key whose type is not final, in rows that are not doubtful.

    Reading without marks is faster. It is sufficient for columns without fractions.
    """
    keys = _undecided(known)
    if not keys:
        return {}
    marks: Marks = "all" if minus_zero else "inexact"
    if any(known[key] & Kind.REAL for key in keys):
        return all_kinds(connection, source, keys, marks)
    kinds = all_kinds(connection, source, keys, "none")
    unsure = Kind.REAL | Kind.SAFE_INTEGER if minus_zero else Kind.REAL
    unsure_keys = [key for key in keys if kinds[key] & unsure]
    return kinds | all_kinds(connection, source, unsure_keys, marks) if unsure_keys else kinds


def _undecided(kinds: Mapping[str, Kind]) -> list[str]:
    """Return the keys whose type more values could change."""
    return [key for key, some in kinds.items() if not is_final(some)]


def _widening_batches(
    connection: Connection, source: Source, columns: Iterable[Column], *, doubtful: bool
) -> dict[str, tuple[int, ...]]:
    """Return, for each key, the batches with a value that does not fit the column's type."""
    columns = list(columns)
    parts = [kinds_by_batch(connection, source, [column.key for column in columns])]
    if doubtful:
        parts.append(DoubtfulRows(connection, source, None).kinds())
    return {
        column.key: tuple(
            batch
            for batch in source.batches
            if column_type(
                joined_kinds(*(part.get(batch, {}) for part in parts)).get(column.key, Kind.NONE)
                | column.kinds
            )
            != column.type
        )
        for column in columns
    }


def _apply(
    connection: Connection,
    flat: FlatTable,
    plan: _Plan,
    source: Source,
    *,
    pending: Changes,
    before: Mapping[int, BatchState],
    now: Mapping[int, BatchState],
) -> Update:
    """Change the flat table as planned and store its state."""
    stale = [*pending.removed, *(batch for batch in pending.read if batch in before)]
    if table_exists(connection, flat.name):
        removed = _delete(connection, flat.name, plan.old, stale)
        _alter(connection, flat.name, plan)
    else:
        removed = {}
        _create(connection, flat.name, source.columns, plan.columns, other=plan.other)
    _insert(connection, flat.name, plan, source)
    counts = _counts(connection, flat.name, plan.columns, pending.read)
    columns = tuple(
        column.with_counts(counts.get(column.key, {}), removed.get(column.key, 0)) for column in plan.columns
    )
    write_columns(connection, flat.name, columns)
    write_batch_states(connection, flat.name, pending.removed, {batch: now[batch] for batch in pending.read})
    return Update(
        columns,
        new=tuple(column.name for column in columns[len(plan.old) :]),
        widened=tuple(new.name for old, new in plan.widened if old.kinds),
        batches=pending.read,
        other_keys=plan.other,
    )


def _create(
    connection: Connection, table: str, base: Mapping[str, str], columns: Iterable[Column], *, other: bool
) -> None:
    definitions = [f"{name} {kind}" for name, kind in base.items()]
    definitions += [f"{quoted(column.name)} {column.type}" for column in columns]
    if other:
        definitions.append(_other_definition(connection))
    connection.execute(f"CREATE TABLE {quoted(table)} ({', '.join(definitions)})")
    connection.execute(f"COMMENT ON TABLE {quoted(table)} IS '{COMMENT}'")


def _other_definition(connection: Connection) -> str:
    return f"{OTHER} JSON" + (" USING COMPRESSION zstd" if supports_zstd(connection) else "")


def _alter(connection: Connection, table: str, plan: _Plan) -> None:
    """Widen columns and add new ones."""
    for old, new in plan.widened:
        name = quoted(new.name)
        # There is nothing to convert if a column has no values, or if all its rows are written again.
        sql = None if plan.rewrites_all or not old.kinds else widening_sql(old.type, new.type, name)
        connection.execute(
            f"ALTER TABLE {quoted(table)} ALTER COLUMN {name} TYPE {new.type} USING {sql or f'NULL::{new.type}'}"
        )
    for column in plan.columns[len(plan.old) :]:
        connection.execute(f"ALTER TABLE {quoted(table)} ADD COLUMN {quoted(column.name)} {column.type}")
    if plan.other and OTHER not in dict(columns_of(connection, table)):
        connection.execute(f"ALTER TABLE {quoted(table)} ADD COLUMN {OTHER} JSON")


def _delete(
    connection: Connection, table: str, columns: Sequence[Column], batches: Sequence[int]
) -> dict[str, int]:
    """Delete the rows of *batches* and return how many values of each key they had."""
    if not batches:
        return {}
    counts = _counts(connection, table, columns, batches)
    connection.execute(f"DELETE FROM {quoted(table)} WHERE export_batch IN ({_sql_list(batches)})")
    return {key: sum(some.values()) for key, some in counts.items()}


def _counts(
    connection: Connection, table: str, columns: Sequence[Column], batches: Sequence[int]
) -> dict[str, dict[int, int]]:
    """Return the number of values of each key in each batch."""
    values = "".join(f", count({quoted(column.name)})" for column in columns)
    rows = connection.execute(
        f"SELECT export_batch{values} FROM {quoted(table)} WHERE export_batch IN ({_sql_list(batches)}) GROUP BY export_batch"
    ).fetchall()
    return {column.key: {row[0]: row[index] for row in rows} for index, column in enumerate(columns, start=1)}


def _insert(connection: Connection, table: str, plan: _Plan, source: Source) -> None:
    keys = [column.key for column in plan.columns]
    doubtful = None
    if plan.other or plan.doubtful:
        doubtful = DoubtfulRows(connection, source, keys if plan.other else None)
    names = ", ".join([source.base, *(quoted(column.name) for column in plan.columns)])
    values = ", ".join(
        [
            source.base,
            *(conversion(f"v[{index}]", column.type) for index, column in enumerate(plan.columns, start=1)),
        ]
    )
    condition = f" AND NOT {doubtful.condition}" if doubtful else ""
    connection.execute(
        f"INSERT INTO {quoted(table)} ({names}) SELECT {values} "
        f"FROM (SELECT {source.base}, {texts(keys)} AS v {source.sql}{condition})"
    )
    if doubtful:
        _insert_doubtful(connection, table, source.columns, plan, doubtful)


def _insert_doubtful(
    connection: Connection, table: str, base: Mapping[str, str], plan: _Plan, doubtful: DoubtfulRows
) -> None:
    """Insert the rows that were read in Python. Their values have no marks."""
    columns = {name: f"unnest(?::{kind}[])" for name, kind in base.items()}
    columns |= {quoted(column.name): f"unnest(?::VARCHAR[])::{column.type}" for column in plan.columns}
    if plan.other:
        columns[OTHER] = "unnest(?::VARCHAR[])::JSON"
    keys = frozenset(column.key for column in plan.columns)
    statement = f"INSERT INTO {quoted(table)} ({', '.join(columns)}) SELECT {', '.join(columns.values())}"
    for page in doubtful:
        rows: list[list[object]] = []
        for shared, row in page:
            values = {member.key: member.text for member in row}
            rest = [other_members(row, keys)] if plan.other else []
            rows.append([*shared, *(values.get(column.key) for column in plan.columns), *rest])
        connection.execute(statement, [list(column) for column in zip(*rows, strict=True)])


def _sql_list(batches: Iterable[int]) -> str:
    return ", ".join(map(str, batches))
