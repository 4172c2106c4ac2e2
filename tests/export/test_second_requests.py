"""Which silent chunks are asked for again, and in which requests."""

from datetime import date, timedelta
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from mixpanel_export._export.empty_answers import second_requests
from mixpanel_export._model import Chunk

FIRST = date(2024, 3, 1)


def day(number: int) -> date:
    return FIRST + timedelta(days=number)


@st.composite
def silent_chunks(draw: st.DrawFn) -> list[Chunk]:
    """Sorted, disjoint chunks, some of which border each other."""
    chunks: list[Chunk] = []
    start = 0
    for gap, length in draw(st.lists(st.tuples(st.integers(0, 3), st.integers(1, 120)), max_size=30)):
        start += gap
        chunks.append(Chunk(day(start), day(start + length - 1)))
        start += length
    return chunks


@given(silent=silent_chunks(), most=st.none() | st.integers(1, 8))
def test_every_silent_chunk_is_asked_for_once_or_skipped(silent: list[Chunk], most: int | None) -> None:
    """The runs hold each chunk once, without a day between, in at most so many requests."""
    requests = second_requests(silent, most)
    in_runs = [chunk for run in requests.runs for chunk in run]
    assert sorted([*in_runs, *requests.skipped]) == silent
    assert all(one.borders(later) for run in requests.runs for one, later in pairwise(run))
    assert most is None or len(requests.runs) <= most
    assert not requests.skipped or len(requests.runs) == most


@given(silent=silent_chunks())
def test_a_request_has_a_hundred_days_where_there_may_be_many(silent: list[Chunk]) -> None:
    """Without a bound on requests, only a single chunk may have more days."""
    for run in second_requests(silent, None).runs:
        assert len(run) == 1 or Chunk(run[0].first, run[-1].last).length <= 100


def test_a_long_run_is_not_cut_where_requests_are_few() -> None:
    """2,000 silent days in a row are one request rather than days that nothing proves."""
    silent = [Chunk(day(number), day(number)) for number in range(2000)]
    requests = second_requests(silent)
    assert [len(run) for run in requests.runs] == [2000]
    assert len(second_requests(silent, None).runs) == 20


def test_the_longest_runs_are_asked_for_first() -> None:
    """Where runs are too many, the short ones are skipped."""
    runs = [(10 * number, 10 * number + length) for number, length in enumerate((1, 3, 2, 4, 0, 5))]
    silent = [Chunk(day(first), day(last)) for first, last in runs]
    assert second_requests(silent, 5).skipped == (silent[4],)
