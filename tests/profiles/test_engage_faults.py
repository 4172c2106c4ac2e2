"""Several faults in one export of profiles: the table has the profiles of one session, or is unchanged."""

from collections.abc import Awaitable, Sequence
from dataclasses import dataclass
from itertools import combinations_with_replacement
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, get_args

import anyio
import pytest
from examples import examples, slow
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from people import export_from, export_people, people, project, snapshots

from mixpanel_export import APIError, MixpanelDataError
from mixpanel_export.simulator import Fault
from mixpanel_export.simulator.faults import PageKind

LOSING = frozenset({"short_page", "page_again", "wrong_page", "profile_repeated", "profile_skipped"})
"""Kinds after which a session may lack profiles."""

KINDS: tuple[Any, ...] = (
    *get_args(PageKind),
    "429", "500", "503", "402", "empty_200", "error_line", "terminated_early", "cut_line", "reset", "close",
    "reset_before_head", "close_before_head", "truncated_gzip", "trailing_garbage", "timeout_error",
)  # fmt: skip


@dataclass(frozen=True)
class Scenario:
    """Two snapshots of a project, the second one under faults."""

    faults: Sequence[Fault]
    profiles: int = 95
    totals: Any = "first"
    mode: Any = "replace"
    workers: int = 5
    retries: int = 2

    @property
    def detectable(self) -> bool:
        """Whether the pages show that something is wrong.

        With a total that is too low by one, the loss of one profile looks like a project with one profile less.
        """
        kinds = {fault.kind for fault in self.faults}
        return "total_too_low" not in kinds or not kinds & LOSING


async def check(scenario: Scenario, db: Path) -> None:
    """Export twice, the second time under faults, and once more without; check the table each time."""
    sim = project(scenario.profiles, totals=scenario.totals)
    transport = sim.transport()
    await export_from(db=db, transport=transport)
    old = sim.profile_truth()
    assert people(db) == old
    sim.profile_revision = 1
    new = sim.profile_truth()
    expected = old | new if scenario.mode == "append" else new
    sim.profile_faults = scenario.faults
    options = {"mode": scenario.mode, "max_workers": scenario.workers, "allow_empty": True}
    error = await failure(export_from(db=db, transport=transport, retries=scenario.retries, **options))
    assert people(db) == (old if error else expected)
    if error is not None:
        assert isinstance(error, APIError)
        assert any(log.fault for log in sim.profile_requests)
        assert [row[0] for row in snapshots(db)] == ["complete", "failed"]
    sim.profile_faults = []
    await export_from(db=db, transport=transport, **options)
    assert people(db) == expected


async def failure(export: Awaitable[object]) -> MixpanelDataError | None:
    """Return the error of an export; None if it succeeds."""
    try:
        await export
    except MixpanelDataError as error:
        return error
    return None


_FAULTS = st.builds(
    Fault,
    st.sampled_from(KINDS),
    times=st.sampled_from([1, 1, 2, 4, None]),
    after=st.integers(0, 2),
    position=st.sampled_from([0.0, 0.5, 1.0]),
    pages=st.sampled_from([(), (0,), (1,), (3,), (3, 4), (8,), (9,)]),
    retry_after=st.just(0.0),
)


@settings(examples(5, 150), suppress_health_check=[HealthCheck.too_slow])
@given(
    st.builds(
        Scenario,
        st.lists(_FAULTS, min_size=1, max_size=3),
        profiles=st.sampled_from([0, 1, 9, 10, 11, 30, 31, 90, 95]),
        totals=st.sampled_from(["first", "all"]),
        mode=st.sampled_from(["replace", "append"]),
        workers=st.sampled_from([1, 2, 5]),
        retries=st.sampled_from([0, 2]),
    ),
    st.sampled_from(["asyncio", "trio"]),
)
def test_the_table_has_one_session_or_is_unchanged(scenario: Scenario, backend: str) -> None:
    """Up to three faults, anywhere: an export that ends is exact, one that fails has a name and changes nothing."""
    assume(scenario.detectable)
    with TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        anyio.run(check, scenario, Path(folder, "people.duckdb"), backend=backend)


_PAIRS = [
    pair
    for pair in combinations_with_replacement(KINDS, 2)
    if Scenario([Fault(kind) for kind in pair]).detectable
]


@pytest.mark.parametrize("times, backend", [(1, "asyncio"), (None, "trio")])
@pytest.mark.parametrize("first, second", slow(_PAIRS))
def test_every_pair_of_faults(first: Any, second: Any, times: int | None, backend: str, db: Path) -> None:
    """One at a page in the middle, the other at the last page; once, or every time."""
    # The tests have no pauses, so a 429 that stays would be repeated until `max_wait`.
    faults = [
        Fault(kind, pages=(page,), times=3 if kind == "429" else times, retry_after=0.0)
        for kind, page in ((first, 4), (second, 9))
    ]
    anyio.run(check, Scenario(faults), db, backend=backend)


@pytest.mark.anyio
@pytest.mark.parametrize(
    "profiles, kinds", [(31, ["total_too_low"]), (30, ["total_too_low", "profile_repeated"])]
)
async def test_a_full_last_page_is_not_believed(profiles: int, kinds: list[Any], db: Path) -> None:
    """If the total is too low and the last page by the total is full, the next page shows it."""
    sim = project(profiles, totals="first")
    sim.profile_faults = [Fault(kind, pages=(number,), times=1) for number, kind in enumerate(kinds)]
    result = await export_from(db=db, transport=sim.transport(), max_workers=1)
    assert people(db) == sim.profile_truth()
    assert result.restarts == 1


@pytest.mark.anyio
async def test_pages_need_no_query_of_the_hour(db: Path) -> None:
    """A restart is another query; the server never has more than five pages to send."""
    sim = project(queries_per_hour=2, seconds_per_page=0.01)
    sim.profile_faults = [Fault("session_evicted", pages=(6,), times=1)]
    result = await export_people(sim, db, per_hour=2)
    assert people(db) == sim.profile_truth()
    assert result.restarts == 1
    assert 1 < sim.max_concurrent_queries <= 5
    assert {log.status for log in sim.profile_requests} <= {None, 200, 400}
    assert sum("session_id" not in log.params for log in sim.profile_requests) == 2
