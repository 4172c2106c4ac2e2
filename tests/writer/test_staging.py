"""Chunks on their way, as files."""

import os
from datetime import UTC, date, datetime
from pathlib import Path

import pytest

from mixpanel_export._model import Block, Chunk, ChunkEnd, ChunkStart
from mixpanel_export._writer.staging import ReadBuffers, StagedChunk, Staging
from mixpanel_export.errors import DatabaseError

ONE, TWO = (Chunk(date(2024, 3, day), date(2024, 3, day)) for day in (1, 2))
NOW = datetime(2024, 6, 1, tzinfo=UTC)
MB = 1 << 20


def end(chunk: Chunk) -> ChunkEnd:
    return ChunkEnd(chunk, NOW, attempts=1, bytes_read=1, lines=0)


def lines_of(staged: StagedChunk) -> list[bytes]:
    return list(staged.all_lines())


@pytest.fixture
def database(tmp_path: Path) -> Path:
    return tmp_path / "test.duckdb"


def test_a_chunk_that_starts_again_starts_from_nothing(database: Path) -> None:
    """What came before a restart is gone, from the disk too."""
    staging = Staging(database)
    staging.start(ChunkStart(ONE, 7))
    staging.add(Block(ONE, b"lost\n"))
    staging.start(ChunkStart(ONE, 7))
    staging.add(Block(ONE, b"kept\nalso\n"))
    staged = staging.end(end(ONE))
    assert lines_of(staged) == [b"kept\n", b"also\n"]
    assert (staged.size, staged.longest, staged.batch) == (10, 10, 7)
    assert set(staging.directory.iterdir()) == {file.path for file in staged.files}
    staging.close()


def test_chunks_that_grow_together_stay_apart(database: Path) -> None:
    """Blocks of two chunks in any order end in their own files."""
    staging = Staging(database)
    for chunk in (ONE, TWO):
        staging.start(ChunkStart(chunk, 7))
    for number in range(3):
        for chunk in (TWO, ONE):
            staging.add(Block(chunk, f"{chunk.first} {number}\n".encode()))
    found = {chunk: lines_of(staging.end(end(chunk))) for chunk in (ONE, TWO)}
    assert found == {
        chunk: [f"{chunk.first} {number}\n".encode() for number in range(3)] for chunk in (ONE, TWO)
    }
    staging.close()


def test_what_does_not_fit_the_budget_is_compressed(database: Path) -> None:
    """Beyond the budget a chunk is staged as gzip, and reads the same."""
    staging = Staging(database, budget=10)
    for chunk in (ONE, TWO):
        staging.start(ChunkStart(chunk, 7))
        staging.add(Block(chunk, b"a line\nanother\n"))
    one, two = staging.end(end(ONE)), staging.end(end(TWO))
    assert [file.path.suffix for file in (*one.files, *two.files)] == [".ndjson", ".gz"]
    assert lines_of(one) == lines_of(two) == [b"a line\n", b"another\n"]
    staging.discard(one)
    staging.start(ChunkStart(ONE, 7))
    staging.drop(TWO)
    staging.close()
    assert not staging.directory.exists()


def test_a_long_chunk_is_several_files(database: Path) -> None:
    """Parts of a chunk are read in the order in which they came."""
    staging = Staging(database, part_size=8)
    staging.start(ChunkStart(ONE, 7))
    for number in range(5):
        staging.add(Block(ONE, f"line {number}\n".encode()))
    staged = staging.end(end(ONE))
    assert len(staged.files) == 5
    assert lines_of(staged) == [f"line {number}\n".encode() for number in range(5)]
    staging.close()


def test_only_its_own_leavings_are_removed(database: Path) -> None:
    """What a killed export into this database left goes at the next start; other files stay."""
    stale = database.parent / f".{database.name}.export-1"
    other = database.parent / ".other.duckdb.export-1"
    for folder in (stale, other):
        folder.mkdir()
        (folder / "1.1.ndjson").write_text("customer data")
    staging = Staging(database)
    assert not stale.exists()
    assert other.exists()
    staging.close()


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such modes")
def test_nobody_else_may_read_it(database: Path) -> None:
    """Staged lines are customer data."""
    staging = Staging(database)
    assert staging.directory.stat().st_mode & 0o777 == 0o700
    staging.close()


def test_a_full_disk_is_noticed_before_the_first_request(
    database: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without room to stage there is no export."""
    monkeypatch.setattr("shutil.disk_usage", lambda _: _Full)
    with pytest.raises(DatabaseError, match="only 3 MiB free"):
        Staging(database)


class _Full:
    free = 3 << 20


@pytest.mark.parametrize("budget", [0, 1 << 20])
def test_blocks_come_back_as_they_were_staged(database: Path, budget: int) -> None:
    """Wherever they are, in memory, in a file or in a compressed one, blocks are read as they were cut."""
    blocks = [b"x" * size + b"\n" for size in (0, 5, 40, 1, 7, 0, 3)]
    staging = Staging(database, budget=budget)
    staging.start(ChunkStart(ONE, 7))
    for block in blocks:
        staging.add(Block(ONE, block))
    staged = staging.end(end(ONE))
    buffers = ReadBuffers()
    assert list(staged.blocks(buffers)) == blocks
    buffers.reuse()
    assert [bytes(block) for block in staged.blocks(buffers)] == blocks
    staging.close()


def test_a_chunk_that_is_rewritten_has_blocks_of_the_usual_size(database: Path) -> None:
    """What takes the place of a chunk is read in blocks of whole lines, too, and counted anew."""
    staging = Staging(database)
    staging.start(ChunkStart(ONE, 7))
    staging.add(Block(ONE, b"what was\n"))
    rewritten = staging.rewrite(staging.end(end(ONE)), [b"a" * MB, b"b" * (2 * MB), b"c", b"d"])
    assert list(rewritten.blocks(ReadBuffers())) == [b"a" * MB + b"\n", b"b" * (2 * MB) + b"\n", b"c\nd\n"]
    assert (rewritten.size, rewritten.lines, rewritten.longest) == (3 * MB + 6, 4, 2 * MB + 1)
    staging.close()
