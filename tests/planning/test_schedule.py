"""How close plans come to the optimum, and a proof of the benchmarks' optimum."""

from collections.abc import Sequence
from datetime import date, timedelta
from itertools import combinations, pairwise, permutations

import pytest
from _schedule import Rules, best_known, lower_bound, makespan
from hypothesis import given
from hypothesis import strategies as st

from mixpanel_export._model import Batch, Chunk
from mixpanel_export._planning.planner import plan

MILLISECOND = 0.001
FIRST, NEVER = date(2024, 1, 1), date(2999, 1, 1)
TEN = Rules()


def shortest(days: Sequence[float], rules: Rules) -> float:
    """Return the seconds of the shortest schedule, after trying all: each way to cut, in each order."""
    return min(
        makespan(order, rules)
        for chunks in range(1, min(len(days), rules.requests) + 1)
        for cuts in combinations(range(1, len(days)), chunks - 1)
        for order in permutations(sum(days[slice(*edge)]) for edge in pairwise([0, *cuts, len(days)]))
    )


rules = st.builds(
    Rules,
    first_byte=st.sampled_from([0.5, 1.5]),
    workers=st.integers(1, 4),
    requests=st.integers(2, 6),
    per_second=st.integers(1, 3),
)


@given(days=st.lists(st.floats(0.125, 9), min_size=1, max_size=5), rules=rules)
def test_the_best_possible_lies_between_its_bounds(days: list[float], rules: Rules) -> None:
    """No schedule is shorter than the lower bound, and one is as short as claimed."""
    best = shortest(days, rules)
    assert lower_bound(days, rules) <= best + MILLISECOND
    assert best_known(days, rules) >= best - MILLISECOND


@given(days=st.integers(1, 400), seconds=st.sampled_from([2.55, 10.05]), workers=st.integers(1, 12))
def test_for_equal_days_the_best_possible_is_known(days: int, seconds: float, workers: int) -> None:
    """If all days take equally long, a schedule is known that is as short as the lower bound."""
    rules = Rules(workers=workers)
    assert best_known([seconds] * days, rules) == pytest.approx(
        lower_bound([seconds] * days, rules), abs=2 * MILLISECOND
    )


def test_a_schedule_waits_for_workers_and_for_admission() -> None:
    """Two workers, one request a second, half a second to the first byte."""
    rules = Rules(workers=2, per_second=1)
    assert makespan([3, 1, 1], rules) == 4.0  # 0 to 3.5, 1 to 2.5, 2.5 to 4
    assert makespan([0.1, 0.1, 0.1], rules) == 2.6  # begin at 0, 1 and 2


def planned(
    seconds: Sequence[float], history: Sequence[Batch] = (), first: date = FIRST
) -> tuple[Chunk, ...]:
    """Return the chunks for days that take so long, in the order of fetching."""
    last = first + timedelta(len(seconds) - 1)
    return plan(first, last, skip_complete=False, history=history, first_open_day=NEVER).fetch_order


def ratio(seconds: Sequence[float], history: Sequence[Batch] = (), first: date = FIRST) -> float:
    """Return how much longer than the bound the planned chunks take."""
    chunks = [days_of(chunk, seconds, first) for chunk in planned(seconds, history, first)]
    return makespan(chunks, TEN) / lower_bound(seconds, TEN)


def days_of(chunk: Chunk, seconds: Sequence[float], first: date = FIRST) -> float:
    """Return the seconds that the chunk's days take."""
    start = (chunk.first - first).days
    return sum(seconds[start : start + chunk.length])


def ledger(seconds: Sequence[float], events: Sequence[float]) -> list[Batch]:
    """Return the ledger of an export of days that take so long and have so many thousand events."""
    return [
        Batch(number, chunk, "complete", round(1000 * days_of(chunk, events)))
        for number, chunk in enumerate(planned(seconds))
    ]


@pytest.mark.parametrize("seconds", [2.55, 10.05])
@pytest.mark.parametrize("days", [30, 90, 365])
def test_plans_for_equal_days_are_near_the_best_possible(days: int, seconds: float) -> None:
    """The plan takes at most 10 % longer than the shortest schedule, and with the ledger of that export at most 5 %."""
    assert ratio([seconds] * days) <= 1.1
    assert ratio([seconds] * days, ledger([seconds] * days, [1] * days)) <= 1.05


@pytest.mark.parametrize("transfer", [2.5, 10])
@pytest.mark.parametrize("days", [30, 90, 365])
def test_plans_for_quiet_weekends_and_growth_are_near_the_best_possible(days: int, transfer: float) -> None:
    """Without a ledger, and whatever the first weekday is, the plan takes at most 20 % longer than the lower bound."""
    for first in range(7):
        growing = [1 + number / days for number in range(days)]
        events = [
            each * (0.3 if (first + number) % 7 in (5, 6) else 1.28) for number, each in enumerate(growing)
        ]
        seconds = [0.05 + transfer * each * days / sum(events) for each in events]
        assert ratio(seconds, first=FIRST + timedelta(first)) <= 1.2


@given(days=st.sampled_from([30, 90, 365]), place=st.floats(0, 0.999), transfer=st.sampled_from([2.5, 10]))
def test_plans_with_a_ledger_are_near_the_best_possible(days: int, place: float, transfer: float) -> None:
    """Wherever the day with 30 % of all events is, the batches of an even plan provide enough information."""
    events = [0.7 * days / (days - 1)] * days
    events[int(place * days)] = 0.3 * days
    seconds = [0.05 + transfer * each for each in events]
    assert ratio(seconds, ledger(seconds, events)) <= 1.15
