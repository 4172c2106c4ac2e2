"""A sync fetches missing days, the last days again, and each day of the last month about once a week."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import date, datetime, timedelta

from hypothesis import given, settings
from hypothesis import strategies as st
from plans import DAY, START, day, days_of, held, spans

from mixpanel_export._model import Batch, Chunk, Status
from mixpanel_export._planning.planner import Plan, first_open_day, is_open
from mixpanel_export._planning.refresh import SWEEP_DAYS, SWEEP_PERIOD, Refresh, plan_sync

LAST = 59  # the number of the last day of most plans


def night(number: int) -> datetime:
    """Return six o'clock on the day after day *number*, naive and in UTC."""
    return datetime(START.year, START.month, START.day, 6) + timedelta(days=number + 1)


def synced(
    batches: Sequence[Batch],
    *,
    last: int = LAST,
    refused: dict[date, datetime] | None = None,
    lookback: int = 5,
    budget: int | None = 20,
    accepted: Sequence[int] = (),
) -> Plan:
    """Plan the night after day *last*."""
    return plan_sync(
        Chunk(START, day(last)),
        batches=batches,
        checked=refused or {},
        refresh=Refresh(
            lookback=lookback, budget=budget, accepted=frozenset(day(number) for number in accepted)
        ),
        now=night(last),
        first_open_day=first_open_day(night(last)),
    )


def checked(number: int, first: int, last: int, on: int, status: str = "complete") -> Batch:
    """Return a ledger row whose request was sent in the night after day *on*."""
    return replace(held(number, first, last, status), requested_at=night(on))


def committed(planned: Plan, batches: Sequence[Batch], on: int) -> list[Batch]:
    """Return the ledger after a sync in the night after day *on* committed every chunk."""
    left = [batch for batch in batches if not any(batch.days.overlaps(chunk) for chunk in planned.chunks)]
    number = max((batch.number for batch in batches), default=0)
    for chunk in planned.chunks:
        number += 1
        status: Status = "open" if is_open(chunk.last, night(on)) else "complete"
        left.append(Batch(number, chunk, status, 1, requested_at=night(on)))
    return left


@st.composite
def ledgers(draw: st.DrawFn) -> list[Batch]:
    """Batches of up to nine days without gaps, some failed or open, some followed by a failed attempt."""
    batches: list[Batch] = []
    first = 0
    while first <= LAST:
        last = min(LAST, first + draw(st.integers(0, 8)))
        status = draw(st.sampled_from(["complete"] * 4 + ["open", "failed"]))
        batches.append(checked(len(batches) + 1, first, last, draw(st.integers(last, LAST + 3)), status))
        if draw(st.integers(0, 9)) == 0:
            batches.append(checked(len(batches) + 1, first, last, LAST, "failed"))
        first = last + 1 + draw(st.sampled_from([0] * 5 + [3]))
    return batches


@given(batches=ledgers(), lookback=st.integers(0, 40), budget=st.none() | st.integers(0, 70))
def test_a_plan_keeps_batches_whole_and_fetches_what_resume_fetches(
    batches: list[Batch], lookback: int, budget: int | None
) -> None:
    """Chunks do not overlap, never divide a visible batch, and contain every day that is not complete."""
    planned = synced(batches, lookback=lookback, budget=budget)
    fetched = days_of(planned.chunks)
    assert len(fetched) == len(set(fetched))
    assert sorted(planned.fetch_order) == list(planned.chunks)
    for batch in batches:
        if batch.visible:
            assert set(batch.days.dates) <= {day(number) for number in fetched} or not any(
                batch.days.overlaps(chunk) for chunk in planned.chunks
            )
            assert not any(
                batch.days.overlaps(chunk)
                and not (chunk.first <= batch.days.first and batch.days.last <= chunk.last)
                for chunk in planned.chunks
            )
    newest = {on: batch.status for batch in batches for on in batch.days.dates}
    missing = {number for number in range(LAST + 1) if newest.get(day(number)) != "complete"}
    assert missing <= set(fetched)
    skipped = days_of(planned.skipped)
    assert sorted({*fetched, *skipped}) == list(range(LAST + 1))
    assert set(fetched).isdisjoint(skipped)


@given(batches=ledgers(), budget=st.integers(0, 30))
def test_the_budget_limits_what_is_fetched_again(batches: list[Batch], budget: int) -> None:
    """A plan has at most as many requests as the budget, unless missing days need more."""
    required = len(synced(batches, budget=0).chunks)
    assert len(synced(batches, budget=budget).chunks) <= max(budget, required)


@settings(max_examples=8)
@given(st.lists(st.sampled_from([1, 1, 1, 1, 2, 4]), min_size=30, max_size=30))
def test_every_recent_day_is_checked_once_a_week(gaps: list[int]) -> None:
    """With a sync every night, each of the last 30 days was checked within a week; missed nights are caught up."""
    batches: list[Batch] = []
    last = 0
    for gap in [1] * 35 + gaps:
        last += gap
        planned = synced(batches, last=last)
        batches = committed(planned, batches, last)
        for number in range(max(0, last - SWEEP_DAYS + 1), last + 1):
            (batch,) = (batch for batch in batches if batch.days.first <= day(number) <= batch.days.last)
            assert (night(last) - (batch.requested_at or night(-1))).days < SWEEP_PERIOD + gap
        assert len(planned.chunks) <= 20


def test_a_quiet_night_has_nine_requests() -> None:
    """After a month of nights: five days of the lookback, and a seventh of the other 25."""
    batches: list[Batch] = []
    for last in range(90):
        planned = synced(batches, last=last)
        batches = committed(planned, batches, last)
    assert len(planned.chunks) == 9
    assert days_of(planned.chunks)[-5:] == [85, 86, 87, 88, 89]
    assert {chunk.length for chunk in planned.chunks} == {1}


def test_the_first_sync_fetches_recent_days_alone() -> None:
    """Days of the lookback are batches of one day; earlier ones are planned like any export."""
    planned = synced([])
    assert spans(planned.chunks)[-5:] == [(55, 55), (56, 56), (57, 57), (58, 58), (59, 59)]
    assert len(planned.chunks) == 25
    assert days_of(planned.chunks) == list(range(60))


def test_earlier_days_of_a_small_project_are_one_request() -> None:
    """If the ledger predicts under ten seconds, days before the lookback are not divided; its days stay alone."""

    def took(seconds: float) -> Batch:
        batch = checked(1, 15, 15, 20)
        return replace(batch, finished=night(20) + timedelta(seconds=seconds))

    alone = [(number, number) for number in range(16, 21)]
    assert spans(synced([took(0.2)], last=20).chunks) == [(0, 14), *alone]
    assert spans(synced([took(2.0)], last=20).chunks)[-5:] == alone
    assert len(synced([took(2.0)], last=20).chunks) > 6


def test_a_long_lookback_does_not_fetch_each_day_alone() -> None:
    """At most a month of days that the table lacks become batches of one day."""
    planned = synced([], last=364, lookback=365)
    assert len(planned.chunks) <= 50
    assert [chunk.length for chunk in planned.chunks[-30:]] == [1] * 30


def test_the_oldest_check_comes_first() -> None:
    """The sweep takes whole batches in the order of their last check; a check in the future is ignored."""
    batches = [
        checked(1, 0, 39, 40),
        checked(2, 40, 43, 50),
        checked(3, 44, 46, 48),
        checked(4, 47, 50, 90),
        checked(5, 51, 54, 54),
        *(checked(number, number, number, 58) for number in range(55, 60)),
    ]
    assert spans(synced(batches, lookback=0, budget=None).chunks) == [(0, 39), (40, 43), (44, 46), (47, 50)]
    assert spans(synced(batches, lookback=0, budget=2).chunks) == [(0, 39), (47, 50)]
    assert spans(synced(batches, lookback=0, budget=3).chunks) == [(0, 39), (44, 46), (47, 50)]


def test_a_refused_day_is_checked_in_turn() -> None:
    """A day whose new response was rejected counts as checked, so that it does not use the budget every night."""
    batches = [checked(1 + number, number, number, 50) for number in range(30, 55)]
    batches += [checked(number, number, number, 59) for number in range(55, 60)]
    batches.insert(0, checked(1, 0, 29, 50))
    assert day(30) in {chunk.first for chunk in synced(batches, lookback=0, budget=4).chunks}
    refused = {day(30): night(58)}
    assert day(30) not in {
        chunk.first for chunk in synced(batches, lookback=0, budget=4, refused=refused).chunks
    }


def test_accepted_days_are_fetched_whatever_the_budget() -> None:
    """The batches of accepted days take precedence over the budget."""
    batches = [checked(1, 0, 9, 59), checked(2, 10, 54, 59)]
    batches += [checked(number, number, number, 59) for number in range(55, 60)]
    planned = synced(batches, lookback=0, budget=0, accepted=[3])
    assert spans(planned.chunks)[0] == (0, 9)


def test_a_batch_beyond_the_days_is_fetched_whole() -> None:
    """Days of a batch that are outside the sync's days are listed in the plan."""
    planned = synced([checked(1, -3, 2, 40), checked(2, 3, 60, 61)], lookback=1)
    assert spans(planned.chunks) == [(3, 60)]
    assert [chunk.first for chunk in planned.added] == [day(LAST) + DAY]
