"""The flat table has every value of every key, whatever was sent, in whatever order."""

import json
from typing import Any

import duckdb
from examples import examples
from flats import equal, held, make_flat, remove, sent, store, types
from hypothesis import example, given
from hypothesis import strategies as st

KEYS = ["a", "A", "b", "", "$browser", "a/b", "~c", "event_name", "EXPORT_BATCH", "_other", "_empty", 'x"y', "nul\0", "é"]  # fmt: skip
DIGITS = st.text("0123456789", min_size=1, max_size=20)
INTEGERS = st.one_of(st.integers(-20, 20), st.integers()).map(str) | st.just("-0")
FRACTIONS = st.builds("{}{}.{}".format, st.sampled_from(["", "-"]), st.integers(0, 10**9), DIGITS)
EXPONENTS = st.builds(
    "{}{}{}{}".format, FRACTIONS | INTEGERS, st.sampled_from("eE"), st.sampled_from(["", "+", "-"]), DIGITS.map(lambda digits: digits[:3])
)  # fmt: skip
NUMBERS = INTEGERS | st.floats(allow_nan=False, allow_infinity=False).map(repr) | FRACTIONS | EXPONENTS
TIMES = st.datetimes().map(lambda time: time.replace(microsecond=0).isoformat())
TEXTS = st.one_of(
    st.text(st.characters(exclude_categories=["Cs"])),
    TIMES,
    TIMES.map(lambda text: text + "Z"),
    NUMBERS,
    st.sampled_from(['":1e5', ",1.50", "[12345678.5,", "\x01", "\x01x", "null", "true", "\\u0001", "2024-02-30T00:00:00"]),
)  # fmt: skip


@st.composite
def json_text(draw: st.DrawFn, values: st.SearchStrategy[Any]) -> str:
    """A value as JSON; strings with or without escapes, and white space where it may be."""
    return _written(draw(values), escaped=draw(st.booleans()), space=draw(st.sampled_from(["", " ", "\t"])))


class Raw(str):
    """JSON that is written unchanged."""

    __slots__ = ()


def _written(value: Any, *, escaped: bool, space: str) -> str:
    match value:
        case Raw():
            return value
        case list():
            items = f"{space},{space}".join(_written(item, escaped=escaped, space=space) for item in value)
            return f"[{items}]"
        case tuple():
            members = f"{space},{space}".join(
                f"{json.dumps(key)}{space}:{space}{_written(item, escaped=escaped, space=space)}"
                for key, item in value
            )
            return f"{{{members}}}"
        case _:
            return json.dumps(value, ensure_ascii=escaped)


SCALARS = st.one_of(NUMBERS.map(Raw), TEXTS, st.booleans(), st.none())
VALUES = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=3) | st.lists(st.tuples(st.sampled_from(KEYS), inner), max_size=3).map(tuple)
    ),
    max_leaves=5,
)
KINDS = [INTEGERS.map(Raw), (INTEGERS | FRACTIONS).map(Raw), NUMBERS.map(Raw), TIMES, TEXTS, st.booleans(), VALUES]  # fmt: skip


@st.composite
def batches(draw: st.DrawFn) -> list[list[str]]:
    """The properties of the events of some batches; most keys have values of one kind."""
    kinds = {key: draw(st.sampled_from(KINDS)) for key in KEYS}
    keys = draw(st.lists(st.sampled_from(KEYS), min_size=1, max_size=6))
    member = st.sampled_from(keys).flatmap(lambda key: st.tuples(st.just(key), kinds[key]))
    event = json_text(st.lists(member, max_size=6).map(tuple))
    return draw(st.lists(st.lists(event, max_size=4), min_size=1, max_size=4))


@given(batches(), st.data())
@examples(core=3, full=100)
@example([['{"a":0,"a":-0}']], None)
@example([['{"a":1}'], ['{"a":1.10}', '{"a":-0}'], ['{"a":"x,1.50"}']], None)
@example([['{"a":0.5,"b":1E5}'], ['{"a":9007199254740993,"b":"\\u0001"}']], None)
def test_every_value_is_in_the_table(texts: list[list[str]], data: st.DataObject | None) -> None:
    """Updated batch by batch in any order, with batches removed in between, it equals a table created from scratch."""
    order = list(enumerate(texts, start=1))
    removed = data.draw(st.sets(st.sampled_from([number for number, _ in order]))) if data else set()
    if data:
        order = data.draw(st.permutations(order))
    with duckdb.connect() as db:
        there: dict[int, list[str]] = {}
        for number, properties in order:
            store(db, number, properties)
            there[number] = properties
            make_flat(db)
            assert equal(held(db), sent(there))
            if number in removed:
                remove(db, number)
                del there[number]
        make_flat(db)
        assert equal(held(db), sent(there))
        incremental = types(db)
        make_flat(db, rebuild=True)
        assert equal(held(db), sent(there))
        if not removed:
            assert sorted(types(db).values()) == sorted(incremental.values())
