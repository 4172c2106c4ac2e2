"""Mixpanel's limits on a project's requests to an API, with a clock that tests can control.

For exports, they are 3 requests per second, 60 per rolling hour and 100 at a time (docs: reference/rate-limits.mdx).
"""

import math
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

HOUR = 3600.0


@dataclass(frozen=True, slots=True)
class LimitExceeded:
    """An exceeded limit: Mixpanel's error message, and the number of seconds until the next request is allowed."""

    error: str
    retry_after: int
    concurrent: bool = False
    """Whether the limit of concurrent requests is exceeded, and not a limit per second or per hour."""


@dataclass(slots=True)
class Limits:
    """Counts arrivals in rolling windows, and requests in progress. A limit of 0 means no limit."""

    clock: Callable[[], float]
    per_second: int = 3
    per_hour: int = 60
    concurrent: int = 100
    in_progress: int = 0
    max_in_progress: int = 0
    _arrivals: deque[float] = field(default_factory=deque)

    def refusal(self, *, counted: bool = True) -> LimitExceeded | None:
        """Return the limit that one more request would exceed now, or None.

        If *counted* is false, only the limit of concurrent requests applies to the request.
        """
        now = self.clock()
        while self._arrivals and self._arrivals[0] <= now - HOUR:
            self._arrivals.popleft()
        if self.concurrent and self.in_progress >= self.concurrent:
            return LimitExceeded("too many export requests in progress for this project", 1, concurrent=True)
        if not counted:
            return None
        if self.per_second and self._oldest_of(self.per_second) > now - 1.0:
            return LimitExceeded(f"too many export requests per second (limit {self.per_second})", 1)
        if self.per_hour and len(self._arrivals) >= self.per_hour:
            wait = self._oldest_of(self.per_hour) + HOUR - now
            return LimitExceeded(
                f"too many export requests in the last hour (limit {self.per_hour})", math.ceil(wait)
            )
        return None

    @property
    def used(self) -> int:
        """The number of counted requests in the last hour, as of the last call of `refusal`."""
        return len(self._arrivals)

    def headers(self, concurrency_pause: int = 1) -> tuple[tuple[str, str], ...]:
        """Return the rate-limit headers of a 429 response, as the Query API sends them (source: mixpanel-headless).

        *concurrency_pause* is the time, in seconds, to wait after too many concurrent requests.
        """
        policy, remaining = [], []
        if self.per_hour:
            policy.append(f'"project";q={self.per_hour};w={HOUR:.0f}')
            remaining.append(_remaining("project", self.per_hour - len(self._arrivals), HOUR))
        if self.concurrent:
            policy.append(f'"project-concurrency";q={self.concurrent};qu="concurrent-requests"')
            remaining.append(
                _remaining("project-concurrency", self.concurrent - self.in_progress, concurrency_pause)
            )
        return ("RateLimit-Policy", ", ".join(policy)), ("RateLimit", ", ".join(remaining))

    def _oldest_of(self, count: int) -> float:
        """Return the arrival time of the oldest of the last *count* counted requests; -inf if there were fewer."""
        return self._arrivals[-count] if len(self._arrivals) >= count else -math.inf

    def count_arrival(self) -> None:
        """Count a request against the windows."""
        self._arrivals.append(self.clock())

    def begin(self) -> None:
        """Count a request as in progress."""
        self.in_progress += 1
        self.max_in_progress = max(self.max_in_progress, self.in_progress)

    def end(self) -> None:
        """Count a request as finished."""
        self.in_progress -= 1


def _remaining(name: str, count: int, seconds: float) -> str:
    return f'"{name}";r={count}' if count > 0 else f'"{name}";r=0;t={seconds:.0f}'
