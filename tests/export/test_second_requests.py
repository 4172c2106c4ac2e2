"""Which chunks with empty responses are requested again, and in which requests."""

from datetime import date, timedelta
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from mixpanel_export._export.empty_responses import second_requests
from mixpanel_export._model import Chunk

FIRST = date(2024, 3, 1)


def day(number: int) -> date:
    return FIRST + timedelta(days=number)


@st.composite
def empty_chunks(draw: st.DrawFn) -> list[Chunk]:
    """Sorted, disjoint chunks, some of which border each other."""
    chunks: list[Chunk] = []
    start = 0
    for gap, length in draw(st.lists(st.tuples(st.integers(0, 3), st.integers(1, 120)), max_size=30)):
        start += gap
        chunks.append(Chunk(day(start), day(start + length - 1)))
        start += length
    return chunks


@given(empty=empty_chunks(), most=st.none() | st.integers(1, 8))
def test_every_empty_chunk_is_requested_once_or_skipped(empty: list[Chunk], most: int | None) -> None:
    """The runs have each chunk once, have no gaps, and need at most the allowed number of requests."""
    requests = second_requests(empty, most)
    in_runs = [chunk for run in requests.runs for chunk in run]
    assert sorted([*in_runs, *requests.skipped]) == empty
    assert all(one.borders(later) for run in requests.runs for one, later in pairwise(run))
    assert most is None or len(requests.runs) <= most
    assert not requests.skipped or len(requests.runs) == most


@given(empty=empty_chunks())
def test_a_request_has_a_hundred_days_where_there_may_be_many(empty: list[Chunk]) -> None:
    """Without a limit on requests, only a single chunk may have more days."""
    for run in second_requests(empty, None).runs:
        assert len(run) == 1 or Chunk(run[0].first, run[-1].last).length <= 100


def test_a_long_run_is_not_cut_where_requests_are_few() -> None:
    """2,000 consecutive empty days are one request, so that they can be proven empty."""
    empty = [Chunk(day(number), day(number)) for number in range(2000)]
    requests = second_requests(empty)
    assert [len(run) for run in requests.runs] == [2000]
    assert len(second_requests(empty, None).runs) == 20


def test_the_longest_runs_are_asked_for_first() -> None:
    """If there are too many runs, the short ones are skipped."""
    runs = [(10 * number, 10 * number + length) for number, length in enumerate((1, 3, 2, 4, 0, 5))]
    empty = [Chunk(day(first), day(last)) for first, last in runs]
    assert second_requests(empty, 5).skipped == (empty[4],)
