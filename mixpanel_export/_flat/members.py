"""Parses a JSON object in Python and keeps the text of each value. Only rows that SQL cannot read exactly are parsed here."""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass

from mixpanel_export._flat.values import MARK

_STRING = r'"[^"\\]*(?:\\.[^"\\]*)*"'
_MEMBER = re.compile(rf"[\s,{{]*(?P<key>{_STRING})\s*:\s*(?P<value>{_STRING}|[^\s,}}\]\[{{]+)?", re.DOTALL)
_TOKEN = re.compile(rf"{_STRING}|[\[{{]|[\]}}]", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Member:
    """A key of an object, and the text of its value."""

    key: str
    json: str
    """The JSON text of the value."""

    @property
    def text(self) -> str | None:
        """The value for a VARCHAR column. Strings are decoded, and `null` is None."""
        if self.json.startswith('"'):
            return str(json.loads(self.json, strict=False))
        return None if self.json == "null" else self.json

    @property
    def marked(self) -> str:
        """The value as `values.kind` expects it. Numbers have the mark, unless they are integers that SQL can read."""
        if self.json.startswith('"'):
            encoded = json.dumps(self.text, ensure_ascii=False)
            return '""' if encoded.startswith(f'"{MARK}') else encoded
        number = re.match(r"-?[0-9]", self.json)
        return (
            f'"{MARK}{self.json}"'
            if number and not re.fullmatch(r"-?[1-9][0-9]*|0", self.json)
            else self.json
        )


def members(text: str) -> list[Member]:
    """Return the members of *text*, a JSON object that DuckDB accepts. If a key is repeated, its first value is used."""
    first: dict[str, Member] = {}
    for key, value in _members(text):
        name = str(json.loads(key, strict=False))
        first.setdefault(name, Member(name, value))
    return list(first.values())


def _members(text: str) -> Iterator[tuple[str, str]]:
    position = 0
    while member := _MEMBER.match(text, position):
        value, position = member["value"], member.end()
        if value is None:
            position = _end_of_nested(text, member.end())
            value = text[member.end() : position]
        yield member["key"], value


def _end_of_nested(text: str, start: int) -> int:
    """Return the end position of the list or object at position *start*."""
    depth = 0
    for token in _TOKEN.finditer(text, start):
        depth += {"[": 1, "{": 1, "]": -1, "}": -1}.get(token[0], 0)
        if not depth:
            return token.end()
    raise ValueError("unterminated list or object")


def other_members(row: list[Member], keys: frozenset[str]) -> str | None:
    """Return a JSON object of the members whose key is not among *keys*; None if there are none."""
    rest = [f"{json.dumps(member.key)}:{member.json}" for member in row if member.key not in keys]
    return f"{{{','.join(rest)}}}" if rest else None
