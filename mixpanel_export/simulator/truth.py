"""What an exporter must end up with, worked out from the records and never from an exporter's code.

The rules are the ones every exporter of Mixpanel has to keep: an event is identified by its name,
distinct_id, time and $insert_id, compared as text; without a $insert_id it is never a duplicate; of
duplicates the one with the largest mp_processing_time_ms stays, then the one with the greatest text.
"""

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal, InvalidOperation
from hashlib import blake2b
from typing import NamedTuple

from mixpanel_export.simulator.content import NAMES
from mixpanel_export.simulator.events import Record

EPOCH = datetime(1970, 1, 1)  # noqa: DTZ001 - rows carry naive UTC, as a TIMESTAMP column does
MILLISECONDS_FROM = 10**11
"""A number from here on counts milliseconds, below it seconds."""


class Row(NamedTuple):
    """One event as a table holds it; `event_time` is naive UTC, `properties` the exact text."""

    event_name: str | None
    event_time: datetime | None
    distinct_id: str | None
    insert_id: str | None
    properties: str


@dataclass(frozen=True, slots=True)
class Truth:
    """What a range of days holds: lines sent, events left after deduplication, and their checksum."""

    rows: int = 0
    distinct: int = 0
    checksum: int = 0

    def __add__(self, other: "Truth") -> "Truth":
        """Truth of two ranges without a day in common."""
        return Truth(
            self.rows + other.rows,
            self.distinct + other.distinct,
            (self.checksum + other.checksum) % 2**128,
        )


def checksum(rows: Iterable[tuple[str | None, datetime | None, str | None, str | None, str]]) -> int:
    """A number that depends on the set of *rows* (all columns, exact text, multiplicity), not on their order."""
    return sum(map(_digest, rows)) % 2**128


def truth_of(records: Iterable[Record]) -> Truth:
    """Return the truth about one day's *records*, which are gone through once."""
    counted = _Counter(records)
    distinct = total = 0
    for row in deduplicated(counted):
        distinct += 1
        total += _digest(row)
    return Truth(counted.seen, distinct, total % 2**128)


def deduplicated(records: Iterable[Record]) -> Iterator[Row]:
    """Yield the rows that stay, in no particular order."""
    winners: dict[tuple[int, str | None, str | None, str], Record] = {}
    for record in records:
        insert_id = text(record[3])
        if not insert_id:
            yield row(record)
            continue
        identity = (record[0], text(record[2]), text(record[1]), insert_id)
        best = winners.get(identity)
        # UTF-8 sorts as the code points it encodes do.
        if best is None or record[4:] > best[4:]:
            winners[identity] = record
    yield from map(row, winners.values())


def row(record: Record) -> Row:
    """The record as a table holds it."""
    name, time, distinct_id, insert_id, _, properties = record
    return Row(NAMES[name], event_time(time), text(distinct_id), text(insert_id), properties.decode())


def text(value: bytes) -> str | None:
    """A JSON scalar as text: strings without quotes, null and absent as None, the rest as written."""
    if value in {b"", b"null"}:
        return None
    if value[0] != ord('"'):
        return value.decode()
    if b"\\" in value:
        return str(json.loads(value))
    return value[1:-1].decode()


def event_time(value: bytes) -> datetime | None:
    """The moment a `time` property means, as naive UTC; None where it means none."""
    if value.isdigit() and len(value) == 10:
        return EPOCH + timedelta(seconds=int(value))
    written = text(value)
    if written is None:
        return None
    try:
        return _from_number(Decimal(written))
    except InvalidOperation:
        return _from_iso(written)


def _from_number(number: Decimal) -> datetime:
    whole = int(number)
    if abs(whole) < MILLISECONDS_FROM:
        return EPOCH + timedelta(seconds=whole)
    return EPOCH + timedelta(milliseconds=whole)


def _from_iso(written: str) -> datetime | None:
    try:
        moment = datetime.fromisoformat(written)
    except ValueError:
        return None
    return moment.astimezone(UTC).replace(tzinfo=None) if moment.tzinfo else moment


def _digest(values: tuple[str | None, datetime | None, str | None, str | None, str]) -> int:
    name, moment, distinct_id, insert_id, properties = values
    micros = None if moment is None else (moment - EPOCH) // timedelta(microseconds=1)
    hashed = blake2b(ascii((name, micros, distinct_id, insert_id)).encode(), digest_size=16)
    hashed.update(properties.encode("utf-8", "surrogatepass"))
    return int.from_bytes(hashed.digest())


class _Counter:
    """An iterable that knows how many records went through it."""

    def __init__(self, records: Iterable[Record]) -> None:
        self._records = records
        self.seen = 0

    def __iter__(self) -> Iterator[Record]:
        for record in self._records:
            self.seen += 1
            yield record
