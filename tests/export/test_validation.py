"""Chunks that are extracted segment by segment while they arrive, with real validators."""

from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager, closing
from pathlib import Path
from tempfile import TemporaryDirectory

import anyio
import pytest
from examples import examples
from hypothesis import given
from hypothesis import strategies as st
from tables import DAYS, NOW, lines, new_table

from mixpanel_export._database.connection import connected_for_export
from mixpanel_export._export.validation import Validation, ValidationResult
from mixpanel_export._model import Block, Chunk, ChunkEnd, ChunkStart, Malformed, Unloadable
from mixpanel_export._writer.load import ValidatedChunk
from mixpanel_export._writer.staging import StagedChunk, Staging
from mixpanel_export._writer.validate import ClockCheck, validators_for

pytestmark = pytest.mark.anyio

MEMORY = 1 << 20
LINES = lines(40).splitlines(keepends=True)
STEP = st.sampled_from(["block", "block", "block", "pause", "restart"])
BLOCKS = [b"".join(LINES[first : first + 5]) for first in range(0, 40, 5)]


class Chunks:
    """Chunks that pass through staging and validation; each block is a segment."""

    def __init__(self, staging: Staging) -> None:
        self.staging = staging
        self.validated: list[tuple[Chunk, ValidationResult]] = []
        self.validation = Validation(self.on_validated)

    def on_validated(self, staged: StagedChunk, validated: ValidationResult) -> None:
        self.validated.append((staged.chunk, validated))

    async def begin(self, chunk: Chunk, *blocks: bytes) -> None:
        """Begin another attempt at the chunk, of which *blocks* arrive."""
        await self.validation.abandon(chunk)
        self.staging.start(ChunkStart(chunk, DAYS.index(chunk) + 1))
        for block in blocks:
            self.add(chunk, block)

    def add(self, chunk: Chunk, block: bytes) -> None:
        """Stage a block, which completes the segment before it."""
        segment = self.staging.add(Block(chunk, (block,)))
        if segment is not None:
            self.validation.add(chunk, segment)

    async def fail(self, chunk: Chunk) -> None:
        """Give the chunk up."""
        await self.validation.abandon(chunk)
        self.staging.drop(chunk)

    def end(self, chunk: Chunk, *blocks: bytes) -> None:
        """Complete an attempt that consists of *blocks*."""
        size = sum(map(len, blocks))
        self.validation.end(self.staging.end(ChunkEnd(chunk, NOW, attempts=1, bytes_read=1, size=size)))

    @property
    def rows(self) -> dict[Chunk, int]:
        """The rows of the valid chunks, in the order of their validation."""
        return {chunk: one.batch.rows for chunk, one in self.validated if isinstance(one, ValidatedChunk)}


@asynccontextmanager
async def validating(
    db: Path, validators: int = 1, *, columns: int = MEMORY, plain: int = 1 << 30
) -> AsyncIterator[Chunks]:
    """Yield chunks that are validated until the end of the block; they leave no memory reserved and no file."""
    with ExitStack() as stack:
        connection = stack.enter_context(connected_for_export(db))
        table = new_table(connection, db)
        staging = stack.enter_context(
            closing(Staging(db, budget=plain, segment_size=1, columns_memory=columns))
        )
        made = stack.enter_context(validators_for(table, staging, ClockCheck(enabled=False), validators))
        chunks = Chunks(staging)
        async with anyio.create_task_group() as tasks:
            with closing(chunks.validation):
                ready, none = anyio.create_memory_object_stream[ValidatedChunk]()
                with none, ready:
                    chunks.validation.start(tasks, made, ready)
                yield chunks
        for _, validated in chunks.validated:
            if isinstance(validated, ValidatedChunk):
                validated.discard_columns()
                staging.discard(validated.staged)
        assert staging.columns.reserve(columns)
        assert not list(staging.directory.iterdir())


@pytest.mark.parametrize("validators", [1, 3])
async def test_every_chunk_is_validated_once(tmp_path: Path, validators: int) -> None:
    """However many validators share the segments, each complete chunk has one result with all its rows."""
    async with validating(tmp_path / "db", validators) as chunks:
        for number, chunk in enumerate(DAYS):
            await chunks.begin(chunk, *BLOCKS[: 2 * number])
        for number, chunk in enumerate(DAYS):
            chunks.end(chunk, *BLOCKS[: 2 * number])
    assert len(chunks.validated) == len(DAYS)
    assert chunks.rows == {chunk: 10 * number for number, chunk in enumerate(DAYS)}


async def test_segments_are_extracted_while_their_chunk_arrives(tmp_path: Path) -> None:
    """Memory for extracted columns is reserved before the chunk ends."""
    async with validating(tmp_path / "db") as chunks:
        await chunks.begin(DAYS[0], *BLOCKS)
        with anyio.fail_after(60):
            while chunks.staging.columns.reserve(MEMORY):
                chunks.staging.columns.release(MEMORY)
                await anyio.sleep(0.01)
        assert chunks.validated == []
        chunks.end(DAYS[0], *BLOCKS)
    assert chunks.rows == {DAYS[0]: 40}


@pytest.mark.parametrize("validators", [1, 3])
@pytest.mark.parametrize("pause", [0, 0.01])
async def test_an_attempt_that_ends_early_leaves_nothing(
    tmp_path: Path, validators: int, pause: float
) -> None:
    """The result has the rows of the last attempt only, whatever was extracted from earlier ones."""
    async with validating(tmp_path / "db", validators) as chunks:
        for count in (8, 3, 1, 7):
            await chunks.begin(DAYS[0], *BLOCKS[:count])
            await anyio.sleep(pause)
        await chunks.begin(DAYS[0], *BLOCKS[:2])
        chunks.end(DAYS[0], *BLOCKS[:2])
    assert chunks.rows == {DAYS[0]: 10}
    assert len(chunks.validated) == 1


@given(
    steps=st.lists(st.tuples(st.sampled_from(DAYS[:2]), STEP), min_size=5, max_size=30),
    failed=st.sets(st.sampled_from(DAYS)),
    validators=st.integers(1, 3),
    columns=st.sampled_from([0, MEMORY]),
    plain=st.sampled_from([0, 1000, 1 << 30]),
    backend=st.sampled_from(["asyncio", "trio"]),
)
@examples(core=8, full=200)
def test_each_complete_attempt_has_one_result(
    steps: list[tuple[Chunk, str]],
    failed: set[Chunk],
    validators: int,
    columns: int,
    plain: int,
    backend: str,
) -> None:
    """In whatever order blocks arrive and attempts end, only the rows of the last attempts are valid."""
    blocks: dict[Chunk, list[bytes]] = {chunk: [] for chunk in DAYS}

    async def run(db: Path) -> dict[Chunk, int]:
        async with validating(db, validators, columns=columns, plain=plain) as chunks:
            for chunk in DAYS:
                await chunks.begin(chunk)
            for chunk, step in steps:
                if step == "pause":
                    await anyio.sleep(0.02)
                elif step == "restart":
                    blocks[chunk].clear()
                    await chunks.begin(chunk)
                elif len(blocks[chunk]) < len(BLOCKS):
                    block = BLOCKS[len(blocks[chunk])]
                    blocks[chunk].append(block)
                    chunks.add(chunk, block)
            for chunk in DAYS:
                if chunk in failed:
                    await chunks.fail(chunk)
                else:
                    chunks.end(chunk, *blocks[chunk])
        assert len(chunks.validated) == len(DAYS) - len(failed)
        return chunks.rows

    with TemporaryDirectory() as folder:
        rows = anyio.run(run, Path(folder, "db"), backend=backend)
    assert rows == {chunk: 5 * len(blocks[chunk]) for chunk in DAYS if chunk not in failed}


async def test_segments_may_arrive_when_the_validators_have_ended(tmp_path: Path) -> None:
    """Then the export fails or is cancelled, and a broken channel does not hide the reason."""
    async with validating(tmp_path / "db", validators=0) as chunks:
        await chunks.begin(DAYS[0], *BLOCKS)
        await chunks.fail(DAYS[0])
    assert chunks.validated == []


async def test_an_earlier_chunk_has_priority(tmp_path: Path) -> None:
    """It is validated first, even if its segments arrive last."""
    async with validating(tmp_path / "db") as chunks:
        await chunks.begin(DAYS[0], *BLOCKS[:2])
        await chunks.begin(DAYS[1], *BLOCKS)
        chunks.end(DAYS[1], *BLOCKS)
        chunks.end(DAYS[0], *BLOCKS[:2])
    assert list(chunks.rows) == [DAYS[0], DAYS[1]]


async def test_odd_lines_and_lost_lines_concern_their_chunk_only(tmp_path: Path) -> None:
    """A malformed chunk and one whose file was truncated have their verdicts; the others are valid."""
    async with validating(tmp_path / "db") as chunks:
        for chunk in DAYS[:3]:
            blocks = [*BLOCKS[:3], b"odd\n"] if chunk is DAYS[0] else BLOCKS[:4]
            await chunks.begin(chunk, *blocks)
            if chunk is DAYS[1]:
                (path,) = chunks.staging.directory.glob("2.*.ndjson")
                path.write_bytes(b"")
            chunks.end(chunk, *blocks)
    assert [type(validated) for _, validated in chunks.validated] == [Malformed, Unloadable, ValidatedChunk]
