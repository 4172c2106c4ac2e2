"""Arrays that DuckDB and Python show one another: rows as they are shown, columns as they were found."""

from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Timer
from typing import Any

import duckdb
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from mixpanel_export._writer.arrow import EVENT, LINE, Columns, Shown, fetched, numbered
from mixpanel_export._writer.memory import Room
from mixpanel_export._writer.offsets import Lines, Payload, cut

EPOCH = datetime(1970, 1, 1)
moments = st.none() | st.integers(-5, 5).map(lambda hours: EPOCH + timedelta(hours=hours))
sizes = st.lists(st.integers(1, 7), min_size=1, max_size=20)
Row = tuple[datetime | None, bool]


def cut_up(items: Sequence[Any], parts: Sequence[int]) -> Iterator[list[Any]]:
    """Yield the items in groups of these sizes, over and over."""
    rest, turn = iter(items), 0
    while group := list(islice(rest, parts[turn % len(parts)])):
        yield group
        turn += 1


@given(st.lists(st.tuples(moments, st.booleans()), max_size=30), sizes, sizes, sizes, st.integers(0, 400))
def test_what_was_found_stands_beside_its_lines(
    rows: list[Row], found_by: list[int], in_blocks: list[int], in_pieces: list[int], memory: int
) -> None:
    """For all rows, however they came, are kept and are read again, each is beside its own line, as often as wanted."""
    with (
        duckdb.connect() as connection,
        TemporaryDirectory() as folder,
    ):
        room = Room(memory)
        columns = Columns(room, Path(folder) / "columns")
        for group in cut_up(list(enumerate(rows)), found_by):
            for array in fetched(connection.sql(_rows(group))):
                columns.add(array)
        assert columns.rows == len(rows)
        blocks = []
        for group in cut_up(list(range(len(rows))), in_blocks):
            text = b"".join(b'{"event":"e","properties":{"n":%d}}\n' % number for number in group)
            blocks.append(Payload(text, cut(text).places.spans))
        kept = np.array([stays for _, stays in rows], dtype=np.bool_)
        pieces = list(cut_up(blocks, in_pieces))
        expected = [
            (f'{{"n":{n}}}', f"e{n}", time, f"d{n}" if n % 3 else None, f"i{n}", stays)
            for n, (time, stays) in enumerate(rows)
        ]
        for _ in range(2):
            assert _beside(connection, columns, pieces, kept) == expected
        columns.discard()
        assert not list(Path(folder).iterdir())
        assert room.take(memory)


def _rows(group: Sequence[tuple[int, Row]]) -> str:
    """Return SQL for the columns of numbered rows."""
    values = ", ".join(
        f"('e{n}', {sql(time)}, {sql(f'd{n}' if n % 3 else None)}, 'i{n}')" for n, (time, _) in group
    )
    return f"SELECT col0, col1::TIMESTAMP, col2::VARCHAR, col3 FROM (VALUES {values})"


def sql(value: object) -> str:
    return "NULL" if value is None else f"'{value}'"


def _beside(
    connection: duckdb.DuckDBPyConnection,
    columns: Columns,
    pieces: list[list[Payload]],
    kept: NDArray[np.bool_],
) -> list[tuple[Any, ...]]:
    read: list[tuple[Any, ...]] = []
    for arrays in columns.beside(pieces, kept) if columns.rows else ():
        shown = Shown(EVENT)
        shown.show(arrays)
        connection.register("shown", shown)
        read += connection.execute(
            "SELECT payload[1]::VARCHAR, event_name, event_time, distinct_id, insert_id, kept FROM shown"
        ).fetchall()
    return read


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
            fetched(relation)
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
            fetched(relation)


def test_an_interrupt_is_one() -> None:
    """Rows that are being fetched can be interrupted from another thread."""
    with duckdb.connect() as connection:
        relation = connection.sql("SELECT sha256('a' || range) FROM range(100000000)")
        timer = Timer(0.2, connection.interrupt)
        timer.start()
        with pytest.raises(duckdb.InterruptException):
            fetched(relation)
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
