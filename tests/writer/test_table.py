"""Staged chunks and a table: what is refused, what is noticed, and what an error leaves behind."""

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, date, datetime
from pathlib import Path
from threading import Event, Thread

import duckdb
import pytest
from support import query

from mixpanel_export._concurrency import InterruptedCall
from mixpanel_export._database.connection import connected_for_export
from mixpanel_export._database.ledger import Selection
from mixpanel_export._database.preflight import Mode, Order
from mixpanel_export._model import (
    Block,
    Chunk,
    ChunkEnd,
    ChunkFailed,
    ChunkStart,
    Committed,
    Refused,
    Rejected,
)
from mixpanel_export._writer import arrow as _arrow
from mixpanel_export._writer import extract as _find
from mixpanel_export._writer import repair as _mend
from mixpanel_export._writer import table as _store
from mixpanel_export._writer.load import Ready
from mixpanel_export._writer.staging import Staged, Staging
from mixpanel_export._writer.table import Store, Totals
from mixpanel_export.errors import (
    DatabaseError,
    LedgerMismatchError,
    TableExistsError,
    TableFormatError,
    TableNotFoundError,
)

DAYS = [Chunk(date(2024, 3, day), date(2024, 3, day)) for day in range(1, 6)]
ALL = Chunk(DAYS[0].first, DAYS[-1].last)
NOW = datetime(2024, 6, 1, tzinfo=UTC)
LINE = b'{"event":"e","properties":{"time":1709294400,"$insert_id":"%d"}}\n'


@pytest.fixture
def db(tmp_path: Path) -> Path:
    return tmp_path / "test.duckdb"


@pytest.fixture
def connection(db: Path) -> Iterator[duckdb.DuckDBPyConnection]:
    with connected_for_export(db) as connection:
        yield connection


def new_store(
    connection: duckdb.DuckDBPyConnection, db: Path, mode: Mode = "create", dedupe: bool = True
) -> Store:
    return Store(
        connection, db, Order(table="events", selection=Selection("1"), days=ALL, mode=mode, dedupe=dedupe)
    )


def staged(
    store: Store, staging: Staging, chunk: Chunk, lines: bytes, *, keep_rejects: bool = False
) -> Staged:
    """Stage *lines* as the answer for *chunk*, whose events are its own."""
    lines = lines.replace(b'"$insert_id":"', b'"$insert_id":"%d-' % chunk.first.day)
    staging.start(ChunkStart(chunk, keep_rejects))
    staging.add(Block(chunk, lines))
    return staging.end(ChunkEnd(chunk, NOW, attempts=1, bytes_read=1, lines=lines.count(b"\n")))


def committed(
    store: Store, group: Sequence[Staged], staging: Staging
) -> list[Committed | Refused | Rejected]:
    """Examine the chunks, then commit those that are ready together."""
    examined = [store.examiner.examine(staged, staging) for staged in group]
    ready = [found for found in examined if isinstance(found, Ready)]
    verdicts = {verdict.chunk: verdict for verdict in together(store, ready, staging)}
    return [verdicts[found.staged.chunk] if isinstance(found, Ready) else found for found in examined]


def together(store: Store, group: Sequence[Ready], staging: Staging) -> list[Committed | Refused]:
    """Insert the chunks and commit them together."""
    for ready in group:
        store.insert(ready, staging)
    return store.commit(staging, now)


def lines(number: int) -> bytes:
    return b"".join(LINE % line for line in range(number))


def now() -> datetime:
    return NOW


def test_a_group_is_committed_together_and_its_files_are_gone(
    connection: duckdb.DuckDBPyConnection, db: Path
) -> None:
    """Each chunk of a group gets its verdict, its ledger row and its rows, and nothing stays on the disk."""
    store = new_store(connection, db)
    staging = Staging(db, store.batches_for(DAYS))
    group = [staged(store, staging, chunk, lines(size)) for size, chunk in enumerate(DAYS)]
    assert committed(store, group, staging) == [Committed(chunk, size) for size, chunk in enumerate(DAYS)]
    assert connection.execute(
        "SELECT export_batch, count(*) FROM events GROUP BY ALL ORDER BY ALL"
    ).fetchall() == [(2, 1), (3, 2), (4, 3), (5, 4)]
    assert connection.execute("SELECT batch, rows FROM _export_batches ORDER BY ALL").fetchall() == [
        (1, 0), (2, 1), (3, 2), (4, 3), (5, 4),
    ]  # fmt: skip
    assert list(staging.directory.iterdir()) == []


def test_a_chunk_with_odd_lines_does_not_hold_up_its_group(
    connection: duckdb.DuckDBPyConnection, db: Path
) -> None:
    """The others are committed, the odd one is sent back, and comes in with what it holds the second time."""
    store = new_store(connection, db)
    staging = Staging(db, store.batches_for(DAYS))
    odd = b"what is this\n" + lines(2)
    group = [staged(store, staging, DAYS[0], odd), staged(store, staging, DAYS[1], lines(3))]
    assert committed(store, group, staging) == [Rejected(DAYS[0], 1), Committed(DAYS[1], 3)]
    assert connection.execute("SELECT batch FROM _export_batches").fetchall() == [(2,)]
    again = staged(store, staging, DAYS[0], odd, keep_rejects=True)
    assert committed(store, [again], staging) == [Committed(DAYS[0], 2, rejects=1)]
    assert connection.execute("FROM _export_rejects").fetchall() == [(1, "rejected", b"what is this")]
    assert list(staging.directory.iterdir()) == []


@pytest.mark.parametrize("blank", [b"", b"\n", b" \r\n\n"])
def test_a_line_that_is_lost_on_the_way_is_noticed(
    connection: duckdb.DuckDBPyConnection, db: Path, blank: bytes
) -> None:
    """Fewer lines in the files than were fetched fail the chunk, and nothing of it is committed."""
    store = new_store(connection, db)
    staging = Staging(db, store.batches_for(DAYS))
    whole = staged(store, staging, DAYS[0], blank + lines(4))
    assert committed(store, [whole], staging) == [Committed(DAYS[0], 4)]
    for answer in (blank + lines(4), b"odd\n" + blank + lines(4)):
        short = staged(store, staging, DAYS[1], answer, keep_rejects=True)
        path = short.files[0].path
        kept = path.read_bytes().splitlines(keepends=True)
        path.write_bytes(b"".join(kept[:-1]))
        (refused,) = committed(store, [short], staging)
        assert isinstance(refused, Refused)
        assert re.match(r"Write failed: of .* lines of 2024-03-02", refused.reason)
    assert connection.execute("SELECT count(*) FROM events").fetchone() == (4,)


def test_a_line_that_cannot_be_mended_is_an_error(
    connection: duckdb.DuckDBPyConnection, db: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A chunk that DuckDB refuses although it was found sound fails alone, and the others are committed."""
    monkeypatch.setattr(_mend, "canonical", _Unmended)
    store = new_store(connection, db)
    staging = Staging(db, store.batches_for(DAYS))
    odd = staged(store, staging, DAYS[0], b'["odd"]\n' + lines(1))
    other = staged(store, staging, DAYS[1], lines(2))
    refused, taken = committed(store, [odd, other], staging)
    assert taken == Committed(DAYS[1], 2)
    assert isinstance(refused, Refused)
    assert "mended before" in refused.reason
    assert connection.execute("SELECT batch FROM _export_batches").fetchall() == [(2,)]


class _Unmended:
    repaired = False

    def __init__(self, line: bytes) -> None:
        self.line = line


@pytest.mark.parametrize("memory", [0, 1 << 20])
def test_memory_for_columns_comes_back(connection: duckdb.DuckDBPyConnection, db: Path, memory: int) -> None:
    """Whatever became of chunks, what they kept in memory is there for others, and no file of theirs is left."""
    store = new_store(connection, db)
    staging = Staging(db, store.batches_for(DAYS), memory=memory)
    whole = staged(store, staging, DAYS[0], lines(200))
    odd = staged(store, staging, DAYS[1], lines(200) + b"odd\n")
    short = staged(store, staging, DAYS[2], lines(200))
    path = short.files[0].path
    path.write_bytes(path.read_bytes()[:-1])
    verdicts = committed(store, [whole, odd, short], staging)
    assert [type(verdict) for verdict in verdicts] == [Committed, Rejected, Refused]
    mended = staged(store, staging, DAYS[1], lines(200) + b"odd\n", keep_rejects=True)
    assert committed(store, [mended], staging) == [Committed(DAYS[1], 200, rejects=1)]
    assert staging.columns.take(memory // 4)
    assert not list(staging.directory.iterdir())


def test_what_duckdb_cannot_write_is_one_error_and_nothing_is_committed(
    connection: duckdb.DuckDBPyConnection, db: Path
) -> None:
    """An index of the user's that the events break stops the export, and rolls the group back."""
    store = new_store(connection, db)
    staging = Staging(db, store.batches_for(DAYS))
    committed(store, [staged(store, staging, DAYS[0], lines(0))], staging)
    connection.execute("CREATE UNIQUE INDEX one ON events (event_name)")
    group = [staged(store, staging, chunk, lines(1)) for chunk in DAYS[1:3]]
    with pytest.raises(DatabaseError, match=r"Write failed: Constraint Error.*2024-03-02.*2024-03-03"):
        committed(store, group, staging)
    assert connection.execute("SELECT count(*) FROM _export_batches").fetchone() == (1,)


def test_an_interrupt_rolls_the_group_back(connection: duckdb.DuckDBPyConnection, db: Path) -> None:
    """What is interrupted, examining or a commit, leaves nothing, and the store goes on working."""
    store = new_store(connection, db)
    staging = Staging(db, store.batches_for(DAYS))
    chunk = staged(store, staging, DAYS[0], lines(100_000))
    with _interrupted_by(store.examiner.interrupt), pytest.raises(InterruptedCall):
        store.examiner.examine(chunk, staging)
    ready = store.examiner.examine(chunk, staging)
    assert isinstance(ready, Ready)
    with _interrupted_by(store.interrupt), pytest.raises(InterruptedCall):
        together(store, [ready], staging)
    assert connection.execute("SELECT count(*) FROM _export_batches").fetchone() == (0,)
    assert together(store, [ready], staging) == [Committed(DAYS[0], 100_000)]


@contextmanager
def _interrupted_by(interrupt: Callable[[], None]) -> Iterator[None]:
    ended = Event()

    def go_on() -> None:
        while not ended.wait(0.01):
            interrupt()

    interrupting = Thread(target=go_on)
    interrupting.start()
    try:
        yield
    finally:
        ended.set()
        interrupting.join()


def test_a_failure_is_the_newest_word_on_its_days_until_they_succeed(
    connection: duckdb.DuckDBPyConnection, db: Path
) -> None:
    """A failed batch keeps the rows of an older one, takes the place of older failures, and ends with success."""
    first = new_store(connection, db)
    staging = Staging(db, first.batches_for(DAYS[:1]))
    committed(first, [staged(first, staging, DAYS[0], lines(3))], staging)
    staging.close()
    for _ in range(2):
        store = new_store(connection, db, "append")
        store.batches_for(DAYS[:1])
        store.fail(ChunkFailed(DAYS[0], NOW, 6, "it broke"), NOW)
    assert [(held.batch, held.status) for held in store.held()] == [(1, "complete"), (3, "failed")]
    assert connection.execute("SELECT error, attempts FROM _export_batches WHERE batch = 3").fetchone() == (
        "it broke",
        6,
    )
    store = new_store(connection, db, "resume")
    staging = Staging(db, store.batches_for(DAYS[:1]))
    committed(store, [staged(store, staging, DAYS[0], lines(5))], staging)
    assert [(held.batch, held.status) for held in store.held()] == [(4, "complete")]
    assert connection.execute("SELECT count(*) FROM events").fetchone() == (5,)


def test_rows_outside_the_days_are_counted_in_the_ledger(
    connection: duckdb.DuckDBPyConnection, db: Path
) -> None:
    """The ledger says how many events of a batch lie outside its days, and between which times."""
    store = new_store(connection, db)
    staging = Staging(db, store.batches_for(DAYS))
    times = (1709251199, 1709251200, 1709337599, 1709337600, 1709337601)
    answer = b"".join(b'{"event":"e","properties":{"time":%d}}\n' % time for time in times)
    committed(store, [staged(store, staging, DAYS[0], answer + b'{"event":"e","properties":{}}\n')], staging)
    assert connection.execute(
        "SELECT rows, outside_rows, outside_first, outside_last FROM _export_batches"
    ).fetchone() == (6, 3, datetime(2024, 2, 29, 23, 59, 59), datetime(2024, 3, 2, 0, 0, 1))


def test_a_ledger_of_a_newer_release_is_refused(connection: duckdb.DuckDBPyConnection, db: Path) -> None:
    """A file that a newer release wrote is left alone."""
    new_store(connection, db)
    connection.execute("COMMENT ON TABLE _export_batches IS 'mixpanel_export ledger 99'")
    with pytest.raises(TableFormatError, match="update mpx-export"):
        new_store(connection, db)


@pytest.mark.parametrize("mode", ["append", "resume", "replace"])
def test_a_table_of_somebody_else_is_refused(
    connection: duckdb.DuckDBPyConnection, db: Path, mode: Mode
) -> None:
    """A table with other columns is neither added to nor replaced."""
    connection.execute("CREATE TABLE events (a INTEGER)")
    with pytest.raises(TableFormatError, match="other columns"):
        new_store(connection, db, mode)


def test_a_view_cannot_be_replaced(connection: duckdb.DuckDBPyConnection, db: Path) -> None:
    """Where the name is a view's, replace is an error that leaves it."""
    connection.execute("CREATE VIEW events AS SELECT 1 AS a")
    with pytest.raises(TableFormatError, match="view"):
        new_store(connection, db, "replace")


def test_table_names_differ_by_more_than_case(connection: duckdb.DuckDBPyConnection, db: Path) -> None:
    """A table is found whatever the case of the letters, as by DuckDB, and so is its ledger."""
    store = Store(connection, db, Order(table="Events", selection=Selection("1"), days=ALL, mode="create"))
    staging = Staging(db, store.batches_for(DAYS[:1]))
    committed(store, [staged(store, staging, DAYS[0], lines(1))], staging)
    again = Store(connection, db, Order(table="eVENTS", selection=Selection("1"), days=ALL, mode="resume"))
    assert (again.table, len(again.held())) == ("Events", 1)


def test_metadata_tells_the_days_and_the_holes(db: Path) -> None:
    """The view names the first and the last complete day, and how many between them are missing."""
    with connected_for_export(db) as connection:
        store = new_store(connection, db)
        staging = Staging(db, store.batches_for(DAYS))
        group = [staged(store, staging, chunk, lines(2)) for chunk in (DAYS[0], DAYS[3])]
        committed(store, group, staging)
        store.fail(ChunkFailed(DAYS[4], NOW, 1, "x"), NOW)
        staging.close()
    found = query(db, "SELECT table_name, type, from_date, to_date, row_count, missing_days FROM _metadata")
    assert found == [("events", "events", date(2024, 3, 1), date(2024, 3, 4), 4, 2)]


def test_replacing_a_table_of_mixpanel_data_ends_its_record(
    connection: duckdb.DuckDBPyConnection, db: Path
) -> None:
    """What mixpanel_data's own `_metadata` says of the table goes with the table; the rest of it stays."""
    connection.execute(
        "CREATE TABLE events (event_name VARCHAR, event_time TIMESTAMP, distinct_id VARCHAR, "
        "insert_id VARCHAR PRIMARY KEY, properties JSON)"
    )
    connection.execute("CREATE TABLE _metadata (table_name VARCHAR PRIMARY KEY, row_count INTEGER)")
    connection.execute("INSERT INTO _metadata VALUES ('events', 5), ('profiles', 6)")
    store = new_store(connection, db, "replace")
    staging = Staging(db, store.batches_for(DAYS[:1]))
    committed(store, [staged(store, staging, DAYS[0], lines(3))], staging)
    assert store.finish(whole=True) == Totals(growth=3, removed_duplicates=0)
    assert connection.execute("FROM _metadata").fetchall() == [("profiles", 6)]


def test_a_refused_table_leaves_the_file_as_it_was(connection: duckdb.DuckDBPyConnection, db: Path) -> None:
    """Where nothing can be added, no ledger is left behind either."""
    connection.execute("CREATE TABLE events (a INTEGER)")
    with pytest.raises(TableFormatError):
        new_store(connection, db, "append")
    assert connection.execute("SELECT table_name FROM duckdb_tables()").fetchall() == [("events",)]


def test_what_is_set_aside_may_be_longer_than_what_stays(
    connection: duckdb.DuckDBPyConnection, db: Path
) -> None:
    """A long line that is no event is kept verbatim beside short ones that are."""
    store = new_store(connection, db)
    staging = Staging(db, store.batches_for(DAYS))
    junk = b"x" * 3_000_000
    odd = staged(store, staging, DAYS[0], lines(1) + junk + b"\n" + lines(1), keep_rejects=True)
    assert committed(store, [odd], staging) == [Committed(DAYS[0], 1, removed_duplicates=1, rejects=1)]
    assert connection.execute("SELECT line FROM _export_rejects").fetchone() == (junk,)


def test_an_event_with_a_longer_number_than_python_reads_is_an_event(
    connection: duckdb.DuckDBPyConnection, db: Path
) -> None:
    """The limit of Python's integers does not decide what an event is."""
    store = new_store(connection, db)
    staging = Staging(db, store.batches_for(DAYS))
    long = b'{"properties":{"n":' + b"9" * 5000 + b'},"event":"e"}\n'
    assert committed(store, [staged(store, staging, DAYS[0], long)], staging) == [Committed(DAYS[0], 1)]


@pytest.mark.parametrize("mode", ["append", "resume"])
def test_rows_that_the_ledger_does_not_know_are_noticed(
    connection: duckdb.DuckDBPyConnection, db: Path, mode: Mode
) -> None:
    """A ledger that was emptied, or rows written by hand, would be doubled, so nothing is added to them."""
    store = new_store(connection, db)
    staging = Staging(db, store.batches_for(DAYS))
    committed(store, [staged(store, staging, DAYS[0], lines(3))], staging)
    connection.execute("INSERT INTO events (event_name) VALUES ('by hand')")
    with pytest.raises(LedgerMismatchError, match="export_batch None") as caught:
        new_store(connection, db, mode)
    assert caught.value.batch is None
    connection.execute("DELETE FROM events WHERE export_batch IS NULL")
    connection.execute("DELETE FROM _export_batches")
    with pytest.raises(LedgerMismatchError, match="3 rows"):
        new_store(connection, db, mode)


def test_what_else_is_attached_is_not_mistaken_for_this_file(
    connection: duckdb.DuckDBPyConnection, db: Path, tmp_path: Path
) -> None:
    """Tables of the same names in another attached database do not count."""
    with connected_for_export(tmp_path / "other.duckdb") as other:
        new_store(other, tmp_path / "other.duckdb")
        other.execute("CREATE TABLE events (a INTEGER)")
    connection.execute(f"ATTACH '{tmp_path / 'other.duckdb'}' AS other")
    for mode in ("create", "resume", "replace"):
        store = new_store(connection, db, mode)
        assert store.held() == []


def test_identities_are_compared_as_text(connection: duckdb.DuckDBPyConnection, db: Path) -> None:
    """Ids and times that differ only beyond a double, or only in case, are different; the same text is the same."""
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
    store = new_store(connection, db)
    staging = Staging(db, store.batches_for(DAYS))
    verdict = committed(store, [staged(store, staging, DAYS[0], answer.encode())], staging)
    assert verdict == [Committed(DAYS[0], len(identities), removed_duplicates=len(identities))]


def test_an_applications_order_is_not_that_of_the_lines(
    connection: duckdb.DuckDBPyConnection, db: Path
) -> None:
    """What an application of this process sets for all its connections changes no row and no duplicate."""
    connection.execute("SET GLOBAL default_order = 'DESC'")
    store = new_store(connection, db)
    staging = Staging(db, store.batches_for(DAYS))
    answer = lines(3000) + lines(1000)
    whole = staged(store, staging, DAYS[0], answer)
    assert committed(store, [whole], staging) == [Committed(DAYS[0], 3000, removed_duplicates=1000)]
    assert connection.execute(
        "SELECT count(*), count(DISTINCT insert_id) FROM events WHERE insert_id = properties->>'$.\"$insert_id\"'"
    ).fetchone() == (3000, 3000)


@pytest.mark.parametrize("folder", ["json=1", "filename=x"])
def test_a_folder_that_looks_like_a_partition_is_a_folder(tmp_path: Path, folder: str) -> None:
    """The name of the folder has no say in what is read."""
    (tmp_path / folder).mkdir()
    db = tmp_path / folder / "test.duckdb"
    with connected_for_export(db) as connection:
        store = new_store(connection, db)
        staging = Staging(db, store.batches_for(DAYS))
        assert committed(store, [staged(store, staging, DAYS[0], lines(2))], staging) == [
            Committed(DAYS[0], 2)
        ]


@pytest.mark.parametrize("mode", ["append", "resume"])
def test_nothing_is_added_to_a_view(connection: duckdb.DuckDBPyConnection, db: Path, mode: Mode) -> None:
    """A view over an events table has its columns and is still no table."""
    store = new_store(connection, db)
    staging = Staging(db, store.batches_for(DAYS))
    committed(store, [staged(store, staging, DAYS[0], lines(1))], staging)
    connection.execute("CREATE VIEW seen AS FROM events")
    with pytest.raises(TableFormatError, match="view"):
        Store(connection, db, Order(table="seen", selection=Selection("1"), days=ALL, mode=mode))


@pytest.mark.parametrize("mode,error", [("create", TableExistsError), ("append", TableNotFoundError)])
def test_a_refused_mode_leaves_the_file_as_it_was(
    connection: duckdb.DuckDBPyConnection, db: Path, mode: Mode, error: type[Exception]
) -> None:
    """Where create or append is refused, no ledger is left behind."""
    connection.execute("CREATE TABLE other (a INTEGER)")
    table = "other" if mode == "create" else "events"
    with pytest.raises(error):
        Store(connection, db, Order(table=table, selection=Selection("1"), days=ALL, mode=mode))
    assert connection.execute("SELECT table_name FROM duckdb_tables()").fetchall() == [("other",)]


def test_batch_ids_go_on_after_their_sequence_was_dropped(
    connection: duckdb.DuckDBPyConnection, db: Path
) -> None:
    """No id is given twice."""
    store = new_store(connection, db)
    staging = Staging(db, store.batches_for(DAYS))
    committed(store, [staged(store, staging, chunk, lines(1)) for chunk in DAYS], staging)
    connection.execute("DROP SEQUENCE _export_batch_ids")
    assert list(new_store(connection, db, "append").batches_for(DAYS[:2]).values()) == [6, 7]


def test_what_is_no_longer_there_to_insert_is_an_error_of_ours(
    connection: duckdb.DuckDBPyConnection, db: Path
) -> None:
    """A staged file that somebody removes after it was examined stops the export with our error, nothing committed."""
    store = new_store(connection, db)
    staging = Staging(db, store.batches_for(DAYS))
    ready = store.examiner.examine(staged(store, staging, DAYS[0], lines(3)), staging)
    assert isinstance(ready, Ready)
    ready.staged.files[0].path.unlink()
    with pytest.raises(DatabaseError, match="cannot stage"):
        together(store, [ready], staging)
    assert connection.execute("FROM _export_batches").fetchall() == []


def test_chunks_that_come_after_one_that_cannot_be_inserted_are_committed(
    connection: duckdb.DuckDBPyConnection, db: Path
) -> None:
    """What was inserted before it is inserted again, by itself, and what only comes after its failure too."""
    store = new_store(connection, db)
    staging = Staging(db, store.batches_for(DAYS))
    ready = [store.examiner.examine(staged(store, staging, chunk, lines(3)), staging) for chunk in DAYS[:3]]
    group = [one for one in ready if isinstance(one, Ready)]
    path = group[1].staged.files[0].path
    path.write_bytes(path.read_bytes()[:-1])
    first, second, third = together(store, group, staging)
    assert (first, third) == (Committed(DAYS[0], 3), Committed(DAYS[2], 3))
    assert isinstance(second, Refused)
    assert connection.execute("SELECT batch FROM _export_batches ORDER BY ALL").fetchall() == [(1,), (3,)]
    assert list(staging.directory.iterdir()) == []
    again = store.examiner.examine(staged(store, staging, DAYS[3], lines(3)), staging)
    assert isinstance(again, Ready)
    assert together(store, [again], staging) == [Committed(DAYS[3], 3)]


def test_the_last_try_of_a_chunk_has_the_most_memory(
    connection: duckdb.DuckDBPyConnection, db: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each by itself has what its own lines need, whoever was beside it before, and then more, until it is refused."""
    limits = list[float]()

    def starved(*_: object) -> None:
        ((limit,),) = connection.execute("SELECT current_setting('memory_limit')").fetchall()
        limits.append(float(limit.removesuffix(" MiB")))
        raise duckdb.OutOfMemoryException("Out of Memory Error: failed to allocate")

    store = new_store(connection, db)
    staging = Staging(db, store.batches_for(DAYS))
    long = b'{"event":"e","properties":{"filler":"%s"}}\n' % (b"x" * (6 << 20))
    texts = zip(DAYS, (long, lines(1)), strict=False)
    ready = [store.examiner.examine(staged(store, staging, chunk, text), staging) for chunk, text in texts]
    monkeypatch.setattr(_store, "insert", starved)
    verdicts = together(store, [one for one in ready if isinstance(one, Ready)], staging)
    assert [type(verdict) for verdict in verdicts] == [Refused, Refused]
    first, long_alone, long_last, short_alone, short_last = limits
    assert first == long_alone > short_alone
    assert long_last > long_alone
    assert short_last > short_alone
    assert connection.execute("FROM _export_batches").fetchall() == []


@pytest.mark.parametrize("early", [True, False])
@pytest.mark.parametrize(
    "changes",
    [
        ["arrow_large_buffer_size = true"],
        ["arrow_output_version = '1.4'", "produce_arrow_string_view = true"],
    ],
)
def test_how_an_application_wants_its_arrow_does_not_matter(
    db: Path, monkeypatch: pytest.MonkeyPatch, changes: list[str], early: bool
) -> None:
    """Set before an export it changes nothing; set in the midst of one it fails the chunk that is being read."""
    monkeypatch.setattr(_find, "_PIECE", 1)
    with duckdb.connect(str(db)) as application:

        def change() -> None:
            for setting in changes:
                application.execute(f"SET GLOBAL {setting}")

        def fetched(relation: duckdb.DuckDBPyRelation) -> list[object]:
            found = _arrow.fetched(relation)
            if not early:
                change()
            return found

        monkeypatch.setattr(_find, "fetched", fetched)
        if early:
            change()
        with connected_for_export(db) as connection:
            store = new_store(connection, db)
            staging = Staging(db, store.batches_for(DAYS))
            staging.start(ChunkStart(DAYS[0]))
            for _ in range(3):
                staging.add(Block(DAYS[0], LINE % 1))
            whole = staging.end(ChunkEnd(DAYS[0], NOW, attempts=1, bytes_read=1, lines=3))
            (verdict,) = committed(store, [whole], staging)
            staging.close()
    assert isinstance(verdict, Committed if early else Refused)
    assert early or "Arrow settings" in str(verdict)
