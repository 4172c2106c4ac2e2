"""Which lines of a chunk are to be inserted, against a model that compares each with every other one."""

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from datetime import UTC, date, datetime
from itertools import compress, pairwise
from pathlib import Path
from tempfile import TemporaryDirectory

import duckdb
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mixpanel_export._model import Block, Chunk, ChunkEnd, ChunkStart
from mixpanel_export._writer.extract import Findings, LoadError, Text
from mixpanel_export._writer.load import examine
from mixpanel_export._writer.staging import Buffers, Staged, Staging

DAY = Chunk(date(2024, 3, 1), date(2024, 3, 1))
NOW = datetime(2024, 6, 1, tzinfo=UTC)
# Members as they were sent, then what their text is.
TEXTS = {
    "1709251200": "1709251200",
    "1709251200.0": "1709251200.0",
    '"x"': "x",
    "null": None,
    "-0": "-0",
    '"-0"': "-0",
}
IDS = {
    '"i"': "i",
    "7": "7",
    '"7"': "7",
    "0": "0",
    "-0": "-0",
    '"-0"': "-0",
    '"\\u0069"': "i",
    '""': "",
    "null": None,
}

events = st.fixed_dictionaries(
    {
        "event": st.sampled_from(["a", "b", "\u00e9"]),
        "time": st.sampled_from(list(TEXTS)),
        "id": st.sampled_from(list(IDS)),
        "processed": st.sampled_from(["1", "2", "2.5", '"2"', "null"]),
        "note": st.sampled_from(["", "n"]),
    }
)
Event = dict[str, str]


def properties(event: Event) -> str:
    members = {"time": event["time"], "$insert_id": event["id"], "mp_processing_time_ms": event["processed"]}
    sent = ",".join(f'"{name}":{value}' for name, value in members.items())
    return f'{{{sent},"note":"{event["note"]}"}}'


def line(event: Event) -> bytes:
    return f'{{"event":{json.dumps(event["event"])},"properties":{properties(event)}}}\n'.encode()


def winners(sent: Sequence[Event]) -> list[Event]:
    """Return the events that are kept."""
    best: dict[object, Event] = {}
    for number, event in enumerate(sent):
        # What DuckDB makes one text of -0 and "-0", it makes two keys of, and these are no rivals.
        odd = event["id"] == "-0"
        identity = (event["event"], TEXTS[event["time"]], IDS[event["id"]], odd)
        key = identity if IDS[event["id"]] else number
        best[key] = max(event, best.get(key, event), key=rank)
    return list(best.values())


def rank(event: Event) -> tuple[bool, float, str]:
    processed = json.loads(event["processed"])
    return processed is not None, float(processed or 0), properties(event)


@contextmanager
def staged(blocks: Iterable[bytes], *, memory: int, budget: int) -> Iterator[tuple[Staging, Staged]]:
    with (
        TemporaryDirectory() as folder,
        closing(Staging(Path(folder, "db"), {DAY: 1}, memory=memory, budget=budget)) as staging,
    ):
        staging.start(ChunkStart(DAY))
        lines = 0
        for block in blocks:
            lines += block.count(b"\n")
            if not staging.keep(Block(DAY, block)):
                staging.add(Block(DAY, block))
        yield staging, staging.end(ChunkEnd(DAY, NOW, attempts=1, bytes_read=1, lines=lines))


def kept(staging: Staging, chunk: Staged) -> Counter[bytes]:
    findings = Findings(staging.columns, staging.columns_file(chunk))
    with duckdb.connect() as connection:
        ready = examine(connection, Text(chunk, Buffers()), "UTC", findings, dedupe=True)
    return Counter(compress(chunk.all_lines(), ready.kept))


@given(
    sent=st.lists(events, max_size=12),
    cuts=st.lists(st.integers(0, 12), max_size=3).map(sorted),
    memory=st.sampled_from([0, 200, 1 << 20]),
    budget=st.sampled_from([1, 1 << 30]),
    page=st.sampled_from([1, 1500, 8 << 20]),
)
def test_of_equal_events_the_winner_is_kept(
    sent: list[Event], cuts: list[int], memory: int, budget: int, page: int
) -> None:
    """Wherever blocks end and lie, and however many lines are compared at once, the others stay out."""
    places = [0, *cuts, len(sent)]
    blocks = [b"".join(map(line, sent[first:last])) for first, last in pairwise(places)]
    with (
        pytest.MonkeyPatch.context() as patch,
        staged(filter(None, blocks), memory=memory, budget=budget) as (staging, chunk),
    ):
        patch.setattr("mixpanel_export._writer.load._TEXT", page)
        assert kept(staging, chunk) == Counter(line(event) for event in winners(sent))


def test_lines_that_changed_are_not_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is read again must be whole events as before: else another line would be left out."""
    twice = line({"event": "a", "time": "1709251200", "id": '"i"', "processed": "1", "note": ""}) * 2
    with staged([twice], memory=0, budget=1 << 30) as (staging, chunk):
        monkeypatch.setattr(Staged, "some", lambda *_: iter([twice[:-5] + b"\n"]))
        with pytest.raises(LoadError, match="is no longer what it was"):
            kept(staging, chunk)
