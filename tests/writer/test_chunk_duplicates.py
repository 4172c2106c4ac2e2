"""Which lines of a chunk to insert, compared with a model that compares every pair of lines."""

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from datetime import UTC, date, datetime
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import duckdb
import pytest
from examples import examples
from hypothesis import given
from hypothesis import strategies as st

from mixpanel_export._database.connection import Connection
from mixpanel_export._model import Block, Chunk, ChunkEnd, ChunkStart
from mixpanel_export._writer.arrow import LINE, ExtractedColumns
from mixpanel_export._writer.chunk_duplicates import PAGE_SIZE, comparison, duplicate_positions
from mixpanel_export._writer.extract import Extraction, ExtractionStatement, LoadError
from mixpanel_export._writer.prepared import ArrowTable
from mixpanel_export._writer.staging import StagedChunk, Staging

DAY = Chunk(date(2024, 3, 1), date(2024, 3, 1))
NOW = datetime(2024, 6, 1, tzinfo=UTC)
LATER = NOW.replace(tzinfo=None)
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
def staged(blocks: Iterable[bytes], *, budget: int) -> Iterator[tuple[Staging, StagedChunk]]:
    with (
        TemporaryDirectory() as folder,
        closing(Staging(Path(folder, "db"), budget=budget, segment_size=1)) as staging,
    ):
        staging.start(ChunkStart(DAY, 1))
        size = 0
        for block in blocks:
            size += len(block)
            staging.add(Block(DAY, (block,)))
        yield staging, staging.end(ChunkEnd(DAY, NOW, attempts=1, bytes_read=1, size=size))


def extracted(connection: Connection, staging: Staging, chunk: StagedChunk) -> Extraction:
    statement = ExtractionStatement(ArrowTable(connection, LINE), "UTC")

    def store(arrays: Sequence[Any]) -> ExtractedColumns:
        return ExtractedColumns(arrays, staging.columns, staging.columns_file())

    return Extraction(
        [statement.extract(segment.text(), (LATER, LATER), store) for segment in chunk.segments]
    )


def unique_lines(staging: Staging, chunk: StagedChunk, page_size: int = PAGE_SIZE) -> Counter[bytes]:
    """Return the lines of the chunk that duplicate no better one."""
    with duckdb.connect() as connection:
        extraction = extracted(connection, staging, chunk)
        duplicates = set(
            duplicate_positions(comparison(ArrowTable(connection, LINE)), chunk, extraction, page_size)
        )
    return Counter(line for place, line in enumerate(chunk.all_lines()) if place not in duplicates)


@given(
    sent=st.lists(events, max_size=12),
    cuts=st.lists(st.integers(0, 12), max_size=3).map(sorted),
    budget=st.sampled_from([1, 1 << 30]),
    page=st.sampled_from([1, 1500, 8 << 20]),
)
@examples(core=12, full=100)
def test_of_equal_events_the_winner_is_kept(
    sent: list[Event], cuts: list[int], budget: int, page: int
) -> None:
    """Wherever blocks start and end, and however many lines are compared at once, the others are not inserted."""
    places = [0, *cuts, len(sent)]
    blocks = [b"".join(map(line, sent[first:last])) for first, last in pairwise(places)]
    with staged(filter(None, blocks), budget=budget) as (staging, chunk):
        assert unique_lines(staging, chunk, page) == Counter(line(event) for event in winners(sent))


def test_lines_that_changed_are_not_compared() -> None:
    """When staged lines are read again, they must be the extracted lines; otherwise, the wrong line would be omitted."""
    twice = line({"event": "a", "time": "1709251200", "id": '"i"', "processed": "1", "note": ""}) * 2
    with staged([twice], budget=1 << 30) as (staging, chunk), duckdb.connect() as connection:
        extraction = extracted(connection, staging, chunk)
        path = chunk.path
        path.write_bytes(path.read_bytes().replace(b"}}\n", b"}x\n", 1))
        with pytest.raises(LoadError, match="were changed"):
            duplicate_positions(comparison(ArrowTable(connection, LINE)), chunk, extraction)
