"""SQL, tables and files of a workspace: read-only, locked by other processes, closed."""

import os
import subprocess
import sys
from datetime import UTC, date, datetime
from pathlib import Path

import duckdb
import pytest
import workspaces
from old_files import made_with_people
from workspaces import CREDENTIALS, DAYS, FIRST, LAST, Served, checksum_of

from mixpanel_export import (
    DatabaseError,
    DatabaseLockedError,
    DatabaseNotFoundError,
    TableInfo,
    Workspace,
)

portal = workspaces.portal
environment = workspaces.environment
served = workspaces.served


def test_an_open_connection_is_no_obstacle(served: Served) -> None:
    """The workspace's own connection may be open before a fetch, and sees the rows after it."""
    workspace = served.workspace
    assert workspace.sql_scalar("SELECT n FROM range(1000000) AS numbers(n)") == 0
    workspace.fetch_events(**DAYS, parallel=True)
    connection = workspace.connection
    assert workspace.sql_scalar("SELECT count(*) FROM events") == served.simulator.truth(FIRST, LAST).distinct
    workspace.fetch_events(from_date="2024-02-01", to_date="2024-02-02", replace=True)
    assert workspace.connection is connection
    february = served.simulator.truth(date(2024, 2, 1), date(2024, 2, 2))
    assert workspace.sql_scalar("SELECT count(*) FROM events") == february.distinct


def test_the_default_file_is_named_after_the_project(served: Served, tmp_path: Path) -> None:
    """Without a path, the file is mixpanel_data's, in a folder that is created when it is first needed."""
    with Workspace(credentials=CREDENTIALS, api_url=served.url) as workspace:
        assert workspace.db_path == tmp_path / "home" / ".mp" / "data" / "12345.db"
        assert not (tmp_path / "home").exists()
        workspace.fetch_events(**DAYS)
        assert workspace.db_path.exists()
        assert checksum_of(workspace) == served.simulator.truth(FIRST, LAST).checksum
        if os.name == "posix":  # whose folders can be kept from other users by their mode
            assert workspace.db_path.parent.stat().st_mode & 0o777 == 0o700


def test_a_missing_folder_is_made(served: Served, tmp_path: Path) -> None:
    """The folders of a path are created when the file is first needed, as in mixpanel_data, and not before."""
    path = tmp_path / "of mine" / "and deeper" / "events.duckdb"
    with Workspace(path=path, credentials=CREDENTIALS, api_url=served.url) as workspace:
        assert not path.parent.parent.exists()
        workspace.fetch_events(**DAYS)
        assert checksum_of(workspace) == served.simulator.truth(FIRST, LAST).checksum
    assert path.exists()


def test_a_folder_that_cannot_be_made_is_an_error(served: Served, tmp_path: Path) -> None:
    """If something else has the folder's name, the error says so, without a request."""
    (tmp_path / "file").touch()
    path = tmp_path / "file" / "events.duckdb"
    with (
        Workspace(path=path, credentials=CREDENTIALS, api_url=served.url) as workspace,
        pytest.raises(DatabaseError, match="cannot create the folder"),
    ):
        workspace.fetch_events(**DAYS)
    assert served.requests() == 0


def test_sql_needs_no_credentials(tmp_path: Path) -> None:
    """A workspace on a path runs SQL without credentials."""
    with Workspace(path=str(tmp_path / "new.duckdb")) as workspace:
        assert workspace.sql_scalar("SELECT 40 + 2") == 42
        assert workspace.sql_scalar("SELECT 1 WHERE false") is None


def test_new_files_open_in_older_releases(tmp_path: Path) -> None:
    """A file that a workspace creates has the storage version that DuckDB 1.2 reads."""
    with Workspace(path=tmp_path / "new.duckdb") as workspace:
        tag = (
            "SELECT tags['storage_version'] FROM duckdb_databases() WHERE database_name = current_database()"
        )
        assert "v1.2.0" in workspace.sql_scalar(tag)


def test_sql_returns_a_frame(served: Served) -> None:
    """`sql` gives a pandas DataFrame of the rows."""
    served.workspace.fetch_events(**DAYS)
    frame = served.workspace.sql("SELECT event_name, count(*) AS n FROM events GROUP BY ALL")
    assert list(frame.columns) == ["event_name", "n"]
    assert int(frame["n"].sum()) == served.simulator.truth(FIRST, LAST).distinct


def test_a_frame_without_pandas_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """If pandas is not installed, the error of `sql` names the extra."""
    monkeypatch.setitem(sys.modules, "pandas", None)
    with (
        Workspace(path=tmp_path / "new.duckdb") as workspace,
        pytest.raises(ImportError, match=r"mpx-export\[pandas\]"),
    ):
        workspace.sql("SELECT 1")


def test_sql_rows_have_names(tmp_path: Path) -> None:
    """`sql_rows` returns tuples with column names, or dictionaries."""
    with Workspace(path=tmp_path / "new.duckdb") as workspace:
        result = workspace.sql_rows("SELECT n, n * n AS square FROM range(3) AS numbers(n)")
    assert result.columns == ["n", "square"]
    assert result.rows == [(0, 0), (1, 1), (2, 4)]
    assert (list(result), len(result)) == (result.rows, 3)
    assert result.to_dicts()[2] == {"n": 2, "square": 4}
    assert result.to_dict() == {
        "columns": ["n", "square"],
        "rows": [[0, 0], [1, 1], [2, 4]],
        "row_count": 3,
    }


def test_tables_are_exported_ones_or_all(served: Served) -> None:
    """`tables` lists exported tables, or also the user's own, by name, and none that begins with an underscore."""
    workspace = served.workspace
    assert workspace.tables() == []
    workspace.fetch_events("january", **DAYS)
    workspace.connection.execute('CREATE TABLE "and mine" AS SELECT * FROM range(3)')
    mine, january = workspace.tables(all=True)
    assert workspace.tables() == [january]
    assert mine == TableInfo("and mine", None, 3, None)
    assert january.name == "january"
    assert (january.type, january.row_count) == ("events", served.simulator.truth(FIRST, LAST).distinct)
    assert january.fetched_at is not None
    assert abs(datetime.now(UTC) - january.fetched_at).total_seconds() < 3600


def test_tables_of_mixpanel_data_are_listed(tmp_path: Path) -> None:
    """In a file that mixpanel_data created, its own list of tables provides types and times."""
    path = made_with_people(tmp_path / "old.duckdb")
    with Workspace(path=path, read_only=True) as workspace:
        assert workspace.tables() == [
            TableInfo("people", "profiles", 0, datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC))
        ]


def test_a_read_only_workspace_reads(served: Served) -> None:
    """With read_only, queries work, and fetches and changes are impossible."""
    served.workspace.fetch_events(**DAYS)
    served.workspace.close()
    path = served.workspace.db_path
    with Workspace(path=path, read_only=True, credentials=CREDENTIALS, api_url=served.url) as workspace:
        assert checksum_of(workspace) == served.simulator.truth(FIRST, LAST).checksum
        with pytest.raises(DatabaseError, match="read_only"):
            workspace.fetch_events(**DAYS, resume=True)
        with pytest.raises(duckdb.Error):
            workspace.connection.execute("DROP TABLE events")
    assert served.requests() == 1


def test_a_read_only_workspace_needs_a_database(tmp_path: Path) -> None:
    """With read_only, a missing file, or one of another kind, is an error that names it, and none is created."""
    path = tmp_path / "none.duckdb"
    with pytest.raises(DatabaseNotFoundError, match=r"none\.duckdb"):
        Workspace(path=path, read_only=True).tables()
    assert not path.exists()
    path.write_text("not a database " * 1000, encoding="utf-8")
    for read_only in (True, False):
        with pytest.raises(DatabaseError, match="not a DuckDB database"):
            Workspace(path=path, read_only=read_only).tables()


HOLDER = """
import sys, duckdb
with duckdb.connect(sys.argv[1]) as connection:
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.mark.parametrize("read_only", [True, False])
def test_a_locked_file_says_who_holds_it(read_only: bool, tmp_path: Path) -> None:
    """If another process has the file open, the error says so, for reading and for writing."""
    path = tmp_path / "events.duckdb"
    command = [sys.executable, "-c", HOLDER, str(path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline().split() == [b"held"]
        with pytest.raises(DatabaseLockedError) as caught:
            Workspace(path=path, read_only=read_only).tables()
        holder.communicate()
    assert caught.value.holding_pid in {holder.pid, None}
    assert str(path) in str(caught.value)


def test_closing_lets_go_of_the_file(tmp_path: Path) -> None:
    """After the context, or `close`, the file can be opened with other settings; using the workspace opens it again."""
    path = tmp_path / "events.duckdb"
    with Workspace(path=path) as workspace:
        workspace.connection.execute("CREATE TABLE mine AS SELECT 1 AS n")
    with duckdb.connect(str(path), read_only=True) as connection:
        assert connection.execute("SELECT n FROM mine").fetchall() == [(1,)]
    assert workspace.sql_scalar("SELECT n FROM mine") == 1
    workspace.close()
    workspace.close()
