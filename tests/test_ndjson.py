"""Irregular lines, lines that need repair, and JSON as DuckDB reads and writes it."""

import json

import duckdb
import pytest
from examples import examples
from hypothesis import example, given
from hypothesis import strategies as st

from mixpanel_export._ndjson import Canonical, canonical, loads, member_text, normalized, scalar_texts


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"terminated early",
        b'{"error":',
        b'{"error":"x"}',
        b"[]",
        b"{}",
        b'{"event":"e"}',
        b'{"event":1,"properties":{}}',
        b'{"event":"e","properties":[]}',
        b'{"event":"e","properties":{}} x',
        b'{"event":"e","properties":{}',
        b'{"event":"e" "properties":{}}',
        b'{"event":"e",,"properties":{}}',
        b'{,"event":"e","properties":{}}',
        b'{1:"e","properties":{}}',
        b'{"event" "e","properties":{}}',
        b'{"event":"e","properties":' + b"[" * 100_000,
        b'{"event":"e","properties":{"a":' + b"[" * 100_000 + b"]" * 99_999 + b"}}",
    ],
)
def test_what_is_no_event(line: bytes) -> None:
    """Anything but a JSON object with a string and an object under the two names is rejected, at any depth."""
    assert canonical(line) is None


@pytest.mark.parametrize(
    "properties", ["{}", '{"a":1,}', '{"a":[1,],"b":nan}', '{"a":' + "[" * 100_000 + "]" * 100_000 + "}"]
)
@pytest.mark.parametrize("end", ["", ",", ' , "more": [1,] '])
def test_the_text_of_the_properties_is_kept(properties: str, end: str) -> None:
    """Whatever the shape of the line, the properties are exactly the text that was sent, at any depth."""
    line = f' {{"properties" : {properties}, "event":"e"{end}}} '
    shaped = f'{{"event":"e","properties":{properties}}}'
    assert canonical(line.encode()) == Canonical(shaped.encode(), repaired=False)


def shape_of(line: bytes) -> str:
    """Return what `canonical` makes of a line that must be an event."""
    shape = canonical(line)
    assert shape is not None
    return shape.line.decode()


@given(st.binary(max_size=200).filter(lambda noise: noise.count(b'"') == noise.count(b"\\") == 0))
def test_any_text_is_an_event(noise: bytes) -> None:
    """For any bytes in a string, the line is accepted, and the result is an event in canonical form."""
    event = json.loads(shape_of(b'{"event":"' + noise + b'","properties":{}}'))
    assert isinstance(event["event"], str)
    assert event["properties"] == {}


def is_sound(line: bytes) -> bool:
    """Whether the line is an event without any repair, as Python's parser sees it."""
    try:
        value = json.loads(line.decode())
    except ValueError:
        return False
    return (
        isinstance(value, dict)
        and isinstance(value.get("event"), str)
        and isinstance(value.get("properties"), dict)
    )


@given(st.binary(max_size=200))
@example(b"1")
@example(b'"text"')
@example(b"\xff")
def test_any_bytes_are_an_event_or_not(line: bytes) -> None:
    """The function never raises an error, returns JSON, and rejects no line that is an event."""
    for noisy in (line, b'{"event":"e","properties":{"a":' + line + b"}}"):
        shape = canonical(noisy)
        assert shape is not None or not is_sound(noisy)
        if shape is not None:
            assert isinstance(loads(shape.line.decode())["event"], str)


@given(st.text(), st.dictionaries(st.text(), st.text()), st.booleans())
def test_a_sound_line_is_not_changed(event: str, properties: dict[str, str], ascii_only: bool) -> None:
    """The canonical form of a canonical line is the line itself."""
    line = json.dumps(
        {"event": event, "properties": properties}, separators=(",", ":"), ensure_ascii=ascii_only
    ).encode("utf-8", "surrogatepass")
    assert canonical(line) == Canonical(line, repaired=False)


SYMBOLS = [
    *"{}[]:,",
    '"a"',
    '"a":1',
    "1",
    "-",
    "0",
    "1.5",
    ".",
    "e5",
    "E",
    "+",
    "true",
    "nan",
    "-inf",
    "INFINITY",
    "x",
]
SYMBOLS += [
    " ",
    "\t",
    "\v",
    "\n",
    "\ufeff",
    '"\\n"',
    '"\\q"',
    '"\\u12"',
    '"',
    "\\",
    "'",
    "/",
    "\x00",
    "\u2028",
    "\x01",
]
values = st.recursive(
    st.sampled_from(["1", "-0", "1.50", "1E+400", '"a"', '"\\u0041\\/"', "true", "null", "NaN", "-inf"]),
    lambda inner: (
        st.lists(inner, max_size=3).map(lambda items: f"[{','.join(items)}]")
        | st.lists(inner, min_size=1, max_size=3).map(lambda items: "{" + "".join(f'"k": {item},' for item in items) + "}")
    ),
    max_leaves=8,
)  # fmt: skip
mutated = st.builds(
    lambda text, at, symbol, cut: text[: at % (len(text) + 1)] + symbol + text[at % (len(text) + 1) + cut :],
    values,
    st.integers(0, 99),
    st.sampled_from(SYMBOLS),
    st.integers(0, 1),
)
texts = values | mutated | st.lists(st.sampled_from(SYMBOLS), max_size=6).map("".join)


@examples(core=20, full=100)
@given(st.lists(texts, min_size=1, max_size=200))
def test_json_is_what_duckdb_takes_for_json(texts: list[str]) -> None:
    """A text is parsed if and only if DuckDB accepts it."""
    with duckdb.connect() as connection:
        valid = connection.execute(
            "SELECT list_transform(?::VARCHAR[], lambda text: json_valid(text))", [texts]
        ).fetchall()[0][0]
    assert [is_json(text) for text in texts] == valid


def is_json(text: str) -> bool:
    try:
        loads(text)
    except ValueError:
        return False
    return True


@examples(core=20, full=100)
@given(
    st.lists(
        values
        | st.floats(allow_nan=False, allow_infinity=False).map(repr)
        | st.decimals(allow_nan=False, allow_infinity=False).map("{:e}".format)
        | st.integers().map(str)
        | st.text().map(json.dumps),
        min_size=1,
        max_size=200,
    )
)  # fmt: skip
def test_values_are_written_as_duckdb_writes_them(texts: list[str]) -> None:
    """Numbers, escapes and punctuation have the form of DuckDB's functions."""
    texts = [f"[{text}]" for text in texts if "\\ud" not in text]
    with duckdb.connect() as connection:
        expected = connection.execute(
            """SELECT list_transform(?::VARCHAR[], lambda text: json_extract_string('{"a":' || text || '}', '$.a'))""",
            [texts],
        ).fetchall()[0][0]
    assert [normalized(text) for text in texts] == expected


@pytest.mark.parametrize("depth", [3, 5000])
def test_depth_changes_nothing(depth: int) -> None:
    """A value is parsed and written in the same way at any depth."""
    text = '{"a": [' * depth + "1" + ",]}" * depth
    value = loads(text)
    for _ in range(depth):
        (value,) = value["a"]
    assert value == 1
    assert normalized(text) == '{"a":[' * depth + "1" + "]}" * depth


def test_the_first_of_equal_keys_counts() -> None:
    """In every object, at any depth, and with either parser, the first value is used."""
    assert loads('{"a":{"b":1,"b":2},"a":3}') == loads('{"a":{"b":1,"b":2,},"a":3,}') == {"a": {"b": 1}}
    assert member_text('{"a": [1 , 2],"a":3}', "a") == "[1 , 2]"
    assert scalar_texts('{"a":"x\\n","b":1.50,"c":null}', ["a", "b", "c", "d"]) == ["x\n", "1.50", None, None]


def test_a_number_of_any_length_is_a_number() -> None:
    """Integers longer than Python converts by default keep every digit."""
    assert str(loads("9" * 5000)) == "9" * 5000
