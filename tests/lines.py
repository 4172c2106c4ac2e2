"""Exports of a single day whose lines are written by the test, and the rows for lines."""

from collections import Counter
from collections.abc import Iterable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import httpx
from support import answering, export, query, simulator

from mixpanel_export._ndjson import member_text
from mixpanel_export._source.records import parse_event, to_row

Row = tuple[str | None, datetime | None, str | None, str | None, str]

ONE_DAY = ("2024-03-05", "2024-03-05")
END = b'{"event":"end","properties":{}}'
"""The last line of each answer, so that it is whole."""


def lines_of(*lines: bytes) -> httpx.MockTransport:
    """Return a transport that responds with these lines and the last one."""
    return answering(lambda _: b"\n".join([*lines, END]))


async def export_lines(db: Path, *lines: bytes) -> Any:
    """Export one day that has these lines."""
    return await export(simulator(), db, *ONE_DAY, transport=lines_of(*lines))


def texts(db: Path) -> Counter[str]:
    """Return the properties that the table has, without those of the last line."""
    return Counter(text for (text,) in query(db, "SELECT properties FROM events WHERE event_name <> 'end'"))


def rows_of(lines: Iterable[bytes]) -> Iterator[Row]:
    """Read the columns from lines, without the code that fills tables."""
    for line in lines:
        event = parse_event(line)
        assert event is not None
        row = to_row(event, line)
        time = row["event_time"]
        text = member_text(line.decode(), "properties")
        yield (
            row["event_name"],
            time and time.replace(tzinfo=None),
            row["distinct_id"],
            row["insert_id"],
            text,
        )
