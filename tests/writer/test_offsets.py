"""The offsets of event names and properties are correct, whatever else a line has."""

import json

import duckdb
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mixpanel_export._writer.arrow import LINE, line_arrays
from mixpanel_export._writer.offsets import BEGIN, BETWEEN, IndexedText, LineIndex, index_lines
from mixpanel_export._writer.prepared import LINES, ArrowTable

EVENT = b'{"event":"e","properties":{"a":1}}'
names = st.text(st.characters(codec="utf-8"), max_size=40) | st.sampled_from(["\\", '"', '\\"', "a\\\\", ""])
values = st.dictionaries(st.text(max_size=5), st.integers() | st.text(max_size=8), max_size=3)
odd_lines = st.binary(max_size=60).map(lambda line: line.replace(b"\n", b"")) | st.sampled_from(
    [
        b"",
        b" \r",
        EVENT[:-1],
        EVENT + b" ",
        b'{"event":"e\n'.replace(b"\n", b""),
        BEGIN.encode() + b"x" * 50,
        (BEGIN + BETWEEN).encode() + b"}",
        b'{"properties":{},"event":"e"}',
    ]
)


def text_of(lines: list[bytes], start: int = 0) -> IndexedText:
    text = b"".join(line + b"\n" for line in lines)
    where = index_lines(text)
    return IndexedText(text, where, where.regular.astype(np.int64) + start)


def table_of(text: IndexedText) -> list[tuple[list[str], int]]:
    with duckdb.connect() as connection:
        statement = f"SELECT line::VARCHAR[], number FROM {LINES} ORDER BY number"
        return ArrowTable(connection, LINE).run(statement, line_arrays(text))


def regular(name: str, properties: dict[str, object], *, ascii_only: bool, end: bytes = b"") -> bytes:
    event, value = (json.dumps(part, ensure_ascii=ascii_only) for part in (name, properties))
    return f'{{"event":{event},"properties":{value}}}'.encode() + end


@given(
    lines=st.lists(
        st.tuples(
            st.just(True),
            st.builds(regular, names, values, ascii_only=st.booleans(), end=st.sampled_from([b"", b"\r"])),
        )
        | st.tuples(st.just(False), odd_lines),
        max_size=12,
    )
)
def test_every_event_of_mixpanels_form_is_cut_into_its_text(lines: list[tuple[bool, bytes]]) -> None:
    """For all blocks, each such line yields its exact name and properties; the other lines are reported."""
    block = text_of([line for _, line in lines], 100)
    assert block.index.lines == len(lines)
    regular_numbers = set(block.index.regular.tolist())
    for number, (is_event, line) in enumerate(lines):
        assert block.line(number) == line + b"\n"
        if is_event:
            assert number in regular_numbers
    assert sorted(regular_numbers | set(block.irregular())) == [
        number
        for number, (_, line) in enumerate(lines)
        if number in regular_numbers or not (line + b"\n").isspace()
    ]
    found = {number - 100: parts for parts, number in table_of(_as_text(block))}
    for number, (is_event, line) in enumerate(lines):
        if is_event:
            name, between, properties, _ = found[number]
            assert between == BETWEEN
            assert f"{BEGIN}{name}{between}{properties}}}".encode() == line.rstrip(b"\r")


def _as_text(block: IndexedText) -> IndexedText:
    """Return the regular lines that are UTF-8, as Python shows no others, under their numbers."""
    numbers = [
        number
        for number in block.index.regular.tolist()
        if block.line(number).decode(errors="ignore").encode() == block.line(number)
    ]
    text = b"".join(map(block.line, numbers))
    return IndexedText(text, index_lines(text), np.array(numbers, dtype=np.int64) + 100)


@given(st.lists(st.booleans(), max_size=20))
def test_spans_are_those_of_whole_lines(regular: list[bool]) -> None:
    """Wherever the regular lines are, each one with its newline is between its start and its end."""
    lines = [
        b'{"event":"e%d","properties":{"a":%d}}' % (number, number) if is_regular else b"no event"
        for number, is_regular in enumerate(regular)
    ]
    block = text_of(lines)
    assert [bytes(block.text[begin:end]) for begin, end in block.index.spans.tolist()] == [
        line + b"\n" for line, is_regular in zip(lines, regular, strict=True) if is_regular
    ]


@pytest.mark.parametrize(
    "name", [b"", b"x" * 511, b"x" * 512, b"x" * 5000, b"\\\\" * 5000, b'\\"' * 255 + b"x"]
)
def test_a_name_of_any_length_is_found(name: bytes) -> None:
    """A very long name is a name, and does not affect the other lines."""
    line = BEGIN.encode() + name + BETWEEN.encode() + b"{}}"
    block = text_of([EVENT, line, EVENT])
    assert block.index.regular.tolist() == [0, 1, 2]
    assert table_of(block)[1] == ([name.decode(), BETWEEN, "{}", f"}}\n{BEGIN}"], 1)


@pytest.mark.parametrize("length", [40, 600, 5000])
@pytest.mark.parametrize("end", [b"", b"\\", b"\\\\", b'\\"', b"\t" + BETWEEN.encode() + b"{}}"])
def test_a_name_ends_in_its_line(length: int, end: bytes) -> None:
    """A line without the closing quote is irregular, whatever the next line contains."""
    odd = BEGIN.encode() + b"x" * length + end
    block = text_of([odd, EVENT, odd, odd, BETWEEN.encode() + b"{}} " + b"x" * 40, odd])
    assert block.index.regular.tolist() == [1]
    assert block.irregular() == [0, 2, 3, 4, 5]


def test_an_empty_block_has_no_lines() -> None:
    """The result is empty."""
    empty = index_lines(b"")
    assert (empty.lines, len(empty.regular)) == (0, 0)
    assert isinstance(empty, LineIndex)
