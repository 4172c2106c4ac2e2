"""Pure: one line that the fast path refuses → a line of the canonical shape, or None for a line that is no event.

The canonical shape is Mixpanel's own: `{"event":"…","properties":{…}}`. The text of both values is cut out
of the line, never re-serialised. What no JSON parser accepts in otherwise sound JSON becomes U+FFFD, one for
each offending escape or byte: lone surrogate escapes, bytes that are no UTF-8, raw control bytes in strings.
"""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass

_STRING = re.compile(r'"(?:[^"\\]|\\.)*"', re.DOTALL)
_SURROGATES = re.compile(
    r"(\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2})"  # a pair, as it should be
    r"|(\\u[dD][89a-fA-F][0-9a-fA-F]{2})"  # half a pair
    r"|\\.",  # any other escape, so that an escaped backslash is not taken for the start of one
    re.DOTALL,
)
_NOT_UTF8 = re.compile("[\udc80-\udcff]")
_CONTROL = re.compile(r"[\x00-\x1f]")
_SPACE = re.compile(r"[ \t\r\n]*")
_DECODER = json.JSONDecoder(strict=False, parse_int=float)  # Python limits the digits of an int


@dataclass(frozen=True, slots=True)
class Canonical:
    """A line in the canonical shape, without its newline; `repaired` where its text had to change."""

    line: bytes
    repaired: bool


def canonical(line: bytes) -> Canonical | None:
    """Return *line* in the canonical shape, or None where it is no event even after repair."""
    text = line.decode("utf-8", "surrogateescape")
    whole = _repaired(text)
    try:
        members = _members(whole)
    except (ValueError, RecursionError):
        return None
    event, properties = members.get("event", ""), members.get("properties", "")
    if not event.startswith('"') or not properties.startswith("{"):
        return None
    shaped = f'{{"event":{event},"properties":{properties}}}'
    return Canonical(shaped.encode(), repaired=whole != text)


def scalar_texts(text: str, keys: Sequence[str]) -> list[str | None]:
    """Return the members *keys* of the JSON object *text* as text: strings decoded, null and absent None, the rest as written."""
    members = _members(text)
    return [_scalar_text(members.get(key, "null")) for key in keys]


def _scalar_text(text: str) -> str | None:
    if text.startswith('"'):
        return str(json.loads(text))
    return None if text == "null" else text


def _repaired(text: str) -> str:
    text = _NOT_UTF8.sub("\ufffd", text)
    return _STRING.sub(lambda string: _repaired_string(string[0]), text)


def _repaired_string(string: str) -> str:
    string = _CONTROL.sub("\ufffd", string)
    return _SURROGATES.sub(lambda escape: "\ufffd" if escape[2] else escape[0], string)


def _members(text: str) -> dict[str, str]:
    """Return the members of the JSON object *text* with the text of each value; the first of equal keys counts."""
    members: dict[str, str] = {}
    at = _after(text, _skip(text, 0), "{")
    while True:
        key, at = _DECODER.raw_decode(text, _skip(text, at))
        if not isinstance(key, str):
            raise ValueError("a key is no string")  # noqa: TRY004 - as for any other text that is no JSON
        start = _skip(text, _after(text, _skip(text, at), ":"))
        _, end = _DECODER.raw_decode(text, start)
        members.setdefault(key, text[start:end])
        at = _skip(text, end)
        if text[at : at + 1] != ",":
            break
        at += 1
    if _skip(text, _after(text, at, "}")) != len(text):
        raise ValueError("something follows the object")
    return members


def _skip(text: str, at: int) -> int:
    space = _SPACE.match(text, at)
    return space.end() if space else at


def _after(text: str, at: int, token: str) -> int:
    if text[at : at + 1] != token:
        raise ValueError(f"expected {token}")
    return at + 1
