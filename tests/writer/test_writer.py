"""Groups of chunks: which are committed together, which are tried alone, and what an error leaves behind."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from random import Random
from threading import Event, Thread

import duckdb
import pytest
import tables
from tables import (
    ALL,
    DAYS,
    NOW,
    NumberedTable,
    committed,
    group_of,
    lines,
    new_table,
    now,
    staged,
    together,
    validate,
    validated,
)

from mixpanel_export._concurrency import InterruptedCall
from mixpanel_export._database.preflight import ExportSpec
from mixpanel_export._model import Chunk, Committed, Malformed, Selection, Unloadable
from mixpanel_export._writer.group import Group
from mixpanel_export._writer.load import UnloadableError, ValidatedChunk
from mixpanel_export._writer.staging import Staging
from mixpanel_export._writer.validate import ClockCheck, validators_for
from mixpanel_export._writer.writer import Writer
from mixpanel_export.errors import DatabaseError

connection = tables.connection


def test_a_group_is_committed_together_and_its_files_are_gone(
    connection: duckdb.DuckDBPyConnection, db: Path
) -> None:
    """Each chunk of a group gets its verdict, its ledger row and its rows, and its files are removed."""
    table = new_table(connection, db)
    staging = table.number(DAYS)
    group = [staged(table, staging, chunk, lines(size)) for size, chunk in enumerate(DAYS)]
    assert committed(table, group, staging) == [Committed(chunk, size) for size, chunk in enumerate(DAYS)]
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
    """The others are committed; the irregular chunk is fetched again, and committed with its valid events."""
    table = new_table(connection, db)
    staging = table.number(DAYS)
    odd = b"what is this\n" + lines(2)
    group = [staged(table, staging, DAYS[0], odd), staged(table, staging, DAYS[1], lines(3))]
    assert committed(table, group, staging) == [Malformed(DAYS[0], 1), Committed(DAYS[1], 3)]
    assert connection.execute("SELECT batch FROM _export_batches").fetchall() == [(2,)]
    again = staged(table, staging, DAYS[0], odd, keep_rejects=True)
    assert committed(table, [again], staging) == [Committed(DAYS[0], 2, rejects=1)]
    assert connection.execute("FROM _export_rejects").fetchall() == [(1, "rejected", b"what is this")]
    assert list(staging.directory.iterdir()) == []


@pytest.mark.parametrize("memory", [0, 1 << 20])
def test_memory_for_columns_comes_back(connection: duckdb.DuckDBPyConnection, db: Path, memory: int) -> None:
    """Whatever became of chunks, their memory is available again, and their files are removed."""
    table = new_table(connection, db)
    table.number(DAYS).close()
    staging = Staging(db, columns_memory=memory // 4)
    whole = staged(table, staging, DAYS[0], lines(200))
    odd = staged(table, staging, DAYS[1], lines(200) + b"odd\n")
    short = staged(table, staging, DAYS[2], lines(200))
    path = short.path
    path.write_bytes(path.read_bytes()[:-1])
    verdicts = committed(table, [whole, odd, short], staging)
    assert [type(verdict) for verdict in verdicts] == [Committed, Malformed, Unloadable]
    mended = staged(table, staging, DAYS[1], lines(200) + b"odd\n", keep_rejects=True)
    assert committed(table, [mended], staging) == [Committed(DAYS[1], 200, rejects=1)]
    assert staging.columns.reserve(memory // 4)
    assert not list(staging.directory.iterdir())


def test_a_chunk_that_comes_after_the_end_of_its_group_is_not_committed(
    connection: duckdb.DuckDBPyConnection, db: Path
) -> None:
    """The ledger never has a chunk whose rows the statement did not read, even if a cancellation closes the group first."""
    table = new_table(connection, db)
    staging = table.number(DAYS)
    chunks = validated(table, [staged(table, staging, chunk, lines(3)) for chunk in DAYS[:2]], staging)
    first, late = [chunk for chunk in chunks if isinstance(chunk, ValidatedChunk)]
    group = Group(first, open_for=60)
    group.close()
    assert not group.add(late)
    assert Writer(table, staging, now).commit(group) == [Committed(DAYS[0], 3)]
    assert connection.execute("SELECT batch FROM _export_batches").fetchall() == [(1,)]


def test_a_group_that_nobody_closes_is_committed(connection: duckdb.DuckDBPyConnection, db: Path) -> None:
    """A callback that blocks the event loop with a statement that waits for the group does not block forever."""
    table = new_table(connection, db)
    staging = table.number(DAYS)
    (chunk,) = validated(table, [staged(table, staging, DAYS[0], lines(3))], staging)
    assert isinstance(chunk, ValidatedChunk)
    group = Group(chunk, open_for=0.01)
    assert Writer(table, staging, now).commit(group) == [Committed(DAYS[0], 3)]
    group.wait_until_closed()


def test_an_interrupt_rolls_the_group_back(connection: duckdb.DuckDBPyConnection, db: Path) -> None:
    """An interrupt during validation or a commit leaves nothing behind, and the table can still be used."""
    table = new_table(connection, db)
    staging = table.number(DAYS)
    chunk = staged(table, staging, DAYS[0], lines(100_000))
    with validators_for(table, staging, ClockCheck(enabled=False), 1) as (validator,):
        with _interrupted_by(validator.interrupt), pytest.raises(InterruptedCall):
            validate(validator, chunk)
        ready = validate(validator, chunk)
    assert isinstance(ready, ValidatedChunk)
    with _interrupted_by(table.interrupt), pytest.raises(InterruptedCall):
        together(table, [ready], staging)
    assert connection.execute("SELECT count(*) FROM _export_batches").fetchone() == (0,)
    assert together(table, [ready], staging) == [Committed(DAYS[0], 100_000)]


def test_what_is_no_longer_there_to_insert_is_an_error_of_ours(
    connection: duckdb.DuckDBPyConnection, db: Path
) -> None:
    """If a staged file is removed after its validation, the export stops with an error, and nothing is committed."""
    table = new_table(connection, db)
    staging = table.number(DAYS)
    (ready,) = validated(table, [staged(table, staging, DAYS[0], lines(3))], staging)
    assert isinstance(ready, ValidatedChunk)
    ready.staged.path.unlink()
    with pytest.raises(DatabaseError, match="cannot stage"):
        together(table, [ready], staging)
    assert connection.execute("FROM _export_batches").fetchall() == []


def test_chunks_that_come_after_one_that_cannot_be_inserted_are_committed(
    connection: duckdb.DuckDBPyConnection, db: Path
) -> None:
    """Chunks before it are inserted again separately, and so are chunks that arrive after its failure."""
    table = new_table(connection, db)
    staging = table.number(DAYS)
    ready = validated(table, [staged(table, staging, chunk, lines(3)) for chunk in DAYS[:3]], staging)
    group = [one for one in ready if isinstance(one, ValidatedChunk)]
    path = group[1].staged.path
    path.write_bytes(path.read_bytes()[:-1])
    first, second, third = together(table, group, staging)
    assert (first, third) == (Committed(DAYS[0], 3), Committed(DAYS[2], 3))
    assert isinstance(second, Unloadable)
    assert connection.execute("SELECT batch FROM _export_batches ORDER BY ALL").fetchall() == [(1,), (3,)]
    assert list(staging.directory.iterdir()) == []
    again = staged(table, staging, DAYS[3], lines(3))
    assert committed(table, [again], staging) == [Committed(DAYS[3], 3)]


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


class _RefusingTable(NumberedTable):
    """Loads no group with a chunk of the *unloadable* days; records each attempt."""

    def __init__(
        self, connection: duckdb.DuckDBPyConnection, db: Path, unloadable: Chunk, *, out_of_memory: bool
    ) -> None:
        spec = ExportSpec(table="events", selection=Selection("1"), days=ALL, mode="create")
        super().__init__(connection, db, spec)
        self._unloadable = unloadable
        self._out_of_memory = out_of_memory
        self.tries: list[tuple[list[int], bool]] = []

    def load(
        self, group: Group, now: Callable[[], datetime], *, final_attempt: bool = False
    ) -> list[Committed]:
        self.tries.append(([chunk.batch.number for chunk in group.chunks], final_attempt))
        if self._unloadable in {chunk.batch.days for chunk in group.chunks}:
            kind = duckdb.OutOfMemoryException if self._out_of_memory else duckdb.InvalidInputException
            raise UnloadableError(kind("too large"), 1_000_000)
        return super().load(group, now, final_attempt=final_attempt)


@pytest.mark.parametrize("out_of_memory", [True, False])
def test_each_chunk_of_a_group_that_fails_is_tried_alone(
    connection: duckdb.DuckDBPyConnection, db: Path, out_of_memory: bool
) -> None:
    """A chunk is unloadable if it failed alone; if memory was too small, only after a final attempt with the maximum."""
    table = _RefusingTable(connection, db, DAYS[1], out_of_memory=out_of_memory)
    staging = table.number(DAYS)
    chunks = validated(table, [staged(table, staging, chunk, lines(3)) for chunk in DAYS[:3]], staging)
    group = [chunk for chunk in chunks if isinstance(chunk, ValidatedChunk)]
    verdicts = Writer(table, staging, now).commit(group_of(group))
    memory = 65_250_000 if out_of_memory else None
    unloadable = Unloadable(DAYS[1], "Write failed: too large", memory)
    assert verdicts == [Committed(DAYS[0], 3), unloadable, Committed(DAYS[2], 3)]
    last_tries = [([2], True)] if out_of_memory else []
    assert table.tries == [([1, 2, 3], False), ([1], False), ([2], False), *last_tries, ([3], False)]
    assert not list(staging.directory.iterdir())


def test_the_final_attempt_has_the_maximum_memory(connection: duckdb.DuckDBPyConnection, db: Path) -> None:
    """A load has the memory that its own lines need, and more in the final attempt."""
    limits: list[float] = []

    def measured() -> datetime:
        ((limit,),) = connection.execute("SELECT current_setting('memory_limit')").fetchall()
        limits.append(float(limit.removesuffix(" MiB")))
        return NOW

    table = new_table(connection, db)
    staging = table.number(DAYS)
    long = b'{"event":"e","properties":{"filler":"%s"}}\n' % (b"x" * (6 << 20))
    texts = zip(DAYS, (lines(1), long, lines(2)), strict=False)
    chunks = validated(table, [staged(table, staging, chunk, text) for chunk, text in texts], staging)
    for chunk, final_attempt in zip(chunks, (False, False, True), strict=True):
        assert isinstance(chunk, ValidatedChunk)
        table.load(Group(chunk), measured, final_attempt=final_attempt)
    usual, long_line, last = limits
    assert usual < long_line
    assert usual < last


def test_a_commit_that_lacks_memory_is_tried_again_with_more(
    connection: duckdb.DuckDBPyConnection, db: Path
) -> None:
    """DuckDB then reports an error of the transaction. The rows of the final attempt are in the file, not in the log."""
    table = new_table(connection, db)
    staging = table.number(DAYS)
    draw = Random(1)
    filler = draw.randbytes(60_000).hex()
    many = b"".join(
        b'{"event":"e","properties":{"filler":"%s"}}\n' % (filler[place:] + filler[:place]).encode()
        for place in (draw.randrange(len(filler)) for _ in range(400))
    )
    connection.execute("SET GLOBAL memory_limit = '30MB'")
    connection.execute("SET GLOBAL threads = 1")
    verdicts = committed(table, [staged(table, staging, DAYS[0], many)], staging)
    assert verdicts == [Committed(DAYS[0], 400)]
    assert not db.with_name(f"{db.name}.wal").exists()
