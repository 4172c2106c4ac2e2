"""The decoder returns exactly the lines that were sent, or raises an error; it never returns fewer lines."""

import gzip
import json
from collections.abc import Sequence
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mixpanel_export._source.decoder import BodyDecoder, Gunzip, LineBlocks, event_line
from mixpanel_export.errors import LineTooLongError, TruncatedError

EVENT = b'{"event":"A","properties":{"time":1}}\n'
MARK = b"\xef\xbb\xbf"

texts = st.text(max_size=20) | st.sampled_from(["\u2028", "\u2029", "\x85", "\x1c", "é", "😀"])
events = st.builds(
    lambda name, value: (
        json.dumps({"event": name, "properties": {"v": value}}, ensure_ascii=False).encode() + b"\n"
    ),
    texts,
    texts,
)
blanks = st.sampled_from([b"\n", b"\r\n", b" \t\n", b"\v\f\n"])
bodies = st.lists(events | blanks, max_size=12).map(b"".join)


def gzipped(parts: Sequence[bytes]) -> bytes:
    """One gzip member a part."""
    return b"".join(gzip.compress(part, mtime=0) for part in parts)


def cut(data: bytes, places: Sequence[int]) -> list[bytes]:
    """Cut *data* at *places*, which may lie anywhere."""
    borders = [0, *sorted(place % (len(data) + 1) for place in places), len(data)]
    return [data[start:end] for start, end in pairwise(borders)]


def fed(decoder: BodyDecoder | LineBlocks, piece: bytes) -> list[bytes]:
    """Feed a piece and return the blocks that are ready."""
    return list(map(b"".join, decoder.feed(piece)))


def decoded(decoder: BodyDecoder, pieces: Sequence[bytes]) -> list[bytes]:
    """Feed all *pieces* and return the blocks."""
    blocks = [block for piece in pieces for block in decoder.feed(piece)]
    return list(map(b"".join, [*blocks, *decoder.close()]))


places = st.lists(st.integers(0, 1 << 20), max_size=8)


@given(
    parts=st.lists(bodies, min_size=1, max_size=3),
    places=places,
    size=st.integers(1, 200),
    packed=st.booleans(),
    mark=st.sampled_from([b"", MARK]),
)
def test_any_cutting_gives_the_same_lines(
    parts: list[bytes], places: list[int], size: int, packed: bool, mark: bytes
) -> None:
    """However the wire bytes are cut, and over one to three members, the plain bytes come out as sent.

    A byte order mark at the start is no part of them.
    """
    plain = b"".join(parts)
    sent = [mark, *parts]
    decoder = BodyDecoder("gzip" if packed else None, block_size=size)
    blocks = decoded(decoder, cut(gzipped(sent) if packed else b"".join(sent), places))
    assert b"".join(blocks) == plain
    assert all(block.endswith(b"\n") for block in blocks)
    assert all(len(block) >= size for block in blocks[:-1])


@given(
    parts=st.lists(st.binary(max_size=300), min_size=1, max_size=3), places=places, size=st.integers(1, 50)
)
def test_inflating_in_small_pieces_loses_nothing(parts: list[bytes], places: list[int], size: int) -> None:
    """A limit for the decompressed size changes the pieces, not the bytes."""
    gunzip = Gunzip(size)
    plain = [out for piece in cut(gzipped(parts), places) for out in gunzip.feed(piece)]
    gunzip.close()
    assert b"".join(plain) == b"".join(parts)
    assert all(0 < len(out) <= size for out in plain)


@pytest.mark.parametrize("parts", [[EVENT * 3], [EVENT, EVENT * 2]], ids=["one member", "two members"])
def test_a_gzip_body_cut_short_is_never_a_shorter_success(parts: list[bytes]) -> None:
    """Cut at any byte except the end of a member, the body is an error."""
    wire = gzipped(parts)
    border = len(gzipped(parts[:-1]))
    for end in set(range(len(wire))) - ({border} if border else set()):
        with pytest.raises(
            TruncatedError, match=r"^the gzip stream of the response ended before its trailer$"
        ):
            decoded(BodyDecoder("gzip"), [wire[:end]])


@pytest.mark.parametrize("tail", [b"", b"\n"], ids=["no newline", "newline"])
def test_an_identity_body_cut_inside_a_line_is_an_error(tail: bytes) -> None:
    """A last line that is a fragment is an error, with or without a newline."""
    body = EVENT + EVENT.rstrip()
    for end in range(len(EVENT) + 1, len(body)):
        with pytest.raises(TruncatedError, match="not an event"):
            decoded(BodyDecoder(None), [body[:end] + tail])


@given(place=st.integers(0, 1 << 20), bit=st.integers(0, 7))
def test_a_flipped_bit_changes_nothing_or_is_an_error(place: int, bit: int) -> None:
    """Whichever bit of a gzip body is wrong, incorrect lines are never returned as a success."""
    wire = bytearray(gzipped([EVENT * 5 + b'{"event":"last","properties":{}}\n']))
    whole = decoded(BodyDecoder("gzip"), [bytes(wire)])
    wire[place % len(wire)] ^= 1 << bit
    try:
        blocks = decoded(BodyDecoder("gzip"), [bytes(wire)])
    except TruncatedError:
        return
    assert blocks == whole


@pytest.mark.parametrize("offset", range(-8, 0))
def test_the_checksum_and_the_length_of_a_member_count(offset: int) -> None:
    """A wrong byte in the trailer is an error although every line was decompressed."""
    wire = bytearray(gzipped([EVENT]))
    wire[offset] ^= 1
    with pytest.raises(TruncatedError, match=r"stream of the response is corrupt \(.*checksum.*\)$"):
        list(BodyDecoder("gzip").feed(bytes(wire)))


@pytest.mark.parametrize("garbage", [b"x", b"\0", b"\n", EVENT, b"\x1f", gzipped([EVENT])[:-1]])
def test_what_follows_the_last_member_must_be_a_member(garbage: bytes) -> None:
    """Bytes after the end that are not a complete gzip member are an error, even zeros."""
    wire = gzipped([EVENT]) + garbage
    for pieces in ([wire], cut(wire, [len(wire) - len(garbage)])):
        with pytest.raises(TruncatedError):
            decoded(BodyDecoder("gzip"), pieces)


@pytest.mark.parametrize("encoding", [None, "", "identity", " Identity "])
def test_an_empty_identity_body_is_an_empty_body(encoding: str | None) -> None:
    """An unencoded body without bytes is a day without events."""
    decoder = BodyDecoder(encoding)
    assert decoded(decoder, [b""]) == []


def test_an_empty_gzip_body_is_truncated_but_gzip_of_nothing_is_empty() -> None:
    """A body labelled gzip must have at least one member; the member may be empty."""
    with pytest.raises(TruncatedError, match="ended before its trailer"):
        decoded(BodyDecoder("gzip"), [])
    assert decoded(BodyDecoder("gzip"), [gzipped([b""])]) == []


@pytest.mark.parametrize("encoding", ["gzip", "GZIP", "x-gzip", " X-Gzip "])
def test_names_of_gzip(encoding: str) -> None:
    """Both names of gzip are accepted, in any case."""
    assert decoded(BodyDecoder(encoding), [gzipped([EVENT])]) == [EVENT]


@pytest.mark.parametrize("encoding", ["br", "deflate", "gzip, gzip"])
def test_another_encoding_is_an_error(encoding: str) -> None:
    """An unrequested encoding is named, not guessed."""
    with pytest.raises(
        TruncatedError, match=f"^the response has the content encoding '{encoding}'"
    ) as caught:
        BodyDecoder(encoding)
    assert caught.value.status_code == 200
    assert caught.value.response_body is None


@given(body=st.lists(blanks, max_size=9).map(b"".join), tail=st.sampled_from([b"", b" ", b"\t\r", b"\f\v"]))
def test_a_blank_body_is_an_empty_body(body: bytes, tail: bytes) -> None:
    """Lines with only white space are neither events nor failures."""
    blocks = decoded(BodyDecoder(None, block_size=2), [body, tail])
    assert b"".join(blocks) == body + tail + (b"\n" if tail else b"")


@given(body=bodies, event=events, blank=st.lists(blanks, max_size=9).map(b"".join), size=st.integers(1, 200))
def test_the_last_line_that_is_not_blank_decides(body: bytes, event: bytes, blank: bytes, size: int) -> None:
    """However many blank lines and blocks follow a line that is not an event, the body is incomplete."""
    assert decoded(BodyDecoder(None, block_size=size), [body, b"terminated early\n", event, blank])
    with pytest.raises(TruncatedError):
        decoded(BodyDecoder(None, block_size=size), [body, event, b"terminated early\n", blank])


@given(body=bodies, event=events)
def test_a_last_event_without_newline_gets_one(body: bytes, event: bytes) -> None:
    """The newline of the last event is optional."""
    decoder = BodyDecoder(None)
    assert b"".join(decoded(decoder, [body + event.rstrip(b"\n")])) == body + event


def test_the_error_carries_the_beginning_of_the_last_line() -> None:
    """The error has at most 500 bytes of the last line, so that Mixpanel's reason can be recognized."""
    decoder = BodyDecoder(None)
    with pytest.raises(TruncatedError, match=r"^the last line of the response is not an event$") as caught:
        decoded(decoder, [EVENT + b"\xff" + b"x" * 499 + b"y\n\n"])
    assert caught.value.response_body == "\ufffd" + "x" * 499
    with pytest.raises(TruncatedError) as caught:
        decoded(BodyDecoder(None), [b"Unable to authenticate request\r\n \n"])
    assert caught.value.response_body == "Unable to authenticate request"
    assert caught.value.status_code == 200


@pytest.mark.parametrize("size", [1, 7, 64 << 10])
def test_a_line_of_exactly_the_maximum_is_taken(size: int) -> None:
    """The maximum does not count the newline, however the line is divided into pieces."""
    line = EVENT.rstrip() + b" " * 100
    body = EVENT + line + b"\n" + EVENT
    pieces = cut(body, range(0, len(body), size))
    assert b"".join(decoded(BodyDecoder(None, max_line=len(line)), pieces)) == body
    with pytest.raises(LineTooLongError, match=f"longer than the maximum of {len(line) - 1} bytes$"):
        decoded(BodyDecoder(None, max_line=len(line) - 1), pieces)


@pytest.mark.parametrize("encoding", [None, "gzip"])
def test_an_endless_line_is_an_error_before_it_ends(encoding: str | None) -> None:
    """A line over the maximum is rejected as soon as it is detected, with or without a newline."""
    body = b"x" * 1001
    wire = gzipped([body]) if encoding else body
    with pytest.raises(LineTooLongError, match="longer than the maximum of 1000 bytes"):
        list(BodyDecoder(encoding, max_line=1000).feed(wire))


@pytest.mark.parametrize("size", [1, 300, 64 << 10])
def test_the_error_carries_the_beginning_of_a_line_that_is_too_long(size: int) -> None:
    """The error has at most 500 bytes of the line, so that its event can be identified, and nothing of other lines."""
    short = EVENT + b"b" * 200 + b"\n" + EVENT
    longest = b"\xff" + b"x" * 998 + b"y"
    for body, shown in ((short, "b" * 200), (EVENT + longest, "\ufffd" + "x" * 499)):
        with pytest.raises(LineTooLongError) as caught:
            decoded(BodyDecoder(None, max_line=len(shown) - 1), cut(body, range(0, len(body), size)))
        assert (caught.value.status_code, caught.value.response_body) == (200, shown)


@given(lines=st.lists(st.integers(0, 12), max_size=8), places=places, longest=st.integers(1, 12))
def test_the_maximum_does_not_depend_on_the_cutting(
    lines: list[int], places: list[int], longest: int
) -> None:
    """A body is rejected exactly when one of its lines is too long."""
    body = b"".join(b"x" * line + b"\n" for line in lines)
    blocks = LineBlocks(1, max_line=longest)
    refused = False
    out = b""
    try:
        for piece in cut(body, places):
            out += b"".join(fed(blocks, piece))
    except LineTooLongError:
        refused = True
    assert refused == any(line > longest for line in lines)
    assert refused or out + blocks.close() == body


def test_a_block_is_handed_out_as_soon_as_it_has_its_size() -> None:
    """Whole lines are held only until they have the block size."""
    decoder = BodyDecoder(None, block_size=2 * len(EVENT))
    assert fed(decoder, EVENT + EVENT[:9]) == []
    assert fed(decoder, EVENT[9:] + EVENT[:9]) == [EVENT * 2]
    assert fed(decoder, EVENT[9:]) == []
    assert list(decoder.close()) == [(EVENT,)]
    blocks = LineBlocks(8, max_line=4)
    assert fed(blocks, b"abc\n") == []
    assert fed(blocks, b"\n\nd\nab") == [b"abc\n\n\nd\n"]
    assert fed(blocks, b"cd\n\n\n") == []
    assert blocks.close() == b"abcd\n\n\n"


def test_a_line_of_many_megabytes_passes_whole() -> None:
    """A line far longer than a block is returned as one block with the lines around it."""
    line = b'{"event":"A","properties":{"x":"' + b"\xc3\xa9" * (20 << 20) + b'"}}\n'
    body = EVENT + line + EVENT
    pieces = cut(body, range(0, len(body), 64 << 10))
    assert b"".join(decoded(BodyDecoder(None), pieces)) == body


def test_the_default_sizes_are_binary_megabytes() -> None:
    """A block has at least 1 MiB, and a line at most 64 MiB."""
    lines = EVENT * ((1 << 20) // len(EVENT) + 1)
    for decoder in (BodyDecoder(None), BodyDecoder("gzip")):
        pieces = [lines, EVENT] if decoder._gunzip is None else [gzipped([lines, EVENT])]
        first, second = decoded(decoder, pieces)
        assert len(first) >= 1 << 20
        assert (first + second) == lines + EVENT
    blocks = LineBlocks()
    assert fed(blocks, b"\n" * ((1 << 20) - 1)) == []
    assert fed(blocks, b"\n") == [b"\n" * (1 << 20)]
    for make in (LineBlocks, lambda: BodyDecoder(None)):
        longest = make()
        assert list(longest.feed(b"x" * (64 << 20))) == []
        with pytest.raises(LineTooLongError, match=f"the maximum of {64 << 20} bytes"):
            list(longest.feed(b"x"))


@pytest.mark.parametrize("filler", [b"\n", b"x"], ids=["lines", "one line"])
def test_a_bomb_is_inflated_in_bounded_pieces(filler: bytes) -> None:
    """A few KB that decompress to 48 MB never use more than 2 MB at a time."""
    wire = gzipped([filler * (48 << 20)])
    gunzip = Gunzip()
    sizes = [len(piece) for piece in gunzip.feed(wire)]
    gunzip.close()
    assert len(wire) < 64 << 10
    assert sum(sizes) == 48 << 20
    assert max(sizes) <= 2 << 20


def test_blocks_of_a_big_identity_piece_are_bounded() -> None:
    """One piece of 16 MB becomes blocks of little more than the block size."""
    body = EVENT * ((16 << 20) // len(EVENT))
    blocks = decoded(BodyDecoder(None), [body])
    assert b"".join(blocks) == body
    assert max(map(len, blocks)) < 3 << 20


@pytest.mark.parametrize(
    "line",
    [
        EVENT,
        EVENT.rstrip(),
        b'{"event":"","properties":{}}\r\n',
        b' { "properties" : {"a":{"b":[1]}} , "event" : "A" } \n',
        b'{"event":"A","properties":{"x":"\xff\xed\xa0\x80"}}',
        b'{"event":"A","properties":{"x":"\\ud83d"}}',
        b'{"event":"A","properties":{"x":"\x01\t"}}',
        b'{"event":"A","properties":{"x":' + b"9" * 5000 + b"}}",
        b'{"event":"A","properties":{"x":1E5,"y":-0.0}}',
        b'{"event":"A","properties":{},"event":null,"properties":[]}',
        b'{"event":"A","properties":{},"more":1}',
        b'{"event":"A","properties":{"x":' + b"[" * 100_000 + b"]" * 100_000 + b"}}",
        b'{"properties":{"x":[1,],},"event":"A",}',
    ],
)
def test_what_an_event_is(line: bytes) -> None:
    """An object with a string `event` and an object `properties` is an event, even if it needs repair."""
    assert event_line(line)


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b" \n",
        MARK + EVENT,
        b"terminated early",
        b"null",
        b"[]",
        b'["event","properties"]',
        b'"event"',
        b'{"error":"x"}',
        b'{"event":"A"}',
        b'{"properties":{}}',
        b'{"event":1,"properties":{}}',
        b'{"event":null,"properties":{}}',
        b'{"event":"A","properties":[]}',
        b'{"event":"A","properties":"{}"}',
        b'{"event":"A","properties":null}',
        b'{"event":null,"event":"A","properties":{}}',
        b'{"event":"A","properties":[],"properties":{}}',
        EVENT.rstrip() + b"x",
        EVENT + EVENT,
        b"\v" + EVENT,
        EVENT.rstrip()[:-1],
        b'{"event":"A","properties":{"x":' + b"[" * 100_000 + b"]" * 99_999 + b"}}",
    ],
    ids=lambda line: repr(line[:30]),
)
def test_what_no_event_is(line: bytes) -> None:
    """Everything else is not an event."""
    assert not event_line(line)
