"""Loading chunks into a table: what is rejected, what is reported, and what an error leaves behind."""

import re
from datetime import date, datetime
from pathlib import Path

import duckdb
import pytest
import tables
from support import query
from tables import (
    ALL,
    DAYS,
    NOW,
    NumberedTable,
    committed,
    lines,
    new_table,
    staged,
)

from mixpanel_export._database.connection import connected_for_export
from mixpanel_export._database.ledger import read_batches
from mixpanel_export._database.preflight import ExportSpec, Mode
from mixpanel_export._model import (
    ChunkFailed,
    Committed,
    Selection,
    Unloadable,
)
from mixpanel_export._writer.table import Totals
from mixpanel_export.errors import (
    DatabaseError,
    LedgerMismatchError,
    TableExistsError,
    TableFormatError,
    TableNotFoundError,
)

connection = tables.connection


@pytest.mark.parametrize("blank", [b"", b"\n", b" \r\n\n"])
def test_a_line_that_is_lost_on_the_way_is_noticed(
    connection: duckdb.DuckDBPyConnection, db: Path, blank: bytes
) -> None:
    """If the files have fewer lines than were fetched, the chunk fails, and none of it is committed."""
    table = new_table(connection, db)
    staging = table.number(DAYS)
    whole = staged(table, staging, DAYS[0], blank + lines(4))
    assert committed(table, [whole], staging) == [Committed(DAYS[0], 4)]
    for answer in (blank + lines(4), b"odd\n" + blank + lines(4)):
        short = staged(table, staging, DAYS[1], answer, keep_rejects=True)
        path = short.path
        kept = path.read_bytes().splitlines(keepends=True)
        path.write_bytes(b"".join(kept[:-1]))
        (refused,) = committed(table, [short], staging)
        assert isinstance(refused, Unloadable)
        assert re.match(r"Write failed: .* was truncated", refused.reason)
    assert connection.execute("SELECT count(*) FROM events").fetchone() == (4,)


def test_what_duckdb_cannot_write_is_one_error_and_nothing_is_committed(
    connection: duckdb.DuckDBPyConnection, db: Path
) -> None:
    """A unique index of the user that the events violate stops the export, and rolls the group back."""
    table = new_table(connection, db)
    staging = table.number(DAYS)
    committed(table, [staged(table, staging, DAYS[0], lines(0))], staging)
    connection.execute("CREATE UNIQUE INDEX one ON events (event_name)")
    group = [staged(table, staging, chunk, lines(1)) for chunk in DAYS[1:3]]
    with pytest.raises(
        DatabaseError, match=r"2024-03-02 to 2024-03-03: cannot write to the table \(Constraint Error"
    ):
        committed(table, group, staging)
    assert connection.execute("SELECT count(*) FROM _export_batches").fetchone() == (1,)


def test_a_failure_is_the_newest_word_on_its_days_until_they_succeed(
    connection: duckdb.DuckDBPyConnection, db: Path
) -> None:
    """A failed batch keeps the rows of an older one, replaces older failures, and ends with success."""
    first = new_table(connection, db)
    staging = first.number(DAYS[:1])
    committed(first, [staged(first, staging, DAYS[0], lines(3))], staging)
    staging.close()
    for _ in range(2):
        table = new_table(connection, db, "append")
        table.number(DAYS[:1]).close()
        table.record_failure(ChunkFailed(DAYS[0], table.numbers[DAYS[0]], NOW, 6, 0, "it broke"), NOW)
    assert [(batch.number, batch.status) for batch in read_batches(connection, "events")] == [
        (1, "complete"),
        (3, "failed"),
    ]
    assert connection.execute("SELECT error, attempts FROM _export_batches WHERE batch = 3").fetchone() == (
        "it broke",
        6,
    )
    table = new_table(connection, db, "resume")
    staging = table.number(DAYS[:1])
    committed(table, [staged(table, staging, DAYS[0], lines(5))], staging)
    assert [(batch.number, batch.status) for batch in read_batches(connection, "events")] == [(4, "complete")]
    assert connection.execute("SELECT count(*) FROM events").fetchone() == (5,)


def test_rows_outside_the_days_are_counted_in_the_ledger(
    connection: duckdb.DuckDBPyConnection, db: Path
) -> None:
    """The ledger has the number of a batch's events outside its days, and their first and last time."""
    table = new_table(connection, db)
    staging = table.number(DAYS)
    times = (1709251199, 1709251200, 1709337599, 1709337600, 1709337601)
    answer = b"".join(b'{"event":"e","properties":{"time":%d}}\n' % time for time in times)
    committed(table, [staged(table, staging, DAYS[0], answer + b'{"event":"e","properties":{}}\n')], staging)
    assert connection.execute(
        "SELECT rows, outside_rows, outside_first, outside_last FROM _export_batches"
    ).fetchone() == (6, 3, datetime(2024, 2, 29, 23, 59, 59), datetime(2024, 3, 2, 0, 0, 1))


def test_a_ledger_of_a_newer_release_is_refused(connection: duckdb.DuckDBPyConnection, db: Path) -> None:
    """A file that a newer release wrote is unchanged."""
    new_table(connection, db)
    connection.execute("COMMENT ON TABLE _export_batches IS 'mixpanel_export ledger 99'")
    with pytest.raises(TableFormatError, match="update mpx-export"):
        new_table(connection, db)


@pytest.mark.parametrize("mode", ["append", "resume", "replace"])
def test_a_table_of_somebody_else_is_refused(
    connection: duckdb.DuckDBPyConnection, db: Path, mode: Mode
) -> None:
    """A table with other columns is neither appended to nor replaced."""
    connection.execute("CREATE TABLE events (a INTEGER)")
    with pytest.raises(TableFormatError, match="the columns of an exported table"):
        new_table(connection, db, mode)


def test_a_view_cannot_be_replaced(connection: duckdb.DuckDBPyConnection, db: Path) -> None:
    """If a view has the name, replace is an error and keeps the view."""
    connection.execute("CREATE VIEW events AS SELECT 1 AS a")
    with pytest.raises(TableFormatError, match="view"):
        new_table(connection, db, "replace")


def test_table_names_differ_by_more_than_case(connection: duckdb.DuckDBPyConnection, db: Path) -> None:
    """A table and its ledger rows are found whatever the case of the letters, as in DuckDB."""
    table = NumberedTable(
        connection, db, ExportSpec(table="Events", selection=Selection("1"), days=ALL, mode="create")
    )
    staging = table.number(DAYS[:1])
    committed(table, [staged(table, staging, DAYS[0], lines(1))], staging)
    again = NumberedTable(
        connection, db, ExportSpec(table="eVENTS", selection=Selection("1"), days=ALL, mode="resume")
    )
    assert (again.name, len(again.batches)) == ("Events", 1)


def test_metadata_tells_the_days_and_the_holes(db: Path) -> None:
    """The view has the first and the last complete day, and the number of target days that are not complete."""
    with connected_for_export(db) as connection:
        table = new_table(connection, db)
        staging = table.number(DAYS)
        group = [staged(table, staging, chunk, lines(2)) for chunk in (DAYS[0], DAYS[3])]
        committed(table, group, staging)
        table.record_failure(ChunkFailed(DAYS[4], table.numbers[DAYS[4]], NOW, 1, 0, "x"), NOW)
        staging.close()
    found = query(db, "SELECT table_name, type, from_date, to_date, row_count, missing_days FROM _metadata")
    assert found == [("events", "events", date(2024, 3, 1), date(2024, 3, 4), 4, 3)]


def test_replacing_a_table_of_mixpanel_data_ends_its_record(
    connection: duckdb.DuckDBPyConnection, db: Path
) -> None:
    """The table's row in mixpanel_data's `_metadata` is deleted with the table; the other rows stay."""
    connection.execute(
        "CREATE TABLE events (event_name VARCHAR, event_time TIMESTAMP, distinct_id VARCHAR, "
        "insert_id VARCHAR PRIMARY KEY, properties JSON)"
    )
    connection.execute("CREATE TABLE _metadata (table_name VARCHAR PRIMARY KEY, row_count INTEGER)")
    connection.execute("INSERT INTO _metadata VALUES ('events', 5), ('profiles', 6)")
    table = new_table(connection, db, "replace")
    staging = table.number(DAYS[:1])
    committed(table, [staged(table, staging, DAYS[0], lines(3))], staging)
    assert table.finish(complete=True) == Totals(growth=3, removed_duplicates=0)
    assert connection.execute("FROM _metadata").fetchall() == [("profiles", 6)]


def test_a_refused_table_leaves_the_file_as_it_was(connection: duckdb.DuckDBPyConnection, db: Path) -> None:
    """If nothing can be appended, no ledger is created either."""
    connection.execute("CREATE TABLE events (a INTEGER)")
    with pytest.raises(TableFormatError):
        new_table(connection, db, "append")
    assert connection.execute("SELECT table_name FROM duckdb_tables()").fetchall() == [("events",)]


def test_what_is_set_aside_may_be_longer_than_what_stays(
    connection: duckdb.DuckDBPyConnection, db: Path
) -> None:
    """A long line that is not an event is stored verbatim, along with short events."""
    table = new_table(connection, db)
    staging = table.number(DAYS)
    junk = b"x" * 3_000_000
    odd = staged(table, staging, DAYS[0], lines(1) + junk + b"\n" + lines(1), keep_rejects=True)
    assert committed(table, [odd], staging) == [Committed(DAYS[0], 1, removed_duplicates=1, rejects=1)]
    assert connection.execute("SELECT line FROM _export_rejects").fetchone() == (junk,)


def test_an_event_with_a_longer_number_than_python_reads_is_an_event(
    connection: duckdb.DuckDBPyConnection, db: Path
) -> None:
    """The limit of Python's integers does not apply."""
    table = new_table(connection, db)
    staging = table.number(DAYS)
    long = b'{"properties":{"n":' + b"9" * 5000 + b'},"event":"e"}\n'
    assert committed(table, [staged(table, staging, DAYS[0], long)], staging) == [Committed(DAYS[0], 1)]


@pytest.mark.parametrize("mode", ["append", "resume"])
def test_rows_that_the_ledger_does_not_know_are_noticed(
    connection: duckdb.DuckDBPyConnection, db: Path, mode: Mode
) -> None:
    """If the ledger was emptied, or rows were added with SQL, events would be duplicated, so nothing is appended."""
    table = new_table(connection, db)
    staging = table.number(DAYS)
    committed(table, [staged(table, staging, DAYS[0], lines(3))], staging)
    connection.execute("INSERT INTO events (event_name) VALUES ('by hand')")
    with pytest.raises(LedgerMismatchError, match="export_batch None") as caught:
        new_table(connection, db, mode)
    assert caught.value.batch is None
    connection.execute("DELETE FROM events WHERE export_batch IS NULL")
    connection.execute("DELETE FROM _export_batches")
    with pytest.raises(LedgerMismatchError, match="3 rows"):
        new_table(connection, db, mode)


def test_what_else_is_attached_is_not_mistaken_for_this_file(
    connection: duckdb.DuckDBPyConnection, db: Path, tmp_path: Path
) -> None:
    """Tables of the same names in another attached database do not count."""
    with connected_for_export(tmp_path / "other.duckdb") as other:
        new_table(other, tmp_path / "other.duckdb")
        other.execute("CREATE TABLE events (a INTEGER)")
    connection.execute(f"ATTACH '{tmp_path / 'other.duckdb'}' AS other")
    for mode in ("create", "resume", "replace"):
        table = new_table(connection, db, mode)
        assert table.batches == ()


def test_identities_are_compared_as_text(connection: duckdb.DuckDBPyConnection, db: Path) -> None:
    """Ids and times that differ only beyond a double, or only in case, are different; equal text is equal."""
    connection.execute("SET GLOBAL default_collation = 'NOCASE'")
    connection.execute("SET SESSION default_collation = ''")
    identities = [
        '"$insert_id":0.12345678901234567890123',
        '"$insert_id":0.12345678901234567890124',
        '"$insert_id":1.0',
        '"$insert_id":1E0',
        '"$insert_id":"x","distinct_id":"A"',
        '"$insert_id":"x","distinct_id":"a"',
        '"$insert_id":"x","time":1709294400.5',
        '"$insert_id":"x","time":1709294400.50',
    ]
    answer = "".join(
        f'{{"event":"e","properties":{{{identity},"n":{copy}}}}}\n'
        for identity in identities
        for copy in (1, 2)
    )
    table = new_table(connection, db)
    staging = table.number(DAYS)
    verdict = committed(table, [staged(table, staging, DAYS[0], answer.encode())], staging)
    assert verdict == [Committed(DAYS[0], len(identities), removed_duplicates=len(identities))]


def test_an_applications_order_is_not_that_of_the_lines(
    connection: duckdb.DuckDBPyConnection, db: Path
) -> None:
    """Settings that an application makes for all its connections change no row and no duplicate."""
    connection.execute("SET GLOBAL default_order = 'DESC'")
    table = new_table(connection, db)
    staging = table.number(DAYS)
    answer = lines(3000) + lines(1000)
    whole = staged(table, staging, DAYS[0], answer)
    assert committed(table, [whole], staging) == [Committed(DAYS[0], 3000, removed_duplicates=1000)]
    assert connection.execute(
        "SELECT count(*), count(DISTINCT insert_id) FROM events WHERE insert_id = properties->>'$.\"$insert_id\"'"
    ).fetchone() == (3000, 3000)


@pytest.mark.parametrize("folder", ["json=1", "filename=x"])
def test_a_folder_that_looks_like_a_partition_is_a_folder(tmp_path: Path, folder: str) -> None:
    """The name of the folder has no effect on what is read."""
    (tmp_path / folder).mkdir()
    db = tmp_path / folder / "test.duckdb"
    with connected_for_export(db) as connection:
        table = new_table(connection, db)
        staging = table.number(DAYS)
        assert committed(table, [staged(table, staging, DAYS[0], lines(2))], staging) == [
            Committed(DAYS[0], 2)
        ]


@pytest.mark.parametrize("mode", ["append", "resume"])
def test_nothing_is_added_to_a_view(connection: duckdb.DuckDBPyConnection, db: Path, mode: Mode) -> None:
    """A view of an events table has its columns, but is not a table."""
    table = new_table(connection, db)
    staging = table.number(DAYS)
    committed(table, [staged(table, staging, DAYS[0], lines(1))], staging)
    connection.execute("CREATE VIEW seen AS FROM events")
    with pytest.raises(TableFormatError, match="view"):
        NumberedTable(connection, db, ExportSpec(table="seen", selection=Selection("1"), days=ALL, mode=mode))


@pytest.mark.parametrize("mode,error", [("create", TableExistsError), ("append", TableNotFoundError)])
def test_a_refused_mode_leaves_the_file_as_it_was(
    connection: duckdb.DuckDBPyConnection, db: Path, mode: Mode, error: type[Exception]
) -> None:
    """If create or append is refused, no ledger is created."""
    connection.execute("CREATE TABLE other (a INTEGER)")
    table = "other" if mode == "create" else "events"
    with pytest.raises(error):
        NumberedTable(connection, db, ExportSpec(table=table, selection=Selection("1"), days=ALL, mode=mode))
    assert connection.execute("SELECT table_name FROM duckdb_tables()").fetchall() == [("other",)]


def test_batch_ids_go_on_after_their_sequence_was_dropped(
    connection: duckdb.DuckDBPyConnection, db: Path
) -> None:
    """No id is used twice."""
    table = new_table(connection, db)
    staging = table.number(DAYS)
    committed(table, [staged(table, staging, chunk, lines(1)) for chunk in DAYS], staging)
    connection.execute("DROP SEQUENCE _export_batch_ids")
    assert new_table(connection, db, "append").allocate_batch_numbers(2) == [6, 7]
