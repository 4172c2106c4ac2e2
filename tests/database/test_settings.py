"""DuckDB's settings during an export: memory, threads, and the application's values afterwards."""

import os
from contextlib import closing
from functools import partial
from pathlib import Path

import anyio
import duckdb
import pytest
from examples import slow
from support import ACCOUNT, answering

from mixpanel_export import export_events
from mixpanel_export._database.connection import (
    connect,
    connected_for_export,
)
from mixpanel_export._database.settings import (
    ROW_GROUP,
    default_limit,
    maximum_memory,
    memory_for_lines,
    memory_limit,
    more_threads,
)
from mixpanel_export.errors import ConfigError

SETTINGS = ("memory_limit", "preserve_insertion_order", "max_vacuum_tasks", "disabled_optimizers")


@pytest.fixture
def db(tmp_path: Path) -> Path:
    return tmp_path / 'it\'s a "test".duckdb'


def settings(connection: duckdb.DuckDBPyConnection) -> dict[str, object]:
    found = connection.execute(
        "SELECT name, value FROM duckdb_settings() WHERE name IN (SELECT unnest(?))", [list(SETTINGS)]
    ).fetchall()
    return dict(found)


def test_settings_are_the_applications_again_afterwards(db: Path) -> None:
    """The settings that an export changes in the application's DuckDB instance are restored, even after an error."""
    with closing(connect(db)) as own:
        own.execute("SET GLOBAL memory_limit = '777MiB'")
        own.execute("SET GLOBAL preserve_insertion_order = true")
        own.execute("SET GLOBAL disabled_optimizers = 'statistics_propagation,filter_pullup'")
        own.execute("SET TimeZone = 'America/New_York'")
        before = settings(own)
        with pytest.raises(LookupError), connected_for_export(db) as connection:
            assert settings(connection) != before
            assert own.execute("SELECT current_setting('TimeZone')").fetchone() == ("America/New_York",)
            raise LookupError
        assert settings(own) == before


@pytest.mark.parametrize(
    "sizes, cores, limit",
    [
        ([], 8, 160_000_000),
        ([600_000_000, 8 << 30], 8, 150_000_000),
        ([1 << 20], 8, 96_000_000),
        ([2_000_000_000], 8, 160_000_000),
        ([32_000_000_000, 6_400_000_000], 8, 400_000_000),
        ([32_000_000_000], 1, 260_000_000),
    ],
)
def test_the_default_of_memory_follows_the_machine(sizes: list[int], cores: int, limit: int) -> None:
    """A sixteenth of the memory, between what a load needs and what the cores can use, and on small machines a quarter.

    Where the system tells no size, as Windows does not, the load gets what it needs.
    """
    assert default_limit(sizes, cores) == limit


@pytest.mark.parametrize(
    "given, size", [("512MB", 512_000_000), ("1.5 GB", 1_500_000_000), ("96mb", 96_000_000)]
)
def test_memory_and_threads_are_what_the_environment_says(
    db: Path, given: str, size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Users can set more memory or processors than the cautious default, or fewer."""
    monkeypatch.setenv("MPX_MEMORY_LIMIT", given)
    monkeypatch.setenv("MPX_THREADS", "1")
    assert memory_limit() == size
    with connected_for_export(db) as connection:
        threads = connection.execute("SELECT current_setting('threads')").fetchone()
    assert threads == (1,)


def current_threads(connection: duckdb.DuckDBPyConnection) -> int:
    ((threads,),) = connection.execute("SELECT current_setting('threads')").fetchall()
    return int(threads)


@pytest.mark.parametrize("rows, threads", [(ROW_GROUP, 1), (2 * ROW_GROUP, 2), (9 * ROW_GROUP, 4)])
def test_each_inserting_thread_gets_a_whole_row_group(
    rows: int, threads: int, db: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The last rows of an export are inserted on all processors, but a thread with less than a row group does not help."""
    # The number of processors cannot be set otherwise.
    monkeypatch.setattr("mixpanel_export._database.settings.processors", lambda: 4)
    monkeypatch.setenv("MPX_MEMORY_LIMIT", "1GB")
    with connected_for_export(db) as connection:
        with more_threads(connection, rows):
            assert current_threads(connection) == max(2, threads)
        assert current_threads(connection) == 2


def test_the_memory_of_the_process_bounds_that_of_duckdb(monkeypatch: pytest.MonkeyPatch) -> None:
    """DuckDB gets the memory that the rest of an export leaves, but never more than its own limit or default."""
    default = memory_limit()
    monkeypatch.setenv("MPX_PROCESS_MEMORY", "380MB")
    assert memory_limit() == 96_000_000
    monkeypatch.setenv("MPX_PROCESS_MEMORY", "430MB")
    assert memory_limit() == 146_000_000
    monkeypatch.setenv("MPX_MEMORY_LIMIT", "100MB")
    assert memory_limit() == 100_000_000
    monkeypatch.setenv("MPX_PROCESS_MEMORY", "900GB")
    monkeypatch.delenv("MPX_MEMORY_LIMIT")
    assert memory_limit() == default


@pytest.mark.parametrize(
    "variable, given",
    [
        ("MPX_MEMORY_LIMIT", "much"),
        ("MPX_MEMORY_LIMIT", "-1GB"),
        ("MPX_MEMORY_LIMIT", "95.9MB"),
        ("MPX_MEMORY_LIMIT", "9" * 400 + "GB"),
        ("MPX_PROCESS_MEMORY", "much"),
        ("MPX_PROCESS_MEMORY", "379.9MB"),
        ("MPX_THREADS", "0"),
    ],
)
def test_settings_that_mean_nothing_are_refused(
    db: Path, variable: str, given: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An invalid setting in the environment is named before the first request."""
    monkeypatch.setenv(variable, given)
    with pytest.raises(ConfigError, match=f"{variable} must be .*{given}"), connected_for_export(db):
        pass


def test_lines_of_kilobytes_are_loaded_where_the_usual_memory_is_too_little(
    db: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whole buffers of such lines are loaded at a time; a chunk that does not fit gets more memory."""
    monkeypatch.setenv("MPX_MEMORY_LIMIT", "96MB")
    line = b'{"event":"a","properties":{"time":1709251200,"n":%d,"text":"%s"}}\n'
    body = b"".join(line % (number, b"%08x" % number * 1000) for number in range(6000))
    result = anyio.run(
        partial(
            export_events,
            "2024-03-01",
            "2024-03-01",
            db=db,
            credentials=ACCOUNT,
            transport=answering(lambda _: body),
            per_second=0,
            per_hour=0,
        )
    )
    assert (result.total_rows, result.failed_date_ranges) == (6000, ())


def test_long_lines_get_room_for_the_while(db: Path) -> None:
    """Only lines over the usual length raise the limit, and only while they are read."""
    with connected_for_export(db) as connection:
        usual = settings(connection)
        with memory_for_lines(connection, 1 << 20):
            assert settings(connection) == usual
        with memory_for_lines(connection, 40 << 20):
            assert settings(connection) != usual
        assert settings(connection) == usual


def test_more_room_is_never_less_and_ends_where_it_began(db: Path) -> None:
    """Inside the memory for long lines, the maximum does not reduce it, and afterwards the setting is as before."""
    limit = "SELECT current_setting('memory_limit')"
    with connected_for_export(db) as connection, memory_for_lines(connection, 40 << 20):
        before = connection.execute(limit).fetchone()
        with maximum_memory(connection, 40 << 20):
            assert connection.execute(limit).fetchone() == before
        assert connection.execute(limit).fetchone() == before
        with maximum_memory(connection, 1 << 20):
            assert connection.execute(limit).fetchone() != before
        assert connection.execute(limit).fetchone() == before


def test_room_ends_without_an_error_where_an_application_holds_more(
    db: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A commit does not count as failed because DuckDB cannot reduce its memory again."""
    monkeypatch.setenv("MPX_MEMORY_LIMIT", "96MB")
    with closing(connect(db)) as own:
        own.execute("SET GLOBAL temp_directory = ''")
        with connected_for_export(db) as connection, memory_for_lines(connection, 40 << 20):
            own.execute(
                "CREATE TEMP TABLE t AS SELECT hash(i) AS a, hash(i + 1) AS b FROM range(12000000) AS r(i)"
            )
            with pytest.raises(duckdb.OutOfMemoryException):
                own.execute("SET GLOBAL memory_limit = '96MB'")


@pytest.mark.parametrize("limit", ["3GB", "488MiB", "18.8GiB", "777MiB", "1.5GiB"])
def test_exports_do_not_wear_the_memory_limit_down(db: Path, limit: str) -> None:
    """However many exports an application runs, its memory limit stays the same."""
    with closing(connect(db)) as own:
        own.execute(f"SET GLOBAL memory_limit = '{limit}'")
        before = settings(own)
        for _ in range(3):
            with connected_for_export(db):
                pass
        assert settings(own) == before


def test_no_limit_stays_no_limit(db: Path) -> None:
    """If an application has removed its memory limit, it stays removed."""
    with closing(connect(db)) as own:
        own.execute("SET GLOBAL memory_limit = '-1'")
        before = settings(own)
        with connected_for_export(db):
            pass
        assert settings(own) == before


@pytest.mark.skipif(os.name != "posix", reason="only POSIX has these bits")
@pytest.mark.parametrize("left_behind", [*slow([False]), True])
def test_what_duckdb_spills_is_private(left_behind: bool, db: Path) -> None:
    """The folder has mode 0700, even if a killed export left it with another mode, and is removed at the end."""
    folder = Path(f"{db}.tmp")
    if left_behind:
        folder.mkdir(mode=0o755)
    with connected_for_export(db) as connection:
        assert connection.execute("SELECT current_setting('temp_directory')").fetchall() == [(str(folder),)]
        connection.execute("SET memory_limit = '40MB'")
        connection.execute(
            "CREATE TABLE t AS SELECT hash(i)::VARCHAR || hash(i + 1)::VARCHAR AS s FROM range(700000) r(i) ORDER BY s"
        )
        assert list(folder.iterdir())
        assert folder.stat().st_mode & 0o777 == 0o700
    assert [path.name for path in db.parent.iterdir()] == [db.name]
