"""What can go wrong, as data: a fault says what happens, to which requests, and how often.

To add a kind: give it a name in `Kind` and a place in one of the tables below. `STATUS` answers instead of
the events, `LINES` changes the lines of the body, `WIRE` changes the bytes that carry them. A stage gets the
size of the whole body before it begins, so that a position is exact.
"""

from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from dataclasses import dataclass
from datetime import date
from random import Random
from typing import Literal

Kind = Literal[
    "400", "401", "402", "403", "404", "413", "414", "416", "429", "500", "502", "503", "504",
    "auth_text_200", "auth_text_400", "timeout_error", "redirect",
    "reset_before_head", "close_before_head", "stall_before_head",
    "terminated_early", "error_fragment", "error_line", "garbage_line", "cut_line",
    "blank_lines", "no_final_newline", "crlf",
    "reset", "close", "stall",
    "truncated_gzip", "corrupt_crc", "trailing_garbage", "two_members", "empty_body",
]  # fmt: skip


@dataclass(frozen=True, slots=True)
class Fault:
    """One way to fail, for requests whose days overlap *first* to *last*.

    Args:
        kind: What happens.
        first: First day it applies to; None for no bound.
        last: Last day it applies to; None for no bound.
        probability: The share of matching requests that are hit, by seeded draws.
        times: How many hits at most; None for no bound.
        after: How many matching requests pass unharmed before the first hit.
        position: Where in the body it happens, from 0 (before everything) to 1 (after everything).
        retry_after: Seconds to name in `Retry-After` with status 429 and 503; None sends no such header.
        seconds: How long a stall lasts.
        status: Replaces the status of a kind that has one.
        text: Replaces the wording of a kind that has one.
        newline: Whether a marker line is ended by a newline.
        location: Where a redirect leads; None for the other spelling of the path, with or without a slash.

    Raises:
        ValueError: A share is not between 0 and 1, a number is negative, there is no such status, or
            *location* has characters that no header may have.
    """

    kind: Kind
    first: date | None = None
    last: date | None = None
    probability: float = 1.0
    times: int | None = None
    after: int = 0
    position: float = 0.5
    retry_after: float | None = 1.0
    seconds: float = 3600.0
    status: int | None = None
    text: str | None = None
    newline: bool = True
    location: str | None = None

    def __post_init__(self) -> None:
        """Check the ranges; types are a type checker's business."""
        for name in ("probability", "position"):
            if not 0 <= (share := getattr(self, name)) <= 1:
                raise ValueError(f"{name} must be between 0 and 1, not {share}")
        for name in ("after", "times", "seconds", "retry_after"):
            if (number := getattr(self, name)) is not None and not number >= 0:
                raise ValueError(f"{name} must not be negative, not {number}")
        if self.status is not None and not 200 <= self.status <= 599:
            raise ValueError(f"status must be between 200 and 599, not {self.status}")
        if self.location is not None and not (self.location.isascii() and self.location.isprintable()):
            raise ValueError("location must be a URL, percent-encoded")

    def concerns(self, first: date, last: date) -> bool:
        """Whether a request for these days is one it applies to."""
        return (self.last is None or first <= self.last) and (self.first is None or self.first <= last)


class FaultLog:
    """Which faults have been met and which have hit, each counted on its own."""

    def __init__(self, seed: int) -> None:
        self._draw = Random(f"{seed}:faults")
        # The fault is kept beside its counters: an id stays its own only while the object lives.
        self._counts: dict[int, tuple[Fault, list[int]]] = {}

    def choose(self, faults: list[Fault], first: date, last: date, *, gzip: bool) -> Fault | None:
        """Return the first of *faults* that hits this request, if any."""
        for fault in faults:
            if fault.concerns(first, last) and (gzip or fault.kind not in GZIP_ONLY) and self._hits(fault):
                return fault
        return None

    def hits(self, fault: Fault) -> int:
        """How many requests *fault* has hit."""
        return self._counts.get(id(fault), (fault, [0, 0]))[1][1]

    def _hits(self, fault: Fault) -> bool:
        counts = self._counts.setdefault(id(fault), (fault, [0, 0]))[1]
        counts[0] += 1
        if counts[0] <= fault.after or (fault.times is not None and counts[1] >= fault.times):
            return False
        if self._draw.random() >= fault.probability:
            return False
        counts[1] += 1
        return True


@dataclass(frozen=True, slots=True)
class Answer:
    """A response that holds no events."""

    status: int
    body: str
    content_type: str = "text/plain"
    retry_after: str | None = None
    headers: tuple[tuple[str, str], ...] = ()


class ConnectionResetFault(Exception):  # noqa: N818 - an event of the simulation, not an error of it
    """The connection is to be reset now."""


class ConnectionClosedFault(Exception):  # noqa: N818 - an event of the simulation, not an error of it
    """The connection is to be closed now, in the middle of whatever was being sent."""


_JSON = "application/json"
_HTML = "<html><head><title>{0}</title></head><body><h1>{0}</h1></body></html>\n"
_ENVOY = "upstream connect error or disconnect/reset before headers. reset reason: connection failure"

STATUS: dict[str, Answer] = {
    "400": Answer(400, '{"request": "/api/2.0/export", "error": "Bad request"}', _JSON),
    "401": Answer(401, '{"error": "Invalid credentials", "status": "error"}', _JSON),
    "402": Answer(
        402, '{"error": "Your plan does not allow API calls. Upgrade at mixpanel.com/pricing"}', _JSON
    ),
    "403": Answer(
        403, '{"request": "/api/2.0/export", "error": "Date range exceeds 365 days into the past"}', _JSON
    ),
    "404": Answer(404, "Not found"),
    "413": Answer(413, _HTML.format("413 Request Entity Too Large"), "text/html"),
    "414": Answer(414, _HTML.format("414 Request-URI Too Large"), "text/html"),
    "416": Answer(416, "Requested Range Not Satisfiable"),
    "429": Answer(429, '{"error": "too many export requests in progress for this project"}', _JSON),
    "500": Answer(500, "error completing export request"),
    "502": Answer(502, _HTML.format("502 Server Error"), "text/html"),
    "503": Answer(503, _ENVOY),
    "504": Answer(504, _HTML.format("504 Gateway Time-out"), "text/html"),
    "auth_text_200": Answer(200, "Unable to authenticate request"),
    "auth_text_400": Answer(400, "Unable to authenticate request"),
    "timeout_error": Answer(400, '{"request": "/api/2.0/export", "error": "Timeout Error."}', _JSON),
    "redirect": Answer(302, ""),
}
"""Answers instead of events, worded as they were seen where they were; 413, 414, 416 and redirects were not."""

Sleep = Callable[[float], Awaitable[None]]
Pieces = AsyncGenerator[bytes, None]
Stage = Callable[[Pieces, int, Fault, Sleep], Pieces]
"""Pieces of a body, the size of all of it, the fault, how to wait: the pieces as they go out."""


async def _until(pieces: Pieces, size: int, fault: Fault) -> Pieces:
    """Yield the first part of the body, up to the fault's position."""
    left = int(size * fault.position)
    async for piece in pieces:
        if len(piece) >= left:
            yield piece[:left]
            return
        left -= len(piece)
        yield piece


async def _until_line(pieces: Pieces, size: int, fault: Fault) -> Pieces:
    """Yield whole lines, those that end before the fault's position."""
    left = int(size * fault.position)
    async for piece in pieces:
        if len(piece) > left:
            yield piece[: piece.rfind(b"\n", 0, left) + 1]
            return
        left -= len(piece)
        yield piece


def _marker(wording: str) -> Stage:
    """Stop after some lines and say so in a last one."""

    async def stage(pieces: Pieces, size: int, fault: Fault, _: Sleep) -> Pieces:
        async with aclosing(_until_line(pieces, size, fault)) as part:
            async for piece in part:
                yield piece
        yield (fault.text or wording).encode() + (b"\n" if fault.newline else b"")

    return stage


async def _cut(pieces: Pieces, size: int, fault: Fault, _: Sleep) -> Pieces:
    """Stop wherever the position falls, and say nothing."""
    async with aclosing(_until(pieces, size, fault)) as part:
        async for piece in part:
            yield piece


async def _cut_line(pieces: Pieces, size: int, fault: Fault, sleep: Sleep) -> Pieces:
    """Stop in the middle of a line: between two of them nobody could tell."""
    held = b""
    async with aclosing(_cut(pieces, size, fault, sleep)) as part:
        async for piece in part:
            yield held
            held = piece
    yield held.rstrip(b"\r\n").removesuffix(b"}")


def _inserted(wording: str) -> Stage:
    """Put a line that is no event between two that are."""

    async def stage(pieces: Pieces, size: int, fault: Fault, _: Sleep) -> Pieces:
        left = int(size * fault.position)
        inserted = (fault.text or wording).encode() + b"\n"
        async for piece in pieces:
            if 0 <= left <= len(piece):
                at = piece.rfind(b"\n", 0, left) + 1
                yield piece[:at] + inserted + piece[at:]
            else:
                yield piece
            left = left - len(piece) if left > len(piece) else -1
        if not size:
            yield inserted

    return stage


def _broken(failure: type[Exception]) -> Stage:
    """Break the connection."""

    async def stage(pieces: Pieces, size: int, fault: Fault, _: Sleep) -> Pieces:
        async with aclosing(_until(pieces, size, fault)) as part:
            async for piece in part:
                yield piece
        raise failure

    return stage


async def _stall(pieces: Pieces, size: int, fault: Fault, sleep: Sleep) -> Pieces:
    """Send nothing for a while, then go on."""
    left = int(size * fault.position)
    waited = False
    async for piece in pieces:
        if not waited and left <= len(piece):
            yield piece[:left]
            await sleep(fault.seconds)
            waited = True
            yield piece[left:]
        else:
            yield piece
            left -= len(piece)


async def _trailing(pieces: Pieces, _: int, fault: Fault, __: Sleep) -> Pieces:
    async for piece in pieces:
        yield piece
    yield (fault.text or "\x00\x01 trailing garbage").encode()


async def _empty(_: Pieces, __: int, ___: Fault, ____: Sleep) -> Pieces:
    yield b""


async def _unended(pieces: Pieces, size: int, _: Fault, __: Sleep) -> Pieces:
    left = size - 1
    async for piece in pieces:
        yield piece[:left]
        left -= len(piece)


async def _carriage(pieces: Pieces, _: int, __: Fault, ___: Sleep) -> Pieces:
    async for piece in pieces:
        yield piece.replace(b"\n", b"\r\n")


LINES: dict[str, Stage] = {
    "terminated_early": _marker("terminated early"),
    "error_fragment": _marker('{"error":'),
    "error_line": _marker('{"error": "Internal server error"}'),
    "garbage_line": _inserted("this line is no event"),
    "blank_lines": _inserted("\n\r\n"),
    "cut_line": _cut_line,
    "no_final_newline": _unended,
    "crlf": _carriage,
}
"""Changes to the lines, made before they are compressed."""

WIRE: dict[str, Stage] = {
    "reset": _broken(ConnectionResetFault),
    "close": _broken(ConnectionClosedFault),
    "stall": _stall,
    "truncated_gzip": _cut,
    "trailing_garbage": _trailing,
    "empty_body": _empty,
}
"""Changes to the bytes of the body as it is sent."""

BEFORE_HEAD: dict[str, type[Exception]] = {
    "reset_before_head": ConnectionResetFault,
    "close_before_head": ConnectionClosedFault,
}
GZIP_ONLY = frozenset({"truncated_gzip", "corrupt_crc", "trailing_garbage", "two_members", "empty_body"})
"""Kinds that hit only requests which accept gzip; the body is then compressed however small it is."""
