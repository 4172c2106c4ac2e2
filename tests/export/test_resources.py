"""Missing resources: disk space, files, permissions and time; and what is left behind when a caller stops."""

import gc
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Coroutine, Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import pytest
from examples import slow
from shell import served
from support import ACCOUNT, export, held, ledger, query, simulator, truth

from mixpanel_export import Workspace, errors
from mixpanel_export._export.tuning import DEFAULT_TUNING
from mixpanel_export.results import BatchProgress
from mixpanel_export.simulator import Fault

pytestmark = pytest.mark.anyio

NINE_CHUNKS: dict[str, Any] = {"chunk_days": 1, "max_workers": 2, "retries": 0}


@pytest.fixture
def db(tmp_path: Path) -> Path:
    return tmp_path / "folder" / "events.duckdb"


@pytest.fixture(autouse=True)
def _folder(db: Path) -> None:
    db.parent.mkdir()


def staging(db: Path) -> list[Path]:
    return list(db.parent.glob(f".{db.name}*"))


def whole_batches(db: Path) -> bool:
    """Whether the table has exactly the rows in the ledger, for each batch."""
    rows = query(db, "SELECT export_batch, count(*) FROM events GROUP BY ALL ORDER BY ALL")
    return rows == query(
        db, 'SELECT batch, "rows" FROM _export_batches WHERE "rows" > 0 AND status <> \'failed\' ORDER BY ALL'
    )


# The file


def moved(db: Path) -> None:
    db.rename(db.with_name("elsewhere.duckdb"))


def replaced(db: Path) -> None:
    moved(db)
    db.write_bytes(b"")


def folder_moved(db: Path) -> None:
    db.parent.rename(db.parent.with_name("elsewhere"))


@pytest.mark.skipif(sys.platform == "win32", reason="Windows lets nobody move a file that is open")
@pytest.mark.parametrize("change", [Path.unlink, *slow([replaced, moved, folder_moved])])
async def test_a_file_that_is_gone_is_never_a_success(change: Callable[[Path], object], db: Path) -> None:
    """If the database is moved, removed or replaced during commits, the error says so."""
    told: list[BatchProgress] = []

    def after_the_second(batch: BatchProgress) -> None:
        told.append(batch)
        if len(told) == 2:
            change(db)

    with pytest.raises(errors.DatabaseError, match="moved, removed or replaced during the export"):
        await export(simulator(), db, on_batch_complete=after_the_second, **NINE_CHUNKS)


@pytest.mark.skipif(sys.platform == "win32", reason="Windows lets nobody move a file that is open")
async def test_a_file_that_was_moved_can_be_put_back_and_completed(db: Path) -> None:
    """It has all batches that were committed, and `resume` fetches the rest."""
    sim = simulator()
    with pytest.raises(errors.DatabaseError, match="put the original file back"):
        await export(sim, db, on_batch_complete=lambda _: moved(db) if db.exists() else None, **NINE_CHUNKS)
    db.with_name("elsewhere.duckdb").rename(db)
    assert whole_batches(db)
    await export(sim, db, mode="resume")
    assert held(db) == truth(sim)


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
@pytest.mark.parametrize("damage", ["cut", *slow(["flipped"])])
async def test_a_damaged_file_is_an_error_that_says_so(damage: str, db: Path) -> None:
    """No request is sent, and the file is left unchanged so that it can be repaired."""
    sim = simulator()
    await export(sim, db, last="2024-03-05")
    asked = len(sim.requests)
    content = bytearray(db.read_bytes())
    if damage == "cut":
        del content[len(content) // 2 :]
    else:
        content[12_288::1000] = bytes(len(content[12_288::1000]))
    db.write_bytes(content)
    with pytest.raises(errors.DatabaseError, match="restore the damaged file from a copy"):
        await export(sim, db, mode="resume")
    assert len(sim.requests) == asked
    assert staging(db) == []


# Room and permissions, in processes of their own, which can do with less

CHILD = """
import os, sys, warnings
from functools import partial
from pathlib import Path
import anyio, anyio._backends._asyncio
from support import export, simulator
from mixpanel_export import errors

async def main():
    await export(simulator(events_per_day=2000), Path(sys.argv[1]), mode="resume", max_workers=2, chunk_days=3)

anyio.run(partial(anyio.sleep, 0))
{less}
try:
    anyio.run(main)
except errors.DatabaseError as error:
    print(error)
"""
SMALL_FILES = """
import resource
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]), resource.RLIM_INFINITY))
"""
NOBODY = "if os.geteuid() == 0:\n    os.seteuid(65534)  # root may write anywhere"


def in_child(less: str, *words: object) -> list[str]:
    """Return the error of an export of nine days with less of the resource *less*."""
    done = subprocess.run(
        [sys.executable, "-c", CHILD.replace("{less}", less), *map(str, words)],
        env=os.environ | {"PYTHONPATH": os.pathsep.join([str(Path(__file__).parents[1]), *sys.path])},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


@pytest.mark.skipif(sys.platform == "win32", reason="limits of a process are POSIX'")
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
@pytest.mark.parametrize("room", [700_000, *slow([100_000, 300_000])])
async def test_no_room_is_one_error_and_resume_completes(room: int, db: Path) -> None:
    """Whether staging or the database runs out of space, the file opens, has complete batches, and can be continued."""
    sim = simulator(events_per_day=2000)
    await export(sim, db, last="2024-03-02")
    said = in_child(SMALL_FILES, db, room)
    assert len(said) == 1
    assert "free up disk space" in said[0]
    assert staging(db) == []
    assert whole_batches(db)
    await export(sim, db, mode="resume")
    assert held(db) == truth(sim)


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that every user can read, unlike pytest's own."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o755)
    yield folder
    folder.chmod(0o755)
    shutil.rmtree(folder)


@pytest.mark.skipif(sys.platform == "win32", reason="modes of files are POSIX'")
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
@pytest.mark.parametrize(
    "file,folder", [(None, 0o555), (0o444, 0o777), *slow([(0o444, 0o555), (0o666, 0o555)])]
)
async def test_what_may_not_be_written_is_an_error(file: int | None, folder: int, open_folder: Path) -> None:
    """A folder or file without write permission is named, with advice, and its contents are unchanged."""
    db, sim = open_folder / "events.duckdb", simulator()
    if file is not None:
        await export(sim, db, last="2024-03-02")
        db.chmod(file)
    open_folder.chmod(folder)
    said = in_child(NOBODY, db)
    assert len(said) == 1
    assert str(db) in said[0]
    assert "give this user write permission to the file and its folder" in said[0]
    assert staging(db) == []
    if file is not None:
        assert held(db) == truth(sim, last="2024-03-02")


# Callbacks


async def test_after_a_callback_raised_none_is_made(db: Path) -> None:
    """Batches that have not been reported yet are no longer reported, and none of them is lost."""
    sim = simulator()
    told: list[BatchProgress] = []

    async def raise_while_others_wait(batch: BatchProgress) -> None:
        told.append(batch)
        while len(ledger(db)) < 9:  # noqa: ASYNC110 - commits tell nobody but who waits for this callback
            await anyio.sleep(0.02)
        await anyio.wait_all_tasks_blocked()
        raise LookupError("mine")

    with pytest.raises(LookupError, match="mine"):
        await export(sim, db, on_batch_complete=raise_while_others_wait, chunk_days=1, max_workers=9)
    assert len(told) == 1
    assert held(db) == truth(sim)


async def test_a_callback_that_blocks_the_loop_loses_nothing(db: Path) -> None:
    """The export waits for it, and still commits every batch and reports each once."""
    sim, blocked = simulator(), threading.Event()
    told: list[BatchProgress] = []

    def block(batch: BatchProgress) -> None:
        blocked.wait(0.1)
        told.append(batch)

    await export(sim, db, on_batch_complete=block, on_progress=lambda _: blocked.wait(0.05), chunk_days=1)
    assert sorted(batch.from_date for batch in told) == [f"2024-03-0{day}" for day in range(1, 10)]
    assert held(db) == truth(sim)


def test_a_callback_may_use_its_workspace(db: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It can read committed rows, cannot start another export, and may close the workspace's own connection."""
    sim = simulator()
    seen: list[int] = []
    with served(sim) as url:
        monkeypatch.setenv("MPX_PER_SECOND", "0")
        monkeypatch.setenv("MPX_PER_HOUR", "0")
        with Workspace(path=db, credentials=ACCOUNT, api_url=url) as workspace:
            fetch = partial(
                workspace.fetch_events,
                from_date="2024-03-01",
                to_date="2024-03-09",
                parallel=True,
                chunk_days=1,
                resume=True,
            )

            def call_back(batch: BatchProgress) -> None:
                found = workspace.connection.execute("SELECT count(*) FROM events").fetchone()
                seen.append(found[0] if found else 0)
                with pytest.raises(errors.ExportRunningError):
                    fetch()
                workspace.close()

            fetch(on_batch_complete=call_back)
    assert len(seen) == 9
    assert seen == sorted(seen)
    assert held(db) == truth(sim)


# What a caller that stops leaves behind


def connections_to(url: str) -> list[socket.socket]:
    """Return this process's open sockets whose other end is the server at *url*."""
    port = int(url.rpartition(":")[2])
    found = []
    for each in gc.get_objects():
        if isinstance(each, socket.socket) and each.family == socket.AF_INET and each.fileno() != -1:
            with suppress(OSError):
                if each.getpeername()[1] == port:
                    found.append(each)
    return found


async def by_time(call: Callable[[], Coroutine[Any, Any, object]], asked: anyio.Event) -> None:
    with pytest.raises(TimeoutError), anyio.fail_after(0.4):
        await call()


async def by_its_group(call: Callable[[], Coroutine[Any, Any, object]], asked: anyio.Event) -> None:
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(call)
        await asked.wait()
        tasks.cancel_scope.cancel()


async def by_a_sibling(call: Callable[[], Coroutine[Any, Any, object]], asked: anyio.Event) -> None:
    async def fail() -> None:
        await asked.wait()
        raise LookupError

    with pytest.raises(ExceptionGroup):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(call)
            tasks.start_soon(fail)


@pytest.mark.parametrize("stop", [by_time, *slow([by_its_group, by_a_sibling])])
@pytest.mark.parametrize("fault", ["stall", *slow(["stall_before_head", "500"])])
async def test_a_cancelled_export_leaves_nothing_running(stop: Any, fault: Any, db: Path) -> None:
    """No task, thread, connection, transaction or staging is left, whether or not the server is responding."""
    sim = simulator(faults=[Fault(fault, after=3)])
    asked = anyio.Event()
    with served(sim) as url:
        before = set(anyio.get_running_tasks())
        call = partial(
            export,
            sim,
            db,
            transport=None,
            api_url=url,
            on_progress=lambda progress: asked.set() if progress.requests >= 4 else None,
            chunk_days=1,
            tuning=DEFAULT_TUNING,  # with its pauses, in which the export is stopped, too
        )
        await stop(call, asked)
        assert set(anyio.get_running_tasks()) == before
        assert anyio.to_thread.current_default_thread_limiter().borrowed_tokens == 0
        assert connections_to(url) == []
    assert staging(db) == []
    query(db, "FORCE CHECKPOINT")
    sim.faults = []
    await export(sim, db, mode="resume")
    assert held(db) == truth(sim)
