"""A person's events of several days, and the deletion of persons in one call."""

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest
from support import answering, export, simulator

from mixpanel_export import ForgetResult, Workspace, run_sync

FIRST, LAST = "2024-03-01", "2024-03-03"
ID = "zebra-9f31"

_full: list[bytes] = []
"""The contents of the file of `full`, once a test has used it."""


def line(number: int, day: str | None = FIRST, person: str = ID, **properties: object) -> bytes:
    """Return an event at noon of *day*, at no time if that is None."""
    time = (
        None if day is None else int(datetime.fromisoformat(f"{day}T12:00").replace(tzinfo=UTC).timestamp())
    )
    values = {"time": time, "distinct_id": person, "$insert_id": f"i{number}"} | properties
    return json.dumps({"event": "e", "properties": values}).encode()


def load(db: Path, days: Mapping[str, Sequence[bytes]], **options: Any) -> list[str]:
    """Export the lines of each day, one batch a day, and return the days that were requested."""
    requested = []

    def body(request: httpx.Request) -> bytes:
        day = request.url.params["from_date"]
        requested.append(day)
        lines = [*days.get(day, ()), line(0, day, "nobody")]  # a body must end with an event
        return b"".join(each + b"\n" for each in lines)

    usual: dict[str, Any] = {"transport": answering(body), "chunk_days": 1, "mode": "resume"}
    run_sync(export, simulator(), db, FIRST, LAST, **(usual | options))
    return requested


def forget(db: Path, *ids: str, **options: Any) -> ForgetResult:
    with Workspace(path=db) as workspace:
        return workspace.forget(*ids, **options)


@pytest.fixture
def days() -> dict[str, list[bytes]]:
    """Events of two people, duplicates across batches, strays, and lines that are not events."""
    return {
        FIRST: [
            line(1), line(2, LAST), line(3, None), line(4, person="other"), line(5, "2020-01-01", "other"),
            b'{"event":"e","properties":{"distinct_id":"\\u007aebra-9f31", "time" 5',
            b'{"event":"e","properties":{"distinct_id":"zebra-9f312"',
        ],
        LAST: [
            line(2, LAST), line(3, None), line(6, LAST, "other"),
            line(7, LAST, text="\ud800"), b"zebra-9f31", b"no event",
        ],
    }  # fmt: skip


@pytest.fixture
def full(db: Path, days: dict[str, list[bytes]]) -> Path:
    """A file with these events, a copy of the first one."""
    if not _full:
        load(db, days)
        _full.append(db.read_bytes())
    else:
        db.write_bytes(_full[0])
    return db
