"""Mixpanel's limits on exports, for one project, on a clock that a test can drive.

Three requests a second, 60 in a rolling hour, 100 at once (docs: reference/rate-limits.mdx).
"""

import math
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

HOUR = 3600.0


@dataclass(frozen=True, slots=True)
class Refusal:
    """Which limit is reached, in Mixpanel's words, and after how many seconds to ask again."""

    error: str
    retry_after: int


@dataclass(slots=True)
class Limits:
    """What is counted: arrivals in windows that end now, and requests in progress; 0 switches a limit off."""

    clock: Callable[[], float]
    per_second: int = 3
    per_hour: int = 60
    concurrent: int = 100
    in_progress: int = 0
    most_in_progress: int = 0
    _arrivals: deque[float] = field(default_factory=deque)

    def refusal(self) -> Refusal | None:
        """Say whether one more request would be over a limit now."""
        now = self.clock()
        while self._arrivals and self._arrivals[0] <= now - HOUR:
            self._arrivals.popleft()
        if self.concurrent and self.in_progress >= self.concurrent:
            return Refusal("too many export requests in progress for this project", 1)
        if self.per_second and self._oldest_of(self.per_second) > now - 1.0:
            return Refusal(f"too many export requests per second (limit {self.per_second})", 1)
        if self.per_hour and len(self._arrivals) >= self.per_hour:
            wait = self._oldest_of(self.per_hour) + HOUR - now
            return Refusal(
                f"too many export requests in the last hour (limit {self.per_hour})", math.ceil(wait)
            )
        return None

    def headers(self) -> tuple[tuple[str, str], ...]:
        """Return the headers that the Query API sends with its 429s (mixpanel-headless, tests of its pacer)."""
        policy, left = [], []
        if self.per_hour:
            policy.append(f'"project";q={self.per_hour};w={HOUR:.0f}')
            left.append(_left("project", self.per_hour - len(self._arrivals), HOUR))
        if self.concurrent:
            policy.append(f'"project-concurrency";q={self.concurrent};qu="concurrent-requests"')
            left.append(_left("project-concurrency", self.concurrent - self.in_progress, 1))
        return ("RateLimit-Policy", ", ".join(policy)), ("RateLimit", ", ".join(left))

    def _oldest_of(self, count: int) -> float:
        """When the oldest of the last *count* counted requests arrived, long ago if there are fewer."""
        return self._arrivals[-count] if len(self._arrivals) >= count else -math.inf

    def arrived(self) -> None:
        """Count a request against the windows."""
        self._arrivals.append(self.clock())

    def begin(self) -> None:
        """Count a request as in progress."""
        self.in_progress += 1
        self.most_in_progress = max(self.most_in_progress, self.in_progress)

    def end(self) -> None:
        """Count a request as over."""
        self.in_progress -= 1


def _left(name: str, count: int, seconds: float) -> str:
    return f'"{name}";r={count}' if count > 0 else f'"{name}";r=0;t={seconds:.0f}'
