"""Rate limits as arithmetic: how long until a request fits into every window. Pure.

Mixpanel counts requests as they *arrive*. Requests sent at even intervals arrive at uneven ones, so each window is
slightly longer here than at Mixpanel: three requests sent within a second must not arrive as four.
"""

from collections.abc import Sequence
from typing import NamedTuple

SECOND = 1.0 + 0.1
"""The length of Mixpanel's second, in seconds. The margin is for requests that travel at different speeds."""

HOUR = 3600.0 + 5.0
"""The length of Mixpanel's hour, in seconds. The margin is larger because a refusal here costs up to an hour."""


class Window(NamedTuple):
    """At most *quota* requests within any *seconds*; a quota of 0 is no limit."""

    quota: int
    seconds: float


def wait_needed(windows: Sequence[Window], past: Sequence[float], now: float) -> float:
    """Return the seconds until one more request fits into every window; *past* is oldest first."""
    waits = [
        past[-window.quota] + window.seconds - now
        for window in windows
        if window.quota and len(past) >= window.quota
    ]
    return max([0.0, *waits])


def time_for(requests: int, windows: Sequence[Window], past: Sequence[float], now: float) -> float:
    """Return the seconds until the last of *requests* more fits into every window; *past* is oldest first."""
    times, at = list(past), now
    for _ in range(requests):
        at += wait_needed(windows, times, at)
        times.append(at)
    return at - now
