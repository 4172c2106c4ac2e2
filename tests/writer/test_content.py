"""How the server's content reaches the table: every event, as text, whatever its line looks like."""

import json
from collections import Counter
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import anyio
import httpx
import pytest
from examples import examples, slow
from hypothesis import given
from hypothesis import strategies as st
from support import answering, export_from, query

from mixpanel_export.results import ParallelFetchResult

LAST = b'{"event":"last","properties":{}}'


async def export(transport: httpx.AsyncBaseTransport, db: Path, **options: Any) -> ParallelFetchResult:
    """Export one day from *transport*."""
    return await export_from(transport, db, "2024-03-01", "2024-03-01", **options)


def stored(lines: Sequence[bytes], db: Path, **options: Any) -> list[tuple[Any, ...]]:
    """Return the rows of a table after an export whose response has these lines and a valid last line."""

    async def run() -> None:
        await export(answering(lambda _: b"\n".join([*lines, LAST])), db, **options)

    anyio.run(run)
    return query(
        db,
        "SELECT event_name, event_time, distinct_id, insert_id, properties FROM events WHERE event_name <> 'last'",
    )


@pytest.fixture
def db(tmp_path: Path) -> Path:
    return tmp_path / "test.duckdb"


TEXTS = [
    '{"a":1E5,"b":1.0,"c":-0.0,"d":1e-7}',
    '{"big":123456789012345678901234567890,"dec":0.1234567890123456789012345}',
    '{"e":"\\u00e9","s":"\\/","n":"\\u0000"}',
    '{"ls":"a\u2028b\u2029c\u0085d","emoji":"👩‍👩‍👧‍👦 é e\u0301"}',
    '{"pair":"\\ud83d\\ude00"}',
    '{"none":NaN,"most":[Infinity,-Infinity]}',
    '{"dup":1,"dup":2}',
    '{ "spaces" : [ 1 , 2 ] , "x":{ } }',
    '{"properties":{"event":"inner"},"event":"inner"}',
    '{"text":",\\"properties\\":{"}',
    "{}",
]


def test_properties_are_stored_as_the_text_that_was_sent(db: Path) -> None:
    """No number, escape, space or duplicate key of `properties` changes."""
    lines = [f'{{"event":"e","properties":{text}}}'.encode() for text in TEXTS]
    assert Counter(row[4] for row in stored(lines, db)) == Counter(TEXTS)


SHAPES = [
    ('{ "event" : "e" , "properties" : {"a": 1} }', "e", '{"a": 1}'),
    ('{"properties":{"a":1},"event":"e"}', "e", '{"a":1}'),
    ('{"event":"e","properties":{"a":1},"more":[{"properties":{}}]}', "e", '{"a":1}'),
    ('{"more":{"a":1,"properties":{"b":2}},"event":"e","properties":{"a":1}}', "e", '{"a":1}'),
    ('{"event":"e","more":{"x":1,"properties":{"b":2}},"properties":{"a":1}}', "e", '{"a":1}'),
    ('{"event":"e","event":"f","properties":{"a":1},"properties":{"b":2}}', "e", '{"a":1}'),
    ('{"event":"a\\"b\\\\","properties":{"a":1}}', 'a"b\\', '{"a":1}'),
    ('{"event":"\\u00e9\\n","properties":{"a":1}}', "é\n", '{"a":1}'),
    ('{"event":",\\"properties\\":{","properties":{"a":1}}', ',"properties":{', '{"a":1}'),
    ('{"event":"","properties":{"a":1}}', "", '{"a":1}'),
    ('\t{"event":"e","properties":{"a":1}} \r', "e", '{"a":1}'),
]
"""Lines, with their event and properties."""


def test_a_line_of_another_shape_is_the_same_event(db: Path) -> None:
    """Key order, spaces, other keys and escapes in the name do not change what is stored."""
    rows = stored([line.encode() for line, *_ in SHAPES], db)
    assert Counter((row[0], row[4]) for row in rows) == Counter(shape[1:] for shape in SHAPES)
    assert query(db, "SELECT count(*) FROM _export_rejects") == [(0,)]


OFFENCES = [
    (b'{"event":"e","properties":{"a":"x\\ud83d"}}', '{"a":"x\ufffd"}'),
    (b'{"event":"e","properties":{"a":"\\uDE00\\ud83dy"}}', '{"a":"\ufffd\ufffdy"}'),
    (b'{"event":"e","properties":{"a":"\\\\ud83d","b":"\\ud83d"}}', '{"a":"\\\\ud83d","b":"\ufffd"}'),
    (b'{"event":"e","properties":{"a":"\xff\xf0\x9f\x98"}}', '{"a":"\ufffd\ufffd\ufffd\ufffd"}'),
    (b'{"event":"e","properties":{"a":"tab\there\x01"}}', '{"a":"tab\ufffdhere\ufffd"}'),
    (b'{"event":"e","properties":{"a":"nul\x00"}}', '{"a":"nul\ufffd"}'),
]
"""Lines that break the parser, with the properties as they are repaired."""
SOUND = b'{"event":"sound","properties":{"a":"\\ud83d\\ude00"}}'


def check_repairs(lines: Sequence[bytes], db: Path) -> None:
    """Check that each line is an event, that the original is beside it, and that both are counted."""
    originals = query(db, "SELECT reason, line FROM _export_rejects")
    assert Counter(originals) == Counter(("repaired", line) for line in lines)
    counts = (len(lines), 0, len(lines) + 3)  # with the sound ones and the last
    assert query(db, "SELECT repaired, rejects, rows FROM _export_batches") == [counts]


def test_what_only_breaks_the_parser_is_repaired_at_first_sight(db: Path) -> None:
    """The event is in the table with U+FFFD for each invalid part, and the original line is stored separately."""
    lines = [line for line, _ in OFFENCES]
    rows = stored([SOUND, *lines, SOUND], db)
    assert Counter(row[4] for row in rows if row[0] == "e") == Counter(text for _, text in OFFENCES)
    check_repairs(lines, db)


NAMES = [
    (b"caf\xe9", "caf\ufffd"),
    (b"\xff", "\ufffd"),
    (b"\xc3\xe9 \xf0", "\ufffd\ufffd \ufffd"),
    (b"\xe9\xe9\x80\x80", "\ufffd\u9000"),
    (b"\xc3\xa9\xe9", "\u00e9\ufffd"),
    (b"\xe9\\u00e9", "\ufffd\u00e9"),
    (b"\xed\xa0\x80", "\ufffd\ufffd\ufffd"),
    (b"\xc0\x80", "\ufffd\ufffd"),
    (b"tab\there", "tab\ufffdhere"),
    (b"half \\ud83d", "half \ufffd"),
]
"""Names that break the parser, as they are sent and as they are repaired."""


def test_a_name_that_only_breaks_the_parser_is_repaired_too(db: Path) -> None:
    """Whatever bytes the name has, the event is in the table, and the original line is stored separately."""
    lines = [b'{"event":"%s","properties":{}}' % name for name, _ in NAMES]
    rows = stored([SOUND, *lines, SOUND], db)
    assert Counter(row[0] for row in rows if row[0] != "sound") == Counter(name for _, name in NAMES)
    check_repairs(lines, db)


@pytest.mark.parametrize(
    "name",
    ['"' * 5000, "x" * 3_000_000 + "\\", *slow(["n" * 5000, "é" * 300_000, "\\" * 511 + "x"])],
)
def test_a_name_may_be_longer_than_mixpanel_allows(db: Path, name: str) -> None:
    """There is no limit: the event is stored with its whole name."""
    lines = [
        json.dumps({"event": text, "properties": {}}, separators=(",", ":")) for text in ("a", name, "b")
    ]
    assert sorted(row[0] for row in stored([line.encode() for line in lines], db)) == sorted(["a", "b", name])
    assert query(db, "SELECT repaired, rejects, rows FROM _export_batches") == [(0, 0, 4)]


def test_lines_that_are_no_events_are_set_aside_after_a_second_look(db: Path) -> None:
    """Non-events that a second response still has are stored verbatim and counted, but are not in the table."""
    odd = [
        b'{"error":"x"}',
        b"[1]",
        b'{"event":1,"properties":{}}',
        b'{"event":"q","properties":[]}',
        b"text",
    ]
    asked = 0

    def answer(_: httpx.Request) -> bytes:
        nonlocal asked
        asked += 1
        return b"\n".join([b'{"event":"e","properties":{}}', *odd, LAST])

    result = anyio.run(export, answering(answer), db)
    assert asked == 2
    assert (result.total_rows, result.rejects, result.failed_batches) == (2, 5, 0)
    assert {
        line for (line,) in query(db, "SELECT line FROM _export_rejects WHERE reason = 'rejected'")
    } == set(odd)


def test_a_second_look_that_is_sound_leaves_no_rejects(db: Path) -> None:
    """A line that was not an event only once is not stored as a reject, and no event is duplicated."""
    bodies = iter([[b"upstream error", LAST], [LAST]])
    result = anyio.run(export, answering(lambda _: b"\n".join(next(bodies))), db)
    assert (result.total_rows, result.rejects) == (1, 0)
    assert query(db, "SELECT count(*) FROM _export_rejects") == [(0,)]


TIMES = {
    "1602611311": datetime(2020, 10, 13, 17, 48, 31),
    "1602611311.9": datetime(2020, 10, 13, 17, 48, 31),
    "1602611311123": datetime(2020, 10, 13, 17, 48, 31, 123000),
    "1602611311123.9": datetime(2020, 10, 13, 17, 48, 31, 123000),
    "99999999999": datetime(5138, 11, 16, 9, 46, 39),
    "100000000000": datetime(1973, 3, 3, 9, 46, 40),
    "-1.5": datetime(1969, 12, 31, 23, 59, 59),
    "-100000000000": datetime(1966, 10, 31, 14, 13, 20),
    "1.6E9": datetime(2020, 9, 13, 12, 26, 40),
    '"1602611311"': datetime(2020, 10, 13, 17, 48, 31),
    '"2024-03-01T01:00:00+02:00"': datetime(2024, 2, 29, 23),
    '"2024-03-01T01:00:00Z"': datetime(2024, 3, 1, 1),
    '"2024-03-01 01:00:00.25"': datetime(2024, 3, 1, 1, 0, 0, 250000),
    '"2024-03-01"': datetime(2024, 3, 1),
    '"now"': None,
    '"infinity"': None,
    '"nan"': None,
    "1e300": None,
    "null": None,
    "true": None,
    "[1]": None,
    '{"a":1}': None,
}
"""Texts of `time`, and what they mean."""


def test_event_time(db: Path) -> None:
    """Seconds, milliseconds and ISO text become UTC; everything else is NULL, and the event is stored."""
    lines = [f'{{"event":"e","properties":{{"time":{time}}}}}'.encode() for time in TIMES]
    stored_times = {row[4].removeprefix('{"time":').removesuffix("}"): row[1] for row in stored(lines, db)}
    assert stored_times == TIMES


IDS: dict[str, tuple[str | None, str | None]] = {
    '{"distinct_id":"d","$insert_id":"i"}': ("d", "i"),
    '{"distinct_id":12,"$insert_id":null}': ("12", None),
    '{"distinct_id":"","$insert_id":""}': ("", ""),
    '{"distinct_id":null}': (None, None),
    '{"a":{"distinct_id":"no","$insert_id":"no"}}': (None, None),
    '{"distinct_id":"first","distinct_id":"second"}': ("first", None),
}
"""Properties, with the ids that they have."""


def test_ids(db: Path) -> None:
    """Ids are text as sent; a missing one is NULL, and the first of equal keys is used."""
    rows = stored([f'{{"event":"e","properties":{text}}}'.encode() for text in IDS], db)
    assert {row[4]: row[2:4] for row in rows} == IDS


def test_long_lines_are_taken_whole(db: Path) -> None:
    """Lines of 5 MB and of 40 MB are stored completely, along with short ones."""
    lines = [
        f'{{"event":"e","properties":{{"n":{size},"text":"{"é" * (size // 2)}"}}}}'.encode()
        for size in (5_000_000, 100, 40_000_000)
    ]
    stored(lines, db)
    found = query(
        db,
        "SELECT CAST(properties->>'n' AS INTEGER), length(properties->>'text') FROM events WHERE event_name = 'e'",
    )
    assert sorted(found) == [(100, 50), (5_000_000, 2_500_000), (40_000_000, 20_000_000)]


def identity_line(event: str, time: int, insert_id: str | None, processed: int | None, note: str) -> bytes:
    properties: dict[str, Any] = {"time": time, "distinct_id": "d", "note": note}
    if insert_id is not None:
        properties["$insert_id"] = insert_id
    if processed is not None:
        properties["mp_processing_time_ms"] = processed
    return json.dumps({"event": event, "properties": properties}, separators=(",", ":")).encode()


@given(
    st.lists(
        st.builds(
            identity_line,
            st.sampled_from(["a", "b"]),
            st.sampled_from([1709251200, 1709251201]),
            st.sampled_from([None, "", "x", "y"]),
            st.sampled_from([None, 1, 2]),
            st.sampled_from(["n", "ñ", "z"]),
        ),
        max_size=80,
    )
)
@examples(core=5, full=30)
def test_of_equal_identities_the_winner_stays(lines: list[bytes]) -> None:
    """For all lines, the table has one winner per identity, and every line without an `$insert_id`."""
    with TemporaryDirectory() as folder:
        rows = Counter(row[4] for row in stored(lines, Path(folder, "test.duckdb")))
    assert rows == _winners(lines)


def _winners(lines: Sequence[bytes]) -> Counter[str]:
    kept: Counter[str] = Counter()
    best: dict[tuple[str, int, str], tuple[int, str]] = {}
    for line in lines:
        event = json.loads(line)
        text = line.decode().split('"properties":', 1)[1][:-1]
        properties = event["properties"]
        if not properties.get("$insert_id"):
            kept[text] += 1
            continue
        key = (event["event"], properties["time"], properties["$insert_id"])
        best[key] = max(best.get(key, (-1, "")), (properties.get("mp_processing_time_ms", 0), text))
    return kept + Counter(text for _, text in best.values())


JSON_TEXT = st.recursive(
    st.one_of(
        st.integers().map(str),
        st.decimals(allow_nan=False, allow_infinity=False, places=20).map(lambda number: format(number, "f")),
        st.from_regex(r"-?(0|[1-9][0-9]{0,5})\.[0-9]{1,5}[eE][+-]?[0-9]{1,2}", fullmatch=True),
        st.sampled_from(["null", "true", "false"]),
        st.text().map(json.dumps),
        st.text(st.characters(exclude_categories=["Cs", "Cc"], exclude_characters='"\\')).map(
            lambda text: f'"{text}"'
        ),
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3).map(lambda items: "[" + ", ".join(items) + "]"),
        st.lists(st.tuples(st.text().map(json.dumps), inner), max_size=3).map(
            lambda members: "{ " + ",".join(f"{key}: {value}" for key, value in members) + "}"
        ),
    ),
    max_leaves=8,
)
SPACE = st.sampled_from(["", " ", "\t", " \r "])


@st.composite
def shaped(draw: st.DrawFn) -> tuple[bytes, tuple[str, str]]:
    """A line in any shape that JSON allows, with the event name and the text of the properties it holds."""
    name = draw(st.text(st.characters(exclude_categories=["Cs"])))
    members = draw(st.lists(st.tuples(st.text().map(json.dumps), JSON_TEXT), max_size=4))
    properties = "{" + ",".join(f"{key}:{value}" for key, value in members) + "}"
    name_text = json.dumps(name, ensure_ascii=draw(st.booleans()))
    pairs = [('"event"', name_text), ('"properties"', properties)]
    for extra in draw(st.lists(JSON_TEXT, max_size=2)):
        pairs.insert(draw(st.integers(0, len(pairs))), (f'"x{len(pairs)}"', extra))
    if draw(st.booleans()):
        pairs.reverse()
    space = draw(SPACE)
    text = ",".join(f"{space}{key}{space}:{space}{value}{space}" for key, value in pairs)
    return f"{space}{{{text}}}{space}".encode(), (name, properties)


@given(st.lists(shaped(), max_size=50))
@examples(core=6, full=50)
def test_any_line_that_is_an_event_is_stored_as_it_was_sent(
    lines: list[tuple[bytes, tuple[str, str]]],
) -> None:
    """For all shapes of lines, the table has exactly the names and the texts that were sent."""
    with TemporaryDirectory() as folder:
        rows = stored([line for line, _ in lines], Path(folder, "test.duckdb"), dedupe=False)
    expected = Counter(event for _, event in lines)
    del expected["last", "{}"]
    assert Counter((row[0], row[4]) for row in rows) == expected
