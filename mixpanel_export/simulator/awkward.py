"""Adds awkward content, which breaks exporters, to plain events.

Each piece of content has the text that is sent and the text that an exporter must store. They differ only if the exporter
must repair the text. A repair replaces each lone surrogate, each byte that is not valid UTF-8, and each raw control byte
with U+FFFD.
"""

import json
from collections.abc import Iterator
from datetime import date
from random import Random
from typing import NamedTuple

from mixpanel_export.simulator.content import EVENTS, NAME_TEXTS, RARE_EVENTS, Text
from mixpanel_export.simulator.events import Profile, Record, Sent, line

REJECTS: tuple[bytes, ...] = (
    b'{"error":"upstream timed out"}',
    b'{"event":1,"properties":{}}',
    b'{"event":null,"properties":{"time":1}}',
    b'{"event":"no properties"}',
    b'{"properties":{"event":"no event"}}',
    b'{"event":"list","properties":[1,2]}',
    b'{"event":"text","properties":"{}"}',
    b'{"event":"cut","properties":{"time":17096',
    b'{"event":"more","properties":{}} {}',
    b'{"event":"zeros","properties":{"time":007}}',
    rb'{"event":"escape","properties":{"a":"\x41"}}',
    b"{'event':'quotes','properties':{}}",
    b'"a bare string"',
    b"[1,2,3]",
    b"[]",
    b"{}",
    b"null",
    b"-12.5e3",
    b"upstream connect error or disconnect/reset before headers",
    b"<html><body>502 Server Error</body></html>",
    'text \u2028 {"event":"x"} Łódź'.encode(),
    b"\xff\xfe\x00no text",
)
"""Lines that are not events, even for a lenient parser that accepts NaN or a trailing comma."""


def _same(text: bytes) -> Text:
    return Text(text, text)


def _is_json(text: bytes) -> bool:
    try:
        json.loads(text.decode())
    except ValueError:
        return False
    return True


_SOUND = (
    '"lines":"one\u2028two\u2029three\u0085four"',
    r'"nul":"a\u0000b","nul\u0000key":1',
    r'"pairs":"\ud83d\ude00\uD83D\uDE00","not a half":"\\ud83d"',
    '"mark":"\ufeffx\ufffd\uffff\U0010ffff\x7f"',
    r'"every escape":"\"\\\/\b\f\n\r\t\u00e9\u2028"',
    '"above 2^53":9007199254740993,"below":-9007199254740993',
    '"above 2^63":9223372036854775808,"above 2^64":18446744073709551616,"below":-9223372036854775809',
    '"30 digits":123456789012345678901234567890,"40":-1234567890123456789012345678901234567890',
    '"large":1e308,"small":5e-324,"minus zero":-0.0,"minus":-0,"one":1,"one again":1.0,"exponent":1E5,"plus":1e+05',
    '"beyond":1e400,"under":1E-400',
    '"precise":3.1415926535897932384626433,"long":0.1000000000000000055511151231257827021181583404541015625',
    '"null":null,"undefined":"undefined","text null":"<null>","empty":"","none":"None"',
    '"mixed":1',
    '"mixed":"1"',
    '"mixed":1.50',
    '"mixed":[1,"1",null]',
    '"mixed":{"mixed":{"mixed":1}}',
    '"mixed":true',
    '"mixed":null',
    '"lists":[[],[[1,2],[[3]]],{"a":[{}]}],"objects":[{"a":1},{"a":"1","b":null},{}]',
    '"nested":{"a":{"b":{"c":[1,{"d":"e"}]}}},"spaced" : [ 1 , { "x" : 2.50 } ]',
    '"Plan":1,"plan":2,"PLAN":3,"pLAN":"x"',
    '"$browser":"shadow","browser":"own","$time":5,"$event":"e","$distinct_id":"d","insert_id":"i"',
    '"a key":1,"a.key":2,"a\'key":3,"a/b":4,"$.time":5,"[0]":6,"*":7,"🎈":8,"":9," ":10',
    r'"a \"quoted\" key":1,"back\\slash":2,"\u0061":3,"line\nkey":4',
    '"twice":1,"twice":"two","twice":null,"deep":{"a":1,"a":2}',
    '"mp_processing_time_ms":9999999999999',
    '"event":"inner","properties":{"event":"x","properties":{"time":1}}',
    r'"text":"{\"event\":\"x\",\"properties\":{","more":",\"properties\":{}}"',
    '"sql":"\'); DROP TABLE events; --","path":"../../etc","format":"%s {0} {}"',
    '"long text":"' + "0123456789" * 2000 + '"',
    '"many":[' + ",".join(map(str, range(255))) + "]",
    ",".join(f'"property {number}":{number}' for number in range(255)),
)
_BROKEN = (
    Text(rb'"half":"a\ud83d"', b'"half":"a\xef\xbf\xbd"'),
    Text(rb'"other half":"\uDE00b"', b'"other half":"\xef\xbf\xbdb"'),
    Text(rb'"wrong order":"\ude00\ud83d"', b'"wrong order":"\xef\xbf\xbd\xef\xbf\xbd"'),
    Text(rb'"three":"\ud83d\ud83d\ude00"', b'"three":"\xef\xbf\xbd\\ud83d\\ude00"'),
    Text(
        rb'"half then escape":"\ud83d\n\ud83d\u0041"',
        b'"half then escape":"\xef\xbf\xbd\\n\xef\xbf\xbd\\u0041"',
    ),
    Text(rb'"slashes":"\\\ud83d\\ud83d"', b'"slashes":"\\\\\xef\xbf\xbd\\\\ud83d"'),
    Text(rb'"half \ud83d key":1', b'"half \xef\xbf\xbd key":1'),
    Text(rb'"list":["x",{"k":"\udfff"}]', b'"list":["x",{"k":"\xef\xbf\xbd"}]'),
    Text(b'"latin":"caf\xe9"', b'"latin":"caf\xef\xbf\xbd"'),
    Text(b'"lead":"\xc3("', b'"lead":"\xef\xbf\xbd("'),
    Text(b'"cut emoji":"\xf0\x9f\x98"', b'"cut emoji":"\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd"'),
    Text(b'"overlong":"\xc0\xaf"', b'"overlong":"\xef\xbf\xbd\xef\xbf\xbd"'),
    Text(b'"surrogate":"\xed\xa0\xbd"', b'"surrogate":"\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd"'),
    Text(b'"no byte \xff":"\xfe"', b'"no byte \xef\xbf\xbd":"\xef\xbf\xbd"'),
    Text(b'"tab":"a\tb"', b'"tab":"a\xef\xbf\xbdb"'),
    Text(b'"nul":"a\x00b"', b'"nul":"a\xef\xbf\xbdb"'),
    Text(b'"return":"a\rb\r"', b'"return":"a\xef\xbf\xbdb\xef\xbf\xbd"'),
    Text(b'"controls":"\x01\x0b\x0c\x1c\x1d\x1e\x1f"', b'"controls":"%s"' % (b"\xef\xbf\xbd" * 7)),
    Text(b'"\x08key":1', b'"\xef\xbf\xbdkey":1'),
    Text(b'"all":"\xff\t\\ud83d"', b'"all":"%s"' % (b"\xef\xbf\xbd" * 3)),
)
_SECOND = b'"time":1,"distinct_id":"second","$insert_id":"second","time":"yesterday","$insert_id":null'
_PIECES = (*(_same(piece.encode()) for piece in _SOUND), *_BROKEN)

JSON_PIECES = tuple(piece for piece in _PIECES if _is_json(b"{" + piece.sent + b"}"))
"""Awkward members whose sent text is valid JSON, although a string may contain a lone surrogate."""

# @ is replaced with the event's time or, in `_IDS` and `_BROKEN_IDS`, with its `$insert_id` without quotes.
_TIMES = tuple(map(_same, (
    b"", b"null", b"true", b"[]", b"{}", b'""', b"0", b"-1", b"-@", b"@123", b"-@123", b"@.0E0", b"1.5E9",
    b'"@"', b'"@123"', b'"-@"', b'"later"', b'"1_000"', b"123456789012345678901234567890",
)))  # fmt: skip
_PEOPLE = tuple(map(_same, (
    b"", b'""', b"null", b"true", b"0", b"-7", b"12.5", b"[1,2]", b'{"a":1}', b'"null"', b'" "', b'"@ "',
    b"9007199254740993", b"18446744073709551616", b"123456789012345678901234567890",
    rb'"nul\u0000"', rb'"\ud83d\ude00@"', rb'"\"@\"\\"', rb'"a\nb"', '"東京\u2028@"'.encode(),
    b'"%s@"' % (b"long" * 70),
)))  # fmt: skip
_BROKEN_PEOPLE = (
    Text(rb'"@\ud83d"', b'"@\xef\xbf\xbd"'),
    Text(b'"@\xff"', b'"@\xef\xbf\xbd"'),
    Text(b'"@\t"', b'"@\xef\xbf\xbd"'),
)
_IDS = tuple(map(_same, (
    b"", b'""', b"null", b"42", b"123456789012345678901234567890", b'"@abcd"', b'"@~#%"', b'"@ \xc3\xbc"',
    rb'"\u0040@"', b'"%s@"' % (b"x" * 300), b'" @ "', b'"-"',
)))  # fmt: skip
_BROKEN_IDS = (Text(rb'"@\ude00"', b'"@\xef\xbf\xbd"'), Text(b'"@\xc3"', b'"@\xef\xbf\xbd"'))

_HOTSHARD = b'"mp_original_event_name":"Signed up","mp_original_distinct_id":"hotshard@mixpanel.com"'
_SHAPES = (
    (b'{"properties":', b',"event":', b"}"),
    (b'{ "event" : ', b' ,\t"properties" : ', b" } "),
    (b'\t{"event":', b',"properties":', b"}\t"),
    (b'{"event":', b', "properties":', b"}"),
    (b'{"more":{"event":"no","properties":{"time":1}},"event":', b',"properties":', b"}"),
    (b'{"event":', b',"properties":', b',"more":[{"properties":{}}]}'),
    (b'{"event":', b',"version":1.0,"properties":', b"}"),
    (b'{"event":', b',"event":"second","properties":', b',"properties":{"time":2}}'),
    (rb'{"\u0065vent":', rb',"propert\u0069es":', b"}"),
)
_CANONICAL = (b'{"event":', b',"properties":', b"}")
_FILLING = '0123456789 abc \u2028 é 🎈 \\n \\" ,\\"properties\\":{ '.encode()


class _Identity(NamedTuple):
    """An event's identity: the index of its name, and the name, time and ids as JSON text."""

    number: int
    name: Text
    time: Text
    distinct_id: Text
    insert_id: Text

    def complete(self) -> bool:
        return bool(self.time.sent and self.distinct_id.sent and self.insert_id.sent)


def awkward(profile: Profile, day: date, records: Iterator[Record]) -> Iterator[Record]:
    """Yield *records*. Some get awkward content, a long line, or a preceding line that is not an event."""
    draw = Random(f"{profile.seed}:{day}:awkward")
    for record in records:
        for changed in _vary(profile, draw, record):
            if draw.random() < profile.rejects:
                yield _with_line_before(changed, draw.choice(REJECTS))
            else:
                yield changed


def _vary(profile: Profile, draw: Random, record: Record) -> Iterator[Record]:
    """Yield *record*, possibly changed, and sometimes a second record with the same identity."""
    pick = draw.random()
    head = _head(record)
    if pick < profile.long_lines:
        yield _long(record, draw.randint(profile.long_line_bytes // 5, profile.long_line_bytes))
    elif pick < profile.long_lines + profile.awkward and record[1].isdigit() and record[5].startswith(head):
        identity = _identity(draw, record)
        body = record[5][len(head) : -1]
        yield _assemble(draw, identity, body, record[4])
        if draw.random() < profile.duplicates:
            yield _assemble(draw, _with_escape(draw, identity), body, record[4])
    else:
        yield record


def _with_line_before(record: Record, reject: bytes) -> Record:
    sent = record[6] or Sent(line(record))
    return *record[:6], sent._replace(lines=reject + b"\n" + sent.lines, rejects=1)


def _long(record: Record, size: int) -> Record:
    filling = _FILLING * (size // len(_FILLING))
    return *record[:5], b"".join((record[5][:-1], b',"long":"', filling, b'"}')), record[6]


def _head(record: Record) -> bytes:
    return b'{"time":%s,"distinct_id":%s,"$insert_id":%s' % record[1:4]


def _identity(draw: Random, record: Record) -> _Identity:
    """Return the identity of *record*, with one unusual part in half of the cases."""
    name, time, distinct_id, insert_id = record[:4]
    plain = _Identity(name, *map(_same, (NAME_TEXTS[name], time, distinct_id, insert_id)))
    match draw.randrange(8):
        case 0:
            rare = draw.randrange(len(RARE_EVENTS))
            return plain._replace(number=len(EVENTS) + rare, name=RARE_EVENTS[rare])
        case 1:
            return plain._replace(time=_fill(draw.choice(_TIMES), time))
        case 2:
            return plain._replace(distinct_id=_fill(draw.choice((*_PEOPLE, *_BROKEN_PEOPLE)), time))
        case 3:
            return plain._replace(insert_id=_fill(draw.choice((*_IDS, *_BROKEN_IDS)), insert_id.strip(b'"')))
        case _:
            return plain


def _with_escape(draw: Random, identity: _Identity) -> _Identity:
    """Return the identity. In half of the cases, the first character of `$insert_id` is written as an escape."""
    sent, stored = identity.insert_id
    if draw.getrandbits(1) or stored[:1] != b'"' or not stored[1:2].isalnum():
        return identity
    escape = rb"\u%04x" % stored[1]
    return identity._replace(insert_id=Text(b'"' + escape + sent[2:], b'"' + escape + stored[2:]))


def _assemble(draw: Random, identity: _Identity, body: bytes, processed: int) -> Record:
    """Return a record with *identity*, one random piece among its properties, and a random line format."""
    pieces = [draw.choice(_PIECES)]
    if identity.complete() and not draw.randrange(16):
        pieces.append(_same(_SECOND))
    if b"$hotshard" in identity.name.sent:
        pieces.append(_same(_HOTSHARD))
    sent = _object(identity, body, pieces, 0)
    stored = _object(identity, body, pieces, 1)
    repaired = (sent, identity.name.sent) != (stored, identity.name.stored)
    shape = draw.choice(_SHAPES) if draw.getrandbits(1) else _CANONICAL
    lines = _apply_shape(shape, identity.name.sent, sent)
    unusual = Sent(lines, repaired) if repaired or shape is not _CANONICAL else None
    _, _, time, distinct_id, insert_id = identity
    return identity.number, time.stored, distinct_id.stored, insert_id.stored, processed, stored, unusual


def _object(identity: _Identity, body: bytes, pieces: list[Text], form: int) -> bytes:
    candidates = (
        (b'"time":', identity.time[form]),
        (b'"distinct_id":', identity.distinct_id[form]),
        (b'"$insert_id":', identity.insert_id[form]),
    )
    members = [key + value for key, value in candidates if value]
    return b"{" + b",".join([*members, body[1:], *(piece[form] for piece in pieces)]) + b"}"


def _apply_shape(shape: tuple[bytes, bytes, bytes], name: bytes, properties: bytes) -> bytes:
    first, second, end = shape
    return b"".join(
        (first, properties, second, name, end)
        if first.startswith(b'{"properties"')
        else (first, name, second, properties, end)
    )


def _fill(text: Text, original: bytes) -> Text:
    return Text(text.sent.replace(b"@", original), text.stored.replace(b"@", original))
