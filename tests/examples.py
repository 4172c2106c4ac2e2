"""The number of examples: the core run tries few where each is expensive; the full run tries all."""

from collections.abc import Iterable

import pytest
from _pytest.mark import ParameterSet
from hypothesis import settings

CORE, FULL = "core", "full"
# A shared machine may stall anywhere, and how long an example takes is no claim of any test.
settings.register_profile(CORE, deadline=None, max_examples=30)
settings.register_profile(FULL, deadline=None, max_examples=100)


def examples(core: int, full: int) -> settings:
    """Return settings for a test whose examples are expensive."""
    return settings(max_examples=full if settings.get_current_profile_name() == FULL else core)


def slow(cases: Iterable[object]) -> list[ParameterSet]:
    """Return cases that only the full run takes; each is one argument, or a tuple of several."""
    return [
        pytest.param(*(case if isinstance(case, tuple) else (case,)), marks=pytest.mark.slow)
        for case in cases
    ]
