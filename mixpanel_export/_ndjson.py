"""Validates, repairs, parses and normalizes a line of NDJSON in DuckDB's dialect of JSON. Pure functions.

DuckDB's dialect allows trailing commas in objects and arrays, and `NaN` and `Infinity` in upper or lower case. As in
DuckDB, nesting may be arbitrarily deep, so the functions here are not recursive. They use Python's parser for text that
it accepts, because it is faster.

The canonical form of an event is `{"event":"…","properties":{…}}`, as Mixpanel writes it. Both values are copied
unchanged from the line. JSON parsers reject lone surrogate escapes, bytes that are not UTF-8, and control bytes in
strings. A repair replaces each of these with U+FFFD.
"""

import json
import re
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from decimal import Decimal
from math import isfinite
from typing import Any, Literal

_STRING = r'"[^"\\\x00-\x1f]*(?:\\(?:["\\/bfnrt]|u[0-9a-fA-F]{4})[^"\\\x00-\x1f]*)*"'
_LEXEME = re.compile(
    rf"""[ \t\r\n]*(?:
    (?P<string>{_STRING})
    |(?P<symbol>[{{}}\[\]:,])
    |(?P<number>-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?(?![0-9.a-zA-Z]))
    |(?P<literal>true|false|null)
    |(?P<special>-?(?i:nan|infinity|inf))
    )""",
    re.VERBOSE,
)
_ANY_STRING = re.compile(r'"[^"\\]*(?:\\.[^"\\]*)*"', re.DOTALL)
_SURROGATES = re.compile(
    r"(\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2})"  # a pair
    r"|(\\u[dD][89a-fA-F][0-9a-fA-F]{2})"  # half a pair
    r"|\\.",  # any other escape, so that the second backslash in `\\` does not start one
    re.DOTALL,
)
_NOT_UTF8 = re.compile("[\udc80-\udcff]")
_CONTROL = re.compile(r"[\x00-\x1f]")
_SPACE = re.compile(r"[ \t\r\n]*")
_ESCAPES = {'"': '\\"', "\\": "\\\\", "\b": "\\b", "\f": "\\f", "\n": "\\n", "\r": "\\r", "\t": "\\t"}
_ESCAPED = re.compile(r'["\\\x00-\x1f]')
_DECODER = json.JSONDecoder(parse_int=float)  # Python limits the number of digits in an int

_State = Literal["value", "key", "colon", "item", "next"]


@dataclass(frozen=True, slots=True)
class Canonical:
    """A line in canonical form."""

    line: bytes
    """The line without its newline."""
    repaired: bool
    """Whether a repair changed the text."""


def canonical(line: bytes) -> Canonical | None:
    """Return *line* in canonical form; None if it is not an event, even after a repair.

    An event is a JSON object in which `event` is a string and `properties` is an object. If a key is repeated, its
    first value is used.
    """
    text = line.decode("utf-8", "surrogateescape")
    repaired = repaired_text(text)
    try:
        members = _members(repaired)
    except ValueError:
        return None
    event, properties = members.get("event", ""), members.get("properties", "")
    if not event.startswith('"') or not properties.startswith("{"):
        return None
    line_text = f'{{"event":{event},"properties":{properties}}}'
    return Canonical(line_text.encode(), repaired=repaired != text)


def member_text(text: str, key: str) -> str:
    """Return the text of *key*'s value in the JSON object *text*.

    Raises:
        KeyError: The object does not have the key.
        ValueError: The text is not a JSON object.
    """
    return _members(text)[key]


def scalar_texts(text: str, keys: Sequence[str]) -> list[str | None]:
    """Return the values of *keys* in the JSON object *text*.

    A string is decoded. Null or a missing key becomes None. Any other value becomes its JSON text.
    """
    members = _members(text)
    return [_scalar_text(members.get(key, "null")) for key in keys]


def loads(text: str) -> Any:
    """Parse JSON. Integers that are too long for an int become Decimal.

    If a key is repeated, its first value is used.

    Raises:
        ValueError: The text is not JSON in DuckDB's dialect.
    """
    with suppress(ValueError, RecursionError):
        return json.loads(text, object_pairs_hook=_keep_first, parse_int=_integer)
    return _parse_by_lexemes(text)


def normalized(text: str) -> str:
    """Return the JSON *text* as DuckDB's functions would write it: no spaces, and uniform numbers and escapes."""
    parts: list[str] = []
    comma = False
    for kind, lexeme, _ in _lexemes(text, 0):
        if lexeme == ",":
            comma = True
            continue
        if comma and lexeme not in {"}", "]"}:
            parts.append(",")
        comma = False
        parts.append(_normalized_lexeme(kind, lexeme))
    return "".join(parts)


def _scalar_text(text: str) -> str | None:
    if text.startswith('"'):
        return str(json.loads(text))
    return None if text == "null" else text


def repaired_text(text: str) -> str:
    """Return the JSON *text* after the repair that the module docstring describes."""
    text = _NOT_UTF8.sub("\ufffd", text)
    return _ANY_STRING.sub(lambda string: _repaired_string(string[0]), text)


def _repaired_string(string: str) -> str:
    string = _CONTROL.sub("\ufffd", string)
    return _SURROGATES.sub(lambda escape: "\ufffd" if escape[2] else escape[0], string)


def _members(text: str) -> dict[str, str]:
    """Return the keys of the JSON object *text*, each with the text of its value.

    If a key is repeated, its first value is used.

    Raises:
        ValueError: The text is not a JSON object.
    """
    members: dict[str, str] = {}
    at = skip_space(text, _after(text, skip_space(text, 0), "{"))
    while text[at : at + 1] != "}":
        key, at = _DECODER.raw_decode(text, at)
        if not isinstance(key, str):
            raise ValueError("a key is not a string")  # noqa: TRY004 - the same error as for other invalid text
        start = skip_space(text, _after(text, skip_space(text, at), ":"))
        end = value_end(text, start)
        members.setdefault(key, text[start:end])
        at = skip_space(text, end)
        if text[at : at + 1] == ",":
            at = skip_space(text, at + 1)
        elif text[at : at + 1] != "}":
            raise ValueError("expected a comma or the end of the object")
    if skip_space(text, at + 1) != len(text):
        raise ValueError("something follows the object")
    return members


def value_end(text: str, at: int, decoder: json.JSONDecoder = _DECODER) -> int:
    """Return the end of the JSON value at position *at*.

    Raises:
        ValueError: There is no complete value at that position.
    """
    with suppress(ValueError, RecursionError):
        return decoder.raw_decode(text, at)[1]
    for _, _, end in _lexemes(text, at):
        at = end
    return at


def skip_space(text: str, at: int) -> int:
    """Return the position of the first character at or after *at* that is not JSON whitespace."""
    space = _SPACE.match(text, at)
    return space.end() if space else at


def _after(text: str, at: int, lexeme: str) -> int:
    if text[at : at + 1] != lexeme:
        raise ValueError(f"expected {lexeme}")
    return at + 1


def _lexemes(text: str, at: int) -> Iterator[tuple[str, str, int]]:
    """Yield the kind, the text and the end position of each lexeme in the value at position *at*.

    Raises:
        ValueError: There is no valid value at that position.
    """
    closers: list[str] = []  # the closing brackets for the open objects and arrays
    state: _State = "value"
    while True:
        match = _LEXEME.match(text, at)
        if match is None or match.lastgroup is None:
            raise ValueError(f"no JSON at {at}")
        kind, lexeme, at = match.lastgroup, match[match.lastgroup], match.end()
        state = _next_state(state, kind, lexeme, closers)
        yield kind, lexeme, at
        if not closers:
            return


def _next_state(state: _State, kind: str, lexeme: str, closers: list[str]) -> _State:
    """Return the state after a lexeme and update *closers*.

    Raises:
        ValueError: The lexeme is not valid in this state.
    """
    match lexeme:
        case "{" | "[" if state in {"value", "item"}:
            closers.append("}" if lexeme == "{" else "]")
            return "key" if lexeme == "{" else "item"
        case "}" | "]" if state in {"key", "item", "next"} and closers[-1] == lexeme:
            closers.pop()
            return "next"
        case "," if state == "next":
            return "key" if closers[-1] == "}" else "item"
        case ":" if state == "colon":
            return "value"
        case _ if kind == "string" and state == "key":
            return "colon"
        case _ if kind != "symbol" and state in {"value", "item"}:
            return "next"
    raise ValueError(f"unexpected {lexeme}")


def _parse_by_lexemes(text: str) -> Any:
    """Parse JSON without recursion. This is used for text that Python's parser rejects."""
    root: list[Any] = []
    # The open objects and arrays, each with the key whose value comes next, if any.
    open_: list[tuple[dict[str, Any] | list[Any], list[str]]] = [(root, [])]
    end = 0
    for kind, lexeme, at in _lexemes(text, 0):
        end = at
        container, key = open_[-1]
        if lexeme in {"}", "]"}:
            open_.pop()
        elif isinstance(container, dict) and kind == "string" and not key:
            key.append(json.loads(lexeme))
        elif lexeme not in {",", ":"}:
            value = _value(kind, lexeme)
            if isinstance(container, dict):
                container.setdefault(key.pop(), value)
            else:
                container.append(value)
            if kind == "symbol":
                open_.append((value, []))
    if skip_space(text, end) != len(text):
        raise ValueError("something follows the value")
    return root[0]


def _value(kind: str, lexeme: str) -> Any:
    match kind:
        case "symbol":
            return {} if lexeme == "{" else []
        case "special":
            return float(lexeme)
        case _:
            return json.loads(lexeme, parse_int=_integer)


def _integer(text: str) -> int | Decimal:
    try:
        return int(text)
    except ValueError:  # Python limits the number of digits in an int
        return Decimal(text)


def _keep_first(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) < len(pairs):
        members |= dict(reversed(pairs))
    return members


def _normalized_lexeme(kind: str, lexeme: str) -> str:
    match kind:
        case "string":
            return f'"{_ESCAPED.sub(_escape, json.loads(lexeme))}"'
        case "number":
            return _normalized_number(lexeme)
        case _:
            return lexeme


def _escape(character: re.Match[str]) -> str:
    return _ESCAPES.get(character[0]) or f"\\u{ord(character[0]):04X}"


def _normalized_number(lexeme: str) -> str:
    """Return a number as ECMAScript writes it, but with `.0` if its text was not an integer.

    A number that is too large for a double is unchanged.
    """
    if lexeme.lstrip("-").isdecimal():
        return "0" if lexeme == "-0" else lexeme
    value = float(lexeme)
    if not isfinite(value):
        return lexeme
    if value == 0:
        return "-0.0" if lexeme.startswith("-") else "0.0"
    sign, numbers, exponent = Decimal(repr(value)).as_tuple()
    point = len(numbers) + int(exponent)  # digits before the decimal point
    digits = "".join(map(str, numbers)).rstrip("0")
    if -6 < point <= 0:
        number = f"0.{'0' * -point}{digits}"
    elif 0 < point <= 21:
        number = f"{digits[:point]:0<{point}}.{digits[point:] or '0'}"
    else:
        number = f"{digits[0]}{'.' if digits[1:] else ''}{digits[1:]}e{point - 1}"
    return f"{'-' if sign else ''}{number}"
