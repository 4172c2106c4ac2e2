"""`stream_events` and the table agree on every line."""

import json
from collections import Counter
from collections.abc import Sequence
from datetime import UTC
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import anyio
import pytest
from examples import examples, slow
from hypothesis import given
from hypothesis import strategies as st
from support import answering, export, query, simulator

from mixpanel_export._ndjson import loads
from mixpanel_export._source.records import parse_event, to_row
from mixpanel_export.results import ParallelFetchResult

DAY = "2024-03-01"
END = b'{"event":"end","properties":{}}'
DEEP = b"[" * 500

Row = tuple[Any, ...]


def in_table(lines: Sequence[bytes], zone: str) -> tuple[Counter[Row], int]:
    """Export the lines, and return the table's rows and the number of rejects."""
    body = b"\n".join([*lines, END])

    async def run(db: Path) -> ParallelFetchResult:
        wire = answering(lambda _: body)
        return await export(simulator(), db, DAY, DAY, transport=wire, dedupe=False, project_timezone=zone)

    with TemporaryDirectory() as folder:
        db = Path(folder, "test.duckdb")
        result = anyio.run(run, db)
        assert result.errors == ()
        rows = query(db, "SELECT event_name, event_time, distinct_id, insert_id, properties FROM events")
    return Counter((*row, shown(text, text.encode())) for *row, text in rows), result.rejects


def streamed(lines: Sequence[bytes], zone: str) -> tuple[Counter[Row], int]:
    """Return the rows that `stream_events` yields of the lines, and the number of lines that it leaves out."""
    rows: list[Row] = []
    rejects = 0
    for line in (*lines, END):
        event = parse_event(line + b"\n")
        if event is not None:
            name, time, *ids, properties = to_row(event, line, zone).values()
            rows.append(
                (name, time and time.astimezone(UTC).replace(tzinfo=None), *ids, shown(properties, line))
            )
        elif line.strip(b" \t\r\n\v\f"):
            rejects += 1
    return Counter(rows), rejects


def shown(properties: object, line: bytes) -> str:
    """Return a comparable form of properties; those that Python cannot represent are all equal."""
    if DEEP in line:
        return "deep"
    return repr(loads(properties) if isinstance(properties, str) else properties)


def event(properties: str, **members: str) -> bytes:
    """Return a line with these properties, as JSON, and these further members."""
    more = "".join(f',"{name}":{value}' for name, value in members.items())
    return f'{{"event":"e","properties":{properties}{more}}}'.encode("utf-8", "surrogatepass")


def timed(value: str) -> bytes:
    return event(f'{{"time":{value}}}')


TIMES = [
    "2024-01-02", "2024-01-02 ", "2024-01-02Z", "2024-01-02+05:00", "2024-02-30", "2024-1-2", "2024-01-02x", "24:00:00",
    "2024-01-02 03:04", "2024-01-02T03:04:05", "2024-01-02t03:04:05", "2024-01-02  03:04:05", "2024-01-02 3:4:5",
    "2024-01-02T03:04:05 ", "2024-01-02T03:04:05.", "2024-01-02T03:04:05.9999999", "2024-01-02T03:04:05.1234565",
    "2024-01-02 24:00:00", "2024-01-02 24:00", "2024-01-02T24:00:00+05:00", "2024-01-02 24:00:01", "2024-01-02 25:00",
    "2024-01-02 03:04:05Z", "2024-01-02 03:04:05z", "2024-01-02 03:04:05+02", "2024-01-02 03:04:05+0230",
    "2024-01-02 03:04:05+02:30:15", "2024-01-02 03:04:05+25:00", "2024-01-02 03:04:05-99:99", "2024-01-02 03:04:05 +02:00",
    "2024-01-02 03:04:05 US/Pacific", "2024-01-02 03:04:05 UTC", "2024-01-02 03:04:05 GMT+5", "2024-01-02 US/Pacific",
    "2024-01-02 (BC)", "0000-01-02", "0000-12-31 23:00:00-05:00", "0001-01-01 00:00:00+05:00", "9999-12-31 24:00:00",
    "9999-12-31 24:00:00+05:00", "9999-12-31 23:59:59.999999", "infinity", "epoch", "1704067200.9999999", "1e9", "0x10",
    "1_000", "+5", ".5", "5.", " 5", "nan", "inf", "1e400", "99999999999.99999", "99999999999.999999999", "",
    "\uff12\uff10\uff12\uff14-01-02",
]  # fmt: skip
NUMBERS = [
    "1704067200", "1704067200.9999999", "1704067200999.9", "-1.9", "1e9", "1E400", "-1e400", "9" * 400, "-0.0", "true", "null",
    "[1]", "253402300799999", "253402300799999.9", "253402300800000", "-62135596800", "-62135596800.5", "-62135596801",
    "-62135596800000", "-62135596800000.5", "NaN", "-inf", "99999999999.9", "100000000000",
]  # fmt: skip
IDS = [
    '"u"', '""', "1", "-0", "1.50", "1e3", "1e16", "1E22", "1.5e-7", "0.00001", "9" * 400, "1e400", "NaN", "-inf", "true",
    "null", "[1, 2]", "[1,]", '{"a": 1.50,"a":2}', '["\\u00e9\\/\\u001f\\u007f"]', '["\\ud83d\\ude00"]', '"a\\u0000b"',
]  # fmt: skip
SHAPES = [
    event('{"a":1,}'), event('{"a":[1,]}'), event("{,}"), event('{"a":[,]}'), event('{"a":1,,}'), event("{}", x="1"),
    b'{"event":"e","properties":{},}', b' {"properties" : {"a":1} , "event" : "e" }\r', b'{"event":"e"}', b"{}", b"null",
    b'{"event":"e","properties":{}}\v', b'{"event":"e","properties":{}}x', b'{"event":"e","properties":{}}{}',
    b'{"event":"e","event":"f","properties":{}}', b'{"event":1,"event":"f","properties":{}}', event('{"a":1,"a":2}'),
    event('{"time":1,"time":2,"distinct_id":"a","distinct_id":"b"}'), b'{"\\u0065vent":"e","properties":{}}',
    event('{"\\u0074ime":5,"di\\u0073tinct_id":"x"}'), event('{"a":nan,"b":-INF,"c":Infinity}'), event('{"a":+1}'),
    event('{"a":01}'), event('{"a":1.}'), event('{"a":.5}'), event('{"a":True}'), event("{a:1}"), event('{"a":"\\q"}'),
    event('{"a":"\\u12"}'), event('{"a":"\x01\t"}'), event('{"a":"\\ud800"}'), event('{"a":"\\\\ud800"}'),
    event('{"\\udc00":1}'), event('{"":1}'), event('{"a":"\u2028\ufeff"}'), event('{"a":"\ud800"}'), b"\xef\xbb\xbf" + END,
    b'{"event":"a\x01b","properties":{}}', b'{"event":"\\ud83d","properties":{}}', b'{"event":"\xff","properties":{}}',
    b'{"event":"","properties":{}}', b'{"event":null,"properties":{}}', b'{"event":"e","properties":[]}',
    b'{"event":"e","properties":{"a":"\xc0\xaf"}}', b'{"event":"e","properties":{\xff"a":1}}', b"\x00", b" \t", b"\v",
    b'{"event":"e","properties":{/* c */}}', b"{'event':'e','properties':{}}", b'{"event":"e","properties":{}',
    *(b'{"event":"e", "properties":{"a":%s1%s}}' % (b"[" * depth, b"]" * depth) for depth in (300, 1500, 50_000)),
    *(b'{"event":"e","properties":{"a":%s1%s}}' % (b"[" * depth, b"]" * depth) for depth in (300, 1500, 50_000)),
    *(b'{"event":"e","properties":{"distinct_id":%s1%s}}' % (b"[" * depth, b"]" * depth) for depth in (300, 1500)),
]  # fmt: skip
LINES = [
    *SHAPES,
    *(timed(json.dumps(text, ensure_ascii=False)) for text in TIMES),
    *map(timed, NUMBERS),
    *(event(f'{{"distinct_id":{text},"$insert_id":{text}}}') for text in IDS),
]


@pytest.mark.parametrize("zone", ["US/Pacific", *slow(["UTC", "Asia/Tokyo"])])
def test_unusual_lines(zone: str) -> None:
    """For each line that is known to be difficult, rows and non-events are the same."""
    assert in_table(LINES, zone) == streamed(LINES, zone)


clocks = st.from_regex(
    r"(0000|0001|2024|9999)-(01|02|12|13)-(01|29|31)"
    r"([ T](00|23|24)(:(00|59|60)(:(00|59|60)(\.[0-9]{0,8})?)?)?)?( ?(Z|[+-]([01][0-9]|24|99)(:?[0-9]{2}){0,2}))?",
    fullmatch=True,
)
digits = st.text("0123456789+-.eE_ nai", max_size=18)
json_texts = st.recursive(
    st.sampled_from(["1", "-0", "1.50", "1e400", '"a"', '"\\ud83d"', '"\\u0041"', "true", "null", "nan", "-Infinity", "x"]),
    lambda inner: (
        st.lists(inner, max_size=3).flatmap(lambda items: st.sampled_from(["", ","]).map(lambda end: f"[{','.join(items)}{end}]"))
        | st.lists(inner, max_size=3).map(lambda items: "{" + ",".join(f'"k": {item}' for item in items) + "}")
    ),
    max_leaves=8,
)  # fmt: skip
lines = st.one_of(
    (clocks | digits).map(lambda text: timed(json.dumps(text))),
    digits.map(timed),
    json_texts.map(lambda text: event(f'{{"distinct_id":{text},"a":{text}}}')),
    st.lists(st.sampled_from(["event", "properties", "x"]), min_size=1, max_size=3).flatmap(
        lambda keys: st.tuples(*(json_texts for _ in keys)).map(
            lambda values: "{" + ",".join(f'"{key}":{value}' for key, value in zip(keys, values, strict=True)) + "}"
        )
    ).map(str.encode),
    st.binary(max_size=8).map(lambda noise: event('{"a":"%s"}').replace(b"%s", noise.replace(b"\n", b""))),
)  # fmt: skip


@examples(core=5, full=50)
@given(lines=st.lists(lines, max_size=40), zone=st.sampled_from(["UTC", "US/Pacific"]))
def test_any_lines(lines: list[bytes], zone: str) -> None:
    """For all times, ids and shapes, rows and non-events are the same."""
    assert in_table(lines, zone) == streamed(lines, zone)
