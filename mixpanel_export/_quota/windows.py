"""Computes the waits that rate limits require. Pure functions.

Mixpanel counts requests when they arrive. Travel times vary, so more requests may arrive within a second than were
sent within it. To allow for that, each window here is slightly longer than Mixpanel's.
"""

from collections.abc import Sequence
from typing import NamedTuple

SECOND = 1.0 + 0.1
"""The window for Mixpanel's per-second limit, in seconds, with a margin for travel times."""

HOUR = 3600.0 + 5.0
"""The window for Mixpanel's hourly limit, in seconds. The margin is larger, because a 429 may cost an hour."""


class Window(NamedTuple):
    """A rate limit: at most *quota* requests within *seconds*. A quota of 0 means no limit."""

    quota: int
    seconds: float


def wait_needed(windows: Sequence[Window], past: Sequence[float], now: float) -> float:
    """Return the seconds until one more request is within every limit. *past* has the request times, oldest first."""
    waits = [
        past[-window.quota] + window.seconds - now
        for window in windows
        if window.quota and len(past) >= window.quota
    ]
    return max([0.0, *waits])


def time_for(requests: int, windows: Sequence[Window], past: Sequence[float], now: float) -> float:
    """Return the seconds until the last of *requests* more requests is within every limit.

    *past* has the times of requests, oldest first.
    """
    times, time = list(past), now
    for _ in range(requests):
        time += wait_needed(windows, times, time)
        times.append(time)
    return time - now
