"""Chunks on their way: files of whole lines in a private directory beside the database.

The database never sees a row of an incomplete chunk, so a chunk that starts again costs it nothing. The
directory holds customer data: mode 0700, on the database's own disk (the system's temporary folder is often
memory), named after the process, removed when the export ends. What a killed process left is removed by the
next export into the same database: that one holds DuckDB's lock, so nobody else can still be using it.
"""

import os
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from glob import escape
from itertools import count
from pathlib import Path
from threading import Lock
from typing import BinaryIO, cast

from isal import igzip

from mixpanel_export._stream import Block, Chunk, ChunkEnd, ChunkStart
from mixpanel_export.errors import DatabaseError

BUDGET = 4 << 30
"""Bytes that may be staged as they are; what comes on top is compressed."""
_LEAST_FREE = 64 << 20
_PART = 128 << 20


@dataclass(frozen=True, slots=True)
class Staged:
    """A complete chunk in files, named `BATCH.NUMBER.ndjson` or `.ndjson.gz`.

    `lines` counts newlines; no line is longer than `longest` bytes. `set_aside` is a file with the original
    text of the lines that were rejected or repaired.
    """

    end: ChunkEnd
    batch: int
    files: tuple[Path, ...]
    size: int
    lines: int
    longest: int
    keep_rejects: bool = False
    rejects: int = 0
    repaired: int = 0
    set_aside: Path | None = None

    @property
    def chunk(self) -> Chunk:
        """The chunk that the files hold."""
        return self.end.chunk


class _Open:
    """A chunk that is still growing."""

    def __init__(self, batch: int, *, keep_rejects: bool) -> None:
        self.batch = batch
        self.keep_rejects = keep_rejects
        self.files: list[Path] = []
        self.size = self.lines = self.longest = 0
        self.part: BinaryIO | None = None
        self.room = 0

    def close(self) -> None:
        part, self.part = self.part, None
        if part is not None:
            part.close()


class Staging:
    """The staging directory of one export. One thread may stage while another discards."""

    def __init__(self, database: Path, batches: Mapping[Chunk, int], budget: int = BUDGET) -> None:
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
        self._sizes: dict[Path, int] = {}
        self._counting = Lock()
        self._names = count(1)
        self._open: dict[Chunk, _Open] = {}

    def start(self, item: ChunkStart) -> None:
        """Begin the chunk from nothing, dropping what had come of it before."""
        self.drop(item.chunk)
        self._open[item.chunk] = _Open(self._batches[item.chunk], keep_rejects=item.keep_rejects)

    def add(self, item: Block) -> None:
        """Append the block to its chunk."""
        growing = self._open[item.chunk]
        size = len(item.lines)
        with self.writing():
            if growing.part is None or growing.room < size:
                self._next_part(growing)
            cast("BinaryIO", growing.part).write(item.lines)
        growing.room -= size
        growing.size += size
        growing.lines += item.lines.count(b"\n")
        growing.longest = max(growing.longest, size)
        self._count(growing.files[-1], size)

    def end(self, item: ChunkEnd) -> Staged:
        """Close the chunk's files and hand them over."""
        done = self._open.pop(item.chunk)
        with self.writing():
            done.close()
        return Staged(
            end=item,
            batch=done.batch,
            files=tuple(done.files),
            size=done.size,
            lines=done.lines,
            longest=done.longest,
            keep_rejects=done.keep_rejects,
        )

    def drop(self, chunk: Chunk) -> None:
        """Forget what has come of a chunk that is not complete, if anything."""
        growing = self._open.pop(chunk, None)
        if growing is not None:
            with self.writing():
                growing.close()
            self._remove(growing.files)

    def discard(self, staged: Staged) -> None:
        """Remove the files of a complete chunk."""
        aside = (staged.set_aside,) if staged.set_aside else ()
        self._remove((*staged.files, *aside))

    def rewrite(self, staged: Staged, lines: Iterable[bytes]) -> Staged:
        """Replace the chunk's files by one that holds *lines*; returns the chunk as it is then."""
        path = self._path(staged.batch, ".ndjson")
        size = number = 0
        longest = staged.longest
        with self.writing(), path.open("wb") as file:
            for line in lines:
                number += 1
                size += file.write(line + b"\n")
                longest = max(longest, len(line) + 1)
        self._remove(staged.files)
        self._count(path, size)
        return replace(staged, files=(path,), size=size, lines=number, longest=longest)

    def side_file(self, staged: Staged) -> Path:
        """Return a new path for what is set aside of the chunk."""
        return self._path(staged.batch, ".csv")

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Turn what the file system refuses into one of our errors."""
        try:
            yield
        except OSError as error:
            raise DatabaseError(
                f"cannot stage beside {self._database} ({error.strerror or error}); make room or free the folder, then "
                "resume",
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
        growing.room = _PART

    def _path(self, batch: int, suffix: str) -> Path:
        return self.directory / f"{batch}.{next(self._names)}{suffix}"

    def _count(self, path: Path, size: int) -> None:
        with self._counting:
            self._sizes[path] = self._sizes.get(path, 0) + size

    def _remove(self, files: Iterable[Path]) -> None:
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


def staged_lines(files: Iterable[Path]) -> Iterator[bytes]:
    """Yield the lines of staged files, without their newlines, leaving out blank ones."""
    return (line[:-1] for line in _all_lines(files) if not line.isspace())


def blank_lines(files: Iterable[Path]) -> int:
    """Return how many lines of staged files are nothing but white space, which DuckDB passes over too."""
    return sum(line.isspace() for line in _all_lines(files))


def _all_lines(files: Iterable[Path]) -> Iterator[bytes]:
    for path in files:
        with _reader(path) as file:
            yield from file


def _reader(path: Path) -> BinaryIO:
    if path.suffix != ".gz":
        return path.open("rb")
    return cast("BinaryIO", igzip.IGzipFile(path))  # type: ignore[no-untyped-call] # isal says no types


def _compressor(path: Path) -> BinaryIO:
    return cast("BinaryIO", igzip.IGzipFile(path, "wb", compresslevel=1))  # type: ignore[no-untyped-call] # as above
