"""Writes lines of events to standard output."""

import sys
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager
from errno import EAGAIN
from io import BytesIO, RawIOBase
from typing import Any

import click

from mixpanel_export.errors import MixpanelDataError

_MIN_SLICE = 128 << 10  # bytes; the buffer is written when it has at least this size
_GRACE = 10.0  # seconds that an interrupted command waits for a slow reader


class LineWriter:
    """Writes whole lines to *file*, which has no buffer of its own.

    Another thread writes slices of whole lines, so that Ctrl-C cannot cut a line. If the caller is interrupted, the
    current slice is completed and the lines in the buffer are discarded. If the reader does not read the slice within
    10 s, the last line is cut.
    """

    def __init__(self, file: RawIOBase) -> None:
        self._file = file
        self._buffer = bytearray()
        self._thread = ThreadPoolExecutor(1)  # not shut down, because that would wait for the reader

    def write(self, lines: bytes | memoryview) -> None:
        """Write lines, each of which ends with a newline."""
        text = BytesIO(lines)
        while part := text.read(_MIN_SLICE) + text.readline():
            self._buffer += part
            if len(self._buffer) >= _MIN_SLICE:
                self.flush()

    def writelines(self, pieces: Iterable[bytes | memoryview]) -> None:
        """Write pieces of whole lines."""
        for piece in pieces:
            self.write(piece)

    def flush(self) -> None:
        """Write the lines in the buffer."""
        lines, self._buffer = self._buffer, bytearray()
        if not lines:
            return
        try:
            self._thread.submit(_write_all, self._file, lines).result()
        except KeyboardInterrupt:
            # The interrupt may have come before `submit` returned the future of the slice. So wait for another call,
            # which the same thread runs after the slice.
            wait([self._thread.submit(bool)], _GRACE)
            raise


def _write_all(file: RawIOBase, lines: bytearray) -> None:
    rest = memoryview(lines)
    while rest:
        written = file.write(rest)
        if written is None:
            raise BlockingIOError(EAGAIN, "standard output is non-blocking and full")
        rest = rest[written:]


@contextmanager
def binary_stdout(ctx: click.Context) -> Iterator[LineWriter]:
    """Yield a writer to standard output. It is flushed at the end, except after an interrupt.

    If the reader closes the pipe, as `head` does, the command ends with exit code 0.
    """
    buffer: Any = sys.stdout.buffer  # unbuffered with `python -u`
    lines = LineWriter(getattr(buffer, "raw", buffer))
    try:
        try:
            yield lines
        except MixpanelDataError:
            lines.flush()
            raise
        lines.flush()
    except BrokenPipeError:
        ctx.exit(0)
