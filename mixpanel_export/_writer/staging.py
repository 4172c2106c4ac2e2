"""Stages chunks in files beside the database until they are complete and committed.

The database never sees a row of an incomplete chunk, so a chunk that restarts costs the database nothing. The directory
holds customer data: it has mode 0700, lies on the database's disk (the system's temporary folder is often memory),
carries the process id in its name and is removed when the export ends. The next export into the same database removes
what a killed process left: it holds DuckDB's lock, so no other process can still use the directory.
"""

import os
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from glob import escape
from io import BufferedIOBase
from itertools import accumulate, count
from pathlib import Path
from threading import Lock
from typing import BinaryIO, cast

from isal import igzip

from mixpanel_export._database.settings import memory_limit
from mixpanel_export._model import Block, Chunk, ChunkEnd, ChunkStart
from mixpanel_export._writer.memory import MemoryBudget
from mixpanel_export.errors import DatabaseError

_LEAST_FREE = 64 << 20  # bytes of disk below which no export begins
_COLUMNS_SHARE = 40  # of DuckDB's memory limit one part in so many is for extracted columns
_BLOCK = 1 << 20  # bytes
_BUFFER = 5 << 18  # bytes; most blocks are a little longer than a megabyte


@dataclass(frozen=True, slots=True)
class StagedFile:
    """A file of blocks; `blocks` has the bytes of each."""

    path: Path
    blocks: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class StagedChunk:
    """A complete chunk in files named `BATCH.NUMBER.ndjson` or `.ndjson.gz`."""

    end: ChunkEnd
    batch: int
    files: tuple[StagedFile, ...]
    size: int
    """Bytes of the lines."""
    lines: int
    """Newlines."""
    longest: int
    """Bytes of the longest block."""
    keep_rejects: bool = False
    rejects: int = 0
    repaired: int = 0
    set_aside: Path | None = None
    """A file with the original text of the lines that were rejected or repaired."""

    @property
    def chunk(self) -> Chunk:
        """The chunk whose lines these are."""
        return self.end.chunk

    @property
    def compressed(self) -> bool:
        """Whether reading a line means inflating everything before it."""
        return any(file.path.suffix == ".gz" for file in self.files)

    def blocks(self, buffers: "ReadBuffers") -> Iterator[memoryview]:
        """Yield the lines in blocks, always the same ones, read into *buffers*."""
        for file in self.files:
            with _reader(file.path) as opened:
                for size in file.blocks:
                    yield buffers.read(opened, size)

    def read_spans(self, spans: Mapping[int, Iterable[Sequence[int]]]) -> Iterator[bytes]:
        """Yield the bytes of *spans* (begin and end) of blocks, by the block's number; the spans of a block rise."""
        numbers = count()
        for file in self.files:
            starts = accumulate(file.blocks[:-1], initial=0)
            with _reader(file.path) as opened:
                for start, number in zip(starts, numbers, strict=False):
                    for begin, end in spans.get(number, ()):
                        opened.seek(start + begin)
                        yield opened.read(end - begin)

    def all_lines(self) -> Iterator[bytes]:
        """Yield every line with its newline."""
        buffers = ReadBuffers()
        for block in self.blocks(buffers):
            yield from (line + b"\n" for line in bytes(block)[:-1].split(b"\n"))
            buffers.reuse()


class ReadBuffers:
    """A pool of read buffers; reusing them avoids page faults."""

    def __init__(self) -> None:
        self._free: list[bytearray] = []
        self._used: list[bytearray] = []

    def read(self, file: BinaryIO, size: int) -> memoryview:
        """Read *size* bytes, fewer at the end of the file; they are valid until `reuse`."""
        place = next((place for place, free in enumerate(self._free) if len(free) >= size), None)
        buffer = bytearray(max(size, _BUFFER)) if place is None else self._free.pop(place)
        self._used.append(buffer)
        view = memoryview(buffer)
        return view[: cast("BufferedIOBase", file).readinto(view[:size])]

    def reuse(self) -> None:
        """Allow all buffers to be overwritten; buffers for long lines are freed."""
        self._free += (used for used in self._used if len(used) == _BUFFER)
        self._used = []


@dataclass(slots=True, eq=False)
class _OpenChunk:
    """A chunk that still grows."""

    batch: int
    keep_rejects: bool
    files: list[Path] = field(default_factory=list)
    blocks: list[list[int]] = field(default_factory=list)
    size: int = 0
    longest: int = 0
    part: BinaryIO | None = None
    room: int = 0

    def close(self) -> None:
        part, self.part = self.part, None
        if part is not None:
            part.close()


class Staging:
    """The staging directory of one export.

    One thread may stage while others read and discard. *budget* is in bytes that may be staged uncompressed, *part_size* is
    the size of one file. `columns` is the memory that validated chunks share for their extracted columns.
    """

    def __init__(
        self,
        database: Path,
        *,
        budget: int = 4 << 30,
        part_size: int = 128 << 20,
        columns_memory: int | None = None,
    ) -> None:
        database = database.resolve()  # a symbolic link may lie on another disk
        prefix = f".{database.name}.export-"
        for stale in database.parent.glob(f"{escape(prefix)}*"):
            shutil.rmtree(stale, ignore_errors=True)
        free = shutil.disk_usage(database.parent).free
        if free < _LEAST_FREE:
            raise DatabaseError(
                f"the disk of {database} has only {free >> 20} MiB free, too little to stage an export",
                db_path=str(database),
                advice="free some space",
            )
        self._database = database
        self.directory = database.parent / f"{prefix}{os.getpid()}"
        with self.writing():
            self.directory.mkdir(mode=0o700)
        self._budget = min(budget, free // 2)
        self._part_size = part_size
        self.columns = MemoryBudget(
            memory_limit() // _COLUMNS_SHARE if columns_memory is None else columns_memory
        )
        self._sizes: dict[Path, int] = {}
        self._lock = Lock()
        self._names = count(1)
        self._open: dict[Chunk, _OpenChunk] = {}

    def start(self, item: ChunkStart) -> None:
        """Begin the chunk, discarding everything staged of it before."""
        self.drop(item.chunk)
        self._open[item.chunk] = _OpenChunk(item.batch, item.keep_rejects)

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
        growing.size += size
        growing.longest = max(growing.longest, size)
        self._count(growing.files[-1], size)

    def end(self, item: ChunkEnd) -> StagedChunk:
        """Close the chunk's files and return the complete chunk."""
        done = self._open.pop(item.chunk)
        with self.writing():
            done.close()
        return StagedChunk(
            end=item,
            batch=done.batch,
            files=tuple(map(StagedFile, done.files, map(tuple, done.blocks))),
            size=done.size,
            lines=item.lines,
            longest=done.longest,
            keep_rejects=done.keep_rejects,
        )

    def drop(self, chunk: Chunk) -> None:
        """Discard everything staged of an incomplete chunk, if anything."""
        growing = self._open.pop(chunk, None)
        if growing is not None:
            with self.writing():
                growing.close()
            self._remove(growing.files)

    def discard(self, staged: StagedChunk) -> None:
        """Remove the files of a complete chunk."""
        aside = (staged.set_aside,) if staged.set_aside else ()
        self._remove((*(file.path for file in staged.files), *aside))

    def rewrite(self, staged: StagedChunk, lines: Iterable[bytes]) -> StagedChunk:
        """Replace the chunk's files by one that holds *lines*; return the new chunk."""
        path = self._path(staged.batch, ".ndjson")
        number = 0
        blocks = [0]
        with self.writing(), path.open("wb") as file:
            for line in lines:
                number += 1
                blocks[-1] += file.write(line + b"\n")
                if blocks[-1] >= _BLOCK:
                    blocks.append(0)
        self._remove(file.path for file in staged.files)
        self._count(path, sum(blocks))
        longest = max(staged.longest, *blocks)
        files = (StagedFile(path, tuple(blocks)),)
        return replace(staged, files=files, size=sum(blocks), lines=number, longest=longest)

    def free_disk(self) -> int:
        """Return the free bytes of the directory's disk."""
        with self.writing():
            return shutil.disk_usage(self.directory).free

    def columns_file(self, staged: StagedChunk) -> Path:
        """Return a new path for the columns that are extracted from the chunk."""
        return self._path(staged.batch, ".arrows")

    def side_file(self, staged: StagedChunk) -> Path:
        """Return a new path for the original text of rejected and repaired lines."""
        return self._path(staged.batch, ".csv")

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Translate errors of the file system, and staged files that are too short, to `DatabaseError`."""
        try:
            yield
        except (OSError, EOFError) as error:
            reason = getattr(error, "strerror", None) or error
            raise DatabaseError(
                f"cannot stage beside {self._database} ({reason})",
                db_path=str(self._database),
                advice="make room or free the folder, then $resume",
            ) from error

    def close(self) -> None:
        """Remove the directory and everything in it."""
        for growing in self._open.values():
            with suppress(OSError):  # the file is removed anyway
                growing.close()
        self._open.clear()
        shutil.rmtree(self.directory, ignore_errors=True)

    def _next_part(self, growing: _OpenChunk) -> None:
        growing.close()
        with self._lock:
            plain = sum(self._sizes.values()) < self._budget
        path = self._path(growing.batch, ".ndjson" if plain else ".ndjson.gz")
        growing.part = path.open("wb") if plain else _compressor(path)
        growing.files.append(path)
        growing.blocks.append([])
        growing.room = self._part_size

    def _path(self, batch: int, suffix: str) -> Path:
        return self.directory / f"{batch}.{next(self._names)}{suffix}"

    def _count(self, path: Path, size: int) -> None:
        with self._lock:
            self._sizes[path] = self._sizes.get(path, 0) + size

    def _remove(self, files: Iterable[Path]) -> None:
        for path in files:
            path.unlink(missing_ok=True)
            with self._lock:
                self._sizes.pop(path, None)


def _reader(path: Path) -> BinaryIO:
    if path.suffix != ".gz":
        return path.open("rb")
    return cast("BinaryIO", igzip.IGzipFile(path))  # type: ignore[no-untyped-call] # isal has no types


def _compressor(path: Path) -> BinaryIO:
    return cast("BinaryIO", igzip.IGzipFile(path, "wb", compresslevel=1))  # type: ignore[no-untyped-call] # as above
