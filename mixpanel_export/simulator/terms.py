"""Evaluates `where` expressions. A term is a function from an event to a value.

A value is a string, number, boolean, list, object or time, or undefined (None). Null is also undefined. The rules follow
Mixpanel's documentation (docs: reference/segmentation-expressions.mdx,
docs/data-structure/property-reference/data-type.mdx). Between different types, `==` is false and `!=` is true. Other
operators are undefined for operands of the wrong type. An undefined condition is treated as false. Strings and times can
be ordered, like numbers.

Numbers are decimal. Comparisons are exact, and arithmetic has 50 significant digits. Mixpanel's arithmetic is binary, so
its results can differ.
"""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from decimal import (
    MAX_EMAX,
    MIN_EMIN,
    ROUND_CEILING,
    ROUND_FLOOR,
    ROUND_HALF_UP,
    Context,
    Decimal,
    InvalidOperation,
)
from functools import partial
from operator import ge, gt, le, lt

from mixpanel_export.simulator.truth import event_time
from mixpanel_export.simulator.zone import EPOCH


@dataclass(frozen=True, slots=True)
class Scope:
    """The values that a term can use: the time (JSON text) and the properties of an event, or the data of a profile."""

    time: bytes
    properties: Mapping[str, object]
    user: Mapping[str, object] = field(default_factory=dict)
    """The user's properties; empty for an event."""
    behaviors: Mapping[str, object] = field(default_factory=dict)
    """The user's number of events for each of the request's `behaviors`."""
    bindings: Mapping[str, object] = field(default_factory=dict)
    """The list items that `any` has bound to names, keyed by name."""


Term = Callable[[Scope], object]
Operator = Callable[[object, object], object]

_ORDERED = frozenset({Decimal, str, datetime})
_DECIMAL = re.compile(r"\s*-?\d+(\.\d+)?([eE][+-]?\d+)?\s*", re.ASCII)
_ROUNDING = {"floor": ROUND_FLOOR, "round": ROUND_HALF_UP, "ceil": ROUND_CEILING}
_ARITHMETIC = Context(prec=50, Emin=MIN_EMIN, Emax=MAX_EMAX, traps=[])  # an undefined operation yields NaN


def number(text: str) -> Decimal:
    """Return the exact number, or zero or ±infinity if its exponent is out of range."""
    try:
        return Decimal(text)
    except InvalidOperation:
        return Decimal(0 if "e-" in text.lower() else "-Infinity" if text[0] == "-" else "Infinity")


_DECODER = json.JSONDecoder(parse_int=number, parse_float=number, strict=False)


def scope(time: bytes, properties: bytes) -> Scope:
    """Return the scope of an event. Both arguments are JSON text. *time* is empty if the event has none."""
    return Scope(time, _DECODER.decode(properties.decode("utf-8", "replace")))


def profile_scope(distinct_id: str, properties: bytes, behaviors: Mapping[str, int]) -> Scope:
    """Return the scope of a user profile. Both `properties` and `user` have the profile's properties."""
    values = {"$distinct_id": distinct_id} | _DECODER.decode(properties.decode("utf-8", "replace") or "{}")
    return Scope(b"", values, values, {name: Decimal(count) for name, count in behaviors.items()})


def to_time(value: str | Decimal) -> datetime:
    """Return the time in naive UTC, from an ISO time (in UTC unless it has an offset) or from seconds since 1970.

    Raises:
        ValueError: The string is not a time.
        OverflowError: The time is outside the years 1 to 9999.
    """
    if isinstance(value, str):
        parsed = datetime.fromisoformat(value)
        return parsed.astimezone(UTC).replace(tzinfo=None) if parsed.tzinfo else parsed
    if abs(value) >= 10**12:
        raise OverflowError
    return EPOCH + timedelta(microseconds=int(value * 10**6))


def constant(value: object) -> Term:
    """Return a term with the same value for every event."""
    return lambda _: value


def bound_item(name: str) -> Term:
    """Return a term for the list item that `any` binds to *name*."""
    return lambda scope: scope.bindings[name]


def item(source: str, key: str) -> Term:
    """Return a term for an item of `properties`, `user`, `event` or `behaviors`. `$time` is the event's time."""
    match source:
        case "user":
            return lambda scope: scope.user.get(key)
        case "behaviors":
            return lambda scope: scope.behaviors.get(key)
        case _ if key == "$time":
            return lambda scope: event_time(scope.time)
        case "properties":
            return lambda scope: scope.properties.get(key)
        case _:
            return constant(None)


def any_of(terms: Sequence[Term]) -> Term:
    """Return a term for `or`."""
    return terms[0] if len(terms) == 1 else lambda scope: any(term(scope) is True for term in terms)


def all_of(terms: Sequence[Term]) -> Term:
    """Return a term for `and`."""
    return terms[0] if len(terms) == 1 else lambda scope: all(term(scope) is True for term in terms)


def not_(term: Term) -> Term:
    """Return a term for `not`. The result is true if the value is undefined, and undefined if it is neither undefined nor a boolean."""

    def evaluate(scope: Scope) -> bool | None:
        value = term(scope)
        return not value if value is None or isinstance(value, bool) else None

    return evaluate


def minus(term: Term) -> Term:
    """Return a term for unary minus."""

    def evaluate(scope: Scope) -> Decimal | None:
        value = term(scope)
        return value.copy_negate() if isinstance(value, Decimal) else None

    return evaluate


def left_to_right(first: Term, rest: Sequence[tuple[str, Term]]) -> Term:
    """Return a term that applies binary operators to *first* and the terms in *rest*, from left to right."""
    if not rest:
        return first
    steps = [(_OPERATORS[operator], term) for operator, term in rest]

    def evaluate(scope: Scope) -> object:
        value = first(scope)
        for operator, term in steps:
            value = operator(value, term(scope))
        return value

    return evaluate


def any_item(name: str, items: Term, condition: Term) -> Term:
    """Return a term for `any(name, items, condition)`: whether the condition is true for any item in a list."""

    def evaluate(scope: Scope) -> bool:
        values = items(scope)
        return isinstance(values, list) and any(
            condition(replace(scope, bindings={**scope.bindings, name: value})) is True for value in values
        )

    return evaluate


def defined(term: Term) -> Term:
    """Return a term for `defined(x)`."""
    return lambda scope: term(scope) is not None


def as_boolean(term: Term) -> Term:
    """Return a term for `boolean(x)`: false for undefined, false, 0, "" and "false"; true for everything else."""
    return lambda scope: term(scope) not in (None, False, "", "false")


def as_number(term: Term) -> Term:
    """Return a term for `number(x)`. It is undefined for strings that are not decimals, and for lists, objects and times."""

    def evaluate(scope: Scope) -> Decimal | None:
        match term(scope):
            case bool() | Decimal() as value:
                return Decimal(value)
            case str() as value if _DECIMAL.fullmatch(value):
                return number(value.strip())
        return None

    return evaluate


def as_string(term: Term, default: Term) -> Term:
    """Return a term for `string(x, default)`, which writes numbers without an exponent.

    It is *default* if x is undefined, and undefined if x is a list, an object or a time.
    """

    def evaluate(scope: Scope) -> object:
        match term(scope):
            case None:
                return default(scope)
            case bool() as value:
                return str(value).lower()
            case Decimal() as value:
                return f"{value:f}" if abs(value.adjusted()) < 400 else str(value)
            case str() as value:
                return value
        return None

    return evaluate


def rounded(function: str, term: Term) -> Term:
    """Return a term for `floor(x)`, `round(x)` or `ceil(x)`. `round` rounds halves away from zero."""

    def evaluate(scope: Scope) -> Decimal | None:
        value = term(scope)
        return value.to_integral_value(_ROUNDING[function]) if isinstance(value, Decimal) else None

    return evaluate


FUNCTIONS: Mapping[str, Callable[[Term], Term]] = {
    "defined": defined,
    "boolean": as_boolean,
    "number": as_number,
    **{name: partial(rounded, name) for name in _ROUNDING},
}
"""The functions with one argument."""


def _equal(a: object, b: object) -> bool:
    return a is not None and type(a) is type(b) and a == b


def _contained(a: object, b: object) -> bool | None:
    if isinstance(b, list):
        return any(_equal(a, item) for item in b)
    return a in b if isinstance(a, str) and isinstance(b, str) else None


def _ordered(order: Callable[..., bool]) -> Operator:
    return lambda a, b: order(a, b) if type(a) is type(b) and type(a) in _ORDERED else None


def _arithmetic(operation: Callable[[Decimal, Decimal], Decimal]) -> Operator:
    def apply(a: object, b: object) -> Decimal | None:
        if not (isinstance(a, Decimal) and isinstance(b, Decimal)):
            return None
        result = operation(a, b)
        return None if result.is_nan() else result

    return apply


def _quotient(a: Decimal, b: Decimal) -> Decimal:
    return _ARITHMETIC.divide(a, b) if b else Decimal("NaN")


def _sum(a: object, b: object) -> object:
    return a + b if isinstance(a, str) and isinstance(b, str) else _number_sum(a, b)


_number_sum = _arithmetic(_ARITHMETIC.add)
COMPARISONS: Mapping[str, Operator] = {
    "=": _equal,
    "==": _equal,
    "!=": lambda a, b: not _equal(a, b),
    "<": _ordered(lt),
    "<=": _ordered(le),
    ">": _ordered(gt),
    ">=": _ordered(ge),
    "in": _contained,
}
_OPERATORS: Mapping[str, Operator] = {
    **COMPARISONS,
    "+": _sum,
    "-": _arithmetic(_ARITHMETIC.subtract),
    "*": _arithmetic(_ARITHMETIC.multiply),
    "/": _arithmetic(_quotient),
    "%": _arithmetic(_ARITHMETIC.remainder),
}
