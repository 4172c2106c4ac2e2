"""Faults in bodies. A stage is a generator that changes the lines before compression, or the bytes after compression.

A stage is given the size of the whole body in advance, so that the fault's position is exact.
"""

from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from dataclasses import replace

from mixpanel_export.simulator.faults import ConnectionClosedFault, ConnectionResetFault, Fault

_MIN_CUT = 2.5  # bytes; at least two bytes remain, which may be whitespace and a brace

Sleep = Callable[[float], Awaitable[None]]
Pieces = AsyncGenerator[bytes, None]
Stage = Callable[[Pieces, int, Fault, Sleep], Pieces]
"""Takes the pieces of a body, the size of the whole body, the fault and `sleep`; yields the pieces to send."""


async def _until(pieces: Pieces, size: int, fault: Fault) -> Pieces:
    """Yield the part of the body before the fault's position."""
    remaining = int(size * fault.position)
    async for piece in pieces:
        if len(piece) >= remaining:
            yield piece[:remaining]
            return
        remaining -= len(piece)
        yield piece


async def _until_line(pieces: Pieces, size: int, fault: Fault) -> Pieces:
    """Yield the complete lines before the fault's position."""
    remaining = int(size * fault.position)
    async for piece in pieces:
        if len(piece) > remaining:
            yield piece[: piece.rfind(b"\n", 0, remaining) + 1]
            return
        remaining -= len(piece)
        yield piece


def _end_with_line(text: str) -> Stage:
    """Return a stage that ends the body after some lines, with *text* as the last line."""

    async def stage(pieces: Pieces, size: int, fault: Fault, _: Sleep) -> Pieces:
        async with aclosing(_until_line(pieces, size, fault)) as part:
            async for piece in part:
                yield piece
        yield (fault.text or text).encode() + (b"\n" if fault.newline else b"")

    return stage


async def _truncate(pieces: Pieces, size: int, fault: Fault, _: Sleep) -> Pieces:
    """End the body at the position."""
    async with aclosing(_until(pieces, size, fault)) as part:
        async for piece in part:
            yield piece


async def _cut_line(pieces: Pieces, size: int, fault: Fault, sleep: Sleep) -> Pieces:
    """End the body within a line. A client could not detect an end between two lines, or before the first byte."""
    pending = b""
    fault = replace(fault, position=max(fault.position, min(1.0, _MIN_CUT / max(size, 1))))
    async with aclosing(_truncate(pieces, size, fault, sleep)) as part:
        async for piece in part:
            if piece.isspace() or not piece:
                pending += piece
            else:
                yield pending
                pending = piece
    # A line without its last brace is not valid JSON.
    yield pending.rstrip().removesuffix(b"}")


def _insert_line(text: str) -> Stage:
    """Return a stage that inserts *text* as a line between two events."""

    async def stage(pieces: Pieces, size: int, fault: Fault, _: Sleep) -> Pieces:
        remaining = int(size * fault.position)
        line = (fault.text or text).encode() + b"\n"
        async for piece in pieces:
            if 0 <= remaining <= len(piece):
                at = piece.rfind(b"\n", 0, remaining) + 1
                yield piece[:at] + line + piece[at:]
            else:
                yield piece
            remaining = remaining - len(piece) if remaining > len(piece) else -1
        if not size:
            yield line

    return stage


def _break_connection(failure: type[Exception]) -> Stage:
    """Return a stage that breaks the connection at the position."""

    async def stage(pieces: Pieces, size: int, fault: Fault, _: Sleep) -> Pieces:
        async with aclosing(_until(pieces, size, fault)) as part:
            async for piece in part:
                yield piece
        raise failure

    return stage


async def _stall(pieces: Pieces, size: int, fault: Fault, sleep: Sleep) -> Pieces:
    """Pause at the position, then continue."""
    remaining = int(size * fault.position)
    stalled = False
    async for piece in pieces:
        if not stalled and remaining <= len(piece):
            yield piece[:remaining]
            await sleep(fault.seconds)
            stalled = True
            yield piece[remaining:]
        else:
            yield piece
            remaining -= len(piece)


async def _append_garbage(pieces: Pieces, _: int, fault: Fault, __: Sleep) -> Pieces:
    async for piece in pieces:
        yield piece
    yield (fault.text or "\x00\x01 trailing garbage").encode()


async def _empty(_: Pieces, __: int, ___: Fault, ____: Sleep) -> Pieces:
    yield b""


async def _drop_final_newline(pieces: Pieces, size: int, _: Fault, __: Sleep) -> Pieces:
    remaining = size - 1
    async for piece in pieces:
        yield piece[:remaining]
        remaining -= len(piece)


async def _crlf(pieces: Pieces, _: int, __: Fault, ___: Sleep) -> Pieces:
    async for piece in pieces:
        yield piece.replace(b"\n", b"\r\n")


LINES: dict[str, Stage] = {
    "terminated_early": _end_with_line("terminated early"),
    "error_fragment": _end_with_line('{"error":'),
    "error_line": _end_with_line('{"error": "Internal server error"}'),
    "garbage_line": _insert_line("this line is no event"),
    "blank_lines": _insert_line("\n\r\n"),
    "cut_line": _cut_line,
    "no_final_newline": _drop_final_newline,
    "crlf": _crlf,
}
"""Changes to the lines, before compression."""

WIRE: dict[str, Stage] = {
    "reset": _break_connection(ConnectionResetFault),
    "close": _break_connection(ConnectionClosedFault),
    "stall": _stall,
    "truncated_gzip": _truncate,
    "trailing_garbage": _append_garbage,
    "empty_body": _empty,
}
"""Changes to the bytes of the body, after compression."""
