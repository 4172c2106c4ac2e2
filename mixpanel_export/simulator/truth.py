"""What an exporter must end up with, worked out from the records and never from an exporter's code.

The rules are the ones every exporter of Mixpanel has to keep: an event is identified by its name,
distinct_id, time and $insert_id, compared as text; without a $insert_id it is never a duplicate; of
duplicates the one with the largest mp_processing_time_ms stays, then the one with the greatest text.
What is broken is compared, and kept, as it must be repaired.
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
"""A number from here on counts milliseconds, below it seconds."""

_NUMBER = re.compile(r"-?\d+(\.\d+)?([eE][+-]?\d+)?", re.ASCII)


class Row(NamedTuple):
    """One event as a table holds it; `event_time` is naive UTC, `properties` the exact text."""

    event_name: str | None
    event_time: datetime | None
    distinct_id: str | None
    insert_id: str | None
    properties: str


@dataclass(frozen=True, slots=True)
class Truth:
    """What a range of days holds.

    `rows` events are sent, of which `distinct` are left after deduplication, with this checksum. Beside them
    `rejects` lines are sent that are no events, and `repaired` of the events sent are broken JSON.
    """

    rows: int = 0
    distinct: int = 0
    checksum: int = 0
    rejects: int = 0
    repaired: int = 0

    @property
    def duplicates(self) -> int:
        """How many events are sent in vain."""
        return self.rows - self.distinct

    def __add__(self, other: "Truth") -> "Truth":
        """Truth of two ranges without an event in common."""
        return Truth(
            self.rows + other.rows,
            self.distinct + other.distinct,
            (self.checksum + other.checksum) % 2**128,
            self.rejects + other.rejects,
            self.repaired + other.repaired,
        )


def checksum(rows: Iterable[tuple[str | None, datetime | None, str | None, str | None, str]]) -> int:
    """A number that depends on the set of *rows* (all columns, exact text, multiplicity), not on their order."""
    return sum(map(_digest, rows)) % 2**128


def truth_of(records: Iterable[Record], zone: tzinfo = UTC) -> Truth:
    """Return the truth about *records*, which are gone through once, in a project of *zone*."""
    counted = _Counter(records)
    distinct = total = 0
    for row in deduplicated(counted, zone):
        distinct += 1
        total += _digest(row)
    return Truth(counted.seen, distinct, total % 2**128, counted.rejects, counted.repaired)


def deduplicated(records: Iterable[Record], zone: tzinfo = UTC) -> Iterator[Row]:
    """Yield the rows that stay, in no particular order."""
    winners: dict[tuple[int, str | None, str | None, str], Record] = {}
    for record in records:
        insert_id = text(record[3])
        if not insert_id:
            yield row(record, zone)
            continue
        identity = (record[0], text(record[2]), text(record[1]), insert_id)
        best = winners.get(identity)
        # UTF-8 sorts as the code points it encodes do.
        if best is None or record[4:6] > best[4:6]:
            winners[identity] = record
    for record in winners.values():
        yield row(record, zone)


def row(record: Record, zone: tzinfo = UTC) -> Row:
    """The record as a table holds it."""
    name, time, distinct_id, insert_id, _, properties, _ = record
    return Row(NAMES[name], event_time(time, zone), text(distinct_id), text(insert_id), properties.decode())


def event_time(value: bytes, zone: tzinfo = UTC) -> datetime | None:
    """The moment a `time` property means, as naive UTC; None where it means none.

    In a project of another *zone* it is what the wall clock there showed, unless it names its own offset.
    """
    try:
        if value.isdigit() and len(value) == 10:
            local: datetime | None = EPOCH + timedelta(seconds=int(value))
        else:
            local = _from_text(text(value) or "")
        if local is None or (zone is UTC and local.tzinfo is None):
            return local
        return utc_of(local, local.tzinfo or zone)
    except OverflowError:
        return None


def _from_text(written: str) -> datetime | None:
    """The time that *written* means, without a zone where it names none."""
    if _NUMBER.fullmatch(written):
        number = Decimal(written)
        if abs(number) < MILLISECONDS_FROM:
            return EPOCH + timedelta(seconds=int(number))
        # From the year 10000 on there is no calendar, and no need to write out the number.
        return EPOCH + timedelta(milliseconds=int(min(max(number, Decimal("-1e15")), Decimal("1e15"))))
    try:
        return datetime.fromisoformat(written)
    except ValueError:
        return None


def _digest(values: tuple[str | None, datetime | None, str | None, str | None, str]) -> int:
    name, moment, distinct_id, insert_id, properties = values
    micros = None if moment is None else (moment - EPOCH) // timedelta(microseconds=1)
    hashed = blake2b(ascii((name, micros, distinct_id, insert_id)).encode(), digest_size=16)
    hashed.update(properties.encode("utf-8", "surrogatepass"))
    return int.from_bytes(hashed.digest())


class _Counter:
    """An iterable that knows how many records went through it, and what was wrong with how many."""

    def __init__(self, records: Iterable[Record]) -> None:
        self._records = records
        self.seen = self.rejects = self.repaired = 0

    def __iter__(self) -> Iterator[Record]:
        for record in self._records:
            self.seen += 1
            sent = record[6]
            if sent is not None:
                self.rejects += sent.rejects
                self.repaired += sent.repaired
            yield record
