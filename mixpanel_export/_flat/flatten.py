"""The functions that other folders call. They create flat tables, and update them after exports and deletions."""

import time
from collections.abc import Iterable
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import duckdb

from mixpanel_export._concurrency import entered_in_thread, in_thread
from mixpanel_export._database.connection import (
    Connection,
    connected_for_export,
    quoted,
    transaction,
)
from mixpanel_export._database.path import check_exists, database_path
from mixpanel_export._database.schema import (
    check_ledger,
    check_no_view,
    columns_of,
    create_ledger,
    name_in_database,
    table_exists,
    table_names,
)
from mixpanel_export._database.settings import with_enough_memory
from mixpanel_export._database.write_errors import converting_errors
from mixpanel_export._flat.columns import MAX_COLUMNS, OTHER
from mixpanel_export._flat.layout import Layout, layout_of
from mixpanel_export._flat.state import (
    FlatTable,
    create_state,
    drop_flat_table,
    drop_views,
    flat_tables,
    read_columns,
    write_table,
)
from mixpanel_export._flat.update import Update, update
from mixpanel_export._flat.views import update_views
from mixpanel_export._suggestions import did_you_mean
from mixpanel_export._tracebacks import short_tracebacks_async
from mixpanel_export.errors import (
    ArgumentError,
    TableExistsError,
    TableFormatError,
    TableNotFoundError,
)
from mixpanel_export.results import FlattenResult


@dataclass(frozen=True, slots=True)
class Request:
    """The requested settings of a flat table. None means the existing table's setting, or the default for a new table."""

    source: str = "events"
    into: str | None = None
    only: tuple[str, ...] | None = None
    events: tuple[str, ...] | None = None
    per_event: bool | None = None
    auto: bool | None = None
    rebuild: bool = False


@short_tracebacks_async
async def flatten_events(
    db: str | Path,
    table: str = "events",
    *,
    into: str | None = None,
    only: Iterable[str] | None = None,
    events: Iterable[str] | None = None,
    per_event: bool | None = None,
    auto: bool | None = None,
    rebuild: bool = False,
) -> FlattenResult:
    """Create or update a table with one typed column for each property of the events or profiles in *table*.

    The flat table is named *into* (default: `{table}_flat`). It has the columns of *table* without `properties`, and one
    column for each key, with the key as its name. DuckDB ignores case, so a name that differs from an earlier one only in
    case gets a number: `Email`, then `email_2`. The column for the empty key is `_empty`. At most 1,000 keys become
    columns, the most frequent first; the others are in the `_other` column.

    The type of a column is BOOLEAN, BIGINT, DOUBLE, TIMESTAMP (text such as `2024-01-31T12:00:00`), JSON (lists and
    objects) or VARCHAR. It is the narrowest type that holds every value without changing it. Numbers in a VARCHAR column
    have the text that Mixpanel sent. A column without a value is VARCHAR.

    A second call reads only batches that are new or have changed. It adds columns and widens types, but never removes,
    renames or narrows a column, unless *rebuild* is true. Each call is one transaction. The `_flat_columns` table
    describes the columns.

    *only* lists the keys that may become columns, and *events* lists the event names to include. If *per_event* is true,
    there is a view for each event name. Tables of profiles have no event names. If *auto* is true, each export into
    *table* updates the flat table. A later call without these arguments keeps their values. If a flat table was dropped,
    even with SQL, it has the default settings when it is created again.

    Raises:
        ArgumentError: *into* begins with an underscore, *only* has more than 1,000 keys, *only* or *events* differs
            from the existing table's setting, or *table* has profiles and *events* or *per_event* is used.
        DatabaseNotFoundError: There is no such file.
        DatabaseError: The file cannot be opened or written.
        TableNotFoundError: There is no such table.
        TableExistsError: *into* is a table that is not a flat table of *table*.
        TableFormatError: *table* does not have the columns of an exported table, or a newer release wrote the ledger.
        LedgerMismatchError: *table* has rows that the ledger does not record.
        ExportRunningError: This process is exporting into the file.
    """
    started = time.monotonic()
    request = Request(table, into, _names("only", only), _names("events", events), per_event, auto, rebuild)
    if request.only and len(request.only) > MAX_COLUMNS:
        raise ArgumentError("only", f"must contain at most {MAX_COLUMNS:,} names, got {len(request.only):,}")
    path = database_path(db)
    check_exists(path)
    async with entered_in_thread(connected_for_export(path)) as connection:
        result = await in_thread(partial(flatten, connection, path, request), connection.interrupt)
    return replace(result, duration_seconds=time.monotonic() - started)


def flatten(connection: Connection, path: Path, request: Request) -> FlattenResult:
    """Create or update the requested flat table, in a separate transaction. Raises the same errors as `flatten_events`."""
    with _converting_errors(path):
        check_ledger(connection)
        source = _source(connection, request.source)
        return with_enough_memory(connection, partial(_flatten_in_transaction, connection, source, request))


def check_flat_name(connection: Connection, path: Path, table: str) -> None:
    """Check, before an export, that a flat table of *table* can be created.

    Raises:
        TableExistsError, TableFormatError: The user has a table or view with the flat table's name.
    """
    with _converting_errors(path):
        if not flat_tables(connection, table):
            _check_name(connection, f"{table}_flat")


def flatten_after_export(connection: Connection, path: Path, table: str, *, always: bool) -> None:
    """Update the flat tables of *table* that have the `auto` setting.

    If *always* is true, update all flat tables of *table*, or create one if there is none.

    Raises:
        MixpanelDataError: See `flatten_events`. The export itself is complete.
    """
    with _converting_errors(path):
        flats = flat_tables(connection, table)
        if not (flats or always) or not table_exists(connection, table):
            return
    if always and not flats:
        flatten(connection, path, Request(table))
    for flat in flats:
        if flat.auto or always:
            flatten(connection, path, Request(table, flat.name))


def refresh_flat_tables(connection: Connection, table: str) -> None:
    """Update the flat tables of *table* after the caller has deleted rows from *table*, in the same transaction.

    A flat table is updated if it contains a batch that was changed, replaced or removed. New batches are read, too, so a
    day whose batch was replaced keeps its events. A flat table that lacks only new batches is left unchanged.

    Raises:
        TableFormatError: The columns of a flat table have been changed.
        LedgerMismatchError: *table* has rows that the ledger does not record.
        duckdb.Error: DuckDB cannot read or write.
    """
    for flat in flat_tables(connection, table):
        layout = layout_of(connection, flat.source)
        if layout:
            _check_columns(connection, flat.name, layout)
            with ExitStack() as memory:
                result = update(connection, flat, layout, memory, unparsable=True, skip_new=True)
            _update_views(connection, flat, result)


def _flatten_in_transaction(connection: Connection, source: str, request: Request) -> FlattenResult:
    try:
        with ExitStack() as memory, transaction(connection):
            return _flatten(connection, source, request, memory, unparsable=False)
    except duckdb.InvalidInputException:
        with ExitStack() as memory, transaction(connection):
            return _flatten(connection, source, request, memory, unparsable=True)


def _flatten(
    connection: Connection, source: str, request: Request, memory: ExitStack, *, unparsable: bool
) -> FlattenResult:
    create_ledger(connection)
    create_state(connection)
    layout = _layout(connection, source, request)
    flat = _target(connection, source, layout, request)
    result = update(connection, flat, layout, memory, unparsable=unparsable)
    write_table(connection, flat)
    views = _update_views(connection, flat, result)
    ((rows,),) = connection.execute(f"SELECT count(*) FROM {quoted(flat.name)}").fetchall()
    return FlattenResult(
        table=flat.name,
        source=source,
        rows=rows,
        columns=len(result.columns),
        new_columns=result.new,
        widened_columns=result.widened,
        batches_read=len(result.batches),
        rest=result.other_keys,
        views=views,
    )


def _update_views(connection: Connection, flat: FlatTable, result: Update) -> tuple[str, ...]:
    if not flat.per_event:
        drop_views(connection, flat.name)
        return ()
    views = update_views(
        connection, flat.name, result.columns, result.batches, types_changed=bool(result.widened)
    )
    return tuple(views.values())


def _source(connection: Connection, table: str) -> str:
    """Return the name of the source table as the database spells it."""
    source = name_in_database(connection, table)
    if not table_exists(connection, source):
        names = [name for name in table_names(connection) if layout_of(connection, name)]
        raise TableNotFoundError(source, advice=f"{did_you_mean(source, names)}export it first")
    return source


def _layout(connection: Connection, source: str, request: Request) -> Layout:
    """Return the layout of the source table, after checking that the request is valid for it."""
    layout = layout_of(connection, source)
    if layout is None:
        raise TableFormatError(
            source,
            f"table {source} does not have the columns of an exported table",
            advice="run `mpx upgrade` if mixpanel_data wrote it",
        )
    for argument in () if layout.has_events else ("events", "per_event"):
        if getattr(request, argument):
            raise ArgumentError(
                argument, f"cannot be used with table {source}, which has profiles instead of events"
            )
    return layout


def _target(connection: Connection, source: str, layout: Layout, request: Request) -> FlatTable:
    """Return the flat table with its new settings. If it must be rebuilt, it is dropped first."""
    name = name_in_database(connection, request.into or f"{source}_flat")
    if name.startswith("_"):
        raise ArgumentError(
            "into", f"must not begin with _, which is reserved for internal tables, got {name}"
        )
    _check_name(connection, name)
    stored = next((flat for flat in flat_tables(connection) if flat.name == name), None)
    if stored and stored.source != source:
        raise TableExistsError(
            name, f"{name} is the flat table of {stored.source}", advice="choose another name with $into"
        )
    if stored and not request.rebuild:
        _check_settings(stored, request)
        _check_columns(connection, name, layout)
    else:
        drop_flat_table(connection, name)
    return _with_settings(stored or FlatTable(name, source), request)


def _check_name(connection: Connection, table: str) -> None:
    """Check that the user has no table or view with the name."""
    check_no_view(connection, table)
    name = name_in_database(connection, table)
    if table_exists(connection, name) and all(flat.name != name for flat in flat_tables(connection)):
        raise TableExistsError(
            name,
            f"{name} is your own table, not a flat table",
            advice="choose another name with $into",
        )


def _check_columns(connection: Connection, table: str, layout: Layout) -> None:
    """Check that the columns of a flat table have not been changed."""
    recorded = [(column.name, column.type) for column in read_columns(connection, table)]
    columns = [column for column in columns_of(connection, table) if column != (OTHER, "JSON")]
    if columns != [*layout.columns.items(), *recorded]:
        raise TableFormatError(
            table,
            f"the columns of table {table} have been changed",
            advice="pass $rebuild to create it from scratch",
        )


def _check_settings(stored: FlatTable, request: Request) -> None:
    for argument, old, new in (
        ("only", stored.only, request.only),
        ("events", stored.events, request.events),
    ):
        if new is not None and new != old:
            raise ArgumentError(
                argument,
                f"differs from the setting of table {stored.name}",
                advice="pass $rebuild to create it from scratch",
            )


def _with_settings(flat: FlatTable, request: Request) -> FlatTable:
    return FlatTable(
        flat.name,
        flat.source,
        flat.only if request.only is None else request.only,
        flat.events if request.events is None else request.events,
        flat.per_event if request.per_event is None else request.per_event,
        flat.auto if request.auto is None else request.auto,
    )


def _names(argument: str, names: Iterable[str] | None) -> tuple[str, ...] | None:
    if names is None:
        return None
    if isinstance(names, str):
        raise ArgumentError(argument, f"must be a list of names, got {names!r}")
    unique = tuple(sorted(set(names)))
    if not unique or not all(isinstance(name, str) for name in unique):
        raise ArgumentError(argument, "must contain at least one name")
    return unique


def _converting_errors(path: Path) -> AbstractContextManager[None]:
    message = "cannot write the flat table ({reason}), so it was not changed"
    return converting_errors(path, message, "flatten again")
