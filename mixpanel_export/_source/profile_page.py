"""Parses one page of profiles. The properties of a profile are copied unchanged from the text of the page. No I/O.

A page is a JSON object such as `{"results":[{"$distinct_id":"a","$properties":{…}}, …],"session_id":"…","total":1}`.
Text that JSON parsers reject is repaired, as for events (see `_ndjson`).
"""

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from mixpanel_export._ndjson import repaired_text, skip_space, value_end
from mixpanel_export._source.records import iso_time

_DECODER = json.JSONDecoder(parse_int=float, strict=False)  # Python limits the number of digits in an int
_PLAIN_TIME = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}")
# The usual start of an entry. Any other entry is read key by key.
_USUAL_ENTRY = re.compile(r'\{"\$distinct_id":("[^"\\]*"|-?[0-9]+),"\$properties":(?=\{)')
# Text that may need a repair. Whitespace between values also matches.
_DOUBTFUL = re.compile("[\x00-\x1f\udc80-\udcff]|\\\\u[dD][89a-fA-F]")
_LAST_SEEN = "$last_seen"

_Reader = Callable[[int], int]


@dataclass(slots=True)
class ProfilePage:
    """The profiles of one page as columns, in the order of the page."""

    ids: list[str] = field(default_factory=list)
    properties: list[str] = field(default_factory=list)
    """The JSON text that Mixpanel sent, or the repaired text."""
    last_seen: list[datetime | None] = field(default_factory=list)
    """In naive UTC."""
    numeric: set[int] = field(default_factory=set)
    """The indexes of the profiles whose id is a JSON number."""
    rejects: list[str] = field(default_factory=list)
    """The text of entries that are not profiles."""
    originals: list[str] = field(default_factory=list)
    """The text of repaired profiles, as Mixpanel sent it."""
    number: int | None = None
    page_size: int | None = None
    total: int | None = None
    session: str | None = None

    @property
    def entries(self) -> int:
        """The number of entries on the page."""
        return len(self.ids) + len(self.rejects)


def parse_page(body: bytes) -> ProfilePage:
    """Return the profiles in the *body* of a response.

    Raises:
        ValueError: The body is not a whole page.
    """
    text = body.decode("utf-8", "surrogateescape")
    return _PageParser(text).parse()


class _PageParser:
    """Reads a page from left to right. Each method reads from a position, and returns the position where it stopped."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._doubtful = _DOUBTFUL.search(text) is not None
        self._page = ProfilePage()
        self._complete = False

    def parse(self) -> ProfilePage:
        readers = {
            "results": self._results,
            "error": self._error,
            "page": self._number("number"),
            "page_size": self._number("page_size"),
            "total": self._number("total"),
            "session_id": self._session,
        }
        start = skip_space(self._text, 0)
        end = self._object(start, readers)
        if skip_space(self._text, end) != len(self._text):
            raise ValueError("something follows the page")
        if not self._complete:
            raise ValueError("the response has no profiles")
        return self._page

    def _object(self, at: int, readers: Mapping[str, _Reader]) -> int:
        """Read an object. If a key is repeated, its first value is used."""
        remaining = dict(readers)
        at = skip_space(self._text, self._expect(at, "{"))
        while self._text[at : at + 1] != "}":
            key, at = _decode(self._text, at)
            if not isinstance(key, str):
                raise ValueError("the response is not complete JSON")  # noqa: TRY004 - like other invalid text
            start = skip_space(self._text, self._expect(skip_space(self._text, at), ":"))
            reader = remaining.pop(key, None)
            at = self._next(self._end(start) if reader is None else reader(start), "}")
        return at + 1

    def _results(self, at: int) -> int:
        text, results = self._text, self._expect(at, "[")
        at = skip_space(text, results)
        while text[at : at + 1] != "]":
            at = self._entry(at)
            at = at + 1 if text[at : at + 2] == ",{" else self._next(at, "]")
        self._complete = True
        return at + 1

    def _entry(self, at: int) -> int:
        usual = _USUAL_ENTRY.match(self._text, at)
        if usual is not None:
            start = usual.end()
            try:
                properties, end = _DECODER.raw_decode(self._text, start)
            except (ValueError, RecursionError):
                usual = None
            else:
                if self._text[end : end + 1] == "}":
                    self._add(usual[1], (start, end), properties, (at, end + 1))
                    return end + 1
        return self._unusual_entry(at)

    def _unusual_entry(self, at: int) -> int:
        spans: dict[str, tuple[int, int]] = {}

        def reader(key: str) -> _Reader:
            def read(start: int) -> int:
                spans[key] = (start, self._end(start))
                return spans[key][1]

            return read

        text = self._text
        if text[at : at + 1] != "{":
            end = self._end(at)
            self._page.rejects.append(text[at:end])
            return end
        end = self._object(at, {key: reader(key) for key in ("$distinct_id", "$properties")})
        identity = text[slice(*spans.get("$distinct_id", (0, 0)))]
        span = spans.get("$properties")
        if span is not None and text[slice(*span)] == "null":
            span = None
        is_profile = identity[:1] in set('"-0123456789') and (span is None or text[span[0]] == "{")
        if identity and is_profile:
            self._add(identity, span, None, (at, end))
        else:
            self._page.rejects.append(text[at:end])
        return end

    def _add(
        self, identity: str, span: tuple[int, int] | None, properties: Any, entry: tuple[int, int]
    ) -> None:
        """Add a profile. *properties* is the parsed value, or None if it has not been parsed."""
        page = self._page
        text = "{}" if span is None else self._text[span[0] : span[1]]
        if self._doubtful and _DOUBTFUL.search(self._text, *entry):
            whole = self._text[slice(*entry)]
            identity, text = repaired_text(identity), repaired_text(text)
            if repaired_text(whole) != whole:
                page.originals.append(whole)
        if identity[0] == '"':
            page.ids.append(json.loads(identity) if "\\" in identity else identity[1:-1])
        else:
            page.numeric.add(len(page.ids))
            page.ids.append(identity)
        page.properties.append(text)
        if properties is None and span is not None:
            properties = _parsed(text)
        value = properties.get(_LAST_SEEN) if properties else None
        page.last_seen.append(_last_seen(value) if isinstance(value, str) else None)

    def _number(self, name: str) -> _Reader:
        def read(at: int) -> int:
            end = self._end(at)
            text = self._text[at:end]
            if re.fullmatch("[0-9]{1,15}", text):
                setattr(self._page, name, int(text))
            return end

        return read

    def _session(self, at: int) -> int:
        value, end = _decode(self._text, at)
        if isinstance(value, str) and value:
            self._page.session = value
        return end

    def _error(self, at: int) -> int:
        value, end = _decode(self._text, at)
        if isinstance(value, str):
            raise ValueError("the response is an error")  # noqa: TRY004 - the caller finds the message in the body
        return end

    def _end(self, at: int) -> int:
        """Return the end of a value."""
        try:
            return value_end(self._text, at, _DECODER)
        except (IndexError, ValueError) as error:
            raise ValueError("the response is not complete JSON") from error

    def _next(self, at: int, closer: str) -> int:
        """Skip the comma after a value. Without a comma, *closer* must follow."""
        at = skip_space(self._text, at)
        if self._text[at : at + 1] == ",":
            return skip_space(self._text, at + 1)
        if self._text[at : at + 1] != closer:
            raise ValueError("the response is not complete JSON")
        return at

    def _expect(self, at: int, symbol: str) -> int:
        if self._text[at : at + 1] != symbol:
            raise ValueError("the response is not complete JSON")
        return at + 1


def _decode(text: str, at: int) -> tuple[Any, int]:
    try:
        return _DECODER.raw_decode(text, at)
    except (ValueError, RecursionError) as error:
        raise ValueError("the response is not complete JSON") from error


def _parsed(text: str) -> Any:
    """Return the object in *text*; None if Python cannot parse it, for example because its nesting is too deep."""
    try:
        return _DECODER.decode(text)
    except (ValueError, RecursionError):
        return None


def _last_seen(text: str) -> datetime | None:
    """Convert `$last_seen` to naive UTC; None if it cannot be parsed. A time without an offset is in UTC."""
    if _PLAIN_TIME.fullmatch(text):
        try:
            return datetime.fromisoformat(text)
        except ValueError:
            pass  # for example, Python rejects 24:00:00
    moment = iso_time(text, "UTC")
    return None if moment is None else moment.replace(tzinfo=None)
