"""DuckDB's settings during an export: memory, threads and bulk loading.

Other connections from this process to the same file share these settings, so an export restores them when it ends.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from threading import RLock
from typing import TypeVar

import duckdb

from mixpanel_export._config.environment import variable
from mixpanel_export._database.machine import memory_sizes, processors
from mixpanel_export.errors import ConfigError

T = TypeVar("T")

ROW_GROUP = 122_880
"""The number of rows that DuckDB compresses together. Fewer rows compress less well, and DuckDB may rewrite them."""

_MIN_MEMORY, _MAX_MEMORY = 96_000_000, 512_000_000  # bytes
# Bytes for libraries, blocks, mapped files and validation, measured with ten workers.
_OTHER_MEMORY = 284_000_000
_BASE_MEMORY = 160_000_000  # bytes that a load needs with any number of threads
_THREAD_MEMORY = 100_000_000  # bytes; each inserting thread fills its own row group
# With this optimizer, DuckDB 2.0 returns wrong or too few rows, or crashes, if a transaction deletes from a table,
# inserts into it and then joins it by `rowid`.
_UNSOUND_OPTIMIZER = "join_filter_pushdown"
_COLUMN_MEMORY = 400_000  # bytes for each column of a table that is filled
_USUAL_COLUMNS = 100
USUAL_LINE = 4 << 20
"""The longest line, in bytes, that DuckDB loads without additional memory. Mixpanel accepts events of up to 1 MB."""
# If a commit has too little memory, DuckDB raises a `TransactionException`. Its message contains one of these parts.
_COMMIT_LACKS_MEMORY = ("failed to pin block", "could not allocate block")
_settings_lock = RLock()


@contextmanager
def bulk_settings(connection: duckdb.DuckDBPyConnection) -> Iterator[None]:
    """Apply the settings for bulk loading. At the end, write a checkpoint and restore the previous settings.

    No transaction may be open at the end.
    """
    settings = {
        "memory_limit": f"{memory_limit() >> 20}MiB",
        # Otherwise, the inserting threads would wait for each other.
        "preserve_insertion_order": "false",
        # Otherwise, a checkpoint would rewrite the row groups of small commits in order to merge them.
        "max_vacuum_tasks": "0",
        "threads": str(thread_count()),
        "disabled_optimizers": _UNSOUND_OPTIMIZER,
    }
    before = _current_values(connection, settings)
    disabled = {*filter(None, before["disabled_optimizers"].split(",")), _UNSOUND_OPTIMIZER}
    settings["disabled_optimizers"] = ",".join(sorted(disabled))
    set_session(connection)
    try:
        for name, value in settings.items():
            with suppress(duckdb.OutOfMemoryException):  # the application already uses more than this limit
                connection.execute(f"SET GLOBAL {name} = '{value}'")
        yield
    finally:
        with suppress(duckdb.Error):  # another connection of the application may be writing
            connection.execute("CHECKPOINT")
        for name, value in before.items():
            with suppress(duckdb.Error):  # after a fatal error, the database is closed
                connection.execute(f"SET GLOBAL {name} = '{value}'")


@contextmanager
def validation_database() -> Iterator[duckdb.DuckDBPyConnection]:
    """Yield an in-memory database. Its statements run in the caller's thread and preserve the row order."""
    limit = max(_MIN_MEMORY, memory_limit() // 2)
    config: dict[str, str | bool | int | float | list[str]] = {
        "memory_limit": f"{limit >> 20}MiB",
        "threads": "1",  # each validator has its own thread
        "temp_directory": "",
    }
    with duckdb.connect(":memory:", config=config) as connection:
        set_session(connection)
        yield connection


def set_session(connection: duckdb.DuckDBPyConnection) -> None:
    """Apply the settings that an export's SQL relies on, but only to this connection."""
    for setting in ("TimeZone = 'UTC'", "default_collation = ''"):
        connection.execute(f"SET SESSION {setting}")
    # DuckDB rejects this setting in a notebook without widgets, where it draws no progress bar anyway.
    with suppress(duckdb.InvalidInputException):
        connection.execute("SET SESSION enable_progress_bar = false")


@contextmanager
def memory_for_lines(connection: duckdb.DuckDBPyConnection, longest: int) -> Iterator[None]:
    """Give DuckDB more memory and a single thread while it reads lines of up to *longest* bytes.

    Several operators hold copies of a line. If *longest* is small, the settings are not changed.
    """
    if longest <= USUAL_LINE:
        yield
    else:
        with _changed_settings(connection, _one_thread_with(_memory_for_lines(longest))):
            yield


@contextmanager
def maximum_memory(connection: duckdb.DuckDBPyConnection, longest: int) -> Iterator[None]:
    """Give DuckDB the maximum memory for lines of up to *longest* bytes, for a final attempt.

    This may exceed `memory_limit`, but not half of the machine's memory.
    """
    maximum = min([_MAX_MEMORY, *(size // 2 for size in memory_sizes())])
    with _changed_settings(connection, _one_thread_with(max(_memory_for_lines(longest), maximum))):
        yield


def lacks_memory(error: Exception) -> bool:
    """Whether DuckDB had too little memory, including during a commit."""
    if isinstance(error, duckdb.OutOfMemoryException):
        return True
    return any(reason in str(error) for reason in _COMMIT_LACKS_MEMORY)


def with_enough_memory(connection: duckdb.DuckDBPyConnection, transact: Callable[[], T]) -> T:
    """Return the result of *transact*, a whole transaction. If memory runs out, try again with the maximum memory."""
    try:
        return transact()
    except duckdb.Error as error:
        if not lacks_memory(error):
            raise
        with maximum_memory(connection, 0):
            return transact()


@contextmanager
def more_threads(connection: duckdb.DuckDBPyConnection, rows: int) -> Iterator[None]:
    """Let statements that insert *rows* use all processors, as far as memory allows, unless `MPX_THREADS` is set.

    Each thread gets at least a whole row group, because DuckDB copies smaller ones together.
    """
    threads = min(_threads(processors()), rows // ROW_GROUP)
    if variable("MPX_THREADS") or threads <= thread_count():
        yield
    else:
        with _changed_settings(connection, {"threads": str(threads)}):
            yield


@contextmanager
def memory_for_columns(connection: duckdb.DuckDBPyConnection, columns: int) -> Iterator[None]:
    """Give DuckDB more memory and a single thread while it fills a table with many columns.

    DuckDB holds at least one block of each column. With few columns, nothing changes.
    """
    if columns <= _USUAL_COLUMNS:
        yield
    else:
        memory = memory_limit() + columns * _COLUMN_MEMORY
        with _changed_settings(connection, _one_thread_with(memory)):
            yield


def _memory_for_lines(longest: int) -> int:
    return memory_limit() + (16 * longest if longest > USUAL_LINE else 0)


def _one_thread_with(memory: int) -> dict[str, str]:
    return {"memory_limit": f"{memory >> 20}MiB", "threads": "1"}


@contextmanager
def _changed_settings(connection: duckdb.DuckDBPyConnection, settings: Mapping[str, str]) -> Iterator[None]:
    """Change settings while the block runs, as far as DuckDB allows. Only one thread at a time may do this.

    The settings are changed on a second cursor, because the transaction on *connection* may fail.
    """
    with _settings_lock, connection.cursor() as cursor:
        before = _current_values(cursor, settings)
        try:
            for name, value in settings.items():
                with suppress(duckdb.Error):  # the application may have locked the settings
                    cursor.execute(f"SET GLOBAL {name} = '{value}'")
            yield
        finally:
            for name, value in before.items():
                # The application may use more memory than the old limit, or the database may be closed.
                with suppress(duckdb.Error):
                    cursor.execute(f"SET GLOBAL {name} = '{value}'")


def memory_limit() -> int:
    """Return how many bytes of memory DuckDB may use: `MPX_MEMORY_LIMIT`, or a default for this machine.

    If `MPX_PROCESS_MEMORY` is set, the result is at most its value minus the memory that an export needs outside of
    DuckDB.

    Raises:
        ConfigError: A variable is not a size such as `512MB`, or is too small for a load.
    """
    limit, process = variable("MPX_MEMORY_LIMIT"), variable("MPX_PROCESS_MEMORY")
    sizes = [_bytes_in("MPX_MEMORY_LIMIT", limit, _MIN_MEMORY)] if limit else []
    if process:
        sizes.append(_bytes_in("MPX_PROCESS_MEMORY", process, _MIN_MEMORY + _OTHER_MEMORY) - _OTHER_MEMORY)
    return min(sizes) if limit else min([*sizes, default_limit(memory_sizes(), processors())])


def default_limit(sizes: Sequence[int], cores: int) -> int:
    """Return DuckDB's default memory limit. *sizes* contains the memory sizes that the system reports.

    The default is a sixteenth of the memory, but at least 160 MB, and no more than *cores* threads can use. On a small
    machine, the default is a quarter of the memory, but at least 96 MB, the minimum for a load.
    """
    smallest = min(sizes, default=0)
    limit = min(max(_BASE_MEMORY, smallest // 16), _BASE_MEMORY + cores * _THREAD_MEMORY)
    return max(_MIN_MEMORY, min([limit, *(size // 4 for size in sizes)]))


def thread_count() -> int:
    """Return how many threads insert rows, and how many chunks are validated at a time.

    The number is `MPX_THREADS`, or one thread for every two processors: half of the processors validate while the
    other half insert. The number is smaller if there is too little memory for a row group in each thread.

    Raises:
        ConfigError: The variable is not a number of threads.
    """
    threads = variable("MPX_THREADS")
    if threads is None:
        return _threads(processors() // 2)
    if not re.fullmatch(r"[1-9][0-9]{0,3}", threads):
        raise ConfigError(
            f"MPX_THREADS must be a number of threads, got {threads!r}", advice="use 1 or more, or unset it"
        )
    return int(threads)


def _threads(maximum: int) -> int:
    """Return how many threads, at most *maximum*, have enough memory for a row group each."""
    return max(1, min(maximum, (memory_limit() - _BASE_MEMORY) // _THREAD_MEMORY))


def _current_values(connection: duckdb.DuckDBPyConnection, settings: Iterable[str]) -> dict[str, str]:
    """Return a string that restores the current value of each of the *settings*."""
    names = ", ".join(f"current_setting('{name}')" for name in settings)
    (values,) = connection.execute(f"SELECT {names}").fetchall()
    return {name: _value_to_restore(value) for name, value in zip(settings, values, strict=True)}


def _value_to_restore(value: object) -> str:
    """Return a string that restores the setting *value*. DuckDB truncates sizes to one decimal, so a digit is added."""
    size = re.fullmatch(r"(\d+\.\d) (\w+)", str(value))
    if not size:
        return str(value)
    return "-1" if size[2] == "PiB" else f"{size[1]}5 {size[2]}"  # -1: no limit


def _bytes_in(name: str, size: str, minimum: int) -> int:
    """Convert *size*, the value of the variable *name*, to bytes. It must be at least *minimum*."""
    match = re.fullmatch(r"([0-9]{1,9}(?:\.[0-9]+)?) ?(M|G)B", size, re.IGNORECASE)
    if not match:
        raise ConfigError(f"{name} must be a size such as 512MB or 2GB, got {size!r}")
    in_bytes = int(float(match[1]) * (1e6 if match[2] in "mM" else 1e9))
    if in_bytes < minimum:
        raise ConfigError(
            f"{name} must be at least {minimum // 1_000_000}MB, the minimum for a load, got {size!r}"
        )
    return in_bytes
