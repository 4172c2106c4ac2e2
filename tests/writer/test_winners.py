"""Which of several rows with the same identity wins, in any order and any pages."""

import json
from collections.abc import Iterable, Iterator
from itertools import groupby, pairwise
from math import inf, isnan, nan
from typing import NamedTuple

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from mixpanel_export._writer.winners import Candidate, duplicates

EXTRACTED = {"1.50": "1.5", "-0": "0"}
"""What DuckDB extracts of some values that were sent; of others it is what was sent."""


class Sent(NamedTuple):
    """An event of a batch, with the text of its JSON values."""

    key: int
    name: str
    time: str
    distinct_id: str
    insert_id: str
    processed: float | None
    inside: bool
    batch: int

    @property
    def properties(self) -> str:
        return f'{{"time":{self.time},"distinct_id":{self.distinct_id},"$insert_id":{self.insert_id}}}'

    @property
    def identity(self) -> tuple[object, ...]:
        return self.key, self.name, self.time, self.distinct_id, self.insert_id

    def rival(self, number: int) -> Candidate:
        """The event as DuckDB hands it over."""
        texts = (EXTRACTED.get(text, text) for text in (self.time, self.distinct_id, self.insert_id))
        time, distinct_id, insert_id = (json.loads(text) if text[0] == '"' else text for text in texts)
        return (
            self.key,
            self.name,
            time,
            distinct_id,
            insert_id,
            self.processed,
            self.properties,
            self.inside,
            self.batch,
            number,
        )


UNKNOWN = Sent(1, "a", "1", '"d"', '"i"', None, inside=True, batch=1)
EVENTS = st.lists(
    st.builds(
        Sent,
        key=st.sampled_from([0, 1, 1]),  # few of all, so that identities recur
        name=st.sampled_from("aaab"),
        time=st.sampled_from(["1", "1", "1.5", "1.50"]),
        distinct_id=st.sampled_from(['"d"', '"d"', "0", "-0"]),
        insert_id=st.sampled_from(['"i"', '"i"', '"-0"']),
        processed=st.sampled_from([None, 0.0, 1.0, 2.0, inf, nan]),
        inside=st.booleans(),
        batch=st.integers(1, 3),
    ),
    max_size=12,
)


def rank(sent: Sent, number: int) -> tuple[object, ...]:
    """Of the rows with one identity that with the greatest wins."""
    processed = None if sent.processed in {None, inf} or isnan(sent.processed or 0) else sent.processed
    return processed is not None, processed or 0, sent.properties, sent.inside, -sent.batch, number


def expected(rows: Iterable[tuple[int, Sent]]) -> set[tuple[int, int, int]]:
    """Return number and batch of each row that loses, and the winner's batch, as the documentation has it."""
    lost = set()
    ordered = sorted(rows, key=lambda row: row[1].identity)
    for _, group in groupby(ordered, key=lambda row: row[1].identity):
        *others, (_, winner) = sorted(group, key=lambda row: rank(row[1], row[0]))
        lost |= {(number, sent.batch, winner.batch) for number, sent in others}
    return lost


@example(events=[UNKNOWN, UNKNOWN._replace(processed=inf, batch=2)], cuts=[])
@example(events=[UNKNOWN, UNKNOWN._replace(processed=nan, batch=2)], cuts=[1])
@given(events=EVENTS, cuts=st.lists(st.integers(0, 12)))
def test_all_but_the_greatest_of_an_identity_lose(events: list[Sent], cuts: list[int]) -> None:
    """Whatever rows there are, and wherever a page ends, each losing row is returned once, with its winner's batch."""
    rows = list(enumerate(events))
    ordered = sorted(rows, key=lambda row: row[1].key)
    edges = [0, *sorted(min(cut, len(rows)) for cut in cuts), len(rows)]
    pages = ([sent.rival(number) for number, sent in ordered[start:stop]] for start, stop in pairwise(edges))
    found = list(duplicates(pages))
    assert len(found) == len(set(found))
    assert set(found) == expected(rows)


def test_a_page_is_read_to_its_end_before_its_duplicates_are_told() -> None:
    """The reader of the pages may use the connection for something else in between."""
    read: list[int] = []

    def pages() -> Iterator[list[Candidate]]:
        for key in (1, 2):
            yield [UNKNOWN._replace(key=key).rival(number) for number in (0, 1, 2)]
            read.append(key)

    told = [(loser, list(read)) for loser in duplicates(pages())]
    assert told == [((0, 1, 1), [1]), ((1, 1, 1), [1]), ((0, 1, 1), [1, 2]), ((1, 1, 1), [1, 2])]


@pytest.mark.parametrize("distinct_id", ["-0", "[1.5, 2]", "{}", "1.5", "12345678901234567890", "1e5", "inf"])
def test_what_python_does_not_take_for_json_is_nobodys_duplicate(distinct_id: str) -> None:
    """If the original text is needed and cannot be parsed, the row stays."""
    row = (1, "a", "1", distinct_id, "i", None, "{'not': json}", True, 1)
    assert list(duplicates([[(*row, 0), (*row, 1)]])) == []


@pytest.mark.parametrize("distinct_id", ["d", "1234567890", "a1.5", "1.x", "1e", None])
def test_texts_that_duckdb_leaves_alone_are_compared_as_they_are(distinct_id: str | None) -> None:
    """If DuckDB's extracted text is the original, nothing is read again."""
    row = (1, "a", "1", distinct_id, "i", None, "{'not': json}", True, 1)
    assert list(duplicates([[(*row, 0), (*row, 1)]])) == [(0, 1, 1)]
