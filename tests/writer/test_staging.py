"""Chunks in the staging directory."""

import os
from datetime import UTC, date, datetime
from pathlib import Path

import pytest

from mixpanel_export._model import Block, Chunk, ChunkEnd, ChunkStart
from mixpanel_export._writer.staging import StagedChunk, Staging
from mixpanel_export.errors import DatabaseError

ONE, TWO = (Chunk(date(2024, 3, day), date(2024, 3, day)) for day in (1, 2))
NOW = datetime(2024, 6, 1, tzinfo=UTC)
MB = 1 << 20


def end(chunk: Chunk, size: int) -> ChunkEnd:
    return ChunkEnd(chunk, NOW, attempts=1, bytes_read=1, size=size)


def lines_of(staged: StagedChunk) -> list[bytes]:
    return list(staged.all_lines())


@pytest.fixture
def database(tmp_path: Path) -> Path:
    return tmp_path / "test.duckdb"


def test_a_chunk_that_starts_again_starts_from_nothing(database: Path) -> None:
    """Blocks from before the restart are discarded, also on the disk."""
    staging = Staging(database)
    staging.start(ChunkStart(ONE, 7))
    staging.add(Block(ONE, (b"lost\n",)))
    staging.start(ChunkStart(ONE, 7))
    staging.add(Block(ONE, (b"kept\nalso\n",)))
    staged = staging.end(end(ONE, 10))
    assert lines_of(staged) == [b"kept\n", b"also\n"]
    assert (staged.size, staged.lines, staged.batch) == (10, 2, 7)
    assert set(staging.directory.iterdir()) == {staged.path}
    staging.close()


def test_chunks_that_grow_together_stay_apart(database: Path) -> None:
    """Blocks of two chunks in any order end up in their own files."""
    staging = Staging(database)
    for chunk in (ONE, TWO):
        staging.start(ChunkStart(chunk, 7))
    for number in range(3):
        for chunk in (TWO, ONE):
            staging.add(Block(chunk, (f"{chunk.first} {number}\n".encode(),)))
    found = {chunk: lines_of(staging.end(end(chunk, 39))) for chunk in (ONE, TWO)}
    assert found == {
        chunk: [f"{chunk.first} {number}\n".encode() for number in range(3)] for chunk in (ONE, TWO)
    }
    staging.close()


def test_what_does_not_fit_the_budget_is_compressed(database: Path) -> None:
    """Beyond the budget, a chunk is staged as gzip, and reads the same."""
    staging = Staging(database, budget=10)
    for chunk in (ONE, TWO):
        staging.start(ChunkStart(chunk, 7))
        staging.add(Block(chunk, (b"a line\nanother\n",)))
    one, two = staging.end(end(ONE, 15)), staging.end(end(TWO, 15))
    assert [segment.compressed for segment in (*one.segments, *two.segments)] == [False, True]
    assert lines_of(one) == lines_of(two) == [b"a line\n", b"another\n"]
    staging.discard(one)
    staging.start(ChunkStart(ONE, 7))
    staging.drop(TWO)
    staging.close()
    assert not staging.directory.exists()


def test_a_segment_is_complete_when_the_next_one_begins(database: Path) -> None:
    """It can be read from then on, while its chunk still grows, compressed or not."""
    staging = Staging(database, budget=40, segment_size=20)
    staging.start(ChunkStart(ONE, 7))
    blocks = [f"line {number}\n".encode() for number in range(9)]
    returned = [(staging.add(Block(ONE, (block,)))) for block in blocks]
    complete = [segment for segment in returned if segment is not None]
    assert [returned.index(segment) for segment in complete] == [2, 4, 6, 8]
    assert [segment.compressed for segment in complete] == [False, False, False, True]
    assert [bytes(segment.text()) for segment in complete] == [
        first + second for first, second in zip(blocks[::2], blocks[1::2], strict=False)
    ]
    staged = staging.end(end(ONE, 63))
    assert staged.segments[:-1] == tuple(complete)
    assert lines_of(staged) == blocks
    staging.close()


def test_only_its_own_leavings_are_removed(database: Path) -> None:
    """The staging of a killed export into this database is removed at the next start; other files stay."""
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
    """If there is no space for staging, no export starts."""
    monkeypatch.setattr("shutil.disk_usage", lambda _: _Full)
    with pytest.raises(DatabaseError, match="only 3 MiB free"):
        Staging(database)


class _Full:
    free = 3 << 20


@pytest.mark.parametrize("budget", [0, 1 << 20])
@pytest.mark.parametrize(
    "segment_size, sizes", [(1, [1, 6, 41, 2, 8, 1, 4]), (8, [7, 41, 2, 8, 5]), (99, [63])]
)
def test_segments_are_whole_blocks(database: Path, budget: int, segment_size: int, sizes: list[int]) -> None:
    """Blocks are combined up to the segment size, in plain and compressed files, and can be read repeatedly."""
    blocks = [b"x" * size + b"\n" for size in (0, 5, 40, 1, 7, 0, 3)]
    staging = Staging(database, budget=budget, segment_size=segment_size)
    staging.start(ChunkStart(ONE, 7))
    for block in blocks:
        staging.add(Block(ONE, (block[:1], memoryview(block)[1:])))
    staged = staging.end(end(ONE, 63))
    for _ in range(2):
        segments = [bytes(segment.text()) for segment in staged.segments]
        assert b"".join(segments) == b"".join(blocks)
        assert [len(segment) for segment in segments] == sizes
    assert (staged.lines, staged.longest_segment) == (7, max(sizes))
    staging.close()


def test_a_segment_beyond_a_page_is_read_from_its_place(database: Path) -> None:
    """A segment may start anywhere in its file."""
    blocks = [bytes([byte]) * size + b"\n" for byte, size in ((65, 10_000), (66, 100_000), (67, 3))]
    staging = Staging(database, segment_size=1)
    staging.start(ChunkStart(ONE, 7))
    for block in blocks:
        staging.add(Block(ONE, (block,)))
    staged = staging.end(end(ONE, sum(map(len, blocks))))
    assert [bytes(segment.text()) for segment in staged.segments] == blocks
    staging.close()


@pytest.mark.parametrize("budget", [0, 1 << 20])
def test_a_staged_file_that_became_shorter_is_an_error(database: Path, budget: int) -> None:
    """Missing lines are noticed, never omitted silently."""
    staging = Staging(database, budget=budget)
    staging.start(ChunkStart(ONE, 7))
    staging.add(Block(ONE, (b"a line\nanother\n",)))
    staged = staging.end(end(ONE, 15))
    path = staged.path
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(EOFError):
        lines_of(staged)
    staging.close()


def test_a_block_that_did_not_arrive_is_an_error(database: Path) -> None:
    """The size at the end of a chunk must be the staged size."""
    staging = Staging(database)
    staging.start(ChunkStart(ONE, 7))
    staging.add(Block(ONE, (b"a line\n",)))
    with pytest.raises(DatabaseError, match="7 bytes arrived instead of 14"):
        staging.end(end(ONE, 14))
    staging.close()


def test_a_chunk_that_is_rewritten_has_segments_of_the_usual_size(database: Path) -> None:
    """The lines that replace a chunk are also divided into segments, and counted again."""
    staging = Staging(database, segment_size=MB)
    staging.start(ChunkStart(ONE, 7))
    staging.add(Block(ONE, (b"what was\n",)))
    rewritten = staging.rewrite(staging.end(end(ONE, 9)), [b"a" * MB, b"b" * (2 * MB), b"c", b"d"])
    assert [bytes(segment.text()) for segment in rewritten.segments] == [
        b"a" * MB + b"\n",
        b"b" * (2 * MB) + b"\n",
        b"c\nd\n",
    ]
    assert (rewritten.size, rewritten.lines, rewritten.longest_segment) == (3 * MB + 6, 4, 2 * MB + 1)
    staging.close()


def test_the_lines_of_incomplete_chunks_are_counted_until_they_are_dropped(database: Path) -> None:
    """The progress of an export counts each line of running and successful attempts."""
    staging = Staging(database)
    for chunk in (ONE, TWO):
        staging.start(ChunkStart(chunk, 7))
        staging.add(Block(chunk, (b"a\nb\n",)))
    assert staging.lines == 4
    staging.end(end(ONE, 4))
    staging.start(ChunkStart(TWO, 7))
    assert staging.lines == 2
    staging.close()
