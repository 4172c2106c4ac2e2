"""Chunks on their way, as files."""

import os
from datetime import UTC, date, datetime
from pathlib import Path

import pytest

from mixpanel_export import _staging
from mixpanel_export._staging import Staging, blank_lines, staged_lines
from mixpanel_export._stream import Block, Chunk, ChunkEnd, ChunkStart
from mixpanel_export.errors import DatabaseError

ONE, TWO = (Chunk(date(2024, 3, day), date(2024, 3, day)) for day in (1, 2))
NOW = datetime(2024, 6, 1, tzinfo=UTC)


def end(chunk: Chunk) -> ChunkEnd:
    return ChunkEnd(chunk, NOW, attempts=1, bytes_read=1, lines=0)


@pytest.fixture
def database(tmp_path: Path) -> Path:
    return tmp_path / "test.duckdb"


def test_a_chunk_that_starts_again_starts_from_nothing(database: Path) -> None:
    """What came before a restart is gone, from the disk too."""
    staging = Staging(database, {ONE: 7})
    staging.start(ChunkStart(ONE))
    staging.add(Block(ONE, b"lost\n"))
    staging.start(ChunkStart(ONE))
    staging.add(Block(ONE, b"kept\nalso\n"))
    staged = staging.end(end(ONE))
    assert list(staged_lines(staged.files)) == [b"kept", b"also"]
    assert (staged.lines, staged.size, staged.longest, staged.batch) == (2, 10, 10, 7)
    assert set(staging.directory.iterdir()) == set(staged.files)
    staging.close()


def test_chunks_that_grow_together_stay_apart(database: Path) -> None:
    """Blocks of two chunks in any order end in their own files."""
    staging = Staging(database, {ONE: 1, TWO: 2})
    for chunk in (ONE, TWO):
        staging.start(ChunkStart(chunk))
    for number in range(3):
        for chunk in (TWO, ONE):
            staging.add(Block(chunk, f"{chunk.first} {number}\n".encode()))
    found = {chunk: list(staged_lines(staging.end(end(chunk)).files)) for chunk in (ONE, TWO)}
    assert found == {
        chunk: [f"{chunk.first} {number}".encode() for number in range(3)] for chunk in (ONE, TWO)
    }
    staging.close()


def test_what_does_not_fit_the_budget_is_compressed(database: Path) -> None:
    """Beyond the budget a chunk is staged as gzip, and reads the same."""
    staging = Staging(database, {ONE: 1, TWO: 2}, budget=10)
    for chunk in (ONE, TWO):
        staging.start(ChunkStart(chunk))
        staging.add(Block(chunk, b"a line\nanother\n"))
    one, two = staging.end(end(ONE)), staging.end(end(TWO))
    assert [path.suffix for path in (*one.files, *two.files)] == [".ndjson", ".gz"]
    assert list(staged_lines(one.files)) == list(staged_lines(two.files)) == [b"a line", b"another"]
    staging.discard(one)
    staging.start(ChunkStart(ONE))
    staging.drop(TWO)
    staging.close()
    assert not staging.directory.exists()


def test_a_long_chunk_is_several_files(database: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Parts of a chunk are read in the order in which they came."""
    monkeypatch.setattr(_staging, "_PART", 8)
    staging = Staging(database, {ONE: 1})
    staging.start(ChunkStart(ONE))
    for number in range(5):
        staging.add(Block(ONE, f"line {number}\n".encode()))
    staged = staging.end(end(ONE))
    assert len(staged.files) == 5
    assert list(staged_lines(staged.files)) == [f"line {number}".encode() for number in range(5)]
    staging.close()


def test_only_its_own_leavings_are_removed(database: Path) -> None:
    """What a killed export into this database left goes at the next start; other files stay."""
    stale = database.parent / f".{database.name}.export-1"
    other = database.parent / ".other.duckdb.export-1"
    for folder in (stale, other):
        folder.mkdir()
        (folder / "1.1.ndjson").write_text("customer data")
    staging = Staging(database, {})
    assert not stale.exists()
    assert other.exists()
    staging.close()


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such modes")
def test_nobody_else_may_read_it(database: Path) -> None:
    """Staged lines are customer data."""
    staging = Staging(database, {})
    assert staging.directory.stat().st_mode & 0o777 == 0o700
    staging.close()


def test_a_full_disk_is_noticed_before_the_first_request(
    database: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without room to stage there is no export."""
    monkeypatch.setattr("shutil.disk_usage", lambda _: _Full)
    with pytest.raises(DatabaseError, match="only 3 MiB free"):
        Staging(database, {})


class _Full:
    free = 3 << 20


def test_blank_lines_are_left_out(database: Path) -> None:
    """Lines of nothing but white space are no lines, as to DuckDB."""
    path = database.parent / "1.1.ndjson"
    path.write_bytes(b"\n \t\r\x0b\x0c\nline\x1c\n\n\x85\n")
    assert list(staged_lines([path])) == [b"line\x1c", b"\x85"]
    assert blank_lines([path]) == 3
