"""A project whose days change between exports, and the contents that a table must then have."""

import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import anyio
import httpx
from support import COLUMNS, Body, export_from, query

from mixpanel_export import ParallelFetchResult

FIRST = date(2024, 3, 1)
DAYS = [FIRST + timedelta(days=day) for day in range(4)]
NAMES = ("a", "b")


class Line(NamedTuple):
    """An event as the server has it; `hour` counts from the first day, None for an event without a time."""

    event: str
    hour: int | None
    distinct_id: str
    insert_id: str | None
    processed: int | None
    note: str = ""

    @property
    def properties(self) -> str:
        """The text of the event's properties."""
        members: dict[str, Any] = {"distinct_id": self.distinct_id, "note": self.note}
        if self.hour is not None:
            members["time"] = _second(self.hour)
        if self.insert_id is not None:
            members["$insert_id"] = self.insert_id
        if self.processed is not None:
            members["mp_processing_time_ms"] = self.processed
        return json.dumps(members)

    @property
    def row(self) -> tuple[Any, ...]:
        """The event as the table has it."""
        time = None if self.hour is None else datetime.fromtimestamp(_second(self.hour), UTC)
        return (
            self.event,
            time and time.replace(tzinfo=None),
            self.distinct_id,
            self.insert_id,
            self.properties,
        )


def _second(hour: int) -> int:
    return int(datetime(FIRST.year, FIRST.month, FIRST.day, tzinfo=UTC).timestamp()) + 3600 * hour


def winners(lines: Iterable[Line]) -> list[Line]:
    """Of the lines with one identity the one processed last, then the one with the greatest text."""
    best: dict[object, Line] = {}
    for number, line in enumerate(lines):
        key = (line.event, line.hour, line.distinct_id, line.insert_id) if line.insert_id else number
        held = best.get(key)
        if held is None or _rank(line) > _rank(held):
            best[key] = line
    return list(best.values())


def _rank(line: Line) -> tuple[int, str]:
    return (-1 if line.processed is None else line.processed, line.properties)


@dataclass
class Server:
    """A project whose days contain what a test puts there. It records the requested days."""

    days: dict[date, list[Line]] = field(default_factory=lambda: {day: [] for day in DAYS})
    asked: list[tuple[date, date]] = field(default_factory=list)

    def transport(self) -> httpx.MockTransport:
        return httpx.MockTransport(self._answer)

    def lines(self, first: date, last: date, names: Iterable[str] | None) -> list[Line]:
        wanted = NAMES if names is None else names
        return [
            line
            for day in self.days
            if first <= day <= last
            for line in self.days[day]
            if line.event in wanted
        ]

    def _answer(self, request: httpx.Request) -> httpx.Response:
        params = request.url.params
        first, last = (date.fromisoformat(params[name]) for name in ("from_date", "to_date"))
        self.asked.append((first, last))
        names = json.loads(params["event"]) if "event" in params else None
        body = b"".join(
            f'{{"event":"{line.event}","properties":{line.properties}}}\n'.encode()
            for line in self.lines(first, last, names)
        )
        return httpx.Response(200, stream=Body([body]))


def run(server: Server, db: Path, first: date, last: date, **options: Any) -> ParallelFetchResult:
    """Export days of *server*, by default with one request per day."""
    arguments: dict[str, Any] = {"transport": server.transport(), "chunk_days": 1} | options
    return anyio.run(partial(export_from, db=db, first=first, last=last, **arguments))


def table(db: Path) -> Counter[tuple[Any, ...]]:
    """Return the rows of the table as a multiset."""
    return Counter(query(db, f"SELECT {COLUMNS} FROM events"))


def rows(lines: Iterable[Line]) -> Counter[tuple[Any, ...]]:
    """Return what a table with these events holds."""
    return Counter(line.row for line in lines)
