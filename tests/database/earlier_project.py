"""A project of eight days, as an earlier release exported it, and as it is today; imports nothing of ours.

`python tests/database/earlier_project.py FILE` writes the database with whichever release can be imported.
"""

import json
import sys
from collections.abc import AsyncIterator
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import anyio
import httpx

FIRST, FAILED, LAST = date(2024, 3, 1), date(2024, 3, 6), date(2024, 3, 8)
NOW = datetime(2024, 3, 9, 12, tzinfo=UTC)
"""When the earlier release exported: the last two days had not been over for 48 hours."""
LATER = datetime(2024, 6, 1, 12, tzinfo=UTC)
OPTIONS: dict[str, Any] = {"api_url": "http://127.0.0.1", "per_second": 0, "per_hour": 0, "chunk_days": 1}
SELECTIONS: dict[str, dict[str, Any]] = {
    "events": {},
    "sign_ups": {"events": ["Sign Up"], "to_date": date(2024, 3, 4)},
    "pacific": {"project_timezone": "US/Pacific", "to_date": date(2024, 3, 3)},
    "copies": {"dedupe": False, "to_date": date(2024, 3, 4)},
}
"""The tables, and what of the arguments is not the same for all."""


def event(name: str, day: date | None, hour: int, insert_id: str | None, **properties: Any) -> bytes:
    """Return a line; without a day the event has no time."""
    members: dict[str, Any] = {"distinct_id": "u1", **properties}
    if day is not None:
        members["time"] = int(datetime(day.year, day.month, day.day, hour, tzinfo=UTC).timestamp())
    if insert_id is not None:
        members["$insert_id"] = insert_id
    return json.dumps({"event": name, "properties": members}, separators=(",", ":")).encode()


def lines_of(day: date, *, late: bool) -> list[bytes]:
    """Return the lines of a day; *late* events of open days arrived after the export by the earlier release."""
    lines = [
        event(name, day, hour, f"{day}-{hour}", text="Übung", number=1e5)
        for hour, name in ((1, "Sign Up"), (5, "Page View"), (9, "Sign Up"))
    ]
    third, fourth = FIRST + timedelta(2), FIRST + timedelta(3)
    match day.day:
        case 1:  # two versions of an event, and events that nothing identifies
            lines += [
                event("Sign Up", day, 12, "twice", mp_processing_time_ms=number) for number in (2, 3, 1)
            ]
            lines += [event("Page View", day, 13, None)] * 2
        case 2:  # without a time; and an event of a later day, which that day has, too
            lines += [event("Page View", None, 0, "no time"), event("Sign Up", fourth, 7, "stray")]
        case 3:  # no event, and an event with a byte that JSON forbids
            lines[1:1] = [
                b"this line is no event",
                event("Page View", third, 14, "byte", t="!").replace(b"!", b"\xff"),
            ]
        case 4:
            lines += [event("Page View", None, 0, "no time", mp_processing_time_ms=1)]
            lines += [event("Sign Up", fourth, 7, "stray", mp_processing_time_ms=1)]
        case 5:
            return []
        case _ if late:
            lines += [event("Page View", day, 20, f"{day}-late")]
    return lines


class Project:
    """Answers requests; requests for a day in *fails* are refused."""

    def __init__(self, *, late: bool, fails: date | None = None) -> None:
        self.days: list[date] = []
        self._late = late
        self._fails = fails

    def transport(self) -> httpx.MockTransport:
        """Return a transport to the project."""
        return httpx.MockTransport(self._respond)

    def _respond(self, request: httpx.Request) -> httpx.Response:
        params = request.url.params
        first, last = (date.fromisoformat(params[name]) for name in ("from_date", "to_date"))
        days = [first + timedelta(number) for number in range((last - first).days + 1)]
        self.days += days
        if self._fails in days:
            return httpx.Response(500, stream=_Body(b"out of order"))
        names = json.loads(params["event"]) if "event" in params else None
        lines = [
            line
            for day in days
            for line in lines_of(day, late=self._late)
            if names is None
            or not line.startswith(b"{")
            or json.loads(line.decode(errors="replace"))["event"] in names
        ]
        return httpx.Response(200, stream=_Body(b"".join(line + b"\n" for line in lines)))


class _Body(httpx.AsyncByteStream):
    def __init__(self, content: bytes) -> None:
        self._content = content

    async def __aiter__(self) -> AsyncIterator[bytes]:
        if self._content:
            yield self._content


async def export_all(db: Path, project: Project, now: datetime, **options: Any) -> None:
    """Export all tables into the file."""
    from mixpanel_export import Credentials, export_events  # noqa: PLC0415 - of whichever release

    account = Credentials("demo.mp-service-account", "demo-secret", "12345")
    for table, selection in SELECTIONS.items():
        arguments: dict[str, Any] = {"from_date": FIRST, "to_date": LAST, **OPTIONS, **selection, **options}
        await export_events(
            db=db,
            table=table,
            credentials=account,
            transport=project.transport(),
            now=lambda: now,
            **arguments,
        )


if __name__ == "__main__":
    anyio.run(lambda: export_all(Path(sys.argv[1]), Project(late=False, fails=FAILED), NOW, retries=0))
