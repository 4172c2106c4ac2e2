"""Decodes the bytes of a response body into blocks of whole lines, and proves that the body is complete. No I/O.

The lines do not depend on how the bytes are divided into pieces. A body that is not proven complete raises an error.

Mixpanel sends status 200 before it streams the events. It sends no length, and reports a failure only through a last
line that is not an event. So a body is complete if

* every gzip member ends with the correct CRC and length, and nothing follows the last member; and
* the last non-blank line is an event.

Other lines are not checked here, because the writer validates each line.
"""

from collections.abc import Iterator
from typing import Any

from isal import igzip_lib

from mixpanel_export._model import Lines
from mixpanel_export._ndjson import canonical
from mixpanel_export.errors import LineTooLongError, TruncatedError

_TAIL = 16 << 10  # bytes at the end of a block that usually contain its last line
_PLAIN_PIECE = 2 << 20  # bytes; 1 KB of gzip can expand to 1 MB, so decompressed bytes need their own limit
_MAX_QUOTED = 500  # bytes of a line that an error quotes
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"


class Gunzip:
    """Decompresses a gzip stream with one or more members, in pieces of any size."""

    def __init__(self, max_piece: int = _PLAIN_PIECE) -> None:
        self._max_piece = max_piece
        self._member = _member()

    def feed(self, wire: bytes) -> Iterator[bytes]:
        """Yield the decompressed bytes that are ready, at most *max_piece* at a time.

        Raises:
            TruncatedError: A member is corrupt, or other data follows the last one.
        """
        try:
            yield from self._inflate(wire)
        except igzip_lib.IsalError as error:  # type: ignore[misc] # its stub declares an instance
            raise _truncated(f"the gzip stream of the response is corrupt ({error})") from error

    def _inflate(self, wire: bytes) -> Iterator[bytes]:
        while wire:
            if self._member.eof:
                self._member = _member()
            yield from self._outputs(wire)
            wire = self._member.unused_data if self._member.eof else b""

    def _outputs(self, wire: bytes) -> Iterator[bytes]:
        """Yield the decompressed bytes of *wire* until the member ends or needs more input."""
        while True:
            plain = self._member.decompress(wire, self._max_piece)
            if plain:
                yield plain
            # If the output was full, the decompressor may hold back bytes even when all input is consumed.
            if self._member.eof or (self._member.needs_input and len(plain) < self._max_piece):
                return
            wire = b""

    def close(self) -> None:
        """End the stream.

        Raises:
            TruncatedError: The last member is incomplete, or there was no member.
        """
        if not self._member.eof:
            raise _truncated("the gzip stream of the response ended before its trailer")


class LineBlocks:
    """Divides bytes into blocks that each end with a newline (only 0x0A), in linear time and without copies."""

    def __init__(self, block_size: int = 1 << 20, *, max_line: int = 64 << 20) -> None:
        self._block_size = block_size
        self._max_line = max_line
        self._pieces: list[bytes] = []
        self._size = 0
        self._whole = 0  # bytes in whole lines; the rest has no newline

    def feed(self, plain: bytes) -> Iterator[Lines]:
        """Yield the blocks that are ready, each of at least *block_size* bytes.

        Raises:
            LineTooLongError: A line has more than *max_line* bytes, not counting its newline.
        """
        # A line within one piece cannot be too long, so only a line that started in an earlier piece is checked.
        for piece in _pieces(plain, min(_PLAIN_PIECE, self._max_line)):
            self._add(piece)
            if self._whole >= self._block_size:
                yield self._take()

    def close(self) -> bytes:
        """Return the remaining lines. The last one may lack its newline."""
        return b"".join(self._pieces)

    def _add(self, piece: bytes) -> None:
        first = piece.find(b"\n")
        more = len(piece) if first < 0 else first
        if self._size - self._whole + more > self._max_line:
            start = (b"".join(self._pieces)[self._whole :] + piece[:more])[:_MAX_QUOTED]
            raise LineTooLongError(
                f"a line of the response is longer than the maximum of {self._max_line} bytes",
                status_code=200,
                response_body=start.decode(errors="replace"),
            )
        if first >= 0:
            self._whole = self._size + piece.rfind(b"\n") + 1
        self._pieces.append(piece)
        self._size += len(piece)

    def _take(self) -> Lines:
        """Return all whole lines. The last of them ends in the last piece."""
        last = self._pieces.pop()
        end = self._whole - (self._size - len(last))
        lines: Lines = (*self._pieces, memoryview(last)[:end])
        self._pieces = [last[end:]]
        self._size, self._whole = len(last) - end, 0
        return lines


class BodyDecoder:
    """Decodes the bytes of a response body into blocks of whole NDJSON lines.

    *content_encoding* is the value of the header, or None if there is no header. *block_size* and *max_line* count
    decompressed bytes. A byte order mark at the start of the body is dropped.

    Raises:
        TruncatedError: The encoding is neither identity nor gzip, so nothing can be proven.
    """

    def __init__(
        self, content_encoding: str | None, *, block_size: int = 1 << 20, max_line: int = 64 << 20
    ) -> None:
        self._gunzip = gunzip_for(content_encoding)
        self._blocks = LineBlocks(block_size, max_line=max_line)
        # The start of the body as long as it may be an incomplete byte order mark; later None.
        self._start: bytes | None = b""
        self._last = b""

    def feed(self, wire: bytes) -> Iterator[Lines]:
        """Yield the blocks that are ready. Each ends with a newline and has at least *block_size* bytes.

        Decoding happens while the blocks are consumed, so consume all of them before the next call.

        Raises:
            TruncatedError: The gzip stream is corrupt.
            LineTooLongError: A line has more than *max_line* bytes; `response_body` has its start.
        """
        for plain in self._gunzip.feed(wire) if self._gunzip else (wire,):
            for block in self._blocks.feed(self._without_mark(plain)):
                yield self._hand_out(block)

    def close(self) -> Iterator[Lines]:
        """Return the remaining lines as at most one block, which ends with a newline. All checks are made first.

        Raises:
            TruncatedError: The body is not proven complete. If its last line is not an event, `response_body` has the
                start of that line, because Mixpanel may have written the reason there.
        """
        if self._gunzip:
            self._gunzip.close()
        rest = (self._start or b"") + self._blocks.close()
        if rest and not rest.endswith(b"\n"):
            rest += b"\n"  # a newline cannot turn a fragment into an event
        last = _last_line((rest,)) or self._last
        if last and not event_line(last):
            raise _truncated(
                "the last line of the response is not an event",
                last[:_MAX_QUOTED].decode(errors="replace").strip(),
            )
        return iter([(rest,)] if rest else [])

    def _without_mark(self, plain: bytes) -> bytes:
        if self._start is None:
            return plain
        start = self._start + plain
        if len(start) < len(_BYTE_ORDER_MARK) and _BYTE_ORDER_MARK.startswith(start):
            self._start = start
            return b""
        self._start = None
        return start.removeprefix(_BYTE_ORDER_MARK)

    def _hand_out(self, block: Lines) -> Lines:
        self._last = _last_line(block) or self._last
        return block


def event_line(line: bytes) -> bool:
    """Whether *line* is an event: a JSON object in which `event` is a string and `properties` is an object.

    If a key is repeated, its first value is used. Invalid UTF-8, lone surrogates and raw control bytes inside strings
    are accepted, because the writer repairs them. Nesting may be arbitrarily deep.
    """
    return canonical(line) is not None


def gunzip_for(content_encoding: str | None) -> Gunzip | None:
    """Return the decoder for an encoding; None if there is nothing to decode.

    Raises:
        TruncatedError: The encoding is neither identity nor gzip.
    """
    match (content_encoding or "identity").strip().lower():
        case "identity":
            return None
        case "gzip" | "x-gzip":
            return Gunzip()
        case _:
            raise _truncated(
                f"the response has the content encoding {content_encoding!r}, but only gzip was requested"
            )


def _last_line(block: Lines) -> bytes:
    """Return the last non-blank line of *block*; b"" if all lines are blank."""
    tail = bytes(block[-1][-_TAIL:])
    start = tail.rfind(b"\n", 0, -1) + 1
    if start and not tail[start:].isspace():
        return tail[start:]
    lines = b"".join(block)
    end = len(lines)
    while end:
        start = lines.rfind(b"\n", 0, end - 1) + 1
        line = lines[start:end]
        if not line.isspace():
            return line
        end = start
    return b""


def _member() -> Any:
    """Return a decompressor for one gzip member.

    isal allocates all of the output first, so it releases the GIL only once.
    """
    return igzip_lib.IgzipDecompressor(flag=igzip_lib.DECOMP_GZIP)


def _pieces(data: bytes, size: int) -> Iterator[bytes]:
    return (data[start : start + size] for start in range(0, len(data), size))


def _truncated(message: str, response_body: str | None = None) -> TruncatedError:
    return TruncatedError(message, status_code=200, response_body=response_body)
