"""Mutated bodies: the decoder and the exporter must return exactly the lines, or an error, never anything else.

A gzip body is judged by zlib, which shares nothing with the exporter's decompression but the format. Of a body without an
encoding only the last line is proven, so the correct result are the lines of the *mutated* bytes: a client cannot detect a
cut between two lines, or a changed letter inside one.
"""

import gzip
import json
import warnings
import zlib
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from itertools import pairwise
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory
from typing import Any

import anyio
import httpx

from mixpanel_export import ParallelFetchResult
from mixpanel_export._source.decoder import BodyDecoder
from mixpanel_export.errors import LineTooLongError, TruncatedError

from .contents import read
from .project import FIRST, Project
from .schedules import ACCOUNT, EXPECTED_WARNINGS, Tally
from .settings import export, random_settings
from .violations import ViolationError, require

_MAX_LINE = 100_000


class _Pieces(httpx.AsyncByteStream):
    """A response body in pieces."""

    def __init__(self, pieces: Sequence[bytes]) -> None:
        self._pieces = pieces

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for piece in self._pieces:
            yield piece


def decode_mutations(seed: int, mutations: int) -> Tally:
    """Decode a number of mutated bodies for *seed*."""
    draw = Random(seed)
    bodies = [_body(Project(draw)) for _ in range(3)]
    tally = Tally()
    for number in range(mutations):
        own = Random(f"{seed}:{number}")
        plain = own.choice(bodies)
        encoding = own.choice(["gzip", "gzip", None])
        wire = _mutate(own, _encode(own, plain, encoding))
        try:
            _check_decoder(own, plain, wire, encoding)
        except Exception as error:  # noqa: BLE001 - every failure is reported with its seed
            tally.add_failure(error, f"python -m tests.torture --seed {seed} --mutations {number + 1}")
        tally.mutations += 1
    return tally


def _check_decoder(draw: Random, plain: bytes, wire: bytes, encoding: str | None) -> None:
    """Decode *wire* in random pieces, and compare with the result of zlib, or with the original body."""
    decoder = BodyDecoder(encoding, block_size=draw.choice([1, 500, 1 << 20]), max_line=_MAX_LINE)
    lines = b""
    try:
        for piece in _cut(draw, wire):
            for block in decoder.feed(piece):
                lines += b"".join(block)
                require(lines.endswith(b"\n"), "a block ends inside a line")
        for block in decoder.close():
            lines += b"".join(block)
    except (TruncatedError, LineTooLongError) as error:
        decoded = decompressed(wire) if encoding else wire
        invalid = decoded is None or not _proven(decoded) or isinstance(error, LineTooLongError)
        # isal may refuse a header that zlib accepts, so only unchanged bodies must be accepted.
        require(invalid or wire not in {plain, gzip.compress(plain)}, "a complete body was refused", error)
        return
    correct = {plain, decompressed(wire)} if encoding else {wire}
    equal = any(_with_newline(body) == lines for body in correct if body is not None)
    require(equal, "other lines than those sent")
    require(_proven(lines), "the last line is not an event")


def decompressed(wire: bytes) -> bytes | None:
    """Return zlib's result for a gzip stream of any number of members; None if it is incomplete or invalid."""
    plain = b""
    if not wire:
        return None
    try:
        while wire:
            member = zlib.decompressobj(wbits=31)
            plain += member.decompress(wire)
            if not member.eof:
                return None
            wire = member.unused_data
    except zlib.error:
        return None
    return plain


def is_event(line: bytes) -> bool:
    """Return whether *line* is an event for the parser of the standard library."""
    try:
        value = json.loads(line.decode("utf-8", "replace"), strict=False, object_pairs_hook=_first_wins)
    except (ValueError, RecursionError):
        return False
    return (
        isinstance(value, dict)
        and isinstance(value.get("event"), str)
        and isinstance(value.get("properties"), dict)
    )


def _first_wins(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return an object with the first of equal keys."""
    return dict(reversed(pairs))


def _proven(plain: bytes) -> bool:
    lines = [line for line in plain.split(b"\n") if not (line + b"\n").isspace()]
    return not lines or is_event(lines[-1])


def _with_newline(plain: bytes) -> bytes:
    return plain if plain.endswith(b"\n") or not plain else plain + b"\n"


def _body(project: Project) -> bytes:
    """Return some of the lines that a project sends."""
    sent = project.sim.lines(FIRST, project.days[-1])
    lines = [line for line in sent if len(line) < 5000][: project.draw.randrange(1, 30)]
    return b"".join(line + b"\n" for line in lines)


def _encode(draw: Random, plain: bytes, encoding: str | None) -> bytes:
    if encoding is None:
        return plain
    cut = draw.randrange(len(plain) + 1) if draw.random() < 0.3 else len(plain)
    members = [plain[:cut], plain[cut:]] if cut < len(plain) else [plain]
    return b"".join(gzip.compress(member, draw.choice([0, 1, 9])) for member in members)


def _mutate(draw: Random, wire: bytes) -> bytes:
    """Return *wire* after up to three random changes."""
    body = bytearray(wire)
    for _ in range(draw.choice([0, 1, 1, 1, 2, 3])):
        first, last = sorted(draw.choices(range(len(body) + 1), k=2))
        match draw.randrange(7):
            case 0:
                del body[first:]
            case 1 if body:
                body[min(first, len(body) - 1)] ^= 1 << draw.randrange(8)
            case 2:
                del body[first:last]
            case 3:
                body[last:last] = body[first:last]
            case 4:
                body[first:first] = draw.randbytes(draw.choice([1, 8, 100]))
            case 5:
                body += draw.choice([b"\0", b"\n", b"terminated early\n", b"\x1f\x8b", bytes(body)])
            case _ if body:
                # In the trailer of gzip, or at the end of a line.
                at = len(body) - 1 - draw.randrange(min(12, len(body)))
                body[at] = draw.randrange(256)
    return bytes(body)


def _cut(draw: Random, wire: bytes) -> list[bytes]:
    cuts = sorted(draw.choices(range(len(wire) + 1), k=draw.choice([0, 1, 5, 50])))
    edges = [0, *cuts, len(wire)]
    return [wire[start:stop] for start, stop in pairwise(edges)]


def export_mutation(seed: int) -> Tally:
    """Export a day with mutated responses into a file."""
    draw = Random(f"{seed}:writing")
    tally = Tally(mutations=1)
    plain = _body(Project(draw))
    encoding = draw.choice(["gzip", None])
    wire = _mutate(draw, _encode(draw, plain, encoding))
    with TemporaryDirectory(prefix="torture-", ignore_cleanup_errors=True) as folder:
        db = Path(folder, "torture.duckdb")
        try:
            result = _export(draw, wire, encoding, db)
            _check_file(db, result, decompressed(wire) if encoding else wire, plain)
        except Exception as error:  # noqa: BLE001 - every failure is reported with its seed
            tally.add_failure(error, f"python -m tests.torture --seed {seed} --written 1")
    return tally


def _export(draw: Random, wire: bytes, encoding: str | None, db: Path) -> ParallelFetchResult:
    headers = {"Content-Encoding": encoding} if encoding else {}
    settings = random_settings(draw)

    async def run() -> ParallelFetchResult:
        transport = httpx.MockTransport(
            lambda _: httpx.Response(200, headers=headers, stream=_Pieces(_cut(draw, wire)))
        )
        return await export(
            settings,
            transport=transport,
            from_date=FIRST,
            to_date=FIRST,
            db=db,
            credentials=ACCOUNT,
            api_url="http://127.0.0.1",
            per_second=0,
            per_hour=0,
            retries=1,
            dedupe=False,
        )

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", EXPECTED_WARNINGS)
        return anyio.run(run)


def _check_file(db: Path, result: ParallelFetchResult, body: bytes | None, plain: bytes) -> None:
    """Check that the day failed and left nothing, or that each line of *body* is a row or a reject."""
    contents = read(db)
    rows = Counter(
        row.properties for batch in contents.tables.get("events", {}).values() for row in batch.elements()
    )
    if result.failed_batches:
        require(not rows, "a failed batch has rows")
        complete = body == plain and is_event(plain.rstrip().rpartition(b"\n")[2])
        require(not complete, "an unchanged body that ends with an event failed")
        refused = any("Write failed" in str(error) for error in result.errors)
        require(not refused, "the database refused lines", result.errors)
        return
    if body is None:
        raise ViolationError("a body that zlib refuses became a batch")
    lines = [line for line in body.split(b"\n") if not (line + b"\n").isspace()]
    (entry,) = contents.ledger.values()
    require(rows.total() == entry.rows == len(lines) - entry.rejects, "lines were lost", len(lines), entry)
    unchanged = Counter(
        _properties(line) for line in (Counter(lines) & Counter(plain.split(b"\n"))).elements()
    )
    missing = Counter({text: number for text, number in unchanged.items() if text}) - rows
    require(not missing, "unchanged lines are missing", list(missing)[:2])


def _properties(line: bytes) -> str | None:
    """Return the text of the properties of an event in the usual format; None for every other line."""
    head, _, rest = line.partition(b',"properties":')
    if not head.startswith(b'{"event":"') or b'"properties"' in rest or not is_event(line):
        return None
    try:
        text = rest[:-1].decode()
        json.dumps(json.loads(text), ensure_ascii=False).encode()  # fails for a lone surrogate
    except ValueError:
        return None  # needs repair
    return text
