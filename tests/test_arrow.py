"""Arrays that DuckDB and Python show one another: rows as they are shown, columns as they were found."""

from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from itertools import islice
from threading import Timer
from typing import Any

import duckdb
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mixpanel_export._arrow import COLUMNS, LINE, Found, Shown, numbered
from mixpanel_export._cut import Lines, cut

EPOCH = datetime(1970, 1, 1)
moments = st.none() | st.integers(-5, 5).map(lambda hours: EPOCH + timedelta(hours=hours))
keys = st.none() | st.sampled_from([0, 1, 2, 2**63, 2**64 - 1])
sizes = st.lists(st.integers(1, 7), min_size=1, max_size=20)
Row = tuple[datetime | None, int | None, bool]


def cut_up(items: Sequence[Any], parts: Sequence[int]) -> Iterator[list[Any]]:
    """Yield the items in groups of these sizes, over and over."""
    rest, turn = iter(items), 0
    while group := list(islice(rest, parts[turn % len(parts)])):
        yield group
        turn += 1


def found_of(connection: duckdb.DuckDBPyConnection, rows: Sequence[Row], parts: Sequence[int]) -> Found:
    """Return what is found of lines 10, 20 and so on with these times and keys, added in groups."""
    found = Found()
    for group in cut_up(list(enumerate(rows)), parts):
        connection.execute(
            "CREATE OR REPLACE TEMP TABLE rows (number BIGINT, event_name VARCHAR, event_time TIMESTAMP, "
            "distinct_id VARCHAR, insert_id VARCHAR, key UBIGINT)"
        )
        connection.executemany(
            "INSERT INTO rows VALUES (?, ?, ?, ?, ?, ?)",
            [
                (10 * n, f"e{n}", time, f"d{n}" if n % 3 else None, f"i{n}", key)
                for n, (time, key, _) in group
            ],
        )
        found.add(connection.sql(f"SELECT {', '.join(COLUMNS)} FROM rows ORDER BY number"))
    return found


@given(st.lists(st.tuples(moments, keys, st.booleans()), max_size=30), sizes, sizes, sizes)
def test_what_was_found_stands_beside_its_lines(
    rows: list[Row], found_by: list[int], in_blocks: list[int], in_pieces: list[int]
) -> None:
    """For all rows, however they came and are read again, each is beside its own line, and losers are marked."""
    with duckdb.connect() as connection:
        found = found_of(connection, rows, found_by)
        assert len(found) == len(rows)
        blocks = []
        for group in cut_up(list(range(len(rows))), in_blocks):
            text = b"".join(b'{"event":"e%d","properties":{}}\n' % number for number in group)
            blocks.append(Lines(text, cut(text), 10 * np.array(group, dtype=np.int64)))
        losers = np.array([10 * n for n, (_, _, loses) in enumerate(rows) if loses], dtype=np.int64)
        read = []
        pieces = list(cut_up(blocks, in_pieces))
        for arrays in found.beside(pieces, losers) if rows else ():
            shown = Shown(found.schema)
            shown.show(arrays)
            connection.register("shown", shown)
            read += connection.execute(
                "SELECT line[2]::VARCHAR, event_name, event_time, distinct_id, insert_id, kept FROM shown"
            ).fetchall()
        assert read == [
            (f"e{n}", f"e{n}", time, f"d{n}" if n % 3 else None, f"i{n}", not loses)
            for n, (time, _, loses) in enumerate(rows)
        ]


@given(st.lists(st.tuples(moments, keys, st.booleans()), max_size=30), sizes)
def test_times_and_keys_are_told_as_python_would(rows: list[Row], found_by: list[int]) -> None:
    """For all rows, keys that recur and times that lie outside are those that a look at each row finds."""
    first, last = EPOCH - timedelta(hours=2), EPOCH + timedelta(hours=3)
    with duckdb.connect() as connection:
        found = found_of(connection, rows, found_by)
    present = [key for _, key, _ in rows if key is not None]
    assert found.recurring().tolist() == [
        10 * n for n, (_, key, _) in enumerate(rows) if key is not None and present.count(key) > 1
    ]
    losers = np.array([10 * n for n, (_, _, loses) in enumerate(rows) if loses], dtype=np.int64)
    times = found.times(first, last, losers)
    outside = [
        time for time, _, loses in rows if not loses and time is not None and not first <= time <= last
    ]
    assert (times.outside, times.earliest, times.latest) == (
        len(outside),
        min(outside, default=None),
        max(outside, default=None),
    )
    assert times.missing == sum(time is None and not loses for time, _, loses in rows)


@pytest.mark.parametrize(
    "query, kind",
    [
        ("error('unread')", duckdb.InvalidInputException),
        ("('x' || range)::INTEGER", duckdb.ConversionException),
        ("(range * 9223372036854775807)::BIGINT", duckdb.OutOfRangeException),
    ],
)
@pytest.mark.parametrize("row", [0, 300_000])
def test_errors_are_duckdbs_own(query: str, kind: type[duckdb.Error], row: int) -> None:
    """Whether the first row or a later one cannot be had, the error is of the kind that a statement has."""
    with duckdb.connect() as connection:
        relation = connection.sql(f"SELECT CASE WHEN range >= {row} THEN {query} END FROM range(2, 400000)")
        with pytest.raises(kind) as caught:
            Found().add(relation)
    assert type(caught.value) is kind


@pytest.mark.parametrize("rows", [0, 300_000])
def test_memory_that_is_too_little_is_told_as_that(rows: int) -> None:
    """The caller then tries with more, so this error has to be told from others, however late it comes."""
    with duckdb.connect() as connection:
        connection.execute("SET memory_limit = '20MB'")
        connection.execute("SET threads = 1")
        relation = connection.sql(
            f"SELECT range FROM range({rows}) UNION ALL SELECT len(list(range)) FROM range(20000000)"
        )
        with pytest.raises(duckdb.OutOfMemoryException):
            Found().add(relation)


def test_an_interrupt_is_one() -> None:
    """Rows that are being fetched can be interrupted from another thread."""
    with duckdb.connect() as connection:
        relation = connection.sql("SELECT sha256('a' || range) FROM range(100000000)")
        timer = Timer(0.2, connection.interrupt)
        timer.start()
        with pytest.raises(duckdb.InterruptException):
            Found().add(relation)
        timer.join()


def test_rows_are_those_that_are_shown_last() -> None:
    """A prepared statement reads what is shown when it runs, nothing after the last rows were taken away."""
    text = b'{"event":"e","properties":{}}\n'
    block = Lines(text, cut(text), np.array([5], dtype=np.int64))
    shown = Shown(LINE)
    with duckdb.connect() as connection:
        connection.register("shown", shown)
        connection.execute("PREPARE look AS SELECT number FROM shown")
        assert connection.execute("EXECUTE look").fetchall() == []
        shown.show(numbered([block, block]))
        assert connection.execute("EXECUTE look").fetchall() == [(5,), (5,)]
        shown.show(())
        assert connection.execute("EXECUTE look").fetchall() == []
