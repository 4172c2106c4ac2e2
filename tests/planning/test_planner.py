"""A plan fetches exactly the right days, in chunks that suit the workers, the quota and the ledger."""

from collections.abc import Sequence
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from plans import DAY, NEVER, START, appended, day, days_of, fresh, held, resumed, sizes, spans

from mixpanel_export._model import Batch, Chunk
from mixpanel_export._planning.planner import (
    Plan,
    plan,
    split_date_range,
)


@pytest.mark.parametrize(
    "days, chunks, shortest, longest",
    [
        (1, 1, 1, 1),
        (5, 5, 1, 1),
        (6, 6, 1, 1),
        (7, 6, 1, 2),
        (8, 8, 1, 1),
        (10, 10, 1, 1),
        (11, 11, 1, 1),
        (20, 20, 1, 1),
        (21, 20, 1, 2),
        (30, 20, 1, 2),
        (70, 20, 3, 4),
        (71, 20, 3, 4),
        (90, 20, 4, 5),
        (140, 20, 7, 7),
        (350, 50, 7, 7),
        (365, 50, 7, 8),
        (793, 50, 15, 16),
    ],
)
def test_ten_workers_and_a_budget_of_fifty(days: int, chunks: int, shortest: int, longest: int) -> None:
    """From eight days on, each worker has two chunks or more; no chunk exceeds a week unless the quota requires it."""
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
        (30, 5, 50, 10),
        (30, 10, 19, 10),
        (30, 10, 9, 9),
        (30, 20, 50, 30),
        (60, 30, 50, 30),
        (7, 2, 50, 2),
        (7, 2, 1, 1),
        (90, 100, 100, 90),
        (90, 100, 50, 50),
    ],
)
def test_waves_that_fit_the_quota(days: int, workers: int, requests: int | None, chunks: int) -> None:
    """If the intended chunks do not fit into the quota, the largest multiple that fits is planned, or the whole quota."""
    assert len(fresh(days, workers=workers, requests=requests)) == chunks


@given(days=st.integers(1, 900), workers=st.integers(1, 60), requests=st.none() | st.integers(1, 80))
def test_fresh_plans_cover_evenly_within_the_quota(days: int, workers: int, requests: int | None) -> None:
    """Without a ledger: each day once, sizes within one day, within the quota, and at most a week if it allows."""
    chunks = fresh(days, workers=workers, requests=requests)
    assert days_of(chunks) == list(range(days))
    assert max(sizes(chunks)) - min(sizes(chunks)) <= 1
    assert requests is None or len(chunks) <= requests
    assert days > 7 or len(chunks) <= 6
    weekly = -(-days // 7)
    if requests is None or requests - requests % workers >= weekly:
        assert max(sizes(chunks)) <= 7
    assert len(chunks) <= max(2, -(-weekly // workers)) * workers
    if days > 7 and (requests is None or requests >= 2 * workers):
        assert len(chunks) >= min(days, 2 * workers)


@pytest.mark.parametrize(
    "days, open_days, chunks",
    [
        (30, 3, [1, 1, 2] * 6 + [1, 2] + [1, 1, 1]),
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
    """Each open day is a separate chunk, so that fetching it again replaces nothing else."""
    planned = fresh(days, open_days=open_days)
    assert days_of(planned) == list(range(days))
    assert sizes(planned) == chunks


def test_open_days_count_against_the_quota() -> None:
    """Even chunks do not use the quota that open days need."""
    assert len(fresh(365 + 3, open_days=3, requests=53)) == 53
    assert len(fresh(365 + 3, open_days=3, requests=52)) == 43
    assert len(fresh(100 + 3, open_days=3, requests=3)) == 4
    assert len(fresh(100 + 3, open_days=3, requests=5)) == 5


def test_nothing_is_fetched_where_all_is_vouched_for() -> None:
    """Days whose newest batch is complete are not fetched, whatever older rows say."""
    rows = [held(5, 0, 9), held(1, 5, 12, "failed"), held(2, 10, 29), held(0, 0, 29, "failed")]
    assert resumed(*rows) == Plan(chunks=(), fetch_order=(), skipped=(Chunk(day(0), day(29)),))


@pytest.mark.parametrize("status", ["failed", "open", "limited"])
def test_only_complete_vouches(status: str) -> None:
    """Days whose newest batch is failed, open or limited are fetched again."""
    wanted = resumed(held(1, 0, 9), held(2, 10, 12, status), held(3, 13, 29))
    assert days_of(wanted.chunks) == [10, 11, 12]
    assert wanted.added == ()


def test_the_greatest_batch_decides_not_the_last_in_the_list() -> None:
    """The ledger's rows may be in any order."""
    rows = [held(2, 3, 3, "failed"), held(1, 3, 3)]
    assert days_of(resumed(*rows, last=3).chunks) == [0, 1, 2, 3]
    assert days_of(resumed(*reversed(rows), last=3).chunks) == [0, 1, 2, 3]
    rows = [held(1, 3, 3, "failed"), held(2, 3, 3)]
    assert days_of(resumed(*reversed(rows), last=3).chunks) == [0, 1, 2]


def test_a_batch_is_fetched_whole_when_one_of_its_days_failed_later() -> None:
    """If a newer row failed, the older batch whose rows are visible is replaced as a whole."""
    wanted = resumed(held(1, 0, 9), held(2, 4, 4, "failed"), held(3, 10, 29))
    assert spans(wanted.chunks) == [(0, 9)]
    assert wanted.added == ()


def test_days_outside_are_added_on_both_sides() -> None:
    """Batches that extend beyond the requested days widen the plan, which reports the added days."""
    rows = [held(1, -20, -4), held(2, -3, 2), held(3, 27, 33), held(4, 34, 50), held(5, -30, -21, "failed")]
    wanted = appended(*rows)
    assert spans(wanted.added) == [(-3, -1), (30, 33)]
    assert days_of(wanted.chunks) == list(range(-3, 34))
    assert spans(resumed(*rows).added) == []
    assert days_of(resumed(*rows).chunks) == list(range(3, 27))


def test_a_failed_batch_binds_nothing() -> None:
    """Rows that are not in the table do not keep days together."""
    wanted = resumed(held(1, -5, 35, "failed"))
    assert wanted.chunks == fresh(30)
    assert wanted.added == ()


def test_a_batch_may_fill_the_range() -> None:
    """One batch over all requested days, and more, is one chunk."""
    wanted = appended(held(1, -1, 30), first=3, last=4)
    assert spans(wanted.chunks) == [(-1, 30)]
    assert spans(wanted.added) == [(-1, 2), (5, 30)]


def test_even_edges_move_to_the_nearer_end_of_a_batch() -> None:
    """A boundary that would divide a batch moves to the batch's nearer end; to the later one if they are equally near."""
    assert spans(appended(held(1, 2, 5), workers=5).chunks)[:3] == [(0, 1), (2, 5), (6, 8)]
    assert spans(appended(held(1, 0, 4), workers=5).chunks)[:3] == [(0, 4), (5, 5), (6, 8)]
    assert spans(appended(held(1, 2, 3), workers=5).chunks)[:3] == [(0, 3), (4, 5), (6, 8)]
    assert spans(appended(held(1, 1, 3), workers=5).chunks)[:3] == [(0, 3), (4, 5), (6, 8)]
    assert spans(appended(held(1, 3, 5), workers=5).chunks)[:3] == [(0, 2), (3, 5), (6, 8)]


def test_fetching_again_keeps_equal_batches() -> None:
    """A range fetched twice with the same plan has the same chunks."""
    before = [held(n, *span) for n, span in enumerate(spans(fresh(30)))]
    assert appended(*before).chunks == fresh(30)


def test_fixed_chunks_move_their_edge_later() -> None:
    """With a fixed number of days, such a boundary moves to the batch's end, and the next chunk starts there."""
    assert spans(appended(held(1, 5, 9), held(2, 10, 11), last=20, chunk_days=6).chunks) == [
        (0, 9),
        (10, 15),
        (16, 20),
    ]
    assert spans(appended(held(1, 6, 9), last=14, chunk_days=6).chunks) == [(0, 5), (6, 11), (12, 14)]
    assert spans(appended(held(1, 2, 5), last=14, chunk_days=6).chunks) == [(0, 5), (6, 11), (12, 14)]


def test_fixed_chunks_begin_with_each_run() -> None:
    """With a fixed number of days, every run of days is divided from its own first day."""
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
    """Missing runs of days get chunks in proportion to their lengths, each at least one."""
    wanted = resumed(held(1, 20, 29), held(2, 31, 39), last=49, workers=5)
    assert sizes(wanted.chunks) == [3, 3, 4, 3, 3, 4, 1, 3, 3, 4]
    assert days_of(wanted.chunks) == [*range(20), 30, *range(40, 50)]


def test_a_long_run_beside_short_ones_is_cut_by_the_week_too() -> None:
    """Short runs do not take the chunks that a long one needs for at most a week each."""
    rows = [held(n, 2 * n + 1, 2 * n + 1) for n in range(9)]
    wanted = resumed(*rows, last=72)
    assert days_of(wanted.chunks) == [*range(0, 18, 2), *range(18, 73)]
    assert len(wanted.chunks) == 20
    assert max(sizes(wanted.chunks)) <= 7


def test_open_batches_stay_whole_and_alone() -> None:
    """A batch in the table that includes open days is one chunk; the other open days are one each."""
    rows = [held(1, 14, 17, "open"), held(2, 19, 20, "open")]
    wanted = plan(START, day(21), batches=rows, skip_complete=True, workers=2, first_open_day=day(17))
    assert spans(wanted.chunks) == [(0, 2), (3, 6), (7, 9), (10, 13), (14, 17), (18, 18), (19, 20), (21, 21)]
    wanted = plan(START, day(21), batches=rows, skip_complete=True, workers=2, first_open_day=day(18))
    assert spans(wanted.chunks) == [(0, 3), (4, 8), (9, 12), (13, 17), (18, 18), (19, 20), (21, 21)]


def test_by_default_there_are_ten_workers_fifty_requests_and_an_empty_ledger() -> None:
    """The defaults are those of an export without these arguments."""
    assert len(plan(START, day(364), skip_complete=False, first_open_day=NEVER).chunks) == 50
    assert len(plan(START, day(29), skip_complete=False, first_open_day=NEVER).chunks) == 20
    assert len(plan(START, day(399), skip_complete=False, workers=1, first_open_day=NEVER).chunks) == 50


def test_the_longest_chunks_are_fetched_first() -> None:
    """Without known sizes, the longest chunk is first; then fewer weekend days are before more, and newer before older."""
    rows = [held(1, 2, 2), held(2, 7, 7), held(3, 9, 9)]
    made = resumed(*rows, last=13, workers=1)
    assert spans(made.chunks) == [(0, 1), (3, 6), (8, 8), (10, 13)]
    assert spans(made.fetch_order) == [(10, 13), (3, 6), (0, 1), (8, 8)]
    weekdays, saturday, sunday = [(number, number) for number in range(5)], (5, 5), (6, 6)
    assert spans(resumed(last=7).fetch_order) == [(7, 7), *reversed(weekdays), sunday, saturday]
    assert resumed(last=7, chunk_days=1).fetch_order == resumed(last=7).chunks[::-1]


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
    """Exactly the days to fetch, once each; no batch is divided; added days are reported; open days are separate."""
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
                assert chunk.length == 1 or any(
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
    """In each run, sizes differ by at most a day, the quota is kept, and no better distribution exists."""
    starts = [sum(lengths[:n]) + n for n in range(len(lengths))]
    rows = [held(n, start - 1, start - 1) for n, start in enumerate(starts) if n]
    last = starts[-1] + lengths[-1] - 1
    made = resumed(*rows, last=last, workers=workers, requests=requests)
    parts = [
        [chunk.length for chunk in made.chunks if day(start) <= chunk.first < day(start + length)]
        for start, length in zip(starts, lengths, strict=True)
    ]
    assert [sum(part) for part in parts] == lengths
    assert all(max(part) - min(part) <= 1 for part in parts)
    assert requests is None or len(made.chunks) <= max(requests, len(lengths))
    longest = max(sum(part) / len(part) for part in parts)
    assert all(len(part) == 1 or sum(part) / (len(part) - 1) >= longest for part in parts)
    if requests is None and sum(lengths) > 7:
        assert max(map(max, parts)) <= 7
