"""A deletion that is refused, fails or is killed leaves the file as it was."""

import multiprocessing
import os
import signal
from contextlib import closing
from pathlib import Path
from typing import Any, Self

import duckdb
import forgetting
import pytest
from examples import slow
from forgetting import ID, forget, load
from shell import held_by_another
from support import query

from mixpanel_export import (
    ArgumentError,
    DatabaseError,
    DatabaseLockedError,
    DatabaseNotFoundError,
    ExportRunningError,
    TableFormatError,
    Workspace,
)
from mixpanel_export.results import BatchProgress

days = forgetting.days
full = forgetting.full


@pytest.mark.parametrize(
    "change",
    [
        "RENAME distinct_id TO person",
        *slow(["RENAME event_time TO moment", "ALTER properties TYPE VARCHAR", "DROP export_batch"]),
    ],
)
def test_a_table_whose_columns_were_changed_is_an_error(change: str, full: Path) -> None:
    """Rows that cannot be searched are never reported as deleted, and nothing else is deleted either."""
    query(full, f"ALTER TABLE events {change}")
    before = query(full, "SELECT count(*) FROM _export_duplicates")
    with pytest.raises(TableFormatError) as caught:
        forget(full, ID)
    assert caught.value.table_name == "events"
    assert query(full, "SELECT count(*) FROM _export_duplicates") == before


def test_what_cannot_be_searched_is_an_error(tmp_path: Path, full: Path) -> None:
    """No file, an empty file, no ledger, a newer ledger, a file in use, a read-only workspace: nothing is changed."""
    with pytest.raises(DatabaseNotFoundError):
        forget(tmp_path / "none" / "there.duckdb", ID)
    assert not (tmp_path / "none").exists()
    empty = tmp_path / "empty.duckdb"
    empty.touch()
    foreign = tmp_path / "foreign.duckdb"
    duckdb.connect(str(foreign)).close()
    for path in (empty, foreign):
        with pytest.raises(DatabaseError, match="no exported tables"):
            forget(path, ID)
    assert empty.stat().st_size == 0
    with Workspace.open(full) as workspace, pytest.raises(DatabaseError, match="read-only"):
        workspace.forget(ID)
    with held_by_another(full), pytest.raises(DatabaseLockedError):
        forget(full, ID)
    with closing(duckdb.connect(str(full))) as connection:
        connection.execute("COMMENT ON TABLE _export_batches IS 'mixpanel_export ledger 999'")
    with pytest.raises(TableFormatError):
        forget(full, ID)


def test_an_export_that_runs_is_not_disturbed(db: Path, days: dict[str, list[bytes]]) -> None:
    """In the process of the export, it is refused."""

    def during(_: BatchProgress) -> None:
        with pytest.raises(ExportRunningError):
            forget(db, ID)

    load(db, days, on_batch_complete=during)
    assert forget(db, ID).total > 0


def test_an_id_must_be_a_text(full: Path) -> None:
    """An empty id would match every event without one. No message contains an id."""
    wrong: list[tuple[Any, ...]] = [(), ("",), (ID, ""), ("\ud800",), (42,)]
    for ids in wrong:
        with pytest.raises(ArgumentError) as caught:
            forget(full, *ids)
        assert ID not in str(caught.value)
    with pytest.raises(ArgumentError) as caught:
        forget(full, ID, also=["$user_id"])
    assert caught.value.argument == "also"


def contents(db: Path) -> list[object]:
    tables = ("events", "_export_batches", "_export_duplicates", "_export_rejects", "_export_strays")
    return [sorted(query(db, f"FROM {table}"), key=repr) for table in tables]


def test_an_error_inside_leaves_everything(full: Path) -> None:
    """If another connection's transaction changes the same rows, nothing is deleted; a later call deletes everything."""
    before = contents(full)
    with closing(duckdb.connect(str(full))) as other:
        other.begin()
        other.execute('UPDATE _export_batches SET "rows" = 0')
        with pytest.raises(DatabaseError, match="nothing was removed") as caught:
            forget(full, ID)
        assert ID not in str(caught.value)
        other.rollback()
    assert contents(full) == before
    assert forget(full, ID).total == 9


def _die(db: Path, statement: int) -> None:
    """Forget in a process that dies before its DuckDB statement of that number."""
    left = iter(range(statement))

    class Dying:
        def __init__(self, connection: Any) -> None:
            self.connection = connection

        def execute(self, *arguments: Any) -> Any:
            if next(left, None) is None:
                os.kill(os.getpid(), signal.SIGKILL)
            return self.connection.execute(*arguments)

        def __getattr__(self, name: str) -> Any:
            return getattr(self.connection, name)

        def __enter__(self) -> Self:
            return self

        def __exit__(self, *_: object) -> None:
            self.connection.close()

    connect = duckdb.connect
    duckdb.connect = lambda *arguments, **options: Dying(connect(*arguments, **options))  # type: ignore[assignment]
    forget(db, ID)
    os._exit(0)


@pytest.mark.skipif(os.name != "posix", reason="SIGKILL")
def test_a_kill_leaves_everything_or_nothing(db: Path, days: dict[str, list[bytes]], tmp_path: Path) -> None:
    """Before whichever statement the process is killed, the file is in its old or its new state."""
    load(db, days)
    before = contents(db)
    template = db.read_bytes()
    forget(db, ID)
    after = contents(db)
    context = multiprocessing.get_context("spawn")
    seen = set()
    for statement in range(24, 120, 48):
        copy = tmp_path / f"{statement}.duckdb"
        copy.write_bytes(template)
        child = context.Process(target=_die, args=(copy, statement))
        child.start()
        child.join()
        now = contents(copy)
        assert now in (before, after), statement
        seen.add(now == after)
        if child.exitcode == 0:
            break
    assert seen == {True, False}
