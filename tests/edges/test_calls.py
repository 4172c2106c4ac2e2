"""Mistakes in calls: iterators of names, typos that would empty a table, days in the future."""

from collections.abc import Callable, Iterable
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from support import NOW, export, held, ledger, query, simulator, truth

from mixpanel_export.errors import ArgumentError, FutureDateError, TableError

pytestmark = pytest.mark.anyio

NAMES = ["Sign Up", "Page View"]


@pytest.mark.parametrize(
    "names",
    [
        pytest.param(lambda: (name for name in NAMES), id="generator"),
        pytest.param(lambda: np.array(NAMES), id="numpy", marks=pytest.mark.slow),
        pytest.param(lambda: pd.Series(NAMES), id="pandas"),
        pytest.param(lambda: map(str, NAMES), id="map", marks=pytest.mark.slow),
        pytest.param(lambda: filter(None, NAMES), id="filter", marks=pytest.mark.slow),
        pytest.param(lambda: dict.fromkeys(NAMES), id="dictionary", marks=pytest.mark.slow),
        pytest.param(lambda: set(NAMES), id="set", marks=pytest.mark.slow),
    ],
)
async def test_names_may_come_from_any_iterable(db: Path, names: Callable[[], Iterable[str]]) -> None:
    """An iterable is read once, and the ledger has its names."""
    sim = simulator()
    result = await export(sim, db, events=names())
    assert result.total_rows > 0
    assert held(db) == truth(sim, events=NAMES)
    assert set(ledger(db, "events")) == {('["Page View", "Sign Up"]',)}


@pytest.mark.parametrize("names", ["Sign Up", b"Sign Up", [], iter(()), [1], [None], 5])
async def test_names_that_select_nothing_are_refused(db: Path, names: Any) -> None:
    """A string, an exhausted iterator and values that are not text cause no request and leave no file."""
    sim = simulator()
    with pytest.raises(ArgumentError) as caught:
        await export(sim, db, events=names)
    assert caught.value.argument == "events"
    assert (len(sim.requests), db.exists()) == (0, False)


async def test_a_replacement_without_any_event_is_refused(db: Path) -> None:
    """After a typo in an event name, the old rows stay; `allow_empty` replaces them, without another request."""
    sim = simulator()
    await export(sim, db)
    rows = query(db, "SELECT count(*) FROM events")
    with pytest.raises(TableError) as caught:
        await export(sim, db, mode="replace", events=["Sign Upp"])
    assert caught.value.argument == "allow_empty"
    assert query(db, "SELECT count(*) FROM events") == rows
    requests = len(sim.requests)
    await export(sim, db, mode="replace", events=["Sign Upp"], allow_empty=True)
    assert query(db, "SELECT count(*) FROM events") == [(0,)]
    assert len(sim.requests) == requests


async def test_a_replacement_of_an_empty_table_may_be_empty(db: Path) -> None:
    """Nothing can be lost."""
    sim = simulator(events_per_day=0)
    await export(sim, db, mode="replace")
    await export(sim, db, mode="replace")
    assert query(db, "SELECT count(*) FROM events") == [(0,)]


async def test_an_export_without_any_event_warns_once(db: Path) -> None:
    """The warning names the selection, the project and the region."""
    with pytest.warns(
        UserWarning, match="no events for this export: events Sign Upp of project 12345, region us"
    ) as caught:
        await export(simulator(), db, events=["Sign Upp"])
    assert len(caught) == 1


async def test_days_in_the_future_have_failed_and_the_others_are_exported(db: Path) -> None:
    """Days that have not begun anywhere are one failure without a request; `resume` fetches them later."""
    sim = simulator(first_day=date(2024, 5, 1))
    today = NOW.date()
    last = today + timedelta(days=10)
    result = await export(sim, db, str(today - timedelta(days=3)), str(last), chunk_days=1)
    assert all(isinstance(error, FutureDateError) for error in result.errors)
    assert result.failed_date_ranges[-1] == (str(today + timedelta(days=2)), str(last))
    assert max(request.last for request in sim.requests if request.last) <= today + timedelta(days=1)
    assert query(db, "SELECT count(DISTINCT event_time::DATE) FROM events") == [(4,)]
    assert ("failed",) in ledger(db, "status")


async def test_a_range_wholly_in_the_future_is_refused(db: Path) -> None:
    """It costs no request and leaves no file."""
    sim = simulator()
    first = NOW.date() + timedelta(days=2)
    with pytest.raises(ArgumentError) as caught:
        await export(sim, db, str(first), str(first))
    assert caught.value.argument == "from_date"
    assert (len(sim.requests), db.exists()) == (0, False)
