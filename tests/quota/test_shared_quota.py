"""The limits of a shared quota hold for all sequences of calls and clocks."""

import subprocess
import sys
import time
import warnings
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
import quota_files
from examples import examples
from hypothesis import given
from hypothesis import strategies as st
from quota_files import KEY, Clock, Open, rows, taken

from mixpanel_export._quota.clock import system_clock
from mixpanel_export._quota.shared import Key, QuotaState, Request, SharedQuota, key_of
from mixpanel_export._quota.windows import HOUR, SECOND, Window

clock = quota_files.clock
path = quota_files.path
handle = quota_files.handle


# For all sequences

LIMITS = ((2, 3), (1, 5), (0, 4), (2, 0))


class Machine:
    """Processes that share a file, with all their requests counted one by one."""

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
            self.clock.pass_(self.handles[process].read().wait)
        fits = self.fits(*LIMITS[process])
        ticket = self.handles[process].take_slot().ticket
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


@examples(core=40, full=100)
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
        assert [handle.read().remaining for handle in machine.handles] == [3, 5, 4, None]


@given(elapsed=st.floats(0, 1e8), since=st.floats(0, HOUR))
def test_who_waited_as_long_as_told_gets_the_place(elapsed: float, since: float) -> None:
    """No caller waits to the end and is then told to wait longer because of rounding."""
    with TemporaryDirectory() as folder:
        clock = Clock(elapsed=elapsed)
        quota = SharedQuota(KEY, 0, 1, path=Path(folder, "quota.sqlite3"), clock=clock)
        taken(quota)
        clock.pass_(since)
        clock.pass_(quota.read().wait)
        assert taken(quota)


def test_each_process_applies_its_own_limit_to_the_requests_of_all(handle: Open) -> None:
    """Three requests are too many for one process, below the limit of another, and allowed without limits."""
    free, narrow, wide = handle(0, 0), handle(0, 2), handle(0, 4)
    for quota in (free, wide, free):
        assert taken(quota)
    assert narrow.take_slot().ticket is None
    assert (narrow.read().remaining, wide.read().remaining, free.read().remaining) == (0, 1, None)
    assert taken(wide)
    assert wide.take_slot().ticket is None
    assert taken(free)


def test_projects_and_hosts_do_not_share(handle: Open) -> None:
    """A quota belongs to a project on a host."""
    for key in (KEY, Key(KEY.host, "2"), Key("data-eu.mixpanel.com", KEY.project)):
        quota = handle(0, 1, key=key)
        assert taken(quota)
        assert quota.take_slot().ticket is None


def test_a_key_is_the_host_and_the_project() -> None:
    """Two simulators on one machine are two hosts, like two regions."""
    assert key_of("https://data.mixpanel.com/api/2.0/export", "12345") == KEY
    assert key_of("http://127.0.0.1:8080/api/2.0/export", "1") == Key("127.0.0.1:8080", "1")


def test_a_refund_frees_the_hour_for_all_and_keeps_the_pace(handle: Open, clock: Clock) -> None:
    """A request that the server did not count is available to any caller, after the second is over."""
    one, other = handle(1, 1), handle(1, 1)
    ticket = taken(one)
    assert other.take_slot().wait == pytest.approx(HOUR, abs=1e-3)
    state = one.refund(ticket)
    assert (state.remaining, state.sent, state.counted) == (1, (0.0,), ())
    assert other.take_slot().wait == pytest.approx(SECOND, abs=1e-3)
    clock.pass_(SECOND)
    assert taken(other)
    assert one.refund(ticket).remaining == 0


def test_all_processes_of_a_project_pause_together(handle: Open, clock: Clock) -> None:
    """A server's pause for one process applies to the others; the longest wins, and none exceeds an hour."""
    told, other = handle(), handle()
    told.pause(30.0)
    told.pause(10.0)
    assert other.take_slot().pause == other.read().pause == 30.0
    assert handle(key=Key(KEY.host, "2")).read().pause == 0.0
    clock.pass_(30.0)
    assert taken(other)
    told.pause(1e9)
    assert other.read().pause == HOUR


def test_a_state_gives_the_times_of_free_slots() -> None:
    """A process whose limit is exceeded waits until enough time has passed, also for a pause and the second."""
    requests = tuple(Request(age, None, counted=age != 25) for age in (50.0, 40.0, 30.0, 25.0, 20.0, 1.0))
    wide = QuotaState(requests, 0.0, Window(0, 2.0), Window(6, 60.0))
    assert (wide.remaining, wide.wait, wide.seconds_until_free) == (1, 0.0, (10.0, 20.0, 30.0, 40.0, 59.0))
    narrow = QuotaState(requests, 0.0, Window(1, 2.0), Window(3, 60.0))
    assert (narrow.remaining, narrow.seconds_until_free) == (0, (30.0, 40.0, 59.0))
    assert narrow.wait == pytest.approx(30.0)
    assert QuotaState(requests, 45.0, Window(1, 2.0), Window(0, 60.0)).wait == pytest.approx(45.0)
    free = QuotaState(requests, 0.0, Window(1, 2.0), Window(0, 60.0))
    assert (free.remaining, free.seconds_until_free) == (None, ())
    assert free.wait == pytest.approx(1.0)


# The clocks


@pytest.mark.parametrize("step", [-86_400.0, -3.0, 3.0, 86_400.0])
@pytest.mark.parametrize("boot", ["first", None])
def test_a_clock_that_is_set_hurts_nobody_who_goes_on(
    handle: Open, clock: Clock, step: float, boot: str | None
) -> None:
    """The hour is measured by the machine's monotonic clock, even if its boots have no ids."""
    clock.boot = boot
    quota = handle(0, 2)
    taken(quota)
    clock.pass_(1000.0)
    clock.wall += step
    taken(quota)
    state = quota.take_slot()
    assert state.ticket is None
    assert state.wait == pytest.approx(HOUR - 1000.0, abs=1e-3)
    clock.pass_(state.wait)
    assert taken(quota)


@pytest.mark.parametrize("boot", ["first", None])
def test_after_a_restart_the_wall_clock_counts(handle: Open, clock: Clock, boot: str | None) -> None:
    """A request from before the restart counts until its hour is over, and its process is unknown."""
    clock.boot = boot
    taken(handle(0, 1))
    clock.restart()
    clock.wall += 600.0
    later = handle(0, 1)
    assert later.take_slot().wait == pytest.approx(HOUR - 600.0, abs=1e-3)
    (request,) = later.read().requests
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
    state = handle(0, 1).read()
    assert state.remaining == left
    assert all(age >= 0 for age in state.sent)
    assert len(rows(path)) == 2 - left + (1 if jump == -3.0 else 0)


def test_the_clock_is_the_same_for_all_processes() -> None:
    """Another process reads a time between two of this process, in the same boot."""
    code = "from mixpanel_export._quota.clock import system_clock; print(*system_clock()())"
    clock = system_clock()
    before = clock()
    boot, elapsed, wall = subprocess.check_output([sys.executable, "-c", code], text=True).split()
    after = clock()
    assert boot == str(before.boot) == str(after.boot)
    assert before.elapsed < float(elapsed) < after.elapsed
    assert abs(float(wall) - time.time()) < 3600
