"""What earlier batches tell about the events of other days, and divisions into equal weights."""

from collections.abc import Sequence
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mixpanel_export._planning.weights import even_by_weight, expected_weights, makespan, shares, weight

Told = list[tuple[range, int]]


def expected(told: Sequence[tuple[range, int]], *days: int) -> list[float]:
    """Return the events expected on *days*, without what each day weighs for itself."""
    found = expected_weights(told, [*days, 10_000])
    assert found is not None
    known = {day: rows / len(batch) for batch, rows in told for day in batch}
    least = sum(known.values()) / len(known) / 50
    return [round(found[day] - least, 6) for day in days]


def alone(*rows: int, first: int = 0) -> Told:
    """Return batches of one day each."""
    return [(range(first + place, first + place + 1), each) for place, each in enumerate(rows)]


@pytest.mark.parametrize("told", [[], [(range(3), 0)], alone(0, 0)])
def test_without_events_nothing_is_expected(told: Told) -> None:
    """If there are no batches, or all are empty, all days are equal."""
    assert expected_weights(told, range(9)) is None


def test_a_batch_shares_its_rows_evenly() -> None:
    """Only the sum of a batch of several days is known."""
    assert expected([(range(4), 12), (range(4, 5), 7)], 0, 3, 4) == [3, 3, 7]


def test_a_later_batch_knows_better() -> None:
    """If two batches include a day, the later one counts."""
    assert expected([(range(4), 12), (range(2, 3), 7)], 1, 2, 3) == [3, 7, 3]


def test_an_empty_day_weighs_a_fiftieth_of_the_average() -> None:
    """No day is free, so empty days do not all end up in one chunk."""
    assert expected_weights(alone(0, 100), [0, 1]) == {0: 1.0, 1: 101.0}


def test_an_unknown_day_is_like_the_same_weekday_nearby() -> None:
    """Its estimate is the median of the nearest three on either side that were fetched separately."""
    weeks = [10, 20, 30, 40, 50, 60, 70, 80]
    told = [
        batch for week, rows in enumerate(weeks) for batch in alone(rows, 1, 1, 1, 1, 1, 1, first=7 * week)
    ]
    del told[21]
    assert expected(told, 21, 56, 57, 700) == [(30 + 50) / 2, 70, 1, 70]


def test_an_outlier_does_not_come_again() -> None:
    """One large day among similar ones does not affect the estimates of later days."""
    assert expected(alone(*[5] * 28, 9000, *[5] * 6), 35, 42) == [5, 5]


def test_batches_of_several_days_tell_of_no_weekday() -> None:
    """If no batch has exactly one day, unknown days get the median of the nearest days."""
    told = [(range(4), 40), (range(4, 8), 80), (range(12, 16), 4000)]
    assert expected(told, 8, 11, 16, 17) == [(20 + 1000) / 2, (20 + 1000) / 2, 1000, 1000]


def test_a_later_batch_of_several_days_forgets_the_weekday() -> None:
    """A day that was fetched separately and then again with others does not count for its weekday."""
    told = [*alone(70), (range(2), 20), *alone(90, 50, first=2)]
    assert expected(told, 7) == [50]


def test_where_nothing_is_known_days_weigh_the_same() -> None:
    """Without weights, the weight of a run is its number of days."""
    assert weight(range(3, 8), None) == 5
    assert weight(range(2), {0: 1.5, 1: 2.5}) == 4


@pytest.mark.parametrize("workers, seconds", [(1, 20), (2, 10), (3, 8), (4, 8), (9, 8)])
def test_workers_take_the_heaviest_first(workers: int, seconds: int) -> None:
    """The first free worker takes the next part."""
    weights = {0: 2.0, 1: 2.0, 2: 8.0, 3: 3.0, 4: 5.0}
    assert makespan([range(day, day + 1) for day in weights], weights, workers) == seconds


@given(
    st.lists(st.tuples(st.integers(0, 100), st.integers(1, 9)), min_size=1, max_size=9), st.integers(0, 60)
)
def test_every_run_gets_a_chunk_and_none_more_than_it_can_use(
    runs: list[tuple[int, int]], count: int
) -> None:
    """All chunks are distributed, as far as runs can be divided, and moving one would not help a heavier run."""
    weights, most = [run[0] for run in runs], [run[1] for run in runs]
    given_ = shares(weights, most, count)
    assert sum(given_) == min(sum(most), max(count, len(runs)))
    assert all(1 <= share <= limit for share, limit in zip(given_, most, strict=True))
    heaviest = max(
        (load / share for load, share, limit in zip(weights, given_, most, strict=True) if share < limit),
        default=0,
    )
    assert all(
        share == 1 or load / (share - 1) >= heaviest for load, share in zip(weights, given_, strict=True)
    )


@given(
    weights=st.lists(st.integers(1, 5) | st.integers(1, 1000), min_size=1, max_size=40),
    hole=st.integers(0, 40),
    batches=st.lists(st.integers(1, 6), max_size=12),
    most=st.integers(0, 50),
)
def test_cuts_are_even_in_weight(weights: list[int], hole: int, batches: list[int], most: int) -> None:
    """Each day once, no batch divided, no more chunks than requested, and none heavier than its share by a whole part."""
    days = len(weights)
    known = {day: float(each) for day, each in enumerate(weights)}
    runs = [run for run in (range(min(hole, days)), range(hole + 1, days)) if run]
    edges = [sum(batches[:place]) for place in range(len(batches) + 1)]
    bound = [range(*edge) for edge in pairwise(edges) if any(set(range(*edge)) <= set(run) for run in runs)]
    wanted = [day for run in runs for day in run]
    pieces = [[day] for day in wanted if not any(day in batch for batch in bound)] + [list(b) for b in bound]
    heaviest = max((sum(known[day] for day in piece) for piece in pieces), default=0)
    cuts = list(even_by_weight(runs, bound, known, most))
    assert len(cuts) == max(0, most - len(runs) + 1)
    for number, parts in enumerate(cuts, len(runs)):
        assert [day for part in parts for day in part] == wanted
        assert not any(batch.start < part.start < batch.stop for part in parts for batch in bound)
        assert len(parts) <= number
        if len(runs) == 1:
            share = sum(weights[day] for day in wanted) / min(number, len(pieces))
            assert max(weight(part, known) for part in parts) <= share + heaviest + 1e-6
