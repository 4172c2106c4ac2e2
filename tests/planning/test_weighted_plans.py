"""Plans balance expected events, not days: large days get their own chunks and come first; no plan gets slower."""

from collections.abc import Iterable, Sequence
from fractions import Fraction
from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from plans import NEVER, daily, day, days_of, fresh, held, sizes, spans

from mixpanel_export._model import Batch, Chunk
from mixpanel_export._planning.planner import (
    Plan,
    plan,
)


def test_the_heaviest_chunks_are_fetched_first() -> None:
    """The chunk with the most expected events is first, even with fixed chunks; empty days are weighted by their number."""
    rows = daily([0, 0, 0, 9, 9, 1, 1, 1, 70, 0])
    made = plan(day(0), day(9), batches=rows, skip_complete=False, chunk_days=2, first_open_day=NEVER)
    assert spans(made.fetch_order) == [(8, 9), (4, 5), (2, 3), (6, 7), (0, 1)]
    rows = daily([0, 0, 0, 0, 0, 5])
    made = plan(day(0), day(5), batches=rows, skip_complete=False, chunk_days=3, first_open_day=NEVER)
    assert spans(made.fetch_order) == [(3, 5), (0, 2)]


SPIKE = [7] * 17 + [90] + [7] * 12


def replaced(rows: Sequence[int], history: Sequence[Batch] = (), **options: Any) -> Plan:
    """Plan all days of *rows* again, with the given history or a history of every day."""
    usual: dict[str, Any] = {
        "skip_complete": False,
        "first_open_day": NEVER,
        "history": history or daily(rows),
    }
    return plan(day(0), day(len(rows) - 1), **(usual | options))


def test_a_day_that_is_expected_to_be_large_stands_alone_and_comes_first() -> None:
    """A day with as many events as nine others is not in a chunk of three days, and does not run last."""
    made = replaced(SPIKE)
    assert spans(made.fetch_order)[0] == (17, 17)
    assert days_of(made.chunks) == list(range(30))
    assert len(made.chunks) <= 10


def test_a_batch_that_was_large_is_cut_finely() -> None:
    """It is unknown which of its days was large, so each is a separate chunk, among the first."""
    before = [held(n, 3 * n, 3 * n + 2, rows=sum(SPIKE[3 * n : 3 * n + 3])) for n in range(10)]
    made = replaced(SPIKE, before)
    assert sorted(spans(made.fetch_order)[:3]) == [(15, 15), (16, 16), (17, 17)]
    assert len(made.chunks) <= 10


def test_a_batch_that_binds_stays_whole_however_large() -> None:
    """Batches with rows in the table are fetched as a whole, the largest first."""
    before = [held(n, 3 * n, 3 * n + 2, rows=sum(SPIKE[3 * n : 3 * n + 3])) for n in range(10)]
    made = plan(day(0), day(29), batches=before, skip_complete=False, first_open_day=NEVER)
    assert sizes(made.chunks) == [3] * 10
    assert spans(made.fetch_order)[0] == (15, 17)


@pytest.mark.parametrize("status", ["failed", "limited"])
def test_batches_that_are_not_whole_tell_nothing(status: str) -> None:
    """The row count of a failed or limited batch is not the number of events on its days."""
    history = [held(n, n, n, status, rows=each) for n, each in enumerate(SPIKE)]
    assert replaced(SPIKE, history).chunks == fresh(30)


def test_what_is_there_tells_of_events_too_and_newer_batches_know_better() -> None:
    """Open batches count; if two batches include a day, the one with the higher number counts, in any order."""
    tells = [held(n, n, n, "open", rows=each) for n, each in enumerate(SPIKE)]
    assert replaced(SPIKE, tells).chunks == replaced(SPIKE).chunks
    earlier = [held(-1 - n, n, n, rows=5000 * (n % 2)) for n in range(30)]
    assert replaced(SPIKE, tells + earlier).chunks == replaced(SPIKE).chunks


def test_open_days_keep_their_chunks_beside_what_is_cut_by_events() -> None:
    """Separate open days do not reduce the number of chunks for closed days."""
    rows = [0] * 15 + [100] * 15
    made = replaced([*rows, 0, 0, 0], first_open_day=day(30))
    assert sizes(made.chunks[-3:]) == [1, 1, 1]
    assert made.chunks[:-3] == replaced(rows).chunks
    assert len(made.chunks) == 23


def test_light_days_come_by_the_week_at_most() -> None:
    """However few events are expected, a chunk has no more days than it could have without a ledger."""
    for empty, full in [(14, 10), (15, 15), (30, 10), (38, 30)]:
        assert max(sizes(replaced([0] * empty + [100] * full).chunks)) <= 7
    assert max(sizes(replaced([0] * 365 + [100] * 35).chunks)) == 8


def test_one_chunk_for_each_worker_is_enough_for_known_days_that_are_equal() -> None:
    """If the ledger has all days, and they differ little, there are ten chunks; if one day is unknown, there are twenty."""
    assert sizes(replaced([10, 11, 12] * 10).chunks) == [3] * 10
    assert replaced([10] * 30, daily([10] * 29)).chunks == fresh(30)
    assert sizes(replaced([10] * 18 + [20] * 12).chunks) == sizes(fresh(30))


def test_chunks_stay_even_for_a_small_gain() -> None:
    """Days that differ little, or whose weights save less than a tenth of the time, are divided evenly."""
    assert replaced([10, 11, 12] * 30).chunks == fresh(90)
    assert replaced([10] * 90).fetch_order == replaced([0] * 90).fetch_order


def test_new_days_are_expected_to_follow_the_week() -> None:
    """After weeks of one-day batches, the new day on the weekday with the most events is fetched first."""
    before = [900 if number % 7 == 3 else 10 for number in range(70)]
    made = plan(day(70), day(99), batches=daily(before), skip_complete=True, first_open_day=NEVER)
    assert [
        any(number % 7 == 3 for number in range(first, last + 1))
        for first, last in spans(made.fetch_order)[:4]
    ] == [True] * 4
    assert len(made.chunks) <= 20


def test_empty_days_before_a_beginning_make_room_for_the_others() -> None:
    """Days before a project's start get few chunks, though none longer than a week, and the others get the rest."""
    made = replaced([0] * 15 + [100] * 15)
    assert max(len([number for number in days_of([chunk]) if number >= 15]) for chunk in made.chunks) == 2
    assert len(made.chunks) <= 20
    assert max(sizes(made.chunks)) <= 7


def slowest(chunks: Iterable[Chunk], rows: Sequence[int], workers: int) -> Fraction:
    """Return when the last worker is done, of whom the one that is free first takes the next of *chunks*."""
    least = Fraction(sum(rows), 50 * len(rows))
    free = [Fraction(0)] * workers
    for chunk in chunks:
        free.sort()
        free[0] += sum(rows[number] + least for number in days_of([chunk]))
    return max(free)


@given(
    rows=st.lists(st.integers(0, 20) | st.integers(0, 2000), min_size=1, max_size=120),
    workers=st.integers(1, 12),
    requests=st.none() | st.integers(1, 60),
    draw=st.randoms(use_true_random=False),
)
def test_what_is_expected_never_makes_a_plan_slower(
    rows: list[int], workers: int, requests: int | None, draw: Random
) -> None:
    """Weighted plans have each day once, none has more chunks or longer ones, and those with as many are no slower.

    A plan with fewer chunks may take up to a ninth longer.
    """
    even = fresh(len(rows), workers=workers, requests=requests)
    made = replaced(rows, workers=workers, requests=requests)
    assert days_of(made.chunks) == list(range(len(rows)))
    assert sorted(made.fetch_order) == list(made.chunks)
    assert len(made.chunks) <= len(even)
    assert max(sizes(made.chunks)) <= max(7, *sizes(even))
    heaviest_first = sorted(even, key=lambda chunk: -slowest([chunk], rows, 1))
    then, now = slowest(heaviest_first, rows, workers), slowest(made.fetch_order, rows, workers)
    assert now <= (then if len(made.chunks) == len(even) else then * Fraction(1112, 1000))
    mixed = daily(rows)
    draw.shuffle(mixed)
    assert replaced(rows, mixed, workers=workers, requests=requests) == made
