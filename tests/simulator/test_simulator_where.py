"""The simulator's `where`: which events an expression matches, and which expressions are refused."""

import json
import operator
from datetime import UTC, date, datetime
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

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


def matches(expression: str, properties: bytes = TEXT, time: bytes = b"%d" % MOMENT) -> bool:
    """Return whether the expression matches the event."""
    return compiled(expression)(time, properties)


@pytest.mark.parametrize(
    "expression",
    [
        # Observed in the field.
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
        'boolean(properties["paid"]) and not boolean(properties["trial"])',
        'boolean("true") and boolean("x") and boolean(1) and boolean([])',
        'not boolean("false") and not boolean("") and not boolean(0) and not boolean(properties["city"])',
        'not boolean(properties["coupon"])',
        # Arithmetic.
        'properties["seats"] + 1 == 13 and properties["seats"] - 1 == 11',
        'properties["seats"] * 2 == 24 and properties["seats"] / 8 == 1.5',
        "1 + 2 * 3 == 7 and (1 + 2) * 3 == 9",
        "10 - 3 - 2 == 5 and 100 / 5 / 2 == 10 and 2 * 7 % 4 == 2",
        "7 % 3 == 1 and -7 % 3 == -1 and 7 % -3 == 1",
        '-properties["seats"] == -12 and - - 1 == 1 and 3 -2 == 1',
        "0.1 + 0.2 == 0.3",
        '"te" + "am" == properties["plan"]',
        "floor(1.5) == 1 and ceil(1.5) == 2 and floor(-1.5) == -2 and ceil(-1.5) == -1",
        "round(1.5) == 2 and round(-1.5) == -2 and round(1.4) == 1 and round(2.5) == 3",
        'number(properties["numeral"]) + 1 == 13',
        "1 < 2 == true and 1 == 1 == true",
        "true == not false",
        # Lists.
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
        # Text and keys.
        r'properties["quote"] == "say \"hi\" \\ \u00e9 \ud83c\udf88\n"',
        r'"\/" == "/"',
        'properties[""] == "empty key"',
        r'properties["odd \"key\" \\ é"] == 1',
        ' \n\tproperties\n["plan"]\t==\n"team" ',
    ],
)
def test_expressions_that_match(expression: str) -> None:
    """The documented grammar and the observed forms match the event that they describe."""
    assert matches(expression)


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
        "1 < 2 < 3",
        'defined(properties["seats"] / 0)',
        'defined(properties["seats"] % 0)',
        "defined(0 / 0)",
        'defined(properties["plan"] + 1)',
        'defined(properties["plan"] - "m")',
        'defined(properties["paid"] * 1)',
        'defined(properties["city"] + properties["city"])',
        'defined(-properties["plan"])',
        'defined(floor(properties["plan"])) or defined(round(properties["paid"])) or defined(ceil(properties["city"]))',
        "1 + not true",
    ],
)
def test_expressions_that_do_not_match(expression: str) -> None:
    """Undefined values, other types and other values do not match."""
    assert not matches(expression)


def test_different_types_are_not_equal() -> None:
    """`!=` is the opposite of `==`, also for different types and undefined properties."""
    assert matches('properties["plan"] != 1 and properties["city"] != "x" and user["$email"] != "x"')
    assert not matches('properties["plan"] != "team"')


def test_a_missing_or_invalid_time_is_undefined() -> None:
    """An event without a valid time is neither before nor after any moment."""
    for time in (b"", b"null", b'"yesterday"'):
        assert not matches('defined(event["$time"])', time=time)
        assert not matches('event["$time"] >= datetime(0) or event["$time"] < datetime(0)', time=time)
    assert matches('event["$time"] == datetime(0.5)', time=b"500000000000.0") is False
    assert matches('event["$time"] == datetime("2023-11-14T22:13:20.123")', time=b"1700000000123")


@pytest.mark.parametrize(
    "number", ["2033513821949367296", "9" * 5000, "0." + "1" * 40, "1e308", "1e400", "-0.1"]
)
def test_numbers_of_any_length_are_exact(number: str) -> None:
    """A number equals itself and no other number, beyond the range of a double and of Python's integer parser."""
    properties = b'{"n": %s}' % number.encode()
    assert matches(f'properties["n"] == {number}', properties)
    other = number.replace("1", "2", 1) if "1" in number else number[:-1] + "8"
    assert not matches(f'properties["n"] == {other}', properties)


def test_huge_exponents_have_an_order() -> None:
    """A number with a huge exponent is larger, or closer to zero, than every other number."""
    properties = (
        b'{"huge": 1e9999999999999999999, "tiny": -1e-9999999999999999999, "low": -1e9999999999999999999}'
    )
    assert matches('properties["huge"] > 1e300 and properties["tiny"] <= 0', properties)
    assert matches('properties["low"] < -1e300 and string(properties["huge"]) != "1"', properties)
    assert matches('string(properties["n"]) == "1E+999999"', b'{"n": 1e999999}')


def test_properties_can_be_invalid_text() -> None:
    """Invalid UTF-8 and raw control bytes in one property do not affect the others."""
    assert matches('properties["a"] == 1', b'{"bad": "\xff \x01 \\ud83d", "a": 1}')


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
        ("length(1)", "unexpected length"),
        ("floor(1, 2)", "unexpected ,"),
        ("1 + ", "unexpected end"),
        ("+ 1", r"unexpected \+"),
        ("1 ** 2", r"unexpected \*"),
        ("datetime(- -1)", "unexpected -"),
        ("defined()", r"unexpected \)"),
        ("defined(1, 2)", "unexpected ,"),
        ('datetime(properties["a"])', "unexpected properties"),
        ('datetime("yesterday")', "is not a time"),
        ("datetime(1e30)", "is not a time"),
        ("datetime(-900000000000)", "is not a time"),
        ('datetime("0001-01-01T00:00:00+05:00")', "is not a time"),
        ("any(X, [1])", r"unexpected \)"),
        ("any(1, [1], true)", "unexpected 1"),
        ("any(not, [1], true)", "unexpected not"),
        ("any(properties, [1], true)", "unexpected properties"),
        ("any(X, [1], true) and X", "unexpected X"),
    ],
)
def test_refused_expressions(expression: str, message: str) -> None:
    """An expression that cannot be parsed is refused, and the message shows where."""
    with pytest.raises(WhereError, match=f"^{message}|{message}$"):
        compiled(expression)


@pytest.mark.parametrize(
    "begin, end",
    [
        ("(", ")"),
        ("[", "]"),
        ("not ", ""),
        ("-", ""),
        ("defined(", ")"),
        ("floor(", ")"),
        ("any(X, [1], ", ")"),
        ('string("a", ', ")"),
    ],
)
def test_depth_is_bounded(begin: str, end: str) -> None:
    """Every kind of nesting is refused beyond the maximum depth, before Python's stack is exhausted."""
    for depth in (MAX_DEPTH, 50_000):
        with pytest.raises(WhereError, match=f"nested more than ({MAX_DEPTH}|{MAX_ANY}) deep"):
            compiled(begin * depth + "true" + end * depth)
    compiled(begin * MAX_ANY + "true" + end * MAX_ANY)


def test_nested_any_is_bounded() -> None:
    """`any` inside `any` is refused beyond the maximum depth; side by side there is no maximum."""
    with pytest.raises(WhereError, match=f"nested more than {MAX_ANY} deep"):
        compiled("any(X, [1], " * (MAX_ANY + 1) + "true" + ")" * (MAX_ANY + 1))
    assert matches(" and ".join(["any(X, [1], X == 1)"] * (MAX_ANY + 1)))


def test_long_expressions_are_not_deep() -> None:
    """Thousands of operators on one level do not count as nesting."""
    many = " or ".join(f'properties["seats"] == {number}' for number in range(5000))
    assert matches(many)
    assert matches(f'properties["seats"] in [{",".join(map(str, range(5000)))}]')
    assert not matches(f"not ({many})")
    assert matches(f"1{' + 1' * 5000} == 5001")
    assert matches(f"true{' == true' * 5000}")


TOKENS = (
    *("(", ")", "[", "]", ",", "==", "!=", "<", ">=", "in", "+", "-", "/", "%"),
    *("and", "OR", "not", "true", "X", "1", "2.5", '"a"', 'properties["plan"]', 'user["a"]', 'event["$time"]'),
    *("defined(", "number(", "boolean(", "round(", "string(", "any(X,", "datetime("),
)  # fmt: skip


@given(st.one_of(st.text(), st.lists(st.sampled_from(TOKENS), max_size=12).map(" ".join)))
def test_any_text_is_compiled_or_refused(expression: str) -> None:
    """For all texts, the result is a predicate that returns a boolean, or WhereError."""
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
    """Draw an expression and its meaning in Python, as a function of the properties."""
    kind = draw(st.sampled_from(["defined", "==", "!=", "<", "in", *(["and", "or", "not"] if depth else [])]))
    key = draw(st.sampled_from(KEYS))
    name = f"properties[{json.dumps(key)}]"
    if kind in {"and", "or"}:
        (left, left_value), (right, right_value) = draw(expressions(depth - 1)), draw(expressions(depth - 1))
        joined = f"({left}) {draw(st.sampled_from([kind, kind.upper()]))} ({right})"
        if kind == "and":
            return joined, lambda properties: left_value(properties) and right_value(properties)
        return joined, lambda properties: left_value(properties) or right_value(properties)
    if kind == "not":
        inner, value = draw(expressions(depth - 1))
        return f"not ({inner})", lambda properties: not value(properties)
    if kind == "defined":
        return f"defined({name})", lambda properties: key in properties
    values = draw(st.lists(scalars, min_size=1, max_size=3)) if kind == "in" else [draw(scalars)]
    literal = json.dumps(values if kind == "in" else values[0])

    def meaning(properties: dict[str, Any]) -> bool:
        actual: Any = properties.get(key)
        comparable = [value for value in values if family(value) == family(actual)]
        if kind == "<":
            return any(actual < value for value in comparable if not isinstance(value, bool))
        return (actual in comparable) is not (kind == "!=")

    return f"{name} {kind} {literal}", meaning


def family(value: object) -> str:
    return "number" if type(value) in {int, float} else type(value).__name__


@given(expressions(), st.dictionaries(st.sampled_from(KEYS), scalars))
def test_expressions_mean_the_same_as_in_python(
    expression: tuple[str, Any], properties: dict[str, Any]
) -> None:
    """For all expressions and properties, the predicate agrees with the same operators in Python."""
    text, meaning = expression
    assert matches(text, json.dumps(properties).encode()) is bool(meaning(properties))


@st.composite
def sums(draw: st.DrawFn, depth: int = 3) -> tuple[str, Fraction | None]:
    """Draw an arithmetic expression and its value; None if it is undefined."""
    kind = draw(st.sampled_from(["literal", *(["+", "-", "*", "/", "%", "negative"] if depth else [])]))
    if kind == "literal":
        number = draw(st.integers(-99, 99))
        return str(number), Fraction(number)
    left, left_value = draw(sums(depth - 1))
    if kind == "negative":
        return f"-({left})", None if left_value is None else -left_value
    right, right_value = draw(sums(depth - 1))
    text = f"({left}) {kind} ({right})"
    if left_value is None or right_value is None or (kind in "/%" and not right_value):
        return text, None
    if kind == "%":
        return text, left_value - right_value * int(left_value / right_value)
    operation = {"+": operator.add, "-": operator.sub, "*": operator.mul, "/": operator.truediv}[kind]
    return text, operation(left_value, right_value)


@given(sums())
def test_arithmetic_means_the_same_as_in_python(expression: tuple[str, Fraction | None]) -> None:
    """For all arithmetic expressions, the value agrees with Python's fractions to 30 digits, or is undefined."""
    text, value = expression
    # Remainders of rounded quotients may differ by a whole divisor, so only whole operands are compared.
    assume("/" not in text or "%" not in text)
    if value is None:
        assert matches(f"not defined({text})")
        return
    low, high = (f"{value.numerator} / {value.denominator} {sign} 1 / 1{'0' * 30}" for sign in "-+")
    assert matches(f"{text} >= {low} and {text} <= {high}")
