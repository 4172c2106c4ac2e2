"""Nine days of March on a simulator, for the tests of known ways to lose or duplicate events."""

from collections.abc import Iterator
from datetime import date
from typing import Any

import pytest
from shell import served
from support import simulator

from mixpanel_export.simulator import Simulator

FIRST, FIFTH, LAST = date(2024, 3, 1), date(2024, 3, 5), date(2024, 3, 9)
DAYS: dict[str, Any] = {"from_date": str(FIRST), "to_date": str(LAST)}


@pytest.fixture
def sim() -> Simulator:
    """A simulator whose clock does not advance."""
    return simulator()


@pytest.fixture
def url(sim: Simulator) -> Iterator[str]:
    """The address of *sim* on a socket."""
    with served(sim) as url:
        yield url
