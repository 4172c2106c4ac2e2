"""DuckDB's settings while an export runs: memory, threads, and what bulk loading needs.

Settings belong to the DuckDB instance, which other connections of this process share. So an export restores those
that it changes.
"""

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import RLock

import duckdb

from mixpanel_export._environment import variable
from mixpanel_export.errors import ConfigError

ROW_GROUP = 122_880
"""Rows that DuckDB compresses together. A smaller commit compresses worse, and the next checkpoint writes it again."""

_LEAST_MEMORY, _USUAL_MEMORY, _MOST_MEMORY = 96_000_000, 160_000_000, 512_000_000  # bytes
# With it, DuckDB 2.0 returns too few or wrong rows, or crashes, when a transaction deletes rows from a table, inserts
# into it and then joins it by `rowid`.
_UNSOUND = "join_filter_pushdown"
_USUAL_LINE = 4 << 20  # bytes; Mixpanel takes events of up to 1 MB
_changing = RLock()


@contextmanager
def bulk_settings(connection: duckdb.DuckDBPyConnection) -> Iterator[None]:
    """Apply the settings for bulk loading; afterwards, with no transaction open, checkpoint and restore them."""
    settings = {
        "memory_limit": f"{memory_limit() >> 20}MiB",
        "preserve_insertion_order": "true",
        # A checkpoint would otherwise write the row groups of small commits again to merge them.
        "max_vacuum_tasks": "0",
        "threads": _threads(),
        "disabled_optimizers": _disabled(connection),
        # They change the layout of Arrow arrays, which the writer relies on.
        "arrow_large_buffer_size": "false",
        "produce_arrow_string_view": "false",
    }
    names = ", ".join(f"current_setting('{name}')" for name in settings)
    before = connection.execute(f"SELECT {names}").fetchone() or ()
    set_session(connection)
    try:
        for name, value in settings.items():
            with suppress(duckdb.OutOfMemoryException):  # the application uses more than our limit already
                connection.execute(f"SET GLOBAL {name} = '{value}'")
        yield
    finally:
        with suppress(duckdb.Error):  # another connection of the application may be writing
            connection.execute("CHECKPOINT")
        for name, value in zip(settings, before, strict=True):
            with suppress(duckdb.Error):  # after a fatal error there is no instance left to set anything in
                connection.execute(f"SET GLOBAL {name} = '{_settable(value)}'")


def set_session(connection: duckdb.DuckDBPyConnection) -> None:
    """Apply the settings that an export's SQL relies on, to this connection only."""
    for setting in ("TimeZone = 'UTC'", "default_collation = ''"):
        connection.execute(f"SET SESSION {setting}")
    # In a notebook without widgets this setting is refused, and no bar is drawn.
    with suppress(duckdb.InvalidInputException):
        connection.execute("SET SESSION enable_progress_bar = false")


@contextmanager
def room_for_lines(connection: duckdb.DuckDBPyConnection, longest: int) -> Iterator[None]:
    """Give DuckDB more memory and a single thread while it reads long lines, of up to *longest* bytes.

    Several operators hold copies of a line. Short lines change nothing.
    """
    if longest <= _USUAL_LINE:
        yield
    else:
        with _for_now(connection, _one_thread_with(_for_lines(longest))):
            yield


@contextmanager
def most_memory(connection: duckdb.DuckDBPyConnection, longest: int) -> Iterator[None]:
    """Give DuckDB the most memory that reading lines of up to *longest* bytes may need, after less was too little.

    This may exceed `memory_limit`, but not half of the memory of the machine.
    """
    most = min([_MOST_MEMORY, *(size // 2 for size in _memory_sizes())])
    with _for_now(connection, _one_thread_with(max(_for_lines(longest), most))):
        yield


def _for_lines(longest: int) -> int:
    return memory_limit() + (16 * longest if longest > _USUAL_LINE else 0)


def _one_thread_with(memory: int) -> dict[str, str]:
    return {"memory_limit": f"{memory >> 20}MiB", "threads": "1"}


@contextmanager
def _for_now(connection: duckdb.DuckDBPyConnection, settings: Mapping[str, str]) -> Iterator[None]:
    """Change settings of the instance for a while, through another cursor, as the transaction may fail.

    One caller at a time.
    """
    names = ", ".join(f"current_setting('{name}')" for name in settings)
    with _changing, connection.cursor() as beside:
        before = beside.execute(f"SELECT {names}").fetchone() or ()
        for name, value in settings.items():
            beside.execute(f"SET GLOBAL {name} = '{value}'")
        try:
            yield
        finally:
            for name, value in zip(settings, before, strict=True):
                # The application may use more than the old limit, or the instance may be broken.
                with suppress(duckdb.Error):
                    beside.execute(f"SET GLOBAL {name} = '{_settable(value)}'")


def memory_limit() -> int:
    """Return the bytes that DuckDB may use: `MPX_MEMORY_LIMIT`, else a quarter of all memory, 96 to 160 MB.

    All memory is that of the machine or of its control group, whichever is less. Less than 96 MB loads nothing.

    Raises:
        ConfigError: the variable is not a size such as `512MB`, or less than 96 MB.
    """
    limit = variable("MPX_MEMORY_LIMIT")
    return _bytes_in(limit) if limit else default_limit(_memory_sizes())


def default_limit(sizes: Sequence[int]) -> int:
    """Return a quarter of the least of *sizes*, the amounts of memory that the system tells, between 96 and 160 MB."""
    return max(_LEAST_MEMORY, min([_USUAL_MEMORY, *(size // 4 for size in sizes)]))


def validator_count() -> int:
    """Return how many chunks are validated at a time: one for every two processors that this process may use."""
    return max(1, _processors() // 2)


def _processors() -> int:
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # not on Windows and macOS
        return os.cpu_count() or 1


def _threads() -> str:
    """Return the number of threads of a statement: `MPX_THREADS`, else one.

    Two statements run at a time already: one validates lines while another inserts. A second thread for each costs
    more than it saves, because the rows that two threads append are merged afterwards.
    """
    threads = variable("MPX_THREADS") or "1"
    if not re.fullmatch(r"[1-9][0-9]{0,3}", threads):
        raise ConfigError(
            f"MPX_THREADS must be a number of threads, got {threads!r}", advice="use 1 or more, or unset it"
        )
    return threads


def _disabled(connection: duckdb.DuckDBPyConnection) -> str:
    """Return the optimizers to disable: those that the application disabled, and the unsound one."""
    ((before,),) = connection.execute("SELECT current_setting('disabled_optimizers')").fetchall()
    return ",".join(sorted({*filter(None, before.split(",")), _UNSOUND}))


def _settable(value: object) -> str:
    """Return the text that sets a setting to the same value again: DuckDB shows sizes cut off after one decimal."""
    size = re.fullmatch(r"(\d+\.\d) (\w+)", str(value))
    if not size:
        return str(value)
    return "-1" if size[2] == "PiB" else f"{size[1]}5 {size[2]}"  # -1: no limit


def _bytes_in(size: str) -> int:
    match = re.fullmatch(r"([0-9]{1,9}(?:\.[0-9]+)?) ?(M|G)B", size, re.IGNORECASE)
    if not match:
        raise ConfigError(f"MPX_MEMORY_LIMIT must be a size such as 512MB or 2GB, got {size!r}")
    in_bytes = int(float(match[1]) * (1e6 if match[2] in "mM" else 1e9))
    if in_bytes < _LEAST_MEMORY:
        raise ConfigError(
            f"MPX_MEMORY_LIMIT must be {_LEAST_MEMORY // 1_000_000}MB or more, or nothing could be loaded, got {size!r}"
        )
    return in_bytes


def _memory_sizes() -> list[int]:
    """Return the memory of the machine and of its control group in bytes, as far as the system tells."""
    return [size for size in (_memory_of_machine(), *_memory_of_group()) if size]


def _memory_of_machine() -> int:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):  # Windows does not tell
        return 0


def _memory_of_group() -> Iterator[int]:
    for name in ("memory.max", "memory/memory.limit_in_bytes"):  # cgroup v2, v1
        try:
            yield int(Path("/sys/fs/cgroup", name).read_text())
        except (OSError, ValueError):  # no such file, or "max"
            continue
