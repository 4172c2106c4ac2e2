"""The simulator's `where`: which events an expression wants, and what is no expression."""

import json
from datetime import UTC, date, datetime
from itertools import chain
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support import simulator

from mixpanel_export.simulator import Rules, Simulator, checksum
from mixpanel_export.simulator.where import MAX_ANY, MAX_DEPTH, WhereError, compiled

FIRST, LAST = date(2024, 3, 4), date(2024, 3, 6)
MOMENT = int(datetime(2024, 3, 4, 12, tzinfo=UTC).timestamp())
PROPERTIES = {
    "time": MOMENT,
    "mp_processing_time_ms": 1709553600123,
    "plan": "team",
    "seats": 12,
    "price": 15.5,
    "paid": True,
    "trial": False,
    "coupon": None,
    "numeral": " 12 ",
    "quote": 'say "hi" \\ é 🎈\n',
    "tags": ["a", "b", 7, True],
    "cart": {"n": 1},
    "": "empty key",
    'odd "key" \\ é': 1,
}
TEXT = json.dumps(PROPERTIES).encode()


def wanted(expression: str, properties: bytes = TEXT, time: bytes = b"%d" % MOMENT) -> bool:
    """Whether the expression wants the event."""
    return compiled(expression)(time, properties)


@pytest.mark.parametrize(
    "expression",
    [
        # As they were seen in the field.
        'properties["seats"] in [1,2,3,12]',
        'defined(properties["plan"])',
        'not defined(properties["city"])',
        'not defined(user["$email"])',
        'event["$time"] >= datetime("2024-03-04T00:00:00")',
        'properties["$time"]>=datetime(1709510400) and properties["$time"]<datetime(1709596800)',
        'properties["mp_processing_time_ms"] > 1709553600122 and properties["mp_processing_time_ms"] < 1709553600124',
        'number(properties["mp_processing_time_ms"]) < 1800000000000',
        '(defined (properties["tags"])) AND ((any(X, properties["tags"], X="b")) OR false)'.replace(
            "=", "=="
        ),
        '(defined (properties["plan"])) AND ((any(X, properties["plan"], X=="v")) OR (string(properties["plan"], "undefined") == "team"))',
        # Comparisons.
        'properties["plan"] == "team"',
        '"team" == properties["plan"]',
        'properties["plan"] != "free"',
        'properties["seats"] == 12.0',
        'properties["price"] <= 15.5 and properties["price"] >= 1.55e1',
        'properties["price"] > -3',
        'properties["plan"] < "tean"',
        'properties["paid"] == true and properties["trial"] == FALSE',
        'properties["paid"]',
        'not properties["trial"]',
        "true",
        '"ea" in properties["plan"]',
        '"a" in properties["tags"]',
        'properties["plan"] in ["free", properties["plan"]]',
        'not ("z" in properties["tags"])',
        'properties["tags"] == ["a", "b", 7, true]',
        # Times.
        'event["$time"] == datetime("2024-03-04T12:00:00")',
        'event["$time"] == datetime("2024-03-04T13:00:00+01:00")',
        f'event["$time"] == datetime({MOMENT})',
        f'event["$time"] < datetime({MOMENT}.5)',
        'event["$time"] > datetime("2024-03-04") and event["$time"] < datetime("2024-03-05")',
        # Casts.
        'number(properties["numeral"]) == 12',
        'number(properties["paid"]) == 1 and number(properties["trial"]) == 0',
        'not defined(number(properties["plan"]))',
        'not defined(number(properties["cart"]))',
        'string(properties["seats"]) == "12" and string(properties["price"]) == "15.5"',
        'string(properties["paid"]) == "true"',
        'string(properties["city"], "nowhere") == "nowhere"',
        'not defined(string(properties["city"]))',
        'not defined(string(properties["cart"], "x"))',
        # Lists of things.
        'any(X, properties["tags"], X == 7 or X == "z")',
        'any(a, ["x", "y"], any(b, properties["tags"], b == "a" and a == "y"))',
        # Logic and precedence.
        "false and false or true",
        "true or true and false",
        "not false and true",
        "not false == true",
        "not not true",
        "NOT False And TRUE",
        "((true))",
        # Strings and keys.
        r'properties["quote"] == "say \"hi\" \\ \u00e9 \ud83c\udf88\n"',
        r'"\/" == "/"',
        'properties[""] == "empty key"',
        r'properties["odd \"key\" \\ é"] == 1',
        ' \n\tproperties\n["plan"]\t==\n"team" ',
    ],
)
def test_what_is_true(expression: str) -> None:
    """The forms that clients send find the event they describe."""
    assert wanted(expression)


@pytest.mark.parametrize(
    "expression",
    [
        "false",
        '"true"',
        "1",
        'properties["plan"]',
        'not properties["plan"]',
        'properties["city"]',
        'properties["plan"] == "Team"',
        'properties["seats"] == "12"',
        'properties["numeral"] == 12',
        'properties["paid"] == 1',
        'properties["paid"] == "true"',
        'properties["paid"] > properties["trial"]',
        'properties["seats"] > "1"',
        'properties["plan"] > 1',
        'properties["city"] == properties["city"]',
        'properties["city"] < 5 or properties["city"] >= 5',
        'properties["coupon"] == properties["coupon"]',
        'defined(properties["coupon"])',
        'user["$email"] == "a@b.c"',
        'user["plan"] == "team"',
        'event["plan"] == "team"',
        'defined(user["$time"])',
        'properties["time"] >= datetime("2024-03-04")',
        f'event["$time"] == {MOMENT}',
        '1 in properties["tags"]',
        '7 in properties["plan"]',
        '"n" in properties["cart"]',
        'properties["city"] in [1, 2]',
        'properties["coupon"] in [properties["coupon"]]',
        'properties["seats"] in []',
        'any(X, properties["cart"], true)',
        'any(X, properties["city"], true)',
        'any(X, properties["tags"], X == "c")',
        'number(properties["plan"]) < 5',
    ],
)
def test_what_is_false(expression: str) -> None:
    """Undefined properties, other types and other values are no match."""
    assert not wanted(expression)


def test_different_types_are_not_equal() -> None:
    """`!=` is the opposite of `==`, for other types and undefined properties too."""
    assert wanted('properties["plan"] != 1 and properties["city"] != "x" and user["$email"] != "x"')
    assert not wanted('properties["plan"] != "team"')


def test_an_event_without_time_is_neither_before_nor_after() -> None:
    """Where the time is missing or none, it is undefined."""
    for time in (b"", b"null", b'"yesterday"'):
        assert not wanted('defined(event["$time"])', time=time)
        assert not wanted('event["$time"] >= datetime(0) or event["$time"] < datetime(0)', time=time)
    assert wanted('event["$time"] == datetime(0.5)', time=b"500000000000.0") is False
    assert wanted('event["$time"] == datetime("2023-11-14T22:13:20.123")', time=b"1700000000123")


@pytest.mark.parametrize(
    "number", ["2033513821949367296", "9" * 5000, "0." + "1" * 40, "1e308", "1e400", "-0.1"]
)
def test_numbers_of_any_length_are_exact(number: str) -> None:
    """A number equals itself and no other, beyond what a double or an int of Python's reader holds."""
    properties = b'{"n": %s}' % number.encode()
    assert wanted(f'properties["n"] == {number}', properties)
    other = number.replace("1", "2", 1) if "1" in number else number[:-1] + "8"
    assert not wanted(f'properties["n"] == {other}', properties)


def test_exponents_beyond_any_computer_have_an_order() -> None:
    """Such a number is larger, or closer to zero, than every other."""
    properties = (
        b'{"huge": 1e9999999999999999999, "tiny": -1e-9999999999999999999, "low": -1e9999999999999999999}'
    )
    assert wanted('properties["huge"] > 1e300 and properties["tiny"] <= 0', properties)
    assert wanted('properties["low"] < -1e300 and string(properties["huge"]) != "1"', properties)
    assert wanted('string(properties["n"]) == "1E+999999"', b'{"n": 1e999999}')


def test_properties_need_not_be_clean_text() -> None:
    """Invalid UTF-8 and raw control bytes in one property leave the others as they are."""
    assert wanted('properties["a"] == 1', b'{"bad": "\xff \x01 \\ud83d", "a": 1}')


@pytest.mark.parametrize(
    "expression, message",
    [
        ("", "unexpected end"),
        ("   ", "unexpected end"),
        ("properties[", "unexpected end"),
        ('properties["a"', "unexpected end"),
        ("properties", "unexpected end"),
        ("properties.plan == 1", r"unexpected \.plan == 1"),
        ("properties['plan'] == 1", "unexpected 'plan'"),
        ("properties[plan] == 1", "unexpected plan"),
        ('properties["a"] <> 1', "unexpected >"),
        ('properties["a"] == ', "unexpected end"),
        ('properties["a"] == 1 == 1', "unexpected =="),
        ('properties["a"] === 1', "unexpected ="),
        ('properties["a"] == 1 properties["b"] == 2', "unexpected properties"),
        ('properties["a] == 1', 'unexpected "a]'),
        (r'properties["\x"] == 1', "unknown escape"),
        (r'properties["\u12"] == 1', "unknown escape"),
        ("true and", "unexpected end"),
        ("and true", "unexpected and"),
        ("true && false", "unexpected &&"),
        ("(true", "unexpected end"),
        ("true)", r"unexpected \)"),
        ("[1,]", r"unexpected \]"),
        ("[1 2]", "unexpected 2"),
        ("nothing", "unexpected nothing"),
        ("floor(1)", "unexpected floor"),
        ("1 + 1 == 2", r"unexpected \+"),
        ("defined()", r"unexpected \)"),
        ("defined(1, 2)", "unexpected ,"),
        ('datetime(properties["a"])', "unexpected properties"),
        ('datetime("yesterday")', "is no time"),
        ("datetime(1e30)", "is no time"),
        ("datetime(-900000000000)", "is no time"),
        ('datetime("0001-01-01T00:00:00+05:00")', "is no time"),
        ("any(X, [1])", r"unexpected \)"),
        ("any(1, [1], true)", "unexpected 1"),
        ("any(not, [1], true)", "unexpected not"),
        ("any(properties, [1], true)", "unexpected properties"),
        ("any(X, [1], true) and X", "unexpected X"),
    ],
)
def test_what_is_no_expression(expression: str, message: str) -> None:
    """A mistake is refused with the place where it shows."""
    with pytest.raises(WhereError, match=f"^{message}|{message}$"):
        compiled(expression)


@pytest.mark.parametrize(
    "begin, end",
    [("(", ")"), ("[", "]"), ("not ", ""), ("defined(", ")"), ("any(X, [1], ", ")"), ('string("a", ', ")")],
)
def test_depth_is_bounded(begin: str, end: str) -> None:
    """However an expression is nested, too deep is a mistake and never the end of Python's stack."""
    for depth in (MAX_DEPTH, 50_000):
        with pytest.raises(WhereError, match=f"nested more than {MAX_DEPTH} deep|more than {MAX_ANY} any"):
            compiled(begin * depth + "true" + end * depth)
    compiled(begin * MAX_ANY + "true" + end * MAX_ANY)


def test_loops_in_loops_are_bounded() -> None:
    """One `any` more in the others than allowed is a mistake; side by side there may be any number."""
    with pytest.raises(WhereError, match=f"more than {MAX_ANY} any"):
        compiled("any(X, [1], " * (MAX_ANY + 1) + "true" + ")" * (MAX_ANY + 1))
    assert wanted(" and ".join(["any(X, [1], X == 1)"] * (MAX_ANY + 1)))


def test_what_is_long_is_not_deep() -> None:
    """Thousands of alternatives on one level are an expression like any other."""
    many = " or ".join(f'properties["seats"] == {number}' for number in range(5000))
    assert wanted(many)
    assert wanted(f'properties["seats"] in [{",".join(map(str, range(5000)))}]')
    assert not wanted(f"not ({many})")


TOKENS = (
    *(
        "(",
        ")",
        "[",
        "]",
        ",",
        "==",
        "!=",
        "<",
        ">=",
        "in",
        "and",
        "OR",
        "not",
        "true",
        "X",
        "1",
        "-2.5",
        '"a"',
    ),
    *(
        'properties["plan"]',
        'user["a"]',
        'event["$time"]',
        "defined(",
        "number(",
        "string(",
        "any(X,",
        "datetime(",
    ),
)


@given(st.one_of(st.text(), st.lists(st.sampled_from(TOKENS), max_size=12).map(" ".join)))
def test_any_text_is_an_expression_or_a_mistake(expression: str) -> None:
    """For all texts, reading ends in a predicate that answers, or in the one error there is."""
    try:
        predicate = compiled(expression)
    except WhereError:
        return
    assert predicate(b"%d" % MOMENT, TEXT) in {True, False}


KEYS = ("a", "b", "c", 'q"\\ é')
scalars = st.one_of(
    st.booleans(),
    st.text(max_size=4),
    st.integers(-(10**30), 10**30),
    st.floats(allow_nan=False, allow_infinity=False, width=32),
)


@st.composite
def expressions(draw: st.DrawFn, depth: int = 3) -> tuple[str, Any]:
    """Draw an expression with what Python says of it, as a function of the properties."""
    kind = draw(st.sampled_from(["defined", "==", "!=", "<", "in", *(["and", "or", "not"] if depth else [])]))
    key = draw(st.sampled_from(KEYS))
    name = f"properties[{json.dumps(key)}]"
    if kind in {"and", "or"}:
        (left, says_left), (right, says_right) = draw(expressions(depth - 1)), draw(expressions(depth - 1))
        joined = f"({left}) {draw(st.sampled_from([kind, kind.upper()]))} ({right})"
        if kind == "and":
            return joined, lambda properties: says_left(properties) and says_right(properties)
        return joined, lambda properties: says_left(properties) or says_right(properties)
    if kind == "not":
        inner, says = draw(expressions(depth - 1))
        return f"not ({inner})", lambda properties: not says(properties)
    if kind == "defined":
        return f"defined({name})", lambda properties: key in properties
    values = draw(st.lists(scalars, min_size=1, max_size=3)) if kind == "in" else [draw(scalars)]
    written = json.dumps(values if kind == "in" else values[0])

    def says_of(properties: dict[str, Any]) -> bool:
        given: Any = properties.get(key)
        alike = [value for value in values if family(value) == family(given)]
        if kind == "<":
            return any(given < value for value in alike if not isinstance(value, bool))
        return (given in alike) is not (kind == "!=")

    return f"{name} {kind} {written}", says_of


def family(value: object) -> str:
    return "number" if type(value) in {int, float} else type(value).__name__


@given(expressions(), st.dictionaries(st.sampled_from(KEYS), scalars))
def test_expressions_mean_what_python_says(expression: tuple[str, Any], properties: dict[str, Any]) -> None:
    """For all expressions and properties, the predicate is what the same words mean in Python."""
    written, says = expression
    assert wanted(written, json.dumps(properties).encode()) is bool(says(properties))


async def get(sim: Simulator, where: str, **params: str) -> httpx.Response:
    """Ask once over the transport."""
    days = {"from_date": str(FIRST), "to_date": str(LAST), "project_id": "12345"}
    auth = ("demo.mp-service-account", "demo-secret")
    async with httpx.AsyncClient(base_url="http://simulator", transport=sim.transport(), auth=auth) as http:
        return await http.get("/api/2.0/export", params=days | {"where": where} | params)


def lines(response: httpx.Response) -> list[bytes]:
    """The lines of a body, sorted."""
    assert response.status_code == 200, response.text
    return sorted(response.content.split(b"\n")[:-1])


@pytest.mark.anyio
async def test_an_answer_holds_what_the_expression_wants() -> None:
    """An answer is the lines whose own properties fulfil the expression, as truth says too, again and again."""
    sim = simulator(events_per_day=300)
    sim.prepare(FIRST, LAST)
    every = sorted(sim.lines(FIRST, LAST))
    teams = [line for line in every if json.loads(line)["properties"].get("plan") == "team"]
    assert 0 < len(teams) < len(every)
    where = 'properties["plan"] == "team"'
    for _ in range(2):
        assert lines(await get(sim, where)) == teams == sorted(sim.lines(FIRST, LAST, where=where))
        assert lines(await get(sim, "true")) == every
        assert lines(await get(sim, "false")) == []
    truth = sim.truth(FIRST, LAST, where=where)
    assert truth.rows == len(teams)
    assert truth.checksum == checksum(sim.rows(FIRST, LAST, where=where)) != sim.truth(FIRST, LAST).checksum


@pytest.mark.anyio
async def test_the_expression_goes_with_the_other_parameters() -> None:
    """Events, limit and milliseconds apply to what the expression leaves."""
    sim = simulator(events_per_day=300)
    where, names = 'properties["plan"] == "team"', ["Page View"]
    both = sorted(sim.lines(FIRST, LAST, events=names, where=where))
    assert lines(await get(sim, where, event=json.dumps(names))) == both
    assert set(both) < set(sim.lines(FIRST, LAST, where=where))
    assert len(lines(await get(sim, where, limit="5"))) == 5
    in_ms = lines(await get(sim, f'{where} and event["$time"] < datetime("2024-03-05")', time_in_ms="true"))
    assert {len(str(json.loads(line)["properties"]["time"])) for line in in_ms} >= {13}


@pytest.mark.anyio
async def test_times_divide_a_day() -> None:
    """Every event of a day lies before a moment, or from it on, or has no time."""
    sim = simulator(events_per_day=300)
    noon = 'datetime("2024-03-05T12:00:00")'
    parts = [f'event["$time"] < {noon}', f'properties["$time"] >= {noon}', 'not defined(event["$time"])']
    answers = [lines(await get(sim, part)) for part in parts]
    assert all(answers)
    assert sorted(chain(*answers)) == sorted(sim.lines(FIRST, LAST))


@pytest.mark.anyio
@pytest.mark.parametrize("where", ["", "properties[", "(" * 2000])
async def test_a_malformed_expression_is_400(where: str) -> None:
    """A mistake is a JSON error that says what is wrong with `where`, or what it is told to say."""
    refused = await get(simulator(), where)
    assert refused.status_code == 400
    assert refused.json()["error"].startswith("invalid where: ")
    worded = await get(simulator(rules=Rules(wording={"where": "no such selector"})), where)
    assert worded.json()["error"] == "no such selector"


def test_truth_needs_a_wellformed_expression() -> None:
    """A mistake is a ValueError where no request is answered."""
    with pytest.raises(ValueError, match="unexpected end"):
        simulator().truth(FIRST, LAST, where="properties[")
