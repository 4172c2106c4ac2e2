"""DuckDB's settings during an export: memory, threads and bulk loading.

Other connections of this process to the same file share these settings, so an export restores them at its end.
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
"""The number of rows that DuckDB compresses together. Fewer rows compress worse, and DuckDB may write them again."""

_LEAST_MEMORY, _USUAL_MEMORY, _MOST_MEMORY = 96_000_000, 160_000_000, 512_000_000  # bytes
# With this optimizer, DuckDB 2.0 returns wrong rows, too few rows, or crashes, if a transaction deletes from a table,
# inserts into it and then joins it by `rowid`.
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
        # The writer relies on the layout of Arrow arrays, which these two settings change.
        "arrow_large_buffer_size": "false",
        "produce_arrow_string_view": "false",
    }
    names = ", ".join(f"current_setting('{name}')" for name in settings)
    before = connection.execute(f"SELECT {names}").fetchone() or ()
    set_session(connection)
    try:
        for name, value in settings.items():
            with suppress(duckdb.OutOfMemoryException):  # the application already uses more than this limit
                connection.execute(f"SET GLOBAL {name} = '{value}'")
        yield
    finally:
        with suppress(duckdb.Error):  # another connection of the application may be writing
            connection.execute("CHECKPOINT")
        for name, value in zip(settings, before, strict=True):
            with suppress(duckdb.Error):  # after a fatal error the database is closed
                connection.execute(f"SET GLOBAL {name} = '{_settable(value)}'")


def set_session(connection: duckdb.DuckDBPyConnection) -> None:
    """Apply the settings that an export's SQL relies on, to this connection only."""
    for setting in ("TimeZone = 'UTC'", "default_collation = ''"):
        connection.execute(f"SET SESSION {setting}")
    # DuckDB refuses this setting in a notebook without widgets, where it draws no progress bar.
    with suppress(duckdb.InvalidInputException):
        connection.execute("SET SESSION enable_progress_bar = false")


@contextmanager
def room_for_lines(connection: duckdb.DuckDBPyConnection, longest: int) -> Iterator[None]:
    """Give DuckDB more memory and a single thread while it reads lines of up to *longest* bytes.

    Several operators hold copies of a line. If *longest* is small, nothing changes.
    """
    if longest <= _USUAL_LINE:
        yield
    else:
        with _changed_settings(connection, _one_thread_with(_memory_for_lines(longest))):
            yield


@contextmanager
def most_memory(connection: duckdb.DuckDBPyConnection, longest: int) -> Iterator[None]:
    """Give DuckDB the most memory that it may use for lines of up to *longest* bytes, for a last try.

    This may exceed `memory_limit`, but not half of the machine's memory.
    """
    most = min([_MOST_MEMORY, *(size // 2 for size in _memory_sizes())])
    with _changed_settings(connection, _one_thread_with(max(_memory_for_lines(longest), most))):
        yield


def _memory_for_lines(longest: int) -> int:
    return memory_limit() + (16 * longest if longest > _USUAL_LINE else 0)


def _one_thread_with(memory: int) -> dict[str, str]:
    return {"memory_limit": f"{memory >> 20}MiB", "threads": "1"}


@contextmanager
def _changed_settings(connection: duckdb.DuckDBPyConnection, settings: Mapping[str, str]) -> Iterator[None]:
    """Change settings while the block runs. Only one thread does this at a time.

    A second cursor changes them, because the transaction of *connection* may fail.
    """
    names = ", ".join(f"current_setting('{name}')" for name in settings)
    with _changing, connection.cursor() as cursor:
        before = cursor.execute(f"SELECT {names}").fetchone() or ()
        for name, value in settings.items():
            cursor.execute(f"SET GLOBAL {name} = '{value}'")
        try:
            yield
        finally:
            for name, value in zip(settings, before, strict=True):
                # The application may use more memory than the old limit, or the database may be closed.
                with suppress(duckdb.Error):
                    cursor.execute(f"SET GLOBAL {name} = '{_settable(value)}'")


def memory_limit() -> int:
    """Return how many bytes of memory DuckDB may use: `MPX_MEMORY_LIMIT`, or else a default.

    Raises:
        ConfigError: The variable is not a size such as `512MB`, or is less than 96 MB.
    """
    limit = variable("MPX_MEMORY_LIMIT")
    return _bytes_in(limit) if limit else default_limit(_memory_sizes())


def default_limit(sizes: Sequence[int]) -> int:
    """Return a quarter of the smallest of *sizes*, but at least 96 MB and at most 160 MB.

    *sizes* are the memory of the machine and of its control group in bytes. With less than 96 MB, DuckDB loads nothing.
    """
    return max(_LEAST_MEMORY, min([_USUAL_MEMORY, *(size // 4 for size in sizes)]))


def validator_count() -> int:
    """Return how many chunks are validated at the same time: one for every two processors of this process."""
    return max(1, _processors() // 2)


def _processors() -> int:
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # not on Windows and macOS
        return os.cpu_count() or 1


def _threads() -> str:
    """Return the number of threads of a statement: `MPX_THREADS`, or else one.

    Two statements run at the same time anyway: one validates lines, another inserts rows. A second thread for a statement
    costs more than it saves, because the rows of two threads must be merged.
    """
    threads = variable("MPX_THREADS") or "1"
    if not re.fullmatch(r"[1-9][0-9]{0,3}", threads):
        raise ConfigError(
            f"MPX_THREADS must be a number of threads, got {threads!r}", advice="use 1 or more, or unset it"
        )
    return threads


def _disabled(connection: duckdb.DuckDBPyConnection) -> str:
    """Return the optimizers to disable: those that the application disabled already, and `_UNSOUND`."""
    ((before,),) = connection.execute("SELECT current_setting('disabled_optimizers')").fetchall()
    return ",".join(sorted({*filter(None, before.split(",")), _UNSOUND}))


def _settable(value: object) -> str:
    """Return the text that restores the setting *value*. DuckDB truncates sizes after one decimal, so it adds a half."""
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
    """Return the memory of the machine and of its control group in bytes, if the system reports them."""
    return [size for size in (_memory_of_machine(), *_memory_of_group()) if size]


def _memory_of_machine() -> int:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):  # Windows does not report it
        return 0


def _memory_of_group() -> Iterator[int]:
    for name in ("memory.max", "memory/memory.limit_in_bytes"):  # cgroup v2, v1
        try:
            yield int(Path("/sys/fs/cgroup", name).read_text())
        except (OSError, ValueError):  # no such file, or "max"
            continue
