"""Stages chunks in files beside the database until they are complete and committed.

The database never has rows of an incomplete chunk, so a chunk that restarts costs the database nothing.

The directory holds customer data. It has mode 0700 and the process id in its name, and is removed when the export ends. It
is on the database's disk, because the system's temporary folder is often in memory. If a process is killed, the next
export into the same database removes its directory. That export holds DuckDB's lock, so no other process uses the
directory any more.
"""

import mmap
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from glob import escape
from itertools import accumulate, count
from pathlib import Path
from threading import Lock
from typing import BinaryIO, cast

import numpy as np
from isal import igzip

from mixpanel_export._database.settings import memory_limit
from mixpanel_export._model import Block, Chunk, ChunkEnd, ChunkStart
from mixpanel_export._writer.memory import MemoryBudget
from mixpanel_export.errors import DatabaseError

_LEAST_FREE = 64 << 20  # bytes; with less free disk space, an export is refused
_COLUMNS_SHARE = 40  # extracted columns may use a fortieth of DuckDB's memory limit
_SEGMENT = 8 << 20  # bytes
_BEGINNING = 1 << 20  # bytes that `first_lines` reads
_NEWLINE = b"\n"[0]


@dataclass(frozen=True, slots=True)
class StagedFile:
    """A file of segments. A segment is about 8 MB of whole lines."""

    path: Path
    segments: tuple[int, ...]
    """The bytes of each segment."""

    @property
    def plain(self) -> bool:
        """Whether the file is not compressed."""
        return self.path.suffix != ".gz"


@dataclass(frozen=True, slots=True)
class StagedChunk:
    """A complete chunk in files named `BATCH.NUMBER.ndjson` or `.ndjson.gz`."""

    end: ChunkEnd
    batch: int
    files: tuple[StagedFile, ...]
    size: int
    """Bytes of the lines."""
    lines: int
    """The number of newlines."""
    keep_rejects: bool = False
    rejects: int = 0
    repaired: int = 0
    set_aside: Path | None = None
    """A file with the original text of the lines that were rejected or repaired."""
    longest_aside: int = 0
    """An upper bound for the bytes of a line in that file."""

    @property
    def chunk(self) -> Chunk:
        """The chunk whose lines these are."""
        return self.end.chunk

    @property
    def longest_segment(self) -> int:
        """The bytes of the longest segment. No line is longer."""
        return max((size for file in self.files for size in file.segments), default=0)

    @property
    def compressed(self) -> bool:
        """Whether a file is compressed. Then reading a line inflates everything before it."""
        return not all(file.plain for file in self.files)

    def segments(self) -> Iterator[memoryview]:
        """Yield the segments. Each call yields the same ones.

        Raises:
            OSError, EOFError: A file cannot be read, or was truncated.
        """
        for file in self.files:
            with _reader(file.path) as opened:
                start = 0
                for size in file.segments:
                    yield _mapped(opened, start, size) if file.plain else _read(opened, size)
                    start += size

    def read_spans(self, spans: Mapping[int, Iterable[Sequence[int]]]) -> Iterator[bytes]:
        """Yield the bytes of *spans*, which has pairs of begin and end, in ascending order, for each segment number."""
        numbers = count()
        for file in self.files:
            starts = accumulate(file.segments[:-1], initial=0)
            with _reader(file.path) as opened:
                for start, number in zip(starts, numbers, strict=False):
                    for begin, end in spans.get(number, ()):
                        opened.seek(start + begin)
                        yield opened.read(end - begin)

    def first_lines(self) -> list[bytes]:
        """Return lines from the beginning of the chunk."""
        text = next(self.segments(), memoryview(b""))
        return bytes(text[:_BEGINNING]).splitlines()[:-1]

    def all_lines(self) -> Iterator[bytes]:
        """Yield every line with its newline."""
        for text in self.segments():
            yield from (line + b"\n" for line in bytes(text[:-1]).split(b"\n"))


@dataclass(slots=True, eq=False)
class _OpenChunk:
    """A chunk that is being staged."""

    batch: int
    keep_rejects: bool
    files: list[Path] = field(default_factory=list)
    segments: list[list[int]] = field(default_factory=list)
    size: int = 0
    lines: int = 0
    part: BinaryIO | None = None
    room: int = 0

    def close(self) -> None:
        part, self.part = self.part, None
        if part is not None:
            part.close()


class Staging:
    """The staging directory of one export.

    One thread may stage chunks while others read and discard them. *budget* is how many bytes may be staged uncompressed.
    *part_size* and *segment_size* are the bytes of a file and of a segment. `columns` is the memory that validated chunks
    share for their extracted columns.
    """

    def __init__(
        self,
        database: Path,
        *,
        budget: int = 4 << 30,
        part_size: int = 128 << 20,
        segment_size: int = _SEGMENT,
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
        self._segment_size = segment_size
        self.columns = MemoryBudget(
            memory_limit() // _COLUMNS_SHARE if columns_memory is None else columns_memory
        )
        self._sizes: dict[Path, int] = {}
        self._lock = Lock()
        self._names = count(1)
        self._open: dict[Chunk, _OpenChunk] = {}
        self.lines = 0
        """Lines staged so far, without those that were dropped."""

    def start(self, item: ChunkStart) -> None:
        """Start the chunk. Blocks that were staged for it before are discarded."""
        self.drop(item.chunk)
        self._open[item.chunk] = _OpenChunk(item.batch, item.keep_rejects)

    def add(self, item: Block) -> None:
        """Append the block to its chunk's file."""
        growing = self._open[item.chunk]
        size = sum(map(len, item.lines))
        with self.writing():
            if growing.part is None or growing.room < size:
                self._next_part(growing)
            cast("BinaryIO", growing.part).writelines(item.lines)
        growing.room -= size
        segments = growing.segments[-1]
        if segments and segments[-1] + size <= self._segment_size:
            segments[-1] += size
        else:
            segments.append(size)
        growing.size += size
        lines = sum(map(_newlines, item.lines))
        growing.lines += lines
        self.lines += lines
        self._count(growing.files[-1], size)

    def end(self, item: ChunkEnd) -> StagedChunk:
        """Close the chunk's files and return the complete chunk."""
        done = self._open.pop(item.chunk)
        with self.writing():
            done.close()
            if done.size != item.size:
                raise EOFError(f"{done.size} bytes arrived instead of {item.size}; please report this")
        return StagedChunk(
            end=item,
            batch=done.batch,
            files=tuple(map(StagedFile, done.files, map(tuple, done.segments))),
            size=done.size,
            lines=done.lines,
            keep_rejects=done.keep_rejects,
        )

    def drop(self, chunk: Chunk) -> None:
        """Discard the blocks of an incomplete chunk, if there are any."""
        growing = self._open.pop(chunk, None)
        if growing is not None:
            self.lines -= growing.lines
            with self.writing():
                growing.close()
            self._remove(growing.files)

    def discard(self, staged: StagedChunk) -> None:
        """Remove the files of a complete chunk."""
        aside = (staged.set_aside,) if staged.set_aside else ()
        self._remove((*(file.path for file in staged.files), *aside))

    def rewrite(self, staged: StagedChunk, lines: Iterable[bytes]) -> StagedChunk:
        """Replace the chunk's files by one file with *lines*. Return the new chunk."""
        path = self._path(staged.batch, ".ndjson")
        number = 0
        segments = [0]
        with self.writing(), path.open("wb") as file:
            for line in lines:
                number += 1
                segments[-1] += file.write(line + b"\n")
                if segments[-1] >= self._segment_size:
                    segments.append(0)
        self._remove(file.path for file in staged.files)
        self._count(path, sum(segments))
        files = (StagedFile(path, tuple(segments)),)
        return replace(staged, files=files, size=sum(segments), lines=number)

    def free_disk(self) -> int:
        """Return how many bytes are free on the directory's disk."""
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
        """Translate errors of the file system, and of truncated files, to `DatabaseError`."""
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
        growing.segments.append([])
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


def _newlines(piece: bytes | memoryview) -> int:
    return int(np.count_nonzero(np.frombuffer(piece, np.uint8) == _NEWLINE))


def _mapped(file: BinaryIO, start: int, size: int) -> memoryview:
    """Return bytes of the file, mapped into memory. A copy would cost memory and page faults."""
    if not size:
        return memoryview(b"")
    skip = start % mmap.ALLOCATIONGRANULARITY
    try:
        mapped = mmap.mmap(file.fileno(), skip + size, offset=start - skip, access=mmap.ACCESS_READ)
    except ValueError as error:
        raise _too_short(file) from error
    return memoryview(mapped)[skip:]


def _read(file: BinaryIO, size: int) -> memoryview:
    text = file.read(size)
    if len(text) < size:
        raise _too_short(file)
    return memoryview(text)


def _too_short(file: BinaryIO) -> EOFError:
    return EOFError(f"{Path(file.name).name} was truncated")


def _compressor(path: Path) -> BinaryIO:
    return cast("BinaryIO", igzip.IGzipFile(path, "wb", compresslevel=1))  # type: ignore[no-untyped-call] # as above
