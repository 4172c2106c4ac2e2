"""Chunks on their way: blocks of whole lines, in memory as long as there is room, else in files beside the database.

The database never sees a row of an incomplete chunk, so a chunk that starts again costs it nothing. The files'
directory holds customer data: mode 0700, on the database's own disk (the system's temporary folder is often
memory), named after the process, removed when the export ends. What a killed process left is removed by the
next export into the same database: that one holds DuckDB's lock, so nobody else can still be using it.
"""

import os
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from glob import escape
from io import BufferedIOBase
from itertools import accumulate, count
from pathlib import Path
from threading import Lock
from typing import BinaryIO, cast

from isal import igzip

from mixpanel_export._database.settings import memory_limit
from mixpanel_export._model import Block, Chunk, ChunkEnd, ChunkStart
from mixpanel_export._writer.memory import Room
from mixpanel_export.errors import DatabaseError

BUDGET = 4 << 30
"""Bytes that may be staged as they are; what comes on top is compressed."""
_LEAST_FREE = 64 << 20
_PART = 128 << 20
_BLOCK = 1 << 20  # bytes
_BUFFER = 5 << 18  # bytes; most blocks are a little longer than a megabyte


@dataclass(frozen=True, slots=True)
class File:
    """A file of blocks, and how many bytes each of them has."""

    path: Path
    blocks: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Staged:
    """A complete chunk: blocks in memory, and files of further ones, named `BATCH.NUMBER.ndjson` or `.ndjson.gz`.

    `lines` counts newlines; no block is longer than `longest` bytes. `set_aside` is a file with the original
    text of the lines that were rejected or repaired.
    """

    end: ChunkEnd
    batch: int
    kept: tuple[bytes, ...]
    files: tuple[File, ...]
    size: int
    lines: int
    longest: int
    keep_rejects: bool = False
    rejects: int = 0
    repaired: int = 0
    set_aside: Path | None = None

    @property
    def chunk(self) -> Chunk:
        """The chunk whose lines these are."""
        return self.end.chunk

    @property
    def compressed(self) -> bool:
        """Whether to read a line means to inflate what comes before it."""
        return any(file.path.suffix == ".gz" for file in self.files)

    def blocks(self, buffers: "Buffers") -> Iterator[bytes | memoryview]:
        """Yield the lines in blocks, always the same ones; those in files are read into *buffers*."""
        yield from self.kept
        for file in self.files:
            with _reader(file.path) as opened:
                for size in file.blocks:
                    yield buffers.read(opened, size)

    def some(self, spans: Mapping[int, Iterable[Sequence[int]]]) -> Iterator[bytes]:
        """Yield some *spans*, where they begin and end, of blocks by their numbers; the spans of each block rise."""
        for number, block in enumerate(self.kept):
            yield from (block[begin:end] for begin, end in spans.get(number, ()))
        numbers = count(len(self.kept))
        for file in self.files:
            starts = accumulate(file.blocks[:-1], initial=0)
            with _reader(file.path) as opened:
                for start, number in zip(starts, numbers, strict=False):
                    for begin, end in spans.get(number, ()):
                        opened.seek(start + begin)
                        yield opened.read(end - begin)

    def all_lines(self) -> Iterator[bytes]:
        """Yield every line with its newline."""
        buffers = Buffers()
        for block in self.blocks(buffers):
            yield from (line + b"\n" for line in bytes(block)[:-1].split(b"\n"))
            buffers.reuse()


class Buffers:
    """Memory to read into again and again: to get fresh memory from the system takes longer than to read into it."""

    def __init__(self) -> None:
        self._free: list[bytearray] = []
        self._used: list[bytearray] = []

    def read(self, file: BinaryIO, size: int) -> memoryview:
        """Read so many bytes, less where the file ends; they stay until `reuse`."""
        place = next((place for place, free in enumerate(self._free) if len(free) >= size), None)
        buffer = bytearray(max(size, _BUFFER)) if place is None else self._free.pop(place)
        self._used.append(buffer)
        view = memoryview(buffer)
        return view[: cast("BufferedIOBase", file).readinto(view[:size])]

    def reuse(self) -> None:
        """Let all that was read be written over; memory for long lines goes back at once."""
        self._free += (used for used in self._used if len(used) == _BUFFER)
        self._used = []


class _Open:
    """A chunk that is still growing."""

    def __init__(self, batch: int, *, keep_rejects: bool) -> None:
        self.batch = batch
        self.keep_rejects = keep_rejects
        self.kept: list[bytes] = []
        self.files: list[Path] = []
        self.blocks: list[list[int]] = []
        self.size = self.longest = 0
        self.part: BinaryIO | None = None
        self.room = 0

    def grow(self, size: int) -> None:
        self.size += size
        self.longest = max(self.longest, size)

    def close(self) -> None:
        part, self.part = self.part, None
        if part is not None:
            part.close()


class Staging:
    """The chunks of one export: *memory* bytes of their blocks stay there, the rest goes to a directory.

    One thread may stage while others discard.
    """

    def __init__(
        self,
        database: Path,
        batches: Mapping[Chunk, int],
        *,
        memory: int | None = None,
        budget: int = BUDGET,
    ) -> None:
        prefix = f".{database.name}.export-"
        for stale in database.parent.glob(f"{escape(prefix)}*"):
            shutil.rmtree(stale, ignore_errors=True)
        free = shutil.disk_usage(database.parent).free
        if free < _LEAST_FREE:
            raise DatabaseError(
                f"the disk of {database} has only {free >> 20} MiB free; an export needs room to stage, so free some",
                db_path=str(database),
            )
        self._database = database
        self.directory = database.parent / f"{prefix}{os.getpid()}"
        with self.writing():
            self.directory.mkdir(mode=0o700)
        self._batches = batches
        self._budget = min(budget, free // 2)
        self._memory = Room(memory_limit() // 24 if memory is None else memory)
        self.columns = Room(memory_limit() // 40 if memory is None else memory // 4)
        """What chunks that wait for their commit may keep of their columns."""
        self._sizes: dict[Path, int] = {}
        self._counting = Lock()
        self._names = count(1)
        self._open: dict[Chunk, _Open] = {}

    def start(self, item: ChunkStart) -> None:
        """Begin the chunk from nothing, dropping what had come of it before."""
        self.drop(item.chunk)
        self._open[item.chunk] = _Open(self._batches[item.chunk], keep_rejects=item.keep_rejects)

    def keep(self, item: Block) -> bool:
        """Keep the block in memory, if there is room."""
        size = len(item.lines)
        if not self._memory.take(size):
            return False
        growing = self._open[item.chunk]
        growing.kept.append(item.lines)
        growing.grow(size)
        return True

    def add(self, item: Block) -> None:
        """Append the block to its chunk's file."""
        growing = self._open[item.chunk]
        size = len(item.lines)
        with self.writing():
            if growing.part is None or growing.room < size:
                self._next_part(growing)
            cast("BinaryIO", growing.part).write(item.lines)
        growing.room -= size
        growing.blocks[-1].append(size)
        growing.grow(size)
        self._count(growing.files[-1], size)

    def end(self, item: ChunkEnd) -> Staged:
        """Close the chunk's files and hand them over."""
        done = self._open.pop(item.chunk)
        with self.writing():
            done.close()
        return Staged(
            end=item,
            batch=done.batch,
            kept=tuple(done.kept),
            files=tuple(map(File, done.files, map(tuple, done.blocks))),
            size=done.size,
            lines=item.lines,
            longest=done.longest,
            keep_rejects=done.keep_rejects,
        )

    def drop(self, chunk: Chunk) -> None:
        """Forget what has come of a chunk that is not complete, if anything."""
        growing = self._open.pop(chunk, None)
        if growing is not None:
            with self.writing():
                growing.close()
            self._remove(growing.kept, growing.files)

    def discard(self, staged: Staged) -> None:
        """Give back the room that a complete chunk takes."""
        aside = (staged.set_aside,) if staged.set_aside else ()
        self._remove(staged.kept, (*(file.path for file in staged.files), *aside))

    def rewrite(self, staged: Staged, lines: Iterable[bytes]) -> Staged:
        """Replace the chunk by a file that holds *lines*; returns the chunk as it is then."""
        path = self._path(staged.batch, ".ndjson")
        number = 0
        blocks = [0]
        with self.writing(), path.open("wb") as file:
            for line in lines:
                number += 1
                blocks[-1] += file.write(line + b"\n")
                if blocks[-1] >= _BLOCK:
                    blocks.append(0)
        self._remove(staged.kept, (file.path for file in staged.files))
        self._count(path, sum(blocks))
        longest = max(staged.longest, *blocks)
        files = (File(path, tuple(blocks)),)
        return replace(staged, kept=(), files=files, size=sum(blocks), lines=number, longest=longest)

    def columns_file(self, staged: Staged) -> Path:
        """Return a new path for the columns that are found in the chunk."""
        return self._path(staged.batch, ".arrows")

    def side_file(self, staged: Staged) -> Path:
        """Return a new path for what is set aside of the chunk."""
        return self._path(staged.batch, ".csv")

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Turn what the file system refuses, or has lost, into one of our errors."""
        try:
            yield
        except (OSError, EOFError) as error:
            reason = getattr(error, "strerror", None) or error
            raise DatabaseError(
                f"cannot stage beside {self._database} ({reason}); make room or free the folder, then resume",
                db_path=str(self._database),
            ) from error

    def close(self) -> None:
        """Remove the directory and all that is in it."""
        for growing in self._open.values():
            with suppress(OSError):  # what cannot be flushed is not wanted any more
                growing.close()
        self._open.clear()
        shutil.rmtree(self.directory, ignore_errors=True)

    def _next_part(self, growing: _Open) -> None:
        growing.close()
        with self._counting:
            plain = sum(self._sizes.values()) < self._budget
        path = self._path(growing.batch, ".ndjson" if plain else ".ndjson.gz")
        growing.part = path.open("wb") if plain else _compressor(path)
        growing.files.append(path)
        growing.blocks.append([])
        growing.room = _PART

    def _path(self, batch: int, suffix: str) -> Path:
        return self.directory / f"{batch}.{next(self._names)}{suffix}"

    def _count(self, path: Path, size: int) -> None:
        with self._counting:
            self._sizes[path] = self._sizes.get(path, 0) + size

    def _remove(self, kept: Iterable[bytes], files: Iterable[Path]) -> None:
        self._memory.give_back(sum(map(len, kept)))
        for path in files:
            path.unlink(missing_ok=True)
            with self._counting:
                self._sizes.pop(path, None)


@contextmanager
def staging_for(database: Path, batches: Mapping[Chunk, int]) -> Iterator[Staging]:
    """Yield the staging directory of one export, and remove it afterwards."""
    staging = Staging(database, batches)
    try:
        yield staging
    finally:
        staging.close()


def _reader(path: Path) -> BinaryIO:
    if path.suffix != ".gz":
        return path.open("rb")
    return cast("BinaryIO", igzip.IGzipFile(path))  # type: ignore[no-untyped-call] # isal says no types


def _compressor(path: Path) -> BinaryIO:
    return cast("BinaryIO", igzip.IGzipFile(path, "wb", compresslevel=1))  # type: ignore[no-untyped-call] # as above
