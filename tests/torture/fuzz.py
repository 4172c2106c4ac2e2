"""Fuzzing of what comes over the wire: exactly the lines, or an error, never a third thing.

A gzip body is judged by zlib, which shares nothing with the exporter's gunzip but the format. A body without an
encoding proves nothing but its last line, so there the lines of the *mutated* bytes are what must come out: a cut
between two lines, or a letter changed inside one, is not to be seen by anybody.
"""

import gzip
import json
import zlib
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from itertools import pairwise
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory

import anyio
import httpx

from mixpanel_export import ParallelFetchResult, export_events
from mixpanel_export._source.decoder import BodyDecoder
from mixpanel_export.errors import LineTooLongError, TruncatedError

from .file import read
from .knobs import drawn, is_event, turned
from .model import ViolationError, require
from .schedules import ACCOUNT, Tally
from .world import FIRST, World

_MAX_LINE = 100_000


class _Pieces(httpx.AsyncByteStream):
    def __init__(self, pieces: Sequence[bytes]) -> None:
        self._pieces = pieces

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for piece in self._pieces:
            yield piece


def decoding(seed: int, mutations: int) -> Tally:
    """Decode as many mutated bodies, made from *seed*."""
    draw = Random(seed)
    bodies = [_body(World(draw)) for _ in range(3)]
    tally = Tally()
    for number in range(mutations):
        one = Random(f"{seed}:{number}")
        plain = one.choice(bodies)
        encoding = one.choice(["gzip", "gzip", None])
        wire = _mutated(one, _encoded(one, plain, encoding))
        try:
            _check(one, plain, wire, encoding)
        except Exception as error:  # noqa: BLE001 - whatever it is, the seed must be told
            tally.note(error, f"python -m tests.torture --seed {seed} --mutations {number + 1}")
        tally.mutations += 1
    return tally


def _check(draw: Random, plain: bytes, wire: bytes, encoding: str | None) -> None:
    """Decode *wire* in random pieces and compare with what zlib makes of it, or of what was sent first."""
    decoder = BodyDecoder(encoding, block_size=draw.choice([1, 500, 1 << 20]), max_line=_MAX_LINE)
    lines = b""
    try:
        for piece in _pieces(draw, wire):
            for block in decoder.feed(piece):
                require(block.endswith(b"\n"), "a block ends inside a line")
                lines += block
        for block in decoder.close():
            lines += block
    except (TruncatedError, LineTooLongError) as error:
        sound = inflated(wire) if encoding else wire
        refused = sound is None or not _proven(sound) or isinstance(error, LineTooLongError)
        # What isal refuses and zlib takes, a header that neither needs, is an error all the same.
        require(refused or wire not in {plain, gzip.compress(plain)}, "a whole body was refused", error)
        return
    sent = {plain, inflated(wire)} if encoding else {wire}
    require(any(_completed(body) == lines for body in sent if body is not None), "other lines than were sent")
    require(_proven(lines), "the last line is no event")


def inflated(wire: bytes) -> bytes | None:
    """Return what zlib makes of a gzip stream of any number of members; None where it is not whole."""
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


def _proven(plain: bytes) -> bool:
    lines = [line for line in plain.split(b"\n") if not (line + b"\n").isspace()]
    return not lines or is_event(lines[-1])


def _completed(plain: bytes) -> bytes:
    return plain if plain.endswith(b"\n") or not plain else plain + b"\n"


def _body(world: World) -> bytes:
    """Return what a world sends for its days, kept short."""
    sent = world.sim.lines(FIRST, world.days[-1])
    lines = [line for line in sent if len(line) < 5000][: world.draw.randrange(1, 30)]
    return b"".join(line + b"\n" for line in lines)


def _encoded(draw: Random, plain: bytes, encoding: str | None) -> bytes:
    if encoding is None:
        return plain
    cut = draw.randrange(len(plain) + 1) if draw.random() < 0.3 else len(plain)
    members = [plain[:cut], plain[cut:]] if cut < len(plain) else [plain]
    return b"".join(gzip.compress(member, draw.choice([0, 1, 9])) for member in members)


def _mutated(draw: Random, wire: bytes) -> bytes:
    """Return *wire* after up to three accidents."""
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
                at = (
                    len(body) - 1 - draw.randrange(min(12, len(body)))
                )  # the trailer of gzip, the end of a line
                body[at] = draw.randrange(256)
    return bytes(body)


def _pieces(draw: Random, wire: bytes) -> list[bytes]:
    cuts = sorted(draw.choices(range(len(wire) + 1), k=draw.choice([0, 1, 5, 50])))
    edges = [0, *cuts, len(wire)]
    return [wire[start:stop] for start, stop in pairwise(edges)]


def writing(seed: int) -> Tally:
    """Export a day whose answers are mutated, all the way into a file."""
    draw = Random(f"{seed}:writing")
    tally = Tally(mutations=1)
    plain = _body(World(draw))
    encoding = draw.choice(["gzip", None])
    wire = _mutated(draw, _encoded(draw, plain, encoding))
    with TemporaryDirectory(prefix="torture-", ignore_cleanup_errors=True) as folder:
        db = Path(folder, "torture.duckdb")
        try:
            result = _exported(draw, wire, encoding, db)
            _check_written(db, result, inflated(wire) if encoding else wire, plain)
        except Exception as error:  # noqa: BLE001 - whatever it is, the seed must be told
            tally.note(error, f"python -m tests.torture --seed {seed} --written 1")
    return tally


def _exported(draw: Random, wire: bytes, encoding: str | None, db: Path) -> ParallelFetchResult:
    headers = {"Content-Encoding": encoding} if encoding else {}

    async def exported() -> ParallelFetchResult:
        transport = httpx.MockTransport(
            lambda _: httpx.Response(200, headers=headers, stream=_Pieces(_pieces(draw, wire)))
        )
        return await export_events(
            FIRST,
            FIRST,
            db=db,
            credentials=ACCOUNT,
            transport=transport,
            api_url="http://127.0.0.1",
            per_second=0,
            per_hour=0,
            retries=1,
            dedupe=False,
        )

    with turned(drawn(draw)):
        return anyio.run(exported)


def _check_written(db: Path, result: ParallelFetchResult, body: bytes | None, plain: bytes) -> None:
    """The day failed and nothing of it is there, or each line of *body* is a row, or set aside."""
    file = read(db)
    rows = Counter(row.properties for of in file.tables.get("events", {}).values() for row in of.elements())
    if result.failed_batches:
        require(not rows, "rows of a batch that failed")
        whole = body == plain and is_event(plain.rstrip().rpartition(b"\n")[2])
        require(not whole, "a body that was not touched, and ends with an event, failed")
        require(
            all("Write failed" not in str(error) for error in result.errors),
            "lines were refused",
            result.errors,
        )
        return
    if body is None:
        raise ViolationError("a body that zlib refuses became a batch")
    lines = [line for line in body.split(b"\n") if not (line + b"\n").isspace()]
    (entry,) = file.ledger.values()
    require(rows.total() == entry.rows == len(lines) - entry.rejects, "lines were lost", len(lines), entry)
    untouched = Counter(
        _properties(line) for line in (Counter(lines) & Counter(plain.split(b"\n"))).elements()
    )
    missing = Counter({text: number for text, number in untouched.items() if text}) - rows
    require(not missing, "lines that were not touched are not there", list(missing)[:2])


def _properties(line: bytes) -> str | None:
    """Return the text of the properties of an event in the usual shape; None of any other line."""
    head, _, rest = line.partition(b',"properties":')
    if not head.startswith(b'{"event":"') or b'"properties"' in rest or not is_event(line):
        return None
    try:
        text = rest[:-1].decode()
        json.dumps(json.loads(text), ensure_ascii=False).encode()  # which lone surrogates do not survive
    except ValueError:
        return None  # one that has to be repaired
    return text
