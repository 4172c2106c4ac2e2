"""Chunks with lines for which the usual memory is too small."""

from contextlib import closing
from pathlib import Path

import pytest
from examples import slow
from tables import DAYS, committed, new_table, staged

from mixpanel_export._database.connection import connected_for_export
from mixpanel_export._model import Committed

LONG = 34 << 20


@pytest.mark.parametrize("filler", [b"x", *slow([b"\x01"])])
def test_duplicates_that_are_long_are_compared(
    filler: bytes, db: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Long lines that recur become one row, even if they need repair."""
    monkeypatch.setenv("MPX_MEMORY_LIMIT", "96MB")
    line = b'{"event":"e","properties":{"$insert_id":"a","filler":"%s%s"}}\n' % (filler, b"x" * LONG)
    with connected_for_export(db) as connection:
        table = new_table(connection, db)
        with closing(table.number(DAYS)) as staging:
            (verdict,) = committed(table, [staged(table, staging, DAYS[0], 2 * line)], staging)
            assert isinstance(verdict, Committed)
            assert (verdict.rows, verdict.removed_duplicates) == (1, 1)
            assert not list(staging.directory.iterdir())
