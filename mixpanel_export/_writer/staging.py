"""Stages chunks in files beside the database until they are complete and committed.

The database never has rows of an incomplete chunk, so a chunk that restarts costs the database nothing.

The directory holds customer data. It has mode 0700 and the process id in its name, and is removed when the export
ends. It is on the database's disk, because the system's temporary folder is often in memory. If a process is killed,
the next export into the same database removes the directory that the process left behind. That export holds DuckDB's
lock, so no other process can still be using the directory.
"""

import mmap
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from glob import escape
from itertools import count
from pathlib import Path
from threading import Lock
from typing import BinaryIO

import numpy as np
from isal import igzip, isal_zlib

from mixpanel_export._database.settings import memory_limit
from mixpanel_export._files import delete
from mixpanel_export._model import Block, Chunk, ChunkEnd, ChunkStart, Lines
from mixpanel_export._writer.memory import MemoryBudget
from mixpanel_export.errors import DatabaseError

_MIN_FREE = 64 << 20  # bytes; an export does not start if less disk space is free
_COLUMNS_SHARE = 40  # extracted columns may use a fortieth of DuckDB's memory limit
_SEGMENT = 8 << 20  # bytes
_FIRST_LINES = 1 << 20  # bytes that `first_lines` reads
_NEWLINE = b"\n"[0]


@dataclass(frozen=True, slots=True)
class Segment:
    """About 8 MB of whole lines of a chunk, and the position of these lines in the chunk's file."""

    path: Path
    start: int = 0
    stored: int = 0
    """The number of bytes that the lines occupy in the file."""
    size: int = 0
    """The size of the lines, in bytes."""
    compressed: bool = False
    """Whether the lines are stored as gzip members."""

    def text(self) -> memoryview:
        """Return the lines.

        Raises:
            OSError, EOFError: The file cannot be read, or was truncated.
        """
        with self.path.open("rb") as file:
            if not self.compressed:
                return _map_file(file, self.start, self.size)
            file.seek(self.start)
            stored = file.read(self.stored)
        try:
            text = igzip.decompress(stored)  # type: ignore[no-untyped-call] # isal has no type hints
        except isal_zlib.IsalError as error:  # type: ignore[misc] # its stub declares an instance
            raise OSError(f"{self.path.name} is damaged") from error
        if len(text) != self.size:
            raise _too_short(self.path)
        return memoryview(text)


@dataclass(frozen=True, slots=True)
class StagedChunk:
    """A complete chunk in a file named `BATCH.NUMBER.ndjson`."""

    end: ChunkEnd
    batch: int
    path: Path
    segments: tuple[Segment, ...]
    lines: int
    """The number of newlines."""
    keep_rejects: bool = False
    rejects: int = 0
    repaired: int = 0
    originals: Path | None = None
    """A file with the original text of the lines that were rejected or repaired."""
    longest_original: int = 0
    """An upper bound for the size of a line in that file, in bytes."""

    @property
    def chunk(self) -> Chunk:
        """The chunk that the lines belong to."""
        return self.end.chunk

    @property
    def size(self) -> int:
        """The size of the lines, in bytes."""
        return sum(segment.size for segment in self.segments)

    @property
    def longest_segment(self) -> int:
        """The size of the longest segment, in bytes. A line cannot be longer."""
        return max((segment.size for segment in self.segments), default=0)

    def read_spans(self, spans: Mapping[int, Iterable[Sequence[int]]]) -> Iterator[bytes]:
        """Yield the bytes of *spans*, which maps each segment number to pairs of start and end."""
        for number, segment in enumerate(self.segments):
            if number in spans:
                text = segment.text()
                yield from (bytes(text[start:end]) for start, end in spans[number])

    def first_lines(self) -> list[bytes]:
        """Return lines from the start of the chunk."""
        if not self.segments:
            return []
        return bytes(self.segments[0].text()[:_FIRST_LINES]).splitlines()[:-1]

    def all_lines(self) -> Iterator[bytes]:
        """Yield every line with its newline."""
        for segment in self.segments:
            yield from (line + b"\n" for line in bytes(segment.text()[:-1]).split(b"\n"))


@dataclass(slots=True, eq=False)
class _OpenChunk:
    """A chunk that is being staged. `segment` is the segment that is growing."""

    batch: int
    keep_rejects: bool
    file: BinaryIO
    segment: Segment
    segments: list[Segment] = field(default_factory=list)
    lines: int = 0

    def append(self, lines: Lines, size: int) -> int:
        """Write lines of *size* bytes. Return the number of bytes written to the file."""
        if self.segment.compressed:
            stored = self.file.write(igzip.compress(b"".join(lines), 1))
        else:
            self.file.writelines(lines)
            stored = size
        old = self.segment
        self.segment = replace(old, stored=old.stored + stored, size=old.size + size)
        return stored

    def end_segment(self, *, compress_next: bool = False) -> Segment:
        """Start the next segment. Return the previous one, which is complete and can be read."""
        self.file.flush()
        segment = self.segment
        self.segments.append(segment)
        self.segment = Segment(segment.path, segment.start + segment.stored, compressed=compress_next)
        return segment


class Staging:
    """The staging directory of one export.

    One thread may stage chunks while others read and discard them. *budget* is the number of bytes that may be staged
    uncompressed. *segment_size* is the size of a segment in bytes. `columns` is the memory budget that all chunks
    share for their extracted columns.
    """

    def __init__(
        self,
        database: Path,
        *,
        budget: int = 4 << 30,
        segment_size: int = _SEGMENT,
        columns_memory: int | None = None,
    ) -> None:
        database = database.resolve()  # a symbolic link may point to another disk
        prefix = f".{database.name}.export-"
        for stale in database.parent.glob(f"{escape(prefix)}*"):
            shutil.rmtree(stale, ignore_errors=True)
        free = shutil.disk_usage(database.parent).free
        if free < _MIN_FREE:
            raise DatabaseError(
                f"the disk of {database} has only {free >> 20} MiB free, too little to stage an export",
                db_path=str(database),
                advice="free up disk space",
            )
        self._database = database
        self.directory = database.parent / f"{prefix}{os.getpid()}"
        with self.writing():
            self.directory.mkdir(mode=0o700)
        self._budget = min(budget, free // 2)
        self._segment_size = segment_size
        self.columns = MemoryBudget(
            memory_limit() // _COLUMNS_SHARE if columns_memory is None else columns_memory
        )
        self._sizes: dict[Path, int] = {}
        self._undeleted: list[Path] = []  # files that another program has open; they are deleted later
        self._lock = Lock()
        self._names = count(1)
        self._open: dict[Chunk, _OpenChunk] = {}
        self.lines = 0
        """The number of lines staged so far, not counting those that were dropped."""

    def start(self, item: ChunkStart) -> None:
        """Start the chunk. Blocks that were already staged for it are discarded."""
        self.drop(item.chunk)
        path = self._path(item.batch, ".ndjson")
        with self.writing():
            file = path.open("wb")
        segment = Segment(path, compressed=self._is_full())
        self._open[item.chunk] = _OpenChunk(item.batch, item.keep_rejects, file, segment)

    def add(self, item: Block) -> Segment | None:
        """Append the block to its chunk's file. Return the segment that the block completes, if any."""
        open_chunk = self._open[item.chunk]
        size = sum(map(len, item.lines))
        complete = None
        with self.writing():
            if open_chunk.segment.size and open_chunk.segment.size + size > self._segment_size:
                complete = open_chunk.end_segment(compress_next=self._is_full())
            stored = open_chunk.append(item.lines, size)
        self._count(open_chunk.segment.path, stored)
        lines = sum(map(_newlines, item.lines))
        open_chunk.lines += lines
        self.lines += lines
        return complete

    def end(self, item: ChunkEnd) -> StagedChunk:
        """Close the chunk's file. Return the complete chunk."""
        open_chunk = self._open.pop(item.chunk)
        with self.writing():
            if open_chunk.segment.size:
                open_chunk.end_segment()
            open_chunk.file.close()
            staged = StagedChunk(
                item,
                open_chunk.batch,
                open_chunk.segment.path,
                tuple(open_chunk.segments),
                open_chunk.lines,
                open_chunk.keep_rejects,
            )
            if staged.size != item.size:
                raise EOFError(f"{staged.size} bytes arrived instead of {item.size}; please report this")
        return staged

    def drop(self, chunk: Chunk) -> None:
        """Discard the blocks of an incomplete chunk, if there are any."""
        open_chunk = self._open.pop(chunk, None)
        if open_chunk is not None:
            self.lines -= open_chunk.lines
            with self.writing():
                open_chunk.file.close()
            self._remove([open_chunk.segment.path])

    def discard(self, staged: StagedChunk) -> None:
        """Remove the files of a complete chunk."""
        self._remove([staged.path, *filter(None, [staged.originals])])

    def rewrite(self, staged: StagedChunk, lines: Iterable[bytes]) -> StagedChunk:
        """Replace the chunk's files with one file that contains *lines*. Return the new chunk."""
        path = self._path(staged.batch, ".ndjson")
        count = 0
        with self.writing(), path.open("wb") as file:
            rewritten = _OpenChunk(staged.batch, staged.keep_rejects, file, Segment(path))
            for line in lines:
                count += 1
                rewritten.append((line, b"\n"), len(line) + 1)
                if rewritten.segment.size >= self._segment_size:
                    rewritten.end_segment()
            if rewritten.segment.size:
                rewritten.end_segment()
        self._remove([staged.path])
        chunk = replace(staged, path=path, segments=tuple(rewritten.segments), lines=count)
        self._count(path, chunk.size)
        return chunk

    def free_disk(self) -> int:
        """Return the number of free bytes on the directory's disk."""
        with self.writing():
            return shutil.disk_usage(self.directory).free

    def columns_file(self) -> Path:
        """Return a new path for extracted columns."""
        return self.directory / f"{next(self._names)}.arrows"

    def side_file(self, staged: StagedChunk) -> Path:
        """Return a new path for the original text of rejected and repaired lines."""
        return self._path(staged.batch, ".csv")

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Convert file system errors, and errors for truncated files, to `DatabaseError`."""
        try:
            yield
        except (OSError, EOFError) as error:
            reason = getattr(error, "strerror", None) or error
            raise DatabaseError(
                f"cannot stage events beside {self._database} ({reason})",
                db_path=str(self._database),
                advice="free up disk space or make the folder writable, then $resume",
            ) from error

    def close(self) -> None:
        """Remove the directory and everything in it."""
        for open_chunk in self._open.values():
            with suppress(OSError):  # the file is removed below anyway
                open_chunk.file.close()
        self._open.clear()
        shutil.rmtree(self.directory, ignore_errors=True)

    def _is_full(self) -> bool:
        """Whether the budget for uncompressed lines is used up."""
        with self._lock:
            return sum(self._sizes.values()) >= self._budget

    def _path(self, batch: int, suffix: str) -> Path:
        return self.directory / f"{batch}.{next(self._names)}{suffix}"

    def _count(self, path: Path, size: int) -> None:
        with self._lock:
            self._sizes[path] = self._sizes.get(path, 0) + size

    def _remove(self, files: Iterable[Path]) -> None:
        with self._lock:
            waiting = [*self._undeleted, *files]
            self._undeleted = [path for path in waiting if not delete(path)]
            for path in set(waiting).difference(self._undeleted):
                self._sizes.pop(path, None)


def _newlines(piece: bytes | memoryview) -> int:
    return int(np.count_nonzero(np.frombuffer(piece, np.uint8) == _NEWLINE))


def _map_file(file: BinaryIO, start: int, size: int) -> memoryview:
    """Return a part of the file, mapped into memory. A copy would cost memory and page faults."""
    if not size:
        return memoryview(b"")
    skip = start % mmap.ALLOCATIONGRANULARITY
    try:
        mapped = mmap.mmap(file.fileno(), skip + size, offset=start - skip, access=mmap.ACCESS_READ)
    except ValueError as error:
        raise _too_short(Path(file.name)) from error
    return memoryview(mapped)[skip:]


def _too_short(path: Path) -> EOFError:
    return EOFError(f"{path.name} was truncated")
