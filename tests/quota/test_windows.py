"""Rate limits as arithmetic: a request waits exactly as long as the windows require."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mixpanel_export._quota.windows import HOUR, SECOND, Window, time_for, wait_needed


def fits(window: Window, times: list[int], at: int) -> bool:
    """Whether a request *at* fits into *window*, counted one by one."""
    return not window.quota or sum(at - window.seconds < time <= at for time in times) < window.quota


windows = st.lists(st.builds(Window, st.integers(0, 4), st.integers(1, 30)), max_size=3)


@given(windows=windows, past=st.lists(st.integers(0, 60), max_size=12).map(sorted), since=st.integers(0, 40))
def test_the_wait_needed_is_the_shortest_that_fits(
    windows: list[Window], past: list[int], since: int
) -> None:
    """After the wait, the request fits into every window, and a moment earlier it does not."""
    now = (past[-1] if past else 0) + since
    wait = int(wait_needed(windows, past, now))
    assert all(fits(window, past, now + wait) for window in windows)
    assert not wait or not all(fits(window, past, now + wait - 1) for window in windows)


def test_the_longest_window_decides() -> None:
    """Of several full windows, the one that stays full longest decides."""
    assert wait_needed([Window(1, 1.0), Window(2, 10.0)], [2.0, 5.0], 5.5) == 6.5
    assert wait_needed([Window(1, 1.0), Window(3, 10.0)], [2.0, 5.0], 5.5) == 0.5
    assert wait_needed([], [5.0], 5.0) == 0.0


@pytest.mark.parametrize(
    "requests,seconds", [(0, 0.0), (2, 0.0), (3, HOUR), (5, HOUR), (6, 2 * HOUR), (9, 3 * HOUR)]
)
def test_the_time_that_requests_need(requests: int, seconds: float) -> None:
    """Requests beyond the rest of the hour wait for the next one, and so on."""
    assert time_for(requests, [Window(3, HOUR)], [5.0], 5.0) == pytest.approx(seconds)


def test_the_windows_are_longer_than_mixpanels_but_not_much() -> None:
    """The margins keep arrivals within the quota, and cost less than a tenth of the speed."""
    assert 1.05 <= SECOND <= 1.1
    assert 3601 <= HOUR <= 3610
