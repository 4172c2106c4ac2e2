"""Small projects need few requests: more would hardly save time, and would use quota that larger exports need."""

from dataclasses import replace
from datetime import datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st
from plans import NEVER, day, days_of, held, spans

from mixpanel_export._model import Batch
from mixpanel_export._planning.durations import expected_seconds
from mixpanel_export._planning.planner import Plan, plan

SENT = datetime(2024, 6, 1, 12)


def took(seconds: float, first: int = 0, last: int | None = None, status: str = "complete") -> Batch:
    """Return a ledger row of a request that took so long."""
    row = held(first, first, first if last is None else last, status, rows=10)
    return replace(row, requested_at=SENT, finished=SENT + timedelta(seconds=seconds))


def planned(days: int, *batches: Batch, requests: int | None = 50, chunk_days: int | None = None) -> Plan:
    """Plan the days after the ten days of *batches*."""
    return plan(
        day(10),
        day(9 + days),
        batches=batches,
        skip_complete=True,
        requests=requests,
        first_open_day=NEVER,
        chunk_days=chunk_days,
    )


def test_ten_short_days_cost_one_request() -> None:
    """If the ledger predicts under ten seconds for all days, there is one request, and the plan has the reason."""
    short = planned(10, took(0.5))
    assert spans(short.chunks) == [(10, 19)]
    assert short.one_request_seconds == 5.0
    long = planned(10, took(1.0))
    assert len(long.chunks) == 10
    assert long.one_request_seconds is None


def test_a_project_without_timed_batches_is_planned_as_before() -> None:
    """Failed and limited batches, and those without times, predict nothing."""
    for batches in (
        [],
        [held(0, 0, 9, rows=5)],
        [took(0.1, status="failed")],
        [took(0.1, status="limited")],
        [replace(took(0.1), requested_at=None)],
        [replace(took(0.1), finished=None)],
    ):
        assert len(planned(10, *batches).chunks) == 10


def test_thirty_days_are_many_and_chosen_lengths_are_kept() -> None:
    """Nothing changes from thirty days on, with chunks of a fixed length, or without a quota."""
    batch = took(0.01)
    assert len(planned(29, batch).chunks) == 1
    assert len(planned(30, batch).chunks) > 1
    assert len(planned(10, batch, chunk_days=2).chunks) == 5
    assert len(planned(10, batch, requests=None).chunks) == 10


def test_open_days_stay_requests_of_their_own() -> None:
    """They will soon be fetched again, and then each is replaced separately."""
    chunks = plan(day(10), day(19), batches=[took(0.1)], skip_complete=True, first_open_day=day(18)).chunks
    assert spans(chunks) == [(10, 17), (18, 18), (19, 19)]


@given(
    st.lists(st.floats(0.01, 3.0), min_size=1, max_size=10),
    st.integers(1, 40),
    st.sets(st.integers(10, 49), max_size=5),
)
def test_every_day_is_requested_once(seconds: list[float], days: int, complete: set[int]) -> None:
    """This holds for any number of requests; days that are in the table separate them."""
    batches = [took(each, number, number) for number, each in enumerate(seconds)]
    batches += [took(0.1, number, number) for number in complete]
    short = planned(days, *batches)
    assert sorted(days_of(short.chunks)) == [day for day in range(10, 10 + days) if day not in complete]
    if short.one_request_seconds is not None:
        assert short.one_request_seconds < 10
        assert all(number in complete for chunk in spans(short.chunks)[1:] for number in [chunk[0] - 1])


def test_the_slowest_of_the_newest_batches_counts() -> None:
    """One slow request long ago does not count forever, and seconds are per day."""
    assert expected_seconds(3, []) is None
    assert expected_seconds(3, [took(2.0, status="open")]) == 6.0
    assert expected_seconds(3, [took(8.0, 0, 3), took(1.0, 5)]) == 6.0
    old = took(99.0)
    assert expected_seconds(1, [old, *(took(1.0, number) for number in range(1, 10))]) == 99.0
    assert expected_seconds(1, [old, *(took(1.0, number) for number in range(1, 11))]) == 1.0
