"""What DuckDB may use and how it works while an export runs: memory, threads, and the rest of its settings.

They belong to the instance, which an application's own connections in this process share, so those that the export
changes are put back when it ends.
"""

import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import RLock

import duckdb

from mixpanel_export.errors import ConfigError

ROW_GROUP = 122_880
"""Rows that DuckDB compresses together; a commit of less compresses worse, and is written again by the next."""

_LEAST_MEMORY, _USUAL_MEMORY, _MOST_MEMORY = 96_000_000, 160_000_000, 512_000_000  # bytes
# DuckDB 2.0 finds too few rows, others, or crashes with it, where a transaction that has inserted joins the table by
# `rowid` after rows were deleted from it.
_UNSOUND = "join_filter_pushdown"
_USUAL_LINE = 4 << 20  # bytes; Mixpanel takes events of up to 1 MB
_changing = RLock()


@contextmanager
def bulk_settings(connection: duckdb.DuckDBPyConnection) -> Iterator[None]:
    """Set what bulk loading wants; afterwards, with no transaction open, write the log into the file and put it back."""
    wanted = {
        "memory_limit": f"{memory_limit() >> 20}MiB",
        "preserve_insertion_order": "true",
        # A checkpoint would otherwise write the row groups of small commits again to merge them.
        "max_vacuum_tasks": "0",
        "threads": _threads(),
        "disabled_optimizers": _disabled(connection),
        # What is found in lines is kept as Arrow arrays, whose layout these change.
        "arrow_large_buffer_size": "false",
        "produce_arrow_string_view": "false",
    }
    names = ", ".join(f"current_setting('{name}')" for name in wanted)
    before = connection.execute(f"SELECT {names}").fetchone() or ()
    set_session(connection)
    try:
        for name, value in wanted.items():
            with suppress(duckdb.OutOfMemoryException):  # what the application holds is above our limit
                connection.execute(f"SET GLOBAL {name} = '{value}'")
        yield
    finally:
        with suppress(duckdb.Error):  # another connection of the application may be writing
            connection.execute("CHECKPOINT")
        for name, value in zip(wanted, before, strict=True):
            with suppress(duckdb.Error):  # after a fatal error there is no instance left to set anything in
                connection.execute(f"SET GLOBAL {name} = '{_settable(value)}'")


def set_session(connection: duckdb.DuckDBPyConnection) -> None:
    """Let a connection, and only it, work as an export's SQL expects."""
    for setting in ("TimeZone = 'UTC'", "default_collation = ''"):
        connection.execute(f"SET SESSION {setting}")
    # In a notebook without widgets it cannot be told so, and draws none.
    with suppress(duckdb.InvalidInputException):
        connection.execute("SET SESSION enable_progress_bar = false")


@contextmanager
def room_for_lines(connection: duckdb.DuckDBPyConnection, longest: int) -> Iterator[None]:
    """Let DuckDB have more memory than usual, and one thread, while it reads lines of up to *longest* bytes, if long.

    Copies of the line pass through several operators.
    """
    if longest <= _USUAL_LINE:
        yield
    else:
        with _for_now(connection, _one_thread_with(_for_lines(longest))):
            yield


@contextmanager
def room_at_last(connection: duckdb.DuckDBPyConnection, longest: int) -> Iterator[None]:
    """Let DuckDB have the most that it may need to read lines of up to *longest* bytes, where less was too little.

    That may be more than `memory_limit`, but not more than half of what there is.
    """
    most = min([_MOST_MEMORY, *(size // 2 for size in _memory_that_there_is())])
    with _for_now(connection, _one_thread_with(max(_for_lines(longest), most))):
        yield


def _for_lines(longest: int) -> int:
    return memory_limit() + (16 * longest if longest > _USUAL_LINE else 0)


def _one_thread_with(memory: int) -> dict[str, str]:
    return {"memory_limit": f"{memory >> 20}MiB", "threads": "1"}


@contextmanager
def _for_now(connection: duckdb.DuckDBPyConnection, settings: Mapping[str, str]) -> Iterator[None]:
    """Set what is the instance's, from beside a transaction that may fail; one caller at a time."""
    names = ", ".join(f"current_setting('{name}')" for name in settings)
    with _changing, connection.cursor() as beside:
        before = beside.execute(f"SELECT {names}").fetchone() or ()
        for name, value in settings.items():
            beside.execute(f"SET GLOBAL {name} = '{value}'")
        try:
            yield
        finally:
            for name, value in zip(settings, before, strict=True):
                # What the application holds may be above that, or the instance be broken.
                with suppress(duckdb.Error):
                    beside.execute(f"SET GLOBAL {name} = '{_settable(value)}'")


def memory_limit() -> int:
    """Bytes that DuckDB may use: `MPX_MEMORY_LIMIT`, else a quarter of the memory that there is, 96 to 160 MB.

    What there is, is the machine's or the control group's, whichever is less. Less than 96 MB loads nothing.

    Raises:
        ConfigError: the variable is no size such as `512MB`, or less than 96 MB.
    """
    given = os.environ.get("MPX_MEMORY_LIMIT")
    if given is not None:
        return _bytes_in(given)
    return max(_LEAST_MEMORY, min([_USUAL_MEMORY, *(size // 4 for size in _memory_that_there_is())]))


def _threads() -> str:
    """Return how many threads a statement has: `MPX_THREADS`, else one.

    Lines are examined beside the insert of others, so two statements run at a time. A second thread for each would
    copy more than it brings: what it appends has to be joined to what the first one does.
    """
    given = os.environ.get("MPX_THREADS", "1")
    if not re.fullmatch(r"[1-9][0-9]{0,3}", given):
        raise ConfigError(f"MPX_THREADS must be a number of threads, 1 or more, got {given!r}")
    return given


def _disabled(connection: duckdb.DuckDBPyConnection) -> str:
    """Return what DuckDB's optimizer is not to do: what the application forbids, and what is unsound."""
    ((before,),) = connection.execute("SELECT current_setting('disabled_optimizers')").fetchall()
    return ",".join(sorted({*filter(None, before.split(",")), _UNSOUND}))


def _settable(value: object) -> str:
    """Return a setting as it can be set to the same again: DuckDB cuts sizes off after one decimal."""
    size = re.fullmatch(r"(\d+\.\d) (\w+)", str(value))
    if not size:
        return str(value)
    return "-1" if size[2] == "PiB" else f"{size[1]}5 {size[2]}"  # -1: as much as there is


def _bytes_in(size: str) -> int:
    found = re.fullmatch(r"([0-9]{1,9}(?:\.[0-9]+)?) ?(M|G)B", size.strip(), re.IGNORECASE)
    if not found:
        raise ConfigError(f"MPX_MEMORY_LIMIT must be a size such as 512MB or 2GB, got {size!r}")
    in_bytes = int(float(found[1]) * (1e6 if found[2] in "mM" else 1e9))
    if in_bytes < _LEAST_MEMORY:
        raise ConfigError(
            f"MPX_MEMORY_LIMIT must be {_LEAST_MEMORY // 1_000_000}MB or more, or nothing could be loaded, got {size!r}"
        )
    return in_bytes


def _memory_that_there_is() -> list[int]:
    """Return the bytes of the machine and of the control group, as far as they are told."""
    return [size for size in (_memory_of_machine(), *_memory_of_group()) if size]


def _memory_of_machine() -> int:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):  # not told on Windows
        return 0


def _memory_of_group() -> Iterator[int]:
    for name in ("memory.max", "memory/memory.limit_in_bytes"):  # cgroup v2, v1
        try:
            yield int(Path("/sys/fs/cgroup", name).read_text())
        except (OSError, ValueError):  # no such file, or "max"
            continue
