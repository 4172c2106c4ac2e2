"""A chunk is split in two halves that have all its days and divide no batch."""

from datetime import date, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mixpanel_export._model import Batch, Chunk
from mixpanel_export._planning.planner import split_in_two


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
    """The pieces are as even as possible and do not divide visible batches; some chunks cannot be split."""
    rows = [Batch(number, days, "complete") for number, days in enumerate(held)]
    assert split_in_two(whole, rows) == pieces
    failed = [Batch(9, whole, "failed")]
    assert split_in_two(whole, rows + failed) == pieces


@given(st.integers(2, 60), st.lists(st.tuples(st.integers(1, 60), st.integers(0, 9)), max_size=5))
def test_pieces_are_the_whole(days: int, spans: list[tuple[int, int]]) -> None:
    """For all chunks and batches, the pieces have the chunk's days, each once, and divide no batch."""
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
