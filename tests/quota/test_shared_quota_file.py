"""The quota file: private, repaired if it is damaged, and never an obstacle."""

import os
import sqlite3
import subprocess
import sys
import warnings
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import anyio
import pytest
import quota_files
from anyio import to_thread
from quota_files import IN_CHILD, KEY, Clock, Open, one_warning, rows, taken

from mixpanel_export._quota.file import quota_file
from mixpanel_export._quota.shared import Key, QuotaState, SharedQuota
from mixpanel_export._quota.windows import HOUR, SECOND, Window

clock = quota_files.clock
path = quota_files.path
handle = quota_files.handle


# The file


def test_the_file_is_private_and_where_the_environment_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`MPX_STATE_DIR` names the folder, which only the user can read; the default is the platform's."""
    monkeypatch.setenv("MPX_STATE_DIR", str(tmp_path / "of" / "mine"))
    assert taken(SharedQuota(KEY))
    assert quota_file() == tmp_path / "of" / "mine" / "quota.sqlite3"
    assert quota_file().is_file()
    if os.name == "posix":
        assert quota_file().parent.stat().st_mode & 0o777 == 0o700
    monkeypatch.setenv("MPX_STATE_DIR", "")
    assert quota_file().parent.name == "mixpanel_export"


def test_looking_creates_nothing(handle: Open, path: Path) -> None:
    """If no export ever ran, the whole hour is left, and no file is created."""
    assert handle().read() == QuotaState((), 0.0, Window(0, SECOND), Window(3, HOUR))
    assert not path.parent.exists()


def test_what_is_long_past_is_deleted(handle: Open, clock: Clock, path: Path) -> None:
    """The file does not grow: rows of all projects are deleted when their hour is over, and pauses when they end."""
    quota = handle()
    quota.pause(1.0)
    clock.pass_(2.0)
    for _ in range(3):
        taken(quota)
    assert len(rows(path)) == 3
    clock.pass_(HOUR + 1)
    taken(handle(key=Key(KEY.host, "2")))
    assert len(rows(path)) == 1


GARBAGE = {
    "text": b"no database at all\n" * 999,
    "no pages": b"SQLite format 3\x00" + b"\x10\x00\x01\x01\x00\x40\x20\x20" + b"\xff" * 4072,
}


@pytest.mark.parametrize("garbage", GARBAGE.values(), ids=GARBAGE)
def test_a_broken_file_is_moved_aside_and_begun_anew(handle: Open, path: Path, garbage: bytes) -> None:
    """There is one warning and no failure; running processes write their requests again, so the quota holds."""
    living, fresh = handle(0, 4), handle(0, 4)
    tickets = [taken(living), taken(living)]
    living.refund(tickets[0])
    path.write_bytes(garbage)
    with one_warning(
        r"the quota file .*quota\.sqlite3 is damaged .* and was replaced by a new one.*run one export"
    ):
        assert taken(fresh)
    assert path.with_suffix(".broken").read_bytes() == garbage
    assert taken(living)
    assert fresh.read().remaining == 1
    path.write_bytes(garbage)
    assert taken(fresh)  # and no second warning


def test_a_truncated_file_is_no_failure(handle: Open, path: Path) -> None:
    """Wherever the file was truncated, a slot can be taken; an empty file is treated as none."""
    taken(handle(0, 9))
    whole = path.read_bytes()
    for size in (0, 1, 99, 100, 2000, 4096, len(whole) - 1):
        path.write_bytes(whole[:size])
        with warnings.catch_warnings(action="ignore"):
            assert taken(handle(0, 9))
            assert handle(0, 9).read().remaining in {7, 8}


def test_a_deleted_file_forgets_nobody_who_lives_on(handle: Open, path: Path) -> None:
    """There is one warning; the process's requests are in the new file, and count for the others."""
    quota = handle(0, 3)
    taken(quota)
    taken(quota)
    path.unlink()
    with one_warning("was deleted"):
        assert taken(quota)
    assert handle(0, 3).read().remaining == 0
    path.unlink()
    assert quota.take_slot().ticket is None
    assert len(rows(path)) == 3


def in_process_limits_hold(quota: SharedQuota) -> None:
    """Check that *quota*, of two requests an hour, works without a file, and warns once."""
    with one_warning("cannot be used"):
        ticket = taken(quota)
        taken(quota)
        assert quota.take_slot().ticket is None
        quota.refund(ticket)
        assert quota.read().remaining in {1, 2}
        taken(quota)
        quota.pause(5.0)
        assert quota.take_slot().pause == pytest.approx(5.0, abs=1.0)


def test_without_a_file_the_process_keeps_to_the_limits_by_itself(tmp_path: Path, clock: Clock) -> None:
    """If the folder cannot be created or the file cannot be opened, exports continue within their own limits."""
    (tmp_path / "file").touch()
    for path in (tmp_path / "file" / "quota.sqlite3", tmp_path, Path("~/quota.sqlite3")):
        in_process_limits_hold(SharedQuota(KEY, 0, 2, path=path, clock=clock))


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no limit for the size of files")
def test_a_full_disk_is_no_failure(path: Path) -> None:
    """If nothing can be written, exports continue within their own limits."""
    code = (
        "import resource, warnings; resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))\n"
        f"quota = SharedQuota(Key('h', 'p'), 0, 2, path=Path({str(path)!r}))\n"
        "with warnings.catch_warnings(record=True) as caught:\n"
        "    print(*[quota.take_slot().ticket is not None for _ in range(3)], len(caught))\n"
    )
    assert (
        subprocess.check_output([sys.executable, "-c", IN_CHILD + code], text=True) == "True True False 1\n"
    )


@contextmanager
def locked(path: Path) -> Iterator[sqlite3.Connection]:
    """Hold the lock of the file, as a process does that was stopped in its transaction."""
    with closing(sqlite3.connect(path, isolation_level=None, check_same_thread=False)) as connection:
        connection.execute("BEGIN EXCLUSIVE")
        yield connection


def test_a_lock_that_lasts_holds_no_export_up(handle: Open, path: Path) -> None:
    """After a while, the process counts by itself; when the lock is released, everything is written to the file."""
    quota = handle(0, 2, timeout=0.02)
    taken(handle(0, 2))
    with locked(path):
        in_process_limits_hold(quota)
    assert quota.read().remaining == 1
    assert quota.take_slot().ticket is None
    assert sorted(rows(path, "kind")) == [
        "counted",
        "counted",
        "counted",
        "pause",
        "refunded",
    ]


def test_a_lock_is_waited_for_at_length_only_once(handle: Open, path: Path) -> None:
    """After one long wait for a lock, later requests do not wait as long, until it is released."""
    quota = handle(0, 0, timeout=0.2)
    taken(quota)
    with locked(path), one_warning("database is locked"):
        taken(quota)
        assert quota._file._timeout == 0.1
        taken(quota)
    taken(quota)
    assert quota._file._timeout == 0.2


@pytest.mark.anyio
async def test_a_lock_does_not_stop_the_event_loop(handle: Open, path: Path) -> None:
    """While a worker thread takes a slot, the loop continues; here, it releases the lock."""
    quota = handle()
    quota.pause(0.0)
    tickets: list[str | None] = []

    async def take() -> None:
        tickets.append((await to_thread.run_sync(quota.take_slot)).ticket)

    with locked(path) as holder:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(take)
            await anyio.wait_all_tasks_blocked()
            assert tickets == []
            holder.execute("COMMIT")
    assert tickets[0] is not None
