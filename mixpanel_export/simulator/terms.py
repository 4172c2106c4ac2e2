"""What the parts of a `where` expression mean: functions from an event to a value, and how values compare.

A value is a string, number, boolean, list, object or moment, or undefined, as null is too. `==` between different
types is false and `!=` its opposite; other comparisons between them are undefined, which counts as false. Strings
and moments have an order as numbers do (docs: reference/segmentation-expressions.mdx).
"""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal, InvalidOperation
from operator import ge, gt, le, lt

from mixpanel_export.simulator.truth import event_time
from mixpanel_export.simulator.zone import EPOCH


@dataclass(frozen=True, slots=True)
class Scope:
    """What a term looks at: an event, its time as JSON text, and the list elements that have been given names."""

    time: bytes
    properties: Mapping[str, object]
    names: Mapping[str, object] = field(default_factory=dict)


Term = Callable[[Scope], object]

ORDERS: dict[str, Callable[..., bool]] = {"<": lt, "<=": le, ">": gt, ">=": ge}
_ORDERED = frozenset({Decimal, str, datetime})
_DECIMAL = re.compile(r"\s*-?\d+(\.\d+)?([eE][+-]?\d+)?\s*", re.ASCII)


def number(text: str) -> Decimal:
    """Return the number exactly; one beyond any exponent as infinite, or as zero."""
    try:
        return Decimal(text)
    except InvalidOperation:
        return Decimal(0 if "e-" in text.lower() else "-Infinity" if text[0] == "-" else "Infinity")


_DECODER = json.JSONDecoder(parse_int=number, parse_float=number, strict=False)


def scope(time: bytes, properties: bytes) -> Scope:
    """Return what an expression sees of an event; both are JSON text, *time* is empty where there is none."""
    return Scope(time, _DECODER.decode(properties.decode("utf-8", "replace")))


def moment(given: str | Decimal) -> datetime:
    """Return an ISO time, without offset in UTC, or seconds since the epoch as naive UTC.

    Raises:
        ValueError: It is no time.
        OverflowError: It lies outside the years 1 to 9999.
    """
    if isinstance(given, str):
        read = datetime.fromisoformat(given)
        return read.astimezone(UTC).replace(tzinfo=None) if read.tzinfo else read
    if abs(given) >= 10**12:
        raise OverflowError
    return EPOCH + timedelta(microseconds=int(given * 10**6))


def constant(value: object) -> Term:
    """The value, whatever the event."""
    return lambda _: value


def item(name: str) -> Term:
    """The element that `any` has named so."""
    return lambda scope: scope.names[name]


def event_property(source: str, name: str) -> Term:
    """A property of the event; an event has none of a user's, and `$time` is its time."""
    if source != "user" and name == "$time":
        return lambda scope: event_time(scope.time)
    return (lambda scope: scope.properties.get(name)) if source == "properties" else constant(None)


def either(terms: Sequence[Term]) -> Term:
    """Whether any of *terms* is true."""
    return terms[0] if len(terms) == 1 else lambda scope: any(term(scope) is True for term in terms)


def both(terms: Sequence[Term]) -> Term:
    """Whether all *terms* are true."""
    return terms[0] if len(terms) == 1 else lambda scope: all(term(scope) is True for term in terms)


def negated(term: Term) -> Term:
    """`not`: undefined becomes true, and what is no boolean undefined."""

    def evaluate(scope: Scope) -> bool | None:
        value = term(scope)
        return not value if value is None or isinstance(value, bool) else None

    return evaluate


def compared(sign: str, left: Term, right: Term) -> Term:
    """`=` or `==`, `!=`, the orders, and `in` of a list or a string."""

    def evaluate(scope: Scope) -> bool | None:
        a, b = left(scope), right(scope)
        match sign:
            case "=" | "==" | "!=":
                return _equal(a, b) is (sign != "!=")
            case "in" if isinstance(b, list):
                return any(_equal(a, element) for element in b)
            case "in":
                return a in b if isinstance(a, str) and isinstance(b, str) else None
        return ORDERS[sign](a, b) if type(a) is type(b) and type(a) in _ORDERED else None

    return evaluate


def some(name: str, listed: Term, condition: Term) -> Term:
    """Whether *condition* is true of any element, by its *name*, of a list."""

    def evaluate(scope: Scope) -> bool:
        items = listed(scope)
        return isinstance(items, list) and any(
            condition(replace(scope, names={**scope.names, name: element})) is True for element in items
        )

    return evaluate


def defined(term: Term) -> Term:
    """Whether there is a value at all."""
    return lambda scope: term(scope) is not None


def as_number(term: Term) -> Term:
    """`number(…)`: of what is none, undefined."""

    def evaluate(scope: Scope) -> Decimal | None:
        match term(scope):
            case bool() | Decimal() as value:
                return Decimal(value)
            case str() as value if _DECIMAL.fullmatch(value):
                return number(value.strip())
        return None

    return evaluate


def as_string(term: Term, default: Term) -> Term:
    """`string(…, default)`: numbers without exponent, of lists and objects undefined."""

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


def _equal(a: object, b: object) -> bool:
    return a is not None and type(a) is type(b) and a == b
