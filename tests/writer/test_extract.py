"""What is told of a chunk's lines as a whole: keys that recur, times that lie outside, lines that were read."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mixpanel_export._database.ledger import Loaded
from mixpanel_export._writer.arrow import fetched
from mixpanel_export._writer.extract import Findings, LoadError
from mixpanel_export._writer.memory import Room

EPOCH = datetime(1970, 1, 1)
moments = st.none() | st.integers(-5, 5).map(lambda hours: EPOCH + timedelta(hours=hours))
keys = st.sampled_from([0, 0, 1, 3, 2**63 + 1, 2**64 - 1])
Row = tuple[datetime | None, int, bool]


def arrays_of(
    connection: duckdb.DuckDBPyConnection, rows: Sequence[tuple[datetime | None, int, int]]
) -> list[Any]:
    """Return time, number and key of rows as they come from DuckDB."""
    connection.execute("CREATE OR REPLACE TEMP TABLE rows (time TIMESTAMP, number BIGINT, key UBIGINT)")
    if rows:
        connection.executemany("INSERT INTO rows VALUES (?, ?, ?)", rows)
    return fetched(connection.sql("SELECT 'e', time, 'd', 'i', number, key FROM rows ORDER BY rowid"))


@given(st.lists(st.tuples(moments, keys, st.booleans()), max_size=30), st.integers(0, 30))
def test_times_and_keys_are_told_as_python_would(rows: list[Row], half: int) -> None:
    """For all rows, keys that recur and times that lie outside are those that a look at each row finds."""
    first, last = EPOCH - timedelta(hours=2), EPOCH + timedelta(hours=3)
    findings = Findings(Room(1 << 20), Path("unused"))
    with duckdb.connect() as connection:
        numbered = [(time, number, key) for number, (time, key, _) in enumerate(rows)]
        for part in (numbered[:half], numbered[half:]):
            expected = np.array([number for _, number, _ in part], dtype=np.int64)
            findings.add(arrays_of(connection, part), expected)
    present = [key for _, key, _ in rows if key]
    recurring = [(key, n) for n, (_, key, _) in enumerate(rows) if present.count(key) > 1]
    places, found = findings.recurring()
    assert list(zip(found.tolist(), places.tolist(), strict=True)) == sorted(recurring)
    kept = [time for time, _, stays in rows if stays]
    outside = [time for time in kept if time is not None and not first <= time <= last]
    assert findings.loaded(first, last, np.array([stays for _, _, stays in rows], dtype=np.bool_)) == Loaded(
        len(kept),
        len(rows) - len(kept),
        len(outside),
        min(outside, default=None),
        max(outside, default=None),
        kept.count(None),
    )


def test_doubtful_lines_are_told_by_their_numbers() -> None:
    """A number less one below zero is that of a line which is not sound."""
    findings = Findings(Room(1 << 20), Path("unused"))
    with duckdb.connect() as connection:
        arrays = arrays_of(connection, [(None, 0, 0), (None, -1 - 7, 0), (None, 9, 0), (None, -1 - 12, 0)])
        findings.add(arrays, np.array([0, 7, 9, 12], dtype=np.int64))
    assert findings.doubtful == {7, 12}


@pytest.mark.parametrize("numbers", [[], [0, 1], [0, 2, 1], [0, 1, 2, 3], [0, 1, 3]])
def test_rows_of_other_lines_are_refused(numbers: list[int]) -> None:
    """What DuckDB read must be what was shown, in its order: else it would stand beside other text."""
    with duckdb.connect() as connection:
        arrays = arrays_of(connection, [(None, number, 0) for number in numbers])
        with pytest.raises(LoadError, match=r"of 3 lines DuckDB read \d"):
            Findings(Room(1 << 20), Path("unused")).add(arrays, np.arange(3))
