"""Gzip members that consist of segments, which can be cached and sent in any order.

A segment holds some complete lines as raw deflate data, with their CRC. The data ends on a byte boundary and does not
refer to earlier data. A gzip member consists of a header, segments, an empty last block, and the CRC of all lines,
which `crc32_combine` computes from the segments' CRCs.
"""

import struct
from collections import OrderedDict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import date

from isal import isal_zlib

SEGMENT_BYTES = 256 * 1024
"""The minimum size of the lines in a segment, except in a day's last segment."""

_LAST_BLOCK = b"\x03\x00"  # an empty block with the final bit and fixed codes (RFC 1951, 3.2.6)


@dataclass(frozen=True, slots=True)
class Segment:
    """Compressed complete lines. `size` and `crc` refer to the lines before compression."""

    data: bytes
    size: int
    crc: int

    def lines(self) -> bytes:
        """Return the decompressed lines."""
        plain: bytes = isal_zlib.decompressobj(-15).decompress(self.data)
        return plain


NO_LINES = Segment(b"", 0, 0)


def segment(lines: bytes) -> Segment:
    """Compress *lines*."""
    deflate = isal_zlib.compressobj(isal_zlib.ISAL_DEFAULT_COMPRESSION, isal_zlib.DEFLATED, -15)
    data: bytes = deflate.compress(lines) + deflate.flush(isal_zlib.Z_FULL_FLUSH)
    return Segment(data, len(lines), isal_zlib.crc32(lines))


def blocks(lines: Iterable[bytes], size: int = SEGMENT_BYTES) -> Iterator[bytes]:
    """Join *lines*, with a newline after each, into blocks of at least *size* bytes."""
    block: list[bytes] = []
    length = 0
    for line in lines:
        block.append(line)
        length += len(line) + 1
        if length >= size:
            yield b"\n".join([*block, b""])
            block.clear()
            length = 0
    if block:
        yield b"\n".join([*block, b""])


class GzipMember:
    """Writes one gzip member: a header, segments and a trailer."""

    def __init__(self) -> None:
        self._crc = 0
        self._size = 0

    def begin(self) -> bytes:
        """Return the header."""
        return b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\xff"

    def add(self, part: Segment) -> bytes:
        """Return the compressed bytes of *part*, and include its lines in the checksum."""
        self._crc = isal_zlib.crc32_combine(self._crc, part.crc, part.size)
        self._size += part.size
        return part.data

    def end(self, crc_error: int = 0) -> bytes:
        """Return the last block and the trailer; *crc_error* is combined with the checksum by XOR."""
        return _LAST_BLOCK + struct.pack("<II", self._crc ^ crc_error, self._size & 0xFFFFFFFF)


class DayCache:
    """A cache of compressed days. Beyond *limit* bytes, it evicts the least recently used days."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._days: OrderedDict[date, list[Segment]] = OrderedDict()
        self.size = 0

    def get(self, day: date) -> list[Segment] | None:
        """Return the segments of *day* if it is cached, else None."""
        if day in self._days:
            self._days.move_to_end(day)
        return self._days.get(day)

    def fits(self, size: int) -> bool:
        """Return whether a day of *size* bytes is small enough for the cache."""
        return size <= self._limit

    def put(self, day: date, segments: list[Segment]) -> None:
        """Cache *day*, and evict other days if necessary."""
        self._days.setdefault(day, segments)
        self.size = sum(len(part.data) for segments in self._days.values() for part in segments)
        while self.size > self._limit:
            _, evicted = self._days.popitem(last=False)
            self.size -= sum(len(part.data) for part in evicted)
