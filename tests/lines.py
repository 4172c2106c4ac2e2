"""Exports of a single day whose lines are written by the test."""

from collections import Counter
from pathlib import Path
from typing import Any

import httpx
from support import answering, export, query, simulator

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
