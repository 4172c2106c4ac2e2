"""Ctrl-C in commands that only read a file: it also stops DuckDB's threads."""

import sys
from pathlib import Path

import duckdb
import pytest
from examples import slow
from shell import interrupted

from mixpanel_export._database.schema import create_events_table, create_ledger

pytestmark = pytest.mark.skipif(
    sys.platform == "win32", reason="a console of its own is needed to send Ctrl-C to a child"
)

# The function `report` writes HERE once the statement runs; a statement on ROWS does not end.
ROWS = """(SELECT 1 AS export_batch, '{}'::JSON AS properties, TIMESTAMP '2024-03-01' AS event_time
    FROM (SELECT report('HERE'::BLOB) AS n) AS s, range(1_000_000_000_000) AS r(x) WHERE sin(x) > n)"""
CHILD = f"""
import os
from functools import partial
from mixpanel_export._local import file, reader, statistics
from mixpanel_export.cli import main

def connect(*arguments, usual=reader.connect, **options):
    connection = usual(*arguments, **options)
    connection.create_function("report", partial(os.write, 2), ["BLOB"], "BIGINT", side_effects=True)
    return connection

file.connect = reader.connect = connect
statistics.quoted = reader.quoted = lambda _: {ROWS!r}
main()
"""
QUERY = f"SELECT count(*) FROM {ROWS}"


@pytest.mark.parametrize(
    "words",
    [
        ["status"],
        *slow(
            [
                ["mp", "-q", "inspect", "keys", "events"],
                ["mp", "-q", "query", "sql", QUERY],
                ["mp", "-q", "query", "sql", "--scalar", QUERY],
            ]
        ),
    ],
    ids=lambda words: " ".join(words)[:20],
)
def test_ctrl_c_stops_the_statement(words: list[str], db: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The command ends with 130 and one line, although the statement would run for hours."""
    monkeypatch.setenv("MPX_DB", str(db))
    with duckdb.connect(str(db)) as connection:
        create_ledger(connection)
        create_events_table(connection, "events")
        connection.execute(
            """INSERT INTO _export_batches BY NAME SELECT 1 AS batch, 'events' AS table_name, 'complete' AS status,
            '1' AS project, DATE '2024-03-01' AS from_date, DATE '2024-03-01' AS to_date, 'UTC' AS timezone"""
        )
    assert interrupted(CHILD, words) == (130, b"", b"Interrupted.\n")
