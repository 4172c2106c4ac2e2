"""Gzip in parts that can be kept and put in any order: one valid member, made of segments.

A segment is some whole lines as raw deflate data that ends on a byte boundary and refers to nothing before
it, with the CRC of its lines. A member is a header, segments, an empty last block, and the CRC of it all,
which `crc32_combine` works out without seeing the lines again.
"""

import struct
from collections import OrderedDict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import date

from isal import isal_zlib

SEGMENT_BYTES = 256 * 1024
"""How many bytes of lines a segment holds, at least, but for the last of a day."""

_LAST_BLOCK = b"\x03\x00"  # an empty block with the final bit, by fixed codes (RFC 1951, 3.2.6)


@dataclass(frozen=True, slots=True)
class Segment:
    """Whole lines, compressed; `size` and `crc` are those of the lines."""

    data: bytes
    size: int
    crc: int

    def lines(self) -> bytes:
        """Return the lines again."""
        plain: bytes = isal_zlib.decompressobj(-15).decompress(self.data)
        return plain


NO_LINES = Segment(b"", 0, 0)


def segment(lines: bytes) -> Segment:
    """Compress *lines*."""
    deflate = isal_zlib.compressobj(isal_zlib.ISAL_DEFAULT_COMPRESSION, isal_zlib.DEFLATED, -15)
    data: bytes = deflate.compress(lines) + deflate.flush(isal_zlib.Z_FULL_FLUSH)
    return Segment(data, len(lines), isal_zlib.crc32(lines))


def blocks(lines: Iterable[bytes], size: int = SEGMENT_BYTES) -> Iterator[bytes]:
    """Join *lines*, each given its newline, into blocks of at least *size* bytes."""
    kept: list[bytes] = []
    length = 0
    for line in lines:
        kept.append(line)
        length += len(line) + 1
        if length >= size:
            yield b"\n".join([*kept, b""])
            kept.clear()
            length = 0
    if kept:
        yield b"\n".join([*kept, b""])


class GzipMember:
    """One gzip member, written as a beginning, segments and an end."""

    def __init__(self) -> None:
        self._crc = 0
        self._size = 0

    def begin(self) -> bytes:
        """Return the header."""
        return b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\xff"

    def add(self, part: Segment) -> bytes:
        """Return the compressed bytes of *part*, having counted its lines."""
        self._crc = isal_zlib.crc32_combine(self._crc, part.crc, part.size)
        self._size += part.size
        return part.data

    def end(self, crc_error: int = 0) -> bytes:
        """Return the last block and the trailer; *crc_error* is mixed into the checksum."""
        return _LAST_BLOCK + struct.pack("<II", self._crc ^ crc_error, self._size & 0xFFFFFFFF)


class DayCache:
    """Compressed days, the least recently used given up beyond *limit* bytes."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._days: OrderedDict[date, list[Segment]] = OrderedDict()
        self.size = 0

    def get(self, day: date) -> list[Segment] | None:
        """Return the segments of *day*, if it is kept."""
        if day in self._days:
            self._days.move_to_end(day)
        return self._days.get(day)

    def fits(self, size: int) -> bool:
        """Whether a day of *size* bytes could be kept at all."""
        return size <= self._limit

    def put(self, day: date, segments: list[Segment]) -> None:
        """Keep *day*, and give up others for it."""
        self._days.setdefault(day, segments)
        self.size = sum(len(part.data) for kept in self._days.values() for part in kept)
        while self.size > self._limit:
            _, given_up = self._days.popitem(last=False)
            self.size -= sum(len(part.data) for part in given_up)
