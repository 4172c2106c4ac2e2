"""Computes the correct result of an export from the records, without using an exporter's code.

The rules apply to every exporter for Mixpanel. Two events are duplicates if their name, distinct_id, time and $insert_id
are equal as text. An event without $insert_id is never a duplicate. Among duplicates, the event with the largest
mp_processing_time_ms remains. If several have the largest, the one whose properties sort last as text remains. Invalid
text is repaired before it is compared and stored.
"""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, tzinfo
from decimal import Decimal
from hashlib import blake2b
from typing import NamedTuple

from mixpanel_export.simulator.content import NAMES, text
from mixpanel_export.simulator.events import Record
from mixpanel_export.simulator.zone import EPOCH, utc_of

MILLISECONDS_FROM = 10**11
"""Numbers from this one on are milliseconds; smaller numbers are seconds."""

_NUMBER = re.compile(r"-?\d+(\.\d+)?([eE][+-]?\d+)?", re.ASCII)


class Row(NamedTuple):
    """An event's row in a table. `event_time` is naive UTC; `properties` is the exact text."""

    event_name: str | None
    event_time: datetime | None
    distinct_id: str | None
    insert_id: str | None
    properties: str


@dataclass(frozen=True, slots=True)
class Truth:
    """The correct result of exporting a range of days.

    Attributes:
        rows: Number of events that are sent.
        distinct: Number of events after deduplication.
        checksum: Checksum of the events after deduplication.
        rejects: Number of lines sent that are not events.
        repaired: Number of events sent as invalid JSON.
    """

    rows: int = 0
    distinct: int = 0
    checksum: int = 0
    rejects: int = 0
    repaired: int = 0

    @property
    def duplicates(self) -> int:
        """Number of events that deduplication removes."""
        return self.rows - self.distinct

    def __add__(self, other: "Truth") -> "Truth":
        """Add the truth for another range that has no events in common with this one."""
        return Truth(
            self.rows + other.rows,
            self.distinct + other.distinct,
            (self.checksum + other.checksum) % 2**128,
            self.rejects + other.rejects,
            self.repaired + other.repaired,
        )


def checksum(rows: Iterable[tuple[str | None, datetime | None, str | None, str | None, str]]) -> int:
    """Return a checksum of *rows*. It depends on all columns, the exact text and repetitions, but not on the order."""
    return sum(map(_digest, rows)) % 2**128


def expected_result(records: Iterable[Record], zone: tzinfo = UTC) -> Truth:
    """Return the correct result for *records* in a project with the time zone *zone*. An iterator is consumed."""
    counter = _Counter(records)
    distinct = total = 0
    for row in deduplicated(counter, zone):
        distinct += 1
        total += _digest(row)
    return Truth(counter.records, distinct, total % 2**128, counter.rejects, counter.repaired)


def deduplicated(records: Iterable[Record], zone: tzinfo = UTC) -> Iterator[Row]:
    """Yield the rows that remain after deduplication, in no particular order."""
    winners: dict[tuple[int, str | None, str | None, str], Record] = {}
    for record in records:
        insert_id = text(record[3])
        if not insert_id:
            yield row(record, zone)
            continue
        identity = (record[0], text(record[2]), text(record[1]), insert_id)
        best = winners.get(identity)
        # UTF-8 bytes sort in the same order as code points, so bytes can be compared.
        if best is None or record[4:6] > best[4:6]:
            winners[identity] = record
    for record in winners.values():
        yield row(record, zone)


def row(record: Record, zone: tzinfo = UTC) -> Row:
    """Return the table row for the record."""
    name, time, distinct_id, insert_id, _, properties, _ = record
    return Row(NAMES[name], event_time(time, zone), text(distinct_id), text(insert_id), properties.decode())


def event_time(value: bytes, zone: tzinfo = UTC) -> datetime | None:
    """Convert a `time` property to naive UTC; None if it cannot be parsed.

    If *zone* is not UTC, a value without an offset is local time in *zone*.
    """
    try:
        if value.isdigit() and len(value) == 10:
            local: datetime | None = EPOCH + timedelta(seconds=int(value))
        else:
            local = _parsed_time(text(value) or "")
        if local is None or (zone is UTC and local.tzinfo is None):
            return local
        return utc_of(local, local.tzinfo or zone)
    except OverflowError:
        return None


def _parsed_time(value: str) -> datetime | None:
    """Return the time in *value*, which is naive if *value* has no offset; None if *value* is not a time."""
    if _NUMBER.fullmatch(value):
        number = Decimal(value)
        if abs(number) < MILLISECONDS_FROM:
            return EPOCH + timedelta(seconds=int(number))
        # Times after the year 9999 overflow anyway; the bound avoids huge integers.
        return EPOCH + timedelta(milliseconds=int(min(max(number, Decimal("-1e15")), Decimal("1e15"))))
    try:
        return datetime.fromisoformat(value)
    except ValueError:
        return None


def _digest(values: tuple[str | None, datetime | None, str | None, str | None, str]) -> int:
    name, moment, distinct_id, insert_id, properties = values
    micros = None if moment is None else (moment - EPOCH) // timedelta(microseconds=1)
    hashed = blake2b(ascii((name, micros, distinct_id, insert_id)).encode(), digest_size=16)
    hashed.update(properties.encode("utf-8", "surrogatepass"))
    return int.from_bytes(hashed.digest())


class _Counter:
    """Counts the records, rejects and repaired events that pass through an iteration."""

    def __init__(self, records: Iterable[Record]) -> None:
        self._source = records
        self.records = self.rejects = self.repaired = 0

    def __iter__(self) -> Iterator[Record]:
        for record in self._source:
            self.records += 1
            sent = record[6]
            if sent is not None:
                self.rejects += sent.rejects
                self.repaired += sent.repaired
            yield record
