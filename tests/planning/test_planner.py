"""A plan fetches exactly the days it should, in chunks that suit the workers, the quota and the ledger."""

from collections.abc import Iterable, Sequence
from datetime import UTC, date, datetime, timedelta, timezone
from fractions import Fraction
from itertools import pairwise
from random import Random
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mixpanel_export._model import Batch, Chunk
from mixpanel_export._planning.days import parse_day
from mixpanel_export._planning.planner import (
    Plan,
    first_open_day,
    is_open,
    plan,
    split_date_range,
    split_in_two,
)

DAY = timedelta(days=1)
START = date(2024, 1, 1)
NEVER = date(2999, 1, 1)


def day(number: int) -> date:
    """Return the day that is *number* days after the first one of these tests."""
    return START + number * DAY


def days_of(chunks: Iterable[Chunk]) -> list[int]:
    """Return the days of *chunks* by number, in the chunks' order."""
    return [(chunk.first - START).days + extra for chunk in chunks for extra in range(chunk.days)]


def sizes(chunks: Iterable[Chunk]) -> list[int]:
    """Return the chunks' lengths in days."""
    return [chunk.days for chunk in chunks]


def spans(chunks: Iterable[Chunk]) -> list[tuple[int, int]]:
    """Return the chunks' first and last days by number."""
    return [((chunk.first - START).days, (chunk.last - START).days) for chunk in chunks]


def held(batch: int, first: int, last: int, status: str = "complete", rows: int = 0) -> Batch:
    """Return a ledger row over days by number."""
    assert status in {"complete", "open", "limited", "failed"}
    return Batch(batch, Chunk(day(first), day(last)), status, rows)  # type: ignore[arg-type] # asserted above


def daily(rows: Iterable[int]) -> list[Batch]:
    """Return the ledger of an export that fetched every day alone."""
    return [held(number, number, number, rows=each) for number, each in enumerate(rows)]


def fresh(
    days: int, *, workers: int = 10, requests: int | None = 50, open_days: int = 0
) -> tuple[Chunk, ...]:
    """Plan *days* days of which nothing is held and the last *open_days* are open."""
    return plan(
        START,
        day(days - 1),
        skip_complete=True,
        workers=workers,
        requests=requests,
        first_open_day=day(days - open_days),
    ).chunks


@pytest.mark.parametrize("text", ["2024-02-29", "0001-01-01", "9999-12-31"])
def test_a_day_is_read_as_written(text: str) -> None:
    """`YYYY-MM-DD` is a day, and a day stays one."""
    assert parse_day(text, "x") == date.fromisoformat(text)
    assert parse_day(date.fromisoformat(text), "x") == date.fromisoformat(text)


@pytest.mark.parametrize(
    "text",
    [
        "20240101",
        "2024-1-1",
        "2024-W01-1",
        "2024-02-30",
        "2023-02-29",
        "2024-01-01T00:00:00",
        " 2024-01-01",
        "2024-01-01\n",
        "\u0662024-01-01",
        "",
        "today",
        datetime(2024, 1, 1, tzinfo=UTC),
    ],
)
def test_anything_else_is_no_day(text: str | date) -> None:
    """Other ways to write a date are refused with one sentence that shows what was given."""
    with pytest.raises(
        ValueError, match=r"^from_date must be (YYYY-MM-DD|a day that exists), got '"
    ) as caught:
        parse_day(text, "from_date")
    assert str(caught.value).endswith(f"got {str(text)!r}")


dates = st.dates(date(1990, 1, 1), date(2100, 1, 1))


@given(first=dates, days=st.integers(1, 400), chunk_days=st.integers(1, 100))
def test_splitting_is_counting_off(first: date, days: int, chunk_days: int) -> None:
    """A range is cut into chunks exactly as if its days were counted off by hand."""
    expected: list[tuple[str, str]] = []
    for number in range(days):
        text = str(first + number * DAY)
        if number % chunk_days == 0:
            expected.append((text, text))
        else:
            expected[-1] = (expected[-1][0], text)
    assert split_date_range(str(first), str(first + (days - 1) * DAY), chunk_days) == expected


def test_splitting_by_default_is_weekly() -> None:
    """Chunks have seven days where nothing else is said."""
    assert split_date_range("2024-01-01", "2024-01-15") == [
        ("2024-01-01", "2024-01-07"),
        ("2024-01-08", "2024-01-14"),
        ("2024-01-15", "2024-01-15"),
    ]
    assert split_date_range("9999-12-31", "9999-12-31") == [("9999-12-31", "9999-12-31")]


def test_what_cannot_be_split_is_refused() -> None:
    """A reversed range, a chunk without days and a malformed date are told apart."""
    with pytest.raises(
        ValueError, match=r"^from_date must not be after to_date, got 2024-01-02 and 2024-01-01$"
    ):
        split_date_range("2024-01-02", "2024-01-01")
    for chunk_days in (0, -1):
        with pytest.raises(ValueError, match=rf"^chunk_days must be positive, got {chunk_days}$"):
            split_date_range("2024-01-01", "2024-01-02", chunk_days)
    with pytest.raises(ValueError, match=r"^from_date must be YYYY-MM-DD, got 'x'$"):
        split_date_range("x", "2024-01-01")
    with pytest.raises(ValueError, match=r"^to_date must be YYYY-MM-DD, got 'x'$"):
        split_date_range("2024-01-01", "x")


@given(
    last=dates,
    minutes=st.integers(-10_000, 10_000),
    offset=st.integers(-12, 14).map(lambda hours: timezone(timedelta(hours=hours))),
)
def test_a_day_is_open_until_it_is_over_for_48_hours(last: date, minutes: int, offset: timezone) -> None:
    """A day is open up to two days after its end, by the clock of the zone that the moment is given in."""
    end = datetime(last.year, last.month, last.day, tzinfo=offset) + DAY
    now = end + timedelta(minutes=minutes)
    assert is_open(last, now) == (now - end < timedelta(hours=48))
    assert first_open_day(now) == next(
        first for first in (now.date() + n * DAY for n in range(-9, 9)) if is_open(first, now)
    )


def test_a_day_closes_at_a_moment() -> None:
    """Exactly 48 hours after its end a day is closed, and a microsecond before it is not."""
    closing = datetime(2024, 1, 4, tzinfo=UTC)
    assert not is_open(START, closing)
    assert is_open(START, closing - timedelta(microseconds=1))
    assert first_open_day(closing) == date(2024, 1, 2)


def test_days_close_where_the_clock_is() -> None:
    """At one moment a day is closed by a clock in Tokyo that is still open by one in California."""
    moment = datetime(2024, 1, 3, 15, tzinfo=UTC)
    assert not is_open(START, moment.astimezone(ZoneInfo("Asia/Tokyo")))
    assert is_open(START, moment.astimezone(ZoneInfo("US/Pacific")))
    assert is_open(START, moment)


@pytest.mark.parametrize(
    "days, chunks, shortest, longest",
    [
        (1, 1, 1, 1),
        (5, 5, 1, 1),
        (6, 6, 1, 1),
        (7, 6, 1, 2),
        (8, 8, 1, 1),
        (10, 10, 1, 1),
        (11, 10, 1, 2),
        (30, 10, 3, 3),
        (70, 10, 7, 7),
        (71, 20, 3, 4),
        (90, 20, 4, 5),
        (140, 20, 7, 7),
        (350, 50, 7, 7),
        (365, 50, 7, 8),
        (793, 50, 15, 16),
    ],
)
def test_ten_workers_and_a_budget_of_fifty(days: int, chunks: int, shortest: int, longest: int) -> None:
    """Even chunks come in whole waves of the workers and none has over a week unless the quota needs it."""
    planned = fresh(days)
    assert len(planned) == chunks
    assert (min(sizes(planned)), max(sizes(planned))) == (shortest, longest)


@pytest.mark.parametrize(
    "days, workers, requests, chunks",
    [
        (365, 10, None, 60),
        (365, 10, 60, 60),
        (365, 10, 59, 50),
        (365, 7, 50, 49),
        (365, 60, 50, 50),
        (365, 50, 50, 50),
        (365, 51, 50, 50),
        (100, 10, 20, 20),
        (100, 10, 19, 10),
        (100, 10, 9, 9),
        (100, 10, 1, 1),
        (100, 10, 0, 1),
        (30, 1, 50, 5),
        (30, 4, 50, 8),
        (7, 2, 50, 2),
        (7, 2, 1, 1),
        (90, 100, 100, 90),
        (90, 100, 50, 50),
    ],
)
def test_waves_that_fit_the_quota(days: int, workers: int, requests: int | None, chunks: int) -> None:
    """Where the waves wanted do not fit, as many whole waves as fit are planned, or the whole quota."""
    assert len(fresh(days, workers=workers, requests=requests)) == chunks


@given(days=st.integers(1, 900), workers=st.integers(1, 60), requests=st.none() | st.integers(1, 80))
def test_fresh_plans_cover_evenly_within_the_quota(days: int, workers: int, requests: int | None) -> None:
    """Without a ledger: each day once, sizes within one day, the quota kept, at most a week where it allows."""
    chunks = fresh(days, workers=workers, requests=requests)
    assert days_of(chunks) == list(range(days))
    assert max(sizes(chunks)) - min(sizes(chunks)) <= 1
    assert requests is None or len(chunks) <= requests
    assert days > 7 or len(chunks) <= 6
    weekly = -(-days // 7)
    if requests is None or requests - requests % workers >= weekly:
        assert max(sizes(chunks)) <= 7
    assert len(chunks) <= -(-weekly // workers) * workers


@pytest.mark.parametrize(
    "days, open_days, chunks",
    [
        (30, 3, [2, 3, 3, 2, 3, 3, 2, 3, 3, 3, 1, 1, 1]),
        (3, 3, [1, 1, 1]),
        (1, 1, [1]),
        (7, 3, [1, 1, 2, 1, 1, 1]),
        (7, 1, [1, 1, 1, 1, 2, 1]),
        (8, 1, [1, 1, 1, 1, 1, 2, 1]),
        (10, 3, [1, 1, 1, 1, 1, 2, 1, 1, 1]),
        (9, 3, [1, 1, 1, 1, 1, 1, 1, 1, 1]),
        (7, 6, [1, 1, 1, 1, 1, 1, 1]),
    ],
)
def test_open_days_stand_alone(days: int, open_days: int, chunks: list[int]) -> None:
    """Each open day is a chunk of its own, so that fetching it again later replaces nothing else."""
    planned = fresh(days, open_days=open_days)
    assert days_of(planned) == list(range(days))
    assert sizes(planned) == chunks


def test_open_days_count_against_the_quota() -> None:
    """What open days take of the quota is not there for even chunks."""
    assert len(fresh(365 + 3, open_days=3, requests=53)) == 53
    assert len(fresh(365 + 3, open_days=3, requests=52)) == 43
    assert len(fresh(100 + 3, open_days=3, requests=3)) == 4
    assert len(fresh(100 + 3, open_days=3, requests=5)) == 5


def resumed(
    *rows: Batch, first: int = 0, last: int = 29, chunk_days: int | None = None, workers: int = 10
) -> Plan:
    """Plan the days from *first* to *last* with trust in *rows*."""
    return plan(
        day(first),
        day(last),
        batches=rows,
        skip_complete=True,
        chunk_days=chunk_days,
        workers=workers,
        first_open_day=NEVER,
    )


def appended(*rows: Batch, first: int = 0, last: int = 29, chunk_days: int | None = None) -> Plan:
    """Plan the days from *first* to *last* whatever *rows* vouch for."""
    return plan(
        day(first), day(last), batches=rows, skip_complete=False, chunk_days=chunk_days, first_open_day=NEVER
    )


def test_nothing_is_fetched_where_all_is_vouched_for() -> None:
    """Days whose newest batch is complete are left alone, whatever older rows say."""
    rows = [held(5, 0, 9), held(1, 5, 12, "failed"), held(2, 10, 29), held(0, 0, 29, "failed")]
    assert resumed(*rows) == Plan(chunks=(), fetch_order=(), skipped=(Chunk(day(0), day(29)),))


@pytest.mark.parametrize("status", ["failed", "open", "limited"])
def test_only_complete_vouches(status: str) -> None:
    """Days whose newest batch is failed, open or limited are fetched again."""
    wanted = resumed(held(1, 0, 9), held(2, 10, 12, status), held(3, 13, 29))
    assert days_of(wanted.chunks) == [10, 11, 12]
    assert wanted.added == ()


def test_the_greatest_batch_decides_not_the_last_in_the_list() -> None:
    """The ledger's rows may come in any order."""
    rows = [held(2, 3, 3, "failed"), held(1, 3, 3)]
    assert days_of(resumed(*rows, last=3).chunks) == [0, 1, 2, 3]
    assert days_of(resumed(*reversed(rows), last=3).chunks) == [0, 1, 2, 3]
    rows = [held(1, 3, 3, "failed"), held(2, 3, 3)]
    assert days_of(resumed(*reversed(rows), last=3).chunks) == [0, 1, 2]


def test_a_batch_is_fetched_whole_when_one_of_its_days_failed_later() -> None:
    """Where a newer row failed, the older batch whose rows the table shows is replaced as a whole."""
    wanted = resumed(held(1, 0, 9), held(2, 4, 4, "failed"), held(3, 10, 29))
    assert spans(wanted.chunks) == [(0, 9)]
    assert wanted.added == ()


def test_days_outside_are_added_on_both_sides() -> None:
    """Batches that reach out of the days asked for widen the plan to their borders, and it says so."""
    rows = [held(1, -20, -4), held(2, -3, 2), held(3, 27, 33), held(4, 34, 50), held(5, -30, -21, "failed")]
    wanted = appended(*rows)
    assert spans(wanted.added) == [(-3, -1), (30, 33)]
    assert days_of(wanted.chunks) == list(range(-3, 34))
    assert spans(resumed(*rows).added) == []
    assert days_of(resumed(*rows).chunks) == list(range(3, 27))


def test_a_failed_batch_binds_nothing() -> None:
    """Rows that are not in the table bind no days together."""
    wanted = resumed(held(1, -5, 35, "failed"))
    assert sizes(wanted.chunks) == [3] * 10
    assert wanted.added == ()


def test_a_batch_may_fill_the_range() -> None:
    """One batch over all days asked for, and more, is one chunk."""
    wanted = appended(held(1, -1, 30), first=3, last=4)
    assert spans(wanted.chunks) == [(-1, 30)]
    assert spans(wanted.added) == [(-1, 2), (5, 30)]


def test_even_edges_move_to_the_nearer_end_of_a_batch() -> None:
    """An edge that would cut a batch goes to its nearer end, on a tie to the later one."""
    assert spans(appended(held(1, 2, 5)).chunks)[:3] == [(0, 1), (2, 5), (6, 8)]
    assert spans(appended(held(1, 0, 4)).chunks)[:3] == [(0, 4), (5, 5), (6, 8)]
    assert spans(appended(held(1, 2, 3)).chunks)[:3] == [(0, 3), (4, 5), (6, 8)]
    assert spans(appended(held(1, 1, 3)).chunks)[:3] == [(0, 3), (4, 5), (6, 8)]
    assert spans(appended(held(1, 3, 5)).chunks)[:3] == [(0, 2), (3, 5), (6, 8)]


def test_fetching_again_keeps_equal_batches() -> None:
    """A range fetched twice with the same plan is cut the same both times."""
    before = [held(n, 3 * n, 3 * n + 2) for n in range(10)]
    assert appended(*before).chunks == fresh(30)


def test_fixed_chunks_move_their_edge_later() -> None:
    """With a number of days an edge that would cut a batch goes to the batch's end, and counting starts anew."""
    assert spans(appended(held(1, 5, 9), held(2, 10, 11), last=20, chunk_days=6).chunks) == [
        (0, 9),
        (10, 15),
        (16, 20),
    ]
    assert spans(appended(held(1, 6, 9), last=14, chunk_days=6).chunks) == [(0, 5), (6, 11), (12, 14)]
    assert spans(appended(held(1, 2, 5), last=14, chunk_days=6).chunks) == [(0, 5), (6, 11), (12, 14)]


def test_fixed_chunks_begin_with_each_run() -> None:
    """With a number of days every run of days to be fetched is cut from its own first day."""
    assert spans(resumed(held(1, 4, 10), last=20, chunk_days=3).chunks) == [
        (0, 2),
        (3, 3),
        (11, 13),
        (14, 16),
        (17, 19),
        (20, 20),
    ]


def test_fixed_chunks_of_no_days_are_refused() -> None:
    """A number of days below one would never end."""
    with pytest.raises(ValueError, match=r"^chunk_days must be positive, got 0$"):
        resumed(chunk_days=0)


@given(days=st.integers(1, 200), chunk_days=st.integers(1, 100), open_days=st.integers(0, 5))
def test_fixed_chunks_are_mixpanel_datas(days: int, chunk_days: int, open_days: int) -> None:
    """Without a ledger, fixed chunks are those of `split_date_range`, open days or not."""
    chunks = plan(
        START, day(days - 1), skip_complete=True, chunk_days=chunk_days, first_open_day=day(days - open_days)
    ).chunks
    assert [(str(chunk.first), str(chunk.last)) for chunk in chunks] == split_date_range(
        str(START), str(day(days - 1)), chunk_days
    )


def test_holes_share_the_chunks_by_length() -> None:
    """Runs of days between held ones get chunks by their lengths, each at least one."""
    wanted = resumed(held(1, 20, 29), held(2, 31, 39), last=49)
    assert sizes(wanted.chunks) == [3, 3, 4, 3, 3, 4, 1, 3, 3, 4]
    assert days_of(wanted.chunks) == [*range(20), 30, *range(40, 50)]


def test_a_long_run_beside_short_ones_is_cut_by_the_week_too() -> None:
    """Short runs do not take the chunks that a long one needs to have at most a week each."""
    rows = [held(n, 2 * n + 1, 2 * n + 1) for n in range(9)]
    wanted = resumed(*rows, last=72)
    assert days_of(wanted.chunks) == [*range(0, 18, 2), *range(18, 73)]
    assert len(wanted.chunks) == 20
    assert max(sizes(wanted.chunks)) <= 7


def test_open_batches_stay_whole_and_alone() -> None:
    """A batch in the table that reaches into open days is one chunk; the other open days are one each."""
    rows = [held(1, 14, 17, "open"), held(2, 19, 20, "open")]
    wanted = plan(START, day(21), batches=rows, skip_complete=True, workers=2, first_open_day=day(17))
    assert spans(wanted.chunks) == [(0, 6), (7, 13), (14, 17), (18, 18), (19, 20), (21, 21)]
    wanted = plan(START, day(21), batches=rows, skip_complete=True, workers=2, first_open_day=day(18))
    assert spans(wanted.chunks) == [(0, 3), (4, 8), (9, 12), (13, 17), (18, 18), (19, 20), (21, 21)]


def test_by_default_there_are_ten_workers_fifty_requests_and_an_empty_ledger() -> None:
    """The defaults are those of an export that says nothing about them."""
    assert len(plan(START, day(364), skip_complete=False, first_open_day=NEVER).chunks) == 50
    assert len(plan(START, day(29), skip_complete=False, first_open_day=NEVER).chunks) == 10
    assert len(plan(START, day(399), skip_complete=False, workers=1, first_open_day=NEVER).chunks) == 50


def test_the_longest_chunks_are_fetched_first() -> None:
    """Where no events are expected the longest chunk is first, and of equal ones the earliest."""
    rows = [held(1, 2, 2), held(2, 7, 7), held(3, 9, 9)]
    made = resumed(*rows, last=13, workers=1)
    assert spans(made.chunks) == [(0, 1), (3, 6), (8, 8), (10, 13)]
    assert spans(made.fetch_order) == [(3, 6), (10, 13), (0, 1), (8, 8)]


def test_the_heaviest_chunks_are_fetched_first() -> None:
    """What is expected to have the most events is first, in fixed chunks too; days of no events weigh by their number."""
    rows = daily([0, 0, 0, 9, 9, 1, 1, 1, 70, 0])
    made = plan(day(0), day(9), batches=rows, skip_complete=False, chunk_days=2, first_open_day=NEVER)
    assert spans(made.fetch_order) == [(8, 9), (4, 5), (2, 3), (6, 7), (0, 1)]
    rows = daily([0, 0, 0, 0, 0, 5])
    made = plan(day(0), day(5), batches=rows, skip_complete=False, chunk_days=3, first_open_day=NEVER)
    assert spans(made.fetch_order) == [(3, 5), (0, 2)]


SPIKE = [7] * 17 + [90] + [7] * 12


def replaced(rows: Sequence[int], history: Sequence[Batch] = (), **options: Any) -> Plan:
    """Plan all days of *rows* anew, with the history given, or one that knows every day."""
    usual: dict[str, Any] = {
        "skip_complete": False,
        "first_open_day": NEVER,
        "history": history or daily(rows),
    }
    return plan(day(0), day(len(rows) - 1), **(usual | options))


def test_a_day_that_is_expected_to_be_large_stands_alone_and_comes_first() -> None:
    """A day of as many events as nine others is no part of a chunk of three, and nothing waits for it in the end."""
    made = replaced(SPIKE)
    assert spans(made.fetch_order)[0] == (17, 17)
    assert days_of(made.chunks) == list(range(30))
    assert len(made.chunks) <= 10


def test_a_batch_that_was_large_is_cut_finely() -> None:
    """Nobody knows which day of it was large, so each of its days is a chunk, and among the first."""
    before = [held(n, 3 * n, 3 * n + 2, rows=sum(SPIKE[3 * n : 3 * n + 3])) for n in range(10)]
    made = replaced(SPIKE, before)
    assert sorted(spans(made.fetch_order)[:3]) == [(15, 15), (16, 16), (17, 17)]
    assert len(made.chunks) <= 10


def test_a_batch_that_binds_stays_whole_however_large() -> None:
    """Batches whose rows are in the table are fetched whole, the largest first."""
    before = [held(n, 3 * n, 3 * n + 2, rows=sum(SPIKE[3 * n : 3 * n + 3])) for n in range(10)]
    made = plan(day(0), day(29), batches=before, skip_complete=False, first_open_day=NEVER)
    assert sizes(made.chunks) == [3] * 10
    assert spans(made.fetch_order)[0] == (15, 17)


@pytest.mark.parametrize("status", ["failed", "limited"])
def test_batches_that_are_not_whole_tell_nothing(status: str) -> None:
    """What a failed or limited batch says of its rows is not how many events its days have."""
    history = [held(n, n, n, status, rows=each) for n, each in enumerate(SPIKE)]
    assert replaced(SPIKE, history).chunks == fresh(30)


def test_what_is_there_tells_of_events_too_and_newer_batches_know_better() -> None:
    """Open batches count, and of two that tell of a day the greater number decides, wherever it stands."""
    tells = [held(n, n, n, "open", rows=each) for n, each in enumerate(SPIKE)]
    assert replaced(SPIKE, tells).chunks == replaced(SPIKE).chunks
    earlier = [held(-1 - n, n, n, rows=5000 * (n % 2)) for n in range(30)]
    assert replaced(SPIKE, tells + earlier).chunks == replaced(SPIKE).chunks


def test_open_days_keep_their_chunks_beside_what_is_cut_by_events() -> None:
    """Days that stand alone take nothing from the chunks that closed days may have."""
    rows = [0] * 15 + [100] * 15
    made = replaced([*rows, 0, 0, 0], first_open_day=day(30))
    assert sizes(made.chunks[-3:]) == [1, 1, 1]
    assert made.chunks[:-3] == replaced(rows).chunks
    assert len(made.chunks) == 13


def test_light_days_come_by_the_week_at_most() -> None:
    """However few events days are expected to have, a chunk has no more of them than it could have without a ledger."""
    for empty, full in [(14, 10), (15, 15), (30, 10), (38, 30)]:
        assert max(sizes(replaced([0] * empty + [100] * full).chunks)) <= 7
    assert max(sizes(replaced([0] * 365 + [100] * 35).chunks)) == 8


def test_chunks_stay_even_for_a_small_gain() -> None:
    """Days that differ little, or only by what a tenth of the time is, are cut as if nothing were known."""
    assert replaced([10, 11, 12] * 30).chunks == fresh(90)
    assert replaced([10] * 90).fetch_order == replaced([0] * 90).fetch_order


def test_new_days_are_expected_to_follow_the_week() -> None:
    """After weeks of which each day is known, the new days of a weekday that had most events are fetched first."""
    before = [900 if number % 7 == 3 else 10 for number in range(70)]
    made = plan(day(70), day(99), batches=daily(before), skip_complete=True, first_open_day=NEVER)
    assert [
        any(number % 7 == 3 for number in range(first, last + 1))
        for first, last in spans(made.fetch_order)[:4]
    ] == [True] * 4
    assert len(made.chunks) <= 10


def test_empty_days_before_a_beginning_make_room_for_the_others() -> None:
    """Days before a project began take few chunks, though none longer than a week, and the others get the rest."""
    made = replaced([0] * 15 + [100] * 15)
    assert max(len([number for number in days_of([chunk]) if number >= 15]) for chunk in made.chunks) == 2
    assert len(made.chunks) <= 10
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
    """Cut by events: each day once, no more chunks, none of more days, and sooner done; whatever the rows' order."""
    even = fresh(len(rows), workers=workers, requests=requests)
    made = replaced(rows, workers=workers, requests=requests)
    assert days_of(made.chunks) == list(range(len(rows)))
    assert sorted(made.fetch_order) == list(made.chunks)
    assert len(made.chunks) <= len(even)
    assert max(sizes(made.chunks)) <= max(7, *sizes(even))
    heaviest_first = sorted(even, key=lambda chunk: -slowest([chunk], rows, 1))
    then, now = slowest(heaviest_first, rows, workers), slowest(made.fetch_order, rows, workers)
    assert now <= (then if made.chunks == even else then * Fraction(91, 100))
    mixed = daily(rows)
    draw.shuffle(mixed)
    assert replaced(rows, mixed, workers=workers, requests=requests) == made


@st.composite
def ledgers(draw: st.DrawFn) -> list[Batch]:
    """Draw ledger rows of which those with rows in the table do not overlap."""
    rows = []
    start = -15
    while (start := start + draw(st.integers(0, 6))) < 60:
        days = draw(st.integers(1, 12))
        status = draw(st.sampled_from(["complete", "complete", "open", "limited"]))
        rows.append((start, start + days - 1, status, draw(st.just(0) | st.integers(0, 5000))))
        start += days
    failed = draw(st.lists(st.tuples(st.integers(-15, 60), st.integers(0, 9)), max_size=4))
    rows += [(first, first + more, "failed", 0) for first, more in failed]
    numbers = draw(st.permutations(range(len(rows))))
    return [held(number, *row) for number, row in zip(numbers, rows, strict=True)]


def to_fetch(rows: Sequence[Batch], asked: range, *, skip_complete: bool) -> set[int]:
    """Return the days that a plan must contain, found one day at a time."""

    def vouched_for(number: int) -> bool:
        newest = max(
            (row for row in rows if row.days.first <= day(number) <= row.days.last),
            key=lambda row: row.number,
            default=None,
        )
        return newest is not None and newest.status == "complete"

    wanted = {number for number in asked if not (skip_complete and vouched_for(number))}
    for row in rows:
        batch = range((row.days.first - START).days, (row.days.last - START).days + 1)
        if row.status != "failed" and wanted.intersection(batch):
            wanted.update(batch)
    return wanted


@given(
    rows=ledgers(),
    first=st.integers(0, 40),
    days=st.integers(1, 40),
    skip_complete=st.booleans(),
    chunk_days=st.none() | st.integers(1, 15),
    workers=st.integers(1, 12),
    requests=st.none() | st.integers(0, 60),
    open_day=st.integers(20, 90),
)
def test_every_plan_keeps_its_promises(
    rows: list[Batch],
    first: int,
    days: int,
    skip_complete: bool,
    chunk_days: int | None,
    workers: int,
    requests: int | None,
    open_day: int,
) -> None:
    """Exactly the days to be fetched, once each; no batch cut; what was added is told; open days alone."""
    asked = range(first, first + days)
    made = plan(
        day(first),
        day(asked[-1]),
        batches=rows,
        skip_complete=skip_complete,
        chunk_days=chunk_days,
        workers=workers,
        requests=requests,
        first_open_day=day(open_day),
    )
    wanted = to_fetch(rows, asked, skip_complete=skip_complete)
    assert days_of(made.chunks) == sorted(wanted)
    assert days_of(made.added) == sorted(wanted.difference(asked))
    assert all(earlier.last + DAY < later.first for earlier, later in pairwise(made.added))
    edges = {chunk.first for chunk in made.chunks} | {chunk.last + DAY for chunk in made.chunks}
    visible = [row for row in rows if row.status != "failed"]
    assert not any(row.days.first < edge <= row.days.last for row in visible for edge in edges)
    assert sorted(made.fetch_order) == list(made.chunks)
    if chunk_days is None:
        bound = [row for row in visible if row.days.last >= day(open_day)]
        for chunk in made.chunks:
            if chunk.last >= day(open_day):
                assert chunk.days == 1 or any(
                    (row.days.first, row.days.last) == (chunk.first, chunk.last) for row in bound
                )


@given(
    lengths=st.lists(st.integers(1, 40), min_size=1, max_size=8),
    workers=st.integers(1, 12),
    requests=st.none() | st.integers(1, 60),
)
def test_runs_between_held_days_are_cut_evenly(
    lengths: list[int], workers: int, requests: int | None
) -> None:
    """In each run sizes differ by at most a day, the quota is kept, and no chunk could give a day to another run."""
    starts = [sum(lengths[:n]) + n for n in range(len(lengths))]
    rows = [held(n, start - 1, start - 1) for n, start in enumerate(starts) if n]
    last = starts[-1] + lengths[-1] - 1
    made = plan(
        START,
        day(last),
        batches=rows,
        skip_complete=True,
        workers=workers,
        requests=requests,
        first_open_day=NEVER,
    )
    parts = [
        [chunk.days for chunk in made.chunks if day(start) <= chunk.first < day(start + length)]
        for start, length in zip(starts, lengths, strict=True)
    ]
    assert [sum(part) for part in parts] == lengths
    assert all(max(part) - min(part) <= 1 for part in parts)
    assert requests is None or len(made.chunks) <= max(requests, len(lengths))
    longest = max(sum(part) / len(part) for part in parts)
    assert all(len(part) == 1 or sum(part) / (len(part) - 1) >= longest for part in parts)
    if requests is None and sum(lengths) > 7:
        assert max(map(max, parts)) <= 7


def chunk(first: int, last: int) -> Chunk:
    """Return days of March 2024."""
    return Chunk(date(2024, 3, first), date(2024, 3, last))


@pytest.mark.parametrize(
    "whole,held,pieces",
    [
        (chunk(1, 1), [], None),
        (chunk(1, 2), [], (chunk(1, 1), chunk(2, 2))),
        (chunk(1, 10), [], (chunk(1, 5), chunk(6, 10))),
        (chunk(1, 3), [], (chunk(1, 1), chunk(2, 3))),
        (chunk(1, 10), [chunk(4, 8)], (chunk(1, 3), chunk(4, 10))),
        (chunk(1, 10), [chunk(1, 7)], (chunk(1, 7), chunk(8, 10))),
        (chunk(1, 10), [chunk(1, 10)], None),
        (chunk(1, 10), [chunk(1, 5), chunk(6, 10)], (chunk(1, 5), chunk(6, 10))),
    ],
)
def test_a_chunk_in_two_pieces(whole: Chunk, held: list[Chunk], pieces: tuple[Chunk, Chunk] | None) -> None:
    """The pieces are as even as can be and leave batches that have rows whole; some chunks cannot be split."""
    rows = [Batch(number, days, "complete") for number, days in enumerate(held)]
    assert split_in_two(whole, rows) == pieces
    failed = [Batch(9, whole, "failed")]
    assert split_in_two(whole, rows + failed) == pieces


@given(st.integers(2, 60), st.lists(st.tuples(st.integers(1, 60), st.integers(0, 9)), max_size=5))
def test_pieces_are_the_whole(days: int, spans: list[tuple[int, int]]) -> None:
    """For all chunks and batches the pieces have the chunk's days, each once, and no edge inside a batch."""
    start = date(2024, 3, 1)
    whole = Chunk(start, start + timedelta(days=days - 1))
    held = [
        Batch(
            number, Chunk(start + timedelta(days=first), start + timedelta(days=first + length)), "complete"
        )
        for number, (first, length) in enumerate(spans)
    ]
    pieces = split_in_two(whole, held)
    if pieces is None:
        edges = [start + timedelta(days=edge) for edge in range(1, days)]
        assert all(any(row.days.first < edge <= row.days.last for row in held) for edge in edges)
        return
    first, second = pieces
    assert (first.first, second.last) == (whole.first, whole.last)
    assert second.first - first.last == timedelta(days=1)
    assert not any(row.days.first < second.first <= row.days.last for row in held)
