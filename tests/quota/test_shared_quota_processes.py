"""Threads and processes that share a quota file, even if they are killed."""

import os
import sqlite3
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest
import quota_files
from quota_files import IN_CHILD, KEY, Clock, Open, rows, taken

from mixpanel_export._quota.shared import SHARED_SECOND, SharedQuota
from mixpanel_export._quota.windows import SECOND

clock = quota_files.clock
path = quota_files.path
handle = quota_files.handle


# Processes and threads


def test_threads_share_a_handle(handle: Open) -> None:
    """However many threads take slots at once, there are as many tickets as slots."""
    quota = handle(0, 10)
    with ThreadPoolExecutor(8) as threads:
        tickets = [view.ticket for view in threads.map(lambda _: quota.take_slot(), range(40))]
    assert len({ticket for ticket in tickets if ticket}) == 10


def test_where_others_ask_too_the_second_is_longer(
    handle: Open, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Requests of several processes arrive less evenly than those of one, so they are spaced out more."""
    quota, pid = handle(1, 0), os.getpid()
    taken(quota)
    clock.pass_(SECOND)
    assert taken(quota)
    monkeypatch.setattr("os.getpid", lambda: pid + 1)
    assert quota.read().wait == pytest.approx(SHARED_SECOND, abs=1e-3)
    clock.pass_(SECOND)
    assert quota.take_slot().ticket is None
    clock.pass_(SHARED_SECOND - SECOND + 1e-3)
    assert taken(quota)
    clock.pass_(10.0)
    taken(quota)
    assert quota.read().wait == pytest.approx(SECOND, abs=1e-3)


def start(path: Path, code: str) -> subprocess.Popen[str]:
    """Run *code* in a process that has *path* and all of `_quota`."""
    code = f"{IN_CHILD}path = Path({str(path)!r})\n{code}"
    return subprocess.Popen([sys.executable, "-c", code], text=True, stdout=subprocess.PIPE)


def test_ten_processes_exceed_no_window(path: Path) -> None:
    """Ten processes that need 30 slots, with 4 in 0.1 s and 12 in 0.9 s, get them, and no faster."""
    code = (
        "quota = SharedQuota(Key('h', 'p'), 4, 12, path=path, second=0.1, shared_second=0.1, hour=0.9)\n"
        "for _ in range(3):\n"
        "    while not (view := quota.take_slot()).ticket: time.sleep(view.wait)\n"
    )
    processes = [start(path, code) for _ in range(10)]
    assert [process.wait() for process in processes if process.communicate() is not None] == [0] * 10
    times = rows(path)
    assert len(times) == 30
    assert all(late - early >= 0.1 for early, late in zip(times, times[4:], strict=False))
    assert all(late - early >= 0.9 for early, late in zip(times, times[12:], strict=False))
    assert len(set(rows(path, "pid"))) == 10


def test_a_process_that_is_killed_loses_no_request(path: Path) -> None:
    """Wherever a process is killed, the file is intact and has every slot that the process took."""
    code = (
        "quota = SharedQuota(Key('h', 'p'), 0, 0, path=path)\n"
        "while True: print(quota.take_slot().ticket, flush=True)\n"
    )
    for killed_after in (1, 2, 5, 9, 14):
        process = start(path, code)
        assert process.stdout is not None
        seen = [process.stdout.readline() for _ in range(killed_after)]
        process.kill()
        seen += process.communicate()[0].splitlines(keepends=True)
        assert taken(SharedQuota(KEY, 0, 0, path=path))
        known = set(rows(path, "id"))
        assert {ticket.strip() for ticket in seen if ticket.endswith("\n")} <= known
        with closing(sqlite3.connect(path)) as connection:
            assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]


def test_a_process_that_is_killed_within_a_transaction_leaves_nothing_of_it(handle: Open, path: Path) -> None:
    """The next process undoes what was written but not committed, without waiting."""
    quota = handle(0, 2)
    taken(quota)
    process = start(
        path,
        "con = sqlite3.connect(path, isolation_level=None)\n"
        "con.execute('PRAGMA cache_size = 1'); con.execute('BEGIN IMMEDIATE')\n"
        "row = ('h', 'p', 'counted', 1, 'boot', 1.0, 1.0)\n"
        "con.executemany('INSERT INTO entries VALUES (?, ?, ?, ?, ?, ?, ?, ?)', ((str(n), *row) for n in range(9999)))\n"
        "print('written', flush=True); time.sleep(600)\n",
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "written\n"
    assert path.stat().st_size > 100_000
    process.kill()
    process.communicate()
    assert taken(quota)
    assert len(rows(path)) == 2
