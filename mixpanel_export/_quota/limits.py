"""The request limits of each API: from arguments, from the environment, or Mixpanel's defaults."""

import math
from dataclasses import dataclass
from typing import Literal

from mixpanel_export._config.environment import variable
from mixpanel_export.errors import ArgumentError, ConfigError

Api = Literal["export", "query"]
"""A Mixpanel API with its own quota: raw exports, or the Query API (event counts and profiles)."""

_PER_SECOND, _PER_HOUR = 3, 60  # from openapi/export.openapi.yaml
_QUERIES_PER_HOUR, _QUERIES_AT_ONCE = 60, 5  # from openapi/query.openapi.yaml


@dataclass(frozen=True, slots=True)
class Quota:
    """The limits on requests to an API, and on the wait for its quota."""

    per_second: int = _PER_SECOND
    """Requests per second; 0 for no limit."""
    per_hour: int = _PER_HOUR
    """Requests per rolling hour; 0 for no limit."""
    max_wait: float = math.inf
    """The maximum total seconds that the call may wait for the hourly quota and for pauses after a 429."""
    api: Api = "export"
    concurrent: int = 0
    """Requests that may be in progress at a time in this process; 0 for no limit. Other processes are not counted."""

    def __post_init__(self) -> None:
        """Check the limits.

        Raises:
            ArgumentError: A limit is negative.
        """
        for name, limit in (("per_second", self.per_second), ("per_hour", self.per_hour)):
            if limit < 0:
                raise ArgumentError(name, f"must be 0 (unlimited) or more, got {limit}")

    @classmethod
    def resolved(
        cls, per_second: int | None = None, per_hour: int | None = None, *, max_wait: float = math.inf
    ) -> "Quota":
        """Return the quota for exports.

        If a limit is None, `MPX_PER_SECOND` or `MPX_PER_HOUR` sets it, or else Mixpanel's limit applies.

        Raises:
            ConfigError: A variable is not a whole number.
            ArgumentError: A limit is negative.
        """
        if per_second is None:
            per_second = _limit_from("MPX_PER_SECOND", _PER_SECOND)
        if per_hour is None:
            per_hour = _limit_from("MPX_PER_HOUR", _PER_HOUR)
        return cls(per_second, per_hour, max_wait)

    @classmethod
    def for_queries(cls, per_hour: int | None = None, *, max_wait: float = math.inf) -> "Quota":
        """Return the quota of the Query API.

        If *per_hour* is None, `MPX_QUERY_PER_HOUR` sets the limit, or else Mixpanel's limit applies.

        Raises:
            ConfigError: The variable is not a whole number.
            ArgumentError: The limit is negative.
        """
        if per_hour is None:
            per_hour = _limit_from("MPX_QUERY_PER_HOUR", _QUERIES_PER_HOUR)
        return cls(0, per_hour, max_wait, "query", _QUERIES_AT_ONCE)


def _limit_from(name: str, default: int) -> int:
    text = variable(name)
    if text is None:
        return default
    if not (text.isascii() and text.isdecimal()):
        raise ConfigError(f"{name} must be a whole number, 0 for no limit, got {text!r}")
    return int(text)
