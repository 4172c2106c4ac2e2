"""Standard output for lines of events."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import BinaryIO

import click


@contextmanager
def binary_stdout(ctx: click.Context) -> Iterator[BinaryIO]:
    """Yield standard output, and flush it at the end.

    If the reader has gone, as `head` does, the command ends with exit code 0.
    """
    stream = sys.stdout.buffer
    try:
        yield stream
        stream.flush()
    except BrokenPipeError:
        ctx.exit(0)
