"""A reference: what the simulator's lines say, computed without its code or an exporter's.

It repairs invalid JSON character by character, parses with the standard library, uses fractions for times, and searches
for local times hour by hour.
"""

import codecs
import json
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from fractions import Fraction
from typing import Any
from zoneinfo import ZoneInfo

from mixpanel_export.simulator import Row, Truth, checksum


def _replace_each(error: UnicodeError) -> tuple[str, int]:
    assert isinstance(error, UnicodeDecodeError)
    return "\ufffd" * (error.end - error.start), error.end


codecs.register_error("one U+FFFD each", _replace_each)


def repaired(line: bytes) -> str:
    """Return the line as text, with U+FFFD for each byte, control character or lone surrogate that breaks JSON."""
    text = line.decode("utf-8", "one U+FFFD each")
    result: list[str] = []
    in_string, at = False, 0
    while at < len(text):
        length, replacement = 1, text[at]
        if replacement == '"':
            in_string = not in_string
        elif in_string and replacement < " ":
            replacement = "\ufffd"
        elif in_string and replacement == "\\":
            length, replacement = _escape(text[at : at + 12])
        result.append(replacement)
        at += length
    return "".join(result)


def _escape(text: str) -> tuple[int, str]:
    """Return the length of the escape at the start of *text*, and its replacement."""
    units = [text[at + 2 : at + 6].lower() for at in (0, 6) if text[at : at + 2] == "\\u"]
    if units and units[0][:1] == "d" and units[0][1] in "89abcdef":
        paired = len(units) == 2 and units[0][1] in "89ab" and units[1][0] == "d" and units[1][1] in "cdef"
        return (12, text) if paired else (6, "\ufffd")
    return 2, text[:2]


def first_wins(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    return dict(reversed(pairs))


DECODER = json.JSONDecoder(object_pairs_hook=first_wins, parse_float=Decimal)


def event_in(line: bytes) -> tuple[str, dict[str, Any], str] | None:
    """Return the name of an event, its properties and their text; None for a line that is not an event."""
    text = repaired(line)
    try:
        whole = DECODER.decode(text)
    except ValueError:
        return None
    properties = whole.get("properties") if isinstance(whole, dict) else None
    if not isinstance(properties, dict) or not isinstance(whole.get("event"), str):
        return None
    return whole["event"], properties, text_of_properties(text)


def text_of_properties(text: str) -> str:
    """Return the text of the first member `properties` of the outermost object."""
    at = text.index("{") + 1
    while True:
        at += len(text[at:]) - len(text[at:].lstrip(" \t,"))
        key, at = DECODER.raw_decode(text, at)
        at = text.index(":", at) + 1
        at += len(text[at:]) - len(text[at:].lstrip(" \t"))
        start = at
        _, at = DECODER.raw_decode(text, at)
        if key == "properties":
            return text[start:at]


def as_text(value: object) -> str | None:
    """Return a JSON value as text, the way an SQL `->>` does."""
    if value is None or isinstance(value, str):
        return value
    return str(value) if isinstance(value, Decimal) else json.dumps(value, separators=(",", ":"))


def moment_of(value: object, zone: ZoneInfo | None = None) -> datetime | None:
    """Return the moment of a `time` as naive UTC, or None."""
    if value is None or isinstance(value, bool | list | dict):
        return None
    try:
        number = json.loads(str(value), parse_float=Fraction)
    except ValueError:
        return iso_moment(str(value), zone)
    millis = int(number) * (1 if abs(number) >= 10**11 else 1000)
    if abs(millis) > 10**15:
        return None
    return utc_of_local(datetime(1970, 1, 1) + timedelta(milliseconds=millis), zone)


def iso_moment(text: str, zone: ZoneInfo | None) -> datetime | None:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return None
    return moment.astimezone(UTC).replace(tzinfo=None) if moment.tzinfo else utc_of_local(moment, zone)


def utc_of_local(local: datetime, zone: ZoneInfo | None) -> datetime:
    """Return the last moment at which clocks show *local*, as naive UTC; a skipped time moves forward by the gap."""
    if zone is None:
        return local
    candidates = [local.replace(tzinfo=UTC) + timedelta(hours=shift) for shift in range(-15, 16)]
    matches = [moment for moment in candidates if moment.astimezone(zone).replace(tzinfo=None) == local]
    if matches:
        return max(matches).replace(tzinfo=None)
    return utc_of_local(local - timedelta(days=1), zone) + timedelta(days=1)


def expected_rows(lines: Sequence[bytes], zone: ZoneInfo | None = None) -> list[Row]:
    """Return the rows of the events among *lines* after deduplication."""
    groups: dict[tuple[object, ...], list[tuple[int, str, Row]]] = {}
    for number, line in enumerate(lines):
        event = event_in(line)
        if event is None:
            continue
        name, properties, text = event
        time, insert_id = properties.get("time"), as_text(properties.get("$insert_id"))
        row = Row(name, moment_of(time, zone), as_text(properties.get("distinct_id")), insert_id, text)
        key = (name, row.distinct_id, as_text(time), insert_id) if insert_id else (number,)
        groups.setdefault(key, []).append((properties["mp_processing_time_ms"], text, row))
    return [max(group)[2] for group in groups.values()]


def expected_truth(lines: Sequence[bytes], zone: ZoneInfo | None = None) -> Truth:
    """Return the truth about *lines*, deduplicated over all of them."""
    events = [line for line in lines if event_in(line)]
    rows = expected_rows(events, zone)
    invalid = sum(repaired(line) != line.decode("utf-8", "surrogateescape") for line in events)
    return Truth(len(events), len(rows), checksum(rows), len(lines) - len(events), invalid)
