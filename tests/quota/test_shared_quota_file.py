"""However many processes ask, and whatever becomes of the file between them, the project's quota holds."""

import os
import sqlite3
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import anyio
import pytest
from anyio import to_thread
from hypothesis import given, settings
from hypothesis import strategies as st

from mixpanel_export._quota.clock import Moment, system_clock
from mixpanel_export._quota.shared import CROWDED_SECOND, Key, Request, SharedQuota, View, key_of, quota_file
from mixpanel_export._quota.windows import HOUR, SECOND, Window

KEY = Key("data.mixpanel.com", "12345")
IN_CHILD = "from mixpanel_export._quota.shared import *; from pathlib import Path; import sqlite3, time\n"


@dataclass
class Clock:
    """A machine's clocks, moved by hand."""

    boot: str | None = "first"
    elapsed: float = 1000.0
    wall: float = 1.7e9

    def __call__(self) -> Moment:
        return Moment(self.boot, self.elapsed, self.wall)

    def pass_(self, seconds: float) -> None:
        """Let *seconds* pass."""
        self.elapsed += seconds
        self.wall += seconds

    def restart(self) -> None:
        """Begin another boot of the machine."""
        self.boot, self.elapsed = f"after {self.boot}", 5.0


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state" / "quota.sqlite3"


@pytest.fixture
def handle(path: Path, clock: Clock) -> Callable[..., SharedQuota]:
    """Return a function that opens the quota as one more process would."""

    def open_(per_second: int = 0, per_hour: int = 3, key: Key = KEY, timeout: float = 60.0) -> SharedQuota:
        return SharedQuota(key, per_second, per_hour, path=path, clock=clock, timeout=timeout)

    return open_


Open = Callable[..., SharedQuota]


def rows(path: Path, column: str = "elapsed") -> list[Any]:
    """Return a column of the file, oldest first."""
    with closing(sqlite3.connect(path)) as connection:
        return [row[0] for row in connection.execute(f"SELECT {column} FROM entries ORDER BY elapsed")]


def taken(quota: SharedQuota) -> str:
    """Take a place that must be free, and return its ticket."""
    ticket = quota.take().ticket
    assert ticket is not None
    return ticket


@contextmanager
def one_warning(text: str) -> Iterator[None]:
    """Expect exactly one warning, which says *text*."""
    with pytest.warns(UserWarning, match=text) as caught:
        yield
    assert len(caught) == 1


# For all sequences


LIMITS = ((2, 3), (1, 5), (0, 4), (2, 0))


class Machine:
    """Processes that share a file, and all their requests counted one by one."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.clock = Clock()
        self.handles = [SharedQuota(KEY, *limits, path=path, clock=self.clock) for limits in LIMITS]
        self.sent: list[float] = []
        self.counted: dict[str, float] = {}
        self.owners: dict[str, SharedQuota] = {}

    def fits(self, per_second: int, per_hour: int) -> bool:
        """Whether one more request fits into both windows now."""
        now = self.clock.elapsed
        recent = sum(now - time < SECOND for time in self.sent)
        hourly = sum(now - time < HOUR for time in self.counted.values())
        return (not per_second or recent < per_second) and (not per_hour or hourly < per_hour)

    def take(self, process: int, *, waits: bool) -> None:
        """Take a place, which must be given if and only if there is one: after the wait, if the process *waits*."""
        if waits:
            self.clock.pass_(self.handles[process].look().wait)
        fits = self.fits(*LIMITS[process])
        ticket = self.handles[process].take().ticket
        assert (ticket is not None) == fits
        assert fits or not waits
        if ticket:
            self.owners[ticket] = self.handles[process]
            self.sent.append(self.clock.elapsed)
            self.counted[ticket] = self.clock.elapsed

    def refund(self, number: int) -> None:
        """Give one of the places back, if there are any."""
        if self.owners:
            ticket = list(self.owners)[number % len(self.owners)]
            self.owners[ticket].refund(ticket)
            self.counted.pop(ticket, None)

    def delete(self) -> None:
        """Delete the file, and let each process do something afterwards."""
        self.path.unlink(missing_ok=True)
        for handle in self.handles:
            handle.refund("no ticket")


steps = st.lists(
    st.one_of(
        st.tuples(st.sampled_from(["take", "wait and take"]), st.integers(0, len(LIMITS) - 1)),
        st.tuples(st.just("refund"), st.integers(0, 20)),
        st.tuples(st.just("pass"), st.floats(0, 2) | st.floats(0, HOUR)),
        st.tuples(st.just("set the clock"), st.floats(-1e6, 1e6)),
        st.tuples(st.just("delete"), st.just(0)),
    ),
    max_size=25,
)


@settings(max_examples=60)
@given(steps=steps)
def test_no_window_is_ever_exceeded_and_places_come_back(steps: list[tuple[str, float]]) -> None:
    """Whatever several processes do, a place is given if and only if it is free, and in the end all are free.

    Neither a clock that is set nor a file that is deleted changes that for processes that live on.
    """
    with TemporaryDirectory() as folder, warnings.catch_warnings(action="ignore"):
        machine = Machine(Path(folder, "quota.sqlite3"))
        for what, amount in steps:
            match what:
                case "refund":
                    machine.refund(int(amount))
                case "pass":
                    machine.clock.pass_(amount)
                case "set the clock":
                    machine.clock.wall += amount
                case "delete":
                    machine.delete()
                case _:
                    machine.take(int(amount), waits=what == "wait and take")
        machine.clock.pass_(HOUR + 1e-3)
        assert [handle.look().remaining for handle in machine.handles] == [3, 5, 4, None]


@given(elapsed=st.floats(0, 1e8), since=st.floats(0, HOUR))
def test_who_waited_as_long_as_told_gets_the_place(elapsed: float, since: float) -> None:
    """Nobody sleeps to the very end and is told to wait for what rounding left over."""
    with TemporaryDirectory() as folder:
        clock = Clock(elapsed=elapsed)
        quota = SharedQuota(KEY, 0, 1, path=Path(folder, "quota.sqlite3"), clock=clock)
        taken(quota)
        clock.pass_(since)
        clock.pass_(quota.look().wait)
        assert taken(quota)


def test_each_process_applies_its_own_limit_to_the_requests_of_all(handle: Open) -> None:
    """Three requests are too many for one process, one fewer than allowed for another, and fine without limits."""
    free, narrow, wide = handle(0, 0), handle(0, 2), handle(0, 4)
    for quota in (free, wide, free):
        assert taken(quota)
    assert narrow.take().ticket is None
    assert (narrow.look().remaining, wide.look().remaining, free.look().remaining) == (0, 1, None)
    assert taken(wide)
    assert wide.take().ticket is None
    assert taken(free)


def test_projects_and_hosts_do_not_share(handle: Open) -> None:
    """A quota is that of a project on a host."""
    for key in (KEY, Key(KEY.host, "2"), Key("data-eu.mixpanel.com", KEY.project)):
        quota = handle(0, 1, key=key)
        assert taken(quota)
        assert quota.take().ticket is None


def test_a_key_is_the_host_and_the_project() -> None:
    """Two simulators on one machine are two hosts, as are two regions."""
    assert key_of("https://data.mixpanel.com/api/2.0/export", "12345") == KEY
    assert key_of("http://127.0.0.1:8080/api/2.0/export", "1") == Key("127.0.0.1:8080", "1")


def test_a_refund_frees_the_hour_for_all_and_keeps_the_pace(handle: Open, clock: Clock) -> None:
    """The place of a request that the server did not count goes to whoever asks, when the second is over."""
    one, other = handle(1, 1), handle(1, 1)
    ticket = taken(one)
    assert other.take().wait == pytest.approx(HOUR, abs=1e-3)
    view = one.refund(ticket)
    assert (view.remaining, view.sent, view.counted) == (1, (0.0,), ())
    assert other.take().wait == pytest.approx(SECOND, abs=1e-3)
    clock.pass_(SECOND)
    assert taken(other)
    assert one.refund(ticket).remaining == 0


def test_all_processes_of_a_project_pause_together(handle: Open, clock: Clock) -> None:
    """A pause that one process was told holds the others, the longest wins, and none lasts more than an hour."""
    told, other = handle(), handle()
    told.pause(30.0)
    told.pause(10.0)
    assert other.take().pause == other.look().pause == 30.0
    assert handle(key=Key(KEY.host, "2")).look().pause == 0.0
    clock.pass_(30.0)
    assert taken(other)
    told.pause(1e9)
    assert other.look().pause == HOUR


def test_a_view_says_when_places_come() -> None:
    """Who allows less than was sent waits until enough is past; a pause and the second are waited for, too."""
    requests = tuple(Request(age, None, counted=age != 25) for age in (50.0, 40.0, 30.0, 25.0, 20.0, 1.0))
    wide = View(requests, 0.0, Window(0, 2.0), Window(6, 60.0))
    assert (wide.remaining, wide.wait, wide.frees) == (1, 0.0, (10.0, 20.0, 30.0, 40.0, 59.0))
    narrow = View(requests, 0.0, Window(1, 2.0), Window(3, 60.0))
    assert (narrow.remaining, narrow.frees) == (0, (30.0, 40.0, 59.0))
    assert narrow.wait == pytest.approx(30.0)
    assert View(requests, 45.0, Window(1, 2.0), Window(0, 60.0)).wait == pytest.approx(45.0)
    free = View(requests, 0.0, Window(1, 2.0), Window(0, 60.0))
    assert (free.remaining, free.frees) == (None, ())
    assert free.wait == pytest.approx(1.0)


# The clocks


@pytest.mark.parametrize("step", [-86_400.0, -3.0, 3.0, 86_400.0])
@pytest.mark.parametrize("boot", ["first", None])
def test_a_clock_that_is_set_hurts_nobody_who_goes_on(
    handle: Open, clock: Clock, step: float, boot: str | None
) -> None:
    """The hour is measured by the machine's monotonic clock, also where its boots have no names."""
    clock.boot = boot
    quota = handle(0, 2)
    taken(quota)
    clock.pass_(1000.0)
    clock.wall += step
    taken(quota)
    view = quota.take()
    assert view.ticket is None
    assert view.wait == pytest.approx(HOUR - 1000.0, abs=1e-3)
    clock.pass_(view.wait)
    assert taken(quota)


@pytest.mark.parametrize("boot", ["first", None])
def test_after_a_restart_the_wall_clock_counts(handle: Open, clock: Clock, boot: str | None) -> None:
    """A request from before the restart counts until its hour is over, and whose it was is no longer known."""
    clock.boot = boot
    taken(handle(0, 1))
    clock.restart()
    clock.wall += 600.0
    later = handle(0, 1)
    assert later.take().wait == pytest.approx(HOUR - 600.0, abs=1e-3)
    (request,) = later.look().requests
    assert request == Request(request.age, None, counted=True)
    clock.pass_(HOUR - 600.0)
    assert taken(later)


@pytest.mark.parametrize("jump, left", [(-7200.0, 1), (-3.0, 0), (3599.0, 0), (7200.0, 1)])
def test_what_cannot_be_of_this_hour_is_forgotten(
    handle: Open, clock: Clock, path: Path, jump: float, left: int
) -> None:
    """Rows of an earlier boot that are old or in the future are deleted; a few seconds ahead count as now."""
    quota = handle(0, 1)
    taken(quota)
    quota.pause(1.0)
    clock.restart()
    clock.wall += jump
    later = handle(0, 1, key=Key(KEY.host, "2"))
    taken(later)
    view = handle(0, 1).look()
    assert view.remaining == left
    assert all(age >= 0 for age in view.sent)
    assert len(rows(path)) == 2 - left + (1 if jump == -3.0 else 0)


def test_the_clock_is_the_same_for_all_processes() -> None:
    """Another process reads a time between two of ours, of the same boot."""
    code = "from mixpanel_export._quota.clock import system_clock; print(*system_clock()())"
    clock = system_clock()
    before = clock()
    boot, elapsed, wall = subprocess.check_output([sys.executable, "-c", code], text=True).split()
    after = clock()
    assert boot == str(before.boot) == str(after.boot)
    assert before.elapsed < float(elapsed) < after.elapsed
    assert abs(float(wall) - time.time()) < 3600


# The file


def test_the_file_is_private_and_where_the_environment_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`MPX_STATE_DIR` names the folder, which is made for the user alone; else it is the platform's."""
    monkeypatch.setenv("MPX_STATE_DIR", str(tmp_path / "of" / "mine"))
    assert taken(SharedQuota(KEY))
    assert quota_file() == tmp_path / "of" / "mine" / "quota.sqlite3"
    assert quota_file().is_file()
    if os.name == "posix":
        assert quota_file().parent.stat().st_mode & 0o777 == 0o700
    monkeypatch.setenv("MPX_STATE_DIR", "")
    assert quota_file().parent.name == "mixpanel_export"


def test_looking_creates_nothing(handle: Open, path: Path) -> None:
    """Where no export ever ran, the whole hour is left, and stays so without a trace."""
    assert handle().look() == View((), 0.0, Window(0, SECOND), Window(3, HOUR))
    assert not path.parent.exists()


def test_what_is_long_past_is_deleted(handle: Open, clock: Clock, path: Path) -> None:
    """The file does not grow: rows of all projects go when their hour is over, pauses when they end."""
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
    """One warning, no failure; and who lives on writes again what it sent, so the quota holds."""
    living, fresh = handle(0, 4), handle(0, 4)
    tickets = [taken(living), taken(living)]
    living.refund(tickets[0])
    path.write_bytes(garbage)
    with one_warning(
        r"the quota file .*quota\.sqlite3 is broken .* and is replaced by a new one.*run one export"
    ):
        assert taken(fresh)
    assert path.with_suffix(".broken").read_bytes() == garbage
    assert taken(living)
    assert fresh.look().remaining == 1
    path.write_bytes(garbage)
    assert taken(fresh)  # and no second warning


def test_a_truncated_file_is_no_failure(handle: Open, path: Path) -> None:
    """Wherever the file was cut off, a place is taken; an empty file is as good as none."""
    taken(handle(0, 9))
    whole = path.read_bytes()
    for size in (0, 1, 99, 100, 2000, 4096, len(whole) - 1):
        path.write_bytes(whole[:size])
        with warnings.catch_warnings(action="ignore"):
            assert taken(handle(0, 9))
            assert handle(0, 9).look().remaining in {7, 8}


def test_a_deleted_file_forgets_nobody_who_lives_on(handle: Open, path: Path) -> None:
    """One warning; what the process sent is in the new file, and counts for the others."""
    quota = handle(0, 3)
    taken(quota)
    taken(quota)
    path.unlink()
    with one_warning("was deleted"):
        assert taken(quota)
    assert handle(0, 3).look().remaining == 0
    path.unlink()
    assert quota.take().ticket is None
    assert len(rows(path)) == 3


def in_process_limits_hold(quota: SharedQuota) -> None:
    """Check that *quota*, of two requests an hour, works without a file, and says so once."""
    with one_warning("cannot be used"):
        ticket = taken(quota)
        taken(quota)
        assert quota.take().ticket is None
        quota.refund(ticket)
        assert quota.look().remaining in {1, 2}
        taken(quota)
        quota.pause(5.0)
        assert quota.take().pause == pytest.approx(5.0, abs=1.0)


def test_without_a_file_the_process_keeps_to_the_limits_by_itself(tmp_path: Path, clock: Clock) -> None:
    """Where the folder cannot be made or the file cannot be opened, exports go on within their own limits."""
    (tmp_path / "file").touch()
    for path in (tmp_path / "file" / "quota.sqlite3", tmp_path, Path("~/quota.sqlite3")):
        in_process_limits_hold(SharedQuota(KEY, 0, 2, path=path, clock=clock))


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no limit for the size of files")
def test_a_full_disk_is_no_failure(path: Path) -> None:
    """Where nothing can be written any more, exports go on within their own limits."""
    code = (
        "import resource, warnings; resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))\n"
        f"quota = SharedQuota(Key('h', 'p'), 0, 2, path=Path({str(path)!r}))\n"
        "with warnings.catch_warnings(record=True) as caught:\n"
        "    print(*[quota.take().ticket is not None for _ in range(3)], len(caught))\n"
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
    """When the patience is over, the process counts by itself; when the lock is gone, all is in the file."""
    quota = handle(0, 2, timeout=0.02)
    taken(handle(0, 2))
    with locked(path):
        in_process_limits_hold(quota)
    assert quota.look().remaining == 1
    assert quota.take().ticket is None
    assert sorted(rows(path, "kind")) == [
        "counted",
        "counted",
        "counted",
        "pause",
        "refunded",
    ]


def test_a_lock_is_waited_for_at_length_only_once(handle: Open, path: Path) -> None:
    """A lock that outlasted the patience delays no later request as much, until it is gone."""
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
    """While a place is being taken in a worker thread the loop goes on: here, to end the lock it waits for."""
    quota = handle()
    quota.pause(0.0)
    tickets: list[str | None] = []

    async def take() -> None:
        tickets.append((await to_thread.run_sync(quota.take)).ticket)

    with locked(path) as holder:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(take)
            await anyio.wait_all_tasks_blocked()
            assert tickets == []
            holder.execute("COMMIT")
    assert tickets[0] is not None


# Processes and threads


def test_threads_share_a_handle(handle: Open) -> None:
    """However many threads take at once, there are as many tickets as places."""
    quota = handle(0, 10)
    with ThreadPoolExecutor(8) as threads:
        tickets = [view.ticket for view in threads.map(lambda _: quota.take(), range(40))]
    assert len({ticket for ticket in tickets if ticket}) == 10


def test_where_others_ask_too_the_second_is_longer(
    handle: Open, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Requests of several processes travel less evenly than those of one, so they are sent less densely."""
    quota, pid = handle(1, 0), os.getpid()
    taken(quota)
    clock.pass_(SECOND)
    assert taken(quota)
    monkeypatch.setattr("os.getpid", lambda: pid + 1)
    assert quota.look().wait == pytest.approx(CROWDED_SECOND, abs=1e-3)
    clock.pass_(SECOND)
    assert quota.take().ticket is None
    clock.pass_(CROWDED_SECOND - SECOND + 1e-3)
    assert taken(quota)
    clock.pass_(10.0)
    taken(quota)
    assert quota.look().wait == pytest.approx(SECOND, abs=1e-3)


def start(path: Path, code: str) -> subprocess.Popen[str]:
    """Run *code* in a process that has *path* and all of `_quota`."""
    code = f"{IN_CHILD}path = Path({str(path)!r})\n{code}"
    return subprocess.Popen([sys.executable, "-c", code], text=True, stdout=subprocess.PIPE)


def test_ten_processes_exceed_no_window(path: Path) -> None:
    """Ten processes that want 30 places, with 4 in 0.1 s and 12 in 0.9 s, get them, and no faster."""
    code = (
        "quota = SharedQuota(Key('h', 'p'), 4, 12, path=path, second=0.1, crowded_second=0.1, hour=0.9)\n"
        "for _ in range(3):\n"
        "    while not (view := quota.take()).ticket: time.sleep(view.wait)\n"
    )
    processes = [start(path, code) for _ in range(10)]
    assert [process.wait() for process in processes if process.communicate() is not None] == [0] * 10
    times = rows(path)
    assert len(times) == 30
    assert all(late - early >= 0.1 for early, late in zip(times, times[4:], strict=False))
    assert all(late - early >= 0.9 for early, late in zip(times, times[12:], strict=False))
    assert len(set(rows(path, "pid"))) == 10


def test_a_process_that_is_killed_loses_no_request(path: Path) -> None:
    """Killed wherever it is, a process leaves a file that is whole and holds every place that it was given."""
    code = (
        "quota = SharedQuota(Key('h', 'p'), 0, 0, path=path)\n"
        "while True: print(quota.take().ticket, flush=True)\n"
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
    """What was written to the file but not committed is undone by the next who comes, who waits for nobody."""
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
