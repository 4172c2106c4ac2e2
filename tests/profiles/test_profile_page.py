"""Pages of profiles: the text of each profile is cut out unchanged, whatever the page looks like."""

import json
from contextlib import suppress
from datetime import datetime
from typing import Any

import duckdb
import pytest
from examples import examples
from hypothesis import given
from hypothesis import strategies as st

from mixpanel_export._source.profile_page import parse_page

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
SPACE = st.sampled_from(["", " ", "\n\t", "\r\n "])


@st.composite
def json_text(draw: st.DrawFn, value: Any) -> str:
    """Return JSON text of a value, in one of the forms that a server may choose."""
    return json.dumps(
        value,
        ensure_ascii=draw(st.booleans()),
        separators=draw(st.sampled_from([(",", ":"), (" , ", ":\t")])),
    )


@st.composite
def entries(draw: st.DrawFn) -> tuple[str, str, str]:
    """Return the text of an entry, and the id and the text of the properties that a table should have."""
    identity = draw(st.text() | st.integers())
    properties = draw(json_text(draw(st.dictionaries(st.text(), VALUES, max_size=4))))
    members = [
        ("$distinct_id", draw(json_text(identity))),
        ("$properties", properties),
        *draw(st.lists(st.tuples(st.text(alphabet="abc"), json_text("},{")), max_size=1)),
    ]
    space = draw(SPACE)
    inner = f"{space},{space}".join(
        f"{json.dumps(key)}{space}:{space}{text}" for key, text in draw(st.permutations(members))
    )
    return f"{{{space}{inner}{space}}}", str(identity), properties


@examples(30, 300)
@given(st.lists(entries(), max_size=5), SPACE, st.integers(0, 10**9))
def test_the_text_of_any_profile_is_unchanged(
    profiles: list[tuple[str, str, str]], space: str, total: int
) -> None:
    """Ids and properties are those of the page, for any object, in any layout; DuckDB accepts them as sent."""
    results = f"[{space}" + f"{space},{space}".join(text for text, _, _ in profiles) + f"{space}]"
    page = parse_page(f'{space}{{"total":{total},"results":{results},"session_id":"s"}}{space}'.encode())
    assert page.ids == [identity for _, identity, _ in profiles]
    assert page.properties == [properties for _, _, properties in profiles]
    assert (page.total, page.session, page.entries, page.rejects) == (total, "s", len(profiles), [])
    stored = duckdb.execute("SELECT unnest(?::VARCHAR[])::JSON::VARCHAR", [page.properties]).fetchall()
    assert [text for (text,) in stored] == page.properties


@examples(30, 300)
@given(st.binary(max_size=60))
def test_any_bytes_are_a_page_or_an_error(body: bytes) -> None:
    """Nothing but a ValueError is raised, also for a page that ends anywhere."""
    whole = b'{"results":[{"$distinct_id":"a","$properties":{"k":"v"}}],"total":1}'
    for text in (body, whole[: len(body)], whole[: len(body)] + body):
        with suppress(ValueError):
            assert parse_page(text).entries <= len(text)


@pytest.mark.parametrize(
    "sent, stored",
    [
        (rb'"\ud800"', '"�"'),
        (rb'"\uD83D\ude00"', '"\\uD83D\\ude00"'),
        (b'"\xff"', '"�"'),
        (b'"a\x01b"', '"a�b"'),
        (rb'"\\ud800"', r'"\\ud800"'),
        (b"[1,]", "[1,]"),
        (b"-Infinity", "-Infinity"),
        (b"1e999", "1e999"),
        (b"123456789012345678901234567890", "123456789012345678901234567890"),
        (b"[" * 3000 + b"]" * 3000, "[" * 3000 + "]" * 3000),
    ],
)
def test_only_what_no_parser_accepts_is_repaired(sent: bytes, stored: str) -> None:
    """The original of a repaired profile is kept; other text is as it was sent."""
    entry = b'{"$distinct_id":"a","$properties":{"k":%s,"$last_seen":"2024-01-02"}}' % sent
    page = parse_page(b'{"results":[%s],"total":1}' % entry)
    assert page.properties == [f'{{"k":{stored},"$last_seen":"2024-01-02"}}']
    changed = stored.encode() != sent
    assert page.originals == ([entry.decode("utf-8", "surrogateescape")] if changed else [])
    assert duckdb.execute("SELECT ?::JSON::VARCHAR", page.properties).fetchall() == [(page.properties[0],)]


@pytest.mark.parametrize(
    "value, expected",
    [
        ('"2024-05-06T07:08:09"', datetime(2024, 5, 6, 7, 8, 9)),
        ('"2024-05-06T07:08:09+02:00"', datetime(2024, 5, 6, 5, 8, 9)),
        ('"2024-05-06T07:08:09.5Z"', datetime(2024, 5, 6, 7, 8, 9, 500000)),
        ('"2024-05-06"', datetime(2024, 5, 6)),
        ('"2024-05-06T24:00:00"', datetime(2024, 5, 7)),
        ('"2024-13-06T07:08:09"', None),
        ('"<null>"', None),
        ('""', None),
        ("null", None),
        ("1714979289", None),
        ('["2024-05-06"]', None),
    ],
)
def test_last_seen_is_a_time_or_null(value: str, expected: datetime | None) -> None:
    """Text without an offset is in UTC; anything that is not such text is NULL."""
    for entry in (
        f'{{"$distinct_id":1,"$properties":{{"$last_seen":{value}}}}}',
        f'{{"$properties":{{"$last_seen":{value}}},"$distinct_id":1}}',
    ):
        assert parse_page(f'{{"results":[{entry}]}}'.encode()).last_seen == [expected]


def test_entries_that_are_not_profiles_are_rejected() -> None:
    """They have no id, or properties that are not an object; without properties, a profile has none."""
    entries = [
        '{"$distinct_id":"a"}', '{"$distinct_id":"b","$properties":null}', '{"$distinct_id":-1.5,"$properties":{}}',
        '{"$properties":{}}', '{"$distinct_id":null,"$properties":{}}', '{"$distinct_id":"c","$properties":[1]}',
        '{"$distinct_id":true}', "3", '"x"', "[{}]", "{}",
    ]  # fmt: skip
    page = parse_page(f'{{"results":[{",".join(entries)}]}}'.encode())
    assert (page.ids, page.properties) == (["a", "b", "-1.5"], ["{}"] * 3)
    assert page.rejects == entries[3:]


@pytest.mark.parametrize(
    "body",
    [
        b"", b"[]", b"{}", b'{"results":{}}', b'{"results":[1 2]}', b'{"results":[],"total":1} x', b'{"results":[]',
        b'{"results":[],"error":"no"}', b'{"error":"no","results":[]}', b"{1:2}", b'{"results" []}', b'{"a":1 "b":2}',
        b'{"results":[{"$distinct_id":"a","$properties":{"k":[}}]}', b'{"results":[{"$distinct_id":"a"]}', b'{"error":}',
        b'{"session_id":',
    ],
)  # fmt: skip
def test_what_is_not_a_whole_page_is_an_error(body: bytes) -> None:
    """It is never taken for a page with fewer profiles."""
    with pytest.raises(ValueError, match=r"the response|the page"):
        parse_page(body)


def test_numbers_of_a_page_may_be_missing_or_odd() -> None:
    """Only whole numbers count, and of a repeated key the first value."""
    body = b'{"page":"1","page_size":1.5,"total":null,"session_id":7,"results":[],"results":[3],"error":null}'
    page = parse_page(body)
    assert (page.number, page.page_size, page.total, page.session, page.entries) == (
        None,
        None,
        None,
        None,
        0,
    )
