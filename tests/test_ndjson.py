"""Lines of another shape, and lines that have to be repaired."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mixpanel_export._ndjson import Canonical, canonical


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"terminated early",
        b'{"error":',
        b'{"error":"x"}',
        b"[]",
        b"{}",
        b'{"event":"e"}',
        b'{"event":1,"properties":{}}',
        b'{"event":"e","properties":[]}',
        b'{"event":"e","properties":{}} x',
        b'{"event":"e","properties":{}',
        b'{"event":"e" "properties":{}}',
        b'{1:"e","properties":{}}',
        b'{"event" "e","properties":{}}',
        b'{"event":"e","properties":' + b"[" * 100_000,
    ],
)
def test_what_is_no_event(line: bytes) -> None:
    """Anything but a JSON object with a text and an object under the two names is refused, however deep."""
    assert canonical(line) is None


@given(st.binary(max_size=200))
def test_any_bytes_are_an_event_or_not(line: bytes) -> None:
    """No bytes make it raise, and what it returns is an event in the canonical shape."""
    found = canonical(b'{"event":"' + line + b'","properties":{}}')
    if found is not None:
        event = json.loads(found.line)
        assert found.line.startswith(b'{"event":"')
        assert isinstance(event["event"], str)


@given(st.text(), st.dictionaries(st.text(), st.text()), st.booleans())
def test_a_sound_line_is_not_changed(event: str, properties: dict[str, str], ascii_only: bool) -> None:
    """The canonical form of a canonical line is itself."""
    line = json.dumps(
        {"event": event, "properties": properties}, separators=(",", ":"), ensure_ascii=ascii_only
    ).encode("utf-8", "surrogatepass")
    assert canonical(line) == Canonical(line, repaired=False)
