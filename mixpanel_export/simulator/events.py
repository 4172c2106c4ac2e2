"""Deterministic events: the same seed and day give the same records, for any requested range.

Besides the text of the line, a record has the column values, so that the expected result need not be parsed from JSON. A
duplicate is on the same day as its original, a few hundred records later.
"""

from array import array
from collections import deque
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from random import Random
from typing import NamedTuple, TypedDict

from mixpanel_export.simulator.changes import Change
from mixpanel_export.simulator.content import DRAWN, NAME_TEXTS, Material, material
from mixpanel_export.simulator.zone import WallClock, zone_of


class Sent(NamedTuple):
    """The lines that are sent for a record, if they differ from `{"event":…,"properties":…}`.

    Attributes:
        lines: The event's line, preceded by *rejects* lines that are not events.
        repaired: Whether the event's line is invalid JSON. The record has the repaired values.
        rejects: Number of lines that are not events.
    """

    lines: bytes
    repaired: bool = False
    rejects: int = 0


Record = tuple[int, bytes, bytes, bytes, int, bytes, Sent | None]
"""The index of the event name; time, distinct_id and $insert_id as JSON text, empty if absent;
mp_processing_time_ms; properties as JSON text; the lines that are sent, if they are unusual."""

LATEST_HOURS = 40
"""The maximum delay between an event's time and its arrival, in hours."""

_WEEKDAYS = (1.12, 1.15, 1.16, 1.14, 1.08, 0.70, 0.65)  # Monday first; the sum is 7
_BATCH = 512
_DISTANCE = 500  # number of duplicates that are held back before the first one is sent
_LATEST_MS = LATEST_HOURS * 3_600_000


@dataclass(frozen=True, slots=True)
class Profile:
    """A project's events. Rates are shares of the events, from 0 to 1.

    Args:
        seed: Seed for the events, the order of lines, and the choice of requests to which a fault with a probability
            applies.
        events_per_day: Number of events on an average day, not counting duplicates, or a function that returns the
            number for a day.
        weekday_pattern: Whether weekends have fewer events than other days.
        first_day: First day with events.
        duplicates: Additional lines, most of which repeat the identity of an event.
        missing_insert_id: Events without `$insert_id`. If *odd* is positive, it can also be null or empty.
        late: Events that arrive up to 40 hours after their time.
        odd: Events with an unusual or missing time, distinct_id or `$insert_id`. Several exporters crash on these.
        awkward: Events with names, ids, values or line formats that break exporters, such as integers beyond 2^63 and
            lines that need repair; see `mixpanel_export.simulator.awkward`.
        rejects: Lines that are not events, each sent before an event.
        long_lines: Events with a long line, of at least a fifth of *long_line_bytes*.
        long_line_bytes: Maximum size of a long line, not counting the usual properties.
        leaks: Events that are sent with their day and also with the day before or after. All have an `$insert_id`.
        strays: Events that are sent *only* with the day before or after their day.
        timezone: IANA name of a legacy project's time zone. The times and days of such a project are local. None for a
            project in UTC.
        changes: Later changes to stored events.
        visible_after: Delay in seconds between an event's processing and its first appearance in a response.
        not_exported: Names of events that the Query API counts, but exports never send.
    """

    seed: int = 1
    events_per_day: int | Callable[[date], int] = 1000
    weekday_pattern: bool = True
    first_day: date = date(2023, 1, 1)
    duplicates: float = 0.015
    missing_insert_id: float = 0.01
    late: float = 0.05
    odd: float = 0.0
    awkward: float = 0.0
    rejects: float = 0.0
    long_lines: float = 0.0
    long_line_bytes: int = 5_000_000
    leaks: float = 0.0
    strays: float = 0.0
    timezone: str | None = None
    changes: Sequence[Change] = ()
    visible_after: float = 0.0
    not_exported: Collection[str] = ()

    def events_on(self, day: date) -> int:
        """Return the number of events on *day*, not counting duplicates."""
        if day < self.first_day:
            return 0
        if callable(self.events_per_day):
            return self.events_per_day(day)
        share = _WEEKDAYS[day.weekday()] if self.weekday_pattern else 1.0
        return round(self.events_per_day * share)


class Content(TypedDict, total=False):
    """The fields of `Profile` as keyword arguments."""

    seed: int
    events_per_day: int | Callable[[date], int]
    weekday_pattern: bool
    first_day: date
    duplicates: float
    missing_insert_id: float
    late: float
    odd: float
    awkward: float
    rejects: float
    long_lines: float
    long_line_bytes: int
    leaks: float
    strays: float
    timezone: str | None
    changes: Sequence[Change]
    visible_after: float
    not_exported: Collection[str]


def line(record: Record) -> bytes:
    """Return the record as Mixpanel sends it, without the final newline."""
    if record[6] is not None:
        return record[6].lines
    return b"".join((b'{"event":', NAME_TEXTS[record[0]], b',"properties":', record[5], b"}"))


def in_milliseconds(record: Record) -> Record:
    """Return the record for a request with `time_in_ms`: a time in seconds is converted to milliseconds."""
    name, time, distinct_id, insert_id, processed, properties, sent = record
    if not (time.isdigit() and len(time) == 10):
        return record
    precise = b"%s%03d" % (time, processed % 1000)
    properties = properties.replace(time, precise, 1)
    if sent is not None:
        sent = sent._replace(lines=sent.lines.replace(time, precise, 1))
    return name, precise, distinct_id, insert_id, processed, properties, sent


def generated(profile: Profile, day: date) -> Iterator[Record]:
    """Yield a day's records, and duplicates of some of them."""
    draw = Random(f"{profile.seed}:{day}")
    pieces = material(profile.seed)
    start = int(datetime(day.year, day.month, day.day, tzinfo=UTC).timestamp())
    clock = WallClock(zone_of(profile.timezone), start) if profile.timezone else None
    left = profile.events_on(day)
    duplicated, pending = round(profile.duplicates * 65536), deque[Record]()
    while left > 0:
        size = min(_BATCH, left)
        left -= size
        picks = array("H")
        picks.frombytes(draw.randbytes(2 * size))
        for pick, (record, body) in zip(picks, _batch(profile, start, clock, draw, size), strict=True):
            yield record
            if pick < duplicated:
                pending.append(_duplicate(pieces, draw, start, record, body))
                if len(pending) > _DISTANCE:
                    yield pending.popleft()
    yield from pending


def _batch(
    profile: Profile, start: int, clock: WallClock | None, draw: Random, size: int
) -> Iterator[tuple[Record, bytes]]:
    """Yield records. Each comes with its properties except the identity and the processing time."""
    bits = array("Q")
    bits.frombytes(draw.randbytes(24 * size))
    ids = draw.randbytes(16 * size).hex().encode()
    late, without_id = round(profile.late * 65536), round(profile.missing_insert_id * 65536)
    unusual = without_id + round(profile.odd * 65536)
    no_id = _NO_ID if profile.odd else _NO_ID[:1]
    pieces = material(profile.seed)
    for i in range(size):
        time_bits, choice_bits, other_bits = bits[3 * i : 3 * i + 3]
        second = (
            _second(start, time_bits) if clock is None else clock.local_second(i, _second(start, time_bits))
        )
        moment = second if clock is None else clock.utc(second)
        delay = (
            (other_bits & 0xFFFFFFFF) * _LATEST_MS >> 32
            if (time_bits >> 44 & 0xFFFF) < late
            else 200 + (time_bits >> 32 & 0xFFF)
        )
        name, distinct_id, body = _pick_content(pieces, choice_bits, other_bits)
        time, insert_id = b"%d" % second, b'"%s"' % ids[32 * i : 32 * i + 32]
        pick = choice_bits >> 32 & 0xFFFF
        if pick < without_id:
            insert_id = no_id[pick % len(no_id)]
        elif pick < unusual:
            time, distinct_id, insert_id = _odd(choice_bits >> 48, second, moment, distinct_id, insert_id)
        processed = moment * 1000 + delay
        text = _text(time, distinct_id, insert_id, body, processed)
        yield (name, time, distinct_id, insert_id, processed, text, None), body


def _second(start: int, time_bits: int) -> int:
    """Return a random time on the day. It is the sum of two uniform draws, so most times are around noon."""
    return start + (((time_bits & 0xFFFF) + (time_bits >> 16 & 0xFFFF)) * 86_400 >> 17)


def _pick_content(pieces: Material, choice_bits: int, other_bits: int) -> tuple[int, bytes, bytes]:
    """Return the index of a name, a distinct_id, and the properties that belong to them."""
    name = DRAWN[choice_bits & 63]
    distinct_id, user = pieces.users[choice_bits >> 6 & 2047]
    parts = user, pieces.pages[other_bits >> 32 & 255], pieces.details[name][choice_bits >> 17 & 63]
    return name, distinct_id, b"".join((*parts, pieces.extras[choice_bits >> 23 & 511]))


_NO_ID = (b"", b'""', b"null")


def _odd(
    pick: int, second: int, moment: int, distinct_id: bytes, insert_id: bytes
) -> tuple[bytes, bytes, bytes]:
    """Return the time and ids. One of them is replaced with an unusual value that was observed or is possible.

    Times with an offset are derived from *moment*, the event's time in UTC, so that they are on the event's day.
    """
    time = b"%d" % second
    clock, utc = datetime.fromtimestamp(second, UTC), datetime.fromtimestamp(moment, UTC)
    abroad = utc + timedelta(hours=5, minutes=30)
    times = (
        b"",
        b"null",
        b"true",
        b'"%s"' % time,
        b'"%s.5"' % time,
        b"%s.75" % time,
        b"%s999" % time,
        b'"yesterday"',
        f'"{utc:%Y-%m-%dT%H:%M:%S}Z"'.encode(),
        f'"{clock:%Y-%m-%d %H:%M:%S}"'.encode(),
        f'"{abroad:%Y-%m-%dT%H:%M:%S}+05:30"'.encode(),
    )
    people = (b"", b'""', b"null", b"%d" % (10**15 + pick), rf'"J\u00f6rg \"{pick}\""'.encode())
    ids = (b"%d" % (10**9 + pick), rf'"\u00fc_{pick} ~#"'.encode())
    choice = pick % (len(times) + len(people) + len(ids))
    if choice < len(times):
        return times[choice], distinct_id, insert_id
    if choice < len(times) + len(people):
        return time, people[choice - len(times)], insert_id
    return time, distinct_id, ids[choice - len(times) - len(people)]


def _duplicate(pieces: Material, draw: Random, start: int, record: Record, body: bytes) -> Record:
    """Return a record with the same `$insert_id`: an equal record, one with other properties, or one at another time."""
    name, time, distinct_id, insert_id, processed, _, _ = record
    kind = draw.randrange(8)
    if kind < 3:
        return record
    if kind == 3 and time.isdigit() and len(time) == 10:
        second = int(time)
        time = b"%d" % (second + 1 if second + 1 < start + 86_400 else second - 1)
    else:
        body = b"".join((body, pieces.extras[draw.getrandbits(9)]))
        processed += draw.choice((0, 1, 700, 61_000))
    text = _text(time, distinct_id, insert_id, body, processed)
    return name, time, distinct_id, insert_id, processed, text, None


def _text(time: bytes, distinct_id: bytes, insert_id: bytes, body: bytes, processed: int) -> bytes:
    tail = (
        b',"$mp_api_endpoint":"api-js.mixpanel.com","$mp_api_timestamp_ms":%d,"mp_processing_time_ms":%d}'
        % (
            processed - 137,
            processed,
        )
    )
    if time and distinct_id and insert_id:
        return b"".join(
            (b'{"time":', time, b',"distinct_id":', distinct_id, b',"$insert_id":', insert_id, body, tail)
        )
    members = ((b'"time":', time), (b'"distinct_id":', distinct_id), (b'"$insert_id":', insert_id))
    return b"".join((b"{", b",".join(key + value for key, value in members if value), body, tail))
