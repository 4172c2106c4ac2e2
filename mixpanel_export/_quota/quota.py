"""The quota as the user sets it: by arguments, by the environment, or Mixpanel's own."""

import math
from dataclasses import dataclass

from mixpanel_export._environment import variable
from mixpanel_export.errors import ArgumentError, ConfigError

_PER_SECOND, _PER_HOUR = 3, 60  # openapi/export.openapi.yaml


@dataclass(frozen=True, slots=True)
class Quota:
    """How fast requests may follow one another, and how long an export waits for them."""

    per_second: int = _PER_SECOND
    """Requests a second, as Mixpanel counts them; 0 for no limit."""
    per_hour: int = _PER_HOUR
    """Requests a rolling hour, as Mixpanel counts them; 0 for no limit."""
    max_wait: float = math.inf
    """Seconds that all requests together may wait for the hour, or because Mixpanel refused one."""

    def __post_init__(self) -> None:
        """Refuse negative limits.

        Raises:
            ArgumentError: Names the limit.
        """
        for name, limit in (("per_second", self.per_second), ("per_hour", self.per_hour)):
            if limit < 0:
                raise ArgumentError(name, f"must be 0 (unlimited) or more, got {limit}")

    @classmethod
    def resolved(
        cls, per_second: int | None = None, per_hour: int | None = None, *, max_wait: float = math.inf
    ) -> "Quota":
        """Return these limits; None is replaced by `MPX_PER_SECOND` or `MPX_PER_HOUR`, or by Mixpanel's own.

        Raises:
            ConfigError: A variable is not a whole number.
            ArgumentError: A limit is negative.
        """
        if per_second is None:
            per_second = _limit_from("MPX_PER_SECOND", _PER_SECOND)
        if per_hour is None:
            per_hour = _limit_from("MPX_PER_HOUR", _PER_HOUR)
        return cls(per_second, per_hour, max_wait)


def _limit_from(name: str, default: int) -> int:
    text = variable(name)
    if text is None:
        return default
    if not (text.isascii() and text.isdecimal()):
        raise ConfigError(f"{name} must be a whole number, 0 for no limit, got {text!r}")
    return int(text)
